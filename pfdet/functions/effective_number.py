"""Weights of classes in a loss, against an imbalance of their frequencies."""

import numpy as np


def effective_number_weights(counts: np.ndarray, beta: float = 0.999) -> np.ndarray:
    """Weights by the effective number of samples (Cui et al., Class-Balanced Loss, equation 3).

    .. math:: w_c \\propto (1 - \\beta) / (1 - \\beta^{n_c})

    Cui et al. weigh all terms of a sample by its one class; the losses here, in which a region has
    several classes or none, weigh each class's own terms, and the background's by 1. The second
    paper, which compares with it in its Table 3, does not say which :math:`\\beta`.

    Args:
        counts (array): Number of training samples of each class, :math:`(C,)`.
        beta (float): In [0, 1): at 0 all weights are 1, towards 1 they become the inverse
            frequencies. Cui et al. try 0.9, 0.99, 0.999 and 0.9999.

    Returns:
        float32 array: :math:`(C,)`, with mean 1 over the classes that have a sample. The others
        get weight 1.

    Raises:
        ValueError: ``beta`` is out of range, or a count is negative.
    """
    if not 0 <= beta < 1:
        raise ValueError(f'beta must be in [0, 1), got {beta}')
    counts = np.asarray(counts, np.float64)
    if (counts < 0).any():
        raise ValueError(f'counts must not be negative, got {counts.min()}')
    weight = np.ones(len(counts))
    occurs = counts > 0
    if beta > 0 and occurs.any():
        # 1 - beta^n without cancellation
        raw = (1 - beta) / -np.expm1(counts[occurs] * np.log(beta))
        weight[occurs] = raw / raw.mean()
    return weight.astype(np.float32)
