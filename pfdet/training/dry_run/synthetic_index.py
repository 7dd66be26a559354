"""A synthetic training set, and noise in place of missing image files, for dry runs.

Every rank generates the same data from a seed. So no files and no shared directory are needed.
"""

import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resized_size

if TYPE_CHECKING:
    from pfdet.openimages.dataset import OpenImagesDataset

# Height and width in pixels of most images in Open Images.
_SIZES = np.array([(768, 1024), (1024, 768), (683, 1024), (1024, 683), (1024, 1024), (576, 1024)])


def synthetic_index(n_image: int, seed: int = 0) -> AnnotationIndex:
    """Generate an index in memory with random boxes, and the challenge's classes and hierarchy.

    The frequency of class ``k`` is proportional to :math:`1 / (k + 1)`, a long-tailed distribution.
    There are no image files.

    Args:
        n_image (int): Number of images.
        seed (int): Seed of the boxes and labels.
    """
    classes, rng = challenge_classes(), np.random.default_rng((seed, 3))
    n_object = rng.integers(1, 6, n_image)
    object_offsets = np.concatenate([[0], np.cumsum(n_object)]).astype(np.int32)
    n = int(object_offsets[-1])
    low = rng.random((n, 2)) * 0.6
    high = low + 0.1 + rng.random((n, 2)) * (0.9 - low)
    share = 1 / np.arange(1, len(classes) + 1)
    label = rng.choice(len(classes), n, p=share / share.sum()).astype(np.int16)
    verified = [np.unique(label[a:b]) for a, b in zip(object_offsets, object_offsets[1:])]
    ids = [f'{i:016x}'.encode() for i in range(n_image)]
    columns = {
        'id_offsets': np.arange(0, 16 * n_image + 1, 16, dtype=np.int32),
        'id_bytes': np.frombuffer(b''.join(ids), np.uint8),
        'image_size': _SIZES[rng.integers(0, len(_SIZES), n_image)].astype(np.int32),
        'image_suffix': np.zeros(n_image, np.uint8),
        'object_offsets': object_offsets,
        'bbox': np.concatenate([low, high], axis=1).astype(np.float32),
        'flags': np.zeros(n, np.uint8),
        'label_offsets': np.arange(n + 1, dtype=np.int32),
        'label': label,
        'positive_offsets': np.concatenate([[0], np.cumsum([len(v) for v in verified])]).astype(
            np.int32
        ),
        'positive': np.concatenate(verified),
        'negative_offsets': np.zeros(n_image + 1, np.int32),
        'negative': np.zeros(0, np.int16),
    }
    return AnnotationIndex(
        Path('synthetic.index'),
        Path('synthetic'),
        columns,
        {
            'mids': classes.mids,
            'names': classes.names,
            'suffixes': ['.jpg'],
            'counts': {},
            'ancestors': np.argwhere(challenge_hierarchy().ancestors),
        },
    )


class ImagesOrNoise:
    """The images of an index, with noise of the same size in place of missing files.

    It replaces :class:`~pfdet.openimages.dataset.OpenImagesDataset` in a
    :class:`~pfdet.training.transforms.TrainLoader`.

    Args:
        index (AnnotationIndex): The annotations.

    Attributes:
        n_read, n_noise (int): Number of images read, and of images replaced by noise.
    """

    def __init__(self, index: AnnotationIndex) -> None:
        self.index = index
        self.n_read = self.n_noise = 0
        self._lock = threading.Lock()

    def get_resized(self, i: int, min_size: int, max_size: int) -> np.ndarray:
        """Read and resize an image, or generate noise of the resized size.

        See :meth:`~pfdet.openimages.dataset.OpenImagesDataset.get_resized`.

        Raises:
            InputError: The file exists but cannot be read.
        """
        if self._exists(i):
            return self._dataset().get_resized(i, min_size, max_size)
        return _noise(i, resized_size(self.get_size(i), min_size, max_size))

    def get_part(
        self, i: int, part: tuple[int, int, int, int], size: tuple[int, int]
    ) -> np.ndarray:
        """Read and resize a part of an image, or generate noise of the resized size.

        See :meth:`~pfdet.openimages.dataset.OpenImagesDataset.get_part`.

        Raises:
            InputError: The file exists but cannot be read.
        """
        if self._exists(i):
            return self._dataset().get_part(i, part, size)
        return _noise(i, size)

    def get_size(self, i: int) -> tuple[int, int]:
        """Return ``(H, W)`` of an image in pixels, or a typical size if it is not known."""
        if self.index.image_size(i) == (0, 0) and not self.index.image_path(i).exists():
            return tuple(_SIZES[0].tolist())
        return self._dataset().get_size(i)

    def _dataset(self) -> 'OpenImagesDataset':
        from pfdet.openimages.dataset import OpenImagesDataset

        return OpenImagesDataset(self.index)

    def _exists(self, i: int) -> bool:
        exists = self.index.image_path(i).exists()
        with self._lock:
            self.n_read += exists
            self.n_noise += not exists
        return exists


def _noise(i: int, size: tuple[int, int]) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (*size, 3), np.uint8)
