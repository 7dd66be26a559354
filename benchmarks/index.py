"""The annotation index at Open Images' size: building, opening, reading, memory.

    python benchmarks/index.py [--scale 0.01] [--keep DIR]

Writes synthetic annotation tables as large as the 2018 challenge's training split to a temporary
folder (see synthetic_tables.py; 1.2 GB, and 0.5 GB for the index). Then measures, each in a
separate process:

- the time and peak memory of the command build_index. The tables have no image files, so it runs
  with --keep-missing. Reading the image sizes is timed on 20,000 small JPEG files in the page cache
  and scaled to the number of images;
- opening the index, the private memory of a process that has it open, and random images per second;
- at a tenth of the size, the usual alternative: the csv module, row by row, into lists per image.
  To reopen, it reads the tables again. Both are timed after their imports, and must agree on random
  images. The goals are for csv.DictReader, which finds columns by name, as the index does.
  csv.reader with hard-coded columns, which breaks when a release moves a column, is shown as well;
- the proportional memory (PSS) of eight processes that have the index open and have each read
  10,000 random images. The goal is 1.2 times the index plus as many idle interpreters without
  imports. Interpreters that import NumPy, and the modules that read an index, are shown in
  brackets.

Prints goals and measurements; the exit status is 1 if a goal is missed.
"""

import argparse
import csv
import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

N_IMAGE = 1_674_979
N_BOX = 12_195_144
N_LABEL = 6_000_000
FLAGS = ('IsOccluded', 'IsTruncated', 'IsGroupOf', 'IsDepiction', 'IsInside')

# Each task runs in a separate process and imports what it needs there, so that this process stays
# small: the peak memory of a process is at least that of its parent.


def draw(root: str, scale: float) -> None:
    """Write the tables."""
    from synthetic_tables import write_tables

    write_tables(Path(root), int(N_IMAGE * scale), int(N_BOX * scale), int(N_LABEL * scale))


def build(root: str) -> dict[str, float]:
    """Time building an index, without imports."""
    from pfdet.openimages.build_index import build_index

    flags = build_flags(Path(root))
    start = time.perf_counter()
    build_index(**flags, keep_missing=True)
    return {'seconds': time.perf_counter() - start}


