import json
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.tables.rows import Rows
from study.claims import claims
from study.findings import RunScores
from study.notes import NOTES, results_digest
from study.report import write_report

ROOT = Path(__file__).resolve().parents[2]
MAPS = {
    'mini': (0.5, 0.6),
    'mini-without-cooccurrence': (0.4, 0.55),
    'cs-table1-softmax-balanced': (0.7, 0.7),
    'cs-table1-concurrent-balanced': (0.6, 0.65),
    'cs-table4-non-balance-7': (0.5, 0.5),
    'cs-table4-non-balance-14': (0.6, 0.6),
}


@pytest.fixture
def rows(small_world, tmp_path):
    rows = Rows(
        tmp_path / 'runs', small_world / 'train.index', small_world / 'validation.index', 'mini', 1
    )
    mids = AnnotationIndex.open(rows.train_index).classes.mids
    for name, values in MAPS.items():
        for seed, value in enumerate(values):
            directory = rows.directory(name, seed)
            directory.mkdir(parents=True)
            (directory / 'recipe.json').write_text(
                json.dumps({'recipe': recipes.to_dict(rows.recipe(name)), 'run': {'seed': seed}})
            )
            (directory / 'score.json').write_text(
                json.dumps({'mAP': value, 'AP': dict.fromkeys(mids, value)})
            )
            (directory / 'done').touch()
    return rows


def write_note(rows, directory, key, text):
    (claim,) = (claim for claim in claims({}) if claim.key == key)
    scores = RunScores(rows)
    digest = results_digest(claim, scores)
    directory.mkdir(exist_ok=True)
    (directory / f'{key}.md').write_text(f'---\nclaim: {key}\nresults: {digest}\n---\n\n{text}\n')


def test_page(rows, tmp_path):
    notes = tmp_path / 'notes'
    write_note(rows, notes, 'concurrent-balanced', 'A reason.\n\nAnother paragraph.')
    write_note(rows, notes, 'longer-non-balance', 'A remark.')
    write_report(rows, tmp_path / 'study.md', 'make study', notes)
    text = (tmp_path / 'study.md').read_text()
    head = text.split('\n## ')[0].replace(str(tmp_path), '')
    assert max(map(len, head.split('\n'))) <= 100
    line = next(
        line for line in text.split('\n') if line.startswith('| Co-occurrence loss raises the mAP')
    )
    assert '+0.70, PFDet, Table 1 | **+7.5** (47.5 to 55.0) | +10.0, +5.0 | reproduced |' in line
    section = text.split('## Not reproduced or undecided')[1].split('\n## ')[0]
    assert (
        '- *Concurrent softmax beats softmax, with class-aware sampling* '
        '(not reproduced; -7.5 points).\n  A reason.\n\n  Another paragraph.\n' in section
    )
    assert '"not run"' in section
    on_reproduced = section.split('Notes on reproduced claims:')[1]
    assert (
        '- *Without balance, longer training is better* (+10.0 points).\n  A remark.\n'
        in on_reproduced
    )
    parts = text.split('AP of parts and possessions without')[1].split('\n\n')[1]
    assert '| Human face | 47.5 | 55.0 | +7.5 | +10.0, +5.0 | +8.7 (82.7 to 91.4) |' in parts
    assert (tmp_path / 'study' / 'claims.png').stat().st_size > 1000


def test_page_of_other_results_has_none_of_the_studys_notes(rows, tmp_path, capsys):
    write_report(rows, tmp_path / 'study.md', 'make study', ROOT / NOTES)
    text = (tmp_path / 'study.md').read_text()
    assert 'The loss comes from testing' not in text
    assert '(not reproduced; -7.5 points).\n  The reason is not known.\n' in text
    assert 'Notes on reproduced claims' not in text
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(list((ROOT / NOTES).glob('*.md')))
    assert all('omitted, since it is about other results' in line for line in lines)
