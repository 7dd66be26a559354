"""Indexes of images without annotations, from the photographs to the submission."""

import csv
import sys

import pfdet.compat  # noqa: F401

import cv2
import numpy as np
import pytest

from pfdet import recipes
from pfdet.cli import make_submission, predict, validate_submission
from pfdet.errors import InputError
from pfdet.openimages import build_index
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.hierarchy import flat_hierarchy, read_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.unannotated import ids_of_files
from pfdet.training import build, model_directory
from pfdet.training.communicators import communicator
from pfdet.training.train import train


def write_image(path, height=40, width=60, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    img = np.random.default_rng(seed).integers(0, 255, (height, width, 3)).astype(np.uint8)
    path.write_bytes(cv2.imencode(path.suffix.lower(), img)[1].tobytes())


def ids_of(index):
    return [index.image_id(i) for i in range(len(index))]


@pytest.fixture
def run(tmp_path):
    """An untrained model of three classes, one of them an ancestor."""
    hierarchy = flat_hierarchy(3)
    ancestors = hierarchy.ancestors.copy()
    ancestors[1, 0] = True
    classes = Classes(('/m/0', '/m/1', '/m/2'), ('Animal', 'Cat', 'Car'))
    recipe = recipes.override(recipes.find('mini', 'mini'), ['batch_size=2'])
    directory = tmp_path / 'run'
    model_directory.write_recipe(directory, recipe, classes, type(hierarchy)(ancestors), {})
    model_directory.write_weights(
        directory, build.detector(recipe, 3, descendants=ancestors.T.copy())
    )
    return directory


def test_ids_of_files(tmp_path):
    for name in (
        'b.jpg',
        'x/c.png',
        'x/y/d.webp',
        'x/e.JPG',
        # In several folders
        'f.jpg',
        'x/f.jpg',
        'x/y/f.jpeg',
        'z/g.jpg',
        'x/g.jpg',
        # Twice in a folder
        'h.jpg',
        'h.png',
        '.hidden.jpg',
        '.folder/i.jpg',
        'a\\b.jpg',
    ):
        write_image(tmp_path / name)
    (tmp_path / 'notes.txt').write_text('not an image')
    ids, n_same, refused = ids_of_files(tmp_path)
    assert ids == sorted(['b', 'c', 'd', 'e', 'f', 'x/f', 'x/y/f', 'z/g', 'x/g', 'h'])
    assert n_same == 1
    assert len(refused) == 1 and 'expected its name to be an image id' in refused[0]


def test_an_index_of_a_directory(run, tmp_path, capsys):
    images = {'b.jpg': (40, 60), 'x/c.png': (30, 20), 'x/f.webp': (50, 51), 'f.jpg': (20, 21)}
    for name, size in images.items():
        write_image(tmp_path / 'images' / name, *size)
    (tmp_path / 'images' / 'broken.jpg').write_bytes(b'no image')
    out = tmp_path / 'test.index'
    arguments = ['--images', str(tmp_path / 'images'), '--out', str(out), '--model', str(run)]
    build_index.main(arguments)
    printed = capsys.readouterr().out
    assert 'images without annotations: 4\n' in printed
    assert 'image files that cannot be read, skipped: 1' in printed
    index = AnnotationIndex.open(out)
    found = {
        index.image_path(i).relative_to(tmp_path / 'images').as_posix(): index.image_size(i)
        for i in range(len(index))
    }
    assert found == images
    assert ids_of(index) == ['b', 'c', 'f', 'x/f']
    model = model_directory.read_recipe(run)
    assert index.classes.mids == model.classes.mids
    np.testing.assert_array_equal(index.hierarchy.ancestors, model.hierarchy.ancestors)
    bbox, label, flags, positive, negative = index.annotation(1)
    assert bbox.shape == (0, 4) and label.shape == (0, 3) and flags.shape == (0,)
    assert not positive.any() and not negative.any()

    build_index.main([*arguments, '--keep-missing'])
    index = AnnotationIndex.open(out)
    assert index.image_size(index.find('broken')) == (0, 0)
    (tmp_path / 'out.csv').write_text('ImageID\nb\nx/f\n')
    build_index.main([*arguments, '--exclude-ids', str(tmp_path / 'out.csv')])
    assert ids_of(AnnotationIndex.open(out)) == ['c', 'f']


def test_classes_by_files(split, tmp_path):
    out = tmp_path / 'test.index'
    build_index.main(
        ['--classes', str(split['classes']), '--hierarchy', str(split['hierarchy'])]
        + ['--images', str(split['images']), '--out', str(out)]
    )
    index = AnnotationIndex.open(out)
    classes = read_classes(split['classes'])
    assert index.classes.mids == classes.mids
    expected = read_hierarchy(split['hierarchy'], classes).ancestors
    np.testing.assert_array_equal(index.hierarchy.ancestors, expected)


@pytest.mark.parametrize(
    'flags, message',
    [
        ([], 'no --classes: expected --classes and --hierarchy, or --model RUN'),
        (['--classes', 'c.csv'], 'no --hierarchy: expected'),
        (['--model', 'run', '--classes', 'c.csv'], '--classes c.csv: expected this or --model'),
        (['--model', 'run', '--labels', 'l.csv'], '--labels: needs --boxes'),
        (['--model', 'run', '--exhaustive'], '--exhaustive: needs --boxes'),
        (['--model', 'run', '--machine-labels'], '--machine-labels: needs --boxes'),
        (['--model', 'run', '--pixels'], '--pixels: needs --boxes'),
        (['--model', 'run', '--images', 'nowhere'], 'nowhere: no such directory'),
        (['--model', 'run', '--images', 'run'], r'run: no image file; expected files .*\.jpg'),
        (['--model', 'images'], 'images/recipe.json'),
        (['--model', 'run', '--exclude-ids', 'all.txt'], '--exclude-ids leaves none'),
        (['--model', 'run', '--exclude-ids', 'other.txt'], 'other.txt: none of its images'),
        (['--model', 'run', '--ids', 'other.txt'], 'none of the 1 images in the lists was found'),
    ],
)
def test_what_is_missing_is_one_line(flags, message, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(tmp_path / 'images' / 'a.jpg')
    (tmp_path / 'all.txt').write_text('a\n')
    (tmp_path / 'other.txt').write_text('b\n')
    with pytest.raises(InputError, match=message):
        build_index.main(['--images', 'images', '--out', 'x.index', *flags])
    assert not (tmp_path / 'x.index').exists()


def test_from_photographs_to_a_submission_with_every_image(run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    ids = [f'{k:04x}' for k in range(0, 3000, 100)]
    for k, image_id in enumerate(ids):
        write_image(tmp_path / 'test' / f'part{k % 3}' / f'{image_id}.jpg', 64, 64 + k % 2, k)
    # Of these the competition wants rows as well.
    (tmp_path / 'test' / 'part0' / f'{ids[3]}.jpg').write_bytes(b'damaged')
    (tmp_path / 'test' / 'part1' / f'{ids[4]}.jpg').unlink()
    # Not in the competition
    write_image(tmp_path / 'test' / 'more.jpg')
    (tmp_path / 'sample_submission.csv').write_text(
        'ImageId,PredictionString\n'
        + ''.join(f'{image_id},/m/0 0.9 0.1 0.1 0.9 0.9 /m/1 0.5 0 0 1 1\n' for image_id in ids)
    )
    (tmp_path / 'classes.csv').write_text('/m/0,Animal\n/m/1,Cat\n/m/2,Car\n')

    def command(main, line):
        monkeypatch.setattr(sys, 'argv', ['pfdet', *line.split()])
        main()
        return capsys.readouterr().out

    printed = command(
        build_index.main,
        '--images test --ids sample_submission.csv --model run --out test.index',
    )
    assert 'images without annotations: 28\n' in printed
    assert f'images without a file, skipped: 1 ({ids[4]})' in printed
    assert f'image files that cannot be read, skipped: 1 (test/part0/{ids[3]}.jpg' in printed
    command(predict.main, '--model run --index test.index --out test.parquet --score-thresh 0.2')
    submission = '--detections test.parquet --out submission.csv --classes classes.csv'
    command(make_submission.main, submission)
    check = 'submission.csv --images sample_submission.csv --classes classes.csv'
    with pytest.raises(InputError, match=f'no row for image {ids[3]!r} and 1 others'):
        command(validate_submission.main, check)

    printed = command(make_submission.main, f'{submission} --images sample_submission.csv')
    assert printed.startswith('submission.csv: 30 images, ')
    printed = command(validate_submission.main, check)
    assert printed.startswith('submission.csv: valid; 30 images, ')
    with open('submission.csv', newline='') as f:
        rows = list(csv.DictReader(f))
    assert sorted(row['ImageId'] for row in rows) == ids
    empty = {row['ImageId'] for row in rows if not row['PredictionString']}
    assert {ids[3], ids[4]} <= empty and len(empty) < 30

    (tmp_path / 'sample_submission.csv').write_text('ImageId,PredictionString\n0000,\n')
    before = (tmp_path / 'submission.csv').read_bytes()
    with pytest.raises(InputError, match=f'test.parquet: image {ids[1]!r} is not one of the 1 '):
        command(make_submission.main, f'{submission} --images sample_submission.csv')
    assert (tmp_path / 'submission.csv').read_bytes() == before


@pytest.mark.parametrize('which', ['train', 'validation'])
def test_no_training_on_it(which, run, small_world, tmp_path):
    annotated = AnnotationIndex.open(small_world / 'train.index')
    write_image(tmp_path / 'images' / 'a.jpg')
    out = tmp_path / 'x.index'
    build_index.build_index(
        None, None, annotated.classes, annotated.hierarchy, tmp_path / 'images', out
    )
    index = AnnotationIndex.open(out)
    indexes = (index, None) if which == 'train' else (annotated, index)
    comm, _ = communicator()
    with pytest.raises(InputError, match=r'x\.index: has no boxes; .* with --boxes'):
        train(recipes.find('mini'), indexes[0], tmp_path / 'out', comm, val_index=indexes[1])
    assert not (tmp_path / 'out').exists()