def pass_over_files(root: str, n_file: int) -> dict[str, float]:
    """Time reading the sizes of small JPEG files as build_index does."""
    import cv2
    import numpy as np

    from pfdet.openimages.image_files import find_image_files

    rng = np.random.default_rng(0)
    data = cv2.imencode('.jpg', rng.integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes()
    ids = [f'{number:016x}' for number in range(n_file)]
    for image_id in ids:
        Path(root, f'{image_id}.jpg').write_bytes(data)
    start = time.perf_counter()
    files = find_image_files(root, ids)
    seconds = time.perf_counter() - start
    assert (files.size == [48, 64]).all() and not files.missing
    return {'seconds': seconds}


def open_and_read(path: str, n: int) -> dict[str, float]:
    """Time opening an index and reading random images."""
    import numpy as np

    from pfdet.openimages.index import AnnotationIndex

    start = time.perf_counter()
    index = AnnotationIndex.open(path)
    index.annotation(0)
    opened = time.perf_counter() - start
    private = sum(memory(os.getpid(), name) for name in ('Private_Clean', 'Private_Dirty'))
    wanted = np.random.default_rng(0).integers(0, len(index), n).tolist()
    start = time.perf_counter()
    for i in wanted:
        index.annotation(i)
    return {'open': opened, 'private': private, 'rate': n / (time.perf_counter() - start)}


def read_rows(root: str, by_name: bool) -> dict[str, float]:
    """Time reading the tables row by row into lists per image; compare with the index."""
    from pfdet.openimages.classes import challenge_classes

    class_ids = challenge_classes().ids
    read = read_rows_by_name if by_name else read_rows_by_position
    start = time.perf_counter()
    images = read(*table_paths(Path(root)), class_ids)
    seconds = time.perf_counter() - start
    compare(images, Path(root) / 'benchmark.index')
    return {'seconds': seconds}


def read_rows_by_position(boxes: Path, labels: Path, class_ids: dict[str, int]) -> dict:
    images = {}
    with open(boxes, newline='') as f:
        rows = csv.reader(f)
        next(rows)
        for row in rows:
            bbox = [float(row[6]), float(row[4]), float(row[7]), float(row[5])]
            flags = [value == '1' for value in row[8:13]]
            images.setdefault(row[0], ([], []))[0].append((bbox, class_ids[row[2]], flags))
    with open(labels, newline='') as f:
        rows = csv.reader(f)
        next(rows)
        for row in rows:
            images.setdefault(row[0], ([], []))[1].append((class_ids[row[2]], row[3] == '1'))
    return images


def read_rows_by_name(boxes: Path, labels: Path, class_ids: dict[str, int]) -> dict:
    images = {}
    with open(boxes, newline='') as f:
        for row in csv.DictReader(f):
            bbox = [float(row[name]) for name in ('YMin', 'XMin', 'YMax', 'XMax')]
            flags = [row[name] == '1' for name in FLAGS]
            images.setdefault(row['ImageID'], ([], []))[0].append(
                (bbox, class_ids[row['LabelName']], flags)
            )
    with open(labels, newline='') as f:
        for row in csv.DictReader(f):
            images.setdefault(row['ImageID'], ([], []))[1].append(
                (class_ids[row['LabelName']], row['Confidence'] == '1')
            )
    return images


def compare(images: dict, path: Path, n: int = 500) -> None:
    """Assert that random images have the same annotations in the lists and in the index."""
    import numpy as np

    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(path)
    assert len(index) == len(images)
    for i in np.random.default_rng(1).integers(0, len(index), n).tolist():
        boxes, verified = images[index.image_id(i)]
        listed = {(*np.float32(bbox).tolist(), label) for bbox, label, _ in boxes}
        found = index.annotation(i)
        assert listed == {
            (*bbox.tolist(), label)
            for bbox, labels in zip(found.bbox, found.label)
            for label in np.flatnonzero(labels).tolist()
        }
        positive = {label for *_, label in listed} | {
            label for label, present in verified if present
        }
        assert positive == set(np.flatnonzero(found.positive).tolist())
        absent = {label for label, present in verified if not present}
        assert absent - positive == set(np.flatnonzero(found.negative).tolist())


# Reads random images, prints a line, and keeps the index open until standard input ends. A
# multiplicative hash draws the images, because numpy.random takes a megabyte. It is a separate
# program, because this module takes more memory.
HOLD = """
import sys
from pfdet.openimages.index import AnnotationIndex
path, n, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
index = AnnotationIndex.open(path)
for k in range(seed * n, (seed + 1) * n):
    index.annotation(k * 2_654_435_761 % 2 ** 32 % len(index))
print("ready", flush=True)
sys.stdin.read()
"""


TASKS: dict[str, Callable] = {
    task.__name__: task for task in (draw, build, pass_over_files, open_and_read, read_rows)
}


def run_task(task: Callable, *args: Any) -> Any:
    """Run a task in a new process and return what it returned."""
    done = subprocess.run(task_command(task, *args), check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def task_command(task: Callable, *args: Any) -> list[str]:
    return [sys.executable, __file__, '--task', task.__name__, json.dumps(args, default=str)]


def table_paths(root: Path) -> tuple[Path, Path]:
    return root / 'annotations-bbox.csv', root / 'annotations-human-imagelabels.csv'


def build_flags(root: Path) -> dict[str, Path]:
    """Return the arguments of build_index for the tables in a folder."""
    boxes, labels = table_paths(root)
    data = Path(str(importlib.resources.files('pfdet.openimages').joinpath('data')))
    return {
        'boxes': boxes,
        'labels': labels,
        'classes': data / 'challenge-2018-class-descriptions-500.csv',
        'hierarchy': data / 'bbox_labels_500_hierarchy.json',
        'images': root / 'no images',
        'out': root / 'benchmark.index',
    }


def memory(pid: int, name: str) -> float:
    """Return one entry of a process's memory statistics in MB."""
    for line in Path(f'/proc/{pid}/smaps_rollup').read_text().splitlines():
        if line.startswith(f'{name}:'):
            return int(line.split()[1]) * 1024 / 1e6
    raise LookupError(f'smaps_rollup has no {name}')


def run_build(root: Path) -> tuple[float, float]:
    """Run build_index; return its seconds and its peak resident memory in MB."""
    flags = [
        part for name, value in build_flags(root).items() for part in (f'--{name}', str(value))
    ]
    start = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, '-m', 'pfdet.openimages.build_index', '--keep-missing', *flags]
    )
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(child.returncode)
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e6


def total_pss(commands: list[list[str]]) -> float:
    """Return the proportional memory in MB of processes that print a line, then wait for input."""
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        for command in commands
    ]
    try:
        for child in children:
            if not child.stdout.readline():
                raise SystemExit('a measured process failed')
        return sum(memory(child.pid, 'Pss') for child in children)
    finally:
        for child in children:
            child.communicate()


