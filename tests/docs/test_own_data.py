"""The commands of the page about own data run as they stand, in the order of the page.

Only the training is made shorter.
"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pfdet.openimages.index import AnnotationIndex
from pfdet.subprocesses import mpiexec

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'own_data.md'
NAMES = ('apple', 'ripe banana')
XML = """<annotation><size><width>64</width><height>48</height></size><object>
<name>{}</name><bndbox><xmin>9</xmin><ymin>9</ymin><xmax>40</xmax><ymax>32</ymax></bndbox>
</object></annotation>
"""


def commands():
    """The indented commands of the page; continued lines are joined."""
    text = PAGE.read_text().replace('\\\n', ' ')
    return [shlex.split(line) for line in re.findall(r'(?m)^    ((?:mpiexec|pfdet) .*)$', text)]


def runnable(words):
    """The command of this environment for one of the page."""
    python = [sys.executable, '-m']
    if words[0] != 'mpiexec':
        return [*python, *words]
    at = words.index('pfdet')
    return [mpiexec(), *words[1:at], *python, *words[at:], '--iterations', '2']


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def write_photograph(path, k):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((48, 64, 3), 40, np.uint8)
    pixels[8:32, 8:40] = (0, 200, 200 * (k % 2))
    path.write_bytes(cv2.imencode('.jpg', pixels)[1].tobytes())


def write_data(root):
    """Files of the three formats where the page has them; image k has an object of class k % 2."""
    images, annotations, train = [], [], []
    for k in range(12):
        name, kind = f'{k:03}', k % 2
        for folder in 'coco/images', 'VOC2007/JPEGImages', 'photos':
            write_photograph(root / folder / f'{name}.jpg', k)
        images.append(f'{{"id": {k}, "file_name": "{name}.jpg", "width": 64, "height": 48}}')
        annotations.append(f'{{"image_id": {k}, "category_id": {kind}, "bbox": [8, 8, 32, 24]}}')
        write(root / 'VOC2007' / 'Annotations' / f'{name}.xml', XML.format(NAMES[kind]))
        row = f'{kind} 0.375 0.416667 0.5 0.5\n'
        write(root / 'photos' / f'{name}.txt', row)
        split = 'val' if k > 7 else 'train'
        write_photograph(root / 'dataset' / 'images' / split / f'{name}.jpg', k)
        write(root / 'dataset' / 'labels' / split / f'{name}.txt', row)
        train += [name] if split == 'train' else []
    categories = ', '.join(f'{{"id": {k}, "name": "{name}"}}' for k, name in enumerate(NAMES))
    sections = f'"images": [{", ".join(images)}], "annotations": [{", ".join(annotations)}]'
    write(root / 'coco' / 'instances.json', f'{{{sections}, "categories": [{categories}]}}')
    write(root / 'VOC2007' / 'ImageSets' / 'Main' / 'train.txt', '\n'.join(train) + '\n')
    write(root / 'photos' / 'classes.txt', '\n'.join(NAMES) + '\n')
    listed = ', '.join(NAMES)
    splits = 'train: images/train\nval: images/val\n'
    write(root / 'dataset' / 'data.yaml', f'{splits}nc: 2\nnames: [{listed}]\n')


def test_the_commands_of_the_page_run(tmp_path):
    pytest.importorskip('yaml')
    write_data(tmp_path)
    found = commands()
    assert len(found) == 12
    assert {words[words.index('pfdet') + 1] for words in found} == {
        *('own-data', 'split', 'train', 'predict', 'score', 'report', 'detect')
    }
    path = os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')])
    for words in found:
        done = subprocess.run(
            runnable(words),
            cwd=tmp_path,
            env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': path},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, (words, done.stderr)
    sizes = {p.stem: len(AnnotationIndex.open(p)) for p in tmp_path.glob('*.index')}
    assert sizes == {
        **{'coco': 12, 'voc': 12, 'voc-train': 8, 'train': 8, 'validation': 4, 'photos': 12}
    }
    for name in sizes:
        index = AnnotationIndex.open(tmp_path / f'{name}.index')
        assert index.classes.names == NAMES
        for i in range(len(index)):
            one = index.annotation(i)
            np.testing.assert_allclose(one.bbox, [[1 / 6, 1 / 8, 2 / 3, 5 / 8]], atol=1e-6)
            assert one.label.tolist() == [[int(index.image_id(i)) % 2 == k for k in range(2)]]
    assert (tmp_path / 'detected' / '000.jpg').exists()


def test_the_page_has_every_flag():
    text = PAGE.read_text()
    source = (ROOT / 'pfdet' / 'openimages' / 'own' / 'command.py').read_text()
    flags = set(re.findall(r"'(--[a-z-]+)'", source))
    assert len(flags) > 12
    assert not [flag for flag in flags if flag not in text]
