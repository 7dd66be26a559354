"""The CUDA section of ``python -m pfdet.compat``, and loading of libraries installed by pip."""

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
    """Make a directory like that of NVIDIA's packages, with two libraries."""
    lib = tmp_path / 'nvidia' / 'some' / 'lib'
    lib.mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split('.')[0] == 'nvidia']:
        monkeypatch.delitem(sys.modules, name)
    # Any library whose dependencies are already open can be used.
    shutil.copy(
        np._core._multiarray_umath.__file__
        if hasattr(np, '_core')
        else np.core._multiarray_umath.__file__,
        lib / 'libpfdet_one.so.1',
    )
    (lib / 'libpfdet_two.so.1').write_text('not a library')
    return lib


def test_libraries_of_wheels_are_opened(wheels):
    names = 'libpfdet_none.so.1', 'libpfdet_two.so.1', 'libpfdet_one.so.1'
    assert cuda_libraries.preload(names) == [str(wheels / 'libpfdet_one.so.1')]


def test_libraries_found_by_the_loader_are_not_preloaded(wheels):
    shutil.copy(wheels / 'libpfdet_one.so.1', wheels / 'libc.so.6')
    assert cuda_libraries.preload(['libc.so.6']) == []


def fake_cupy(monkeypatch, version='13.6.0', driver=12040, n_gpu=2, libraries=('cublas', 'curand')):
    """Install a module named cupy that reports versions like CuPy."""

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


def findings_by_name():
    return {f.name: f for f in cuda_libraries.findings()}


def test_versions(monkeypatch):
    fake_cupy(monkeypatch)
    findings = findings_by_name()
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
        'cuDNN 8': '8.9.7',
        'NCCL': '2.27.3',
    }
    assert 'install the extra' in findings['cuSOLVER'].meaning
    assert not findings['CUDA runtime'].meaning


def test_missing_components_and_their_meaning(monkeypatch):
    fake_cupy(monkeypatch, '14.2.0', driver=11080, n_gpu=0)
    findings = findings_by_name()
    assert 'im2col' in findings['cuDNN 8'].meaning and not findings['cuDNN 8'].version
    assert 'update the driver' in findings['CUDA runtime'].meaning
    assert 'no CUDA-capable device' in findings['GPUs'].meaning and not findings['GPUs'].version
    fake_cupy(monkeypatch, driver=0, n_gpu=0)
    assert 'no NVIDIA GPU' in findings_by_name()['CUDA driver'].meaning


def test_without_cupy(monkeypatch):
    monkeypatch.setitem(sys.modules, 'cupy', None)
    (finding,) = cuda_libraries.findings()
    assert finding.name == 'CuPy' and not finding.version


def test_chainer_uses_the_cpu_if_cupy_finds_no_gpu(tmp_path):
    """An importable CuPy is not enough for Chainer to use CUDA."""
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


def test_more_ranks_than_gpus_is_an_error_of_one_line(mpiexec):
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
