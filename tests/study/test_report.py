import json

import pytest

from pfdet import recipes
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.table_runs import Rows
from study.claims import claims
from study.reasons import REASONS, REMARKS
from study.report import write_report

FIGURES = {
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
    for name, values in FIGURES.items():
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


def test_page(rows, tmp_path):
    write_report(rows, tmp_path / 'study.md', 'make study')
    text = (tmp_path / 'study.md').read_text()
    head = text.split('\n## ')[0].replace(str(tmp_path), '')
    assert max(map(len, head.split('\n'))) <= 100
    line = next(
        line for line in text.split('\n') if line.startswith('| Co-occurrence loss raises the mAP')
    )
    assert '+0.70, PFDet, Table 1 | **+7.5** (47.5 to 55.0) | +10.0, +5.0 | reproduced |' in line
    said = text.split('## What did not come out')[1].split('\n## ')[0]
    assert '*Concurrent softmax beats softmax, with class-aware sampling* (not reproduced' in said
    assert 'It is the test that loses' in said and '"not run"' in said
    assert '*Without balance, longer is better* (+10.0 points). So is it with class-aware' in said
    parts = text.split("PFDet's Table 3, AP of parts")[1].split('\n\n')[1]
    assert '| Human face | 47.5 | 55.0 | +7.5 | +10.0, +5.0 | +8.7 (82.7 to 91.4) |' in parts
    assert (tmp_path / 'study' / 'claims.png').stat().st_size > 1000


def test_what_is_said_of_claims_is_of_claims_that_there_are():
    keys = {(claim.row, claim.against, claim.of) for claim in claims({})}
    assert REASONS.keys() <= keys and REMARKS.keys() <= keys
