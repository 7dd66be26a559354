"""Rows of a Kaggle submission: ``ImageId,PredictionString``.

A prediction string is a sequence of ``MID score XMin YMin XMax YMax``, separated by spaces. Strings
are parsed by columns with pyarrow. A slow parser in Python runs only on invalid rows, to locate the
error.
"""

import csv
import os
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes

HEADER = ('ImageId', 'PredictionString')
# Fields of one detection in a PredictionString.
FIELDS = ('MID', 'score', 'XMin', 'YMin', 'XMax', 'YMax')
_ROWS_PER_BATCH = 1000
# Scores are stored in single precision.
_MAX_SCORE = float(np.finfo(np.float32).max)


def is_submission(path: str | os.PathLike) -> bool:
    """Whether a file begins with the header of a submission.

    Args:
        path (path): Any file.

    Returns:
        bool: False also if the file cannot be read.
    """
    try:
        with open(path, 'rb') as f:
            return f.readline(100).strip().removeprefix(b'\xef\xbb\xbf') == b','.join(
                name.encode() for name in HEADER
            )
    except OSError:
        return False


def submission_rows(
    path: str | os.PathLike, classes: Classes | None = None
) -> Iterator[tuple[list[int], list[str], pa.Table]]:
    """Read a submission in batches of rows.

    Args:
        path (path): A CSV file.
        classes (Classes): If given, only these MIDs may occur.

    Yields:
        tuple: Line numbers of the rows; image ids of the rows; and a table with one row per
        detection. Its columns are ``row``, an index into the batch, and :data:`FIELDS`, a string
        and five float64 numbers.

    Raises:
        InputError: The file is not a valid submission. The message names the line.
    """
    first_line: dict[str, int] = {}
    for lines, ids, strings in _batches(path):
        for line, image_id in zip(lines, ids):
            before = first_line.setdefault(image_id, line)
            if before != line:
                raise InputError(
                    f'{path}, line {line}: image {image_id!r} for the second time, after line '
                    f'{before}; expected one row per image'
                )
        try:
            yield lines, ids, _parse(strings, classes)
        except (pa.ArrowInvalid, _BadStringError):
            for line, string in zip(lines, strings):
                _raise_if_bad(f'{path}, line {line}', string, classes)
            raise InputError(
                f'{path}, lines {lines[0]} to {lines[-1]}: a number is not written in plain '
                'decimal or exponent form; expected such as 0.5 or 5e-1'
            ) from None


def read_submission(path: str | os.PathLike, classes: Classes) -> pa.Table:
    """Read a submission as a table with the columns of a file of detections.

    Args:
        path (path): The CSV file.
        classes (Classes): The classes that may occur.

    Returns:
        pyarrow.Table: ``ImageID, LabelName, Score, XMin, XMax, YMin, YMax``. An image without
        detections has a row with only the ``ImageID``.

    Raises:
        InputError: The file is not a valid submission. The message names the line.
    """
    tables: list[pa.Table] = []
    for _, image_ids, table in submission_rows(path, classes):
        ids = pa.array(image_ids, pa.string())
        row = table['row'].to_numpy()
        empty = ids.take(pa.array(np.setdiff1d(np.arange(len(ids)), row)))
        numbers = {
            name: table['score' if name == 'Score' else name].cast(pa.float32(), safe=False)
            for name in ('Score', 'XMin', 'XMax', 'YMin', 'YMax')
        }
        detected = pa.table(
            {
                'ImageID': pa.DictionaryArray.from_arrays(pa.array(row), ids),
                'LabelName': table['MID'].dictionary_encode(),
                **numbers,
            }
        )
        nulls = [pa.nulls(len(empty), f.type) for f in list(detected.schema)[1:]]
        tables += [detected, pa.table([empty.dictionary_encode(), *nulls], schema=detected.schema)]
    return pa.concat_tables(tables)


class _BadStringError(Exception):
    """A prediction string of the batch is invalid; :func:`_raise_if_bad` finds the error."""


