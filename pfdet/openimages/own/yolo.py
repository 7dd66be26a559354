"""Read a YOLO data set: a text file per image, with a line ``class cx cy width height`` per box.

Coordinates are relative to the image. The label file of an image is in the folder ``labels`` beside
``images``, or next to the image. An image without one has no objects. A line with more coordinates
is a polygon or a rotated box, of which the box is taken.
"""

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id
from pfdet.openimages.image_files import check_image_directory
from pfdet.openimages.own.data_yaml import DataYaml, read_data_yaml, read_names
from pfdet.openimages.own.source import Source
from pfdet.openimages.own.yolo_images import FoundImages, images_below, images_of_split
from pfdet.openimages.text_files import open_utf8

_MAX_LABELS = 1 << 26
_YAML = ('.yaml', '.yml')
_ROW = 'a line "class x_center y_center width height"'


def read_yolo(
    annotations: str | os.PathLike,
    split: str = 'train',
    images: str | os.PathLike | None = None,
) -> Source:
    """Read one split of a YOLO data set.

    Args:
        annotations (path): A ``data.yaml``, or a list of the class names such as ``classes.txt``;
            or the directory that has one of them.
        split (str): The key of ``data.yaml`` that names the images.
        images (path): The directory of the image files. By default, what ``split`` names.

    Returns:
        Source: The annotations. An image's id is its path below the directory of the images,
        without the suffix.

    Raises:
        InputError: If a file cannot be read, there are no images, no image has a label file, or a
            line is malformed or has a class without a name. The message names the file and the
            line.
    """
    data = _read_data(annotations)
    if images is not None:
        check_image_directory(images)
        found = images_below(images)
    elif data.splits or data.root:
        found = images_of_split(data, split)
    else:
        folder = data.path.parent / 'images'
        if not folder.is_dir():
            raise InputError(
                f'--images: missing; {data.path} does not say where the images are, and there is '
                f'no {folder}'
            )
        found = images_below(folder)
    return _read_labels(data, found)


def _read_data(path: str | os.PathLike) -> DataYaml:
    path = Path(path)
    if path.is_dir():
        names = ('data.yaml', 'dataset.yaml', 'data.yml', 'classes.txt', 'obj.names')
        inside = [path / name for name in names if (path / name).exists()]
        if not inside:
            raise InputError(f'{path}: expected a data.yaml or a classes.txt in the directory')
        path = inside[0]
    return read_data_yaml(path) if path.suffix.lower() in _YAML else read_names(path)


class Rows(NamedTuple):
    """The rows of label files.

    Attributes:
        image (list of int): Position of the image, per row.
        line (list of int): Line in the label file, 1-based.
        label (list of float): Class, not checked.
        corners (list of tuple): ``(y_min, x_min, y_max, x_max)`` relative to the image.
    """

    image: list[int]
    line: list[int]
    label: list[float]
    corners: list[tuple[float, float, float, float]]


def _read_labels(data: DataYaml, found: FoundImages) -> Source:
    by_id: dict[str, str] = {}
    for name in found.names:
        stem = os.path.splitext(name)[0]
        image_id, folder = normal_image_id(stem), os.path.dirname(name)
        # Files are looked up by their folder as it is, and by the composed form of their name.
        if image_id != unicodedata.normalize('NFC', stem) or not image_id.startswith(folder):
            path = os.path.join(found.root, name)
            raise InputError(f'{ascii(path)}: expected its name to be {IMAGE_ID}')
        if image_id in by_id:
            raise InputError(
                f'{os.path.join(found.root, name)}: the same name as {by_id[image_id]} except for '
                'the suffix; expected one image for a label file'
            )
        by_id[image_id] = name
    ids = sorted(by_id)
    names = [by_id[image_id] for image_id in ids]
    label_files = _label_files(found.root, names)
    rows, n_polygon = Rows([], [], [], []), 0
    bar = tqdm(label_files, desc='annotations', unit='image', disable=None)
    for i, path in enumerate(bar):
        if path is not None:
            n_polygon += read_rows(path, i, rows, data.n_keypoint_field)
    n_without = label_files.count(None)
    if n_without == len(ids):
        raise InputError(
            f'{found.root}: no image has a label file; expected '
            f'{_candidates(found.root, names[0])[0]} for {names[0]}'
        )
    image, line = np.array(rows.image, np.int32), np.array(rows.line, np.int64)

    def place(a: int) -> str:
        return f'{label_files[image[a]]}, line {line[a]}'

    suffixes = sorted({os.path.splitext(name)[1] for name in names})
    annotations = AnnotationSet(
        str(data.path),
        data.names,
        np.array([*ids, None], object)[:-1],
        suffixes,
        np.array([suffixes.index(os.path.splitext(name)[1]) for name in names], np.uint8),
        np.zeros((len(ids), 2), np.int32),
        image,
        _checked_classes(data, np.array(rows.label), place),
        np.array(rows.corners, np.float64).reshape(-1, 4),
        True,
        np.zeros(len(image), np.uint8),
        place,
        lambda i: str(label_files[i]),
    )
    counts = {'without_labels': n_without, 'polygons': n_polygon}
    return Source(annotations, found.root, counts, found.missing)


