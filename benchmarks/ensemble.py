"""Ensembling of files: memory independent of the number of images, time against ensemble-boxes.

    python benchmarks/ensemble.py

Generates the models' outputs before suppression (PFDet suppresses once, over all models). Runs
evaluate/ensemble.py on a quarter of the images and on all of them, each in a separate process, and
the package ensemble-boxes on some images, one at a time and in memory.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import ensemble_boxes
import numpy as np
from tqdm import tqdm

from pfdet.evaluation.detections import Detections, detections_writer, read_detections
from pfdet.openimages.classes import challenge_classes

ROOT = Path(__file__).resolve().parents[1]
CLASSES = challenge_classes()
IMAGES_AT_ONCE = 500


def draw(directory: Path, n_model: int, n_image: int, n_box: int, per_object: int) -> list[Path]:
    """Write the models' files: ``per_object`` boxes per model around each of the same objects."""
    paths = [directory / f'{m}.parquet' for m in range(n_model)]
    n_object = n_box // per_object
    for m, path in enumerate(tqdm(paths, 'drawing', disable=None)):
        with detections_writer(path, CLASSES) as write:
            for begin in range(0, n_image, IMAGES_AT_ONCE):
                n = min(IMAGES_AT_ONCE, n_image - begin)
                shared = np.random.default_rng(begin)
                corner = shared.random((n, n_object, 1, 2), np.float32) * 0.6
                size = 0.05 + shared.random((n, n_object, 1, 2), np.float32) * 0.3
                label = shared.integers(0, len(CLASSES), (n, n_object, 1), np.int32)
                own = np.random.default_rng((begin, m))
                shift = own.normal(0, 0.08, (n, n_object, per_object, 4)).astype(np.float32)
                shift *= np.concatenate([size, size], axis=3)
                bbox = np.clip(np.concatenate([corner, corner + size], axis=3) + shift, 0, 1)
                bbox = bbox.reshape(-1, 4)
                bbox = np.concatenate(
                    [np.minimum(bbox[:, :2], bbox[:, 2:]), np.maximum(bbox[:, :2], bbox[:, 2:])], 1
                )
                label = np.broadcast_to(label, (n, n_object, per_object)).reshape(-1)
                write(
                    Detections(
                        [f'{i:016x}' for i in range(begin, begin + n)],
                        np.repeat(np.arange(n, dtype=np.int32), n_object * per_object),
                        label,
                        own.random(len(label), np.float32),
                        bbox,
                    )
                )
    return paths


def first_images(paths: list[Path], directory: Path, n_image: int) -> list[Path]:
    """Write files of the first images only."""
    last = f'{n_image:016x}'
    out = []
    for path in paths:
        found = read_detections(path, CLASSES)
        n = np.searchsorted(found.image, np.searchsorted(found.image_ids, last))
        out.append(directory / f'first-{path.name}')
        with detections_writer(out[-1], CLASSES) as write:
            write(
                Detections(
                    found.image_ids[:n_image],
                    found.image[:n],
                    found.label[:n],
                    found.score[:n],
                    found.bbox[:n],
                )
            )
    return out


def measure(paths: list[Path], directory: Path) -> dict:
    """Time and peak memory of the command."""
    scores = []
    for m in range(len(paths)):
        scores.append(directory / f'{m}.json')
        ap = np.random.default_rng(m).random(len(CLASSES))
        scores[-1].write_text(json.dumps({'AP': dict(zip(CLASSES.mids, ap.tolist()))}))
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / 'evaluate' / 'ensemble.py',
            '--detections',
            *paths,
            '--scores',
            *scores,
            '--out',
            directory / 'ensemble.parquet',
        ],
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        stdout=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f'ensemble.py ended with {os.waitstatus_to_exitcode(status)}')
    unit = 1 if sys.platform == 'darwin' else 1024
    return {'seconds': time.perf_counter() - start, 'GB': usage.ru_maxrss * unit / 1e9}


def time_ensemble_boxes(paths: list[Path], n_image: int) -> float:
    """Seconds per image of ensemble-boxes on detections in memory."""
    found = [read_detections(path, CLASSES) for path in paths]
    seconds = []
    # The first call compiles and does not count.
    for i in [0, *range(n_image)]:
        rows = [slice(*np.searchsorted(each.image, [i, i + 1])) for each in found]
        arguments = [
            [np.asarray(getattr(each, name)[rows_]) for each, rows_ in zip(found, rows)]
            for name in ('bbox', 'score', 'label')
        ]
        start = time.perf_counter()
        ensemble_boxes.non_maximum_weighted(*arguments, iou_thr=0.5)
        seconds.append(time.perf_counter() - start)
    return sum(seconds[1:]) / n_image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--models', type=int, default=20)
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--boxes', type=int, default=300, help='per model and image')
    parser.add_argument('--per-object', type=int, default=5, help='boxes per model and object')
    parser.add_argument('--peer-images', type=int, default=10)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        paths = draw(directory, args.models, args.images, args.boxes, args.per_object)
        few = first_images(paths, directory, max(args.images // 4, args.peer_images))
        quarter = measure(few, directory)
        whole = measure(paths, directory)
        peer = time_ensemble_boxes(few, args.peer_images)
    n = args.images
    rate = (whole['seconds'] - quarter['seconds']) / (n - n // 4)
    print(
        f'{args.models} models x {n} images x {args.boxes} boxes, {args.per_object} per model '
        f'and object'
    )
    for text, of in ((f'{n // 4} images', quarter), (f'{n} images', whole)):
        print(f'  {text:>12}: {of["seconds"]:6.1f} s, peak {of["GB"]:.2f} GB')
    print(
        f'  per further image: {1e3 * rate:.1f} ms, ensemble-boxes {1e3 * peer:.1f} ms, '
        f'{peer / rate:.0f} times as long'
    )
    print(f'  41,620 images: {41_620 * rate / 60:.0f} minutes at this rate on one core')


if __name__ == '__main__':
    main()
