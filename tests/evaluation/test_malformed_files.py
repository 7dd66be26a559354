"""Commands on malformed files: a message of one line, status 2, and no output file."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pfdet.errors import run_command
from pfdet.evaluation.detections_file import COLUMNS

ROOT = Path(__file__).resolve().parents[2]
CLASSES = '/m/a,A\n/m/b,B\n'
BOXES = 'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf\nx,/m/a,0,0.5,0,1,0\n'
LABELS = 'ImageID,LabelName,Confidence\nx,/m/a,1\n'


def table(n=20, **columns):
    """Detections in image x with some columns replaced, or dropped where :obj:`None`."""
    all_columns = dict(
        ImageID=['x'] * n,
        LabelName=['/m/a'] * n,
        Score=np.linspace(0.9, 0.1, n),
        XMin=np.zeros(n),
        XMax=np.ones(n),
        YMin=np.zeros(n),
        YMax=np.ones(n),
    )
    all_columns.update(columns)
    return pa.table({name: column for name, column in all_columns.items() if column is not None})


def at(k, value, n=20, rest=0.5):
    column = np.full(n, rest)
    column[k] = value
    return column


HEADER = ','.join(COLUMNS)
FILES = {
    'no score': ('d.parquet', table(Score=None), 'no column Score'),
    'nan': ('d.parquet', table(Score=at(7, np.nan)), 'row 8: Score is nan'),
    'pixels': ('d.parquet', table(XMax=at(3, 640.0, rest=1.0)), 'row 4: box ('),
    'corners': (
        'd.parquet',
        table(YMin=at(0, 0.9, rest=0.0), YMax=at(0, 0.1, rest=1.0)),
        'row 1: box (',
    ),
    'class': ('d.parquet', table(LabelName=['/m/a'] * 19 + ['/m/z']), "row 20: LabelName '/m/z'"),
    'no image': ('d.parquet', table(ImageID=['x'] * 5 + [None] + ['x'] * 14), 'row 6: no ImageID'),
    'text': ('d.parquet', table(Score=['high'] * 20), 'column Score holds string'),
    'csv nan': ('d.csv', f'{HEADER}\nx,/m/a,nan,0,1,0,1\n', 'line 2: Score is nan'),
    'csv class': ('d.csv', f'{HEADER}\nx,/m/z,1,0,1,0,1\n', "line 2: LabelName '/m/z'"),
    'csv fields': ('d.csv', f'{HEADER}\nx,/m/a,1,0,1\n', 'line 2: 5 fields'),
    'submission': ('d.csv', 'ImageId,PredictionString\nx,/m/a 1 0 0 1\n', 'line 2: 5 fields'),
    'empty': ('d.csv', '', 'no column ImageID'),
}


def write(path, content):
    if isinstance(content, pa.Table):
        pq.write_table(content, path)
    else:
        path.write_text(content)


@pytest.fixture
def error_message(tmp_path, monkeypatch, capsys):
    """A function that runs a command on a bad file and returns its error message."""
    for name, text in ('classes.csv', CLASSES), ('boxes.csv', BOXES), ('labels.csv', LABELS):
        (tmp_path / name).write_text(text)
    options = {
        'make_submission': ['--out', 'out.csv'],
        'score': ['--boxes', 'boxes.csv', '--labels', 'labels.csv', '--out', 'out.json'],
        'ensemble': ['--out', 'out.parquet'],
    }

    def run(command, path):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(
            sys,
            'argv',
            [
                f'{command}.py',
                '--detections',
                str(path.name),
                '--classes',
                'classes.csv',
                *options[command],
            ],
        )
        before = set(os.listdir())
        with pytest.raises(SystemExit) as e:
            run_command(importlib.import_module(f'pfdet.cli.{command}').main)
        message = capsys.readouterr().err
        assert e.value.code == 2 and message.startswith(f'error: {path.name}'), message
        assert message.count('\n') == 1 and set(os.listdir()) == before
        return message

    return run


@pytest.mark.parametrize('command', ['make_submission', 'score', 'ensemble'])
@pytest.mark.parametrize('case', FILES)
def test_bad_file(error_message, tmp_path, command, case):
    name, content, expected = FILES[case]
    write(tmp_path / name, content)
    assert expected in error_message(command, tmp_path / name)


@pytest.mark.parametrize('command', ['make_submission', 'score', 'ensemble'])
def test_truncated_file(error_message, tmp_path, command):
    path = tmp_path / 'd.parquet'
    write(path, table(2000))
    whole = path.read_bytes()
    for content in b'', whole[:100], whole[:-9], whole[: len(whole) // 2] + whole[-8:], b'PAR1' * 9:
        path.write_bytes(content)
        assert 'expected' in error_message(command, path)


def test_bad_file_in_a_subprocess(tmp_path):
    write(tmp_path / 'd.parquet', FILES['nan'][1])
    done = subprocess.run(
        [
            sys.executable,
            ROOT / 'evaluate' / 'make_submission.py',
            '--detections',
            'd.parquet',
            '--out',
            'out.csv',
        ],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 2 and done.stderr.count('\n') == 1
    assert os.listdir(tmp_path) == ['d.parquet']
