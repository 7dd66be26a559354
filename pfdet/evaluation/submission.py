"""Submissions to the Kaggle competition of the challenge: writing and validation."""

import csv
import os
from collections.abc import Collection

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.prediction_strings import HEADER, submission_rows
from pfdet.openimages.classes import Classes

_IMAGES_PER_BLOCK = 1000


def write_submission(
    path: str | os.PathLike,
    detections: Detections,
    classes: Classes,
    max_per_image: int | None = 300,
    digits: int = 5,
    min_score: float = 0.0,
    score_digits: int | None = None,
) -> dict[str, int]:
    """Write a submission and validate it with :func:`validate_submission`.

    The file has one row ``ImageId,PredictionString`` per image. The string is a sequence of ``MID
    score XMin YMin XMax YMax`` by descending score, and empty for an image without detections.
    Numbers are rounded and written without trailing zeros. The file appears only if it is valid.

    Args:
        path (path): The CSV file to write.
        detections (Detections): The detections.
        classes (Classes): Gives the MID of each label.
        max_per_image (int): Number of highest-scoring detections to write per image; :obj:`None`
            for all.
        digits (int): Decimals of coordinates. With 5, a detection takes about 50 bytes.
        min_score (float): Detections with a lower score are omitted.
        score_digits (int): Significant digits of scores, by default ``digits``. Scores that become
            equal lose their order.

    Returns:
        dict: Counts, see :func:`validate_submission`.

    Raises:
        InputError: The file cannot be written, or the result is not a valid submission.
    """
    score = detections.score.astype(np.float64)
    chosen = np.flatnonzero(score >= min_score)
    chosen = chosen[np.lexsort((-score[chosen], detections.image[chosen]))]
    n_image = len(detections.image_ids)
    ends = np.searchsorted(detections.image[chosen], np.arange(n_image + 1))
    if max_per_image is not None:
        position = np.arange(len(chosen)) - np.repeat(ends[:-1], np.diff(ends))
        chosen = chosen[position < max_per_image]
        ends = np.append(0, np.cumsum(np.minimum(np.diff(ends), max_per_image)))
    mids = pa.array(classes.mids, pa.string())
    with replace_when_done(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8', newline='') as f:
            writer = csv.writer(f, lineterminator='\n')
            writer.writerow(HEADER)
            for begin in tqdm(
                range(0, n_image, _IMAGES_PER_BLOCK),
                desc='writing',
                unit=f' x {_IMAGES_PER_BLOCK} images',
                disable=None,
            ):
                end = min(begin + _IMAGES_PER_BLOCK, n_image)
                rows = chosen[ends[begin] : ends[end]]
                corners = np.clip(detections.bbox[rows].astype(np.float64), 0, 1)
                texts = pc.binary_join_element_wise(
                    mids.take(pa.array(detections.label[rows])),
                    _text(_round_significant(score[rows], score_digits or digits)),
                    *(_text(np.round(corners[:, k], digits)) for k in (1, 0, 3, 2)),
                    ' ',
                )
                offsets = pa.array((ends[begin : end + 1] - ends[begin]).astype(np.int32))
                strings = pc.binary_join(pa.ListArray.from_arrays(offsets, texts), ' ')
                writer.writerows(zip(detections.image_ids[begin:end], strings.to_pylist()))
        try:
            return validate_submission(unfinished, classes)
        except InputError as e:
            raise InputError(str(e).replace(str(unfinished), str(path))) from e


def _round_significant(values: np.ndarray, digits: int) -> np.ndarray:
    exponent = np.floor(np.log10(np.where(values == 0, 1, np.abs(values))))
    # Scaling by integer powers of ten is exact, so that 0.3 does not become 0.30000000000000004.
    up = 10.0 ** np.maximum(digits - 1 - exponent, 0)
    down = 10.0 ** np.maximum(exponent + 1 - digits, 0)
    return np.round(values / down * up) / up * down


def _text(values: np.ndarray) -> pa.Array:
    # The shortest text that parses to the same number; 0 for -0.
    text = pa.array(values + 0.0).cast(pa.string())
    return pc.replace_substring_regex(text, r'\.0$', '')


def validate_submission(
    path: str | os.PathLike,
    classes: Classes | None = None,
    image_ids: Collection[str] | None = None,
) -> dict[str, int]:
    """Check that a file is a valid submission to Kaggle.

    Args:
        path (path): A CSV file.
        classes (Classes): If given, only these MIDs may occur.
        image_ids (collection of str): If given, there must be exactly one row for each of these
            images, and none for others.

    Returns:
        dict: ``'images'``, the number of rows; ``'empty'``, the number of rows without detections;
        ``'detections'``, the number of detections; ``'most'``, the largest number of detections in
        an image.

    Raises:
        InputError: The file has a wrong header, a wrong number of fields, text that is not UTF-8,
            a repeated, missing or unknown image, a prediction string whose number of fields is not
            a multiple of six, an unknown MID, an invalid score, or a box outside [0, 1] or with its
            corners in the wrong order. The message names the line.
    """
    counts = {'images': 0, 'empty': 0, 'detections': 0, 'most': 0}
    expected = None if image_ids is None else frozenset(image_ids)
    missing = set(expected or ())
    for lines, ids, table in submission_rows(path, classes):
        if expected is not None:
            for line, image_id in zip(lines, ids):
                if image_id not in expected:
                    raise InputError(
                        f'{path}, line {line}: image {image_id!r} is not one of the '
                        f'{len(expected):,} images; expected one row for each of them only'
                    )
            missing.difference_update(ids)
        count = np.bincount(table['row'].to_numpy(), minlength=len(ids))
        counts['images'] += len(ids)
        counts['empty'] += int((count == 0).sum())
        counts['detections'] += table.num_rows
        counts['most'] = max(counts['most'], int(count.max(initial=0)))
    if expected and missing:
        more = f' and {len(missing) - 1:,} others' if len(missing) > 1 else ''
        raise InputError(
            f'{path}: no row for image {min(missing)!r}{more}; expected a row for each of the '
            f'{len(expected):,} images, with an empty PredictionString if there are no detections'
        )
    return counts
