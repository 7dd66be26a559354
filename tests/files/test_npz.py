"""The reader of .npz and .npy files, compared with NumPy's, and on hostile files."""

import io
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.files import memory
from pfdet.files.npz import open_npz, read_npy, read_npz

ARRAYS = {
    'float': np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4),
    'a/b/c': np.arange(24, dtype=np.int64).reshape(2, 3, 4),
    'scalar': np.array(2.5),
    'fortran': np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    'big-endian': np.arange(5, dtype='>f8'),
    'half': np.array([1, np.nan, np.inf], np.float16),
    'bool': np.array([True, False]),
    'text': np.array(['/m/a', 'Käse', '']),
    'one text': np.array('{"a": 1}'),
    'empty': np.zeros((0, 4), np.uint8),
    'no text': np.array([], np.str_),
    'one': np.ones((1,) * 30, np.uint32),
}


def assert_same(got, expected):
    assert list(got) == list(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array)
        assert got[name].dtype == array.dtype and got[name].shape == array.shape


@pytest.mark.parametrize('save', [np.savez, np.savez_compressed])
def test_equals_numpy(tmp_path, save):
    path = tmp_path / 'a.npz'
    save(path, **ARRAYS)
    with np.load(path, allow_pickle=False) as file:
        assert_same(read_npz(path), dict(file))
    with open_npz(path) as archive:
        assert 'float' in archive and 'none' not in archive and len(archive) == len(ARRAYS)
        for name, array in ARRAYS.items():
            header = archive.header(name)
            assert (header.dtype, header.shape, header.n_byte) == (
                array.dtype,
                array.shape,
                array.nbytes,
            )
        assert archive['scalar'] == 2.5
        with pytest.raises(KeyError):
            archive['none']
    for array in ARRAYS.values():
        np.save(tmp_path / 'a.npy', array)
        assert_same({'a': read_npy(tmp_path / 'a.npy')}, {'a': np.load(tmp_path / 'a.npy')})


@pytest.mark.parametrize('version', [(1, 0), (2, 0), (3, 0)])
def test_versions_of_the_format(tmp_path, version):
    with open(tmp_path / 'a.npy', 'wb') as file:
        np.lib.format.write_array(file, ARRAYS['float'], version)
    np.testing.assert_array_equal(read_npy(tmp_path / 'a.npy'), ARRAYS['float'])


def npy(header, data=b'', version=1, magic=b'\x93NUMPY'):
    """A .npy file with any header."""
    text = header.encode() + b'\n'
    length = struct.pack('<H' if version == 1 else '<I', len(text))
    return magic + bytes([version, 0]) + length + text + data


def plain(dtype="'<f4'", shape='(2,)', order='False'):
    return f"{{'descr': {dtype}, 'fortran_order': {order}, 'shape': {shape}, }}"


DATA = np.zeros(2, np.float32).tobytes()


@pytest.mark.filterwarnings('ignore:Reading `.npy` or `.npz` file required')
@pytest.mark.parametrize(
    'header',
    [
        plain(shape='(2L,)'),  # Python 2
        plain(shape='( 2 , )'),
        "{'shape': (2,), 'fortran_order': False, 'descr': '<f4'}",
        '{"descr":"<f4","fortran_order":False,"shape":(2,)}',
    ],
)
def test_headers_of_other_writers(tmp_path, header):
    path = tmp_path / 'a.npy'
    path.write_bytes(npy(header, DATA))
    np.testing.assert_array_equal(np.load(path), np.zeros(2, np.float32))
    np.testing.assert_array_equal(read_npy(path), np.zeros(2, np.float32))


class _Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def pickled(path):
    """An array of one object that makes a directory when it is unpickled."""
    return np.array([_Payload(path)], object)


