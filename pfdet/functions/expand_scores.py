"""Scores of classes that are told apart from their descendants only in the hierarchy."""

import numpy as np


def expand_scores(score, descendants: np.ndarray):
    """Give each class the highest of its own and its descendants' scores.

    What is an apple is a fruit. A loss of one label teaches an apple to be no fruit, while the
    challenge's ground truth is expanded to ancestors; so detections are expanded as well. The
    second paper does not say how its softmax answers for the 57 classes that are parents.

    Args:
        score (array): :math:`(R, C)`, NumPy or CuPy.
        descendants (bool array): :math:`(C, C)`, ``descendants[i, j]``: ``j`` descends from ``i``;
            a NumPy array, transitive.

    Returns:
        array: :math:`(R, C)`.
    """
    expanded = score.copy()
    for parent in np.flatnonzero(descendants.any(axis=1)).tolist():
        family = np.append(np.flatnonzero(descendants[parent]), parent)
        expanded[:, parent] = score[:, family.tolist()].max(axis=1)
    return expanded
