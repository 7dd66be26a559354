"""Load, augment and batch training images."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.resizing import resized_size
from pfdet.targets.batch_truth import BatchTruth, collate, related
from pfdet.training.augmentation import (
    Augmentation,
    crop_boxes,
    jitter_color,
    random_crop,
    rotate,
    rotated_size,
)

if TYPE_CHECKING:
    from pfdet.openimages.dataset import OpenImagesDataset
    from pfdet.openimages.index import Annotation

_NO_AUGMENTATION = Augmentation()
# Height and width in pixels below which the rest of a cropped box is dropped in any case. float32
# rounds less than this to nothing.
_MIN_EXTENT = 0.01


class Sample(NamedTuple):
    """One training image, ready for a batch.

    Attributes:
        img (uint8 array): RGB, :math:`(3, H, W)`.
        bbox (float32 array): :math:`(R, 4)`, in pixels of ``img``.
        label (bool array): Annotated labels :math:`(R, C)`.
        flags (uint8 array): Box flags :math:`(R,)`.
        positive, negative (bool arrays): Image-level labels :math:`(C,)`.
        position (int): Position in the global order; random choices depend on it.
        image_id (str): Named in error messages.
    """

    img: np.ndarray
    bbox: np.ndarray
    label: np.ndarray
    flags: np.ndarray
    positive: np.ndarray
    negative: np.ndarray
    position: int
    image_id: str


@dataclass
class Batch:
    """A rank's images of one iteration.

    Attributes:
        imgs (list of uint8 arrays): Images :math:`(3, H, W)`.
        truth (BatchTruth): Ground truth of all images.
        positions (list of int): Positions in the global order.
        image_ids (list of str): Named in error messages.
        size (pair of int): Height and width to pad to, large enough for the images of all ranks.
    """

    imgs: list[np.ndarray]
    truth: BatchTruth
    positions: list[int]
    image_ids: list[str]
    size: tuple[int, int]

    def parts(self, n: int) -> list['Batch']:
        """Split into ``n`` batches of equal length, each padded to the size of this batch."""
        if n < 1 or len(self.imgs) % n:
            raise ValueError(f'{len(self.imgs)} images cannot be split into {n} equal parts')
        step = len(self.imgs) // n
        return [
            Batch(
                self.imgs[k],
                BatchTruth(*(a[k] for a in self.truth)),
                self.positions[k],
                self.image_ids[k],
                self.size,
            )
            for k in (slice(i, i + step) for i in range(0, len(self.imgs), step))
        ]


class TrainLoader:
    """Load and augment an image of the training set.

    "We scaled images during training so that the length of the smaller edge is between [640,
    1056]. Also, we randomly flipped images horizontally" (PFDet, section 3). All images of an
    iteration, on all ranks, are scaled to the same edge length, so that no rank waits for another
    rank with larger images. PFDet does not specify this. Cropped and rotated images are scaled to
    this length as well.

    A crop cuts off objects, so a class that was verified to be present may be absent from the part
    that is left. It stays verified if a box of it or of a descendant is left. Otherwise it counts
    as not verified, neither present nor absent. Classes verified to be absent are still absent.

    Args:
        dataset (OpenImagesDataset): Images and annotations.
        min_size (pair of int): Range of the length of the shorter edge in pixels, both inclusive.
        max_size (int): Limit of the longer edge in pixels.
        flip (bool): Flip images horizontally with probability 0.5.
        seed (int): Seed of all random choices.
        augmentation (Augmentation): Random crops, rotations and colors; by default none.
    """

    def __init__(
        self,
        dataset: 'OpenImagesDataset',
        min_size: tuple[int, int],
        max_size: int,
        flip: bool,
        seed: int,
        augmentation: Augmentation = _NO_AUGMENTATION,
    ):
        self.dataset = dataset
        self.min_size = min_size
        self.max_size = max_size
        self.flip = flip
        self.seed = seed
        self.augmentation = augmentation

    def __call__(self, i: int, position: int, iteration: int) -> Sample:
        edge = int(self._random(1, iteration).integers(self.min_size[0], self.min_size[1] + 1))
        annotation = self.dataset.index.annotation(i)
        if self.augmentation.moves_boxes:
            img, bbox, annotation = self._crop_and_rotate(i, position, edge, annotation)
        else:
            img = self._change_color(self.dataset.get_resized(i, edge, self.max_size), position)
            bbox = annotation.bbox * np.array(img.shape[:2] * 2, np.float32)
        if self.flip and self._random(2, position).random() < 0.5:
            W = img.shape[1]
            img = img[:, ::-1]
            bbox = bbox[:, [0, 3, 2, 1]]
            bbox[:, [1, 3]] = W - bbox[:, [1, 3]]
        return Sample(
            img.transpose(2, 0, 1),
            bbox,
            annotation.label,
            annotation.flags,
            annotation.positive,
            annotation.negative,
            position,
            self.dataset.index.image_id(i),
        )

    def _random(self, kind: int, number: int) -> np.random.Generator:
        """A generator for one choice, so that switching one off does not change the others."""
        return np.random.default_rng((self.seed, kind, number))

    def _change_color(self, img: np.ndarray, position: int) -> np.ndarray:
        strength = self.augmentation.color_jitter
        return jitter_color(self._random(5, position), img, strength) if strength else img

    def _crop_and_rotate(
        self, i: int, position: int, edge: int, annotation: 'Annotation'
    ) -> tuple[np.ndarray, np.ndarray, 'Annotation']:
        augmentation = self.augmentation
        H, W = self.dataset.get_size(i)
        bbox = annotation.bbox * np.array([H, W, H, W], np.float64)
        part = (0, 0, H, W)
        if augmentation.crop < 1:
            part = random_crop(
                self._random(3, position),
                (H, W),
                bbox,
                augmentation.crop,
                augmentation.min_visibility,
            )
        bbox, kept = crop_boxes(bbox, part, augmentation.min_visibility)
        angle = 0.0
        if augmentation.rotation > 0:
            limit = augmentation.rotation
            angle = self._random(4, position).uniform(-limit, limit)

        part_size = part[2] - part[0], part[3] - part[1]
        whole = rotated_size(part_size, angle)
        size = resized_size(whole, edge, self.max_size)
        # The size of the part before the rotation, by the scale of the result.
        inner = tuple(
            max(1, round(n * m / k)) for n, m, k in zip(part_size, size, whole, strict=True)
        )
        img = self._change_color(self.dataset.get_part(i, part, inner), position)
        bbox = bbox * (np.array(inner * 2) / np.array(part_size * 2))
        if angle:
            img, bbox = rotate(img, bbox, angle, size)
        bbox = np.minimum(bbox.astype(np.float32), np.float32(img.shape[:2] * 2))
        kept &= (bbox[:, 2:] - bbox[:, :2] >= _MIN_EXTENT).all(axis=1)
        annotation = annotation._replace(
            bbox=annotation.bbox[kept], label=annotation.label[kept], flags=annotation.flags[kept]
        )
        if part != (0, 0, H, W):
            present = related(annotation.label, self.dataset.index.hierarchy.closure).any(axis=0)
            annotation = annotation._replace(positive=annotation.positive & present)
        return img, bbox[kept], annotation


class Converter:
    """Collate samples to a batch, padded to the largest image over all ranks.

    Padding is part of the statistics of batch normalization over all ranks. With one size for all
    ranks, the statistics equal those of one process with the whole batch.

    Args:
        hierarchy (Hierarchy): The hierarchy of the classes.
        comm (ChainerMN communicator): The ranks that train together, or :obj:`None`.
        join_iou (float): See :func:`~pfdet.targets.batch_truth.collate`.
    """

    def __init__(self, hierarchy: Hierarchy, comm=None, join_iou: float = 1.0):
        self.hierarchy = hierarchy
        self.comm = comm
        self.join_iou = join_iou

    def __call__(self, samples: Sequence[Sample], device=None) -> Batch:
        imgs, bbox, label, flags, positive, negative, positions, image_ids = zip(
            *samples, strict=True
        )
        size = np.max([img.shape[1:] for img in imgs], axis=0)
        if self.comm is not None and self.comm.size > 1:
            from mpi4py import MPI

            size = size.astype(np.int64)
            self.comm.mpi_comm.Allreduce(MPI.IN_PLACE, size, MPI.MAX)
        truth = collate(bbox, label, flags, positive, negative, self.hierarchy, self.join_iou)
        return Batch(
            list(imgs), truth, list(positions), list(image_ids), (int(size[0]), int(size[1]))
        )
