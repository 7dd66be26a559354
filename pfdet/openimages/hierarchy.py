"""The class hierarchy (is-a relation) as a boolean matrix."""

import functools
import importlib.resources
import json
import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.text_files import open_utf8

_MAX_SIZE = 1 << 26


class Hierarchy:
    """The transitive is-a relation between classes.

    Args:
        ancestors (array): bool ``(C, C)``. ``ancestors[i, j]`` is true if class ``j`` is a proper
            ancestor of class ``i``. The relation must be transitive and acyclic, as from
            :func:`hierarchy_from_edges`.

    Attributes:
        n_class (int): ``C``.
        ancestors (array): bool ``(C, C)``, read-only, as given.
        descendants (array): bool ``(C, C)``. ``descendants[i, j]`` is true if class ``j`` is a
            proper descendant of class ``i``.
        closure (array): bool ``(C, C)``. ``ancestors`` with a true diagonal. ``t @ closure``
            expands a label matrix ``t`` of shape ``(R, C)``.
        is_leaf (array): bool ``(C,)``. True for classes without descendants.
        depth (array): int32 ``(C,)``. Number of classes on the longest path from a root to the
            class, including both. 1 for a class without ancestors.

    Raises:
        ValueError: If the matrix is not square, or two classes are ancestors of each other.
    """

    def __init__(self, ancestors: np.ndarray) -> None:
        ancestors = np.array(ancestors, bool)
        if ancestors.ndim != 2 or ancestors.shape[0] != ancestors.shape[1]:
            raise ValueError(f'ancestors must be (C, C), got {ancestors.shape}')
        if (ancestors & ancestors.T).any():
            raise ValueError('a class is its own ancestor')
        self.n_class = len(ancestors)
        self.ancestors = _read_only(ancestors)
        self.descendants = ancestors.T
        self.closure = _read_only(ancestors | np.eye(self.n_class, dtype=bool))
        self.is_leaf = _read_only(~ancestors.any(axis=0))

    @functools.cached_property
    def depth(self) -> np.ndarray:
        depth = np.ones(self.n_class, np.int32)
        # An ancestor has fewer ancestors than its descendants, so its depth is computed first.
        for i in np.argsort(self.ancestors.sum(axis=1), kind='stable'):
            above = depth[self.ancestors[i]]
            if len(above):
                depth[i] = above.max() + 1
        return _read_only(depth)

    def pick(self, ids: np.ndarray) -> 'Hierarchy':
        """Return the hierarchy of some of the classes.

        Args:
            ids (array): Integers ``(K,)``. The new ids are positions in this array.
        """
        return Hierarchy(self.ancestors[np.ix_(ids, ids)])


def _read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def flat_hierarchy(n_class: int) -> Hierarchy:
    """Return a hierarchy without any is-a relation.

    Args:
        n_class (int): The number of classes.
    """
    return Hierarchy(np.zeros((n_class, n_class), bool))


def hierarchy_from_edges(edges: Iterable[tuple[str, str]], classes: Classes) -> Hierarchy:
    """Return the transitive closure of parent-child pairs as a hierarchy of ``classes``.

    Nodes that are not in ``classes`` are intermediate: their descendants are descendants of their
    ancestors.

    Args:
        edges (iterable of pairs of str): ``(parent mid, child mid)``.
        classes (Classes): The label space.

    Returns:
        Hierarchy: The hierarchy of ``classes``.

    Raises:
        ValueError: If the pairs contain a cycle. The message names a node.
    """
    children: dict[str, list[str]] = {}
    n_parent: dict[str, int] = {}
    for parent, child in set(edges):
        children.setdefault(parent, []).append(child)
        n_parent[child] = n_parent.get(child, 0) + 1
        n_parent.setdefault(parent, 0)
    ancestors = np.zeros((len(classes), len(classes)), bool)
    unknown = {name: np.zeros(len(classes), bool) for name in n_parent if name not in classes.ids}
    ready = [name for name, n in n_parent.items() if n == 0]
    n_visited = 0
    while ready:
        parent = ready.pop()
        n_visited += 1
        if parent in classes.ids:
            above = ancestors[classes.ids[parent]].copy()
            above[classes.ids[parent]] = True
        else:
            above = unknown[parent]
        for child in children.get(parent, ()):
            below = unknown[child] if child in unknown else ancestors[classes.ids[child]]
            below |= above
            n_parent[child] -= 1
            if n_parent[child] == 0:
                ready.append(child)
    if n_visited < len(n_parent):
        name = min(name for name, n in n_parent.items() if n > 0)
        raise ValueError(f'{name!r} is in a cycle or below one')
    return Hierarchy(ancestors)


