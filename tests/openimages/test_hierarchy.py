import importlib.resources
import json

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.hierarchy import (
    Hierarchy,
    challenge_hierarchy,
    flat_hierarchy,
    hierarchy_from_edges,
    read_hierarchy,
)

LETTERS = Classes(tuple('abcdef'), tuple('ABCDEF'))


def written(path, tree):
    path.write_text(json.dumps(tree))
    return path


def pairs(hierarchy, classes=LETTERS):
    return {(classes.mids[i], classes.mids[j]) for i, j in np.argwhere(hierarchy.ancestors)}


def node(name, *below, part=()):
    tree = {'LabelName': name}
    if below:
        tree['Subcategory'] = list(below)
    if part:
        tree['Part'] = list(part)
    return tree


def test_challenge_hierarchy_equals_plain_recursion():
    # Reference: pairs that are connected by a chain of Subcategory entries.
    text = (
        importlib.resources.files('pfdet.openimages')
        .joinpath('data/bbox_labels_500_hierarchy.json')
        .read_text()
    )
    root = json.loads(text)
    classes = challenge_classes()
    children = {}

    def gather(tree):
        for child in tree.get('Subcategory', []):
            children.setdefault(tree['LabelName'], set()).add(child['LabelName'])
            gather(child)
        for part in tree.get('Part', []):
            gather(part)

    gather(root)

    def below(mid):
        found = set()
        for child in children.get(mid, ()):
            found |= {child} | below(child)
        return found

    def levels(mid):
        return 1 + max((levels(child) for child in children.get(mid, ())), default=0)

    hierarchy = challenge_hierarchy()
    expected = {(child, mid) for mid in classes.mids for child in below(mid)}
    assert pairs(hierarchy, classes) == expected
    assert hierarchy.is_leaf.sum() == 443 and (~hierarchy.is_leaf).sum() == 57
    assert hierarchy.depth.max() == levels(root['LabelName']) - 1 == 5
    assert hierarchy.n_class == 500
    # A tomato is a fruit and a vegetable.
    tomato = classes.id_of('/m/07j87')
    names = {classes.names[j] for j in np.flatnonzero(hierarchy.ancestors[tomato])}
    assert names == {'Fruit', 'Vegetable'}


def test_expansion_follows_every_path_of_the_file():
    # Reference without a graph: all nodes above a class on any path from the root.
    text = (
        importlib.resources.files('pfdet.openimages')
        .joinpath('data/bbox_labels_500_hierarchy.json')
        .read_text()
    )
    classes = challenge_classes()
    above = {mid: set() for mid in classes.mids}
    parents = {mid: set() for mid in classes.mids}

    def walk(tree, path):
        if tree['LabelName'] in above:
            above[tree['LabelName']].update(path)
            parents[tree['LabelName']].update(path[-1:])
        for child in tree.get('Subcategory', []):
            walk(child, [*path, tree['LabelName']])
        for part in tree.get('Part', []):
            walk(part, [])

    walk(json.loads(text), [])

    expanded = np.eye(500, dtype=bool) @ challenge_hierarchy().closure
    for i, mid in enumerate(classes.mids):
        found = {classes.mids[j] for j in np.flatnonzero(expanded[i])}
        assert found == {mid} | above[mid] & set(classes.mids)
    several = {
        classes.names[classes.ids[mid]]: {
            classes.names[classes.ids[name]] for name in above[mid] if name in classes.ids
        }
        for mid in classes.mids
        if len(parents[mid] & set(classes.mids)) > 1
    }
    assert len(several) == 16
    assert several['Teddy bear'] == {'Toy', 'Animal', 'Carnivore', 'Bear'}
    assert several['Oyster'] == {'Shellfish', 'Seafood', 'Animal', 'Invertebrate'}
    assert several['Crab'] == {
        'Shellfish',
        'Seafood',
        'Animal',
        'Invertebrate',
        'Marine invertebrates',
    }


def test_matrices_agree():
    hierarchy = challenge_hierarchy()
    np.testing.assert_array_equal(hierarchy.descendants, hierarchy.ancestors.T)
    np.testing.assert_array_equal(hierarchy.closure, hierarchy.ancestors | np.eye(500, dtype=bool))
    assert not hierarchy.ancestors.diagonal().any()
    np.testing.assert_array_equal(hierarchy.closure @ hierarchy.closure, hierarchy.closure)
    with pytest.raises(ValueError):
        hierarchy.ancestors[0, 1] = True


