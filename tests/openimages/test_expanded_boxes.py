"""Tables that are expanded over the hierarchy already."""

import numpy as np
import pytest

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import ground_truth_of_index, read_ground_truth
from pfdet.openimages.build_index import build_index, main
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.expanded_boxes import without_expansion
from pfdet.openimages.hierarchy import hierarchy_from_edges, read_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.tables import read_boxes

HEADER = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf'
# Two paths from d to a, and two roots.
CLASSES = Classes(tuple('abcdefg'), tuple('ABCDEFG'))
EDGES = [('a', 'b'), ('a', 'c'), ('b', 'd'), ('c', 'd'), ('e', 'd'), ('e', 'f')]
HIERARCHY = hierarchy_from_edges(EDGES, CLASSES)
PARENTS = {child: [p for p, c in EDGES if c == child] for child in 'abcdefg'}


def ancestors(mid):
    above = {p for parent in PARENTS[mid] for p in (parent, *ancestors(parent))}
    return sorted(above)


def random_rows(rng, n):
    boxes = [f'{x},{x + 0.25},{y},{y + 0.5}' for x in (0, 0.25, 0.5) for y in (0, 0.25, 0.5)]
    return [
        (
            rng.choice(['i', 'j']),
            rng.choice(list('abcdefg')),
            rng.choice(boxes),
            rng.integers(0, 2, 2),
        )
        for _ in range(n)
    ]


def expanded(rows, in_place=True):
    copies = [[(i, mid, box, flags) for mid in ancestors(mid)] for i, mid, box, flags in rows]
    if in_place:
        return [r for row, more in zip(rows, copies) for r in (row, *more)]
    return [*rows, *(row for more in copies for row in more)]


def write(path, rows):
    lines = [f'{i},{mid},{box},{flags[0]},{flags[1]}' for i, mid, box, flags in rows]
    path.write_text('\n'.join([HEADER, *lines]) + '\n')
    return path


def key(boxes):
    return sorted(
        (int(i), int(c), *bbox.tolist(), int(f) & 4)
        for i, c, bbox, f in zip(boxes.image, boxes.label, boxes.bbox, boxes.flags)
    )


@pytest.mark.parametrize('in_place', [True, False])
def test_expansion_is_undone(tmp_path, in_place):
    rng = np.random.default_rng(0)
    n_undone = 0
    for _ in range(150):
        rows = random_rows(rng, int(rng.integers(1, 25)))
        if not any(ancestors(mid) for _, mid, _, _ in rows):
            continue
        before = read_boxes(write(tmp_path / 'before.csv', rows), CLASSES)
        after = read_boxes(write(tmp_path / 'after.csv', expanded(rows, in_place)), CLASSES)
        undone, n = without_expansion(after, HIERARCHY)
        assert key(undone) == key(before)
        assert n['expanded'] == len(after.label) - len(before.label) > 0
        n_undone += 1
    assert n_undone > 100


@pytest.mark.parametrize(
    'classes, n_left_out',
    [
        # As annotated.
        ('d', 0),
        ('f', 0),
        ('a e', 0),
        ('f e / f', 0),
        # All ancestors.
        ('f e', 1),
        ('d a b c e', 4),
        ('b a / c a / g', 2),
        # The ancestor of a class is missing.
        ('d a b c', 0),
        ('d b c e', 0),
        # Annotated as F and as E, then expanded.
        ('f e e', 1),
        ('f e / f e e', 2),
        # Repeated rows were removed after the expansion.
        ('b c a', 1),
        ('f f e', 1),
    ],
)
def test_which_rows_are_copies(tmp_path, classes, n_left_out):
    rows = [
        ('i', mid, f'0,0.{k + 1},0,1', (0, 0))
        for k, of_object in enumerate(classes.split('/'))
        for mid in of_object.split()
    ]
    boxes = read_boxes(write(tmp_path / 'boxes.csv', rows), CLASSES)
    kept, n = without_expansion(boxes, HIERARCHY)
    assert n['expanded'] == n_left_out and len(kept.label) == len(rows) - n_left_out


def test_a_group_is_not_the_copy_of_a_single_object(tmp_path):
    for flags, n_left_out in (((0, 1), 0), ((1, 0), 1)):
        rows = [('i', 'f', '0,1,0,1', (0, 0)), ('i', 'e', '0,1,0,1', flags)]
        boxes = read_boxes(write(tmp_path / 'boxes.csv', rows), CLASSES)
        assert without_expansion(boxes, HIERARCHY)[1]['expanded'] == n_left_out


def test_a_few_rows_without_copies(tmp_path, monkeypatch):
    """A table is expanded if nearly all rows have their copies; a sample decides first."""
    monkeypatch.setattr('pfdet.openimages.expanded_boxes._N_SAMPLE', 50)
    one = [('f', 'e')] * 99 + [('f',)]
    for kinds, n_left_out, percentage in (
        (one, 99, 0),
        ([*one, *[('f',)] * 10], 0, 90),
        ([*one, *[('f',)] * 380], 0, 21),
        ([*one, *[('f',)] * 450], 0, 0),
        ([('f',)] * 60, 0, 0),
    ):
        rows = [(f'{k:04}', mid, '0,1,0,1', (0, 0)) for k, mids in enumerate(kinds) for mid in mids]
        boxes = read_boxes(write(tmp_path / 'boxes.csv', rows), CLASSES)
        kept, n = without_expansion(boxes, HIERARCHY)
        assert n == {'expanded': n_left_out, 'expanded_in_part': percentage}
        assert kept.counts['boxes'] == len(boxes.label) == len(rows)


def perfect(truth):
    return Detections(
        truth.image_ids, truth.image, truth.label, np.ones(len(truth.label), np.float32), truth.bbox
    )


def test_expanded_files_score_and_compile_like_the_others(split, tmp_path, capsys):
    # Every object has a box of its own.
    lines = [f'A_B,/m/{c},{x:.2f},{x + 0.05:.2f},0,1' for c, x in zip('dcbed', np.arange(5) / 5)]
    above = {'d': 'ab', 'c': 'a', 'b': 'a', 'e': '', 'a': ''}
    copies = [line.replace(f'/m/{line[7]}', f'/m/{p}') for line in lines for p in above[line[7]]]
    indexes, truths = [], []
    classes = read_classes(split['classes'])
    hierarchy = read_hierarchy(split['hierarchy'], classes)
    for name, rows in (('plain', lines), ('expanded', [*lines, *copies])):
        path = tmp_path / f'{name}.csv'
        path.write_text('\n'.join(['ImageID,LabelName,XMin,XMax,YMin,YMax', *rows]) + '\n')
        arguments = {**split, 'boxes': path, 'labels': None, 'out': tmp_path / f'{name}.index'}
        report = build_index(**arguments)
        indexes.append(AnnotationIndex.open(arguments['out']))
        truths += [ground_truth_of_index(indexes[-1])]
        truths += [read_ground_truth(path, None, classes, hierarchy)]
    assert report.counts['expanded'] == len(copies) == 6
    for column, values in indexes[0].columns.items():
        np.testing.assert_array_equal(values, indexes[1].columns[column])
    truths.append(read_ground_truth(path, None, classes))
    for truth in truths:
        result = average_precision(perfect(truths[0]), truth, len(classes))
        assert result['map'] == 1 and result['n_ground_truth'].tolist() == [4, 3, 1, 2, 1]
    del arguments['labels']
    main([part for name, value in arguments.items() for part in (f'--{name}', str(value))])
    assert 'expanded over the hierarchy already: 6 boxes of ancestors' in capsys.readouterr().out
