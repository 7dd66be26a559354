"""pfdet detect: photographs of all kinds, with a detector that finds coloured rectangles."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import PIL.Image
import pytest

from pfdet import api, recipes
from pfdet.cli import detect
from pfdet.errors import InputError
from pfdet.evaluation.detections import read_detections
from pfdet.inference.predict import PredictSettings
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.photographs import find_photographs
from pfdet.report.draw import draw_detections
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / 'tests' / 'inference'))
from stub_detector import COLORS, StubDetector  # noqa: E402

CLASSES = Classes(('/m/r', '/m/g', '/m/b'), ('Red', 'Grün', 'Blue'))


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Run the command on paths below ``tmp_path``; returns standard output and error."""
    monkeypatch.chdir(tmp_path)

    def load(run, weights=None, **settings):
        settings = PredictSettings((64,), 400, batch_size=3, **settings)
        return api.Detector(StubDetector(), CLASSES, settings)

    monkeypatch.setattr(api, 'load', load)

    def run(*arguments):
        monkeypatch.setattr(
            sys, 'argv', ['detect', '--model', 'run', '--out', 'out', *map(str, arguments)]
        )
        detect.main()
        return capsys.readouterr()

    return run


def photograph(path, label=0, orientation=None, size=(64, 96), **options):
    """Write a photograph with a rectangle in its top left quarter, as it is stored."""
    img = np.full((*size, 3), 128, np.uint8)
    img[: size[0] // 2, : size[1] // 2] = COLORS[label]
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(img).save(path, exif=exif, **options)


def ids(detections):
    return [detections.image_ids[i] for i in detections.image]


@pytest.mark.parametrize('form', ['parquet', 'csv'])
def test_folders_and_formats(form, run, tmp_path):
    photographs = {
        'a.jpg': ('a', 0),
        'sub/b.PNG': ('sub/b', 1),
        'sub/below/c.webp': ('sub/below/c', 2),
        'sub/d.tif': ('sub/d', 0),
        # The same name before the suffix
        'a.png': ('a.png', 1),
    }
    for name, (_, label) in photographs.items():
        photograph(tmp_path / 'photos' / name, label)
    for name in 'notes.txt', '.hidden.jpg', '.folder/x.jpg':
        photograph(tmp_path / 'photos' / f'{name}.jpg')
        (tmp_path / 'photos' / f'{name}.jpg').rename(tmp_path / 'photos' / name)
    printed = run('photos', '--format', form)
    n = len(photographs)
    assert (
        printed.out
        == f'{n} detections in {n} photographs: out/detections.{form} and {n} pictures\n'
    )
    found = read_detections(Path(f'out/detections.{form}'), CLASSES)
    assert dict(zip(ids(found), found.label.tolist())) == dict(photographs.values())
    np.testing.assert_allclose(found.bbox, [[0, 0, 0.5, 0.5]] * n, atol=0.02)
    for image_id, label in photographs.values():
        picture = np.array(PIL.Image.open(f'out/{image_id}.jpg'))
        assert picture.shape == (64, 96, 3)
        # The outline hides the edges of the rectangle, at its right and lower side.
        assert abs(picture[40, 80].astype(int) - 128).max() < 20
        assert abs(picture[:32, 47].astype(int) - COLORS[label]).max(axis=1).mean() > 30
    assert {p.name for p in Path('out').iterdir() if p.name.startswith('.')} == set()


@pytest.mark.parametrize('orientation', [None, 1, 3, 6, 8])
@pytest.mark.parametrize('exif', ['--exif', '--no-exif'])
def test_orientation(exif, orientation, run, tmp_path):
    photograph(tmp_path / 'a.jpg', orientation=orientation, quality=95)
    run('a.jpg', exif, '--format', 'json')
    (photo,) = json.loads(Path('out/detections.json').read_text())
    turned = orientation if exif == '--exif' else None
    height, width, box = {
        3: (64, 96, (32, 48, 64, 96)),
        6: (96, 64, (0, 32, 48, 64)),
        8: (96, 64, (48, 0, 96, 32)),
    }.get(turned, (64, 96, (0, 0, 32, 48)))
    assert (photo['height'], photo['width']) == (height, width)
    (detection,) = photo['detections']
    assert detection['mid'] == '/m/r' and detection['name'] == 'Red'
    np.testing.assert_allclose(detection['box'], box, atol=1)
    with PIL.Image.open('out/a.jpg') as picture:
        assert picture.size == (width, height)
        assert picture.getexif().get(0x0112) is None


def test_photographs_that_cannot_be_read_are_named_and_counted(run, tmp_path):
    for k in range(20):
        photograph(tmp_path / 'photos' / f'{k:02}.png', k % 3, size=(40 + k, 60))
    broken = {
        '05.png': b'',
        '11.png': b'text',
        # A header without the rest
        '17.png': (tmp_path / 'photos' / '17.png').read_bytes()[:60],
    }
    for name, data in broken.items():
        (tmp_path / 'photos' / name).write_bytes(data)
    printed = run('photos')
    assert printed.out.splitlines() == [
        '17 detections in 17 photographs: out/detections.parquet and 17 pictures',
        'skipped: 3 of 20 photographs',
    ]
    lines = [line for line in printed.err.splitlines() if line.startswith('skipped: ')]
    assert len(lines) == 3
    assert all(any(f'photos/{name}: ' in line for line in lines) for name in broken)
    found = read_detections(Path('out/detections.parquet'), CLASSES)
    expected = [f'{k:02}' for k in range(20) if f'{k:02}.png' not in broken]
    assert found.image_ids == expected == sorted(p.stem for p in Path('out').glob('*.jpg'))

    for k in range(20):
        (tmp_path / 'photos' / f'{k:02}.png').write_bytes(b'')
    with pytest.raises(InputError, match='none of the 20 photographs can be read'):
        run('photos', '--format', 'csv')
    assert not Path('out/detections.csv').exists()


def test_photographs_without_detections_are_listed(run, tmp_path):
    PIL.Image.new('RGB', (50, 40)).save(tmp_path / 'black.png')
    photograph(tmp_path / 'red.png')
    for form in 'parquet', 'csv':
        run('black.png', 'red.png', '--format', form)
        found = read_detections(Path(f'out/detections.{form}'), CLASSES)
        assert (found.image_ids, ids(found)) == (['black', 'red'], ['red'])
    run('black.png', 'red.png', '--format', 'json', '--no-pictures')
    listed = json.loads(Path('out/detections.json').read_text())
    assert [len(photo['detections']) for photo in listed] == [0, 1]


def test_a_file_without_detections_in_any_photograph(run, tmp_path):
    PIL.Image.new('RGB', (50, 40)).save(tmp_path / 'black.png')
    for form in 'parquet', 'csv':
        run('black.png', '--format', form)
        assert read_detections(Path(f'out/detections.{form}'), CLASSES).image_ids == ['black']


def test_the_threshold(run, tmp_path):
    # Scores of the detector: 0.9, 0.8 and 0.7, less 1 / 64
    for label in range(3):
        photograph(tmp_path / f'{label}.png', label)
    for threshold, n in ((0.3, 3), (0.75, 2), (0.85, 1), (0.95, 0)):
        out = run('0.png', '1.png', '2.png', '--score-thresh', threshold).out
        assert out.startswith(f'{n} detections in 3 ')
    with pytest.raises(InputError, match='--score-thresh 3: expected a number from 0 to 1'):
        run('0.png', '--score-thresh', 3)


def test_names_are_unique_and_each_file_is_taken_once(tmp_path):
    for name in 'p/a.jpg', 'q/a.jpg', 'p/a.jpeg', 'q/a.jpeg':
        photograph(tmp_path / name)
    os.symlink(tmp_path / 'p' / 'a.jpg', tmp_path / 'link.jpg')
    given = [tmp_path / n for n in ('p/a.jpg', 'p', 'q', 'link.jpg', 'q/a.jpeg', 'p/../p/a.jpg')]
    found, refused = find_photographs(given)
    assert refused == []
    assert {photo.path.relative_to(tmp_path).as_posix(): photo.name for photo in found} == {
        'p/a.jpg': 'a',
        'p/a.jpeg': 'a.jpeg',
        'q/a.jpeg': 'q/a',
        'q/a.jpg': 'a.jpg',
    }


def test_a_name_that_cannot_be_an_id_is_skipped(run, tmp_path):
    photograph(tmp_path / 'photos' / 'a.png')
    (tmp_path / 'photos' / 'a.png').rename(tmp_path / 'photos' / 'x\ny.png')
    photograph(tmp_path / 'photos' / 'ü ø 猫.png')
    printed = run('photos')
    assert 'skipped: 1 of 2 photographs' in printed.out
    assert "'photos/x\\ny.png': expected its name to be an image id" in printed.err
    assert Path('out/ü ø 猫.jpg').exists()


def test_results_are_not_taken_for_photographs(run, tmp_path):
    photograph(tmp_path / 'photos' / 'a.png')
    monkey = ['photos', '--out', 'photos/out']
    for _ in range(2):
        assert run(*monkey).out.startswith('1 detections in 1 photographs')
    # A directory above the photographs is something else.
    assert run('photos/out/a.jpg', 'photos', '--out', '.').out.startswith('2 detections in 2 ')


@pytest.mark.parametrize(
    'arguments', [['photos', '--out', 'photos'], ['photos/sub/a.jpg', '--out', 'photos/sub']]
)
def test_photographs_are_never_overwritten(arguments, run, tmp_path):
    path = tmp_path / 'photos' / 'sub' / 'a.jpg'
    photograph(path)
    before = path.read_bytes()
    with pytest.raises(InputError, match='a picture would replace the photograph .*sub/a.jpg'):
        run(*arguments)
    assert path.read_bytes() == before
    assert run(*arguments, '--no-pictures').out.startswith('1 detections in 1 photographs')
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    'given, message',
    [
        (['nothing.jpg'], 'nothing.jpg: no such file or directory'),
        (['empty'], r'empty: no photograph; expected files ending in \.jpg'),
    ],
)
def test_nothing_to_detect_is_one_line(given, message, run, tmp_path):
    (tmp_path / 'empty').mkdir()
    with pytest.raises(InputError, match=message):
        run(*given)


