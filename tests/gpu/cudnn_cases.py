"""Operations that cuDNN must take, and operations that it refuses.

``check_cudnn_graphs.py`` asks cuDNN 9 itself, and ``test_cudnn.py`` the stand-in of the tests. This
module needs neither Chainer nor CuPy.
"""

from pfdet.gpu.graphs import Operation, contiguous_layout, statistics_layout


def convolution_operations(
    x, W, stride, pad, dilate=1, dtype='float32', last=False, tensor_cores=False
):
    """Return the forward pass and both gradients of a convolution."""
    out = (
        x[0],
        W[0],
        *(
            (n + 2 * pad - dilate * (k - 1) - 1) // stride + 1
            for n, k in zip(x[2:], W[2:], strict=True)
        ),
    )
    lx, lW, ly = (contiguous_layout(shape, last, dtype) for shape in (x, W, out))
    settings = ((stride, stride), (pad, pad), (dilate, dilate))
    return [
        Operation('convolution', (lx, lW), (ly,), settings, tensor_cores=tensor_cores),
        Operation('input_gradient', (ly, lW), (lx,), settings, tensor_cores=tensor_cores),
        Operation('filter_gradient', (lx, ly), (lW,), settings, tensor_cores=tensor_cores),
    ]


def normalization_operations(x, dtype='float16', last=True):
    """Return the forward pass and the gradient of batch normalization."""
    layout, channel = contiguous_layout(x, last, dtype), statistics_layout(x[1])
    return [
        Operation(
            'batch_normalization',
            (layout, *[channel] * 4),
            (layout, *[channel] * 4),
            scalars=(2e-5, 0.0),
        ),
        Operation(
            'batch_normalization_gradient',
            (layout, layout, *[channel] * 3),
            (layout, channel, channel),
        ),
    ]


def scaled(convolutions, n_image, scales):
    """Shapes of stored convolutions (``convolutions.json``) at a larger image size."""
    for c in convolutions:
        channel, *size = c['input']
        x = (n_image, channel, *(n * s for n, s in zip(size, scales, strict=True)))
        yield x, tuple(c['filters']), c['stride'], c['pad'], c['dilate']


def _layout(shape, dtype='float32', last=False, strides=None):
    layout = contiguous_layout(shape, last, dtype)
    return layout if strides is None else layout._replace(strides=strides)


def _forward(x, W, y, settings=((1, 1), (1, 1), (1, 1))):
    return Operation('convolution', (x, W), (y,), settings)


_X, _W, _Y = _layout((2, 8, 9, 11)), _layout((16, 8, 3, 3)), _layout((2, 16, 9, 11))

#: Operations that cuDNN refuses, by name.
REFUSED = {
    'filters with more channels than the input': _forward(_X, _layout((16, 16, 3, 3)), _Y),
    'filters whose channels do not divide those of the input': _forward(
        _X, _layout((16, 3, 3, 3)), _Y
    ),
    'filters that the number of groups does not divide': _forward(
        _X, _layout((15, 4, 3, 3)), _layout((2, 15, 9, 11))
    ),
    'an output that is too high': _forward(_X, _W, _layout((2, 16, 10, 11))),
    'an output with other channels': _forward(_X, _W, _layout((2, 8, 9, 11))),
    'an output of another batch': _forward(_X, _W, _layout((3, 16, 9, 11))),
    'an empty batch': _forward(_layout((0, 8, 9, 11)), _W, _layout((0, 16, 9, 11))),
    'a stride of zero': _forward(_X, _W, _Y, ((0, 0), (1, 1), (1, 1))),
    'filters of another type': _forward(_X, _layout((16, 8, 3, 3), 'float16'), _Y),
    'a gradient of the input that does not fit': Operation(
        'input_gradient', (_Y, _W), (_layout((2, 8, 12, 11)),), ((1, 1), (1, 1), (1, 1))
    ),
    'a gradient of filters that do not fit': Operation(
        'filter_gradient', (_X, _Y), (_layout((16, 8, 5, 5)),), ((1, 1), (1, 1), (1, 1))
    ),
    'normalization of 50 channels': normalization_operations((2, 50, 9, 11))[0],
    'its gradient for 50 channels': normalization_operations((2, 50, 9, 11))[1],
}
