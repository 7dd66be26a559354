"""Writing, reading and validating submissions to Kaggle."""

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections, read_detections
from pfdet.evaluation.submission import validate_submission, write_submission
from pfdet.openimages.classes import Classes

_CLASSES = Classes(('/m/a', '/m/b'), ('A', 'B'))


def _detections():
    return Detections(
        image_ids=['z', 'empty', 'y'],
        image=np.array([2, 0, 0, 0], np.int32),
        label=np.array([1, 0, 1, 0], np.int32),
        score=np.array([0.5, 0.000123456, 0.9, 0.25], np.float32),
        bbox=np.array(
            [[0.1, 0.2, 0.3, 0.4], [0, 0, 1, 1], [0.5, 0, 0.75, 1 / 3], [0, 0.25, 1, 0.5]],
            np.float32,
        ),
    )


def test_written_text(tmp_path):
    path = tmp_path / 'submission.csv'
    counts = write_submission(path, _detections(), _CLASSES, digits=4)
    assert path.read_text() == (
        'ImageId,PredictionString\n'
        'z,/m/b 0.9 0 0.5 0.3333 0.75 /m/a 0.25 0.25 0 0.5 1 /m/a 0.0001235 0 0 1 1\n'
        'empty,\n'
        'y,/m/b 0.5 0.2 0.1 0.4 0.3\n'
    )
    assert counts == {'images': 3, 'empty': 1, 'detections': 4, 'most': 3}
    assert validate_submission(path) == counts


def test_numbers(tmp_path):
    """Numbers are rounded as by Python, and as short as possible."""
    rng = np.random.default_rng(0)
    n = 500
    score = (10 ** rng.uniform(-9, 1, n)).astype(np.float32)
    score[:5] = 1, 0, 0.3, 1e-30, 123456.789
    corners = np.sort(rng.random((2, n, 2)), axis=0)
    corners[:, 0] = [[0, 2e-6], [1, 1 - 1e-7]]
    bbox = np.concatenate([corners[0], corners[1]], axis=1).astype(np.float32)
    detections = Detections(['x'], np.zeros(n, np.int32), np.zeros(n, np.int32), score, bbox)
    write_submission(tmp_path / 's.csv', detections, _CLASSES, None, digits=3, score_digits=4)
    words = (tmp_path / 's.csv').read_text().splitlines()[1][2:].split()
    order = np.argsort(-score, kind='stable')
    assert len(words) == 6 * n and ',' not in ''.join(words)
    for k, i in enumerate(order):
        y_min, x_min, y_max, x_max = map(float, bbox[i])
        mid, score_text, *box = words[6 * k : 6 * k + 6]
        assert float(score_text) == float(f'{float(score[i]):.4g}')
        assert [float(x) for x in box] == [round(x, 3) for x in (x_min, y_min, x_max, y_max)]
        assert len(score_text) <= 11 and all(len(x) <= 5 for x in box)


def test_round_trip(tmp_path):
    path = tmp_path / 'submission.csv'
    written = _detections()
    write_submission(path, written, _CLASSES, None, digits=7)
    back = read_detections(path, _CLASSES)
    assert list(back.image_ids) == ['empty', 'y', 'z']
    np.testing.assert_array_equal(back.image, [2, 2, 2, 1])
    order = [2, 3, 1, 0]
    np.testing.assert_array_equal(back.label, written.label[order])
    np.testing.assert_allclose(back.score, written.score[order], rtol=1e-5)
    np.testing.assert_allclose(back.bbox, written.bbox[order], atol=1e-6)
    path.write_text('ImageId,PredictionString\n')
    assert list(read_detections(path, _CLASSES).image_ids) == []


def test_read_several_batches(tmp_path):
    """More rows than one batch, some of them without detections."""
    rng = np.random.default_rng(0)
    image = np.flatnonzero(rng.random(2500) < 0.5).astype(np.int32)
    ids = [f'{i:05}' for i in range(2500)]
    bbox = np.tile(np.array([0, 0, 0.5, 0.5], np.float32), (len(image), 1))
    written = Detections(ids, image, image % 2, (image + 1) / 4096, bbox)
    write_submission(tmp_path / 's.csv', written, _CLASSES, digits=9)
    back = read_detections(tmp_path / 's.csv', _CLASSES)
    assert list(back.image_ids) == ids
    for name in 'image', 'label', 'score', 'bbox':
        np.testing.assert_array_equal(getattr(back, name), getattr(written, name))


