"""Which image files are decoded: formats by their first bytes, and limits on size and effort."""

import functools
import os
import re

import PIL.Image

from pfdet.errors import InputError

# The environment variable with another limit on the pixels of an image.
VARIABLE = 'PFDET_MAX_PIXELS'
# Pillow's own limit.
_MAX_PIXEL = 178_956_970
# No format needs more for a pixel than four channels of 16 bits, nor much more besides.
_BYTES_A_PIXEL = 8
_BYTES_BESIDES = 1 << 26

# Names of Pillow and first bytes. Other formats are refused: for some, such as EPS, Pillow starts
# another program, and others are decoded by large libraries that few people test.
_STARTS = {
    'JPEG': rb'\xff\xd8',
    'PNG': rb'\x89PNG',
    'WEBP': rb'RIFF....WEBP',
    'BMP': rb'BM',
    'TIFF': rb'II\*\0|MM\0\*|II\+\0|MM\0\+',
    'GIF': rb'GIF8[79]a',
}
FORMATS = tuple(_STARTS)
_START = re.compile(
    b'|'.join(b'(?P<%b>%b)' % (name.encode(), start) for name, start in _STARTS.items()), re.DOTALL
)

_START_OF_SCAN = b'\xff\xda'
# Usual progressive JPEGs have about ten.
_MAX_SCAN = 100
# Pixels times bytes of a file. Below, counting scans would take longer than it could save.
_UNCOUNTED = 10**12


def image_format(data: bytes) -> str | None:
    """Find the format of an image file from its first bytes.

    Args:
        data (bytes): The file, or its first 16 bytes.

    Returns:
        str: One of :data:`FORMATS`, or :obj:`None`.
    """
    match = _START.match(data)
    return match and match.lastgroup


@functools.cache
def max_pixel() -> int:
    """The largest number of pixels of an image that is decoded.

    A larger number in the header of a file is taken as damage, or as an attempt to fill the memory.
    It is ``$PFDET_MAX_PIXELS``, by default 178,956,970. It is read once.

    Raises:
        InputError: The variable is not a number from 1.
    """
    text = os.environ.get(VARIABLE, '')
    if not text:
        return _MAX_PIXEL
    if not (text.isascii() and text.isdecimal() and 0 < len(text) < 19 and int(text)):
        raise InputError(f'{VARIABLE}={text[:40]}: expected a number of pixels from 1')
    limit = int(text)
    if limit > _MAX_PIXEL:
        # Pillow refuses more than twice its own limit.
        PIL.Image.MAX_IMAGE_PIXELS = limit
    return limit


def max_file_size() -> int:
    """The largest size of an image file in bytes: that of :func:`max_pixel` without compression."""
    return _BYTES_A_PIXEL * max_pixel() + _BYTES_BESIDES


def check_size(path: str | os.PathLike, size: tuple[int, int]) -> None:
    """Refuse an image for the size in its header.

    Args:
        path (path): The file, for the message.
        size (pair of int): Height and width in pixels.

    Raises:
        InputError: The image has no pixels, or more than :func:`max_pixel`.
    """
    if not 0 < size[0] * size[1] <= max_pixel():
        raise too_many_pixels(path, f'{size[0]} x {size[1]}')


def too_many_pixels(path: str | os.PathLike, size: str) -> InputError:
    """The error for an image whose header has no pixels, or more than :func:`max_pixel`."""
    return InputError(
        f'{path}: expected at most {max_pixel():,} pixels (${VARIABLE}), got {size} in the file '
        'header'
    )


def check_effort(path: str | os.PathLike, data: bytes, size: tuple[int, int]) -> None:
    """Refuse a JPEG whose decoding would take minutes.

    Each scan passes over all pixels, but may have as few as ten bytes. So a file of 1 MB can keep a
    processor busy for an hour.

    Args:
        path (path): The file, for the message.
        data (bytes): Its content.
        size (pair of int): Height and width in pixels.

    Raises:
        InputError: The file has more than 100 scans.
    """
    if size[0] * size[1] * len(data) > _UNCOUNTED:
        n_scan = data.count(_START_OF_SCAN)
        if n_scan > _MAX_SCAN:
            raise InputError(f'{path}: has {n_scan:,} scans; expected at most {_MAX_SCAN}')
