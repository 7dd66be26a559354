"""What the first rank of a training run writes and prints at its start and end."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pfdet.atomic_write import remove_unfinished, replace_when_done
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.recipes.recipe import Recipe
from pfdet.training import model_directory
from pfdet.training.network import NetworkToTrain

if TYPE_CHECKING:
    from pfdet.training.evaluator import ValidationAP


def write_description(
    out: Path, recipe: Recipe, net: NetworkToTrain, facts: dict[str, Any]
) -> None:
    """Write ``recipe.json`` and ``rates.npy``, and remove unfinished files of killed runs."""
    remove_unfinished(out, 'model.npz', 'recipe.json', 'log', 'score.json', 'rates.npy')
    model_directory.write_recipe(out, recipe, net.classes, net.hierarchy, facts)
    if net.rates is not None:
        model_directory.write_rates(out, net.rates)


def write_results(out: Path, network: FasterRCNN, validation: 'ValidationAP | None') -> None:
    """Write the final weights, and the score of the last validation."""
    model_directory.write_weights(out, network)
    if validation is not None and validation.score is not None:
        with replace_when_done(out / 'score.json') as path:
            path.write_text(json.dumps(validation.score, indent=1) + '\n')


def closing_line(
    iteration: int, began: int, global_batch: int, seconds: float, out: Path, stopped_by: int | None
) -> str:
    """The line that ends the output of a run.

    Args:
        iteration, began (int): The last iteration, and the one that the run started after.
        global_batch (int): Images per iteration.
        seconds (float): Duration of the training.
        out (path): Directory of the run.
        stopped_by (int): The signal that stopped the run, or :obj:`None` if it is finished.
    """
    if stopped_by is not None:
        return (
            f'stopped by {signal.Signals(stopped_by).name} after iteration {iteration}; the '
            f'snapshot is in {out / "snapshots"}; give --resume to continue'
        )
    if began == iteration > 0:
        return f'trained already, {iteration} iterations: {out / "model.npz"}'
    return (
        f'trained {iteration} iterations of {global_batch} images in {seconds:.0f} s: '
        f'{out / "model.npz"}'
    )
