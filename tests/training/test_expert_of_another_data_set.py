"""The expert of COCO answers for the classes of which COCO annotates all objects, and no others."""

import csv
import importlib.resources
import itertools
import json

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.coco import build_coco_index
from pfdet.openimages.coco_mapping import CHOSEN
from pfdet.openimages.hierarchy import challenge_hierarchy, hierarchy_from_edges
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.training.experts import completely_annotated, plan_experts

DATA = importlib.resources.files('pfdet.openimages') / 'data'
NAMES = {mid: challenge_classes().names[i].casefold() for mid, i in challenge_classes().ids.items()}


def coco_classes():
    """Names of COCO's 80 classes and their candidates, read from the mapping file."""
    candidates = {}
    for row in csv.DictReader((DATA / 'openimages_coco_mapping.csv').read_text().splitlines()):
        if row['Status'] == 'IN':
            candidates.setdefault(row['COCO_Class'], []).append(row['OpenImages'])
    return candidates


def shared_classes():
    """The classes of the challenge that a COCO class is mapped to."""
    shared = set()
    for name, candidates in coco_classes().items():
        known = [c for c in candidates if c in NAMES.values()]
        if name in known or len(known) == 1:
            shared.add(name if name in known else known[0])
        elif known:
            shared.add(CHOSEN.get(name, known[0]))
    return shared


def leaves_by_class():
    """The leaves below each class that is no leaf, as names, read from the JSON file."""
    leaves = {}

    def walk(node):
        children = node.get('Subcategory', [])
        below = set().union(*map(walk, children))
        for part in node.get('Part', []):
            walk(part)
        name = NAMES.get(node['LabelName'])
        if name is None:
            return below
        leaves.setdefault(name, set()).update(below)
        return below or {name}

    walk(json.loads((DATA / 'bbox_labels_500_hierarchy.json').read_text()))
    return {name: below for name, below in leaves.items() if below}


@pytest.fixture
def index(tmp_path):
    """An index of a COCO file with one image and one box of every category."""
    categories = sorted(coco_classes())
    data = {
        'categories': [{'id': k, 'name': name} for k, name in enumerate(categories)],
        'images': [
            {'id': k, 'file_name': f'{k}.jpg', 'width': 100, 'height': 100}
            for k in range(len(categories))
        ],
        'annotations': [
            {'id': k, 'image_id': k, 'category_id': k, 'bbox': [10, 10, 20, 20]}
            for k in range(len(categories))
        ],
    }
    (tmp_path / 'coco.json').write_text(json.dumps(data))
    build_coco_index(tmp_path / 'coco.json', tmp_path, tmp_path / 'coco.index', keep_missing=True)
    return AnnotationIndex.open(tmp_path / 'coco.index')


def names_of(ids):
    names = challenge_classes().names
    return {names[i].casefold() for i in ids}


def test_expert_of_coco_answers_for_shared_classes_and_complete_ancestors(index):
    shared, leaves = shared_classes(), leaves_by_class()
    assert len(shared) == 75 and len(leaves) == 57
    # With the ancestors of which COCO holds something, these are 98 classes.
    expanded = names_of(
        np.flatnonzero(
            np.any([index.annotation(i).label.any(axis=0) for i in range(len(index))], axis=0)
            @ index.hierarchy.closure
        )
    )
    assert shared <= expanded and len(expanded) == 98
    complete = {name for name in expanded - shared if leaves[name] <= shared}
    assert complete == {'glove', 'traffic sign'}
    (expert,) = plan_experts(index, 500)
    assert len(expert.classes) == 77
    assert names_of(expert.classes) == shared | complete
    # COCO has only one of the weapons, and no plants other than its two fruits.
    assert not {'weapon', 'fruit', 'animal', 'vehicle'} & names_of(expert.classes)
    # Every class of the expert has images, and every image has one.
    images = [np.flatnonzero(index.annotation(i).label.any(axis=0)) for i in range(len(index))]
    assert expert.images.tolist() == [i for i, label in enumerate(images) if len(label)]
    assert len(expert.images) == 75


def test_experts_of_some_classes_are_ranked_without_incomplete_ancestors(index):
    ten = plan_experts(index, 10)
    assert [e.name for e in ten][-1] == 'classes-71-77' and len(ten) == 8
    (expert,) = plan_experts(index, 500)
    together = np.concatenate([e.classes for e in ten])
    np.testing.assert_array_equal(np.sort(together), expert.classes)


def test_annotated_classes_go_with_the_images(index, tmp_path):
    assert names_of(index.annotated) == shared_classes()
    subset(index, np.arange(20), tmp_path / 'some.index')
    some = AnnotationIndex.open(tmp_path / 'some.index')
    np.testing.assert_array_equal(some.annotated, index.annotated)
    (expert,) = plan_experts(some, 500)
    assert 'animal' not in names_of(expert.classes)


def test_open_images_annotates_all_classes(small_world, tmp_path):
    whole = AnnotationIndex.open(small_world / 'train.index')
    subset(whole, np.arange(5), tmp_path / 'some.index')
    for index in whole, AnnotationIndex.open(tmp_path / 'some.index'):
        np.testing.assert_array_equal(index.annotated, np.arange(len(index.classes)))
        assert completely_annotated(index.annotated, index.hierarchy).all()


EDGES = [
    ('animal', 'carnivore'),
    ('animal', 'bird'),
    ('carnivore', 'dog'),
    ('carnivore', 'cat'),
    ('bird', 'owl'),
    ('pet', 'dog'),
    ('pet', 'bird'),
]


@pytest.mark.parametrize(
    'annotated, complete',
    [
        ('', ''),
        ('dog cat owl stone', 'dog cat owl stone carnivore bird pet animal'),
        ('dog cat', 'dog cat carnivore'),
        # Every owl has the label Bird, so all leaves of Pet are annotated.
        ('dog bird', 'dog bird pet'),
        ('dog cat bird', 'dog cat bird carnivore animal pet'),
        # The objects of Animal do not have the labels of the classes below.
        ('animal', 'animal'),
        ('carnivore bird', 'carnivore bird animal'),
        ('carnivore', 'carnivore'),
    ],
)
def test_complete_classes(annotated, complete):
    names = (*dict.fromkeys(itertools.chain(*EDGES)), 'stone')
    classes = Classes(names, names)
    ids = np.array([classes.ids[name] for name in annotated.split()], np.int64)
    found = completely_annotated(ids, hierarchy_from_edges(EDGES, classes))
    assert {names[i] for i in np.flatnonzero(found)} == set(complete.split())


def test_completeness_equals_the_definition_on_random_sets_of_classes():
    hierarchy = challenge_hierarchy()
    rng = np.random.default_rng(0)
    leaves = np.flatnonzero(hierarchy.is_leaf)
    n_parent = 0
    for share in np.repeat([0.05, 0.3, 0.9, 0.97], 5):
        annotated = np.flatnonzero(rng.random(hierarchy.n_class) < share)
        found = completely_annotated(annotated, hierarchy)
        own = set(annotated.tolist())
        for c in range(hierarchy.n_class):
            below = set(np.flatnonzero(hierarchy.descendants[c]).tolist())
            expected = c in own or (
                bool(below)
                and all(
                    (own & below) & ({leaf} | set(np.flatnonzero(hierarchy.ancestors[leaf])))
                    for leaf in below.intersection(leaves.tolist())
                )
            )
            assert found[c] == expected
            n_parent += expected and c not in own
    assert n_parent > 20
