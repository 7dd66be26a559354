"""Time of the target rules and the losses at full size, on one core.

Eight images with 512 regions each over the 500 challenge classes; a quarter of the regions are on
objects. Times the target matrix with all rules, and the forward and backward pass of every loss.
The references, timed in the same run, are the literal implementations of the tests on some of the
regions. Their time is linear in the number of regions and scaled accordingly.

    python benchmarks/losses.py
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import importlib.util
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
from timing import best_seconds

from pfdet.functions import losses
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.tables import GROUP_OF
from pfdet.targets import rules
from pfdet.targets.batch_truth import BatchTruth, collate
from pfdet.targets.sampling import RoiSample

CLASSES = challenge_classes()
HIERARCHY = challenge_hierarchy()
PAIRS = rules.CooccurrencePairs(*read_pairs(CLASSES))
TESTS = Path(__file__).resolve().parents[1] / 'tests'
LIMIT_MS = {'target matrix': 40, 'concurrent_softmax': 150}
MIN_RATIO = 20


class RandomImages:
    """Random images as annotations, as a batch, and as regions of interest."""

    def __init__(self, n_image: int, n_object: int, n_roi: int, seed: int):
        rng = np.random.default_rng(seed)
        self.images, self.regions = [], []
        frequent = [CLASSES.ids[m] for m in ('/m/01g317', '/m/03bt1vf', '/m/0k4j', '/m/0dzct')]
        for _ in range(n_image):
            label = rng.integers(len(CLASSES), size=n_object)
            label[::2] = rng.choice(frequent, len(label[::2]))
            corner = rng.integers(0, 600, (n_object, 2))
            bbox = np.concatenate([corner, corner + rng.integers(40, 400, (n_object, 2))], axis=1)
            flags = np.where(rng.random(n_object) < 0.06, GROUP_OF, 0).astype(np.uint8)
            verified = rng.integers(len(CLASSES), size=5)
            self.images.append((bbox, label, flags, verified))
            matched = rng.integers(n_object, size=n_roi)
            near = bbox[matched] + rng.integers(-9, 9, (n_roi, 4))
            corner = rng.integers(0, 800, (n_roi, 2))
            far = np.concatenate([corner, corner + rng.integers(10, 200, (n_roi, 2))], axis=1)
            foreground = np.arange(n_roi) < n_roi // 4
            self.regions.append((np.where(foreground[:, None], near, far), matched, foreground))

    def truth(self) -> BatchTruth:
        one_hot = np.eye(len(CLASSES), dtype=bool)
        none = np.zeros(len(CLASSES), bool)
        columns = [
            (
                bbox.astype(np.float32),
                one_hot[label],
                flags,
                one_hot[label].any(axis=0),
                none | one_hot[verified].any(axis=0),
            )
            for bbox, label, flags, verified in self.images
        ]
        return collate(*zip(*columns, strict=True), HIERARCHY)

    def sample(self) -> RoiSample:
        bbox, matched, foreground = (np.stack(a) for a in zip(*self.regions, strict=True))
        return RoiSample(bbox.astype(np.float32), matched, foreground, np.ones_like(foreground))

    def literal_rows(self, literal: Callable, n_roi: int) -> tuple[np.ndarray, float]:
        """Targets of some regions by the literal implementation, and its time for all of them."""
        names = CLASSES.names
        pairs = [(names[s], names[p]) for s, p in zip(*PAIRS, strict=True)]
        rows, seconds = [], 0.0
        for (bbox, label, flags, verified), region in zip(self.images, self.regions, strict=True):
            objects = [
                (b, [names[k]], int(f)) for b, k, f in zip(bbox.tolist(), label, flags, strict=True)
            ]
            positive, negative = ([names[k] for k in a] for a in (label, verified))
            step = len(region[0]) // n_roi
            for b, m, f in zip(
                region[0].tolist()[::step], region[1][::step], region[2][::step], strict=True
            ):
                start = time.perf_counter()
                t = literal((b, int(m), bool(f)), objects, positive, negative, pairs)
                seconds += time.perf_counter() - start
                rows.append([t[n] for n in names])
        return np.array(rows, np.int8), seconds * step


def target_matrix(sample: RoiSample, truth: BatchTruth) -> np.ndarray:
    """The target matrix after all rules of PFDet."""
    t = rules.positives(sample, truth)
    t = rules.ignore_descendants(t, sample, truth, HIERARCHY.descendants)
    t = rules.ignore_group_of(t, sample, truth, descendants=HIERARCHY.descendants)
    return rules.ignore_cooccurring(t, sample, truth, PAIRS)


def forward_backward(loss: Callable, x: np.ndarray, t: np.ndarray) -> float:
    x = chainer.Variable(x)
    y = loss(x, t)
    y.backward()
    return float(y.array)


def load_test(name: str):
    """Load a test module, for its literal implementation."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, TESTS / name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def report(name: str, ms: float, slow_ms: float | None = None) -> bool:
    line = f'{name:22}{ms:8.1f} ms'
    met = True
    if name in LIMIT_MS:
        met = ms <= LIMIT_MS[name]
        line += f'  (limit {LIMIT_MS[name]})'
    if slow_ms is not None:
        met &= slow_ms >= MIN_RATIO * ms
        line += f'  literal {slow_ms:9.0f} ms, {slow_ms / ms:.0f} times as long'
    print(line + ('' if met else '  MISSED'), flush=True)
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description='Time of the target rules and the losses.')
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--regions', type=int, default=512, help='per image')
    parser.add_argument(
        '--objects', type=int, default=8, help='per image; the average of Open Images is 7.3'
    )
    parser.add_argument('--repeat', type=int, default=10)
    args = parser.parse_args()

    images = RandomImages(args.images, args.objects, args.regions, 0)
    truth, sample = images.truth(), images.sample()
    good = True
    _, seconds = best_seconds(images.truth, args.repeat)
    report('collate', 1e3 * seconds)
    t, seconds = best_seconds(partial(target_matrix, sample, truth), args.repeat)
    n_slow = min(32, args.regions)
    rows, slow = images.literal_rows(load_test('targets/test_rules.py').literal, n_slow)
    if not np.array_equal(t[:, :: args.regions // n_slow].reshape(rows.shape), rows):
        raise SystemExit('the literal implementation gives a different target matrix')
    good &= report('target matrix', 1e3 * seconds, 1e3 * slow)

    t = t.reshape(-1, t.shape[2])
    n_label = (t > 0).sum(axis=1)
    print(
        f'{len(t)} regions, {(n_label > 0).mean():.0%} with labels, '
        f'{n_label[n_label > 0].mean():.1f} labels each'
    )
    rng = np.random.default_rng(0)
    C = len(CLASSES)
    rates = np.where(rng.random((C, C)) < 0.02, rng.random((C, C)), 0).astype(np.float32)
    np.maximum(rates, HIERARCHY.ancestors | HIERARCHY.descendants, out=rates)
    np.fill_diagonal(rates, 0)
    literal = load_test('functions/test_losses.py').LITERAL
    for name, form in losses.LOSSES.items():
        x = rng.normal(size=(len(t), C + form.background)).astype(np.float32)
        loss = losses.loss_function(name, rates, normalize='roi')
        _, seconds = best_seconds(partial(forward_backward, loss, x, t), args.repeat)
        step = max(1, len(t) // 128)
        part = x[::step], t[::step]
        start = time.perf_counter()
        plain = literal[name](*(a.tolist() for a in part), rates.tolist())
        slow = (time.perf_counter() - start) * len(t) / len(part[0])
        np.testing.assert_allclose(forward_backward(loss, *part) * len(part[0]), plain, rtol=1e-5)
        good &= report(name, 1e3 * seconds, 1e3 * slow)
    for name, form in losses.SCORES.items():
        x = rng.normal(size=(1000, C + form.background)).astype(np.float32)
        _, seconds = best_seconds(partial(losses.score_function(name, rates), x), args.repeat)
        report(f'{name} score', 1e3 * seconds)
    if not good:
        raise SystemExit(1)


if __name__ == '__main__':
    main()
