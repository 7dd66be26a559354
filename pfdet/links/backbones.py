"""Registry of backbones by name."""

from collections.abc import Callable

from pfdet.errors import InputError
from pfdet.links.backbone import Backbone
from pfdet.links.efficientnet import efficientnet_b7
from pfdet.links.resnet import resnet50, resnet101
from pfdet.links.resnext import resnext101, resnext152
from pfdet.links.se_resnext import MiniSEResNeXt, se_resnext50, se_resnext101
from pfdet.links.senet import senet154
from pfdet.similar_names import expected_name

# Each takes the keywords n_class (classes of a classifier on top; by default none) and initialW.
BACKBONES: dict[str, Callable[..., Backbone]] = {
    'resnet50': resnet50,
    'resnet101': resnet101,
    'resnext101': resnext101,
    'resnext152': resnext152,
    'se_resnext50': se_resnext50,
    'se_resnext101': se_resnext101,
    'senet154': senet154,
    'efficientnet_b7': efficientnet_b7,
    'mini_se_resnext': MiniSEResNeXt,
}

# Names of public checkpoints.
ALIASES = {
    'resnext101_32x4d': 'resnext101',
    'resnext152_32x8d': 'resnext152',
    'se_resnext50_32x4d': 'se_resnext50',
    'se_resnext101_32x4d': 'se_resnext101',
}


def backbone_name(name: str) -> str:
    """Resolve the name of a backbone.

    Args:
        name (str): A key of :data:`BACKBONES` or of :data:`ALIASES`.

    Returns:
        str: A key of :data:`BACKBONES`.

    Raises:
        InputError: The name is unknown.
    """
    name = ALIASES.get(name, name)
    if name not in BACKBONES:
        raise InputError(f'backbone {name}: no such network; {expected_name(name, BACKBONES)}')
    return name
