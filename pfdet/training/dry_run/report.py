"""What a dry run prints."""

from pathlib import Path
from typing import Any

from pfdet.recipes.recipe import Recipe
from pfdet.training.dry_run.plan import Plan


def plan_lines(planned: Plan, recipe: Recipe, index: Path | None) -> list[str]:
    """The plan of a full run, in lines.

    Args:
        planned (Plan): Its figures.
        recipe (Recipe): What would be trained.
        index (path): The training set, if there is one.
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
            + (f'of {index}' if index else "as many as the 2018 challenge's: no --train-index"),
        ),
        _row(
            'global batch',
            f'{_ranks(planned.ranks)} x {per_rank} = {planned.global_batch:,} images',
        ),
        _row('an epoch', f'{planned.iterations_per_epoch:,.2f} iterations; {shard} images a rank'),
        _row('the run', f'{recipe.epochs:g} epochs = {planned.iterations:,} iterations'),
        _row(
            'learning rate',
            f'{recipe.base_lr:g} x {planned.global_batch:,} / '
            f'{recipe.lr_batch_size} = '
            f'{recipe.base_lr * planned.global_batch / recipe.lr_batch_size:g}, '
            f'warm-up of {recipe.warmup_epochs:g} epochs, {recipe.schedule}',
        ),
    ]
    lines += [
        _row('' if i else '  epoch, iteration', f'{epoch:6.2f} {iteration:9,} {rate:10.6f}')
        for i, (epoch, iteration, rate) in enumerate(planned.learning_rates)
    ]
    own = {name: size for name, size in planned.memory.items() if name != 'index' and size}
    lines.append(_row('parameters', f'{planned.parameters:,}'))
    lines.append(
        _row(
            'memory a rank',
            ' + '.join(f'{name} {megabytes(size)}' for name, size in own.items())
            + f' = {megabytes(sum(own.values()))}; activations come on top',
        )
    )
    if planned.memory['index']:
        lines.append(
            _row(
                'memory a node',
                f'index {megabytes(planned.memory["index"])}, mapped once for all ranks',
            )
        )
    low, high = recipe.min_size
    lines.append(
        _row(
            'image sizes',
            f'shorter edge {low}'
            + (f' to {high}, one length drawn for all ranks each iteration' if low < high else '')
            + f', longer edge up to {recipe.max_size}; '
            + _grouping(recipe.aspect_chunk, planned.global_batch),
        )
    )
    return lines


def _grouping(chunk: int, global_batch: int) -> str:
    if chunk == 1:
        return 'no grouping by aspect ratio'
    text = f'aspect ratios alike in runs of {chunk:,} images'
    if chunk % global_batch:
        text += (
            f'; a multiple of the global batch would pad less: --set aspect_chunk={global_batch}'
        )
    return text


def measured_lines(found: dict[str, Any]) -> list[str]:
    """What the ranks did, in lines.

    Args:
        found (dict): See :func:`pfdet.training.dry_run.run.dry_run`.
    """
    started, ended = found['started'], found['ended']
    pictures = f'{found["images_read"]:,} images read'
    if found['images_made']:
        pictures += f', noise in place of {found["images_made"]:,} without a file'
    return [
        f'Done on {_ranks(found["ranks"])}:',
        _row('started', f'{started["seconds"]:.1f} s after the launch, the last rank'),
        _row(
            'split',
            f'{found["positions"]:,} positions of an epoch, each on one rank: '
            'disjoint and complete',
        ),
        _row(
            'drew',
            f'{found["draws"]:,} positions of one sequence, {found["images_drawn"]:,} images',
        ),
        _row(
            'trained',
            f'{len(found["losses"])} steps of the mini network'
            + ', its layers narrower for want of memory' * found['narrow']
            + f' ({found["parameters"]:,} parameters), loss '
            + ', '.join(f'{loss:.4f}' for loss in found['losses'])
            + '; the same weights on all ranks',
        ),
        _row('step', ', '.join(f'{s:.2f}' for s in found['seconds_a_step']) + f' s; {pictures}'),
        _row(
            'shared sizes',
            ', '.join(f'{h} x {w}' for h, w in found['sizes'])
            + f' pixels on all ranks; {found["padding"]:.1%} of them padding',
        ),
        _row(
            'memory a rank',
            f'private {megabytes(started["private_mean"])} after starting, '
            f'{megabytes(ended["private_mean"])} at the end '
            f'(at most {megabytes(ended["private_max"])})',
        ),
        _row(
            'all ranks',
            f'{megabytes(ended["proportional_sum"])}, what they share counted once; '
            f'{ended["seconds"]:.1f} s from launch to end',
        ),
    ]


def megabytes(n: float) -> str:
    """Bytes in millions or thousands of millions."""
    return f'{n / 1e9:.2f} GB' if n >= 1e9 else f'{n / 1e6:.1f} MB'


def _ranks(n: int) -> str:
    return f'{n:,} rank' + 's' * (n > 1)


def _row(name: str, text: str) -> str:
    return f'  {name:17} {text}'
