"""The fields of a recipe: every choice that distinguishes one row of a table from another."""

import dataclasses
from functools import partial
from typing import Any

from pfdet.errors import InputError
from pfdet.recipes import known
from pfdet.recipes.consistency import contradictions
from pfdet.recipes.domains import (
    BOOLEAN,
    EDGE,
    Domain,
    integer,
    number,
    one_of,
    sequence,
    text,
    word,
)


def _field(
    default: Any,
    domain: Domain,
    about: str,
    group: str,
    *,
    trains: bool = True,
    at_test: bool = False,
    on_resume: bool = False,
) -> Any:
    """A field of a recipe.

    Args:
        default: Its value in the baseline of PFDet's Table 1. Its type is the field's type.
        domain (Domain): The values that it may have.
        about (str): What it is.
        group (str): Heading in ``--show``.
        trains (bool): Whether training depends on it.
        at_test (bool): Whether it may be changed for a trained network, by ``predict.py --set``.
        on_resume (bool): Whether it may be changed when a run is resumed. Any other field decides
            the network, the sequence of images or what is learned: with another value it is another
            run.
    """
    return dataclasses.field(
        default=default,
        metadata={
            'domain': domain,
            'about': about,
            'group': group,
            'trains': trains,
            'at_test': at_test,
            'on_resume': on_resume,
        },
    )


_name = partial(_field, group='name', trains=False, on_resume=True)
_network = partial(_field, group='network')
_proposals = partial(_field, group='proposals')
_loss = partial(_field, group='loss')
_labels = partial(_field, group='labels')
_images = partial(_field, group='images')
_schedule = partial(_field, group='schedule')
_expert = partial(_field, group='experts')
# Only prediction uses these.
_test = partial(_field, group='prediction', trains=False, at_test=True, on_resume=True)

