"""Parameter names of public checkpoints."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from pfdet.links.backbone import CHAINERCV, TORCHVISION, Conventions
from pfdet.links.efficientnet import STAGES


@dataclass(frozen=True)
class Layout:
    """Parameter names of one family of checkpoints.

    Attributes:
        source (str): Publisher of the checkpoints.
        rename (callable): Maps a key of pfdet (``'res2/a/conv1/bn/gamma'``) to the name in the
            checkpoint.
        conventions (Conventions): Conventions of the checkpoints. By default, those of the network
            after construction.
    """

    source: str
    rename: Callable[[str], str]
    conventions: Conventions | None = None


_LEAF = {
    'W': 'weight',
    'b': 'bias',
    'gamma': 'weight',
    'beta': 'bias',
    'avg_mean': 'running_mean',
    'avg_var': 'running_var',
}
_BOTTLENECK = {
    'conv1/conv': 'conv1',
    'conv1/bn': 'bn1',
    'conv2/conv': 'conv2',
    'conv2/bn': 'bn2',
    'conv3/conv': 'conv3',
    'conv3/bn': 'bn3',
    'residual_conv/conv': 'downsample.0',
    'residual_conv/bn': 'downsample.1',
    'se/down': 'se_module.fc1',
    'se/up': 'se_module.fc2',
}
# The nesting stems from the conversion from Torch 7.
_NESTED_BOTTLENECK = {
    'conv1/conv': '0.0.0.0',
    'conv1/bn': '0.0.0.1',
    'conv2/conv': '0.0.0.3',
    'conv2/bn': '0.0.0.4',
    'conv3/conv': '0.0.1',
    'conv3/bn': '0.0.2',
    'residual_conv/conv': '0.1.0',
    'residual_conv/bn': '0.1.1',
}


def residual_name(key: str, stem: str, classifier: str) -> str:
    """Convert a key to the name in torchvision's ResNet or a network derived from it.

    Args:
        key (str): Key of a residual network, for example ``'res3/b2/conv1/conv/W'``.
        stem (str): Prefix of the names of the first convolutions.
        classifier (str): Name of the last layer.

    Returns:
        str: The name, for example ``'layer2.2.conv1.weight'``.
    """
    link, leaf = key.rsplit('/', 1)
    block = _block(link)
    if block is not None:
        stage, index, inner = block
        return f'layer{stage}.{index}.{_BOTTLENECK[inner]}.{_LEAF[leaf]}'
    if link == 'fc6':
        return f'{classifier}.{_LEAF[leaf]}'
    conv, kind = link.split('/')
    return f'{stem}{conv.replace("conv", kind)}.{_LEAF[leaf]}'


def nested_resnext_name(key: str) -> str:
    """Convert a key to the name in pretrainedmodels' ResNeXt.

    All layers except the last have numbers instead of names.

    Args:
        key (str): Key of a residual network.

    Returns:
        str: The name, for example ``'features.5.2.0.0.0.0.weight'``.
    """
    link, leaf = key.rsplit('/', 1)
    block = _block(link)
    if block is not None:
        stage, index, inner = block
        return f'features.{stage + 3}.{index}.{_NESTED_BOTTLENECK[inner]}.{_LEAF[leaf]}'
    layer = {'fc6': 'last_linear', 'conv1/conv': 'features.0', 'conv1/bn': 'features.1'}[link]
    return f'{layer}.{_LEAF[leaf]}'


def _block(link: str) -> tuple[int, int, str] | None:
    """Split ``'res2/a/conv1/bn'`` into stage (from 1), bottleneck (from 0) and inner link."""
    match = re.fullmatch(r'res(\d)/(?:a|b(\d+))/(.+)', link)
    return match and (int(match[1]) - 1, int(match[2] or 0), match[3])


def efficientnet_name(key: str, depth: float) -> str:
    """Convert a key to the name in torchvision's EfficientNet.

    Args:
        key (str): Key of an EfficientNet, for example ``'res2/b1/se/down/W'``.
        depth (float): Multiplier of the number of blocks.

    Returns:
        str: The name, for example ``'features.1.0.block.1.fc1.weight'``.
    """
    link, leaf = key.rsplit('/', 1)
    first, *rest = link.split('/')
    if first == 'fc6':
        return f'classifier.1.{_LEAF[leaf]}'
    if first in ('conv1', 'conv6'):
        n_stage = sum(len(stages) for stages in STAGES.values())
        number = 0 if first == 'conv1' else n_stage + 1
        return f'features.{number}.{_CONV_BN[rest[0]]}.{_LEAF[leaf]}'

    block, part, last = rest
    stage, index, expand = _efficientnet_blocks(depth)[first][int(block[1:]) - 1]
    parts = ['expand', 'depthwise', 'se', 'project'][expand == 1 :]
    return f'features.{stage}.{index}.block.{parts.index(part)}.{_CONV_BN[last]}.{_LEAF[leaf]}'


_CONV_BN = {'conv': '0', 'bn': '1', 'down': 'fc1', 'up': 'fc2'}


def _efficientnet_blocks(depth: float) -> dict[str, list[tuple[int, int, int]]]:
    """Stage (from 1), index in the stage and expansion of each block, by feature map."""
    blocks: dict[str, list[tuple[int, int, int]]] = {}
    number = 0
    for name, stages in STAGES.items():
        blocks[name] = []
        for stage in stages:
            number += 1
            n_layer = math.ceil(stage.n_layer * depth)
            blocks[name] += [(number, i, stage.expand) for i in range(n_layer)]
    return blocks


_RESNET = Layout('torchvision', partial(residual_name, stem='', classifier='fc'), TORCHVISION)
_RESNEXT = Layout('pretrainedmodels', nested_resnext_name, TORCHVISION)
_SENET = Layout(
    'pretrainedmodels',
    partial(residual_name, stem='layer0.', classifier='last_linear'),
    replace(TORCHVISION, pool_pad=0),
)
_CHAINERCV = Layout('ChainerCV', str, CHAINERCV)
_OWN = Layout('pfdet', str)

# Possible layouts of a backbone's checkpoints, by name of the backbone.
LAYOUTS: dict[str, tuple[Layout, ...]] = {
    'resnet50': (_RESNET, _CHAINERCV),
    'resnet101': (_RESNET, _CHAINERCV),
    'resnext101': (_RESNET, _RESNEXT, _OWN),
    'resnext152': (_RESNET, _OWN),
    'se_resnext50': (_SENET, _CHAINERCV),
    'se_resnext101': (_SENET, _CHAINERCV),
    'senet154': (_SENET, _OWN),
    'efficientnet_b7': (Layout('torchvision', partial(efficientnet_name, depth=3.1)), _OWN),
    'mini_se_resnext': (replace(_SENET, conventions=None), _OWN),
}
