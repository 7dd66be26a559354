"""Mixed precision: activations in float16, parameters and statistics in float32.

:func:`use_half_precision` changes a network in place. Convolutions and linear layers then round
their input and their weights to float16, sum products in float32, and return float16. So do the
tensor cores of GPUs, with less memory and time. The layers whose output is decoded to boxes or
compared with targets return float32; the losses, softmax and box coding are computed in float32
because of them. Batch normalization computes in float32 between float16 activations, and RoIAlign
averages in float32.

Parameters stay float32, so files of weights, momentum and all-reduce are those of float32, and a
model can be used in either precision.
"""

from typing import Any

import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np
from chainer.backends import cuda

from pfdet.links.faster_rcnn import FasterRCNN


class HalfConvolution2D(L.Convolution2D):
    """A convolution in half precision with parameters in float32."""

    out_dtype: type = np.float16

    def forward(self, x: Any) -> chainer.Variable:
        """Compute the convolution of float16 or float32 input."""
        x, W, b = _operands(x, self.W, self.b)
        y = F.convolution_2d(x, W, b, self.stride, self.pad, dilate=self.dilate, groups=self.groups)
        return F.cast(y, self.out_dtype)


class HalfLinear(L.Linear):
    """A linear layer in half precision with parameters in float32."""

    out_dtype: type = np.float16

    def forward(self, x: Any, n_batch_axes: int = 1) -> chainer.Variable:
        """Compute the layer for float16 or float32 input."""
        x, W, b = _operands(x, self.W, self.b)
        return F.cast(F.linear(x, W, b, n_batch_axes=n_batch_axes), self.out_dtype)


class LastConvolution2D(HalfConvolution2D):
    """The same with float32 output."""

    out_dtype = np.float32


class LastLinear(HalfLinear):
    """The same with float32 output."""

    out_dtype = np.float32


_HALF: dict[type, tuple[type, type]] = {
    L.Convolution2D: (HalfConvolution2D, LastConvolution2D),
    L.Linear: (HalfLinear, LastLinear),
}
_SINGLE = {half: single for single, halves in _HALF.items() for half in halves}


def _operands(x: Any, *parameters: Any) -> list[Any]:
    """Round input and parameters to float16.

    On the CPU they are converted back to float32, because NumPy multiplies float16 without BLAS.
    The results are the same up to the order of the sums.
    """
    on_cpu = cuda.get_array_module(x) is np
    rounded = []
    for a in (x, *parameters):
        if a is not None:
            a = F.cast(a, np.float16)
            a = F.cast(a, np.float32) if on_cpu else a
        rounded.append(a)
    return rounded


def use_half_precision(network: FasterRCNN) -> None:
    """Compute a detector in mixed precision.

    Args:
        network (FasterRCNN): The detector, with parameters in float32, modified in place. Its
            layers keep their parameters and names.
    """
    last = {id(link) for part in (network.rpn, network.head) for link in (part.loc, part.conf)}
    for link in network.links():
        if type(link) in _HALF:
            # Only the class changes: parameters, settings and names are those of the link.
            link.__class__ = _HALF[type(link)][id(link) in last]


def use_single_precision(network: chainer.Link) -> None:
    """Undo :func:`use_half_precision`.

    Args:
        network (link): A network or a part of it, modified in place.
    """
    for link in network.links():
        if type(link) in _SINGLE:
            link.__class__ = _SINGLE[type(link)]
