"""Prediction with a stub detector: augmentation, suppression, parts, ranks, interruption."""

import contextlib
import dataclasses
import io
import json
import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pfdet.compat  # noqa: F401

import numpy as np
import pyarrow.parquet as pq
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from stub_detector import StubDetector, draw  # noqa: E402

from pfdet import recipes  # noqa: E402
from pfdet.boxes.nmw import non_maximum_weighted  # noqa: E402
from pfdet.errors import InputError  # noqa: E402
from pfdet.evaluation.detections import read_detections  # noqa: E402
from pfdet.inference import resumable  # noqa: E402
from pfdet.inference.augmentation import augmented_outputs, flip_bbox  # noqa: E402
from pfdet.inference.predict import PredictSettings, equal_shape_batches, predict  # noqa: E402
from pfdet.inference.resumable import plan_parts, predict_to_file  # noqa: E402
from pfdet.openimages.corrupt_images import CorruptImages  # noqa: E402
from pfdet.openimages.dataset import OpenImagesDataset  # noqa: E402
from pfdet.openimages.index import AnnotationIndex  # noqa: E402
from pfdet.training import model_directory  # noqa: E402

SINGLE_RANK = SimpleNamespace(
    rank=0,
    size=1,
    mpi_comm=SimpleNamespace(bcast=lambda x: x, allgather=lambda x: [x], Barrier=lambda: None),
)
SETTINGS = PredictSettings((64,), 200, score_thresh=0.1, batch_size=3)


@pytest.fixture(scope='module')
def drawn(tmp_path_factory):
    """The data set, the path of its index, and the drawn boxes by image id."""
    directory = tmp_path_factory.mktemp('drawn')
    with contextlib.redirect_stdout(io.StringIO()):
        boxes = draw(directory)
    index = AnnotationIndex.open(directory / 'drawn.index')
    return OpenImagesDataset(index), index.path, boxes


@pytest.fixture(autouse=True)
def small_windows(monkeypatch):
    monkeypatch.setattr(resumable, 'plan_parts', partial(plan_parts, window=15))


def run(drawn, out, detector=None, settings=SETTINGS, about='model', **options):
    dataset = drawn[0]
    return predict_to_file(
        detector or StubDetector(),
        dataset,
        out,
        dataset.index.classes,
        settings,
        {'about': about},
        SINGLE_RANK,
        **options,
    )


def rows_of(detections, image_id):
    return np.flatnonzero(detections.image == list(detections.image_ids).index(image_id))


@pytest.mark.parametrize(
    'settings',
    [
        SETTINGS,
        dataclasses.replace(SETTINGS, flip=True),
        dataclasses.replace(SETTINGS, sizes=(64, 128), max_size=400, suppression='nms', flip=True),
    ],
)
def test_finds_all_rectangles(drawn, settings):
    """Boxes of all sizes and flips coincide, so that one box per object remains."""
    dataset, _, boxes = drawn
    found = predict(StubDetector(), dataset, range(len(dataset)), settings)
    assert list(found.image_ids) == sorted(boxes)
    for image_id, expected in boxes.items():
        rows = rows_of(found, image_id)
        assert {
            int(k): tuple(map(float, b)) for k, b in zip(found.label[rows], found.bbox[rows])
        } == expected
        assert len(rows) == len(expected)
        # The score of the stub is highest at the largest size.
        height, width = dataset.get_size(dataset.index.find(image_id))
        height *= max(settings.sizes) / min(height, width)
        np.testing.assert_allclose(
            found.score[rows], 0.9 - found.label[rows] / 10 - 1 / height, atol=1e-6
        )


def test_flip_bbox():
    bbox = np.array([[[0, 0.25, 0.5, 1]], [[0.125, 0, 1, 0.0625]]], np.float32)
    np.testing.assert_array_equal(flip_bbox(bbox), [[[0, 0, 0.5, 0.75]], [[0.125, 0.9375, 1, 1]]])
    np.testing.assert_array_equal(flip_bbox(flip_bbox(bbox)), bbox)
    rng = np.random.default_rng(0)
    bbox = rng.random((1000, 4), np.float32)
    np.testing.assert_allclose(flip_bbox(flip_bbox(bbox)), bbox, atol=2**-24, rtol=0)


