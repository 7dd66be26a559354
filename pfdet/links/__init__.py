"""The networks: backbones, feature pyramid, region proposals, heads, the detector."""

from pfdet.functions import (
    cpu_batch_normalization,
    cpu_convolution,
    cpu_elementwise,
    cpu_pooling,
)

for _module in cpu_batch_normalization, cpu_convolution, cpu_elementwise, cpu_pooling:
    _module.install()
