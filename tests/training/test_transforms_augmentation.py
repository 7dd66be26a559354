"""Augmented training samples: pixels, boxes and labels agree, and depend on the position alone."""

import types

import pfdet.compat  # noqa: F401

import cv2
import numpy as np
import pytest

from pfdet import recipes
from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator
from pfdet.openimages import dataset as dataset_module
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.images import read_reduced, resize_to
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import train
from pfdet.training.augmentation import FILL, Augmentation
from pfdet.training.dry_run.synthetic_index import ImagesOrNoise
from pfdet.training.run_options import RunOptions
from pfdet.training.transforms import TrainLoader

# Classes 0 to 3; 1 and 2 are children of 0.
ANCESTORS = [(1, 0), (2, 0)]
MIDS = tuple(f'/m/{k}' for k in range(4))
# Far apart, so that every object has pixels of its own color.
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 255, 255]])


def write_index(directory, images, suffix='.png'):
    """An index of painted images.

    Args:
        images (list): Per image the size ``(H, W)``, the boxes in pixels, the labels of each box,
            and the classes verified as present and as absent.
    """
    directory.mkdir()
    for n, (size, boxes, *_) in enumerate(images):
        img = np.zeros((*size, 3), np.uint8)
        for k, (y_min, x_min, y_max, x_max) in enumerate(boxes):
            img[y_min:y_max, x_min:x_max] = COLORS[k]
        cv2.imwrite(str(directory / f'{n}{suffix}'), img[:, :, ::-1])

    def offsets(counts):
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)

    def flat(values, dtype):
        return np.array([v for group in values for v in group], dtype)

    labels = [label for image in images for label in image[2]]
    scaled = [np.array(box) / (size * 2) for size, boxes, *_ in images for box in boxes]
    columns = {
        'id_offsets': offsets([1] * len(images)),
        'id_bytes': np.frombuffer(b''.join(b'%d' % n for n in range(len(images))), np.uint8),
        'image_size': np.array([size for size, *_ in images], np.int32),
        'image_suffix': np.zeros(len(images), np.uint8),
        'object_offsets': offsets([len(boxes) for _, boxes, *_ in images]),
        'bbox': np.array(scaled, np.float32).reshape(-1, 4),
        # The number of the object in its image.
        'flags': np.array([k for _, boxes, *_ in images for k in range(len(boxes))], np.uint8),
        'label_offsets': offsets([len(label) for label in labels]),
        'label': flat(labels, np.int16),
        'positive_offsets': offsets([len(positive) for *_, positive, _ in images]),
        'positive': flat([positive for *_, positive, _ in images], np.int16),
        'negative_offsets': offsets([len(negative) for *_, negative in images]),
        'negative': flat([negative for *_, negative in images], np.int16),
    }
    return AnnotationIndex(directory.parent / 'a.index', directory, columns, header(suffix))


def header(suffix):
    return {
        'mids': MIDS,
        'names': MIDS,
        'suffixes': [suffix],
        'counts': {},
        'ancestors': np.array(ANCESTORS),
    }


BOXES = [(20, 30, 90, 110), (10, 300, 170, 380), (150, 40, 230, 250), (190, 290, 228, 395)]
IMAGES = [
    ((240, 400), BOXES, [[0], [1], [2], [1, 3]], [0, 1, 2, 3], []),
    ((400, 240), [tuple(box[k] for k in (1, 0, 3, 2)) for box in BOXES], [[1]] * 4, [1], [2, 3]),
    ((130, 130), [(0, 0, 130, 130)], [[3]], [2, 3], [0]),
    ((64, 90), [], [], [], [1]),
]


@pytest.fixture(scope='module')
def painted(tmp_path_factory):
    return OpenImagesDataset(write_index(tmp_path_factory.mktemp('painted') / 'images', IMAGES))


def painted_box(img, color):
    """The box around the pixels of a color, and whether there are any."""
    near = (abs(img.transpose(1, 2, 0).astype(int) - color) < 100).all(axis=2)
    rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
    if len(rows) == 0:
        return None
    return np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1], float)


AUGMENTATIONS = {
    'crop': Augmentation(crop=0.3),
    'large crops': Augmentation(crop=0.9, min_visibility=0.5),
    'rotation': Augmentation(rotation=20),
    'any rotation': Augmentation(rotation=180),
    'both': Augmentation(crop=0.4, rotation=30, min_visibility=0.3),
}


