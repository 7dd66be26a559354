from pathlib import Path

import numpy as np
import pytest

from pfdet.evaluation.class_groups import training_images
from pfdet.evaluation.run_directory import Run
from pfdet.iterators.balanced import ClassAwareSampler, SoftBalanceSampler
from pfdet.iterators.class_images import class_images
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy
from pfdet.openimages.index import AnnotationIndex
from study.by_class import experts_table, parts_table, relatives_table, views_table
from study.claims import thirds

CLASSES = challenge_classes()
PERSON, MAN, FACE, WHEEL, HAT, TRAFFIC_LIGHT = (
    CLASSES.mids[CLASSES.names.index(name)]
    for name in ('Person', 'Man', 'Human face', 'Wheel', 'Hat', 'Traffic light')
)


def run(name, seed, ap):
    return Run(Path(name), {'name': name, 'size': 'mini'}, {'seed': seed}, {'AP': ap})


def cells(table):
    return [
        [text.strip() for text in line.strip('|').split('|')] for line in table.split('\n') if line
    ]


def test_parts_table_uses_seeds_that_both_runs_have():
    runs = [
        run('mini-without-cooccurrence', 0, {FACE: 0.5, WHEEL: 0.2, HAT: None, MAN: 0.1}),
        run('mini-without-cooccurrence', 1, {FACE: 0.6, WHEEL: 0.2, HAT: None, MAN: 0.1}),
        run('mini', 1, {FACE: 0.65, WHEEL: 0.1, HAT: None, MAN: 0.1}),
        run('mini', 0, {FACE: 0.7, WHEEL: 0.2, HAT: None, MAN: 0.1}),
        run('mini', 2, {FACE: 0.9, WHEEL: 0.9, HAT: None, MAN: 0.1}),
    ]
    lines = {line[0]: line[1:] for line in cells(parts_table(runs, CLASSES, {FACE, WHEEL, HAT}))}
    assert lines['Human face'] == ['55.0', '67.5', '+12.5', '+20.0, +5.0', '+8.7 (82.7 to 91.4)']
    assert lines['Wheel'] == ['20.0', '15.0', '-5.0', '+0.0, -10.0', '']
    assert not {'Hat', 'Man'} & lines.keys()
    assert parts_table(runs[:2], CLASSES, {FACE}) is None


def test_relatives_table_by_place_in_the_hierarchy():
    hierarchy = challenge_hierarchy()
    leaf = CLASSES.id_of(MAN)
    assert hierarchy.is_leaf[leaf] and hierarchy.ancestors[leaf, CLASSES.id_of(PERSON)]
    assert not hierarchy.ancestors[CLASSES.id_of(TRAFFIC_LIGHT)].any()
    runs = [
        run(
            f'cs-table2-{train}-{test}',
            seed,
            {PERSON: 0.5 + x, MAN: 0.5 - x, TRAFFIC_LIGHT: 0.3, FACE: None},
        )
        for seed in (0, 1)
        for train, test, x in (
            ('softmax', 'softmax', 0),
            ('softmax', 'concurrent', 0.01),
            ('concurrent', 'softmax', 0.02 * seed),
            ('concurrent', 'concurrent', 0.1),
        )
    ]
    lines = {tuple(line[:3]): line[3:] for line in cells(relatives_table(runs, CLASSES, hierarchy))}
    for train, test, gain in (
        ('softmax', 'concurrent', (1, 1)),
        ('concurrent', 'softmax', (0, 2)),
        ('concurrent', 'concurrent', (10, 10)),
    ):
        for group, sign in (
            ('classes with children', 1),
            ('leaves with a parent', -1),
            ('classes without relatives', 0),
        ):
            mean, seeds = lines[train, test, group]
            each = [float(x) for x in seeds.split(', ')]
            assert each == pytest.approx([sign * g for g in gain])
            assert float(mean) == pytest.approx(np.mean(each))
    assert relatives_table(runs[1:4], CLASSES, hierarchy) is None


def test_relatives_table_of_bce_uses_its_seeds():
    hierarchy = challenge_hierarchy()
    runs = [run('cs-table2-softmax-softmax', seed, {PERSON: 0.5, MAN: 0.5}) for seed in (0, 1)]
    runs.append(run('cs-table1-bce', 1, {PERSON: 0.6, MAN: 0.55}))
    assert cells(relatives_table(runs, CLASSES, hierarchy))[2:] == [
        ['binary cross entropy', 'sigmoid', 'classes with children', '+10.0', '+10.0'],
        ['binary cross entropy', 'sigmoid', 'leaves with a parent', '+5.0', '+5.0'],
    ]


def test_views_table_agrees_with_the_samplers(small_world):
    index = AnnotationIndex.open(small_world / 'train.index')
    counts = training_images(index)
    groups = dict(zip('abc', thirds(counts), strict=True))
    lines = {
        line[0]: [float(x) for x in line[1:]] for line in cells(views_table(index, groups))[2:]
    }
    # The classes that each image shows, ancestors included, box by box.
    shows = np.zeros((len(index), len(index.classes)), bool)
    offsets, label = index.image_classes()
    for image in range(len(index)):
        for c in label[offsets[image] : offsets[image + 1]]:
            shows[image, c] = True
            shows[image] |= index.hierarchy.ancestors[c]
    own = class_images(index)
    for k, (sampler, n) in enumerate(
        (
            (range(len(index)), len(index)),
            (ClassAwareSampler(own, 0), 20000),
            (SoftBalanceSampler(own, 0.7, 0), 20000),
        )
    ):
        drawn = np.bincount([sampler[i] for i in range(n)], minlength=len(index)) / n
        for name, mids in groups.items():
            ids = [index.classes.id_of(mid) for mid in mids]
            assert lines[name][k] == pytest.approx((drawn @ shows[:, ids]).sum(), abs=0.05)


def test_experts_table_compares_with_the_full_model_of_the_same_seed():
    groups = {'rare': {HAT, WHEEL}, 'frequent': {MAN}}
    runs = [
        run('mini', 0, {HAT: 0.1, WHEEL: 0.3, MAN: 0.8}),
        run('mini', 1, {HAT: 0.3, WHEEL: 0.3, MAN: 0.7}),
        run('mini', 2, {HAT: 0.9, WHEEL: 0.9, MAN: 0.9}),
        run('table4-class10', 0, {HAT: 0.3, WHEEL: 0.3, MAN: 0.8}),
        run('table4-class10', 1, {HAT: 0.5, WHEEL: 0.3, MAN: 0.6}),
        run('table4-full-longer', 2, {HAT: 0.9, WHEEL: 0.9, MAN: 1.0}),
    ]
    assert cells(experts_table(runs, groups))[2:] == [
        ['the full model', '46.7', '80.0', '3'],
        ['the full model, fine-tuned as long', '90.0 (+0.0)', '100.0 (+10.0)', '1'],
        ['experts of 10 classes', '35.0 (+10.0)', '70.0 (-5.0)', '2'],
    ]
    assert experts_table(runs[:3], groups) is None