_SHARE = number(0, 1)
_POSITIVE_SHARE = number(0, 1, above=True)
_COUNT = integer(1, 100_000)
_LOSSES = 'pfdet.functions.losses'
_LOSS = known.name_in(known.LOSSES, _LOSSES, 'LOSSES')
_SCORE = known.name_in(('', *known.SCORES), _LOSSES, 'SCORES')
_BACKBONE = known.name_in(known.BACKBONES, 'pfdet.links.backbones', 'BACKBONES')


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training and test configuration.

    The defaults are those of the baseline of PFDet's Table 1 at full size. Each row of a table is
    the row before it, or the one it is compared with, plus the change that it names.

    Raises:
        InputError: A value is not in the domain of its field, or two values contradict each other.
    """

    name: str = _name('table1-baseline', word(100), 'how to ask for it')
    about: str = _name('', text(1000), "what it is, in the table's words")
    size: str = _name(
        'full',
        one_of('full', 'mini'),
        "'full', the paper's, or 'mini', for two CPU cores",
        trains=True,
        on_resume=False,
    )
    backbone: str = _network('se_resnext101', _BACKBONE, 'a key of pfdet.links.backbones.BACKBONES')
    fpn_channel: int = _network(256, integer(4, 4096, 4), 'channels of the feature pyramid')
    fpn_scale: int = _network(4, one_of(4, 5), 'feature maps of the top-down path, 4 or 5')
    fpn_bn: bool = _network(True, BOOLEAN, 'batch normalization in the feature pyramid')
    psp: bool = _network(False, BOOLEAN, 'pyramid pooling on C5')
    head_bn: bool = _network(False, BOOLEAN, 'batch normalization in the head')
    context: bool = _network(
        False, BOOLEAN, 'the head also pools features from a box of twice the area'
    )
    class_agnostic: bool = _network(True, BOOLEAN, 'one box for all classes, or one per class')
    head_conv: int = _network(
        0, integer(0, 16), '3x3 convolutions in the head before its fully connected layers'
    )
    head_fc: int = _network(2, integer(1, 4), "the head's fully connected layers")
    head_unit: int = _network(1024, integer(1, 65_536), 'units of each of them')
    canonical_size: int = _network(
        224, integer(1, 10_000), 'side in pixels of a box pooled from the third level'
    )
    roi_size: int = _network(7, integer(1, 64), 'bins of RoIAlign by height and by width')
    roi_sampling: int = _network(2, integer(1, 16), 'samples per bin by height and by width')
    prior: float = _network(
        0.01,
        number(1e-6, 1, below=True),
        'sigmoid score of every class before training; not used with a background class',
    )
    frozen_bn: str = _network(
        '',
        one_of('', 'backbone', 'all'),
        "batch normalization that keeps its statistics, scale and shift: 'backbone', 'all', or "
        'empty for none',
    )
    frozen_stages: int = _network(
        0,
        integer(0, 5),
        'stages of the backbone that are not trained: 1 for the stem, 2 for the stem and the '
        'first residual stage, and so on',
    )
    dtype: str = _network(
        'float32',
        one_of(*known.DTYPES),
        "'float32', 'mixed16' for activations in float16 and a loss scale, or 'float64' to compare "
        'runs beyond rounding',
    )
    anchor_size: int = _proposals(
        32, integer(1, 10_000), 'side in pixels of an anchor on the first level'
    )
    anchor_ratios: tuple[float, ...] = _proposals(
        (0.5, 1.0, 2.0), sequence(number(0.01, 100), 1, 20), 'height over width'
    )
    anchor_border: int = _proposals(
        -1,
        integer(-1, 10_000),
        'pixels by which an anchor that the RPN learns from may cross the border of the image; '
        '-1 for no limit, as in Detectron2 and MMDetection',
    )
    n_anchor: int = _proposals(256, _COUNT, 'anchors per image that the RPN learns from')
    rpn_positive_iou: float = _proposals(
        0.7, _POSITIVE_SHARE, 'IoU with an object from which an anchor is positive'
    )
    rpn_negative_iou: float = _proposals(
        0.3, _SHARE, 'IoU with all objects below which an anchor is negative'
    )
    rpn_positive_share: float = _proposals(
        0.25, _POSITIVE_SHARE, 'largest share of positives among the anchors'
    )
    rpn_nms: float = _proposals(
        0.7, _POSITIVE_SHARE, 'IoU from which a proposal is suppressed', at_test=True
    )
    n_roi: int = _proposals(512, _COUNT, 'regions per image that the head learns from')
    roi_foreground_iou: float = _proposals(
        0.5, _POSITIVE_SHARE, 'IoU from which a region is assigned to an object'
    )
    roi_foreground_share: float = _proposals(
        0.25, _POSITIVE_SHARE, 'largest share of regions with an object'
    )
    train_proposals: tuple[int, int] = _proposals(
        (2000, 2000),
        sequence(_COUNT, 2, 2),
        'proposals per level before NMS and per image after it, in training',
    )
    test_proposals: tuple[int, int] = _test(
        (1000, 1000),
        sequence(_COUNT, 2, 2),
        'proposals per level before NMS and per image after it',
    )
    loss: str = _loss('sigmoid', _LOSS, 'a key of pfdet.functions.losses.LOSSES')
    score: str = _test(
        '',
        _SCORE,
        'a key of pfdet.functions.losses.SCORES; empty for sigmoid or softmax, as the loss is',
    )
    normalize: str = _loss(
        '',
        one_of('', *known.NORMALIZATIONS),
        'what the loss is divided by (pfdet.functions.closed_form.divisor); empty for what '
        'goes with the loss',
    )
    focal_alpha: float = _loss(
        0.25, number(0, 1, above=True, below=True), 'alpha of the focal loss'
    )
    focal_gamma: float = _loss(2.0, number(0, 100), 'gamma of the focal loss')
    hierarchy_rate: float = _loss(
        1.0,
        _SHARE,
        'concurrent rate of a class and its ancestor: 1 for the effect that Peng et al. '
        'describe, 0 for their letter',
        at_test=True,
    )
    effective_beta: float = _loss(
        0.0,
        number(0, 1, below=True),
        'beta of class weights by the effective number of objects; 0 for no weights',
    )
    join_iou: float = _labels(
        1.0,
        _POSITIVE_SHARE,
        'boxes of an image with this IoU are one object and share their labels, as Peng et '
        'al. count objects; 1 for equal boxes only',
    )
    expand_ancestors: bool = _labels(
        True, BOOLEAN, "an object is also positive for its classes' ancestors"
    )
    ignore_descendants: bool = _labels(
        True, BOOLEAN, "ignore the descendants of an object's class that is no leaf"
    )
    ignore_absent: bool = _labels(
        False, BOOLEAN, 'ignore descendants also where they were verified as absent'
    )
    ignore_group_of: bool = _labels(
        True,
        BOOLEAN,
        'ignore the classes of a group-of box, and their descendants under '
        'ignore_descendants, in regions inside it',
    )
    cooccurrence: bool = _labels(
        False, BOOLEAN, 'ignore parts and possessions inside their subjects (co-occurrence loss)'
    )
    cooccurrence_pairs: str = _labels(
        '', text(4096), "CSV file of the pairs; empty for the 47 of PFDet's Table 3"
    )
    inside_share: float = _labels(
        0.5,
        _POSITIVE_SHARE,
        'a region is inside its subject with at least this share of its area',
    )
    ignore_verified: bool = _labels(
        False, BOOLEAN, 'ignore parts and possessions also where they were verified as absent'
    )
    expand_scores: bool = _test(
        False,
        BOOLEAN,
        "a class gets the highest of its own and its descendants' scores, for losses that do not "
        'teach ancestors',
    )
    sampler: str = _images(
        'sequential',
        one_of(*known.SAMPLERS),
        "'sequential', 'class_aware' or 'soft_balance'",
    )
    soft_balance_lambda: float = _images(
        0.7,
        number(0, 10),
        'of soft_balance: 0 draws classes in proportion to their images, 1 all equally often',
    )
    aspect_chunk: int = _images(
        512,
        integer(1, 1_000_000),
        'images of similar aspect ratio in a row; 1 for no grouping. Neither paper mentions '
        "it; Detectron groups a rank's images so",
    )
    min_size: tuple[int, int] = _images(
        (800, 800),
        sequence(EDGE, 2, 2, rising=True),
        "range of the shorter edge's length in training",
    )
    max_size: int = _images(1333, EDGE, 'limit of the longer edge', at_test=True)
    flip: bool = _images(True, BOOLEAN, 'flip half of the training images')
    color_jitter: float = _images(
        0.0,
        number(0, 1),
        'strength of random changes of brightness, contrast, saturation and hue',
    )
    crop: float = _images(
        1.0, number(0.01, 1), 'smallest share of the image that a random crop keeps; 1 for none'
    )
    rotation: float = _images(0.0, number(0, 180), 'largest angle in degrees of a random rotation')
    batch_size: int = _images(
        1, integer(1, 1024), 'images per rank and iteration', at_test=True, on_resume=True
    )
    init: str = _schedule(
        'imagenet',
        word(100),
        "what the paper starts from: 'imagenet', a backbone trained on it; 'scratch'; or the "
        'recipe whose weights it fine-tunes. --init gives the weights',
        on_resume=True,
    )
    epochs: float = _schedule(
        12.0, number(0, 1e9, above=True), 'passes over the training set', on_resume=True
    )
    iterations: int = _schedule(
        0,
        integer(0, 1_000_000_000),
        'length of the run in iterations of lr_batch_size images, in place of epochs; 0 for these',
        on_resume=True,
    )
    schedule: str = _schedule('step', one_of(*known.SCHEDULES), "'step' or 'cosine'")
    steps: tuple[float, ...] = _schedule(
        (8 / 12, 11 / 12),
        sequence(_SHARE, 0, 20, rising=True),
        'of the step schedule, as shares of the run',
    )
    base_lr: float = _schedule(
        0.01,
        number(1e-8, 100),
        'learning rate at a global batch of lr_batch_size; scaled linearly',
    )
    lr_batch_size: int = _schedule(8, integer(1, 1_000_000), 'see base_lr')
    warmup_epochs: float = _schedule(
        0.5, number(0, 1e9), 'epochs over which the rate grows linearly'
    )
    warmup_iterations: int = _schedule(
        0,
        integer(0, 10_000_000),
        'iterations over which it does, in place of warmup_epochs; 0 for these',
    )
    warmup_start: float = _schedule(0.1, _SHARE, 'share of the rate that the warm-up starts from')
    momentum: float = _schedule(0.9, number(0, 1, below=True), 'of SGD with corrected momentum')
    weight_decay: float = _schedule(
        1e-4, number(0, 1, below=True), 'of SGD; none on batch normalization and biases'
    )
    expert_size: int = _expert(
        0, integer(0, 100_000), 'classes of an expert model; 0 for a model of all classes'
    )
    expert_head: str = _expert(
        'masked',
        one_of('masked', 'cut'),
        "how an expert treats other classes: 'masked', its loss omits them but rules and "
        "boxes know them; 'cut', they are background",
    )
    test_sizes: tuple[int, ...] = _test(
        (800,), sequence(EDGE, 1, 50), 'lengths of the shorter edge; their outputs are joined'
    )
    test_flip: bool = _test(False, BOOLEAN, 'also predict the horizontally flipped images')
    score_thresh: float = _test(0.01, number(0, 1, below=True), 'lowest score of a detection')
    suppression: str = _test(
        'nmw',
        one_of('nmw', 'nms', 'none'),
        "'nmw', non-maximum weighted, 'nms', non-maximum suppression, or 'none'",
    )
    suppression_iou: float = _test(
        0.5, _POSITIVE_SHARE, 'IoU from which boxes of a class count as one object'
    )
    max_per_image: int = _test(300, _COUNT, 'detections of an image that are kept, best first')

    @property
    def parameter_dtype(self) -> str:
        """Type of parameters, gradients and statistics."""
        return 'float32' if self.dtype == known.MIXED else self.dtype

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value, domain = getattr(self, field.name), field.metadata['domain']
            if not domain.accepts(value):
                raise InputError(
                    f'recipe {self.name!r}: {field.name}={value!r}: expected {domain.expected}'
                )
        for contradiction in contradictions(self):
            raise InputError(f'recipe {self.name!r}: {contradiction}')


def _attributes() -> str:
    lines = [
        f'        {f.name} ({type(f.default).__name__}): {f.metadata["about"]}.'
        for f in dataclasses.fields(Recipe)
    ]
    return '\n'.join(['    Attributes:', *lines, '', '    Raises:'])


Recipe.__doc__ = (Recipe.__doc__ or '').replace('    Raises:', _attributes())


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
