"""Photographs as they are meant to be seen: the EXIF orientation of image files.

Cameras and phones store the pixels as the sensor gives them, and write into the file how to turn
them. Open Images' boxes refer to the stored pixels (see :mod:`pfdet.openimages.images`), so its
images are read without this module.
"""

import io
import os
import warnings

import numpy as np
import PIL.Image

from pfdet.files.regular import read_bytes
from pfdet.openimages.image_limits import image_format, max_file_size
from pfdet.openimages.images import read_image_uint8

_TAG = 0x0112


def exif_orientation(path: str | os.PathLike) -> int:
    """Read the EXIF orientation of an image file.

    Args:
        path (path): An image file.

    Returns:
        int: From 1 to 8 as in EXIF 2.3, section 4.6.4. 1 means upright, and is returned if the
        file has no orientation or a damaged one.
    """
    try:
        data = read_bytes(path, None, max_file_size())
        form = image_format(data)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(io.BytesIO(data), formats=[form] if form else []) as img:
                value = img.getexif().get(_TAG, 1)
    # Pillow's plug-ins raise exceptions of any type for malformed files. Whether the pixels can be
    # read is another question, which read_image_uint8 answers.
    except Exception:
        return 1
    return value if value in range(1, 9) else 1


def turn_upright(img: np.ndarray, orientation: int) -> np.ndarray:
    """Turn and mirror the pixels of an image as an EXIF orientation says.

    Args:
        img (array): :math:`(H, W, 3)`.
        orientation (int): From 1 to 8.

    Returns:
        array: :math:`(H, W, 3)`, or :math:`(W, H, 3)` for orientations 5 to 8; contiguous.
    """
    # The first row and the first column of the stored pixels, as they are to be seen:
    # 1 top left, 2 top right, 3 bottom right, 4 bottom left,
    # 5 left top, 6 right top, 7 right bottom, 8 left bottom.
    if orientation >= 5:
        img = img.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        img = img[::-1]
    if orientation in (2, 3, 6, 7):
        img = img[:, ::-1]
    return np.ascontiguousarray(img)


def read_photograph(path: str | os.PathLike, exif: bool = True) -> np.ndarray:
    """Read an image file in the format of ChainerCV, upright.

    Args:
        path (path): JPEG, PNG, WebP, BMP, TIFF or GIF.
        exif (bool): Whether to turn the image as its EXIF orientation says. Boxes of Open Images
            refer to the image without that.

    Returns:
        array: uint8 :math:`(3, H, W)`, RGB.

    Raises:
        InputError: The file is missing, truncated or not an image.
    """
    img = read_image_uint8(path)
    if exif:
        img = turn_upright(img, exif_orientation(path))
    return np.ascontiguousarray(img.transpose(2, 0, 1))
