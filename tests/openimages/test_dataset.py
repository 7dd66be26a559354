import io
import multiprocessing
import pickle

import numpy as np
import PIL.Image
import pytest

from pfdet.errors import InputError
from pfdet.openimages import dataset as dataset_module
from pfdet.openimages.build_index import build_index
from pfdet.openimages.dataset import KEYS, OpenImagesDataset
from pfdet.openimages.images import read_reduced, resize, resize_to
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resized_size


@pytest.fixture
def dataset(split):
    build_index(**split)
    return OpenImagesDataset(AnnotationIndex.open(split['out']))


def smooth(height, width):
    """An asymmetric image with different channels that JPEG changes by a few grey values only."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [y * 255 / height, x * 255 / width, (x + y) * 60 / (height + width)], axis=2
    ).astype(np.uint8)


def encoded(img, form='JPEG', mode='RGB', **options):
    file = io.BytesIO()
    PIL.Image.fromarray(img).convert(mode).save(file, form, **options)
    return file.getvalue()


def test_examples(dataset):
    index = dataset.index
    assert len(dataset) == len(index) == 25 and dataset.keys == KEYS
    for i in range(len(dataset)):
        img, bbox, label, flags, positive, negative, image_id = dataset[i]
        height, width = index.image_size(i)
        assert img.shape == (3, height, width) and img.dtype == np.float32
        with PIL.Image.open(index.image_path(i)) as opened:
            expected = np.asarray(opened.convert('RGB'), np.float32).transpose(2, 0, 1)
        # Decoders differ in chroma upsampling.
        assert np.abs(img - expected).mean() < 10
        annotation = index.annotation(i)
        assert bbox.dtype == np.float32
        np.testing.assert_allclose(
            bbox, annotation.bbox * [height, width, height, width], rtol=1e-6
        )
        for found, wanted in zip((label, flags, positive, negative), annotation[1:]):
            np.testing.assert_array_equal(found, wanted)
        assert image_id == index.image_id(i)
    assert dataset[-1][6] == index.image_id(24)
    with pytest.raises(IndexError):
        dataset[25]


def test_slicing(dataset):
    boxes = dataset.slice[5:20:3, 'bbox']
    assert len(boxes) == 5
    np.testing.assert_array_equal(boxes[1], dataset[8][1])
    some = dataset.slice[[7, 2], ('image_id', 'label')]
    assert some.keys == ('image_id', 'label') and some[1][0] == dataset.index.image_id(2)
    np.testing.assert_array_equal(some[0][1], dataset[7][2])
    chosen = OpenImagesDataset(dataset.index, keys=('label', 'img'))
    assert [x.ndim for x in chosen[0]] == [2, 3]
    assert OpenImagesDataset(dataset.index, keys='image_id')[3] == dataset.index.image_id(3)


def test_annotations_are_read_without_images(dataset):
    for path in dataset.index.images.iterdir():
        path.unlink()
    sizes = [dataset.get_size(i) for i in range(25)]
    assert all(len(dataset.slice[i : i + 1, ('bbox', 'label')][0]) == 2 for i in range(25))
    assert (0, 0) not in sizes
    with pytest.raises(InputError, match='cannot read the image'):
        dataset[0]


def test_image_of_another_size_is_refused(dataset):
    path = dataset.index.image_path(4)
    height, width = dataset.index.image_size(4)
    path.write_bytes(encoded(smooth(height + 1, width)))
    message = f'is {height + 1} x {width} pixels; expected {height} x {width}, as when'
    with pytest.raises(InputError, match=message):
        dataset.get_image(4)


def test_size_of_images_added_after_the_build(split):
    stored = {path: path.read_bytes() for path in split['images'].iterdir()}
    for path in stored:
        path.unlink()
    build_index(**split, keep_missing=True)
    dataset = OpenImagesDataset(AnnotationIndex.open(split['out']))
    for path, data in stored.items():
        path.write_bytes(data)
    i = int(np.argmax(np.diff(dataset.index.columns['object_offsets'])))
    img, bbox = dataset.slice[:, ('img', 'bbox')][i]
    np.testing.assert_allclose(
        bbox, dataset.index.annotation(i).bbox * [*img.shape[1:], *img.shape[1:]], rtol=1e-6
    )


def _checksum(dataset, results):
    results.put(
        [
            float(sum(np.sum(x, dtype=np.float64) for x in dataset[i][:6]))
            for i in range(len(dataset))
        ]
    )


def test_two_processes(dataset):
    copy = pickle.loads(pickle.dumps(dataset.slice[::2]))
    np.testing.assert_array_equal(copy[3][0], dataset[6][0])
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=_checksum, args=(dataset, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=600) for _ in processes]
    for process in processes:
        process.join()
    assert (
        found[0]
        == found[1]
        == [float(sum(np.sum(x, dtype=np.float64) for x in dataset[i][:6])) for i in range(25)]
    )


@pytest.fixture(scope='module')
def photographs(tmp_path_factory, helpers):
    """A data set of large images of several kinds, which can be decoded at a reduced size."""
    split = helpers.write_split(tmp_path_factory.mktemp('large'))
    rng = np.random.default_rng(0)
    paths = sorted(split['images'].iterdir())
    for k, path in enumerate(paths):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        height, width = rng.integers(150, 420, 2)
        img = PIL.Image.fromarray(coarse).resize((width, height), PIL.Image.Resampling.BICUBIC)
        mode = ('RGB', 'L', 'CMYK', 'RGB')[k % 4]
        path.write_bytes(encoded(np.asarray(img), mode=mode, quality=90, progressive=k % 3 == 0))
    # A PNG with the suffix of a JPEG.
    paths[0].write_bytes(encoded(np.asarray(img), 'PNG'))
    build_index(**split)
    return OpenImagesDataset(AnnotationIndex.open(split['out']))


@pytest.mark.parametrize(
    'min_size, max_size',
    [(1, 1), (25, 1000), (40, 44), (75, 1000), (150, 160), (260, 1000), (500, 700)],
)
def test_get_resized_equals_resize(photographs, min_size, max_size):
    """Decoding at a reduced size keeps the shape and hardly changes the pixels."""
    for i in range(len(photographs)):
        img = photographs.get_resized(i, min_size, max_size)
        whole = photographs.get_image(i)
        expected = resize(whole, min_size, max_size)
        assert (
            img.shape
            == expected.shape
            == (*resized_size(photographs.get_size(i), min_size, max_size), 3)
        )
        assert img.dtype == np.uint8 and img.flags.c_contiguous
        if min(expected.shape[:2]) * 2 > min(whole.shape[:2]):
            np.testing.assert_array_equal(img, expected)
        elif min_size > 10:
            # Averaging differs, and the images have more detail than photographs.
            assert np.abs(img.astype(int) - expected).mean() < 10


def test_get_resized_decodes_at_reduced_size(photographs, monkeypatch):
    decoded = []
    monkeypatch.setattr(
        dataset_module,
        'read_reduced',
        lambda *args: decoded.append(read_reduced(*args)) or decoded[-1],
    )
    for i in range(len(photographs)):
        photographs.get_resized(i, 40, 1000)
    reduced = [img.shape[:2] != size for img, size in decoded]
    assert sum(reduced) > 20 and not reduced[0]
    assert all(min(img.shape[:2]) >= 40 for img, size in decoded[1:])


def test_get_resized_refuses_another_size(dataset):
    path = dataset.index.image_path(4)
    height, width = dataset.index.image_size(4)
    path.write_bytes(encoded(smooth(height * 8, width * 8)))
    with pytest.raises(InputError, match=f'is {height * 8} x {width * 8} pixels; expected'):
        dataset.get_resized(4, 4, 100)


def test_resize_averages_areas():
    """Thin structures are averaged, not skipped."""
    img = np.zeros((64, 64, 3), np.uint8)
    img[:, 13] = 255
    for size in (16, 16), (64, 16), (63, 16):
        np.testing.assert_allclose(resize_to(img, size).mean(), 255 / 64, atol=0.5)
