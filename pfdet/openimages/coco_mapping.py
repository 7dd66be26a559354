"""The mapping from COCO classes to classes of Open Images.

A packaged mapping file lists the Open Images classes that each COCO class covers, its candidates.
One of them is chosen:

1. ``same name``: the candidate with the name of the COCO class. COCO's mouse does not become the
   animal Mouse, because that is not a candidate.
2. ``mapping file``: the only candidate.
3. ``chosen of several``: see :data:`CHOSEN`.
4. ``not among the classes``: no candidate.
5. ``no class of COCO``: the category is not in the mapping file.
"""

import csv
import functools
import importlib.resources
import io
from collections.abc import Sequence
from dataclasses import dataclass

from pfdet.openimages.classes import Classes

SAME, MAPPED, CHOSEN_HERE = 'same name', 'mapping file', 'chosen of several'
ABSENT, FOREIGN = 'not among the classes', 'no class of COCO'

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
        how (str): One of the five reasons in the module's docstring.
        candidates (tuple of int): Class ids of all candidates.
    """

    coco: str
    class_id: int
    how: str
    candidates: tuple[int, ...]


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
    ids = {name.casefold(): i for i, name in enumerate(classes.names)}
    mapping = read_mapping()
    decisions = []
    for coco in categories:
        names = [name for name in mapping.get(coco.casefold(), ()) if name in ids]
        if coco.casefold() not in mapping:
            chosen, how = None, FOREIGN
        elif not names:
            chosen, how = None, ABSENT
        elif coco.casefold() in names:
            chosen, how = coco.casefold(), SAME
        elif len(names) == 1:
            chosen, how = names[0], MAPPED
        else:
            preferred = CHOSEN.get(coco.casefold())
            chosen, how = preferred if preferred in names else names[0], CHOSEN_HERE
        decisions.append(
            Decision(
                coco, -1 if chosen is None else ids[chosen], how, tuple(ids[name] for name in names)
            )
        )
    return tuple(decisions)
