"""A backbone's weights and conventions in one .npz file: what convert writes and --init takes."""

from collections.abc import Iterable
from pathlib import Path

import chainer
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.links.backbone import Backbone, is_classifier, is_convention
from pfdet.links.checkpoint_files import read_npz

# The keys of parameters that a checkpoint did not have: the network keeps its own.
_LEFT_OUT = 'left_out'


def arrays_of(backbone: Backbone) -> dict[str, np.ndarray]:
    """Parameters, batch statistics and conventions by key, as Chainer would save them."""
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(backbone)
    return {key: np.asarray(value) for key, value in serializer.target.items()}


def write_backbone(path: Path, arrays: dict[str, np.ndarray], left_out: Iterable[str] = ()) -> None:
    """Write a backbone's file.

    Args:
        path (path): Where to.
        arrays (dict): As :func:`arrays_of` gives them.
        left_out (iterable of str): Keys that it shall not have, and whoever loads it must not
            miss.
    """
    left_out = sorted(left_out)
    arrays = {key: a for key, a in arrays.items() if key not in set(left_out)}
    arrays[_LEFT_OUT] = np.array(left_out, np.str_)
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as file:
        np.savez(file, **arrays)


def is_backbone_file(path: Path) -> bool:
    """Whether a .npz file is a backbone's alone, as against a whole detector's.

    Raises:
        InputError: It is no .npz file.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return _LEFT_OUT in file.files
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}') from e
    except Exception as e:
        # A damaged archive raises all kinds of errors.
        raise InputError(f'{path}: not a .npz file: {e}') from e


def load_backbone(backbone: Backbone, path: Path) -> None:
    """Load weights, and follow their conventions.

    Args:
        backbone (Backbone): Of the same architecture. A classifier in the file that it does not
            have is passed over.
        path (path): What ``python -m pfdet.links.convert`` wrote.

    Raises:
        InputError: The file cannot be read or is of another network.
    """
    arrays = read_npz(path)
    if _LEFT_OUT not in arrays:
        raise InputError(
            f'{path}: not the weights of a backbone alone; expected a file that '
            'python -m pfdet.links.convert wrote'
        )
    left_out = set(arrays.pop(_LEFT_OUT).tolist())
    expected = arrays_of(backbone)
    missing = expected.keys() - arrays.keys() - left_out
    surplus = {
        key
        for key in arrays.keys() - expected.keys()
        if not is_classifier(key) and not is_convention(key)
    }
    misshaped = {
        key for key in arrays.keys() & expected.keys() if arrays[key].shape != expected[key].shape
    }
    wrong = [
        f'{len(keys)} parameters {how}, such as {min(keys)}'
        for how, keys in [
            ('missing', missing),
            ('too many', surplus),
            ('of another shape', misshaped),
        ]
        if keys
    ]
    if wrong:
        raise InputError(f'{path}: weights of another network: {"; ".join(wrong)}')
    chainer.serializers.NpzDeserializer(arrays, strict=False).load(backbone)
