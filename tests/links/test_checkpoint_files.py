import json

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.links.checkpoint_files import read_checkpoint, without_prefixes


def safetensors(header, data=b'', length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, 'little') + text + data


def entry(begin, end, shape=(2,), dtype='F32'):
    return {'dtype': dtype, 'shape': list(shape), 'data_offsets': [begin, end]}


def test_safetensors(tmp_path):
    a = np.arange(6, dtype='<f4').reshape(2, 3)
    b = np.array([1.5, -2.0, 3e38], '<f4')
    half = np.array([0.1, 65504], '<f2')
    data = a.tobytes() + (b.view('<u4') >> 16).astype('<u2').tobytes() + half.tobytes() + b'\7'
    path = tmp_path / 'a.safetensors'
    path.write_bytes(
        safetensors(
            {
                '__metadata__': {'format': 'pt'},
                'module.a': entry(0, 24, (2, 3)),
                'module.b': entry(24, 30, (3,), 'BF16'),
                'module.half': entry(30, 34, (2,), 'F16'),
                # A scalar at an odd offset.
                'module.n': entry(34, 35, (), 'U8'),
                'module.none': entry(35, 35, (0, 4)),
            },
            data,
        )
    )
    got = read_checkpoint(path)
    assert list(got) == ['a', 'b', 'half', 'n', 'none']
    np.testing.assert_array_equal(got['a'], a)
    np.testing.assert_allclose(got['b'], b, rtol=1 / 128)
    assert got['b'].dtype == np.float32 and got['b'][0] == 1.5
    np.testing.assert_array_equal(got['half'], half)
    assert got['n'] == 7 and got['none'].shape == (0, 4)


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'empty'),
        (b'1234', 'header does not fit'),
        (safetensors(b' ' * (1 << 24) + b'{}'), 'header of 16,777,218 bytes'),
        (safetensors({}, length=1000), 'header does not fit'),
        (safetensors({}, length=2**63), 'header does not fit'),
        (safetensors(b'{"a": '), 'not JSON'),
        (safetensors(b'\xff\xff'), 'header: .* codec'),
        (safetensors(b'[' * 100000), 'header: it is nested too deeply'),
        (safetensors(b'{"a":' * 5000), 'header: (it is nested too deeply|not JSON)'),
        (safetensors([1]), 'not a JSON object'),
        (safetensors({'a': 3}), 'tensor a: it has no valid dtype'),
        (safetensors({'a': {'dtype': 'F32', 'shape': [2]}}), 'tensor a: it has no valid dtype'),
        (safetensors({'a': entry(0, 8, (-2,))}, b'12345678'), 'tensor a: it has no valid dtype'),
        (safetensors({'a': entry(0, 8, (2.0,))}, b'12345678'), 'tensor a: it has no valid dtype'),
        (safetensors({'a': entry(0, 8, dtype='F8_E4M3')}, b'12345678'), 'tensor a: dtype F8_E4M3'),
        (safetensors({'a': entry(0, 8, dtype=['F32'])}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': entry(0, 8, dtype={})}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': entry(0, 8, dtype=None)}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': entry(0, 8, (1,) * 70 + (2,))}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': entry(0, 8, (1,) * 64 + (2,))}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': entry(0, 0, (0, 2**62, 2**62))}), 'tensor a: '),
        (safetensors({'a': entry(0, 8, (True, 2))}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': {**entry(0, 8), 'shape': 'ab'}}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': {**entry(0, 8), 'shape': 2}}, b'12345678'), 'no valid dtype'),
        (safetensors({'a': {**entry(0, 8), 'data_offsets': [0, 4, 8]}}), 'no valid dtype'),
        (safetensors({'a': entry(0, 2**70)}, b'12345678'), 'tensor a: bytes 0 to'),
        (safetensors({'a\n' * 99: entry(0, 80)}, b'12345678'), r'tensor a\\na\\n'),
        (safetensors({'a': entry(0, 8)}, b'1234567'), 'tensor a: bytes 0 to 8 of 7'),
        (safetensors({'a': entry(8, 0)}, b'12345678'), 'tensor a: bytes 8 to 0 of 8'),
        (safetensors({'a': entry(0, 8, (3,))}, b'12345678'), 'tensor a: 8 bytes for shape'),
    ],
)
def test_damaged_safetensors(content, message, tmp_path):
    path = tmp_path / 'a.safetensors'
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as e:
        read_checkpoint(path)
    assert str(e.value).startswith(f'{path}: ') and str(e.value).isprintable()


def test_damaged_npz(tmp_path):
    (tmp_path / 'a.npz').write_bytes(b'no archive')
    with pytest.raises(InputError, match='a.npz: .* not a zip file; expected a .npz file'):
        read_checkpoint(tmp_path / 'a.npz')
    np.save(tmp_path / 'b.npy', np.zeros(3))
    (tmp_path / 'b.npy').rename(tmp_path / 'b.npz')
    with pytest.raises(InputError, match='b.npz: .* not a zip file; expected a .npz file'):
        read_checkpoint(tmp_path / 'b.npz')


@pytest.mark.parametrize('suffix', ['.npz', '.safetensors', '.pth'])
def test_missing_file(suffix, tmp_path):
    with pytest.raises(InputError, match='No such file'):
        read_checkpoint(tmp_path / f'absent{suffix}')


def test_unknown_suffix(tmp_path):
    with pytest.raises(InputError, match='expected a file named .pth, .safetensors or .npz'):
        read_checkpoint(tmp_path / 'a.h5')


@pytest.mark.parametrize(
    'names, expected',
    [
        (['module.a.w', 'module.b'], ['a.w', 'b']),
        (['module.backbone.a', 'module.backbone.b'], ['a', 'b']),
        (['_orig_mod.encoder.a', '_orig_mod.encoder.b'], ['a', 'b']),
        (['model.a', 'model.model.b'], ['a', 'model.b']),
        # Not of all names
        (['backbone.a', 'head.b'], ['backbone.a', 'head.b']),
        (['modulea', 'module.b'], ['modulea', 'module.b']),
        (['features.a'], ['features.a']),
        ([], []),
    ],
)
def test_prefixes_that_all_names_share(names, expected):
    arrays = {name: np.full(2, k) for k, name in enumerate(names)}
    stripped = without_prefixes(arrays)
    assert list(stripped) == expected
    assert [a[0] for a in stripped.values()] == list(range(len(names)))


@pytest.mark.parametrize('name', ['w.pth', 'w.pth.tar', 'w.safetensors', 'w.npz'])
def test_an_empty_file_is_one_line(name, tmp_path):
    (tmp_path / name).touch()
    with pytest.raises(InputError, match=name):
        read_checkpoint(tmp_path / name)


def test_an_archive_that_is_no_checkpoint(tmp_path):
    (tmp_path / 'w.tar').touch()
    with pytest.raises(InputError, match='expected a file named .pth'):
        read_checkpoint(tmp_path / 'w.tar')
