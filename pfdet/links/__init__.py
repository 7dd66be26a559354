"""The networks: backbones, feature pyramid, region proposals, heads, the detector."""

from pfdet.functions import cpu_convolution

cpu_convolution.install()