@pytest.mark.parametrize('flip', [False, True])
@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_boxes_surround_the_painted_pixels(painted, name, flip):
    augmentation = AUGMENTATIONS[name]
    load = TrainLoader(painted, (150, 220), 600, flip, 3, augmentation)
    n_kept = n_dropped = n_clipped = 0
    for position in range(24):
        i = position % 2
        sample = load(i, position, position)
        H, W = sample.img.shape[1:]
        annotation = painted.index.annotation(i)
        assert sample.bbox.dtype == np.float32
        assert (sample.bbox >= 0).all() and (sample.bbox <= [H, W, H, W]).all()
        assert (sample.bbox[:, 2:] > sample.bbox[:, :2]).all()
        assert len(sample.bbox) == len(sample.label) == len(sample.flags)
        np.testing.assert_array_equal(sample.label, annotation.label[sample.flags])
        boxes = dict(zip(sample.flags.tolist(), sample.bbox, strict=True))
        for k in range(4):
            found = painted_box(sample.img, COLORS[k])
            if k in boxes:
                # Resizing and rotating blend the outermost pixels with the background. A corner of
                # a rotated box is thin.
                thin = 1.5 if augmentation.rotation == 0 else 4
                np.testing.assert_allclose(boxes[k], found, atol=thin)
                n_kept += 1
                n_clipped += bool((abs(found - [0, 0, H, W]) < 1).any())
            else:
                # Only a part of less than the share can be left.
                n_dropped += 1
                assert augmentation.crop < 1
                if found is not None:
                    scale = max(H, W) / 150
                    area = 105 * 160 * augmentation.min_visibility * scale**2
                    pixels = (abs(sample.img.transpose(1, 2, 0) - COLORS[k]) < 100).all(axis=2)
                    assert pixels.sum() < area
        assert len(boxes) >= 1
    assert n_kept > 50
    if name in ('crop', 'both'):
        assert n_dropped > 5 and n_clipped > 5
    if augmentation.crop == 1:
        assert n_dropped == 0


@pytest.mark.parametrize('name', AUGMENTATIONS)
def test_all_images_of_an_iteration_have_the_same_edge(painted, name):
    load = TrainLoader(painted, (100, 200), 2000, True, 0, AUGMENTATIONS[name])
    edges = set()
    for iteration in range(6):
        edge = {min(load(i, 4 * iteration + i, iteration).img.shape[1:]) for i in range(4)}
        assert len(edge) == 1
        edges |= edge
    assert len(edges) > 3 and min(edges) >= 100 and max(edges) <= 200
    limited = TrainLoader(painted, (100, 200), 180, True, 0, AUGMENTATIONS[name])
    assert max(max(limited(0, p, p).img.shape) for p in range(10)) == 180


def test_rotation_fills_the_corners_with_the_mean(painted):
    load = TrainLoader(painted, (150, 150), 600, False, 0, Augmentation(0.5, rotation=30))
    corners = [load(0, p, 0).img[:, 0, 0].tolist() for p in range(10)]
    assert corners == [list(FILL)] * 10


@pytest.mark.parametrize(
    'labels, positive, negative, left, expected_positive',
    [
        # Class 3 has lost its box.
        ([[3], [1]], [3, 1], [2], [1], [1]),
        # A box of a descendant is left.
        ([[3], [1]], [0, 1, 3], [], [1], [0, 1]),
        # A box of an ancestor does not show the descendant.
        ([[1], [0]], [0, 1], [2], [1], [0]),
        # One of two boxes is left.
        ([[1], [1]], [1], [0], [1], [1]),
        # Verified without a box: it may be anywhere in the image.
        ([[1], [1]], [1, 3], [], [1], [1]),
    ],
)
def test_verified_classes_of_a_crop(tmp_path, labels, positive, negative, left, expected_positive):
    """A class without a box in the crop is neither present nor absent."""
    boxes = [(0, 0, 30, 30), (170, 170, 200, 200)]
    index = write_index(tmp_path / 'i', [((200, 200), boxes, labels, positive, negative)])
    load = TrainLoader(OpenImagesDataset(index), (100, 100), 200, False, 0, Augmentation(crop=0.2))
    samples = [load(0, p, 0) for p in range(60)]
    found = [s for s in samples if s.flags.tolist() == left]
    assert len(found) > 5
    for sample in found:
        assert np.flatnonzero(sample.positive).tolist() == expected_positive
        assert np.flatnonzero(sample.negative).tolist() == negative


