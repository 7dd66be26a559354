"""All kinds of image files, complete and damaged, compared with Pillow."""

import io
import warnings

import cv2
import numpy as np
import PIL.Image
import pytest

from pfdet.errors import InputError
from pfdet.openimages import images
from pfdet.openimages.images import (
    image_size,
    read_image,
    read_image_uint8,
    read_reduced,
    resize_to,
)


def smooth(height, width):
    """An asymmetric image with different channels that JPEG changes by a few grey values only."""
    y, x = np.mgrid[:height, :width]
    return np.stack(
        [y * 255 / height, x * 255 / width, (x + y) * 60 / (height + width)], axis=2
    ).astype(np.uint8)


def encoded(img, form='JPEG', mode=None, **options):
    file = io.BytesIO()
    img = PIL.Image.fromarray(img)
    (img if mode is None else img.convert(mode)).save(file, form, **options)
    return file.getvalue()


def adobe(jpeg, transform=None):
    """Change the colour transform in Adobe's segment, or drop the segment."""
    at = jpeg.index(b'\xff\xee')
    assert jpeg[at + 4 : at + 9] == b'Adobe'
    end = at + 2 + int.from_bytes(jpeg[at + 2 : at + 4], 'big')
    return (
        jpeg[:at]
        + (b'' if transform is None else jpeg[at : end - 1] + bytes([transform]))
        + jpeg[end:]
    )


def png(img):
    return cv2.imencode('.png', img)[1].tobytes()


RGB = smooth(45, 61)
GREY16 = np.add.outer(np.arange(45) * 7, np.arange(61) * 1000).astype(np.uint16)
RGB16 = RGB.astype(np.uint16) * 256 + 0xA7
ALPHA = np.dstack([RGB, RGB[:, ::-1, 0]])
PALETTE = PIL.Image.fromarray(RGB).quantize(64)
CMYK = encoded(RGB, mode='CMYK', quality=95)
FILES = {
    'rgb.jpg': encoded(RGB, quality=95),
    'full-colour.jpg': encoded(RGB, quality=95, subsampling=0),
    'half-colour.jpg': encoded(RGB, quality=95, subsampling=1),
    'progressive.jpg': encoded(RGB, quality=95, progressive=True),
    'optimized.jpg': encoded(RGB, quality=95, optimize=True),
    'grey.jpg': encoded(RGB, mode='L', quality=95),
    'cmyk-adobe.jpg': CMYK,
    'cmyk-plain.jpg': adobe(CMYK),
    'ycck.jpg': adobe(CMYK, 2),
    'trailing.jpg': encoded(RGB, quality=95) + b'\0\0 bytes after the end',
    'one-pixel.jpg': encoded(RGB[:1, :1]),
    'one-row.jpg': encoded(RGB[:1]),
    'one-column.jpg': encoded(RGB[:, :1], mode='L'),
    'rgb.png': encoded(RGB, 'PNG'),
    'grey.png': encoded(RGB, 'PNG', 'L'),
    'grey-alpha.png': encoded(ALPHA, 'PNG', 'LA'),
    'alpha.png': encoded(ALPHA, 'PNG'),
    'palette.png': encoded(RGB, 'PNG', 'P'),
    'palette-transparent.png': encoded(
        np.asarray(PALETTE.convert('RGB')), 'PNG', 'P', transparency=bytes(range(256))
    ),
    'bits.png': encoded(RGB, 'PNG', '1'),
    'one-pixel.png': encoded(RGB[:1, :1], 'PNG', 'L'),
    'grey16.png': png(GREY16),
    'rgb16.png': png(np.ascontiguousarray(RGB16[:, :, ::-1])),
    'alpha16.png': png(np.dstack([RGB16[:, :, ::-1], GREY16])),
    'no-jpeg.jpg': encoded(RGB, 'PNG'),
    'bmp.jpg': encoded(RGB, 'BMP'),
    'gif.jpg': encoded(RGB, 'GIF'),
    'tiff.jpg': encoded(RGB, 'TIFF'),
    'webp.jpg': encoded(RGB, 'WEBP', lossless=True),
}


