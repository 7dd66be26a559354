"""The classes of MiniOpenImages: those of the drawn objects and parts, and their ancestors."""

import functools
import importlib.resources
import json
from typing import Any

from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.mini.world import FIGURES, PARTS


@functools.cache
def mini_classes() -> dict[str, str]:
    """Return the classes of MiniOpenImages, as a dict from names to mids, sorted by mid."""
    known = {name for figure in FIGURES.values() for name in figure.labels}
    known.update(part for parts in PARTS.values() for part in parts)
    known = known.union(*(_ancestors_of(name) for name in known))
    challenge = challenge_classes()
    return {
        name: mid for mid, name in sorted(zip(challenge.mids, challenge.names)) if name in known
    }


@functools.cache
def ancestors() -> dict[str, frozenset[str]]:
    """Return a dict from class names to the names of all their ancestors."""
    return {name: _ancestors_of(name) for name in mini_classes()}


@functools.cache
def _ancestors_of(name: str) -> frozenset[str]:
    names = challenge_classes().names
    row = challenge_hierarchy().ancestors[names.index(name)]
    return frozenset(names[i] for i in row.nonzero()[0])


def mini_hierarchy() -> dict[str, Any]:
    """Return the hierarchy in the JSON format of Open Images, pruned to :func:`mini_classes`.

    The root ``/m/0bl9f`` is kept, as are ``Part`` entries of these classes.
    """
    packaged = importlib.resources.files('pfdet.openimages').joinpath(
        'data/bbox_labels_500_hierarchy.json'
    )
    kept = set(mini_classes().values())

    def prune(node: dict[str, Any]) -> dict[str, Any]:
        pruned: dict[str, Any] = {'LabelName': node['LabelName']}
        for key in ('Subcategory', 'Part'):
            children = [prune(child) for child in node.get(key, ()) if child['LabelName'] in kept]
            if children:
                pruned[key] = children
        return pruned

    return prune(json.loads(packaged.read_text(encoding='utf-8')))
