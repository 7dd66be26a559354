"""The label space that a training run writes into its ``recipe.json``."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pfdet.files.json_file import read_json
from pfdet.files.memory import check_memory
from pfdet.files.reading import reading
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy

#: What a directory with a ``recipe.json`` is expected to be, for messages.
RUN = 'the --out directory of a training run'


class LabelSpace(NamedTuple):
    """Classes and their hierarchy."""

    classes: Classes
    hierarchy: Hierarchy


def label_space_of_run(directory: str | os.PathLike) -> LabelSpace:
    """Read the classes and the hierarchy of a training run.

    Args:
        directory (path): Output directory of the run, with ``recipe.json``.

    Raises:
        InputError: The file is missing or damaged.
    """
    path = Path(directory) / 'recipe.json'
    content = read_json(path, RUN)
    with reading(path, RUN):
        return parse_label_space(content, path)


def parse_label_space(content: Mapping[str, Any], path: Path) -> LabelSpace:
    """Take the classes and the hierarchy out of the content of a ``recipe.json``.

    Args:
        content (mapping): With ``'classes'``, pairs of mid and name, and ``'ancestors'``, pairs of
            class ids.
        path (path): The file, for messages.

    Raises:
        InputError: The classes are too many for the memory.
        Exception: Of any type, if the content is malformed; call this within
            :func:`~pfdet.files.reading.reading`.
    """
    pairs = content['classes']
    if not all(isinstance(text, str) and text for pair in pairs for text in pair):
        raise ValueError('a class has no mid and name')
    mids, names = zip(*pairs, strict=True)
    classes = Classes(tuple(mids), tuple(names))
    # The hierarchy has several matrices, which are larger than a list of short mids.
    check_memory(path, 4 * len(mids) ** 2, 'its hierarchy')
    return LabelSpace(classes, Hierarchy(_ancestors(content.get('ancestors', ()), len(mids))))


def _ancestors(pairs: Sequence[tuple[int, int]], n_class: int) -> np.ndarray:
    ancestors = np.zeros((n_class, n_class), bool)
    for child, ancestor in pairs:
        for i in child, ancestor:
            if type(i) is not int or not 0 <= i < n_class:
                raise ValueError(f'ancestors: {str(i)[:20]} is not the id of a class')
        ancestors[child, ancestor] = True
    return ancestors
