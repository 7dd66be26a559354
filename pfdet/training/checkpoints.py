"""Snapshots of a run, written so that an interruption at any moment leaves a usable one.

A snapshot is an ``.npz`` archive followed by a line with the checksum of the archive. It is written
to a temporary file, synced to the disk and renamed, so a file of this name is always complete. The
checksum detects later damage by a disk or a network.
"""

import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import chainer
import numpy as np
from chainer import training

from pfdet import progress
from pfdet.atomic_write import remove_unfinished, replace_when_done
from pfdet.errors import InputError
from pfdet.files.json_file import parse_json
from pfdet.files.npz import ArrayArchive, open_npz
from pfdet.files.reading import reading
from pfdet.files.regular import regular_file
from pfdet.links.load_arrays import load_arrays

_NAME = re.compile(r'iter_(\d+)\.npz')
_MARK = b'\npfdet snapshot, SHA-256 of what precedes: '
_DIGEST_SIZE = 64
_KEY = 'pfdet_run'
_OPTIMIZER_STATE = re.compile(r'updater/optimizer:(\w+)/(.+)/\w+')
_SNAPSHOT = 'a snapshot of this run'
# Far beyond any number of ranks, batch size and accumulated batches.
_MAX_GLOBAL_BATCH = 1_000_000


class Snapshot(training.Extension):
    """Write the complete state of the trainer on the first rank, and keep the newest snapshots.

    All ranks have the same weights and statistics, and random choices depend only on positions in
    the global order. So one file serves any number of ranks. With the same number of ranks and
    threads on the same type of processor, a resumed run is bit-identical to an uninterrupted one;
    otherwise it is equal up to rounding.

    Args:
        directory (path): Directory of the snapshots.
        run (mapping): Identity of the run, JSON-serializable; returned by :func:`read_run`.
        keep (int): Number of snapshots to keep.

    Attributes:
        damaged (list of paths): Damaged snapshots. They are removed after the next one is written.

    Raises:
        InputError: The disk is full, or a weight is not finite. Earlier snapshots stay intact.
    """

    # Run after the extensions whose state is saved.
    priority = training.PRIORITY_READER - 100

    def __init__(self, directory: Path, run: Mapping | None = None, keep: int = 3):
        if keep < 1:
            raise ValueError(f'at least 1 snapshot must be kept, not {keep}')
        self.directory = Path(directory)
        self.run = dict(run or {})
        self.keep = keep
        self.damaged: list[Path] = []

    def __call__(self, trainer) -> None:
        iteration = trainer.updater.iteration
        with progress.phase(f'the snapshot after iteration {iteration}'):
            self._write(trainer, iteration)

    def _write(self, trainer, iteration: int) -> None:
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(trainer)
        name = _first_nonfinite(serializer.target)
        if name:
            raise InputError(
                f'iteration {iteration}: {name} is not finite, although the loss was; no snapshot '
                'was written'
            )
        run = {**self.run, 'iteration': iteration}
        write(self.directory / f'iter_{iteration:08d}.npz', serializer.target, run)
        self._remove_old()

    def _remove_old(self) -> None:
        for path in self.damaged:
            if path.exists() and problem(path):
                path.unlink()
        self.damaged = []
        for path in snapshots(self.directory)[self.keep :]:
            path.unlink(missing_ok=True)


def _first_nonfinite(state: Mapping[str, np.ndarray]) -> str | None:
    """The name of the first network or optimizer array with a NaN or an infinity."""
    for name, value in state.items():
        if (
            name.startswith('updater/')
            and np.asarray(value).dtype.kind == 'f'
            and not np.isfinite(value).all()
        ):
            return name.removeprefix('updater/')
    return None


def write(path: Path, state: Mapping[str, np.ndarray], run: Mapping) -> None:
    """Write a snapshot atomically.

    Args:
        path (path): File to write.
        state (mapping): Arrays by name.
        run (mapping): Identity of the run, JSON-serializable.

    Raises:
        InputError: The disk is full or the directory is not writable.
    """
    with replace_when_done(path, sync=True) as unfinished, open(unfinished, 'wb') as file:
        hashed = _HashedFile(file)
        np.savez(hashed, **state, **{_KEY: np.array(json.dumps(run))})
        file.write(_MARK + hashed.sha256.hexdigest().encode())


class _HashedFile(io.RawIOBase):
    """A sequentially written file that computes the checksum of its content."""

    def __init__(self, file):
        self.file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.sha256.update(data)
        progress.report()
        return self.file.write(data)


def snapshots(directory: Path) -> list[Path]:
    """All snapshots, newest first."""
    paths = [
        p for p in Path(directory).glob('iter_*.npz') if _NAME.fullmatch(p.name) and not p.is_dir()
    ]
    return sorted(paths, key=lambda p: int(_NAME.fullmatch(p.name)[1]), reverse=True)


