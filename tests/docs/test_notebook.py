"""The notebook runs from the first cell to the last, on what a quickstart leaves."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK = ROOT / 'examples' / 'detect.ipynb'


def cells(kind):
    notebook = json.loads(NOTEBOOK.read_text())
    assert (notebook['nbformat'], notebook['nbformat_minor']) == (4, 5)
    return [''.join(c['source']) for c in notebook['cells'] if c['cell_type'] == kind]


def test_cells_are_saved_without_output():
    notebook = json.loads(NOTEBOOK.read_text())
    assert len({cell['id'] for cell in notebook['cells']}) == len(notebook['cells'])
    for cell in notebook['cells']:
        if cell['cell_type'] == 'code':
            assert cell['outputs'] == [] and cell['execution_count'] is None


@pytest.mark.parametrize('below', ['', 'examples'])
def test_the_notebook_runs(below, small_world, tmp_path):
    run = tmp_path / 'quickstart' / 'run'
    index = AnnotationIndex.open(small_world / 'validation.index')
    recipe = recipes.override(recipes.find('mini', 'mini'), ['test_sizes=(64,)'])
    model_directory.write_recipe(run, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(run, build.detector(recipe, len(index.classes)))
    (tmp_path / 'quickstart' / 'data').symlink_to(small_world / 'data')
    (tmp_path / below).mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, '-c', '\n'.join(cells('code'))],
        cwd=tmp_path / below,
        env=dict(os.environ, MPLBACKEND='agg', OMP_NUM_THREADS='1', PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f'{len(index.classes)} classes: {index.classes.names[0]}, ')
    assert [line.partition('.jpg: ')[0] for line in lines[1:4]] == [
        index.image_id(i) for i in range(3)
    ]
    assert ' detections in 3 photographs: ' in lines[4]
    assert len(list((tmp_path / 'quickstart' / 'detected').glob('*.jpg'))) == 3
