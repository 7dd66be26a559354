"""Random annotation tables of Open Images' size and form, for the benchmarks.

They have the properties that matter to the speed of reading and grouping them: ids of 16 hex
digits, coordinates with six decimals, boxes sorted by image id, a long tail of classes, objects
with two labels, images with hundreds of boxes.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pfdet.atomic_write import replace_when_done
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.make_mini import BOX_COLUMNS

# How often each flag is set, roughly as in Open Images V4.
FLAG_RATES = {
    'IsOccluded': 0.66,
    'IsTruncated': 0.25,
    'IsGroupOf': 0.06,
    'IsDepiction': 0.05,
    'IsInside': 0.002,
}


def write_tables(
    root: Path,
    n_image: int,
    n_box: int,
    n_label: int,
    same_box: float = 0.05,
    seed: int = 0,
    n_row: int = 1 << 20,
) -> tuple[Path, Path]:
    """Write a box table and an image-level label table in Open Images' format.

    Args:
        root (path): Output directory.
        n_image (int): Number of images; each has at least one box.
        n_box (int): Number of rows of the box table.
        n_label (int): Number of rows of the label table.
        same_box (float): Share of boxes with the coordinates of the previous box.
        seed (int): Random seed.
        n_row (int): Number of rows generated at a time.

    Returns:
        tuple: Paths of both files.
    """
    rng = np.random.default_rng(seed)
    ids = image_ids(rng, n_image)
    mids = pa.array(challenge_classes().mids)
    rate = class_rates(len(mids))
    image_of_box = np.repeat(np.arange(n_image), _boxes_per_image(rng, n_image, n_box))
    image_of_label = np.sort(rng.integers(0, n_image, n_label))
    boxes, labels = root / 'annotations-bbox.csv', root / 'annotations-human-imagelabels.csv'
    _write(
        boxes,
        (
            _box_rows(rng, ids, image_of_box[at : at + n_row], mids, rate, same_box)
            for at in range(0, n_box, n_row)
        ),
    )
    _write(
        labels,
        (
            _label_rows(rng, ids, image_of_label[at : at + n_row], mids, rate)
            for at in range(0, n_label, n_row)
        ),
    )
    return boxes, labels


def image_ids(rng: np.random.Generator, n: int) -> pa.Array:
    """Draw distinct ids of 16 hex digits, in ascending order."""
    numbers = np.unique(rng.integers(0, 1 << 63, n + n // 1000 + 10, np.uint64) << np.uint64(1))
    numbers = np.sort(rng.permutation(numbers)[:n])
    shifts = np.arange(60, -1, -4, dtype=np.uint64)
    digits = np.frombuffer(b'0123456789abcdef', np.uint8)[
        (numbers[:, None] >> shifts) & np.uint64(15)
    ]
    ends = np.arange(n + 1, dtype=np.int32) * 16
    return pa.StringArray.from_buffers(n, pa.py_buffer(ends), pa.py_buffer(digits))


def class_rates(n_class: int) -> np.ndarray:
    """Return the share of every class: Zipf's law with an exponential cut-off."""
    rank = np.arange(1, n_class + 1)
    rate = np.exp(-rank * (5 / n_class)) / rank
    return rate / rate.sum()


def _boxes_per_image(rng: np.random.Generator, n_image: int, n_box: int) -> np.ndarray:
    weight = rng.lognormal(0, 0.9, n_image)
    return 1 + rng.multinomial(n_box - n_image, weight / weight.sum())


def _box_rows(
    rng: np.random.Generator,
    ids: pa.Array,
    image: np.ndarray,
    mids: pa.Array,
    rate: np.ndarray,
    same_box: float,
) -> pa.RecordBatch:
    n = len(image)
    # Two corners in units of 1e-6, some on the image border, at least 1e-3 apart.
    low = np.maximum(rng.integers(-100_000, 900_000, (n, 2)), 0)
    high = np.minimum(low + np.int64(1e6 * rng.beta(1, 3, (n, 2))) + 1000, 1_000_000)
    repeats = np.flatnonzero((rng.random(n) < same_box) & np.append(False, image[1:] == image[:-1]))
    low[repeats], high[repeats] = low[repeats - 1], high[repeats - 1]
    one = pa.array(np.ones(n, np.int8))
    columns = {
        'ImageID': ids.take(pa.array(image)),
        'Source': _constant('xclick', n),
        'LabelName': _draw(rng, mids, rate, n),
        'Confidence': one,
        'XMin': low[:, 0] / 1e6,
        'XMax': high[:, 0] / 1e6,
        'YMin': low[:, 1] / 1e6,
        'YMax': high[:, 1] / 1e6,
        **{name: (rng.random(n) < share).astype(np.int8) for name, share in FLAG_RATES.items()},
    }
    return pa.record_batch([pa.array(columns[name]) for name in BOX_COLUMNS], list(BOX_COLUMNS))


def _label_rows(
    rng: np.random.Generator, ids: pa.Array, image: np.ndarray, mids: pa.Array, rate: np.ndarray
) -> pa.RecordBatch:
    n = len(image)
    columns = {
        'ImageID': ids.take(pa.array(image)),
        'Source': _constant('verification', n),
        'LabelName': _draw(rng, mids, rate, n),
        'Confidence': pa.array((rng.random(n) < 0.45).astype(np.int8)),
    }
    return pa.record_batch(list(columns.values()), list(columns))


def _constant(text: str, n: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(n, np.int32)))


def _draw(rng: np.random.Generator, mids: pa.Array, rate: np.ndarray, n: int) -> pa.Array:
    edges = np.cumsum(rate)
    return mids.take(pa.array(np.searchsorted(edges, rng.random(n) * edges[-1], 'right')))


def _write(path: Path, batches: Iterable[pa.RecordBatch]) -> None:
    options = pa.csv.WriteOptions(include_header=False, quoting_style='none')
    with replace_when_done(path) as unfinished, open(unfinished, 'wb') as f:
        for k, batch in enumerate(batches):
            if k == 0:
                f.write((','.join(batch.schema.names) + '\n').encode())
            pa.csv.write_csv(batch, f, options)
