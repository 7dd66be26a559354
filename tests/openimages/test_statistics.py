"""Statistics of an index compared with plain loops over its images; the tables and plots."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index
from pfdet.openimages.class_counts import count_classes, imbalance
from pfdet.openimages.concurrent_rates import concurrent_rates, read_concurrent_rates
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.statistics import main, statistics
from pfdet.openimages.tables import GROUP_OF

FILES = {
    'statistics.json',
    'classes.csv',
    'confused_pairs.csv',
    'parents.csv',
    'concurrent_rates.npz',
    *(
        f'{name}.{suffix}'
        for suffix in ('svg', 'png')
        for name in ('images_per_class', 'confused_pairs', 'confusion', 'parents')
    ),
}


@pytest.fixture
def index(split):
    build_index(**split)
    return AnnotationIndex.open(split['out'])


def rows_of(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def test_counts_of_classes_equal_plain_loops(index):
    n = len(index.classes)
    names = ('images', 'images_expanded', 'boxes', 'boxes_group_of', 'positive', 'negative')
    expected = {name: np.zeros(n, int) for name in names}
    for i in range(len(index)):
        one = index.annotation(i)
        expected['images'] += one.label.any(axis=0)
        expected['images_expanded'] += (one.label @ index.hierarchy.closure).any(axis=0)
        expected['boxes'] += one.label.sum(axis=0)
        expected['boxes_group_of'] += one.label[(one.flags & GROUP_OF) != 0].sum(axis=0)
        expected['positive'] += one.positive
        expected['negative'] += one.negative
    found = count_classes(index)
    for name in names:
        assert expected[name].any()
        np.testing.assert_array_equal(getattr(found, name), expected[name])


@pytest.mark.parametrize('group_of', [False, True])
def test_counts_of_parents_equal_plain_loops(index, group_of):
    n = len(index.classes)
    below = [{j for j in range(n) if index.hierarchy.ancestors[j, p]} for p in range(n)]
    leaves = {j for j in range(n) if not below[j]}
    objects, no_descendant, no_leaf = (np.zeros(n, int) for _ in range(3))
    for i in range(len(index)):
        one = index.annotation(i)
        for label, flags in zip(one.label, one.flags):
            labels = set(np.flatnonzero(label).tolist())
            if flags & GROUP_OF and not group_of:
                continue
            for p in range(n):
                if labels & (below[p] | {p}):
                    objects[p] += 1
                    no_descendant[p] += not labels & below[p]
                    no_leaf[p] += not labels & below[p] & leaves
    # At an IoU threshold of 1, the objects are those of the index.
    found = statistics(index, iou_thresh=1, group_of=group_of).parents
    np.testing.assert_array_equal(found.objects, objects)
    np.testing.assert_array_equal(found.without_descendant, no_descendant)
    np.testing.assert_array_equal(found.without_leaf, no_leaf)
    animal = index.classes.names.index('Animal')
    assert no_leaf[animal] > no_descendant[animal] > 0


def test_rates_equal_concurrent_rates(index):
    for options in ({}, {'iou_thresh': 0.5, 'group_of': True, 'expanded': True}):
        np.testing.assert_array_equal(
            statistics(index, **options).rates.both, concurrent_rates(index, **options).both
        )


def test_imbalance():
    found = imbalance(np.array([3, 0, 30, 2, 2]))
    assert (found.largest, found.smallest, found.magnitude, found.n_empty) == (
        2,
        4,
        15.0,
        1,
    )
    none = imbalance(np.zeros(3, int))
    assert np.isnan(none.magnitude) and none.n_empty == 3


def test_command_writes_tables_and_plots(index, tmp_path, capsys):
    out = tmp_path / 'new' / 'statistics'
    arguments = [
        '--index',
        str(index.path),
        '--out',
        str(out),
        '--iou',
        '0.5',
        '--compare',
        str(index.path),
    ]
    main(arguments)
    assert {p.name for p in out.iterdir()} == FILES
    printed = capsys.readouterr()
    assert 'imbalance magnitude, as annotated' in printed.out and not printed.err
    found = statistics(index, 0.5)
    summary = json.loads((out / 'statistics.json').read_text())
    assert summary['images'] == len(index) and summary['leaf_classes'] == 3
    assert summary['imbalance']['magnitude'] == pytest.approx(
        found.classes.images.max() / found.classes.images.min()
    )
    leaves = index.hierarchy.is_leaf
    confused = (found.rates.rates >= 0.1) & leaves[:, None] & leaves
    assert summary['concurrent_rates']['ordered_pairs_of_leaves'] == confused.sum() > 0
    assert len(rows_of(out / 'confused_pairs.csv')) == confused.sum()
    rates = read_concurrent_rates(out / 'concurrent_rates.npz', index.classes)
    np.testing.assert_array_equal(rates.rates, found.rates.rates)
    assert rates.iou_thresh == 0.5
    for i, row in enumerate(rows_of(out / 'classes.csv')):
        assert row['LabelName'] == index.classes.mids[i]
        assert int(row['Images']) == found.classes.images[i]
        assert int(row['IsLeaf']) == leaves[i]
    parents = rows_of(out / 'parents.csv')
    assert [row['DisplayName'] for row in parents] == ['Animal', 'Bird']
    for row in parents:
        assert float(row['RatioWithoutDescendant']) == pytest.approx(
            summary['parents']['ratio_without_descendant'][row['DisplayName']], abs=1e-6
        )
    for path in out.glob('*.png'):
        assert cv2.imread(str(path)).std() > 5
    assert 'Cat, domestic' in (out / 'confused_pairs.svg').read_text()
    assert 'Animal' in (out / 'parents.svg').read_text()
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    main(arguments)
    after = {p.name: p.read_bytes() for p in out.iterdir()}
    assert {name for name in FILES if before[name] != after[name]} <= {'concurrent_rates.npz'}


def test_empty_plots(split, tmp_path):
    """An index with one box of a leaf class and no confused pair."""
    split['boxes'].write_text(
        'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\nA_B,/m/e,0,1,0,1,1\n'
    )
    build_index(**split)
    main(['--index', str(split['out']), '--out', str(tmp_path / 'out')])
    assert {p.name for p in (tmp_path / 'out').iterdir()} == FILES
    summary = json.loads((tmp_path / 'out/statistics.json').read_text())
    assert summary['parents']['without_leaf'] is None
    assert summary['imbalance']['classes_without_image'] == 4
    assert 'no object of a parent class' in (tmp_path / 'out/parents.svg').read_text()
    assert not rows_of(tmp_path / 'out/confused_pairs.csv')


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--iou', '0'], '--iou 0'),
        (['--iou', '1.1'], '--iou 1.1'),
        (['--iou', 'nan'], '--iou nan'),
        (['--threshold', '0'], '--threshold 0'),
        (['--pairs', '0'], '--pairs 0'),
        (['--min-count', '-1'], '--min-count -1'),
        (['--compare', 'nowhere.index'], 'nowhere.index'),
    ],
)
def test_bad_arguments_are_named(index, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        main(['--index', str(index.path), '--out', str(tmp_path / 'out'), *arguments])
    assert not (tmp_path / 'out').exists()


def test_out_that_cannot_be_written_is_named(index, tmp_path):
    (tmp_path / 'file').write_text('text')
    with pytest.raises(InputError, match='file.classes.csv: cannot be written'):
        main(['--index', str(index.path), '--out', str(tmp_path / 'file')])
    assert (tmp_path / 'file').read_text() == 'text'


def test_as_a_program(tmp_path):
    root = Path(__file__).parents[2]
    (tmp_path / 'no.index').write_text('text')
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pfdet.openimages.statistics',
            '--index',
            str(tmp_path / 'no.index'),
            '--out',
            str(tmp_path / 'out'),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(root)},
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
    assert 'no.index' in done.stderr and not (tmp_path / 'out').exists()
