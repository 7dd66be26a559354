"""Files and messages of the first rank at the start and end of a training run."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chainer import training

from pfdet import __version__
from pfdet.atomic_write import check_no_directory, remove_unfinished
from pfdet.errors import InputError
from pfdet.files.json_file import write_json
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.recipes.recipe import Recipe
from pfdet.training import model_directory
from pfdet.training.network import NetworkToTrain
from pfdet.version import commit

if TYPE_CHECKING:
    from pfdet.training.evaluator import ValidationAP


def write_description(
    out: Path, recipe: Recipe, net: NetworkToTrain, facts: dict[str, Any]
) -> None:
    """Write ``recipe.json`` and ``rates.npy``, and remove temporary files of killed runs."""
    # Otherwise the end of the run would be the first to notice.
    check_no_directory(*(out / name for name in ('model.npz', 'log', 'score.json')))
    snapshots = out / 'snapshots'
    if snapshots.exists() and not snapshots.is_dir():
        raise InputError(f'{snapshots}: is a file; expected a directory, or none')
    remove_unfinished(out, 'model.npz', 'recipe.json', 'log', 'score.json', 'rates.npy')
    facts = {'version': __version__, 'commit': commit(), **facts}
    if net.rates is not None:
        facts = {**facts, 'rates_sha256': model_directory.write_rates(out, net.rates)}
    model_directory.write_recipe(out, recipe, net.classes, net.hierarchy, facts)


def check_still_there(out: Path) -> None:
    """Refuse a directory that was removed or replaced since :func:`write_description`.

    Files that are written later would make a new directory, in which most of the run is missing.

    Raises:
        InputError: ``recipe.json`` is not there.
    """
    if not (out / 'recipe.json').exists():
        raise InputError(
            f'{out}: recipe.json is gone; the directory was removed or replaced during training'
        )


class StillThere(training.Extension):
    """Call :func:`check_still_there` after every iteration.

    Args:
        out (path): Output directory of the run.
    """

    # Before anything is written.
    priority = training.PRIORITY_WRITER + 100

    def __init__(self, out: Path):
        self.out = out

    # A function, unlike a trigger object, adds no state to the snapshot.
    @staticmethod
    def trigger(trainer) -> bool:
        """Fire in every iteration."""
        return True

    def __call__(self, trainer) -> None:
        check_still_there(self.out)


def write_results(out: Path, network: FasterRCNN, validation: 'ValidationAP | None') -> None:
    """Write the final weights, and the score of the last validation."""
    check_still_there(out)
    model_directory.write_weights(out, network)
    if validation is not None and validation.score is not None:
        write_json(out / 'score.json', validation.score)


def closing_line(
    iteration: int,
    start_iteration: int,
    global_batch: int,
    seconds: float,
    out: Path,
    stopped_by: int | None,
) -> str:
    """Format the closing line of a run.

    Args:
        iteration (int): Number of iterations at the end.
        start_iteration (int): Number of iterations at the start, 0 unless resumed.
        global_batch (int): Images per iteration over all ranks.
        seconds (float): Duration of the training.
        out (path): Output directory of the run.
        stopped_by (int): The signal that stopped the run, or :obj:`None` if it is finished.
    """
    if stopped_by is not None:
        return (
            f'stopped by {signal.Signals(stopped_by).name} after iteration {iteration}; the '
            f'snapshot is in {out / "snapshots"}; give --resume to continue'
        )
    if start_iteration == iteration > 0:
        return f'trained already, {iteration} iterations: {out / "model.npz"}'
    return (
        f'trained {iteration} iterations of {global_batch} images in {seconds:.0f} s: '
        f'{out / "model.npz"}'
    )
