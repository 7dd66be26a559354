"""From the network's outputs to an image's detections: 1,000 regions and 500 classes, one core.

Logits and box offsets become scores, decoded boxes and, from a threshold up and merged within
each class, at most 300 detections. Beside it, in the same run, ChainerCV's way: its
`BboxHead.decode`, which decodes a box a class, takes a softmax, and loops over the classes with
its non-maximum suppression.

What a detector says is made: regions crowd around a dozen objects of an image, each with a class,
its ancestors and classes that it is taken for. Three cases: as of a trained network, where some
2,500 scores are at least 0.01; a stressing one with about 13,000, where a region on an object has
30 classes with a score that high and one beside them has nine; and one with about 30,000. Each with
one box for all classes, as all recipes have it, and with a box a class. Both sides are given the
same scores: the logits of one are log odds, those of the other logarithms, with what is missing
to 1 for the background.

    python benchmarks/postprocessing.py
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
from collections.abc import Callable

import pfdet.compat  # noqa: F401

import numpy as np
from chainer import Variable
from chainercv.links.model.fpn import BboxHead as TheirHead
from timing import best_seconds

from pfdet.functions.sigmoid import sigmoid_score
from pfdet.inference.postprocessing import select
from pfdet.links.bbox_head import BboxHead
from pfdet.links.faster_rcnn import relative_boxes

IMAGE_SIZE = (800, 1056)
SCORE_THRESH, NMW_THRESH, MAX_PER_IMAGE = 0.01, 0.5, 300
LIMIT_MS, LEAST_RATIO = 25, 20
# Classes above the threshold of a region: of the ones on an object, and of the rest.
CASES = {'trained': (8, 1), 'stressing': (40, 13), 'extreme': (80, 40)}


def made_output(
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
    share_classes = rng.permuted(np.tile(np.arange(n_class), (n_object, 1)), axis=1)
    for k, here in enumerate(n_above):
        rows = np.flatnonzero(on_object == (k == 0))
        for row in rows:
            n = min(rng.poisson(here), n_class)
            # The first classes of the object more often than the others.
            first = share_classes[owner[row]]
            chosen = first[np.unique((n_class * rng.random(n) ** 3).astype(int))]
            score[row, chosen] = 0.01 + 0.9 * rng.beta(0.3, 4 if k == 0 else 30, len(chosen))
    # A softmax can have no more than 1 in all.
    score /= np.maximum(score.sum(axis=1, keepdims=True) / 0.99, 1)
    return rois.astype(np.float32), offset.astype(np.float32), score.astype(np.float32)


def ours(rois: np.ndarray, offset: np.ndarray, logit: np.ndarray) -> tuple:
    """What FasterRCNN.predict and predict.py do after the network."""
    score = sigmoid_score(logit)
    size = np.tile(np.array(IMAGE_SIZE, np.float32), (len(rois), 1, 1))
    chosen = score >= SCORE_THRESH if offset.shape[1] > 1 else None
    bbox = relative_boxes(offset, rois[:, None], size, BboxHead.std, chosen)
    return select(bbox, score, SCORE_THRESH, NMW_THRESH, MAX_PER_IMAGE)


def theirs(rois: np.ndarray, offset: np.ndarray, score: np.ndarray) -> Callable:
    """ChainerCV's way, from logits with the background first and a box for each."""
    n_class = score.shape[1]
    head = TheirHead(n_class + 1, (1,))
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


def main() -> None:
    parser = argparse.ArgumentParser(description="Post-processing of an image's outputs.")
    parser.add_argument('--regions', type=int, default=1000)
    parser.add_argument('--classes', type=int, default=500)
    parser.add_argument('--repeat', type=int, default=10)
    args = parser.parse_args()

    # Once an array this large has been freed, as a network's activations have, the C library
    # keeps memory instead of asking the kernel for every array anew.
    np.zeros(1 << 21)
    good = True
    for name, n_above in CASES.items():
        for n_box in 1, args.classes:
            rng = np.random.default_rng(0)
            rois, offset, score = made_output(rng, args.regions, args.classes, n_box, n_above)
            logit = np.log(score) - np.log1p(-score)
            (_, our_score, _), seconds = best_seconds(
                lambda r=rois, o=offset, x=logit: ours(r, o, x), args.repeat
            )
            (_, _, their_score), their_seconds = best_seconds(theirs(rois, offset, score), 2)
            # Both suppress the same boxes, so the best scores are the same.
            best = np.sort(their_score)[::-1][:MAX_PER_IMAGE]
            differ = np.abs(best - our_score).max()
            ratio = their_seconds / seconds
            met = 1e3 * seconds <= LIMIT_MS and ratio >= LEAST_RATIO and differ <= 1e-5
            good &= met
            print(
                f'{name:10} {"a box a class" if n_box > 1 else "one box":14}'
                f'{(score >= SCORE_THRESH).sum():7} scores, {len(their_score):6} suppressed to: '
                f'{1e3 * seconds:6.2f} ms (limit {LIMIT_MS}), ChainerCV '
                f'{1e3 * their_seconds:6.0f} ms, {ratio:4.0f} times as long'
                f'{"" if met else "  MISSED"}; scores differ by {differ:.1e}',
                flush=True,
            )
    if not good:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
