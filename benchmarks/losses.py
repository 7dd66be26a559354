"""Cost of the target rules and the losses at full size, on one core.

    python benchmarks/losses.py [--check]

Eight images with 512 regions each over the 500 challenge classes; a quarter of the regions are on
objects. The references take turns with:

- the target matrix with all rules: the literal implementation of the tests;
- forward and backward pass of every loss: Chainer's own cross entropy of the same kind
  (`sigmoid_cross_entropy`, or `softmax_cross_entropy` with one label per region) on an array of the
  same size; and the literal implementation of the tests.

The literal implementations process some of the regions. Their time is linear in the number of
regions and scaled accordingly. Their results must agree. timing.py says what counts.
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import importlib.util
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import chainer.functions as F
import numpy as np
from timing import Table, add_check, status, take_turns

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
# At least so many times as fast as the literal implementations
MATRIX_GOAL, LITERAL_GOAL = 250, 10
# At most so many times the cost of Chainer's cross entropy. Chainer's softmax has one label per
# region; concurrent softmax has a denominator for each label.
CHAINER_GOALS = {
    'sigmoid': 1,
    'focal': 1.5,
    'softmax': 2,
    'multi_label_softmax': 2,
    'dist_ce': 2,
    'concurrent_softmax': 3.5,
}


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

    def literal_rows(self, literal: Callable, n_roi: int) -> np.ndarray:
        """Targets of ``n_roi`` regions of each image by the literal implementation."""
        names = CLASSES.names
        pairs = [(names[s], names[p]) for s, p in zip(*PAIRS, strict=True)]
        rows = []
        for (bbox, label, flags, verified), region in zip(self.images, self.regions, strict=True):
            objects = [
                (b, [names[k]], int(f)) for b, k, f in zip(bbox.tolist(), label, flags, strict=True)
            ]
            positive, negative = ([names[k] for k in a] for a in (label, verified))
            step = len(region[0]) // n_roi
            for b, m, f in zip(
                region[0].tolist()[::step], region[1][::step], region[2][::step], strict=True
            ):
                t = literal((b, int(m), bool(f)), objects, positive, negative, pairs)
                rows.append([t[n] for n in names])
        return np.array(rows, np.int8)


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


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=8)
    parser.add_argument('--regions', type=int, default=512, help='per image')
    parser.add_argument(
        '--objects', type=int, default=8, help='per image; the average of Open Images is 7.3'
    )
    parser.add_argument('--rounds', type=int, default=9, help='default: %(default)s')
    add_check(parser)
    args = parser.parse_args()

    images = RandomImages(args.images, args.objects, args.regions, 0)
    truth, sample = images.truth(), images.sample()
    # Keeps freed memory in the process, see postprocessing.py.
    np.zeros(1 << 21)
    table = Table()
    n_slow = min(32, args.regions)
    results, seconds = take_turns(
        {
            'collate': images.truth,
            'matrix': partial(target_matrix, sample, truth),
            'literal': partial(
                images.literal_rows, load_test('targets/test_rules.py').literal, n_slow
            ),
        },
        args.rounds,
    )
    t, rows = results['matrix'], results['literal']
    part = t[:, :: args.regions // n_slow].reshape(rows.shape)
    slow = np.array(seconds['literal']) * (args.regions // n_slow)
    table.share('collate', seconds['collate'], seconds['matrix'], 'target matrix')
    table.faster('target matrix', seconds['matrix'], slow, 'literal', MATRIX_GOAL)
    table.require('target matrix equals the literal one', np.array_equal(part, rows))

    t = t.reshape(-1, t.shape[2])
    n_label = (t > 0).sum(axis=1)
    print(
        f'{len(t)} regions, {(n_label > 0).mean():.0%} with labels, '
        f'{n_label[n_label > 0].mean():.1f} labels each'
    )
    compare_losses(table, t, args.rounds)
    return status(table.missed, args.check)


def compare_losses(table: Table, t: np.ndarray, rounds: int) -> None:
    """Print the ratios of all losses and scores for a target matrix."""
    rng = np.random.default_rng(0)
    C = len(CLASSES)
    rates = np.where(rng.random((C, C)) < 0.02, rng.random((C, C)), 0).astype(np.float32)
    np.maximum(rates, HIERARCHY.ancestors | HIERARCHY.descendants, out=rates)
    np.fill_diagonal(rates, 0)
    literal = load_test('functions/test_losses.py').LITERAL
    step = max(1, len(t) // 128)
    # Targets of Chainer's losses: the same matrix, and one label of each region.
    one = np.where((t > 0).any(axis=1), (t > 0).argmax(axis=1), C).astype(np.int32)
    chainer_losses = {
        False: ('sigmoid CE', F.sigmoid_cross_entropy, t.astype(np.int32)),
        True: ('softmax CE', F.softmax_cross_entropy, one),
    }
    for name, form in losses.LOSSES.items():
        x = rng.normal(size=(len(t), C + form.background)).astype(np.float32)
        loss = losses.loss_function(name, rates, normalize='roi')
        part = x[::step], t[::step]
        what, chainer_loss, target = chainer_losses[form.background]
        results, seconds = take_turns(
            {
                'pfdet': partial(forward_backward, loss, x, t),
                'chainer': partial(forward_backward, chainer_loss, x, target),
                'literal': partial(literal[name], *(a.tolist() for a in part), rates.tolist()),
            },
            rounds,
        )
        np.testing.assert_allclose(
            forward_backward(loss, *part) * len(part[0]), results['literal'], rtol=1e-5
        )
        slow = np.array(seconds['literal']) * len(t) / len(part[0])
        table.share(
            name, seconds['pfdet'], seconds['chainer'], f"Chainer's {what}", CHAINER_GOALS[name]
        )
        table.faster('', seconds['pfdet'], slow, 'literal', LITERAL_GOAL)
    for name, form in losses.SCORES.items():
        x = rng.normal(size=(1000, C + form.background)).astype(np.float32)
        function = F.softmax if form.background else F.sigmoid
        _, seconds = take_turns(
            {
                'pfdet': partial(losses.score_function(name, rates), x),
                'chainer': lambda f=function, x=x: f(x).array,
            },
            rounds,
        )
        table.share(f'{name} score', seconds['pfdet'], seconds['chainer'], "Chainer's")


if __name__ == '__main__':
    sys.exit(main())