def test_whole_images_keep_their_verified_classes(painted):
    """No part of image 2 but the whole has all of its box; rotations cut nothing off."""
    for augmentation in Augmentation(crop=0.2, min_visibility=1), Augmentation(rotation=20):
        load = TrainLoader(painted, (100, 100), 200, False, 0, augmentation)
        for position in range(10):
            sample = load(2, position, 0)
            assert np.flatnonzero(sample.positive).tolist() == [2, 3]
            assert len(sample.bbox) == 1


def test_images_without_boxes_are_cropped(painted):
    load = TrainLoader(painted, (64, 64), 500, True, 0, Augmentation(0.3, 0.3, 10))
    shapes = set()
    for position in range(10):
        sample = load(3, position, 0)
        shapes.add(sample.img.shape)
        assert sample.bbox.shape == (0, 4) and sample.label.shape == (0, 4)
        assert np.flatnonzero(sample.negative).tolist() == [1]
    assert len(shapes) > 4


EVERYTHING = Augmentation(0.4, 0.4, 15)


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)


def test_samples_depend_on_seed_and_position_alone(painted):
    load = TrainLoader(painted, (100, 200), 500, True, 7, EVERYTHING)
    forward = {p: load(p % 4, p, 1) for p in range(12)}
    again = TrainLoader(painted, (100, 200), 500, True, 7, EVERYTHING)
    for p in reversed(range(12)):
        assert_equal(again(p % 4, p, 1), forward[p])
    assert len({forward[p].img.tobytes() for p in range(0, 12, 4)}) == 3
    other = TrainLoader(painted, (100, 200), 500, True, 8, EVERYTHING)
    assert any(other(p % 4, p, 1).img.shape != forward[p].img.shape for p in range(4))


def test_any_number_of_ranks_loads_the_same_samples(painted):
    def samples(n_rank):
        found = {}
        for rank in range(n_rank):
            iterator = ShardedIterator(
                SequentialSampler(4, 0),
                TrainLoader(painted, (100, 200), 500, True, 7, EVERYTHING),
                12 // n_rank,
                rank,
                n_rank,
            )
            for _ in range(2):
                found.update({sample.position: sample for sample in iterator.next()})
            iterator.finalize()
        return found

    expected = samples(1)
    assert sorted(expected) == list(range(24))
    for n_rank in 2, 3:
        found = samples(n_rank)
        assert found.keys() == expected.keys()
        for position, sample in found.items():
            assert_equal(sample, expected[position])


def test_switching_one_augmentation_off_does_not_change_the_others(painted):
    both = TrainLoader(painted, (100, 200), 500, True, 7, EVERYTHING)
    geometry = TrainLoader(painted, (100, 200), 500, True, 7, Augmentation(0, 0.4, 15))
    plain = TrainLoader(painted, (100, 200), 500, True, 7)
    for p in range(8):
        a, b = both(0, p, p), geometry(0, p, p)
        np.testing.assert_array_equal(a.bbox, b.bbox)
        assert (a.img != b.img).any()
        colors = TrainLoader(painted, (100, 200), 500, True, 7, Augmentation(0.4))(0, p, p)
        np.testing.assert_array_equal(colors.bbox, plain(0, p, p).bbox)
        assert (colors.img != plain(0, p, p).img).any()


@pytest.mark.parametrize('augmentation', [Augmentation(), Augmentation(min_visibility=0.9)])
def test_off_by_default(painted, augmentation):
    load = TrainLoader(painted, (100, 200), 500, True, 7, augmentation)
    plain = TrainLoader(painted, (100, 200), 500, True, 7)
    for p in range(4):
        assert_equal(load(p, p, p), plain(p, p, p))


# Parts of images.


