"""The classes of a label space: machine ids (mids) and names of Open Images."""

import csv
import functools
import importlib.resources
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from pfdet.errors import InputError
from pfdet.openimages.identifiers import normal_name
from pfdet.openimages.text_files import DELIMITERS, open_utf8, text_lines

# Words of the headers of class descriptions, without spaces and underscores. Open Images has
# LabelName,DisplayName since V7, and no header before.
_MAX_SIZE = 1 << 26
_MID_WORDS = frozenset(('mid', 'mids', 'id', 'labelname', 'label', 'labelid', 'classid', 'class'))
_NAME_WORDS = frozenset(
    ('name', 'names', 'displayname', 'classname', 'labelname', 'class', 'label', 'description')
)
_MID = re.compile('/[a-z]/[0-9a-z_]+')


@dataclass(frozen=True)
class Classes:
    """The classes of a label space, in the order of their ids.

    Attributes:
        mids (tuple of str): Machine ids such as ``'/m/014j1m'``. Class ``i`` is ``mids[i]``.
        names (tuple of str): Names such as ``'Apple'``, in the same order.

    Raises:
        ValueError: If the numbers of mids and names differ, or a mid is repeated.
    """

    mids: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.mids) != len(self.names):
            raise ValueError(f'{len(self.mids)} mids but {len(self.names)} names')
        if len(set(self.mids)) != len(self.mids):
            raise ValueError('a mid occurs twice')

    def __len__(self) -> int:
        return len(self.mids)

    @functools.cached_property
    def ids(self) -> Mapping[str, int]:
        """Mapping from mid to class id, 0-based."""
        return MappingProxyType({mid: i for i, mid in enumerate(self.mids)})

    def id_of(self, mid: str) -> int:
        """Return the class id of a mid.

        Raises:
            KeyError: If no class has this mid.
        """
        return self.ids[mid]

    def pick(self, ids: Iterable[int]) -> 'Classes':
        """Return some of the classes. Their new ids are their positions in ``ids``."""
        ids = [int(i) for i in ids]
        return Classes(tuple(self.mids[i] for i in ids), tuple(self.names[i] for i in ids))

    def __getstate__(self) -> dict:
        # A mapping proxy cannot be pickled. It is rebuilt on demand.
        return {'mids': self.mids, 'names': self.names}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)


def read_classes(path: str | os.PathLike) -> Classes:
    """Read the class descriptions of Open Images: lines of ``mid,name``.

    A header such as ``LabelName,DisplayName``, as in later releases, is optional, and so are lines
    of comments, which start with ``#``. Fields may be separated by semicolons or tabs. If only the
    second fields are MIDs, the columns are exchanged.

    Args:
        path (path): Such as ``challenge-2018-class-descriptions-500.csv``.

    Returns:
        Classes: In the order of the file.

    Raises:
        InputError: If the file cannot be read or is empty, or a line is malformed or repeats a
            mid, or the first line is neither a class nor a known header. The message names the
            file and the line.
    """
    rows = _read_rows(path)
    if rows and _is_header(rows[0]):
        del rows[0]
    if not rows:
        raise InputError(f'{path}: no classes; expected lines of mid,name')
    is_mid = [[_MID.fullmatch(row.fields[k]) is not None for row in rows] for k in (0, 1)]
    if all(is_mid[1]) and not any(is_mid[0]):
        rows = [_Row(row.number, row.fields[::-1]) for row in rows]
    elif len(rows) > 2 and not is_mid[0][0] and all(is_mid[0][1:]):
        raise InputError(
            f'{path}, line {rows[0].number}: {rows[0].fields[0]!r} is no class id such as those of '
            'the other lines; expected a class, or the header mid,name'
        )
    mids: dict[str, int] = {}
    for row in rows:
        mid = row.fields[0]
        if mid in mids:
            raise InputError(
                f'{path}, line {row.number}: class {mid!r} repeats line {mids[mid]}; '
                'expected each mid once'
            )
        mids[mid] = row.number
    return Classes(tuple(mids), tuple(row.fields[1] for row in rows))


class _Row(NamedTuple):
    number: int
    fields: tuple[str, ...]


def _read_rows(path: str | os.PathLike) -> list[_Row]:
    rows: list[_Row] = []
    with open_utf8(path, 'class description', _MAX_SIZE) as (_, stream):
        for number, line in enumerate(text_lines(stream), 1):
            text = line.strip('\r\n')
            if not text.strip() or text.lstrip().startswith('#'):
                continue
            rows.append(_Row(number, _split(path, number, text)))
    return rows


def _split(path: str | os.PathLike, number: int, text: str) -> tuple[str, ...]:
    # MIDs contain no separator, so the first one in the line is that of the file.
    delimiter = min(DELIMITERS, key=lambda c: (text.find(c) % (len(text) + 1), c != ','))
    try:
        [row] = csv.reader([text], delimiter=delimiter, skipinitialspace=True, strict=True)
    except (csv.Error, ValueError) as e:
        raise InputError(f'{path}, line {number}: expected mid,name, but {e}') from e
    fields = tuple(map(normal_name, row))
    if len(row) != 2 or None in fields:
        raise InputError(
            f'{path}, line {number}: expected mid,name without control characters, in UTF-8 or '
            f'UTF-16; got {text[:80]!r}'
        )
    return fields


def _is_header(row: _Row) -> bool:
    a, b = (''.join(filter(str.isalnum, field)).casefold() for field in row.fields)
    return (a in _MID_WORDS and b in _NAME_WORDS) or (a in _NAME_WORDS and b in _MID_WORDS)


@functools.cache
def challenge_classes() -> Classes:
    """Return the 500 classes of the Open Images Challenge 2018 and 2019.

    They are part of the annotations of Open Images, CC BY 4.0 by Google LLC.
    """
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    name = 'challenge-2018-class-descriptions-500.csv'
    with importlib.resources.as_file(data.joinpath(name)) as path:
        return read_classes(path)
