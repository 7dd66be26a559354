"""The networks: backbones, feature pyramid, region proposals, heads, the detector."""

from pfdet.functions import cpu_batch_normalization, cpu_convolution

cpu_convolution.install()
cpu_batch_normalization.install()
