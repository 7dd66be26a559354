"""Non-maximum weighted against the package ensemble-boxes, on the same ensembles, on one core.

Five models detect 300 boxes per image: jittered copies of hypotheses (a region and a class) that
the models share, and some false positives of a single model. Most regions belong to a few objects
and classes have a long tail, so that some classes have a hundred boxes in an image and most have
fewer than ten. The models' boxes are suppressed already, as when detections files are joined.

Both implementations process the images one by one; this package's also processes all at once.
ensemble-boxes accepts lists or arrays; the faster counts, after its kernels are compiled. They take
turns. Both must return the same boxes and scores to 1e-5.

    python benchmarks/nmw.py [--check]
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import sys
from collections.abc import Callable

import ensemble_boxes
import numpy as np
from timing import Table, add_check, status, take_turns

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted

N_CLASS = 500
IOU_THRESH = 0.5
GOALS = {'one by one': 10, 'all at once': 20}
MAX_DIFFERENCE = 1e-5
# Boxes, scores and labels of one model in an image.
Model = tuple[np.ndarray, np.ndarray, np.ndarray]


def random_ensemble(
    rng: np.random.Generator, n_model: int, n_box: int, n_present: int
) -> list[Model]:
    """Detections of several models in one image; boxes are float32 in [0, 1]."""
    n_object = rng.integers(2, 15)
    # Many hypotheses per object, near its position and of its class or a confused one.
    n_hypothesis = 2 * n_box
    tail = np.arange(1, N_CLASS + 1) ** -0.7
    classes = rng.permutation(N_CLASS)[:n_present]
    owner = rng.integers(n_object, size=n_hypothesis)
    centre = rng.random((n_object, 2))[owner] + rng.normal(0, 0.1, (n_hypothesis, 2))
    size = np.exp(
        rng.normal(-1.5, 0.7, (n_object, 2))[owner] + rng.normal(0, 0.4, (n_hypothesis, 2))
    )
    label = classes[
        rng.choice(n_present, n_hypothesis, p=tail[:n_present] / tail[:n_present].sum())
    ]
    strength = rng.beta(0.4, 2.5, n_hypothesis)
    models = []
    for m in range(n_model):
        jitter = size * rng.normal(0, 0.08, (n_hypothesis, 2))
        grown = size * np.exp(rng.normal(0, 0.08, (n_hypothesis, 2)))
        bbox = np.concatenate(
            [centre + jitter - grown / 2, centre + jitter + grown / 2], axis=1
        ).clip(0, 1)
        score = (strength * np.exp(rng.normal(0, 0.4, n_hypothesis))).clip(0.001, 1)
        own_label = label.copy()
        alone = np.flatnonzero(rng.random(n_hypothesis) < 0.1)
        own_label[alone] = rng.choice(N_CLASS, len(alone), p=tail / tail.sum())
        # Scores are distinct: ensemble-boxes orders equal scores differently.
        place = (np.arange(n_hypothesis) * n_model + m) / (n_hypothesis * n_model)
        score = (np.round(0.98 * score, 3) + 0.001 * place).astype(np.float32)
        bbox = bbox.astype(np.float32)
        found = np.flatnonzero((bbox[:, :2] < bbox[:, 2:]).all(axis=1))
        kept = non_maximum_suppression(bbox[found], score[found], own_label[found], 0.5)
        models.append(tuple(a[:n_box] for a in kept))
    return models


def run_ensemble_boxes(images: list[list[Model]], as_list: bool) -> Callable:
    """Return a call of ensemble-boxes on all images; its arguments are prepared beforehand."""
    arguments = [
        tuple(
            [a.tolist() if as_list else a for a in column]
            for column in (
                [bbox[:, [1, 0, 3, 2]] for bbox, _, _ in models],
                [score for _, score, _ in models],
                [label for _, _, label in models],
            )
        )
        for models in images
    ]

    def run() -> list:
        return [ensemble_boxes.non_maximum_weighted(*a, iou_thr=IOU_THRESH) for a in arguments]

    return run


def compare(found: list, expected: list) -> float:
    """Maximum difference of boxes and scores; labels and numbers of boxes must be equal."""
    worst = 0.0
    for (bbox, score, label), (expected_bbox, expected_score, expected_label) in zip(
        found, expected, strict=True
    ):
        expected_bbox = expected_bbox[:, [1, 0, 3, 2]]
        # Two classes with equal scores in an image may come in either order.
        order, expected_order = (
            np.lexsort((*b.T, lab, s))
            for b, lab, s in ((bbox, label, score), (expected_bbox, expected_label, expected_score))
        )
        np.testing.assert_array_equal(label[order], expected_label[expected_order])
        for a, b in ((bbox, expected_bbox), (score, expected_score)):
            worst = max(worst, float(np.abs(a[order] - b[expected_order]).max(initial=0)))
    return worst


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=200)
    parser.add_argument('--models', type=int, default=5)
    parser.add_argument('--boxes', type=int, default=300, help='per model and image')
    parser.add_argument(
        '--present', type=int, default=150, help='classes per image that the models share'
    )
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    add_check(parser)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    images = [
        random_ensemble(rng, args.models, args.boxes, args.present) for _ in range(args.images)
    ]
    joined = [tuple(np.concatenate(a) for a in zip(*models, strict=True)) for models in images]
    together = [np.concatenate(a) for a in zip(*joined, strict=True)]
    image = np.repeat(np.arange(len(images)), [len(score) for _, score, _ in joined])
    together[2] = image * N_CLASS + together[2]

    def one_by_one(join: str) -> Callable:
        return lambda: [non_maximum_weighted(*a, IOU_THRESH, join=join) for a in joined]

    def at_once(join: str) -> Callable:
        return lambda: non_maximum_weighted(*together, IOU_THRESH, join=join)

    # Number of boxes of the same class in the same image, for each box.
    n_same = np.bincount(together[2])[together[2]]
    print(
        f'{len(images)} images, {len(together[1])} boxes; boxes per class and image, seen from a '
        f'box: median {np.median(n_same):.0f}, maximum {n_same.max()}; times are of all images'
    )
    ways = {
        'lists': run_ensemble_boxes(images, True),
        'arrays': run_ensemble_boxes(images, False),
    }
    for join in 'nearest', 'highest':
        ways[f'{join}, one by one'] = one_by_one(join)
        ways[f'{join}, all at once'] = at_once(join)
    results, seconds = take_turns(ways, args.rounds)
    table = Table()
    table.share('ensemble-boxes, arrays', seconds['arrays'], seconds['lists'], 'the same, lists')
    peer = min(seconds['lists'], seconds['arrays'], key=np.median)
    for join in 'nearest', 'highest':
        for how, goal in GOALS.items():
            table.faster(f'{join}, {how}', seconds[f'{join}, {how}'], peer, 'ensemble-boxes', goal)
        assert_equal(results[f'{join}, one by one'], results[f'{join}, all at once'])
    worst = compare(results['nearest, one by one'], results['lists'])
    table.require(
        f'nearest: differs by {worst:.1e}, at most {MAX_DIFFERENCE:g}', worst <= MAX_DIFFERENCE
    )
    return status(table.missed, args.check)


def assert_equal(single: list, batch: tuple) -> None:
    """Compare the results of all images one by one with those of all at once."""
    owner = batch[2] // N_CLASS
    for i, own in enumerate(single):
        chosen = owner == i
        for x, y in zip(
            own, (batch[0][chosen], batch[1][chosen], batch[2][chosen] % N_CLASS), strict=True
        ):
            np.testing.assert_array_equal(x, y)


if __name__ == '__main__':
    sys.exit(main())
