"""Every recipe field with odd values: accepted values can train, others end with one line."""

import dataclasses

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.functions.closed_form import NORMALIZATIONS
from pfdet.functions.losses import LOSSES, SCORES
from pfdet.links.backbones import ALIASES, BACKBONES
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import known
from pfdet.recipes.recipe import Recipe
from pfdet.training import build
from pfdet.training.schedules import learning_rate

FIELDS = [f.name for f in dataclasses.fields(Recipe)]
ODD = [
    '0',
    '-0.0',
    '-1',
    '1e-300',
    'nan',
    '1e309',
    '-1e309',
    '1e300',
    '9' * 400,
    '9' * 5000,
    '2**63',
    '0.5',
    '33',
    'True',
    'None',
    '',
    'x',
    '../x\ny',
    '\x1b[31m',
    "b'x'",
    '[]',
    '()',
    '{}',
    '(0, 0)',
    '(1e309, 1)',
    '(5, 3)',
    '(1, 2, 3)',
    "('a', 'b')",
    '[[1, 2], [3]]',
    '(' * 300,
    '[' * 20_000,
]
SMALL = ['n_roi=8', 'n_anchor=8', 'fpn_channel=8', 'head_unit=8', 'train_proposals=(20, 20)']


@pytest.mark.faults('values of recipe fields')
@pytest.mark.parametrize('field', FIELDS)
def test_odd_values(field, tried):
    tried(len(ODD))
    base = recipes.override(recipes.find('mini'), SMALL)
    n_refused = 0
    for value in ODD:
        setting = f'{field}={value}'
        try:
            recipe = recipes.override(base, [setting])
        except InputError as e:
            n_refused += 1
            message = str(e)
            assert message.isprintable() and len(message) < 700, setting
            assert field in message and 'expected' in message, (setting, message)
            continue
        check_can_train(recipe, setting)
    # No field takes them all.
    assert n_refused >= (10 if field == 'about' else 15), n_refused


def check_can_train(recipe, setting):
    """Build what the field goes into; nothing may fail or be without effect."""
    for value in dataclasses.asdict(recipe).values():
        for number in value if isinstance(value, (tuple, list)) else [value]:
            assert not isinstance(number, float) or np.isfinite(number), setting
    classes = Classes(('a', 'b'), ('A', 'B'))
    try:
        network = build.detector(recipe, 2, rates=np.zeros((2, 2), np.float32))
        counts = np.array([3, 4])
        build.train_chain(recipe, network, classes, flat_hierarchy(2), 0, None, counts)
    except InputError:
        # A file of the user's
        assert setting.startswith('cooccurrence_pairs')
    rate = learning_rate(
        5, 10, recipe.base_lr, recipe.schedule, recipe.steps, 8, recipe.warmup_start
    )
    assert 0 < rate < np.inf, setting


@pytest.mark.parametrize(
    'settings, message',
    [
        (['epoch=3'], "unknown recipe field 'epoch'; did you mean epochs"),
        (['learning_rate=3'], "unknown recipe field 'learning_rate'"),
        (['base_lr=nan'], "base_lr='nan': expected float"),
        (['base_lr=1e309'], 'base_lr=inf: expected a number from 1e-08 to 100'),
        (['fpn_channel=33'], 'fpn_channel=33: expected a multiple of 4 from 4 to 4,096'),
        (['batch_size=0'], 'batch_size=0: expected an integer from 1 to 1,024'),
        (['fpn_scale=0'], 'fpn_scale=0: expected one of 4, 5'),
        (['test_proposals=(5,)'], 'test_proposals=.5,.: expected 2 values'),
        (['min_size=(900, 950)'], 'min_size=.900, 950.: expected at most max_size=338'),
        (['min_size=(90, 80)'], 'none smaller than the one before it'),
        (['rpn_negative_iou=0.8'], 'expected at most rpn_positive_iou=0.7'),
        (['n_anchor=3'], 'rpn_positive_share=0.25: expected at least 1 of n_anchor=3'),
        (['roi_foreground_share=0.001'], 'expected at least 1 of n_roi=128'),
        (['loss=softmax', 'score=sigmoid'], "does not go with loss='softmax'"),
        (['backbone=resnet5'], "backbone='resnet5': expected one of 'resnet50'"),
    ],
)
def test_messages(settings, message):
    with pytest.raises(InputError, match=message):
        recipes.override(recipes.find('mini'), settings)


@pytest.mark.parametrize('fields', [None, [], 3, 'x', {3: 4}, {'batch_size': 0}, {'epochs': [1]}])
def test_json_by_hand(fields):
    with pytest.raises(InputError, match='here: '):
        recipes.from_dict(fields, 'here')


def test_a_recipe_made_in_python_is_checked_too():
    with pytest.raises(InputError, match="recipe 'mini': epochs=nan: expected a number above 0"):
        dataclasses.replace(recipes.find('mini'), epochs=float('nan'))


def test_former_names():
    recipe = recipes.override(recipes.find('mini'), ['test_size=64', 'nmw_thresh=0.4'])
    assert recipe.test_sizes == (64,) and recipe.suppression_iou == 0.4
    assert recipes.from_dict({'scale': 'mini', 'test_size': 96}, 'here').test_sizes == (96,)


def test_names_that_an_extension_registers(monkeypatch):
    monkeypatch.setitem(LOSSES, 'of an extension', LOSSES['focal'])
    recipe = recipes.override(recipes.find('mini'), ['loss=of an extension'])
    assert recipe.loss == 'of an extension'


def test_known_names_are_those_of_the_registries():
    assert set(known.BACKBONES) == {*BACKBONES, *ALIASES}
    assert set(known.LOSSES) == set(LOSSES) and set(known.SCORES) == set(SCORES)
    assert set(known.WITHOUT_BACKGROUND) == {k for k, v in LOSSES.items() if not v.background}
    assert known.NORMALIZATIONS == NORMALIZATIONS
    rates = {learning_rate(7, 10, 1.0, schedule) for schedule in known.SCHEDULES}
    assert len(rates) == len(known.SCHEDULES)
    with pytest.raises(ValueError):
        learning_rate(7, 10, 1.0, 'other')


def test_each_known_sampler_is_another_one(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    samplers = [
        build.sampler(dataclasses.replace(recipes.find('mini'), sampler=name), index, 0)
        for name in known.SAMPLERS
    ]
    orders = {tuple(sampler[i] for i in range(200)) for sampler in samplers}
    assert len(orders) == len(known.SAMPLERS)
