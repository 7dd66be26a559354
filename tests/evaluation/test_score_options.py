"""What pfdet score says about its annotation files, and its options for them."""

import json
import sys

import numpy as np
import pytest

from pfdet.cli import score
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes

CLASSES = Classes(('/m/fruit', '/m/apple', '/m/toy'), ('Fruit', 'App\u202ele', 'Toy'))
HEADER = 'ImageID,LabelName,XMin,XMax,YMin,YMax'
ONE, TWO = '0,0.5,0,0.5', '0.5,1,0.5,1'
BBOX = {ONE: [0, 0, 0.5, 0.5], TWO: [0.5, 0.5, 1, 1]}


@pytest.fixture
def files(tmp_path):
    lines = [f'{mid},{name}' for mid, name in zip(CLASSES.mids, CLASSES.names)]
    (tmp_path / 'classes.csv').write_text('\n'.join(['LabelName,DisplayName', *lines]))
    below = [{'LabelName': '/m/apple'}]
    (tmp_path / 'hierarchy.json').write_text(
        json.dumps({'LabelName': '/m/fruit', 'Subcategory': below})
    )
    return tmp_path


def write_boxes(files, rows):
    (files / 'boxes.csv').write_text('\n'.join([HEADER, *rows]) + '\n')


def write_perfect(files, rows, extra=()):
    """Detections of all rows; ``extra`` are further ones, with a lower score."""
    found = [(row.split(',')[0], row.split(',')[1], row.split(',', 2)[2]) for row in rows]
    found += extra
    images = sorted({image for image, _, _ in found})
    found = sorted(found, key=lambda one: images.index(one[0]))
    detections = Detections(
        images,
        np.array([images.index(image) for image, _, _ in found], np.int32),
        np.array([CLASSES.ids[mid] for _, mid, _ in found], np.int32),
        np.array([0.5 if one in extra else 0.9 for one in found], np.float32),
        np.array([BBOX[box] for _, _, box in found], np.float32),
    )
    write_detections(files / 'd.parquet', detections, CLASSES)


def run(files, monkeypatch, *flags, **names):
    names = {'boxes': 'boxes.csv', 'classes': 'classes.csv', **names}
    names.update(detections='d.parquet', out='score.json')
    arguments = [
        x
        for name, value in names.items()
        if value
        for x in (f'--{name.replace("_", "-")}', str(files / value))
    ]
    monkeypatch.setattr(sys, 'argv', ['score', *arguments, *map(str, flags)])
    score.main()
    return json.loads((files / 'score.json').read_text())


def test_files_that_are_expanded_already(files, monkeypatch, capsys):
    rows = [f'i,/m/apple,{ONE}', f'j,/m/toy,{ONE}', f'j,/m/fruit,{TWO}']
    expanded = [*rows, f'i,/m/fruit,{ONE}']
    write_perfect(files, expanded)
    scores = []
    for table, hierarchy in ((rows, True), (expanded, True), (expanded, False)):
        write_boxes(files, table)
        result = run(files, monkeypatch, hierarchy='hierarchy.json' if hierarchy else None)
        printed = capsys.readouterr()
        said = 'the boxes are expanded over the hierarchy already: 1 boxes of ancestors left out'
        assert (said in printed.err) == (table is expanded and hierarchy)
        scores.append((result['mAP'], result['AP'], result['n_ground_truth']))
    assert scores[0][0] == 1 and scores[0] == scores[1] == scores[2]
    # Names are printed without marks that turn the text.
    assert 'App\\u202ele' in printed.out and '\u202e' not in printed.out


def test_boxes_without_image_labels(files, monkeypatch):
    rows = [f'i,/m/apple,{ONE}', f'j,/m/toy,{ONE}']
    write_boxes(files, rows)
    # No one says that there is no apple in j, unless the boxes are all objects.
    write_perfect(files, rows, [('j', '/m/apple', TWO)])
    plain = run(files, monkeypatch)
    assert plain['mAP'] == 1 and plain['n_ignored']['unverified class'] == 1
    assert plain['n_detection'] == {'/m/apple': 1, '/m/toy': 1}
    exhaustive = run(files, monkeypatch, '--exhaustive')
    assert exhaustive['n_ignored']['unverified class'] == 0
    assert exhaustive['n_detection'] == {'/m/apple': 2, '/m/toy': 1}


def test_labels_of_a_classifier(files, monkeypatch, capsys):
    rows = [f'i,/m/apple,{ONE}', f'j,/m/toy,{ONE}']
    write_boxes(files, rows)
    write_perfect(files, rows, [('j', '/m/apple', TWO)])
    (files / 'labels.csv').write_text(
        'ImageID,Source,LabelName,Confidence\nj,machine,/m/apple,0\ni,verification,/m/toy,0\n'
    )
    plain = run(files, monkeypatch, labels='labels.csv')
    assert plain['n_detection']['/m/apple'] == 1
    assert 'of other sources than annotators, ignored: 1 (--machine' in capsys.readouterr().err
    machine = run(files, monkeypatch, '--machine-labels', labels='labels.csv')
    assert machine['n_detection']['/m/apple'] == 2
    assert 'annotators' not in capsys.readouterr().err


def test_lists_of_images(files, monkeypatch, capsys):
    rows = [f'i,/m/apple,{ONE}', f'j,/m/toy,{ONE}', f'k,/m/apple,{TWO}']
    write_boxes(files, rows)
    write_perfect(files, rows[:2])
    (files / 'ids.csv').write_text('ImageID\ni\nj\n')
    assert run(files, monkeypatch)['AP']['/m/apple'] == 0.5
    for flag, ids in (('--ids', 'i\nj\n'), ('--exclude-ids', 'k\n')):
        (files / 'ids.csv').write_text(ids)
        result = run(files, monkeypatch, flag, files / 'ids.csv')
        assert result['mAP'] == 1 and result['n_image'] == 2
        assert 'images not chosen by the lists: 1' in capsys.readouterr().err


def test_a_training_index_with_images_of_the_validation_set(files, monkeypatch, capsys):
    rows = [f'i,/m/apple,{ONE}', f'j,/m/toy,{ONE}']
    write_perfect(files, rows)
    for name, some in (('train', rows), ('validation', rows[1:])):
        write_boxes(files, some)
        build_index(
            files / 'boxes.csv',
            None,
            files / 'classes.csv',
            files / 'hierarchy.json',
            files / 'none',
            files / f'{name}.index',
            keep_missing=True,
        )
    monkeypatch.setattr(sys, 'argv', [])
    nothing = dict.fromkeys(('boxes', 'classes'))
    run(files, monkeypatch, **nothing, index='validation.index', train_index='train.index')
    printed = capsys.readouterr().err
    assert 'warning: ' in printed and "share 1 images, such as 'j'" in printed


@pytest.mark.parametrize('flag', ['--exhaustive', '--machine-labels', '--ids'])
def test_options_of_files_do_not_fit_an_index(files, monkeypatch, flag):
    write_perfect(files, [f'i,/m/apple,{ONE}'])
    flags = [flag, files / 'ids.csv'] if flag == '--ids' else [flag]
    with pytest.raises(InputError, match='--index replaces|belong to --boxes'):
        run(files, monkeypatch, *flags, boxes=None, classes=None, index='x.index')
