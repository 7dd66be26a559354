"""The model's form against all-reduces measured on the ranks of one machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from scaling.allreduce import message_sizes

SWEEP = Path(__file__).with_name('allreduce_sweep.json')
# From so many bytes on MPICH first asks the receiver whether it is ready; seen in the sweep.
_HANDSHAKE = 8192
STATISTIC = 'p50'


class Point(NamedTuple):
    """One measured all-reduce."""

    algorithm: str
    n_rank: int
    n_core: int
    n_byte: int
    seconds: float


def read_sweep(path: Path = SWEEP, statistic: str = STATISTIC) -> list[Point]:
    """The points of a file of ``measure_allreduce.py``."""
    return [
        Point(run['algorithm'], run['ranks'], run['cores'], n_byte, seconds)
        for run in json.loads(path.read_text())['runs']
        for n_byte, seconds in zip(run['bytes'], run[statistic], strict=True)
    ]


def terms(point: Point) -> np.ndarray:
    """What the four coefficients of an algorithm are multiplied with to give seconds.

    A step costs a latency, and its bytes cost a time each, as on any network: the first two. Where
    ranks share a core, what they do with the bytes they do one after the other: the third is the
    time of a byte times the ranks on a core. And before a rank's message is seen, the others on its
    core have their turns, each of which looks at the mailboxes of all: the fourth is the time of a
    step times the ranks on a core squared.
    """
    sizes = message_sizes(point.algorithm, point.n_rank, point.n_byte)
    n_turn = np.where(sizes < _HANDSHAKE, 1, 2).sum()
    on_core = max(1.0, point.n_rank / point.n_core)
    return np.array(
        [n_turn, sizes.sum(), sizes.sum() * on_core, n_turn * (on_core**2 if on_core > 1 else 0)]
    )


def fit(points: Sequence[Point]) -> dict[str, np.ndarray]:
    """The coefficients of each algorithm, none negative, with the least squared relative error."""
    coefficients = {}
    for algorithm in sorted({p.algorithm for p in points}):
        own = [p for p in points if p.algorithm == algorithm]
        rows = np.array([terms(p) / p.seconds for p in own])
        # NNLS wants columns of like size: bytes are many, steps few.
        scale = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
        coefficients[algorithm] = nnls(rows / scale, np.ones(len(own)))[0] / scale
    return coefficients


def predict(coefficients: dict[str, np.ndarray], point: Point) -> float:
    """Seconds of a point by the form."""
    return float(coefficients[point.algorithm] @ terms(point))


def error_factors(coefficients: dict[str, np.ndarray], points: Sequence[Point]) -> np.ndarray:
    """How many times too long or too short each prediction is, at least 1."""
    ratio = np.array([predict(coefficients, p) / p.seconds for p in points])
    return np.maximum(ratio, 1 / ratio)


def split(
    points: Sequence[Point], fitted_ranks: Sequence[int] = (2, 8, 32)
) -> tuple[list[Point], list[Point]]:
    """Points to fit the form to, and points of other numbers of ranks that it must predict."""
    return (
        [p for p in points if p.n_rank in fitted_ranks],
        [p for p in points if p.n_rank not in fitted_ranks],
    )
