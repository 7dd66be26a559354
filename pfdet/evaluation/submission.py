"""Submissions to the Kaggle competition of the challenge: writing and validation."""

import os
import re
from collections.abc import Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from pfdet.atomic_write import replace_when_done
from pfdet.boxes.pairs import is_first, score_keys
from pfdet.errors import InputError
from pfdet.evaluation.csv_rows import CSVBlock, count_line_ends
from pfdet.evaluation.detections import Detections
from pfdet.evaluation.image_order import is_among_first
from pfdet.evaluation.prediction_strings import HEADER, parse_rows, submission_blocks
from pfdet.openimages.classes import Classes

# Rows formatted at once, and more if an image has more.
_ROWS_PER_PART = 1 << 16
# Coordinates with at most this many decimals are looked up rather than formatted.
_MAX_TABLE_DIGITS = 5
_QUOTED = re.compile('[,"\r\n]')


def write_submission(
    path: str | os.PathLike,
    detections: Detections | Iterable[Detections],
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
        detections (Detections or iterable of Detections): The detections, at once or in blocks of
            different images. Memory holds one block. Rows are in order of the images.
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
    blocks = [detections] if isinstance(detections, Detections) else detections
    formatter = _Formatter(classes, digits, score_digits or digits)
    validator = _Validator(path, classes)
    line = 2
    # The text is parsed again in another thread. Both threads spend their time in pyarrow, which
    # lets others run.
    with (
        replace_when_done(path) as unfinished,
        ThreadPoolExecutor(1) as pool,
        open(unfinished, 'wb') as f,
        tqdm(desc='writing', unit='image', disable=None) as bar,
    ):
        f.write((','.join(HEADER) + '\n').encode())
        validated = None
        for block in blocks:
            for part in _parts(_select(block, max_per_image, min_score)):
                text = formatter.format(part)
                f.write(text)
                if validated is not None:
                    validated.result()
                validated = pool.submit(validator.check, CSVBlock(path, line, text))
                line += count_line_ends(text)
                bar.update(len(part.image_ids))
        if validated is not None:
            validated.result()
    return validator.counts


def _select(detections: Detections, max_per_image: int | None, min_score: float) -> Detections:
    # Sorts by image and descending score; equal scores keep their order.
    chosen = np.flatnonzero(detections.score.astype(np.float64) >= min_score)
    image = detections.image[chosen].astype(np.int64)
    order = np.argsort((image << 32) - score_keys(detections.score[chosen]), kind='stable')
    return detections.take(chosen[order][is_among_first(image[order], max_per_image)])


def _parts(detections: Detections) -> Iterator[Detections]:
    n_image = len(detections.image_ids)
    start = np.searchsorted(detections.image, np.arange(n_image))
    begins = np.flatnonzero(is_first(start // _ROWS_PER_PART)).tolist()
    for begin, end in zip(begins, [*begins[1:], n_image]):
        yield detections.slice_images(begin, end)


class _Formatter:
    """Formats images as rows of a submission.

    Args:
        classes (Classes): Gives the MID of each label.
        digits (int): Decimals of coordinates.
        score_digits (int): Significant digits of scores.
    """

    def __init__(self, classes: Classes, digits: int, score_digits: int):
        self.mids = pa.array(classes.mids, pa.string())
        self.quoted = any(map(_QUOTED.search, classes.mids))
        self.digits = digits
        self.score_digits = score_digits
        self.table = None
        if digits <= _MAX_TABLE_DIGITS:
            self.table = _text(np.arange(10**digits + 1) / 10.0**digits)

    def format(self, detections: Detections) -> bytes:
        """Format the rows of some images.

        Args:
            detections (Detections): The images, with detections in their final order.

        Returns:
            bytes: One line per image.
        """
        corners = np.clip(detections.bbox.astype(np.float64), 0, 1)
        texts = pc.binary_join_element_wise(
            self.mids.take(pa.array(detections.label)),
            _text(_round_significant(detections.score.astype(np.float64), self.score_digits)),
            *(self._coordinates(corners[:, k]) for k in (1, 0, 3, 2)),
            ' ',
        )
        n_image = len(detections.image_ids)
        offsets = np.searchsorted(detections.image, np.arange(n_image + 1)).astype(np.int32)
        strings = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), texts), ' ')
        return ''.join(
            f'{_field(image_id)},{_field(string) if self.quoted else string}\n'
            for image_id, string in zip(detections.image_ids, strings.to_pylist())
        ).encode()

    def _coordinates(self, values: np.ndarray) -> pa.Array:
        if self.table is None:
            return _text(np.round(values, self.digits))
        return self.table.take(pa.array(np.rint(values * 10.0**self.digits).astype(np.int32)))


def _field(text: str) -> str:
    return '"' + text.replace('"', '""') + '"' if _QUOTED.search(text) else text


def _round_significant(values: np.ndarray, digits: int) -> np.ndarray:
    exponent = np.floor(np.log10(np.where(values == 0, 1, np.abs(values))))
    # Scaling by integer powers of ten is exact, so that 0.3 does not become 0.30000000000000004.
    up = 10.0 ** np.maximum(digits - 1 - exponent, 0)
    down = 10.0 ** np.maximum(exponent + 1 - digits, 0)
    return np.round(values / down * up) / up * down


def _text(values: np.ndarray) -> pa.Array:
    # The shortest text that parses to the same number; 0 for -0.
    text = pa.array(values + 0.0).cast(pa.string())
    whole = values == np.rint(values)
    if not whole.any():
        return text
    whole = pa.array(whole)
    return pc.replace_with_mask(
        text, whole, pc.replace_substring_regex(text.filter(whole), r'\.0$', '')
    )


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
    validator = _Validator(path, classes, image_ids)
    for block in submission_blocks(path):
        validator.check(block)
    validator.check_missing()
    return validator.counts


class _Validator:
    """Validates the rows of a submission block by block, and counts them.

    Args:
        path, classes, image_ids: See :func:`validate_submission`.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        classes: Classes | None,
        image_ids: Collection[str] | None = None,
    ):
        self.path = path
        self.classes = classes
        self.expected = None if image_ids is None else frozenset(image_ids)
        self.line_of_image: dict[str, int] = {}
        self.counts = {'images': 0, 'empty': 0, 'detections': 0, 'most': 0}

    def check(self, block: CSVBlock) -> None:
        """Validate some rows; raises :class:`~pfdet.errors.InputError`."""
        lines, ids, table = parse_rows(block, self.classes, self.line_of_image)
        if self.expected is not None:
            for line, image_id in zip(lines, ids):
                if image_id not in self.expected:
                    raise InputError(
                        f'{self.path}, line {line}: image {image_id!r} is not one of the '
                        f'{len(self.expected):,} images; expected one row for each of them only'
                    )
        count = np.bincount(table['row'].to_numpy(), minlength=len(ids))
        self.counts['images'] += len(ids)
        self.counts['empty'] += int((count == 0).sum())
        self.counts['detections'] += table.num_rows
        self.counts['most'] = max(self.counts['most'], int(count.max(initial=0)))

    def check_missing(self) -> None:
        """Require a row for each image; raises :class:`~pfdet.errors.InputError`."""
        if self.expected is None:
            return
        missing = self.expected - self.line_of_image.keys()
        if missing:
            more = f' and {len(missing) - 1:,} others' if len(missing) > 1 else ''
            raise InputError(
                f'{self.path}: no row for image {min(missing)!r}{more}; expected a row for each of '
                f'the {len(self.expected):,} images, with an empty PredictionString if there are '
                'no detections'
            )
