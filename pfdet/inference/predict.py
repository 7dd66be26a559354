"""Detections of a data set."""

import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.inference.postprocessing import select
from pfdet.openimages.corrupt_images import CorruptImages
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.resizing import resized_size


def predict(detector, dataset: OpenImagesDataset, images: Sequence[int], test_size: int,
            max_size: int, score_thresh: float = 0.01, nmw_thresh: float = 0.5,
            max_per_image: int = 300, batch_size: int = 4,
            progress: Callable[[Iterable], Iterable] = iter,
            corrupt: CorruptImages | None = None) -> Detections:
    """Detect the objects of some images of a data set.

    Args:
        detector (FasterRCNN): The network.
        dataset (OpenImagesDataset): The images.
        images (sequence of int): Which of them.
        test_size, max_size (int): Length of the shorter edge, and limit of the longer one.
        score_thresh, nmw_thresh, max_per_image: See
            :func:`~pfdet.inference.postprocessing.select`.
        batch_size (int): At most so many images at a time. Only images that are padded alike come
            together, so that what is found in an image does not depend on the others.
        progress (callable): Wraps the batches, such as :class:`tqdm.tqdm`.
        corrupt (CorruptImages): Counts what was read, and the images that cannot be: these have no
            detections. With :obj:`None`, the first one ends it.

    Returns:
        Detections: ``image_ids`` in the order of ``images``.

    Raises:
        InputError: An image cannot be read, or too many cannot.
    """
    def unless_corrupt(read: Callable, *args: int):
        try:
            return read(*args), None
        except InputError as e:
            if corrupt is None:
                raise
            return None, e

    sizes = [unless_corrupt(dataset.get_size, i)[0] for i in images]
    # Those of which not even the head can be read come last, where loading them fails again: what
    # share is corrupt is then a matter of all images.
    shape = [detector.padded_size(resized_size(size, test_size, max_size)) if size
             else (sys.maxsize, 0) for size in sizes]
    order = sorted(range(len(images)), key=lambda k: shape[k])
    alike = [list(group) for _, group in itertools.groupby(order, key=lambda k: shape[k])]
    batches = [group[k:k + batch_size] for group in alike
               for k in range(0, len(group), batch_size)]

    def load(batch: list[int]) -> dict[int, np.ndarray]:
        imgs = {}
        for k in batch:
            img, error = unless_corrupt(dataset.get_resized, images[k], test_size, max_size)
            if error is None:
                imgs[k] = img.transpose(2, 0, 1)
            else:
                corrupt.add(images[k], error)
        if corrupt is not None:
            corrupt.n_image += len(imgs)
            corrupt.check()
        return imgs

    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int32)
    results = {}
    with ThreadPoolExecutor(1) as pool:
        loading = [pool.submit(load, batch) for batch in batches[:1]]
        for n, _ in enumerate(progress(batches)):
            imgs = loading.pop().result()
            if n + 1 < len(batches):
                loading.append(pool.submit(load, batches[n + 1]))
            found = detector.predict(list(imgs.values())) if imgs else []
            for k, (bbox, score) in zip(imgs, found, strict=True):
                results[k] = select(bbox, score, score_thresh, nmw_thresh, max_per_image)

    found = [results.get(k, nothing) for k in range(len(images))]
    image = np.repeat(np.arange(len(images), dtype=np.int32), [len(s) for _, s, _ in found])
    bbox, score, label = zip(*found, strict=True) if found else ([], [], [])
    return Detections(
        [dataset.index.image_id(i) for i in images], image,
        np.concatenate([*label, np.zeros(0, np.int32)]).astype(np.int32),
        np.concatenate([*score, np.zeros(0, np.float32)]).astype(np.float32),
        np.concatenate([*bbox, np.zeros((0, 4), np.float32)]).astype(np.float32))


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
        for name in ('label', 'score', 'bbox'))
    return Detections([image_ids[k] for k in by_id], image[order], label, score, bbox)
