"""pfdet report on runs as training, prediction and scoring leave them, and on parts of them."""

import json
import sys

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet.cli import compare_tables, report
from pfdet.errors import InputError
from pfdet.evaluation.average_precision import average_precision, score_dict
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.evaluation.ground_truth import ground_truth_of_index
from pfdet.openimages.index import AnnotationIndex

LOG = [{'iteration': k, 'lr': 0.1, 'main/loss': 3 - k, 'validation/mAP': 0.1} for k in (1, 2)]


@pytest.fixture
def run(small_world, tmp_path, monkeypatch, capsys):
    """Make a run that finds every other box; returns its directory, its score and the command."""
    index = AnnotationIndex.open(small_world / 'validation.index')
    truth = ground_truth_of_index(index)
    found = np.arange(0, len(truth.label), 2)
    score = np.linspace(0.9, 0.5, len(found)).astype(np.float32)
    detections = Detections(
        truth.image_ids, truth.image[found], truth.label[found], score, truth.bbox[found]
    )
    result = average_precision(detections, truth, len(index.classes))
    content = score_dict(result, index.classes, index.hierarchy)
    directory = tmp_path / 'my-run'
    directory.mkdir()
    for name, data in (
        ('recipe.json', {'recipe': {'name': 'mine', 'size': 'mini'}, 'run': {'ranks': 3}}),
        ('log', LOG),
        ('score.json', content),
    ):
        (directory / name).write_text(json.dumps(data))
    write_detections(directory / 'validation.parquet', detections, index.classes)

    def command(main, *arguments):
        monkeypatch.setattr(sys, 'argv', ['pfdet', *map(str, arguments)])
        main()
        return capsys.readouterr()

    monkeypatch.chdir(tmp_path)
    return directory, content, command


def test_all_sections(run, small_world):
    directory, score, command = run
    printed = command(
        report.main,
        'my-run',
        *('--index', small_world / 'validation.index'),
        *('--train-index', small_world / 'train.index'),
        *('--images', 3),
    )
    assert printed.out == f'my-run/report.html: mAP {score["mAP"]:.3f}\n' and printed.err == ''
    page = (directory / 'report.html').read_text()
    for text in (
        'mine, my-run',
        f'{score["mAP"]:.3f}',
        '<dt>Ranks</dt><dd>3</dd>',
        '<dt>Validation images</dt><dd>8</dd>',
        'Errors by class',
        'Losses',
        'training images',
    ):
        assert text in page, text
    assert page.count('<figure') == 3 or page.count('data:image/jpeg') > 3


@pytest.mark.parametrize('name', report.DETECTIONS)
def test_the_score_is_computed_if_it_is_missing(name, run, small_world):
    directory, score, command = run
    (directory / 'validation.parquet').rename(directory / name)
    (directory / 'score.json').unlink()
    (directory / 'log').unlink()
    index = ('--index', small_world / 'validation.index')
    printed = command(report.main, 'my-run', *index, '--out', 'page.html')
    assert printed.out == f'page.html: mAP {score["mAP"]:.3f}\n'
    assert not (directory / 'score.json').exists()
    with pytest.raises(InputError, match=r'score\.json: missing; expected that of pfdet score, or'):
        command(report.main, 'my-run')


def test_without_index_or_detections_the_page_says_less(run, small_world):
    directory, _, command = run
    printed = command(report.main, 'my-run')
    assert 'no --index' in printed.err
    page = (directory / 'report.html').read_text()
    assert 'Errors by class' not in page and 'Losses' in page
    (directory / 'validation.parquet').unlink()
    printed = command(report.main, 'my-run', '--index', small_world / 'validation.index')
    assert 'my-run: no detections.parquet or validation.parquet' in printed.err


def test_given_files(run, small_world, tmp_path):
    directory, score, command = run
    (directory / 'score.json').rename(tmp_path / 'other.json')
    (directory / 'validation.parquet').rename(tmp_path / 'found.parquet')
    given = ('--score', 'other.json', '--detections', 'found.parquet', '--title', 'My <title>')
    command(report.main, 'my-run', *given, '--index', small_world / 'validation.index')
    page = (directory / 'report.html').read_text()
    assert 'Errors by class' in page and 'My &lt;title&gt;' in page


@pytest.mark.parametrize(
    'arguments, message',
    [
        (['nothing'], r'nothing/'),
        (['my-run', '--images', '-1'], '--images -1: expected an integer from 0'),
        (['my-run', '--score', 'no.json'], r'no\.json'),
        (['my-run', '--index', 'no.index'], r'no\.index'),
    ],
)
def test_what_is_missing_is_one_line(arguments, message, run):
    _, _, command = run
    with pytest.raises(InputError, match=message):
        command(report.main, *arguments)


def test_compare_tables_takes_the_same_detections_and_omits_empty_tables(
    run, small_world, tmp_path
):
    directory, _, command = run
    arguments = ['--runs', 'my-run', '--index', small_world / 'validation.index']
    files = ['--out', 'page.html', '--markdown', 'page.md']
    printed = command(compare_tables.main, *arguments, *files)
    assert printed.err == '' and 'Tables without runs: PFDet, Table 1; ' in printed.out
    page, text = (tmp_path / 'page.html').read_text(), (tmp_path / 'page.md').read_text()
    assert 'not run' not in page and 'not run' not in text
    assert 'Errors by class' in page and 'Other runs' in page
    assert 'Tables without runs: PFDet, Table 1; ' in page
    assert 'Tables without runs: PFDet, Table 1; ' in text

    content = {'recipe': {'name': 'table1-baseline', 'size': 'mini'}, 'run': {}}
    (directory / 'recipe.json').write_text(json.dumps(content))
    command(compare_tables.main, *arguments, *files)
    page = (tmp_path / 'page.html').read_text()
    assert '<h2>PFDet, Table 1, at mini scale</h2>' in page and 'not run' in page
    assert 'Tables without runs: PFDet, Table 2; ' in page
    assert page.count('<h2>PFDet, Table') == 1

    printed = command(compare_tables.main, *arguments, *files, '--detections', 'x.parquet')
    assert 'my-run: no x.parquet; the page shows no images' in printed.err
