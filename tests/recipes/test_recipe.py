import dataclasses
import json

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.pfdet_2018 import TABLE1
from pfdet.recipes.recipe import fields_that
from pfdet.training import build
from pfdet.training.transforms import Converter, TrainLoader


def differing(a, b):
    return {f.name for f in dataclasses.fields(a) if getattr(a, f.name) != getattr(b, f.name)} - {
        'name',
        'about',
    }


@pytest.mark.parametrize('scale', ['full', 'mini'])
def test_each_row_of_table1_is_the_previous_one_plus_the_change_it_names(scale):
    rows = [recipes.at_size(r, scale) for r in TABLE1]
    assert [differing(previous, row) for previous, row in zip(rows, rows[1:])] == [
        {'min_size', 'max_size'},
        {'psp', 'head_bn'},
        {'schedule'},
        {'fpn_scale'} if scale == 'full' else {'fpn_scale', 'anchor_size'},
        {'cooccurrence'},
        {'epochs'},
        {'context'},
        {'backbone', 'anchor_ratios'} if scale == 'full' else {'anchor_ratios'},
    ]


LOSSES = [
    dataclasses.replace(recipes.find('mini'), name=loss, loss=loss)
    for loss in ('multi_label_softmax',)
]
# One row of Peng et al. (2020) for each loss, score and sampler; the backbones are tested above.
OTHERS = [
    r
    for r in recipes.RECIPES.values()
    if r.name.startswith(('cs-table1', 'cs-table2'))
    or r.name in ('cs-table3-effective-number', 'cs-table3-soft-0.7')
]


@pytest.mark.parametrize('recipe', [*TABLE1, *LOSSES, *OTHERS], ids=lambda r: r.name)
def test_each_row_builds_and_takes_a_step_at_mini_scale(recipe, small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.at_size(recipe, 'mini')
    rates = np.full((len(index.classes),) * 2, 0.1, np.float32)
    network = build.detector(recipe, len(index.classes), rates=rates)
    counts = np.full(len(index.classes), 3)
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0, rates, counts)
    order = build.sampler(recipe, index, 0)
    load = TrainLoader(OpenImagesDataset(index), (64, 64), 256, True, 0)
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.01).setup(chain)
    before = {name: p.array.copy() for name, p in network.namedparams()}
    optimizer.update(chain, Converter(index.hierarchy)([load(order[i], i, 0) for i in range(2)]))
    moved = {name for name, p in network.namedparams() if (p.array != before[name]).any()}
    # Two small images may have nothing to learn for box offsets and the coarsest outputs.
    assert all(
        name.startswith(('/head/loc/', '/extractor/outer/')) for name in before.keys() - moved
    )
    assert all(np.isfinite(p.array).all() for p in network.params())


def test_settings_of_the_baseline():
    r = recipes.find('table1-baseline')
    # Ren et al., Faster R-CNN, section 3.1.2, and Girshick, Fast R-CNN, section 2.3, with
    # ChainerCV's shares
    assert (r.rpn_positive_iou, r.rpn_negative_iou, r.rpn_positive_share) == (0.7, 0.3, 0.25)
    assert (r.roi_foreground_iou, r.roi_foreground_share) == (0.5, 0.25)
    assert (r.n_anchor, r.n_roi, r.rpn_nms, r.roi_size, r.roi_sampling) == (256, 512, 0.7, 7, 2)
    assert (r.base_lr, r.lr_batch_size) == (0.01, 8)
    assert r.epochs == 12 and [12 * s for s in r.steps] == [8, 11]
    assert recipes.find('table1-multiscale').min_size == (640, 1056)


def test_mini_scale_changes_sizes_not_switches():
    full = recipes.find('table1-multiscale')
    mini = recipes.find('table1-multiscale', 'mini')
    assert mini.size == 'mini' and mini.min_size == (128, 211)
    switches = {
        'fpn_bn',
        'head_bn',
        'loss',
        'cooccurrence',
        'sampler',
        'flip',
        'epochs',
        'schedule',
        'steps',
        'anchor_ratios',
        'momentum',
        'weight_decay',
    }
    assert not differing(full, mini) & switches


