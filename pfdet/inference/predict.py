"""Detections of a data set."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.inference.augmentation import augmented_outputs
from pfdet.inference.postprocessing import select
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.resizing import resized_size

# Boxes, scores and labels of an image.
Found = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class PredictSettings:
    """How images are looked at, and what is kept of what is found.

    Attributes:
        sizes (tuple of int): Lengths of the shorter edge. The outputs of all are concatenated, and
            suppression runs once over them (PFDet, sections 2.4 and 3).
        max_size (int): Limit of the longer edge.
        flip (bool): Look at the mirror image in each size, too.
        score_thresh (float): Least score.
        suppression (str): What becomes of several boxes on one object: ``'nmw'``, ``'nms'``, or
            ``'none'`` to keep them all, for an ensemble to suppress.
        nmw_thresh (float): IoU from which boxes of a class are taken for one object.
        max_per_image (int): The best of an image that are kept; :obj:`None` for all.
        batch_size (int): At most so many images at a time. Only images that are padded alike come
            together, so that what is found in an image does not depend on the others, up to
            rounding.
    """

    sizes: tuple[int, ...]
    max_size: int
    flip: bool = False
    score_thresh: float = 0.01
    suppression: str = 'nmw'
    nmw_thresh: float = 0.5
    max_per_image: int | None = 300
    batch_size: int = 4


def predict(
    detector,
    dataset: OpenImagesDataset,
    images: Sequence[int],
    settings: PredictSettings,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
) -> Detections:
    """Detect the objects of some images of a data set, and keep all in memory.

    Args:
        detector (FasterRCNN): The network.
        dataset (OpenImagesDataset): The images.
        images (sequence of int): Which of them.
        settings (PredictSettings): How.
        progress (callable): Wraps the batches, such as :class:`tqdm.tqdm`.
        corrupt (CorruptImages): Counts what was read, and the images that cannot be: these have no
            detections. With :obj:`None`, the first one ends it.

    Returns:
        Detections: ``image_ids`` in the order of ``images``.

    Raises:
        InputError: An image cannot be read, or too many cannot.
    """
    images = np.asarray(images, np.int64)
    shapes = padded_shapes(detector, dataset, images, settings, corrupt is not None)
    batches = batches_alike(shapes, settings.batch_size)
    found = {}
    for batch in detect(
        detector, dataset, [images[b] for b in batches], settings, progress, corrupt
    ):
        found.update(batch)
    return as_detections(
        [dataset.index.image_id(i) for i in images], [found.get(int(i)) for i in images]
    )


def padded_shapes(
    detector,
    dataset: OpenImagesDataset,
    images: np.ndarray,
    settings: PredictSettings,
    may_be_corrupt: bool = False,
) -> np.ndarray:
    """The heights and widths that images are padded to.

    Args:
        detector (FasterRCNN): Knows what it pads to.
        dataset (OpenImagesDataset): The images.
        images (int array): Which of them, :math:`(n,)`.
        settings (PredictSettings): At which sizes.
        may_be_corrupt (bool): Whether to go on where not even the head of an image can be read.

    Returns:
        int64 array: :math:`(n, 2 S)` for :math:`S` sizes. The greatest possible where the head
        cannot be read: such images are tried last, and what share is corrupt is then a matter of
        all images.

    Raises:
        InputError: An image's head cannot be read, and may not be corrupt.
    """
    stored = np.array(dataset.index.columns['image_size'][images], np.int64).reshape(-1, 2)
    for k in np.flatnonzero((stored == 0).all(axis=1)):
        try:
            stored[k] = dataset.get_size(int(images[k]))
        except InputError:
            if not may_be_corrupt:
                raise
    distinct, which = np.unique(stored, axis=0, return_inverse=True)
    shapes = np.full((len(distinct), 2 * len(settings.sizes)), sys.maxsize)
    for k, size in enumerate(distinct.tolist()):
        if size != [0, 0]:
            shapes[k] = np.ravel(
                [
                    detector.padded_size(resized_size(size, shorter, settings.max_size))
                    for shorter in settings.sizes
                ]
            )
    return shapes[which.reshape(-1)]


def batches_alike(shapes: np.ndarray, batch_size: int) -> list[np.ndarray]:
    """Cut images into batches of which each is padded alike.

    Args:
        shapes (int array): Of :func:`padded_shapes`, :math:`(n, 2 S)`.
        batch_size (int): At most so many images.

    Returns:
        list of int arrays: Rows of ``shapes``, in order of shape.
    """
    order = np.lexsort((np.arange(len(shapes)), *shapes.T[::-1]))
    changes = np.flatnonzero((shapes[order[1:]] != shapes[order[:-1]]).any(axis=1)) + 1
    return [
        alike[k : k + batch_size]
        for alike in np.split(order, changes)
        for k in range(0, len(alike), batch_size)
    ]


def detect(
    detector,
    dataset: OpenImagesDataset,
    batches: Sequence[Sequence[int]],
    settings: PredictSettings,
    progress: Callable[[Iterable], Iterable] = iter,
    corrupt: CorruptImages | None = None,
) -> Iterator[dict[int, Found]]:
    """Detect the objects of batches of images.

    While the network looks at a batch, a thread loads the next.

    Args:
        detector, dataset, settings, progress, corrupt: See :func:`predict`.
        batches (sequence of sequences of int): Images that are padded alike.

    Yields:
        dict: For each batch in order, from image to boxes :math:`(D, 4)`, scores and labels
        :math:`(D,)`, without the images that cannot be read.

    Raises:
        InputError: An image cannot be read, or too many cannot.
    """

    def load(batch: Sequence[int]) -> dict[int, list[np.ndarray]]:
        imgs = {}
        for i in map(int, batch):
            try:
                imgs[i] = [
                    dataset.get_resized(i, size, settings.max_size).transpose(2, 0, 1)
                    for size in settings.sizes
                ]
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
            imgs = loading.pop().result()
            if n + 1 < len(batches):
                loading.append(pool.submit(load, batches[n + 1]))
            outputs = (
                augmented_outputs(
                    detector, list(imgs.values()), settings.flip, settings.score_thresh
                )
                if imgs
                else []
            )
            yield {
                i: _select(bbox, score, settings)
                for i, (bbox, score) in zip(imgs, outputs, strict=True)
            }


def _select(bbox: np.ndarray, score: np.ndarray, settings: PredictSettings) -> Found:
    if settings.suppression == 'nmw':
        return select(
            bbox, score, settings.score_thresh, settings.nmw_thresh, settings.max_per_image
        )
    place, label = np.nonzero(score >= settings.score_thresh)
    found = (
        bbox[place, label if bbox.shape[1] > 1 else 0],
        score[place, label],
        label.astype(np.int32),
    )
    if settings.suppression == 'nms':
        found = non_maximum_suppression(*found, settings.nmw_thresh)
    order = np.argsort(-found[1], kind='stable')[: settings.max_per_image]
    return tuple(column[order] for column in found)


def as_detections(image_ids: list[str], found: Sequence[Found | None]) -> Detections:
    """Put what was found in images together.

    Args:
        image_ids (list of str): Of the images.
        found (sequence): For each image boxes :math:`(D, 4)`, scores and labels :math:`(D,)`, or
            :obj:`None` for nothing.
    """
    filled = [(k, *each) for k, each in enumerate(found) if each is not None]
    if not filled:
        return Detections(
            image_ids,
            np.zeros(0, np.int32),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.zeros((0, 4), np.float32),
        )
    image, bbox, score, label = zip(*filled, strict=True)
    return Detections(
        image_ids,
        np.repeat(np.array(image, np.int32), [len(s) for s in score]),
        np.concatenate(label).astype(np.int32),
        np.concatenate(score).astype(np.float32),
        np.concatenate(bbox).astype(np.float32),
    )


def concatenate(parts: Sequence[Detections]) -> Detections:
    """Put detections of disjoint sets of images together.

    Args:
        parts (sequence of Detections): At least one.

    Returns:
        Detections: Images sorted by id, so that it does not depend on how they were shared out.
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
