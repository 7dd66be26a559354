"""Resuming a run: choose the snapshot and check that it belongs to the same run."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.files.reading import reading
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe, fields_that
from pfdet.recipes.settings import to_dict
from pfdet.training import checkpoints

# Recipe fields that may change when a run is resumed: name and description; batch size and length,
# since the schedule follows the position in the sequence of images; initial weights; and fields
# that only prediction uses. A run with any other change is a new run. It may start from the weights
# of this one with --init.
MAY_CHANGE = frozenset(fields_that(on_resume=True))


def run_identity(
    recipe: Recipe,
    seed: int,
    index: AnnotationIndex,
    classes: Classes,
    n_rank: int,
    global_batch: int,
) -> dict[str, Any]:
    """The identity of a run, stored in its snapshots; JSON-serializable.

    Args:
        recipe (Recipe): The resolved recipe.
        seed (int): Seed of all random choices.
        index (AnnotationIndex): The training set.
        classes (Classes): Classes of the network.
        n_rank (int): Number of ranks.
        global_batch (int): Images per iteration over all ranks.
    """
    return {
        'recipe': json.loads(json.dumps(to_dict(recipe))),
        'seed': seed,
        'classes': list(classes.mids),
        'images': len(index),
        'image_ids': zlib.crc32(index.columns['id_bytes']),
        'ranks': n_rank,
        'global_batch_size': global_batch,
    }


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], path: Path) -> None:
    """Check that a snapshot was written by the run that resumes from it.

    Args:
        before, now (mappings): See :func:`run_identity`. Entries missing in ``before``, as in
            snapshots of older versions, are not compared.
        path (path): The snapshot.

    Raises:
        InputError: The runs differ in more than :data:`MAY_CHANGE` allows.
    """

    def differ(field: str, old: str, new: str) -> InputError:
        return InputError(
            f'{path}: written by a run with {field}={str(old)[:80]}, but this run has '
            f'{field}={str(new)[:80]}; '
            'resume with the original value, or give another --out'
        )

    fields = before.get('recipe', {})
    for key, value in now['recipe'].items():
        if key not in MAY_CHANGE and fields.get(key, value) != value:
            raise differ(key, fields[key], value)
    for key in 'seed', 'images':
        if before.get(key, now[key]) != now[key]:
            raise differ(key, before[key], now[key])
    if before.get('classes', now['classes']) != now['classes']:
        raise InputError(
            f'{path}: written by a run with {len(before["classes"])} classes, but this run has '
            f'{len(now["classes"])} different classes; give another --out'
        )
    if before.get('image_ids', now['image_ids']) != now['image_ids']:
        raise InputError(
            f'{path}: written by a run on other images than those of --train-index; give the same '
            'index, or another --out'
        )


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
    path, run, error = None, {}, None
    if comm.rank == 0:
        try:
            path, snapshot.damaged = checkpoints.newest(snapshot.directory)
            if path is not None:
                run = checkpoints.read_run(path)
                with reading(path, 'a snapshot of this run', 'its description of the run'):
                    check_same_run(run, snapshot.run, path)
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
