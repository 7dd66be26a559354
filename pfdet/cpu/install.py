"""The one place where Chainer's CPU functions are replaced."""

from pfdet.cpu import batch_normalization, convolution, elementwise, pooling

#: Which functions of Chainer are replaced, and by which module.
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
    """Make Chainer's functions use :mod:`pfdet.cpu` on NumPy arrays, in the whole process.

    What they compute stays the same up to rounding, for networks that are not pfdet's, too.
    :func:`pfdet.training.build.detector` calls this; calling it again changes nothing.
    """
    for module in dict.fromkeys(REPLACED.values()):
        module.install()
