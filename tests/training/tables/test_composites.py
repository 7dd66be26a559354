"""Which models a row of several models has."""

import dataclasses

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.evaluation.class_groups import class_groups
from pfdet.openimages.class_counts import count_classes
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.training.dry_run.synthetic_index import synthetic_index
from pfdet.training.experts import plan_experts
from pfdet.training.tables import experts
from pfdet.training.tables.composites import Composites
from pfdet.training.tables.experts import Ranks, in_ensemble, ranks_of_table4
from pfdet.training.tables.rows import Rows

TABLE4 = 'rank 11-100', 'rank 101-250', 'rank 251-350'


@pytest.fixture
def composites(tmp_path, monkeypatch):
    """Composite rows whose models are all trained."""
    monkeypatch.setattr(Rows, 'train', lambda rows, name, seed: rows.directory(name, seed))

    def fine_tune(rows, out, recipe, init, *_, class_range=None, **__):
        size = recipes.find(recipe).expert_size
        first, last = class_range or (1, size)
        return [
            out / f'classes-{k:03}-{min(k + size - 1, last):03}'
            for k in range(first, last + 1, size)
        ]

    monkeypatch.setattr('pfdet.training.tables.composites.fine_tune', fine_tune)
    rows = Rows(tmp_path, tmp_path / 'train.index', tmp_path / 'val.index', 'full', 8)
    return Composites(rows, second_index=tmp_path / 'second.index')


def models(composites, name, seed=0):
    found = composites.models(recipes.COMPOSITES[name], seed)
    return [model.path.relative_to(composites.rows.out).as_posix() for model in found]


def test_experts_of_500_classes(composites, monkeypatch):
    """Table 4 has ranks 11 to 350, the ensemble those up to 250."""
    monkeypatch.setattr(AnnotationIndex, 'open', lambda path: synthetic_index(20_000))
    table4 = models(composites, 'table4-class10')
    assert len(table4) == 34
    assert (table4[0], table4[-1]) == (
        'expert-class10/seed0/classes-011-020',
        'expert-class10/seed0/classes-341-350',
    )
    assert models(composites, 'table4-class40')[-1] == 'expert-class40/seed0/classes-331-350'
    ensemble = models(composites, 'table2-coco')
    assert ensemble[0] == 'table1-senet154/seed0'
    of_20 = [m for m in ensemble if m.startswith('expert-class20')]
    of_10 = [m for m in ensemble if m.startswith('expert-class10')]
    assert [m[-7:] for m in of_20] == [f'{k:03}-{k + 19:03}' for k in range(11, 250, 20)]
    assert [m[-7:] for m in of_10] == [f'{k:03}-{k + 9:03}' for k in range(11, 250, 10)]
    assert ensemble[1:] == [
        *of_20,
        *of_10,
        'table1-epochs/seed0',
        'table1-context/seed0',
        'expert-coco/seed0/classes-001-601',
    ]


def test_a_given_range_has_all_experts_in_the_ensemble(composites):
    composites = dataclasses.replace(composites, class_range=(2, 41))
    for name in 'table4-class10', 'table2-class10-experts':
        found = [m for m in models(composites, name) if m.startswith('expert-class10')]
        assert [m[-7:] for m in found] == ['002-011', '012-021', '022-031', '032-041']


@pytest.mark.parametrize(
    'others, expected',
    [
        ((), []),
        (('table1-epochs',), ['table1-epochs/seed3']),
        (
            ('table1-epochs/seed5', 'table1-psp'),
            ['table1-epochs/seed5', 'table1-psp/seed3'],
        ),
    ],
)
def test_others(others, expected, composites):
    composites = dataclasses.replace(composites, others=others, class_range=(1, 10))
    assert models(composites, 'table2-all', 3)[3:] == expected


def test_models_that_differ_only_in_backbone_have_three_seeds_at_mini_size(composites):
    expected = ['cs-table5-resnext101', 'cs-table5-other-tricks', 'cs-table5-efficientnet-b7']
    name = 'cs-table5-ensemble'
    assert models(composites, name, 2) == [f'{row}/seed2' for row in expected]
    mini = dataclasses.replace(
        composites, rows=dataclasses.replace(composites.rows, size='mini', ranks=1)
    )
    found = [m.path for m in mini.models(recipes.COMPOSITES[name], 2)]
    assert [path.name for path in found] == ['seed2', 'seed3', 'seed4']


