"""Every row of every table of both papers has a name, or a reason why it cannot be run."""

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.links.backbones import BACKBONES
from pfdet.recipes.composite import FULL, OTHERS
from pfdet.recipes.listing import list_rows
from pfdet.recipes.paper_tables import paper_tables
from pfdet.recipes.recipe import Recipe

PUBLISHED = {
    # The rows of both papers' tables, typed from the papers; what pfdet calls each.
    'table1': {
        'Baseline (FPN with SE-ResNeXt-101)': 'table1-baseline',
        '+ multi-scale training': 'table1-multiscale',
        '+ PSP and add BN to head': 'table1-psp',
        '+ Cosine Annealing': 'table1-cosine',
        '+ Add FPN scale': 'table1-scale',
        '+ Co-occurrence loss': 'table1-cooccurrence',
        '+ 16 epochs': 'table1-epochs',
        '+ Context head': 'table1-context',
        '+ SENet-154 and additional anchors': 'table1-senet154',
    },
    'table2': {
        'Single best model': 'table2-single',
        '+ class20 experts': 'table2-class20-experts',
        '+ class10 experts': 'table2-class10-experts',
        '+ All the others except COCO': 'table2-all',
        '+ COCO': 'table2-coco',
        '+ class-weight ensemble': 'table2-class-weight',
        'Competition winner': None,
    },
    'table3': {'Baseline': 'table3-baseline', 'Co-occurrence': 'table3-cooccurrence'},
    'table4': {
        'Full': 'table4-full',
        'Class10 experts': 'table4-class10',
        'Class40 experts': 'table4-class40',
    },
    'cs-table1': {
        'Focal Loss, class-aware': 'cs-table1-focal',
        'BCE Loss, class-aware': 'cs-table1-bce',
        'Co-BCE Loss, class-aware': 'cs-table1-co-bce',
        'dist-CE Loss, class-aware': 'cs-table1-dist-ce',
        'Softmax Loss, non-balance': 'cs-table1-softmax',
        'Concurrent Softmax Loss, non-balance': 'cs-table1-concurrent',
        'Softmax Loss, class-aware': 'cs-table1-softmax-balanced',
        'Concurrent Softmax Loss, class-aware': 'cs-table1-concurrent-balanced',
    },
    'cs-table2': {
        'Softmax, Softmax': 'cs-table2-softmax-softmax',
        'Softmax, Concurrent Softmax': 'cs-table2-softmax-concurrent',
        'Concurrent Softmax, Softmax': 'cs-table2-concurrent-softmax',
        'Concurrent Softmax, Concurrent Softmax': 'cs-table2-concurrent-concurrent',
    },
    'cs-table3': {
        'Non-balance': 'cs-table3-non-balance',
        'Class-aware Sampling': 'cs-table3-class-aware',
        'Effective Number': 'cs-table3-effective-number',
        'Soft-balance, 0.3': 'cs-table3-soft-0.3',
        'Soft-balance, 0.5': 'cs-table3-soft-0.5',
        'Soft-balance, 0.7': 'cs-table3-soft-0.7',
        'Soft-balance, 1.0': 'cs-table3-soft-1.0',
        'Soft-balance, 1.5': 'cs-table3-soft-1.5',
    },
    'cs-table4': {
        'Non-balance, ImageNet, 7': 'cs-table4-non-balance-7',
        'Non-balance, ImageNet, 11': 'cs-table4-non-balance-11',
        'Non-balance, ImageNet, 14': 'cs-table4-non-balance-14',
        'Non-balance, ImageNet, 16': 'cs-table4-non-balance-16',
        'Non-balance, Scratch, 20': 'cs-table4-scratch-20',
        'Class-aware Sampling, ImageNet, 7': 'cs-table4-class-aware-7',
        'Class-aware Sampling, ImageNet, 14': 'cs-table4-class-aware-14',
        'Class-aware Sampling, Non-balance I14, 14+7': 'cs-table4-hybrid-i14',
        'Class-aware Sampling, Non-balance S20, 20+7': 'cs-table4-hybrid-s20',
        'Soft-balance, Non-balance S20, 20+7': 'cs-table4-soft-balance',
        'Soft-balance*, Non-balance S20, 20+7': 'cs-table4-soft-balance-concurrent',
    },
    'cs-table5': {
        '2018 1st, single': None,
        'Ours, single': None,
        '2018 1st, ensemble': None,
        '2018 2nd, ensemble': None,
        '2018 3rd, ensemble': None,
        'Ours, ensemble': None,
        'Baseline (ResNeXt-152)': 'cs-table5-baseline',
        '+ Class-aware Sampling': 'cs-table5-class-aware',
        '+ Concurrent Softmax Loss': 'cs-table5-concurrent',
        '+ Soft-balance': 'cs-table5-soft-balance',
        '+ Hybrid Training Scheduler': 'cs-table5-hybrid',
        '+ Other Tricks': 'cs-table5-other-tricks',
        '+ Ensemble': 'cs-table5-ensemble',
    },
}


def test_the_tables_have_the_rows_of_the_papers():
    tables = {table.key: table for table in paper_tables()}
    assert {
        key: {row.label: row.recipe for row in table.rows} for key, table in tables.items()
    } == PUBLISHED


