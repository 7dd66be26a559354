"""Fixtures for exports of detections."""

import contextlib
import io
import sys
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from pfdet.cli import export_detections
from pfdet.evaluation.detections import Detections, write_detections
from pfdet.openimages.build_index import build_index
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex

# The tests of this directory import it, too.
sys.path.insert(0, str(Path(__file__).parent))
from exported_world import CLASSES, IDS, N_PREDICTED, tree  # noqa: E402


@pytest.fixture(scope='module')
def world(tmp_path_factory):
    """Images in folders, an index with flat classes, and noisy detections of its objects."""
    out = tmp_path_factory.mktemp('formats')
    rng = np.random.default_rng(0)
    lines, found = ['ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf'], []
    for k, image_id in enumerate(IDS):
        folder = out / 'images' / ('', 'é 1', 'b/c')[k % 3]
        folder.mkdir(parents=True, exist_ok=True)
        size = tuple(rng.integers(100, 300, 2).tolist())
        suffix = '.png' if k == 4 else '.jpg'
        PIL.Image.new('RGB', size[::-1]).save(folder / (image_id + suffix))
        for _ in range(rng.integers(1, 7)):
            corner, extent = rng.uniform(0, 0.6, 2), rng.uniform(0.05, 0.39, 2)
            box = np.concatenate([corner, corner + extent])
            label, crowd = rng.integers(4), int(rng.random() < 0.1)
            y_min, x_min, y_max, x_max = box.round(6)
            lines.append(
                f'{image_id},{CLASSES.mids[label]},{x_min},{x_max},{y_min},{y_max},{crowd}'
            )
            for _ in range(rng.integers(0, 4) if k < N_PREDICTED - 1 else 0):
                noisy = np.clip(box + rng.normal(0, 0.02, 4), 0, 1)
                guess = label if rng.random() < 0.8 else rng.integers(4)
                found.append((k, guess, rng.random(), noisy))
    (out / 'boxes.csv').write_text('\n'.join([*lines, '']))
    flat = Hierarchy(np.zeros((4, 4), bool))
    for name, hierarchy in ('flat', flat), ('tree', tree()):
        with contextlib.redirect_stdout(io.StringIO()):
            build_index(
                out / 'boxes.csv', None, CLASSES, hierarchy, out / 'images', out / f'{name}.index'
            )
    image, label, score, bbox = zip(*found)
    detections = Detections(
        IDS[:N_PREDICTED],
        np.array(image, np.int32),
        np.array(label, np.int32),
        np.array(score, np.float32),
        np.array(bbox, np.float32),
    )
    write_detections(out / 'd.parquet', detections, CLASSES)
    # CSV is never sorted; here its rows are not, either.
    rows = np.random.default_rng(1).permutation(len(image))
    write_detections(out / 'd.csv', detections.take(rows), CLASSES)
    return out, AnnotationIndex.open(out / 'flat.index'), detections


@pytest.fixture
def export(world, tmp_path, monkeypatch):
    def run(form, name, *flags, detections='d.parquet', index='flat'):
        out = tmp_path / name
        arguments = ['--detections', world[0] / detections, '--index', world[0] / f'{index}.index']
        arguments += ['--format', form, '--out', out, *flags]
        monkeypatch.setattr(sys, 'argv', ['pfdet export-detections', *map(str, arguments)])
        export_detections.main()
        # No lock, no temporary file.
        assert not list(tmp_path.glob('.*')) and not list(out.parent.glob('.*'))
        return out

    return run
