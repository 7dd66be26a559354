"""Nothing in a file is executed, and small files cannot fill the memory."""

import hashlib
import os
import pickle
import struct
import subprocess
import sys
import zipfile

import numpy as np
import PIL.Image
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

SECONDS = 60.0
MEMORY = 1 << 30


class Payload:
    """Makes a directory when it is unpickled."""

    def __init__(self, proof):
        self.proof = proof

    def __reduce__(self):
        return os.mkdir, (str(self.proof),)


@pytest.fixture
def proof(tmp_path):
    """The path of a directory that a payload would make; that none did is checked at the end."""
    path = tmp_path / 'proof'
    yield path
    assert not path.exists()


def refused(worker, reader, path, *words, memory=MEMORY):
    [outcome] = worker.read(reader, [path], SECONDS, memory)
    assert outcome.outcome == 'refused' and outcome.is_graceful, str(outcome)
    for word in words:
        assert word in outcome.text
    return outcome


def with_object(source, target, proof):
    """Copy a .npz file; replace its arrays by pickled objects."""
    with np.load(source) as file:
        arrays = dict(file)
    for name in arrays:
        arrays[name] = np.array([Payload(proof)], object)
    np.savez(target, **arrays)


NPZ_READERS = ['npz', 'weights', 'backbone', 'rates npz', 'snapshot']


@pytest.mark.faults('code in files')
@pytest.mark.parametrize('checksum', [False, True])
@pytest.mark.parametrize('reader', NPZ_READERS)
def test_pickled_arrays(worker, good, tmp_path, proof, reader, checksum):
    path = tmp_path / good[reader].name
    with_object(good[reader], path, proof)
    if checksum:
        # A snapshot with it is trusted to be undamaged.
        content = path.read_bytes()
        mark = b'\npfdet snapshot, SHA-256 of what precedes: '
        path.write_bytes(content + mark + hashlib.sha256(content).hexdigest().encode())
    refused(worker, reader, path, 'has pickled Python objects, which could execute code')
    # The payload works.
    with np.load(path, allow_pickle=True) as file:
        file[file.files[0]]
    proof.rmdir()


@pytest.mark.faults('code in files')
def test_pickled_array_of_rates(worker, tmp_path, proof):
    np.save(tmp_path / 'rates.npy', np.array([Payload(proof)], object))
    refused(worker, 'rates npy', tmp_path / 'rates.npy', 'has pickled Python objects')


@pytest.mark.faults('code in files')
@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize('reader', ['pth', *NPZ_READERS, 'safetensors', 'rates npy'])
def test_plain_pickles(worker, tmp_path, proof, reader, protocol):
    """numpy.load and torch.load fall back to unpickling what they do not know."""
    path = tmp_path / 'iter_00000001.npz'
    path.write_bytes(pickle.dumps({'a': Payload(proof)}, protocol))
    refused(worker, reader, path)


@pytest.mark.faults('code in files')
def test_payload_in_a_file_of_pytorch(worker, tmp_path, proof):
    path = tmp_path / 'a.pth'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('a/data.pkl', pickle.dumps({'a': Payload(proof)}, 2))
    refused(worker, 'pth', path, 'has a call of posix.mkdir, which is not executed')
    pickles = [0x1950A86A20F9469CFC6C, 1001, {'little_endian': True}, {'a': Payload(proof)}, []]
    path.write_bytes(b''.join(pickle.dumps(value, 2) for value in pickles))
    refused(worker, 'pth', path, 'has a call of posix.mkdir, which is not executed')


EPS = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n'
LOAD_WITH_PILLOW = 'import sys, PIL.Image; PIL.Image.open(sys.argv[1]).load()'


