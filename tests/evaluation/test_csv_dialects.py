"""CSV dialects: every command that reads detections or submissions accepts the same files.

Each case has the same verdict in all commands. Accepted files must also mean the same in all.
"""

import codecs
import csv
import itertools
import json
import sys

import pyarrow as pa
import pyarrow.csv
import pytest

from pfdet.cli import ensemble, make_submission, score, validate_submission
from pfdet.errors import InputError, run_command
from pfdet.evaluation.csv_rows import CSVBlock, csv_blocks, csv_rows, read_header
from pfdet.evaluation.detections import read_detections
from pfdet.openimages.classes import read_classes

CLASSES = '/m/a,A\n"/m/b,c",B\n'
BOXES = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\nx,/m/a,0,0.5,0,1,0\n'
LABELS = 'ImageID,LabelName,Confidence\nx,/m/a,1\n'

SUBMISSION = 'ImageId,PredictionString\nx,/m/a 0.5 0 0 0.5 1\ny,\n'
DETECTIONS = 'ImageID,LabelName,Score,XMin,XMax,YMin,YMax\nx,/m/a,0.5,0,0.5,0,1\ny,,,,,,\n'


def quote_all(text):
    return '\n'.join(
        ','.join(f'"{field}"' for field in line.split(',')) for line in text.splitlines()
    )


def quote_header(text):
    header, rest = text.split('\n', 1)
    return quote_all(header) + '\n' + rest


def with_comma_in_class(text):
    if text == SUBMISSION:
        return text.replace('x,/m/a 0.5 0 0 0.5 1', 'x,"/m/b,c 0.5 0 0 0.5 1"')
    return text.replace('/m/a', '"/m/b,c"')