def test_settings_of_peng_et_al():
    r = recipes.find('cs-table1-softmax')
    assert (r.min_size, r.max_size, r.epochs) == ((800, 800), 1333, 7)
    assert [7 * s for s in r.steps] == [4, 6] and r.base_lr / r.lr_batch_size == 0.00125
    assert differing(r, recipes.find('cs-table4-non-balance-7')) == {'backbone'}


# The comparisons of the papers' tables: a row, the row it is compared with, and what differs.
@pytest.mark.parametrize(
    'row, against, field',
    [
        ('table3-cooccurrence', 'table3-baseline', 'cooccurrence'),
        ('cs-table1-focal', 'cs-table1-bce', 'loss'),
        ('cs-table1-co-bce', 'cs-table1-bce', 'cooccurrence'),
        ('cs-table1-bce', 'cs-table1-softmax-balanced', 'loss'),
        ('cs-table1-dist-ce', 'cs-table1-softmax-balanced', 'loss'),
        ('cs-table1-softmax-balanced', 'cs-table1-softmax', 'sampler'),
        ('cs-table1-concurrent', 'cs-table1-softmax', 'loss'),
        ('cs-table1-concurrent-balanced', 'cs-table1-softmax-balanced', 'loss'),
        ('cs-table1-concurrent-balanced', 'cs-table1-concurrent', 'sampler'),
        ('cs-table2-softmax-concurrent', 'cs-table2-softmax-softmax', 'score'),
        ('cs-table2-concurrent-softmax', 'cs-table2-softmax-softmax', 'loss'),
        ('cs-table2-concurrent-concurrent', 'cs-table2-concurrent-softmax', 'score'),
        ('cs-table3-class-aware', 'cs-table3-non-balance', 'sampler'),
        ('cs-table3-effective-number', 'cs-table3-non-balance', 'effective_beta'),
        ('cs-table3-soft-0.3', 'cs-table3-soft-0.7', 'soft_balance_lambda'),
        ('cs-table4-hybrid-s20', 'cs-table4-class-aware-7', 'init'),
        ('cs-table4-soft-balance', 'cs-table4-hybrid-s20', 'sampler'),
        ('cs-table5-class-aware', 'cs-table5-baseline', 'sampler'),
        ('cs-table5-soft-balance', 'cs-table5-concurrent', 'sampler'),
        ('cs-table5-hybrid', 'cs-table5-soft-balance', 'init'),
    ],
)
@pytest.mark.parametrize('scale', ['full', 'mini'])
def test_rows_that_a_table_compares_differ_in_one_field(row, against, field, scale):
    assert differing(recipes.find(row, scale), recipes.find(against, scale)) == {field}


def test_rows_with_the_same_figure_in_two_tables_are_the_same_recipe():
    for one, other in (
        ('cs-table1-softmax-balanced', 'cs-table2-softmax-softmax'),
        ('cs-table1-concurrent-balanced', 'cs-table2-concurrent-softmax'),
        ('cs-table1-softmax-balanced', 'cs-table3-class-aware'),
        ('cs-table1-softmax', 'cs-table3-non-balance'),
    ):
        assert not differing(recipes.find(one), recipes.find(other))


def test_what_a_recipe_starts_from_is_a_recipe():
    for recipe in recipes.RECIPES.values():
        assert recipe.init in ('imagenet', 'scratch', *recipes.RECIPES)


@pytest.mark.parametrize(
    'field, value, sampler, keyword',
    [
        ('n_anchor', 77, 'sample_anchors', 'n_sample'),
        ('rpn_positive_share', 0.4, 'sample_anchors', 'positive_share'),
        ('rpn_positive_iou', 0.65, 'sample_anchors', 'positive_iou'),
        ('rpn_negative_iou', 0.2, 'sample_anchors', 'negative_iou'),
        ('anchor_border', 3, 'sample_anchors', 'border'),
        ('n_roi', 99, 'sample_rois', 'n_sample'),
        ('roi_foreground_share', 0.3, 'sample_rois', 'foreground_share'),
        ('roi_foreground_iou', 0.6, 'sample_rois', 'foreground_iou'),
    ],
)
def test_sampling_fields_reach_the_samplers(field, value, sampler, keyword, small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.override(recipes.find('mini'), [f'{field}={value}'])
    network = build.detector(recipe, len(index.classes))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, 0)
    assert getattr(chain, sampler).keywords[keyword] == value


