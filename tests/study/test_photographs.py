import json
import re
import sys

import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.classes import challenge_classes
from study import photographs
from study.photographs_page import EFFECTS

NAMES = (
    'Vehicle',
    'Land vehicle',
    'Vehicle registration plate',
    'Ambulance',
    'Bus',
    'Car',
    'Motorcycle',
    'Truck',
)


@pytest.fixture
def study_of(tmp_path, monkeypatch):
    """Run the command with stand-ins for splits and trainings; returns what was trained."""
    trained = []
    classes = challenge_classes()
    mids = {name: classes.mids[classes.names.index(name)] for name in NAMES}

    def split(index, out, train, val):
        out.mkdir(parents=True, exist_ok=True)
        for name in 'train', 'validation':
            (out / f'{name}.index').write_text(f'{train} of {index.name}')
        return out / 'train.index', out / 'validation.index'

    def run(rows, name, seed):
        directory = rows.directory(name, seed)
        if (directory / 'done').exists():
            return
        trained.append((rows.out.name, name, seed))
        recipe = rows.recipe(name)
        images = int((rows.train_index).read_text().split()[0])
        directory.mkdir(parents=True)
        aps = {mid: 0.4 + 0.1 * (name == 'small') for mid in mids.values()}
        # Half a point less with every seed, on plates alone.
        aps[mids['Vehicle registration plate']] -= 0.005 * seed
        for file, content in (
            (
                'recipe',
                {'recipe': recipes.to_dict(recipe), 'run': {'seed': seed, 'images': images}},
            ),
            ('score', {'mAP': sum(aps.values()) / len(aps), 'AP': aps}),
        ):
            (directory / f'{file}.json').write_text(json.dumps(content))
        (directory / 'log').write_text('[]')
        (directory / 'done').write_text('abc\n')

    monkeypatch.setattr(photographs, 'split', split)
    monkeypatch.setattr(photographs.Rows, 'run', run)
    notes = tmp_path / 'notes.md'
    notes.write_text('# Photographs\n')

    def main(out, *flags):
        trained.clear()
        arguments = {
            '--index': tmp_path / 'all.index',
            '--out': tmp_path / out,
            '--results': tmp_path / 'results.jsonl',
            '--page': tmp_path / 'page.md',
            '--notes': notes,
            '--backbone': tmp_path / 'backbone.npz',
        }
        command = [str(x) for pair in arguments.items() for x in pair]
        monkeypatch.setattr(sys, 'argv', ['study.photographs', *command, '--jobs', '1', *flags])
        photographs.main()
        return list(trained)

    return main


def test_all_rows_and_sets_are_trained_once(study_of, tmp_path):
    trained = study_of('out', '--seeds', '0', '2')
    assert len(set(trained)) == len(trained)
    names = {name for effect in EFFECTS for name in (effect.row, effect.against)}
    assert names == {row.name for row in recipes.TABLES['small'].rows}
    assert {(name, seed) for group, name, seed in trained if group == 'effects'} == {
        (name, seed) for name in names for seed in (0, 2)
    }
    assert [group for group, _, _ in trained if group != 'effects'] == [
        f'{n}-{start}' for n in (50, 200, 'all') for start in ('random', 'drawn')
    ]
    page = (tmp_path / 'page.md').read_text()
    assert page.startswith('# Photographs\n')
    words = re.sub(' +', ' ', page)
    assert '| 50 | 1000 | 160 | 50.0 | 50.0 |' in words
    assert '| 690 | 5000 | 58 | 50.0 | 50.0 |' in words
    assert (
        '| co-occurrence loss | Vehicle registration plate | 39.5 | 49.5 | +10.0 | +10.0, +10.0 |'
        in words
    )
    assert '| sigmoid against softmax | all classes | 39.9 | 49.9 | +10.0 | +10.0, +10.0 |' in words


def test_runs_of_a_file_are_not_repeated(study_of, tmp_path):
    everything = study_of('out', '--seeds', '0')
    given = '--given', str(tmp_path / 'results.jsonl')
    assert study_of('other', '--seeds', '0', *given) == []
    assert study_of('longer', '--seeds', '0', '--iterations', '1600', *given) == [
        run for run in everything if run[0] == 'effects'
    ]


def test_results_of_other_photographs_are_refused(study_of, tmp_path):
    study_of('out', '--seeds', '0')
    given = '--given', str(tmp_path / 'results.jsonl')
    with pytest.raises(InputError, match='results.jsonl: its runs used other photographs'):
        study_of('other', '--seeds', '0', '--train', '600', *given)


@pytest.mark.parametrize('row', recipes.TABLES['small'].recipes, ids=lambda row: row.name)
def test_each_row_changes_what_it_names(row):
    base = recipes.find('small-softmax' if row.name == 'small-concurrent' else 'small')
    fields = recipes.to_dict(row)
    changed = {
        key
        for key, value in recipes.to_dict(base).items()
        if value != fields[key] and key not in ('name', 'about')
    }
    assert (
        changed
        == {
            'small': set(),
            'small-without-cooccurrence': {'cooccurrence'},
            'small-without-ancestors': {'expand_ancestors'},
            'small-with-descendants': {'ignore_descendants'},
            'small-soft-balance': {'sampler'},
            'small-softmax': {'loss', 'expand_scores', 'cooccurrence', 'ignore_descendants'},
            'small-concurrent': {'loss', 'score'},
        }[row.name]
    )
