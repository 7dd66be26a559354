"""Exceptions of libraries become one line."""

import json
import struct
import zipfile
import zlib

import pytest

from pfdet.errors import InputError
from pfdet.files import memory
from pfdet.files.json_file import parse_json, read_json
from pfdet.files.memory import available_memory, check_memory
from pfdet.files.reading import reading


def overflow_stack():
    return overflow_stack()


@pytest.mark.parametrize(
    'call, expected',
    [
        (lambda: open('/absent/file'), 'No such file or directory'),
        (lambda: open('/'), 'Is a directory'),
        (lambda: open('a\0b'), 'embedded null byte'),
        (lambda: {}['key'], "KeyError: 'key'"),
        (lambda: [][0], 'IndexError: list index out of range'),
        (lambda: None.a, "AttributeError: 'NoneType' object has no attribute 'a'"),
        (lambda: b'\xff'.decode(), 'codec'),
        (lambda: struct.unpack('<I', b''), 'error: unpack requires a buffer of 4 bytes'),
        (lambda: zlib.decompress(b'1234'), 'Error -3'),
        (lambda: zipfile.ZipFile(open('/dev/null', 'rb')), 'BadZipFile: File is not a zip file'),
        (lambda: (1.0e999).__trunc__(), 'OverflowError: cannot convert'),
        (overflow_stack, 'it is nested too deeply'),
        (lambda: bytes(1 << 62), 'there is not enough memory to read it'),
        (lambda: next(iter(())), 'StopIteration'),
        (lambda: (_ for _ in ()).throw(ValueError('two\n  lines')), 'two lines'),
        (lambda: (_ for _ in ()).throw(ValueError('long ' * 99)), 'long long'),
        (lambda: (_ for _ in ()).throw(OSError('no number')), 'OSError: no number'),
    ],
)
def test_every_exception_is_one_line(call, expected):
    with pytest.raises(InputError) as e, reading('data.bin', 'a file', 'part 3'):
        call()
    message = str(e.value)
    assert message.startswith('data.bin: part 3: ') and message.endswith('; expected a file')
    assert expected in message and '\n' not in message and len(message) < 300
    with pytest.raises(InputError, match='^data.bin: [^:]*'), reading('data.bin', 'a file'):
        call()


def test_messages_are_printable():
    """Names in a file may have line ends, or escape sequences for a terminal."""
    with pytest.raises(InputError) as e, reading('a', 'b', 'array c\n\x1b[31m\ud800 ä'):
        raise ValueError('d\x1b]0;e\x07\ud800')
    assert str(e.value) == (r'a: array c\n\x1b[31m\ud800 ä: d\x1b]0;e\x07\ud800; expected b')


def test_what_is_not_an_error_of_the_file_passes():
    error = InputError('own message')
    with pytest.raises(InputError) as e, reading('a', 'b'):
        raise error
    assert e.value is error
    for kind in KeyboardInterrupt, SystemExit, GeneratorExit:
        with pytest.raises(kind), reading('a', 'b'):
            raise kind
    with reading('a', 'b'):
        pass


VALUE = {
    'a': [1, 2.5, None, True, 'ä\ud83d\ude00'.encode('utf-16', 'surrogatepass').decode('utf-16')]
}


@pytest.mark.parametrize('mark', [b'', b'\xef\xbb\xbf'])
def test_json(tmp_path, mark):
    path = tmp_path / 'a.json'
    for ascii_only in True, False:
        path.write_bytes(mark + json.dumps(VALUE, ensure_ascii=ascii_only).encode())
        assert read_json(path, 'a value') == VALUE
    assert parse_json(path, '[1]', 'a value') == [1] == parse_json(path, b'[1]', 'a value')


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'not JSON, line 1, column 1'),
        (b'{"a": 1,\n 2}', 'not JSON, line 2, column 2'),
        (b'[' * 100_000, 'nested too deeply'),
        (b'{"a":' * 100_000, 'nested too deeply'),
        (b'[' * 1000 + b']' * 999, 'expected a value'),
        (b'\xff\xfe[\0', 'codec'),
        (b'"\xff"', 'codec'),
        (b'9' * 5000, 'expected a value'),
        (b'\0' * 1000, 'not JSON'),
        (b'[1] [2]', 'not JSON'),
    ],
)
def test_bad_json(tmp_path, content, message):
    path = tmp_path / 'a.json'
    path.write_bytes(content)
    try:
        value = read_json(path, 'a value')
    except InputError as e:
        assert str(e).startswith(f'{path}: ') and '\n' not in str(e)
        assert message in str(e) and str(e).endswith('expected a value')
    else:
        # Python before 3.11 has no limit on the digits of a number.
        assert content == b'9' * 5000 and value == int(content)


def test_size_of_json(tmp_path, monkeypatch):
    path = tmp_path / 'a.json'
    with open(path, 'wb') as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match=r'a\.json: has 1,099,511,627,776 bytes, more than'):
        read_json(path, 'a value')
    path.write_bytes(b' ' * 10_000_000 + b'[]')
    monkeypatch.setattr(memory, 'available_memory', lambda: 100_000_000)
    with pytest.raises(InputError, match=r'a\.json: its content needs 240.0 MB of memory'):
        read_json(path, 'a value')


def test_check_memory():
    available = available_memory()
    assert 0 <= available < 1 << 62
    check_memory('a', 1 << 26)
    with pytest.raises(
        InputError, match='^b: its content needs 4,611,686,018,427.4 MB of memory; exp'
    ):
        check_memory('b', 1 << 62)


@pytest.mark.parametrize('version', [1, 2])
def test_limits_of_control_groups(tmp_path, monkeypatch, version):
    """The smallest of the limits of a group and of the groups around it counts."""
    files = {
        1: ('memory.limit_in_bytes', 'total_rss 300\n', '5:cpu,memory:/job/step\n6:cpuset:/x\n'),
        2: ('memory.max', 'file 7\nanon 300\n', '0::/job/step\n'),
    }
    limit, used, groups = files[version]
    root = tmp_path / 'sys/fs/cgroup' / ('memory' if version == 1 else '')
    (root / 'job/step').mkdir(parents=True)
    (tmp_path / 'proc/self').mkdir(parents=True)
    (tmp_path / 'proc/self/cgroup').write_text(groups)
    real = memory.Path

    class Path(type(real())):
        """Looks for the files of the system below another root."""

        def __new__(cls, path='.', *more):
            return real(tmp_path / str(path).lstrip('/'), *more)

    monkeypatch.setattr(memory, 'Path', Path)
    assert memory._control_groups() == []
    for name, value in ('job/step', 'max'), ('job', '1000'), ('', '2000'):
        (root / name / limit).write_text(f'{value}\n')
        (root / name / 'memory.stat').write_text(f'cache 5\n{used}')
    assert memory._control_groups() == [700, 1700]
