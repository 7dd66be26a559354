"""Going on with a run: from which snapshot, and whether it is the same run."""

import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe, fields_that, to_dict
from pfdet.training import checkpoints

# What may change when a run is resumed: what it is called; how many images an iteration and how
# long, since the schedule follows the position in the sequence of images; where the weights came
# from; and what only prediction uses. Any other field makes another run, which may start from the
# weights of this one by --init.
MAY_CHANGE = frozenset(fields_that(on_resume=True))


def run_identity(
    recipe: Recipe,
    seed: int,
    index: AnnotationIndex,
    classes: Classes,
    n_rank: int,
    global_batch: int,
) -> dict[str, Any]:
    """What a run is, as JSON has it, for its snapshots.

    Args:
        recipe (Recipe): Resolved.
        seed (int): Of all choices.
        index (AnnotationIndex): The training set.
        classes (Classes): That the network answers for.
        n_rank (int): Ranks that train.
        global_batch (int): Images of all ranks an iteration.
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
    """Refuse to go on with another run than a snapshot was written by.

    Args:
        before, now (mappings): See :func:`run_identity`; what is missing in ``before``, as in
            snapshots of older versions, may be anything.
        path (path): Of the snapshot.

    Raises:
        InputError: They differ in what may not change, see :data:`MAY_CHANGE`.
    """

    def differ(field: str, old: str, new: str) -> InputError:
        return InputError(
            f'{path}: written by a run with {field}={old}, but this one has '
            f'{field}={new}; go on with what it had, or give another --out'
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
            f'{path}: written by a run of {len(before["classes"])} classes, but this '
            f'one has other {len(now["classes"])}; give another --out'
        )
    if before.get('image_ids', now['image_ids']) != now['image_ids']:
        raise InputError(
            f'{path}: written by a run on other images than those of --train-index, '
            'though as many; give the same index, or another --out'
        )


def resume_from_newest(trainer, snapshot: checkpoints.Snapshot, comm) -> Path | None:
    """Set the trainer to the newest snapshot that is whole, if there is one; all ranks call this.

    The first rank says which, and names those that are damaged.

    Args:
        trainer (chainer.training.Trainer): Complete.
        snapshot (Snapshot): What is going to write, on the first rank; it knows the directory and
            what the run is.
        comm (ChainerMN communicator): The ranks.

    Raises:
        InputError: The snapshot is of another run, or all are damaged.
    """
    path, run, error = None, {}, None
    if comm.rank == 0:
        try:
            path, snapshot.damaged = checkpoints.newest(snapshot.directory)
            if path is not None:
                run = checkpoints.read_run(path)
                check_same_run(run, snapshot.run, path)
        except InputError as e:
            error = e
    # All ranks raise it, so that none waits for another.
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
    """Refuse to write among the snapshots of an earlier run; all ranks call this.

    The one that is resumed would else be the newest of either run.

    Raises:
        InputError: There are snapshots.
    """
    found = comm.mpi_comm.bcast(checkpoints.snapshots(directory)[:1] if comm.rank == 0 else None)
    if found:
        raise InputError(
            f'{found[0]}: a snapshot of an earlier run; give --resume to go on with '
            'it, or another --out to begin anew'
        )
