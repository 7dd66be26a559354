"""Any table scored by its files and by its index gives the same average precision."""

from pathlib import Path

import numpy as np
import pytest

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import (
    ground_truth_of_index,
    ground_truth_of_tables,
    read_ground_truth,
)
from pfdet.openimages.annotation_columns import annotation_columns, id_columns
from pfdet.openimages.annotation_files import AnnotationTables, with_absent_classes
from pfdet.openimages.arrow_arrays import from_strings
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes
from pfdet.openimages.expanded_boxes import without_expansion
from pfdet.openimages.hierarchy import hierarchy_from_edges, read_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.openimages.tables import GROUP_OF, BoxTable, ImageLabelTable

CLASSES = Classes(tuple('abcdef'), tuple('ABCDEF'))
HIERARCHY = hierarchy_from_edges([('a', 'b'), ('a', 'c'), ('b', 'd'), ('e', 'd')], CLASSES)
IMAGES = ['i', 'j', 'k']
HEADER = {
    'mids': CLASSES.mids,
    'names': CLASSES.names,
    'ancestors': np.argwhere(HIERARCHY.ancestors).tolist(),
    'suffixes': ['.jpg'],
    'counts': {},
}


def random_bbox(rng, n):
    # On a coarse grid, boxes are often equal, and so are overlaps of different boxes.
    low = rng.integers(0, 3, (n, 2))
    high = low + rng.integers(1, 3, (n, 2))
    return (np.concatenate([low, high], axis=1) / 4).astype(np.float32)


def random_tables(rng):
    n_box, n_label = int(rng.integers(1, 14)), int(rng.integers(0, 9))
    ids = from_strings(IMAGES)
    flags = rng.integers(0, 32, n_box) if rng.random() < 0.5 else rng.choice([0, 4], n_box)
    boxes = BoxTable(
        ids,
        rng.integers(0, rng.integers(1, 4), n_box).astype(np.int32),
        rng.integers(0, len(CLASSES), n_box).astype(np.int32),
        random_bbox(rng, n_box),
        flags.astype(np.uint8),
        {},
        {},
    )
    if rng.random() < 0.5:  # repeat some rows, in another order
        rows = np.append(np.arange(n_box), rng.integers(0, n_box, rng.integers(1, 6)))
        rows = rng.permutation(rows)
        boxes = BoxTable(
            ids, boxes.image[rows], boxes.label[rows], boxes.bbox[rows], boxes.flags[rows], {}, {}
        )
    labels = ImageLabelTable(
        ids,
        rng.integers(0, 3, n_label).astype(np.int32),
        rng.integers(0, len(CLASSES), n_label).astype(np.int32),
        rng.random(n_label) < 0.5,
        {},
        {},
    )
    if rng.random() < 0.2:
        labels = with_absent_classes(boxes, labels, HIERARCHY)
    return boxes, labels


def expand(boxes):
    row, label = np.nonzero(HIERARCHY.closure[boxes.label])
    return BoxTable(
        boxes.ids,
        boxes.image[row],
        label.astype(np.int32),
        boxes.bbox[row],
        boxes.flags[row],
        {},
        {},
    )


def in_memory_index(boxes, labels):
    kept = np.ones(len(IMAGES), bool)
    columns, _ = annotation_columns(boxes, labels, kept, len(CLASSES))
    columns.update(id_columns(IMAGES))
    columns['image_size'] = np.zeros((len(IMAGES), 2), np.int32)
    columns['image_suffix'] = np.zeros(len(IMAGES), np.uint8)
    return AnnotationIndex(Path('x.index'), Path('x'), columns, HEADER)


def random_detections(rng, boxes):
    n = int(rng.integers(1, 25))
    bbox = random_bbox(rng, n)
    # Some are exactly on objects.
    on = rng.random(n) < 0.4
    bbox[on] = boxes.bbox[rng.integers(0, len(boxes.bbox), int(on.sum()))]
    image = np.sort(rng.integers(0, len(IMAGES), n)).astype(np.int32)
    label = rng.integers(0, len(CLASSES), n).astype(np.int32)
    return Detections(
        IMAGES, image, label, rng.choice([0.25, 0.5, 0.75], n).astype(np.float32), bbox
    )


