"""Replacements of packages and of a C extension that Chainer and ChainerCV import."""

import importlib.metadata
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


CHAINERCV_VERSION = importlib.metadata.version('chainercv')


class ResolutionError(Exception):
    """A package is missing or has another version. Named as in ``pkg_resources``."""


class WorkingSet:
    """The part of ``pkg_resources.WorkingSet`` that ``chainer.testing`` uses."""

    def require(self, *requirements: str) -> None:
        """Check requirements.

        Args:
            requirements (str): Requirements such as ``'numpy>=1.10'``.

        Raises:
            ResolutionError: A requirement is not met.
        """
        from packaging.requirements import Requirement

        for requirement in map(Requirement, requirements):
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError as e:
                raise ResolutionError(f'{requirement.name} is not installed') from e
            if not requirement.specifier.contains(version, prereleases=True):
                raise ResolutionError(f'{requirement}: {version} is installed')


def strtobool(value: str) -> int:
    """Parse a truth value like ``distutils.util.strtobool``.

    Args:
        value (str): For example ``'yes'``, ``'on'``, ``'1'``, ``'no'``, ``'off'`` or ``'0'``.

    Returns:
        int: 1 for true, 0 for false.

    Raises:
        ValueError: The value is neither.
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
    """Select boxes greedily from a suppression mask.

    This is the second half of ChainerCV's non-maximum suppression on GPU. Its kernel compares all
    pairs of boxes, which are sorted by descending score. The selection runs on the CPU.

    Args:
        mask (uint64 array): Suppression mask of shape ``(R * col_blocks,)``. Bit b of word j in
            row i is set if box i suppresses box ``64 j + b``. Only bits of later boxes are set.
        n_bbox (int): Number of boxes, R.
        threads_per_block (int): Bits per word: 64.
        col_blocks (int): Words per row.

    Returns:
        tuple of array and int: Indices of the selected boxes, int32 of shape ``(R,)`` padded with
        zeros; and the number of selected boxes.

    Raises:
        ValueError: ``threads_per_block`` is not 64.
    """
    import numpy as np

    if threads_per_block != 64:
        raise ValueError(f'threads_per_block is {threads_per_block}, expected 64 bits per word')
    rows = mask.astype('<u8', copy=False).reshape(n_bbox, col_blocks)
    selection = np.zeros(n_bbox, dtype=np.int32)
    n_selection = 0
    # Rows as Python integers: faster than NumPy for testing a bit and merging two rows.
    suppressed = 0
    for i in range(n_bbox):
        if not suppressed >> i & 1:
            selection[n_selection] = i
            n_selection += 1
            suppressed |= int.from_bytes(rows[i].tobytes(), 'little')
    return selection, n_selection