def test_outputs_are_concatenated_and_suppressed_once(drawn):
    """Boxes that differ between sizes and flips are merged over all of them."""
    dataset = drawn[0]

    class NoisyDetector(StubDetector):
        def outputs(self, img):
            rng = np.random.default_rng(int(img[:, :8].sum()) + img.shape[1])
            corner = rng.random((6, 1, 2)) * 0.1 + rng.integers(0, 2, (6, 1, 1)) * 0.5
            return (
                np.concatenate([corner, corner + 0.3], axis=2).astype(np.float32),
                rng.random((6, 3), np.float32),
            )

    settings = PredictSettings((64, 96), 200, True, 0.4, suppression_iou=0.4, max_per_image=7)
    found = predict(NoisyDetector(), dataset, [5, 3], settings)
    assert list(found.image_ids) == ['005', '003']
    for k, i in enumerate((5, 3)):
        bbox, score = [], []
        for size in settings.sizes:
            img = dataset.get_resized(i, size, 200).transpose(2, 0, 1)
            bbox.append(NoisyDetector().outputs(img)[0])
            score.append(NoisyDetector().outputs(img)[1])
            b, s = NoisyDetector().outputs(img[:, :, ::-1])
            bbox.append(np.stack([b[..., 0], 1 - b[..., 3], b[..., 2], 1 - b[..., 1]], axis=2))
            score.append(s)
        bbox, score = np.concatenate(bbox)[:, 0], np.concatenate(score)
        row, label = np.nonzero(score >= 0.4)
        expected = non_maximum_weighted(bbox[row], score[row, label], label, 0.4)
        assert len(expected[1]) > 7
        rows = found.image == k
        np.testing.assert_allclose(found.bbox[rows], expected[0][:7], atol=1e-6)
        np.testing.assert_array_equal(found.score[rows], expected[1][:7])
        np.testing.assert_array_equal(found.label[rows], expected[2][:7])
        unsuppressed = dataclasses.replace(settings, suppression='none', max_per_image=None)
        raw = predict(NoisyDetector(), dataset, [i], unsuppressed)
        assert len(raw) == len(row) and (np.diff(raw.score) <= 0).all()
        np.testing.assert_array_equal(np.sort(raw.score), np.sort(score[row, label]))


def test_images_of_a_batch_have_the_same_padded_shape(drawn):
    dataset = drawn[0]
    detector = StubDetector()
    predict(detector, dataset, range(len(dataset)), SETTINGS)
    # The stub asserts equal shapes. With four shapes, few batches are not full.
    assert sum(len(batch) < 3 for batch in detector.batches) <= 4
    assert sum(map(len, detector.batches)) == len(dataset)
    assert [len(b) for b in equal_shape_batches(np.zeros((0, 2), np.int64), 4)] == []


def test_sizes_that_the_limit_makes_equal_are_used_once(drawn):
    detector = StubDetector()
    settings = dataclasses.replace(
        SETTINGS, sizes=(64, 500, 600, 64), max_size=100, suppression='none', flip=False
    )
    raw = predict(detector, drawn[0], [3], settings)
    heights = [min(shape) for batch in detector.batches for shape in batch]
    # 64, and one length for both of 500 and 600
    assert len(heights) == 2 and heights[0] == 64
    # The stub's scores depend on the image's size, so outputs that count twice would be equal.
    assert len(raw) == len(set(zip(raw.label.tolist(), raw.score.tolist(), strict=True))) >= 1


def test_fields_of_a_recipe_reach_the_prediction():
    recipe = recipes.override(
        recipes.find('mini'),
        [
            'test_sizes=(64, 96)',
            'max_size=222',
            'test_flip=True',
            'score_thresh=0.25',
            'suppression=nms',
            'suppression_iou=0.35',
            'max_per_image=17',
            'batch_size=3',
        ],
    )
    assert model_directory.predict_settings(recipe) == PredictSettings(
        (64, 96), 222, True, 0.25, 'nms', 0.35, 17, 3
    )


def test_augmented_outputs_without_images():
    assert augmented_outputs(StubDetector(), [], True) == []


