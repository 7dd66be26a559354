"""Values that are not finite end training and prediction with one line that names them."""

import json
import re
import warnings

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.cli import predict as predict_command
from pfdet.errors import InputError
from pfdet.functions import finite
from pfdet.inference import augmentation
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import find, override
from pfdet.training.communicators import create_communicator
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train
from pfdet.training.train_chain import TrainChain
from pfdet.training.updater import Updater

SETTINGS = [
    'min_size=(64,64)',
    'n_anchor=32',
    'n_roi=16',
    'batch_size=2',
    'epochs=1',
]
BAD_ITERATION = 2


@pytest.fixture(scope='module')
def comm():
    return create_communicator('naive')


def run(world, out, comm, *settings, **options):
    recipe = override(find('mini', None), [*SETTINGS, *settings])
    index = AnnotationIndex.open(world / 'train.index')
    options = {'iterations': 4, 'random_weights': True, 'log_interval': 1, **options}
    return train(recipe, index, out, comm, RunOptions(**options))


def parameter(chain, name):
    return dict(chain.namedparams())[f'/detector/{name}']


def break_weight(monkeypatch, name, value=np.nan):
    """Set a number of a weight before an iteration."""
    update = Updater.update_core

    def broken(self):
        if self.iteration + 1 == BAD_ITERATION:
            parameter(self.get_optimizer('main').target, name).array.ravel()[0] = value
        update(self)

    monkeypatch.setattr(Updater, 'update_core', broken)


def break_gradient(monkeypatch, name, value=np.nan):
    """Set a number of the gradient of a weight, and of one that is computed from it."""
    from chainer.optimizers import CorrectedMomentumSGD

    update = CorrectedMomentumSGD.update

    def broken(self, *args, **kwargs):
        if self.t + 1 == BAD_ITERATION:
            for broken_name in name, 'extractor/base/conv1/conv/W':
                parameter(self.target, broken_name).grad.ravel()[0] = value
        update(self, *args, **kwargs)

    monkeypatch.setattr(CorrectedMomentumSGD, 'update', broken)


def break_loss(monkeypatch, name, value=np.nan):
    """Set the loss."""
    forward = TrainChain.forward
    calls = []

    def broken(self, batch):
        calls.append(batch)
        loss = forward(self, batch)
        if len(calls) == BAD_ITERATION:
            loss.array[...] = value
        return loss

    monkeypatch.setattr(TrainChain, 'forward', broken)


PROPOSALS = 'the proposals of rank 0 are not finite'
CASES = {
    'objectness': (break_weight, 'rpn/conf/W', np.nan, PROPOSALS),
    'offsets': (break_weight, 'rpn/loc/b', np.nan, PROPOSALS),
    'infinite offsets': (break_weight, 'rpn/loc/b', np.inf, PROPOSALS),
    'hidden layer of the RPN': (break_weight, 'rpn/conv/W', np.nan, PROPOSALS),
    'backbone': (break_weight, 'extractor/base/conv1/conv/W', np.nan, PROPOSALS),
    'head': (break_weight, 'head/conf/W', np.nan, r'the loss is nan of rank 0 \(loss\), nan'),
    'boxes of the head': (break_weight, 'head/loc/W', np.nan, r'nan of rank 0 \(loss/head_loc\)'),
    'loss': (break_loss, None, np.nan, r'the loss is nan of rank 0 \(loss\)'),
    'infinite loss': (break_loss, None, np.inf, r'the loss is inf of rank 0 \(loss\)'),
    'gradient': (
        break_gradient,
        'head/conf/W',
        np.nan,
        'the gradients of detector/head/conf/W and of 1 more parameters are not finite, although',
    ),
    'infinite gradient': (
        break_gradient,
        'rpn/conf/b',
        -np.inf,
        'the gradients of detector/rpn/conf/b and of 1 more parameters are not finite, although',
    ),
}


@pytest.mark.faults('values that are not finite')
@pytest.mark.parametrize('case, accumulate', [*((case, 1) for case in CASES), ('objectness', 2)])
def test_what_is_not_finite_is_named(case, accumulate, small_world, tmp_path, comm, monkeypatch):
    break_, name, value, words = CASES[case]
    break_(monkeypatch, name, value)
    with pytest.raises(InputError, match=words) as caught:
        with warnings.catch_warnings():
            warnings.simplefilter('error', RuntimeWarning)
            run(small_world, tmp_path, comm, accumulate=accumulate)
    assert f'iteration {BAD_ITERATION}: ' in str(caught.value)
    bad = json.loads((tmp_path / 'bad_batch.json').read_text())
    [part] = bad['ranks']
    assert bad['iteration'] == BAD_ITERATION and part['rank'] == 0
    start = 2 * accumulate * (BAD_ITERATION - 1)
    assert part['positions'] == list(range(start, start + 2 * accumulate))
    assert part['proposals_are_finite'] == (PROPOSALS not in words)
    assert not any('finite' in name for name in part['losses'])
    # Only what was finite is in the log.
    log = json.loads((tmp_path / 'log').read_text())
    assert [entry['iteration'] for entry in log] == [1]
    assert not any('finite' in name for name in log[0])