@pytest.mark.parametrize('key', PUBLISHED)
def test_every_row_is_listed_in_its_table(key):
    lines = list(list_rows())
    start = lines.index(recipes.TABLES[key].title)
    end = next((k for k, x in enumerate(lines) if k > start and not x.startswith('  ')), len(lines))
    names = [line.split()[0].rstrip('*') for line in lines[start + 1 : end]]
    assert len(set(names) - {'-'}) == len([name for name in names if name != '-'])
    for label, name in PUBLISHED[key].items():
        if name is not None:
            assert name in names
            assert name in recipes.RECIPES or name in recipes.COMPOSITES
        else:
            reason = r'\((another team\'s submission|the same as \S+|PFDet\'s submission: \S+)\)'
            assert re.search(rf'- +{re.escape(label)} {reason}', '\n'.join(lines[start:end])), label


def test_reasons_name_rows_with_the_same_figure():
    """A row that repeats another one has its figure."""
    of_row = {row.recipe: row for table in paper_tables() for row in table.rows}
    repeated = 0
    for table in paper_tables():
        for row in table.rows:
            assert (row.recipe is None) == bool(row.reason)
            name = row.reason.split()[-1] if row.reason else ''
            if name in of_row:
                assert row.values[0] in of_row[name].values
                repeated += 1
    assert repeated == 4


def test_names_are_unique_and_begin_with_their_table():
    names = [row.name for table in recipes.TABLES.values() for row in table.rows]
    assert len(names) == len(set(names))
    assert set(names) == recipes.RECIPES.keys() | recipes.COMPOSITES.keys()
    for key, table in recipes.TABLES.items():
        if key != 'experts':
            assert all(row.name.startswith(key) for row in table.rows)


@pytest.mark.parametrize('name', recipes.COMPOSITES)
def test_rows_of_several_models_name_the_command_that_runs_them(name):
    table = name.split('-')[0] if name.startswith('table') else '-'.join(name.split('-')[:2])
    expected = f'pfdet train-table --table {table} --rows {name}'
    with pytest.raises(InputError, match=rf'^--recipe {name}: .*{expected}$') as caught:
        recipes.find(name)
    assert '\n' not in str(caught.value)
    assert recipes.COMPOSITES[name] in recipes.TABLES[table].rows


def test_composites_have_known_models():
    for row in recipes.COMPOSITES.values():
        for model in row.models:
            assert model in (FULL, OTHERS) or model in recipes.RECIPES
        assert not row.flip or row.sizes


def test_each_step_of_table_2_adds_models():
    steps = [recipes.COMPOSITES[name] for name in PUBLISHED['table2'].values() if name]
    added = [step.models[len(before.models) :] for before, step in zip(steps, steps[1:])]
    assert added == [('expert-class20',), ('expert-class10',), (OTHERS,), ('expert-coco',), ()]
    assert [step.class_weights for step in steps] == [False] * 5 + [True]
    # Augmented with several sizes and flips, and with one suppression for all (section 2.4)
    assert all(len(step.sizes) > 1 and step.flip and not step.alone for step in steps)


def test_tricks_and_ensemble_of_peng_et_al():
    tricks = recipes.find('cs-table5-other-tricks')
    assert (tricks.head_conv, tricks.head_fc) == (4, 1)
    assert tricks.color_jitter and tricks.crop < 1 and tricks.rotation
    before = recipes.find('cs-table5-hybrid')
    changed = {f.name for f in fields(Recipe) if getattr(tricks, f.name) != getattr(before, f.name)}
    augmentation, head = {'color_jitter', 'crop', 'rotation'}, {'head_conv', 'head_fc'}
    assert changed == augmentation | head | {'init', 'name', 'about'}
    ensemble = recipes.COMPOSITES['cs-table5-ensemble']
    members = [recipes.find(name) for name in ensemble.models]
    assert [m.backbone for m in members] == ['resnext101', 'resnext152', 'efficientnet_b7']
    assert all(m.backbone in BACKBONES for m in members)
    # The stages of the hybrid schedule have the same network, whose weights the second one takes.
    for second in [*members, recipes.find('cs-table5-hybrid')]:
        first = recipes.find(second.init)
        assert first.init == 'scratch' and first.sampler == 'sequential'
        for field in 'backbone', 'head_conv', 'head_fc', 'head_unit', 'fpn_channel', 'anchor_size':
            assert getattr(first, field) == getattr(second, field)
    # "Multi-scale training and testing"
    for row in recipes.TABLES['cs-table5'].recipes:
        assert row.min_size[0] < row.min_size[1] and len(row.test_sizes) > 1


def test_the_data_file_has_no_other_fields():
    path = Path(recipes.__file__).parent / 'data' / 'paper_tables.json'
    known = {'name', 'recipe', 'values', 'over', 'settings', 'reason'}
    for paper in json.loads(path.read_text(encoding='utf-8')):
        for table in paper['tables']:
            assert all(row.keys() <= known for row in table['rows'])


def test_tables_tell_recipes_from_composites():
    for table in recipes.TABLES.values():
        assert all(isinstance(row, Recipe) for row in table.recipes)
        assert set(map(id, table.recipes)) | set(map(id, table.composites)) == set(
            map(id, table.rows)
        )
