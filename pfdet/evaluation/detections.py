"""Detections as columns, and their files."""

import csv
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from pfdet.errors import InputError
from pfdet.files import replace_when_done
from pfdet.openimages.classes import Classes

COLUMNS = ('ImageID', 'LabelName', 'Score', 'XMin', 'XMax', 'YMin', 'YMax')
_CORNERS = ('YMin', 'XMin', 'YMax', 'XMax')
_NUMBERS = ('Score', *_CORNERS)
# Key of the Parquet file's metadata: a JSON list of the images that no row speaks of.
_IMAGES_KEY = b'images_without_detections'
# Coordinates this far out of [0, 1] are rounding, and are clipped.
_ROUNDING = 1e-5


@dataclass
class Detections:
    """Detections in a set of images.

    Attributes:
        image_ids (sequence of str): Every image predicted, each once, also those without a
            detection.
        image (int32, :math:`(D,)`): Index into ``image_ids``.
        label (int32, :math:`(D,)`): Class.
        score (float32, :math:`(D,)`): Higher is surer.
        bbox (float32, :math:`(D, 4)`): ``(y_min, x_min, y_max, x_max)`` in [0, 1].
    """

    image_ids: Sequence[str]
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    bbox: np.ndarray

    def __len__(self) -> int:
        return len(self.image)


