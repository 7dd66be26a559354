from pfdet.compat.replacements import ResolutionError, WorkingSet, select_by_mask, strtobool

import numpy as np
import pytest
from chainercv.utils import bbox_iou, non_maximum_suppression
from chainercv.utils.bbox._nms_gpu_post import _nms_gpu_post


def random_boxes(n):
    random = np.random.RandomState(n)
    top_left = random.uniform(0, 60, (n, 2))
    return np.hstack([top_left, top_left + random.uniform(5, 40, (n, 2))]).astype(np.float32)


def suppressed_by_mask(bbox, thresh):
    """Compute the mask of ChainerCV's kernel: bit b of word j in row i is box 64 j + b."""
    n = len(bbox)
    col_blocks = -(-n // 64)
    mask = np.zeros((n, col_blocks), np.uint64)
    iou = bbox_iou(bbox, bbox)
    for i in range(n):
        for j in range(i + 1, n):
            if iou[i, j] >= thresh:
                mask[i, j // 64] |= np.uint64(1) << np.uint64(j % 64)
    return mask.reshape(-1), n, 64, col_blocks


def greedy(bbox, thresh):
    chosen = []
    for i in range(len(bbox)):
        if all(bbox_iou(bbox[[i]], bbox[[j]])[0, 0] < thresh for j in chosen):
            chosen.append(i)
    return chosen


@pytest.mark.parametrize('n', [1, 63, 64, 65, 150])
@pytest.mark.parametrize('select', [select_by_mask, _nms_gpu_post])
def test_select_by_mask(n, select):
    bbox = random_boxes(n)
    selection, n_selection = select(*suppressed_by_mask(bbox, 0.3))
    assert selection.dtype == np.int32
    assert selection.shape == (n,)
    expected = greedy(bbox, 0.3)
    assert n == 1 or 0 < len(expected) < n
    assert selection[:n_selection].tolist() == expected


def test_select_by_mask_with_another_word_size():
    with pytest.raises(ValueError, match='threads_per_block is 32, expected 64'):
        select_by_mask(np.zeros(1, np.uint64), 1, 32, 1)


def test_non_maximum_suppression_on_cpu():
    bbox = random_boxes(100)
    score = np.random.RandomState(1).permutation(100).astype(np.float32)
    order = np.argsort(-score)
    chosen = non_maximum_suppression(bbox, 0.3, score)
    np.testing.assert_array_equal(chosen, order[greedy(bbox[order], 0.3)])


def test_working_set():
    packages = WorkingSet()
    packages.require('numpy>=1.10', 'chainer==7.8.1')
    for missing in 'numpy<1.10', 'no-such-package-as-this':
        with pytest.raises(ResolutionError, match=missing.split('<')[0]):
            packages.require('chainer', missing)


def test_strtobool():
    assert [strtobool(v) for v in ('ON', 'yes', '1', 'off', 'No', '0')] == [1, 1, 1, 0, 0, 0]
    with pytest.raises(ValueError, match='expected yes or no'):
        strtobool('maybe')
