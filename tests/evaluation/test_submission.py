"""Writing, reading and validating submissions to Kaggle."""

import csv
import dataclasses
import decimal
import io
import tracemalloc

import numpy as np
import pyarrow as pa
import pytest

from pfdet.errors import InputError
from pfdet.evaluation import submission
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


def _plain_text(detections, classes, max_per_image, digits, min_score, score_digits):
    """A submission, written one detection at a time."""

    def text(x):
        number = float(x) + 0.0
        if 1e-6 <= abs(number) < 1:
            return f'{decimal.Decimal(repr(number)):f}'
        return repr(number).removesuffix('.0').replace('e-0', 'e-')

    f = io.StringIO()
    writer = csv.writer(f, lineterminator='\n')
    writer.writerow(('ImageId', 'PredictionString'))
    for i, image_id in enumerate(detections.image_ids):
        rows = [
            k for k in np.flatnonzero(detections.image == i) if detections.score[k] >= min_score
        ]
        rows.sort(key=lambda k: -detections.score[k])
        words = []
        for k in rows[:max_per_image]:
            y_min, x_min, y_max, x_max = np.round(detections.bbox[k].astype(float), digits)
            score = float(f'{float(detections.score[k]):.{(score_digits or digits) - 1}e}')
            words.append(classes.mids[detections.label[k]])
            words += map(text, (score, x_min, y_min, x_max, y_max))
        writer.writerow((image_id, ' '.join(words)))
    return f.getvalue()


@pytest.mark.parametrize(
    'options',
    [
        {},
        dict(max_per_image=None),
        dict(max_per_image=1),
        dict(min_score=0.5),
        dict(min_score=-1.0, max_per_image=3),
        *(dict(digits=digits) for digits in (1, 4, 6, 9)),
        dict(digits=5, score_digits=2),
        dict(digits=3, score_digits=7, max_per_image=5, min_score=0.01),
    ],
    ids=str,
)
@pytest.mark.parametrize('mids', [('/m/a', '/m/b'), ('/m/a,1', '"b"')], ids=['', 'quoted'])
def test_equals_the_plain_writer(tmp_path, monkeypatch, options, mids):
    monkeypatch.setattr(submission, '_ROWS_PER_PART', 20)
    classes = Classes(mids, ('A', 'B'))
    rng = np.random.default_rng(0)
    n = 300
    corner = np.sort(rng.random((n, 2, 2)), axis=1)
    corner[::7] = np.round(corner[::7], 1)
    corner[::11, 0], corner[::13, 1] = 0, 1
    score = np.round(rng.random(n), 2)
    score[::17] = rng.choice([0, -0.0, 1, 1e-7, 123456.7, -0.5], len(score[::17]))
    detections = Detections(
        ['z', 'empty', 'a,b', 'c"d', 'no more', 'é', *(f'{i:02}' for i in range(20)), 'last'],
        rng.permutation([0, 2, 3, *range(5, 26)] * 13)[:n].astype(np.int32),
        rng.integers(0, 2, n, np.int32),
        score.astype(np.float32),
        corner.reshape(n, 4).astype(np.float32),
    )
    every = dict(max_per_image=300, digits=5, min_score=0.0, score_digits=None)
    expected = _plain_text(detections, classes, **{**every, **options}).encode()
    write_submission(tmp_path / 'all.csv', detections, classes, **options)
    assert (tmp_path / 'all.csv').read_bytes() == expected
    # In blocks of some images, some of which are empty.
    by_image = detections.take(np.argsort(detections.image, kind='stable'))
    blocks = (by_image.slice_images(begin, begin + 4) for begin in range(0, 27, 4))
    write_submission(tmp_path / 'blocks.csv', blocks, classes, **options)
    assert (tmp_path / 'blocks.csv').read_bytes() == expected


def test_blocks_with_the_same_image_are_not_written(tmp_path):
    with pytest.raises(InputError, match="submission.csv, line 5: image 'z' for the second time"):
        write_submission(tmp_path / 'submission.csv', [_detections(), _detections()], _CLASSES)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('image_id', ['a\nb', 'a\rb', ' ', ''])
def test_ids_that_do_not_fit_in_a_line_are_not_written(tmp_path, image_id):
    detections = _detections()
    detections.image_ids = ['z', image_id, 'y']
    others = dataclasses.replace(_detections(), image_ids=['1', '2', '3'])
    for blocks in [detections], [detections, others]:
        with pytest.raises(InputError, match='submission.csv, line 3: '):
            write_submission(tmp_path / 'submission.csv', blocks, _CLASSES)
    assert not list(tmp_path.iterdir())


def test_a_stream_that_fails_leaves_no_file(tmp_path):
    def blocks():
        yield _detections()
        raise InputError('d.parquet, row 9: bad')

    with pytest.raises(InputError, match='row 9'):
        write_submission(tmp_path / 'submission.csv', blocks(), _CLASSES)
    assert not list(tmp_path.iterdir())


def test_memory_of_writing_does_not_grow(tmp_path):
    """Peak memory of NumPy and Python, and Arrow's between blocks."""
    held = []

    def blocks(n_block):
        for k in range(n_block):
            block = _many(5000)
            block.image_ids = [f'{k}-{i}' for i in range(len(block.image_ids))]
            held.append(pa.total_allocated_bytes())
            yield block

    peak = []
    for n_block in 8, 40:
        held.clear()
        tracemalloc.start()
        write_submission(tmp_path / 's.csv', blocks(n_block), _CLASSES)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        # Blocks in work and the table of coordinates; a block takes 5000 times 50 bytes as text.
        assert max(held) - held[0] < 5_000_000
    assert peak[1] < 1.5 * peak[0]


def _many(n):
    rng = np.random.default_rng(0)
    corner = np.sort(rng.random((n, 2, 2), np.float32), axis=1).reshape(n, 4)
    image = np.repeat(np.arange(n // 100, dtype=np.int32), 100)
    label = rng.integers(0, 2, n, np.int32)
    return Detections(range(n // 100), image, label, rng.random(n, np.float32), corner)
