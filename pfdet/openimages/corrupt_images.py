"""Count images that cannot be read, and fail if there are too many."""

import copy
from collections.abc import Sequence

from pfdet.errors import InputError


class CorruptImages:
    """Counts of images that are missing, damaged, or of another size than in the index.

    A run tolerates a few corrupt images among millions. A large share indicates a broken disk or a
    wrong path.

    Args:
        max_share (float): Maximum share of corrupt images, in [0, 1].
        min_count (int): Minimum number of corrupt images for an error. Fewer are always tolerated,
            because their share is not significant.
        n_first (int): Maximum length of ``first``.

    Attributes:
        n_image (int): Number of images read, including the corrupt ones. The caller adds 1 for
            each image that it could read.
        n_corrupt (int): Number of images that could not be read.
        first (list): ``(position, message)`` of the corrupt images with the lowest positions.

    Raises:
        ValueError: If ``max_share`` is not in [0, 1].
    """

    def __init__(self, max_share: float = 0.01, min_count: int = 20, n_first: int = 5):
        if not 0 <= max_share <= 1:
            raise ValueError(f'max_share must be in [0, 1], not {max_share}')
        self.max_share = max_share
        self.min_count = min_count
        self.n_first = n_first
        self.n_image = 0
        self.n_corrupt = 0
        self.first: list[tuple[int, str]] = []

    def add(self, position: int, error: InputError) -> None:
        """Count an image that could not be read.

        Args:
            position (int): Position of the image in the global order. ``first`` is sorted by it,
                so that it does not depend on the number of ranks.
            error (InputError): Raised when reading the image. Its message names the file.
        """
        self.n_image += 1
        self.n_corrupt += 1
        self._add_first([(position, str(error))])

    def _add_first(self, first: Sequence[tuple[int, str]]) -> None:
        self.first = sorted(self.first + list(first))[: self.n_first]

    def merge(self, n_image: int, n_corrupt: int, first: Sequence[tuple[int, str]]) -> None:
        """Add the counts of another rank or process.

        Args:
            n_image (int): Its ``n_image``.
            n_corrupt (int): Its ``n_corrupt``.
            first (sequence): Its ``first``.
        """
        self.n_image += n_image
        self.n_corrupt += n_corrupt
        self._add_first(first)

    def take(self) -> 'CorruptImages':
        """Return the counts since the last call, and reset them."""
        taken = copy.copy(self)
        self.n_image, self.n_corrupt, self.first = 0, 0, []
        return taken

    def check(self) -> None:
        """Raise an error if there are too many corrupt images.

        Raises:
            InputError: If their share is above ``max_share``, and there are at least ``min_count``.
        """
        if self.n_corrupt >= self.min_count and self.n_corrupt > self.max_share * self.n_image:
            raise InputError(f'{self}; expected at most {100 * self.max_share:g} %')

    def __str__(self) -> str:
        """One line, such as ``'0 of 5 images cannot be read (0 %)'``, with the first messages."""
        share = 100 * self.n_corrupt / max(1, self.n_image)
        text = f'{self.n_corrupt:,} of {self.n_image:,} images cannot be read ({share:.2g} %)'
        shown = '; '.join(message for _, message in self.first)
        more = '; ...' if self.n_corrupt > len(self.first) else ''
        return f'{text}: {shown}{more}' if self.first else text