@pytest.mark.parametrize(
    'text, message',
    [
        ('{h}x,{g}\ny,/m/z 1 0 0 1 1\n', "line 3, detection 1: MID '/m/z'"),
        ('{h}x,{g}\nx,\n', "line 3: image 'x' for the second time, after line 2"),
        ('{h}x,/m/a 1e39 0 0 1 1\n', "score is '1e39'"),
        ('{h}x,{g}\n"y', 'line 3: a quote without its counterpart'),
    ],
)
def test_reading_bad_submissions(tmp_path, text, message):
    path = tmp_path / 'submission.csv'
    path.write_text(text.format(h='ImageId,PredictionString\n', g='/m/a 0.5 0 0 1 1'))
    with pytest.raises(InputError, match='submission.csv, .*' + message):
        read_detections(path, _CLASSES)


def test_expected_images(tmp_path):
    path = tmp_path / 'submission.csv'
    write_submission(path, _detections(), _CLASSES)
    assert validate_submission(path, _CLASSES, ['y', 'z', 'empty'])['images'] == 3
    with pytest.raises(InputError, match="no row for image 'a' and 1 others; expected .* 5 images"):
        validate_submission(path, _CLASSES, ['y', 'z', 'empty', 'b', 'a'])
    with pytest.raises(InputError, match="line 3: image 'empty' is not one of the 2 images"):
        validate_submission(path, _CLASSES, ['y', 'z'])


def test_max_per_image_and_min_score(tmp_path):
    path = tmp_path / 'submission.csv'
    assert write_submission(path, _detections(), _CLASSES, max_per_image=1)['detections'] == 2
    assert '/m/b 0.9 ' in path.read_text() and '/m/a' not in path.read_text()
    counts = write_submission(path, _detections(), _CLASSES, None, min_score=0.3)
    assert counts == {'images': 3, 'empty': 1, 'detections': 2, 'most': 1}


_GOOD = '/m/a 0.5 0 0 1 1'


@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'line 1: .*expected the header ImageId,PredictionString'),
        ('ImageID,PredictionString\n', "line 1: 'ImageID,PredictionString'"),
        ('{h}x\n', "line 2: 1 fields; expected 2 as in the header, found 'x'"),
        ('{h}x,{g}\nx,\n', "line 3: image 'x' for the second time"),
        ('{h}x,{g},\n', 'line 2: 3 fields'),
        ('{h},{g}\n', 'line 2: no ImageId; expected ImageId,PredictionString'),
        ('{h}x,{g}\ny,{g} /m/a\n', 'line 3: 7 fields in PredictionString; expected six'),
        ('{h}x,{g}\ny,{g} /m/z 1 0 0 1 1\n', "line 3, detection 2: MID '/m/z' is not one of the 2"),
        ('{h}x,/m/a high 0 0 1 1\n', "line 2, detection 1: score is 'high'; expected a finite"),
        ('{h}x,/m/a nan 0 0 1 1\n', "score is 'nan'"),
        ('{h}x,/m/a 1 0 0 1.5 1\n', "XMax is '1.5'; expected a number from 0 to 1"),
        ('{h}x,/m/a 1 -0.1 0 1 1\n', "XMin is '-0.1'"),
        ('{h}x,/m/a 1 0 nan 1 1\n', "YMin is 'nan'"),
        ('{h}x,/m/a 1 0.5 0 0.4 1\n', 'box 0.5 0 0.4 1; expected XMin <= XMax and YMin <= YMax'),
        ('{h}x,/m/a 1 0 0.5 1 0.4\n', 'expected XMin <= XMax and YMin <= YMax'),
        ('{h}x,{g}\ny,/m/a 1_0 0 0 1 1\n', "line 3, detection 1: score is '1_0'"),
        ('{h}x,"{g}\n', 'line 2: a quote without its counterpart'),
    ],
)
def test_validating_bad_submissions(tmp_path, text, message):
    path = tmp_path / 'submission.csv'
    path.write_text(text.format(h='ImageId,PredictionString\n', g=_GOOD))
    with pytest.raises(InputError, match='submission.csv, .*' + message):
        validate_submission(path, _CLASSES)


def test_unreadable(tmp_path):
    with pytest.raises(InputError, match='cannot read the submission: No such file'):
        validate_submission(tmp_path / 'no.csv')
    (tmp_path / 'latin.csv').write_bytes(b'ImageId,PredictionString\n\xe9,\n')
    with pytest.raises(InputError, match=r"latin.csv, line 2: ImageId is b'\\xe9'; expected UTF-8"):
        validate_submission(tmp_path / 'latin.csv')


def test_bad_submission_is_not_written(tmp_path):
    spaced = Classes(('/m/ a', '/m/b'), ('A', 'B'))
    with pytest.raises(InputError, match='submission.csv, line 2: '):
        write_submission(tmp_path / 'submission.csv', _detections(), spaced)
    assert not list(tmp_path.iterdir())
