"""The rows of PFDet's tables, and the recipe of the quickstart.

Each row is the previous one plus the change it names.

Choices where the paper is silent:

- Test-time augmentation has "multiple scales with and without horizontal flip": here the ends of
  the training range, and the size of single-scale testing between them.
- The single best model is the last row of Table 1. Experts are fine-tuned from it.
- "All the others" of Table 2, and which experts are in its ensemble:
  :mod:`pfdet.training.tables.composites`.
"""

from dataclasses import replace

from pfdet.recipes.composite import FULL, OTHERS, Composite, Table
from pfdet.recipes.mini import at_size
from pfdet.recipes.recipe import Recipe

BASELINE = Recipe(
    name='table1-baseline',
    about='PFDet Table 1: Baseline (FPN with SE-ResNeXt-101), sigmoid loss, 12 epochs, a tenth of '
    'the learning rate from epochs 8 and 11',
)


def _row(previous: Recipe, name: str, about: str, **fields) -> Recipe:
    return replace(previous, name=f'table1-{name}', about=f'PFDet Table 1: {about}', **fields)


MULTISCALE = _row(
    BASELINE, 'multiscale', '+ multi-scale training', min_size=(640, 1056), max_size=1760
)
PSP = _row(MULTISCALE, 'psp', '+ PSP and add BN to head', psp=True, head_bn=True)
COSINE = _row(PSP, 'cosine', '+ Cosine Annealing', schedule='cosine')
SCALE = _row(COSINE, 'scale', '+ Add FPN scale', fpn_scale=5)
COOCCURRENCE = _row(SCALE, 'cooccurrence', '+ Co-occurrence loss', cooccurrence=True)
EPOCHS = _row(COOCCURRENCE, 'epochs', '+ 16 epochs', epochs=16.0)
CONTEXT = _row(EPOCHS, 'context', '+ Context head', context=True)
SENET = _row(
    CONTEXT,
    'senet154',
    '+ SENet-154 and additional anchors',
    backbone='senet154',
    anchor_ratios=(1 / 3, 0.5, 1.0, 2.0, 3.0),
)

MINI = replace(
    at_size(replace(COOCCURRENCE, psp=False, fpn_scale=4), 'mini'),
    name='mini',
    epochs=8.0,
    about='The quickstart: multi-scale training, BN in the head, cosine annealing and '
    'co-occurrence loss at mini scale',
)
WITHOUT_COOCCURRENCE = replace(
    MINI,
    name='mini-without-cooccurrence',
    cooccurrence=False,
    about='The quickstart: the same without co-occurrence loss',
)

# "Identical setup except for the co-occurrence loss"
TABLE3 = (
    replace(SCALE, name='table3-baseline', about='PFDet Table 3: Baseline'),
    replace(COOCCURRENCE, name='table3-cooccurrence', about='PFDet Table 3: Co-occurrence'),
)

# Experts, fine-tuned from a full model. The paper gives neither length nor learning rate: here they
# are eight epochs of the images that an expert has on average, and a tenth of the full model's
# rate.
EXPERTS = tuple(
    replace(
        SENET,
        name=f'expert-class{size}',
        init=SENET.name,
        expert_size=size,
        epochs=8.0,
        base_lr=0.001,
        about=f'PFDet Tables 2 and 4: experts of {size} classes each',
    )
    for size in (10, 20, 40)
)
COCO = replace(
    EXPERTS[0],
    name='expert-coco',
    # One expert, since Open Images has 601 boxable classes.
    expert_size=601,
    about='PFDet Table 2: one expert of all classes of a second data set, such as COCO',
)

# Each step adds models to those of the previous one.
_SINGLE = Composite(
    'table2-single',
    'PFDet Table 2: Single best model, with test-time augmentation',
    (FULL,),
    sizes=(640, 800, 1056),
    flip=True,
)


def _step(previous: Composite, name: str, about: str, *added: str) -> Composite:
    return replace(
        previous,
        name=f'table2-{name}',
        about=f'PFDet Table 2: {about}',
        models=(*previous.models, *added),
    )


_CLASS10, _CLASS20, _CLASS40 = (expert.name for expert in EXPERTS)
_STEP1 = _step(_SINGLE, 'class20-experts', '+ class20 experts', _CLASS20)
_STEP2 = _step(_STEP1, 'class10-experts', '+ class10 experts', _CLASS10)
_STEP3 = _step(_STEP2, 'all', '+ All the others except COCO', OTHERS)
_STEP4 = _step(_STEP3, 'coco', '+ COCO', COCO.name)
_STEP5 = replace(_step(_STEP4, 'class-weight', '+ class-weight ensemble'), class_weights=True)
TABLE2 = (_SINGLE, _STEP1, _STEP2, _STEP3, _STEP4, _STEP5)

TABLE4 = tuple(
    Composite(f'table4-{name}', f'PFDet Table 4: {about}', (model,), alone=True)
    for name, about, model in (
        ('full', 'Full', FULL),
        ('class10', 'Class10 experts', _CLASS10),
        ('class40', 'Class40 experts', _CLASS40),
    )
)

TABLE1 = (BASELINE, MULTISCALE, PSP, COSINE, SCALE, COOCCURRENCE, EPOCHS, CONTEXT, SENET)
TABLES = {
    'table1': Table('PFDet 2018, Table 1: single model', TABLE1),
    'table2': Table('PFDet 2018, Table 2: ensemble of models', TABLE2),
    'table3': Table('PFDet 2018, Table 3: co-occurrence loss', TABLE3),
    'table4': Table('PFDet 2018, Table 4: experts', TABLE4),
    'experts': Table(
        'PFDet 2018, Tables 2 and 4: the experts in them, for pfdet train-experts',
        (*EXPERTS, COCO),
    ),
    'mini': Table('At mini scale only', (MINI, WITHOUT_COOCCURRENCE)),
}