def assert_equal_scores(a, b, detections, thresh=0.5, weight=1.0):
    x, y = (average_precision(detections, truth, len(CLASSES), thresh, weight) for truth in (a, b))
    for name in ('ap', 'n_ground_truth', 'n_detection', 'n_true_positive'):
        np.testing.assert_array_equal(x[name], y[name])
    assert x['n_ignored'] == y['n_ignored']


def test_random_tables():
    rng = np.random.default_rng(0)
    n_expanded = 0
    for _ in range(1500):
        boxes, labels = random_tables(rng)
        if rng.random() < 0.1:
            boxes = expand(boxes)
        boxes, counts = without_expansion(boxes, HIERARCHY)
        n_expanded += counts['expanded'] > 0
        tables = AnnotationTables(boxes.ids, boxes, labels)
        truth = ground_truth_of_tables(tables, HIERARCHY)
        of_index = ground_truth_of_index(in_memory_index(boxes, labels))
        thresh, weight = float(rng.choice([0.3, 0.5, 1])), float(rng.choice([1, 1, 0]))
        assert_equal_scores(truth, of_index, random_detections(rng, boxes), thresh, weight)
    assert n_expanded > 50


BOX_HEADER = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'


def write_files(directory, rows, labels):
    (directory / 'boxes.csv').write_text('\n'.join([BOX_HEADER, *rows]) + '\n')
    (directory / 'labels.csv').write_text(
        '\n'.join(['ImageID,Source,LabelName,Confidence', *labels]) + '\n'
    )
    (directory / 'classes.csv').write_text('\n'.join(f'{m},{m.upper()}' for m in CLASSES.mids))
    (directory / 'hierarchy.json').write_text(
        '{"LabelName": "root", "Subcategory": [{"LabelName": "a", "Subcategory": ['
        '{"LabelName": "b", "Subcategory": [{"LabelName": "d"}]}, {"LabelName": "c"}]},'
        '{"LabelName": "e", "Subcategory": [{"LabelName": "d"}]}]}'
    )


def truths_of(directory):
    """The ground truth of the files, of their index, and of a subset of all images."""
    names = ('boxes.csv', 'labels.csv', 'classes.csv', 'hierarchy.json')
    boxes, labels, classes, hierarchy = (directory / name for name in names)
    tree = read_hierarchy(hierarchy, CLASSES)
    np.testing.assert_array_equal(tree.ancestors, HIERARCHY.ancestors)
    out = directory / 'x.index'
    build_index(boxes, labels, classes, hierarchy, directory / 'none', out, keep_missing=True)
    index = AnnotationIndex.open(out)
    index.verify()
    subset(index, np.arange(len(index))[::-1], directory / 'subset.index')
    copy = AnnotationIndex.open(directory / 'subset.index')
    return [
        read_ground_truth(boxes, labels, CLASSES, tree),
        ground_truth_of_index(index),
        ground_truth_of_index(copy),
    ], index


