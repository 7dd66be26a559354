import json
import subprocess
import sys

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest
from chainercv.links.model.resnet import ResNet50 as ChainerCVResNet50

from pfdet.errors import InputError
from pfdet.links import convert
from pfdet.links.backbone import is_convention
from pfdet.links.backbone_file import arrays_of, load_backbone
from pfdet.links.backbones import BACKBONES
from pfdet.links.checkpoint_layouts import LAYOUTS
from pfdet.links.se_resnext import MiniSEResNeXt

FAST = {'initialW': chainer.initializers.Zero()}


def public_state(network, arch, layout=0):
    """Convert a network's arrays to the names and shapes of a public checkpoint."""
    state = {}
    for key, array in arrays_of(network).items():
        if is_convention(key) or key.endswith('/N'):
            continue
        if '/se/' in key and array.ndim == 2:
            array = array[:, :, None, None]
        state[LAYOUTS[arch][layout].rename(key)] = array
        name = LAYOUTS[arch][layout].rename(key)
        if name.endswith('.running_var'):
            state[name.replace('running_var', 'num_batches_tracked')] = np.array(3)
    return state


def write_safetensors(path, state):
    header, parts, begin = {}, [], 0
    for name, array in state.items():
        dtype = {'f': 'F32', 'i': 'I64'}[array.dtype.kind]
        parts.append(array.astype('<f4' if dtype == 'F32' else '<i8').tobytes())
        end = begin + len(parts[-1])
        header[name] = {'dtype': dtype, 'shape': array.shape, 'data_offsets': [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    path.write_bytes(b''.join([len(text).to_bytes(8, 'little'), text, *parts]))


@pytest.fixture
def mini():
    network = MiniSEResNeXt(n_class=6)
    rng = np.random.default_rng(0)
    for link in network.links():
        if hasattr(link, 'avg_var'):
            link.avg_mean[...] = rng.normal(size=link.avg_mean.shape)
            link.avg_var[...] = rng.uniform(0.5, 2, link.avg_var.shape)
    return network


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Run the command on a state dict and return the path of its output."""

    def run(state, *args, arch='mini_se_resnext'):
        write_safetensors(tmp_path / 'in.safetensors', state)
        monkeypatch.setattr(
            sys,
            'argv',
            [
                'convert',
                '--arch',
                arch,
                '--weights',
                str(tmp_path / 'in.safetensors'),
                '--out',
                str(tmp_path / 'out.npz'),
                *args,
            ],
        )
        convert.main()
        return tmp_path / 'out.npz'

    return run


def assert_same_weights(network, other, exclude=()):
    expected = arrays_of(other)
    for key, array in arrays_of(network).items():
        if key not in exclude:
            np.testing.assert_array_equal(array, expected[key], err_msg=key)


def test_from_safetensors(mini, command, capsys):
    path = command(public_state(mini, 'mini_se_resnext'))
    assert 'skipped' not in capsys.readouterr().out
    network = MiniSEResNeXt(n_class=6)
    load_backbone(network, path)
    assert_same_weights(network, mini)
    # The same without a classifier.
    network = MiniSEResNeXt()
    load_backbone(network, path)
    assert_same_weights(network, mini)


def test_from_a_detector(mini, tmp_path, monkeypatch):
    np.savez(
        tmp_path / 'model.npz',
        **{'head/score/W': np.ones((3, 4), np.float32)},
        **{f'extractor/base/{key}': array for key, array in arrays_of(mini).items()},
    )
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'convert',
            '--arch',
            'mini_se_resnext',
            '--weights',
            str(tmp_path / 'model.npz'),
            '--out',
            str(tmp_path / 'out.npz'),
        ],
    )
    convert.main()
    network = MiniSEResNeXt(n_class=6)
    load_backbone(network, tmp_path / 'out.npz')
    assert_same_weights(network, mini)


@pytest.mark.parametrize(
    'arch, layout', [(arch, i) for arch in LAYOUTS for i in range(len(LAYOUTS[arch]))]
)
def test_names_are_unique_and_identify_the_layout(arch, layout):
    network = BACKBONES[arch](n_class=3, **FAST)
    state = public_state(network, arch, layout)
    n_norm = sum(hasattr(link, 'avg_var') for link in network.links())
    n_key = sum(not is_convention(key) for key in arrays_of(network))
    assert len(state) == (n_key - n_norm if LAYOUTS[arch][layout].rename is str else n_key)
    result = convert.convert(arch, state)
    assert result.layout is LAYOUTS[arch][layout]
    assert not (result.missing or result.surplus or result.misshaped or result.skipped_classifier)


@pytest.mark.parametrize(
    'arch, layout, shapes',
    [
        (
            'resnet50',
            0,
            {
                'conv1.weight': (64, 3, 7, 7),
                'bn1.running_mean': (64,),
                'layer1.0.downsample.0.weight': (256, 64, 1, 1),
                'layer2.3.conv2.weight': (128, 128, 3, 3),
                'layer4.2.bn3.num_batches_tracked': (),
                'fc.weight': (3, 2048),
                'fc.bias': (3,),
            },
        ),
        ('resnext101', 0, {'layer3.22.conv2.weight': (512, 16, 3, 3)}),
        (
            'resnext101',
            1,
            {
                'features.0.weight': (64, 3, 7, 7),
                'features.1.bias': (64,),
                'features.4.0.0.0.0.0.weight': (128, 64, 1, 1),
                'features.4.0.0.1.1.running_var': (256,),
                'features.6.22.0.0.0.3.weight': (512, 16, 3, 3),
                'features.7.2.0.0.1.weight': (2048, 1024, 1, 1),
                'last_linear.bias': (3,),
            },
        ),
        ('resnext152', 0, {'layer3.35.conv2.weight': (1024, 32, 3, 3)}),
        (
            'se_resnext101',
            0,
            {
                'layer0.conv1.weight': (64, 3, 7, 7),
                'layer0.bn1.weight': (64,),
                'layer3.22.se_module.fc1.weight': (64, 1024, 1, 1),
                'layer3.22.se_module.fc2.bias': (1024,),
                'last_linear.weight': (3, 2048),
            },
        ),
        (
            'senet154',
            0,
            {
                'layer0.conv3.weight': (128, 64, 3, 3),
                'layer1.0.downsample.0.weight': (256, 128, 1, 1),
                'layer2.0.downsample.0.weight': (512, 256, 3, 3),
                'layer3.35.conv1.weight': (512, 1024, 1, 1),
                'layer4.2.conv2.weight': (2048, 16, 3, 3),
            },
        ),
        (
            'efficientnet_b7',
            0,
            {
                'features.0.0.weight': (64, 3, 3, 3),
                'features.0.1.running_var': (64,),
                'features.1.0.block.0.0.weight': (64, 1, 3, 3),
                'features.1.3.block.1.fc1.weight': (8, 32, 1, 1),
                'features.2.0.block.1.0.weight': (192, 1, 3, 3),
                'features.3.6.block.3.0.weight': (80, 480, 1, 1),
                'features.5.9.block.2.fc2.bias': (1344,),
                'features.7.3.block.3.1.weight': (640,),
                'features.8.0.weight': (2560, 640, 1, 1),
                'classifier.1.weight': (3, 2560),
            },
        ),
    ],
)
def test_public_names(arch, layout, shapes):
    state = public_state(BACKBONES[arch](n_class=3, **FAST), arch, layout)
    assert {name: state[name].shape for name in shapes if name in state} == shapes


def test_all_parameters_that_do_not_fit_are_listed(mini, command, tmp_path, capsys):
    state = public_state(mini, 'mini_se_resnext')
    for name in 'layer1.0.conv1.weight', 'layer4.0.bn3.running_var':
        del state[name]
    state['layer2.0.se_module.fc1.weight'] = np.zeros((3, 3), np.float32)
    state['layer3.0.bn2.bias'] = state['layer3.0.bn2.bias'] * np.float32(np.nan)
    state['layer3.0.bn2.running_var'] = -np.ones_like(state['layer3.0.bn2.running_var'])
    state['layer3.0.bn1.bias'] = np.full(128, np.float32(np.inf))
    state['layer5.0.conv1.weight'] = np.zeros((1, 2), np.float32)
    with pytest.raises(
        InputError,
        match=r'in\.safetensors: .* 1 surplus, 1 misshaped, '
        r'3 invalid, 2 missing',
    ):
        command(state)
    error = capsys.readouterr().err
    for line in [
        'missing: layer1.0.conv1.weight, expected of shape (32, 32, 1, 1)',
        'missing: layer4.0.bn3.running_var, expected of shape (512,)',
        'misshaped: layer2.0.se_module.fc1.weight of shape (3, 3), expected (8, 128)',
        'invalid: layer3.0.bn2.bias has nan among its 128 values; expected finite numbers',
        'invalid: layer3.0.bn2.running_var has -1.0 among its 128 values; expected',
        'invalid: layer3.0.bn1.bias has inf among its 128 values; expected finite numbers',
        'surplus: layer5.0.conv1.weight of shape (1, 2)',
    ]:
        assert line in error
    assert len(error.splitlines()) == 7
    assert not list(tmp_path.glob('*.npz'))


def test_of_many_parameters_that_do_not_fit_ten_of_a_kind_are_listed(mini, command, capsys):
    state = {f'net.{k}': a for k, a in public_state(mini, 'mini_se_resnext').items()}
    with pytest.raises(InputError, match='most names differ: expected those of a backbone alone'):
        command(state)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 * 11
    assert sum('... and' in line for line in lines) == 2


def test_allow_missing(mini, command, capsys):
    state = public_state(mini, 'mini_se_resnext')
    del state['layer1.0.conv1.weight']
    with pytest.raises(InputError, match='1 missing, listed above; --allow-missing'):
        command(state)
    path = command(state, '--allow-missing')
    assert 'skipped: layer1.0.conv1.weight' in capsys.readouterr().out
    network = MiniSEResNeXt()
    kept = network.res2.a.conv1.conv.W.array.copy()
    load_backbone(network, path)
    assert_same_weights(network, mini, exclude={'res2/a/conv1/conv/W'})
    np.testing.assert_array_equal(network.res2.a.conv1.conv.W.array, kept)
    # Other problems are still errors.
    state['layer2.0.bn1.bias'] = np.zeros(3, np.float32)
    with pytest.raises(InputError, match='1 misshaped'):
        command(state, '--allow-missing')


@pytest.mark.parametrize('change', ['missing', 'incomplete', 'misshaped'])
def test_a_classifier_may_be_missing(change, mini, command, capsys):
    state = public_state(mini, 'mini_se_resnext')
    if change != 'misshaped':
        del state['last_linear.bias']
    if change == 'missing':
        del state['last_linear.weight']
    if change == 'misshaped':
        state['last_linear.weight'] = np.zeros((6, 3), np.float32)
    path = command(state)
    out = capsys.readouterr().out
    assert out.count('skipped classifier: last_linear.') == 2
    network = MiniSEResNeXt()
    load_backbone(network, path)
    assert_same_weights(network, mini)
    with pytest.raises(InputError, match='2 parameters missing'):
        load_backbone(MiniSEResNeXt(n_class=6), path)


def test_preprocessing_of_the_checkpoint(command):
    state = public_state(BACKBONES['resnet50'](n_class=2, **FAST), 'resnet50')
    backbone = BACKBONES['resnet50'](**FAST)
    load_backbone(backbone, command(state, arch='resnet50'))
    np.testing.assert_allclose(backbone.mean[:, 0, 0] / 255, [0.485, 0.456, 0.406], rtol=1e-6)
    np.testing.assert_allclose(backbone.std[:, 0, 0] / 255, [0.229, 0.224, 0.225], rtol=1e-6)
    assert backbone.channel_order == 'RGB'
    path = command(
        state,
        '--mean',
        '1',
        '2',
        '3',
        '--std',
        '4',
        '5',
        '6',
        '--channel-order',
        'BGR',
        arch='resnet50',
    )
    load_backbone(backbone, path)
    assert backbone.conventions.mean == (1, 2, 3) and backbone.conventions.std == (4, 5, 6)
    assert backbone.channel_order == 'BGR' and backbone.conventions.bn_eps == 1e-5
    for option, values in ('--std', '0 1 1'), ('--std', '1 nan 1'), ('--mean', '1 inf 1'):
        with pytest.raises(InputError, match=f'{option} (0|nan|inf): expected a number'):
            command(state, option, *values.split(), arch='resnet50')


def test_weights_of_chainercv(tmp_path, monkeypatch):
    theirs = ChainerCVResNet50(n_class=4)
    x = np.random.default_rng(0).normal(0, 50, (1, 3, 32, 64)).astype(np.float32)
    theirs.pick = ('res2', 'res3', 'res4', 'res5', 'fc6')
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        expected = theirs(x)
    chainer.serializers.save_npz(str(tmp_path / 'in.npz'), theirs, compression=False)
    ours = BACKBONES['resnet50'](n_class=4, **FAST)
    # The second conversion reads the output of the first.
    for source, target in ('in.npz', 'out.npz'), ('out.npz', 'again.npz'):
        monkeypatch.setattr(
            sys,
            'argv',
            [
                'convert',
                '--arch',
                'resnet50',
                '--weights',
                str(tmp_path / source),
                '--out',
                str(tmp_path / target),
            ],
        )
        convert.main()
        ours.use(BACKBONES['resnet50'](**FAST).conventions)
        load_backbone(ours, tmp_path / target)
        np.testing.assert_array_equal(ours.mean, theirs.mean)
        ours.pick = theirs.pick
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            for a, b in zip(ours(x), expected, strict=True):
                np.testing.assert_allclose(
                    a.array, b.array, rtol=1e-4, atol=1e-4 * abs(b.array).max()
                )


@pytest.mark.parametrize(
    'key, value, message',
    [
        ('std', [1, 0, 1], r'std has 0.0 among its 3 values; expected numbers above 0'),
        ('mean', [np.nan] * 3, r'mean has nan among'),
        ('mean', 3.0, 'expected weights of a backbone mini'),
        ('bn_eps', [1.0, 2.0], 'expected weights of a backbone mini'),
    ],
)
def test_bad_conventions_of_a_checkpoint(mini, tmp_path, monkeypatch, key, value, message):
    np.savez(tmp_path / 'in.npz', **{**arrays_of(mini), key: np.array(value)})
    arguments = ['--arch', 'mini_se_resnext', '--weights', 'in.npz', '--out', 'out.npz']
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['convert', *arguments])
    with pytest.raises(InputError, match=f'in.npz: .*{message}'):
        convert.main()
    assert not (tmp_path / 'out.npz').exists()


def test_exit_status(tmp_path):
    write_safetensors(tmp_path / 'in.safetensors', {'a': np.zeros(2, np.float32)})
    command = [
        sys.executable,
        '-m',
        'pfdet.links.convert',
        '--weights',
        str(tmp_path / 'in.safetensors'),
        '--out',
        str(tmp_path / 'out.npz'),
    ]
    for arch, message in ('mini_se_resnext', '1 surplus'), ('vgg16', 'no such network'):
        done = subprocess.run([*command, '--arch', arch], capture_output=True, text=True)
        assert done.returncode == 2
        assert message in done.stderr.splitlines()[-1]
        assert 'Traceback' not in done.stderr
    assert not (tmp_path / 'out.npz').exists()
