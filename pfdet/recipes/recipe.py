"""The fields of a recipe: every choice that distinguishes one row of a table from another."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from pfdet.errors import InputError


def _field(
    default: Any,
    group: str,
    about: str,
    *,
    trains: bool = True,
    at_test: bool = False,
    on_resume: bool = False,
) -> Any:
    """A field of a recipe.

    Args:
        default: Its value in the baseline of PFDet's Table 1. Its type is the field's type.
        group (str): Heading in ``--show``.
        about (str): What it is.
        trains (bool): Whether training depends on it.
        at_test (bool): Whether it may be changed for a trained network, by ``predict.py --set``.
        on_resume (bool): Whether it may be changed when a run is resumed. Any other field decides
            the network, the sequence of images or what is learned: with another value it is another
            run.
    """
    return dataclasses.field(
        default=default,
        metadata={
            'group': group,
            'about': about,
            'trains': trains,
            'at_test': at_test,
            'on_resume': on_resume,
        },
    )


def _test_field(default: Any, about: str) -> Any:
    """A field that only prediction uses."""
    return _field(default, 'prediction', about, trains=False, at_test=True, on_resume=True)


_name = partial(_field, group='name', trains=False, on_resume=True)
_network = partial(_field, group='network')
_proposals = partial(_field, group='proposals')
_loss = partial(_field, group='loss')
_labels = partial(_field, group='labels')
_images = partial(_field, group='images')
_schedule = partial(_field, group='schedule')
_expert = partial(_field, group='experts')


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training and test configuration.

    The defaults are those of the baseline of PFDet's Table 1 at full size. Each row of a table is
    the row before it, or the one it is compared with, plus the change that it names.
    """

    name: str = _name('table1-baseline', about='how to ask for it')
    about: str = _name('', about="what it is, in the table's words")
    size: str = _name(
        'full',
        about="'full', the paper's, or 'mini', for two CPU cores",
        trains=True,
        on_resume=False,
    )
    backbone: str = _network('se_resnext101', about='a key of pfdet.links.backbones.BACKBONES')
    fpn_channel: int = _network(256, about='channels of the feature pyramid')
    fpn_scale: int = _network(4, about='feature maps of the top-down path, 4 or 5')
    fpn_bn: bool = _network(True, about='batch normalization in the feature pyramid')
    psp: bool = _network(False, about='pyramid pooling on C5')
    head_bn: bool = _network(False, about='batch normalization in the head')
    context: bool = _network(
        False, about='the head also pools features from a box of twice the area'
    )
    class_agnostic: bool = _network(True, about='one box for all classes, or one per class')
    head_unit: int = _network(1024, about="units of the head's fully connected layers")
    canonical_size: int = _network(224, about='side in pixels of a box pooled from the third level')
    dtype: str = _network(
        'float32', about="'float32', or 'float64' to compare runs beyond rounding"
    )
    anchor_size: int = _proposals(32, about='side in pixels of an anchor on the first level')
    anchor_ratios: tuple[float, ...] = _proposals((0.5, 1.0, 2.0), about='height over width')
    n_anchor: int = _proposals(256, about='anchors per image that the RPN learns from')
    n_roi: int = _proposals(512, about='regions per image that the head learns from')
    train_proposals: tuple[int, int] = _proposals(
        (2000, 2000), about='proposals per level before NMS and per image after it, in training'
    )
    test_proposals: tuple[int, int] = _test_field(
        (1000, 1000), 'proposals per level before NMS and per image after it'
    )
    loss: str = _loss('sigmoid', about='a key of pfdet.functions.losses.LOSSES')
    score: str = _test_field(
        '',
        'a key of pfdet.functions.losses.SCORES; empty for sigmoid or softmax, as the loss is',
    )
    normalize: str = _loss(
        '',
        about='what the loss is divided by (pfdet.functions.closed_form.divisor); empty for what '
        'goes with the loss',
    )
    focal_alpha: float = _loss(0.25, about='alpha of the focal loss')
    focal_gamma: float = _loss(2.0, about='gamma of the focal loss')
    hierarchy_rate: float = _loss(
        1.0,
        about='concurrent rate of a class and its ancestor: 1 for the effect that Peng et al. '
        'describe, 0 for their letter',
        at_test=True,
    )
    effective_beta: float = _loss(
        0.0, about='beta of class weights by the effective number of objects; 0 for no weights'
    )
    join_iou: float = _labels(
        1.0,
        about='boxes of an image with this IoU are one object and share their labels, as Peng et '
        'al. count objects; 1 for equal boxes only',
    )
    expand_ancestors: bool = _labels(
        True, about="an object is also positive for its classes' ancestors"
    )
    ignore_descendants: bool = _labels(
        True, about="ignore the descendants of an object's class that is no leaf"
    )
    ignore_group_of: bool = _labels(
        True, about='ignore the classes of a group-of box in regions inside it'
    )
    cooccurrence: bool = _labels(
        False, about='ignore parts and possessions inside their subjects (co-occurrence loss)'
    )
    cooccurrence_pairs: str = _labels(
        '', about="CSV file of the pairs; empty for the 47 of PFDet's Table 3"
    )
    inside_share: float = _labels(
        0.5, about='a region is inside its subject with at least this share of its area'
    )
    ignore_verified: bool = _labels(
        False, about='ignore parts and possessions also where they were verified as absent'
    )
    expand_scores: bool = _test_field(
        False,
        "a class gets the highest of its own and its descendants' scores, for losses that do not "
        'teach ancestors',
    )
    init: str = _schedule(
        'imagenet',
        about="what the paper starts from: 'imagenet', a backbone trained on it; 'scratch'; or the "
        'recipe whose weights it fine-tunes. --init gives the weights',
        on_resume=True,
    )
    sampler: str = _images('sequential', about="'sequential', 'class_aware' or 'soft_balance'")
    soft_balance_lambda: float = _images(
        0.7,
        about='of soft_balance: 0 draws classes in proportion to their images, 1 all equally often',
    )
    aspect_chunk: int = _images(
        512,
        about='images of similar aspect ratio in a row; 1 for no grouping. Neither paper mentions '
        "it; Detectron groups a rank's images so",
    )
    min_size: tuple[int, int] = _images(
        (800, 800), about="range of the shorter edge's length in training"
    )
    max_size: int = _images(1333, about='limit of the longer edge', at_test=True)
    flip: bool = _images(True, about='flip half of the training images')
    batch_size: int = _images(
        1, about='images per rank and iteration', at_test=True, on_resume=True
    )
    epochs: float = _schedule(12.0, about='passes over the training set', on_resume=True)
    schedule: str = _schedule('step', about="'step' or 'cosine'")
    steps: tuple[float, ...] = _schedule(
        (8 / 12, 11 / 12), about='of the step schedule, as shares of the run'
    )
    base_lr: float = _schedule(
        0.01, about='learning rate at a global batch of lr_batch_size; scaled linearly'
    )
    lr_batch_size: int = _schedule(8, about='see base_lr')
    warmup_epochs: float = _schedule(0.5, about='epochs over which the rate grows linearly')
    momentum: float = _schedule(0.9, about='of SGD with corrected momentum')
    weight_decay: float = _schedule(1e-4, about='of SGD; none on batch normalization and biases')
    expert_size: int = _expert(0, about='classes of an expert model; 0 for a model of all classes')
    expert_head: str = _expert(
        'masked',
        about="how an expert treats other classes: 'masked', its loss omits them but rules and "
        "boxes know them; 'cut', they are background",
    )
    test_size: int = _test_field(800, "the shorter edge's length")
    score_thresh: float = _test_field(0.01, 'lowest score of a detection')
    nmw_thresh: float = _test_field(0.5, 'IoU from which detections of a class are merged')
    max_per_image: int = _test_field(300, 'detections of an image that are kept, best first')


