"""Prediction: running a detector on the images of a data set."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.errors import InputError, NotFiniteError
from pfdet.evaluation.detections import Detections, no_detections
from pfdet.functions.finite import checked
from pfdet.inference.augmentation import augmented_outputs
from pfdet.inference.postprocessing import select
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.resizing import resized_size
from pfdet.progress import report as report_progress

# Boxes (D, 4), scores (D,) and labels (D,) of one image.
ImageDetections = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PredictSettings:
    """Settings of test-time augmentation and post-processing.

    Attributes:
        sizes (tuple of int): Lengths of the shorter edge in pixels. The outputs of all sizes are
            concatenated, and suppression runs once on them (PFDet, sections 2.4 and 3).
        max_size (int): Limit of the longer edge in pixels. Sizes that become equal by it are used
            once.
        flip (bool): Also run the detector on the horizontally flipped image, at each size.
        score_thresh (float): Smallest score.
        suppression (str): ``'nmw'``, ``'nms'``, or ``'none'`` to keep all boxes for an ensemble.
        suppression_iou (float): IoU threshold of the suppression.
        max_per_image (int): Largest number of detections per image; :obj:`None` for no limit.
        batch_size (int): Largest number of images per batch. A batch has only images of the same
            padded shape, so the detections of an image do not depend on the rest of the batch, up
            to rounding.
    """

    sizes: tuple[int, ...]
    max_size: int
    flip: bool = False
    score_thresh: float = 0.01
    suppression: str = 'nmw'
    suppression_iou: float = 0.5
    max_per_image: int | None = 300
    batch_size: int = 4


def predict(
    detector: Any,
    dataset: OpenImagesDataset,
    images: Sequence[int],
    settings: PredictSettings,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
) -> Detections:
    """Detect objects in some images of a data set, in memory.

    Args:
        detector (FasterRCNN): The network.
        dataset (OpenImagesDataset): The data set.
        images (sequence of int): Indices of the images.
        settings (PredictSettings): Test-time augmentation and post-processing.
        progress (callable): Wraps the iteration over batches, for example :class:`tqdm.tqdm`.
        corrupt (CorruptImages): Counts the images, and those that cannot be read. The latter get no
            detections. With :obj:`None`, the first unreadable image raises an error.

    Returns:
        Detections: ``image_ids`` in the order of ``images``.

    Raises:
        InputError: An image cannot be read, or too many of them cannot.
    """
    image = np.asarray(images, np.int64)
    shapes = padded_shapes(detector, dataset, image, settings, corrupt is not None)
    batches = equal_shape_batches(shapes, settings.batch_size)
    found: dict[int, ImageDetections] = {}
    for batch in detect(
        detector, dataset, [image[b] for b in batches], settings, progress, corrupt
    ):
        found.update(batch)
    return as_detections(
        [dataset.index.image_id(i) for i in image], [found.get(int(i)) for i in image]
    )


def padded_shapes(
    detector: Any,
    dataset: OpenImagesDataset,
    images: np.ndarray,
    settings: PredictSettings,
    may_be_corrupt: bool = False,
) -> np.ndarray:
    """Compute the padded height and width of images at each test size.

    Args:
        detector (FasterRCNN): The network.
        dataset (OpenImagesDataset): The data set.
        images (int array): Indices of the images, :math:`(n,)`.
        settings (PredictSettings): Gives the sizes.
        may_be_corrupt (bool): Continue if the header of an image cannot be read.

    Returns:
        int64 array: :math:`(n, 2 S)` for :math:`S` sizes. Images with an unreadable header get
        :data:`sys.maxsize`, so they are processed last, when the fraction of corrupt images is
        nearly known.

    Raises:
        InputError: The header of an image cannot be read and ``may_be_corrupt`` is false.
    """
    stored = np.array(dataset.index.columns['image_size'][images], np.int64).reshape(-1, 2)
    for k in np.flatnonzero((stored == 0).all(axis=1)):
        try:
            stored[k] = dataset.get_size(int(images[k]))
        except InputError:
            if not may_be_corrupt:
                raise
    unique, inverse = np.unique(stored, axis=0, return_inverse=True)
    shapes = np.full((len(unique), 2 * len(settings.sizes)), sys.maxsize)
    for row, size in enumerate(unique.tolist()):
        if size != [0, 0]:
            shapes[row] = np.ravel(
                [
                    detector.padded_size(resized_size(size, shorter, settings.max_size))
                    for shorter in settings.sizes
                ]
            )
    return shapes[inverse.reshape(-1)]


def equal_shape_batches(shapes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Split images into batches of equal padded shape.

    Args:
        shapes (int array): Padded shapes of :func:`padded_shapes`, :math:`(n, 2 S)`.
        batch_size (int): Largest number of images per batch.

    Returns:
        list of int arrays: Indices of rows of ``shapes`` for each batch, in order of shape.
    """
    order = np.lexsort((np.arange(len(shapes)), *shapes.T[::-1]))
    changes = np.flatnonzero((shapes[order[1:]] != shapes[order[:-1]]).any(axis=1)) + 1
    return [
        group[k : k + batch_size]
        for group in np.split(order, changes)
        for k in range(0, len(group), batch_size)
    ]


