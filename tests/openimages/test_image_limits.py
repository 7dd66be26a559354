"""Which image files are decoded, and which are refused before they are."""

import io
import os
import struct
import zlib

import cv2
import numpy as np
import PIL.Image
import PIL.ImageFile
import PIL.TiffImagePlugin
import PIL.WebPImagePlugin
import pytest

from pfdet.errors import InputError
from pfdet.files import regular
from pfdet.openimages import image_limits, images
from pfdet.openimages.image_limits import FORMATS, image_format, max_pixel
from pfdet.openimages.images import image_size, read_image_uint8, read_reduced

SMALL = PIL.Image.fromarray(np.arange(20 * 30 * 3, dtype=np.uint8).reshape(20, 30, 3))
READERS = [image_size, read_image_uint8, lambda path: read_reduced(path, (5, 5))]


def encoded(form, img=SMALL, **options):
    file = io.BytesIO()
    img.save(file, form, **options)
    return file.getvalue()


def refused(path, *words):
    messages = []
    for read in READERS:
        with pytest.raises(InputError) as e:
            read(path)
        messages.append(str(e.value))
        assert messages[-1].startswith(f'{path}: ') and '\n' not in messages[-1]
        for word in words:
            assert word in messages[-1]
    return messages


@pytest.fixture
def limit(monkeypatch):
    """Set the limit on pixels."""

    def set_limit(text):
        monkeypatch.setenv('PFDET_MAX_PIXELS', text)
        max_pixel.cache_clear()

    pillow = PIL.Image.MAX_IMAGE_PIXELS
    yield set_limit
    monkeypatch.undo()
    max_pixel.cache_clear()
    PIL.Image.MAX_IMAGE_PIXELS = pillow


@pytest.mark.parametrize('form', FORMATS)
def test_formats_are_found_by_content(tmp_path, form):
    path = tmp_path / 'image.jpg'
    path.write_bytes(encoded(form))
    assert image_format(path.read_bytes()) == image_format(path.read_bytes()[:16]) == form
    assert image_size(path) == (20, 30) == read_image_uint8(path).shape[:2]


@pytest.mark.filterwarnings('ignore:.*format is deprecated:DeprecationWarning')
def test_other_formats_are_refused(tmp_path):
    """All that Pillow can write, under a name of Open Images."""
    PIL.Image.init()
    path = tmp_path / 'image.jpg'
    tried = set()
    for form in sorted(PIL.Image.SAVE):
        try:
            data = encoded(form)
        except Exception:
            # Formats of fonts or handlers, and those without their library.
            continue
        if image_format(data) is None:
            path.write_bytes(data)
            refused(path, f'expected an image in one of the formats {", ".join(FORMATS)}')
            tried.add(form)
    assert {'EPS', 'PDF', 'PPM', 'ICO', 'TGA', 'PCX', 'SGI'} <= tried


def test_format_is_never_guessed_from_the_name(tmp_path, monkeypatch):
    """Pillow is asked for the one format of the first bytes."""
    asked = []
    open_ = PIL.Image.open

    def record(file, mode='r', formats=None):
        asked.append(formats)
        return open_(file, mode, formats)

    monkeypatch.setattr(PIL.Image, 'open', record)
    monkeypatch.setattr(images.cv2, 'imdecode', lambda *args: None)
    for form in FORMATS:
        path = tmp_path / 'image.eps'
        path.write_bytes(encoded(form))
        read_image_uint8(path)
        assert asked and all(formats == [form] for formats in asked)
        asked.clear()


def huge_jpeg(height, width):
    data = bytearray(encoded('JPEG'))
    at = data.index(b'\xff\xc0')
    data[at + 5 : at + 9] = struct.pack('>HH', height, width)
    return bytes(data)


def huge_png(height, width):
    data = bytearray(encoded('PNG'))
    data[16:24] = struct.pack('>II', width, height)
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)


def huge_gif(height, width):
    data = bytearray(encoded('GIF'))
    data[6:10] = struct.pack('<HH', width, height)
    return bytes(data)


def huge_bmp(height, width):
    data = bytearray(encoded('BMP'))
    data[18:26] = struct.pack('<ii', width, height)
    return bytes(data)


def huge_tiff(height, width):
    data = bytearray(encoded('TIFF'))
    for tag, value in (256, width), (257, height):
        at = data.index(struct.pack('<HHI', tag, 4, 1), 4)
        data[at + 8 : at + 12] = struct.pack('<I', value)
    return bytes(data)


def huge_webp(height, width):
    data = bytearray(encoded('WEBP', lossless=True))
    at = data.index(b'VP8L') + 9
    lengths = int.from_bytes(data[at : at + 4], 'little')
    # 14 bits each.
    lengths = lengths >> 28 << 28 | (height - 1) << 14 | (width - 1)
    data[at : at + 4] = struct.pack('<I', lengths)
    return bytes(data)


HUGE = [huge_jpeg, huge_png, huge_gif, huge_bmp, huge_tiff, huge_webp]


def do_not_decode(*args):
    raise AssertionError('decodes')


