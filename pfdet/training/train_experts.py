"""Train experts in parallel on groups of ranks."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.files.checksum import file_checksum
from pfdet.files.json_file import read_json, write_json
from pfdet.files.locks import output_lock_of_ranks
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.printable import printable
from pfdet.recipes import Recipe, to_dict
from pfdet.training import model_directory
from pfdet.training.experts import (
    Expert,
    default_images_seen,
    expert_recipe,
    pack,
    plan_experts,
    with_images_seen,
)
from pfdet.training.preemption import StopRequest
from pfdet.training.resume import index_identity
from pfdet.training.run_length import RunLength, n_epoch
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train

# Entries of experts.json that name a file have the checksum of its content in another entry.
_CHECKSUMS = {
    'init_sha256': 'other weights of --init',
    'train_index_checksums': 'another content of --train-index',
}


def train_experts(
    recipe: Recipe,
    index: AnnotationIndex,
    init: Path | None,
    out: Path | None,
    comm,
    options: RunOptions,
    *,
    settings: Sequence[str] = (),
    first: int = 1,
    last: int | None = None,
    images_seen: int | None = None,
    epochs_of_own_images: bool = False,
    ranks_per_expert: int = 1,
    dry_run: int | None = None,
    device: int = -1,
    stop_request: StopRequest | None = None,
) -> bool:
    """Train the experts of a range of classes; all ranks must call this.

    A finished expert is left unchanged. An unfinished one resumes from its newest snapshot, on any
    number of ranks.

    Args:
        recipe (Recipe): Recipe of the experts, such as ``expert-class10``.
        index (AnnotationIndex): The training set.
        init (path): ``model.npz`` of the full model, with its ``recipe.json`` next to it; may be
            :obj:`None` in a dry run.
        out (path): Output directory, with one subdirectory per expert, named after the frequency
            ranks of its classes; may be :obj:`None` in a dry run.
        comm (ChainerMN communicator): The ranks.
        options (RunOptions): Options of each expert's run; ``init`` and ``resume`` are set here.
        settings (sequence of str): ``KEY=VALUE``, see :func:`~pfdet.recipes.settings.override`.
        first, last (int): See :func:`~pfdet.training.experts.plan_experts`.
        images_seen (int): Total number of images that each expert is trained on, repetitions
            included. By default :func:`~pfdet.training.experts.default_images_seen`.
        epochs_of_own_images (bool): Train each expert for the recipe's epochs of its own images
            instead.
        ranks_per_expert (int): Number of ranks per group. Ranks of an incomplete group stay idle.
            With 1, batch normalization is frozen, see
            :func:`~pfdet.training.experts.expert_recipe`.
        dry_run (int): Only print the plan, for this number of ranks, or for those of ``comm`` if it
            is 0. With :obj:`None`, the experts are trained.
        device, stop_request: See :func:`~pfdet.training.train.train`.

    Returns:
        bool: Whether all experts are finished; :obj:`False` if the run was stopped by a signal.

    Raises:
        InputError: A file or a setting cannot be used, ``out`` was started with other arguments, or
            ``out`` is in use by another process.
    """
    n_rank = dry_run or comm.size
    if not 1 <= ranks_per_expert <= n_rank:
        raise InputError(
            f'--ranks-per-expert {ranks_per_expert}: expected 1 to {n_rank}, the number of ranks'
        )
    if images_seen is not None and images_seen < 1:
        raise InputError(f'--images-seen {images_seen}: expected at least 1')
    full = recipe
    if init is not None:
        description = model_directory.read_recipe(init.parent)
        missing = sorted(set(index.classes.mids) - set(description.classes.mids))
        if missing:
            raise InputError(
                f'{init}: not trained on all classes of {index.path}: {missing[0]} is missing'
            )
        full = description.recipe
    recipe = expert_recipe(recipe, full, settings, ranks_per_expert)
    plan = plan_experts(index, recipe.expert_size, first, last)
    if images_seen is None and not epochs_of_own_images:
        images_seen = default_images_seen(recipe, plan)
    n_group = min(len(plan), n_rank // ranks_per_expert)
    groups = pack([images_seen or len(e.images) for e in plan], n_group)
    if dry_run is not None:
        if comm.rank == 0:
            lines = plan_lines(plan, recipe, images_seen, groups, ranks_per_expert, options)
            print('\n'.join(lines), flush=True)
        return True
    with output_lock_of_ranks(out, comm, is_directory=True):
        _check_plan(out, recipe, images_seen, init, index, plan, options.seed, comm)
        if comm.rank == 0:
            print(_choices(recipe, images_seen, ranks_per_expert), flush=True)

        options = dataclasses.replace(options, init=init, resume=True)
        group = comm.rank // ranks_per_expert
        busy = group < n_group
        group_comm = comm.split(group if busy else n_group, comm.rank)
        finished = True
        if busy:
            # all() stops at the first expert that is not finished.
            finished = all(
                _train(
                    plan[k],
                    with_images_seen(recipe, len(plan[k].images), images_seen),
                    index,
                    out / plan[k].name,
                    group_comm,
                    options,
                    device,
                    stop_request,
                )
                for k in groups[group]
            )
        finished = all(comm.mpi_comm.allgather(finished))
        if stop_request is not None:
            # All ranks exit with the same status, also those of groups that were done.
            stop_request.signal = max(comm.mpi_comm.allgather(stop_request.signal))
        if comm.rank == 0 and finished:
            print(f'trained {len(plan)} experts: {out}', flush=True)
        return finished


def plan_lines(
    plan: Sequence[Expert],
    recipe: Recipe,
    images_seen: int | None,
    groups: Sequence[Sequence[int]],
    ranks_per_expert: int,
    options: RunOptions,
) -> list[str]:
    """Format the plan of a run of experts.

    Args:
        plan (sequence of Expert): The experts.
        recipe (Recipe): Their resolved recipe.
        images_seen (int): Number of images that each is trained on, or :obj:`None` for the recipe's
            epochs of its own images.
        groups (sequence of sequences of int): The experts of each group of ranks, in order.
        ranks_per_expert (int): Number of ranks of a group.
        options (RunOptions): Options of the runs.
    """
    batch = recipe.batch_size * options.accumulate * ranks_per_expert
    lines = [
        f'dry run of {recipe.name}: {len(plan)} experts of up to {recipe.expert_size} classes on '
        f'{len(groups)} groups of {ranks_per_expert} rank{"s" * (ranks_per_expert > 1)}',
        _choices(recipe, images_seen, ranks_per_expert),
        f'  {"expert":24}{"classes":>8}{"images":>12}{"epochs":>10}{"iterations":>12}{"group":>7}',
    ]
    group_of = {k: number for number, group in enumerate(groups, 1) for k in group}
    totals = [0] * len(groups)
    for k, expert in enumerate(plan):
        n_image = len(expert.images)
        epochs = n_epoch(with_images_seen(recipe, n_image, images_seen), n_image)
        n_iteration = options.iterations
        if n_iteration is None:
            n_iteration = RunLength(n_image, epochs, batch).n_iteration
        totals[group_of[k] - 1] += n_iteration
        lines.append(
            f'  {expert.name:24}{len(expert.classes):8}{n_image:12,}{epochs:10.1f}'
            f'{n_iteration:12,}{group_of[k]:7}'
        )
    lines.append(f'longest group: {max(totals):,} iterations of {batch} images')
    return lines


def _choices(recipe: Recipe, images_seen: int | None, ranks_per_expert: int) -> str:
    """The length of an expert's run and its batch normalization in a line."""
    length = f'{recipe.epochs:g} epochs of its own images'
    if images_seen is not None:
        length = f'{images_seen:,} images'
    elif recipe.iterations:
        length = f'{recipe.iterations * recipe.lr_batch_size:,} images'
    statistics = {
        '': 'batch normalization is trained',
        'backbone': "the backbone's batch normalization is frozen",
        'all': 'batch normalization is frozen',
    }[recipe.frozen_bn]
    ranks = 'rank' if ranks_per_expert == 1 else 'ranks'
    return (
        f'each expert is trained on {length}, by {ranks_per_expert} {ranks}; {statistics} '
        f'(frozen_bn={recipe.frozen_bn!r})'
    )


