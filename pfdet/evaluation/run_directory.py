"""Reading what training, scoring and ensembling leave in a run's directory."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfdet.errors import InputError


@dataclass(frozen=True, eq=False)
class Run:
    """A scored run.

    Attributes:
        path (pathlib.Path): Its directory.
        recipe (mapping): The resolved recipe, with ``'name'`` and ``'size'`` among its fields.
        facts (mapping): Facts of the run, such as ``'seed'``, ``'images'`` and
            ``'global_batch_size'``.
        score (mapping): What ``score.json`` holds, see
            :func:`~pfdet.evaluation.average_precision.score_dict`.
        log (sequence of mappings): Entries of Chainer's ``LogReport``; none where nothing was
            trained.
    """

    path: Path
    recipe: Mapping[str, Any]
    facts: Mapping[str, Any]
    score: Mapping[str, Any]
    log: Sequence[Mapping[str, Any]] = ()

    @property
    def name(self) -> str:
        """The recipe's name."""
        return self.recipe['name']

    @property
    def scale(self) -> str:
        """``'full'`` or ``'mini'``."""
        # 'scale' until 'size' was its name.
        return self.recipe.get('size', self.recipe.get('scale', 'full'))

    @property
    def seed(self) -> int | None:
        """Of the run, if it says."""
        return self.facts.get('seed')

    def epoch(self, iteration: float) -> float | None:
        """Passes over the training set after so many iterations, if the run's facts tell."""
        images, batch = self.facts.get('images'), self.facts.get('global_batch_size')
        return iteration * batch / images if images and batch else None


def find_runs(
    directories: Sequence[str | os.PathLike], score_name: str = 'score.json'
) -> tuple[list[Run], list[Path]]:
    """Read runs.

    Args:
        directories (sequence of paths): Each a run's directory, which has a ``recipe.json``, or
            one with runs below it, which may be unfinished.
        score_name (str): The file in a run's directory to read its score from.

    Returns:
        tuple: The runs in the order given, those below one directory sorted by path; and the
        directories of runs below a given one that have no score.

    Raises:
        InputError: A directory does not exist or has no run in or below it, a file in it cannot be
            used, or a run given by itself has no score.
    """
    runs, unfinished, seen = [], [], set()
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


def read_run(directory: str | os.PathLike, score_name: str = 'score.json') -> Run:
    """Read a run's recipe, score and, if there is one, log.

    Args:
        directory (path): Of the run.
        score_name (str): The file to read the score from.

    Raises:
        InputError: A file is missing or is not what a run leaves.
    """
    directory = Path(directory)
    said = _read_json(directory / 'recipe.json', 'written by a training run')
    recipe = said.get('recipe') if isinstance(said, dict) else None
    facts = said.get('run', {}) if isinstance(said, dict) else None
    if (
        not isinstance(recipe, dict)
        or not isinstance(recipe.get('name'), str)
        or not isinstance(facts, dict)
    ):
        raise InputError(
            f'{directory / "recipe.json"}: expected an object with a recipe that has a name'
        )
    score = _read_json(
        directory / score_name, 'written by evaluate/score.py, or by training with --val-index'
    )
    _check_score(score, directory / score_name)
    log = []
    if (directory / 'log').exists():
        log = _read_json(directory / 'log', "Chainer's LogReport")
        if not isinstance(log, list) or not all(isinstance(entry, dict) for entry in log):
            raise InputError(
                f"{directory / 'log'}: expected Chainer's LogReport, a list of objects"
            )
    return Run(directory, recipe, facts, score, log)


def _read_json(path: Path, what: str) -> Any:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}; expected a file {what}') from e
    except (ValueError, RecursionError) as e:
        raise InputError(f'{path}: cannot read it as JSON: {e}; expected a file {what}') from e


def _check_score(score: Any, path: Path) -> None:
    if not isinstance(score, dict) or not isinstance(score.get('AP'), dict) or 'mAP' not in score:
        raise InputError(f'{path}: expected an object with mAP and AP by class')
    for name, value in {'mAP': score['mAP'], **score['AP']}.items():
        sound = isinstance(value, (int, float)) and not isinstance(value, bool)
        if value is not None and not (sound and 0 <= value <= 1):
            raise InputError(f'{path}: {name} is {value!r}; expected a number from 0 to 1, or null')
