"""The classes of the made world: what is drawn, and all that is above it in the hierarchy."""

import csv
import functools
import json
from importlib import resources
from typing import Any

from pfdet.openimages.mini.world import FIGURES, PARTS

_DATA = resources.files('pfdet.openimages') / 'data'


@functools.cache
def _mids() -> dict[str, str]:
    text = (_DATA / 'challenge-2018-class-descriptions-500.csv').read_text(encoding='utf-8')
    return {name: mid for mid, name in csv.reader(text.splitlines())}


@functools.cache
def _tree() -> dict[str, Any]:
    text = (_DATA / 'bbox_labels_500_hierarchy.json').read_text(encoding='utf-8')
    return json.loads(text)


@functools.cache
def _lineage() -> dict[str, frozenset[str]]:
    """The ids above each id in the full hierarchy, through every parent."""
    above: dict[str, set[str]] = {}

    def walk(node: dict[str, Any], path: tuple[str, ...]) -> None:
        above.setdefault(node['LabelName'], set()).update(path)
        for child in node.get('Subcategory', ()):
            walk(child, (*path, node['LabelName']))

    walk(_tree(), ())
    return {mid: frozenset(ids) for mid, ids in above.items()}


@functools.cache
def mini_classes() -> dict[str, str]:
    """Names and Open Images ids of the classes of this world, sorted by id."""
    drawn = {name for figure in FIGURES.values() for name in figure.labels}
    drawn.update(part for parts in PARTS.values() for part in parts)
    mids = _mids()
    known = {mids[name] for name in drawn}
    known = known.union(*(_lineage().get(mid, ()) for mid in known)).intersection(mids.values())
    return {name: mid for name, mid in sorted(mids.items(), key=lambda item: item[1])
            if mid in known}


@functools.cache
def ancestors() -> dict[str, frozenset[str]]:
    """For each class name of this world the names above it."""
    names = {mid: name for name, mid in mini_classes().items()}
    return {name: frozenset(names[above] for above in _lineage().get(mid, ()) if above in names)
            for name, mid in mini_classes().items()}


def mini_hierarchy() -> dict[str, Any]:
    """The hierarchy in Open Images' JSON form, pruned to the classes of this world."""
    kept = set(mini_classes().values())

    def prune(node: dict[str, Any]) -> dict[str, Any]:
        pruned: dict[str, Any] = {'LabelName': node['LabelName']}
        for key in ('Subcategory', 'Part'):
            children = [prune(child) for child in node.get(key, ()) if child['LabelName'] in kept]
            if children:
                pruned[key] = children
        return pruned

    return prune(_tree())
