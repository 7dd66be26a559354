"""``pfdet export-detections``: blocks, errors, and what is left behind."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
from exported_world import CLASSES, tree

from pfdet.cli import export_detections
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.evaluation.formats import predicted_images
from pfdet.openimages.build_index import build_index

ROOT = Path(__file__).resolve().parents[3]


def test_a_block_ends_anywhere(world, export, monkeypatch):
    """Files that are larger than memory are read in blocks."""
    whole = [
        export(*given).read_bytes() for given in (('coco', 'a.json'), ('labelstudio', 'b.json'))
    ]
    monkeypatch.setattr(predicted_images, '_ROWS_AT_ONCE', 3)
    assert export('coco', 'c.json').read_bytes() == whole[0]
    assert export('labelstudio', 'd.json').read_bytes() == whole[1]


@pytest.mark.parametrize(
    'form, name, flags, message',
    [
        ('coco', 'results.txt', [], '--out .*results.txt: expected a name ending in .json'),
        ('labelstudio', 'tasks', [], '--out .*tasks: expected a name ending in .json'),
        ('coco', 'r.json', ['--ground-truth', 'a.txt'], '--ground-truth a.txt: expected a name'),
        ('yolo', 'out', ['--ground-truth', 'a.json'], '--ground-truth: for --format coco only'),
        ('yolo', 'out', ['--annotations', 'a.json'], '--annotations: for --format coco only'),
        (
            *('coco', 'r.json', ['--annotations', 'a.json', '--ground-truth', 'b.json']),
            '--annotations: contradicts --ground-truth',
        ),
        ('coco', 'r.json', ['--no-confidence'], '--confidence: for --format yolo only'),
        ('coco', 'r.json', ['--model-version', 'x'], '--model-version: for --format labelstudio'),
        ('yolo', 'out', ['--image-prefix', 'x'], '--image-prefix: for --format labelstudio only'),
    ],
)
def test_flags_that_do_not_fit(export, tmp_path, form, name, flags, message):
    with pytest.raises(InputError, match=message):
        export(form, name, *flags)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    'form, name', [('coco', 'r.json'), ('yolo', 'r'), ('labelstudio', 'r.json')]
)
def test_an_image_that_the_index_lacks(world, tmp_path, monkeypatch, form, name):
    detections = world[2]
    other = Detections(
        [*detections.image_ids[:-1], 'zz'],
        *(getattr(detections, n) for n in ('image', 'label', 'score', 'bbox')),
    )
    write_detections(tmp_path / 'other.parquet', other, CLASSES)
    arguments = ['--detections', tmp_path / 'other.parquet', '--index', world[0] / 'flat.index']
    arguments += ['--format', form, '--out', tmp_path / name]
    monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
    with pytest.raises(InputError, match=r"other.parquet: image 'zz' is not one of the 12 images"):
        export_detections.main()
    assert {p.name for p in tmp_path.rglob('*')} <= {'other.parquet', 'r'}


def test_images_without_a_size(world, tmp_path, monkeypatch):
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(
            world[0] / 'boxes.csv',
            *(None, CLASSES, tree(), tmp_path, tmp_path / 'x.index'),
            keep_missing=True,
        )
    for form, name in ('coco', 'r.json'), ('labelstudio', 'r.json'), ('yolo', 'out'):
        arguments = ['--detections', world[0] / 'd.parquet', '--index', tmp_path / 'x.index']
        arguments += ['--format', form, '--out', tmp_path / name]
        monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
        if form == 'yolo':
            # Its coordinates are relative.
            export_detections.main()
            assert (tmp_path / 'out' / 'labels' / '00.txt').exists()
            continue
        with pytest.raises(InputError, match="x.index: no size of image '0.', which had no file"):
            export_detections.main()
        assert not (tmp_path / name).exists()


def test_labels_are_not_mixed(export, tmp_path):
    """Labels of an earlier run would stay where the later one has no image."""
    out = export('yolo', 'out')
    before = sorted(path.read_bytes() for path in out.rglob('*.txt'))
    with pytest.raises(InputError, match='labels: is not empty; expected a new directory'):
        export('yolo', 'out', '--score-thresh', 0.5)
    assert sorted(path.read_bytes() for path in out.rglob('*.txt')) == before
    (tmp_path / 'file').write_text('x')
    with pytest.raises(InputError, match='file: cannot be written'):
        export('yolo', 'file')


def test_script(world, tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / 'evaluate' / 'export_detections.py', '--format', 'coco']
        + ['--detections', world[0] / 'd.parquet', '--index', world[0] / 'flat.index']
        + ['--out', tmp_path / 'r.json'],
        cwd=ROOT,
        text=True,
        capture_output=True,
        timeout=600,
        env={'PYTHONPATH': str(ROOT), 'PATH': ''},
    )
    n = len(world[2])
    assert done.returncode == 0, done.stderr
    assert done.stdout == f'{tmp_path / "r.json"}: {n} detections in 11 of 12 images\n'
