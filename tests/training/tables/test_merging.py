"""Class weights are applied to images that they were not computed on."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.ground_truth import ground_truth_of_index
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.tables import halves, merging
from pfdet.training.tables.halves import image_ids, join_images, split_in_halves
from pfdet.training.tables.inputs import check_disjoint, check_inputs
from pfdet.training.tables.merging import Images, Merger, Model, augmentation
from pfdet.training.tables.rows import Rows

ALPHA = 0.5
# In the corner, where no object is. Two models' boxes do not overlap.
CORNERS = {'a': (0, 0, 0.01, 0.01), 'b': (0.99, 0.99, 1, 1)}


@pytest.fixture
def in_process(monkeypatch):
    """Run commands in this process; returns the list of their arguments."""
    from pfdet.cli import ensemble, score
    from pfdet.openimages import split

    mains = {'ensemble': ensemble.main, 'score': score.main, 'split': split.main}
    run = []

    def run_python(*args, **_):
        args = [str(arg) for arg in args]
        run.append(args[2:])
        monkeypatch.setattr(sys, 'argv', args[2:])
        mains[args[2]]()

    for module in 'rows', 'merging', 'halves':
        monkeypatch.setattr(f'pfdet.training.tables.{module}.run_python', run_python)
    return run


@pytest.fixture
def rows(small_world, tmp_path):
    return Rows(
        tmp_path / 'out',
        small_world / 'train.index',
        small_world / 'validation.index',
        'mini',
        1,
    )


def model(directory, name, good):
    """A model that finds all objects in some images, and nothing in the others.

    Where it finds nothing, it reports every class in a corner.
    """
    path = directory / name
    path.mkdir(parents=True)
    (path / 'recipe.json').write_text(
        json.dumps({'recipe': recipes.to_dict(recipes.find('mini')), 'run': {}})
    )
    return Model(path), good


def write_outputs(path, index, name, good, found_score=0.8):
    """The outputs of a :func:`model`: objects at ``found_score``, corners at 0.6."""
    ids = [index.image_id(i) for i in range(len(index))]
    image, label, score, bbox = [], [], [], []
    for i, image_id in enumerate(ids):
        annotation = index.annotation(i)
        for box, classes in zip(annotation.bbox, annotation.label, strict=True):
            for c in np.flatnonzero(classes):
                image.append(i)
                label.append(c)
                score.append(found_score if image_id in good else 0.6)
                bbox.append(box if image_id in good else CORNERS[name])
    write_detections(
        path,
        Detections(
            ids,
            np.array(image, np.int32),
            np.array(label, np.int32),
            np.array(score, np.float32),
            np.array(bbox, np.float32),
        ),
        index.classes,
    )


def ap_on(index_path, detections_path):
    index = AnnotationIndex.open(index_path)
    detections = read_detections(detections_path, index.classes)
    return average_precision(detections, ground_truth_of_index(index), len(index.classes))['ap']


def two_models(rows, images):
    """Two models with outputs: one is good on the first half of the images, one on the second."""
    index = AnnotationIndex.open(images.index)
    first, second = split_in_halves(images.index, rows.out / 'halves' / 'validation-seed0', 0)
    models, outputs = [], []
    for name, half in (('a', first), ('b', second)):
        made, good = model(rows.out, name, image_ids(half))
        path = made.path / f'outputs-{images.name}.parquet'
        write_outputs(path, index, name, good)
        models.append(made)
        outputs.append(path)
    return models, outputs, (first, second)


def test_each_half_has_the_weights_of_the_other(rows, in_process, tmp_path):
    images = Images('validation', rows.val_index)
    models, outputs, (first, second) = two_models(rows, images)
    merger = Merger(rows, recipes.override(recipes.find('mini'), ['max_per_image=10000']))
    assert [merger.predict(m, images, suppress=False) for m in models] == outputs
    out = tmp_path / 'merged.parquet'
    merger.merge_weighted(models, outputs, images, None, 0, out)

    index = AnnotationIndex.open(rows.val_index)
    merged = read_detections(out, index.classes)
    assert merged.image_ids == sorted(index.image_id(i) for i in range(len(index)))
    n_weighted = 0
    # The first model finds the objects of the first half, the second one those of the second.
    for good, half, other in ((0, first, second), (1, second, first)):
        ap = [ap_on(other, path) for path in outputs]
        for i in np.flatnonzero([i in image_ids(half) for i in merged.image_ids]):
            for k in np.flatnonzero(merged.image == i):
                is_object = merged.bbox[k].tolist() not in [
                    pytest.approx(corner) for corner in CORNERS.values()
                ]
                by = good if is_object else 1 - good
                both = [ap_of_model[merged.label[k]] for ap_of_model in ap]
                weight = 1.0
                if not np.isnan(both).any() and both[0] != both[1] and both[by] == min(both):
                    weight, n_weighted = ALPHA, n_weighted + 1
                raw = 0.8 if is_object else 0.6
                assert merged.score[k] == pytest.approx(raw * weight, rel=1e-5)
    assert n_weighted >= 5


def test_weights_of_other_images_are_used_for_all(rows, in_process, small_world, tmp_path):
    images = Images('validation', rows.val_index)
    weights = Images('weights', small_world / 'train.index')
    models, outputs, _ = two_models(rows, images)
    train = AnnotationIndex.open(weights.index)
    everywhere = {train.image_id(i) for i in range(len(train))}
    for made, good in zip(models, (everywhere, set())):
        path = made.path / 'outputs-weights.parquet'
        write_outputs(path, train, made.path.name, good)
    merger = Merger(rows, recipes.find('mini'))
    out = tmp_path / 'merged.parquet'
    merger.merge_weighted(models, outputs, images, weights, 0, out)
    scored = [args for args in in_process if args[0] == 'score']
    assert {args[args.index('--index') + 1] for args in scored} == {str(weights.index)}
    merged = read_detections(out, AnnotationIndex.open(rows.val_index).classes)
    known = ~np.isnan(ap_on(weights.index, models[0].path / 'outputs-weights.parquet'))
    of_b = [b.tolist() == pytest.approx(CORNERS['b']) for b in merged.bbox]
    rows_of_b = np.flatnonzero(of_b & known[merged.label])
    assert len(rows_of_b) and merged.score[rows_of_b] == pytest.approx(0.6 * ALPHA)


@pytest.mark.parametrize('seed', [0, 1])
def test_halves_are_disjoint_and_have_all_images(seed, in_process, small_world, tmp_path):
    index = small_world / 'validation.index'
    first, second = split_in_halves(index, tmp_path / 'halves', seed)
    assert not image_ids(first) & image_ids(second)
    assert image_ids(first) | image_ids(second) == image_ids(index)
    assert abs(len(image_ids(first)) - len(image_ids(second))) <= 1
    in_process.clear()
    assert split_in_halves(index, tmp_path / 'halves', seed) == (first, second)
    assert in_process == []


def test_another_seed_makes_other_halves(in_process, small_world, tmp_path):
    index = small_world / 'train.index'
    halved = [image_ids(split_in_halves(index, tmp_path / f'{k}', k)[0]) for k in range(4)]
    assert len(set(map(frozenset, halved))) > 1


def test_joined_images_have_the_detections_of_their_file(small_world, tmp_path, monkeypatch):
    index = AnnotationIndex.open(small_world / 'validation.index')
    classes, rng = index.classes, np.random.default_rng(0)
    ids = [f'{k:02}' for k in range(20)]
    paths, sets = [], (set(ids[::3]), set(ids) - set(ids[::3]) - {ids[1]})
    monkeypatch.setattr(halves, '_ROWS_AT_ONCE', 7)
    for k in range(2):
        # Some images have no detections.
        image = np.sort(rng.choice([i for i in range(20) if i % 4], 60)).astype(np.int32)
        low = rng.random((60, 2)).astype(np.float32) / 2
        detections = Detections(
            ids,
            image,
            rng.integers(0, len(classes), 60).astype(np.int32),
            rng.random(60).astype(np.float32),
            np.concatenate([low, low + 0.2], axis=1),
        )
        paths.append(tmp_path / f'{k}.parquet')
        write_detections(paths[-1], detections, classes)
    out = tmp_path / 'joined.parquet'
    assert join_images(list(zip(paths, sets)), classes, out) == 19
    joined = read_detections(out, classes)
    assert joined.image_ids == sorted(sets[0] | sets[1])
    expected = {}
    for path, taken in zip(paths, sets):
        whole = read_detections(path, classes)
        for i, image_id in enumerate(whole.image_ids):
            if image_id in taken:
                expected[image_id] = [
                    (int(whole.label[k]), float(whole.score[k]), *whole.bbox[k].tolist())
                    for k in np.flatnonzero(whole.image == i)
                ]
    found = {
        image_id: [
            (int(joined.label[k]), float(joined.score[k]), *joined.bbox[k].tolist())
            for k in np.flatnonzero(joined.image == i)
        ]
        for i, image_id in enumerate(joined.image_ids)
    }
    assert found == expected and sum(map(len, found.values())) > 20


def test_files_of_different_predictions_have_different_names(rows, monkeypatch):
    made = []
    monkeypatch.setattr(Rows, 'predict', lambda self, m, out, score, *f, **k: made.append((out, f)))
    merger = Merger(rows, recipes.find('mini'))
    inside, outside = rows.out / 'a' / 'seed0', rows.out.parent / 'elsewhere' / 'seed0'
    for path in inside, outside:
        for flags in (), augmentation((64, 80), True), augmentation((64, 80), False):
            for images in (
                Images('validation', rows.val_index),
                Images('weights', rows.train_index),
            ):
                for suppress in False, True:
                    merger.predict(Model(path, flags), images, suppress)
    assert len({out for out, _ in made}) == len(made) == 24
    assert all(('--no-suppression' in f) == ('outputs' in out.name) for out, f in made)
    assert {out.is_relative_to(rows.out / 'given') for out, _ in made[12:]} == {True}
    assert not outside.exists()
    # The file that a row of a single training has
    assert inside / 'detections.parquet' in {out for out, _ in made}


def test_one_image_has_no_halves(rows, monkeypatch, tmp_path):
    monkeypatch.setattr(
        merging.split_in_halves.__globals__['AnnotationIndex'], 'open', lambda p: [0]
    )
    with pytest.raises(InputError, match='one.index: 1 images; expected 2 or more'):
        split_in_halves(tmp_path / 'one.index', tmp_path / 'halves', 0)


def test_inputs_of_a_directory_stay_the_same(tmp_path):
    one, other = tmp_path / 'one', tmp_path / 'other'
    one.write_text('1')
    other.write_text('2')
    out = tmp_path / 'out'
    check_inputs(out, {'--train-index': one})
    check_inputs(out, {'--train-index': one, '--val-index': other})
    check_inputs(out, {'--val-index': other})
    before = (out / 'inputs.json').read_text()
    for files, expected in (
        ({'--train-index': other}, rf'--train-index {other}: the runs in {out} used another file'),
        ({'--val-index': one}, rf'--val-index {one}: '),
        ({'--val-index': tmp_path / 'missing'}, r'--val-index .*missing: No such file'),
    ):
        with pytest.raises(InputError, match=expected):
            check_inputs(out, files)
    assert (out / 'inputs.json').read_text() == before


def test_weights_are_not_computed_on_scored_images(small_world):
    train, val = small_world / 'train.index', small_world / 'validation.index'
    check_disjoint(train, val)
    with pytest.raises(InputError, match=r'--weights-index .*: 8 of its images are scored too'):
        check_disjoint(val, Path(val))
