"""Annotations of a data set in memory: what the readers of COCO, Pascal VOC and YOLO return.

A format is read to one :class:`AnnotationSet`. :mod:`pfdet.openimages.set_images` finds its image
files, :func:`box_table` converts its boxes, and :mod:`pfdet.openimages.set_index` writes the index.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.arrow_arrays import from_strings
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.tables import BoxTable


@dataclass(frozen=True)
class AnnotationSet:
    """The annotations of ``N`` images, sorted by image id, with ``A`` boxes.

    Attributes:
        source (str): The file or directory that was read, for messages.
        names (tuple of str): Names of the classes, as annotated.
        image_ids (array): object ``(N,)`` of str, in normal form (see
            :mod:`pfdet.openimages.identifiers`), sorted.
        suffixes (list of str): Suffixes of image files, such as ``'.jpg'``.
        suffix (array): uint8 ``(N,)``, positions in ``suffixes``. :obj:`None` if the format does
            not name the files: then any of ``suffixes``, in order of preference.
        size (array): int32 ``(N, 2)``, height and width in pixels as annotated; 0 where they are
            not.
        image (array): int32 ``(A,)``, positions in ``image_ids``.
        category (array): int32 ``(A,)``, positions in ``names``.
        bbox (array): float64 ``(A, 4)``, ``(y_min, x_min, y_max, x_max)``, not clipped.
        is_relative (bool): Whether ``bbox`` is relative to the image. Otherwise it is in pixels.
        flags (array): uint8 ``(A,)``, bits of :mod:`pfdet.openimages.box_flags`.
        place (callable): From the position of a box to where it is annotated, for messages, such as
            ``'a.txt, line 3'``.
        place_of_size (callable): From the position of an image to where its size is.
        left_out (array): bool ``(A,)``, boxes that are no objects of the index. Their classes are
            not verified as absent. By default none.
    """

    source: str
    names: tuple[str, ...]
    image_ids: np.ndarray
    suffixes: list[str]
    suffix: np.ndarray | None
    size: np.ndarray
    image: np.ndarray
    category: np.ndarray
    bbox: np.ndarray
    is_relative: bool
    flags: np.ndarray
    place: Callable[[int], str]
    place_of_size: Callable[[int], str]
    left_out: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.image_ids)

    def example(self) -> str:
        """Return the name of the first image file, for messages."""
        code = 0 if self.suffix is None else self.suffix[0]
        return self.image_ids[0] + self.suffixes[code]

    def pick(self, chosen: np.ndarray) -> 'AnnotationSet':
        """Return the annotations of some images.

        Args:
            chosen (array): bool ``(N,)``.
        """
        images, boxes = np.flatnonzero(chosen), np.flatnonzero(chosen[self.image])
        number = np.cumsum(chosen, dtype=np.int32) - np.int32(1)
        return dataclasses.replace(
            self,
            image_ids=self.image_ids[images],
            suffix=None if self.suffix is None else self.suffix[images],
            size=self.size[images],
            image=number[self.image[boxes]],
            category=self.category[boxes],
            bbox=self.bbox[boxes],
            flags=self.flags[boxes],
            place=lambda a: self.place(int(boxes[a])),
            place_of_size=lambda i: self.place_of_size(int(images[i])),
            left_out=None if self.left_out is None else self.left_out[boxes],
        )


def box_table(
    annotations: AnnotationSet, label: np.ndarray, size: np.ndarray, refuse_outside: bool = False
) -> BoxTable:
    """Convert boxes to relative coordinates and clip them to the image.

    Args:
        annotations (AnnotationSet): The annotations.
        label (array): int32 ``(A,)``, the class id of each box; -1 for boxes that are skipped.
        size (array): int32 ``(N, 2)``, height and width in pixels that coordinates refer to. 0 for
            images that are skipped; their boxes are, too.
        refuse_outside (bool): Whether a box that is not in the image is an error.

    Returns:
        BoxTable: The boxes with a class and an area. Its counts are ``annotations``, ``boxes``,
        ``unmapped`` (without a class), ``degenerate`` (without an area), ``clipped`` and
        ``group_of``.

    Raises:
        InputError: With ``refuse_outside``: a box does not touch its image, or exceeds it by more
            than the size of the image. The message names the place of the first.
    """
    extent = np.tile(np.maximum(size, 1), 2)[annotations.image].astype(np.float64)
    bbox = annotations.bbox if annotations.is_relative else annotations.bbox / extent
    if refuse_outside:
        _check_inside(annotations, bbox, size)
    # The addition turns -0.0 into 0.0, since boxes are compared by their bits.
    clipped = (np.clip(bbox, 0, 1) + 0).astype(np.float32)
    nonempty = (clipped[:, :2] < clipped[:, 2:]).all(axis=1)
    known = (label >= 0) & (size > 0).all(axis=1)[annotations.image]
    if annotations.left_out is not None:
        known &= ~annotations.left_out
    keep = known & nonempty
    # Tools round to hundredths of a pixel, so deviations of this size are not counted.
    outside = (np.abs(np.clip(bbox, 0, 1) - bbox) * extent > 0.011).any(axis=1)
    counts = {
        'annotations': len(label),
        'boxes': int(keep.sum()),
        'unmapped': int((label < 0).sum()),
        'degenerate': int((known & ~nonempty).sum()),
        'clipped': int(outside[keep].sum()),
        'group_of': int(((annotations.flags[keep] & GROUP_OF) > 0).sum()),
    }
    return BoxTable(
        from_strings(annotations.image_ids.tolist()),
        annotations.image[keep],
        label[keep],
        clipped[keep],
        annotations.flags[keep],
        counts,
        {},
    )


def _check_inside(annotations: AnnotationSet, bbox: np.ndarray, size: np.ndarray) -> None:
    """Refuse boxes that do not fit to the image; ``bbox`` is relative."""
    low, high = bbox[:, :2], bbox[:, 2:]
    bad = ((low >= 1) | (high <= 0)).any(axis=1) & (low < high).all(axis=1)
    bad |= ((bbox < -1) | (bbox > 2)).any(axis=1)
    bad &= (size > 0).all(axis=1)[annotations.image]
    if not bad.any():
        return
    a = int(np.flatnonzero(bad)[0])
    y_min, x_min, y_max, x_max = annotations.bbox[a].tolist()
    height, width = size[annotations.image[a]].tolist()
    expected = (
        'coordinates from 0 to 1, not pixels'
        if annotations.is_relative
        else f'a box in the image of {width} x {height} pixels'
    )
    raise InputError(
        f'{annotations.place(a)}: the box from x {x_min:g} to {x_max:g} and y {y_min:g} to '
        f'{y_max:g} is outside of the image; expected {expected}'
    )