def test_random_files(tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(40):
        boxes, labels = random_tables(rng)
        rows = [
            f'{IMAGES[i]},{CLASSES.mids[c]},{x0},{x1},{y0},{y1},{int(f & GROUP_OF > 0)}'
            for i, c, (y0, x0, y1, x1), f in zip(boxes.image, boxes.label, boxes.bbox, boxes.flags)
        ]
        verified = [
            f'{IMAGES[i]},verification,{CLASSES.mids[c]},{int(p)}'
            for i, c, p in zip(labels.image, labels.label, labels.positive)
        ] + ['l,verification,a,1']
        write_files(tmp_path, rows, verified)
        (truth, *others), _ = truths_of(tmp_path)
        for other in others:
            assert_equal_scores(truth, other, random_detections(rng, boxes))


ONE, TWO = '0,0.5,0,0.5', '0.5,1,0.5,1'


def detections_of(*rows):
    columns = list(zip(*rows))
    return Detections(
        ['i'],
        np.zeros(len(rows), np.int32),
        np.array([CLASSES.ids[c] for c in columns[0]], np.int32),
        np.array(columns[2], np.float32),
        np.array(
            [[0, 0, 0.5, 0.5] if box == ONE else [0.5, 0.5, 1, 1] for box in columns[1]], np.float32
        ),
    )


@pytest.mark.parametrize(
    'rows, labels, detections, ap',
    [
        # A row given twice is two objects, of which only one can be detected.
        ([f'i,f,{ONE},0'] * 2 + [f'i,f,{TWO},0'], [], [('f', ONE, 0.9)], {'f': 1 / 3}),
        ([f'i,f,{ONE},0'] * 3, [], [('f', ONE, s) for s in (0.9, 0.8, 0.7)], {'f': 1 / 3}),
        # Two classes on one box, one of them a group.
        (
            [f'i,f,{ONE},1', f'i,c,{ONE},0', f'i,c,{TWO},0'],
            [],
            [('c', ONE, 0.9), ('c', ONE, 0.85), ('c', TWO, 0.8), ('f', ONE, 0.9), ('f', ONE, 0.8)],
            {'c': 1 / 2 + 1 / 3, 'f': 1},
        ),
        ([f'i,f,{ONE},1', f'i,c,{ONE},0'], [], [('c', ONE, 0.9)], {'c': 1, 'f': 0}),
        # One class on one box, once as a group.
        ([f'i,f,{ONE},1', f'i,f,{ONE},0'], [], [('f', ONE, 0.9)] * 2, {'f': 1}),
        # Contradictory labels: the negative one verifies the descendants.
        (
            [f'i,d,{ONE},0', f'j,d,{ONE},0', f'i,a,{TWO},0'],
            ['i,verification,a,0'],
            [('c', TWO, 0.5), ('d', ONE, 0.5)],
            {'d': 1 / 2},
        ),
        (
            [f'j,c,{ONE},0'],
            ['i,verification,a,0', 'i,verification,a,1'],
            [('c', ONE, 0.9)],
            {'c': 0},
        ),
    ],
)
def test_the_right_value(tmp_path, rows, labels, detections, ap):
    write_files(tmp_path, rows, labels or ['i,verification,e,1'])
    truths, _ = truths_of(tmp_path)
    for truth in truths:
        result = average_precision(detections_of(*detections), truth, len(CLASSES))
        for mid, expected in ap.items():
            assert result['ap'][CLASSES.ids[mid]] == pytest.approx(expected), mid


def test_ties_go_to_the_first_row(tmp_path):
    """Two boxes overlap a detection equally. Which one it takes depends on the order of rows."""
    left, right, middle = '0,0.5,0,1', '0.25,0.75,0,1', [0, 0.125, 1, 0.625]
    for rows, ap in (([left, right], 1), ([right, left], 1 / 2)):
        write_files(tmp_path, [f'i,f,{box},0' for box in rows], ['i,verification,e,1'])
        truths, _ = truths_of(tmp_path)
        detections = Detections(
            ['i'],
            np.zeros(2, np.int32),
            np.full(2, CLASSES.ids['f'], np.int32),
            np.array([0.9, 0.8], np.float32),
            np.array([middle, [0, 0.25, 1, 0.75]], np.float32),
        )
        for truth in truths:
            assert average_precision(detections, truth, 6)['ap'][5] == pytest.approx(ap)


def test_a_group_of_one_class_is_an_object_of_another(tmp_path):
    """What training sees: the object of Car, and a group of Toy around it."""
    write_files(tmp_path, [f'i,c,{ONE},0', f'i,f,{ONE},1', f'i,e,{ONE},0'], ['i,verification,e,1'])
    _, index = truths_of(tmp_path)
    annotation = index.annotation(0)
    assert annotation.bbox.tolist() == [[0, 0, 0.5, 0.5]] * 2
    assert {
        (tuple(CLASSES.mids[c] for c in np.flatnonzero(label)), int(flags))
        for label, flags in zip(annotation.label, annotation.flags)
    } == {(('c', 'e'), 0), (('f',), GROUP_OF)}
