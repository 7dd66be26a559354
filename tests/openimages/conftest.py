"""A small synthetic split in the files of Open Images, and a slow reference reader of them."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

BOX_COLUMNS = (
    'ImageID',
    'Source',
    'LabelName',
    'Confidence',
    'XMin',
    'XMax',
    'YMin',
    'YMax',
    'IsOccluded',
    'IsTruncated',
    'IsGroupOf',
    'IsDepiction',
    'IsInside',
)
FLAG_COLUMNS = BOX_COLUMNS[-5:]
LABEL_COLUMNS = ('ImageID', 'Source', 'LabelName', 'Confidence')
CLASSES = (
    ('/m/a', 'Animal'),
    ('/m/b', 'Bird'),
    ('/m/c', 'Cat, domestic'),
    ('/m/d', 'Duck'),
    ('/m/e', 'Egg'),
)
HIERARCHY = {
    'LabelName': '/m/root',
    'Subcategory': [
        {
            'LabelName': '/m/a',
            'Subcategory': [
                {
                    'LabelName': '/m/b',
                    'Subcategory': [{'LabelName': '/m/d'}],
                    'Part': [{'LabelName': '/m/e'}],
                },
                {'LabelName': '/m/c'},
            ],
        },
        {'LabelName': '/m/e'},
    ],
}


def write_csv(path: Path, header, rows) -> Path:
    with open(path, 'w', newline='') as f:
        csv.writer(f, lineterminator='\n').writerows([header, *rows])
    return path


def write_split(root: Path, seed: int = 0, n_image: int = 25, n_box: int = 160) -> dict:
    """Write a random split with all kinds of unusual rows. Returns build_index's arguments."""
    rng = np.random.default_rng(seed)
    images = root / 'images'
    images.mkdir(parents=True)
    ids = [f'{i:016x}' for i in rng.choice(2**40, n_image - 2, replace=False)]
    ids += ['z-\u00fcber', 'A_B']
    for image_id in ids:
        height, width = rng.integers(8, 40, 2)
        img = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        (images / f'{image_id}.jpg').write_bytes(cv2.imencode('.jpg', img)[1].tobytes())
    mids = [mid for mid, _ in CLASSES] + ['/m/unknown']
    grid = [f'{x:.6f}' for x in np.linspace(-0.2, 1.2, 8)] + ['0', '1', '-0.0', '5e-1']
    boxes = []
    for _ in range(n_box):
        x, y = (sorted(rng.choice(grid, 2), key=float) for _ in range(2))
        boxes.append(
            [
                rng.choice(ids[:-1]),
                'xclick',
                rng.choice(mids),
                '1',
                *x,
                *y,
                *rng.choice(['-1', '0', '0', '1'], 5),
            ]
        )
    for i in rng.choice(n_box, n_box // 3):  # repeated boxes, often of another class
        boxes.append([*boxes[i][:2], rng.choice(mids), *boxes[i][3:8], *rng.choice(['0', '1'], 5)])
    labels = [
        [rng.choice(ids), 'verification', rng.choice(mids), rng.choice(['0', '1', '0.7'])]
        for _ in range(n_box)
    ]
    with open(root / 'hierarchy.json', 'w') as f:
        json.dump(HIERARCHY, f)
    with open(root / 'classes.csv', 'w', newline='') as f:
        csv.writer(f).writerows(CLASSES)
    return {
        'boxes': write_csv(root / 'boxes.csv', BOX_COLUMNS, boxes),
        'labels': write_csv(root / 'labels.csv', LABEL_COLUMNS, labels),
        'classes': root / 'classes.csv',
        'hierarchy': root / 'hierarchy.json',
        'images': images,
        'out': root / 'split.index',
    }


def read_slowly(boxes: Path, labels: Path) -> tuple[dict, dict]:
    """Read a split row by row.

    Returns:
        tuple: Per image id ``{'objects': {(bbox, group-of): [label set, flags]}, 'positive': set,
        'negative': set, 'rows': [(label, bbox, flags)]}``, and the counts.
    """
    class_ids = {mid: i for i, (mid, _) in enumerate(CLASSES)}
    split: dict = {}
    counts = dict(
        boxes=0,
        clipped=0,
        degenerate=0,
        box_unknown=0,
        labels=0,
        label_unknown=0,
        machine=0,
        unverified=0,
    )

    def entry(image_id):
        return split.setdefault(
            image_id, {'objects': {}, 'positive': set(), 'negative': set(), 'rows': []}
        )

    with open(boxes, newline='') as f:
        for row in csv.DictReader(f):
            image = entry(row['ImageID'].strip(' \t'))
            row['LabelName'] = row['LabelName'].strip(' \t')
            if row['LabelName'] not in class_ids:
                counts['box_unknown'] += 1
                continue
            corners = [np.float32(row[name]) for name in ('YMin', 'XMin', 'YMax', 'XMax')]
            bbox = tuple(float(min(max(c, np.float32(0)), np.float32(1))) for c in corners)
            if bbox[0] >= bbox[2] or bbox[1] >= bbox[3]:
                counts['degenerate'] += 1
                continue
            counts['boxes'] += 1
            counts['clipped'] += any(b != c for b, c in zip(bbox, corners))
            label = class_ids[row['LabelName']]
            flags = sum(2**k for k, name in enumerate(FLAG_COLUMNS) if row.get(name) == '1')
            image['rows'].append((label, bbox, flags))
            merged = image['objects'].setdefault((bbox, bool(flags & 4)), [set(), 0])
            merged[0].add(label)
            merged[1] |= flags
            image['positive'].add(label)
    human = ('', 'verification', 'crowdsource-verification', 'human', 'xclick', 'freeform')
    with open(labels, newline='') as f:
        for row in csv.DictReader(f):
            image = entry(row['ImageID'].strip(' \t'))
            row['LabelName'] = row['LabelName'].strip(' \t')
            if row['LabelName'] not in class_ids:
                counts['label_unknown'] += 1
            elif row.get('Source', '').strip().casefold() not in human:
                counts['machine'] += 1
            elif float(row['Confidence']) not in (0, 1):
                counts['unverified'] += 1
            else:
                counts['labels'] += 1
                kind = 'positive' if float(row['Confidence']) == 1 else 'negative'
                image[kind].add(class_ids[row['LabelName']])
    for image in split.values():
        image['negative'] -= image['positive']
    return split, counts


def mutate(rng: np.random.Generator, data: bytes, special: bytes) -> bytes:
    """Damage a file by one to three edits of bytes, runs or lines.

    Some edits write one of the bytes ``special``, which have a meaning in the format.
    """
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(data) + 1))
        length = int(rng.integers(1, 30))
        kind = rng.integers(9)
        if kind == 0:
            data[at : at + 1] = bytes([rng.integers(256)])
        elif kind == 1:
            data[at : at + 1] = bytes([rng.choice(list(special))])
        elif kind == 2:
            data[at:at] = bytes([rng.choice(list(special))])
        elif kind == 3:
            del data[at : at + length]
        elif kind == 4:
            start = int(rng.integers(len(data) + 1))
            data[at:at] = data[start : start + length]
        elif kind == 5:
            del data[at:]
        elif kind == 6:
            data[at : at + length] = data[at : at + length][::-1]
        else:
            lines = data.splitlines(keepends=True)
            if lines:
                line = lines.pop(int(rng.integers(len(lines))))
                if kind == 7:
                    lines.insert(int(rng.integers(len(lines) + 1)), line)
            data = bytearray(b''.join(lines))
    return bytes(data)


@pytest.fixture(scope='session')
def helpers() -> SimpleNamespace:
    """The functions of this file."""
    return SimpleNamespace(
        write_csv=write_csv, write_split=write_split, read_slowly=read_slowly, mutate=mutate
    )


@pytest.fixture
def split(tmp_path) -> dict:
    """``build_index``'s arguments for a synthetic split in ``tmp_path / 'split'``."""
    return write_split(tmp_path / 'split')
