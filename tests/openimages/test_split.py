"""Splits of any sizes keep the ratio of each class. A subset has the same images."""

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.index import AnnotationIndex, write_index
from pfdet.openimages.split import choose_split, main
from pfdet.openimages.subset import subset

N_CLASS = 60


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def long_tailed(path, n_image=3000, seed=0, mids='/m/{}'):
    """Write an index of images with up to six classes from a long tail, which co-occur."""
    rng = np.random.default_rng(seed)
    frequency = 1 / np.arange(1, N_CLASS + 1) ** 1.7
    label = []
    for _ in range(n_image):
        theme = rng.integers(5)
        weight = frequency * np.where(np.arange(N_CLASS) % 5 == theme, 4, 1)
        label.append(rng.choice(N_CLASS, rng.integers(0, 7), p=weight / weight.sum()))
    n_box = [len(one) for one in label]
    total = sum(n_box)
    at = rng.uniform(0, 0.5, (total, 2))
    columns = {
        'id_offsets': offsets_of([5] * n_image),
        'id_bytes': np.frombuffer(b''.join(b'%05d' % i for i in range(n_image)), np.uint8),
        'image_size': rng.integers(100, 1000, (n_image, 2)).astype(np.int32),
        'image_suffix': rng.integers(0, 2, n_image).astype(np.uint8),
        'object_offsets': offsets_of(n_box),
        'bbox': np.concatenate([at, at + 0.3], axis=1).astype(np.float32),
        'flags': rng.integers(0, 32, total).astype(np.uint8),
        'label_offsets': offsets_of([1] * total),
        'label': np.concatenate(label).astype(np.int16),
        'positive_offsets': offsets_of([1] * n_image),
        'positive': rng.integers(0, N_CLASS, n_image).astype(np.int16),
        'negative_offsets': offsets_of([2] * n_image),
        'negative': rng.integers(0, N_CLASS, 2 * n_image).astype(np.int16),
    }
    classes = Classes(
        tuple(mids.format(c) for c in range(N_CLASS)), tuple(f'class {c}' for c in range(N_CLASS))
    )
    write_index(
        path,
        columns,
        classes,
        flat_hierarchy(N_CLASS),
        path.parent / 'images',
        ['.jpg', '.png'],
        {},
    )
    return AnnotationIndex.open(path)


@pytest.fixture(scope='module')
def index(tmp_path_factory):
    return long_tailed(tmp_path_factory.mktemp('split') / 'all.index')


@pytest.fixture(scope='module')
def present(index):
    """bool ``(N, C)``, the classes of each image."""
    return np.array([index.annotation(i).label.any(axis=0) for i in range(len(index))])


def deviation(present, images):
    """The relative deviation of all classes with a share of at least five images."""
    share = present.sum(axis=0) * (len(images) / len(present))
    known = share >= 5
    return np.abs(present[images].sum(axis=0)[known] / share[known] - 1)


@pytest.mark.parametrize(
    'n_train, n_val', [(500, 100), (1000, 1000), (100, 300), (2700, 300), (2999, 1), (60, 60)]
)
def test_ratios_are_kept(index, present, n_train, n_val):
    parts = choose_split(index, n_train, n_val, at_least=0)
    chosen = np.concatenate([part.images for part in parts])
    assert len(np.unique(chosen)) == len(chosen) == n_train + n_val
    for part, n in zip(parts, (n_train, n_val)):
        assert len(part.images) == n and (np.diff(part.images) > 0).all()
        np.testing.assert_array_equal(part.count, present[part.images].sum(axis=0))
        np.testing.assert_array_equal(part.source, present.sum(axis=0))
        np.testing.assert_allclose(part.share, present.sum(axis=0) * n / len(index))
        # Almost all counts are the integers nearest to the shares.
        off = np.abs(part.count - part.share)
        assert (off <= 0.5).mean() >= 0.9 and off.max() <= 3
        expected = np.where(part.share > 0, part.count / np.maximum(part.share, 1e-9) - 1, 0)
        np.testing.assert_allclose(part.deviation, expected)


