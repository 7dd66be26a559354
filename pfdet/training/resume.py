"""Resuming a run: choose the snapshot and check that it belongs to the same run.

What decides the result of a run is its identity, which each snapshot has. A run with another
identity is another run, and refused. What may change is listed at the fields themselves,
``on_resume`` of :mod:`pfdet.recipes.recipe` and of :mod:`pfdet.training.run_options`. Such changes
are printed.
"""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pfdet.errors import InputError
from pfdet.files.reading import reading
from pfdet.openimages.classes import Classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe, fields_that
from pfdet.recipes.settings import from_dict, to_dict
from pfdet.training import checkpoints
from pfdet.training.run_options import RunOptions, flag, options_that

# Recipe fields that may change when a run is resumed: name and description; batch size and length,
# since the schedule follows the position in the sequence of images; initial weights; and fields
# that only prediction uses. A run with any other change is a new run. It may start from the weights
# of this one with --init.
MAY_CHANGE = frozenset(fields_that(on_resume=True))
#: Run options that may change.
OPTIONS_THAT_MAY_CHANGE = frozenset(options_that(on_resume=True))
# Recorded under a name of their own, or by a checksum.
_NOT_AMONG_OPTIONS = {'init', 'resume', 'seed'}
# Columns of an index with the ids of the images and where their files are.
_FILES = {'id_offsets', 'id_bytes', 'image_suffix', 'image_folder'}
_SHOWN = 80


