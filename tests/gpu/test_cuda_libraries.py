"""What ``python -m pfdet.compat`` says of CUDA, and finding the libraries that pip installed."""

import shutil
import subprocess
import sys
import types
from pathlib import Path

from pfdet.compat import cuda_libraries

import numpy as np
import pytest


@pytest.fixture
def wheels(tmp_path, monkeypatch):
    """A folder that looks like an installation of NVIDIA's packages, in which are two libraries."""
    lib = tmp_path / 'nvidia' / 'some' / 'lib'
    lib.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split('.')[0] == 'nvidia']:
        monkeypatch.delitem(sys.modules, name)
    # Any library will do that depends on nothing that is not open already.
    shutil.copy(
        np._core._multiarray_umath.__file__
        if hasattr(np, '_core')
        else np.core._multiarray_umath.__file__,
        lib / 'libpfdet_one.so.1',
    )
    (lib / 'libpfdet_two.so.1').write_text('no library')
    return lib


def test_libraries_of_wheels_are_opened(wheels):
    names = 'libpfdet_none.so.1', 'libpfdet_two.so.1', 'libpfdet_one.so.1'
    assert cuda_libraries.preload(names) == [str(wheels / 'libpfdet_one.so.1')]


def test_a_library_that_the_loader_finds_is_left_to_it(wheels):
    shutil.copy(wheels / 'libpfdet_one.so.1', wheels / 'libc.so.6')
    assert cuda_libraries.preload(['libc.so.6']) == []


def fake_cupy(monkeypatch, version='13.6.0', driver=12040, n_gpu=2, libraries=('cublas', 'curand')):
    """A module named cupy that answers as CuPy does."""

    def device_count():
        if not n_gpu:
            raise RuntimeError('cudaErrorNoDevice: no CUDA-capable device is detected')
        return n_gpu

    cupy, cuda = types.ModuleType('cupy'), types.ModuleType('cupy.cuda')
    cupy.__version__, cupy.cuda = version, cuda
    cuda.runtime = types.SimpleNamespace(
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: 12090,
        getDeviceCount=device_count,
        getDeviceProperties=lambda i: {'name': b'NVIDIA H200'},
    )
    cuda.nvrtc = types.SimpleNamespace(getVersion=lambda: (12, 9))
    for name in libraries:
        setattr(cuda, name, object())
    nccl = types.ModuleType('cupy.cuda.nccl')
    nccl.available, nccl.get_version = True, lambda: 22703
    cudnn = types.ModuleType('cupy.cuda.cudnn')
    cudnn.getVersion = lambda: 8907
    for module in cupy, cuda, nccl, cudnn, types.ModuleType('cupy.cudnn'):
        monkeypatch.setitem(sys.modules, module.__name__, module)


def found():
    return {f.name: f for f in cuda_libraries.findings()}


def test_what_is_there(monkeypatch):
    fake_cupy(monkeypatch)
    findings = found()
    versions = {name: f.version for name, f in findings.items()}
    assert versions == {
        'CuPy': '13.6.0',
        'CUDA driver': '12.4',
        'CUDA runtime': '12.9',
        'cuBLAS': 'found',
        'cuRAND': 'found',
        'cuSOLVER': '',
        'cuSPARSE': '',
        'NVRTC': '12.9',
        'GPUs': '2: NVIDIA H200',
        'cuDNN': '8.9.7',
        'NCCL': '2.27.3',
    }
    assert 'install the extra' in findings['cuSOLVER'].meaning
    assert not findings['CUDA runtime'].meaning


def test_what_is_missing_and_what_it_means(monkeypatch):
    fake_cupy(monkeypatch, '14.2.0', driver=11080, n_gpu=0)
    findings = found()
    assert 'im2col' in findings['cuDNN'].meaning and not findings['cuDNN'].version
    assert 'update the driver' in findings['CUDA runtime'].meaning
    assert 'no CUDA-capable device' in findings['GPUs'].meaning and not findings['GPUs'].version
    fake_cupy(monkeypatch, driver=0, n_gpu=0)
    assert 'no NVIDIA GPU' in found()['CUDA driver'].meaning


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', None)
    (finding,) = cuda_libraries.findings()
    assert finding.name == 'CuPy' and not finding.version


def test_a_driver_without_a_gpu_is_no_gpu(tmp_path):
    """CuPy that imports where there is no GPU leaves Chainer on the CPU."""
    (tmp_path / 'cupy_cuda12x-13.6.0.dist-info').mkdir()
    (tmp_path / 'cupy_cuda12x-13.6.0.dist-info' / 'METADATA').write_text(
        'Metadata-Version: 2.1\nName: cupy-cuda12x\nVersion: 13.6.0\n'
    )
    fake_cupy = Path(__file__).parent / 'fake_cupy'
    program = f"""
import sys
sys.path[:0] = [{str(fake_cupy)!r}, {str(tmp_path)!r}]
import pfdet.compat
import cupy
cupy.cuda.runtime.getDeviceCount = lambda: 0
import chainer
from pfdet.training.communicators import communicator
print(chainer.backends.cuda.available, communicator()[1])
"""
    result = subprocess.run(
        [sys.executable, '-c', program],
        text=True,
        capture_output=True,
        cwd=Path(__file__).parents[2],
    )
    assert result.stdout.split() == ['False', '-1'], result.stderr


def test_more_ranks_than_gpus_is_one_line(mpiexec):
    fake_cupy = Path(__file__).parent / 'fake_cupy'
    result = mpiexec(
        2,
        f"""
        import sys
        sys.path.insert(0, {str(fake_cupy)!r})
        import pfdet.compat
        from pfdet.errors import run_command
        from pfdet.training.communicators import communicator
        run_command(lambda: communicator('naive'))
    """,
        check=False,
    )
    assert result.returncode != 0
    assert 'error: 2 ranks on a node with 1 GPU(s)' in result.stderr
    assert 'Traceback' not in result.stderr
