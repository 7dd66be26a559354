import numpy as np
import pytest

from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy
from pfdet.openimages.tables import GROUP_OF, OCCLUDED
from pfdet.targets.batch_truth import collate, join_labels, only_objects_of, related


def test_related_is_the_boolean_product():
    rng = np.random.default_rng(0)
    relation = challenge_hierarchy().closure
    label = rng.random((3, 5, 500)) < 0.01
    np.testing.assert_array_equal(related(label, relation), label @ relation)
    np.testing.assert_array_equal(related(label, relation.T[:, :7]), label @ relation.T[:, :7])
    assert not related(np.zeros((2, 500), bool), relation).any()
    assert related(np.zeros((0, 500), bool), relation).shape == (0, 500)


def test_collate():
    ancestors = np.zeros((4, 4), bool)
    ancestors[1, 0] = ancestors[2, 0] = True
    one = np.eye(4, dtype=bool)
    truth = collate(
        [np.array([[1, 2, 3, 4], [5, 6, 7, 8]]), np.zeros((0, 4))],
        [one[[1, 3]] | one[[1, 2]], np.zeros((0, 4), bool)],
        [np.array([GROUP_OF | OCCLUDED, OCCLUDED], np.uint8), np.zeros(0, np.uint8)],
        [one[1], one[3]],
        [one[3], one[0]],
        Hierarchy(ancestors),
    )
    assert truth.bbox.tolist() == [[[1, 2, 3, 4], [5, 6, 7, 8]], [[0] * 4] * 2]
    assert truth.valid.tolist() == [[True, True], [False, False]]
    assert truth.group_of.tolist() == [[True, False], [False, False]]
    np.testing.assert_array_equal(truth.label[0], [[0, 1, 0, 0], [0, 0, 1, 1]])
    np.testing.assert_array_equal(truth.expanded[0], [[1, 1, 0, 0], [1, 0, 1, 1]])
    assert not truth.label[1].any() and not truth.expanded[1].any()
    # A class verified as present verifies its ancestors, one verified as absent its descendants.
    np.testing.assert_array_equal(truth.verified, [[1, 1, 0, 1], [1, 1, 1, 1]])
    np.testing.assert_array_equal(truth.absent, [[0, 0, 0, 1], [1, 1, 1, 0]])


def test_join_labels():
    one = np.eye(6, dtype=bool)
    # Boxes 0 to 2 are a chain whose ends overlap too little, 3 is a separate object, and 4 is a
    # group-of box at the position of 0.
    bbox = np.array(
        [[0, 0, 100, 100], [0, 4, 100, 104], [0, 8, 100, 108], [0, 50, 100, 150], [0, 0, 100, 100]],
        np.float32,
    )
    group_of = np.array([False, False, False, False, True])
    joined = join_labels(bbox, one[:5], group_of, 0.9)
    np.testing.assert_array_equal(
        joined,
        [
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [1, 1, 1, 0, 0, 0],
            [0, 0, 0, 1, 0, 0],
            [0, 0, 0, 0, 1, 0],
        ],
    )
    np.testing.assert_array_equal(join_labels(bbox, one[:5], group_of, 0.95), one[:5])
    np.testing.assert_array_equal(join_labels(bbox[:0], one[:0], group_of[:0], 0.9), one[:0])

    hierarchy = Hierarchy(np.zeros((6, 6), bool))
    flags = np.where(group_of, GROUP_OF, 0).astype(np.uint8)
    none = [np.zeros(6, bool)]
    truth = collate([bbox], [one[:5]], [flags], none, none, hierarchy, join_iou=0.9)
    np.testing.assert_array_equal(truth.label[0], joined)
    np.testing.assert_array_equal(truth.expanded[0], joined)
    truth = collate([bbox], [one[:5]], [flags], none, none, hierarchy)
    np.testing.assert_array_equal(truth.label[0], one[:5])
    with pytest.raises(ValueError, match='join_iou'):
        collate([bbox], [one[:5]], [flags], none, none, hierarchy, join_iou=0)


def test_only_objects_of_some_classes():
    ancestors = np.zeros((4, 4), bool)
    ancestors[1, 0] = True
    one = np.eye(4, dtype=bool)
    truth = collate(
        [np.arange(12).reshape(3, 4) + 1],
        [one[[1, 2, 3]]],
        [np.array([0, GROUP_OF, GROUP_OF], np.uint8)],
        [one[1]],
        [one[3]],
        Hierarchy(ancestors),
    )
    subset = only_objects_of(truth, np.array([3, 0]))
    assert subset.valid.tolist() == [[True, False, True]]
    assert subset.group_of.tolist() == [[False, False, True]]
    np.testing.assert_array_equal(subset.bbox[0, [0, 2]], truth.bbox[0, [0, 2]])
    np.testing.assert_array_equal(subset.expanded[0], [[1, 1, 0, 0], [0] * 4, [0, 0, 0, 1]])
    np.testing.assert_array_equal(subset.label[0], [[0, 1, 0, 0], [0] * 4, [0, 0, 0, 1]])
    np.testing.assert_array_equal(subset.verified, truth.verified)
    np.testing.assert_array_equal(subset.absent, truth.absent)