def test_is_far_better_than_random(index, present):
    rng = np.random.default_rng(0)
    parts = choose_split(index, 600, 200, at_least=0)
    for part in parts:
        n = len(part.images)
        baseline = [deviation(present, rng.permutation(len(index))[:n]) for _ in range(20)]
        assert deviation(present, part.images).max() < min(one.max() for one in baseline) / 3
        assert deviation(present, part.images).mean() < min(one.mean() for one in baseline) / 4
    empty = ~present.any(axis=1)
    for part in parts:  # the ratio of images without a box is kept, too
        assert abs(empty[part.images].sum() - empty.mean() * len(part.images)) <= 1


def test_rare_classes_are_in_both_parts_if_possible(tmp_path):
    index = long_tailed(tmp_path / 'few.index', n_image=400, seed=3)
    total = np.bincount(index.image_classes()[1], minlength=N_CLASS)
    assert (total == 1).any() and (total == 2).any()
    train, val = choose_split(index, 200, 60)
    assert (train.count >= np.minimum(total, 1)).all()
    assert (val.count >= (total >= 2)).all()
    without = choose_split(index, 200, 60, at_least=0)
    assert (without[1].count == 0).sum() > (val.count == 0).sum()


def test_seed_determines_the_split(index):
    one, again, other = (choose_split(index, 500, 100, seed=seed) for seed in (0, 0, 1))
    for k in range(2):
        np.testing.assert_array_equal(one[k].images, again[k].images)
        common = np.intersect1d(one[k].images, other[k].images)
        assert len(common) < 0.6 * len(one[k].images)


def test_split_from_two_indexes(index, tmp_path):
    other = long_tailed(tmp_path / 'val.index', 700, seed=5)
    train, val = choose_split(index, len(index), 100, other, at_least=0)
    np.testing.assert_array_equal(train.images, np.arange(len(index)))
    assert not train.deviation.any()
    total = np.bincount(other.image_classes()[1], minlength=N_CLASS)
    np.testing.assert_array_equal(val.source, total)
    assert (np.abs(val.count - total / 7) <= 0.5).mean() > 0.9


def test_subset_has_the_same_images(index, tmp_path):
    images = np.random.default_rng(0).permutation(len(index))[:200]
    size = subset(index, images, tmp_path / 'below' / 'some.index')
    some = AnnotationIndex.open(tmp_path / 'below' / 'some.index')
    some.verify()
    assert some.path.stat().st_size == size and len(some) == 200
    assert set(some.columns) == set(index.columns)
    assert {name: column.dtype for name, column in some.columns.items()} == {
        name: column.dtype for name, column in index.columns.items()
    }
    assert some.classes == index.classes and some.images == index.images
    for k, i in enumerate(np.sort(images).tolist()):
        assert some.image_id(k) == index.image_id(i) and some.find(index.image_id(i)) == k
        assert some.image_path(k) == index.image_path(i)
        assert some.image_size(k) == index.image_size(i)
        for one, other in zip(some.annotation(k), index.annotation(i)):
            np.testing.assert_array_equal(one, other)
    assert some.counts['objects'] == len(some.columns['bbox']) > 0


def test_subset_of_a_built_index(split, tmp_path):
    build_index(**split)
    index = AnnotationIndex.open(split['out'])
    for images in (np.arange(len(index)), np.array([3]), np.zeros(0, int)):
        subset(index, images, tmp_path / 'some.index')
        some = AnnotationIndex.open(tmp_path / 'some.index')
        assert [some.image_path(k) for k in range(len(some))] == [
            index.image_path(int(i)) for i in images
        ]
        assert all(path.exists() for path in map(some.image_path, range(len(some))))
    for images in ([len(index)], [-1], [2, 2]):
        with pytest.raises(ValueError, match='image'):
            subset(index, np.array(images), tmp_path / 'bad.index')
    assert not (tmp_path / 'bad.index').exists()


