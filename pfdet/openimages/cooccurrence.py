"""Pairs of classes of which the second is a part or a possession of the first."""

import csv
import os
from importlib import resources
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes

_COLUMNS = ('SubjectMID', 'PartMID')


def read_pairs(classes: Classes, path: str | os.PathLike | None = None
               ) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose two classes are both in a label space.

    Args:
        classes (Classes): The label space.
        path (path): A CSV file with the columns ``SubjectMID`` and ``PartMID``; by default the 47
            pairs of PFDet's Table 3.

    Returns:
        pair of int arrays: Class ids of subjects and of their parts, :math:`(P,)` each.

    Raises:
        InputError: The file cannot be read, or a column or a value is missing.
    """
    if path is None:
        path = resources.files('pfdet.openimages') / 'data' / 'cooccurrence_pairs_47.csv'
    else:
        path = Path(path)
    try:
        text = path.read_text(encoding='utf-8')
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path}: cannot be read: {e}') from e
    rows = csv.DictReader(text.splitlines())
    missing = [c for c in _COLUMNS if c not in (rows.fieldnames or ())]
    if missing:
        raise InputError(f'{path}: line 1: no column {missing[0]}; expected {", ".join(_COLUMNS)}')
    pairs = []
    for row in rows:
        mids = [row[c] for c in _COLUMNS]
        if not all(mids):
            raise InputError(f'{path}: line {rows.line_num}: expected two class ids')
        if all(mid in classes.ids for mid in mids):
            pairs.append([classes.id_of(mid) for mid in mids])
    subject, part = np.array(pairs, np.int64).reshape(-1, 2).T
    return subject, part
