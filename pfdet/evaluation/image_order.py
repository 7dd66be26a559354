"""Detections image by image, for files that are larger than memory.

Commands that need all detections of an image at once read files that are sorted by image. Others
are sorted first, on disk.
"""

import bisect
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pfdet.boxes.pairs import is_first, stable_argsort
from pfdet.evaluation.detections import (
    Detections,
    blocks_of_images,
    detections_writer,
    images_without_detections,
    no_detections,
    row_blocks,
)
from pfdet.evaluation.detections_file import is_parquet, open_parquet
from pfdet.openimages.classes import Classes

# Rows of a part of the sort, which is sorted in memory.
_ROWS_PER_PART = 1 << 19
# Each part is an open file.
_MAX_PARTS = 200
_ROW = np.dtype([('image', 'i4'), ('label', 'i4'), ('score', 'f4'), ('bbox', 'f4', 4)])


def sorted_by_image(path: Path, classes: Classes, directory: Path) -> Path:
    """Return a Parquet file whose rows are sorted by image, as :func:`blocks_of_images` needs.

    Rows of the same image stay in order.

    Args:
        path (path): A file of detections, Parquet or CSV or a submission.
        classes (Classes): The classes that may occur.
        directory (path): Where a sorted copy goes, and temporary files of 64 bytes per row. Memory
            holds the image ids and about half a million rows.

    Returns:
        pathlib.Path: The file itself if it is Parquet and sorted, else the copy.

    Raises:
        InputError: The file cannot be read, or has a bad row and needs a copy.
    """
    if is_parquet(path) and _is_sorted(path):
        return path
    rows = directory / 'rows'
    id_of_code, count = _write_rows(path, classes, rows)
    # Images by id, and the part that each goes to. Parts are ranges of images.
    order = np.array(sorted(range(len(id_of_code)), key=id_of_code.__getitem__), np.int64)
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    end = np.cumsum(count[order])
    n_per_part = max(_ROWS_PER_PART, -(-int(count.sum()) // _MAX_PARTS))
    part_of_image = (end - count[order]) // n_per_part
    _split_rows(rows, rank, part_of_image)
    rows.unlink()

    copy = directory / f'{path.stem}.parquet'
    with detections_writer(copy, classes) as write:
        for part in np.unique(part_of_image).tolist():
            begin, stop = np.searchsorted(part_of_image, [part, part + 1])
            file = _part_path(rows, part)
            records = np.fromfile(file, _ROW)
            records = records[stable_argsort(records['image'])]
            write(
                Detections(
                    [id_of_code[code] for code in order[begin:stop]],
                    records['image'] - np.int32(begin),
                    records['label'],
                    records['score'],
                    records['bbox'],
                )
            )
            file.unlink()
    return copy


def _write_rows(path: Path, classes: Classes, out: Path) -> tuple[list[str], np.ndarray]:
    # Writes the detections in the order of the file, with codes in place of image ids. Returns the
    # id of each code and its number of detections.
    code_of_id: dict[str, int] = {}
    count = np.zeros(0, np.int64)
    with open(out, 'wb') as f:
        for block in row_blocks(path, classes, _ROWS_PER_PART // 4):
            used, image = np.unique(block.image, return_inverse=True)
            code = np.array(
                [code_of_id.setdefault(block.image_ids[i], len(code_of_id)) for i in used.tolist()],
                np.int32,
            )
            detected = block.label >= 0
            records = np.empty(int(detected.sum()), _ROW)
            records['image'] = code[image.reshape(-1)[detected]]
            for name in 'label', 'score', 'bbox':
                records[name] = getattr(block, name)[detected]
            records.tofile(f)
            count = np.append(count, np.zeros(len(code_of_id) - len(count), np.int64))
            count += np.bincount(records['image'], minlength=len(count))
    for image_id in images_without_detections(path) if is_parquet(path) else ():
        code_of_id.setdefault(image_id, len(code_of_id))
    count = np.append(count, np.zeros(len(code_of_id) - len(count), np.int64))
    return list(code_of_id), count


def _split_rows(rows: Path, rank: np.ndarray, part_of_image: np.ndarray) -> None:
    # Replaces codes by ranks of images, and writes each part to a file of its own.
    with contextlib.ExitStack() as stack:
        files = {
            part: stack.enter_context(open(_part_path(rows, part), 'wb'))
            for part in np.unique(part_of_image).tolist()
        }
        f = stack.enter_context(open(rows, 'rb'))
        while len(records := np.fromfile(f, _ROW, _ROWS_PER_PART // 4)):
            records['image'] = rank[records['image']]
            part = part_of_image[records['image']]
            records = records[stable_argsort(part)]
            for k, n in zip(*np.unique(part, return_counts=True)):
                records[:n].tofile(files[int(k)])
                records = records[n:]


def _part_path(rows: Path, part: int) -> Path:
    return rows.with_name(f'{rows.name}-{part}')


def _is_sorted(path: Path) -> bool:
    last = ''
    with open_parquet(path, in_batches=True) as file:
        for batch in file.iter_batches(columns=['ImageID']):
            ids = batch.column(0)
            if ids.null_count:
                # Reading the whole file will name the row.
                return False
            if not pa.types.is_dictionary(ids.type):
                ids = ids.dictionary_encode()
            code = ids.indices.to_numpy()
            names = ids.dictionary.to_pylist()
            runs = [last, *(names[c] for c in code[is_first(code)].tolist())]
            # The rows of an image may be split between batches.
            first = 1 if runs[1:2] == [last] else 0
            if any(a >= b for a, b in zip(runs[first:], runs[first + 1 :])):
                return False
            last = runs[-1]
    return True


def blocks_of_all_images(path: Path, classes: Classes, n_row: int) -> Iterator[Detections]:
    """Read a sorted file block by block, with the images that have no detections.

    Args:
        path (path): A Parquet file, sorted by image.
        classes (Classes): The classes that may occur.
        n_row (int): Number of rows read at a time.

    Yields:
        Detections: Blocks of at least one image, in order of the image ids.

    Raises:
        InputError: The file cannot be read, or has a bad row.
    """
    empty = sorted(set(images_without_detections(path)))
    begin = 0
    for block in blocks_of_images(path, classes, n_row):
        end = bisect.bisect_right(empty, block.image_ids[-1])
        if end > begin:
            image_ids = sorted({*block.image_ids, *empty[begin:end]})
            index = {image_id: i for i, image_id in enumerate(image_ids)}
            position = np.array([index[image_id] for image_id in block.image_ids], np.int32)
            block = dataclasses.replace(block, image_ids=image_ids, image=position[block.image])
        yield block
        begin = end
    if begin < len(empty):
        yield no_detections(empty[begin:])


def is_among_first(image: np.ndarray, n: int | None) -> np.ndarray:
    """Mark the first detections of each image.

    Args:
        image (int array): Image of each detection, sorted, :math:`(D,)`.
        n (int): Number of detections to mark per image; :obj:`None` for all.

    Returns:
        bool array: :math:`(D,)`.
    """
    if n is None:
        return np.ones(len(image), bool)
    return np.arange(len(image)) - np.searchsorted(image, image) < n


def aligned_blocks(streams: Sequence[Iterator[Detections]]) -> Iterator[list[Detections | None]]:
    """Read several sorted files in step, range of images by range of images.

    Args:
        streams (sequence of iterators): Blocks of :func:`blocks_of_images`, one stream per file.

    Yields:
        list: For each stream its detections in a range of image ids, or :obj:`None` if it has none.
        The ranges do not overlap and ascend.
    """
    blocks = [next(stream, None) for stream in streams]
    while any(block is not None for block in blocks):
        end = min(block.image_ids[-1] for block in blocks if block is not None)
        taken: list[Detections | None] = [None] * len(blocks)
        for k, block in enumerate(blocks):
            if block is None:
                continue
            n_image = len(block.image_ids)
            n = bisect.bisect_right(block.image_ids, end)
            if n:
                taken[k] = block.slice_images(0, n)
                blocks[k] = (
                    block.slice_images(n, n_image) if n < n_image else next(streams[k], None)
                )
        yield taken