def test_command(index, tmp_path, capsys):
    out = tmp_path / 'out'
    main(['--index', str(index.path), '--train', '300', '--val', '100', '--out', str(out)])
    assert {p.name for p in out.iterdir()} == {'train.index', 'validation.index', 'split.csv'}
    train, val = (AnnotationIndex.open(out / f'{name}.index') for name in ('train', 'validation'))
    ids = [{one.image_id(i) for i in range(len(one))} for one in (train, val)]
    assert len(ids[0]) == 300 and len(ids[1]) == 100 and not ids[0] & ids[1]
    with open(out / 'split.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    found = np.bincount(train.image_classes()[1], minlength=N_CLASS)
    assert [int(row['TrainImages']) for row in rows] == found.tolist()
    assert float(rows[0]['TrainShare']) == pytest.approx(int(rows[0]['TrainSource']) / 10, abs=1e-3)
    printed = capsys.readouterr()
    assert 'train: 300 images' in printed.out and 'largest relative deviation' in printed.out
    assert not printed.err
    first = {p.name: p.read_bytes() for p in out.iterdir()}
    main(['--index', str(index.path), '--train', '300', '--val', '100', '--out', str(out)])
    assert first == {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize(
    'arguments, message',
    [
        (
            ['--train', '2901', '--val', '100'],
            'all.index: has 3,000 images; expected at least 3,001',
        ),
        (['--train', '0'], '--train 0'),
        (['--val', '-2'], '--val -2'),
        (['--seed', '-1'], '--seed -1'),
        (['--at-least', '-1'], '--at-least -1'),
        ([], '120,000'),
        (['--val-index', 'nowhere.index'], 'nowhere.index'),
    ],
)
def test_bad_arguments_are_named(index, arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        main(['--index', str(index.path), '--out', str(tmp_path / 'out'), *arguments])
    assert not (tmp_path / 'out').exists()


def test_lists_of_validation_images(index, tmp_path, capsys):
    rng = np.random.default_rng(0)
    chosen = rng.choice(len(index), 700, replace=False)
    listed = [index.image_id(int(i)) for i in chosen]
    path, out = tmp_path / 'ids.csv', tmp_path / 'out'
    path.write_text('\n'.join(['ImageID', *listed, 'not-in-the-index']))
    main(['--index', str(index.path), '--ids', str(path), '--out', str(out)])
    parts = [AnnotationIndex.open(out / f'{name}.index') for name in ('train', 'validation')]
    ids = [[part.image_id(i) for i in range(len(part))] for part in parts]
    assert ids[1] == sorted(listed)
    assert sorted(ids[0] + ids[1]) == [index.image_id(i) for i in range(len(index))]
    printed = capsys.readouterr()
    assert 'train: 2,300 images' in printed.out and 'validation: 700 images' in printed.out
    assert printed.err == f'listed images that are not in {index.path}: 1\n'
    for flags in (['--train', '5'], ['--val', '5'], ['--val-index', str(index.path)]):
        with pytest.raises(InputError, match='--ids: takes all images'):
            main(['--index', str(index.path), '--ids', str(path), '--out', str(out), *flags])
    for text, what in (('x\ny\n', 'none'), ('\n'.join(ids[0] + ids[1]), 'all')):
        path.write_text(text)
        with pytest.raises(InputError, match=f'ids.csv: lists {what} of the images of .*all.index'):
            main(['--index', str(index.path), '--ids', str(path), '--out', str(out)])


def test_shared_images_are_reported(index, tmp_path, capsys):
    flags = ['--train', '30', '--val', '30', '--out', str(tmp_path / 'out')]
    main(['--index', str(index.path), '--val-index', str(index.path), *flags])
    assert 'warning: ' in (message := capsys.readouterr().err)
    assert 'share 3,000 images' in message and message.count('\n') == 1


def test_indexes_of_different_classes_are_refused(index, tmp_path):
    long_tailed(tmp_path / 'other.index', 50, mids='/n/{}')
    with pytest.raises(InputError, match=r'other.index: its classes'):
        main(
            [
                '--index',
                str(index.path),
                '--val-index',
                str(tmp_path / 'other.index'),
                '--train',
                '10',
                '--val',
                '10',
                '--out',
                str(tmp_path / 'out'),
            ]
        )


def test_as_a_program(tmp_path):
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pfdet.openimages.split',
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
    assert not list(tmp_path.iterdir())
