"""Class weights by the effective number of samples, against class imbalance."""

import numpy as np


def effective_number_weights(counts: np.ndarray, beta: float = 0.999) -> np.ndarray:
    """Compute class weights (Cui et al., Class-Balanced Loss, equation 3).

    .. math:: w_c \\propto (1 - \\beta) / (1 - \\beta^{n_c})

    Cui et al. weight all terms of a sample by its one class. Here a region has several classes or
    none, so the weight of a class applies to its own terms only, and the background has weight 1.
    Peng et al. (2020) compare with this method in Table 3 without giving :math:`\\beta`.

    Args:
        counts (array): Number of training samples of each class, :math:`(C,)`.
        beta (float): In [0, 1). At 0 all weights are 1; towards 1 the weights approach the inverse
            class frequencies. Cui et al. try 0.9, 0.99, 0.999 and 0.9999.

    Returns:
        float32 array: Weights :math:`(C,)` with mean 1 over the classes that have samples. Other
        classes have weight 1.

    Raises:
        ValueError: ``beta`` is out of range or a count is negative.
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
