"""Compilation of fake CuPy's kernels with the C++ compiler, and their record."""

import ctypes
import functools
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path


class NoCompilerError(RuntimeError):
    """There is no C++ compiler on this machine."""


@functools.cache
def _folder() -> Path:
    # One directory per process. The environment variable shares one between processes.
    folder = os.environ.get('PFDET_FAKE_CUPY_KERNELS') or tempfile.mkdtemp(prefix='kernels-')
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


@functools.cache
def compile_library(source: str, *flags: str) -> ctypes.CDLL:
    """Compile C++ source to a shared library and load it."""
    compiler = shutil.which('g++') or shutil.which('clang++')
    if compiler is None:
        raise NoCompilerError('no g++ or clang++')
    name = hashlib.sha256(source.encode()).hexdigest()[:24]
    library = _folder() / f'{name}.so'
    if not library.exists():
        path = _folder() / f'{name}-{os.getpid()}.cpp'
        path.write_text(source)
        unfinished = path.with_suffix('.so')
        # As in CUDA, the compiler may fuse a multiplication and an addition.
        result = subprocess.run(
            [
                compiler,
                '-std=c++17',
                '-O1',
                '-w',
                '-fpermissive',
                '-fPIC',
                '-shared',
                *flags,
                str(path),
                '-o',
                str(unfinished),
            ],
            capture_output=True,
            text=True,
        )
        if result.returncode:
            raise RuntimeError(f'{path}:\n{result.stderr[:4000]}')
        unfinished.replace(library)
    return ctypes.CDLL(str(library))


@functools.cache
def record(*entry) -> None:
    """Append a kernel and its types to the file for compile_kernels.py, if one is given."""
    path = os.environ.get('PFDET_FAKE_CUPY_RECORD')
    if path:
        with open(path, 'a') as f:
            f.write(json.dumps(entry) + '\n')