def _label_files(root: str, names: list[str]) -> list[str | None]:
    """Return the label file of each image, or None."""
    listed: dict[str, set[str]] = {}
    found: list[str | None] = []
    for name in names:
        paths = []
        for path in _candidates(root, name):
            folder, file = os.path.split(path)
            if folder not in listed:
                listed[folder] = set(os.listdir(folder)) if os.path.isdir(folder) else set()
            if file in listed[folder]:
                paths.append(path)
        found.append(paths[0] if paths else None)
    return found


def _candidates(root: str, name: str) -> list[str]:
    """Return where the label file of an image may be."""
    path = os.path.join(root, os.path.splitext(name)[0] + '.txt')
    parts = os.path.abspath(path).split(os.sep)
    if 'images' not in parts[:-1]:
        return [path]
    last = len(parts) - 2 - parts[-2::-1].index('images')
    return [os.sep.join([*parts[:last], 'labels', *parts[last + 1 :]]), path]


def read_rows(path: str | os.PathLike, i: int, rows: Rows, n_keypoint_field: int = 0) -> int:
    """Append the rows of a label file.

    Args:
        path (path): The file, of at most 64 MB.
        i (int): Position of its image.
        rows (Rows): The rows so far.
        n_keypoint_field (int): Number of fields that may follow the box.

    Returns:
        int: The number of polygons.

    Raises:
        InputError: If the file cannot be read, or a line is malformed. The message names the file
            and the line.
    """
    with open_utf8(path, 'label file', _MAX_LABELS) as (_, stream):
        data = stream.read()
    n_polygon = 0
    for number, text in enumerate(data.decode('utf-8', 'replace').splitlines(), 1):
        fields = text.split()
        if not fields:
            continue
        try:
            values = list(map(float, fields)) if '_' not in text else []
        except ValueError:
            values = []
        n = len(values)
        is_polygon = n >= 7 and n % 2 == 1 and not n_keypoint_field
        if not (n == 5 + n_keypoint_field or n == 5 or is_polygon) or not np.isfinite(values).all():
            raise InputError(f'{path}, line {number}: {text[:60]!r}; expected {_ROW}')
        if is_polygon:
            xs, ys = values[1::2], values[2::2]
            corners = min(ys), min(xs), max(ys), max(xs)
        else:
            _, x, y, width, height = values[:5]
            if width < 0 or height < 0:
                raise InputError(
                    f'{path}, line {number}: a box of width {width:g} and height {height:g}; '
                    'expected positive numbers'
                )
            corners = y - height / 2, x - width / 2, y + height / 2, x + width / 2
        n_polygon += is_polygon
        rows.image.append(i)
        rows.line.append(number)
        rows.label.append(values[0])
        rows.corners.append(corners)
    return n_polygon


def _checked_classes(data: DataYaml, label: np.ndarray, place: Callable[[int], str]) -> np.ndarray:
    bad = np.flatnonzero((label < 0) | (label >= len(data.names)) | (label % 1 != 0))
    if len(bad):
        a = int(bad[0])
        raise InputError(
            f'{place(a)}: class {label[a]:g}; expected a number from 0 to {len(data.names) - 1}, '
            f'as {data.path} has {len(data.names)} names'
        )
    return label.astype(np.int32)
