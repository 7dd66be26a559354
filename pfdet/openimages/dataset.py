"""The data set: images and annotations of an index, as ChainerCV has data sets."""

from collections.abc import Sequence

import numpy as np
from chainercv.chainer_experimental.datasets.sliceable import GetterDataset

from pfdet.errors import InputError
from pfdet.openimages.images import image_size, read_reduced, to_chw
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resize_to, resized_size

KEYS = ('img', 'bbox', 'label', 'flags', 'positive', 'negative', 'image_id')


class OpenImagesDataset(GetterDataset):
    """Images and annotations of an annotation index.

    Choose keys with ``dataset.slice[:, ('img', 'bbox')]`` or ``keys``; what is not asked for is
    not read. Labels are as annotated, not expanded up the hierarchy.

    ============ =================== =========== ==============================================
    key          shape               dtype       what
    ============ =================== =========== ==============================================
    ``img``      :math:`(3, H, W)`   float32     RGB, [0, 255]
    ``bbox``     :math:`(R, 4)`      float32     :math:`(y_{min}, x_{min}, y_{max}, x_{max})`,
                                                 pixels
    ``label``    :math:`(R, C)`      bool        the label set of every object
    ``flags``    :math:`(R,)`        uint8       see :mod:`pfdet.openimages.tables`
    ``positive`` :math:`(C,)`        bool        verified to be in the image, or boxed there
    ``negative`` :math:`(C,)`        bool        verified to be absent
    ``image_id``                     str
    ============ =================== =========== ==============================================

    Args:
        index (AnnotationIndex): The annotations.
        keys (str or sequence of str): Which keys, in which order. All, by default.
    """

    def __init__(self, index: AnnotationIndex, keys: str | Sequence[str] = KEYS) -> None:
        super().__init__()
        self.index = index
        self.add_getter('img', self._get_img)
        self.add_getter(('bbox', 'label', 'flags', 'positive', 'negative'), self._get_annotation)
        self.add_getter('image_id', index.image_id)
        self.keys = keys

    def __len__(self) -> int:
        return len(self.index)

    def get_image(self, i: int) -> np.ndarray:
        """Return image ``i`` as uint8 ``(H, W, 3)``, RGB, as it is stored.

        Raises:
            InputError: If the file is missing or truncated, or has another size than when the
                index was built.
        """
        return self._read(i, None)

    def get_resized(self, i: int, min_size: int, max_size: int) -> np.ndarray:
        """Return image ``i`` at the size at which the network sees it.

        The same as :func:`pfdet.openimages.resizing.resize` of :meth:`get_image`, but for rounding
        where the image is to be at most half as high and wide as it is stored: then a JPEG is
        decoded in reduced size, which is less work.

        Args:
            i (int): Which image.
            min_size, max_size (int): Pixels; see
                :func:`~pfdet.openimages.resizing.resized_size`.

        Returns:
            uint8 array: :math:`(H', W', 3)`, RGB.

        Raises:
            InputError: As :meth:`get_image`.
        """
        size = resized_size(self.get_size(i), min_size, max_size)
        return resize_to(self._read(i, size), size)

    def _read(self, i: int, least_size: tuple[int, int] | None) -> np.ndarray:
        path = self.index.image_path(i)
        img, size = read_reduced(path, least_size)
        expected = self.index.image_size(i)
        if expected not in ((0, 0), size):
            raise InputError(
                f'{path}: is {size[0]} x {size[1]} pixels, but was {expected[0]} x '
                f'{expected[1]} when {self.index.path} was built; build the index again'
            )
        return img

    def get_size(self, i: int) -> tuple[int, int]:
        """Return ``(H, W)`` of image ``i`` without decoding it."""
        size = self.index.image_size(i)
        return size if size != (0, 0) else image_size(self.index.image_path(i))

    def _get_img(self, i: int) -> np.ndarray:
        return to_chw(self.get_image(i))

    def _get_annotation(self, i: int) -> tuple[np.ndarray, ...]:
        bbox, *others = self.index.annotation(i)
        return bbox * np.array(self.get_size(i) * 2, np.float32), *others
