"""What takes the place of packages and an extension that Chainer and ChainerCV import."""

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


CHAINERCV_VERSION = importlib.metadata.version('chainercv')


class ResolutionError(Exception):
    """A package that is missing, or has another version; named as in ``pkg_resources``."""


class WorkingSet:
    """The installed packages; what ``chainer.testing`` uses of ``pkg_resources.WorkingSet``."""

    def require(self, *requirements: str) -> None:
        """Raise :class:`ResolutionError` unless every requirement, as ``numpy>=1.10``, is met."""
        from packaging.requirements import Requirement

        for requirement in map(Requirement, requirements):
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError as e:
                raise ResolutionError(f'{requirement.name} is not installed') from e
            if not requirement.specifier.contains(version, prereleases=True):
                raise ResolutionError(f'{requirement}: {version} is installed')


def strtobool(value: str) -> int:
    """1 for yes, 0 for no, as ``distutils.util.strtobool`` tells them.

    Raises:
        ValueError: If it is neither.
    """
    value = value.lower()
    if value in ('y', 'yes', 't', 'true', 'on', '1'):
        return 1
    if value in ('n', 'no', 'f', 'false', 'off', '0'):
        return 0
    raise ValueError(f'{value!r}, expected yes or no')


def select_by_mask(
    mask: 'np.ndarray', n_bbox: int, threads_per_block: int, col_blocks: int
) -> 'tuple[np.ndarray, int]':
    """Choose boxes greedily, given which boxes each of them suppresses.

    The second half of ChainerCV's non-maximum suppression on GPU, whose kernel compares all pairs
    of boxes, best score first, and leaves the choice to the CPU.

    Args:
        mask (array): uint64, of shape ``(R * col_blocks,)``. Bit b of word j in row i says that
            box i suppresses box ``64 j + b``. The kernel sets bits of later boxes only.
        n_bbox (int): The number of boxes, R.
        threads_per_block (int): Bits in a word: 64.
        col_blocks (int): Words in a row.

    Returns:
        tuple of array and int: int32 indices of shape ``(R,)``, and how many of them, from the
        first, are chosen boxes. The rest are 0.
    """
    import numpy as np

    if threads_per_block != 64:
        raise ValueError(f'threads_per_block is {threads_per_block}, expected 64: bits of a word')
    rows = mask.astype('<u8', copy=False).reshape(n_bbox, col_blocks)
    selection = np.zeros(n_bbox, dtype=np.int32)
    n_selection = 0
    # A row as one long integer: no NumPy call to test a bit or to join two rows.
    suppressed = 0
    for i in range(n_bbox):
        if not suppressed >> i & 1:
            selection[n_selection] = i
            n_selection += 1
            suppressed |= int.from_bytes(rows[i].tobytes(), 'little')
    return selection, n_selection
