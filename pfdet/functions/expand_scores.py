"""Expansion of class scores to the ancestors in the hierarchy."""

from collections.abc import Iterator

import numpy as np

from pfdet.boxes.arrays import Array, array_module


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
    for parent, family in _families(descendants):
        expanded[:, parent] = score[:, family].max(axis=1)
    return expanded


def highest_in_family(score: Array, descendants: np.ndarray) -> Array:
    """Find the class whose score :func:`expand_scores` takes.

    With one box per class, the box of a parent that no object teaches is not trained. The box of
    the class with the highest score is, so the parent takes it too.

    Args:
        score, descendants: See :func:`expand_scores`.

    Returns:
        int array: Class ids :math:`(R, C)`; of equal scores the class itself, then the lowest id.
    """
    xp = array_module(score)
    highest = xp.repeat(xp.arange(score.shape[1])[None], len(score), axis=0)
    for parent, family in _families(descendants):
        highest[:, parent] = xp.asarray(family)[score[:, family].argmax(axis=1)]
    return highest


def _families(descendants: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each class that has descendants, and it with them, itself first."""
    for parent in np.flatnonzero(descendants.any(axis=1)).tolist():
        yield parent, [parent, *np.flatnonzero(descendants[parent]).tolist()]
