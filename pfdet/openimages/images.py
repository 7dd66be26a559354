"""Read and resize images, and read image sizes without decoding.

The boxes of Open Images refer to the stored pixels: its rotation table gives the angle by which
"the image and boxes should be rotated" to stand upright. So the EXIF orientation is ignored, both
for the size and for decoding.

All images are converted to 8-bit RGB. Grey values are repeated and palettes are resolved. CMYK is
assumed to be inverted, as Adobe writes it, and converted without its ICC profile. Of 16-bit values
the upper eight bits are kept. Alpha channels are dropped.

A file is opened as what its first bytes say, whatever its name, and only within the limits of
:mod:`pfdet.openimages.image_limits`.
"""

import contextlib
import io
import os
import struct
import warnings
from collections.abc import Iterator

import cv2
import numpy as np
import PIL.Image

from pfdet.errors import InputError
from pfdet.files.reading import reason
from pfdet.files.regular import read_bytes
from pfdet.openimages.image_limits import (
    FORMATS,
    check_effort,
    check_size,
    image_format,
    max_file_size,
    too_many_pixels,
)
from pfdet.openimages.resizing import resized_size

_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_TIFF_ORIENTATION = 0x0112
_DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file in the format of ChainerCV.

    Args:
        path (path): JPEG, PNG, WebP, BMP, TIFF or GIF.

    Returns:
        array: float32 ``(3, H, W)``, RGB, values in [0, 255]. Grey images have three equal
        channels. EXIF orientation is ignored (see the module's docstring).

    Raises:
        InputError: If the file is missing, truncated or not an image.
    """
    return to_chw(read_image_uint8(path))


def to_chw(img: np.ndarray) -> np.ndarray:
    """Convert uint8 ``(H, W, 3)`` to float32 ``(3, H, W)``."""
    return img.transpose(2, 0, 1).astype(np.float32, order='C')


def resize(img: np.ndarray, min_size: int, max_size: int) -> np.ndarray:
    """Resize an image to the size of :func:`resized_size`.

    Args:
        img (array): uint8 :math:`(H, W, 3)`.
        min_size (int): Length of the shorter edge in pixels.
        max_size (int): Maximum length of the longer edge in pixels.

    Returns:
        array: uint8 :math:`(H', W', 3)`.
    """
    return resize_to(img, resized_size(img.shape[:2], min_size, max_size))


def resize_to(img: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize an image to a given size.

    Args:
        img (array): uint8 :math:`(H, W, 3)`.
        size (pair of int): :math:`(H', W')` in pixels.

    Returns:
        array: uint8 :math:`(H', W', 3)`.
    """
    H, W = size
    # Area averaging keeps thin structures when shrinking. It does not suit enlarging.
    shrinks = H <= img.shape[0] and W <= img.shape[1]
    return cv2.resize(img, (W, H), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def read_image_uint8(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as uint8.

    Args:
        path (path): As in :func:`read_image`.

    Returns:
        array: uint8 ``(H, W, 3)``, RGB, contiguous. EXIF orientation is ignored.

    Raises:
        InputError: If the file is missing, truncated or not an image.
    """
    return read_reduced(path, None)[0]


def read_reduced(
    path: str | os.PathLike, target_size: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image file, at a reduced size where that is faster.

    A JPEG can be decoded at 1/2, 1/4 or 1/8 of its height and width, by ignoring the high
    frequencies of each block. Other formats are decoded at their stored size.

    Args:
        path (path): As in :func:`read_image`.
        target_size (pair of int): Height and width in pixels to which the image will be resized.
            The result is at least as large, unless the stored image is smaller. :obj:`None` reads
            the image at its stored size.

    Returns:
        tuple: The image, uint8 ``(h, w, 3)``, RGB, and its stored size ``(H, W)`` in pixels.
        ``h`` and ``w`` are ``H`` and ``W`` divided by the same factor and rounded. The rounding
        moves nothing by more than a quarter of a pixel of the resized image.

    Raises:
        InputError: If the file is missing, truncated or not an image.
    """
    data = _read(path)
    form = _known_format(data, path)
    size = _stored_size(data, form, path)
    if form == 'JPEG':
        check_effort(path, data, size)
    if not _has_end(data, form):
        # OpenCV silently fills missing pixels with grey. Pillow raises an error. Trailing bytes
        # after a complete image are accepted.
        with _opened_with_pillow(data, form, path) as img:
            img.load()
    # For other formats OpenCV would decode the whole image and then resize it.
    factor = _reduction(size, target_size) if form == 'JPEG' else 1
    try:
        img = cv2.imdecode(
            np.frombuffer(data, np.uint8), _DECODE_FLAGS[factor] | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        img = None
    if img is not None and img.shape[:2] == (-(-size[0] // factor), -(-size[1] // factor)):
        # OpenCV rounds up. The extra row or column is from blocks that the image does not fill.
        img = img[: round(size[0] / factor), : round(size[1] / factor)]
        return cv2.cvtColor(img, cv2.COLOR_BGR2RGB), size
    with _opened_with_pillow(data, form, path) as opened:
        img = np.array(opened.convert('RGB'))
    if img.shape[:2] != size:
        raise InputError(
            f'{path}: expected {size[0]} x {size[1]} pixels, as in the file header, '
            f'got {img.shape[0]} x {img.shape[1]}'
        )
    return img, size


def _reduction(size: tuple[int, int], target_size: tuple[int, int] | None) -> int:
    """Largest factor at which the image stays large enough and rounding moves little."""
    if target_size is not None:
        for factor in 8, 4, 2:
            if all(
                stored >= factor * target
                and abs(round(stored / factor) * factor - stored) * target <= stored / 4
                for stored, target in zip(size, target_size, strict=True)
            ):
                return factor
    return 1


def _read(path: str | os.PathLike, n_byte: int | None = None) -> bytes:
    try:
        data = read_bytes(path, n_byte, max_file_size())
    except (OSError, ValueError) as e:
        raise InputError(f'{path}: cannot read the image: {reason(e)}') from e
    if not data:
        raise InputError(f'{path}: empty file; expected an image')
    return _with_stored_orientation(data)


def _with_stored_orientation(data: bytes) -> bytes:
    """Replace the orientation of a TIFF file by that of its stored pixels.

    Decoders apply it without being asked, and not all of them the same orientations.
    """
    order = {b'II*\0': '<', b'MM\0*': '>'}.get(data[:4])
    if order is None:
        return data
    try:
        (directory,) = struct.unpack_from(f'{order}I', data, 4)
        (n_entry,) = struct.unpack_from(f'{order}H', data, directory)
        for entry in range(directory + 2, directory + 2 + 12 * n_entry, 12):
            if struct.unpack_from(f'{order}H', data, entry)[0] == _TIFF_ORIENTATION:
                upright = struct.pack(f'{order}HIHH', 3, 1, 1, 0)
                return data[: entry + 2] + upright + data[entry + 12 :]
    except struct.error:
        # Only a part of the file, or a damaged one, which decoding will tell.
        pass
    return data


def _known_format(data: bytes, path: str | os.PathLike) -> str:
    form = image_format(data)
    if form is None:
        raise InputError(f'{path}: expected an image in one of the formats {", ".join(FORMATS)}')
    return form


def _has_end(data: bytes, form: str) -> bool:
    """Whether the file ends as a complete image; false for formats in which nothing says so."""
    if form == 'JPEG':
        # Scans cannot contain this marker.
        return data.endswith(_JPEG_END)
    if form == 'PNG':
        return data[-8:-4] == b'IEND'
    if form == 'WEBP':
        return len(data) >= 8 + int.from_bytes(data[4:8], 'little')
    return False


@contextlib.contextmanager
def _opened_with_pillow(
    data: bytes, form: str, path: str | os.PathLike
) -> Iterator[PIL.Image.Image]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(io.BytesIO(data), formats=[form]) as img:
                yield img
    except PIL.Image.DecompressionBombError as e:
        raise too_many_pixels(path, str(e).partition('(')[2].partition(' ')[0]) from e
    # Pillow's plug-ins raise exceptions of any type for malformed files.
    except Exception as e:
        raise InputError(f'{path}: expected a complete image, but {_reason(e)}') from e


def _reason(e: Exception) -> str:
    if isinstance(e, PIL.UnidentifiedImageError):
        return 'its header is damaged'
    return reason(e)


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read the size of an image from the header of its file.

    Args:
        path (path): An image file.

    Returns:
        tuple: ``(H, W)`` in pixels, as :func:`read_image` decodes it.

    Raises:
        InputError: If the file is missing or has no image header.
    """
    head = _read(path, 16384)
    form = _known_format(head, path)
    if _jpeg_size(head) is None:
        # The frame header follows a long profile or thumbnail, or the file is not a JPEG.
        head = _read(path)
    return _stored_size(head, form, path)


def _stored_size(data: bytes, form: str, path: str | os.PathLike) -> tuple[int, int]:
    """Read ``(H, W)`` from the start of a file; a JPEG is needed up to its frame header."""
    size = _jpeg_size(data)
    if size is None:
        with _opened_with_pillow(data, form, path) as img:
            size = img.height, img.width
    check_size(path, size)
    return size


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Read ``(H, W)`` from a JPEG's frame header; None if there is none in ``head``."""
    if not head.startswith(_JPEG_START):
        return None
    # Skip from segment to segment.
    position = len(_JPEG_START)
    while position + 9 <= len(head):
        if head[position] != 0xFF:
            return None
        marker = head[position + 1]
        if marker == 0xFF:
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from('>HH', head, position + 5)
            return (height, width) if height and width else None
        elif marker in (0xD9, 0xDA):
            return None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            position += 2
        else:
            position += 2 + struct.unpack_from('>H', head, position + 2)[0]
    return None
