"""What a recipe is: every choice that tells one row of a table from another."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pfdet.errors import InputError


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training and test configuration.

    The defaults are those of the baseline of PFDet's Table 1 at full scale. A row of a table is
    the row above it with one field replaced.

    Attributes:
        name (str): How to ask for it.
        about (str): What it is, with the table's words.
        scale (str): ``'full'``, the paper's, or ``'mini'``, for two CPU cores.
        backbone (str): A key of :data:`pfdet.links.backbones.BACKBONES`.
        fpn_channel (int): Channels of the pyramid.
        fpn_scale (int): Feature maps of the top-down path, four or five.
        fpn_bn, head_bn (bool): Batch normalization in the pyramid, and in the head.
        psp (bool): Pyramid spatial pooling on C5.
        context (bool): The head looks also at twice the area of each box.
        class_agnostic (bool): One box for all classes, or one a class.
        head_unit (int): Units of the head's fully connected layers.
        canonical_size (int): Pixels of a box looked up on the third level.
        anchor_size (int): Pixels of an anchor's side on the first level.
        anchor_ratios (tuple of float): Height over width.
        n_anchor, n_roi (int): Anchors and regions an image to learn from.
        train_proposals, test_proposals (pairs of int): Proposals a level before suppression and an
            image after it.
        loss (str): A key of :data:`pfdet.functions.losses.LOSSES`.
        score (str): A key of :data:`pfdet.functions.losses.SCORES`, or empty for sigmoid or
            softmax, as the loss is.
        normalize (str): What the loss is divided by (see
            :func:`pfdet.functions.closed_form.divisor`), or empty for what goes with the loss.
        focal_alpha, focal_gamma (float): Of the focal loss.
        hierarchy_rate (float): The concurrent rate of a class and its ancestor: 1 for the effect
            that the second paper describes, 0 for its letter.
        effective_beta (float): Of the weights of classes by their effective number of objects; 0
            for no weights.
        join_iou (float): Boxes of an image with this IoU are one object and share their labels,
            as the second paper counts objects; 1 for equal boxes only.
        expand_ancestors (bool): An object is also of all its classes' ancestors.
        ignore_descendants (bool): Ignore the descendants of an object's class that is no leaf.
        ignore_group_of (bool): Ignore the classes of a group-of box within it.
        cooccurrence (bool): Ignore parts and possessions in their subjects (co-occurrence loss).
        cooccurrence_pairs (str): CSV file of the pairs, or empty for the 47 of PFDet's Table 3.
        inside_share (float): A region is in its subject with at least this share of its area.
        ignore_verified (bool): Ignore parts and possessions also where annotators have looked for
            them.
        expand_scores (bool): In prediction, a class gets the highest of its own and its
            descendants' scores, for losses that do not teach ancestors.
        init (str): What the paper starts from: ``'imagenet'``, a backbone trained on it,
            ``'scratch'``, or the name of the recipe whose weights it fine-tunes. The weights
            themselves are given by ``--init``.
        sampler (str): A key of :data:`pfdet.training.build.SAMPLERS`.
        soft_balance_lambda (float): Of ``sampler='soft_balance'``: 0 draws classes as often as
            they have images, 1 draws all as often.
        aspect_chunk (int): Images of like aspect ratio in a row; 1 for no such grouping. Neither
            paper speaks of it; Detectron does so for a rank's images.
        min_size (pair of int): Range of the shorter edge's length in training.
        max_size (int): Limit of the longer edge.
        flip (bool): Flip half of the training images.
        batch_size (int): Images a rank and iteration.
        epochs (float): Passes over the training set.
        schedule (str): ``'step'`` or ``'cosine'``.
        steps (tuple of float): Of the step schedule, as shares of the run.
        base_lr (float): Learning rate at a global batch of ``lr_batch_size``; scaled linearly.
        lr_batch_size (int): See ``base_lr``.
        warmup_epochs (float): The rate grows linearly over them.
        momentum, weight_decay (float): Of corrected-momentum SGD; no decay on batch normalization
            and biases.
        expert_size (int): Classes of an expert model, or 0 for a model of all classes.
        expert_head (str): What an expert makes of other classes: ``'masked'``, its loss leaves
            them out but rules and boxes know them, or ``'cut'``, they are background.
        dtype (str): ``'float32'``, or ``'float64'`` to compare runs beyond rounding.
        test_size (int): The shorter edge's length in prediction.
        score_thresh (float): Detections below are dropped.
        nmw_thresh (float): IoU from which detections of a class are merged.
        max_per_image (int): The best detections of an image that are kept.
    """

    name: str = 'table1-baseline'
    about: str = ''
    scale: str = 'full'
    backbone: str = 'se_resnext101'
    fpn_channel: int = 256
    fpn_scale: int = 4
    fpn_bn: bool = True
    psp: bool = False
    head_bn: bool = False
    context: bool = False
    class_agnostic: bool = True
    head_unit: int = 1024
    canonical_size: int = 224
    anchor_size: int = 32
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    n_anchor: int = 256
    n_roi: int = 512
    train_proposals: tuple[int, int] = (2000, 2000)
    test_proposals: tuple[int, int] = (1000, 1000)
    loss: str = 'sigmoid'
    score: str = ''
    normalize: str = ''
    focal_alpha: float = 0.25
    focal_gamma: float = 2.0
    hierarchy_rate: float = 1.0
    effective_beta: float = 0.0
    join_iou: float = 1.0
    expand_ancestors: bool = True
    ignore_descendants: bool = True
    ignore_group_of: bool = True
    cooccurrence: bool = False
    cooccurrence_pairs: str = ''
    inside_share: float = 0.5
    ignore_verified: bool = False
    expand_scores: bool = False
    init: str = 'imagenet'
    sampler: str = 'sequential'
    soft_balance_lambda: float = 0.7
    aspect_chunk: int = 512
    min_size: tuple[int, int] = (800, 800)
    max_size: int = 1333
    flip: bool = True
    batch_size: int = 1
    epochs: float = 12.0
    schedule: str = 'step'
    steps: tuple[float, ...] = (8 / 12, 11 / 12)
    base_lr: float = 0.01
    lr_batch_size: int = 8
    warmup_epochs: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 1e-4
    expert_size: int = 0
    expert_head: str = 'masked'
    dtype: str = 'float32'
    test_size: int = 800
    score_thresh: float = 0.01
    nmw_thresh: float = 0.5
    max_per_image: int = 300


