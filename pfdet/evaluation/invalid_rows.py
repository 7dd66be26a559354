"""Rows of detections with an invalid score or box."""

from collections.abc import Iterator
from typing import Any

import numpy as np

CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')
# Coordinates outside [0, 1] by at most this much are rounding errors and are clipped.
_ROUNDING = 1e-5


def bad_rows(
    score: np.ndarray, bbox: np.ndarray, checked: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """Find rows with an invalid score or box.

    Args:
        score (float array): :math:`(D,)`.
        bbox (float array): :math:`(D, 4)`.
        checked (bool array): The rows to check, :math:`(D,)`.

    Yields:
        tuple: For each kind of problem that occurs, a message about the first bad row, and the
        indices of all bad rows.
    """

    def problem(is_bad: Any, message: str) -> Iterator[tuple[str, np.ndarray]]:
        rows = np.flatnonzero(is_bad & checked)
        if len(rows):
            box = ', '.join(f'{name} {x:.6g}' for name, x in zip(CORNERS, bbox[rows[0]]))
            yield message.format(score=score[rows[0]], box=box), rows

    yield from problem(~np.isfinite(score), 'Score is {score}; expected a finite number')
    # "Not inside" rather than "outside", so that NaN is found.
    inside = ((bbox >= -_ROUNDING) & (bbox <= 1 + _ROUNDING)).all(axis=1)
    yield from problem(~inside, 'box ({box}); expected numbers from 0 to 1')
    ordered = (bbox[:, :2] <= bbox[:, 2:]).all(axis=1)
    yield from problem(~ordered, 'box ({box}); expected YMin <= YMax and XMin <= XMax')
