"""A ChainerCV data set of the images and annotations of an annotation index."""

from collections.abc import Sequence

import numpy as np
from chainercv.chainer_experimental.datasets.sliceable import GetterDataset

from pfdet.errors import InputError
from pfdet.openimages.images import image_size, read_reduced, resize_to, to_chw
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resized_size

KEYS = ('img', 'bbox', 'label', 'flags', 'positive', 'negative', 'image_id')


class OpenImagesDataset(GetterDataset):
    """Images and annotations of an annotation index.

    Select keys with ``dataset.slice[:, ('img', 'bbox')]`` or ``keys``. Other keys are not read.
    Labels are as annotated. They are not expanded up the hierarchy.

    ============ =================== =========== ==============================================
    key          shape               dtype       format
    ============ =================== =========== ==============================================
    ``img``      :math:`(3, H, W)`   float32     RGB, [0, 255]
    ``bbox``     :math:`(R, 4)`      float32     :math:`(y_{min}, x_{min}, y_{max}, x_{max})`,
                                                 pixels
    ``label``    :math:`(R, C)`      bool        the label set of each object
    ``flags``    :math:`(R,)`        uint8       bits of :mod:`pfdet.openimages.box_flags`
    ``positive`` :math:`(C,)`        bool        classes verified as present, or with a box
    ``negative`` :math:`(C,)`        bool        classes verified as absent
    ``image_id``                     str
    ============ =================== =========== ==============================================

    Args:
        index (AnnotationIndex): The annotations.
        keys (str or sequence of str): The keys of an example, in order. All by default.
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
        """Return image ``i`` as uint8 :math:`(H, W, 3)`, RGB, at its stored size.

        Raises:
            InputError: If the file is missing or truncated, or its size differs from the size in
                the index.
        """
        return self._read(i, None)

    def get_resized(self, i: int, min_size: int, max_size: int) -> np.ndarray:
        """Return image ``i`` at the input size of the network.

        The result is :func:`pfdet.openimages.images.resize` of :meth:`get_image`. If that halves
        the size or more, a JPEG is decoded at a reduced size, which is faster and changes the
        pixels slightly.

        Args:
            i (int): Index of the image.
            min_size, max_size (int): Pixels; see
                :func:`~pfdet.openimages.resizing.resized_size`.

        Returns:
            array: uint8 :math:`(H', W', 3)`, RGB.

        Raises:
            InputError: As in :meth:`get_image`.
        """
        size = resized_size(self.get_size(i), min_size, max_size)
        return resize_to(self._read(i, size), size)

    def get_part(
        self, i: int, part: tuple[int, int, int, int], size: tuple[int, int]
    ) -> np.ndarray:
        """Return a part of image ``i``, resized.

        As in :meth:`get_resized`, a JPEG is decoded at a reduced size where that is large enough.
        The edges of the part are then rounded to pixels of the reduced size. For multiples of 8
        this moves nothing by more than a quarter of a pixel of the result.

        Args:
            i (int): Index of the image.
            part (tuple of int): ``(y_min, x_min, y_max, x_max)`` in pixels of the stored image.
            size (pair of int): Height and width of the result.

        Returns:
            array: uint8 :math:`(H', W', 3)`, RGB.

        Raises:
            InputError: As in :meth:`get_image`.
        """
        stored = self.get_size(i)
        # The size of the whole image at the scale of the result, rounded up.
        whole = tuple(
            -(-n * m // (high - low))
            for n, m, low, high in zip(stored, size, part[:2], part[2:], strict=True)
        )
        img = self._read(i, whole)
        y_min, x_min, y_max, x_max = (
            round(edge * n / m) for edge, n, m in zip(part, img.shape[:2] * 2, stored * 2)
        )
        return resize_to(img[y_min:y_max, x_min:x_max], size)

    def _read(self, i: int, target_size: tuple[int, int] | None) -> np.ndarray:
        path = self.index.image_path(i)
        try:
            img, size = read_reduced(path, target_size)
        except InputError as e:
            if not self.index.images.is_dir():
                raise InputError(
                    f'{self.index.images}: no such directory; {self.index.path} expects its images '
                    'there: move them back, or build the index again'
                ) from e
            raise
        expected = self.index.image_size(i)
        if expected not in ((0, 0), size):
            raise InputError(
                f'{path}: the image is {size[0]} x {size[1]} pixels; expected {expected[0]} x '
                f'{expected[1]}, as when {self.index.path} was built; build the index again'
            )
        return img

    def get_size(self, i: int) -> tuple[int, int]:
        """Return ``(H, W)`` of image ``i`` in pixels without decoding it.

        Raises:
            InputError: If the index has no size and the file cannot be read.
        """
        size = self.index.image_size(i)
        return size if size != (0, 0) else image_size(self.index.image_path(i))

    def _get_img(self, i: int) -> np.ndarray:
        return to_chw(self.get_image(i))

    def _get_annotation(self, i: int) -> tuple[np.ndarray, ...]:
        bbox, *others = self.index.annotation(i)
        return bbox * np.array(self.get_size(i) * 2, np.float32), *others
