import io
import multiprocessing
import pickle

import cv2
import numpy as np
import PIL.Image
import pytest

from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index
from pfdet.openimages.dataset import KEYS, OpenImagesDataset
from pfdet.openimages.images import image_size, read_image, read_image_uint8
from pfdet.openimages.index import AnnotationIndex


@pytest.fixture
def dataset(split):
    build_index(**split)
    return OpenImagesDataset(AnnotationIndex.open(split['out']))


def smooth(height, width):
    """An image that JPEG keeps within a few grey values; asymmetric, its channels differ."""
    y, x = np.mgrid[:height, :width]
    return np.stack([y * 255 / height, x * 255 / width, (x + y) * 60 / (height + width)],
                    axis=2).astype(np.uint8)


def encoded(img, form='JPEG', **options):
    file = io.BytesIO()
    PIL.Image.fromarray(img).save(file, form, **options)
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
        # Two decoders may differ in how they bring colour to full resolution.
        assert np.abs(img - expected).mean() < 8
        annotation = index.annotation(i)
        assert bbox.dtype == np.float32
        np.testing.assert_allclose(
            bbox, annotation.bbox * [height, width, height, width], rtol=1e-6)
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
    assert all(len(dataset.slice[i:i + 1, ('bbox', 'label')][0]) == 2 for i in range(25))
    assert (0, 0) not in sizes
    with pytest.raises(InputError, match='cannot read the image'):
        dataset[0]


def test_image_of_another_size_is_refused(dataset):
    path = dataset.index.image_path(4)
    height, width = dataset.index.image_size(4)
    path.write_bytes(encoded(smooth(height + 1, width)))
    with pytest.raises(InputError, match=f'is {height + 1} x {width} pixels, but was {height} x'):
        dataset.get_image(4)


def test_size_of_images_that_came_later(split):
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
        bbox, dataset.index.annotation(i).bbox * [*img.shape[1:], *img.shape[1:]], rtol=1e-6)


def _checksum(dataset, results):
    results.put([float(sum(np.sum(x, dtype=np.float64) for x in dataset[i][:6]))
                 for i in range(len(dataset))])


def test_two_processes(dataset):
    copy = pickle.loads(pickle.dumps(dataset.slice[::2]))
    np.testing.assert_array_equal(copy[3][0], dataset[6][0])
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [context.Process(target=_checksum, args=(dataset, results)) for _ in range(2)]
    for process in processes:
        process.start()
    found = [results.get(timeout=30) for _ in processes]
    for process in processes:
        process.join()
    assert found[0] == found[1] == [
        float(sum(np.sum(x, dtype=np.float64) for x in dataset[i][:6])) for i in range(25)]


@pytest.mark.parametrize('name, data, tolerance', [
    ('rgb.jpg', encoded(smooth(20, 31), quality=98), 9),
    ('progressive.jpg', encoded(smooth(20, 31), quality=98, progressive=True), 9),
    ('rgb.png', encoded(smooth(20, 31), 'PNG'), 0),
    ('alpha.png', encoded(np.dstack([smooth(20, 31), np.full((20, 31), 255, np.uint8)]), 'PNG'), 0),
    ('rgb.gif', encoded(smooth(20, 31), 'PPM'), 0),
    ('trailing.jpg', encoded(smooth(20, 31), quality=98) + b'\0\0 bytes after the end', 9)])
def test_read_image(tmp_path, name, data, tolerance):
    path = tmp_path / name
    path.write_bytes(data)
    img = read_image(path)
    assert img.shape == (3, 20, 31) and img.dtype == np.float32 and img.flags.c_contiguous
    assert np.abs(img.transpose(1, 2, 0) - smooth(20, 31)).max() <= tolerance
    assert image_size(path) == (20, 31)
    np.testing.assert_array_equal(read_image_uint8(path).transpose(2, 0, 1), img)


def test_other_pixel_formats(tmp_path):
    path = tmp_path / 'img.jpg'
    grey = smooth(20, 31)[:, :, 0]
    path.write_bytes(encoded(grey, quality=98))
    img = read_image_uint8(path)
    assert np.abs(img.astype(int) - grey[:, :, None]).max() <= 4
    assert cv2.imwrite(str(tmp_path / 'deep.png'), grey.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image_uint8(tmp_path / 'deep.png'),
                                  np.repeat(grey[:, :, None], 3, axis=2))
    PIL.Image.fromarray(smooth(20, 31)).convert('CMYK').save(path, quality=98)
    img = read_image_uint8(path)
    assert img.shape == (20, 31, 3) and image_size(path) == (20, 31)
    assert np.abs(img.astype(int) - smooth(20, 31)).max() < 12


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_ignored(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / 'img.jpg'
    path.write_bytes(encoded(smooth(20, 31), quality=98, exif=exif.tobytes()))
    assert image_size(path) == (20, 31)
    img = read_image_uint8(path)
    assert img.shape == (20, 31, 3)
    assert np.abs(img.astype(int) - smooth(20, 31)).max() <= 9


def test_size_behind_a_long_head(tmp_path):
    path = tmp_path / 'img.jpg'
    data = encoded(smooth(20, 31))
    segment = b'\xff\xe2' + (40000).to_bytes(2, 'big') + b'\xff\xc0' * 19999
    path.write_bytes(data[:2] + segment + data[2:])
    assert image_size(path) == (20, 31) == read_image_uint8(path).shape[:2]


@pytest.mark.parametrize('data', [
    encoded(smooth(64, 80), quality=95), encoded(smooth(64, 80), progressive=True),
    encoded(smooth(64, 80), 'PNG'),
    encoded(smooth(64, 80), exif=b'Exif\0\0' + encoded(smooth(8, 8)))],
    ids=['jpeg', 'progressive', 'png', 'thumbnail'])
def test_truncated_images(tmp_path, data):
    path = tmp_path / 'cut.jpg'
    # The last chunk of a PNG holds no pixels: without it nothing is missing.
    last = len(data) - (24 if data.startswith(b'\x89PNG') else 1)
    for end in [0, 1, 2, 10, *np.linspace(20, last, 25).astype(int)]:
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match='cut.jpg') as e:
            read_image(path)
        assert '\n' not in str(e.value)
    path.write_bytes(data)
    read_image(path)


def test_what_is_no_image(tmp_path):
    for content in (b'', b'ImageID,LabelName\n', b'\xff\xd8\xff\xd9', b'\x89PNG' + b'\0' * 40):
        path = tmp_path / 'text.jpg'
        path.write_bytes(content)
        for read in (read_image, image_size):
            with pytest.raises(InputError, match='text.jpg: '):
                read(path)
    for missing in (tmp_path / 'none.jpg', tmp_path, 'a\0b'):
        for read in (read_image, image_size):
            with pytest.raises(InputError, match='cannot read the image'):
                read(missing)


def test_fuzzed_images(tmp_path):
    rng = np.random.default_rng(0)
    whole = encoded(smooth(24, 24))
    path = tmp_path / 'img.jpg'
    for _ in range(300):
        data = bytearray(whole)
        for at in rng.integers(0, len(data), 3):
            data[at] = rng.integers(256)
        path.write_bytes(data)
        for read in (read_image, image_size):
            try:
                read(path)
            except InputError as e:
                assert '\n' not in str(e)