def _attributes() -> str:
    lines = [
        f'        {f.name} ({type(f.default).__name__}): {f.metadata["about"]}.'
        for f in dataclasses.fields(Recipe)
    ]
    return '\n'.join(['', '    Attributes:', *lines, ''])


Recipe.__doc__ = (Recipe.__doc__ or '').rstrip() + '\n' + _attributes()


def fields_that(**flags: bool) -> tuple[str, ...]:
    """Names of the fields with such metadata.

    Args:
        flags: ``trains``, ``at_test`` or ``on_resume``, see :func:`_field`.
    """
    return tuple(
        f.name
        for f in dataclasses.fields(Recipe)
        if all(f.metadata[flag] == value for flag, value in flags.items())
    )


def described_fields(recipe: Recipe) -> dict[str, list[tuple[str, Any, str]]]:
    """Name, value and description of the fields, by group, for people to read."""
    groups: dict[str, list[tuple[str, Any, str]]] = {}
    for f in dataclasses.fields(Recipe):
        entry = f.name, getattr(recipe, f.name), f.metadata['about']
        groups.setdefault(f.metadata['group'], []).append(entry)
    return groups


# Names that fields had in recipe.json of version 0.1's development.
_FORMER_NAMES = {'scale': 'size'}


class Table(NamedTuple):
    """A table of a paper: its title and the recipes of its rows."""

    title: str
    rows: tuple[Recipe, ...]


# What mini size replaces: numbers, never switches.
_MINI = {
    'size': 'mini',
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
# Small networks tolerate a higher learning rate, and with so few iterations they need it.
_MINI_LR = 4


def at_size(recipe: Recipe, size: str) -> Recipe:
    """The same switches at another size.

    Args:
        recipe (Recipe): At full size.
        size (str): ``'full'`` or ``'mini'``.

    Returns:
        Recipe: With the edge lengths in training in the same proportion to that in prediction.

    Raises:
        ValueError: ``size`` is neither.
    """
    if size == recipe.size:
        return recipe
    if size != 'mini':
        raise ValueError(f'size must be full or mini, not {size!r}')
    low, high = recipe.min_size
    return dataclasses.replace(
        recipe,
        **_MINI,
        min_size=(round(low * _MINI_EDGE), round(high * _MINI_EDGE)),
        base_lr=recipe.base_lr * _MINI_LR,
    )


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The fields, ready for JSON."""
    return dataclasses.asdict(recipe)


def from_dict(fields: Mapping[str, Any], where: str) -> Recipe:
    """The inverse of :func:`to_dict`.

    Args:
        fields (mapping): By name; missing fields get their default.
        where (str): Where the fields were read, for messages.

    Raises:
        InputError: A field is unknown, or a value has the wrong type.
    """
    known = {f.name: f for f in dataclasses.fields(Recipe)}
    values = {}
    for key, value in fields.items():
        key = _FORMER_NAMES.get(key, key)
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
        settings (sequence of str): Values are Python literals; text may be without quotes.

    Raises:
        InputError: A setting has no ``=``, a key is unknown, or a value has the wrong type.
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
