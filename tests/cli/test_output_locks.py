"""Commands refuse an output that another process is writing."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
import pytest

from pfdet import recipes
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.files.locks import output_lock
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build, model_directory

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope='module')
def inputs(small_world, tmp_path_factory):
    """A directory with an untrained model, detections, and an annotation file of COCO."""
    out = tmp_path_factory.mktemp('inputs')
    index = AnnotationIndex.open(small_world / 'train.index')
    recipe = recipes.find('mini', 'mini')
    model_directory.write_recipe(out, recipe, index.classes, index.hierarchy, {})
    model_directory.write_weights(out, build.detector(recipe, len(index.classes)))
    one = np.zeros(1, np.int32)
    detections = Detections(['a'], one, one, np.ones(1, np.float32), np.ones((1, 4), np.float32))
    write_detections(out / 'd.parquet', detections, index.classes)
    (out / 'instances.json').write_text('{}')
    return out


def commands(world, inputs, out):
    """Arguments of ``pfdet`` that write ``out / NAME``, by the name."""
    data, index = world / 'data', world / 'train.index'
    tables = {
        '--boxes': data / 'train-annotations-bbox.csv',
        '--classes': data / 'class-descriptions.csv',
        '--hierarchy': data / 'hierarchy.json',
        '--images': data / 'train',
    }
    coco = {'--annotations': inputs / 'instances.json', '--images': data / 'train'}
    exported = {'--detections': inputs / 'd.parquet', '--index': index}
    own = {'--format': 'coco', **coco}
    given = {
        'run': ('train', {'--recipe': 'mini', '--train-index': index}),
        'experts': ('train-experts', {'--init': inputs / 'model.npz', '--train-index': index}),
        'predicted.parquet': ('predict', {'--model': inputs, '--index': index}),
        'predicted.csv': ('predict', {'--model': inputs, '--index': index}),
        'merged.parquet': ('ensemble', {'--detections': inputs / 'd.parquet'}),
        'a.index': ('index', tables),
        'coco.index': ('coco', coco),
        'own.index': ('own-data', own),
        'results.json': ('export-detections', {**exported, '--format': 'coco'}),
        'labels': ('export-detections', {**exported, '--format': 'yolo'}),
        'parts': ('split', {'--index': index, '--train': 8, '--val': 4}),
    }
    return {
        name: [command, *(str(x) for pair in flags.items() for x in pair), '--out', out / name]
        for name, (command, flags) in given.items()
    }


@pytest.mark.faults('two runs to one output')
def test_an_output_in_use_is_refused_in_one_line(small_world, inputs, tmp_path):
    given = commands(small_world, inputs, tmp_path)
    with contextlib.ExitStack() as stack:
        for name in given:
            stack.enter_context(output_lock(tmp_path / name, is_directory='.' not in name))
        started = {
            name: subprocess.Popen(
                [sys.executable, '-m', 'pfdet', *map(str, arguments)],
                cwd=ROOT,
                env={**os.environ, 'OMP_NUM_THREADS': '1'},
                text=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            for name, arguments in given.items()
        }
        for name, process in started.items():
            _, errors = process.communicate(timeout=600)
            owner = f'process {os.getpid()} on {os.uname().nodename}'
            lines = [line for line in errors.splitlines() if not line.startswith('note: ')]
            assert process.returncode == 2 and len(lines) == 1, (name, errors)
            assert lines[0].startswith(f'error: {tmp_path / name}: in use by {owner}, ')
    # Nothing was written.
    names = {path.name for path in tmp_path.rglob('*')}
    assert names == {name for name in given if '.' not in name}