def _batches(path: str | os.PathLike) -> Iterator[tuple[list[int], list[str], list[str]]]:
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            # Prediction strings can be longer than the default limit of the csv module.
            csv.field_size_limit(1 << 30)
            reader = csv.reader(f, strict=True)
            header = next(reader, [])
            if tuple(header) != HEADER:
                raise InputError(
                    f'{path}, line 1: {",".join(header)[:80]!r}; expected the header '
                    f'{",".join(HEADER)}'
                )
            lines: list[int] = []
            ids: list[str] = []
            strings: list[str] = []
            for row in reader:
                if len(row) != 2 or not row[0].strip():
                    raise InputError(
                        f'{path}, line {reader.line_num}: {len(row)} fields beginning with '
                        f'{",".join(row)[:40]!r}; expected ImageId,PredictionString'
                    )
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
        raise InputError(
            f'{path}, line {_line_not_utf8(path)}: expected UTF-8 text, but {e}'
        ) from e
    except OSError as e:
        raise InputError(f'{path}: cannot read the submission: {e.strerror or e}') from e


def _line_not_utf8(path: str | os.PathLike) -> int:
    with open(path, 'rb') as f:
        for number, line in enumerate(f, 1):
            try:
                line.decode()
            except UnicodeDecodeError:
                return number
    return 1


def _parse(strings: list[str], classes: Classes | None) -> pa.Table:
    filled = np.flatnonzero([bool(string.strip()) for string in strings])
    fields = pc.utf8_split_whitespace(
        pc.utf8_trim_whitespace(pa.array([strings[k] for k in filled], pa.string()))
    )
    count = pc.list_value_length(fields).to_numpy()
    if (count % len(FIELDS)).any():
        raise _BadStringError
    flat = pc.list_flatten(fields)
    begin = np.arange(0, len(flat), len(FIELDS))
    mid = flat.take(pa.array(begin))
    if classes is not None and not classes.ids.keys() >= set(pc.unique(mid).to_pylist()):
        raise _BadStringError
    numbers = [flat.take(pa.array(begin + k)).cast(pa.float64()) for k in range(1, len(FIELDS))]
    score, x_min, y_min, x_max, y_max = (column.to_numpy() for column in numbers)
    # Comparisons are written so that they fail for NaN.
    valid = (np.abs(score) <= _MAX_SCORE) & (x_min <= x_max) & (y_min <= y_max)
    for x in x_min, y_min, x_max, y_max:
        valid &= (x >= 0) & (x <= 1)
    if not valid.all():
        raise _BadStringError
    row = np.repeat(filled.astype(np.int32), count // len(FIELDS))
    return pa.table([pa.array(row), mid, *numbers], ['row', *FIELDS])


def _raise_if_bad(where: str, string: str, classes: Classes | None) -> None:
    fields = string.split()
    if len(fields) % len(FIELDS):
        raise InputError(
            f'{where}: {len(fields)} fields in PredictionString; expected six for each '
            f'detection, {" ".join(FIELDS)}'
        )
    for k in range(0, len(fields), len(FIELDS)):
        mid, *numbers = fields[k : k + len(FIELDS)]
        which = f'{where}, detection {k // len(FIELDS) + 1}'
        if classes is not None and mid not in classes.ids:
            raise InputError(
                f'{which}: MID {mid[:60]!r} is not one of the {len(classes)} classes; expected '
                f'one such as {classes.mids[0]}'
            )
        for name, text in zip(FIELDS[1:], numbers):
            try:
                value = float(text)
            except ValueError:
                value = float('nan')
            if not abs(value) <= _MAX_SCORE or (name != 'score' and not 0 <= value <= 1):
                expected = 'a finite number' if name == 'score' else 'a number from 0 to 1'
                raise InputError(f'{which}: {name} is {text[:60]!r}; expected {expected}')
        _, x_min, y_min, x_max, y_max = map(float, numbers)
        if x_min > x_max or y_min > y_max:
            raise InputError(
                f'{which}: box {" ".join(numbers[1:])}; expected XMin <= XMax and YMin <= YMax'
            )
