"""Scoring at the size of the challenge's validation set: its command, end to end.

41,620 images with 300 detections each, 12.5 million in all, over the 500 classes, as a Parquet
file; 225,000 annotated boxes, 6 % of them group-of, and image-level labels as CSV files, which the
hierarchy expands. All of it is made up: half of the detections lie about annotated objects, under
their own class or one of its ancestors, the others anywhere, both with a long tail of classes. The
command reads, matches and writes; its time and the most memory it had are those of its process.

Beside it, in the same run, a loop in NumPy that takes the images one by one and in each, one by
one, the classes that are judged there, on a share of the images; its time is scaled up by the
number of images, in which it is linear. The TensorFlow Object Detection API loops so too, over all
classes. The AP of every class must be the same to 1e-9.

    python benchmarks/scoring.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from importlib import resources
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from made_tables import class_rates, image_ids

from pfdet.evaluation.average_precision import average_precision
from pfdet.evaluation.detections import Detections, read_detections, write_detections
from pfdet.evaluation.ground_truth import GroundTruth, read_ground_truth
from pfdet.openimages.classes import challenge_classes
from pfdet.openimages.hierarchy import challenge_hierarchy

ROOT = Path(__file__).resolve().parents[1]
DATA = Path(str(resources.files('pfdet.openimages') / 'data'))
CLASSES = DATA / 'challenge-2018-class-descriptions-500.csv'
HIERARCHY = DATA / 'bbox_labels_500_hierarchy.json'
LIMIT_SECONDS, LIMIT_GB, LEAST_RATIO = 90, 6, 5
# Of an image, on average: annotated boxes, image-level labels.
N_BOX, N_LABEL = 5.4, 10


def make(root: Path, n_image: int, per_image: int) -> None:
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
    # Every image has a label at least.
    verified = np.concatenate(
        [image, np.arange(n_image), rng.integers(n_image, size=n_label - n_image)]
    )
    of_label = np.concatenate([label, rng.choice(len(classes), n_label, p=rate)])
    positive = np.arange(len(verified)) < len(image)
    pa.csv.write_csv(
        pa.table(
            {
                'ImageID': ids.take(pa.array(verified)),
                'LabelName': mids.take(pa.array(of_label)),
                'Confidence': positive.astype(np.int8),
            }
        ),
        root / 'labels.csv',
    )

    # Detections of an image: about its objects, as far as it has any, and anywhere.
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
    own = label[box]
    kin = table[own, (rng.random(len(owner), np.float32) * n_relative[own]).astype(int)]
    detected = np.where(found, kin, rng.choice(len(classes), len(owner), p=rate))
    around = np.where(found[:, None], bbox[box], bbox[rng.integers(len(bbox), size=len(owner))])
    around += 0.08 * rng.standard_normal(around.shape, np.float32)
    around = np.clip(around, 0, 1).astype(np.float32)
    around = np.concatenate(
        [np.minimum(around[:, :2], around[:, 2:]), np.maximum(around[:, :2], around[:, 2:])], axis=1
    )
    score = np.where(found, rng.beta(1, 3, len(owner)), rng.beta(0.3, 8, len(owner)))
    score = np.maximum(score, 0.001).astype(np.float32)
    write_detections(
        root / 'detections.parquet',
        Detections(ids.to_pylist(), owner, detected.astype(np.int32), score, around),
        classes,
    )


def first_images(
    detections: Detections, truth: GroundTruth, n: int
) -> tuple[Detections, GroundTruth]:
    """The detections and the ground truth of the first images."""
    ids = truth.image_ids[:n]
    mine, of_truth = truth.image < n, {image_id: i for i, image_id in enumerate(ids)}
    image = np.array([of_truth.get(i, -1) for i in detections.image_ids])[detections.image]
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
            truth.image[mine],
            truth.label[mine],
            truth.bbox[mine],
            truth.group_of[mine],
            truth.verified[:n],
        ),
    )


def overlaps(a: np.ndarray, b: np.ndarray, over_union: bool) -> np.ndarray:
    """Intersection over union, or over the area of a, of all pairs."""
    size = (np.minimum(a[:, None, 2:], b[:, 2:]) - np.maximum(a[:, None, :2], b[:, :2])).clip(0)
    inter = size.prod(axis=2)
    area = (a[:, 2:] - a[:, :2]).prod(axis=1)[:, None]
    if over_union:
        area = area + (b[:, 2:] - b[:, :2]).prod(axis=1) - inter
    return inter / area


def judge(
    bbox: np.ndarray, score: np.ndarray, normal: np.ndarray, groups: np.ndarray
) -> tuple[list, list]:
    """Scores and whether they are right, of one image and class."""
    order = np.argsort(score, kind='stable')[::-1]
    bbox, score = bbox[order], score[order]
    right, counts = np.zeros(len(score), bool), np.ones(len(score), bool)
    if len(normal):
        iou = overlaps(bbox, normal, True)
        taken = np.zeros(len(normal), bool)
        for i, j in enumerate(iou.argmax(axis=1)):
            if iou[i, j] >= 0.5 and not taken[j]:
                right[i] = taken[j] = True
    best = np.zeros(len(groups))
    if len(groups):
        part = overlaps(bbox, groups, False)
        for i, j in enumerate(part.argmax(axis=1)):
            if not right[i] and part[i, j] >= 0.5:
                counts[i] = False
                best[j] = max(best[j], score[i])
    return ([*score[counts], *best[best > 0]], [*right[counts], *[True] * int((best > 0).sum())])


def loop(detections: Detections, truth: GroundTruth, n_class: int) -> np.ndarray:
    """AP by class, image by image and class by class."""
    scores, rights = ([[] for _ in range(n_class)] for _ in range(2))
    ends = np.searchsorted(detections.image, np.arange(len(truth.image_ids) + 1))
    gt_ends = np.searchsorted(truth.image, np.arange(len(truth.image_ids) + 1))
    for i in np.argsort(truth.image_ids):
        mine, annotated = (slice(e[i], e[i + 1]) for e in (ends, gt_ends))
        bbox, score = detections.bbox[mine].astype(float), detections.score[mine]
        label, gt_label = detections.label[mine], truth.label[annotated]
        gt_bbox, group_of = truth.bbox[annotated].astype(float), truth.group_of[annotated]
        has_area = (bbox[:, :2] < bbox[:, 2:]).all(axis=1)
        for c in np.flatnonzero(truth.verified[i] | np.isin(np.arange(n_class), gt_label)):
            of_class, gt_of_class = (label == c) & has_area, gt_label == c
            if of_class.any():
                s, r = judge(
                    bbox[of_class],
                    score[of_class],
                    gt_bbox[gt_of_class & ~group_of],
                    gt_bbox[gt_of_class & group_of],
                )
                scores[c] += s
                rights[c] += r
    ap = np.full(n_class, np.nan)
    for c, n_gt in enumerate(np.bincount(truth.label, minlength=n_class)):
        if n_gt:
            order = np.argsort(np.array(scores[c]), kind='stable')[::-1]
            right = np.array(rights[c], bool)[order]
            precision = np.cumsum(right) / np.arange(1, len(right) + 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            ap[c] = envelope[right].sum() / n_gt
    return ap


def run_command(root: Path) -> tuple[float, float]:
    """Seconds and gigabytes of evaluate/score.py."""
    environment = dict(os.environ, PYTHONPATH=str(ROOT))
    start = time.perf_counter()
    process = subprocess.Popen(
        [
            sys.executable,
            ROOT / 'evaluate' / 'score.py',
            '--boxes',
            root / 'boxes.csv',
            '--labels',
            root / 'labels.csv',
            '--classes',
            CLASSES,
            '--hierarchy',
            HIERARCHY,
            '--detections',
            root / 'detections.parquet',
            '--out',
            root / 'score.json',
        ],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    # Of this process alone: the one that made the files needed more memory.
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit('evaluate/score.py failed')
    return time.perf_counter() - start, usage.ru_maxrss / 1024**2


def main() -> None:
    parser = argparse.ArgumentParser(description='Scoring at the size of the validation set.')
    parser.add_argument('--images', type=int, default=41620)
    parser.add_argument('--detections', type=int, default=300, help='of an image')
    parser.add_argument('--share', type=int, default=500, help='images that the loop is given')
    parser.add_argument('--keep', type=Path, metavar='DIR', help='make the files here, or use them')
    parser.add_argument('--make', type=Path, metavar='DIR', help='make the files and end')
    args = parser.parse_args()
    if args.make:
        make(args.make, args.images, args.detections)
        return

    with tempfile.TemporaryDirectory() as temporary:
        root = args.keep or Path(temporary)
        root.mkdir(parents=True, exist_ok=True)
        if not (root / 'detections.parquet').exists():
            # Another process, which gives its memory back.
            subprocess.run(
                [
                    sys.executable,
                    __file__,
                    '--make',
                    root,
                    '--images',
                    str(args.images),
                    '--detections',
                    str(args.detections),
                ],
                check=True,
            )
        seconds, gigabytes = run_command(root)
        score = json.loads((root / 'score.json').read_text())

        classes = challenge_classes()
        detections = read_detections(root / 'detections.parquet', classes)
        truth = read_ground_truth(
            root / 'boxes.csv', root / 'labels.csv', classes, challenge_hierarchy()
        )
        n_detection = len(detections)
        size = (root / 'detections.parquet').stat().st_size / 1e6
        start = time.perf_counter()
        average_precision(detections, truth, len(classes))
        ap_seconds = time.perf_counter() - start
        share = first_images(detections, truth, args.share)
    start = time.perf_counter()
    expected = loop(*share, len(classes))
    loop_seconds = (time.perf_counter() - start) * len(truth.image_ids) / args.share
    differ = np.nanmax(np.abs(average_precision(*share, len(classes))['ap'] - expected))

    ratio = loop_seconds / ap_seconds
    print(
        f'{len(truth.image_ids)} images, {n_detection} detections ({size:.0f} MB), '
        f'{len(truth.image)} boxes after expansion, mAP {score["mAP"]:.4f}'
    )
    met = (seconds <= LIMIT_SECONDS, gigabytes <= LIMIT_GB, ratio >= LEAST_RATIO, differ <= 1e-9)
    missed = ['' if m else '  MISSED' for m in met]
    print(
        f'evaluate/score.py {seconds:6.1f} s (limit {LIMIT_SECONDS}){missed[0]}, '
        f'{gigabytes:.2f} GB (limit {LIMIT_GB}){missed[1]}'
    )
    print(
        f'average_precision {ap_seconds:6.1f} s, image by image {loop_seconds:.0f} s: '
        f'{ratio:.0f} times as long (at least {LEAST_RATIO}){missed[2]}; on {args.share} images '
        f'AP differs by {differ:.1e}{missed[3]}'
    )
    if not all(met):
        raise SystemExit(1)


if __name__ == '__main__':
    main()
