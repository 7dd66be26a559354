"""Ensembling of files, compared with ensembling image by image in memory; and the command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from pfdet.boxes.nms import non_maximum_suppression
from pfdet.boxes.nmw import non_maximum_weighted
from pfdet.evaluation import detections_file
from pfdet.evaluation.detections import (
    Detections,
    blocks_of_images,
    read_detections,
    write_detections,
)
from pfdet.evaluation.image_order import aligned_blocks, sorted_by_image
from pfdet.inference.ensemble import ensemble
from pfdet.openimages.classes import Classes

ROOT = Path(__file__).resolve().parents[2]
CLASSES = Classes(tuple(f'/m/{c}' for c in 'abcde'), tuple('ABCDE'))


def random_detections(seed, n_image=30, max_per_image=20):
    """Overlapping detections of one model in some of 40 images."""
    rng = np.random.default_rng(seed)
    ids = sorted(f'{i:02}' for i in rng.permutation(40)[:n_image])
    image = np.repeat(np.arange(n_image, dtype=np.int32), rng.integers(0, max_per_image, n_image))
    n = len(image)
    corner = rng.integers(0, 3, (n, 2)) * 0.3
    bbox = np.concatenate([corner, corner + 0.3], axis=1) + rng.random((n, 4)) * 0.05
    return Detections(
        ids,
        image,
        rng.integers(0, len(CLASSES), n, np.int32),
        rng.random(n, np.float32),
        bbox.astype(np.float32),
    )


@pytest.fixture
def models(tmp_path, monkeypatch):
    """Detections of four models, and their files with many small row groups."""
    monkeypatch.setattr(detections_file, 'ROW_GROUP', 50)
    models = [random_detections(seed) for seed in range(4)]
    paths = []
    for k, model in enumerate(models):
        paths.append(tmp_path / f'{k}.parquet')
        write_detections(paths[-1], model, CLASSES)
    assert pq.ParquetFile(paths[0]).num_row_groups > 3
    return models, paths


def of_image(detections, image_id):
    if image_id not in detections.image_ids:
        return slice(0)
    return detections.image == detections.image_ids.index(image_id)


def by_image(blocks):
    """From image id to its arrays; checks that ids are unique and in order."""
    blocks = list(blocks)
    ids = [i for block in blocks for i in block.image_ids]
    assert ids == sorted(set(ids))
    return {
        i: (block.bbox[rows], block.score[rows], block.label[rows])
        for block in blocks
        for i in block.image_ids
        for rows in [of_image(block, i)]
    }


@pytest.mark.parametrize('n_row', [1, 7, 100, 10_000])
def test_reading_by_blocks(models, n_row):
    for model, path in zip(*models):
        found = by_image(blocks_of_images(path, CLASSES, n_row))
        assert set(found) == {model.image_ids[i] for i in model.image}
        for image_id, (bbox, score, label) in found.items():
            rows = of_image(model, image_id)
            np.testing.assert_array_equal(bbox, model.bbox[rows])
            np.testing.assert_array_equal(score, model.score[rows])
            np.testing.assert_array_equal(label, model.label[rows])


def test_aligned_blocks(models):
    seen = []
    for blocks in aligned_blocks([blocks_of_images(path, CLASSES, 60) for path in models[1]]):
        ids = set().union(*(block.image_ids for block in blocks if block is not None))
        assert not seen or min(ids) > max(seen)
        seen.extend(sorted(ids))
        for model, block in zip(models[0], blocks):
            expected = {model.image_ids[i] for i in model.image} & ids
            assert expected == set(block.image_ids if block is not None else ())
    assert seen == sorted({m.image_ids[i] for m in models[0] for i in m.image})


def test_weight_0_drops_a_class_of_a_model_even_without_a_score_threshold(models):
    weight = np.ones((4, len(CLASSES)))
    weight[:, 3] = 0
    weight[0] = 0
    found = by_image(ensemble(models[1], CLASSES, weight, score_thresh=0.0, max_per_image=None))
    without_first = by_image(
        ensemble(models[1][1:], CLASSES, weight[1:], score_thresh=0.0, max_per_image=None)
    )
    for image_id, (_, score, label) in found.items():
        assert (label != 3).all() and (score > 0).all()
        expected = without_first.get(image_id)
        assert (0 if expected is None else len(expected[1])) == len(score)


@pytest.mark.parametrize(
    'name, suppress', [('nmw', non_maximum_weighted), ('nms', non_maximum_suppression)]
)
@pytest.mark.parametrize('rows_at_once', [40, 1 << 16])
def test_equals_ensembling_image_by_image(models, name, suppress, rows_at_once, monkeypatch):
    monkeypatch.setattr('pfdet.inference.ensemble._MIN_ROWS_PER_FILE', 10)
    weight = np.random.default_rng(9).random((4, len(CLASSES)))
    weight[1, 2:] = 0
    weight[:, 4] = 0, 0, 1, 0
    found = by_image(ensemble(models[1], CLASSES, weight, name, 0.4, 0.05, 15, rows_at_once))
    n_limited = 0
    for image_id, (bbox, score, label) in found.items():
        all_boxes, all_scores, all_labels = [], [], []
        for model, w in zip(models[0], weight):
            rows = of_image(model, image_id)
            s = (model.score[rows] * w[model.label[rows]]).astype(np.float32)
            keep = (s >= 0.05) & (w[model.label[rows]] > 0)
            all_boxes.append(model.bbox[rows][keep])
            all_scores.append(s[keep])
            all_labels.append(model.label[rows][keep])
        expected = suppress(
            np.concatenate(all_boxes), np.concatenate(all_scores), np.concatenate(all_labels), 0.4
        )
        n_limited += len(expected[1]) > 15
        np.testing.assert_allclose(bbox, expected[0][:15], atol=1e-6)
        np.testing.assert_allclose(score, expected[1][:15], atol=1e-6)
        np.testing.assert_array_equal(label, expected[2][:15])
    assert n_limited > 3 and len(found) > 30


def test_ensemble_of_one_model_equals_suppression(models):
    [model], [path] = models[0][:1], models[1][:1]
    found = by_image(ensemble([path], CLASSES, np.ones((1, len(CLASSES))), max_per_image=None))
    for image_id, (bbox, score, _) in found.items():
        rows = of_image(model, image_id)
        expected = non_maximum_weighted(model.bbox[rows], model.score[rows], model.label[rows], 0.5)
        np.testing.assert_array_equal(bbox, expected[0])
        np.testing.assert_array_equal(score, expected[1])


def test_only_unsorted_files_are_copied(models, tmp_path):
    directory = tmp_path / 'copies'
    directory.mkdir()
    assert sorted_by_image(models[1][0], CLASSES, directory) == models[1][0]
    shuffled = pq.read_table(models[1][0])
    shuffled = shuffled.take(np.random.default_rng(0).permutation(len(shuffled)))
    pq.write_table(shuffled, tmp_path / 's.parquet', row_group_size=40)
    write_detections(tmp_path / 'c.csv', models[0][0], CLASSES)
    for name in 's.parquet', 'c.csv':
        copy = sorted_by_image(tmp_path / name, CLASSES, directory)
        assert copy.parent == directory
        found, expected = (
            by_image(blocks_of_images(path, CLASSES, 100)) for path in (copy, models[1][0])
        )
        assert found.keys() == expected.keys()
        for image_id, columns in found.items():
            assert sorted(columns[1]) == sorted(expected[image_id][1])


def run(*args):
    return subprocess.run(
        [sys.executable, ROOT / 'evaluate' / 'ensemble.py', *map(str, args)],
        cwd=ROOT,
        text=True,
        env=dict(os.environ, PYTHONPATH=str(ROOT)),
        capture_output=True,
        timeout=600,
        check=False,
    )


def test_command(models, tmp_path):
    for k in range(4):
        (tmp_path / f'{k}.json').write_text(
            json.dumps({'AP': {mid: 0.1 * k + 0.05 * c for c, mid in enumerate(CLASSES.mids)}})
        )
    csv = tmp_path / '3.csv'
    write_detections(csv, models[0][3], CLASSES)
    (tmp_path / 'classes.csv').write_text(''.join(f'{mid},x\n' for mid in CLASSES.mids))
    out = tmp_path / 'out' / 'e.parquet'
    done = run(
        '--detections',
        *models[1][:3],
        csv,
        '--scores',
        *(tmp_path / f'{k}.json' for k in range(4)),
        '--out',
        out,
        '--alpha',
        0.25,
        '--classes',
        tmp_path / 'classes.csv',
    )
    assert done.returncode == 0, done.stderr
    assert list(out.parent.iterdir()) == [out]
    found = read_detections(out, CLASSES)
    assert list(found.image_ids) == sorted(set().union(*(m.image_ids for m in models[0])))
    # The mean AP is 0.15 and the maximum 0.3, plus the same offset of 0.05 per class for all.
    weight = np.array([0.25, 0.25, 1 / 3 + 0.25 * 2 / 3, 1])[:, None] * np.ones((1, len(CLASSES)))
    expected = by_image(ensemble(models[1], CLASSES, weight))
    for image_id, (bbox, score, _) in expected.items():
        rows = of_image(found, image_id)
        np.testing.assert_allclose(found.score[rows], score, atol=1e-6)
        np.testing.assert_allclose(found.bbox[rows], bbox, atol=1e-5)


def test_command_with_bad_input(models, tmp_path):
    def check_error(*args, message):
        done = run('--out', tmp_path / 'out.parquet', *args)
        assert done.returncode == 2, done.stderr
        assert done.stderr.startswith('error: ') and done.stderr.count('\n') == 1
        assert message in done.stderr
        assert not (tmp_path / 'out.parquet').exists()
        assert not list(tmp_path.glob('.*'))

    path = models[1][0]
    whole = path.read_bytes()
    cut = tmp_path / 'cut.parquet'
    cut.write_bytes(whole[: len(whole) // 2])
    check_error('--detections', path, cut, message='cut.parquet: cannot read the detections')
    # Damage that is found only when the rows are read.
    cut.write_bytes(whole[:900] + bytes(200) + whole[1100:])
    check_error('--detections', path, cut, message='cut.parquet')
    table = pq.read_table(path)
    for name, column, message in (
        ('Score', np.where(np.arange(len(table)) == 120, np.nan, 0.5), 'row 121: Score is nan'),
        ('XMax', np.where(np.arange(len(table)) == 130, 640, 1.0), 'row 131: box ('),
    ):
        pq.write_table(table.set_column(table.schema.get_field_index(name), name, [column]), cut)
        check_error('--detections', cut, path, message='cut.parquet, ' + message)
    pq.write_table(table.drop(['YMin']), cut)
    check_error('--detections', cut, message='cut.parquet: no column YMin')
    (tmp_path / 'classes.csv').write_text('/m/a,x\n')
    check_error(
        '--detections', path, '--classes', tmp_path / 'classes.csv', message="has class '/m/b'"
    )
    (tmp_path / 's.json').write_text('{}')
    check_error(
        '--detections', path, '--scores', tmp_path / 's.json', message='expected scores written by'
    )
    check_error(
        '--detections', path, path, '--scores', tmp_path / 's.json', message='1 values for 2 files'
    )
    check_error('--detections', path, '--alpha', 2, message='--alpha 2: expected')
