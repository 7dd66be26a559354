"""A small data set written in three formats by plain converters, and a slow reader of each."""

import csv
import json
import random
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

# Not in the order of the alphabet, and with spaces, other scripts and what YAML takes as a boolean.
NAMES = ('van', 'no', 'traffic light', 'Ähre, gelb', '自転車')


def draw_data(n_image=50, seed=0):
    """Images with whole pixels as corners: (id, width, height, [(name, x0, y0, x1, y1)])."""
    rng = random.Random(seed)
    images = []
    for k in range(n_image):
        width, height = rng.randint(30, 90), rng.randint(30, 90)
        boxes = []
        # Every tenth image has no objects, and some boxes are repeated under another name.
        for _ in range(0 if k % 10 == 0 else rng.randint(1, 5)):
            x0, y0 = rng.randrange(width - 4), rng.randrange(height - 4)
            x1, y1 = rng.randint(x0 + 2, width), rng.randint(y0 + 2, height)
            boxes.append((rng.choice(NAMES), x0, y0, x1, y1))
        if k % 7 == 1:
            boxes.append((rng.choice(NAMES), *boxes[0][1:]))
        images.append((f'img-{rng.randrange(10**6):06}-{k}', width, height, boxes))
    return images


def write_images(root: Path, data) -> Path:
    root.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, width, height, boxes in data:
        pixels = rng.integers(0, 60, (height, width, 3), dtype=np.uint8)
        for label, x0, y0, x1, y1 in boxes:
            pixels[y0:y1, x0:x1] = (80 + 30 * NAMES.index(label), 200, 255 - y0)
        (root / f'{name}.jpg').write_bytes(cv2.imencode('.jpg', pixels)[1].tobytes())
    return root


def write_coco(root: Path, data, names=NAMES) -> Path:
    """Categories in another order than their ids, which are 3, 6, 9 ..."""
    content = {
        'images': [
            {'id': k, 'file_name': f'{name}.jpg', 'width': width, 'height': height}
            for k, (name, width, height, _) in enumerate(data)
        ],
        'categories': [{'id': 3 * k + 3, 'name': name} for k, name in enumerate(names)][::-1],
        'annotations': [
            {
                'id': f'{k}-{j}',
                'image_id': k,
                'category_id': 3 * names.index(name) + 3,
                'bbox': [x0, y0, x1 - x0, y1 - y0],
                'iscrowd': 0,
            }
            for k, (*_, boxes) in enumerate(data)
            for j, (name, x0, y0, x1, y1) in enumerate(boxes)
        ],
    }
    path = root / 'instances.json'
    path.write_text(json.dumps(content))
    return path


def voc_text(width, height, boxes, first=1, filename='old name.jpg', **more):
    root = ET.Element('annotation')
    ET.SubElement(root, 'filename').text = filename
    size = ET.SubElement(root, 'size')
    for key, value in ('width', width), ('height', height), ('depth', 3):
        ET.SubElement(size, key).text = str(value)
    for name, x0, y0, x1, y1 in boxes:
        item = ET.SubElement(root, 'object')
        ET.SubElement(item, 'name').text = name
        for key, value in more.items():
            ET.SubElement(item, key).text = str(value)
        part = ET.SubElement(item, 'part')
        ET.SubElement(part, 'name').text = 'head'
        for element, corners in (part, (1, 1, 2, 2)), (item, (x0 + first, y0 + first, x1, y1)):
            box = ET.SubElement(element, 'bndbox')
            # VOC has several orders of the four.
            for key, value in zip(('ymax', 'xmin', 'ymin', 'xmax'), np.take(corners, [3, 0, 1, 2])):
                ET.SubElement(box, key).text = str(value)
    ET.indent(root)
    return ET.tostring(root, 'unicode')


def write_voc(root: Path, data, first=1, **more) -> Path:
    (root / 'Annotations').mkdir(parents=True)
    for name, width, height, boxes in data:
        text = voc_text(width, height, boxes, first, **more)
        (root / 'Annotations' / f'{name}.xml').write_text(text)
    return root


def write_yolo(root: Path, data, names=NAMES, form='{!r}') -> Path:
    """Labels of the images in ``root / 'images' / 'train'``, and a data.yaml."""
    labels = root / 'labels' / 'train'
    labels.mkdir(parents=True)
    for name, width, height, boxes in data:
        rows = []
        for label, x0, y0, x1, y1 in boxes:
            numbers = (x0 + x1) / 2 / width, (y0 + y1) / 2 / height
            numbers = *numbers, (x1 - x0) / width, (y1 - y0) / height
            rows.append(' '.join([str(names.index(label)), *map(form.format, numbers)]))
        if rows:
            (labels / f'{name}.txt').write_text('\n'.join(rows) + '\n')
    path = root / 'data.yaml'
    listed = ''.join(f'  {k}: {name}\n' for k, name in enumerate(names))
    path.write_text(
        f'path: .\ntrain: images/train\nval: images/val\nnc: {len(names)}\nnames:\n{listed}'
    )
    return path


def write_classes(path: Path, names=NAMES) -> Path:
    """``mid,name``, since names may have commas."""
    with open(path, 'w', newline='') as f:
        csv.writer(f).writerows([name, name] for name in names)
    return path


def objects_of(index):
    """The objects of an index: by image id, sorted (names, corners, flags)."""
    found = {}
    for i in range(len(index)):
        one = index.annotation(i)
        found[index.image_id(i)] = sorted(
            (
                tuple(index.classes.names[c] for c in np.flatnonzero(label)),
                tuple(bbox.tolist()),
                int(flags),
            )
            for bbox, label, flags in zip(one.bbox, one.label, one.flags)
        )
    return found


def expected_objects(data):
    """The same from the data itself, box by box."""
    found = {}
    for name, width, height, boxes in data:
        labels = {}
        for label, x0, y0, x1, y1 in boxes:
            corners = y0 / height, x0 / width, y1 / height, x1 / width
            corners = tuple(float(np.float32(value)) for value in corners)
            labels.setdefault(corners, set()).add(label)
        found[name] = sorted(
            (tuple(sorted(names, key=NAMES.index)), corners, 0) for corners, names in labels.items()
        )
    return found


@pytest.fixture(scope='session')
def own() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        names=NAMES,
        draw_data=draw_data,
        write_images=write_images,
        write_coco=write_coco,
        write_voc=write_voc,
        write_yolo=write_yolo,
        write_classes=write_classes,
        voc_text=voc_text,
        objects_of=objects_of,
        expected_objects=expected_objects,
    )


@pytest.fixture(scope='session')
def world(tmp_path_factory, own):
    """50 images, and their annotations in three formats."""
    root, data = tmp_path_factory.mktemp('own'), draw_data()
    images = write_images(root / 'yolo' / 'images' / 'train', data)
    return SimpleNamespace(
        data=data,
        images=images,
        coco=write_coco(root, data),
        voc=write_voc(root / 'voc', data),
        yolo=write_yolo(root / 'yolo', data),
        classes=write_classes(root / 'classes.csv'),
    )