@pytest.fixture(scope='module')
def ramps(tmp_path_factory):
    """JPEG files whose red and green values grow with the row and the column."""
    directory = tmp_path_factory.mktemp('ramps') / 'images'
    sizes = [(640, 960), (1016, 504), (803, 717), (160, 240)]
    index = write_index(directory, [(size, [], [], [], []) for size in sizes], '.jpg')
    for n, (H, W) in enumerate(sizes):
        y, x = np.mgrid[:H, :W]
        img = np.stack([20 + 200 * y / H, 20 + 200 * x / W, 0 * x + 128], axis=2)
        cv2.imwrite(
            str(directory / f'{n}.jpg'),
            img[:, :, ::-1].round().astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 98, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, 0x111111],
        )
    return OpenImagesDataset(index)


@pytest.mark.parametrize('edge', [20, 57, 100, 320, 700])
def test_the_whole_as_a_part_is_the_resized_image(ramps, edge):
    for i in range(4):
        expected = ramps.get_resized(i, edge, 2 * edge)
        part = (0, 0, *ramps.get_size(i))
        np.testing.assert_array_equal(ramps.get_part(i, part, expected.shape[:2]), expected)


@pytest.mark.parametrize('i', range(4))
def test_parts_at_reduced_size_are_at_their_place(ramps, i, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        dataset_module,
        'read_reduced',
        lambda *args: decoded.append(read_reduced(*args)) or decoded[-1],
    )
    H, W = ramps.get_size(i)
    rng = np.random.default_rng(i)
    whole = ramps.get_image(i)
    factors = set()
    for _ in range(40):
        h, w = (int(rng.integers(5, n // 16 + 1)) * 8 for n in (H, W))
        y, x = (int(rng.integers(0, (n - k) // 8 + 1)) * 8 for n, k in ((H, h), (W, w)))
        part = (y, x, y + h, x + w)
        if rng.random() < 0.3:
            part = (y, x, H, W)
        scale = rng.uniform(0.1, 1.2)
        size = tuple(max(1, round((part[k + 2] - part[k]) * scale)) for k in (0, 1))
        img = ramps.get_part(i, part, size)
        assert img.shape == (*size, 3) and img.dtype == np.uint8 and img.flags.c_contiguous
        now = decoded[-1][0].shape
        factors.add(round(H / now[0]))
        # The decoded part is not enlarged, unless the stored one is.
        if scale <= 1:
            assert now[0] * (part[2] - part[0]) >= (size[0] - 1) * H
            assert now[1] * (part[3] - part[1]) >= (size[1] - 1) * W
        expected = resize_to(whole[part[0] : part[2], part[1] : part[3]], size)
        # A quarter of a pixel of the result changes red by 50 / H / scale.
        for channel, n in (0, H), (1, W):
            difference = np.mean(img[..., channel].astype(float) - expected[..., channel])
            assert abs(difference) < 0.5 + 50 / n / scale
    # An odd height may be halved only for small results.
    assert factors >= ({1, 2, 4}, {1, 2, 4}, {1, 4}, {1, 2})[i]


def test_a_dry_run_loads_images_or_noise(painted, tmp_path):
    """The same boxes and shapes, with noise where the files are missing."""
    index = painted.index
    missing = AnnotationIndex(index.path, tmp_path, index.columns, header('.png'))
    there, noise = ImagesOrNoise(index), ImagesOrNoise(missing)
    expected, found, replaced = (
        [TrainLoader(images, (100, 200), 500, True, 7, EVERYTHING)(i, i, 0) for i in range(4)]
        for images in (painted, there, noise)
    )
    for a, b, c in zip(expected, found, replaced, strict=True):
        assert_equal(a, b)
        assert a.img.shape == c.img.shape and (a.img != c.img).any()
        assert_equal(a[1:], c[1:])
    assert (there.n_read, there.n_noise, noise.n_read, noise.n_noise) == (4, 0, 0, 4)


@pytest.mark.parametrize('setting', ['color_jitter=0.5', 'crop=0.3', 'rotation=20'])
def test_a_recipe_switches_augmentations_on(small_world, setting):
    index = AnnotationIndex.open(small_world / 'train.index')
    comm = types.SimpleNamespace(rank=0, size=1)
    batches = []
    for settings in [], [setting]:
        recipe = recipes.override(
            recipes.find('mini'), ['sampler=sequential', 'batch_size=4', *settings]
        )
        iterator = train._iterator(recipe, index, comm, RunOptions(), None)
        batches.append(iterator.next())
        iterator.finalize()
    for a, b in zip(*batches, strict=True):
        assert a.image_id == b.image_id
        assert a.img.shape != b.img.shape or (a.img != b.img).any()