def write_detections(
        path: str | os.PathLike, detections: Detections, classes: Classes) -> None:
    """Write detections to a Parquet or CSV file that pandas, polars and duckdb read.

    The columns are ``ImageID, LabelName, Score, XMin, XMax, YMin, YMax``. Images without
    detections are kept: in the metadata of a Parquet file under ``images_without_detections``;
    in a CSV file as a row with nothing but the ``ImageID``.

    Args:
        path (path): Ends in ``.parquet`` or ``.csv``.
        detections (Detections): What to write.
        classes (Classes): Gives the ``LabelName`` of each label.

    Raises:
        InputError: If the name ends in something else.
        ValueError: If a score is not finite or a box not in the image.
    """
    is_parquet = _is_parquet(path)
    for column, wrong in _wrong_rows(
            detections.score, detections.bbox, np.ones(len(detections), bool)):
        raise ValueError(f'detection {wrong[0]}: {column}')
    empty = np.ones(len(detections.image_ids), bool)
    empty[detections.image] = False
    empty_ids = [detections.image_ids[i] for i in np.flatnonzero(empty)]
    bbox = np.clip(detections.bbox, 0, 1).astype(np.float32)
    table = pa.table({
        'ImageID': pa.DictionaryArray.from_arrays(
            detections.image.astype(np.int32), pa.array(list(detections.image_ids), pa.string())),
        'LabelName': pa.DictionaryArray.from_arrays(
            detections.label.astype(np.int32), pa.array(classes.mids, pa.string())),
        'Score': detections.score.astype(np.float32),
        'XMin': bbox[:, 1], 'XMax': bbox[:, 3], 'YMin': bbox[:, 0], 'YMax': bbox[:, 2],
    })
    with replace_when_done(path) as unfinished:
        if is_parquet:
            table = table.replace_schema_metadata({_IMAGES_KEY: json.dumps(empty_ids)})
            pq.write_table(table, unfinished, compression='zstd')
        else:
            plain = pa.schema([
                (f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
                for f in table.schema])
            rows = pa.table(
                [pa.array(empty_ids, pa.string())]
                + [pa.nulls(len(empty_ids), f.type) for f in list(plain)[1:]], schema=plain)
            # One chunk: pyarrow 10 repeats the header after an empty one.
            table = pa.concat_tables([table.cast(plain), rows]).combine_chunks()
            pa.csv.write_csv(table, unfinished)


def read_detections(path: str | os.PathLike, classes: Classes) -> Detections:
    """Read a Parquet or CSV file of detections, whoever wrote it.

    Columns are found by name, in any order, among any others. A row that has nothing but an
    ``ImageID`` says that the image was predicted.

    Args:
        path (path): Ends in ``.parquet`` or ``.csv``, as :func:`write_detections` writes.
        classes (Classes): The classes that may occur.

    Returns:
        Detections: Images sorted by id, detections in the order of the file.

    Raises:
        InputError: If the file cannot be read or is cut off, lacks a column, or has a row
            with an unknown class, a score that is no finite number, or a box outside [0, 1] or
            whose corners are in the wrong order. The message names file and row.
    """
    if _is_parquet(path):
        table, more_ids = _read_parquet(path)
    else:
        table, more_ids = _read_csv(path), []
    image, ids = _codes(table.column('ImageID'))
    label, mids = _codes(table.column('LabelName'))
    numbers = {name: _to_float(table.column(name)) for name in _NUMBERS}
    del table

    bad = np.flatnonzero((image < 0) | np.array([not i for i in ids] + [False])[image])
    if len(bad):
        raise InputError(f'{_where(path, bad[0])}: no ImageID; expected the id of an image')
    says_nothing = label < 0
    for values in numbers.values():
        says_nothing &= np.isnan(values)
    class_of = np.array([classes.ids.get(mid, -1) for mid in mids] + [-1], np.int32)
    bad = np.flatnonzero((class_of[label] < 0) & ~says_nothing)
    if len(bad):
        mid = mids[label[bad[0]]] if label[bad[0]] >= 0 else ''
        raise InputError(
            f'{_where(path, bad[0])}: LabelName {mid!r} is not one of the {len(classes)} classes; '
            f'expected one such as {classes.mids[0]}')
    bbox = np.stack([numbers[name] for name in _CORNERS], axis=1)
    for what, wrong in _wrong_rows(numbers['Score'], bbox, ~says_nothing):
        raise InputError(f'{_where(path, wrong[0])}: {what}')

    # A dictionary may hold values that no row uses.
    used = np.unique(image)
    image_ids = sorted({ids[i] for i in used}.union(more_ids))
    place = {image_id: i for i, image_id in enumerate(image_ids)}
    to_place = np.full(len(ids), -1, np.int32)
    to_place[used] = [place[ids[i]] for i in used]
    detected = np.flatnonzero(~says_nothing)
    return Detections(
        image_ids=image_ids, image=to_place[image[detected]], label=class_of[label[detected]],
        score=numbers['Score'][detected], bbox=np.clip(bbox[detected], 0, 1))


def _is_parquet(path: str | os.PathLike) -> bool:
    suffix = Path(path).suffix
    if suffix not in ('.parquet', '.csv'):
        raise InputError(f'{path}: expected a file of detections named .parquet or .csv')
    return suffix == '.parquet'


def _wrong_rows(
        score: np.ndarray, bbox: np.ndarray,
        judged: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    # What is wrong, in words for the first row, and all the rows where it is.
    def problem(wrong: np.ndarray, what: str) -> Iterator[tuple[str, np.ndarray]]:
        rows = np.flatnonzero(wrong & judged)
        if len(rows):
            box = ', '.join(f'{name} {x:.6g}' for name, x in zip(_CORNERS, bbox[rows[0]]))
            yield what.format(score=score[rows[0]], box=box), rows

    yield from problem(~np.isfinite(score), 'Score is {score}; expected a finite number')
    # Not inside rather than outside, so that NaN is caught.
    inside = ((bbox >= -_ROUNDING) & (bbox <= 1 + _ROUNDING)).all(axis=1)
    yield from problem(~inside, 'box ({box}); expected numbers from 0 to 1')
    ordered = (bbox[:, :2] <= bbox[:, 2:]).all(axis=1)
    yield from problem(~ordered, 'box ({box}); expected YMin <= YMax and XMin <= XMax')


def _read_parquet(path: str | os.PathLike) -> tuple[pa.Table, list[str]]:
    try:
        # pq.read_table would take the name for that of a partitioned data set.
        with open(path, 'rb') as f:
            file = pq.ParquetFile(f, read_dictionary=['ImageID', 'LabelName'])
            _check_columns(path, file.schema_arrow.names)
            table = file.read(columns=list(COLUMNS))
            more_ids = json.loads((file.metadata.metadata or {}).get(_IMAGES_KEY, b'[]'))
    except (pa.ArrowException, OSError, ValueError) as e:
        raise InputError(
            f'{path}: cannot read the detections: {_reason(e)}; expected a whole Parquet '
            'file') from e
    if not isinstance(more_ids, list) or not all(isinstance(i, str) and i for i in more_ids):
        raise InputError(f'{path}: expected its metadata {_IMAGES_KEY.decode()} to be a list')
    for name in COLUMNS:
        type_ = table.schema.field(name).type
        if pa.types.is_dictionary(type_):
            type_ = type_.value_type
        if name in _NUMBERS:
            sound = pa.types.is_floating(type_) or pa.types.is_integer(type_)
        else:
            sound = pa.types.is_string(type_) or pa.types.is_large_string(type_)
        if not sound and not pa.types.is_null(type_):
            expected = 'numbers' if name in _NUMBERS else 'strings'
            raise InputError(f'{path}: column {name} holds {type_}; expected {expected}')
    return table, more_ids


def _read_csv(path: str | os.PathLike) -> pa.Table:
    types = {name: pa.float32() if name in _NUMBERS else pa.string() for name in COLUMNS}
    convert = dict(null_values=[''], strings_can_be_null=True, include_columns=list(COLUMNS))
    try:
        with open(path, encoding='utf-8-sig', newline='') as f:
            _check_columns(path, next(csv.reader(f), []))
        return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(
            column_types=types, **convert))
    except pa.ArrowException as e:
        _blame_csv(path)
        raise InputError(f'{path}: cannot read the detections: {_reason(e)}') from e
    except (OSError, UnicodeDecodeError) as e:
        raise InputError(f'{path}: cannot read the detections: {_reason(e)}') from e


def _blame_csv(path: str | os.PathLike) -> None:
    # pyarrow refused the file: find the line, slowly, and say which.
    for number, row, header in _csv_rows(path):
        if len(row) != len(header):
            raise InputError(
                f'{path}, line {number}: {len(row)} fields; expected {len(header)} as in the '
                'header')
        for name in _NUMBERS:
            value = row[header.index(name)]
            try:
                float(value or 'nan')
            except ValueError as e:
                raise InputError(
                    f'{path}, line {number}: {name} is {value[:60]!r}; expected a number') from e


def _csv_rows(path: str | os.PathLike) -> Iterator[tuple[int, list[str], list[str]]]:
    with open(path, encoding='utf-8-sig', errors='replace', newline='') as f:
        reader = csv.reader(f)
        header = next(reader)
        for row in reader:
            if row:
                yield reader.line_num, row, header


def _where(path: str | os.PathLike, row: int) -> str:
    # The file and the place in it of a row counted from 0.
    if not _is_parquet(path):
        for i, (number, _, _) in enumerate(_csv_rows(path)):
            if i == row:
                return f'{path}, line {number}'
    return f'{path}, row {row + 1}'


def _check_columns(path: str | os.PathLike, names: Sequence[str]) -> None:
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f'{path}: no column {", ".join(missing)}; expected {",".join(COLUMNS)}, found '
            f'{",".join(names)[:120]}')
    twice = [name for name in COLUMNS if list(names).count(name) > 1]
    if twice:
        raise InputError(f'{path}: column {twice[0]} occurs twice; expected every column once')


def _codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    # Index of each row's string in a list of strings; -1 for null.
    if not pa.types.is_dictionary(column.type):
        column = column.cast(pa.string()).dictionary_encode()
    if column.num_chunks == 0:
        return np.zeros(0, np.int32), []
    column = column.unify_dictionaries()
    indices = [chunk.indices.cast(pa.int32()).fill_null(-1).to_numpy() for chunk in column.chunks]
    dictionary = column.chunk(0).dictionary
    return np.concatenate(indices), dictionary.fill_null('').to_pylist()


def _to_float(column: pa.ChunkedArray) -> np.ndarray:
    return pc.fill_null(column.cast(pa.float32(), safe=False), np.nan).to_numpy()


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return ' '.join(text.split())[:200]
