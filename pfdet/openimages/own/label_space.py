"""The classes of a data set with own names.

A class without a MID has its name as its id. Without a hierarchy, no class is a kind of another.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.files.memory import check_memory
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.hierarchy import Hierarchy, flat_hierarchy, read_hierarchy
from pfdet.openimages.identifiers import normal_mid, normal_name
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.label_space import LabelSpace
from pfdet.openimages.own.data_yaml import read_names
from pfdet.openimages.text_files import DELIMITERS, read_first_line
from pfdet.printable import printable
from pfdet.similar_names import expected_name

_MAX_CLASSES = np.iinfo(np.int16).max


class OwnLabelSpace(NamedTuple):
    """A label space, and what annotated names are in it.

    Attributes:
        classes (Classes): The ``C`` classes.
        hierarchy (Hierarchy): Their hierarchy.
        class_of (array): int32 ``(K,)``, the class id of each annotated name; -1 for names that are
            not among the classes.
    """

    classes: Classes
    hierarchy: Hierarchy
    class_of: np.ndarray


def own_label_space(
    source: str,
    names: tuple[str, ...],
    given: Classes | None = None,
    hierarchy: str | os.PathLike | Hierarchy | None = None,
    rename: Mapping[str, str] | None = None,
) -> OwnLabelSpace:
    """Decide which classes an index has.

    Args:
        source (str): The annotations, for messages.
        names (tuple of str): ``K`` names of classes, as annotated.
        given (Classes): The classes. An annotated name is that of a class, or its MID. By default,
            the annotated names in their order are the classes.
        hierarchy (path or Hierarchy): The hierarchy of the classes. By default, it is flat.
        rename (mapping): From annotated names to other ones. Names that become the same are one
            class.

    Returns:
        OwnLabelSpace: The classes.

    Raises:
        InputError: If there are too many classes, none of the names is among ``given``, a name is
            that of two classes, or a name of ``rename`` is not annotated.
    """
    rename = dict(rename or {})
    for old in rename:
        if old not in names:
            raise InputError(
                f'--rename {printable(old)}: no such class in {source}; '
                f'{printable(expected_name(old, names[:50]))}'
            )
    renamed = [rename.get(name, name) for name in names]
    if given is None:
        distinct = tuple(dict.fromkeys(renamed))
        given = Classes(distinct, distinct)
    n_class = len(given)
    if not 0 < n_class <= _MAX_CLASSES:
        raise InputError(f'{source}: {n_class} classes; expected 1 to {_MAX_CLASSES}')
    check_memory(source, 4 * n_class**2, 'the hierarchy of its classes')
    if hierarchy is None:
        hierarchy = flat_hierarchy(n_class)
    elif not isinstance(hierarchy, Hierarchy):
        hierarchy = read_hierarchy(hierarchy, given)
    class_of = np.array([_class_of(name, given) for name in renamed], np.int32)
    if names and (class_of < 0).all():
        raise InputError(
            f'{source}: none of its {len(names)} classes, such as {printable(renamed[0])}, is '
            f'among the {n_class} classes, such as {printable(given.names[0])}'
        )
    return OwnLabelSpace(given, hierarchy, class_of)


def _class_of(name: str, classes: Classes) -> int:
    if name in classes.ids:
        return classes.ids[name]
    found = [i for i, other in enumerate(classes.names) if other == name]
    if len(found) > 1:
        mids = ' and '.join(classes.mids[i] for i in found)
        raise InputError(
            f'class {printable(name)} is annotated by a name of two classes, {mids}; give '
            f'--rename to one of these ids'
        )
    return found[0] if found else -1


def read_own_classes(path: str | os.PathLike) -> Classes:
    """Read the classes of ``--classes``: ``mid,name`` per line, or one name per line.

    Args:
        path (path): The file. If its first line has no separator, each line is a name.

    Returns:
        Classes: In the order of the file.

    Raises:
        InputError: If the file cannot be read, a line is malformed, or a class is repeated.
    """
    if set(DELIMITERS) & set(read_first_line(path, 'list of classes')):
        return read_classes(path)
    names = read_names(path).names
    return Classes(names, names)


def label_space_of_index(path: str | os.PathLike) -> LabelSpace:
    """Return the classes and the hierarchy of an index.

    Raises:
        InputError: The index cannot be opened.
    """
    index = AnnotationIndex.open(path)
    return LabelSpace(index.classes, index.hierarchy)


def parse_renames(texts: list[str]) -> dict[str, str]:
    """Read the values of ``--rename``, such as ``truck=vehicle``.

    Raises:
        InputError: One has no ``=``, or no name on a side, or an old name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts:
        old, _, new = (normal_name(part) for part in text.partition('='))
        # The new name is also the id of the class.
        if old is None or new is None or normal_mid(new) is None:
            raise InputError(f'--rename {printable(text)[:60]!r}: expected OLD=NEW')
        if old in found:
            raise InputError(f'--rename {printable(text)[:60]}: {printable(old)} is given twice')
        found[old] = new
    return found