def idle(program: str, n: int) -> list[list[str]]:
    waiting = f'import sys\n{program}\nprint("ready", flush=True)\nsys.stdin.read()'
    return [[sys.executable, '-c', waiting]] * n


# Claim, goal, measurement, and whether the goal is reached.
Row = tuple[str, str, str, bool | None]


def measure(root: Path, args: argparse.Namespace) -> Iterator[Row]:
    """Run all measurements; yield one row each."""
    n_image = int(N_IMAGE * args.scale)
    run_task(draw, root, args.scale)
    seconds, peak = run_build(root)
    index = root / 'benchmark.index'
    size = index.stat().st_size / 1e6
    with tempfile.TemporaryDirectory(dir=root) as files:
        passed = run_task(pass_over_files, files, args.files)['seconds'] * n_image / args.files
    yield ('build without image files', '', f'{seconds:.1f} s', None)
    yield ('image sizes, scaled', '', f'{passed:.1f} s', None)
    yield ('build, in all', '<= 90 s', f'{seconds + passed:.1f} s', seconds + passed <= 90)
    yield ('build, peak memory', '<= 4 GB', f'{peak / 1e3:.2f} GB', peak <= 4000)
    yield ('size of the index', '', f'{size:.0f} MB', None)

    opened = run_task(open_and_read, index, min(30_000, 10 * n_image))
    yield ('open', '< 0.2 s', f'{opened["open"] * 1e3:.1f} ms', opened['open'] < 0.2)
    yield (
        'private memory of a process',
        '< 30 MB',
        f'{opened["private"]:.1f} MB',
        opened['private'] < 30,
    )
    yield ('random images', '>= 30,000 / s', f'{opened["rate"]:,.0f} / s', opened['rate'] >= 30_000)

    held = total_pss(
        [[sys.executable, '-c', HOLD, str(index), '10000', str(k)] for k in range(args.processes)]
    )
    for name, program, judged in (
        ('bare interpreters', '', True),
        ('NumPy', 'import numpy', False),
        ('the import', 'import pfdet.openimages.index', False),
    ):
        limit = 1.2 * size + total_pss(idle(program, args.processes))
        yield (
            f'PSS of {args.processes} processes, limit by {name}',
            f'<= {limit:.0f} MB' if judged else f'({limit:.0f} MB)',
            f'{held:.0f} MB',
            held <= limit if judged else None,
        )

    tenth = root / 'tenth'
    tenth.mkdir(exist_ok=True)
    run_task(draw, tenth, args.scale / 10)
    built = min(run_task(build, tenth)['seconds'] for _ in range(args.repeats))
    reopened = run_task(open_and_read, tenth / 'benchmark.index', 1)['open']
    yield ('a tenth: build', '', f'{built:.2f} s', None)
    for name, by_name in (('csv.DictReader', True), ('csv.reader', False)):
        rows = min(run_task(read_rows, tenth, by_name)['seconds'] for _ in range(args.repeats))
        yield (f'a tenth: {name} into lists', '', f'{rows:.2f} s', None)
        yield (
            f'build, against {name}',
            '>= 20 x' if by_name else '',
            f'{rows / built:.1f} x',
            rows >= 20 * built if by_name else None,
        )
        yield (
            f'reopen, against {name}',
            '>= 100 x' if by_name else '',
            f'{rows / reopened:,.0f} x',
            rows >= 100 * reopened if by_name else None,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--scale', type=float, default=1, help='fraction of the full size; the goals are for 1'
    )
    parser.add_argument('--processes', type=int, default=8)
    parser.add_argument(
        '--files', type=int, default=20_000, help='image files whose sizes are read'
    )
    parser.add_argument('--repeats', type=int, default=2, help='the fastest run counts')
    parser.add_argument(
        '--keep', type=Path, metavar='DIR', help='keep the tables and the index in DIR'
    )
    parser.add_argument('--task', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(TASKS[args.task[0]](*json.loads(args.task[1]))))
        return 0
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    missed = 0
    with tempfile.TemporaryDirectory(prefix='pfdet-index-') as temporary:
        for claim, goal, figure, reached in measure(args.keep or Path(temporary), args):
            verdict = {None: '', True: 'reached', False: 'MISSED'}[reached]
            print(f'{claim:46}{goal:>14}{figure:>16}  {verdict}', flush=True)
            missed += reached is False
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
