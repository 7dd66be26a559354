"""The names that fields of a recipe can have.

The registries of backbones, losses and scores are in packages that import Chainer. A command that
only lists or checks recipes must not wait for that, so the names are repeated here. A test compares
them with the registries. Names that an extension adds to a registry are accepted as well: its
module is loaded then.
"""

import sys

from pfdet.recipes.domains import Domain

BACKBONES = (
    'resnet50',
    'resnet101',
    'resnext101',
    'resnext152',
    'se_resnext50',
    'se_resnext101',
    'senet154',
    'efficientnet_b7',
    'mini_se_resnext',
    # Names of public checkpoints
    'resnext101_32x4d',
    'resnext152_32x8d',
    'se_resnext50_32x4d',
    'se_resnext101_32x4d',
)
LOSSES = 'sigmoid', 'focal', 'softmax', 'multi_label_softmax', 'dist_ce', 'concurrent_softmax'
WITHOUT_BACKGROUND = 'sigmoid', 'focal'
SCORES = 'sigmoid', 'softmax', 'concurrent_softmax'
NORMALIZATIONS = 'roi', 'used', 'positive', 'element'
SAMPLERS = 'sequential', 'class_aware', 'soft_balance'
SCHEDULES = 'step', 'cosine'
#: Activations in float16, parameters and statistics in float32.
MIXED = 'mixed16'
DTYPES = 'float32', 'float64', MIXED


def name_in(names: tuple[str, ...], module: str, registry: str) -> Domain:
    """Names of a registry.

    Args:
        names (tuple of str): Its names as shipped; may include ``''`` for a default.
        module (str): Module of the registry.
        registry (str): Its name there.
    """

    def accepts(name: str) -> bool:
        return name in names or name in getattr(sys.modules.get(module), registry, ())

    return Domain('one of ' + ', '.join(repr(name) for name in names), accepts)
