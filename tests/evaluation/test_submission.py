"""Kaggle submissions: written, checked, and refused with a reason."""

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.submission import validate_submission, write_submission
from pfdet.openimages.classes import Classes

_CLASSES = Classes(('/m/a', '/m/b'), ('A', 'B'))


def _detections():
    return Detections(
        image_ids=['z', 'empty', 'y'], image=np.array([2, 0, 0, 0], np.int32),
        label=np.array([1, 0, 1, 0], np.int32),
        score=np.array([.5, .000123456, .9, .25], np.float32),
        bbox=np.array([[.1, .2, .3, .4], [0, 0, 1, 1], [.5, 0, .75, 1 / 3], [0, .25, 1, .5]],
                      np.float32))


def test_written_text(tmp_path):
    path = tmp_path / 'submission.csv'
    counts = write_submission(path, _detections(), _CLASSES, digits=4)
    assert path.read_text() == (
        'ImageId,PredictionString\n'
        'z,/m/b 0.9 0 0.5 0.3333 0.75 /m/a 0.25 0.25 0 0.5 1 /m/a 0.0001235 0 0 1 1\n'
        'empty,\n'
        'y,/m/b 0.5 0.2 0.1 0.4 0.3\n')
    assert counts == {'images': 3, 'empty': 1, 'detections': 4, 'most': 3}
    assert validate_submission(path) == counts


def test_limits(tmp_path):
    path = tmp_path / 'submission.csv'
    assert write_submission(path, _detections(), _CLASSES, max_per_image=1)['detections'] == 2
    assert '/m/b 0.9 ' in path.read_text() and '/m/a' not in path.read_text()
    counts = write_submission(path, _detections(), _CLASSES, None, min_score=.3)
    assert counts == {'images': 3, 'empty': 1, 'detections': 2, 'most': 1}


_GOOD = '/m/a 0.5 0 0 1 1'


@pytest.mark.parametrize('text, message', [
    ('', 'line 1: .*expected the header ImageId,PredictionString'),
    ('ImageID,PredictionString\n', "line 1: 'ImageID,PredictionString'"),
    ('{h}x\n', "line 2: 1 fields beginning with 'x'"),
    ('{h}x,{g}\nx,\n', "line 3: image 'x' for the second time"),
    ('{h}x,{g},\n', 'line 2: 3 fields'),
    ('{h},{g}\n', 'line 2: 2 fields beginning'),
    ('{h}x,{g}\ny,{g} /m/a\n', 'line 3: 7 fields in PredictionString; expected six'),
    ('{h}x,{g}\ny,{g} /m/z 1 0 0 1 1\n', "line 3, detection 2: MID '/m/z' is not one of the 2"),
    ('{h}x,/m/a high 0 0 1 1\n', "line 2, detection 1: score is 'high'; expected a finite"),
    ('{h}x,/m/a nan 0 0 1 1\n', "score is 'nan'"),
    ('{h}x,/m/a 1 0 0 1.5 1\n', "XMax is '1.5'; expected a number from 0 to 1"),
    ('{h}x,/m/a 1 -0.1 0 1 1\n', "XMin is '-0.1'"),
    ('{h}x,/m/a 1 0 nan 1 1\n', "YMin is 'nan'"),
    ('{h}x,/m/a 1 0.5 0 0.4 1\n', 'box 0.5 0 0.4 1; expected XMin <= XMax and YMin <= YMax'),
    ('{h}x,/m/a 1 0 0.5 1 0.4\n', 'expected XMin <= XMax and YMin <= YMax'),
    ('{h}x,/m/a 1_0 0 0 1 1\n', 'lines 2 to 2: a number is not written in plain'),
    ('{h}x,"{g}\n', 'line 2: unexpected end of data'),
])
def test_refused(tmp_path, text, message):
    path = tmp_path / 'submission.csv'
    path.write_text(text.format(h='ImageId,PredictionString\n', g=_GOOD))
    with pytest.raises(InputError, match='submission.csv, .*' + message):
        validate_submission(path, _CLASSES)


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match='cannot read the submission: No such file'):
        validate_submission(tmp_path / 'no.csv')
    (tmp_path / 'latin.csv').write_bytes(b'ImageId,PredictionString\n\xe9,\n')
    with pytest.raises(InputError, match='latin.csv, line 2: expected UTF-8 text'):
        validate_submission(tmp_path / 'latin.csv')


def test_wrong_submission_is_not_left_behind(tmp_path):
    spaced = Classes(('/m/ a', '/m/b'), ('A', 'B'))
    with pytest.raises(InputError, match='submission.csv, line 2: '):
        write_submission(tmp_path / 'submission.csv', _detections(), spaced)
    assert not list(tmp_path.iterdir())
