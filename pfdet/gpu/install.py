"""Replacement of Chainer's GPU functions."""

from pfdet.gpu import batch_normalization, convolution, cudnn, elementwise

#: The replaced functions of Chainer, and the module that replaces each.
REPLACED = {
    'chainer.functions.convolution_2d': convolution,
    'chainer.functions.deconvolution_2d': convolution,
    'chainer.functions.batch_normalization': batch_normalization,
    'chainer.functions.fixed_batch_normalization': elementwise,
    'chainer.functions.relu': elementwise,
    'chainer.Variable.__add__': elementwise,
    'chainer.Variable.__mul__': elementwise,
}


def install() -> None:
    """Make Chainer's functions use :mod:`pfdet.gpu` for CuPy arrays, in the whole process.

    Without a GPU, without cuDNN 9 and its front end, and where Chainer itself calls cuDNN, nothing
    is replaced. :func:`pfdet.training.build.detector` calls this. Repeated calls have no effect.
    """
    if cudnn.front_end() is None:
        return
    for module in dict.fromkeys(REPLACED.values()):
        module.install()