# From the name of the case to the change of the text; for files that are refused, also to the line
# that messages name.
ACCEPTED = {
    'as it is': lambda text: text,
    'quoted header': quote_header,
    'all fields quoted': quote_all,
    'CRLF': lambda text: text.replace('\n', '\r\n'),
    'CR': lambda text: text.replace('\n', '\r'),
    'mixed line ends': lambda text: text.replace('\n', '\r\n', 1),
    'byte order mark': lambda text: codecs.BOM_UTF8 + text.encode(),
    'byte order mark, quoted header': lambda text: codecs.BOM_UTF8 + quote_header(text).encode(),
    'no line end at the end': lambda text: text[:-1],
    'empty last line': lambda text: text + '\n',
    'empty last lines with CRLF': lambda text: (text + '\n\n').replace('\n', '\r\n'),
    'empty lines between': lambda text: text.replace('\n', '\n\n'),
    'quoted field with a comma': with_comma_in_class,
    'doubled quote in an image id': lambda text: text.replace('\ny,', '\n"y ""2""",'),
    'comma in an image id': lambda text: text.replace('\ny,', '\n"y,2",'),
    'an image id of other characters': lambda text: text.replace('\ny,', '\n日本 é,'),
    'quoted empty field': lambda text: text.replace('y,', 'y,""', 1),
}
REFUSED = {
    'empty file': (lambda text: '', ''),
    'empty first line': (lambda text: '\n' + text, ''),
    'no header': (lambda text: text.split('\n', 1)[1], ''),
    'spaces in the header': (lambda text: text.replace(',', ', ', 1), ''),
    'semicolons': (lambda text: text.replace(',', ';'), ''),
    'tabs': (lambda text: text.replace(',', '\t'), ''),
    'UTF-16': (lambda text: text.encode('utf-16'), ''),
    'Latin-1': (lambda text: text.replace('y', 'é').encode('latin-1'), 'line 3'),
    'trailing comma': (lambda text: text.replace('\ny,', '\ny,,'), 'line 3'),
    'missing field': (lambda text: text.replace('\ny,', '\ny'), 'line 3'),
    'line of a space': (lambda text: text.replace('\ny', '\n \ny'), 'line 3'),
    'line of a comma': (lambda text: text.replace('\ny,', '\n,'), 'line 3'),
    'image id of a space': (lambda text: text.replace('\ny,', '\n ,'), 'line 3'),
    'quote that is not closed': (lambda text: text.replace('\ny', '\n"y'), 'line 3'),
    'quote inside a field': (lambda text: text.replace('\ny', '\ny"2"'), 'line 3'),
    'text after a quote': (lambda text: text.replace('\ny', '\n"y"2'), 'line 3'),
    'space before a quote': (lambda text: text.replace('\ny', '\n "y"'), 'line 3'),
    'line end in quotes': (lambda text: text.replace('\ny', '\n"y\n2"'), 'line 3'),
    'quote in the header': (lambda text: text.replace('I', '"I', 1), 'line 1'),
    'number of Python only': (lambda text: text.replace('0.5', '0_5', 1), 'line 2'),
    'decimal comma': (lambda text: text.replace('0.5', '0,5', 1), 'line 2'),
    'space in a class': (lambda text: text.replace('/m/a', '/m/ a'), 'line 2'),
}


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs a command on ``d.csv``; returns the status and the error message."""
    for name, text in ('classes.csv', CLASSES), ('boxes.csv', BOXES), ('labels.csv', LABELS):
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    arguments = {
        validate_submission: ['d.csv'],
        make_submission: ['--detections', 'd.csv', '--out', 'made.csv'],
        ensemble: ['--detections', 'd.csv', '--out', 'ensemble.parquet'],
        score: [
            *('--detections', 'd.csv', '--out', 'score.json'),
            *('--boxes', 'boxes.csv', '--labels', 'labels.csv'),
        ],
    }

    def run(command, text):
        (tmp_path / 'd.csv').write_bytes(text if isinstance(text, bytes) else text.encode())
        arguments_ = [*arguments[command], '--classes', 'classes.csv']
        monkeypatch.setattr(sys, 'argv', [command.__name__, *arguments_])
        capsys.readouterr()
        with pytest.raises(SystemExit) as e:
            run_command(command.main)
        return e.value.code, capsys.readouterr().err

    return run


def commands(text):
    return [make_submission, ensemble, score] + [validate_submission] * ('PredictionString' in text)


@pytest.mark.parametrize('text', [SUBMISSION, DETECTIONS], ids=['submission', 'detections'])
@pytest.mark.parametrize('case', ACCEPTED)
def test_accepted_by_all(run, tmp_path, text, case):
    changed = ACCEPTED[case](text)
    for command in commands(text):
        status, message = run(command, changed)
        assert status == 0, (command.__name__, message)
    classes = read_classes(tmp_path / 'classes.csv')
    found = read_detections(tmp_path / 'd.csv', classes)
    label = 1 if case == 'quoted field with a comma' else 0
    assert (found.label.tolist(), found.score.tolist()) == ([label], [0.5])
    assert found.bbox.tolist() == [[0, 0, 1, 0.5]]
    ids = {'doubled quote in an image id': 'y "2"', 'comma in an image id': 'y,2'}
    ids['an image id of other characters'] = '日本 é'
    assert list(found.image_ids) == ['x', ids.get(case, 'y')]
    for made in 'made.csv', 'ensemble.parquet':
        again = read_detections(tmp_path / made, classes)
        assert list(again.image_ids) == list(found.image_ids)
        assert again.bbox.tolist() == found.bbox.tolist()
    ap = json.loads((tmp_path / 'score.json').read_text())['AP']
    assert ap['/m/a'] == (0 if label else 1)


@pytest.mark.parametrize('text', [SUBMISSION, DETECTIONS], ids=['submission', 'detections'])
@pytest.mark.parametrize('case', REFUSED)
def test_refused_by_all(run, tmp_path, text, case):
    change, line = REFUSED[case]
    before = set(tmp_path.iterdir()) | {tmp_path / 'd.csv'}
    for command in commands(text):
        status, message = run(command, change(text))
        assert status == 2, (command.__name__, message)
        assert message.count('\n') == 1, message
        assert message.startswith(f'error: d.csv, {line}' if line else 'error: d.csv'), message
        assert set(tmp_path.iterdir()) == before


def test_unnamed_and_repeated_other_columns_are_ignored(run):
    text = DETECTIONS.replace('\n', ',,\n').replace('YMax,,', 'YMax,Other,Other')
    for command in commands(text):
        assert run(command, text)[0] == 0
    for command in commands(SUBMISSION):
        status, message = run(command, SUBMISSION.replace('\n', ',\n'))
        assert status == 2 and message.count('\n') == 1


def test_spaces_around_numbers_are_ignored(run, tmp_path):
    for text in DETECTIONS.replace(',0.5,', ', 0.5 ,'), SUBMISSION.replace(' 0.5', '  0.5', 1):
        for command in commands(text):
            assert run(command, text)[0] == 0
        classes = read_classes(tmp_path / 'classes.csv')
        assert read_detections(tmp_path / 'd.csv', classes).score.tolist() == [0.5]


@pytest.mark.parametrize('case', ['as it is', 'all fields quoted', 'CRLF', 'empty last line'])
@pytest.mark.parametrize('header', [True, False])
def test_image_lists_are_of_the_same_dialect(tmp_path, case, header):
    listed = ACCEPTED[case](SUBMISSION if header else SUBMISSION.split('\n', 1)[1])
    for text in listed, codecs.BOM_UTF8.decode() + listed:
        (tmp_path / 'ids').write_bytes(text.encode())
        assert validate_submission.read_image_ids(tmp_path / 'ids') == ['x', 'y']
    for text in 'x\n"y', 'x\ny"2"\n', 'x\n"y\n2"':
        (tmp_path / 'ids').write_text(text)
        with pytest.raises(InputError, match='ids, line 2: a (quote|line end)'):
            validate_submission.read_image_ids(tmp_path / 'ids')


def test_quotes_as_the_csv_module_reads_them():
    """All lines of up to seven characters out of three, against two other parsers."""
    n_accepted = 0
    for length in range(1, 8):
        for line in map(''.join, itertools.product('a,"', repeat=length)):
            try:
                [(_, found)] = CSVBlock('d.csv', 1, line.encode()).rows()
            except InputError:
                found = None
            try:
                [expected] = csv.reader([line], strict=True)
            except csv.Error:
                expected = None
            if found is not None:
                n_accepted += 1
                assert found == expected
                table = CSVBlock('d.csv', 1, line.encode()).parse(
                    [str(i) for i in range(len(found))],
                    {str(i): pa.string() for i in range(len(found))},
                )
                assert [c.to_pylist() for c in table.columns] == [[x or None] for x in found]
            elif expected is not None:
                # The csv module takes a quote in a field that does not begin with one as text.
                assert any('"' in field and field[0] != '"' for field in line.split(','))
    assert n_accepted == 858


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('block_size', [1, 2, 7, 1000])
def test_blocks_of_any_size_hold_the_same_lines(tmp_path, end, block_size):
    lines = ['head,er', 'a,"b"', '', 'cc,', '', '', '"d,d",eeeeeeeeeeeee', 'f,g']
    for text in end.join(lines), end.join(lines) + end:
        (tmp_path / 'd.csv').write_bytes(codecs.BOM_UTF8 + text.encode())
        blocks = list(csv_blocks(tmp_path / 'd.csv', block_size))
        rows = [row for block in blocks for row in block.rows()]
        assert rows == [
            (2, ['a', 'b']),
            (4, ['cc', '']),
            (7, ['d,d', 'eeeeeeeeeeeee']),
            (8, ['f', 'g']),
        ]
        assert [n for block in blocks for n in block.lines(len(list(block.rows())))] == [2, 4, 7, 8]
        assert read_header(tmp_path / 'd.csv') == ['head', 'er']
        assert list(csv_rows(tmp_path / 'd.csv')) == [(1, ['head', 'er']), *rows]
        assert block_size < 1000 or len(blocks) <= 2


def test_a_line_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr('pfdet.files.lines.LONGEST_LINE', 1000)
    (tmp_path / 'd.csv').write_text('a\n' + 'b' * 3000)
    with pytest.raises(InputError, match='d.csv, line 2: the line is longer than 1000 bytes'):
        list(csv_blocks(tmp_path / 'd.csv', 100))
