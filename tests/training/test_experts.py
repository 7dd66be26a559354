"""Tests of the assignment of classes to experts, their recipes and their heads."""

import itertools

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.dry_run.plan import learning_rate_points
from pfdet.training.experts import (
    Expert,
    default_images_seen,
    expert_recipe,
    fine_tuning_recipe,
    pack,
    plan_experts,
    with_images_seen,
)
from pfdet.training.run_length import RunLength, n_epoch


def counts(index):
    """Number of images per class, including its descendants, counted image by image."""
    count = np.zeros(len(index.classes), int)
    for i in range(len(index)):
        label = index.annotation(i).label
        present = label.any(axis=0)
        count += present | present @ index.hierarchy.ancestors
    return count


def test_experts_get_classes_rarest_first(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    count = counts(index)
    plan = plan_experts(index, 10)
    n_present = (count > 0).sum()
    assert [len(e.classes) for e in plan] == [10] * (n_present // 10) + [n_present % 10]
    for rarer, other in itertools.pairwise(plan):
        assert count[rarer.classes].max() <= count[other.classes].min()
    for expert in plan:
        closure = index.hierarchy.closure
        assert expert.images.tolist() == [
            i
            for i in range(len(index))
            if (index.annotation(i).label @ closure)[:, expert.classes].any()
        ]


def test_range_of_frequency_ranks(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    single = plan_experts(index, 1)
    some = plan_experts(index, 3, 4, 9)
    assert [e.name for e in some] == ['classes-04-06', 'classes-07-09']
    assert sorted(some[0].classes) == sorted(np.concatenate([e.classes for e in single[3:6]]))
    (one,) = plan_experts(index, 0)
    assert len(one.classes) == len(single)
    with pytest.raises(InputError, match='expected ranks from 1 to'):
        plan_experts(index, 10, 5, 1000)


def test_images_seen_gives_all_experts_the_same_schedule():
    recipe = recipes.find('expert-class10', 'mini')
    assert with_images_seen(recipe, 7, None) is recipe
    rare, other = (
        [
            point[1:]
            for point in learning_rate_points(
                scaled, RunLength(n, scaled.epochs, recipe.batch_size)
            )
        ]
        for n in (281, 1000)
        for scaled in [with_images_seen(recipe, n, 4000)]
    )
    assert rare == other
    assert rare[-1][0] == 4000 // recipe.batch_size - 1


@pytest.mark.parametrize(
    'epochs, sizes',
    [(8, (3, 50, 1000, 20_000)), (1, (7, 8)), (0.5, (100, 300, 300)), (0.001, (3, 50))],
)
def test_by_default_all_experts_see_as_many_images_as_they_have_on_average(epochs, sizes):
    recipe = recipes.override(recipes.find('expert-class10', 'mini'), [f'epochs={epochs}'])
    plan = [Expert(f'classes-{n}', np.array([0]), np.arange(n)) for n in sizes]
    n_seen = default_images_seen(recipe, plan)
    assert n_seen == max(1, round(epochs * sum(sizes) / len(sizes)))
    for n in sizes:
        assert with_images_seen(recipe, n, n_seen).epochs * n == pytest.approx(n_seen)


def test_length_of_experts_in_iterations():
    recipe = recipes.override(recipes.find('expert-class10', 'mini'), ['iterations=500'])
    plan = [Expert(f'classes-{n}', np.array([0]), np.arange(n)) for n in (3, 70)]
    n_seen = default_images_seen(recipe, plan)
    assert n_seen == 500 * recipe.lr_batch_size
    for n in 3, 70:
        scaled = with_images_seen(recipe, n, n_seen)
        assert n_epoch(scaled, n) * n == pytest.approx(n_seen)
        assert scaled.warmup_epochs == pytest.approx(recipe.warmup_epochs)


@pytest.mark.parametrize(
    'ranks, settings, full_settings, frozen',
    [
        (1, [], [], 'all'),
        (1, [], ['frozen_bn=backbone'], 'all'),
        (1, ['frozen_bn=backbone'], [], 'backbone'),
        # Both spellings of nothing
        (1, ['frozen_bn='], [], ''),
        (1, ["frozen_bn=''"], ['frozen_bn=all'], ''),
        (2, [], [], ''),
        (2, [], ['frozen_bn=backbone'], 'backbone'),
        (8, ['frozen_bn=all'], [], 'all'),
    ],
)
def test_batch_normalization_is_frozen_on_one_rank_per_expert(
    ranks, settings, full_settings, frozen
):
    full = recipes.override(recipes.find('mini'), full_settings)
    recipe = expert_recipe(recipes.find('expert-class10', 'mini'), full, settings, ranks)
    assert recipe.frozen_bn == frozen


@pytest.mark.parametrize(
    'name, init',
    [
        ('expert-class10', 'table1-senet154'),
        ('table1-psp', 'my-model'),
        ('cs-table4-scratch-20', 'my-model'),
        ('cs-table4-hybrid-s20', 'cs-table4-scratch-20'),
    ],
)
def test_an_expert_starts_from_a_model_of_all_classes(name, init):
    full = recipes.override(recipes.find('mini'), ['name=my-model'])
    recipe = expert_recipe(recipes.find(name, 'mini'), full, ['expert_size=10'])
    assert (recipe.init, recipe.expert_size) == (init, 10)


@pytest.mark.parametrize('name, settings', [('mini', []), ('expert-class10', ['expert_size=0'])])
def test_a_recipe_of_all_classes_is_no_expert(name, settings):
    with pytest.raises(InputError, match='expert_size=0 is a model of all classes'):
        expert_recipe(recipes.find(name, 'mini'), recipes.find('mini'), settings)


def test_warm_up_of_an_expert_is_its_own():
    full = recipes.override(recipes.find('mini'), ['warmup_iterations=7', 'warmup_start=0.5'])
    own = recipes.override(
        recipes.find('expert-class10', 'mini'), ['warmup_iterations=3', 'warmup_start=0.25']
    )
    recipe = fine_tuning_recipe(own, full)
    assert (recipe.warmup_iterations, recipe.warmup_start) == (3, 0.25)


def test_packing_is_within_four_thirds_of_the_optimum():
    rng = np.random.default_rng(0)
    for _ in range(50):
        cost = rng.integers(1, 20, 7)
        groups = pack(cost, 3)
        assert sorted(itertools.chain(*groups)) == list(range(7))
        best = min(
            max(np.bincount(share, cost, 3)) for share in itertools.product(range(3), repeat=7)
        )
        assert max(cost[g].sum() for g in groups) <= 4 / 3 * best


def test_expert_has_the_network_of_its_full_model():
    full = recipes.override(recipes.find('mini'), ['fpn_channel=32'])
    recipe = fine_tuning_recipe(recipes.find('expert-class10', 'mini'), full)
    assert (recipe.fpn_channel, recipe.psp, recipe.fpn_scale) == (32, full.psp, full.fpn_scale)
    assert (recipe.name, recipe.expert_size, recipe.epochs) == ('expert-class10', 10, 8)
    assert recipe.base_lr == pytest.approx(full.base_lr / 10)
