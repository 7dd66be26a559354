"""Graphs of cuDNN 9 for convolution and batch normalization.

A graph describes one operation on tensors of given shapes, strides and types. This module only
describes: it needs NVIDIA's front end as an argument, and neither CuPy nor a GPU.
:mod:`pfdet.gpu.plans` builds the graphs and runs them.

Dimensions are always in the order :math:`(N, C, H, W)`, whatever the memory order is; the strides
say that. Filters are :math:`(O, C / groups, k_h, k_w)`. cuDNN infers the number of groups from the
channels of input and filters.
"""

from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

#: Types of activations and filters, and their names in the front end.
DATA_TYPES = {'float16': 'HALF', 'float32': 'FLOAT'}
#: cuDNN's engines read vectors of this many bytes.
ALIGNMENT = 16


class Layout(NamedTuple):
    """Shape, memory order and type of an array.

    Attributes:
        shape (tuple of int): Four dimensions.
        strides (tuple of int): Strides in elements.
        dtype (str): A key of :data:`DATA_TYPES`.
    """

    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str


class Operation(NamedTuple):
    """An operation; equal operations share a plan.

    Attributes:
        kind (str): A key of :data:`KINDS`.
        inputs, outputs (tuples of Layout): The arrays.
        settings (tuple): Of convolutions, pairs ``(stride, pad, dilate)``.
        scalars (tuple of float): Numbers that a graph reads from the host's memory.
        tensor_cores (bool): Whether engines that round float32 to TF32 may be chosen.
        deterministic (bool): Whether only deterministic engines may be chosen.
    """

    kind: str
    inputs: tuple[Layout, ...]
    outputs: tuple[Layout, ...]
    settings: tuple[tuple[int, int], ...] = ()
    scalars: tuple[float, ...] = ()
    tensor_cores: bool = False
    deterministic: bool = False


class Graph(NamedTuple):
    """A described operation.

    Attributes:
        graph: The front end's graph.
        inputs, outputs, scalars (lists of int): Identifiers of the arrays and numbers, in the order
            of the :class:`Operation`.
    """

    graph: Any
    inputs: list[int]
    outputs: list[int]
    scalars: list[int]


def contiguous_strides(shape: Sequence[int], channels_last: bool) -> tuple[int, ...]:
    """Strides in elements of a contiguous array :math:`(N, C, H, W)`.

    Args:
        shape (sequence of int): Four dimensions.
        channels_last (bool): Whether the memory order is :math:`(N, H, W, C)`.
    """
    _, C, H, W = shape
    return (C * H * W, 1, W * C, C) if channels_last else (C * H * W, H * W, W, 1)


def describe(cudnn: ModuleType, operation: Operation, **where: Any) -> Graph:
    """Describe an operation as a graph.

    Args:
        cudnn (module): NVIDIA's front end.
        operation (Operation): What to compute.
        where: ``handle``, or ``device_property`` for a device that is not there.

    Raises:
        cudnn.cudnnGraphNotSupportedError: cuDNN cannot represent it.
    """
    graph = cudnn.pygraph(
        io_data_type=_data_type(cudnn, operation.inputs[0].dtype),
        intermediate_data_type=cudnn.data_type.FLOAT,
        compute_data_type=cudnn.data_type.FLOAT,
        **where,
    )
    inputs = [
        graph.tensor(
            name=f'input_{i}',
            dim=list(layout.shape),
            stride=list(layout.strides),
            data_type=_data_type(cudnn, layout.dtype),
        )
        for i, layout in enumerate(operation.inputs)
    ]
    scalars = [
        graph.tensor(
            name=f'scalar_{i}',
            dim=[1, 1, 1, 1],
            stride=[1, 1, 1, 1],
            data_type=cudnn.data_type.FLOAT,
            is_pass_by_value=True,
        )
        for i in range(len(operation.scalars))
    ]
    outputs = KINDS[operation.kind](graph, operation, inputs, scalars)
    for tensor, layout in zip(outputs, operation.outputs, strict=True):
        tensor.set_output(True)
        tensor.set_data_type(_data_type(cudnn, layout.dtype))
        tensor.set_dim(list(layout.shape))
        tensor.set_stride(list(layout.strides))
    graph.validate()
    graph.build_operation_graph()
    # The second mode adds the engines without tensor cores, which the first leaves out.
    graph.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
    notes = cudnn.numerical_note
    unwanted = []
    if not operation.tensor_cores and operation.inputs[0].dtype == 'float32':
        unwanted.append(notes.TENSOR_CORE)
    if operation.deterministic:
        unwanted.append(notes.NONDETERMINISTIC)
    if unwanted:
        graph.deselect_numeric_notes(unwanted)
    return Graph(
        graph,
        [t.get_uid() for t in inputs],
        [t.get_uid() for t in outputs],
        [t.get_uid() for t in scalars],
    )


def _convolution(graph: Any, operation: Operation, inputs: list, scalars: list) -> list:
    x, filters = inputs
    return [graph.conv_fprop(image=x, weight=filters, **_geometry(operation))]


def _input_gradient(graph: Any, operation: Operation, inputs: list, scalars: list) -> list:
    gradient, filters = inputs
    return [graph.conv_dgrad(loss=gradient, filter=filters, **_geometry(operation))]


def _filter_gradient(graph: Any, operation: Operation, inputs: list, scalars: list) -> list:
    x, gradient = inputs
    return [graph.conv_wgrad(image=x, loss=gradient, **_geometry(operation))]


def _batch_normalization(graph: Any, operation: Operation, inputs: list, scalars: list) -> list:
    x, gamma, beta, running_mean, running_var = inputs
    epsilon, momentum = scalars
    return graph.batchnorm(
        input=x,
        scale=gamma,
        bias=beta,
        in_running_mean=running_mean,
        in_running_var=running_var,
        epsilon=epsilon,
        momentum=momentum,
    )


def _batch_normalization_gradient(
    graph: Any, operation: Operation, inputs: list, scalars: list
) -> list:
    gradient, x, gamma, mean, inv_std = inputs
    return graph.batchnorm_backward(
        grad=gradient, input=x, scale=gamma, mean=mean, inv_variance=inv_std
    )


#: The operations by name.
KINDS = {
    'convolution': _convolution,
    'input_gradient': _input_gradient,
    'filter_gradient': _filter_gradient,
    'batch_normalization': _batch_normalization,
    'batch_normalization_gradient': _batch_normalization_gradient,
}


def _geometry(operation: Operation) -> dict[str, list[int]]:
    stride, pad, dilate = map(list, operation.settings)
    return {'pre_padding': pad, 'post_padding': pad, 'stride': stride, 'dilation': dilate}


def _data_type(cudnn: ModuleType, dtype: str) -> Any:
    return getattr(cudnn.data_type, DATA_TYPES[dtype])


def statistics_layout(n_channel: int) -> Layout:
    """Layout of a value per channel: float32 :math:`(1, C, 1, 1)`."""
    return Layout((1, n_channel, 1, 1), (n_channel, 1, n_channel, n_channel), 'float32')


def contiguous_layout(shape: Sequence[int], channels_last: bool, dtype: Any) -> Layout:
    """Layout of a contiguous array :math:`(N, C, H, W)` in one of the two memory orders."""
    shape = tuple(map(int, shape))
    return Layout(shape, contiguous_strides(shape, channels_last), np.dtype(dtype).name)