def run_identity(
    recipe: Recipe,
    options: RunOptions,
    index: AnnotationIndex,
    classes: Classes,
    n_rank: int,
    global_batch: int,
    initial_weights: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The identity of a run, stored in its snapshots; JSON-serializable.

    Args:
        recipe (Recipe): The resolved recipe.
        options (RunOptions): Options of the run.
        index (AnnotationIndex): The training set.
        classes (Classes): Classes of the network.
        n_rank (int): Number of ranks.
        global_batch (int): Images per iteration over all ranks.
        initial_weights (mapping): What the run starts from, see
            :func:`~pfdet.training.initial_weights_file.initial_weights_facts`.
    """
    pairs = None
    if recipe.cooccurrence:
        pairs = _crc32(np.stack(read_pairs(index.classes, recipe.cooccurrence_pairs or None)))
    identity = {
        'recipe': to_dict(recipe),
        'options': {
            **{n: value for n, value in vars(options).items() if n not in _NOT_AMONG_OPTIONS},
            'allreduce_dtype': options.allreduce_dtype or 'float32',
        },
        'seed': options.seed,
        'classes': classes.mids,
        'images': len(index),
        **index_identity(index),
        'cooccurrence_pairs': pairs,
        'ranks': n_rank,
        'global_batch_size': global_batch,
        'initial_weights': dict(initial_weights or {}),
    }
    return json.loads(json.dumps(identity))


def index_identity(index: AnnotationIndex) -> dict[str, Any]:
    """Checksums of the ids of the images, their annotations, the classes and the hierarchy.

    They do not depend on where the files of the images are.
    """
    return {
        'image_ids': zlib.crc32(index.columns['id_bytes']),
        'annotations': {name: crc for name, crc in index.checksums.items() if name not in _FILES},
        'label_space': zlib.crc32(json.dumps(index.classes.mids).encode()),
        'hierarchy': _crc32(np.argwhere(index.hierarchy.ancestors)),
    }


def _crc32(array: np.ndarray) -> int:
    return zlib.crc32(np.ascontiguousarray(array, '<i4').tobytes())


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> list[str]:
    """Check that a snapshot was written by the run that resumes from it.

    Args:
        before, now (mappings): See :func:`run_identity`. Entries missing in ``before``, as in
            snapshots of older versions, are not compared; missing fields of the recipe have their
            default.
        path (path): The snapshot.

    Returns:
        list of str: The changes that are allowed, such as ``'batch_size=2 to 4'``.

    Raises:
        InputError: The runs differ in more than :data:`MAY_CHANGE` and
            :data:`OPTIONS_THAT_MAY_CHANGE` allow.
    """

    def differ(name: str, old: object, new: object) -> InputError:
        return InputError(
            f'{path}: written by a run with {name}={_short(old)}, but this run has '
            f'{name}={_short(new)}; resume with the original value, or give another --out'
        )

    changes = []
    if 'recipe' in before:
        fields = json.loads(json.dumps(to_dict(from_dict(before['recipe'], str(path)))))
        for key, new in now['recipe'].items():
            if fields[key] != new:
                if key not in MAY_CHANGE:
                    raise differ(key, fields[key], new)
                changes.append(f'{key}={_short(fields[key])} to {_short(new)}')
    options = before.get('options', {})
    for key, new in now['options'].items():
        old = options.get(key, new)
        if old != new:
            if key not in OPTIONS_THAT_MAY_CHANGE and not _same_groups(key, before, now):
                raise differ(flag(key), old, new)
            if key == 'random_weights':
                # See _check_initial_weights.
                continue
            changes.append(f'{flag(key)}={_short(old)} to {_short(new)}')
    for key in 'seed', 'images':
        if before.get(key, now[key]) != now[key]:
            raise differ(key, before[key], now[key])
    _check_data(before, now, path)
    _check_initial_weights(before, now, path)
    for key in 'ranks', 'global_batch_size':
        if before.get(key, now[key]) != now[key]:
            changes.append(f'{key}={_short(before[key])} to {now[key]}')
    return changes


def _same_groups(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    """Whether a change of ``bn_group_size`` keeps the number of ranks that share statistics."""
    if key != 'bn_group_size':
        return False
    old, new = (run['options'][key] or run.get('ranks') for run in (before, now))
    return old == new


def _check_data(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    if before.get('classes', now['classes']) != now['classes']:
        raise InputError(
            f'{path}: written by a run with {len(before["classes"])} classes, but this run has '
            f'{len(now["classes"])} different classes; give another --out'
        )
    others = {
        'image_ids': 'on other images than those',
        'label_space': 'on an index of other classes than those',
        'hierarchy': 'with another hierarchy than that',
        'annotations': 'on other annotations of the same images than those',
    }
    for key, what in others.items():
        old, new = before.get(key, now[key]), now[key]
        if old == new:
            continue
        columns = ''
        if isinstance(old, dict):
            names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            columns = f' (columns {", ".join(names)})'
        raise InputError(
            f'{path}: written by a run {what} of --train-index{columns}; give the same index, or '
            'another --out'
        )
    key = 'cooccurrence_pairs'
    if before.get(key, now[key]) != now[key]:
        raise InputError(
            f'{path}: written by a run with other pairs of classes in the file of '
            'cooccurrence_pairs; give the same file, or another --out'
        )


def _check_initial_weights(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Refuse weights that the run did not start from. Resuming needs none."""
    old, new = before.get('initial_weights', {}), now['initial_weights']
    given = new.get('init')
    if 'random_weights' not in old or not (given or now['options']['random_weights']):
        return
    if old.get('init_sha256') != new.get('init_sha256'):
        raise InputError(
            f'{path}: written by a run that started from '
            f'{_short(old.get("init") or "random weights")}, not from the weights of '
            f'{given or "--random-weights"}; resume without that option, or give another --out'
        )


def _short(value: object) -> str:
    return str(value)[:_SHOWN]


def resume_from_newest(trainer, snapshot: checkpoints.Snapshot, comm) -> Path | None:
    """Load the newest undamaged snapshot into the trainer, if any; all ranks must call this.

    The first rank prints which one, and warns about damaged ones.

    Args:
        trainer (chainer.training.Trainer): The trainer with all its extensions.
        snapshot (Snapshot): The extension that writes snapshots; it has the directory and the
            identity of the run.
        comm (ChainerMN communicator): The ranks.

    Returns:
        path: The snapshot, or :obj:`None` if there is none.

    Raises:
        InputError: The snapshot belongs to another run, or all snapshots are damaged.
    """
    path, run, changes, error = None, {}, [], None
    if comm.rank == 0:
        try:
            path, snapshot.damaged = checkpoints.newest(snapshot.directory)
            if path is not None:
                run = checkpoints.read_run(path)
                with reading(path, 'a snapshot of this run', 'its description of the run'):
                    changes = check_same_run(run, snapshot.run, path)
                # What the run started from, whatever is given now.
                if 'initial_weights' in run:
                    snapshot.run['initial_weights'] = run['initial_weights']
        except InputError as e:
            error = e
    # Raise the error on all ranks, so that none waits for another.
    path, error = comm.mpi_comm.bcast((path, error))
    if error is not None:
        raise error
    if path is not None:
        checkpoints.load(trainer, path)
        if comm.rank == 0:
            ranks = f', written by {run["ranks"]} ranks' if 'ranks' in run else ''
            print(
                f'resuming from {path}: iteration {trainer.updater.iteration}, epoch '
                f'{trainer.updater.epoch_detail:.2f}{ranks}',
                flush=True,
            )
            if changes:
                print(f'changed since then: {", ".join(changes)}', flush=True)
    return path


def refuse_existing_snapshots(directory: Path, comm) -> None:
    """Refuse to start a new run in a directory with snapshots; all ranks must call this.

    Otherwise a later ``--resume`` could mix two runs.

    Raises:
        InputError: There are snapshots.
    """
    newest = comm.mpi_comm.bcast(checkpoints.snapshots(directory)[:1] if comm.rank == 0 else None)
    if newest:
        raise InputError(
            f'{newest[0]}: a snapshot of an earlier run; give --resume to resume it, or another '
            '--out to start a new run'
        )
