"""Train experts in parallel on groups of ranks."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.recipes.recipe import Recipe, override, to_dict
from pfdet.training import model_directory
from pfdet.training.experts import Expert, fine_tuning_recipe, pack, plan_experts, with_images_seen
from pfdet.training.preemption import StopRequest
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train


def train_experts(
    recipe: Recipe,
    index: AnnotationIndex,
    init: Path,
    out: Path,
    comm,
    options: RunOptions,
    *,
    settings: Sequence[str] = (),
    first: int = 1,
    last: int | None = None,
    images_seen: int | None = None,
    ranks_per_expert: int = 1,
    device: int = -1,
    stop_request: StopRequest | None = None,
) -> bool:
    """Train the experts of a range of classes; all ranks must call this.

    A finished expert is left unchanged. An unfinished one resumes from its newest snapshot, on any
    number of ranks.

    Args:
        recipe (Recipe): Recipe of the experts, such as ``expert-class10``.
        index (AnnotationIndex): The training set.
        init (path): ``model.npz`` of the full model, with its ``recipe.json`` next to it.
        out (path): Output directory, with one subdirectory per expert, named after the frequency
            ranks of its classes.
        comm (ChainerMN communicator): The ranks.
        options (RunOptions): Options of each expert's run; ``init`` and ``resume`` are set here.
        settings (sequence of str): ``KEY=VALUE``, see :func:`~pfdet.recipes.recipe.override`.
        first, last (int): See :func:`~pfdet.training.experts.plan_experts`.
        images_seen (int): Total number of images that each expert is trained on, see
            :func:`~pfdet.training.experts.with_images_seen`.
        ranks_per_expert (int): Number of ranks per group. Ranks of an incomplete group stay idle.
        device, stop_request: See :func:`~pfdet.training.train.train`.

    Returns:
        bool: Whether all experts are finished; :obj:`False` if the run was stopped by a signal.

    Raises:
        InputError: A file or a setting cannot be used, or ``out`` was started with other arguments.
    """
    if not 1 <= ranks_per_expert <= comm.size:
        raise InputError(
            f'--ranks-per-expert {ranks_per_expert}: expected 1 to {comm.size}, the number of ranks'
        )
    if images_seen is not None and images_seen < 1:
        raise InputError(f'--images-seen {images_seen}: expected at least 1')
    full = model_directory.read_recipe(init.parent)
    if full.classes.mids != index.classes.mids:
        raise InputError(f'{init}: trained on other classes than those of {index.path}')
    recipe = override(fine_tuning_recipe(recipe, full.recipe), settings)
    plan = plan_experts(index, recipe.expert_size, first, last)
    _check_plan(out, recipe, images_seen, init, index, plan, options.seed, comm)

    options = dataclasses.replace(options, init=init, resume=True)
    n_group = min(len(plan), comm.size // ranks_per_expert)
    group = comm.rank // ranks_per_expert
    busy = group < n_group
    group_comm = comm.split(group if busy else n_group, comm.rank)
    finished = True
    if busy:
        tasks = pack([images_seen or len(e.images) for e in plan], n_group)[group]
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
            for k in tasks
        )
    finished = all(comm.mpi_comm.allgather(finished))
    if comm.rank == 0 and finished:
        print(f'trained {len(plan)} experts: {out}', flush=True)
    return finished


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
        print(f'{expert.name}: {len(expert.images)} images of {names}', flush=True)
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
                    'recipe': to_dict(recipe),
                    'images_seen': images_seen,
                    'seed': seed,
                    'init': str(init),
                    'train_index': str(index.path),
                    'experts': {e.name: [index.classes.mids[c] for c in e.classes] for e in plan},
                }
            )
        )
        path = out / 'experts.json'
        try:
            if path.exists():
                error = _difference(path, json.loads(path.read_text()), content)
            else:
                out.mkdir(parents=True, exist_ok=True)
                with replace_when_done(path) as unfinished:
                    unfinished.write_text(json.dumps(content, indent=1) + '\n')
        except (OSError, ValueError) as e:
            error = f'{path}: {e}'
    error = comm.mpi_comm.bcast(error)
    if error:
        raise InputError(error)


def _difference(path: Path, before: dict, now: dict) -> str | None:
    for key in now:
        if before.get(key) != now[key]:
            return (
                f'{path}: was started with another {key}; give another --out, or the same '
                'arguments to resume'
            )
    return None
