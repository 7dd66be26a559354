"""The weights of a trained detector as the start of another run: classes are matched by machine id.

The order of the classes may differ, the new network may have some of the classes, as an expert has,
or others. Outputs of classes that the file does not have keep their random weights.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import chainer
import numpy as np

from pfdet.errors import InputError
from pfdet.files.npz import open_npz
from pfdet.files.reading import reading
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.load_arrays import load_arrays
from pfdet.training import checkpoints, model_directory

_HEAD = 'head/conf/W', 'head/conf/b', 'head/loc/W', 'head/loc/b'


class DetectorWeights(NamedTuple):
    """The arrays of a detector and its label space.

    Attributes:
        arrays (mapping): By name, as in ``model.npz``.
        mids (tuple of str): Machine ids of its classes; :obj:`None` if no file says them.
    """

    arrays: Mapping[str, np.ndarray]
    mids: tuple[str, ...] | None


def read_detector(path: Path) -> DetectorWeights:
    """Read the ``model.npz`` or a snapshot of a run.

    The classes are those of the snapshot, or of ``recipe.json`` next to the weights.

    Raises:
        InputError: A file is damaged or has no detector.
    """
    with open_npz(path) as archive:
        arrays = model_directory.network_arrays(archive)
        is_snapshot = arrays is not archive
        # The state of a snapshot's optimizer is not read.
        arrays = dict(arrays)
    if is_snapshot:
        mids = checkpoints.read_run(path).get('classes')
        with reading(path, 'a snapshot', 'its classes'):
            return DetectorWeights(arrays, None if mids is None else tuple(mids))
    if not (path.parent / 'recipe.json').exists():
        return DetectorWeights(arrays, None)
    return DetectorWeights(arrays, model_directory.read_recipe(path.parent).classes.mids)


def load_detector(network: FasterRCNN, path: Path, mids: Sequence[str]) -> list[str]:
    """Start a network from the weights of a detector.

    Args:
        network (FasterRCNN): A network of the same architecture, with random weights.
        path (path): The ``model.npz`` or a snapshot of a run.
        mids (sequence of str): Machine ids of the network's classes.

    Returns:
        list of str: The machine ids that the file does not have. Their outputs are unchanged.

    Raises:
        InputError: A file is damaged, or has the weights of another architecture; or nothing says
            its classes, and it has another number of them than the network.
    """
    arrays, known = read_detector(path)
    with reading(path, "a detector's model.npz"):
        n_output = len(arrays['head/conf/W']) if 'head/conf/W' in arrays else None
        if n_output is None:
            raise InputError(f"{path}: has no head/conf/W; expected a detector's model.npz")
        if known is None:
            n_expected = len(network.head.conf.W.array)
            if n_output != n_expected:
                raise InputError(
                    f'{path}: its head has {n_output} outputs, the network {n_expected}; the '
                    'recipe.json of its run must be next to it'
                )
            known = tuple(mids)
        position = {mid: k for k, mid in enumerate(known)}
        rows = np.array([position.get(mid, -1) for mid in mids], np.int64)
        arrays = {**arrays, **head_of_classes(arrays, rows, len(known), _head(network), path)}
    load_arrays(network, arrays, path, 'weights of this network')
    return [mid for mid, row in zip(mids, rows.tolist(), strict=True) if row < 0]


def head_of_classes(
    arrays: Mapping[str, np.ndarray],
    rows: np.ndarray,
    n_class: int,
    own: Mapping[str, np.ndarray],
    path: Path,
) -> dict[str, np.ndarray]:
    """Arrange the head's outputs for other classes.

    Args:
        arrays (mapping): Arrays of a detector of :math:`C` classes.
        rows (int array): For each class of the new head its row in ``arrays``, :math:`(K,)`; -1 for
            the row in ``own``.
        n_class (int): :math:`C`.
        own (mapping): The new head's own arrays.
        path (path): Named in error messages.

    Returns:
        dict: The arrays of the head's last layers. A background class stays last. Class-specific
        boxes are arranged too.

    Raises:
        InputError: The arrays are not those of a detector with ``n_class`` classes and such a head.
    """
    n_output, n_box = len(arrays['head/conf/W']), len(arrays['head/loc/W'])
    if n_output not in (n_class, n_class + 1) or n_box not in (4, 4 * n_class):
        raise InputError(
            f'{path}: its head has {n_output} outputs and {n_box // 4} boxes; expected one for '
            f'each of {n_class} classes, and optionally an output for the background'
        )
    if n_output - n_class != len(own['head/conf/W']) - len(rows):
        what = 'a' if n_output > n_class else 'no'
        raise InputError(
            f"{path}: its head has {what} background class, other than the recipe's loss needs"
        )
    arranged = {}
    for name in _HEAD:
        theirs, mine = arrays[name], own[name]
        width = 4 if 'loc' in name else 1
        if width == 4 and n_box == 4:
            arranged[name] = theirs
            continue
        if theirs.shape[1:] != mine.shape[1:] or len(mine) < width * len(rows):
            raise InputError(
                f'{path}: not weights of this network: {name} has shape {theirs.shape}, the '
                f"network's {mine.shape}"
            )
        theirs, result = (a.reshape(-1, width, *a.shape[1:]).copy() for a in (theirs, mine))
        known = np.flatnonzero(rows >= 0)
        result[known] = theirs[rows[known]]
        # The background
        result[len(rows) :] = theirs[n_class:]
        arranged[name] = result.reshape(-1, *theirs.shape[2:])
    return arranged


def _head(network: FasterRCNN) -> dict[str, np.ndarray]:
    params = {name.removeprefix('/'): param for name, param in network.namedparams()}
    return {name: chainer.backends.cuda.to_cpu(params[name].array) for name in _HEAD}
