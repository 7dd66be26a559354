"""Global sequences of images.

A sampler maps a position in the global order to an image. Position alone decides, so that any
number of ranks can share one sequence and a run can be resumed anywhere in it.
"""

import functools

import numpy as np


class SequentialSampler:
    """Every image once an epoch, in an order drawn anew each epoch.

    "Sampling training images in sequence without replacement" (Concurrent softmax, section 4.2),
    the non-balance strategy.

    Args:
        n_image (int): Number of images.
        seed (int): Of the orders.
    """

    def __init__(self, n_image: int, seed: int):
        if n_image < 1:
            raise ValueError('a sampler needs at least one image')
        self.n_image = n_image
        self.seed = seed
        # Prefetching crosses the border between epochs, back and forth.
        self._order = functools.lru_cache(maxsize=2)(self._order)

    def _order(self, epoch: int) -> np.ndarray:
        dtype = np.int32 if self.n_image < 2 ** 31 else np.int64
        return np.random.default_rng((self.seed, epoch)).permutation(
            np.arange(self.n_image, dtype=dtype))

    def __len__(self) -> int:
        """Positions in an epoch."""
        return self.n_image

    def __getitem__(self, position: int) -> int:
        """The image at a position, which may be of any epoch."""
        epoch, place = divmod(position, self.n_image)
        return int(self._order(epoch)[place])
