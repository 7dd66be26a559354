"""Notes are included in the page with the results that they are about, and with no others."""

import json
import re
import sys
from pathlib import Path

import pytest

from pfdet.errors import InputError
from study import __main__ as study
from study.claims import claims
from study.findings import RunScores, find
from study.notes import NOTES, matching_notes, read_note, read_notes, results_digest
from study.plan import mini_rows
from study.report import write_report
from study.results import read_results, restore_results

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / 'docs' / 'study' / 'results.jsonl'
ALL = read_notes(ROOT / NOTES)
CLAIMS = {claim.key: claim for claim in claims({})}


def scores_of(lines, directory):
    """The scores of the given lines of results."""
    file = directory / 'results.jsonl'
    file.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    rows = mini_rows(directory / 'runs', Path('train.index'), Path('validation.index'))
    assert restore_results(rows, lines[0]['data'], file, changed=True) == len(lines) - 1
    return RunScores(rows)


@pytest.fixture
def lines():
    return [json.loads(line) for line in RESULTS.read_text(encoding='utf-8').splitlines()]


def names(notes):
    return {note.path.name for some in notes.values() for note in some}


def change(lines, run, file='score'):
    """Change one AP of a score by one in the last digit that is stored."""
    (line,) = (line for line in lines[1:] if line['run'] == run)
    score = line['scores'][file]
    mid = sorted(score['AP'])[0]
    score['AP'][mid] = round(score['AP'][mid] + (-1e-5 if score['AP'][mid] > 0.5 else 1e-5), 5)


def test_all_notes_are_about_the_committed_results(small_world, lines, tmp_path, capsys):
    notes = matching_notes(ROOT / NOTES, scores_of(lines, tmp_path))
    assert names(notes) == {note.path.name for note in ALL} and len(ALL) >= 18
    assert capsys.readouterr().out == ''
    rows = mini_rows(
        tmp_path / 'runs', small_world / 'train.index', small_world / 'validation.index'
    )
    write_report(rows, tmp_path / 'study.md', 'make study', ROOT / NOTES)
    generated = ' '.join((tmp_path / 'study.md').read_text().split())
    committed = ' '.join((ROOT / 'docs' / 'study.md').read_text(encoding='utf-8').split())
    for note in ALL:
        assert ' '.join(note.text.split()) in generated, note.path
        assert ' '.join(note.text.split()) in committed, note.path


@pytest.mark.parametrize(
    'run, file, omitted',
    [
        ('cs-table4-soft-balance/seed1', 'score', {'second-stage-soft-balance.md'}),
        ('table1-multiscale/seed0', 'score-train', {'step-multiscale.md'}),
        ('mini/seed2', 'score-tta-nms-iou75', {'nmw-augmented.md'}),
        ('mini/seed2', 'score-nms', set()),
        (
            'table4-full-longer/seed0',
            'score',
            {'experts-rarest.md', 'experts-frequent.md'},
        ),
    ],
)
def test_notes_of_changed_results_are_omitted(run, file, omitted, lines, tmp_path, capsys):
    change(lines, run, file)
    notes = matching_notes(ROOT / NOTES, scores_of(lines, tmp_path))
    assert names(notes) == {note.path.name for note in ALL} - omitted
    out = capsys.readouterr().out.splitlines()
    assert len(out) == len(omitted)
    for name in omitted:
        (line,) = (line for line in out if line.startswith(f'{ROOT / NOTES / name}: '))
        assert re.search(r'omitted, since it is about other results \(\w{12}\) than', line)


def test_a_further_seed_is_another_result(lines, tmp_path):
    removed = [line for line in lines if line.get('run') != 'cs-table4-soft-balance/seed1']
    notes = matching_notes(ROOT / NOTES, scores_of(removed, tmp_path))
    assert 'second-stage-soft-balance' not in notes and 'co-bce' in notes


def test_digests_cover_the_noise_where_the_verdict_depends_on_it(lines, tmp_path):
    (tmp_path / 'before').mkdir()
    before = scores_of(lines, tmp_path / 'before')
    change(lines, 'cs-table1-focal/seed1')
    after = scores_of(lines, tmp_path)
    for key, uses_noise in (
        ('co-bce', False),
        ('step-context', True),  # one seed
        ('soft-balance-class-aware', True),  # a claim of no loss
    ):
        claim = CLAIMS[key]
        assert claim.uses_noise(len(find(claim, before).values)) == uses_noise
        assert (results_digest(claim, before) != results_digest(claim, after)) == uses_noise


def test_what_notes_name_exists(lines):
    stored = {(line['run'].split('/')[0], file) for line in lines[1:] for file in line['scores']}
    for note in ALL:
        assert note.claim in CLAIMS, note.path
        for name in note.also:
            assert name in CLAIMS or tuple(name.split('/')) in stored, note.path


@pytest.mark.parametrize(
    'text, message',
    [
        ('Only text.\n', 'line 1: no header'),
        ('---\nclaim: co-bce\n', 'line 1: no header'),
        ('---\nclaim: co-bce\nabout: x\n---\n', 'line 3: expected claim:, also: or results:'),
        ('---\nresults: x\n---\n', 'line 1: the header names no claim'),
        ('---\nclaim: no-claim\n---\n', 'no-claim: no such claim of study/claims.json'),
        ('---\nclaim: co-bce\nalso: no-claim\n---\n', 'also: no-claim: no such claim; expected'),
    ],
)
def test_invalid_notes_are_refused(text, message, tmp_path):
    (tmp_path / 'note.md').write_text(text)
    with pytest.raises(InputError, match=r'note\.md.*' + re.escape(message)):
        matching_notes(tmp_path, RunScores(mini_rows(tmp_path, Path('t'), Path('v'))))


def test_a_note_is_text_after_its_header(tmp_path):
    (tmp_path / 'note.md').write_text(
        '---\nclaim: co-bce\nalso: hybrid mini/score\nresults: 0123\n---\n\nA.\n\n---\n\nB.\n'
    )
    note = read_note(tmp_path / 'note.md')
    assert (note.claim, note.also, note.results) == ('co-bce', ('hybrid', 'mini/score'), '0123')
    assert note.text == 'A.\n\n---\n\nB.'
    assert read_notes(tmp_path / 'missing') == []


def test_command_lists_notes_and_prints_digests(lines, tmp_path, monkeypatch, capsys):
    change(lines, 'cs-table4-soft-balance/seed1')
    changed = tmp_path / 'changed.jsonl'
    changed.write_text(''.join(json.dumps(line) + '\n' for line in lines))
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(
        sys,
        'argv',
        ['study', '--given', str(changed), '--notes', 'co-bce', 'second-stage-soft-balance'],
    )
    study.main()
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f'{len(read_results(changed)[1])} runs of {changed}'
    listed = {line.split(': ')[0]: line for line in out[1 : 1 + len(ALL)]}
    assert len(listed) == len(ALL)
    for name, line in listed.items():
        assert ('does not match' in line) == ('second-stage-soft-balance' in name)
    digests = dict(line.split(': ') for line in out[1 + len(ALL) :])
    assert digests.keys() == {'co-bce', 'second-stage-soft-balance'}
    note = listed['docs/study/notes/second-stage-soft-balance.md']
    assert note.endswith(f': {digests["second-stage-soft-balance"]}')
