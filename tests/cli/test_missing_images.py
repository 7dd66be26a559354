"""Images that are not where they should be: a missing directory, and detections of other images."""

import shutil
import sys

import pytest

from pfdet.cli import score
from pfdet.errors import InputError
from pfdet.openimages import build_index, coco
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own import command


@pytest.mark.parametrize('name', ['index', 'coco', 'own'])
def test_a_missing_directory_is_said_to_be_missing(tmp_path, name):
    """At once, before the annotations are read: they do not exist here."""
    out = ['--images', tmp_path / 'none', '--out', tmp_path / 'x.index']
    files = {
        'index': ['--boxes', 'b.csv', '--classes', 'c.csv', '--hierarchy', 'h.json'],
        'coco': ['--annotations', 'a.json'],
        'own': ['--format', 'coco', '--annotations', 'a.json'],
    }
    main = {'index': build_index.main, 'coco': coco.main, 'own': command.main}[name]
    with pytest.raises(InputError, match='none: no such directory; expected the one of the image'):
        main([*files[name], *map(str, out)])
    (tmp_path / 'none').write_text('')
    with pytest.raises(InputError, match='none: no such directory'):
        main([*files[name], *map(str, out)])
    # With --keep-missing, an index without images can be made.
    with pytest.raises(InputError, match=r'(b|c)\.csv|a\.json'):
        main([*files[name], *map(str, out), '--keep-missing'])
    assert [path.name for path in tmp_path.iterdir() if path.stat().st_size] == []


def test_a_directory_that_was_moved_since_the_index_was_built(small_world, tmp_path):
    shutil.copytree(small_world, tmp_path / 'world')
    index = AnnotationIndex.open(tmp_path / 'world' / 'validation.index')
    dataset = OpenImagesDataset(index)
    images = tmp_path / 'world' / 'data' / 'validation'
    path = index.image_path(0)
    path.unlink()
    # One missing file is named.
    with pytest.raises(InputError, match=f'{path.name}: cannot read the image'):
        dataset.get_image(0)
    images.rename(tmp_path / 'moved')
    for read in dataset.get_image, lambda i: dataset.get_resized(i, 64, 64):
        with pytest.raises(InputError, match='data/validation: no such directory; .*move them b'):
            read(0)


ROW = '{},/m/011k07,0.9,0.1,0.1,0.5,0.5\n'
HEADER = 'ImageID,LabelName,Score,XMin,YMin,XMax,YMax\n'


def run_score(monkeypatch, small_world, tmp_path, by_index, content):
    detections = tmp_path / 'd.csv'
    detections.write_text(content)
    data = small_world / 'data'
    files = ['--index', small_world / 'validation.index']
    if not by_index:
        files = [
            *('--boxes', data / 'validation-annotations-bbox.csv'),
            *('--labels', data / 'validation-annotations-human-imagelabels.csv'),
            *('--classes', data / 'class-descriptions.csv'),
            *('--hierarchy', data / 'hierarchy.json'),
        ]
    arguments = [*files, '--detections', detections, '--out', tmp_path / 'score.json']
    monkeypatch.setattr(sys, 'argv', ['pfdet score', *map(str, arguments)])
    score.main()


@pytest.mark.parametrize('by_index', [True, False])
def test_detections_of_other_images_are_refused(monkeypatch, small_world, tmp_path, by_index):
    index = AnnotationIndex.open(small_world / 'validation.index')
    mid = index.classes.mids[0]
    row = ROW.replace('/m/011k07', mid)
    content = HEADER + row.format('elsewhere') + row.format('elsewhere/too')
    with pytest.raises(InputError) as refused:
        run_score(monkeypatch, small_world, tmp_path, by_index, content)
    message = str(refused.value)
    assert "d.csv: none of its 2 images, such as 'elsewhere', is in " in message
    assert 'which has 8, such as ' in message and '\n' not in message
    assert not (tmp_path / 'score.json').exists()
    # One image in common is enough, and no detections at all are a score of 0.
    for written in (content + row.format(index.image_id(0)), HEADER):
        run_score(monkeypatch, small_world, tmp_path, by_index, written)
        assert (tmp_path / 'score.json').exists()
