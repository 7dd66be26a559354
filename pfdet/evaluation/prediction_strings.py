"""Rows of a Kaggle submission: ``ImageId,PredictionString``.

A prediction string is a sequence of ``MID score XMin YMin XMax YMax``, separated by spaces. Strings
are parsed by columns with pyarrow. A slow parser runs only on invalid rows, to locate the error.
:mod:`pfdet.evaluation.csv_rows` describes the CSV format.
"""

import os
from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.errors import InputError
from pfdet.evaluation.csv_rows import CSVBlock, csv_blocks, is_number, read_header
from pfdet.evaluation.detections_file import COLUMNS, TEXT_SCHEMA
from pfdet.openimages.classes import Classes

HEADER = ('ImageId', 'PredictionString')
# Fields of one detection in a PredictionString.
FIELDS = ('MID', 'score', 'XMin', 'YMin', 'XMax', 'YMax')
# Scores are stored in single precision.
MAX_SCORE = float(np.finfo(np.float32).max)


def is_submission(path: str | os.PathLike) -> bool:
    """Whether a file begins with the header of a submission.

    Args:
        path (path): Any file.

    Returns:
        bool: False also if the file cannot be read.
    """
    try:
        return tuple(read_header(path)) == HEADER
    except (OSError, InputError):
        return False


def submission_blocks(path: str | os.PathLike) -> Iterator[CSVBlock]:
    """Read a submission in blocks of lines.

    Args:
        path (path): A CSV file.

    Yields:
        CSVBlock: Lines after the header.

    Raises:
        InputError: The file cannot be read or has another header.
    """
    try:
        header = read_header(path)
        if tuple(header) != HEADER:
            raise InputError(
                f'{path}, line 1: {",".join(header)[:80]!r}; expected the header {",".join(HEADER)}'
            )
        yield from csv_blocks(path)
    except OSError as e:
        raise InputError(f'{path}: cannot read the submission: {e.strerror or e}') from e


def parse_rows(
    block: CSVBlock, classes: Classes | None, first_line: dict[str, int]
) -> tuple[Sequence[int], list[str], pa.Table]:
    """Parse rows of a submission.

    Args:
        block (CSVBlock): Lines after the header.
        classes (Classes): If given, only these MIDs may occur.
        first_line (dict): From the image ids of earlier blocks to their lines; those of this block
            are added.

    Returns:
        tuple: Line numbers of the rows; image ids of the rows; and a table with one row per
        detection. Its columns are ``row``, an index into the block, and :data:`FIELDS`, a string
        and five float64 numbers.

    Raises:
        InputError: A row is invalid, or an image has an earlier row. The message names the line.
    """
    table = block.parse(HEADER, dict.fromkeys(HEADER, pa.string()))
    ids, strings = (
        pc.fill_null(pa.concat_arrays([pa.array([], pa.string()), *table.column(name).chunks]), '')
        for name in HEADER
    )
    lines, image_ids = block.lines(len(ids)), ids.to_pylist()
    _check_ids(block.path, lines, image_ids, first_line)
    try:
        return lines, image_ids, _parse(strings, classes)
    except (pa.ArrowInvalid, _BadStringError) as e:
        for line, string in zip(lines, strings.to_pylist()):
            _raise_if_bad(f'{block.path}, line {line}', string, classes)
        raise InputError(
            f'{block.path}, lines {lines[0]} to {lines[-1]}: expected prediction strings, but {e}'
        ) from e


def submission_tables(path: str | os.PathLike, classes: Classes) -> Iterator[pa.Table]:
    """Read a submission as tables with the columns of a file of detections.

    Args:
        path (path): The CSV file.
        classes (Classes): The classes that may occur.

    Yields:
        pyarrow.Table: ``ImageID, LabelName, Score, XMin, XMax, YMin, YMax``. An image without
        detections has a row with only the ``ImageID``. The first table is empty.

    Raises:
        InputError: The file is not a valid submission. The message names the line.
    """
    yield TEXT_SCHEMA.empty_table()
    first_line: dict[str, int] = {}
    for block in submission_blocks(path):
        _, image_ids, table = parse_rows(block, classes, first_line)
        ids = pa.array(image_ids, pa.string())
        row = table['row'].to_numpy()
        empty = ids.take(pa.array(np.setdiff1d(np.arange(len(ids)), row)))
        numbers = (
            table['score' if name == 'Score' else name].cast(pa.float32(), safe=False)
            for name in COLUMNS[2:]
        )
        yield pa.table(
            [
                pa.DictionaryArray.from_arrays(pa.array(row), ids),
                table['MID'].dictionary_encode(),
                *numbers,
            ],
            schema=TEXT_SCHEMA,
        )
        nulls = (pa.nulls(len(empty), type_) for type_ in TEXT_SCHEMA.types[1:])
        yield pa.table([empty.dictionary_encode(), *nulls], schema=TEXT_SCHEMA)


class _BadStringError(Exception):
    """A prediction string of the batch is invalid; :func:`_raise_if_bad` finds the error."""


def _check_ids(
    path: str | os.PathLike, lines: Sequence[int], ids: list[str], first_line: dict[str, int]
) -> None:
    for line, image_id in zip(lines, ids):
        if not image_id.strip():
            raise InputError(f'{path}, line {line}: no ImageId; expected {",".join(HEADER)}')
        before = first_line.setdefault(image_id, line)
        if before != line:
            raise InputError(
                f'{path}, line {line}: image {image_id!r} for the second time, after line '
                f'{before}; expected one row per image'
            )


def _parse(strings: pa.Array, classes: Classes | None) -> pa.Table:
    strings = pc.ascii_trim_whitespace(strings)
    filled = np.flatnonzero(pc.binary_length(strings).to_numpy())
    fields = pc.ascii_split_whitespace(strings.take(pa.array(filled)))
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
    valid = (np.abs(score) <= MAX_SCORE) & (x_min <= x_max) & (y_min <= y_max)
    for x in x_min, y_min, x_max, y_max:
        valid &= (x >= 0) & (x <= 1)
    if not valid.all():
        raise _BadStringError
    row = np.repeat(filled.astype(np.int32), count // len(FIELDS))
    return pa.table([pa.array(row), mid, *numbers], ['row', *FIELDS])


def _raise_if_bad(where: str, string: str, classes: Classes | None) -> None:
    fields = [f for f in pc.ascii_split_whitespace(pa.scalar(string)).as_py() if f]
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
            value = float(text) if is_number(text) else float('nan')
            if not abs(value) <= MAX_SCORE or (name != 'score' and not 0 <= value <= 1):
                expected = 'a finite number' if name == 'score' else 'a number from 0 to 1'
                raise InputError(f'{which}: {name} is {text[:60]!r}; expected {expected}')
        _, x_min, y_min, x_max, y_max = map(float, numbers)
        if x_min > x_max or y_min > y_max:
            raise InputError(
                f'{which}: box {" ".join(numbers[1:])}; expected XMin <= XMax and YMin <= YMax'
            )
