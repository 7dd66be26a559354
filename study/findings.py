"""Verdicts on the papers' claims, from the scores of finished runs."""

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pfdet import recipes
from pfdet.training.tables.rows import Rows
from study.claims import Claim, Measure, claims

# From AP in [0, 1] to points of percent.
_POINTS = 100.0


@dataclass(frozen=True)
class Finding:
    """The result of a claim.

    Attributes:
        claim (Claim): The claim.
        values (tuple of pairs): The values of both runs for each seed, in points.
        noise (float): Twice the standard deviation of the difference between two runs that differ
            in the seed alone, in points; :obj:`None` where it is not known.
    """

    claim: Claim
    values: tuple[tuple[float, float], ...]
    noise: float | None

    @property
    def differences(self) -> list[float]:
        """The difference with each seed, in points."""
        return [row - against for row, against in self.values]

    @property
    def mean(self) -> float | None:
        """The mean of the differences, in points."""
        return statistics.fmean(self.differences) if self.values else None

    @property
    def verdict(self) -> str:
        """``'reproduced'``, ``'not reproduced'``, ``'undecided'`` with the reason, or
        ``'not run'``."""
        if not self.values:
            return 'not run'
        # A difference that is printed as 0.0 has no sign.
        signed = [self.claim.sign * round(d, 1) for d in self.differences]
        mean = statistics.fmean(signed)
        if self.claim.no_loss:
            allowed = self.noise or 0.0
            if mean >= 0 or (len(signed) > 1 and max(signed) > 0 and mean > -allowed):
                return 'reproduced' if len(signed) > 1 else 'reproduced, one seed'
            return 'not reproduced' if mean < -allowed else 'undecided: within the noise of seeds'
        if len(signed) > 1:
            if min(signed) > 0:
                return 'reproduced'
            if max(signed) < 0:
                return 'not reproduced'
            return 'undecided: seeds disagree'
        if self.noise is not None and abs(mean) <= self.noise:
            return 'undecided: one seed, within the noise of seeds'
        return ('reproduced' if mean > 0 else 'not reproduced') + ', one seed'


class RunScores:
    """The scores of finished runs, each read once.

    Args:
        rows (Rows): The runs.
        seeds (sequence of int): The seeds to look for.
    """

    def __init__(self, rows: Rows, seeds: Sequence[int] = range(10)) -> None:
        self._rows = rows
        self._seeds = seeds
        self._read: dict[tuple[str, str], dict[int, dict[str, Any]]] = {}

    def of(self, name: str, file: str = 'score') -> dict[int, dict[str, Any]]:
        """The scores of a run by its seed.

        Args:
            name (str): Of the run.
            file (str): Name of the score's file without ``.json``.
        """
        if (name, file) not in self._read:
            paths = {
                seed: self._rows.directory(name, seed) / f'{file}.json' for seed in self._seeds
            }
            self._read[name, file] = {
                seed: json.loads(path.read_text(encoding='utf-8'))
                for seed, path in paths.items()
                if path.exists() and path.with_name('done').exists()
            }
        return self._read[name, file]

    @cached_property
    def trainings(self) -> list[str]:
        """Names of the rows that are trained themselves.

        Rows that share another row's training are omitted, since they say nothing new about the
        noise of seeds.
        """
        return [
            name
            for name in recipes.RECIPES
            if self._rows.directory(name, 0).exists() and self._rows.same_training(name) == name
        ]


def findings(scores: RunScores, counts: Mapping[str, int]) -> list[Finding]:
    """Evaluate every claim on the finished runs.

    Args:
        scores (RunScores): The scores of the runs.
        counts (mapping): Training images of each class by machine id.
    """
    return [find(claim, scores) for claim in claims(counts)]


def find(claim: Claim, scores: RunScores) -> Finding:
    """Evaluate a claim on the finished runs.

    Args:
        claim (Claim): The claim.
        scores (RunScores): The scores of the runs.
    """
    row = _values(scores, claim.row, claim.file, claim.measure)
    against = _values(scores, claim.against, claim.against_file, claim.measure)
    return Finding(
        claim,
        tuple((row[seed], against[seed]) for seed in row if seed in against),
        _noise([_values(scores, name, 'score', claim.measure) for name in scores.trainings]),
    )


def _values(scores: RunScores, name: str, file: str, measure: Measure) -> dict[int, float]:
    values = {seed: measure(score) for seed, score in scores.of(name, file).items()}
    return {seed: _POINTS * value for seed, value in values.items() if value is not None}


def _noise(runs: Sequence[Mapping[int, float]]) -> float | None:
    """Twice the standard deviation of a difference of two runs, pooled over all recipes."""
    repeated = [list(run.values()) for run in runs if len(run) > 1]
    if not repeated:
        return None
    squares = sum(statistics.variance(values) * (len(values) - 1) for values in repeated)
    return 2 * (2 * squares / sum(len(values) - 1 for values in repeated)) ** 0.5
