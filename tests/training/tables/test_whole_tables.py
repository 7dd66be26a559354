"""``pfdet train-table`` from nothing to a filled table, on a few images."""

import json

from pfdet.evaluation.detections import read_detections
from pfdet.evaluation.run_directory import find_runs
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.comparison import compare

TABLE2 = [
    'table2-single',
    'table2-class20-experts',
    'table2-class10-experts',
    'table2-all',
    'table2-coco',
    'table2-class-weight',
]
EXPERTS = '--images-seen', 4


def commands(done):
    assert done.returncode == 0, done.stderr
    lines = [line[2:] for line in done.stdout.splitlines() if line.startswith('$ ')]
    return [line.split() for line in lines if 'compare-tables' not in line]


def filled_rows(out, key):
    """The rows of a table that have a figure for each measure of a run."""
    runs, _ = find_runs([out])
    (table,) = (t for t in compare(runs) if t.table.key == key)
    return [
        row.row.recipe
        for row in table.rows
        if row.cells[0].here and all((run.path / 'done').exists() for run in row.runs)
    ]


def test_tables_2_and_4(train_table, second_world, small_world, tmp_path):
    out = tmp_path / 'out'
    options = '--table', 'table4', *EXPERTS
    done = train_table(*options)
    run = commands(done)
    assert filled_rows(out, 'table4') == ['table4-full', 'table4-class10', 'table4-class40']
    assert 'Class40 experts' in (out / 'table4.html').read_text()
    # The full model was not there; it is the last row of Table 1.
    assert [args[2] for args in run if args[0] == 'train'] == ['table1-senet154']
    assert 'random weights for table1-senet154' in done.stdout

    # Table 2 shares the full model and experts, and leaves out what needs a second data set.
    options = '--table', 'table2', *EXPERTS, '--others', 'table1-context', '--sizes', 48, 64
    done = train_table(*options)
    run = commands(done)
    assert filled_rows(out, 'table2') == TABLE2[:4]
    assert [args[2] for args in run if args[0] == 'train'] == ['table1-context']
    assert [args[2] for args in run if args[0] == 'train-experts'] == ['expert-class20']
    (note,) = (line for line in done.stdout.splitlines() if '--second-index' in line)
    assert note.startswith('note: table2-coco, table2-class-weight: without --second-index')

    options = *options, '--second-index', second_world
    run = commands(train_table(*options))
    assert filled_rows(out, 'table2') == TABLE2
    assert [args[2] for args in run if args[0].startswith('train')] == ['expert-coco']
    models = [
        json.loads((out / name / 'seed0' / 'recipe.json').read_text())['run']['models']
        for name in TABLE2
    ]
    for before, step in zip(models, models[1:]):
        assert step[: len(before)] == before
    # Of 41 classes, Table 4 has the ranks 1 to 28, and the ensemble those up to 20.
    assert models[-1] == [
        'table1-senet154/seed0',
        'expert-class20/seed0/classes-01-20',
        'expert-class10/seed0/classes-01-10',
        'expert-class10/seed0/classes-11-20',
        'table1-context/seed0',
        *[f'expert-coco/seed0/{path.name}' for path in (out / 'expert-coco/seed0').glob('c*')],
    ]
    # Of two halves, each validation image has the detections of one.
    index = AnnotationIndex.open(small_world / 'validation.index')
    merged = read_detections(out / 'table2-class-weight/seed0/detections.parquet', index.classes)
    assert merged.image_ids == [index.image_id(i) for i in range(len(index))]
    score = json.loads((out / 'table2-class-weight/seed0/score.json').read_text())
    assert score['n_image'] == score['n_image_predicted'] == len(index)

    # Again, nothing is run. Another way of testing is another ensemble of the same models.
    assert commands(train_table(*options)) == []
    run = commands(train_table(*options, '--rows', 'table2-single', '--sizes', 64))
    assert [args[0] for args in run] == ['predict', 'ensemble', 'score']

    for changed, expected in (
        (('--images-seen', 6), 'was started with images_seen=4, not 6'),
        (('--class-range', '1-30'), 'was started with class_range=1-28, not 1-30'),
        (('--full', 'table1-context'), 'was started with init=table1-senet154/seed0/model.npz'),
    ):
        done = train_table('--table', 'table4', '--rows', 'table4-class10', *EXPERTS, *changed)
        assert done.returncode == 2 and done.stderr.count('\n') == 1
        assert expected in done.stderr
    done = train_table('--table', 'table1', '--rows', 'table1-context', small=False)
    assert done.returncode == 2 and 'was started with fpn_channel=16, not 32' in done.stderr


def test_a_model_from_elsewhere_keeps_its_directory(train_table, tmp_path):
    assert train_table('--table', 'mini', '--rows', 'mini').returncode == 0
    elsewhere = tmp_path / 'model'
    (tmp_path / 'out' / 'mini' / 'seed0').rename(elsewhere)
    before = sorted(elsewhere.iterdir())
    (elsewhere / 'detections.parquet').unlink()
    options = '--table', 'table4', '--rows', 'table4-full', '--full', elsewhere
    assert [args[0] for args in commands(train_table(*options))] == ['predict', 'ensemble', 'score']
    assert filled_rows(tmp_path / 'out', 'table4') == ['table4-full']
    assert sorted(elsewhere.iterdir()) == [path for path in before if path.suffix != '.parquet']
    (given,) = (tmp_path / 'out' / 'given').iterdir()
    assert (given / 'detections.parquet').exists()
