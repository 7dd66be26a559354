"""Replacement of Chainer's CPU functions."""

from pfdet.cpu import batch_normalization, convolution, elementwise, pooling

#: The replaced functions of Chainer, and the module that replaces each.
REPLACED = {
    'chainer.functions.convolution_2d': convolution,
    'chainer.functions.deconvolution_2d': convolution,
    'chainer.functions.batch_normalization': batch_normalization,
    'chainermn.links.MultiNodeBatchNormalization': batch_normalization,
    'chainer.functions.relu': elementwise,
    'chainer.Variable.__add__': elementwise,
    'chainer.functions.max_pooling_2d': pooling,
}


def install() -> None:
    """Make Chainer's functions use :mod:`pfdet.cpu` for NumPy arrays, in the whole process.

    The functions compute the same results up to rounding, also in networks outside pfdet.
    :func:`pfdet.training.build.detector` calls this. Repeated calls have no effect.
    """
    for module in dict.fromkeys(REPLACED.values()):
        module.install()