@pytest.mark.parametrize(
    'field, value, of',
    [
        ('rpn_nms', 0.6, lambda n: n.rpn.nms_thresh),
        ('anchor_size', 12, lambda n: n.rpn.anchor_size),
        ('roi_size', 5, lambda n: n.head.roi_size),
        ('roi_sampling', 3, lambda n: n.head.sampling_ratio),
        ('head_conv', 2, lambda n: n.head.n_conv),
        ('head_fc', 1, lambda n: n.head.n_fc),
        ('canonical_size', 40, lambda n: n.head.canonical_size),
        ('class_agnostic', False, lambda n: n.head.n_box == 1),
    ],
)
def test_network_fields_reach_the_network(field, value, of):
    network = build.detector(recipes.override(recipes.find('mini'), [f'{field}={value}']), 3)
    assert of(network) == value
    at_prior = build.detector(recipes.override(recipes.find('mini'), ['prior=0.2']), 3)
    bias = at_prior.head.conf.b.array
    np.testing.assert_allclose(1 / (1 + np.exp(-bias)), 0.2, rtol=1e-5)


def test_score_must_fit_the_loss():
    with pytest.raises(InputError, match="score='sigmoid': does not go with loss='softmax'"):
        build.detector(recipes.override(recipes.find('mini'), ['loss=softmax', 'score=sigmoid']), 3)


def test_json_round_trip():
    for recipe in recipes.RECIPES.values():
        fields = json.loads(json.dumps(recipes.to_dict(recipe)))
        assert recipes.from_dict(fields, 'here') == recipe


def test_settings_replace_fields():
    recipe = recipes.override(
        recipes.find('mini'),
        ['epochs=3', 'min_size=(96, 100)', 'schedule=step', 'flip=False', 'anchor_ratios=[1,2]'],
    )
    assert (recipe.epochs, recipe.min_size, recipe.schedule, recipe.flip, recipe.anchor_ratios) == (
        3.0,
        (96, 100),
        'step',
        False,
        (1.0, 2.0),
    )


@pytest.mark.parametrize(
    'setting, message',
    [
        ('epochs', 'KEY=VALUE'),
        ('epoch=3', "unknown recipe field 'epoch'"),
        ('epochs=many', 'expected float'),
        ('flip=1', 'expected bool'),
        ('min_size=(1, "a")', 'expected int'),
    ],
)
def test_bad_settings(setting, message):
    with pytest.raises(InputError, match=message):
        recipes.override(recipes.find('mini'), [setting])


def test_unknown_recipe_and_scale():
    with pytest.raises(InputError, match='no such recipe; expected one of table1-baseline'):
        recipes.find('table9')
    with pytest.raises(InputError, match='mini scale only'):
        recipes.find('mini', 'full')


def test_every_field_is_described():
    for field in dataclasses.fields(recipes.Recipe):
        assert field.metadata['about'] and field.metadata['group'], field.name
        assert f'{field.name} (' in recipes.Recipe.__doc__


def test_fields_that_may_change():
    """A field that only prediction uses may change in testing and on resuming."""
    only_test = set(fields_that(trains=False, at_test=True))
    assert {'score', 'test_sizes', 'suppression_iou'} <= only_test
    assert only_test <= set(fields_that(on_resume=True)) & set(fields_that(at_test=True))
    for name in 'backbone', 'loss', 'sampler', 'base_lr':
        assert name not in {*fields_that(at_test=True), *fields_that(on_resume=True)}


def test_the_former_name_of_a_field_is_read():
    mini = recipes.find('mini')
    fields = recipes.to_dict(mini)
    fields['scale'] = fields.pop('size')
    assert recipes.from_dict(fields, 'recipe.json') == mini
