import json
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.recipes.paper_tables import table_of
from pfdet.training.tables.rows import Rows
from study.claims import Claim, claims, mean_over, part_classes, thirds
from study.findings import Finding, RunScores, findings
from study.plan import PARTS, PLAN

CLAIM = Claim('a-b', 'Losses', 'A beats B', 'a', 'b', 1.0, 'Table 1')
NO_LOSS = Claim('a-b', 'Losses', 'A is no worse than B', 'a', 'b', 1.0, 'Table 1', no_loss=True)
WORSE = Claim('a-b', 'Losses', 'A is worse than B', 'a', 'b', -1.0, 'Table 1', sign=-1)


@pytest.mark.parametrize(
    'claim, differences, noise, verdict',
    [
        (CLAIM, [], 1.0, 'not run'),
        (CLAIM, [0.1, 2.0, 1.0], 5.0, 'reproduced'),
        (CLAIM, [0.1, -0.1, 1.0], 5.0, 'undecided: seeds disagree'),
        (CLAIM, [-0.1, -0.2], 5.0, 'not reproduced'),
        (CLAIM, [2.0], 1.0, 'reproduced, one seed'),
        (CLAIM, [-2.0], 1.0, 'not reproduced, one seed'),
        (CLAIM, [0.9], 1.0, 'undecided: one seed, within the noise of seeds'),
        (WORSE, [-2.0], 1.0, 'reproduced, one seed'),
        (WORSE, [0.5, 1.0], 1.0, 'not reproduced'),
        (CLAIM, [0.9, 0.04], 1.0, 'undecided: seeds disagree'),
        (CLAIM, [-0.9, -0.04], 1.0, 'undecided: seeds disagree'),
        (NO_LOSS, [0.5, -0.2], 1.0, 'reproduced'),
        (NO_LOSS, [-0.2, -0.6, 0.1], 1.0, 'reproduced'),
        (NO_LOSS, [0.5], 1.0, 'reproduced, one seed'),
        (NO_LOSS, [-0.5], 1.0, 'undecided: within the noise of seeds'),
        (NO_LOSS, [-2.0, -1.5], 1.0, 'not reproduced'),
    ],
)
def test_verdicts(claim, differences, noise, verdict):
    assert Finding(claim, tuple((50 + d, 50.0) for d in differences), noise).verdict == verdict


def test_every_claim_compares_runs_of_the_plan():
    planned = {name for name, _ in PLAN if name not in PARTS}
    ensembles_and_experts = {
        'table2-single',
        'table2-class20-experts',
        'table2-class10-experts',
        'table2-all',
        'table2-coco',
        'table2-class-weight',
        'table4-class10',
        'table4-class40',
    }
    assert planned <= recipes.RECIPES.keys() and len(PLAN) == len(set(PLAN))
    for claim in claims({'/m/a': 1, '/m/b': 2, '/m/c': 3}):
        assert {claim.row, claim.against} <= planned | ensembles_and_experts


@pytest.mark.parametrize(
    'key, difference, where',
    [
        # PFDet: "For 47 classes affected by co-occurrence loss, we see 9.2 AP improvement".
        ('cooccurrence-parts', 9.2, 'PFDet, Table 3, Average'),
        ('step-cosine', 3.0, 'PFDet, Table 1'),
        ('experts-frequent', -4.6, 'PFDet, Table 4, Index 251-350'),
        ('class-weights', 0.54, 'PFDet, Table 2, public LB'),
        # Peng et al. (2020), section 5.3: "yields 1.50 points".
        ('concurrent-both', 1.5, 'Peng et al. (2020), Table 2'),
        ('class-aware-rarest', None, 'Peng et al. (2020), Figure 5a'),
        ('nmw', None, 'PFDet, section 2.1'),
    ],
)
def test_differences_of_the_papers(key, difference, where):
    (claim,) = (claim for claim in claims({}) if claim.key == key)
    assert (claim.paper, claim.where) == (difference, where)


def test_differences_of_the_papers_have_the_sign_of_the_claim():
    compared = [claim for claim in claims({}) if claim.paper is not None]
    assert len(compared) > 40 and len({claim.key for claim in claims({})}) == len(claims({}))
    for claim in compared:
        assert claim.paper * claim.sign > 0, claim.text
        assert claim.where.startswith(('PFDet, Table', 'Peng et al. (2020), Table'))
        table = table_of(claim.row)
        assert table is None or claim.where.startswith(table.title)


def test_thirds_are_by_training_images():
    counts = {f'/m/{k}': k for k in range(10)}  # /m/0 has none
    assert thirds(counts) == [
        {'/m/1', '/m/2', '/m/3'},
        {'/m/4', '/m/5', '/m/6'},
        {'/m/7', '/m/8', '/m/9'},
    ]
    assert thirds(counts, 2, 7) == [{'/m/2', '/m/3'}, {'/m/4', '/m/5'}, {'/m/6', '/m/7'}]


def test_part_classes_are_those_of_pfdets_pairs():
    parts = part_classes()
    assert len(parts) == 47 and '/m/0dzct' in parts  # Human face


def test_means_omit_classes_without_ground_truth():
    score = {'AP': {'/m/a': 0.5, '/m/b': None, '/m/c': 1.0}}
    assert mean_over({'/m/a', '/m/b', '/m/c'})(score) == 0.75
    assert mean_over({'/m/b'})(score) is None


def test_findings_use_seeds_that_both_rows_have(tmp_path):
    rows = Rows(tmp_path, Path('t'), Path('v'), 'mini', 1)
    for name, values in (
        ('cs-table1-concurrent', {0: 0.5, 1: 0.52, 2: 0.6}),
        ('cs-table1-softmax', {0: 0.4, 2: 0.47}),
        # It shares its training with the row above and adds nothing to the noise.
        ('cs-table3-non-balance', {0: 0.3, 2: 0.7}),
    ):
        for seed, value in values.items():
            directory = rows.directory(name, seed)
            directory.mkdir(parents=True)
            (directory / 'score.json').write_text(json.dumps({'mAP': value, 'AP': {}}))
            (directory / 'done').touch()
    # Still in training, with the score of a validation.
    unfinished = rows.directory('cs-table1-softmax', 1)
    unfinished.mkdir()
    (unfinished / 'score.json').write_text(json.dumps({'mAP': 0.1, 'AP': {}}))
    found = {f.claim.text: f for f in findings(RunScores(rows), {})}
    one = found['Concurrent softmax beats softmax, without balance']
    assert one.differences == pytest.approx([10, 13]) and one.mean == pytest.approx(11.5)
    assert one.verdict == 'reproduced'
    # Softmax's two seeds are 7 points apart: a sum of squares of 24.5. The other row's is 56.
    assert one.noise == pytest.approx(2 * (2 * (24.5 + 56) / 3) ** 0.5)
    assert found['Co-BCE beats BCE'].verdict == 'not run'