def test_blocks_are_limited_by_pixels(tmp_path, monkeypatch):
    monkeypatch.setattr(detect, '_PIXELS_A_BLOCK', 10_000)
    for k, size in enumerate([(50, 100), (50, 100), (50, 100), (200, 100), (10, 10), (10, 10)]):
        photograph(tmp_path / f'{k}.png', size=size)
    found, _ = find_photographs([tmp_path])
    blocks = [[photo.name for photo in block] for block in detect._blocks(found, None)]
    assert blocks == [['0', '1'], ['2'], ['3'], ['4', '5']]


def test_boxes_of_an_object_share_one_outline():
    img = np.zeros((3, 100, 200), np.uint8)
    bbox = np.array([[10, 20, 50, 80], [10, 20, 50, 81], [60, 100, 90, 190]], np.float32)
    label = np.array([0, 1, 2])
    picture = np.array(draw_detections(img, bbox, label, np.array([0.9, 0.8, 0.7]), 'ABC'))
    assert picture.shape == (100, 200, 3)
    # The left edges of both objects; black in the middle and beyond
    assert picture[45, 20].any() and picture[85, 100].any()
    assert not picture[45, 50].any() and not picture[95, 195].any()
    # No outline of the second box, which ends a pixel further right
    assert picture[45, 79].any() and not picture[45, 80].any()
    np.testing.assert_array_equal(img, 0)


def test_a_real_model_as_a_script(small_world, tmp_path):
    index = AnnotationIndex.open(small_world / 'validation.index')
    recipe = recipes.override(recipes.find('mini', 'mini'), ['batch_size=2'])
    model_directory.write_recipe(tmp_path / 'run', recipe, index.classes, index.hierarchy, {})
    network = build.detector(recipe, len(index.classes))
    model_directory.write_weights(tmp_path / 'run', network)
    paths = [str(index.image_path(i)) for i in range(2)]
    done = subprocess.run(
        [sys.executable, str(ROOT / 'evaluate' / 'detect.py'), *paths, '--model']
        + [str(tmp_path / 'run'), '--out', str(tmp_path / 'out'), '--score-thresh', '0.02'],
        capture_output=True,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
    )
    assert done.returncode == 0, done.stderr
    found = read_detections(tmp_path / 'out' / 'detections.parquet', index.classes)
    assert found.image_ids == [index.image_id(0), index.image_id(1)]
    model = api.load(tmp_path / 'run', score_thresh=0.02)
    scores = model.predict([api.read_image(path) for path in paths])[2]
    np.testing.assert_allclose(found.score, np.concatenate(scores), rtol=1e-4)
