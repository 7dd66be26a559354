"""An ONNX graph under construction, and arithmetic on its values.

The operators of a :class:`Value` append nodes to the graph, so that an exported formula reads as
its NumPy counterpart in the network.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.optional_packages import optional_package

# Opset 17 of 2022, which ONNX Runtime reads from version 1.12, has all operators that are needed.
# Since opset 16, RoiAlign can leave out the shift by half a pixel.
OPSET = 17
_IR_VERSION = 8
#: Size that a protocol buffer, and so a model, can have.
MAX_BYTES = 2**31 - 1


class Value:
    """A tensor in a graph.

    Operators take another value, an array, or a number, which becomes a constant of the same dtype.

    Attributes:
        graph (Graph): The graph.
        name (str): Name of the tensor.
        dtype (numpy.dtype): Dtype of the tensor.
    """

    # So that NumPy scalars on the left leave an operator to this class.
    __array_ufunc__ = None

    def __init__(self, graph: 'Graph', name: str, dtype: Any):
        self.graph = graph
        self.name = name
        self.dtype = np.dtype(dtype)

    def __add__(self, other: Any) -> 'Value':
        return self._binary('Add', self, other)

    def __radd__(self, other: Any) -> 'Value':
        return self._binary('Add', other, self)

    def __sub__(self, other: Any) -> 'Value':
        return self._binary('Sub', self, other)

    def __mul__(self, other: Any) -> 'Value':
        return self._binary('Mul', self, other)

    def __truediv__(self, other: Any) -> 'Value':
        return self._binary('Div', self, other)

    def __lt__(self, other: Any) -> 'Value':
        return self._binary('Less', self, other, np.bool_)

    def __gt__(self, other: Any) -> 'Value':
        return self._binary('Greater', self, other, np.bool_)

    def __ge__(self, other: Any) -> 'Value':
        return self._binary('GreaterOrEqual', self, other, np.bool_)

    def __and__(self, other: 'Value') -> 'Value':
        return self._binary('And', self, other)

    def equals(self, other: Any) -> 'Value':
        """Compare the elements with another value."""
        return self._binary('Equal', self, other, np.bool_)

    def minimum(self, other: Any) -> 'Value':
        """The smaller elements of this and another value."""
        return self._binary('Min', self, other)

    def maximum(self, other: Any) -> 'Value':
        """The larger elements of this and another value."""
        return self._binary('Max', self, other)

    def astype(self, dtype: Any) -> 'Value':
        """Convert to another dtype."""
        if self.dtype == np.dtype(dtype):
            return self
        code = optional_package('onnx').helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
        return self.graph.add('Cast', self, to=code, dtype=dtype)

    def shape(self, start: int, end: int | None = None) -> 'Value':
        """The dimensions from ``start`` to before ``end``, an int64 vector."""
        ends = {} if end is None else {'end': end}
        return self.graph.add('Shape', self, start=start, **ends, dtype=np.int64)

    def cut(self, axis: int, start: int, end: int | None = None) -> 'Value':
        """The positions from ``start`` to before ``end`` of an axis."""
        bounds = (np.array([n], np.int64) for n in (start, _end(end), axis))
        return self.graph.add('Slice', self, *bounds)

    def reshape(self, *shape: int) -> 'Value':
        """Change the shape. A dimension of 0 stays, and one of -1 is inferred."""
        return self.graph.add('Reshape', self, np.array(shape, np.int64))

    def transpose(self, *axes: int) -> 'Value':
        """Reorder the axes."""
        return self.graph.add('Transpose', self, perm=list(axes))

    def take(self, index: Any, axis: int) -> 'Value':
        """Select positions of an axis by an int64 value or array."""
        return self.graph.add('Gather', self, index, axis=axis)

    def squeeze(self, axis: int) -> 'Value':
        """Remove an axis of length 1."""
        return self.graph.add('Squeeze', self, np.array([axis], np.int64))

    def unsqueeze(self, *axes: int) -> 'Value':
        """Insert axes of length 1."""
        return self.graph.add('Unsqueeze', self, np.array(axes, np.int64))

    def _binary(self, op: str, a: Any, b: Any, dtype: Any = None) -> 'Value':
        a, b = (
            v if isinstance(v, Value) else self.graph.constant(np.asarray(v, self.dtype))
            for v in (a, b)
        )
        return self.graph.add(op, a, b, dtype=dtype)


class Graph:
    """An ONNX graph that grows by :meth:`add`.

    Args:
        network (chainer.Link): Its links give names to nodes and weights.
    """

    def __init__(self, network: chainer.Link):
        self._links = {id(link): path.strip('/') for path, link in network.namedlinks()}
        self._nodes: list = []
        self._initializers: list = []
        self._constants: dict[tuple, Value] = {}
        self._count: Counter[str] = Counter()
        self._inputs: list = []
        self._outputs: list = []
        self._written: set[int] = set()

    def input(self, name: str, dtype: Any, shape: Sequence[int | str]) -> Value:
        """Declare an input; a dimension given as a word is free."""
        self._inputs.append(_value_info(name, dtype, shape))
        self._count[name] += 1
        return Value(self, name, dtype)

    def output(self, name: str, value: Value, shape: Sequence[int | str]) -> None:
        """Declare a value an output."""
        self._nodes.append(_node('Identity', [value.name], [name], name))
        self._outputs.append(_value_info(name, value.dtype, shape))

    def add(self, op: str, *inputs: Any, dtype: Any = None, n: int = 1, **attributes: Any) -> Any:
        """Append a node.

        Args:
            op (str): An operator of ONNX.
            inputs: Values, and arrays or numbers, which become constants. :obj:`None` omits an
                optional input.
            dtype: Dtype of the outputs, by default that of the first input.
            n (int): Number of outputs.
            attributes: Attributes of the operator.

        Returns:
            Value or list of values: The output, or the outputs if there are several.
        """
        values = [self._value(v) for v in inputs]
        if dtype is None:
            dtype = next(v.dtype for v in values if v is not None)
        name = self._name(op)
        outputs = [name if i == 0 else f'{name}:{i}' for i in range(n)]
        names = ['' if v is None else v.name for v in values]
        self._nodes.append(_node(op, names, outputs, name, attributes))
        results = [Value(self, output, dtype) for output in outputs]
        return results if n > 1 else results[0]

    def constant(self, array: Any, name: str = 'constant') -> Value:
        """A constant; equal arrays are stored once."""
        array = np.asarray(array)
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._constants:
            name = self._name(name)
            tensor = optional_package('onnx').numpy_helper.from_array(
                np.ascontiguousarray(array).reshape(array.shape), name
            )
            self._initializers.append(tensor)
            self._constants[key] = Value(self, name, array.dtype)
        return self._constants[key]

    def weight(self, link: chainer.Link, name: str, array: np.ndarray) -> Value:
        """A weight of a link as float32, with the name that it has in the network."""
        path = self._links.get(id(link), type(link).__name__)
        return self.constant(np.asarray(array, np.float32), f'{path}/{name}'.strip('/'))

    def concatenate(self, values: Sequence[Any], axis: int) -> Value:
        """Join values along an axis."""
        return values[0] if len(values) == 1 else self.add('Concat', *values, axis=axis)

    def arange(self, end: Value) -> Value:
        """The int64 numbers from 0 to before a scalar value."""
        return self.add('Range', np.int64(0), end, np.int64(1))

    def where(self, condition: Value, a: Any, b: Any) -> Value:
        """Elements of ``a`` where a condition is true, else of ``b``."""
        dtype = a.dtype if isinstance(a, Value) else b.dtype
        a, b = (v if isinstance(v, Value) else np.asarray(v, dtype) for v in (a, b))
        return self.add('Where', condition, a, b, dtype=dtype)

    def full(self, shape: Value, value: float, dtype: Any = np.float32) -> Value:
        """A tensor of a computed shape with one value."""
        helper = optional_package('onnx').numpy_helper
        return self.add(
            'ConstantOfShape',
            shape,
            value=helper.from_array(np.array([value], dtype)),
            dtype=dtype,
        )

    def mark_written(self, link: chainer.Link) -> None:
        """Note that the graph contains the own parameters of a link."""
        self._written.add(id(link))

    def check_complete(self, network: chainer.Link) -> None:
        """Refuse to leave out a part of the network.

        Raises:
            InputError: A link below ``network`` has parameters that were not written.
        """
        for path, link in network.namedlinks():
            # The path of an own parameter is /NAME, that of a child's /CHILD/.../NAME.
            own = any(name.count('/') == 1 for name, _ in link.namedparams())
            if own and id(link) not in self._written:
                raise InputError(
                    f'{path.strip("/") or type(link).__name__}: cannot be exported to ONNX: the '
                    'exported graph does not use this part of the network'
                )

    def model(self, metadata: dict[str, str]) -> Any:
        """Finish the graph.

        Args:
            metadata (dict): Texts that are stored with the model.

        Returns:
            onnx.ModelProto: The model.

        Raises:
            InputError: It is too large for the file format.
        """
        onnx = optional_package('onnx')
        size = sum(len(tensor.raw_data) for tensor in self._initializers)
        if size > MAX_BYTES:
            raise InputError(
                f'cannot be exported to ONNX: {math.ceil(size / 2**20)} MiB of weights; expected '
                f'at most {MAX_BYTES // 2**20}'
            )
        graph = onnx.helper.make_graph(
            self._nodes, 'pfdet', self._inputs, self._outputs, self._initializers
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid('', OPSET)],
            ir_version=_IR_VERSION,
            producer_name='pfdet',
        )
        onnx.helper.set_model_props(model, metadata)
        return model

    def _value(self, v: Any) -> Value | None:
        return v if v is None or isinstance(v, Value) else self.constant(v)

    def _name(self, name: str) -> str:
        self._count[name] += 1
        n = self._count[name]
        return name if n == 1 else f'{name}_{n}'


def _node(
    op: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    name: str,
    attributes: dict | None = None,
) -> Any:
    helper = optional_package('onnx').helper
    return helper.make_node(op, inputs, outputs, name=name, **attributes or {})


def _value_info(name: str, dtype: Any, shape: Sequence[int | str]) -> Any:
    helper = optional_package('onnx').helper
    code = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return helper.make_tensor_value_info(name, code, shape)


def _end(end: int | None) -> int:
    # ONNX's Slice takes the largest integer for "to the end".
    return np.iinfo(np.int64).max if end is None else end
