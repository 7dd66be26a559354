"""COCO's results and annotations: ``instances_*.json``.

Boxes are ``[x, y, width, height]`` in pixels. By default, the id of an image is its position in the
index, and that of a category is the id of the class, both counted from 1.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pfdet import __version__
from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.class_names import distinct_names
from pfdet.evaluation.formats.predicted_images import PredictedImage, file_name, size_in_pixels
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.coco_json import read_ids
from pfdet.openimages.identifiers import normal_image_id
from pfdet.openimages.index import AnnotationIndex

# Decimals of coordinates in pixels.
_DECIMALS = 4


class IdsOf:
    """The ids of images and categories.

    Args:
        index (AnnotationIndex): The index.
        annotations (path): A file of annotations whose ids are taken. Images are found by
            ``file_name``, with or without the folders, and classes by name.

    Raises:
        InputError: The file cannot be read.
    """

    def __init__(self, index: AnnotationIndex, annotations: Path | None = None):
        self.index = index
        self.path = annotations
        self.ids = None if annotations is None else read_ids(annotations)

    def image(self, image: PredictedImage) -> int | str:
        """The id of an image.

        Raises:
            InputError: The file of annotations lacks it.
        """
        if self.ids is None:
            return image.position + 1
        name, suffix = file_name(self.index, image.position)
        for text in name.removesuffix(suffix), image.image_id:
            key = normal_image_id(text)
            if key in self.ids.images:
                return self.ids.images[key]
        raise InputError(
            f'{self.path}: no image with the file_name {name!r}; expected the annotations of the '
            'predicted images'
        )

    def category(self, label: int) -> int | str:
        """The id of a class.

        Raises:
            InputError: The file of annotations lacks it.
        """
        if self.ids is None:
            return label + 1
        name = self.index.classes.names[label]
        if name not in self.ids.categories:
            raise InputError(
                f'{self.path}: no category {name!r}, of which there are detections; expected '
                'annotations with the classes of the model'
            )
        return self.ids.categories[name]


def write_results(
    path: Path,
    images: Iterable[PredictedImage],
    index: AnnotationIndex,
    annotations: Path | None = None,
) -> None:
    """Write detections as COCO's results, which pycocotools' ``loadRes`` reads.

    Args:
        path (path): The JSON file, a list of objects with ``image_id``, ``category_id``, ``bbox``
            and ``score``. Images without detections do not occur in it.
        images (iterable of PredictedImage): The detections.
        index (AnnotationIndex): The index of the images.
        annotations (path): See :class:`IdsOf`.

    Raises:
        InputError: The file cannot be written, an image has no size, or ``annotations`` lacks an
            image or a class with detections.
    """
    ids = IdsOf(index, annotations)
    with replace_when_done(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as f:
        f.write('[')
        _write_rows(f, (_results(image, index, ids) for image in images))
        f.write('\n]\n')


def write_ground_truth(path: Path, index: AnnotationIndex) -> None:
    """Write the annotations of an index as COCO's.

    Objects have an annotation for each of their classes and each ancestor of these, as in the
    metric of the challenge. Group-of boxes are crowds. COCO has no verified classes: its evaluation
    takes every class as annotated in every image.

    Args:
        path (path): The JSON file.
        index (AnnotationIndex): The index.

    Raises:
        InputError: The file cannot be written, or an image has no size.
    """
    classes = index.classes
    categories = [
        {'id': k, 'name': name, 'supercategory': '', 'mid': mid}
        for k, (mid, name) in enumerate(zip(classes.mids, distinct_names(classes)), 1)
    ]
    with replace_when_done(path) as unfinished, open(unfinished, 'w', encoding='utf-8') as f:
        info = {'description': f'{index.path.name}, written by pfdet {__version__}'}
        f.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n')
        f.write(f'"categories": {json.dumps(categories)},\n"images": [')
        _write_rows(f, ([_image(index, i)] for i in range(len(index))))
        f.write('\n],\n"annotations": [')
        _write_rows(f, _annotations(index))
        f.write('\n]}\n')


def _write_rows(f: Any, groups: Iterable[list[dict]]) -> None:
    """Write the elements of a list in JSON, one per line."""
    separator = '\n'
    for rows in groups:
        if rows:
            f.write(separator + ',\n'.join(map(json.dumps, rows)))
            separator = ',\n'


def _results(image: PredictedImage, index: AnnotationIndex, ids: IdsOf) -> list[dict]:
    if not len(image.label):
        return []
    boxes = _boxes(image.bbox, size_in_pixels(index, image.position))
    image_id = ids.image(image)
    return [
        {
            'image_id': image_id,
            'category_id': ids.category(k),
            'bbox': box,
            # All digits of float32, so that no scores become equal.
            'score': float(f'{score:.9g}'),
        }
        for k, box, score in zip(image.label.tolist(), boxes, image.score.tolist())
    ]


def _image(index: AnnotationIndex, i: int) -> dict:
    height, width = size_in_pixels(index, i)
    return {'id': i + 1, 'file_name': file_name(index, i)[0], 'height': height, 'width': width}


def _annotations(index: AnnotationIndex) -> Iterator[list[dict]]:
    closure = index.hierarchy.closure.astype(np.float32)
    number = 0
    for i in range(len(index)):
        annotation = index.annotation(i)
        row, label = np.nonzero(annotation.label.astype(np.float32) @ closure)
        crowd = (annotation.flags[row] & GROUP_OF != 0).astype(int)
        boxes = _boxes(annotation.bbox[row], size_in_pixels(index, i))
        yield [
            {
                'id': number + k,
                'image_id': i + 1,
                'category_id': c + 1,
                'bbox': box,
                'area': round(box[2] * box[3], _DECIMALS),
                'iscrowd': iscrowd,
            }
            for k, (c, box, iscrowd) in enumerate(zip(label.tolist(), boxes, crowd.tolist()), 1)
        ]
        number += len(row)


def _boxes(bbox: np.ndarray, size: tuple[int, int]) -> list[list[float]]:
    """Boxes as COCO's, from relative ``(y_min, x_min, y_max, x_max)``."""
    y_min, x_min, y_max, x_max = (bbox.astype(np.float64) * (*size, *size)).T
    boxes = np.stack([x_min, y_min, x_max - x_min, y_max - y_min], axis=1)
    return boxes.round(_DECIMALS).tolist()
