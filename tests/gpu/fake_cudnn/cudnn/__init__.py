"""Stand-in of NVIDIA's front end of cuDNN 9 on the memory of fake CuPy.

It has the calls that :mod:`pfdet.gpu` makes, with the names and arguments of the real front end
(``cudnn_names.json``), and refuses what cuDNN refuses (``cudnn_cases.py``; both are compared with
the real one by ``check_cudnn_graphs.py``). Results are computed in float32 at the given addresses
by the given strides, so a wrong layout gives wrong numbers.
"""

import enum
import math

from cudnn import compute

__version__ = '1.32.0'


def _enumeration(name, members):
    return enum.Enum(name, members.split())


data_type = _enumeration('data_type', 'NOT_SET HALF FLOAT DOUBLE')
heur_mode = _enumeration('heur_mode', 'A B FALLBACK OPENSOURCE')
numerical_note = _enumeration('numerical_note', 'TENSOR_CORE NONDETERMINISTIC')


class cudnnGraphNotSupportedError(Exception):  # noqa: N801, N818
    """No engine computes the graph."""


class Handle:
    """A handle with the stream it was given last."""

    def __init__(self):
        self.stream = None


def backend_version():
    """Version of the library."""
    return 92801


def create_handle():
    """Create a handle."""
    return Handle()


def set_stream(handle, stream):
    """Set the stream of a handle."""
    if not isinstance(handle, Handle) or not isinstance(stream, int):
        raise TypeError('set_stream takes a handle and an address')
    handle.stream = stream


class Tensor:
    """A tensor of a graph."""

    def __init__(self, uid, dim=None, stride=None, data_type=None, is_pass_by_value=False):
        self.uid = uid
        self.dim, self.stride, self.data_type = dim, stride, data_type
        self.is_pass_by_value = is_pass_by_value
        self.is_output = False

    def get_uid(self):
        return self.uid

    def set_output(self, value):
        self.is_output = value
        return self

    def set_data_type(self, value):
        self.data_type = value
        return self

    def set_dim(self, value):
        self.dim = list(value)
        return self

    def set_stride(self, value):
        self.stride = list(value)
        return self


# The plans of every graph: name, notes, workspace, and whether it can be built.
_PLANS = (
    ('tensor_core', {numerical_note.TENSOR_CORE}, 0, True),
    ('needs_a_newer_driver', set(), 0, False),
    ('atomic', {numerical_note.NONDETERMINISTIC}, 48, True),
    ('plain', set(), 1 << 10, True),
    ('large', set(), 1 << 40, True),
)

#: Plans that ran, in order: kind of the graph and name of the plan.
ran: list = []


