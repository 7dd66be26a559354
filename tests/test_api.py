"""pfdet.load and what it returns: the contract of ChainerCV's detectors."""

import subprocess
import sys

import pfdet.compat  # noqa: F401

import chainercv
import numpy as np
import PIL.Image
import pytest

import pfdet
from pfdet import recipes
from pfdet.errors import InputError
from pfdet.inference.predict import PredictSettings, predict
from pfdet.openimages.classes import Classes
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.images import read_image
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, checkpoints, model_directory

N_CLASS = 3


class ColourDetector:
    """Finds the bounding box of each of three colours, as a network would return it."""

    xp = np

    def __init__(self):
        self.sizes = []

    def padded_size(self, size):
        return tuple(-(-int(n) // 32) * 32 for n in size)

    def predict(self, imgs, score_thresh=0.0):
        return [self.outputs(img) for img in imgs]

    def outputs(self, img):
        assert img.dtype == np.uint8
        self.sizes.append(img.shape[1:])
        bbox, score = [], []
        for label in range(N_CLASS):
            colour = np.full(3, 0) + 255 * (np.arange(3) == label)
            y, x = np.nonzero(abs(img.transpose(1, 2, 0).astype(int) - colour).max(axis=2) < 99)
            if len(y):
                box = np.array([y.min(), x.min(), y.max() + 1, x.max() + 1], np.float32)
                bbox.append(box / np.tile(img.shape[1:], 2))
                score.append(np.where(np.arange(N_CLASS) == label, 0.5 + label / 10, 0.001))
        return (
            np.array(bbox, np.float32).reshape(-1, 1, 4),
            np.array(score, np.float32).reshape(-1, N_CLASS),
        )


def colour_model(**settings):
    settings = {'sizes': (64,), 'max_size': 200, 'batch_size': 2, **settings}
    classes = Classes(('/m/r', '/m/g', '/m/b'), ('Red', 'Green', 'Blue'))
    return pfdet.Detector(ColourDetector(), classes, PredictSettings(**settings))


def painted(height, width, *boxes, dtype=np.uint8):
    """A grey image with a rectangle of colour ``label`` for each ``(label, box)``."""
    img = np.full((3, height, width), 128, dtype)
    for label, (y_min, x_min, y_max, x_max) in boxes:
        img[:, y_min:y_max, x_min:x_max] = (255 * (np.arange(3) == label))[:, None, None]
    return img


SCENES = [
    (64, 96, (1, (8, 16, 40, 48))),
    (128, 64, (0, (16, 8, 64, 32)), (2, (80, 32, 112, 56))),
    (300, 400),
    (64, 96, (2, (0, 0, 64, 96))),
    (40, 640, (0, (8, 160, 32, 320))),
]


@pytest.mark.parametrize('dtype', [np.uint8, np.float32, np.float64, np.int64])
def test_images_of_any_size_and_type_in_one_call(dtype):
    model = colour_model()
    imgs = [painted(*scene, dtype=dtype) for scene in SCENES]
    bboxes, labels, scores = model.predict(iter(imgs))
    assert len(bboxes) == len(labels) == len(scores) == len(SCENES)
    for (height, width, *boxes), bbox, label, score in zip(SCENES, bboxes, labels, scores):
        assert (bbox.dtype, label.dtype, score.dtype) == (np.float32, np.int32, np.float32)
        assert bbox.shape == (len(boxes), 4) and label.shape == score.shape == (len(boxes),)
        # By descending score, here the label
        boxes = sorted(boxes, key=lambda box: -box[0])
        assert label.tolist() == [box[0] for box in boxes]
        np.testing.assert_allclose(score, [0.5 + box[0] / 10 for box in boxes], rtol=1e-6)
        # Up to a pixel of the network's input
        pixel = max(1, min(height, width) / 64, max(height, width) / 200)
        for found, (_, expected) in zip(bbox, boxes):
            assert abs(found - expected).max() <= 1.5 * pixel
        assert (bbox[:, 2:] <= (height, width)).all()


def test_no_images():
    assert colour_model().predict([]) == ([], [], [])


def test_the_detections_of_an_image_do_not_depend_on_the_others():
    model = colour_model()
    imgs = [painted(*scene) for scene in SCENES]
    together = model.predict(imgs)
    alone = [model.predict([img]) for img in imgs]
    for part in range(3):
        for k in range(len(imgs)):
            np.testing.assert_array_equal(together[part][k], alone[k][part][0])


def test_settings_are_replaced_and_checked():
    model = colour_model(score_thresh=0.01)
    img = painted(*SCENES[1])
    assert [len(score) for score in model.predict([img])[2]] == [2]
    assert model.use(score_thresh=0.6) is model
    assert [score.tolist() for score in model.predict([img])[2]] == [[pytest.approx(0.7)]]
    model.use(score_thresh=0.8, sizes=(32, 64))
    assert model.predict([img])[0][0].shape == (0, 4)
    assert model.network.sizes[-2:] == [(64, 32), (128, 64)]
    with pytest.raises(InputError, match='score_threshold: no such setting.*score_thresh'):
        model.use(score_threshold=0.3)


@pytest.mark.parametrize(
    'img, message',
    [
        (np.zeros((4, 5), np.uint8), r'image 1 has shape \(4, 5\)'),
        (np.zeros((4, 5, 3), np.uint8), r'image 1 has shape \(4, 5, 3\)'),
        (np.zeros((1, 4, 5), np.uint8), r'image 1 has shape \(1, 4, 5\)'),
        (np.zeros((3, 0, 5), np.uint8), r'image 1 has shape \(3, 0, 5\)'),
        (np.zeros((3, 4, 5), bool), 'image 1 has dtype bool'),
        (np.full((3, 4, 5), 'a'), 'image 1 has dtype <U1'),
        (np.full((3, 4, 5), np.nan), 'image 1 has values from nan'),
        (np.full((3, 4, 5), -128.0), 'image 1 has values from -128 to -128'),
        (np.full((3, 4, 5), 65535), 'image 1 has values from 65535 to 65535'),
        (np.full((3, 4, 5), 0.5), 'image 1 has values from 0.5 to 0.5 only'),
    ],
)
def test_what_is_not_an_image_is_one_line(img, message):
    good = np.zeros((3, 8, 8), np.float32)
    with pytest.raises(InputError, match=f'^{message}.*expected RGB of shape'):
        colour_model().predict([good, img])


def test_values_that_resizing_gives_are_taken():
    img = painted(*SCENES[0], dtype=np.float32)
    expected = colour_model().predict([img])
    found = colour_model().predict([img * 1.001 - 0.1 + 0.2 * (img == 255)])
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a[0], b[0])


def test_chainercv_takes_what_comes_out():
    model = colour_model()
    imgs = [painted(*scene) for scene in SCENES]
    bboxes, labels, scores = model.predict(imgs)
    truth = [np.array([b for _, b in scene[2:]], np.float32).reshape(-1, 4) for scene in SCENES]
    classes = [np.array([k for k, _ in scene[2:]], np.int32) for scene in SCENES]
    result = chainercv.evaluations.eval_detection_voc(bboxes, labels, scores, truth, classes)
    assert result['map'] == 1
    chainercv.utils.assert_is_bbox(bboxes[1], imgs[1].shape[1:])
    import matplotlib

    with matplotlib.rc_context({'backend': 'agg'}):
        ax = chainercv.visualizations.vis_bbox(
            imgs[1], bboxes[1], labels[1], scores[1], label_names=model.label_names
        )
    assert {text.get_text() for text in ax.texts} == {'Blue: 0.70', 'Red: 0.50'}


@pytest.fixture(scope='module')
def run(small_world, tmp_path_factory):
    """The directory of an untrained model."""
    out = tmp_path_factory.mktemp('run')
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(recipes.find('mini', 'mini'), ['batch_size=2'])
    model_directory.write_recipe(out, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(out, build.detector(recipe, len(index.classes)))
    return out


def test_a_run_detects_what_predict_detects_in_its_files(small_world, run):
    index = AnnotationIndex.open(small_world / 'validation.index')
    model = pfdet.load(run)
    assert model.label_names == index.classes.names and model.mids == index.classes.mids
    imgs = [pfdet.read_image(index.image_path(i)) for i in range(3)]
    np.testing.assert_array_equal(imgs[0], read_image(index.image_path(0)))
    expected = predict(model.network, OpenImagesDataset(index), range(3), model.settings)
    assert len(expected)
    for kind in np.uint8, np.float32:
        bboxes, labels, scores = model.predict([img.astype(kind) for img in imgs])
        np.testing.assert_array_equal(np.concatenate(scores), expected.score)
        np.testing.assert_array_equal(np.concatenate(labels), expected.label)
        sizes = np.array([index.image_size(i) * 2 for i in range(3)], np.float32)
        np.testing.assert_allclose(
            np.concatenate(bboxes), expected.bbox * sizes[expected.image], atol=1e-3
        )


def snapshot(run, iteration, network):
    state = {
        f'updater/model:main/detector{name}': param.array for name, param in network.namedparams()
    }
    for name, array in np.load(run / 'model.npz').items():
        state.setdefault(f'updater/model:main/detector/{name}', array)
    checkpoints.write(run / 'snapshots' / f'iter_{iteration:08d}.npz', state, {})


def test_before_the_end_the_newest_undamaged_snapshot_is_taken(run, tmp_path, capsys):
    (tmp_path / 'recipe.json').write_bytes((run / 'recipe.json').read_bytes())
    with pytest.raises(InputError, match=r'model\.npz: missing, and the run has no snapshot'):
        pfdet.load(tmp_path)
    (tmp_path / 'model.npz').write_bytes((run / 'model.npz').read_bytes())
    network = pfdet.load(tmp_path).network
    for iteration in 5, 10, 15:
        network.head.conf.b.array[...] = iteration
        snapshot(tmp_path, iteration, network)
    snapshots = tmp_path / 'snapshots'
    assert capsys.readouterr().err == ''

    assert pfdet.load(tmp_path).network.head.conf.b.array[0] != 15
    given = pfdet.load(tmp_path, weights=snapshots / 'iter_00000005.npz')
    assert (given.network.head.conf.b.array == 5).all()
    assert capsys.readouterr().err == ''

    (tmp_path / 'model.npz').unlink()
    assert (pfdet.load(tmp_path).network.head.conf.b.array == 15).all()
    assert 'has no model.npz, since its training has not ended' in capsys.readouterr().err

    newest = snapshots / 'iter_00000015.npz'
    newest.write_bytes(newest.read_bytes()[:5000])
    assert (pfdet.load(tmp_path).network.head.conf.b.array == 10).all()
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 2 and 'damaged snapshot' in printed[0]
    assert printed[1].endswith('iter_00000010.npz')

    for path in snapshots.iterdir():
        path.write_bytes(b'damaged')
    with pytest.raises(InputError, match=r'all snapshots of the run are damaged \(3\)'):
        pfdet.load(tmp_path)


def test_photographs_are_read_upright(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    PIL.Image.new('RGB', (20, 10)).save(tmp_path / 'a.jpg', exif=exif)
    assert pfdet.read_image(tmp_path / 'a.jpg').shape == (3, 20, 10)
    assert pfdet.read_image(tmp_path / 'a.jpg', exif=False).shape == (3, 10, 20)


def test_importing_the_package_stays_light():
    program = (
        'import sys, pfdet; '
        "assert {'load', 'Detector', 'read_image'} <= set(dir(pfdet)); "
        "print([name for name in ('chainer', 'numpy', 'pfdet.api') if name in sys.modules]); "
        'from pfdet import load; '
        "print(load.__module__, 'chainer' in sys.modules, hasattr(pfdet, 'lode'))"
    )
    done = subprocess.run([sys.executable, '-c', program], capture_output=True, text=True)
    assert done.stderr == ''
    assert done.stdout.splitlines()[1] == 'pfdet.api True False'
    assert "'chainer'" not in done.stdout.splitlines()[0]
    assert "'pfdet.api'" not in done.stdout.splitlines()[0]
