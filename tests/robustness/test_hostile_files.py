"""No file hangs a reader, fills the memory, executes code, or ends in a traceback.

Files are read in child processes with limits on time and memory. The limits on time are far above
what reading takes, so that they tell a hang from a slow machine.
"""

import gzip
import importlib.util
import os
import socket

import numpy as np
import pytest

# Reading without limits would take at least minutes.
SECONDS = 60.0
# Far above what the readers of such small files allocate.
MEMORY = 1 << 30


def make_pipe(path, good):
    os.mkfifo(path)


def make_socket(path, good):
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as server:
        # The length of a socket's path is limited.
        os.chdir(path.parent)
        try:
            server.bind(path.name)
        finally:
            os.chdir(here)


def make_sparse(path, good):
    with open(path, 'wb') as file:
        file.write(good)
        file.truncate(1 << 40)


def link_to(target):
    return lambda path, good: path.symlink_to(target)


def content(make):
    return lambda path, good: path.write_bytes(make(good))


NOISE = np.random.default_rng(0).bytes(5000)
NO_FILES = ('pipe', 'socket', 'directory', 'endless device', 'null device', 'dangling link')
# What a file may be instead of what it should be.
KINDS = {
    'pipe': make_pipe,
    'socket': make_socket,
    'directory': lambda path, good: path.mkdir(),
    'endless device': link_to('/dev/zero'),
    'null device': link_to('/dev/null'),
    'dangling link': link_to('absent'),
    'loop of links': lambda path, good: path.symlink_to(path.name),
    'missing': lambda path, good: None,
    'empty': content(lambda good: b''),
    'zeros': content(lambda good: bytes(100_000)),
    'noise': content(lambda good: NOISE),
    'one byte': content(lambda good: good[:1]),
    'start': content(lambda good: good[:16]),
    'start and noise': content(lambda good: good[: len(good) // 3] + NOISE),
    'twice': content(lambda good: good + good),
    'nested lists': content(lambda good: b'[' * 200_000),
    'nested objects': content(lambda good: b'{"a":' * 200_000),
    'long number': content(lambda good: b'9' * 100_000),
    'long line': content(lambda good: b'a' * 1_000_000),
    'quotes': content(lambda good: b'"' * 100_001),
    'nul characters': content(lambda good: good.replace(b',', b'\0')),
    'not UTF-8': content(lambda good: good.replace(b'/', b'\xff')),
    'escapes': content(lambda good: good.replace(b'/m/', b'\x1b[31m')),
}


# Reading these takes seconds.
SLOW_KINDS = {
    'gzip of zeros': content(lambda good: gzip.compress(bytes(1 << 26), 1)),
    'sparse terabyte': make_sparse,
}
READERS = [
    *('image', 'image reduced', 'image size', 'npz', 'weights', 'backbone', 'rates npz'),
    *('rates npy', 'snapshot', 'safetensors', 'pth', 'recipe', 'run', 'score', 'parquet'),
    *('parquet blocks', 'detections csv', 'detections csv blocks', 'submission', 'is submission'),
    *('classes', 'class counts', 'hierarchy', 'pairs', 'coco', 'boxes', 'index', 'columns'),
    *('voc', 'yolo labels', 'class names'),
    *(['data yaml'] if importlib.util.find_spec('yaml') else []),
]


def variant(source, directory):
    """The path of a file in a new directory, next to the other files of the good one."""
    directory.mkdir(parents=True)
    for other in source.parent.iterdir():
        if other.is_file() and other != source:
            os.link(other, directory / other.name)
    return directory / source.name


def assert_graceful(outcomes):
    assert not [str(o) for o in outcomes if not o.is_graceful]


def test_good_files_are_read(worker, good):
    """Otherwise the tests below could not fail."""
    assert sorted(good) == sorted(READERS) == worker.readers
    for reader in READERS:
        [outcome] = worker.read(reader, [good[reader]], SECONDS, MEMORY)
        assert outcome.outcome == 'value', str(outcome)


def read_kinds(worker, good, tmp_path, reader, kinds):
    paths = []
    for k, make in enumerate(kinds.values()):
        paths.append(variant(good[reader], tmp_path / str(k)))
        make(paths[-1], good[reader].read_bytes())
    return worker.read(reader, paths, SECONDS, MEMORY)


@pytest.mark.faults('hostile files')
@pytest.mark.parametrize('reader', READERS)
def test_hostile_files_end_with_a_line(worker, good, tmp_path, reader, tried):
    tried(len(KINDS))
    outcomes = read_kinds(worker, good, tmp_path, reader, KINDS)
    assert_graceful(outcomes)
    # Not even a reader that accepts anything opens what is no file.
    for kind, outcome in zip(KINDS, outcomes, strict=True):
        if kind in NO_FILES and reader != 'is submission':
            assert outcome.outcome == 'refused', f'{kind}: {outcome}'


@pytest.mark.faults('hostile files')
@pytest.mark.soak
@pytest.mark.parametrize('reader', READERS)
def test_large_files_end_with_a_line(worker, good, tmp_path, reader, tried):
    tried(len(SLOW_KINDS))
    assert_graceful(read_kinds(worker, good, tmp_path, reader, SLOW_KINDS))


def read_contents(worker, source, reader, directory, contents):
    paths = []
    for k, data in enumerate(contents):
        paths.append(variant(source, directory / str(k)))
        paths[-1].write_bytes(data)
    return worker.read(reader, paths, 10 * SECONDS, MEMORY)


@pytest.mark.faults('hostile files')
@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('step', [64, pytest.param(1, marks=pytest.mark.soak)])
def test_truncated_files(worker, good, tmp_path, reader, step, tried):
    """Cut off after every 64th byte; in the soak after every byte. Of large files, a sample."""
    whole = good[reader].read_bytes()
    step = max(step, len(whole) // (2000 // step))
    contents = [whole[:end] for end in range(0, len(whole), step)]
    tried(len(contents))
    assert_graceful(read_contents(worker, good[reader], reader, tmp_path, contents))


@pytest.mark.faults('hostile files')
@pytest.mark.parametrize('reader', READERS)
@pytest.mark.parametrize('n', [20, pytest.param(2000, marks=pytest.mark.soak)])
def test_changed_bytes(worker, good, tmp_path, reader, n, tried):
    """Files with some bytes, bits or pieces changed, by a seed that is the same in each run."""
    whole = good[reader].read_bytes()
    rng = np.random.default_rng([n, len(whole)])
    # Fewer of the weights of a network, which have 5 MB.
    contents = [mutated(whole, rng) for _ in range(max(20, min(n, 10**8 // len(whole))))]
    tried(len(contents))
    assert_graceful(read_contents(worker, good[reader], reader, tmp_path, contents))


def mutated(whole, rng):
    data = bytearray(whole)
    kind = rng.integers(5)
    # Headers are at the start or at the end.
    places = [rng.integers(len(data)), rng.integers(min(200, len(data))), -1 - rng.integers(20)]
    for _ in range(rng.integers(1, 5)):
        at = int(places[rng.integers(3)]) % max(1, len(data))
        if kind == 0:
            data[at : at + 1] = rng.bytes(1)
        elif kind == 1:
            data[at : at + 8] = (b'\xff' * 8, bytes(8), b'\x7f' + b'\xff' * 7)[rng.integers(3)]
        elif kind == 2:
            del data[at : at + int(rng.integers(1, 100))]
        elif kind == 3:
            data[at:at] = data[: int(rng.integers(1, 100))]
        else:
            digits = b'0123456789'
            data[at : at + 1] = digits[k : k + 1] if (k := int(rng.integers(12))) < 10 else b'-'
    return bytes(data)
