"""The CSV file that the challenge's Kaggle competition takes."""

import csv
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.evaluation.detections import Detections
from pfdet.files import replace_when_done
from pfdet.openimages.classes import Classes

HEADER = ('ImageId', 'PredictionString')
# One detection of a PredictionString.
FIELDS = ('MID', 'score', 'XMin', 'YMin', 'XMax', 'YMax')
_ROWS_PER_BATCH = 1000


def write_submission(
        path: str | os.PathLike, detections: Detections, classes: Classes,
        max_per_image: int | None = 300, digits: int = 5,
        min_score: float = 0.) -> dict[str, int]:
    """Write a submission, check it as :func:`validate_submission` does, and put it in place.

    One row per image, ``ImageId,PredictionString``; the string is a space-separated run of
    ``MID score XMin YMin XMax YMax``, by descending score, and empty for an image without
    detections.

    Args:
        path (path): Where the CSV file goes.
        detections (Detections): What to write.
        classes (Classes): Gives the MID of each label.
        max_per_image (int): The best scored of each image to write; :obj:`None` for all.
        digits (int): Decimals of coordinates and significant digits of scores. With 5, a
            detection takes about 50 bytes.
        min_score (float): Detections below are left out.

    Returns:
        dict: As of :func:`validate_submission`.
    """
    chosen = np.flatnonzero(detections.score >= min_score)
    chosen = chosen[np.lexsort((-detections.score[chosen], detections.image[chosen]))]
    n_image = len(detections.image_ids)
    ends = np.searchsorted(detections.image[chosen], np.arange(n_image + 1))
    corners = np.clip(detections.bbox, 0, 1)[:, [1, 0, 3, 2]]
    one = f'%s %.{digits}g' + f' %.{digits}f' * 4
    with replace_when_done(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8', newline='') as f:
            writer = csv.writer(f, lineterminator='\n')
            writer.writerow(HEADER)
            for i in tqdm(range(n_image), desc='writing', unit='image', disable=None):
                mine = chosen[ends[i]:ends[i + 1]][:max_per_image]
                mids = [classes.mids[c] for c in detections.label[mine]]
                scores = detections.score[mine].tolist()
                writer.writerow((detections.image_ids[i], ' '.join(
                    one % (mid, score, *box)
                    for mid, score, box in zip(mids, scores, corners[mine].tolist()))))
        try:
            return validate_submission(unfinished, classes)
        except InputError as e:
            raise InputError(str(e).replace(str(unfinished), str(path))) from e


def validate_submission(
        path: str | os.PathLike, classes: Classes | None = None) -> dict[str, int]:
    """Check that a file is a submission that Kaggle will read.

    Args:
        path (path): Any CSV file.
        classes (Classes): If given, only these MIDs may occur.

    Returns:
        dict: ``'images'``, the number of rows; ``'empty'``, those without a detection;
        ``'detections'``.

    Raises:
        InputError: Says what is wrong in which line: the header, the number of fields, an
            image twice, a prediction string that is not a run of six fields, an unknown MID,
            a score that is no number, or a box outside [0, 1] or with its corners in the
            wrong order.
    """
    counts = {'images': 0, 'empty': 0, 'detections': 0}
    seen = set()
    for lines, ids, strings in _batches(path):
        for line, image_id in zip(lines, ids):
            if image_id in seen:
                raise InputError(
                    f'{path}, line {line}: image {image_id!r} for the second time; expected '
                    'one row per image')
            seen.add(image_id)
        counts['images'] += len(ids)
        filled = [k for k, string in enumerate(strings) if string.strip()]
        counts['empty'] += len(ids) - len(filled)
        strings, lines = [strings[k] for k in filled], [lines[k] for k in filled]
        if not _is_sound(strings, classes):
            for line, string in zip(lines, strings):
                _blame(f'{path}, line {line}', string, classes)
            raise InputError(
                f'{path}, lines {lines[0]} to {lines[-1]}: a number is not written in plain '
                'decimal or exponent form; expected such as 0.5 or 5e-1')
        counts['detections'] += sum(map(len, map(str.split, strings))) // len(FIELDS)
    return counts


def _batches(path: str | os.PathLike) -> Iterator[tuple[list[int], list[str], list[str]]]:
    try:
        with open(path, encoding='utf-8', newline='') as f:
            # A prediction string of a thousand detections is longer than csv's default limit.
            csv.field_size_limit(1 << 30)
            reader = csv.reader(f, strict=True)
            header = next(reader, [])
            if tuple(header) != HEADER:
                raise InputError(
                    f'{path}, line 1: {",".join(header)[:80]!r}; expected the header '
                    f'{",".join(HEADER)}')
            lines, ids, strings = [], [], []
            for row in reader:
                if len(row) != 2 or not row[0].strip():
                    raise InputError(
                        f'{path}, line {reader.line_num}: {len(row)} fields beginning with '
                        f'{",".join(row)[:40]!r}; expected ImageId,PredictionString')
                lines.append(reader.line_num)
                ids.append(row[0])
                strings.append(row[1])
                if len(lines) == _ROWS_PER_BATCH:
                    yield lines, ids, strings
                    lines, ids, strings = [], [], []
            yield lines, ids, strings
    except csv.Error as e:
        raise InputError(f'{path}, line {reader.line_num}: {e}') from e
    except UnicodeDecodeError as e:
        raise InputError(f'{path}: expected UTF-8 text, but {e}') from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the submission: {e.strerror or e}') from e


def _is_sound(strings: list[str], classes: Classes | None) -> bool:
    # All at once; which string is wrong, and why, is for _blame to find.
    fields = pc.utf8_split_whitespace(pc.utf8_trim_whitespace(pa.array(strings, pa.string())))
    if (pc.list_value_length(fields).to_numpy() % len(FIELDS)).any():
        return False
    flat = pc.list_flatten(fields)
    begin = np.arange(0, len(flat), len(FIELDS))
    mids = pc.unique(flat.take(begin)).to_pylist()
    if classes is not None and not classes.ids.keys() >= set(mids):
        return False
    try:
        score, *box = (
            flat.take(begin + k).cast(pa.float64()).to_numpy() for k in range(1, len(FIELDS)))
    except pa.ArrowInvalid:
        return False
    x_min, y_min, x_max, y_max = box
    return bool(
        np.isfinite(score).all() and all(((x >= 0) & (x <= 1)).all() for x in box)
        and (x_min <= x_max).all() and (y_min <= y_max).all())


def _blame(where: str, string: str, classes: Classes | None) -> None:
    fields = string.split()
    if len(fields) % len(FIELDS):
        raise InputError(
            f'{where}: {len(fields)} fields in PredictionString; expected six for each '
            f'detection, {" ".join(FIELDS)}')
    for k in range(0, len(fields), len(FIELDS)):
        mid, *numbers = fields[k:k + len(FIELDS)]
        which = f'{where}, detection {k // len(FIELDS) + 1}'
        if classes is not None and mid not in classes.ids:
            raise InputError(
                f'{which}: MID {mid[:60]!r} is not one of the {len(classes)} classes; expected '
                f'one such as {classes.mids[0]}')
        for name, text in zip(FIELDS[1:], numbers):
            try:
                value = float(text)
            except ValueError:
                value = float('nan')
            if not np.isfinite(value) or (name != 'score' and not 0 <= value <= 1):
                expected = 'a finite number' if name == 'score' else 'a number from 0 to 1'
                raise InputError(f'{which}: {name} is {text[:60]!r}; expected {expected}')
        _, x_min, y_min, x_max, y_max = map(float, numbers)
        if x_min > x_max or y_min > y_max:
            raise InputError(
                f'{which}: box {" ".join(numbers[1:])}; expected XMin <= XMax and YMin <= YMax')
