"""Batched greedy non-maximum suppression for the proposals of the RPN."""

import numpy as np
from chainer.backends import cuda

from pfdet.boxes.arrays import Array
from pfdet.boxes.proposal_nms_kernels import suppress_on_gpu
from pfdet.cpu.threads import for_each, n_thread

# Largest number of entries in the overlap matrices of one pass.
_PASS_ENTRIES = 1 << 22


def suppress_sorted(bbox: Array, valid: Array, thresh: float) -> Array:
    """Greedy non-maximum suppression of several lists of equal length.

    Args:
        bbox (array): Boxes :math:`(G, K, 4)`: :math:`G` lists, each by descending score.
        valid (bool array): :math:`(G, K)`. Boxes that are not valid are ignored and not kept.
        thresh (float): A box is suppressed if its IoU with a kept box of its list is at least this.

    Returns:
        bool array: Mask of the kept boxes, :math:`(G, K)`.

    Raises:
        ValueError: On a GPU, a list has more than 65,536 boxes.
    """
    xp = cuda.get_array_module(bbox)
    G, K = valid.shape
    if xp is not np:
        return suppress_on_gpu(bbox, valid, thresh)
    keep = np.empty((G, K), bool)
    step = max(1, min(_PASS_ENTRIES // max(1, K * K), -(-G // n_thread())))

    def suppress(i: int) -> None:
        keep[i : i + step] = _suppress(bbox[i : i + step], valid[i : i + step], thresh)

    for_each(suppress, range(0, G, step))
    return keep


def _suppress(bbox: np.ndarray, valid: np.ndarray, thresh: float) -> np.ndarray:
    y0, x0, y1, x1 = np.moveaxis(bbox, -1, 0)
    area = (y1 - y0) * (x1 - x0)
    height = np.minimum(y1[:, :, None], y1[:, None])
    height -= np.maximum(y0[:, :, None], y0[:, None])
    np.maximum(height, 0, out=height)
    inter = np.minimum(x1[:, :, None], x1[:, None])
    inter -= np.maximum(x0[:, :, None], x0[:, None])
    np.maximum(inter, 0, out=inter)
    inter *= height
    # inter / union >= thresh without a division.
    union = area[:, :, None] + area[:, None]
    union -= inter
    union *= thresh
    over = (inter >= union) & (inter > 0)
    keep = valid.copy()
    # Box k, if still kept, suppresses all later boxes that overlap it.
    for k in range(keep.shape[1] - 1):
        keep[:, k + 1 :] &= ~(over[:, k, k + 1 :] & keep[:, k : k + 1])
    return keep
