"""Tasks of Label Studio with predictions, and the labeling configuration that they need."""

import json
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.evaluation.class_names import distinct_names
from pfdet.evaluation.formats.predicted_images import PredictedImage, file_name, size_in_pixels
from pfdet.openimages.index import AnnotationIndex

#: How Label Studio addresses files below its LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT.
LOCAL_FILES = '/data/local-files/?d='
# Names of the tags in the labeling configuration.
_CONTROL, _OBJECT = 'label', 'image'
# Decimals of percentages.
_DECIMALS = 4


def write_tasks(
    path: Path,
    images: Iterable[PredictedImage],
    index: AnnotationIndex,
    model_version: str,
    image_prefix: str = LOCAL_FILES,
) -> None:
    """Write detections as tasks to import, and the labeling configuration beside them.

    An image without detections is a task whose prediction has no regions. A region has the score of
    its detection, and a prediction the mean of these, by which tasks can be sorted.

    Args:
        path (path): The JSON file. The configuration has the same name with the suffix ``.xml``.
        images (iterable of PredictedImage): The detections.
        index (AnnotationIndex): The index of the images.
        model_version (str): Name of the model, by which Label Studio groups predictions.
        image_prefix (str): What precedes the names of the files in the addresses of the images.

    Raises:
        InputError: A file cannot be written, or an image has no size.
    """
    names = distinct_names(index.classes)
    with (
        replace_when_done(path) as unfinished,
        replace_when_done(path.with_suffix('.xml')) as configuration,
    ):
        configuration.write_text(_configuration(names), encoding='utf-8')
        with open(unfinished, 'w', encoding='utf-8') as f:
            separator = '[\n'
            for image in images:
                url = image_prefix + quote(file_name(index, image.position)[0])
                task = {
                    'data': {_OBJECT: url, 'image_id': image.image_id},
                    'predictions': [_prediction(image, index, names, model_version)],
                }
                f.write(separator + json.dumps(task))
                separator = ',\n'
            f.write('[]\n' if separator == '[\n' else '\n]\n')


def _prediction(
    image: PredictedImage, index: AnnotationIndex, names: list[str], model_version: str
) -> dict:
    height, width = size_in_pixels(index, image.position)
    y_min, x_min, y_max, x_max = 100 * image.bbox.astype(np.float64).T
    boxes = np.stack([x_min, y_min, x_max - x_min, y_max - y_min], axis=1).round(_DECIMALS)
    scores = [round(score, 6) for score in image.score.tolist()]
    regions = [
        {
            # Unique in the file.
            'id': f'{image.position}-{k}',
            'type': 'rectanglelabels',
            'from_name': _CONTROL,
            'to_name': _OBJECT,
            'original_width': width,
            'original_height': height,
            'image_rotation': 0,
            'score': score,
            'value': {
                **dict(zip(('x', 'y', 'width', 'height'), box)),
                'rotation': 0,
                'rectanglelabels': [names[c]],
            },
        }
        for k, (c, score, box) in enumerate(zip(image.label.tolist(), scores, boxes.tolist()))
    ]
    mean = round(sum(scores) / len(scores), 6) if scores else 0.0
    return {'model_version': model_version, 'score': mean, 'result': regions}


def _configuration(names: list[str]) -> str:
    labels = ''.join(f'    <Label value={quoteattr(name)}/>\n' for name in names)
    return (
        '<View>\n'
        f'  <Image name="{_OBJECT}" value="${_OBJECT}"/>\n'
        f'  <RectangleLabels name="{_CONTROL}" toName="{_OBJECT}">\n{labels}'
        '  </RectangleLabels>\n</View>\n'
    )
