"""Format the plan and the measurements of a dry run."""

from pathlib import Path
from typing import Any

from pfdet.recipes.recipe import Recipe
from pfdet.training.dry_run.plan import Plan
from pfdet.training.run_length import n_epoch


def plan_lines(planned: Plan, recipe: Recipe, index: Path | None) -> list[str]:
    """Format the plan of a full run.

    Args:
        planned (Plan): The plan.
        recipe (Recipe): The recipe to train.
        index (path): The training set, or :obj:`None` if it is synthetic.

    Returns:
        list of str: The lines to print.
    """
    per_rank = planned.global_batch // planned.ranks
    low, high = planned.shard
    shard = f'{low:,}' if low == high else f'{low:,} or {high:,}'
    lines = [
        f'dry run of {recipe.name} at {recipe.size} scale ({recipe.backbone}, {recipe.loss} loss, '
        f'sampler {recipe.sampler})',
        'A full run:',
        _row(
            'images',
            f'{planned.images:,}, '
            + (f'of {index}' if index else 'as in the 2018 challenge (no --train-index)'),
        ),
        _row(
            'global batch',
            f'{_ranks(planned.ranks)} x {per_rank} = {planned.global_batch:,} images',
        ),
        _row('epoch', f'{planned.iterations_per_epoch:,.2f} iterations; {shard} images per rank'),
        _row(
            'run', f'{n_epoch(recipe, planned.images):g} epochs = {planned.iterations:,} iterations'
        ),
        _row(
            'learning rate',
            f'{recipe.base_lr:g} x {planned.global_batch:,} / '
            f'{recipe.lr_batch_size} = '
            f'{recipe.base_lr * planned.global_batch / recipe.lr_batch_size:g}, '
            f'warm-up of {_warmup(recipe)}, {recipe.schedule}',
        ),
    ]
    lines += [
        _row('' if i else '  epoch, iteration', f'{epoch:6.2f} {iteration:9,} {rate:10.6f}')
        for i, (epoch, iteration, rate) in enumerate(planned.learning_rates)
    ]
    per_rank_memory = {k: size for k, size in planned.memory.items() if k != 'index' and size}
    lines.append(_row('parameters', f'{planned.parameters:,}'))
    lines.append(
        _row(
            'memory per rank',
            ' + '.join(f'{name} {megabytes(size)}' for name, size in per_rank_memory.items())
            + f' = {megabytes(sum(per_rank_memory.values()))}, without activations',
        )
    )
    if planned.memory['index']:
        lines.append(
            _row(
                'memory per node',
                f'index {megabytes(planned.memory["index"])}, shared by all ranks',
            )
        )
    low, high = recipe.min_size
    lines.append(
        _row(
            'image sizes',
            f'shorter edge {low}'
            + (f' to {high}, one length per iteration for all ranks' if low < high else '')
            + f', longer edge up to {recipe.max_size}; '
            + _grouping(recipe.aspect_chunk, planned.global_batch),
        )
    )
    return lines


def _warmup(recipe: Recipe) -> str:
    if recipe.warmup_iterations:
        return f'{recipe.warmup_iterations:,} iterations'
    return f'{recipe.warmup_epochs:g} epochs'


def _grouping(chunk: int, global_batch: int) -> str:
    if chunk == 1:
        return 'no grouping by aspect ratio'
    text = f'grouped by aspect ratio in runs of {chunk:,} images'
    if chunk % global_batch:
        text += (
            '; a multiple of the global batch would need less padding: '
            f'--set aspect_chunk={global_batch}'
        )
    return text


def measured_lines(measured: dict[str, Any]) -> list[str]:
    """Format the measurements of a dry run.

    Args:
        measured (dict): The entry ``found`` of ``dry_run.json``.

    Returns:
        list of str: The lines to print.
    """
    started, ended = measured['started'], measured['ended']
    images = f'{measured["images_read"]:,} images read'
    if measured['images_made']:
        images += f', {measured["images_made"]:,} without a file replaced by noise'
    return [
        f'Done on {_ranks(measured["ranks"])}:',
        _row('started', f'{started["seconds"]:.1f} s after launch, for the slowest rank'),
        _row(
            'split',
            f'{measured["positions"]:,} positions of an epoch, disjoint and complete',
        ),
        _row(
            'sampled',
            f'{measured["draws"]:,} positions of one sequence, '
            f'{measured["images_drawn"]:,} different images',
        ),
        _row(
            'trained',
            f'{len(measured["losses"])} steps of the mini network'
            + ', with narrower layers for lack of memory' * measured['narrow']
            + f' ({measured["parameters"]:,} parameters), loss '
            + ', '.join(f'{loss:.4f}' for loss in measured['losses'])
            + '; the same weights on all ranks',
        ),
        _row('step', ', '.join(f'{s:.2f}' for s in measured['seconds_a_step']) + f' s; {images}'),
        _row(
            'shared sizes',
            ', '.join(f'{h} x {w}' for h, w in measured['sizes'])
            + f' pixels on all ranks, {measured["padding"]:.1%} of them padding',
        ),
        _row(
            'memory per rank',
            f'private {megabytes(started["private_mean"])} after start, '
            f'{megabytes(ended["private_mean"])} at the end '
            f'(at most {megabytes(ended["private_max"])})',
        ),
        _row(
            'all ranks',
            f'{megabytes(ended["proportional_sum"])}, shared memory counted once; '
            f'{ended["seconds"]:.1f} s from launch to end',
        ),
    ]


def megabytes(n: float) -> str:
    """Format a number of bytes in MB or GB."""
    return f'{n / 1e9:.2f} GB' if n >= 1e9 else f'{n / 1e6:.1f} MB'


def _ranks(n: int) -> str:
    return f'{n:,} rank' + 's' * (n > 1)


def _row(name: str, text: str) -> str:
    return f'  {name:17} {text}'
