"""Examples for a report: images with detections, and the worst errors of each class.

Images are read from the files of an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pfdet.boxes.iou import matched_iou
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth, ground_truth_of_index
from pfdet.openimages.images import read_image
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.error_analysis import (
    BACKGROUND,
    CONFUSION,
    DUPLICATE,
    LOCALISATION,
    REASONS,
    ClassErrors,
    class_errors,
)
from pfdet.report.images import Crop, Example, crop


@dataclass
class ErrorExamples:
    """Error counts of one class, and crops of its worst errors.

    Attributes:
        mid, name (str): The class.
        ap (float): AP in [0, 1].
        n_ground_truth (int): Number of boxes, including group-of boxes.
        n_group_of (int): Number of group-of boxes.
        n_found (int): Number of boxes detected at any score.
        n_found_at_thresh (int): Number of boxes detected with a score of at least
            ``score_thresh``.
        reasons (dict): From kind of error to the number of false positives with a score of at least
            ``score_thresh``.
        false_positives (list of Crop): The highest-scoring false positives.
        missed (list of Crop): The largest boxes not detected at any score.
    """

    mid: str
    name: str
    ap: float
    n_ground_truth: int
    n_group_of: int
    n_found: int
    n_found_at_thresh: int
    reasons: dict[str, int]
    false_positives: list[Crop] = field(default_factory=list)
    missed: list[Crop] = field(default_factory=list)


class _WantedCrop(NamedTuple):
    # A crop to make: item ``k`` of the false positives or the missed boxes of a class.
    image: int
    examples: ErrorExamples
    errors: ClassErrors
    k: int
    kind: str


def example_images(index: AnnotationIndex, detections: Detections, n: int = 12) -> list[Example]:
    """Select images spread evenly over an index, with their ground truth and detections.

    Args:
        index (AnnotationIndex): The validation set.
        detections (Detections): Detections in its images. Images may have none.
        n (int): Largest number of images.

    Returns:
        list of Example: The images. Unreadable images are skipped.
    """
    selected = []
    for i in np.unique(np.linspace(0, len(index) - 1, min(n, len(index))).astype(int)):
        try:
            selected.append(_example(index, int(i), detections))
        except InputError:
            continue
    return selected


def error_examples(
    index: AnnotationIndex,
    detections: Detections,
    score: Mapping[str, Any],
    n_class: int = 40,
    n_crop: int = 4,
    score_thresh: float = 0.3,
) -> list[ErrorExamples]:
    """Count the errors of each class and crop the worst ones.

    Args:
        index (AnnotationIndex): The validation set.
        detections (Detections): Detections in its images.
        score (mapping): Content of their ``score.json``.
        n_class (int): Number of classes with crops: those with the lowest AP.
        n_crop (int): Largest number of crops of false positives, and of missed boxes, per class.
        score_thresh (float): See :class:`ErrorExamples`.

    Returns:
        list of ErrorExamples: The classes that have an AP, lowest AP first.
    """
    truth = ground_truth_of_index(index)
    classes = index.classes
    scored = sorted(
        (ap, classes.ids[mid])
        for mid, ap in score['AP'].items()
        if ap is not None and mid in classes.ids
    )
    above_thresh = detections.take(detections.score >= score_thresh)
    result: list[ErrorExamples] = []
    wanted: list[_WantedCrop] = []
    for position, (ap, label) in enumerate(scored):
        errors = class_errors(detections, truth, label, index.hierarchy)
        if errors.n_ground_truth == 0:
            continue
        counted = detections.score[errors.false_positive] >= score_thresh
        count = np.bincount(errors.reason[counted], minlength=len(REASONS))
        errors_above = class_errors(above_thresh, truth, label, index.hierarchy)
        examples = ErrorExamples(
            classes.mids[label],
            classes.names[label],
            ap,
            errors.n_ground_truth,
            int(truth.group_of[truth.label == label].sum()),
            errors.n_ground_truth - len(errors.missed),
            errors.n_ground_truth - len(errors_above.missed),
            dict(zip(REASONS, count.tolist())),
        )
        result.append(examples)
        if position < n_class:
            wanted += [
                _WantedCrop(int(image), examples, errors, k, kind)
                for kind, images in (
                    ('false_positives', _images(detections, truth, errors.false_positive[:n_crop])),
                    ('missed', truth.image[errors.missed[:n_crop]].tolist()),
                )
                for k, image in enumerate(images)
            ]
    _add_crops(index, detections, truth, wanted, score_thresh)
    return result


def _add_crops(
    index: AnnotationIndex,
    detections: Detections,
    truth: GroundTruth,
    wanted: list[_WantedCrop],
    score_thresh: float,
) -> None:
    # Sorted by image, so that each image is read once.
    crops: dict[tuple[str, str, int], Crop] = {}
    position = {image_id: i for i, image_id in enumerate(detections.image_ids)}
    img, last = None, -1
    for image, examples, errors, k, kind in sorted(wanted, key=lambda want: want.image):
        image_id = truth.image_ids[image]
        if image != last:
            last = image
            try:
                img = read_image(index.image_path(index.find(image_id)))
            except InputError:
                img = None
            in_image = np.flatnonzero(detections.image == position.get(image_id, -1))
        if img is None:
            continue
        if kind == 'false_positives':
            cropped = _false_positive(index, detections, truth, errors, k, img, image_id)
        else:
            box = errors.missed[k]
            cropped = crop(
                img,
                truth.bbox[box],
                image_id=image_id,
                detail=_detected_as(
                    index, detections, in_image, truth.bbox[box], errors.label, score_thresh
                ),
                title='group' if truth.group_of[box] else 'missed',
            )
        crops[examples.mid, kind, k] = cropped
    for _, examples, _, k, kind in wanted:
        if (examples.mid, kind, k) in crops:
            getattr(examples, kind).append(crops[examples.mid, kind, k])


def _false_positive(
    index: AnnotationIndex,
    detections: Detections,
    truth: GroundTruth,
    errors: ClassErrors,
    k: int,
    img: np.ndarray,
    image_id: str,
) -> Crop:
    i, box, reason = errors.false_positive[k], errors.box[k], errors.reason[k]
    detail = {
        DUPLICATE: 'duplicate',
        CONFUSION: f'is {index.classes.names[truth.label[box]]}',
        LOCALISATION: f'overlap only {errors.overlap[k]:.2f}',
        BACKGROUND: 'background',
    }[int(reason)]
    related = truth.bbox[box] if reason != BACKGROUND else None
    return crop(
        img,
        detections.bbox[i],
        related,
        image_id=image_id,
        detail=detail,
        title=f'{detections.score[i]:.2f}',
    )


def _detected_as(
    index: AnnotationIndex,
    detections: Detections,
    in_image: np.ndarray,
    bbox: np.ndarray,
    label: int,
    score_thresh: float,
) -> str:
    # The highest-scoring detection of an unrelated class that overlaps a missed box.
    related = index.hierarchy.closure[label] | index.hierarchy.descendants[label]
    score, detected = detections.score[in_image], detections.label[in_image]
    candidate = in_image[(score >= score_thresh) & ~related[detected]]
    iou = matched_iou(detections.bbox[candidate].astype(np.float64), bbox)
    candidate = candidate[iou >= 0.5]
    if len(candidate) == 0:
        return ''
    best = candidate[detections.score[candidate].argmax()]
    return f'detected as {index.classes.names[detections.label[best]]} {detections.score[best]:.2f}'


def _images(detections: Detections, truth: GroundTruth, chosen: np.ndarray) -> list[int]:
    # The indices in the ground truth of the images of detections.
    position = {image_id: i for i, image_id in enumerate(truth.image_ids)} if len(chosen) else {}
    return [position[detections.image_ids[i]] for i in detections.image[chosen].tolist()]


def _example(index: AnnotationIndex, i: int, detections: Detections) -> Example:
    annotation = index.annotation(i)
    box, label = np.nonzero(annotation.label)
    # Ancestors are correct, too, but drawing their names would clutter the image.
    ancestor_box, ancestor = np.nonzero(annotation.label @ index.hierarchy.ancestors)
    names = index.classes.names
    image_id = index.image_id(i)
    detected = np.zeros(0, int)
    if image_id in detections.image_ids:
        detected = np.flatnonzero(detections.image == list(detections.image_ids).index(image_id))
    return Example(
        image_id,
        read_image(index.image_path(i)),
        annotation.bbox[box],
        [names[c] for c in label],
        detections.bbox[detected],
        [names[c] for c in detections.label[detected]],
        detections.score[detected],
        (annotation.bbox[ancestor_box], [names[c] for c in ancestor]),
    )