def detect(
    detector: Any,
    dataset: OpenImagesDataset,
    batches: Sequence[np.ndarray],
    settings: PredictSettings,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
) -> Iterator[dict[int, ImageDetections]]:
    """Detect objects in batches of images.

    A thread loads the next batch while the network processes the current one.

    Args:
        detector, dataset, settings, progress, corrupt: See :func:`predict`.
        batches (sequence of int arrays): Indices of images of equal padded shape.

    Yields:
        dict: For each batch in order, from image index to boxes :math:`(D, 4)`, scores :math:`(D,)`
        and labels :math:`(D,)`. Unreadable images are omitted.

    Raises:
        InputError: An image cannot be read, or too many of them cannot; or an output is not finite.
    """

    def load(batch: np.ndarray) -> dict[int, list[np.ndarray | None]]:
        imgs = {}
        for i in map(int, batch):
            try:
                imgs[i] = _resized_versions(dataset, i, settings)
            except InputError as e:
                if corrupt is None:
                    raise
                corrupt.add(i, e)
        if corrupt is not None:
            corrupt.n_image += len(imgs)
            corrupt.check()
        return imgs

    with ThreadPoolExecutor(1) as pool:
        loading = [pool.submit(load, batch) for batch in batches[:1]]
        for n, _ in enumerate(progress(batches)):
            report_progress()
            imgs = loading.pop().result()
            if n + 1 < len(batches):
                loading.append(pool.submit(load, batches[n + 1]))
            outputs = _outputs(detector, dataset, imgs, settings) if imgs else []
            yield {
                i: _select(bbox, score, settings)
                for i, (bbox, score) in zip(imgs, outputs, strict=True)
            }


def _outputs(
    detector: Any,
    dataset: OpenImagesDataset,
    imgs: dict[int, list[np.ndarray | None]],
    settings: PredictSettings,
) -> list[tuple[np.ndarray, np.ndarray]]:
    try:
        with checked():
            return augmented_outputs(
                detector, list(imgs.values()), settings.flip, settings.score_thresh
            )
    except NotFiniteError as e:
        image_id = dataset.index.image_id(list(imgs)[e.image])
        raise InputError(
            f'image {image_id}: the {e.what} that the network computes are not finite; expected '
            'weights of a training that has not diverged'
        ) from e


def _resized_versions(
    dataset: OpenImagesDataset, i: int, settings: PredictSettings
) -> list[np.ndarray | None]:
    """An image at each size; :obj:`None` where ``max_size`` makes it equal to an earlier one."""
    versions: list[np.ndarray | None] = []
    shapes = set()
    for size in settings.sizes:
        img = dataset.get_resized(i, size, settings.max_size).transpose(2, 0, 1)
        versions.append(None if img.shape in shapes else img)
        shapes.add(img.shape)
    return versions


def _select(bbox: np.ndarray, score: np.ndarray, settings: PredictSettings) -> ImageDetections:
    if settings.suppression == 'nmw':
        return select(
            bbox, score, settings.score_thresh, settings.suppression_iou, settings.max_per_image
        )
    row, column = np.nonzero(score >= settings.score_thresh)
    bbox = bbox[row, column if bbox.shape[1] > 1 else 0]
    score = score[row, column]
    label = column.astype(np.int32)
    if settings.suppression == 'nms':
        bbox, score, label = non_maximum_suppression(bbox, score, label, settings.suppression_iou)
    order = np.argsort(-score, kind='stable')[: settings.max_per_image]
    return bbox[order], score[order], label[order]


def as_detections(image_ids: list[str], found: Sequence[ImageDetections | None]) -> Detections:
    """Combine the detections of images.

    Args:
        image_ids (list of str): Ids of the images.
        found (sequence): For each image, boxes :math:`(D, 4)`, scores :math:`(D,)` and labels
            :math:`(D,)`, or :obj:`None` for no detections.

    Returns:
        Detections: The detections of all images.
    """
    filled = [(k, *arrays) for k, arrays in enumerate(found) if arrays is not None]
    if not filled:
        return no_detections(image_ids)
    image, bbox, score, label = zip(*filled, strict=True)
    return Detections(
        image_ids,
        np.repeat(np.array(image, np.int32), [len(s) for s in score]),
        np.concatenate(label).astype(np.int32),
        np.concatenate(score).astype(np.float32),
        np.concatenate(bbox).astype(np.float32),
    )


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Concatenate the detections of disjoint sets of images.

    Args:
        parts (sequence of Detections): At least one part.

    Returns:
        Detections: Images sorted by id, so that the result does not depend on how the images were
        distributed over the parts.
    """
    image_ids = [i for part in parts for i in part.image_ids]
    start = np.cumsum([0] + [len(part.image_ids) for part in parts])
    image = np.concatenate([part.image + s for part, s in zip(parts, start, strict=False)])
    by_id = np.argsort(np.array(image_ids))
    rank = np.empty(len(by_id), np.int32)
    rank[by_id] = np.arange(len(by_id))
    image = rank[image]
    order = np.argsort(image, kind='stable')
    label, score, bbox = (
        np.concatenate([getattr(part, name) for part in parts])[order]
        for name in ('label', 'score', 'bbox')
    )
    return Detections([image_ids[k] for k in by_id], image[order], label, score, bbox)
