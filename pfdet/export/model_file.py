"""Files of exported detectors: one file has the network, the label space and the test settings."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.export.detector import onnx_model
from pfdet.export.onnx_detector import OnnxDetector
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.recipes.settings import from_dict, to_dict
from pfdet.training.model_directory import Model, override_for_test

#: Fields of a recipe that only the steps after the network use. Others are fixed by the export.
FREE_FIELDS = (
    'test_sizes',
    'max_size',
    'test_flip',
    'score_thresh',
    'suppression',
    'suppression_iou',
    'max_per_image',
    'batch_size',
)


def write(
    path: Path, model: Model, hierarchy: Hierarchy, part: str = 'detector', weights: str = ''
) -> int:
    """Export a model to a file.

    Args:
        path (path): The file to write.
        model (Model): Network, recipe and classes.
        hierarchy (Hierarchy): Hierarchy of the classes.
        part (str): A key of :data:`pfdet.export.detector.PARTS`.
        weights (str): What identifies the weights, such as a checksum.

    Returns:
        int: Size of the file in bytes.

    Raises:
        InputError: The network cannot be exported, or the file cannot be written.
    """
    exported = onnx_model(
        model.network,
        part,
        {
            'recipe': to_dict(model.recipe),
            'classes': [
                list(pair) for pair in zip(model.classes.mids, model.classes.names, strict=True)
            ],
            'ancestors': np.argwhere(hierarchy.ancestors).tolist(),
            'weights': weights,
        },
    )
    with replace_when_done(path) as unfinished:
        return unfinished.write_bytes(exported.SerializeToString())


def read(path: Path, settings: Sequence[str] = ()) -> Model:
    """Load an exported detector for prediction.

    Args:
        path (path): A file of :func:`write`.
        settings (sequence of str): Overrides for testing, of fields in :data:`FREE_FIELDS`.

    Returns:
        Model: Its network is an :class:`~pfdet.export.onnx_detector.OnnxDetector`. There are no
        rates; they are part of the graph.

    Raises:
        InputError: The file cannot be used, or a setting is fixed by the export.
    """
    detector = OnnxDetector(path)
    metadata: dict[str, Any] = detector.metadata
    try:
        mids, names = zip(*metadata['classes'], strict=True)
        classes = Classes(tuple(mids), tuple(names))
        fields = metadata['recipe']
        if not all(isinstance(text, str) for text in (*mids, *names)):
            raise TypeError('expected text')
    except (KeyError, TypeError, ValueError) as e:
        raise InputError(
            f'{path}: has no recipe and classes; expected a model of pfdet export'
        ) from e
    if len(classes) != detector.n_class:
        raise InputError(
            f'{path}: has {len(classes)} names for {detector.n_class} classes; expected as many'
        )
    exported = from_dict(fields, str(path))
    recipe = override_for_test(exported, settings)
    for name, value in to_dict(recipe).items():
        if name not in FREE_FIELDS and value != to_dict(exported)[name]:
            raise InputError(
                f'--set {name}={value}: is fixed in {path}; expected one of '
                f'{", ".join(FREE_FIELDS)}, or export the run again with pfdet export --set'
            )
    return Model(detector, recipe, classes, None)
