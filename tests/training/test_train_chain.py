"""Tests of the training loss."""

from pathlib import Path

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.targets.sampling import AnchorTargets
from pfdet.training import build
from pfdet.training.detector_weights import head_of_classes
from pfdet.training.train_chain import rpn_loss
from pfdet.training.transforms import Converter, TrainLoader


def test_rpn_loss_follows_its_equation():
    rng = np.random.default_rng(0)
    locs, confs = rng.normal(size=(2, 6, 4)), rng.normal(size=(2, 6))
    sampled = AnchorTargets(
        np.array([0, 0, 0, 1]),
        np.array([1, 4, 5, 2]),
        np.array([True, False, False, True]),
        rng.normal(size=(4, 4)),
        np.array([1 / 3, 1 / 3, 1 / 3, 1]),
    )
    loc_loss, conf_loss = rpn_loss(chainer.Variable(locs), chainer.Variable(confs), sampled)

    def cross_entropy(n, a, t):
        p = 1 / (1 + np.exp(-confs[n, a]))
        return -np.log(p if t else 1 - p)

    def smooth(d, beta=1 / 9):
        return sum(v * v / 2 / beta if v < beta else v - beta / 2 for v in abs(d))

    expected = (
        (cross_entropy(0, 1, 1) + cross_entropy(0, 4, 0) + cross_entropy(0, 5, 0)) / 3
        + cross_entropy(1, 2, 1)
    ) / 2
    assert float(conf_loss.array) == pytest.approx(expected)
    expected = (
        smooth(locs[0, 1] - sampled.offset[0]) / 3 + smooth(locs[1, 2] - sampled.offset[3])
    ) / 2
    assert float(loc_loss.array) == pytest.approx(expected)


def test_overfits_four_images(small_world):
    """The loss of a fixed batch decreases: targets, gradients and updates are consistent."""
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(recipes.find('mini'), ['n_roi=48', 'train_proposals=(100, 100)'])
    network = build.detector(recipe, len(index.classes))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0)
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 256, False, 0)
    batch = Converter(index.hierarchy)([load(i, i, 0) for i in range(4)])
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.02).setup(chain)
    first = chain(batch).array
    for _ in range(40):
        optimizer.update(chain, batch)
    assert chain(batch).array < first / 3


@pytest.mark.parametrize('loss', ['sigmoid', 'softmax'])
def test_gradients_of_a_head_of_some_classes_equal_the_full_head_with_the_others_ignored(
    small_world, loss
):
    index = AnnotationIndex.open(small_world / 'train.index')
    n_class = len(index.classes)
    pick = np.flatnonzero(np.bincount(index.columns['label'], minlength=n_class))[[4, 1, 7]]
    recipe = recipes.override(recipes.find('mini'), [f'loss={loss}'])
    full, small = build.detector(recipe, n_class), build.detector(recipe, len(pick))
    weights = {name.lstrip('/'): p.array for name, p in full.namedparams()}
    own = {name.lstrip('/'): p.array for name, p in small.namedparams()}
    weights.update(head_of_classes(weights, pick, n_class, own, Path('model.npz')))
    for name, array in own.items():
        array[...] = weights[name]
    whole = build.train_chain(recipe, full, index.classes, index.hierarchy, 0)

    def ignore_others(t, sample, truth):
        ignored = np.full_like(t, -1)
        ignored[:, :, pick] = t[:, :, pick]
        return ignored

    whole.target_rules += (ignore_others,)
    part = build.train_chain(recipe, small, index.classes, index.hierarchy, 0)
    part.pick = pick
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 256, False, 0)
    batch = Converter(index.hierarchy)([load(i, i, 0) for i in range(4)])
    for chain in whole, part:
        chain.cleargrads()
        chain(batch).backward()
    gradients = {name: p.grad for name, p in small.namedparams()}
    for name, p in full.namedparams():
        expected = p.grad
        if name in ('/head/conf/W', '/head/conf/b'):
            rest = np.setdiff1d(np.arange(n_class), pick)
            assert not expected[rest].any() and expected[pick].any()
            expected = np.delete(expected, rest, axis=0)[
                [*np.argsort(np.argsort(pick)), *range(len(pick), len(gradients[name]))]
            ]
        np.testing.assert_allclose(gradients[name], expected, atol=1e-5)
