"""A worker process that reads hostile files, and good files of every kind."""

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What reading a file ended with; see ``worker.py``."""

    reader: str
    path: Path
    outcome: str
    text: str
    seconds: float
    peak: int

    @property
    def is_graceful(self) -> bool:
        """Whether it ended with a value, or with one line that names the file."""
        if self.outcome == 'value':
            return True
        # Readers of a run's directory name the file in it.
        names = self.path.name in self.text or str(self.path.parent) in self.text
        return self.outcome == 'refused' and names and '\n' not in self.text

    def __str__(self) -> str:
        return f'{self.reader}, {self.path.name}: {self.outcome}: {self.text}'


class Worker:
    """Reads files in child processes with limits; the modules are imported once.

    Args:
        programs (path): A directory at the start of ``PATH``.
    """

    def __init__(self, programs):
        self.programs = programs
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name('worker.py'))],
            cwd=ROOT,
            env={
                **os.environ,
                'PATH': os.pathsep.join([str(programs), os.environ['PATH']]),
                'PYTHONPATH': os.pathsep.join(
                    [str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])]
                ),
                'OMP_NUM_THREADS': '1',
                'OPENBLAS_NUM_THREADS': '1',
                # Others reserve gigabytes of addresses, which the limit counts.
                'ARROW_DEFAULT_MEMORY_POOL': 'system',
                'MALLOC_ARENA_MAX': '2',
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.readers = json.loads(self.process.stdout.readline())

    def read(self, reader, paths, seconds=60.0, memory=1 << 30) -> list[Outcome]:
        """Read files one after the other in one child process.

        Args:
            reader (str): A key of ``READERS`` in ``worker.py``.
            paths (sequence of paths): The files.
            seconds (float): Time for all of them, far more than they take.
            memory (int): Bytes that the child may allocate.

        Returns:
            list of Outcome: One per file.
        """
        request = {
            'reader': reader,
            'paths': [str(path) for path in paths],
            'seconds': seconds,
            'memory': memory,
        }
        self.process.stdin.write(json.dumps(request) + '\n')
        self.process.stdin.flush()
        return [
            Outcome(reader, path, **json.loads(self.process.stdout.readline())) for path in paths
        ]

    def close(self):
        self.process.stdin.close()
        self.process.wait(60)


@pytest.fixture(scope='session')
def worker(tmp_path_factory):
    worker = Worker(tmp_path_factory.mktemp('programs'))
    yield worker
    worker.close()


@pytest.fixture(scope='session')
def good(tmp_path_factory):
    """A small good file for every reader: a mapping from the reader's name to the path."""
    return load_module('good_files').write_good_files(tmp_path_factory.mktemp('good'))


def load_module(name):
    """Import a module of this directory."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