# Bytes of a .npy file, and the end of the message.
BAD_ARRAYS = {
    'objects': (npy(plain("'|O'", '(1,)'), pickle.dumps([1])), 'pickled Python objects'),
    'objects with a size': (npy(plain("'O8'", '(1,)'), b'N.'), 'pickled Python objects'),
    'structured': (npy(plain("[('a', '<f4')]"), DATA), 'not that of a plain array'),
    'structured text': (npy(plain("'f4,O'", '(1,)'), DATA), 'has dtype'),
    'bytes': (npy(plain("'S4'"), DATA), 'has dtype'),
    'void': (npy(plain("'V4'"), DATA), 'has dtype'),
    'complex': (npy(plain("'<c8'", '(1,)'), DATA), 'has dtype'),
    'dates': (npy(plain("'<M8[s]'", '(1,)'), DATA), 'has dtype'),
    'unknown dtype': (npy(plain("'<f3'"), DATA), 'has dtype'),
    'huge text': (npy(plain("'<U99999999999'"), DATA), 'has dtype'),
    'empty text': (npy(plain("'<U0'", '(4611686018427387904,)')), 'has dtype'),
    '2^62 elements': (npy(plain(shape=f'({2**62},)'), DATA), 'declares shape'),
    'overflow': (npy(plain(shape=f'({2**32}, {2**32})'), DATA), 'declares shape'),
    'overflow to 8 bytes': (npy(plain(shape=f'({2**64 + 2},)'), DATA), 'declares shape'),
    'negative': (npy(plain(shape='(-2,)'), DATA), 'not that of a plain array'),
    'too many dimensions': (npy(plain(shape='(' + '1, ' * 70 + '2)'), DATA), 'expected a .npy'),
    'empty and huge': (npy(plain(shape=f'(0, {2**62}, {2**62})')), 'expected a .npy'),
    'many digits': (npy(plain(shape='(' + '9' * 9000 + ',)'), DATA), 'expected a .npy'),
    'too short': (npy(plain(shape='(3,)'), DATA), 'declares shape (3,)'),
    'too long': (npy(plain(shape='(1,)'), DATA), 'declares shape (1,)'),
    'shape is a number': (npy(plain(shape='2'), DATA), 'has the header'),
    'order is a number': (npy(plain(order='7'), DATA), 'has the header'),
    'call': (npy(plain(shape="(__import__('os').getpid(),)"), DATA), 'not that of a plain array'),
    'deep': (npy('(' * 5000, DATA), 'not that of a plain array'),
    'deep unary': (npy(plain(shape='-' * 5000 + '1'), DATA), 'not that of a plain array'),
    'missing key': (npy("{'descr': '<f4', 'shape': (2,), }", DATA), 'not that of a plain array'),
    'further key': (npy(plain()[:-1] + "'a': 1}", DATA), 'not that of a plain array'),
    'header not UTF-8': (
        npy('x', version=3).replace(b'x', b'\xff'),
        'expected a .npy file of numbers',
    ),
    'header too long': (b'\x93NUMPY\x02\x00\xff\xff\xff\xff' + b' ' * 100, 'bytes; expected'),
    'header cut off': (npy(plain())[:30], 'expected a .npy'),
    'length cut off': (b'\x93NUMPY\x01\x00\x00', 'expected a .npy'),
    'version 9': (npy(plain(), DATA, version=9), 'has version 9'),
    'no magic': (npy(plain(), DATA, magic=b'\x93NUMPX'), 'is not an array of NumPy'),
    'nothing': (b'', 'is not an array of NumPy'),
    'no character': (npy(plain("'<U2'", '(1,)'), b'\xff' * 8), 'characters that do not exist'),
    'half a character': (
        npy(plain("'<U2'", '(1,)'), b'\x00\xd8\0\0' + b'a\0\0\0'),
        'characters that do not exist',
    ),
}


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, 'w', compression) as archive:
        for name, content in members:
            archive.writestr(name, content)


def refused(read, path, *words):
    with pytest.raises(InputError) as e:
        read(path)
    message = str(e.value)
    assert message.startswith(f'{path}: ') and '\n' not in message and len(message) < 700
    for word in words:
        assert word in message
    return message


@pytest.mark.parametrize('case', BAD_ARRAYS)
def test_bad_arrays(tmp_path, case):
    content, message = BAD_ARRAYS[case]
    path = tmp_path / 'a.npy'
    path.write_bytes(content)
    refused(read_npy, path, message)
    for compression in zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED:
        path = tmp_path / 'a.npz'
        zipped(path, [('good.npy', npy(plain(), DATA)), ('bad/W.npy', content)], compression)
        refused(read_npz, path, 'array bad/W: ', message.replace('a .npy', 'a .npz'))
        with open_npz(path) as archive:
            assert (archive['good'] == 0).all()


def test_payload_is_not_executed(tmp_path):
    proof = tmp_path / 'proof'
    for suffix, read, save in ('.npz', read_npz, np.savez), ('.npy', read_npy, np.save):
        path = tmp_path / f'a{suffix}'
        save(path, pickled(proof))
        # The payload works.
        file = np.load(path, allow_pickle=True)
        if suffix == '.npz':
            file['arr_0']
        proof.rmdir()
        refused(read, path, 'pickled Python objects')
        assert not proof.exists()


