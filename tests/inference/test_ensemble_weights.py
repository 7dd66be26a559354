"""Weights of ensembles, compared with values computed by hand, and from files."""

import json

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.inference.ensemble_weights import class_weights, label_space, model_weights
from pfdet.openimages.classes import Classes

NAN = np.nan
ALL = np.ones((3, 1), bool)


@pytest.mark.parametrize(
    'ap, alpha, expected',
    [
        # Mean 0.5, maximum 0.7. The second is (0.6 - 0.5) / 0.2 + alpha (0.7 - 0.6) / 0.2.
        ((0.2, 0.6, 0.7), 0.5, (0.5, 0.75, 1)),
        ((0.2, 0.6, 0.7), 0.2, (0.2, 0.6, 1)),
        ((0.2, 0.6, 0.7), 0, (0, 0.5, 1)),
        ((0.2, 0.6, 0.7), 1, (1, 1, 1)),
        # At the mean.
        ((0.2, 0.5, 0.8), 0.3, (0.3, 0.3, 1)),
        # Two models at the maximum.
        ((0.1, 0.7, 0.7), 0.5, (0.5, 1, 1)),
        # Equal scores, also if their mean is inexact.
        ((0.1, 0.1, 0.1), 0.5, (1, 1, 1)),
        ((0, 0, 0), 0.5, (1, 1, 1)),
        # A class without ground truth.
        ((NAN, NAN, NAN), 0.5, (1, 1, 1)),
    ],
)
def test_by_hand(ap, alpha, expected):
    weight = class_weights(np.array(ap)[:, None], ALL, alpha)
    np.testing.assert_allclose(weight[:, 0], expected, atol=1e-12)


def test_one_model():
    np.testing.assert_array_equal(
        class_weights(np.array([[0.3, 0, NAN]]), np.ones((1, 3), bool), 0.5), [[1, 1, 1]]
    )


def test_formula():
    """The formula of the paper, with experts that cover some of the classes."""
    rng = np.random.default_rng(0)
    ap, covered, alpha = rng.random((6, 40)), rng.random((6, 40)) < 0.6, 0.4
    weight = class_weights(np.where(covered, ap, NAN), covered, alpha)
    n = 0
    for c in range(40):
        known = [ap[m, c] for m in range(6) if covered[m, c]]
        for m in range(6):
            if not covered[m, c]:
                assert weight[m, c] == 0
                continue
            mu, t, s = sum(known) / len(known), max(known), ap[m, c]
            if len(known) == 1:
                expected = 1
            elif s < mu:
                expected = alpha
            else:
                expected = (s - mu) / (t - mu) + alpha * (t - s) / (t - mu)
                n += 1
            assert weight[m, c] == pytest.approx(expected, abs=1e-9)
    assert n > 40


def test_score_missing_for_one_model():
    with pytest.raises(ValueError, match='class 0'):
        class_weights(np.array([[0.1], [NAN], [0.2]]), ALL, 0.5)


CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def write_scores(tmp_path, *contents):
    paths = []
    for k, ap in enumerate(contents):
        paths.append(tmp_path / f'{k}.json')
        paths[-1].write_text(ap if isinstance(ap, str) else json.dumps({'mAP': 0.5, 'AP': ap}))
    return paths


def test_classes_of_experts_from_their_files(tmp_path):
    full = {'/m/a': 0.4, '/m/b': 0.5, '/m/c': None}
    # The second expert is scored on all classes, with 0 for those that it does not cover.
    scores = write_scores(tmp_path, full, {'/m/a': 0.0, '/m/b': 0.9, '/m/c': None}, {'/m/a': 0.2})
    names = [tmp_path / name for name in ('a.parquet', 'b.parquet', 'c.csv')]
    model_mids = [list(CLASSES.mids), ['/m/b'], None]
    np.testing.assert_allclose(
        model_weights(names, model_mids, scores, CLASSES, 0.5),
        [[1, 0.5, 1], [0, 1, 0], [0.5, 0, 0]],
    )
    np.testing.assert_array_equal(
        model_weights(names, model_mids, None, CLASSES, 0.5), [[1, 1, 1], [0, 1, 0], [1, 1, 1]]
    )


@pytest.mark.parametrize(
    'text, message',
    [
        ('{"mAP": 1}', 'it has no entry AP of type dict; expected scores'),
        ('[1]', 'it is not an object; expected scores'),
        ('{"AP": [1]}', 'it has no entry AP of type dict; expected scores'),
        ('{"AP": {"/m/a": ', 'not JSON, line 1, column 17: .*; expected scores'),
        (
            '{"AP": {"/m/a": NaN, "/m/b": 0, "/m/c": 0}}',
            'AP of /m/a is nan; expected a number from',
        ),
        ('{"AP": {"/m/a": 55.3, "/m/b": 0, "/m/c": 0}}', 'AP of /m/a is 55.3'),
        ('{"AP": {"/m/a": "1", "/m/b": 0, "/m/c": 0}}', "AP of /m/a is '1'"),
        ('{"AP": {"/m/a": true, "/m/b": 0, "/m/c": 0}}', 'AP of /m/a is True'),
        ('{"AP": {"/m/a": 0.5, "/m/c": 0}}', 'no AP of /m/b, a class of .*1.parquet'),
        (
            '{"AP": {"/m/a": null, "/m/b": 0, "/m/c": 0}}',
            'AP of /m/a is null, but a number in .*0.j',
        ),
        ('\udcff', '.* codec .*; expected scores'),
    ],
)
def test_bad_scores(tmp_path, text, message):
    paths = write_scores(tmp_path, {mid: 0.5 for mid in CLASSES.mids}, '')
    paths[1].write_bytes(text.encode(errors='surrogateescape'))
    names = [tmp_path / f'{k}.parquet' for k in range(2)]
    with pytest.raises(InputError, match='1.json: ' + message):
        model_weights(names, [list(CLASSES.mids)] * 2, paths, CLASSES, 0.5)


def test_missing_file_and_unknown_class(tmp_path):
    [path] = write_scores(tmp_path, {'/m/other': 0.5})
    with pytest.raises(InputError, match="x.csv: its model has class '/m/other'"):
        model_weights([tmp_path / 'x.csv'], [None], [path], CLASSES, 0.5)
    with pytest.raises(InputError, match='no.json: No such file'):
        model_weights([tmp_path / 'x.csv'], [None], [tmp_path / 'no.json'], CLASSES, 0.5)


def test_label_space(tmp_path):
    assert label_space(None, [['/m/b'], ['/m/c', '/m/b']]).mids == ('/m/b', '/m/c')
    assert len(label_space(None, [['/m/new'], None])) == 501
    (tmp_path / 'c.csv').write_text('/m/x,X\n')
    assert label_space(tmp_path / 'c.csv', [None]).names == ('X',)
