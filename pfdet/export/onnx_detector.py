"""Prediction by an exported detector in ONNX Runtime."""

import json
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from pfdet.cpu.threads import n_thread
from pfdet.errors import InputError
from pfdet.export.detector import FORMAT, METADATA, onnx_model
from pfdet.export.graph import MAX_BYTES
from pfdet.files.regular import read_bytes
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.optional_packages import optional_package

_EXPECTED = 'expected a model of pfdet export'


class OnnxDetector:
    """A detector that ONNX Runtime runs.

    It takes the place of :class:`~pfdet.links.faster_rcnn.FasterRCNN` in :mod:`pfdet.inference`.

    Args:
        model (path or bytes): A model file, or its content.
        n_threads (int): Number of threads, by default those of pfdet's own CPU functions, see
            :func:`pfdet.cpu.threads.n_thread`.
        providers (sequence of str): Execution providers of ONNX Runtime.

    Attributes:
        metadata (dict): What :func:`~pfdet.export.detector.onnx_model` stored with the model.

    Raises:
        InputError: The model cannot be read, is not a detector of pfdet, or the package
            ``onnxruntime`` is missing.
    """

    dtype = np.dtype(np.float32)

    def __init__(
        self,
        model: str | os.PathLike | bytes,
        n_threads: int | None = None,
        providers: Sequence[str] = ('CPUExecutionProvider',),
    ):
        runtime = optional_package('onnxruntime')
        options = runtime.SessionOptions()
        options.intra_op_num_threads = n_threads or n_thread()
        options.inter_op_num_threads = 1
        # Only errors: models of unknown sizes cause warnings.
        options.log_severity_level = 3
        # Planned for fixed sizes
        options.enable_mem_pattern = False
        name = 'model' if isinstance(model, bytes) else os.fspath(model)
        content = model if isinstance(model, bytes) else _read(name)
        try:
            self._session = runtime.InferenceSession(content, options, providers=list(providers))
        except Exception as e:
            # ONNX Runtime has a class of exception per kind of error, without a common base.
            raise InputError(
                f'{name}: ONNX Runtime cannot load it: {_first_line(e)}; {_EXPECTED}'
            ) from e
        stored = self._session.get_modelmeta().custom_metadata_map.get(METADATA)
        self.metadata: dict[str, Any] = _metadata(stored, name)
        self.stride: int = self.metadata['stride']
        self.n_class: int = self.metadata['n_class']
        self.n_box: int = self.metadata['n_box']

    @classmethod
    def of_network(cls, network: FasterRCNN, n_threads: int | None = None) -> 'OnnxDetector':
        """Export a detector and load the result.

        Args:
            network (FasterRCNN): The detector, on the CPU.
            n_threads (int): Number of threads.

        Raises:
            InputError: The network cannot be exported, or a package is missing.
        """
        return cls(onnx_model(network).SerializeToString(), n_threads)

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Round height and width up to multiples of the stride."""
        height, width = (-(-int(n) // self.stride) * self.stride for n in size)
        return height, width

    def predict(
        self, imgs: Sequence[np.ndarray], score_thresh: float = 0.0
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Detect objects in images, without score threshold and suppression.

        Arguments and return value are those of
        :meth:`pfdet.links.faster_rcnn.FasterRCNN.predict`.
        """
        sizes = np.array([img.shape[1:] for img in imgs], np.int64)
        batch = np.zeros((len(imgs), 3, *sizes.max(axis=0)), np.float32)
        for img, (H, W), pixels in zip(imgs, sizes, batch):
            pixels[:, :H, :W] = img
        bbox, score, image = self._session.run(
            ['boxes', 'scores', 'image'], {'images': batch, 'sizes': sizes}
        )
        if score_thresh > 0 and self.n_box > 1:
            bbox[score < score_thresh] = 0
        ends = np.searchsorted(image, np.arange(len(imgs) + 1))
        return [(bbox[begin:end], score[begin:end]) for begin, end in zip(ends, ends[1:])]


def _read(path: str) -> bytes:
    try:
        return read_bytes(path, max_size=MAX_BYTES)
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}; {_EXPECTED}') from e


def _metadata(stored: str | None, name: str) -> dict[str, Any]:
    if stored is None:
        raise InputError(f'{name}: is a model of another program; {_EXPECTED}')
    try:
        metadata = json.loads(stored)
        version, part = metadata['format'], metadata['part']
        numbers = [metadata[key] for key in ('stride', 'n_class', 'n_box')]
        if not all(type(n) is int and n > 0 for n in numbers):
            raise ValueError('numbers that are not positive')
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise InputError(f'{name}: its entry {METADATA!r} is damaged: {e}; {_EXPECTED}') from e
    if version != FORMAT:
        raise InputError(f'{name}: has format {version!r}; expected {FORMAT}: export it again')
    if part != 'detector':
        raise InputError(f'{name}: is the {part} of a detector; expected a whole one')
    return metadata


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
