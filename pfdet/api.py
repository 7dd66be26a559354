"""Detect objects in arrays of pixels with a trained model, in the way of ChainerCV.

::

    import pfdet

    model = pfdet.load('run')
    bboxes, labels, scores = model.predict([pfdet.read_image('photo.jpg')])
"""

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from pfdet.errors import InputError
from pfdet.inference.predict import PredictSettings, predict
from pfdet.openimages.classes import Classes
from pfdet.openimages.images import resize
from pfdet.openimages.orientation import read_photograph as read_image
from pfdet.training import model_directory

# Bicubic resizing gives values outside [0, 255] next to edges.
_OVERSHOOT = 32

__all__ = ['Detector', 'load', 'read_image']


class Detector:
    """A trained network with its classes and its settings for prediction.

    The methods and attributes are those of ChainerCV's detectors, so
    :func:`chainercv.visualizations.vis_bbox`,
    :class:`chainercv.extensions.DetectionVOCEvaluator` and
    :func:`chainercv.utils.apply_to_iterator` work with it.

    Args:
        network (FasterRCNN): The network.
        classes (Classes): Its label space.
        settings (PredictSettings): Image sizes, threshold and suppression.

    Attributes:
        network (FasterRCNN): The network.
        classes (Classes): Its label space.
        settings (PredictSettings): May be replaced: see :meth:`use`.
    """

    def __init__(self, network: Any, classes: Classes, settings: PredictSettings):
        self.network = network
        self.classes = classes
        self.settings = settings

    @property
    def label_names(self) -> tuple[str, ...]:
        """Names of the classes; a label is a position here."""
        return self.classes.names

    @property
    def mids(self) -> tuple[str, ...]:
        """Machine ids of the classes; a label is a position here."""
        return self.classes.mids

    @property
    def xp(self) -> Any:
        """NumPy, or CuPy if the network is on a GPU."""
        return getattr(self.network, 'xp', np)

    def to_gpu(self, device: int | None = None) -> 'Detector':
        """Move the network to a GPU, by default the current one; return the detector itself."""
        self.network.to_gpu(device)
        return self

    def to_cpu(self) -> 'Detector':
        """Move the network to the CPU and return the detector itself."""
        self.network.to_cpu()
        return self

    def use(self, **settings: Any) -> 'Detector':
        """Replace settings, such as ``score_thresh=0.3``, and return the detector itself.

        Args:
            settings: Fields of :class:`~pfdet.inference.predict.PredictSettings`.

        Raises:
            InputError: There is no such field.
        """
        known = [field.name for field in dataclasses.fields(PredictSettings)]
        for name in settings:
            if name not in known:
                raise InputError(f'{name}: no such setting; expected one of {", ".join(known)}')
        self.settings = dataclasses.replace(self.settings, **settings)
        return self

    def predict(
        self, imgs: Iterable[np.ndarray]
    ) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
        """Detect objects in images, with the contract of ChainerCV's detectors.

        An image has the detections that ``pfdet predict`` finds in its file, up to rounding,
        whatever the other images are.

        Args:
            imgs (iterable of arrays): RGB images of any sizes in [0, 255], :math:`(3, H, W)`,
                uint8 or float. Values between two integers are rounded.

        Returns:
            tuple of lists: With one array per image, by descending score:

            * boxes, float32 :math:`(R, 4)`, :math:`(y_{min}, x_{min}, y_{max}, x_{max})` in pixels
              of the image,
            * labels, int32 :math:`(R,)`,
            * scores, float32 :math:`(R,)`.

        Raises:
            InputError: An array is not an image, or the network's output is not finite.
        """
        images = _Images([_pixels(img, k) for k, img in enumerate(imgs)])
        found = predict(self.network, images, range(len(images)), self.settings)
        ends = np.searchsorted(found.image, np.arange(len(images) + 1))
        bboxes, labels, scores = [], [], []
        for k, (begin, end) in enumerate(zip(ends, ends[1:])):
            size = np.array(images.get_size(k) * 2, np.float32)
            bboxes.append(found.bbox[begin:end] * size)
            labels.append(found.label[begin:end])
            scores.append(found.score[begin:end])
        return bboxes, labels, scores


def load(
    run: str | os.PathLike, weights: str | os.PathLike | None = None, **settings: Any
) -> Detector:
    """Load the model of a training run.

    Args:
        run (path): The ``--out`` directory of the run, or a file of ``pfdet export``. Before the
            end of the run, the newest snapshot is taken, and a line on standard error says so.
        weights (path): Other weights of the run, such as ``best.npz`` or a snapshot.
        settings: See :meth:`Detector.use`. The others are those of the recipe.

    Returns:
        Detector: The model, on the CPU.

    Raises:
        InputError: A file is missing or damaged, or a setting is unknown.
    """
    if Path(run).suffix == '.onnx':
        from pfdet.export import model_file

        model = model_file.read(Path(run))
    else:
        model = model_directory.read(Path(run), weights=weights and Path(weights))
    note = model_directory.weights_note(model)
    if note and weights is None:
        print(note, file=sys.stderr, flush=True)
    detector = Detector(
        model.network, model.classes, model_directory.predict_settings(model.recipe)
    )
    return detector.use(**settings)


class _Images:
    """Images in memory, as much of a data set as :func:`pfdet.inference.predict.predict` needs.

    Args:
        imgs (sequence of arrays): uint8 :math:`(H, W, 3)`.
    """

    def __init__(self, imgs: Sequence[np.ndarray]):
        self.imgs = imgs
        size = np.array([img.shape[:2] for img in imgs], np.int64).reshape(-1, 2)
        self.index = SimpleNamespace(columns={'image_size': size}, image_id=str)

    def __len__(self) -> int:
        return len(self.imgs)

    def get_size(self, i: int) -> tuple[int, int]:
        return self.imgs[i].shape[:2]

    def get_resized(self, i: int, min_size: int, max_size: int) -> np.ndarray:
        return resize(self.imgs[i], min_size, max_size)


def _pixels(img: Any, k: int) -> np.ndarray:
    """Image ``k`` as uint8 :math:`(H, W, 3)`."""
    expected = 'expected RGB of shape (3, H, W) with values from 0 to 255'
    get = getattr(img, 'get', None)
    array = np.asarray(get() if callable(get) else img)
    if array.ndim != 3 or array.shape[0] != 3 or 0 in array.shape:
        raise InputError(f'image {k} has shape {array.shape}; {expected}')
    if array.dtype.kind not in 'uif':
        raise InputError(f'image {k} has dtype {array.dtype}; {expected}')
    if array.dtype != np.uint8:
        low, high = array.min(), array.max()
        # Also if there is a NaN
        if not (low >= -_OVERSHOOT and high <= 255 + _OVERSHOOT):
            raise InputError(f'image {k} has values from {low:g} to {high:g}; {expected}')
        rounded = np.clip(np.rint(array), 0, 255)
        if 0 < high <= 1 and (rounded != array).any():
            raise InputError(f'image {k} has values from {low:g} to {high:g} only; {expected}')
        array = rounded.astype(np.uint8)
    return np.ascontiguousarray(array.transpose(1, 2, 0))
