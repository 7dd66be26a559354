"""Post-processing of an image's network outputs: 1,000 regions and 500 classes, one core.

Turns logits and box offsets into scores and decoded boxes, applies a threshold, merges within each
class, and keeps at most 300 detections. The reference, which takes turns with it, is ChainerCV's
`BboxHead.decode`, which decodes class-specific boxes, takes a softmax, and loops over the classes
with non-maximum suppression.

The outputs are synthetic: regions cluster around a dozen objects, each with a class, its ancestors
and confused classes. Three cases: "trained", like a trained network, with some 2,500 scores of at
least 0.01; "stressing" with about 13,000, where a region on an object has 30 such classes and any
other region nine; "extreme" with about 30,000. Each case runs with class-agnostic boxes, as in all
recipes, and with class-specific boxes. Both implementations get the same scores: log odds for the
sigmoid; logarithms for the softmax, with the rest of the probability for the background.

    python benchmarks/postprocessing.py [--check]
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import sys
from collections.abc import Callable
from functools import partial

import pfdet.compat  # noqa: F401

import numpy as np
from chainer import Variable
from chainercv.links.model.fpn import BboxHead as ChainerCVHead
from timing import Table, add_check, status, take_turns

from pfdet.functions.sigmoid import sigmoid_score
from pfdet.inference.postprocessing import select
from pfdet.links.bbox_head import BboxHead
from pfdet.links.faster_rcnn import relative_boxes

IMAGE_SIZE = (800, 1056)
SCORE_THRESH, NMW_THRESH, MAX_PER_IMAGE = 0.01, 0.5, 300
# At least so many times as fast as ChainerCV, with the same scores
GOAL, MAX_DIFFERENCE = 20, 1e-5
# Classes above the threshold per region: for regions on an object, and for the others.
CASES = {'trained': (8, 1), 'stressing': (40, 13), 'extreme': (80, 40)}


def synthetic_output(
    rng: np.random.Generator, n_roi: int, n_class: int, n_box: int, n_above: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regions (R, 4) in pixels, offsets (R, B, 4) in units of the head, scores (R, C)."""
    n_object = 12
    height, width = IMAGE_SIZE
    owner = rng.integers(n_object, size=n_roi)
    on_object = rng.random(n_roi) < 0.25
    spread = np.where(on_object, 0.06, 0.5)[:, None]
    size = np.exp(
        rng.normal(-1.7, 0.6, (n_object, 2))[owner] + spread * rng.normal(size=(n_roi, 2))
    )
    centre = rng.random((n_object, 2))[owner] + spread * size * rng.normal(size=(n_roi, 2))
    rois = np.concatenate([centre - size / 2, centre + size / 2], axis=1).clip(0, 1)
    rois *= np.tile(IMAGE_SIZE, 2)
    rois[:, 2:] = np.maximum(rois[:, 2:], rois[:, :2] + 1)
    offset = rng.normal(0, 0.3, (n_roi, n_box, 4))

    score = np.exp(rng.normal(-8, 0.7, (n_roi, n_class)))
    class_order = rng.permuted(np.tile(np.arange(n_class), (n_object, 1)), axis=1)
    for k, mean_count in enumerate(n_above):
        rows = np.flatnonzero(on_object == (k == 0))
        for row in rows:
            n = min(rng.poisson(mean_count), n_class)
            # The first classes of an object are drawn more often.
            classes = class_order[owner[row]]
            chosen = classes[np.unique((n_class * rng.random(n) ** 3).astype(int))]
            score[row, chosen] = 0.01 + 0.9 * rng.beta(0.3, 4 if k == 0 else 30, len(chosen))
    # The scores of a softmax sum to at most 1.
    score /= np.maximum(score.sum(axis=1, keepdims=True) / 0.99, 1)
    return rois.astype(np.float32), offset.astype(np.float32), score.astype(np.float32)


def run_pfdet(rois: np.ndarray, offset: np.ndarray, logit: np.ndarray) -> tuple:
    """The post-processing of FasterRCNN.predict and pfdet predict."""
    score = sigmoid_score(logit)
    size = np.tile(np.array(IMAGE_SIZE, np.float32), (len(rois), 1, 1))
    chosen = score >= SCORE_THRESH if offset.shape[1] > 1 else None
    bbox = relative_boxes(offset, rois[:, None], size, BboxHead.std, chosen)
    return select(bbox, score, SCORE_THRESH, NMW_THRESH, MAX_PER_IMAGE)


def run_chainercv(rois: np.ndarray, offset: np.ndarray, score: np.ndarray) -> Callable:
    """Return a call of ChainerCV's decode: background first, class-specific boxes."""
    n_class = score.shape[1]
    head = ChainerCVHead(n_class + 1, (1,))
    background = 1 - score.sum(axis=1, keepdims=True)
    conf = Variable(np.log(np.concatenate([background, score], axis=1)))
    loc = Variable(
        np.ascontiguousarray(
            np.broadcast_to(
                offset if offset.shape[1] == 1 else np.concatenate([offset[:, :1], offset], axis=1),
                (len(rois), n_class + 1, 4),
            )
        )
    )
    indices = np.zeros(len(rois), np.int32)

    def run() -> tuple:
        return tuple(
            a[0]
            for a in head.decode(
                [rois], [indices], loc, conf, [1.0], [IMAGE_SIZE], NMW_THRESH, SCORE_THRESH
            )
        )

    return run


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--regions', type=int, default=1000)
    parser.add_argument('--classes', type=int, default=500)
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    add_check(parser)
    args = parser.parse_args()

    # After an array of this size has been freed, the C library keeps freed memory instead of
    # requesting it from the kernel for every array. A network's activations have the same effect.
    np.zeros(1 << 21)
    table = Table()
    worst = 0.0
    for name, n_above in CASES.items():
        for n_box in 1, args.classes:
            rng = np.random.default_rng(0)
            rois, offset, score = synthetic_output(rng, args.regions, args.classes, n_box, n_above)
            logit = np.log(score) - np.log1p(-score)
            results, seconds = take_turns(
                {
                    'pfdet': partial(run_pfdet, rois, offset, logit),
                    'ChainerCV': run_chainercv(rois, offset, score),
                },
                args.rounds,
            )
            # Both suppress the same boxes, so the highest scores are equal.
            found, reference = results['pfdet'][1], results['ChainerCV'][2]
            best = np.sort(reference)[::-1][:MAX_PER_IMAGE]
            n = min(len(best), len(found))
            # Rounding decides about scores at the threshold.
            rest = np.concatenate([best[n:], found[n:]]) - SCORE_THRESH
            worst = max(worst, np.abs(best[:n] - found[:n]).max(), np.abs(rest).max(initial=0))
            n_score = (score >= SCORE_THRESH).sum()
            table.faster(
                f'{name}, {"per class" if n_box > 1 else "one box"}, {n_score:,} scores',
                seconds['pfdet'],
                seconds['ChainerCV'],
                'ChainerCV',
                GOAL,
            )
    table.require(
        f'scores differ by {worst:.1e}, at most {MAX_DIFFERENCE:g}', worst <= MAX_DIFFERENCE
    )
    return status(table.missed, args.check)


if __name__ == '__main__':
    sys.exit(main())
