"""Training experts side by side on groups of ranks."""

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
from pfdet.training.experts import Expert, experts, fine_tuned, for_images, pack
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
    """Train the experts of a range of classes; every rank calls this.

    A finished expert is left as it is. An unfinished one resumes from its newest snapshot, on any
    number of ranks.

    Args:
        recipe (Recipe): Such as ``expert-class10``.
        index (AnnotationIndex): The training set.
        init (path): ``model.npz`` of the full model, with its ``recipe.json`` beside it.
        out (path): Gets one directory per expert, named after the ranks of its classes.
        comm (ChainerMN communicator): The ranks.
        options (RunOptions): Of each expert's run; ``init`` and ``resume`` are set here.
        settings (sequence of str): ``KEY=VALUE``, see :func:`~pfdet.recipes.recipe.override`.
        first, last (int): See :func:`~pfdet.training.experts.experts`.
        images_seen (int): Images that each expert is trained on in all, see
            :func:`~pfdet.training.experts.for_images`.
        ranks_per_expert (int): Ranks of a group. Ranks that fill no group stay idle.
        device, stop_request: See :func:`~pfdet.training.train.train`.

    Returns:
        bool: Whether all experts are finished; :obj:`False` when the ranks were asked to stop.

    Raises:
        InputError: A file or a setting cannot be used, or ``out`` has experts of another plan.
    """
    if not 1 <= ranks_per_expert <= comm.size:
        raise InputError(
            f'--ranks-per-expert {ranks_per_expert}: expected 1 to {comm.size}, the number of ranks'
        )
    if images_seen is not None and images_seen < 1:
        raise InputError(f'--images-seen {images_seen}: expected at least 1')
    full = model_directory.read_recipe(init.parent)
    if full.classes.mids != index.classes.mids:
        raise InputError(f'{init}: of other classes than {index.path}')
    recipe = override(fine_tuned(recipe, full.recipe), settings)
    plan = experts(index, recipe.expert_size, first, last)
    _keep_to_plan(out, recipe, images_seen, init, index, plan, options.seed, comm)

    options = dataclasses.replace(options, init=init, resume=True)
    n_group = min(len(plan), comm.size // ranks_per_expert)
    group = comm.rank // ranks_per_expert
    busy = group < n_group
    own = comm.split(group if busy else n_group, comm.rank)
    finished = True
    if busy:
        tasks = pack([images_seen or len(e.images) for e in plan], n_group)[group]
        # all() stops at the first that does not finish.
        finished = all(
            _train(
                plan[k],
                for_images(recipe, len(plan[k].images), images_seen),
                index,
                out / plan[k].name,
                own,
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
    # All ranks of the group must agree, whatever the first one writes meanwhile.
    done = comm.mpi_comm.bcast((out / 'model.npz').exists() if comm.rank == 0 else None)
    if done:
        return True
    own_index = out / 'train.index'
    if comm.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
        names = ', '.join(index.classes.names[c] for c in expert.classes)
        print(f'{expert.name}: {len(expert.images)} images of {names}', flush=True)
        if not own_index.exists():
            subset(index, expert.images, own_index)
    comm.mpi_comm.Barrier()
    return train(
        recipe,
        AnnotationIndex.open(own_index),
        out,
        comm,
        options,
        device=device,
        pick=expert.classes,
        stop_request=stop_request,
    )


def _keep_to_plan(
    out: Path,
    recipe: Recipe,
    images_seen: int | None,
    init: Path,
    index: AnnotationIndex,
    plan: list[Expert],
    seed: int,
    comm,
) -> None:
    """Write ``experts.json``, or make sure that the one there says the same."""
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
