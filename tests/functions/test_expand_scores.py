import numpy as np

from pfdet.functions.expand_scores import expand_scores
from pfdet.openimages.hierarchy import challenge_hierarchy


def test_a_class_has_the_highest_score_of_its_descendants():
    hierarchy = challenge_hierarchy()
    score = np.random.default_rng(0).random((20, 500)).astype(np.float32)
    before = score.copy()
    expanded = expand_scores(score, hierarchy.descendants)
    np.testing.assert_array_equal(score, before)
    for c in range(500):
        subtree = [c] + [d for d in range(500) if hierarchy.ancestors[d, c]]
        np.testing.assert_array_equal(expanded[:, c], before[:, subtree].max(axis=1))


def test_without_a_hierarchy_nothing_changes():
    score = np.random.default_rng(0).random((3, 4))
    np.testing.assert_array_equal(expand_scores(score, np.zeros((4, 4), bool)), score)