def read_by_pillow(data):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with PIL.Image.open(io.BytesIO(data)) as img:
            if img.mode.startswith('I'):
                # Versions of Pillow clip or scale these.
                grey = (np.asarray(img).astype(np.uint32) >> 8).astype(np.uint8)
                return np.repeat(grey[:, :, None], 3, axis=2)
            return np.asarray(img.convert('RGB'))


@pytest.mark.parametrize('name', FILES)
def test_equals_pillow(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    expected = read_by_pillow(FILES[name])
    img = read_image_uint8(path)
    assert img.shape == expected.shape and img.dtype == np.uint8 and img.flags.c_contiguous
    # Decoders differ in chroma upsampling, rounding, and the black of CMYK.
    assert np.abs(img.astype(int) - expected).max() <= (4 if name.endswith('jpg') else 0)
    assert image_size(path) == img.shape[:2]
    chw = read_image(path)
    assert chw.dtype == np.float32 and chw.flags.c_contiguous
    np.testing.assert_array_equal(chw, img.transpose(2, 0, 1))


@pytest.mark.parametrize('name', FILES)
def test_reduced(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(FILES[name])
    whole = read_image_uint8(path)
    is_jpeg = FILES[name].startswith(b'\xff\xd8')
    for least, factor in (
        ((46, 62), 1),
        ((22, 30), 1),
        ((11, 15), 4),
        ((5, 7), 4),
        ((3, 5), 8),
        ((1, 1), 8),
    ):
        img, size = read_reduced(path, least)
        assert size == whole.shape[:2] and img.dtype == np.uint8 and img.flags.c_contiguous
        if not is_jpeg or factor == 1 or min(size) < 2:
            np.testing.assert_array_equal(img, whole)
            continue
        assert img.shape == (round(45 / factor), round(61 / factor), 3)
        # Complete blocks only: at the border, libjpeg also averages pixels outside of the image.
        h, w = 45 // factor, 61 // factor
        mean = whole[: h * factor, : w * factor].reshape(h, factor, w, factor, 3).mean(axis=(1, 3))
        assert np.abs(img[:h, :w] - mean).max() <= 13


@pytest.mark.parametrize('size', [(683, 1024), (768, 1023), (301, 447), (97, 803)])
@pytest.mark.parametrize('share', [0.5, 0.31, 0.22, 0.124, 0.05])
def test_reduction_shifts_no_content(tmp_path, size, share):
    """Reduced decoding shifts ramps by at most a quarter of a pixel."""
    y, x = (np.linspace(10, 245, n) for n in size)
    img = np.stack(np.broadcast_arrays(y[:, None], x, np.float64(99)), axis=2).astype(np.uint8)
    path = tmp_path / 'ramp.jpg'
    path.write_bytes(encoded(img, quality=98, subsampling=0))
    least = max(1, round(size[0] * share)), max(1, round(size[1] * share))
    reduced = resize_to(read_reduced(path, least)[0], least)
    whole = resize_to(read_image_uint8(path), least)
    assert reduced.shape == whole.shape
    for axis, channel in (0, 0), (1, 1):
        slope = 235 / least[axis]
        # Border pixels of a reduced image average pixels outside of the image.
        inner = (reduced.astype(int) - whole)[1:-1, 1:-1, channel].mean(axis=1 - axis)
        assert np.abs(inner).max(initial=0) <= slope / 4 + 1


def test_upper_bits_are_kept(tmp_path):
    (tmp_path / 'a.png').write_bytes(FILES['rgb16.png'])
    np.testing.assert_array_equal(read_image_uint8(tmp_path / 'a.png'), RGB)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_exif_orientation_is_ignored(tmp_path, orientation):
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    img = smooth(20, 31)
    for name, form in ('img.jpg', 'JPEG'), ('img.png', 'PNG'):
        path = tmp_path / name
        path.write_bytes(encoded(img, form, quality=98, exif=exif.tobytes()))
        assert image_size(path) == (20, 31)
        found = read_image_uint8(path)
        assert found.shape == (20, 31, 3)
        assert np.abs(found.astype(int) - img).max() <= 9
        assert read_reduced(path, (7, 7))[0].shape == (
            (10, 16, 3) if form == 'JPEG' else (20, 31, 3)
        )


def test_size_after_a_long_header(tmp_path):
    path = tmp_path / 'img.jpg'
    data = encoded(smooth(20, 31))
    segment = b'\xff\xe2' + (40000).to_bytes(2, 'big') + b'\xff\xc0' * 19999
    path.write_bytes(data[:2] + segment + data[2:])
    assert image_size(path) == (20, 31) == read_image_uint8(path).shape[:2]


@pytest.mark.parametrize(
    'data',
    [
        encoded(smooth(64, 80), quality=95),
        encoded(smooth(64, 80), progressive=True),
        encoded(smooth(64, 80), 'PNG'),
        encoded(smooth(64, 80), mode='CMYK'),
        encoded(smooth(64, 80), exif=b'Exif\0\0' + encoded(smooth(8, 8))),
    ],
    ids=['jpeg', 'progressive', 'png', 'cmyk', 'thumbnail'],
)
def test_truncated_images(tmp_path, data):
    path = tmp_path / 'truncated.jpg'
    # The last chunk of a PNG contains no pixels, so it may be missing.
    last = len(data) - (24 if data.startswith(b'\x89PNG') else 1)
    for end in [0, 1, 2, 10, *np.linspace(20, last, 25).astype(int)]:
        path.write_bytes(data[:end])
        for least in None, (8, 10):
            with pytest.raises(InputError, match='truncated.jpg') as e:
                read_reduced(path, least)
            assert '\n' not in str(e.value)
    path.write_bytes(data)
    read_image(path)


def test_files_that_are_not_images(tmp_path):
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


def test_no_memory_for_a_damaged_header(tmp_path, monkeypatch):
    """A header with a huge size is refused before memory is allocated."""
    data = bytearray(FILES['rgb.jpg'])
    at = data.index(b'\xff\xc0')
    data[at + 5 : at + 9] = b'\xff\xf0\xff\xf0'
    path = tmp_path / 'img.jpg'
    path.write_bytes(data)
    monkeypatch.setattr(images.cv2, 'imdecode', None)
    for read in (read_image, image_size):
        with pytest.raises(InputError, match='img.jpg: expected at most 178,956,970 pixels'):
            read(path)


def damage(data, rng):
    """Damage a file like a faulty disk, network or program."""
    data = bytearray(data)
    kind = rng.integers(5)
    if kind == 0:  # bits
        for at in rng.integers(0, len(data), 3):
            data[at] ^= 1 << rng.integers(8)
    elif kind == 1:  # bytes, mostly in the header
        for at in rng.integers(0, min(len(data), 300), 3):
            data[at] = rng.integers(256)
    elif kind == 2:  # a missing piece
        first, last = sorted(rng.integers(0, len(data), 2))
        del data[first : min(last, first + 200)]
    elif kind == 3:  # an inserted piece from elsewhere in the file
        first, at = rng.integers(0, len(data), 2)
        data[at:at] = data[first : first + 64]
    else:  # zeros, or a truncated file
        first = rng.integers(len(data))
        data[first:] = b'\0' * (len(data) - first) if rng.random() < 0.5 else b''
    return bytes(data)


@pytest.mark.parametrize('name', FILES)
def test_damaged_files(tmp_path, capfd, name):
    """870 files of all kinds: a message that names the file, or an image of the reported size."""
    rng = np.random.default_rng(sum(name.encode()))
    path = tmp_path / 'damaged.jpg'
    n_read = 0
    for _ in range(30):
        path.write_bytes(damage(FILES[name], rng))
        results = []
        for read in (image_size, read_image, lambda p: read_reduced(p, (5, 7))[1]):
            try:
                result = read(path)
                results.append(result if isinstance(result, tuple) else result.shape[1:])
            except InputError as e:
                assert str(e).startswith(f'{path}: ') and '\n' not in str(e)
        if len(results) == 3:
            n_read += 1
        assert len(set(results)) <= 1
        if results:
            assert results[0] == image_size(path)
    assert n_read < 30
    capfd.readouterr()  # drop warnings of libjpeg and libpng
