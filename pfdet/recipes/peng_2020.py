"""The rows of the tables of Peng et al. (2020), Large-Scale Object Detection in the Wild.

Section 5.2: ResNet-50 with FPN "following the setting mentioned in Detectron", shorter edge 800 and
longer edge up to 1333, 7 epochs with a tenth of the learning rate from epochs 4 and 6, a rate of
0.00125 per sample (0.01 for eight), weight decay 0.0001, batch normalization over all ranks.
From Detectron: one box per class, half of the RPN's anchors positive at most, a warm-up of 500
iterations from a third of the rate, non-maximum suppression at an IoU of 0.5, scores from 0.05, 100
detections per image.
Objects are groups of boxes with an IoU of 0.9, which share their labels.

Choices of these recipes where the paper is silent:

- "Balance" in Table 1 is class-aware sampling, as section 5.3 says.
- One-label softmax learns the most specific label. In prediction, the score of a parent is the
  highest of its own and its descendants' scores, in all rows (``expand_scores=False`` for none).
- Tables 1 and 3 score by softmax, whatever the training: their figures recur in Table 2.
- The descendants of a parent label are negative. Ignoring them (``ignore_descendants``) is PFDet's
  rule. Co-BCE adds PFDet's co-occurrence loss and nothing else.
- The beta of the effective number is 0.999.
- The second stage of the hybrid schedule has the learning rate of the first.
- Multi-scale training and testing in Table 5 use PFDet's range: its ends and 800. Testing has no
  flips, which the paper does not mention.
- "Other Tricks" are "data augmentation, loss function search, and heavier head". The strengths of
  the augmentation are common ones. The head is that of Wu and He (2018), Group Normalization: four
  convolutions and one fully connected layer. What the search found is not told, so the loss is
  unchanged. Both stages of the schedule have the tricks, since their weights must match.
- The ensemble has ResNeXt-101, ResNeXt-152 and EfficientNet-B7 "with various tricks": each is
  trained like the row before it.
"""

from dataclasses import replace

from pfdet.recipes.composite import Composite, Table
from pfdet.recipes.recipe import Recipe

RESNET50 = Recipe(
    backbone='resnet50',
    loss='softmax',
    class_agnostic=False,
    rpn_positive_share=0.5,
    warmup_iterations=500,
    warmup_start=1 / 3,
    suppression='nms',
    suppression_iou=0.5,
    score_thresh=0.05,
    max_per_image=100,
    ignore_descendants=False,
    expand_scores=True,
    join_iou=0.9,
    epochs=7.0,
    steps=(4 / 7, 6 / 7),
    base_lr=0.01,
    lr_batch_size=8,
)
RESNEXT152 = replace(RESNET50, backbone='resnext152')


def _row(table: int, base: Recipe, name: str, about: str, **fields) -> Recipe:
    return replace(
        base, name=f'cs-table{table}-{name}', about=f'Peng et al. Table {table}: {about}', **fields
    )


# Table 1, losses
SOFTMAX = _row(1, RESNET50, 'softmax', 'Softmax Loss, non-balance')
CONCURRENT = _row(
    1, SOFTMAX, 'concurrent', 'Concurrent Softmax Loss, non-balance', loss='concurrent_softmax'
)
BALANCED = _row(1, SOFTMAX, 'softmax-balanced', 'Softmax Loss, balanced', sampler='class_aware')
BCE = _row(1, BALANCED, 'bce', 'BCE Loss, balanced', loss='sigmoid')
TABLE1 = (
    _row(1, BALANCED, 'focal', 'Focal Loss, balanced', loss='focal'),
    BCE,
    _row(1, BCE, 'co-bce', 'Co-BCE Loss, balanced', cooccurrence=True),
    _row(1, BALANCED, 'dist-ce', 'dist-CE Loss, balanced', loss='dist_ce'),
    SOFTMAX,
    CONCURRENT,
    BALANCED,
    _row(
        1,
        BALANCED,
        'concurrent-balanced',
        'Concurrent Softmax Loss, balanced',
        loss='concurrent_softmax',
    ),
)

# Table 2, losses and scores
_BOTH = _row(2, BALANCED, 'softmax-softmax', 'trained and tested with softmax')
_TRAINED = _row(
    2,
    _BOTH,
    'concurrent-softmax',
    'trained with concurrent softmax, tested with softmax',
    loss='concurrent_softmax',
)
TABLE2 = (
    _BOTH,
    _row(
        2,
        _BOTH,
        'softmax-concurrent',
        'trained with softmax, tested with concurrent softmax',
        score='concurrent_softmax',
    ),
    _TRAINED,
    _row(
        2,
        _TRAINED,
        'concurrent-concurrent',
        'trained and tested with concurrent softmax',
        score='concurrent_softmax',
    ),
)

# Table 3, sampling
_NON_BALANCE = _row(3, RESNET50, 'non-balance', 'Non-balance')
TABLE3 = (
    _NON_BALANCE,
    _row(3, _NON_BALANCE, 'class-aware', 'Class-aware Sampling', sampler='class_aware'),
    _row(3, _NON_BALANCE, 'effective-number', 'Effective Number', effective_beta=0.999),
    *(
        _row(
            3,
            _NON_BALANCE,
            f'soft-{lam}',
            f'Soft-balance, lambda {lam}',
            sampler='soft_balance',
            soft_balance_lambda=lam,
        )
        for lam in (0.3, 0.5, 0.7, 1.0, 1.5)
    ),
)

