"""Annotation tables by the csv module, row by row, into lists per image: the usual way."""

import csv
from pathlib import Path

FLAGS = ('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')


def read_rows_by_position(boxes: Path, labels: Path, class_ids: dict[str, int]) -> dict:
    images = {}
    with open(boxes, newline='') as f:
        rows = csv.reader(f)
        next(rows)
        for row in rows:
            bbox = [float(row[6]), float(row[4]), float(row[7]), float(row[5])]
            flags = [value == '1' for value in row[8:13]]
            images.setdefault(row[0], ([], []))[0].append((bbox, class_ids[row[2]], flags))
    with open(labels, newline='') as f:
        rows = csv.reader(f)
        next(rows)
        for row in rows:
            images.setdefault(row[0], ([], []))[1].append((class_ids[row[2]], row[3] == '1'))
    return images


def read_rows_by_name(boxes: Path, labels: Path, class_ids: dict[str, int]) -> dict:
    images = {}
    with open(boxes, newline='') as f:
        for row in csv.DictReader(f):
            bbox = [float(row[name]) for name in ('YMin', 'XMin', 'YMax', 'XMax')]
            flags = [row[name] == '1' for name in FLAGS]
            images.setdefault(row['ImageID'], ([], []))[0].append(
                (bbox, class_ids[row['LabelName']], flags)
            )
    with open(labels, newline='') as f:
        for row in csv.DictReader(f):
            images.setdefault(row['ImageID'], ([], []))[1].append(
                (class_ids[row['LabelName']], row['Confidence'] == '1')
            )
    return images


def compare(images: dict, path: Path, n: int = 500) -> None:
    """Assert that random images have the same annotations in the lists and in the index."""
    import numpy as np

    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(path)
    assert len(index) == len(images)
    for i in np.random.default_rng(1).integers(0, len(index), n).tolist():
        boxes, verified = images[index.image_id(i)]
        listed = {(*np.float32(bbox).tolist(), label) for bbox, label, _ in boxes}
        found = index.annotation(i)
        assert listed == {
            (*bbox.tolist(), label)
            for bbox, labels in zip(found.bbox, found.label)
            for label in np.flatnonzero(labels).tolist()
        }
        positive = {label for *_, label in listed} | {
            label for label, present in verified if present
        }
        assert positive == set(np.flatnonzero(found.positive).tolist())
        absent = {label for label, present in verified if not present}
        assert absent - positive == set(np.flatnonzero(found.negative).tolist())
