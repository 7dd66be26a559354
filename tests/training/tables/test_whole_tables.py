"""``pfdet train-table`` from nothing to a filled table, on a few images."""

import json
from pathlib import Path

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


def filled_rows(out, key):
    """The rows of a table that have a figure for each measure of a run."""
    runs, _ = find_runs([out])
    (table,) = (t for t in compare(runs) if t.table.key == key)
    return [
        row.row.recipe
        for row in table.rows
        if row.cells[0].here and all((run.path / 'done').exists() for run in row.runs)
    ]


def trained(finished):
    return [args[2] for args in finished.started if args[0].startswith('train')]


def test_tables_2_and_4(train_tables, second_world, small_world, tmp_path):
    out = tmp_path / 'out'
    table4 = '--out', out, '--table', 'table4', '--images-seen', 4
    table2 = '--out', out, '--table', 'table2', '--images-seen', 4
    table2 = *table2, '--others', 'table1-context', '--sizes', 48, 64
    of_two = *table2, '--second-index', second_world
    rows_of_4, without_second, with_second, again, other_size, other_length = train_tables(
        table4,
        table2,
        of_two,
        of_two,
        (*of_two, '--rows', 'table2-single', '--sizes', 64),
        (*table4, '--images-seen', 6),
    )
    # The full model was not there; it is the last row of Table 1.
    assert trained(rows_of_4) == ['table1-senet154', 'expert-class10', 'expert-class40']
    assert 'random weights for table1-senet154' in rows_of_4.printed
    assert filled_rows(out, 'table4') == ['table4-full', 'table4-class10', 'table4-class40']
    assert 'Class40 experts' in (out / 'table4.html').read_text()

    # Table 2 shares the full model and experts, and leaves out what needs a second data set.
    assert trained(without_second) == ['expert-class20', 'table1-context']
    (note,) = (line for line in without_second.printed.splitlines() if '--second-index' in line)
    assert note.startswith('note: table2-coco, table2-class-weight: without --second-index')
    assert {Path(args[-1]).parts[-3] for args in without_second.started if args[0] == 'score'} == {
        *TABLE2[:4]
    }
    assert trained(with_second) == ['expert-coco']
    assert filled_rows(out, 'table2') == TABLE2
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

    assert again.started == []
    # Another way of testing is another ensemble of the same models.
    assert [args[0] for args in other_size.started] == ['predict', 'ensemble', 'score']
    assert 'expert-class10/seed0: was started with images_seen=4, not 6' in other_length.error
    assert {run.error for run in (rows_of_4, without_second, with_second, again, other_size)} == {
        ''
    }


def test_a_model_from_elsewhere_keeps_its_directory(train_tables, tmp_path):
    out, elsewhere = tmp_path / 'out', tmp_path / 'elsewhere'
    model = elsewhere / 'mini' / 'seed0'
    _, finished = train_tables(
        ('--out', elsewhere, '--table', 'mini', '--rows', 'mini'),
        ('--out', out, '--table', 'table4', '--rows', 'table4-full', '--full', model),
    )
    assert [args[0] for args in finished.started] == ['predict', 'ensemble', 'score']
    assert filled_rows(out, 'table4') == ['table4-full']
    assert not list(model.glob('detections-*'))
    assert finished.started[0][2] == str(model)
    (given,) = (out / 'given').iterdir()
    assert (given / 'detections.parquet').read_bytes() == (
        model / 'detections.parquet'
    ).read_bytes()
