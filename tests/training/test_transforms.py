"""Tests of loading, augmenting and batching training images."""

import numpy as np
import pytest

from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.images import resize
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.transforms import Converter, TrainLoader


@pytest.fixture
def dataset(small_world):
    return OpenImagesDataset(AnnotationIndex.open(small_world / 'train.index'))


def test_resize_by_the_shorter_edge_with_a_limit():
    img = np.zeros((100, 200, 3), np.uint8)
    assert resize(img, 50, 1000).shape == (50, 100, 3)
    assert resize(img, 50, 80).shape == (40, 80, 3)
    assert resize(img, 150, 1000).shape == (150, 300, 3)


def test_boxes_are_transformed_with_the_image(dataset):
    """Flipping and resizing apply to pixels and boxes alike."""
    plain = TrainLoader(dataset, (100, 100), 1000, False, 0)
    flipping = TrainLoader(dataset, (100, 100), 1000, True, 0)
    n_flipped = 0
    for i in range(len(dataset)):
        a, b = plain(i, i, 0), flipping(i, i, 0)
        H, W = a.img.shape[1:]
        assert min(H, W) == 100
        np.testing.assert_allclose(
            a.bbox, dataset.index.annotation(i).bbox * [H, W, H, W], rtol=1e-5
        )
        if (a.img == b.img).all():
            np.testing.assert_array_equal(a.bbox, b.bbox)
            continue
        n_flipped += 1
        np.testing.assert_array_equal(a.img, b.img[:, :, ::-1])
        np.testing.assert_allclose(a.bbox[:, 1], W - b.bbox[:, 3], atol=1e-3)
        np.testing.assert_allclose(a.bbox[:, 3], W - b.bbox[:, 1], atol=1e-3)
        np.testing.assert_array_equal(a.bbox[:, [0, 2]], b.bbox[:, [0, 2]])
    assert 4 < n_flipped < 20


def test_one_size_per_iteration_within_the_range(dataset):
    load = TrainLoader(dataset, (60, 90), 1000, False, 0)
    sizes = [
        {min(load(i, p, iteration).img.shape[1:]) for i, p in ((0, 5), (1, 6))}
        for iteration in range(12)
    ]
    assert all(len(s) == 1 for s in sizes)
    sizes = {s.pop() for s in sizes}
    assert len(sizes) > 4 and min(sizes) >= 60 and max(sizes) <= 90


def test_batch_has_all_objects(dataset):
    load = TrainLoader(dataset, (64, 64), 1000, False, 0)
    samples = [load(i, i + 100, 0) for i in range(4)]
    batch = Converter(dataset.index.hierarchy)(samples)
    assert batch.positions == [100, 101, 102, 103]
    assert batch.size == tuple(np.max([s.img.shape[1:] for s in samples], axis=0))
    closure = dataset.index.hierarchy.closure
    for n, sample in enumerate(samples):
        truth = batch.truth
        np.testing.assert_array_equal(truth.bbox[n][truth.valid[n]], sample.bbox)
        np.testing.assert_array_equal(truth.label[n][truth.valid[n]], sample.label)
        for own, expanded in zip(sample.label, truth.expanded[n], strict=False):
            assert set(np.flatnonzero(expanded)) == {
                int(j) for i in np.flatnonzero(own) for j in np.flatnonzero(closure[i])
            }
        for c in range(len(dataset.index.classes)):
            up = any(closure[i, c] for i in np.flatnonzero(sample.positive))
            down = any(closure[c, j] for j in np.flatnonzero(sample.negative))
            assert truth.verified[n, c] == (up or down)
