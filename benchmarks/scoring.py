"""The scoring command at the size of the challenge's validation set.

Input: 41,620 images with 300 detections each, 12.5 million in all, over 500 classes, as a Parquet
file; 225,000 annotated boxes, 6 % of them group-of, and image-level labels as CSV files, which the
hierarchy expands. All data are synthetic. Half of the detections lie near annotated objects and
have their class or one of its ancestors, the others lie anywhere. Classes have a long tail.

The reference is a NumPy loop over images and their evaluated classes, on some of the images. Its
time is linear in the number of images and scaled accordingly. The TensorFlow Object Detection API
has the same loop over all classes. The AP of every class must agree to 1e-9. It takes turns with

- evaluate/score.py as a whole process, which reads, matches and writes; the loop does not read;
- the function average_precision on arrays in memory.

The peak memory of evaluate/score.py is compared with a process that reads the same detections by
pyarrow.

    python benchmarks/scoring.py [--check]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from synthetic_tables import class_rates, image_ids
from timing import (
    Table,
    add_check,
    costs_in_turns,
    megabytes_text,
    status,
    take_turns,
)

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.ground_truth import GroundTruth, read_ground_truth
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(str(resources.files('pfdet.openimages') / 'data'))
CLASSES = DATA / 'challenge-2018-class-descriptions-500.csv'
HIERARCHY = DATA / 'bbox_labels_500_hierarchy.json'
# At least so many times as fast as the loop: the whole command, and the function alone
COMMAND_GOAL, FUNCTION_GOAL = 1.5, 4
# At most so many times the memory of reading the detections
MEMORY_GOAL = 3
MAX_DIFFERENCE = 1e-9
# Average number of annotated boxes and of image-level labels per image
N_BOX, N_LABEL = 5.4, 10


def write_inputs(root: Path, n_image: int, per_image: int) -> None:
    """Write boxes.csv, labels.csv and detections.parquet."""
    rng = np.random.default_rng(0)
    classes, hierarchy = challenge_classes(), challenge_hierarchy()
    ids = image_ids(rng, n_image)
    rate = class_rates(len(classes))[rng.permutation(len(classes))]
    mids = pa.array(classes.mids)

    image = np.sort(rng.integers(n_image, size=int(N_BOX * n_image)))
    label = rng.choice(len(classes), len(image), p=rate)
    size = rng.uniform(0.05, 0.7, (len(image), 2))
    corner = rng.random((len(image), 2)) * (1 - size)
    bbox = np.concatenate([corner, corner + size], axis=1).round(6)
    group_of = rng.random(len(image)) < 0.06
    pa.csv.write_csv(
        pa.table(
            {
                'ImageID': ids.take(pa.array(image)),
                'LabelName': mids.take(pa.array(label)),
                'XMin': bbox[:, 1],
                'XMax': bbox[:, 3],
                'YMin': bbox[:, 0],
                'YMax': bbox[:, 2],
                'IsGroupOf': group_of.astype(np.int8),
            }
        ),
        root / 'boxes.csv',
    )
    n_label = N_LABEL * n_image - len(image)
    # Every image has at least one label.
    verified = np.concatenate(
        [image, np.arange(n_image), rng.integers(n_image, size=n_label - n_image)]
    )
    verified_label = np.concatenate([label, rng.choice(len(classes), n_label, p=rate)])
    positive = np.arange(len(verified)) < len(image)
    pa.csv.write_csv(
        pa.table(
            {
                'ImageID': ids.take(pa.array(verified)),
                'LabelName': mids.take(pa.array(verified_label)),
                'Confidence': positive.astype(np.int8),
            }
        ),
        root / 'labels.csv',
    )

    # Half of the detections lie near an object of the image, if it has any.
    start = np.searchsorted(image, np.arange(n_image))
    count = np.bincount(image, minlength=n_image)
    owner = np.repeat(np.arange(n_image, dtype=np.int32), per_image)
    found = (rng.random(len(owner), np.float32) < 0.5) & (count[owner] > 0)
    box = start[owner] + (rng.random(len(owner), np.float32) * count[owner]).astype(int)
    box = np.minimum(box, len(image) - 1)
    relatives = [np.flatnonzero(row) for row in hierarchy.closure]
    n_relative = np.array([len(r) for r in relatives])
    table = np.zeros((len(classes), n_relative.max()), int)
    for c, related in enumerate(relatives):
        table[c, : len(related)] = related
    true_label = label[box]
    chosen = (rng.random(len(owner), np.float32) * n_relative[true_label]).astype(int)
    related_label = table[true_label, chosen]
    detected = np.where(found, related_label, rng.choice(len(classes), len(owner), p=rate))
    detected_bbox = np.where(
        found[:, None], bbox[box], bbox[rng.integers(len(bbox), size=len(owner))]
    )
    detected_bbox += 0.08 * rng.standard_normal(detected_bbox.shape, np.float32)
    detected_bbox = np.clip(detected_bbox, 0, 1).astype(np.float32)
    a, b = detected_bbox[:, :2], detected_bbox[:, 2:]
    detected_bbox = np.concatenate([np.minimum(a, b), np.maximum(a, b)], axis=1)
    score = np.where(found, rng.beta(1, 3, len(owner)), rng.beta(0.3, 8, len(owner)))
    score = np.maximum(score, 0.001).astype(np.float32)
    write_detections(
        root / 'detections.parquet',
        Detections(ids.to_pylist(), owner, detected.astype(np.int32), score, detected_bbox),
        classes,
    )


def first_images(
    detections: Detections, truth: GroundTruth, n: int
) -> tuple[Detections, GroundTruth]:
    """Detections and ground truth of the first ``n`` images."""
    ids = truth.image_ids[:n]
    kept, position = truth.image < n, {image_id: i for i, image_id in enumerate(ids)}
    image = np.array([position.get(i, -1) for i in detections.image_ids])[detections.image]
    chosen = image >= 0
    return (
        Detections(
            ids,
            image[chosen].astype(np.int32),
            detections.label[chosen],
            detections.score[chosen],
            detections.bbox[chosen],
        ),
        GroundTruth(
            ids,
            truth.image[kept],
            truth.label[kept],
            truth.bbox[kept],
            truth.group_of[kept],
            truth.verified[:n],
        ),
    )


def overlaps(a: np.ndarray, b: np.ndarray, over_union: bool) -> np.ndarray:
    """Intersection of all pairs, over their union or over the area of ``a``."""
    size = (np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])).clip(0)
    inter = size.prod(axis=2)
    area = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None]
    if over_union:
        area = area + (b[:, 2:] - b[:, :2]).prod(axis=1) - inter
    return inter / area


def match(
    bbox: np.ndarray, score: np.ndarray, normal: np.ndarray, groups: np.ndarray
) -> tuple[list, list]:
    """Scores, and whether they are true positives, of one image and class."""
    order = np.argsort(score, kind='stable')[::-1]
    bbox, score = bbox[order], score[order]
    correct, counted = np.zeros(len(score), bool), np.ones(len(score), bool)
    if len(normal):
        iou = overlaps(bbox, normal, True)
        taken = np.zeros(len(normal), bool)
        for i, j in enumerate(iou.argmax(axis=1)):
            if iou[i, j] >= 0.5 and not taken[j]:
                correct[i] = taken[j] = True
    best = np.zeros(len(groups))
    if len(groups):
        part = overlaps(bbox, groups, False)
        for i, j in enumerate(part.argmax(axis=1)):
            if not correct[i] and part[i, j] >= 0.5:
                counted[i] = False
                best[j] = max(best[j], score[i])
    return (
        [*score[counted], *best[best > 0]],
        [*correct[counted], *[True] * int((best > 0).sum())],
    )


def loop(detections: Detections, truth: GroundTruth, n_class: int) -> np.ndarray:
    """AP of each class, by a loop over images and classes."""
    scores, correct = ([[] for _ in range(n_class)] for _ in range(2))
    ends = np.searchsorted(detections.image, np.arange(len(truth.image_ids) + 1))
    gt_ends = np.searchsorted(truth.image, np.arange(len(truth.image_ids) + 1))
    for i in np.argsort(truth.image_ids):
        detected, annotated = (slice(e[i], e[i + 1]) for e in (ends, gt_ends))
        bbox, score = detections.bbox[detected].astype(float), detections.score[detected]
        label, gt_label = detections.label[detected], truth.label[annotated]
        gt_bbox, group_of = truth.bbox[annotated].astype(float), truth.group_of[annotated]
        has_area = (bbox[:, :2] < bbox[:, 2:]).all(axis=1)
        for c in np.flatnonzero(truth.verified[i] | np.isin(np.arange(n_class), gt_label)):
            of_class, gt_of_class = (label == c) & has_area, gt_label == c
            if of_class.any():
                s, r = match(
                    bbox[of_class],
                    score[of_class],
                    gt_bbox[gt_of_class & ~group_of],
                    gt_bbox[gt_of_class & group_of],
                )
                scores[c] += s
                correct[c] += r
    ap = np.full(n_class, np.nan)
    for c, n_gt in enumerate(np.bincount(truth.label, minlength=n_class)):
        if n_gt:
            order = np.argsort(np.array(scores[c]), kind='stable')[::-1]
            is_correct = np.array(correct[c], bool)[order]
            precision = np.cumsum(is_correct) / np.arange(1, len(is_correct) + 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            ap[c] = envelope[is_correct].sum() / n_gt
    return ap


def command(root: Path) -> list[object]:
    """The scoring command."""
    return [
        sys.executable,
        ROOT / 'evaluate' / 'score.py',
        *('--boxes', root / 'boxes.csv', '--labels', root / 'labels.csv'),
        *('--classes', CLASSES, '--hierarchy', HIERARCHY),
        *('--detections', root / 'detections.parquet', '--out', root / 'score.json'),
    ]


def compare(root: Path, n_share: int, rounds: int) -> dict:
    """Time average_precision and the loop, and compare their results."""
    classes = challenge_classes()
    detections = read_detections(root / 'detections.parquet', classes)
    truth = read_ground_truth(
        root / 'boxes.csv', root / 'labels.csv', classes, challenge_hierarchy()
    )
    share = first_images(detections, truth, n_share)
    found, seconds = take_turns(
        {
            'function': lambda: average_precision(detections, truth, len(classes)),
            'loop': lambda: loop(*share, len(classes)),
        },
        rounds,
        warm_up=False,
    )
    differ = np.nanmax(np.abs(average_precision(*share, len(classes))['ap'] - found['loop']))
    n_image = len(truth.image_ids)
    return {
        'function': seconds['function'],
        'loop': [s * n_image / n_share for s in seconds['loop']],
        'differ': float(differ),
        'sizes': [n_image, len(detections), len(truth.image)],
    }


def own_command(*flags: object) -> list[object]:
    """This script with other flags: in a process of its own, whose memory is freed."""
    return [sys.executable, __file__, *flags]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=41620)
    parser.add_argument('--detections', type=int, default=300, help='per image')
    parser.add_argument('--share', type=int, default=500, help='images for the reference loop')
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument(
        '--keep', type=Path, metavar='DIR', help='keep the inputs in DIR, and reuse them'
    )
    parser.add_argument('--task', nargs=2, help=argparse.SUPPRESS)
    add_check(parser)
    args = parser.parse_args()
    if args.task:
        name, root = args.task[0], Path(args.task[1])
        if name == 'write':
            write_inputs(root, args.images, args.detections)
        elif name == 'read':
            pyarrow.parquet.read_table(root / 'detections.parquet')
        else:
            print(json.dumps(compare(root, args.share, 1)))
        return 0

    table = Table()
    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        sizes = '--images', str(args.images), '--detections', str(args.detections)
        if not (root / 'detections.parquet').exists():
            subprocess.run(own_command('--task', 'write', root, *sizes), check=True)
        measure(table, root, args)
    return status(table.missed, args.check)


def measure(table: Table, root: Path, args: argparse.Namespace) -> None:
    """Run all measurements and print them."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    processor, memory, read_memory, results = [], [], [], []
    for _ in range(args.rounds):
        costs = costs_in_turns(
            {'score': command(root), 'read': own_command('--task', 'read', root)},
            1,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
        processor += costs['score'].processor
        memory += costs['score'].memory
        read_memory += costs['read'].memory
        done = subprocess.run(
            own_command('--task', 'compare', root, '--share', str(args.share)),
            check=True,
            stdout=subprocess.PIPE,
        )
        results.append(json.loads(done.stdout))
    n_image, n_detection, n_box = results[0]['sizes']
    score = json.loads((root / 'score.json').read_text())
    print(
        f'{n_image:,} images, {n_detection:,} detections, {n_box:,} boxes after expansion, mAP '
        f'{score["mAP"]:.4f}'
    )
    loop_seconds, function = ([r[name][0] for r in results] for name in ('loop', 'function'))
    table.faster('evaluate/score.py', processor, loop_seconds, 'loop over images', COMMAND_GOAL)
    table.share(
        'evaluate/score.py, peak memory',
        memory,
        read_memory,
        'pyarrow, reading',
        MEMORY_GOAL,
        megabytes_text,
    )
    table.faster('average_precision', function, loop_seconds, 'loop over images', FUNCTION_GOAL)
    worst = max(r['differ'] for r in results)
    table.require(
        f'AP on {args.share} images differs by {worst:.1e}, at most {MAX_DIFFERENCE:g}',
        worst <= MAX_DIFFERENCE,
    )


if __name__ == '__main__':
    sys.exit(main())
