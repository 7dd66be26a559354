"""The tests marked ``gpu``, run without a GPU on fake CuPy."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from chainer.backends import cuda

ROOT = Path(__file__).resolve().parents[2]
FAKE_CUPY = Path(__file__).parent / 'fake_cupy'


def run(*command, **kwargs):
    path = [str(FAKE_CUPY), str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
    environment = dict(
        os.environ, PYTHONPATH=os.pathsep.join(path), OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1'
    )
    return subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env=environment,
        text=True,
        capture_output=True,
        **kwargs,
    )


@pytest.mark.skipif(cuda.available, reason='the tests run on the GPU itself')
@pytest.mark.skipif(
    not shutil.which('g++') and not shutil.which('clang++'),
    reason='no C++ compiler to compile kernels with',
)
def test_the_gpu_tests_pass_on_fake_cupy():
    result = run(
        '-m',
        'pytest',
        '-q',
        '-m',
        'gpu',
        '-p',
        'no:cacheprovider',
        'tests/gpu',
        # With the stand-in of cuDNN: test_on_fake_cudnn.py.
        '--ignore=tests/gpu/test_cudnn_on_the_gpu.py',
        'tests/functions',
        'tests/targets',
        'tests/inference',
        timeout=600,
    )
    assert result.returncode == 0, result.stdout[-6000:] + result.stderr[-2000:]
    # They are not skipped.
    assert int(re.search(r'(\d+) passed', result.stdout).group(1)) >= 68
    # Fake CuPy has no NCCL.
    assert re.search(r' (\d+) skipped', result.stdout).group(1) == '3'


REJECTED = {
    'a NumPy array on the right': 'a + n',
    'a NumPy array on the left': 'n * a',
    'a function of NumPy': 'np.concatenate([a, a])',
    'a ufunc of NumPy': 'np.exp(a)',
    'numpy.asarray': 'np.asarray(a)',
    'float': 'float(a[0])',
    'int': 'int(a[0])',
    'bool': 'bool(a[0] > 1)',
    'index': '[1, 2, 3][cupy.asarray(1)]',
    'a function with a NumPy array': 'cupy.where(a > 0, n, a)',
    'a NumPy array as an index': 'a[np.array([0, 1])]',
    'a NumPy mask': 'a[n > 0]',
    'assigning a NumPy array': 'a.__setitem__(slice(None), n)',
    'an in-place operation with a NumPy array': 'a.__iadd__(n)',
    'a slice with a CuPy scalar': 'a[:cupy.asarray(1)]',
    'pickling': 'pickle.dumps(a)',
    'a sequence of keys': 'cupy.lexsort((a, a))',
    'a CuPy array of repeats': 'cupy.repeat(a, cupy.arange(3))',
    'a name missing in CuPy 13': 'cupy.put_along_axis',
    'a name missing in CuPy 13 and 14': 'cupy.sctypes',
    'a sort that is not stable': "cupy.argsort(a, kind='quicksort')",
    'a kernel with a NumPy array': "cupy.ElementwiseKernel('T x', 'T y', 'y = x')(n)",
}


def test_fake_cupy_rejects_errors_of_cupy_and_implicit_copies():
    lines = [f'check({case!r}, lambda: {expression})' for case, expression in REJECTED.items()]
    program = """
import pickle
import cupy
import numpy as np
n = np.arange(3.)
a = cupy.asarray(n)
def check(case, expression):
    try:
        print(case, 'returned', expression())
    except (TypeError, ValueError, AttributeError):
        pass
""" + '\n'.join(lines)
    result = run('-c', program)
    assert result.returncode == 0 and result.stdout == '', result.stdout + result.stderr


def test_fake_cupy_counts_waits_and_copies():
    program = """
import cupy
with cupy.counted() as (counts, locations):
    a = cupy.asarray([3., 0., 1.])
    a[a > 0], cupy.nonzero(a), a.get(), (a + 1).sum() * 2, a[a > 0].sum()
    a[a > 0] = 5
print(sorted(counts.items()))
"""
    result = run('-c', program)
    assert result.stdout.strip() == "[('to_gpu', 1), ('to_host', 1), ('wait', 3)]", result.stderr
