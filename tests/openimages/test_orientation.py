"""The EXIF orientation of image files, compared with Pillow."""

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from pfdet.errors import InputError
from pfdet.openimages.images import read_image
from pfdet.openimages.orientation import exif_orientation, read_photograph, turn_upright


def photograph(path, orientation, **options):
    """Write smooth pixels, other in each corner, with an orientation."""
    y, x = np.mgrid[:24, :40]
    img = np.stack([y * 10, x * 6, (x + y) * 3], axis=2).astype(np.uint8)
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    PIL.Image.fromarray(img).save(path, exif=exif, **options)
    return img


@pytest.mark.parametrize('orientation', range(1, 9))
def test_pixels_are_turned_as_pillow_does(orientation, tmp_path):
    img = photograph(tmp_path / 'a.png', orientation)
    with PIL.Image.open(tmp_path / 'a.png') as opened:
        expected = np.array(PIL.ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(turn_upright(img, orientation), expected)


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize(
    ('suffix', 'options'),
    [
        ('.jpg', {'quality': 100, 'subsampling': 0}),
        ('.png', {}),
        ('.webp', {'lossless': True}),
        ('.tif', {}),
    ],
)
def test_all_formats(suffix, options, orientation, tmp_path):
    path = tmp_path / f'a{suffix}'
    img = photograph(path, orientation, **options)
    assert exif_orientation(path) == orientation
    # JPEG rounds the colours.
    upright = read_photograph(path).transpose(1, 2, 0).astype(int)
    assert upright.shape == turn_upright(img, orientation).shape
    assert abs(upright - turn_upright(img, orientation)).max() <= 4
    stored = read_photograph(path, exif=False)
    np.testing.assert_array_equal(stored, read_image(path))
    assert abs(stored.transpose(1, 2, 0).astype(int) - img).max() <= 4


@pytest.mark.parametrize('orientation', [None, 0, 9, 65535])
def test_no_or_impossible_orientation_is_upright(orientation, tmp_path):
    photograph(tmp_path / 'a.jpg', orientation)
    assert exif_orientation(tmp_path / 'a.jpg') == 1


def test_damaged_exif_is_upright(tmp_path):
    path = tmp_path / 'a.jpg'
    photograph(path, 6)
    data = path.read_bytes()
    begin = data.index(b'Exif\0\0') + 6
    path.write_bytes(data[:begin] + b'\xff' * 20 + data[begin + 20 :])
    assert exif_orientation(path) == 1
    assert read_photograph(path).shape == (3, 24, 40)


@pytest.mark.parametrize('data', [None, b'', b'text', b'\xff\xd8\xff\xe1'])
def test_what_is_not_an_image_is_one_line(data, tmp_path):
    path = tmp_path / 'a.jpg'
    if data is not None:
        path.write_bytes(data)
    assert exif_orientation(path) == 1
    with pytest.raises(InputError, match=r'a\.jpg'):
        read_photograph(path)
