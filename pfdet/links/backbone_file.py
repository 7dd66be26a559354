"""Backbone files: weights and conventions in one .npz, written by convert and read by --init."""

from collections.abc import Iterable
from pathlib import Path

import chainer
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.files.npz import open_npz, read_npz
from pfdet.links.backbone import Backbone, is_classifier, is_convention
from pfdet.links.load_arrays import load_arrays

# Array of the keys of parameters missing from the checkpoint. The network keeps its own values.
_OMITTED = 'left_out'


def arrays_of(backbone: Backbone) -> dict[str, np.ndarray]:
    """Return parameters, batch statistics and conventions by Chainer's serialization key."""
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(backbone)
    return {key: np.asarray(value) for key, value in serializer.target.items()}


def write_backbone(path: Path, arrays: dict[str, np.ndarray], omitted: Iterable[str] = ()) -> None:
    """Write a backbone file.

    Args:
        path (path): The file.
        arrays (dict): Arrays by key, see :func:`arrays_of`.
        omitted (iterable of str): Keys to omit from the file. Loading does not require them.
    """
    keys = sorted(omitted)
    arrays = {key: a for key, a in arrays.items() if key not in set(keys)}
    arrays[_OMITTED] = np.array(keys, np.str_)
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as file:
        np.savez(file, **arrays)


def is_backbone_file(path: Path) -> bool:
    """Whether a .npz file is a backbone file and not the weights of a detector.

    Args:
        path (path): The file.

    Raises:
        InputError: The file is not a .npz file.
    """
    with open_npz(path) as arrays:
        return _OMITTED in arrays


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load the weights and conventions of a backbone file.

    Args:
        backbone (Backbone): A backbone of the same architecture. If it has no classifier, a
            classifier in the file is skipped.
        path (path): A file written by ``python -m pfdet.links.convert``.

    Raises:
        InputError: The file cannot be read, belongs to another network, or has values that are not
            finite.
    """
    arrays = read_npz(path)
    if _OMITTED not in arrays:
        raise InputError(
            f'{path}: not a backbone file; expected a file written by python -m pfdet.links.convert'
        )
    omitted = set(arrays.pop(_OMITTED).reshape(-1).tolist())
    expected = arrays_of(backbone)
    missing = expected.keys() - arrays.keys() - omitted
    unexpected = {
        key
        for key in arrays.keys() - expected.keys()
        if not is_classifier(key) and not is_convention(key)
    }
    misshaped = {
        key for key in arrays.keys() & expected.keys() if arrays[key].shape != expected[key].shape
    }
    problems = [
        f'{len(keys)} parameters {problem}, such as {min(keys)}'
        for problem, keys in [
            ('missing', missing),
            ('unexpected', unexpected),
            ('of another shape', misshaped),
        ]
        if keys
    ]
    if problems:
        raise InputError(f'{path}: weights of another network: {"; ".join(problems)}')
    kept = {key: expected[key] for key in omitted & expected.keys() - arrays.keys()}
    load_arrays(backbone, {**arrays, **kept}, path, 'a backbone file')
