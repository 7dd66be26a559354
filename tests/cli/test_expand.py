"""``--expand`` of ``pfdet ensemble`` and ``pfdet make-submission``."""

import json
import sys

import numpy as np
import pytest

from pfdet.cli import ensemble, make_submission
from pfdet.errors import run_command
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.image_order import is_among_first
from pfdet.evaluation.submission import write_submission
from pfdet.inference.expansion import expand_detections
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy, read_hierarchy
from pfdet.openimages.index import AnnotationIndex

CLASSES = Classes(('/m/fruit', '/m/apple', '/m/toy'), ('Fruit', 'Apple', 'Toy'))
TREE = {
    'LabelName': '/m/0bl9f',
    'Subcategory': [
        {'LabelName': '/m/fruit', 'Subcategory': [{'LabelName': '/m/apple'}]},
        {'LabelName': '/m/toy'},
    ],
}


def random_detections(classes, seed=0, n=300, n_image=6):
    """Detections of a few objects per image, sorted by image. The last image has none."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 3, (n, 2)) * 0.3 + rng.random((n, 2)) * 0.03
    return Detections(
        [f'image {i}' for i in range(n_image + 1)],
        np.sort(rng.integers(0, n_image, n)).astype(np.int32),
        rng.integers(0, len(classes), n).astype(np.int32),
        rng.random(n).astype(np.float32),
        np.concatenate([corner, corner + 0.3], axis=1).astype(np.float32),
    )


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command in a directory with two models; returns status, output and error message."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'classes.csv').write_text('/m/fruit,Fruit\n/m/apple,Apple\n/m/toy,Toy\n')
    (tmp_path / 'hierarchy.json').write_text(json.dumps(TREE))
    for k in range(2):
        write_detections(tmp_path / f'{k}.parquet', random_detections(CLASSES, k), CLASSES)

    def run(command, *args):
        monkeypatch.setattr(sys, 'argv', ['pfdet', *map(str, args)])
        with pytest.raises(SystemExit) as e:
            run_command(command.main)
        return e.value.code, *capsys.readouterr()

    return run


def rows_of(detections, limit=None):
    detections = detections.take(is_among_first(detections.image, limit))
    return [
        (detections.image_ids[i], int(c), float(s), *map(float, b))
        for i, c, s, b in zip(detections.image, detections.label, detections.score, detections.bbox)
    ]


def test_ensemble(run, tmp_path):
    """Expansion comes after suppression and before the limit per image."""
    common = ['--detections', '0.parquet', '1.parquet', '--iou-thresh', 0.6]
    status, *_ = run(ensemble, *common, '--max-per-image', 1000, '--out', 'plain.parquet')
    assert status == 0
    plain = read_detections(tmp_path / 'plain.parquet', CLASSES)
    hierarchy = read_hierarchy(tmp_path / 'hierarchy.json', CLASSES)
    expected = expand_detections(plain, hierarchy, 0.6)
    assert len(set(rows_of(expected)) - set(rows_of(plain))) > 10
    for limit in 1000, 20:
        for label_space in ['--classes', 'classes.csv'], []:
            status, _, message = run(
                *(ensemble, *common, '--expand', '--hierarchy', 'hierarchy.json', *label_space),
                *('--max-per-image', limit, '--out', 'expanded.parquet'),
            )
            assert status == 0, message
            found = read_detections(tmp_path / 'expanded.parquet', CLASSES)
            assert rows_of(found) == rows_of(expected, limit)
            assert found.image_ids == plain.image_ids


def test_make_submission(run, tmp_path):
    given = random_detections(CLASSES)
    expected = expand_detections(
        given, read_hierarchy(tmp_path / 'hierarchy.json', CLASSES), 0.9, max_per_image=40
    )
    write_submission('expected.csv', expected, CLASSES)
    common = ['--detections', '0.parquet', '--classes', 'classes.csv', '--out', 'made.csv']
    status, out, _ = run(
        *(make_submission, *common, '--expand', '--hierarchy', 'hierarchy.json'),
        *('--iou-thresh', 0.9, '--max-per-image', 40),
    )
    assert status == 0
    assert (tmp_path / 'made.csv').read_bytes() == (tmp_path / 'expected.csv').read_bytes()
    assert f'{len(expected)} detections after the expansion of 300,' in out
    assert run(make_submission, *common)[0] == 0
    assert len(read_detections(tmp_path / 'made.csv', CLASSES)) == 300


def test_an_index_gives_classes_and_hierarchy(run, tmp_path, small_world):
    index = AnnotationIndex.open(small_world / 'validation.index')
    assert index.hierarchy.ancestors.any()
    given = random_detections(index.classes)
    write_detections('d.parquet', given, index.classes)
    write_submission('expected.csv', expand_detections(given, index.hierarchy), index.classes)
    data = small_world / 'data'
    by_files = [
        '--classes',
        data / 'class-descriptions.csv',
        '--hierarchy',
        data / 'hierarchy.json',
    ]
    for options in ['--index', small_world / 'validation.index'], by_files:
        common = ['--detections', 'd.parquet', '--expand', *options]
        status, _, message = run(make_submission, *common, '--out', 'made.csv')
        assert status == 0, message
        assert (tmp_path / 'made.csv').read_bytes() == (tmp_path / 'expected.csv').read_bytes()
        status, _, message = run(
            ensemble, *common, '--out', 'e.parquet', '--iou-thresh', 1, '--max-per-image', 10**6
        )
        assert status == 0, message
        found = read_detections(tmp_path / 'e.parquet', index.classes)
        assert rows_of(found) == rows_of(expand_detections(given, index.hierarchy, 1))


def test_the_challenges_hierarchy_is_the_default(run, tmp_path):
    all_classes = challenge_classes()
    given = random_detections(all_classes)
    write_detections('d.parquet', given, all_classes)
    status, *_ = run(make_submission, '--detections', 'd.parquet', '--expand', '--out', 'made.csv')
    assert status == 0
    write_submission('expected.csv', expand_detections(given, challenge_hierarchy()), all_classes)
    assert (tmp_path / 'made.csv').read_bytes() == (tmp_path / 'expected.csv').read_bytes()

    # Some of its classes in another order, and one that it lacks.
    animals = [all_classes.names.index(name) for name in ('Lobster', 'Animal', 'Shellfish')]
    few = Classes((*(all_classes.mids[i] for i in animals), '/m/new'), ('L', 'A', 'S', 'New'))
    one = dict(image=np.zeros(2, np.int32), score=np.array([0.5, 0.25], np.float32))
    bbox = np.array([[0, 0, 1, 1]] * 2, np.float32)
    write_detections('d.csv', Detections(['x'], label=np.array([0, 3]), bbox=bbox, **one), few)
    (tmp_path / 'few.csv').write_text(''.join(f'{mid},x\n' for mid in few.mids))
    common = ['--detections', 'd.csv', '--classes', 'few.csv', '--expand', '--out', 'e.csv']
    assert run(ensemble, *common)[0] == 0
    found = read_detections(tmp_path / 'e.csv', few)
    assert sorted(zip(found.label.tolist(), found.score.tolist())) == [
        (0, 0.5), (1, 0.5), (2, 0.5), (3, 0.25)
    ]  # fmt: skip


def test_detections_of_leaves_need_the_classes_of_their_ancestors(run, tmp_path):
    """A model that lists leaves only is an expert. Its label space has no class to raise to."""
    leaf = CLASSES.pick([1])
    write_detections('leaf.parquet', random_detections(leaf), leaf)
    common = ['--detections', 'leaf.parquet', '--expand', '--hierarchy', 'hierarchy.json']
    status, _, message = run(ensemble, *common, '--out', 'e.parquet')
    assert status == 2 and message.count('\n') == 1
    assert (
        'no class is an ancestor of another one in hierarchy.json, of the 1 classes /m/' in message
    )
    assert run(ensemble, *common, '--classes', 'classes.csv', '--out', 'e.parquet')[0] == 0
    found = read_detections(tmp_path / 'e.parquet', CLASSES)
    fruit, apple = (found.take(found.label == label) for label in (0, 1))
    assert rows_of(fruit) == [(i, 0, *rest) for i, _, *rest in rows_of(apple)] != []


@pytest.mark.parametrize('command', [ensemble, make_submission])
@pytest.mark.parametrize(
    'options, message',
    [
        (['--hierarchy', 'hierarchy.json'], '--hierarchy hierarchy.json: expected --expand'),
        (['--index', 'i', '--classes', 'classes.csv'], '--classes: expected --index or --classes'),
        (['--expand', '--index', 'i', '--hierarchy', 'h'], '--hierarchy: expected --index or'),
        (['--expand', '--hierarchy', 'none.json', '--classes', 'classes.csv'], 'none.json: cannot'),
        (
            ['--expand', '--hierarchy', 'classes.csv', '--classes', 'classes.csv'],
            'line 1: expected',
        ),
        (
            ['--expand', '--classes', 'classes.csv'],
            "in the challenge's hierarchy, of the 3 classes",
        ),
        (['--expand', '--hierarchy', 'toys.json', '--classes', 'classes.csv'], 'in toys.json, of'),
        (['--classes', 'fruit.csv'], "has class '/m/apple'|LabelName '/m/apple' is not one of"),
        (['--iou-thresh', '1.5'], '--iou-thresh 1.5: expected a number from 0 to 1'),
        (['--index', 'no.index'], 'no.index'),
    ],
)
def test_bad_arguments(run, tmp_path, command, options, message):
    (tmp_path / 'toys.json').write_text('{"LabelName": "/m/toy"}')
    (tmp_path / 'fruit.csv').write_text('/m/fruit,Fruit\n/m/toy,Toy\n')
    before = set(tmp_path.iterdir())
    status, _, error = run(command, '--detections', '0.parquet', '--out', 'out.csv', *options)
    assert status == 2 and error.startswith('error: ') and error.count('\n') == 1
    assert any(text in error for text in message.split('|')), error
    assert set(tmp_path.iterdir()) == before