def problem(path: Path) -> str | None:
    """Describe the damage of a snapshot; :obj:`None` if it is intact.

    For snapshots of older versions, which have no checksum line, the checksums inside the archive
    are verified.
    """
    tail = len(_MARK) + _DIGEST_SIZE
    try:
        with reading(path, _SNAPSHOT), open(path, 'rb', opener=regular_file) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - tail))
            mark, digest = file.read(len(_MARK)), file.read()
            if mark == _MARK:
                intact = _sha256(file, size - tail) == digest
                return None if intact else 'wrong checksum'
        with open_npz(path) as arrays:
            for name in arrays:
                arrays[name]
        return None
    except InputError as e:
        return f'cannot be read: {str(e).removeprefix(f"{path}: ").partition("; expected")[0]}'


def _sha256(file, size: int) -> bytes:
    """The checksum of the first ``size`` bytes of a file."""
    sha256 = hashlib.sha256()
    file.seek(0)
    while size > 0:
        block = file.read(min(size, 1 << 20))
        if not block:
            break
        sha256.update(block)
        size -= len(block)
    return sha256.hexdigest().encode()


def newest(
    directory: Path, warn: Callable[[str], None] | None = None
) -> tuple[Path | None, list[Path]]:
    """Find the newest undamaged snapshot.

    Temporary files of interrupted writes are removed.

    Args:
        directory (path): Directory of the snapshots.
        warn (callable): Called with a one-line warning for each damaged snapshot; by default it is
            printed to standard error.

    Returns:
        tuple: The path of the snapshot, or :obj:`None` if there is none, and the paths of newer
        damaged ones.

    Raises:
        InputError: There are snapshots, but all are damaged.
    """
    remove_unfinished(directory, 'iter_*.npz')
    path, damaged = newest_undamaged(directory, warn)
    if damaged and path is None:
        raise InputError(
            f'{directory}: all snapshots are damaged ({len(damaged)}); remove them to start from '
            'scratch'
        )
    return path, damaged


def newest_undamaged(
    directory: Path, warn: Callable[[str], None] | None = None
) -> tuple[Path | None, list[Path]]:
    """As :func:`newest`, but nothing is removed, and damage of all snapshots is no error."""
    warn = warn or (lambda line: print(line, file=sys.stderr, flush=True))
    damaged = []
    for path in snapshots(directory):
        damage = problem(path)
        if damage is None:
            return path, damaged
        damaged.append(path)
        warn(f'warning: {path}: damaged snapshot ({damage}); trying the previous one')
    return None, damaged


def read_run(path: Path) -> dict:
    """The identity of the run that wrote a snapshot; empty for snapshots of older versions."""
    with open_npz(path) as arrays:
        if _KEY not in arrays:
            return {}
        text = arrays[_KEY]
    with reading(path, _SNAPSHOT, _KEY):
        run = parse_json(path, str(text), _SNAPSHOT, _KEY)
        if not isinstance(run, dict):
            raise ValueError('it is not an object')
        return run


def load(trainer, path: Path) -> None:
    """Load the state of a trainer from a snapshot.

    Args:
        trainer (chainer.training.Trainer): Trainer of the same configuration.
        path (path): The snapshot.

    Raises:
        InputError: The file cannot be read, has another network or values that are not finite, or
            its position in the sequence of images is impossible.
    """
    with open_npz(path) as arrays:
        with reading(path, _SNAPSHOT):
            _check_progress(arrays, path)
        load_arrays(trainer, arrays, path, _SNAPSHOT)
        with reading(path, _SNAPSHOT):
            _check_optimizer(arrays, path)


def _check_progress(arrays: ArrayArchive, path: Path) -> None:
    names = [
        'updater/iteration',
        'updater/iterator:main/position',
        'updater/iterator:main/previous_position',
    ]
    if not all(name in arrays for name in names):
        # Loading will name the missing one.
        return
    iteration, position, previous = (int(arrays[name]) for name in names)
    # Every iteration has one image or more.
    if not 0 <= iteration <= position <= _MAX_GLOBAL_BATCH * iteration:
        raise InputError(
            f'{path}: iteration {iteration} at image {position} of the sequence; expected at least '
            f'1 and at most {_MAX_GLOBAL_BATCH:,} images per iteration'
        )
    if not 0 <= previous <= position:
        raise InputError(
            f'{path}: image {position} of the sequence after image {previous}; expected one from '
            f'0 to {position}'
        )


def _check_optimizer(arrays: ArrayArchive, path: Path) -> None:
    # Chainer takes the state of an optimizer that has not made a step yet in any shape.
    for name in arrays:
        match = _OPTIMIZER_STATE.fullmatch(name)
        param = match and f'updater/model:{match[1]}/{match[2]}'
        if param and param in arrays:
            shape, expected = arrays.header(name).shape, arrays.header(param).shape
            if shape not in ((), expected):
                raise InputError(
                    f'{path}: not {_SNAPSHOT}: {name} has shape {shape}; expected {expected}'
                )