def _train(
    expert: Expert,
    recipe: Recipe,
    index: AnnotationIndex,
    out: Path,
    comm,
    options: RunOptions,
    device: int,
    stop_request: StopRequest | None,
) -> bool:
    # Broadcast, so that all ranks of the group agree while the first one writes.
    done = comm.mpi_comm.bcast((out / 'model.npz').exists() if comm.rank == 0 else None)
    if done:
        return True
    expert_index = out / 'train.index'
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        names = ', '.join(index.classes.names[c] for c in expert.classes)
        print(f'{expert.name}: {len(expert.images)} images of {printable(names)}', flush=True)
        if not expert_index.exists():
            subset(index, expert.images, expert_index)
    comm.mpi_comm.Barrier()
    return train(
        recipe,
        AnnotationIndex.open(expert_index),
        out,
        comm,
        options,
        device=device,
        pick=expert.classes,
        stop_request=stop_request,
    )


def _check_plan(
    out: Path,
    recipe: Recipe,
    images_seen: int | None,
    init: Path,
    index: AnnotationIndex,
    plan: list[Expert],
    seed: int,
    comm,
) -> None:
    """Write ``experts.json``, or check that the existing one has the same contents."""
    error = None
    if comm.rank == 0:
        content = json.loads(
            json.dumps(
                {
                    # First, because the default of images_seen follows from them.
                    'experts': {e.name: [index.classes.mids[c] for c in e.classes] for e in plan},
                    'recipe': to_dict(recipe),
                    'images_seen': images_seen,
                    'seed': seed,
                    'init': str(init),
                    'train_index': str(index.path),
                    **_checksums(init, index),
                }
            )
        )
        path = out / 'experts.json'
        try:
            if path.exists():
                error = _difference(path, read_json(path, 'written by train-experts'), content)
            else:
                out.mkdir(parents=True, exist_ok=True)
                write_json(path, content)
        except InputError as e:
            error = str(e)
        except (OSError, ValueError) as e:
            error = f'{path}: {e}'
    error = comm.mpi_comm.bcast(error)
    if error:
        raise InputError(error)


def _checksums(init: Path, index: AnnotationIndex) -> dict[str, Any]:
    return {'init_sha256': file_checksum(init), 'train_index_checksums': index_identity(index)}


def _difference(path: Path, before: Any, now: dict) -> str | None:
    """Describe the first difference from the content of ``experts.json``."""
    if not isinstance(before, dict):
        return f'{path}: not written by train-experts; give another --out'
    # Earlier versions wrote no checksums.
    before = {**{key: now[key] for key in _CHECKSUMS}, **before}
    key = next((key for key in now if before.get(key) != now[key]), None)
    if key is None:
        return None
    if key in _CHECKSUMS:
        return (
            f'{path}: was started with {_CHECKSUMS[key]}, although the name of the file is the '
            'same; give another --out, or the same file to resume'
        )
    if key == 'experts':
        return f'{path}: was started with other classes; give another --out'
    name, old, new = key, before.get(key), now[key]
    if key == 'recipe' and isinstance(old, dict):
        name = next(field for field in {**new, **old} if old.get(field) != new.get(field))
        old, new = old.get(name), new.get(name)
    return (
        f'{path}: was started with another {key}: {name}={old!r}, not {new!r}; give another --out, '
        'or the same arguments to resume'
    )