@pytest.mark.parametrize(
    'size, given, expected',
    [
        ('full', (), ('640', '800', '1056')),
        ('mini', (), ('128', '160', '211')),
        ('mini', (144, 184), ('144', '184')),
    ],
)
def test_augmentation(size, given, expected, composites):
    rows = dataclasses.replace(composites.rows, size=size)
    composites = dataclasses.replace(composites, rows=rows, sizes=given)
    (model,) = composites.models(recipes.COMPOSITES['table2-single'], 0)
    assert model.flags == ('--sizes', *expected, '--flip')
    (model,) = composites.models(recipes.COMPOSITES['table4-full'], 0)
    assert model.flags == ()


def test_a_row_with_coco_needs_a_second_data_set(composites):
    composites = dataclasses.replace(composites, second_index=None)
    for name, row in recipes.COMPOSITES.items():
        needs = name in ('table2-coco', 'table2-class-weight')
        assert composites.needs_second_index(row) == needs
        if needs:
            with pytest.raises(InputError, match=f'^{name}: needs .* --second-index INDEX$'):
                composites.run(row, 0)


def planned_classes(index, ranks):
    return {int(e.classes[0]) for e in plan_experts(index, 1, ranks.first, ranks.last)}


def scored_classes(index, *names):
    """The classes of the columns of Table 4, as the scores have them, with training images."""
    images = count_classes(index).images_expanded
    groups = class_groups(index.classes, images)
    return {int(c) for name in names for c in groups[name] if images[c]}


@pytest.mark.parametrize('n_image', [24, 8, 4])
def test_experts_have_the_classes_that_are_scored(n_image, small_world, tmp_path):
    index = AnnotationIndex.open(small_world / 'train.index')
    subset(index, np.arange(n_image), tmp_path / 'some.index')
    some = AnnotationIndex.open(tmp_path / 'some.index')
    assert n_image == 24 or not count_classes(some).images_expanded.all()
    ranks = ranks_of_table4(some)
    assert planned_classes(some, ranks) == scored_classes(some, *TABLE4)
    up_to_250 = planned_classes(some, ranks._replace(last=ranks.last_in_ensemble))
    assert up_to_250 >= scored_classes(some, *TABLE4[:2])
    assert len(up_to_250) <= max(1, len(scored_classes(some, *TABLE4[:2])))


def test_500_classes_have_the_ranks_of_the_paper():
    index = synthetic_index(20_000)
    assert class_counts_are_positive(index)
    assert ranks_of_table4(index) == Ranks(11, 350, 250)
    assert planned_classes(index, Ranks(11, 350, 250)) == scored_classes(index, *TABLE4)


def test_classes_without_images_have_ranks_but_no_experts():
    index = synthetic_index(300)
    n_empty = int((count_classes(index).images_expanded == 0).sum())
    assert 20 < n_empty < 300
    ranks = ranks_of_table4(index)
    assert planned_classes(index, ranks) == scored_classes(index, *TABLE4)
    up_to_250 = planned_classes(index, ranks._replace(last=ranks.last_in_ensemble))
    assert up_to_250 == scored_classes(index, *TABLE4[:2])


def class_counts_are_positive(index):
    return bool((count_classes(index).images_expanded > 0).all())


def test_too_few_classes_for_table_4(monkeypatch):
    index = synthetic_index(100)
    monkeypatch.setattr(experts, 'plan_experts', lambda index, size: [])
    with pytest.raises(InputError, match='synthetic.index: no class of ranks 11 to 350'):
        ranks_of_table4(index)


def test_experts_in_the_ensemble_begin_up_to_a_rank(tmp_path):
    assert in_ensemble(tmp_path / 'classes-241-250', 250)
    assert in_ensemble(tmp_path / 'classes-241-260', 250)
    assert not in_ensemble(tmp_path / 'classes-251-260', 250)
