"""The label rules on CuPy arrays equal those on NumPy arrays."""

import itertools

import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.cooccurrence import read_pairs
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.tables import GROUP_OF
from pfdet.targets import rules
from pfdet.targets.batch_truth import collate
from pfdet.targets.sampling import RoiSample

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def random_boxes(rng, n):
    corner = rng.uniform(0, 60, (n, 2))
    return np.concatenate([corner, corner + rng.uniform(5, 60, (n, 2))], axis=1).astype(np.float32)


def test_rules_on_the_gpu():
    rng = np.random.default_rng(0)
    hierarchy = challenge_hierarchy()
    pairs = rules.CooccurrencePairs(*read_pairs(challenge_classes()))
    counts = [3, 0, 6, 1]
    C = hierarchy.n_class
    truth = collate(
        [random_boxes(rng, n) for n in counts],
        [rng.random((n, C)) < 0.01 for n in counts],
        [rng.choice([0, GROUP_OF], n).astype(np.uint8) for n in counts],
        [rng.random(C) < 0.05 for _ in counts],
        [rng.random(C) < 0.05 for _ in counts],
        hierarchy,
    )
    shape = len(counts), 64
    sample = RoiSample(
        random_boxes(rng, 4 * 64).reshape(*shape, 4),
        rng.integers(0, 6, shape),
        rng.random(shape) < 0.3,
        rng.random(shape) < 0.9,
    )

    def all_rules(sample, truth):
        sample = sample._replace(positions=range(len(counts)))
        below = hierarchy.descendants
        t = [rules.positives(sample, truth)]
        t.append(rules.ignore_group_of(t[0], sample, truth))
        for also_absent in True, False:
            t.append(rules.ignore_descendants(t[0], sample, truth, below, also_absent))
            t.append(
                rules.ignore_group_of(
                    t[-1], sample, truth, descendants=below, also_absent=also_absent
                )
            )
        t.append(rules.ignore_cooccurring(t[-1], sample, truth, pairs))
        t.append(rules.keep_one_label(t[-1], sample, truth, hierarchy.depth))
        t.append(rules.keep_one_label(t[-2], sample, truth, hierarchy.depth, seed=3))
        return t

    on_gpu = all_rules(*(type(a)(*map(cuda.to_gpu, a)) for a in (sample, truth)))
    on_cpu = all_rules(sample, truth)
    assert all((a != b).any() for a, b in itertools.pairwise(on_cpu))
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert ours.dtype == np.int8
        np.testing.assert_array_equal(cuda.to_cpu(ours), theirs)