def test_parts_have_each_image_once():
    shapes = np.random.default_rng(0).integers(1, 4, (5000, 2)) * 32
    parts = plan_parts(shapes, 4, window=1000)
    images = np.concatenate([part.images for part in parts])
    assert sorted(images) == list(range(5000))
    last = {part.window: k for k, part in enumerate(parts)}
    for k, part in enumerate(parts):
        assert set(part.images // 1000) == {part.window}
        assert 8 <= len(part.images) <= 11 or k == last[part.window]
        for batch in part.batches:
            assert len(batch) <= 4 and len(np.unique(shapes[batch], axis=0)) == 1
    # A large data set has enough parts to balance the load of many ranks.
    assert len(plan_parts(np.full((41_620, 2), 32), 1)) >= 4000


def test_file_equals_the_result_of_predict(drawn, tmp_path):
    dataset = drawn[0]
    for name in 'd.parquet', 'd.csv':
        done = run(drawn, tmp_path / name)
        found = read_detections(tmp_path / name, dataset.index.classes)
        expected = predict(StubDetector(), dataset, range(len(dataset)), SETTINGS)
        assert done['detections'] == len(found) > 20 and done['images'] == 40
        assert list(found.image_ids) == list(expected.image_ids)
        for column in 'image', 'label', 'score', 'bbox':
            np.testing.assert_array_equal(getattr(found, column), getattr(expected, column))
        assert (np.diff(found.image) >= 0).all()
    assert sorted(p.name for p in tmp_path.iterdir()) == ['d.csv', 'd.parquet']
    empty = pq.read_metadata(tmp_path / 'd.parquet').metadata[b'images_without_detections']
    assert json.loads(empty) == [i for i, boxes in sorted(drawn[2].items()) if not boxes]


PROGRAM = """
import sys
from functools import partial
from pathlib import Path
import pfdet.compat
sys.path.insert(0, 'tests/inference')
from stub_detector import StubDetector
from pfdet.inference import resumable
from pfdet.inference.predict import PredictSettings
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
import chainermn

index, out, kill_at = sys.argv[1:]
dataset = OpenImagesDataset(AnnotationIndex.open(index))
comm = chainermn.create_communicator('naive')
resumable.plan_parts = partial(resumable.plan_parts, window=15)
kill_at = int(kill_at) if comm.rank == comm.size - 1 and int(kill_at) >= 0 else None
resumable.predict_to_file(
    StubDetector(kill_at), dataset, Path(out), dataset.index.classes,
    PredictSettings((64,), 200, score_thresh=.1, batch_size=3), {'about': 'model'}, comm)
"""


def test_killed_on_two_ranks_and_resumed_on_one(drawn, tmp_path, mpiexec, monkeypatch):
    """After SIGKILL, finished parts are reused and the file equals that of an uninterrupted run."""
    run(drawn, tmp_path / 'whole.parquet')
    out = tmp_path / 'd.parquet'
    killed = mpiexec(2, PROGRAM, drawn[1], out, 4, check=False)
    assert killed.returncode != 0 and not out.exists()
    # Not the unfinished files of the rank that was killed while it wrote.
    left = [int(path.stem) for path in (tmp_path / 'd.parquet.parts').glob('[0-9]*.part')]
    assert left
    planned, plan = [], resumable.plan_parts
    monkeypatch.setattr(
        resumable,
        'plan_parts',
        lambda *args, **options: planned.extend(plan(*args, **options)) or planned,
    )
    detector = StubDetector()
    done = run(drawn, out, detector)
    assert done['resumed'] == sum(len(planned[k].images) for k in left) < 40
    assert sum(map(len, detector.batches)) == 40 - done['resumed']
    assert out.read_bytes() == (tmp_path / 'whole.parquet').read_bytes()
    assert not (tmp_path / 'd.parquet.parts').exists()


def test_file_does_not_depend_on_the_number_of_ranks(drawn, tmp_path, mpiexec):
    run(drawn, tmp_path / 'one.parquet')
    mpiexec(3, PROGRAM, drawn[1], tmp_path / 'three.parquet', -1)
    assert (tmp_path / 'three.parquet').read_bytes() == (tmp_path / 'one.parquet').read_bytes()


@pytest.fixture
def interrupted(drawn, tmp_path):
    """A killed run on one rank: the path of its output, and the directory of its parts."""
    out = tmp_path / 'd.parquet'
    killed = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(drawn[1]), str(out), '7'],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
        timeout=600,
        env={**os.environ, 'PYTHONPATH': str(Path(__file__).parents[2])},
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = tmp_path / 'd.parquet.parts'
    assert len(list(parts.glob('*.part'))) >= 2
    return out, parts


