"""Pairs of a class and a part or possession of it, for the co-occurrence loss."""

import csv
import os
from importlib import resources
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.files.regular import read_bytes
from pfdet.openimages.classes import Classes

_MAX_SIZE = 1 << 26
_COLUMNS = ('SubjectMID', 'PartMID')


def read_pairs(
    classes: Classes, path: str | os.PathLike | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Read the pairs whose classes are both in a label space.

    Args:
        classes (Classes): The label space. Pairs with other classes are skipped.
        path (path): A CSV file with the columns ``SubjectMID`` and ``PartMID``. Other columns are
            ignored. By default, the 47 pairs of PFDet's Table 3.

    Returns:
        pair of arrays: Class ids of the subjects and of their parts, int64 :math:`(P,)` each. With
        ``path`` there is at least one pair. By default there may be none.

    Raises:
        InputError: If the file cannot be read, a column or a value is missing, a class is paired
            with itself, or no pair of ``path`` is in the label space. The message names the file
            and the line.
    """
    source = path
    if path is None:
        path = resources.files('pfdet.openimages') / 'data' / 'cooccurrence_pairs_47.csv'
    else:
        path = Path(path)
    try:
        text = read_bytes(path, max_size=_MAX_SIZE).decode('utf-8-sig')
    except OSError as e:
        raise InputError(f'{path}: cannot read the pairs: {e.strerror or e}') from e
    except UnicodeDecodeError as e:
        raise InputError(f'{path}: expected pairs as CSV in UTF-8, but {e}') from e
    rows = csv.DictReader(text.splitlines(), strict=True)
    pairs, n_row = {}, 0
    try:
        missing = [c for c in _COLUMNS if c not in (rows.fieldnames or ())]
        if missing:
            raise InputError(
                f'{path}, line 1: no column {missing[0]}; expected {", ".join(_COLUMNS)}'
            )
        for row in rows:
            n_row += 1
            subject, part = mids = [(row[c] or '').strip() for c in _COLUMNS]
            if not all(mids):
                raise InputError(f'{path}, line {rows.line_num}: expected two class ids')
            if subject == part:
                raise InputError(
                    f'{path}, line {rows.line_num}: {subject} is paired with itself; '
                    'expected a class and a part or possession of it'
                )
            if subject in classes.ids and part in classes.ids:
                pairs[classes.id_of(subject), classes.id_of(part)] = None
    except csv.Error as e:
        raise InputError(f'{path}, line {rows.line_num + 1}: expected CSV, but {e}') from e
    if source is not None and not pairs:
        raise InputError(
            f'{path}: none of the {n_row} pairs is in the label space; '
            f'expected pairs of mids such as {classes.mids[0]!r}'
        )
    subject, part = np.array(list(pairs), np.int64).reshape(-1, 2).T
    return subject, part