def test_parts_inherit_no_ancestors(tmp_path):
    tree = node('root', node('a', node('b'), part=[node('c', node('d')), node('e')]))
    hierarchy = read_hierarchy(written(tmp_path / 'h.json', tree), LETTERS)
    assert pairs(hierarchy) == {('b', 'a'), ('d', 'c')}
    assert hierarchy.is_leaf.tolist() == [False, True, False, True, True, True]
    assert hierarchy.depth.tolist() == [1, 2, 1, 2, 1, 1]


def test_unknown_nodes_are_intermediate(tmp_path):
    tree = node('root', node('a', node('unknown', node('b', node('other', node('c'))))))
    hierarchy = read_hierarchy(written(tmp_path / 'h.json', tree), LETTERS)
    assert pairs(hierarchy) == {('b', 'a'), ('c', 'a'), ('c', 'b')}


def test_class_that_occurs_twice(tmp_path):
    # The child of c is listed once, and is a descendant of both parents of c.
    tree = node('root', node('a', node('c')), node('b', node('c', node('d'))))
    hierarchy = read_hierarchy(written(tmp_path / 'h.json', tree), LETTERS)
    assert pairs(hierarchy) == {('c', 'a'), ('c', 'b'), ('d', 'a'), ('d', 'b'), ('d', 'c')}
    assert hierarchy.depth.tolist() == [1, 1, 2, 3, 1, 1]


def test_random_graphs_equal_matrix_powers():
    rng = np.random.default_rng(0)
    names = np.array(list('abcdefuvw'))  # u, v, w are unknown
    for _ in range(30):
        adjacency = np.triu(rng.random((9, 9)) < 0.25, 1)
        order = rng.permutation(9)
        edges = [(names[order[i]], names[order[j]]) for i, j in np.argwhere(adjacency)]
        reach = np.linalg.matrix_power(np.eye(9, dtype=int) + adjacency, 9) > 0
        expected = {
            (names[order[j]], names[order[i]])
            for i, j in np.argwhere(reach)
            if i != j and {names[order[i]], names[order[j]]} <= set(LETTERS.mids)
        }
        assert pairs(hierarchy_from_edges(edges, LETTERS)) == expected


def test_flat():
    hierarchy = flat_hierarchy(3)
    assert not hierarchy.ancestors.any() and hierarchy.is_leaf.all()
    np.testing.assert_array_equal(hierarchy.closure, np.eye(3, dtype=bool))


def test_invalid_matrices():
    with pytest.raises(ValueError):
        Hierarchy(np.zeros((2, 3), bool))
    with pytest.raises(ValueError):
        Hierarchy(np.ones((2, 2), bool))


@pytest.mark.parametrize(
    'content, message',
    [
        ('', 'line 1'),
        ('{"LabelName": "a",\n"Subcategory": [}', 'line 2'),
        ('[]', 'LabelName'),
        ('{"Subcategory": []}', 'LabelName'),
        ('{"LabelName": 3}', 'LabelName'),
        ('{"LabelName": "a", "Subcategory": {}}', "Subcategory of 'a'"),
        ('{"LabelName": "a", "Subcategory": [{"LabelName": "b"}, 7]}', "under 'a'"),
        ('{"LabelName": "a", "Part": "b"}', "Part of 'a'"),
        ('{"LabelName": "/m/0bl9f"}', 'contains none of the 6 classes'),
        ('{"LabelName": "a", "Subcategory": [{"LabelName": "a"}]}', 'cycle'),
        ('[' * 100000, 'nested too deep'),
        (
            '{"LabelName": "a", "Subcategory": [{"LabelName": "b", "Subcategory": '
            '[{"LabelName": "a"}]}]}',
            'cycle',
        ),
    ],
)
def test_malformed(tmp_path, content, message):
    path = tmp_path / 'h.json'
    path.write_text(content)
    with pytest.raises(InputError, match='h.json') as e:
        read_hierarchy(path, LETTERS)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match='cannot read'):
        read_hierarchy(tmp_path / 'none.json', LETTERS)
    (tmp_path / 'h.json').write_bytes(b'\xff\xfe{')
    with pytest.raises(InputError, match='UTF-8'):
        read_hierarchy(tmp_path / 'h.json', LETTERS)