def test_parts_of_other_settings_are_not_reused(drawn, interrupted):
    out, parts = interrupted
    before = sorted(p.read_bytes() for p in parts.iterdir())
    for options, message in (
        ({'about': 'another'}, 'about was model, now another'),
        (
            {'settings': dataclasses.replace(SETTINGS, flip=True)},
            'settings.flip was False, now True',
        ),
        ({'settings': dataclasses.replace(SETTINGS, sizes=(64, 96))}, r'\[64\], now \[64, 96'),
    ):
        with pytest.raises(InputError, match='another prediction .*' + message + '.*--restart'):
            run(drawn, out, **options)
    assert sorted(p.read_bytes() for p in parts.iterdir()) == before and not out.exists()
    done = run(drawn, out, about='another', restart=True)
    assert done['resumed'] == 0 and out.exists() and not parts.exists()


def test_parts_of_another_index_are_not_reused(drawn, interrupted, tmp_path):
    with contextlib.redirect_stdout(io.StringIO()):
        draw(tmp_path / 'other', n=41)
    other = OpenImagesDataset(AnnotationIndex.open(tmp_path / 'other' / 'drawn.index'))
    with pytest.raises(InputError, match='another prediction .*images was'):
        run((other,), interrupted[0])


def test_damaged_parts_are_predicted_again(drawn, interrupted, tmp_path):
    out, parts = interrupted
    first, second, *_ = sorted(parts.glob('*.part'))
    first.write_bytes(first.read_bytes()[:-64])
    damaged = bytearray(second.read_bytes())
    damaged[-60] ^= 1
    second.write_bytes(damaged)
    run(drawn, out)
    run(drawn, tmp_path / 'whole.parquet')
    assert out.read_bytes() == (tmp_path / 'whole.parquet').read_bytes()


def test_images_skipped_before_the_interruption_are_counted(tmp_path):
    with contextlib.redirect_stdout(io.StringIO()):
        draw(tmp_path / 'drawn')
    dataset = OpenImagesDataset(AnnotationIndex.open(tmp_path / 'drawn' / 'drawn.index'))
    paths = [dataset.index.image_path(i) for i in (1, 17, 30)]
    whole = [path.read_bytes() for path in paths]
    for path in paths:
        path.write_bytes(b'')

    class InterruptedDetector(StubDetector):
        def predict(self, imgs, score_thresh=0.0):
            if len(self.batches) == 14:
                raise KeyboardInterrupt
            return super().predict(imgs, score_thresh)

    out = tmp_path / 'd.parquet'
    with pytest.raises(KeyboardInterrupt):
        run((dataset,), out, InterruptedDetector(), corrupt=CorruptImages(0.5))
    done = run((dataset,), out, corrupt=CorruptImages(0.5))
    assert done['resumed'] and done['corrupt'].n_corrupt == 3 and done['corrupt'].n_image == 40
    assert '001.png' in str(done['corrupt']) and '030.png' in str(done['corrupt'])
    found = read_detections(out, dataset.index.classes)
    assert len(found.image_ids) == 40 and not {1, 17, 30} & set(found.image)

    # If corrupt images are not allowed, parts with skipped images are predicted again. Here the
    # images have been repaired.
    with pytest.raises(KeyboardInterrupt):
        run((dataset,), out, InterruptedDetector(), corrupt=CorruptImages(0.5))
    for path, content in zip(paths, whole):
        path.write_bytes(content)
    run((dataset,), out)
    run((dataset,), tmp_path / 'whole.parquet')
    assert out.read_bytes() == (tmp_path / 'whole.parquet').read_bytes()


def test_output_directory_cannot_be_created(drawn, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='d.parquet: cannot be written: .*file is not a directory'):
        run(drawn, tmp_path / 'file' / 'd.parquet')
