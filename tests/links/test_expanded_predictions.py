"""Predictions of recipes that expand scores to ancestors."""

import numpy as np
import pytest

from pfdet import recipes
from pfdet.training import build


def hierarchy():
    """Class 0 has the descendants 1 and 2, class 1 the descendant 2; 3 and 4 have none."""
    descendants = np.zeros((5, 5), bool)
    descendants[0, [1, 2]] = descendants[1, 2] = True
    return descendants


@pytest.mark.parametrize('class_agnostic', [True, False])
@pytest.mark.parametrize('score_thresh', [0.0, 0.2])
def test_a_parent_gets_the_score_and_the_box_of_its_best_descendant(class_agnostic, score_thresh):
    settings = [f'class_agnostic={class_agnostic}', 'expand_scores=True', 'head_unit=16']
    recipe = recipes.override(recipes.find('mini'), settings)
    network = build.detector(recipe, 5, descendants=hierarchy())
    rng = np.random.default_rng(0)
    # Otherwise all classes have the same score and box.
    network.head.conf.W.array[...] = rng.normal(0, 2, network.head.conf.W.shape)
    network.head.loc.W.array[...] = rng.normal(0, 0.1, network.head.loc.W.shape)
    network.head.conf.b.array[...] = 0
    plain = build.detector(recipes.override(recipe, ['expand_scores=False']), 5)
    plain.copyparams(network)
    imgs = [rng.integers(0, 256, (3, 64, 96)).astype(np.uint8)]

    ((bbox, score),) = network.predict(imgs, score_thresh)
    ((own_bbox, own_score),) = plain.predict(imgs)
    assert len(score) == len(own_score) > 10
    taken = set()
    for row in range(len(score)):
        for c in range(5):
            family = [c, *np.flatnonzero(hierarchy()[c])]
            best = max(family, key=lambda d: own_score[row, d])
            assert score[row, c] == own_score[row, best]
            if score[row, c] >= score_thresh:
                box = 0 if class_agnostic else best
                np.testing.assert_allclose(
                    bbox[row, 0 if class_agnostic else c], own_bbox[row, box], atol=1e-6
                )
                taken.add((c, int(best)))
    assert {(0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (3, 3)} <= taken
