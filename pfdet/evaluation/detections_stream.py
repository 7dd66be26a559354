"""Reading files of detections image by image, many of them side by side."""

import bisect
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from pfdet.boxes.pairs import is_first
from pfdet.evaluation.detections import Detections, check_rows, read_detections, write_detections
from pfdet.evaluation.detections_table import (
    CLASSES_KEY,
    COLUMNS,
    IMAGES_KEY,
    is_parquet,
    listed,
    open_parquet,
)
from pfdet.openimages.classes import Classes


def told_classes(path: str | os.PathLike) -> list[str] | None:
    """The MIDs that the model behind a file can tell; :obj:`None` where the file does not say.

    Raises:
        InputError: The file cannot be read.
    """
    if not is_parquet(path):
        return None
    with open_parquet(path) as file:
        return listed(path, file, CLASSES_KEY)


def images_without_detections(path: str | os.PathLike) -> list[str]:
    """The images of a Parquet file that no row speaks of.

    Raises:
        InputError: The file cannot be read.
    """
    with open_parquet(path) as file:
        return listed(path, file, IMAGES_KEY) or []


def sorted_by_image(path: Path, classes: Classes, directory: Path) -> Path:
    """A file whose rows are sorted by image, as :func:`blocks_of_images` needs it.

    Args:
        path (path): A file of detections.
        classes (Classes): The classes that may occur.
        directory (path): For a sorted copy, which takes the memory of one whole file to make.

    Returns:
        pathlib.Path: Of the file itself, where it is sorted and Parquet, and else of the copy.

    Raises:
        InputError: The file cannot be read, or, where it is copied, has a wrong row.
    """
    if is_parquet(path) and _is_sorted(path):
        return path
    detections = read_detections(path, classes)
    order = np.argsort(detections.image, kind='stable')
    copy = directory / f'{path.stem}.parquet'
    write_detections(
        copy,
        Detections(
            detections.image_ids,
            detections.image[order],
            detections.label[order],
            detections.score[order],
            detections.bbox[order],
        ),
        classes,
    )
    return copy


def _is_sorted(path: Path) -> bool:
    last = ''
    with open_parquet(path, piecemeal=True) as file:
        for batch in file.iter_batches(columns=['ImageID']):
            ids = batch.column(0)
            if ids.null_count:
                # Which row it is, reading all will say.
                return False
            if not pa.types.is_dictionary(ids.type):
                ids = ids.dictionary_encode()
            code = ids.indices.to_numpy()
            names = ids.dictionary.to_pylist()
            runs = [last, *(names[c] for c in code[is_first(code)].tolist())]
            # An image may go on in the next batch.
            first = 1 if runs[1:2] == [last] else 0
            if any(a >= b for a, b in zip(runs[first:], runs[first + 1 :])):
                return False
            last = runs[-1]
    return True


def blocks_of_images(path: str | os.PathLike, classes: Classes, n_row: int) -> Iterator[Detections]:
    """Read a file block by block, each block of whole images.

    Args:
        path (path): A Parquet file, sorted by image.
        classes (Classes): The classes that may occur.
        n_row (int): About so many rows are read at a time. More are in memory where an image has
            more.

    Yields:
        Detections: At least one image each, in order of the ids.

    Raises:
        InputError: The file cannot be read, or has a wrong row.
    """
    rest = None
    first_row = 0
    with open_parquet(path, piecemeal=True) as file:
        for batch in file.iter_batches(n_row, columns=list(COLUMNS)):
            rows = check_rows(path, pa.Table.from_batches([batch]), classes, first_row)
            first_row += batch.num_rows
            # A dictionary is in order of nothing, and may have what no row uses.
            first = is_first(rows.image)
            block = Detections(
                [rows.image_ids[c] for c in rows.image[first].tolist()],
                (np.cumsum(first) - 1).astype(np.int32),
                rows.label,
                rows.score,
                rows.bbox,
            )
            block = block if rest is None else _joined(rest, block)
            n_whole = len(block.image_ids) - 1
            if n_whole > 0:
                yield _silent_dropped(part_of_images(block, 0, n_whole))
                block = part_of_images(block, n_whole, n_whole + 1)
            rest = block if len(block.image_ids) else None
    if rest is not None:
        yield _silent_dropped(rest)


def side_by_side(streams: Sequence[Iterator[Detections]]) -> Iterator[list[Detections | None]]:
    """Read several files so that what they say of an image comes together.

    Args:
        streams (sequence of iterators): Of :func:`blocks_of_images`.

    Yields:
        list: For each stream its detections in a range of images, or :obj:`None` for no such
        image. All that any of them says of these images is there.
    """
    blocks = [next(stream, None) for stream in streams]
    while any(block is not None for block in blocks):
        bound = min(block.image_ids[-1] for block in blocks if block is not None)
        taken = [None] * len(blocks)
        for k, block in enumerate(blocks):
            if block is None:
                continue
            n_image = len(block.image_ids)
            n = bisect.bisect_right(block.image_ids, bound)
            if n:
                taken[k] = part_of_images(block, 0, n)
                blocks[k] = (
                    part_of_images(block, n, n_image) if n < n_image else next(streams[k], None)
                )
        yield taken


def part_of_images(detections: Detections, begin: int, end: int) -> Detections:
    """Those of some images that follow one another.

    Args:
        detections (Detections): In order of the images.
        begin, end (int): Which images.
    """
    low, high = np.searchsorted(detections.image, [begin, end])
    return Detections(
        detections.image_ids[begin:end],
        detections.image[low:high] - np.int32(begin),
        detections.label[low:high],
        detections.score[low:high],
        detections.bbox[low:high],
    )


def _joined(a: Detections, b: Detections) -> Detections:
    # The first image of b may be the last of a.
    shared = bool(b.image_ids) and a.image_ids[-1] == b.image_ids[0]
    shift = len(a.image_ids) - shared
    return Detections(
        [*a.image_ids, *b.image_ids[shared:]],
        np.concatenate([a.image, b.image + np.int32(shift)]),
        *(
            np.concatenate([getattr(a, name), getattr(b, name)])
            for name in ('label', 'score', 'bbox')
        ),
    )


def _silent_dropped(rows: Detections) -> Detections:
    # Rows with nothing but an image have said what they had to.
    keep = rows.label >= 0
    if keep.all():
        return rows
    return Detections(
        rows.image_ids, rows.image[keep], rows.label[keep], rows.score[keep], rows.bbox[keep]
    )