def read_hierarchy(path: str | os.PathLike, classes: Classes) -> Hierarchy:
    """Read the hierarchy JSON of Open Images, such as ``bbox_labels_500_hierarchy.json``.

    A node is ``{"LabelName": mid, "Subcategory": [nodes], "Part": [nodes]}``. Only ``Subcategory``
    is the is-a relation. A part (a wheel) is not a kind of its whole (a car), so nodes under a
    ``Part`` inherit no ancestors. Nodes that are not in ``classes``, such as the root, are
    intermediate. A class that occurs several times has the ancestors of all its occurrences.

    Args:
        path (path): The JSON file.
        classes (Classes): The label space.

    Returns:
        Hierarchy: The hierarchy of ``classes``. Classes that are not in the file have no relation.

    Raises:
        InputError: If the file cannot be read, is not such a tree, has a cycle, or contains none
            of the classes. The message names the file and the line or node.
    """
    try:
        with open_utf8(path, 'hierarchy', _MAX_SIZE) as (_, stream):
            root = json.loads(stream.read().decode())
    except json.JSONDecodeError as e:
        raise InputError(
            f'{path}, line {e.lineno}: expected the hierarchy as JSON, but {e.msg}'
        ) from e
    except ValueError as e:  # a number with too many digits
        raise InputError(f'{path}: expected the hierarchy as JSON, but {e}') from e
    except RecursionError as e:
        raise InputError(f'{path}: nested too deep; expected a hierarchy of classes') from e
    edges: list[tuple[str, str]] = []
    seen = set()
    stack = [(None, root)]
    while stack:
        parent, node = stack.pop()
        name = _name_of(node, parent, path)
        seen.add(name)
        if parent is not None:
            edges.append((parent, name))
        stack += [(name, child) for child in _nodes(node, 'Subcategory', path)]
        stack += [(None, part) for part in _nodes(node, 'Part', path)]
    if not seen & classes.ids.keys():
        raise InputError(
            f'{path}: contains none of the {len(classes)} classes; expected the hierarchy of '
            f'the class descriptions, with LabelName such as {classes.mids[0]!r}'
        )
    try:
        return hierarchy_from_edges(edges, classes)
    except ValueError as e:
        raise InputError(f'{path}: expected a hierarchy without cycles, but {e}') from e


def _name_of(node: Any, parent: str | None, path: str | os.PathLike) -> str:
    name = node.get('LabelName') if isinstance(node, dict) else None
    if not isinstance(name, str):
        where = f'a node under {parent!r}' if parent else 'a node'
        raise InputError(
            f'{path}: expected every node to be an object with a LabelName, '
            f'but {where} is {str(node)[:60]!r}'
        )
    return name


def _nodes(node: dict, key: str, path: str | os.PathLike) -> list:
    nodes = node.get(key, [])
    if not isinstance(nodes, list):
        raise InputError(f'{path}: expected {key} of {node["LabelName"]!r} to be a list of nodes')
    return nodes


@functools.cache
def challenge_hierarchy() -> Hierarchy:
    """Return the hierarchy of the 500 challenge classes: 443 leaves, 57 parents, 5 levels.

    It is part of the annotations of Open Images, CC BY 4.0 by Google LLC.
    """
    data = importlib.resources.files('pfdet.openimages').joinpath('data')
    with importlib.resources.as_file(data.joinpath('bbox_labels_500_hierarchy.json')) as path:
        return read_hierarchy(path, challenge_classes())
