"""Random choices of target rules depend on the positions of the images, not on the batch."""

from functools import partial

import numpy as np

from pfdet import recipes
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.targets import rules
from pfdet.training import build
from pfdet.training.transforms import Converter, TrainLoader


def test_target_rules_get_the_positions_of_the_images(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.find('mini')
    network = build.detector(recipe, len(index.classes))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0)
    load = TrainLoader(OpenImagesDataset(index), (96, 96), 256, False, 0)
    batch = Converter(index.hierarchy)([load(i, 10 + 7 * i, 0) for i in range(4)])
    seen = []

    def keep_one(t, sample, truth):
        # All classes of all regions are positive and have the same priority.
        every = sample._replace(
            foreground=np.ones_like(sample.used), used=np.ones_like(sample.used)
        )
        choose = partial(rules.keep_one_label, priority=np.zeros(t.shape[2]), seed=4)
        kept = choose(np.ones_like(t), every, truth)
        seen.append((list(sample.positions), kept.argmax(axis=2)))
        return t

    chain.target_rules = (keep_one,)
    chain(batch)
    (positions, whole), *_ = seen
    assert positions == [10, 17, 24, 31]
    assert len({tuple(kept) for kept in whole.tolist()}) == 4
    for n, part in enumerate(batch.parts(4)):
        chain(part)
        assert seen[-1][0] == positions[n : n + 1]
        np.testing.assert_array_equal(seen[-1][1], whole[n : n + 1])