def test_diverging_training_is_named_at_every_rate(small_world, tmp_path, comm):
    """The mean of whatever overflows first; no other exception, no warning."""
    for rate in 10, 30, 100:
        with pytest.raises(InputError, match='not finite|the loss is') as caught:
            with warnings.catch_warnings():
                warnings.simplefilter('error', RuntimeWarning)
                run(
                    small_world,
                    tmp_path / str(rate),
                    comm,
                    f'base_lr={rate}',
                    'lr_batch_size=2',
                    'warmup_epochs=0',
                    'epochs=3',
                    iterations=36,
                )
        assert re.match(r'iteration \d+: ', str(caught.value))


def test_large_finite_gradients_are_no_error(small_world, tmp_path, comm, monkeypatch):
    """Their sum of squares overflows."""
    break_gradient(monkeypatch, 'head/conf/W', 1e20)
    assert run(small_world, tmp_path, comm, iterations=BAD_ITERATION)
    assert (tmp_path / 'model.npz').exists() and not (tmp_path / 'bad_batch.json').exists()


@pytest.mark.parametrize('value', [np.nan, np.inf, -np.inf, None])
@pytest.mark.parametrize('dtype', [np.float32, np.float64])
def test_reductions(value, dtype):
    arrays = [np.arange(6, dtype=dtype).reshape(2, 3), np.ones(5, dtype)]
    if value is not None:
        arrays[1][3] = value
    for result in finite.nan_unless_finite(*arrays), finite.nan_unless_squares_finite(arrays):
        assert result.shape == () and result.dtype == np.float32
        assert np.isnan(result) if value is not None else result == 0
    assert finite.nan_unless_squares_finite([]) == 0
    assert finite.nan_unless_finite(np.full(3, 1e30, 'f')) == 0


@pytest.fixture(scope='module')
def model(small_world, tmp_path_factory, comm):
    out = tmp_path_factory.mktemp('model') / 'run'
    run(small_world, out, comm, iterations=1)
    return out


@pytest.mark.faults('values that are not finite')
@pytest.mark.parametrize(
    'name, value, words',
    [
        ('rpn/conf/W', np.nan, 'proposals'),
        ('rpn/loc/W', np.nan, 'proposals'),
        ('extractor/base/conv1/conv/W', np.inf, 'proposals'),
        ('head/conf/b', np.nan, 'scores'),
        ('head/loc/b', np.nan, 'boxes'),
    ],
)
def test_prediction_names_the_image(name, value, words, small_world, model, tmp_path, monkeypatch):
    from pfdet.training import model_directory

    read = model_directory.read

    def broken(*args, **kwargs):
        found = read(*args, **kwargs)
        dict(found.network.namedparams())[f'/{name}'].array.ravel()[0] = value
        return found

    monkeypatch.setattr(model_directory, 'read', broken)
    out = tmp_path / 'detections.parquet'
    index = small_world / 'validation.index'
    monkeypatch.setattr(
        'sys.argv',
        ['predict', '--model', str(model), '--index', str(index), '--out', str(out)],
    )
    with pytest.raises(InputError, match=f'the {words} that the network computes') as caught:
        predict_command.main()
    image_id = re.match(r'image (\w+): ', str(caught.value))[1]
    opened = AnnotationIndex.open(index)
    assert image_id in [opened.image_id(i) for i in range(len(opened))]
    assert not out.exists()


def test_the_image_with_the_bad_output_is_named():
    """Also where a size of some images is left out, and for the flipped images."""

    class Detector:
        def predict(self, batch, score_thresh):
            return [(np.zeros((1, 1, 4)), np.full((1, 2), img.flat[0])) for img in batch]

    good, bad = np.ones((3, 1, 2)), np.full((3, 1, 2), np.nan)
    flipped = good.copy()
    flipped[0, 0, 1] = np.nan
    for imgs, flip, image in (
        ([[good], [bad]], False, 1),
        ([[good, None], [good, None], [good, bad]], False, 2),
        ([[good], [flipped]], True, 1),
    ):
        with pytest.raises(augmentation.NotFiniteError) as caught:
            augmentation.augmented_outputs(Detector(), imgs, flip)
        assert caught.value.image == image and caught.value.what == 'scores'
