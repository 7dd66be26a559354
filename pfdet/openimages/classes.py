"""The classes of a label space: machine ids (mids) and names of Open Images."""

import csv
import functools
import importlib.resources
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from pfdet.errors import InputError

# Header line of the class descriptions since V7. Earlier releases have no header.
_HEADER = ('LabelName', 'DisplayName')


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

    The header line of later releases, ``LabelName,DisplayName``, is optional.

    Args:
        path (path): Such as ``challenge-2018-class-descriptions-500.csv``.

    Returns:
        Classes: In the order of the file.

    Raises:
        InputError: If the file cannot be read or is empty, or a line is malformed or repeats a
            mid. The message names the file and the line.
    """
    mids: dict[str, int] = {}
    names = []
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            for number, line in enumerate(f, 1):
                if not line.strip('\r\n'):
                    continue
                row = next(csv.reader([line], strict=True))
                if number == 1 and tuple(row) == _HEADER:
                    continue
                if len(row) != 2 or not all(field.strip() for field in row):
                    raise InputError(
                        f'{path}, line {number}: expected mid,name, got {line.rstrip()[:80]!r}'
                    )
                mid, name = row
                if mid in mids:
                    raise InputError(
                        f'{path}, line {number}: class {mid!r} repeats line {mids[mid]}; '
                        'expected each mid once'
                    )
                mids[mid] = number
                names.append(name)
    except (csv.Error, StopIteration) as e:
        raise InputError(f'{path}, line {number}: expected mid,name, but {e}') from e
    except UnicodeDecodeError as e:
        raise InputError(f'{path}: expected UTF-8 text of lines mid,name, but {e}') from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the class descriptions: {e.strerror or e}') from e
    if not mids:
        raise InputError(f'{path}: no classes; expected lines of mid,name')
    return Classes(tuple(mids), tuple(names))


@functools.cache
def challenge_classes() -> Classes:
    """Return the 500 classes of the Open Images Challenge 2018 and 2019.

    They are part of the annotations of Open Images, CC BY 4.0 by Google LLC.
    """
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    name = 'challenge-2018-class-descriptions-500.csv'
    with importlib.resources.as_file(data.joinpath(name)) as path:
        return read_classes(path)
