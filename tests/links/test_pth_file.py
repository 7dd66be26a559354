"""The reader of PyTorch's files, on files that PyTorch wrote and on hostile ones."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.files import memory
from pfdet.links import tensor_pickle
from pfdet.links.checkpoint_files import read_checkpoint
from pfdet.links.pth_file import read_pth


@pytest.fixture(scope='module')
def samples():
    import importlib.util
    from pathlib import Path

    spec = importlib.util.spec_from_file_location(
        'pth_samples', Path(__file__).with_name('pth_samples.py')
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert got[name].dtype == array.dtype and got[name].flags.c_contiguous, name


@pytest.mark.parametrize('name', ['LEGACY', 'TRAINING'])
def test_files_of_pytorch(samples, tmp_path, name):
    path = tmp_path / 'a.pth'
    path.write_bytes(getattr(samples, name))
    assert_same(read_checkpoint(path), samples.EXPECTED)
    assert_same(read_pth(path), {f'module.{key}': a for key, a in samples.EXPECTED.items()})


def test_file_of_python_2(samples, tmp_path):
    """Public weights of 2018 have text as bytes, and another function for tensors."""
    path = tmp_path / 'a.pth'
    path.write_bytes(samples.PYTHON_2)
    expected = {
        'conv1.weight': np.arange(6, dtype=np.float32).reshape(2, 3),
        'fc.bias': np.float32([9]),
    }
    assert_same(read_pth(path), expected)


@pytest.mark.parametrize('legacy', [False, True])
def test_equals_pytorch(tmp_path, legacy):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'a.pth'
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 5, 3), torch.nn.BatchNorm2d(5), torch.nn.LSTM(4, 2)
    )
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=not legacy)
    expected = torch.load(path, map_location='cpu', weights_only=True)
    assert_same(read_pth(path), {name: t.numpy() for name, t in expected.items()})


def test_memory_and_pytorch_are_not_needed(samples, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'torch', None)
    monkeypatch.setattr(pickle, 'Unpickler', None)
    path = tmp_path / 'a.pth'
    for name in 'LEGACY', 'TRAINING':
        path.write_bytes(getattr(samples, name))
        assert len(read_pth(path)) == 12


@pytest.mark.parametrize('name', ['LEGACY', 'TRAINING', 'PYTHON_2'])
def test_damaged_files(samples, tmp_path, name):
    whole = getattr(samples, name)
    path = tmp_path / 'a.pth'
    # A legacy file has no checksums, and the bytes of a zip archive's last entries matter little.
    for end in range(0, len(whole) - 30, 16):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r'a\.pth: .*; expected a file of tensors') as e:
            read_pth(path)
        assert '\n' not in str(e.value) and len(str(e.value)) < 500
    rng = np.random.default_rng(0)
    for _ in range(300):
        content = bytearray(whole)
        for _ in range(rng.integers(1, 4)):
            content[rng.integers(len(whole))] = rng.integers(256)
        path.write_bytes(content)
        try:
            arrays = read_pth(path)
        except InputError as e:
            assert str(e).startswith(f'{path}: ') and '\n' not in str(e)
        else:
            assert all(isinstance(a, np.ndarray) for a in arrays.values())


# Pickles by instruction.
def text(value):
    data = value.encode()
    return b'X' + struct.pack('<I', len(data)) + data


def integer(value):
    data = value.to_bytes(9, 'little', signed=True)
    return b'\x8a' + bytes([len(data)]) + data


def name(module, attribute):
    return b'c' + f'{module}\n{attribute}\n'.encode()


def storage(key='0', n_value=4, kind='FloatStorage', module='torch'):
    return (
        b'(' + text('storage') + name(module, kind) + text(key) + text('cpu') + integer(n_value)
        + b'tQ'
    )  # fmt: skip


def tuple_of(*values):
    return b'(' + b''.join(values) + b't'


def tensor(
    of=None, offset=0, shape=(2, 2), stride=(2, 1), call=('torch._utils', '_rebuild_tensor_v2')
):
    return (
        name(*call)
        + tuple_of(
            storage() if of is None else of,
            integer(offset),
            tuple_of(*map(integer, shape)),
            tuple_of(*map(integer, stride)),
            b'\x89',
            name('collections', 'OrderedDict') + b')R',
        )
        + b'R'
    )


def state(value, key=None):
    """A pickled dictionary of one entry."""
    return b'\x80\x02}' + (text('a') if key is None else key) + value + b's.'


DATA = np.arange(4, dtype='<f4').tobytes()


def zipped(pickled, data=DATA, compression=zipfile.ZIP_STORED, **more):
    file = io.BytesIO()
    members = {'a/data.pkl': pickled, 'a/data/0': data, 'a/version': b'3\n', **more}
    with zipfile.ZipFile(file, 'w', compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return file.getvalue()


def legacy(pickled, data=DATA, keys=('0',), magic=0x1950A86A20F9469CFC6C, little=True):
    facts = {'protocol_version': 1001, 'little_endian': little, 'type_sizes': {}}
    parts = [pickle.dumps(value, 2) for value in (magic, 1001, facts)]
    sizes = struct.pack('<q', len(data) // 4)
    return b''.join([*parts, pickled, pickle.dumps(list(keys), 2), sizes, data])


BOTH = [zipped, legacy]


@pytest.mark.parametrize('form', BOTH)
def test_written_by_instruction(tmp_path, form):
    """The hostile files below differ from this good one in one place."""
    path = tmp_path / 'a.pth'
    path.write_bytes(form(state(tensor())))
    np.testing.assert_array_equal(read_pth(path)['a'], [[0, 1], [2, 3]])
    path.write_bytes(form(state(tensor(offset=1, shape=(3,), stride=(1,)))))
    np.testing.assert_array_equal(read_pth(path)['a'], [1, 2, 3])


class _Payload:
    def __init__(self, call, *args):
        self.reduced = call, args

    def __reduce__(self):
        return self.reduced


def payloads(proof):
    """Pickles that make a directory when they are unpickled, one per way to call a function."""
    make, path = f'{os.mkdir.__module__}', str(proof)
    yield 'REDUCE', state(name(make, 'mkdir') + tuple_of(text(path)) + b'R')
    for protocol in range(5):
        yield f'protocol {protocol}', pickle.dumps({'a': _Payload(os.mkdir, path)}, protocol)
    yield 'OBJ', state(b'(' + name('os', 'mkdir') + text(path) + b'o')
    yield 'INST', state(b'(' + text(path) + b'i' + b'os\nmkdir\n')
    yield 'STACK_GLOBAL', state(text('os') + text('mkdir') + b'\x93' + tuple_of(text(path)) + b'R')
    yield (
        'eval',
        state(
            name('builtins', 'eval') + tuple_of(text(f'__import__("os").mkdir({path!r})')) + b'R'
        ),
    )
    yield 'in a tensor', state(tensor(call=('os', 'mkdir')))
    yield 'attribute', state(name('torch._utils', 'os.mkdir') + tuple_of(text(path)) + b'R')
    yield 'key', state(tensor(), name('os', 'mkdir') + tuple_of(text(path)) + b'R')
    yield (
        'state',
        state(
            name('collections', 'OrderedDict')
            + b')R'
            + name('os', 'mkdir')
            + tuple_of(text(path))
            + b'Rb'
        ),
    )
    yield 'storage', state(tensor(storage(kind='mkdir', module='os')))
    yield 'extension', b'\x80\x02\x82\x01.'


def test_payloads_are_not_executed(tmp_path):
    proof = tmp_path / 'proof'
    n = 0
    for how, pickled in payloads(proof):
        for form in BOTH:
            path = tmp_path / f'{n}.pth'
            path.write_bytes(form(pickled))
            with pytest.raises(InputError) as e:
                read_pth(path)
            assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value), how
            assert not proof.exists(), how
            n += 1
        # Most of them work.
        if how in ('REDUCE', 'OBJ', 'INST', 'eval', 'STACK_GLOBAL', 'state') or 'prot' in how:
            pickle.loads(pickled)
            proof.rmdir()
    assert n > 30


MANY = 1 << 40
HOSTILE = {
    'beyond the storage': (state(tensor(offset=1)), 'extends beyond its storage'),
    'stride beyond': (state(tensor(stride=(3, 1))), 'extends beyond its storage'),
    'huge stride': (state(tensor(stride=(1 << 60, 1))), 'not a size'),
    'negative stride': (state(tensor(stride=(-1, 1))), 'not a size'),
    'negative offset': (state(tensor(offset=-1)), 'not a size'),
    'repeated values': (state(tensor(shape=(MANY,), stride=(0,))), 'more values than its storage'),
    'huge storage': (
        state(tensor(storage(n_value=MANY), shape=(MANY,), stride=(1,))),
        'MB of memory',
    ),
    'larger storage': (state(tensor(storage(n_value=5))), 'storage 0 has'),
    'stride without length': (state(tensor(stride=(1,))), '2 lengths and 1 strides'),
    'many dimensions': (state(tensor(shape=(1,) * 70, stride=(1,) * 70)), '70 lengths'),
    'other storage': (state(tensor(storage('1'))), "KeyError: "),
    'two storages of one key': (
        b'\x80\x02}(' + text('a') + tensor() + text('b') + tensor(storage(n_value=3)) + b'u.',
        'described in two ways',
    ),
    'unknown storage': (state(tensor(storage(kind='QInt8Storage'))), 'type torch.QInt8Storage'),
    'storage of another module': (state(tensor(storage(module='os'))), 'type os.FloatStorage'),
    'no dictionary': (b'\x80\x02]' + tensor() + b'a.', 'no state dict'),
    'a number': (b'\x80\x02K\x07.', 'no state dict'),
    'object': (state(name('torch.nn', 'Linear') + b')\x81'), 'has an object of torch.nn.Linear'),
    'module': (state(b'(' + text('module') + b'tQ'), 'has a module'),
    'set': (b'\x80\x04\x8f.', 'EMPTY_SET'),
    'nothing': (b'', ''),
    'no end': (state(tensor())[:-1], ''),
    'no value': (b'\x80\x02}' + text('a') + b's.', ''),
    'no mark': (b'\x80\x02u.', 'mark is missing'),
    'no memo': (b'\x80\x02h\x07.', ''),
    'unknown instruction': (b'\x80\x02\xff.', 'unknown'),
    'long text': (b'\x80\x02X\xff\xff\xff\xff' + b'a' * 100, 'longer than the file'),
    'longer text': (b'\x80\x04\x8d' + b'\xff' * 7 + b'\x7f' + b'a' * 100, ''),
    'endless line': (b'\x80\x02c' + b'a' * 10_000, ''),
    'memo of 32 bits': (b'\x80\x02}r\xff\xff\xff\xff.', ''),
    # A tuple that overflows the stack of the interpreter when it is hashed.
    'deep key': (state(b'K\x01', b')' + b'\x85' * 100_000), 'key of type tuple'),
    'deep key in a call': (
        b'\x80\x02'
        + name('collections', 'OrderedDict')
        + b'])'
        + b'\x85' * 100_000
        + b'K\1\x86a\x85R.',
        'key of type tuple',
    ),
    'deep shape': (
        state(
            name('torch._utils', '_rebuild_tensor')
            + tuple_of(storage(), integer(0), b'(' + b')' + b'\x85' * 100_000 + b't', b'(K\1t')
            + b'R'
        ),
        'not a size',
    ),
    'text as text': (state(tensor(storage(kind='FloatStorage\x1b[31m'))), 'has a storage of type'),
}  # fmt: skip


@pytest.mark.parametrize('form', BOTH)
@pytest.mark.parametrize('case', HOSTILE)
def test_hostile_pickles(tmp_path, form, case):
    pickled, message = HOSTILE[case]
    path = tmp_path / 'a.pth'
    path.write_bytes(form(pickled))
    try:
        arrays = read_pth(path)
    except InputError as e:
        assert str(e).startswith(f'{path}: ') and '\n' not in str(e) and len(str(e)) < 500
        assert message in str(e)
    else:
        assert case == 'memo of 32 bits' and arrays == {}


@pytest.mark.parametrize(
    'content, message',
    [
        (zipped(state(tensor()), compression=zipfile.ZIP_DEFLATED), 'compressed or damaged'),
        (zipped(state(tensor()), data=DATA[:-1]), '15 bytes; expected 16'),
        (zipped(state(tensor()), **{'a/byteorder': b'big'}), 'big-endian'),
        (zipped(state(tensor()), **{'a/constants.pkl': b''}), 'TorchScript'),
        (zipped(state(tensor()), **{'b/data.pkl': b''}), 'another program'),
        (zipped(b'a' * (1 << 24) + b'a'), 'pickled part has 16,777,217 bytes'),
        (legacy(state(tensor()), data=DATA[:-4]), 'has 3 values; expected 4'),
        (legacy(state(tensor()))[:-1], 'ends beyond the end of the file'),
        (legacy(state(tensor()), keys=('1',)), 'KeyError'),
        (legacy(state(tensor()), keys=(0,)), 'list of storages'),
        (legacy(state(tensor()), magic=5), 'another number'),
        (legacy(state(tensor()), little=False), 'big-endian'),
        (b'no checkpoint', 'expected a file of tensors that PyTorch has saved'),
        (b'', 'longer than the file'),
    ],
)
def test_hostile_archives(tmp_path, content, message):
    path = tmp_path / 'a.pth'
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as e:
        read_pth(path)
    assert str(e.value).startswith(f'{path}: ') and '\n' not in str(e.value)


def test_copies_of_copies_are_limited(monkeypatch):
    """A pickle of a few MB could call a function on one long list a million times."""
    monkeypatch.setattr(tensor_pickle, '_MAX_COPIED', 1000)
    call = name('torch', 'Size') + b'h\1\x85R'

    def pickled(n):
        numbers = b'](' + b'K\1' * 90 + b'eq\1'
        return b'\x80\x02' + b'(' + numbers + call * n + b't.'

    for n in 5, 10, 11:
        file = tensor_pickle.LimitedReader(io.BytesIO(pickled(n)), 1 << 20)
        if n < 11:
            assert len(tensor_pickle.load(file)) == n + 1
        else:
            with pytest.raises(ValueError, match='copies more than 1,000 values'):
                tensor_pickle.load(file)


def test_memory_is_checked(samples, tmp_path, monkeypatch):
    path = tmp_path / 'a.pth'
    path.write_bytes(samples.LEGACY)
    monkeypatch.setattr(memory, '_UNCHECKED', 10)
    monkeypatch.setattr(memory, 'available_memory', lambda: 100)
    with pytest.raises(InputError, match='a.pth: its content needs 0.0 MB of memory'):
        read_pth(path)
