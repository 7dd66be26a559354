"""The all-reduce model against measurements with many ranks on one machine."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import nnls

from scaling.allreduce import message_sizes

SWEEP = Path(__file__).with_name('allreduce_sweep.json')
# From this size on, MPICH does a handshake with the receiver; observed in the sweep.
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
    """Read a file of ``measure_allreduce.py``."""
    return [
        Point(run['algorithm'], run['ranks'], run['cores'], n_byte, seconds)
        for run in json.loads(path.read_text())['runs']
        for n_byte, seconds in zip(run['bytes'], run[statistic], strict=True)
    ]


def terms(point: Point) -> np.ndarray:
    """The terms of the model, one for each coefficient of an algorithm.

    The first two are the latency of the steps and the time of the bytes, as on any network. The
    third is the bytes times the ranks per core, because ranks that share a core process bytes in
    turn. The fourth is the steps times the squared ranks per core: before a rank sees a message,
    the others on its core take turns, and each polls the mailboxes of all.
    """
    sizes = message_sizes(point.algorithm, point.n_rank, point.n_byte)
    n_turn = np.where(sizes < _HANDSHAKE, 1, 2).sum()
    on_core = max(1.0, point.n_rank / point.n_core)
    return np.array(
        [n_turn, sizes.sum(), sizes.sum() * on_core, n_turn * (on_core**2 if on_core > 1 else 0)]
    )


def fit(points: Sequence[Point]) -> dict[str, np.ndarray]:
    """Non-negative coefficients of each algorithm with the least squared relative error."""
    coefficients = {}
    for algorithm in sorted({p.algorithm for p in points}):
        own = [p for p in points if p.algorithm == algorithm]
        rows = np.array([terms(p) / p.seconds for p in own])
        # NNLS needs columns of similar magnitude.
        scale = np.maximum(rows.max(axis=0), np.finfo(float).tiny)
        coefficients[algorithm] = nnls(rows / scale, np.ones(len(own)))[0] / scale
    return coefficients


def predict(coefficients: dict[str, np.ndarray], point: Point) -> float:
    """Predict the seconds of a point."""
    return float(coefficients[point.algorithm] @ terms(point))


def error_factors(coefficients: dict[str, np.ndarray], points: Sequence[Point]) -> np.ndarray:
    """Factor by which each prediction is too long or too short, at least 1."""
    ratio = np.array([predict(coefficients, p) / p.seconds for p in points])
    return np.maximum(ratio, 1 / ratio)


def split(
    points: Sequence[Point], fitted_ranks: Sequence[int] = (2, 8, 32)
) -> tuple[list[Point], list[Point]]:
    """Split points into those to fit and those of other numbers of ranks, to predict."""
    return (
        [p for p in points if p.n_rank in fitted_ranks],
        [p for p in points if p.n_rank not in fitted_ranks],
    )
