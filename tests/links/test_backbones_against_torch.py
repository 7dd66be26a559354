"""Every backbone against the same network in PyTorch, with weights from the converter.

Skipped if PyTorch is not installed.
"""

import importlib.util
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet.links import convert
from pfdet.links.backbone_file import load_backbone
from pfdet.links.backbones import BACKBONES
from pfdet.links.checkpoint_files import read_checkpoint
from pfdet.links.fpn import FPN

torch = pytest.importorskip('torch')

NAMES = [*BACKBONES, 'resnext101 nested']


@pytest.fixture(scope='module')
def torch_backbones():
    path = Path(__file__).with_name('torch_backbones.py')
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def relative_error(a, b):
    return np.abs(a - b).max() / np.abs(b).max()


@pytest.mark.parametrize('name', NAMES)
def test_feature_maps_equal(name, torch_backbones, tmp_path, monkeypatch, capsys):
    arch = name.split()[0]
    theirs = torch_backbones.random_network(name, seed=1)
    torch.save(theirs.state_dict(), tmp_path / 'theirs.pth')
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'convert',
            '--arch',
            arch,
            '--weights',
            str(tmp_path / 'theirs.pth'),
            '--out',
            str(tmp_path / 'ours.npz'),
        ],
    )
    convert.main()
    assert 'skipped' not in capsys.readouterr().out

    ours = BACKBONES[arch](n_class=1000, initialW=chainer.initializers.Zero())
    assert ours.count_params() == sum(p.numel() for p in theirs.parameters())
    load_backbone(ours, tmp_path / 'ours.npz')
    ours.pick = (*ours.pick, 'fc6')
    x = np.random.default_rng(0).normal(size=(2, 3, 64, 96)).astype(np.float32)
    with torch.no_grad():
        expected = [h.numpy() for h in theirs(torch.from_numpy(x))]
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        got = [h.array for h in ours(x)]
    errors = [relative_error(a, b) for a, b in zip(got, expected, strict=True)]
    with capsys.disabled():
        print(f'\n{name}: ' + ', '.join(f'{e:.1e}' for e in errors), end=' ')
    assert [h.shape[2:] for h in got[:4]] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(h.shape[1] for h in got[:4]) == ours.out_channels
    assert max(errors) < 1e-3
    # The feature maps depend on the image.
    assert all(relative_error(h[0], h[1]) > 0.1 for h in expected[:4])


@pytest.mark.parametrize('name', ['senet154', 'resnext101 nested', 'efficientnet_b7'])
def test_safetensors_as_pth(name, torch_backbones, tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    state = torch_backbones.random_network(name, seed=2).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    save_file(state, tmp_path / 'a.safetensors')
    expected = read_checkpoint(tmp_path / 'a.pth')
    got = read_checkpoint(tmp_path / 'a.safetensors')
    assert expected.keys() == got.keys() == state.keys()
    assert all(np.array_equal(expected[key], got[key]) for key in state)


def test_half_precision_and_wrapped_state(torch_backbones, tmp_path):
    save_file = pytest.importorskip('safetensors.torch').save_file
    state = torch_backbones.random_network('mini_se_resnext', seed=3).state_dict()
    half = {
        f'module.{key}': value.bfloat16() if value.is_floating_point() else value
        for key, value in state.items()
    }
    torch.save({'epoch': 3, 'state_dict': half}, tmp_path / 'a.pth')
    save_file(half, tmp_path / 'a.safetensors')
    for file in 'a.pth', 'a.safetensors':
        got = read_checkpoint(tmp_path / file)
        assert got.keys() == state.keys()
        for key, value in state.items():
            expected = value.bfloat16().float() if value.is_floating_point() else value
            np.testing.assert_array_equal(got[key], expected.numpy())


def test_preprocessing_as_torchvision(torch_backbones, tmp_path, monkeypatch):
    state = torch_backbones.random_network('resnet50', seed=4).state_dict()
    torch.save(state, tmp_path / 'a.pth')
    monkeypatch.setattr(
        sys,
        'argv',
        [
            'convert',
            '--arch',
            'resnet50',
            '--weights',
            str(tmp_path / 'a.pth'),
            '--out',
            str(tmp_path / 'a.npz'),
        ],
    )
    convert.main()
    backbone = BACKBONES['resnet50'](initialW=chainer.initializers.Zero())
    load_backbone(backbone, tmp_path / 'a.npz')
    img = np.random.default_rng(0).integers(0, 256, (3, 5, 7)).astype(np.float32)
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
    std = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    expected = (torch.from_numpy(img) / 255 - mean) / std
    np.testing.assert_allclose(FPN(backbone).preprocess(img), expected.numpy(), atol=1e-5)
