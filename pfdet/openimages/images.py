"""Reading image files, and their sizes without decoding them.

Open Images' boxes refer to the pixels as they are stored: its rotation table gives the angle by
which "the image and boxes should be rotated" to stand upright. So the EXIF orientation of a file
is ignored, both for the size and when decoding.

What is stored otherwise becomes eight bits of red, green and blue: grey is repeated, a palette
looked up, CMYK taken as Adobe writes it (inverted) and as it stands, without its ICC profile; of
16 bits the upper eight are kept, and an alpha channel is dropped.
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

# More is taken for a damaged head, before memory is asked for; it is Pillow's limit too.
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
    return read_reduced(path, None)[0]


def read_reduced(
    path: str | os.PathLike, least_size: tuple[int, int] | None
) -> tuple[np.ndarray, tuple[int, int]]:
    """Read an image file in reduced size, where that is less work.

    A JPEG can be decoded at a half, a quarter or an eighth of its height and width by leaving out
    the high frequencies of each block.

    Args:
        path (path): As in :func:`read_image`.
        least_size (pair of int): Height and width that the image must have at least, if it is
            stored as large; :obj:`None` for the whole image.

    Returns:
        tuple: The image, uint8 ``(h, w, 3)``, RGB, and the size ``(H, W)`` at which it is stored:
        ``h`` and ``w`` are ``H`` and ``W`` or, rounded, the same fraction of them. Nothing in an
        image of ``least_size`` would be off by more than a quarter of a pixel from the rounding.

    Raises:
        InputError: If the file is missing, truncated or no image.
    """
    data = _read_bytes(path)
    size = _stored_size(data, path)
    if not _has_end(data):
        # OpenCV fills what is missing with grey and says nothing; Pillow is strict. Bytes after
        # the end of a complete image pass here.
        _decode_by_pillow(data, path)
    # Of other formats OpenCV decodes all, and then resizes without need.
    factor = _reduction(size, least_size) if data.startswith(_JPEG_START) else 1
    try:
        img = cv2.imdecode(
            np.frombuffer(data, np.uint8), _DECODE_FLAGS[factor] | cv2.IMREAD_IGNORE_ORIENTATION
        )
    except cv2.error:
        img = None
    if img is not None and img.shape[:2] == (-(-size[0] // factor), -(-size[1] // factor)):
        # What was rounded up is an edge of blocks that the image does not fill.
        img = img[: round(size[0] / factor), : round(size[1] / factor)]
        return cv2.cvtColor(img, cv2.COLOR_BGR2RGB), size
    img = _decode_by_pillow(data, path)
    if img.shape[:2] != size:
        raise InputError(
            f'{path}: expected {size[0]} x {size[1]} pixels, as the head of the file '
            f'says, but it holds {img.shape[0]} x {img.shape[1]}'
        )
    return img, size


def _reduction(size: tuple[int, int], least_size: tuple[int, int] | None) -> int:
    """The greatest reduction that leaves at least a size, and everything in its place."""
    if least_size is not None:
        for factor in 8, 4, 2:
            if all(
                stored >= factor * least
                and abs(round(stored / factor) * factor - stored) * least <= stored / 4
                for stored, least in zip(size, least_size, strict=True)
            ):
                return factor
    return 1


def _read_bytes(path: str | os.PathLike, at_most: int = -1) -> bytes:
    try:
        with open(path, 'rb', buffering=0) as f:
            return f.readall() if at_most < 0 else f.read(at_most)
    except (OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the image: {getattr(e, "strerror", None) or e}'
        ) from e


def _has_end(data: bytes) -> bool:
    """Say whether the data end as their format ends; inside a JPEG's scan no end marker occurs."""
    if data.startswith(_JPEG_START):
        return data.endswith(_JPEG_END)
    if data.startswith(_PNG_START):
        return data[-8:-4] == b'IEND'
    return False


def _decode_by_pillow(data: bytes, path: str | os.PathLike) -> np.ndarray:
    try:
        with _opened_by_pillow(data) as img:
            return np.array(img.convert('RGB'))
    # Pillow's plug-ins raise whatever a malformed file makes them raise.
    except Exception as e:
        raise InputError(f'{path}: expected a complete image, but {_reason(e)}') from e


@contextlib.contextmanager
def _opened_by_pillow(data: bytes) -> Iterator[PIL.Image.Image]:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        with PIL.Image.open(io.BytesIO(data)) as img:
            yield img


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
    head = _read_bytes(path, 16384)
    if _jpeg_size(head) is None:
        # The frame header lies behind a long profile or thumbnail, or it is no JPEG.
        head = _read_bytes(path)
    return _stored_size(head, path)


def _stored_size(data: bytes, path: str | os.PathLike) -> tuple[int, int]:
    """Read ``(H, W)`` from the beginning of a file, of which a JPEG's frame header is enough."""
    if not data:
        raise InputError(f'{path}: empty file; expected an image')
    size = _jpeg_size(data)
    if size is None:
        try:
            with _opened_by_pillow(data) as img:
                size = img.height, img.width
        except Exception as e:
            raise InputError(f'{path}: expected an image, but {_reason(e)}') from e
    if not 0 < size[0] * size[1] <= MAX_PIXEL:
        raise InputError(
            f'{path}: expected at most {MAX_PIXEL:,} pixels, but the head of the file '
            f'says {size[0]} x {size[1]}'
        )
    return size


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
