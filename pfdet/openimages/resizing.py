"""The size of an image at the input of the network, without the image."""


def resized_size(size: tuple[int, int], min_size: int, max_size: int) -> tuple[int, int]:
    """Return the size whose shorter edge is ``min_size``, or whose longer edge is ``max_size``.

    The smaller of the two sizes is returned. The aspect ratio is kept.

    Args:
        size (pair of int): Height and width in pixels.
        min_size (int): Length of the shorter edge in pixels.
        max_size (int): Maximum length of the longer edge in pixels.

    Returns:
        pair of int: Height and width in pixels.
    """
    scale = min(min_size / min(size), max_size / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
