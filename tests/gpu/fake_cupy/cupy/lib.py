"""The parts of ``cupy.lib`` that Chainer uses."""

import types

import numpy as np

from cupy.array import unwrap, wrap


def _as_strided(x, shape=None, strides=None):
    return wrap(np.lib.stride_tricks.as_strided(unwrap(x), shape, strides))


stride_tricks = types.SimpleNamespace(as_strided=_as_strided)
