"""Groups of classes of the papers, checked by hand, and evaluate/score.py with groups."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfdet.errors import InputError
from pfdet.evaluation.class_groups import (
    class_groups,
    classes_of_rank,
    mean_by_group,
    read_training_images,
)
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy

_ROOT = Path(__file__).resolve().parents[2]


def test_groups_of_the_challenge():
    classes, rng = challenge_classes(), np.random.default_rng(0)
    images = rng.permutation(500) * 3
    groups = class_groups(classes, images, challenge_hierarchy())
    assert {name: len(ids) for name, ids in groups.items()} == {
        'rank 11-100': 90,
        'rank 101-250': 150,
        'rank 251-350': 100,
        'least frequent 100': 100,
        'most frequent 100': 100,
        'parts': 47,
        'leaves': 443,
        'parents': 57,
    }
    # The rarest class, of rank 1, has no image. The class of rank 2 has three.
    for name, first, last in (
        ('rank 11-100', 11, 100),
        ('rank 101-250', 101, 250),
        ('rank 251-350', 251, 350),
        ('least frequent 100', 1, 100),
        ('most frequent 100', 401, 500),
    ):
        assert images[groups[name]].tolist() == [3 * (r - 1) for r in range(first, last + 1)]
    parts = {classes.names[c] for c in groups['parts']}
    assert {'Human arm', 'Glove', 'Door handle'} <= parts and 'Person' not in parts
    parents = {classes.names[c] for c in groups['parents']}
    assert {'Person', 'Vehicle'} <= parents and 'Woman' not in parents


def test_ranks_are_scaled_to_the_number_of_classes():
    images = np.array([5, 1, 9, 1, 0])
    # With 5 classes, one rank is 100 ranks out of 500.
    assert classes_of_rank(images, 1, 100).tolist() == [4]
    assert classes_of_rank(images, 101, 300).tolist() == [1, 3]
    assert classes_of_rank(images, 401, 500).tolist() == [2]
    assert classes_of_rank(np.arange(41), 11, 100).tolist() == list(range(8))
    parts = [classes_of_rank(np.zeros(41), k + 1, k + 50) for k in range(0, 500, 50)]
    assert np.concatenate(parts).tolist() == list(range(41))


def test_mean_by_group():
    ap = np.array([0.5, np.nan, 0.25, 1])
    means = mean_by_group(ap, {'a': np.array([0, 1, 2]), 'b': np.array([1]), 'c': np.arange(4)})
    assert means == {
        'a': {'mAP': 0.375, 'n_class': 2, 'n_all': 3},
        'b': {'mAP': None, 'n_class': 0, 'n_all': 1},
        'c': {'mAP': pytest.approx(1.75 / 3), 'n_class': 3, 'n_all': 4},
    }


def test_empty_groups_are_omitted():
    classes = Classes(('/m/a', '/m/b'), ('A', 'B'))
    assert class_groups(classes) == {}
    # With two classes, most ranges of ranks contain no class.
    assert list(class_groups(classes, np.array([3, 4]))) == ['rank 101-250', 'most frequent 100']


_CLASSES = Classes(('/m/a', '/m/b'), ('A', 'B'))


def test_read_training_images(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('ImagesExpanded,X,LabelName\n7,1,/m/b\n0,2,/m/other\n12,3,/m/a\n')
    assert read_training_images(path, _CLASSES).tolist() == [12, 7]


@pytest.mark.parametrize(
    'text, message',
    [
        ('LabelName,Images\n', 'line 1: no column ImagesExpanded; expected LabelName and'),
        ('', 'line 1: no column LabelName'),
        ('LabelName,ImagesExpanded\n/m/a,3\n', 'no row for /m/b and 0 other classes'),
        ('LabelName,ImagesExpanded\n/m/a,3\n/m/a,3\n', "line 3: '/m/a' for the second time"),
        (
            'LabelName,ImagesExpanded\n/m/a,-3\n',
            "line 2: ImagesExpanded is '-3'; expected a number",
        ),
        ('LabelName,ImagesExpanded\n/m/a\n', "line 2: ImagesExpanded is ''"),
        ('LabelName,ImagesExpanded\n/m/a,²\n', 'line 2: ImagesExpanded is '),
        (
            'LabelName,ImagesExpanded\n"/m/a,3\n',
            'cannot read the class counts: unexpected end',
        ),
    ],
)
def test_bad_counts(tmp_path, text, message):
    path = tmp_path / 'counts.csv'
    path.write_text(text, encoding='utf-8')
    with pytest.raises(InputError, match='counts.csv.*' + message):
        read_training_images(path, _CLASSES)


def test_unreadable_counts(tmp_path):
    with pytest.raises(InputError, match='no.csv: cannot read .*: No such file'):
        read_training_images(tmp_path / 'no.csv', _CLASSES)
    (tmp_path / 'latin.csv').write_bytes(b'LabelName\xe9\n')
    with pytest.raises(InputError, match='latin.csv: cannot read'):
        read_training_images(tmp_path / 'latin.csv', _CLASSES)


def _run(*args):
    return subprocess.run(
        [sys.executable, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=600,
        env=dict(os.environ, PYTHONPATH=str(_ROOT)),
    )


@pytest.fixture
def split(tmp_path):
    """Person in three training images, Human arm in two, Toy in one."""
    classes = Classes(('/m/01g317', '/m/0dzf4', '/m/0138tl'), ('Person', 'Human arm', 'Toy'))
    (tmp_path / 'classes.csv').write_text(
        ''.join(f'{m},{n}\n' for m, n in zip(classes.mids, classes.names))
    )
    (tmp_path / 'hierarchy.json').write_text(
        json.dumps(
            {'LabelName': '/m/0bl9f', 'Subcategory': [{'LabelName': m} for m in classes.mids]}
        )
    )
    header = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\n'
    person, arm, toy = (f'{m},0,0.5,0,1,0\n' for m in classes.mids)
    (tmp_path / 'train.csv').write_text(
        header + f'a,{person}b,{person}c,{person}a,{arm}b,{arm}a,{toy}'
    )
    (tmp_path / 'boxes.csv').write_text(header + f'v,{person}v,{arm}')
    (tmp_path / 'labels.csv').write_text('ImageID,LabelName,Confidence\nv,/m/01g317,1\n')
    write_detections(
        tmp_path / 'd.parquet',
        Detections(
            image_ids=['v'],
            image=np.zeros(1, np.int32),
            label=np.zeros(1, np.int32),
            score=np.ones(1, np.float32),
            bbox=np.array([[0, 0, 1, 0.5]], np.float32),
        ),
        classes,
    )
    return tmp_path


def test_score_with_groups(split):
    (split / 'images').mkdir()
    for name in 'abcv':
        Image.new('RGB', (8, 8)).save(split / 'images' / f'{name}.jpg')
    built = _run(
        '-m',
        'pfdet.openimages.build_index',
        '--boxes',
        split / 'train.csv',
        '--labels',
        split / 'labels.csv',
        '--classes',
        split / 'classes.csv',
        '--hierarchy',
        split / 'hierarchy.json',
        '--images',
        split / 'images',
        '--out',
        split / 'train.index',
    )
    assert built.returncode == 0, built.stderr
    (split / 'counts.csv').write_text(
        'LabelName,ImagesExpanded\n/m/01g317,3\n/m/0dzf4,2\n/m/0138tl,1\n'
    )
    arguments = [
        _ROOT / 'evaluate' / 'score.py',
        '--boxes',
        split / 'boxes.csv',
        '--labels',
        split / 'labels.csv',
        '--classes',
        split / 'classes.csv',
        '--detections',
        split / 'd.parquet',
        '--out',
        split / 'score.json',
        '--hierarchy',
        split / 'hierarchy.json',
    ]
    groups = []
    for source in ('--train-index', split / 'train.index'), ('--counts', split / 'counts.csv'):
        result = _run(*arguments, *source)
        assert result.returncode == 0, result.stderr
        groups.append(json.loads((split / 'score.json').read_text())['groups'])
        assert '0.5000     2/3  leaves' in result.stdout
    assert (
        groups[0]
        == groups[1]
        == {
            'rank 101-250': {'mAP': None, 'n_class': 0, 'n_all': 1},
            'rank 251-350': {'mAP': 0, 'n_class': 1, 'n_all': 1},
            'most frequent 100': {'mAP': 1, 'n_class': 1, 'n_all': 1},
            'parts': {'mAP': 0, 'n_class': 1, 'n_all': 1},
            'leaves': {'mAP': 0.5, 'n_class': 2, 'n_all': 3},
        }
    )
    (split / 'score.json').unlink()
    (split / 'counts.csv').write_text('LabelName,ImagesExpanded\n')
    failed = _run(*arguments, '--counts', split / 'counts.csv')
    assert failed.returncode == 2 and failed.stderr.count('\n') == 1
    assert not (split / 'score.json').exists()