class Table(NamedTuple):
    """A table of a paper: its title and the recipes of its rows."""

    title: str
    rows: tuple[Recipe, ...]


# What mini scale replaces: sizes, never switches.
_MINI = {
    'scale': 'mini',
    'backbone': 'mini_se_resnext',
    'fpn_channel': 32,
    'head_unit': 256,
    'canonical_size': 56,
    'anchor_size': 16,
    'n_anchor': 128,
    'n_roi': 128,
    'train_proposals': (300, 300),
    'test_proposals': (300, 300),
    'max_size': 256,
    'aspect_chunk': 8,
    'batch_size': 4,
    'test_size': 160,
    'max_per_image': 100,
}
_MINI_EDGE = 160 / 800
# Small networks bear a higher learning rate, and with so few iterations they need it.
_MINI_LR = 4


def at_scale(recipe: Recipe, scale: str) -> Recipe:
    """The same switches at another scale.

    Args:
        recipe (Recipe): At full scale.
        scale (str): ``'full'`` or ``'mini'``.

    Returns:
        Recipe: With the edge lengths in training in the same proportion to that in prediction.

    Raises:
        ValueError: ``scale`` is neither.
    """
    if scale == recipe.scale:
        return recipe
    if scale != 'mini':
        raise ValueError(f'scale must be full or mini, not {scale!r}')
    low, high = recipe.min_size
    return dataclasses.replace(
        recipe,
        **_MINI,
        min_size=(round(low * _MINI_EDGE), round(high * _MINI_EDGE)),
        base_lr=recipe.base_lr * _MINI_LR,
    )


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields as JSON has them."""
    return dataclasses.asdict(recipe)


def from_dict(fields: Mapping[str, Any], where: str) -> Recipe:
    """The inverse of :func:`to_dict`.

    Args:
        fields (mapping): By name; missing ones get their default.
        where (str): For messages: where the fields were read.

    Raises:
        InputError: An unknown field, or a value of a wrong type.
    """
    known = {f.name: f for f in dataclasses.fields(Recipe)}
    values = {}
    for key, value in fields.items():
        if key not in known:
            raise InputError(
                f'{where}: unknown recipe field {key!r}; expected one of ' + ', '.join(known)
            )
        values[key] = _checked(key, value, known[key].default, where)
    return Recipe(**values)


def override(recipe: Recipe, settings: Sequence[str]) -> Recipe:
    """Apply ``KEY=VALUE`` settings from a command line.

    Args:
        recipe (Recipe): What to change.
        settings (sequence of str): Values as Python literals; quotes around text may be missing.

    Raises:
        InputError: No ``=``, an unknown key, or a value of a wrong type.
    """
    fields = {}
    for setting in settings:
        key, equals, text = setting.partition('=')
        if not equals:
            raise InputError(f'--set {setting}: expected KEY=VALUE')
        try:
            fields[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            fields[key] = text
    return from_dict({**to_dict(recipe), **fields}, '--set')


def _checked(key: str, value: Any, default: Any, where: str) -> Any:
    """A value converted to the type of the field's default."""
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        return tuple(_checked(key, v, default[0], where) for v in value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if type(value) is not type(default):
        raise InputError(
            f'{where}: {key}={value!r}: expected {type(default).__name__}, such as {default!r}'
        )
    return value