@pytest.mark.parametrize(
    'huge, length',
    [
        (huge, length)
        for huge in HUGE
        for length in (13_378, 16_383, 30_000, 65_000)
        # WebP has no longer edges.
        if length <= 16_383 or huge is not huge_webp
    ],
)
def test_sizes_above_the_limit_are_not_decoded(tmp_path, monkeypatch, huge, length):
    path = tmp_path / 'huge.jpg'
    path.write_bytes(huge(length, length - 1))
    monkeypatch.setattr(cv2, 'imdecode', do_not_decode)
    for kind in PIL.ImageFile.ImageFile, PIL.TiffImagePlugin.TiffImageFile:
        monkeypatch.setattr(kind, 'load', do_not_decode)
    monkeypatch.setattr(PIL.WebPImagePlugin.WebPImageFile, 'load', do_not_decode)
    # Pillow says only the number of pixels.
    sizes = f'{length} x {length - 1}', f'{length * (length - 1)}'
    for message in refused(path, 'expected at most 178,956,970 pixels ($PFDET_MAX_PIXELS), got '):
        assert any(f'got {size} in the file header' in message for size in sizes)


@pytest.mark.parametrize('huge', HUGE)
def test_limit_can_be_changed(tmp_path, limit, huge):
    path = tmp_path / 'image.jpg'
    path.write_bytes(huge(20, 30))
    limit('599')
    refused(path, 'expected at most 599 pixels ($PFDET_MAX_PIXELS), got 20 x 30 in')
    limit('600')
    assert image_size(path) == (20, 30) == read_image_uint8(path).shape[:2]
    path.write_bytes(huge(16_000, 16_000))
    limit('256000000')
    assert image_size(path) == (16_000, 16_000)


@pytest.mark.parametrize('text', ['0', '-1', 'many', '1e9', '9' * 40, '١'])
def test_bad_limit(tmp_path, limit, text):
    path = tmp_path / 'image.jpg'
    path.write_bytes(encoded('JPEG'))
    limit(text)
    with pytest.raises(InputError, match=f'^PFDET_MAX_PIXELS={text}: expected a number') as e:
        image_size(path)
    assert '\n' not in str(e.value)


def test_file_is_not_larger_than_its_pixels(tmp_path, monkeypatch):
    path = tmp_path / 'sparse.jpg'
    with open(path, 'wb') as file:
        file.write(encoded('JPEG'))
        file.truncate(1 << 40)
    monkeypatch.setattr(os, 'read', None)
    refused(path, 'cannot read the image: has 1,099,511,627,776 bytes, more than 1,498,764,624')


def with_scans(n, size=(200, 200)):
    """A progressive JPEG with further scans of ten bytes each, which refine nothing."""
    data = encoded('JPEG', PIL.Image.new('L', size[::-1], 128), progressive=True)
    at = data.rindex(b'\xff\xc4', 0, data.rindex(b'\xff\xda'))
    return data[:-2] + data[at:-2] * n + data[-2:]


def test_scans_are_limited_where_they_cost_time(tmp_path, monkeypatch):
    path = tmp_path / 'scans.jpg'
    path.write_bytes(with_scans(300))
    few = with_scans(0)
    # A small image is decoded in any case, as Pillow does.
    np.testing.assert_array_equal(
        read_image_uint8(path), np.asarray(PIL.Image.open(path).convert('RGB'))
    )
    monkeypatch.setattr(image_limits, '_UNCOUNTED', 200 * 200 * 1000)
    with pytest.raises(InputError, match=r'scans\.jpg: has 306 scans; expected at most 100'):
        read_image_uint8(path)
    path.write_bytes(few)
    monkeypatch.setattr(image_limits, '_UNCOUNTED', 0)
    assert read_image_uint8(path).shape == (200, 200, 3)
    # Markers within the data of another format are not scans.
    path.write_bytes(encoded('BMP', PIL.Image.new('RGB', (99, 99), (0xFF, 0xDA, 0xFF))))
    assert read_image_uint8(path).shape == (99, 99, 3)


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / 'pipe.jpg')
    (tmp_path / 'zero.jpg').symlink_to('/dev/zero')
    (tmp_path / 'folder.jpg').mkdir()
    (tmp_path / 'image.png').write_bytes(encoded('PNG'))
    (tmp_path / 'link.jpg').symlink_to('image.png')
    refused(tmp_path / 'pipe.jpg', 'cannot read the image: a named pipe; expected a regular file')
    refused(tmp_path / 'zero.jpg', 'cannot read the image: a device; expected a regular file')
    refused(tmp_path / 'folder.jpg', 'cannot read the image: Is a directory')
    assert read_image_uint8(tmp_path / 'link.jpg').shape == (20, 30, 3)


@pytest.mark.parametrize('form', FORMATS)
def test_every_truncation_is_refused(tmp_path, form):
    """In the formats that OpenCV alone decodes, too. The end of others has no pixels."""
    noise = np.random.default_rng(0).integers(0, 256, (24, 31, 3), np.uint8)
    data = encoded(form, PIL.Image.fromarray(noise))
    path = tmp_path / 'truncated.jpg'
    for end in range(0, len(data) - 30, 16):
        path.write_bytes(data[:end])
        with pytest.raises(InputError, match=r'truncated\.jpg: '):
            read_image_uint8(path)


def test_images_are_opened_with_one_stat(tmp_path, monkeypatch):
    path = tmp_path / 'image.jpg'
    path.write_bytes(encoded('JPEG'))
    calls = []
    for name in 'open', 'fstat', 'stat', 'lstat', 'read', 'close':
        call = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, call=call: calls.append(name) or call(*args)
        )
    assert regular.os is os
    read_image_uint8(path)
    image_size(path)
    monkeypatch.undo()
    assert calls == ['open', 'fstat', 'read', 'close'] * 2
