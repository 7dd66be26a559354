"""Ensembling of files: memory independent of the number of images, time against ensemble-boxes.

    python benchmarks/ensemble.py [--check]

Generates the models' outputs before suppression (PFDet suppresses once, over all models). Runs
evaluate/ensemble.py on a quarter of the images and on all of them, each in a separate process, in
turns with the package ensemble-boxes on some images, one at a time and in memory. The cost of an
image is the difference of both runs, so it does not contain the start of the process.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from timing import (
    Table,
    add_check,
    costs_in_turns,
    megabytes_text,
    processor_seconds,
    status,
)
from tqdm import tqdm

from pfdet.evaluation.detections import Detections, detections_writer, read_detections
from pfdet.openimages.classes import challenge_classes

ROOT = Path(__file__).resolve().parents[1]
CLASSES = challenge_classes()
IMAGES_AT_ONCE = 500
# Times the memory of a quarter of the images, and times as fast as ensemble-boxes
MEMORY_GOAL, SPEED_GOAL = 1.5, 2


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


def command(paths: list[Path], directory: Path) -> list[object]:
    """The ensembling command for files of detections."""
    scores = []
    for m in range(len(paths)):
        scores.append(directory / f'{m}.json')
        ap = np.random.default_rng(m).random(len(CLASSES))
        scores[-1].write_text(json.dumps({'AP': dict(zip(CLASSES.mids, ap.tolist()))}))
    return [
        sys.executable,
        ROOT / 'evaluate' / 'ensemble.py',
        *('--detections', *paths),
        *('--scores', *scores),
        *('--out', directory / 'ensemble.parquet'),
    ]


def time_ensemble_boxes(paths: list[Path], n_image: int) -> float:
    """Processor seconds per image of ensemble-boxes on detections in memory."""
    import ensemble_boxes

    found = [read_detections(path, CLASSES) for path in paths]
    seconds = []
    # The first call compiles and does not count.
    for i in [0, *range(n_image)]:
        rows = [slice(*np.searchsorted(each.image, [i, i + 1])) for each in found]
        arguments = [
            [np.asarray(getattr(each, name)[rows_]) for each, rows_ in zip(found, rows)]
            for name in ('bbox', 'score', 'label')
        ]
        start = processor_seconds()
        ensemble_boxes.non_maximum_weighted(*arguments, iou_thr=0.5)
        seconds.append(processor_seconds() - start)
    return sum(seconds[1:]) / n_image


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--models', type=int, default=20)
    parser.add_argument('--images', type=int, default=1000)
    parser.add_argument('--boxes', type=int, default=300, help='per model and image')
    parser.add_argument('--per-object', type=int, default=5, help='boxes per model and object')
    parser.add_argument('--peer-images', type=int, default=10)
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument('--task', nargs='+', help=argparse.SUPPRESS)
    add_check(parser)
    args = parser.parse_args()
    if args.task:
        run_task(args.task[0], [Path(path) for path in args.task[1:]], args)
        return 0
    table = Table()
    with tempfile.TemporaryDirectory() as name:
        measure(table, Path(name), args)
    return status(table.missed, args.check)


def run_task(name: str, paths: list[Path], args: argparse.Namespace) -> None:
    """What runs in a process of its own, so that the parent of the commands stays small."""
    if name == 'peer':
        print(time_ensemble_boxes(paths, args.peer_images))
        return
    (directory,) = paths
    paths = draw(directory, args.models, args.images, args.boxes, args.per_object)
    first_images(paths, directory, max(args.images // 4, args.peer_images))


def measure(table: Table, directory: Path, args: argparse.Namespace) -> None:
    """Run all measurements and print them."""
    own = [sys.executable, __file__, *sys.argv[1:], '--task']
    subprocess.run([*own, 'draw', directory], check=True)
    files = [directory / f'{m}.parquet' for m in range(args.models)]
    few = [directory / f'first-{path.name}' for path in files]
    commands = {'quarter': command(few, directory), 'whole': command(files, directory)}
    n, n_few = args.images, max(args.images // 4, args.peer_images)
    seconds, peer = [], []
    memory: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(args.rounds):
        costs = costs_in_turns(
            commands,
            1,
            env={**os.environ, 'PYTHONPATH': str(ROOT)},
            stdout=subprocess.DEVNULL,
        )
        for name, values in memory.items():
            values += costs[name].memory
        further = costs['whole'].processor[0] - costs['quarter'].processor[0]
        seconds.append(further / (n - n_few))
        done = subprocess.run([*own, 'peer', *few], check=True, stdout=subprocess.PIPE)
        peer.append(float(done.stdout))
    print(
        f'{args.models} models, {n:,} images, {args.boxes} boxes per model and image, '
        f'{args.per_object} per model and object'
    )
    table.share(
        f'peak memory, {n:,} images',
        memory['whole'],
        memory['quarter'],
        f'{n_few:,} images',
        MEMORY_GOAL,
        megabytes_text,
    )
    table.faster('a further image', seconds, peer, 'ensemble-boxes', SPEED_GOAL)


if __name__ == '__main__':
    sys.exit(main())
