import numpy as np

from pfdet.functions.expand_scores import expand_scores, highest_in_family
from pfdet.openimages.hierarchy import challenge_hierarchy


def test_a_class_has_the_highest_score_of_its_descendants():
    hierarchy = challenge_hierarchy()
    score = np.random.default_rng(0).random((20, 500)).astype(np.float32)
    before = score.copy()
    expanded = expand_scores(score, hierarchy.descendants)
    highest = highest_in_family(score, hierarchy.descendants)
    np.testing.assert_array_equal(score, before)
    for c in range(500):
        subtree = [c] + [d for d in range(500) if hierarchy.ancestors[d, c]]
        np.testing.assert_array_equal(expanded[:, c], before[:, subtree].max(axis=1))
        for row in range(20):
            assert highest[row, c] == max(subtree, key=lambda d: before[row, d])


def test_of_equal_scores_a_class_keeps_its_own():
    descendants = np.zeros((4, 4), bool)
    descendants[2, [0, 3]] = True
    score = np.array([[0.5, 0.9, 0.5, 0.5], [0.6, 0.9, 0.5, 0.6]])
    assert highest_in_family(score, descendants).tolist() == [[0, 1, 2, 3], [0, 1, 0, 3]]


def test_without_a_hierarchy_nothing_changes():
    score = np.random.default_rng(0).random((3, 4))
    np.testing.assert_array_equal(expand_scores(score, np.zeros((4, 4), bool)), score)
    assert highest_in_family(score, np.zeros((4, 4), bool)).tolist() == [[0, 1, 2, 3]] * 3
