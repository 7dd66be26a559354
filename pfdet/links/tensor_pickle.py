"""Read the pickled part of PyTorch's files without unpickling, which could execute code.

A pickle is a program for a stack machine. Its instructions can call any function of any module.
This interpreter knows the instructions that build dictionaries, lists, tuples, numbers and text,
and a few names that it replaces by functions of its own. Anything else is an error, so there is
nothing that a file could execute.
"""

import pickletools
from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

# Storage types of PyTorch and their NumPy dtypes. BFloat16 is read as integers.
STORAGES = {
    'DoubleStorage': '<f8',
    'FloatStorage': '<f4',
    'HalfStorage': '<f2',
    'BFloat16Storage': '<u2',
    'LongStorage': '<i8',
    'IntStorage': '<i4',
    'ShortStorage': '<i2',
    'CharStorage': '|i1',
    'ByteStorage': '|u1',
    'BoolStorage': '|b1',
}
_LONGEST_NAME = 4096
# Values that calls may copy, over all of them. Copies of copies could otherwise fill any memory.
_MAX_COPIED = 10_000_000
# That of NumPy.
_MAX_DIMENSION = 64


class Storage(NamedTuple):
    """The memory of one or more tensors.

    Attributes:
        kind (str): A key of :data:`STORAGES`.
        key (str): Its name in the file.
        n_value (int): Number of values.
    """

    kind: str
    key: str
    n_value: int


