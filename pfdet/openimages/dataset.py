"""The data set: images and annotations of an index, as ChainerCV has data sets."""

from collections.abc import Sequence

import numpy as np
from chainercv.chainer_experimental.datasets.sliceable import GetterDataset

from pfdet.errors import InputError
from pfdet.openimages.images import image_size, read_image_uint8, to_chw
from pfdet.openimages.index import AnnotationIndex

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
        """Return image ``i`` as uint8 ``(H, W, 3)``, RGB: the cheap form, for resizing.

        Raises:
            InputError: If the file is missing or truncated, or has another size than when the
                index was built.
        """
        path = self.index.image_path(i)
        img = read_image_uint8(path)
        size = self.index.image_size(i)
        if size != (0, 0) and size != img.shape[:2]:
            raise InputError(
                f'{path}: is {img.shape[0]} x {img.shape[1]} pixels, but was {size[0]} x '
                f'{size[1]} when {self.index.path} was built; build the index again')
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