def with_sizes(content, member, compressed=None, size=None):
    """Change the sizes that the directory of a zip file declares for a member."""
    content = bytearray(content)
    at = content.index(b'PK\1\2')
    while content[at + 46 : at + 46 + len(member)] != member:
        at = content.index(b'PK\1\2', at + 1)
    for offset, value in (20, compressed), (24, size):
        if value is not None:
            content[at + offset : at + offset + 4] = struct.pack('<I', value)
    return bytes(content)


def archive_bytes(**arrays):
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def method(content, number):
    """Change the compression method that the directory of a zip file declares."""
    at = content.index(b'PK\1\2') + 10
    return content[:at] + struct.pack('<H', number) + content[at + 2 :]


ONE = archive_bytes(a=np.arange(100))
BAD_ARCHIVES = {
    'no zip': (b'no archive', 'not a zip file'),
    'an array': (npy(plain(), DATA), 'not a zip file'),
    'nothing': (b'', 'not a zip file'),
    'directory cut off': (ONE[:-30], 'not a zip file'),
    'larger than the file': (with_sizes(ONE, b'a.npy', size=1 << 31), 'can hold'),
    'compressed larger': (with_sizes(ONE, b'a.npy', 1 << 31, 1 << 31), 'arrays that overlap'),
    'smaller': (with_sizes(ONE, b'a.npy', size=200), 'array a: '),
    'compressed smaller': (with_sizes(ONE, b'a.npy', 20), 'array a: '),
    'bzip2': (method(ONE, zipfile.ZIP_BZIP2), 'method 12'),
    'lzma': (method(ONE, zipfile.ZIP_LZMA), 'method 14'),
    'unknown method': (method(ONE, 99), 'method 99'),
    'wrong checksum': (ONE.replace(ONE[14:18], b'\1\2\3\4'), 'CRC'),
}


@pytest.mark.parametrize('case', BAD_ARCHIVES)
def test_bad_archives(tmp_path, case):
    content, message = BAD_ARCHIVES[case]
    path = tmp_path / 'a.npz'
    path.write_bytes(content)
    refused(read_npz, path, message, 'expected a .npz file of numbers and text')


@pytest.mark.filterwarnings('ignore:Duplicate name')
@pytest.mark.parametrize(
    'names, message',
    [
        (['a.npy', 'a.npy'], 'two arrays of the name a'),
        (['a.npy', 'readme.txt'], 'has a member readme.txt, which is not named .npy'),
        (['a.npy', 'b/'], 'has a member b/'),
    ],
)
def test_bad_members(tmp_path, names, message):
    path = tmp_path / 'a.npz'
    zipped(path, [(name, npy(plain(), DATA)) for name in names])
    refused(read_npz, path, message)


@pytest.mark.parametrize('compressed', [False, True])
def test_every_truncation_and_flipped_bytes(tmp_path, compressed):
    """A message or the arrays, never wrong ones: the archive has checksums."""
    path = tmp_path / 'a.npz'
    (np.savez_compressed if compressed else np.savez)(path, a=np.arange(50), b=np.eye(3))
    whole = path.read_bytes()
    expected = read_npz(path)
    for end in range(0, len(whole), 64):
        path.write_bytes(whole[:end])
        refused(read_npz, path)
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(100):
        content = bytearray(whole)
        content[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        path.write_bytes(content)
        try:
            got = read_npz(path)
        except InputError as e:
            assert str(e).startswith(f'{path}: ')
            n_refused += 1
        else:
            # A bit of a name or of a date.
            assert all(any(np.array_equal(a, b) for b in expected.values()) for a in got.values())
    assert n_refused > 50


def test_memory_is_checked_before_it_is_allocated(tmp_path, monkeypatch):
    path = tmp_path / 'bomb.npz'
    np.savez_compressed(path, a=np.zeros(1 << 20), b=np.zeros(1 << 20))
    assert path.stat().st_size < 1 << 15
    np.save(tmp_path / 'a.npy', np.zeros(1 << 20))
    monkeypatch.setattr(memory, '_UNCHECKED', 1 << 20)
    monkeypatch.setattr(memory, 'available_memory', lambda: 10_000_000)
    monkeypatch.setattr(np, 'empty', None)
    refused(read_npz, path, 'needs 16.8 MB of memory; expected at most the 10.0 MB')
    monkeypatch.setattr(memory, 'available_memory', lambda: 5_000_000)
    with open_npz(path) as archive:
        refused(lambda _: archive['a'], path, 'array a needs 8.4 MB')
    refused(read_npy, tmp_path / 'a.npy', 'needs 8.4 MB')
