"""How many images could not be read, and when they are too many."""

import copy
from collections.abc import Sequence

from pfdet.errors import InputError


class CorruptImages:
    """Images that were missing, damaged, or of another size than when the index was built.

    A few of millions need not end a run, but half of them say that a disk or a path is wrong.

    Args:
        max_share (float): The share of all images, in [0, 1], that may be corrupt.
        least (int): It takes so many corrupt images to be too many: a share of few images says
            little.
        n_first (int): How many of them are remembered.

    Attributes:
        n_image (int): Images read or tried. Count what was read with ``n_image += 1``.
        n_corrupt (int): Those that could not be read.
        first (list): Place, which is what :meth:`add` was given, and message of the first of
            those, by place.
    """

    def __init__(self, max_share: float = 0.01, least: int = 20, n_first: int = 5):
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_share must be in [0, 1], not {max_share}')
        self.max_share = max_share
        self.least = least
        self.n_first = n_first
        self.n_image = 0
        self.n_corrupt = 0
        self.first: list[tuple[int, str]] = []

    def add(self, place: int, error: InputError) -> None:
        """Count an image that could not be read.

        Args:
            place (int): What the first ones are remembered by, such as a position in the global
                order, so that they are the same on any number of ranks.
            error (InputError): What reading it raised; the message names the file.
        """
        self.n_image += 1
        self.n_corrupt += 1
        self._remember([(place, str(error))])

    def _remember(self, more: Sequence[tuple[int, str]]) -> None:
        self.first = sorted(self.first + list(more))[: self.n_first]

    def merge(self, n_image: int, n_corrupt: int, first: Sequence[tuple[int, str]]) -> None:
        """Add what others have counted."""
        self.n_image += n_image
        self.n_corrupt += n_corrupt
        self._remember(first)

    def take(self) -> 'CorruptImages':
        """Return what was counted since the last call."""
        taken = copy.copy(self)
        self.n_image, self.n_corrupt, self.first = 0, 0, []
        return taken

    def check(self) -> None:
        """Refuse to go on when there are too many.

        Raises:
            InputError: More than the share allowed, and at least the least number, are corrupt.
        """
        if self.n_corrupt >= self.least and self.n_corrupt > self.max_share * self.n_image:
            raise InputError(f'{self}; expected at most {100 * self.max_share:g} %')

    def __str__(self) -> str:
        """One line; ``'0 of 5 images cannot be read (0 %)'``, and the first of them."""
        share = 100 * self.n_corrupt / max(1, self.n_image)
        text = f'{self.n_corrupt:,} of {self.n_image:,} images cannot be read ({share:.2g} %)'
        shown = '; '.join(message for _, message in self.first)
        more = '; ...' if self.n_corrupt > len(self.first) else ''
        return f'{text}: {shown}{more}' if self.first else text
