import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import build
from pfdet.targets.sampling import AnchorTargets
from pfdet.training.loading import Converter, TrainLoader
from pfdet.training.train_chain import rpn_loss


def test_rpn_loss_is_its_equation():
    rng = np.random.default_rng(0)
    locs, confs = rng.normal(size=(2, 6, 4)), rng.normal(size=(2, 6))
    sampled = AnchorTargets(
        np.array([0, 0, 0, 1]), np.array([1, 4, 5, 2]), np.array([True, False, False, True]),
        rng.normal(size=(4, 4)), np.array([1 / 3, 1 / 3, 1 / 3, 1]))
    loc_loss, conf_loss = rpn_loss(chainer.Variable(locs), chainer.Variable(confs), sampled)

    def cross_entropy(n, a, t):
        p = 1 / (1 + np.exp(-confs[n, a]))
        return -np.log(p if t else 1 - p)

    def smooth(d, beta=1 / 9):
        return sum(v * v / 2 / beta if v < beta else v - beta / 2 for v in abs(d))

    expected = ((cross_entropy(0, 1, 1) + cross_entropy(0, 4, 0) + cross_entropy(0, 5, 0)) / 3
                + cross_entropy(1, 2, 1)) / 2
    assert float(conf_loss.array) == pytest.approx(expected)
    expected = (smooth(locs[0, 1] - sampled.offset[0]) / 3
                + smooth(locs[1, 2] - sampled.offset[3])) / 2
    assert float(loc_loss.array) == pytest.approx(expected)


def test_learns_four_images_by_heart(small_world):
    """The loss of a fixed batch falls to a fraction: targets, gradients and update agree."""
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.find('mini')
    network = build.detector(recipe, len(index.classes))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0)
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 256, False, 0)
    batch = Converter(index.hierarchy)([load(i, i, 0) for i in range(4)])
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.02).setup(chain)
    first = chain(batch).array
    for _ in range(40):
        optimizer.update(chain, batch)
    assert chain(batch).array < first / 3
