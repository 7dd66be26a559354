"""Names of the classes of detections, for files and pages that people read."""

import os
from collections import Counter
from collections.abc import Iterable

from pfdet.errors import InputError
from pfdet.evaluation.detections_file import (
    CLASSES_KEY,
    NAMES_KEY,
    is_parquet,
    open_parquet,
    read_metadata_list,
)
from pfdet.openimages.classes import Classes, challenge_classes


def read_class_names(path: str | os.PathLike) -> dict[str, str]:
    """Read the names of the classes of the model behind a file.

    Args:
        path (path): A file of detections.

    Returns:
        dict: From MID to name. It is empty if the file does not list them, as in CSV and in files
        of earlier versions.

    Raises:
        InputError: The file cannot be read.
    """
    if not is_parquet(path):
        return {}
    with open_parquet(path) as file:
        mids = read_metadata_list(path, file, CLASSES_KEY)
        names = read_metadata_list(path, file, NAMES_KEY)
    if mids is None or names is None:
        return {}
    if len(mids) != len(names):
        raise InputError(
            f'{path}: its metadata has {len(names)} class_names for {len(mids)} classes; expected '
            'one per class'
        )
    return dict(zip(mids, names))


def named_classes(mids: Iterable[str], paths: Iterable[str | os.PathLike]) -> Classes:
    """The classes with some MIDs, with the names that files of detections list.

    Args:
        mids (iterable of str): The MIDs.
        paths (iterable of paths): Files of detections. The first one that names a class counts.

    Returns:
        Classes: A class that no file names has the name that the challenge gives it, or its MID.

    Raises:
        InputError: A file cannot be read.
    """
    mids = tuple(mids)
    challenge = challenge_classes()
    names = dict(zip(challenge.mids, challenge.names))
    for path in reversed(list(paths)) if mids else ():
        names.update(read_class_names(path))
    return Classes(mids, tuple(names.get(mid, mid) for mid in mids))


def distinct_names(classes: Classes) -> list[str]:
    """The names of the classes, with the MID behind those that several classes have."""
    count = Counter(classes.names)
    return [
        name if count[name] == 1 else f'{name} ({mid})'
        for mid, name in zip(classes.mids, classes.names)
    ]
