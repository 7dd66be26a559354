"""Read and resize images, and read image sizes without decoding.

The boxes of Open Images refer to the stored pixels: its rotation table gives the angle by which
"the image and boxes should be rotated" to stand upright. So the EXIF orientation is ignored, both
for the size and for decoding.

All images are converted to 8-bit RGB. Grey values are repeated and palettes are resolved. CMYK is
assumed to be inverted, as Adobe writes it, and converted without its ICC profile. Of 16-bit values
the upper eight bits are kept. Alpha channels are dropped.
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
from pfdet.openimages.resizing import resized_size

# A larger size is taken as a damaged header, before memory is allocated. Pillow has the same limit.
MAX_PIXEL = 178_956_970

_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG'
_DECODE_FLAGS = {
    1: cv2.IMREAD_COLOR,
    2: cv2.IMREAD_REDUCED_COLOR_2,
    4: cv2.IMREAD_REDUCED_COLOR_4,
    8: cv2.IMREAD_REDUCED_COLOR_8,
}


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file in the format of ChainerCV.

    Args:
        path (path): JPEG, PNG or another format that OpenCV or Pillow supports.

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
    data = _read_bytes(path)
    size = _stored_size(data, path)
    if not _has_end(data):
        # OpenCV silently fills missing pixels with grey. Pillow raises an error. Trailing bytes
        # after a complete image are accepted.
        _decode_with_pillow(data, path)
    # For other formats OpenCV would decode the whole image and then resize it.
    factor = _reduction(size, target_size) if data.startswith(_JPEG_START) else 1
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
    img = _decode_with_pillow(data, path)
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


def _read_bytes(path: str | os.PathLike, n_byte: int = -1) -> bytes:
    try:
        with open(path, 'rb', buffering=0) as f:
            return f.readall() if n_byte < 0 else f.read(n_byte)
    except (OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the image: {getattr(e, "strerror", None) or e}'
        ) from e


def _has_end(data: bytes) -> bool:
    """Whether a JPEG or PNG ends with its end marker. JPEG scans cannot contain this marker."""
    if data.startswith(_JPEG_START):
        return data.endswith(_JPEG_END)
    if data.startswith(_PNG_START):
        return data[-8:-4] == b'IEND'
    return False


def _decode_with_pillow(data: bytes, path: str | os.PathLike) -> np.ndarray:
    try:
        with _open_with_pillow(data) as img:
            return np.array(img.convert('RGB'))
    # Pillow's plug-ins raise exceptions of any type for malformed files.
    except Exception as e:
        raise InputError(f'{path}: expected a complete image, but {_reason(e)}') from e


@contextlib.contextmanager
def _open_with_pillow(data: bytes) -> Iterator[PIL.Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with PIL.Image.open(io.BytesIO(data)) as img:
            yield img


def _reason(e: Exception) -> str:
    if isinstance(e, PIL.UnidentifiedImageError):
        return 'neither OpenCV nor Pillow supports the format'
    return f'{type(e).__name__}: {e}' if str(e) else type(e).__name__


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read the size of an image from the header of its file.

    Args:
        path (path): An image file.

    Returns:
        tuple: ``(H, W)`` in pixels, as :func:`read_image` decodes it.

    Raises:
        InputError: If the file is missing or has no image header.
    """
    head = _read_bytes(path, 16384)
    if _jpeg_size(head) is None:
        # The frame header follows a long profile or thumbnail, or the file is not a JPEG.
        head = _read_bytes(path)
    return _stored_size(head, path)


def _stored_size(data: bytes, path: str | os.PathLike) -> tuple[int, int]:
    """Read ``(H, W)`` from the start of a file; a JPEG is needed up to its frame header."""
    if not data:
        raise InputError(f'{path}: empty file; expected an image')
    size = _jpeg_size(data)
    if size is None:
        try:
            with _open_with_pillow(data) as img:
                size = img.height, img.width
        except Exception as e:
            raise InputError(f'{path}: expected an image, but {_reason(e)}') from e
    if not 0 < size[0] * size[1] <= MAX_PIXEL:
        raise InputError(
            f'{path}: expected at most {MAX_PIXEL:,} pixels, got {size[0]} x {size[1]} '
            'in the file header'
        )
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
