"""Snapshots of a run, from which it can be resumed, whatever happened to it.

A snapshot is an ``.npz`` archive with one more line, the checksum of what precedes it. It is
written beside its place, brought to the disk and renamed, so there is never half of one under its
name; the checksum finds what a disk or a network did to it later.
"""

import hashlib
import io
import json
import re
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import chainer
import numpy as np
from chainer import training

from pfdet.atomic_write import remove_unfinished, replace_when_done
from pfdet.errors import InputError

_NAME = re.compile(r'iter_(\d+)\.npz')
_MARK = b'\npfdet snapshot, SHA-256 of what precedes: '
_DIGEST_SIZE = 64
_KEY = 'pfdet_run'


class Snapshot(training.Extension):
    """Write the trainer's whole state, on the first rank, and keep the newest ones.

    All ranks have the same weights and statistics, and randomness depends on positions in the
    global order alone. So one file serves any number of ranks. Resumed on as many ranks as before,
    with as many threads on the same kind of processor, a run goes on bit for bit; on others up to
    rounding.

    Args:
        directory (path): Where the snapshots go.
        run (mapping): What the run is, as JSON has it; comes back from :func:`read_run`.
        keep (int): How many snapshots stay.

    Attributes:
        damaged (list of paths): Snapshots that cannot be used. The next one that is written takes
            their place.

    Raises:
        InputError: The disk is full; the snapshots before are whole. Or the weights are not finite
            numbers.
    """

    # After the extensions whose state it keeps.
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
        serializer = chainer.serializers.DictionarySerializer()
        serializer.save(trainer)
        bad = _not_finite(serializer.target)
        if bad:
            raise InputError(
                f'iteration {iteration}: {bad} is not finite any more, though the '
                'loss was; no snapshot is written of it'
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


def _not_finite(state: Mapping[str, np.ndarray]) -> str | None:
    """The name of an array of the network or the optimizer that has a NaN or an infinity."""
    for name, value in state.items():
        if (
            name.startswith('updater/')
            and np.asarray(value).dtype.kind == 'f'
            and not np.isfinite(value).all()
        ):
            return name.removeprefix('updater/')
    return None


def write(path: Path, state: Mapping[str, np.ndarray], run: Mapping) -> None:
    """Write a snapshot: all of it, or nothing.

    Args:
        path (path): Where it goes.
        state (mapping): Arrays by name.
        run (mapping): What the run is, as JSON has it.

    Raises:
        InputError: The directory has no room or cannot be written to.
    """
    with replace_when_done(path, sync=True) as unfinished, open(unfinished, 'wb') as file:
        hashed = _Hashed(file)
        np.savez(hashed, **state, **{_KEY: np.array(json.dumps(run))})
        file.write(_MARK + hashed.sha256.hexdigest().encode())


class _Hashed(io.RawIOBase):
    """A file that is written from beginning to end, with the checksum of what was written."""

    def __init__(self, file):
        self.file = file
        self.sha256 = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.sha256.update(data)
        return self.file.write(data)


def snapshots(directory: Path) -> list[Path]:
    """All snapshots, the one of the latest iteration first."""
    found = [p for p in Path(directory).glob('iter_*.npz') if _NAME.fullmatch(p.name)]
    return sorted(found, key=lambda p: int(_NAME.fullmatch(p.name)[1]), reverse=True)


def problem(path: Path) -> str | None:
    """What is wrong with a snapshot, or :obj:`None` when it is whole.

    Snapshots from before they had a checksum are whole when the archive's own checksums are right.
    """
    tail = len(_MARK) + _DIGEST_SIZE
    try:
        with open(path, 'rb') as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(max(0, size - tail))
            mark, digest = file.read(len(_MARK)), file.read()
            if mark == _MARK:
                same = _sha256(file, size - tail) == digest
                return None if same else 'its checksum is wrong'
        if not zipfile.is_zipfile(path):
            return 'it ends too early'
        with zipfile.ZipFile(path) as archive:
            bad = archive.testzip()
        return bad and f'the checksum of {bad} is wrong'
    except OSError as e:
        return f'it cannot be read: {e.strerror or e}'
    except Exception as e:
        # What a damaged archive raises is not of one kind.
        return f'{type(e).__name__}: {e}'


def _sha256(file, size: int) -> bytes:
    """The checksum of the first bytes of a file."""
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
    """The newest snapshot that is whole.

    What a killed writer left unfinished is removed.

    Args:
        directory (path): Of the snapshots.
        warn (callable): Told, in one line each, of the damaged ones that are passed over; by
            default they are printed on standard error.

    Returns:
        tuple: Its path, or :obj:`None` where there is no snapshot, and the paths of newer ones
        that are damaged.

    Raises:
        InputError: There are snapshots, but all are damaged.
    """
    warn = warn or (lambda line: print(line, file=sys.stderr, flush=True))
    remove_unfinished(directory, 'iter_*.npz')
    damaged = []
    for path in snapshots(directory):
        wrong = problem(path)
        if wrong is None:
            return path, damaged
        damaged.append(path)
        warn(f'warning: {path}: damaged snapshot, {wrong}; looking for the one before it')
    if damaged:
        raise InputError(
            f'{directory}: none of the {len(damaged)} snapshots is whole; remove them to begin anew'
        )
    return None, []


def read_run(path: Path) -> dict:
    """What :class:`Snapshot` was told of the run; nothing in snapshots from before it was."""
    with np.load(path) as file:
        return json.loads(str(file[_KEY])) if _KEY in file.files else {}


def load(trainer, path: Path) -> None:
    """Set a trainer to the state in a snapshot.

    Args:
        trainer (chainer.training.Trainer): Set up as the run that wrote it was.
        path (path): The snapshot.

    Raises:
        InputError: It cannot be read, or is of another network.
    """
    try:
        chainer.serializers.load_npz(str(path), trainer)
    except Exception as e:
        # A damaged archive and a missing key raise all kinds of errors.
        raise InputError(f'{path}: not a snapshot of this run: {type(e).__name__}: {e}') from e
