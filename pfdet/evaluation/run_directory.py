"""Reading the output directory of a run: recipe, score and log."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.files.json_file import read_json
from pfdet.recipes.initial_weights import deviation


@dataclass(frozen=True, eq=False)
class Run:
    """A scored run.

    Attributes:
        path (pathlib.Path): The directory of the run.
        recipe (mapping): The resolved recipe, including its ``'name'`` and ``'size'``.
        facts (mapping): Properties of the run, such as ``'seed'``, ``'images'`` and
            ``'global_batch_size'``.
        score (mapping): Content of ``score.json``, see
            :func:`~pfdet.evaluation.average_precision.score_dict`.
        log (sequence of mappings): Entries of Chainer's ``LogReport``; empty if the run did not
            train.
    """

    path: Path
    recipe: Mapping[str, Any]
    facts: Mapping[str, Any]
    score: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """Name of the recipe."""
        return self.recipe['name']

    @property
    def scale(self) -> str:
        """Size of the recipe, ``'full'`` or ``'mini'``."""
        # Runs of earlier versions have the field 'scale' instead of 'size'.
        return self.recipe.get('size', self.recipe.get('scale', 'full'))

    @property
    def seed(self) -> int | None:
        """Seed of the run, or :obj:`None` if it is not recorded."""
        return self.facts.get('seed')

    @property
    def deviation(self) -> str:
        """The weights that the run started from if its recipe starts from others; else empty.

        See :func:`~pfdet.recipes.initial_weights.deviation`.
        """
        return deviation(self.recipe, self.facts)

    def epoch(self, iteration: float) -> float | None:
        """Convert an iteration to an epoch.

        Args:
            iteration (float): Number of iterations.

        Returns:
            float: Number of passes over the training set, or :obj:`None` if the run does not record
            its number of images and batch size.
        """
        images, batch = self.facts.get('images'), self.facts.get('global_batch_size')
        return iteration * batch / images if images and batch else None


def find_runs(
    directories: Sequence[str | os.PathLike], score_name: str = 'score.json'
) -> tuple[list[Run], list[Path]]:
    """Find and read runs.

    Args:
        directories (sequence of paths): Directories of runs, which have a ``recipe.json``, or
            directories that are searched recursively for runs.
        score_name (str): Name of the score file in the directory of a run.

    Returns:
        tuple: The list of runs in the order of ``directories``, with those found by search sorted
        by path; and the list of directories found by search that have no score yet.

    Raises:
        InputError: A directory does not exist or contains no run, a file of a run is invalid, or
            the directory of a run in ``directories`` has no score.
    """
    runs: list[Run] = []
    unfinished: list[Path] = []
    seen: set[Path] = set()
    for given in map(Path, directories):
        if not given.is_dir():
            raise InputError(f'{given}: no such directory; expected the --out of a training run')
        if (given / 'recipe.json').exists():
            below = [given]
        else:
            below = sorted(path.parent for path in given.rglob('recipe.json'))
            if not below:
                raise InputError(
                    f'{given}: no recipe.json in it or below; expected the --out of a training run'
                )
        for path in below:
            if path.resolve() in seen:
                continue
            seen.add(path.resolve())
            if path != given and not (path / score_name).exists():
                unfinished.append(path)
            else:
                runs.append(read_run(path, score_name))
    return runs, unfinished


def read_run(
    directory: str | os.PathLike,
    score_name: str | os.PathLike = 'score.json',
    score: Mapping[str, Any] | None = None,
) -> Run:
    """Read the recipe, the score and, if there is one, the log of a run.

    Args:
        directory (path): The directory of the run.
        score_name (path): Name of the score file in it, or another file.
        score (mapping): The score, in place of a file.

    Returns:
        Run: The run.

    Raises:
        InputError: A file is missing or invalid.
    """
    directory = Path(directory)
    content = _read_json(directory / 'recipe.json', 'written by a training run')
    recipe = content.get('recipe') if isinstance(content, dict) else None
    facts = content.get('run', {}) if isinstance(content, dict) else None
    if (
        not isinstance(recipe, dict)
        or not isinstance(recipe.get('name'), str)
        or not isinstance(facts, dict)
    ):
        raise InputError(
            f'{directory / "recipe.json"}: expected an object with a recipe that has a name'
        )
    if score is None:
        path = Path(score_name)
        path = path if len(path.parts) > 1 else directory / path
        score = _read_json(path, 'written by evaluate/score.py, or by training with --val-index')
        _check_score(score, path)
    log = []
    if (directory / 'log').exists():
        log = _read_json(directory / 'log', "written by Chainer's LogReport")
        if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
            raise InputError(
                f"{directory / 'log'}: expected Chainer's LogReport, a list of objects"
            )
    return Run(directory, recipe, facts, score, log)


def _read_json(path: Path, source: str) -> Any:
    return read_json(path, f'a file {source}')


def _check_score(score: Any, path: Path) -> None:
    if not isinstance(score, dict) or not isinstance(score.get('AP'), dict) or 'mAP' not in score:
        raise InputError(f'{path}: expected an object with mAP and AP by class')
    for name, value in {'mAP': score['mAP'], **score['AP']}.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (is_number and 0 <= value <= 1):
            raise InputError(f'{path}: {name} is {value!r}; expected a number from 0 to 1, or null')
