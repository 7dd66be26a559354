"""The command that generates MiniOpenImages: its files, and no incomplete output on failure."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages import make_mini as command
from pfdet.openimages.classes import challenge_classes, read_classes
from pfdet.openimages.hierarchy import challenge_hierarchy, read_hierarchy
from pfdet.openimages.make_mini import main, make_mini
from pfdet.openimages.mini.classes import mini_classes
from pfdet.openimages.mini.knobs import Knobs

SPLITS = ('train', 'validation')


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    out = tmp_path_factory.mktemp('mini_open_images') / 'mini'
    make_mini(out, Knobs(images=40), workers=1)
    return out


def rows_of(path):
    with open(path, newline='', encoding='utf-8') as f:
        return list(csv.DictReader(f))


def same_files(a, b):
    names = sorted(str(p.relative_to(a)) for p in a.rglob('*') if p.is_file())
    assert names == sorted(str(p.relative_to(b)) for p in b.rglob('*') if p.is_file())
    return all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def test_same_seed_same_bytes_with_any_number_of_workers(mini, tmp_path):
    make_mini(tmp_path / 'again', Knobs(images=40), workers=2)
    assert same_files(mini, tmp_path / 'again')


def test_seeds_share_no_image(mini, tmp_path):
    make_mini(tmp_path / 'other', Knobs(images=3, validation_images=1, seed=1), workers=1)
    names = {p.name for p in (tmp_path / 'other/train').iterdir()}
    assert not names & {p.name for p in (mini / 'train').iterdir()}


def test_files_have_the_format_of_open_images(mini):
    assert sorted(p.name for p in mini.iterdir()) == sorted(
        [
            'train',
            'validation',
            'class-descriptions.csv',
            'hierarchy.json',
            *(
                f'{split}-annotations-{kind}.csv'
                for split in SPLITS
                for kind in ('bbox', 'human-imagelabels')
            ),
        ]
    )
    for split, n in (('train', 40), ('validation', 10)):
        lines = (mini / f'{split}-annotations-bbox.csv').read_text().splitlines()
        assert lines[0] == (
            'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,'
            'IsTruncated,IsGroupOf,IsDepiction,IsInside'
        )
        labels = (mini / f'{split}-annotations-human-imagelabels.csv').read_text().splitlines()
        assert labels[0] == 'ImageID,Source,LabelName,Confidence'
        images = list((mini / split).iterdir())
        assert len(images) == n
        assert all(
            len(p.stem) == 16 and int(p.stem, 16) >= 0 and p.suffix == '.jpg' for p in images
        )
        for path in images[:5]:
            height, width, _ = cv2.imread(str(path)).shape
            assert max(height, width) == 256 and min(height, width) >= 170
        stems = {p.stem for p in images}
        known = set(read_classes(mini / 'class-descriptions.csv').mids)
        for row in rows_of(mini / f'{split}-annotations-bbox.csv'):
            assert row['ImageID'] in stems and row['LabelName'] in known
            assert 0 <= float(row['XMin']) < float(row['XMax']) <= 1
            assert 0 <= float(row['YMin']) < float(row['YMax']) <= 1
            assert row['Confidence'] == '1' and row['IsGroupOf'] in '01'


def test_classes_and_hierarchy_are_subsets_of_the_challenge(mini):
    classes, challenge = read_classes(mini / 'class-descriptions.csv'), challenge_classes()
    full = [challenge.id_of(mid) for mid in classes.mids]
    assert [challenge.names[i] for i in full] == list(classes.names)
    assert 20 <= len(classes) <= 45
    hierarchy = read_hierarchy(mini / 'hierarchy.json', classes)
    real = challenge_hierarchy().ancestors
    np.testing.assert_array_equal(hierarchy.ancestors, real[np.ix_(full, full)])
    # All ancestors of the classes are included.
    assert real[full].any(axis=0).sum() == real[np.ix_(full, full)].any(axis=0).sum()
    tree = json.loads((mini / 'hierarchy.json').read_text())
    assert tree['LabelName'] == '/m/0bl9f'
    person = next(
        n
        for n in tree['Subcategory']
        if n['LabelName'] == classes.mids[classes.names.index('Person')]
    )
    assert [n['LabelName'] for n in person['Part']] == [mini_classes()['Human face']]


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['--images', '0'], '--images 0'),
        (['--images', '-3'], '--images -3'),
        (['--validation-images', '0'], '--validation-images 0'),
        (['--parts-verified', '1.5'], '--parts-verified 1.5'),
        (['--parent-only', '-0.1'], '--parent-only -0.1'),
        (['--jitter', 'nan'], '--jitter nan'),
        (['--torch-flashlight', '0.5', '0'], '--torch-flashlight'),
        (['--leopard-cheetah', '0.5', '2'], '--leopard-cheetah 2'),
        (['--validation-naming', 'neither'], '--validation-naming neither'),
        (['--long-side', '8'], '--long-side 8'),
        (['--seed', '-1'], '--seed -1'),
        (['--workers', '0'], '--workers 0'),
        (['--tail', 'nan'], '--tail nan'),
    ],
)
def test_bad_arguments_are_named(arguments, message, tmp_path):
    with pytest.raises(InputError, match=message):
        main(['--out', str(tmp_path / 'out'), *arguments])
    assert not list(tmp_path.iterdir())


def test_missing_or_existing_out_is_named(tmp_path):
    with pytest.raises(InputError, match='--out'):
        main([])
    file = tmp_path / 'file'
    file.write_text('mine')
    for out in (file, file / 'below'):
        with pytest.raises(InputError, match='file'):
            main(['--out', str(out), '--images', '1'])
    full = tmp_path / 'full'
    full.mkdir()
    (full / 'thesis.txt').write_text('mine')
    for force in ([], ['--force']):
        with pytest.raises(InputError, match='full'):
            main(['--out', str(full), '--images', '1', *force])
    assert sorted(p.name for p in tmp_path.rglob('*')) == ['file', 'full', 'thesis.txt']


def test_force_replaces_an_existing_data_set(tmp_path, capsys):
    out = tmp_path / 'mini'
    out.mkdir()  # an empty directory may be replaced
    arguments = ['--out', str(out), '--images', '2', '--workers', '1']
    main(arguments)
    with pytest.raises(InputError, match='not empty'):
        main(arguments)
    first = sorted(p.name for p in (out / 'train').iterdir())
    main([*arguments, '--force', '--seed', '3'])
    assert len(list((out / 'train').iterdir())) == 2
    assert sorted(p.name for p in (out / 'train').iterdir()) != first
    assert [p.name for p in tmp_path.iterdir()] == ['mini']
    assert '2 training' in capsys.readouterr().out


def test_failure_leaves_no_files(tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError('out of paint')

    monkeypatch.setattr(command, 'paint', fail)
    with pytest.raises(RuntimeError, match='paint'):
        make_mini(tmp_path / 'mini', Knobs(images=2), workers=1)
    assert not list(tmp_path.iterdir())


def test_preview_is_an_image(tmp_path):
    main(['--preview', str(tmp_path / 'sheet.png'), '--images', '20'])
    sheet = cv2.imread(str(tmp_path / 'sheet.png'))
    assert sheet is not None and sheet.std() > 20
    with pytest.raises(InputError, match='sheet.what'):
        main(['--preview', str(tmp_path / 'sheet.what'), '--images', '20'])
    below = tmp_path / 'sheet.png' / 'sheet.png'
    with pytest.raises(InputError, match='sheet.png.sheet.png: cannot be written'):
        main(['--preview', str(below), '--images', '1'])
    assert [p.name for p in tmp_path.iterdir()] == ['sheet.png']


def test_as_a_program(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'pfdet.openimages.make_mini',
            '--out',
            str(tmp_path),
            '--images',
            '0',
        ],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 2
    assert done.stderr.count('\n') == 1 and done.stderr.startswith('error: --images 0')