# Table 4, schedules; the steps are shares of the run, whatever its epochs.
_I7 = _row(4, RESNEXT152, 'non-balance-7', 'Non-balance, ImageNet, 7 epochs')
_LONGER = {
    n: _row(4, _I7, f'non-balance-{n}', f'Non-balance, ImageNet, {n} epochs', epochs=float(n))
    for n in (11, 14, 16)
}
_S20 = _row(
    4, RESNEXT152, 'scratch-20', 'Non-balance, from scratch, 20 epochs', epochs=20.0, init='scratch'
)
_CLASS_AWARE = _row(
    4, _I7, 'class-aware-7', 'Class-aware Sampling, ImageNet, 7 epochs', sampler='class_aware'
)
_HYBRID = _row(
    4,
    _CLASS_AWARE,
    'hybrid-s20',
    'Class-aware Sampling, Non-balance S20, 20+7 epochs',
    init=_S20.name,
)
SOFT_BALANCE = _row(
    4, _HYBRID, 'soft-balance', 'Soft-balance, Non-balance S20, 20+7 epochs', sampler='soft_balance'
)
TABLE4 = (
    _I7,
    *_LONGER.values(),
    _S20,
    _CLASS_AWARE,
    _row(
        4, _CLASS_AWARE, 'class-aware-14', 'Class-aware Sampling, ImageNet, 14 epochs', epochs=14.0
    ),
    _row(
        4,
        _CLASS_AWARE,
        'hybrid-i14',
        'Class-aware Sampling, Non-balance I14, 14+7 epochs',
        init=_LONGER[14].name,
    ),
    _HYBRID,
    SOFT_BALANCE,
    _row(
        4,
        SOFT_BALANCE,
        'soft-balance-concurrent',
        'Soft-balance with concurrent softmax in training and testing, Non-balance S20, '
        '20+7 epochs',
        loss='concurrent_softmax',
        score='concurrent_softmax',
    ),
)

# Table 5, the way to the submission
_BASELINE = _row(
    5,
    RESNEXT152,
    'baseline',
    'Baseline (ResNeXt-152), multi-scale training and testing',
    min_size=(640, 1056),
    max_size=1760,
    test_sizes=(640, 800, 1056),
)
_STEP1 = _row(5, _BASELINE, 'class-aware', '+ Class-aware Sampling', sampler='class_aware')
_STEP2 = _row(
    5,
    _STEP1,
    'concurrent',
    '+ Concurrent Softmax Loss',
    loss='concurrent_softmax',
    score='concurrent_softmax',
)
_STEP3 = _row(5, _STEP2, 'soft-balance', '+ Soft-balance', sampler='soft_balance')


def _two_stages(
    first: Recipe, second: Recipe, name: str, about: str, first_name: str, **fields
) -> tuple[Recipe, Recipe]:
    """The hybrid schedule: a first stage from scratch, and a second one from its weights."""
    before = _row(
        5,
        first,
        first_name,
        'the first stage of the next row, 20 epochs from scratch',
        epochs=20.0,
        init='scratch',
        **fields,
    )
    return before, _row(5, second, name, about, init=before.name, **fields)


_HYBRID_STAGES = _two_stages(
    _BASELINE, _STEP3, 'hybrid', '+ Hybrid Training Scheduler', 'first-stage'
)
_TRICKS = _two_stages(
    _BASELINE,
    _STEP3,
    'other-tricks',
    '+ Other Tricks',
    'other-tricks-first-stage',
    color_jitter=0.4,
    crop=0.5,
    rotation=10.0,
    head_conv=4,
    head_fc=1,
)
_MEMBERS = [
    _two_stages(
        *_TRICKS, name, f'{title} of the ensemble', f'{name}-first-stage', backbone=backbone
    )
    for name, title, backbone in (
        ('resnext101', 'ResNeXt-101', 'resnext101'),
        ('efficientnet-b7', 'EfficientNet-B7', 'efficientnet_b7'),
    )
]
_ENSEMBLE = Composite(
    'cs-table5-ensemble',
    'Peng et al. Table 5: + Ensemble of ResNeXt-101, ResNeXt-152 and EfficientNet-B7',
    (_MEMBERS[0][-1].name, _TRICKS[-1].name, _MEMBERS[1][-1].name),
)
TABLE5 = (
    _BASELINE,
    _STEP1,
    _STEP2,
    _STEP3,
    *_HYBRID_STAGES,
    *_TRICKS,
    *(recipe for stages in _MEMBERS for recipe in stages),
    _ENSEMBLE,
)

TABLES = {
    'cs-table1': Table('Peng et al. (2020), Table 1: losses', TABLE1),
    'cs-table2': Table(
        'Peng et al. (2020), Table 2: losses in training and scores in testing', TABLE2
    ),
    'cs-table3': Table('Peng et al. (2020), Table 3: sampling', TABLE3),
    'cs-table4': Table('Peng et al. (2020), Table 4: schedules', TABLE4),
    'cs-table5': Table('Peng et al. (2020), Table 5: the way to the submission', TABLE5),
}
