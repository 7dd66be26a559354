"""Choose rows of a sparse matrix such that column sums are close to given shares."""

import numpy as np
import scipy.sparse as sp
from tqdm import tqdm

# Number of best images considered for exchange before the costs of all images are recomputed.
_POOL = 512


def column_sums(member: sp.csr_array) -> np.ndarray:
    """Return the column sums of a sparse 0/1 matrix ``(N, K)`` as int64 ``(K,)``."""
    return np.bincount(member.indices, minlength=member.shape[1])


def stratify(
    member: sp.csr_array, n: int, at_least: int = 0, seed: int = 0, share: np.ndarray | None = None
) -> np.ndarray:
    """Choose rows such that the sum of each column is close to its share.

    Args:
        member (scipy.sparse.csr_array): float64 ``(N, K)``, 0 or 1. Columns are categories.
        n (int): Number of rows to choose, at most ``N``.
        at_least (int): Minimum of each share, limited by the sum of the column.
        seed (int): Seed of the order in which rows are considered.
        share (array): ``(K,)``, the target sums. By default, the sums of all rows times ``n / N``.

    Returns:
        array: int64 ``(n,)``, ascending row numbers.
    """
    n_row = member.shape[0]
    available = column_sums(member)
    if share is None:
        share = available * (n / max(n_row, 1))
    target = np.maximum(share, np.minimum(at_least, available))
    order = np.argsort(_hash(n_row, seed), kind='stable')
    member = member[order]
    chosen = _fill_targets(member, available, target)
    _refine(member, chosen, target, n)
    return np.sort(order[chosen])


def _hash(n: int, seed: int) -> np.ndarray:
    """Hash positions and a seed to uint64 (splitmix64), equal for all versions of NumPy."""
    mixed = np.arange(n, dtype=np.uint64)
    mixed += np.uint64((seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & (2**64 - 1))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB), (31, 1)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    return mixed


def _fill_targets(member: sp.csr_array, available: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Fill the target of each category, from rare to frequent. Returns bool ``(N,)``."""
    by_category = member.tocsc()
    chosen, considered = np.zeros((2, member.shape[0]), bool)
    count = np.zeros(member.shape[1])
    for k in np.argsort(available, kind='stable'):
        rows = by_category.indices[by_category.indptr[k] : by_category.indptr[k + 1]]
        rows = np.sort(rows[~considered[rows]])
        considered[rows] = True
        taken = rows[: max(0, round(float(target[k] - count[k])))]
        chosen[taken] = True
        count += np.bincount(member[taken].indices, minlength=len(count))
    return chosen


def _refine(member: sp.csr_array, chosen: np.ndarray, target: np.ndarray, n: int) -> None:
    """Exchange rows until ``n`` are chosen and no exchange reduces the deviation.

    The objective is the sum over categories of ``weight * deviation ** 2``. The cost of an exchange
    is bounded by the sum of the costs of adding one row and removing the other.

    Args:
        member (scipy.sparse.csr_array): float64 ``(N, K)``.
        chosen (array): bool ``(N,)``. Modified.
        target (array): ``(K,)``, target sums of the chosen rows.
        n (int): Number of rows to choose.
    """
    weight = 1 / np.maximum(target, 1) ** 2
    off = member.T @ chosen - target
    n_chosen = int(chosen.sum())
    with tqdm(desc='exchanged', unit=' images', disable=None) as bar:
        while True:
            cost = np.where(
                chosen, member @ (weight * (1 - 2 * off)), member @ (weight * (1 + 2 * off))
            )
            pools = [
                _best(np.where(side, cost, np.inf), min(_POOL, int(side.sum())))
                for side in (~chosen, chosen)
            ]
            rows = [member[pool] for pool in pools]
            used = [np.zeros(len(pool), bool) for pool in pools]
            n_step = 0
            while True:
                costs = [
                    np.where(u, np.inf, r @ (weight * (1 + sign * 2 * off)))
                    for r, u, sign in zip(rows, used, (1, -1))
                ]
                best = [int(c.argmin()) if len(c) else -1 for c in costs]
                moves = _moves(costs, best, n - n_chosen)
                if not moves:
                    break
                for side, sign in ((0, 1), (1, -1)):
                    if side in moves:
                        k = best[side]
                        used[side][k] = True
                        chosen[pools[side][k]] = side == 0
                        row = slice(rows[side].indptr[k], rows[side].indptr[k + 1])
                        off[rows[side].indices[row]] += sign
                        n_chosen += sign
                n_step += 1
            bar.update(n_step)
            if not n_step:
                return


def _moves(costs: list[np.ndarray], best: list[int], n_missing: int) -> tuple[int, ...]:
    """Return the moves to make: add a row (0), remove a row (1), both or none."""
    cost = [float(c[k]) if k >= 0 else np.inf for c, k in zip(costs, best)]
    if n_missing:
        side = 0 if n_missing > 0 else 1
        return (side,) if np.isfinite(cost[side]) else ()
    # The tolerance prevents endless exchanges due to rounding.
    return (0, 1) if cost[0] + cost[1] < -1e-12 else ()


def _best(cost: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the ``n`` lowest costs, in ascending order, ties by position."""
    if not n:
        return np.zeros(0, np.int64)
    limit = np.partition(cost, n - 1)[n - 1]
    positions = np.flatnonzero(cost <= limit)
    return positions[np.argsort(cost[positions], kind='stable')[:n]]
