"""Expansion of class scores to the ancestors in the hierarchy."""

import numpy as np

from pfdet.boxes.arrays import Array


def expand_scores(score: Array, descendants: np.ndarray) -> Array:
    """Raise the score of each class to the highest score among its descendants.

    A single-label loss trains an apple as a negative of Fruit, but the challenge's ground truth is
    expanded to ancestors. The detections are therefore expanded too. Peng et al. (2020) do not say
    how their softmax scores the 57 parent classes.

    Args:
        score (array): Scores :math:`(R, C)`, NumPy or CuPy.
        descendants (bool array): ``descendants[i, j]`` is true if ``j`` descends from ``i``,
            :math:`(C, C)`. A transitive relation in a NumPy array.

    Returns:
        array: Scores :math:`(R, C)`.
    """
    expanded = score.copy()
    for parent in np.flatnonzero(descendants.any(axis=1)).tolist():
        family = np.append(np.flatnonzero(descendants[parent]), parent)
        expanded[:, parent] = score[:, family.tolist()].max(axis=1)
    return expanded
