"""Reading image files, and their sizes without decoding them.

Open Images' boxes refer to the pixels as they are stored: its rotation table gives the angle by
which "the image and boxes should be rotated" to stand upright. So the EXIF orientation of a file
is ignored, both for the size and when decoding.
"""

import io
import os
import struct
import warnings

import cv2
import numpy as np
import PIL.Image

from pfdet.errors import InputError

_JPEG_START = b'\xff\xd8'
_JPEG_END = b'\xff\xd9'
_PNG_START = b'\x89PNG'
_DECODE_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_image(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as ChainerCV has images.

    Args:
        path (path): JPEG, PNG or another format OpenCV or Pillow knows.

    Returns:
        array: float32 ``(3, H, W)``, RGB, values in [0, 255]; grey images have three equal
        channels. EXIF orientation is ignored (see the module's docstring).

    Raises:
        InputError: If the file is missing, truncated or no image.
    """
    return to_chw(read_image_uint8(path))


def to_chw(img: np.ndarray) -> np.ndarray:
    """Turn uint8 ``(H, W, 3)`` into float32 ``(3, H, W)``."""
    return img.transpose(2, 0, 1).astype(np.float32, order='C')


def read_image_uint8(path: str | os.PathLike) -> np.ndarray:
    """Read an image file as bytes, for resizing before the conversion to float.

    Args:
        path (path): As in :func:`read_image`.

    Returns:
        array: uint8 ``(H, W, 3)``, RGB, contiguous. EXIF orientation is ignored.

    Raises:
        InputError: If the file is missing, truncated or no image.
    """
    data = _read_bytes(path)
    if not data:
        raise InputError(f'{path}: empty file; expected an image')
    if not _has_end(data):
        # OpenCV fills what is missing with grey and says nothing; Pillow is strict. Bytes after
        # the end of a complete image pass here.
        _decode_by_pillow(data, path)
    try:
        img = cv2.imdecode(np.frombuffer(data, np.uint8), _DECODE_FLAGS)
    except cv2.error:
        img = None
    if img is None:
        return _decode_by_pillow(data, path)
    return cv2.cvtColor(img, cv2.COLOR_BGR2RGB)


def _read_bytes(path: str | os.PathLike) -> bytes:
    try:
        with open(path, 'rb', buffering=0) as f:
            return f.readall()
    except (OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the image: {getattr(e, "strerror", None) or e}') from e


def _has_end(data: bytes) -> bool:
    """Say whether the data end as their format ends; inside a JPEG's scan no end marker occurs."""
    if data.startswith(_JPEG_START):
        return data.endswith(_JPEG_END)
    if data.startswith(_PNG_START):
        return data[-8:-4] == b'IEND'
    return False


def _decode_by_pillow(data: bytes, path: str | os.PathLike) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(io.BytesIO(data)) as img:
                return np.array(img.convert('RGB'))
    # Pillow's plug-ins raise whatever a malformed file makes them raise.
    except Exception as e:
        raise InputError(f'{path}: expected a complete image, but {_reason(e)}') from e


def _reason(e: Exception) -> str:
    if isinstance(e, PIL.UnidentifiedImageError):
        return 'the format is not one OpenCV or Pillow knows'
    return f'{type(e).__name__}: {e}' if str(e) else type(e).__name__


def image_size(path: str | os.PathLike) -> tuple[int, int]:
    """Read the size of an image from the head of its file.

    Args:
        path (path): An image file.

    Returns:
        tuple: ``(H, W)`` in pixels, as :func:`read_image` decodes it.

    Raises:
        InputError: If the file is missing or the head is not an image's.
    """
    try:
        with open(path, 'rb', buffering=0) as f:
            size = _jpeg_size(f.read(16384))
    except (OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the image: {getattr(e, "strerror", None) or e}') from e
    if size is not None:
        return size
    try:
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            with PIL.Image.open(path) as img:
                return img.height, img.width
    except Exception as e:
        raise InputError(f'{path}: expected an image, but {_reason(e)}') from e


def _jpeg_size(head: bytes) -> tuple[int, int] | None:
    """Follow a JPEG's segments to its frame header; None if it is no JPEG or lies further on."""
    if not head.startswith(_JPEG_START):
        return None
    at = len(_JPEG_START)
    while at + 9 <= len(head):
        if head[at] != 0xFF:
            return None
        marker = head[at + 1]
        if marker == 0xFF:
            at += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from('>HH', head, at + 5)
            return (height, width) if height and width else None
        elif marker in (0xD9, 0xDA):
            return None
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:
            at += 2
        else:
            at += 2 + struct.unpack_from('>H', head, at + 2)[0]
    return None
