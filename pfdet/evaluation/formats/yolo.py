"""Labels of YOLO: one text file per image, as Ultralytics' ``predict`` with ``save_txt`` writes.

::

    DIR/data.yaml              directory of the images, and names of the classes
    DIR/labels/FOLDER/ID.txt   lines of: class x_center y_center width height confidence

Coordinates are relative to the image. Classes are counted from 0.
"""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from pfdet.atomic_write import new_directory_when_done, replace_when_done
from pfdet.evaluation.class_names import distinct_names
from pfdet.evaluation.formats.predicted_images import PredictedImage, file_name
from pfdet.openimages.index import AnnotationIndex


def write_labels(
    out: Path, images: Iterable[PredictedImage], index: AnnotationIndex, confidence: bool = True
) -> None:
    """Write detections as labels of YOLO.

    Images without detections have an empty file. All label files appear at once, then
    ``data.yaml``.

    Args:
        out (path): Output directory, locked by the caller.
        images (iterable of PredictedImage): The detections.
        index (AnnotationIndex): The index of the images.
        confidence (bool): Whether lines end with the score. Labels to train on do not.

    Raises:
        InputError: The directory has labels already, or cannot be written.
    """
    with new_directory_when_done(out / 'labels') as labels:
        for image in images:
            name, suffix = file_name(index, image.position)
            path = labels / (name.removesuffix(suffix) + '.txt')
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_lines(image, confidence), encoding='ascii')
    names = ''.join(
        # A string of JSON is one of YAML, too.
        f'  {k}: {json.dumps(name, ensure_ascii=False)}\n'
        for k, name in enumerate(distinct_names(index.classes))
    )
    directory = json.dumps(str(index.images.absolute()), ensure_ascii=False)
    with replace_when_done(out / 'data.yaml') as unfinished:
        unfinished.write_text(f'path: {directory}\nnames:\n{names}', encoding='utf-8')


def _lines(image: PredictedImage, confidence: bool) -> str:
    y_min, x_min, y_max, x_max = image.bbox.astype(np.float64).T
    columns = [(x_min + x_max) / 2, (y_min + y_max) / 2, x_max - x_min, y_max - y_min]
    if confidence:
        columns.append(image.score)
    rows = np.stack(columns, axis=1).tolist()
    return ''.join(
        f'{k} {" ".join(f"{x:.6g}" for x in row)}\n' for k, row in zip(image.label.tolist(), rows)
    )
