"""What to show of a run: images with its detections, and its worst errors by class.

Reads the images of an index.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pfdet.boxes.iou import matched_iou
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.ground_truth import GroundTruth, ground_truth_of_index
from pfdet.openimages.images import read_image
from pfdet.openimages.index import AnnotationIndex
from pfdet.report.error_analysis import (
    CONFUSED,
    DUPLICATE,
    LOCALISATION,
    NOTHING,
    REASONS,
    ClassErrors,
    class_errors,
)
from pfdet.report.images import Crop, Example, crop


@dataclass
class ClassSample:
    """The errors of one class, counted, and the worst of them.

    Attributes:
        mid, name (str): The class.
        ap (float): In [0, 1].
        n_ground_truth (int): Its boxes.
        n_group_of (int): Those of them that are group-of.
        n_found (int): Boxes that were found at any score.
        n_found_surely (int): Boxes that were found with a score of at least ``score_thresh``.
        reasons (dict): From reason to the number of false positives with a score of at least
            ``score_thresh``.
        wrong (list of Crop): The false positives of the highest scores.
        missed (list of Crop): The largest boxes that were not found at any score.
    """

    mid: str
    name: str
    ap: float
    n_ground_truth: int
    n_group_of: int
    n_found: int
    n_found_surely: int
    reasons: dict[str, int]
    wrong: list[Crop] = field(default_factory=list)
    missed: list[Crop] = field(default_factory=list)


def examples(index: AnnotationIndex, detections: Detections, n: int = 12) -> list[Example]:
    """Images spread evenly over an index, with their ground truth and their detections.

    Args:
        index (AnnotationIndex): The validation set.
        detections (Detections): Of its images; one without any is shown without.
        n (int): How many, at most.

    Returns:
        list of Example: Those whose file can be read.
    """
    shown = []
    for i in np.unique(np.linspace(0, len(index) - 1, min(n, len(index))).astype(int)):
        try:
            shown.append(_example(index, int(i), detections))
        except InputError:
            continue
    return shown


def class_samples(
    index: AnnotationIndex,
    detections: Detections,
    score: Mapping[str, Any],
    n_class: int = 40,
    n_crop: int = 4,
    score_thresh: float = 0.3,
) -> list[ClassSample]:
    """Count every class's errors and cut out the worst.

    Args:
        index (AnnotationIndex): The validation set.
        detections (Detections): Of its images.
        score (mapping): Their ``score.json``.
        n_class (int): Classes to show crops of: those of the lowest AP.
        n_crop (int): False positives, and misses, to show of a class.
        score_thresh (float): See :class:`ClassSample`.

    Returns:
        list of ClassSample: The classes that have an AP, the lowest first.
    """
    truth = ground_truth_of_index(index)
    classes = index.classes
    scored = sorted(
        (ap, classes.ids[mid])
        for mid, ap in score['AP'].items()
        if ap is not None and mid in classes.ids
    )
    chosen = detections.score >= score_thresh
    high = Detections(
        detections.image_ids,
        detections.image[chosen],
        detections.label[chosen],
        detections.score[chosen],
        detections.bbox[chosen],
    )
    samples, wanted = [], []
    for place, (ap, label) in enumerate(scored):
        errors = class_errors(detections, truth, label, index.hierarchy)
        if errors.n_ground_truth == 0:
            continue
        sure = detections.score[errors.false_positive] >= score_thresh
        count = np.bincount(errors.reason[sure], minlength=len(REASONS))
        sample = ClassSample(
            classes.mids[label],
            classes.names[label],
            ap,
            errors.n_ground_truth,
            int(truth.group_of[truth.label == label].sum()),
            errors.n_ground_truth - len(errors.missed),
            errors.n_ground_truth - len(class_errors(high, truth, label, index.hierarchy).missed),
            dict(zip(REASONS, count.tolist())),
        )
        samples.append(sample)
        if place < n_class:
            wanted += [
                (int(truth_image), sample, errors, k, kind)
                for kind, images in (
                    ('wrong', _images(detections, truth, errors.false_positive[:n_crop])),
                    ('missed', truth.image[errors.missed[:n_crop]]),
                )
                for k, truth_image in enumerate(images)
            ]
    _cut_out(index, detections, truth, wanted, score_thresh)
    return samples


def _cut_out(
    index: AnnotationIndex,
    detections: Detections,
    truth: GroundTruth,
    wanted: list[tuple[int, ClassSample, ClassErrors, int, str]],
    score_thresh: float,
) -> None:
    # Image by image, so that each is read once.
    crops: dict[tuple[str, str, int], Crop] = {}
    place = {image_id: i for i, image_id in enumerate(detections.image_ids)}
    img, last = None, -1
    for image, sample, errors, k, kind in sorted(wanted, key=lambda want: want[0]):
        image_id = truth.image_ids[image]
        if image != last:
            last = image
            try:
                img = read_image(index.image_path(index.find(image_id)))
            except InputError:
                img = None
            mine = np.flatnonzero(detections.image == place.get(image_id, -1))
        if img is None:
            continue
        if kind == 'wrong':
            crops[sample.mid, kind, k] = _wrong(index, detections, truth, errors, k, img, image_id)
        else:
            box = errors.missed[k]
            seen = _seen_as(index, detections, mine, truth.bbox[box], errors.label, score_thresh)
            crops[sample.mid, kind, k] = crop(
                img,
                truth.bbox[box],
                image_id=image_id,
                detail=seen,
                title='a group' if truth.group_of[box] else 'missed',
            )
    for _, sample, _, k, kind in wanted:
        if (sample.mid, kind, k) in crops:
            getattr(sample, kind).append(crops[sample.mid, kind, k])


def _wrong(
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
        DUPLICATE: 'found twice',
        CONFUSED: f'is {index.classes.names[truth.label[box]]}',
        LOCALISATION: f'badly placed, overlap {errors.overlap[k]:.2f}',
        NOTHING: 'nothing of the kind there',
    }[int(reason)]
    related = truth.bbox[box] if reason != NOTHING else None
    return crop(
        img,
        detections.bbox[i],
        related,
        image_id=image_id,
        detail=detail,
        title=f'{detections.score[i]:.2f}',
    )


def _seen_as(
    index: AnnotationIndex,
    detections: Detections,
    mine: np.ndarray,
    bbox: np.ndarray,
    label: int,
    score_thresh: float,
) -> str:
    # The surest detection of an unrelated class in the place of a box.
    related = index.hierarchy.closure[label] | index.hierarchy.descendants[label]
    mine = mine[(detections.score[mine] >= score_thresh) & ~related[detections.label[mine]]]
    there = mine[matched_iou(detections.bbox[mine].astype(np.float64), bbox) >= 0.5]
    if len(there) == 0:
        return ''
    best = there[detections.score[there].argmax()]
    return f'seen as {index.classes.names[detections.label[best]]} {detections.score[best]:.2f}'


def _images(detections: Detections, truth: GroundTruth, chosen: np.ndarray) -> list[int]:
    place = {image_id: i for i, image_id in enumerate(truth.image_ids)} if len(chosen) else {}
    return [place[detections.image_ids[i]] for i in detections.image[chosen]]


def _example(index: AnnotationIndex, i: int, detections: Detections) -> Example:
    annotation = index.annotation(i)
    which, label = np.nonzero(annotation.label)
    # Ancestors are right as well, and would only fill the picture with names.
    above, ancestor = np.nonzero(annotation.label @ index.hierarchy.ancestors)
    names = index.classes.names
    image_id = index.image_id(i)
    mine = np.zeros(0, int)
    if image_id in detections.image_ids:
        mine = np.flatnonzero(detections.image == list(detections.image_ids).index(image_id))
    return Example(
        image_id,
        read_image(index.image_path(i)),
        annotation.bbox[which],
        [names[c] for c in label],
        detections.bbox[mine],
        [names[c] for c in detections.label[mine]],
        detections.score[mine],
        (annotation.bbox[above], [names[c] for c in ancestor]),
    )