@pytest.mark.faults('code in files')
def test_ghostscript_is_not_started(worker, tmp_path, proof):
    """Pillow starts the program gs for EPS files, whatever their name."""
    # The worker has this directory in its PATH.
    gs = worker.programs / 'gs'
    gs.write_text(f'#!/bin/sh\nmkdir -p {proof}\nexit 1\n')
    gs.chmod(0o755)
    path = tmp_path / 'x.jpg'
    path.write_bytes(EPS)
    for reader in 'image', 'image reduced', 'image size':
        refused(worker, reader, path, 'expected an image in one of the formats')
    # The payload works.
    subprocess.run(
        [sys.executable, '-c', LOAD_WITH_PILLOW, path],
        env={**os.environ, 'PATH': f'{worker.programs}:{os.environ["PATH"]}'},
        stderr=subprocess.DEVNULL,
        check=False,
    )
    proof.rmdir()


def zip_bomb(path, n_byte, name):
    """A .npz file of zeros."""
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({n_byte // 4},), }}"
    text = header.encode().ljust(118) + b'\n'
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open(name, 'w', force_zip64=True) as file:
            file.write(b'\x93NUMPY\1\0' + struct.pack('<H', len(text)) + text)
            for _ in range(n_byte >> 20):
                file.write(bytes(1 << 20))


@pytest.mark.faults('files that unpack to gigabytes')
@pytest.mark.parametrize('reader', NPZ_READERS)
def test_zip_bombs(worker, good, tmp_path, reader):
    """400 MB of zeros in 2 MB, in a process that may allocate 100 MB."""
    path = tmp_path / good[reader].name
    name = {'weights': 'fc/W', 'rates npz': 'mids', 'snapshot': 'pfdet_run'}.get(reader, 'a')
    zip_bomb(path, 400 << 20, f'{name}.npy')
    assert path.stat().st_size < 4 << 20
    refused(worker, reader, path, memory=100 << 20)


def parquet(path, n_row, image_id='x'):
    """Equal detections in one image."""
    zeros = pa.array(np.zeros(n_row, np.int8))
    columns = {
        name: pa.array([text]).dictionary_encode().take(zeros)
        for name, text in (('ImageID', image_id), ('LabelName', '/m/a'))
    }
    numbers = dict(Score=0.5, XMin=0.0, XMax=1.0, YMin=0.0, YMax=1.0)
    columns.update({name: np.full(n_row, x, np.float32) for name, x in numbers.items()})
    pq.write_table(pa.table(columns), path, compression='zstd', row_group_size=n_row)


@pytest.mark.faults('files that unpack to gigabytes')
@pytest.mark.parametrize('reader', ['parquet', 'parquet blocks'])
def test_parquet_bombs(worker, tmp_path, reader):
    path = tmp_path / 'd.parquet'
    parquet(path, 4_000_000)
    assert path.stat().st_size < 1 << 18
    refused(worker, reader, path, 'declares 4,000,000 rows in', 'at least one byte per row')
    parquet(path, 300_000)
    outcome = worker.read(reader, [path], SECONDS, MEMORY)[0]
    if reader == 'parquet':
        assert outcome.outcome == 'value', str(outcome)
    else:
        # Suppression would compare all pairs.
        refused(worker, reader, path, "more than 100,000 rows of image 'x'")
    parquet(path, 10, image_id='x' * (200 << 20))
    assert path.stat().st_size < 1 << 20
    refused(worker, reader, path, 'compressed bytes; expected at most 100 times as many')


@pytest.mark.faults('files that unpack to gigabytes')
@pytest.mark.soak
@pytest.mark.parametrize('form', ['WEBP', 'TIFF', 'PNG', 'JPEG', 'GIF'])
def test_largest_image_fits_into_memory(worker, tmp_path, form):
    """An image just below the limit of 179 million pixels: the file may have 34 bytes."""
    path = tmp_path / 'x.jpg'
    options = {'WEBP': {'lossless': True, 'method': 0}, 'TIFF': {'compression': 'tiff_lzw'}}
    img = PIL.Image.new('P' if form == 'GIF' else 'RGB', (16_383, 10_900))
    img.save(path, form, **options.get(form, {}))
    [outcome] = worker.read('image', [path], 10 * SECONDS, 2500 << 20)
    assert outcome.outcome == 'value' and '(10900, 16383, 3)' in outcome.text, str(outcome)