class pygraph:  # noqa: N801
    """A graph of one operation."""

    def __init__(
        self,
        name='test_graph',
        io_data_type=None,
        intermediate_data_type=None,
        compute_data_type=None,
        handle=None,
    ):
        if not isinstance(handle, Handle):
            raise TypeError('the graph needs a handle')
        if compute_data_type is not data_type.FLOAT:
            raise cudnnGraphNotSupportedError('computes in float32 only')
        self._tensors = []
        self._kind, self._inputs, self._outputs, self._geometry = '', [], [], {}
        self._state = 0
        self._barred, self._built = set(), set()

    def tensor(
        self, dim, stride=None, data_type=None, is_virtual=False, is_pass_by_value=False, name=''
    ):
        """Add an input."""
        return self._new(Tensor(0, dim, stride, data_type, is_pass_by_value))

    def _new(self, tensor):
        tensor.uid = len(self._tensors) + 1
        self._tensors.append(tensor)
        return tensor

    def _operation(self, kind, inputs, n_output, **geometry):
        if self._kind:
            raise ValueError('the stand-in takes one operation per graph')
        self._kind, self._inputs, self._geometry = kind, list(inputs), geometry
        self._outputs = [self._new(Tensor(0)) for _ in range(n_output)]
        return self._outputs[0] if n_output == 1 else self._outputs

    def conv_fprop(self, image, weight, pre_padding, post_padding, stride, dilation):
        """Convolution."""
        return self._convolution(
            'conv_fprop', image, weight, pre_padding, post_padding, stride, dilation
        )

    def conv_dgrad(self, loss, filter, pre_padding, post_padding, stride, dilation):
        """Gradient of the input."""
        return self._convolution(
            'conv_dgrad', loss, filter, pre_padding, post_padding, stride, dilation
        )

    def conv_wgrad(self, image, loss, pre_padding, post_padding, stride, dilation):
        """Gradient of the filters."""
        return self._convolution(
            'conv_wgrad', image, loss, pre_padding, post_padding, stride, dilation
        )

    def _convolution(self, kind, a, b, pre_padding, post_padding, stride, dilation):
        if pre_padding != post_padding:
            raise ValueError('the stand-in pads both sides equally')
        return self._operation(kind, (a, b), 1, pad=pre_padding, stride=stride, dilate=dilation)

    def batchnorm(self, input, scale, bias, in_running_mean, in_running_var, epsilon, momentum):
        """Batch normalization with the statistics of the batch."""
        inputs = (input, scale, bias, in_running_mean, in_running_var, epsilon, momentum)
        return self._operation('batchnorm', inputs, 5)

    def batchnorm_backward(self, grad, input, scale, mean, inv_variance):
        """Gradients of batch normalization."""
        return self._operation('batchnorm_backward', (grad, input, scale, mean, inv_variance), 3)

    def validate(self):
        """Check dimensions, strides and types."""
        for tensor in self._tensors:
            self._check_tensor(tensor)
        if self._kind.startswith('conv'):
            self._check_convolution()
        else:
            self._check_normalization()
        self._state = 1

    def _check_tensor(self, tensor):
        if tensor.dim is None or tensor.stride is None or tensor.data_type is None:
            raise ValueError('a tensor without dimensions, strides or type')
        if len(tensor.dim) != 4 or len(tensor.stride) != 4:
            raise ValueError(f'four dimensions expected, not {tensor.dim}')
        if any(n <= 0 for n in tensor.dim):
            raise ValueError(f'dimensions must be positive, not {tensor.dim}')
        span = 1 + sum((n - 1) * s for n, s in zip(tensor.dim, tensor.stride, strict=True))
        if any(s <= 0 for s in tensor.stride) or span != math.prod(tensor.dim):
            raise RuntimeError(f'strides {tensor.stride} of {tensor.dim} are not packed')
        if tensor in self._outputs and not tensor.is_output:
            raise ValueError('an output that is not set as one')

    def _check_convolution(self):
        image, filters, out = self._by_role()
        if any(s < 1 for s in (*self._geometry['stride'], *self._geometry['dilate'])):
            raise RuntimeError('stride and dilation must be positive')
        if image.dim[1] % filters.dim[1] or filters.dim[1] > image.dim[1]:
            raise RuntimeError('channels of filters do not divide those of the input')
        if filters.dim[0] % (image.dim[1] // filters.dim[1]):
            raise RuntimeError('the number of groups does not divide the filters')
        expected = [image.dim[0], filters.dim[0]]
        for n, k, p, s, d in zip(
            image.dim[2:], filters.dim[2:], *map(self._geometry.get, ('pad', 'stride', 'dilate'))
        ):
            expected.append((n + 2 * p - d * (k - 1) - 1) // s + 1)
        if out.dim != expected:
            raise RuntimeError(f'the output has dimensions {out.dim}, expected {expected}')
        if len({t.data_type for t in (image, filters, out)}) > 1:
            raise cudnnGraphNotSupportedError('tensors of different types')

    def _by_role(self):
        """Input, filters and output of a convolution, of which one is computed."""
        (a, b), (c,) = self._inputs, self._outputs
        return {'conv_fprop': (a, b, c), 'conv_dgrad': (c, b, a), 'conv_wgrad': (a, c, b)}[
            self._kind
        ]

    def _check_normalization(self):
        x = self._inputs[0]
        item = 2 if x.data_type is data_type.HALF else 4
        if x.dim[1] % (16 // item):
            raise cudnnGraphNotSupportedError('c % elements_per_ldg != 0')
        if x.stride[1] != 1:
            raise cudnnGraphNotSupportedError('the stand-in normalizes channels last only')
        for t in (*self._inputs[1:], *self._outputs[1:]):
            if t.is_pass_by_value or t.dim == x.dim:
                continue
            if t.dim != [1, x.dim[1], 1, 1] or t.data_type is not data_type.FLOAT:
                raise RuntimeError(f'values per channel of dimensions {t.dim}')

    def build_operation_graph(self):
        """Do nothing more."""
        self._advance(1)

    def create_execution_plans(self, heuristics=None):
        """Rank the plans."""
        if not heuristics or not all(isinstance(mode, heur_mode) for mode in heuristics):
            raise TypeError('expected modes of the heuristics')
        self._advance(2)
        self._plans = _PLANS if heur_mode.FALLBACK in heuristics else _PLANS[:1]

    def _advance(self, needed):
        if self._state < needed:
            raise RuntimeError('a step of the graph was left out')
        self._state = needed + 1

    def get_execution_plan_count(self):
        """Number of plans."""
        return len(self._plans)

    def deselect_numeric_notes(self, notes):
        """Bar plans that have one of the notes."""
        self._barred |= {i for i, plan in enumerate(self._plans) if plan[1] & set(notes)}
        return self

    def build_plan_at_index(self, index):
        """Build a plan."""
        if index in self._barred or not self._plans[index][3]:
            raise cudnnGraphNotSupportedError('Deselecting execution plan')
        self._built.add(index)
        return self

    def get_workspace_size_plan_at_index(self, index):
        """Bytes of workspace."""
        return self._plans[index][2] if index in self._built else 0

    def execute_plan_at_index(self, tensor_dict, workspace=None, index=0, handle=None):
        """Run a built plan on addresses."""
        if index not in self._built:
            raise RuntimeError('the plan is not built')
        if not isinstance(handle, Handle) or handle.stream is None:
            raise TypeError('a handle with a stream is expected')
        if self._plans[index][2] and type(workspace) is not int:
            raise ValueError('the plan needs a workspace')
        arrays = []
        for tensor in (*self._inputs, *self._outputs):
            pointer = tensor_dict.get(tensor.uid)
            if type(pointer) is not int:
                raise ValueError(f'the variant pack is missing a buffer for uid {tensor.uid}')
            if not tensor.is_pass_by_value and pointer % 16:
                raise RuntimeError('an address that is not a multiple of 16')
            dtype = 'e' if tensor.data_type is data_type.HALF else 'f'
            arrays.append(compute.view(pointer, tensor.dim, tensor.stride, dtype))
        ran.append((self._kind, self._plans[index][0]))
        n = len(self._inputs)
        results = compute.KINDS[self._kind](arrays[:n], arrays[n:], self._geometry)
        for out, result in zip(arrays[n:], results, strict=True):
            out[...] = result
