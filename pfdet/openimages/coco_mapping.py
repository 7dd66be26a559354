"""The mapping from COCO classes to classes of Open Images.

A packaged mapping file lists the Open Images classes that each COCO class covers, its candidates.
They are found by their MID, and by name only where the label space has MIDs of its own. One of them
is chosen:

1. ``same name``: the candidate with the name of the COCO class. COCO's mouse does not become the
   animal Mouse, because that is not a candidate.
2. ``mapping file``: the only candidate.
3. ``chosen of several``: see :data:`CHOSEN`.
4. ``not among the classes``: no candidate.

Files in COCO's format also have categories of Open Images, such as those that FiftyOne exports.
These go first, if they are a MID or a name in the same capital letters:

5. ``same MID``, or ``same name``.
6. ``several classes of this name``: the name does not tell which class it is.
7. ``no class of COCO``: neither in the mapping file nor the name of a class, in any letters.
"""

import csv
import functools
import importlib.resources
import io
from collections.abc import Sequence
from dataclasses import dataclass

from pfdet.openimages.classes import Classes, read_classes

SAME, MAPPED, CHOSEN_HERE = 'same name', 'mapping file', 'chosen of several'
ABSENT, FOREIGN = 'not among the classes', 'no class of COCO'
SAME_MID, AMBIGUOUS = 'same MID', 'several classes of this name'

#: The choice among several candidates if none has the name of the COCO class. Cattle are cows of
#: any sex, as in COCO. A coffee cup is closer to COCO's cup than a measuring cup or a mug. Kitchen
#: & dining room table is a kind of Table. With Table, images of other tables would have false
#: negatives.
CHOSEN = {'cow': 'cattle', 'cup': 'coffee cup', 'dining table': 'kitchen & dining room table'}


@dataclass(frozen=True)
class Decision:
    """The class that a COCO class is mapped to.

    Attributes:
        coco (str): Name in COCO.
        class_id (int): The chosen class, or -1.
        how (str): One of the reasons in the module's docstring.
        candidates (tuple of int): Class ids of all candidates.
        is_of_coco (bool): Whether the category is one of COCO's 80 classes.
    """

    coco: str
    class_id: int
    how: str
    candidates: tuple[int, ...]
    is_of_coco: bool = True


@functools.cache
def read_mapping() -> dict[str, tuple[str, ...]]:
    """Return the candidates of each of COCO's 80 classes.

    Returns:
        dict: From COCO names to tuples of Open Images names in lower case.
    """
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    text = data.joinpath('openimages_coco_mapping.csv').read_text(encoding='utf-8')
    found: dict[str, list[str]] = {}
    for row in csv.DictReader(io.StringIO(text)):
        if row['Status'] == 'IN':
            found.setdefault(row['COCO_Class'], []).append(row['OpenImages'].casefold())
    return {name: tuple(found[name]) for name in sorted(found)}


def decide(categories: Sequence[str], classes: Classes) -> tuple[Decision, ...]:
    """Map COCO classes to classes of a label space.

    Args:
        categories (sequence of str): Names of COCO classes.
        classes (Classes): The label space.

    Returns:
        tuple of Decision: One per category.
    """
    by_name: dict[str, list[int]] = {}
    for i, name in enumerate(classes.names):
        by_name.setdefault(name, []).append(i)
    return tuple(_decide(category, classes, by_name) for category in categories)


def _decide(category: str, classes: Classes, by_name: dict[str, list[int]]) -> Decision:
    mapped = category.casefold() in read_mapping()
    if category in classes.ids:
        i = classes.ids[category]
        return Decision(category, i, SAME_MID, (i,), False)
    same = by_name.get(category, [])
    if not same and not mapped:
        same = [
            i
            for name, ids in by_name.items()
            if name.casefold() == category.casefold()
            for i in ids
        ]
    if mapped:
        of_coco = _decide_for_coco(category, classes)
        # Person with a capital letter is the same class in both.
        if not same or (len(same) == 1 and same[0] in of_coco.candidates):
            return of_coco
    if not same:
        return Decision(category, -1, FOREIGN, (), False)
    if len(same) > 1:
        return Decision(category, -1, AMBIGUOUS, tuple(same), False)
    return Decision(category, same[0], SAME, tuple(same), False)


def _decide_for_coco(category: str, classes: Classes) -> Decision:
    coco = category.casefold()
    found = _candidates(category, classes)
    several = {name: ids for name, ids in _by_own_name(coco, classes).items() if len(ids) > 1}
    if not found:
        if several:
            ids = tuple(i for ids in several.values() for i in ids)
            return Decision(category, -1, AMBIGUOUS, ids)
        return Decision(category, -1, ABSENT, ())
    if coco in found:
        chosen, how = coco, SAME
    elif len(found) == 1:
        [chosen], how = found, MAPPED
    else:
        preferred = CHOSEN.get(coco)
        chosen, how = preferred if preferred in found else next(iter(found)), CHOSEN_HERE
    return Decision(category, found[chosen], how, tuple(found.values()))


def _candidates(category: str, classes: Classes) -> dict[str, int]:
    """Return the class id of each candidate that is among the classes."""
    coco = category.casefold()
    own = _by_own_name(coco, classes)
    found = {}
    for name in read_mapping()[coco]:
        mid = _open_images_mids()[name]
        if mid in classes.ids:
            found[name] = classes.ids[mid]
        elif len(own.get(name, ())) == 1:
            found[name] = own[name][0]
    return found


def _by_own_name(coco: str, classes: Classes) -> dict[str, list[int]]:
    """Return the candidates by name, among the classes that do not have a MID of Open Images."""
    known = set(_open_images_mids().values())
    names = set(read_mapping()[coco])
    found: dict[str, list[int]] = {}
    for i, (mid, name) in enumerate(zip(classes.mids, classes.names)):
        if name.casefold() in names and mid not in known:
            found.setdefault(name.casefold(), []).append(i)
    return found


@functools.cache
def _open_images_mids() -> dict[str, str]:
    """Return the MIDs of the boxable classes by name in lower case; no name is repeated."""
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    with importlib.resources.as_file(data / 'class-descriptions-boxable-601.csv') as path:
        classes = read_classes(path)
    return {name.casefold(): mid for mid, name in zip(classes.mids, classes.names)}