class Tensor(NamedTuple):
    """A tensor: some values of a storage.

    Attributes:
        storage (Storage): The storage.
        offset (int): Index of the first value.
        shape (tuple of int): The shape.
        stride (tuple of int): Step in the storage along each axis.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


class _Name(NamedTuple):
    """A name of a module, not imported."""

    module: str
    name: str


class _Mark:
    """Marks a position of the stack."""


class LimitedReader:
    """The part of a file's interface that a pickle needs, with a limit on the bytes read.

    Args:
        file (file object): Opened for reading bytes.
        n_byte (int): Number of bytes that may be read.
    """

    def __init__(self, file: BinaryIO, n_byte: int):
        self._file = file
        self._n_left = n_byte

    def read(self, n: int) -> bytes:
        """Read ``n`` bytes, or fewer at the end of the file."""
        # A pickle can ask for any number of bytes.
        if n > self._n_left:
            raise ValueError('its pickled part is longer than the file or the limit')
        self._n_left -= n
        return self._file.read(n)

    def readline(self) -> bytes:
        """Read up to the next end of a line."""
        line = self._file.readline(_LONGEST_NAME)
        self._n_left -= len(line)
        return line


def load(file: LimitedReader) -> Any:
    """Interpret a pickle of basic types and tensors.

    Args:
        file (LimitedReader): Read up to the end of the pickle.

    Returns:
        object: Dictionaries, lists, tuples, numbers and text, with :class:`Tensor` for tensors.

    Raises:
        ValueError: The pickle is damaged, or has anything else. Damaged pickles also raise
            :class:`IndexError`, :class:`TypeError` and others.
    """
    machine = _Machine()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == 'STOP':
            return machine.stack.pop()
        instruction = _INSTRUCTIONS.get(opcode.name)
        if instruction is None:
            raise ValueError(f'has the pickle instruction {opcode.name}, which no tensor needs')
        instruction(machine, argument)
    raise EOFError('its pickled part is cut off')


class _Machine:
    def __init__(self):
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.n_copied = 0

    def pop_marked(self) -> list[Any]:
        """Pop the values above the last mark, and the mark."""
        for at in reversed(range(len(self.stack))):
            if isinstance(self.stack[at], _Mark):
                values = self.stack[at + 1 :]
                del self.stack[at:]
                return values
        raise ValueError('its pickled part is damaged: a mark is missing')

    def pop(self, n: int) -> list[Any]:
        """Pop ``n`` values."""
        if n > len(self.stack):
            raise ValueError('its pickled part is damaged: a value is missing')
        values = self.stack[len(self.stack) - n :]
        del self.stack[len(self.stack) - n :]
        return values

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def name(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError('its pickled part is damaged: a name that is no text')
        self.stack.append(_Name(module, name))

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict):
            raise ValueError('its pickled part is damaged: items for something else than a dict')
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, list):
            raise ValueError('its pickled part is damaged: items for something else than a list')
        target.extend(items)

    def reduce(self) -> None:
        function, arguments = self.pop(2)
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError('its pickled part is damaged: a call without a name')
        call = _CALLS.get('.'.join(function))
        if call is None:
            raise ValueError(
                f'has a call of {".".join(function)[:80]}, which is not executed: only tensors, '
                'dictionaries, numbers and text are read'
            )
        self.n_copied += sum(len(a) for a in (arguments, *arguments) if hasattr(a, '__len__'))
        if self.n_copied > _MAX_COPIED:
            raise ValueError(f'its pickled part copies more than {_MAX_COPIED:,} values')
        self.stack.append(call(*arguments))

    def new_object(self) -> None:
        made = self.pop(2)[0]
        name = '.'.join(made)[:80] if isinstance(made, _Name) else 'an unknown class'
        raise ValueError(f'has an object of {name}, not only a state dict of tensors')

    def build(self) -> None:
        # The attributes of a dictionary of tensors hold the versions of modules. Dropped.
        self.pop(1)

    def persistent(self) -> None:
        (reference,) = self.pop(1)
        if not isinstance(reference, tuple) or reference[:1] != ('storage',):
            raise ValueError('has a module, not only a state dict of tensors')
        self.stack.append(_storage(*reference[1:]))


def _key(key: Any) -> Any:
    # Deeply nested tuples overflow the stack of the interpreter when they are hashed.
    if type(key) not in (str, int):
        raise ValueError(f'has a key of type {type(key).__name__}')
    return key


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    return {_key(key): value for key, value in pairs}


def _counter(counts: Any = ()) -> dict[Any, Any]:
    return _ordered_dict(dict(counts).items())


def _storage(storage: Any, key: Any, location: Any, n_value: Any, view: Any = None) -> Storage:
    if not isinstance(storage, _Name) or view is not None:
        raise ValueError('has a storage without a type, or a view of one')
    if storage.module != 'torch' or storage.name not in STORAGES:
        raise ValueError(f'has a storage of type {".".join(storage)[:80]}')
    if not isinstance(key, str) or not _is_size(n_value):
        raise ValueError('has a storage without a key and a number of values')
    return Storage(storage.name, key, n_value)


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *flags: Any) -> Tensor:
    if not isinstance(storage, Storage) or not isinstance(shape, tuple):
        raise ValueError('has a tensor without storage and shape')
    if len(shape) != len(stride) or len(shape) > _MAX_DIMENSION:
        raise ValueError(f'has a tensor with {len(shape)} lengths and {len(stride)} strides')
    if not all(_is_size(n) for n in (offset, *shape, *stride)):
        raise ValueError('has a tensor with a length, stride or offset that is not a size')
    return Tensor(storage, offset, shape, tuple(stride))


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 48


def _parameter(data: Any, *flags: Any) -> Any:
    return data


# Replacements of the functions that a pickle of tensors calls.
_CALLS: dict[str, Callable[..., Any]] = {
    'collections.OrderedDict': _ordered_dict,
    'collections.Counter': _counter,
    'torch._utils._rebuild_tensor': _tensor,
    'torch._utils._rebuild_tensor_v2': _tensor,
    'torch._utils._rebuild_parameter': _parameter,
    'torch.Size': tuple,
}


def _push(machine: _Machine, argument: Any) -> None:
    machine.stack.append(argument)


def _pushes(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _tuple_of(n: int) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(tuple(machine.pop(n)))


def _global(machine: _Machine, argument: Any) -> None:
    machine.name(*argument.split(' ', 1))


_INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    'PROTO': lambda machine, _: None,
    'FRAME': lambda machine, _: None,
    # Values.
    **dict.fromkeys(
        [
            *('INT', 'BININT', 'BININT1', 'BININT2', 'LONG', 'LONG1', 'LONG4', 'FLOAT', 'BINFLOAT'),
            *('STRING', 'BINSTRING', 'SHORT_BINSTRING', 'SHORT_BINBYTES', 'BINBYTES', 'BINBYTES8'),
            *('UNICODE', 'SHORT_BINUNICODE', 'BINUNICODE', 'BINUNICODE8'),
        ],
        _push,
    ),
    'NONE': _pushes(lambda: None),
    'NEWTRUE': _pushes(lambda: True),
    'NEWFALSE': _pushes(lambda: False),
    # Containers.
    'EMPTY_DICT': _pushes(dict),
    'EMPTY_LIST': _pushes(list),
    'EMPTY_TUPLE': _pushes(tuple),
    'MARK': _pushes(_Mark),
    'DICT': lambda machine, _: _make_dict(machine),
    'LIST': lambda machine, _: machine.stack.append(machine.pop_marked()),
    'TUPLE': lambda machine, _: machine.stack.append(tuple(machine.pop_marked())),
    'TUPLE1': _tuple_of(1),
    'TUPLE2': _tuple_of(2),
    'TUPLE3': _tuple_of(3),
    'SETITEM': lambda machine, _: machine.set_items(machine.pop(2)),
    'SETITEMS': lambda machine, _: machine.set_items(machine.pop_marked()),
    'APPEND': lambda machine, _: machine.append(machine.pop(1)),
    'APPENDS': lambda machine, _: machine.append(machine.pop_marked()),
    # References to earlier values.
    'PUT': lambda machine, index: machine.put(index),
    'BINPUT': lambda machine, index: machine.put(index),
    'LONG_BINPUT': lambda machine, index: machine.put(index),
    'MEMOIZE': lambda machine, _: machine.put(len(machine.memo)),
    'GET': lambda machine, index: machine.stack.append(machine.memo[index]),
    'BINGET': lambda machine, index: machine.stack.append(machine.memo[index]),
    'LONG_BINGET': lambda machine, index: machine.stack.append(machine.memo[index]),
    # Names and calls.
    'GLOBAL': _global,
    'STACK_GLOBAL': lambda machine, _: machine.name(*machine.pop(2)),
    'REDUCE': lambda machine, _: machine.reduce(),
    'NEWOBJ': lambda machine, _: machine.new_object(),
    'BUILD': lambda machine, _: machine.build(),
    'BINPERSID': lambda machine, _: machine.persistent(),
}


def _make_dict(machine: _Machine) -> None:
    items = machine.pop_marked()
    machine.stack.append({})
    machine.set_items(items)
