"""The annotation index at Open Images' size: building, opening, reading, memory.

    python benchmarks/index.py [--scale 0.01] [--keep DIR] [--check]

Writes synthetic annotation tables as large as the 2018 challenge's training split to a temporary
folder (see synthetic_tables.py; 1.2 GB, and 0.5 GB for the index). Then measures, each in a
separate process:

- the command build_index, against a process that only reads the two tables with pyarrow.csv, a
  lower bound of its time and memory. The tables have no image files, so it runs with
  --keep-missing;
- reading the image sizes of small JPEG files in the page cache, against Pillow's reading of their
  headers;
- the private memory of a process that has the index open, against the same process after its
  imports, and the annotation of a random image, against decoding a JPEG of 1024 x 768 by OpenCV;
- at a tenth of the size, the usual alternative: the csv module, row by row, into lists per image.
  To reopen, it reads the tables again. Both are timed after their imports, and must agree on random
  images. The goals are for csv.DictReader, which finds columns by name, as the index does.
  csv.reader with hard-coded columns, which breaks when a release moves a column, is shown as well;
- the proportional memory (PSS) of eight processes that have the index open and have each read
  10,000 random images, against the index and as many idle interpreters without imports.
  Interpreters that import NumPy, and the modules that read an index, are shown as well.

At a smaller scale, imports and interpreters outweigh the index. So the comparisons with csv and PSS
have goals at full scale only.
"""

import argparse
import importlib.resources
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from timing import (
    Table,
    add_check,
    costs_in_turns,
    megabytes_text,
    processor_seconds,
    status,
    take_turns,
)

N_IMAGE = 1_674_979
N_BOX = 12_195_144
N_LABEL = 6_000_000
# Times the cost of the references
BUILD_GOAL, BUILD_MEMORY_GOAL, SIZES_GOAL = 4, 2, 1
PRIVATE_GOAL, ANNOTATION_GOAL, PSS_GOAL = 1.2, 0.02, 1.2
# Times as fast as csv.DictReader. The processor time of the threads of the build adds up.
ROWS_GOAL, REOPEN_GOAL = 5, 100

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
    start = processor_seconds()
    build_index(**flags, keep_missing=True)
    return {'seconds': processor_seconds() - start}


def read_tables(root: str) -> dict[str, int]:
    """Read both tables into memory."""
    import pyarrow.csv

    tables = [pyarrow.csv.read_csv(path) for path in table_paths(Path(root))]
    return {'rows': sum(map(len, tables))}


def pass_over_files(root: str, n_file: int, rounds: int) -> dict[str, list[float]]:
    """Time reading the sizes of small JPEG files as build_index does, and by Pillow."""
    import cv2
    import numpy as np
    import PIL.Image

    from pfdet.openimages.image_files import find_image_files

    rng = np.random.default_rng(0)
    data = cv2.imencode('.jpg', rng.integers(0, 256, (48, 64, 3), np.uint8))[1].tobytes()
    ids = [f'{number:016x}' for number in range(n_file)]
    for image_id in ids:
        Path(root, f'{image_id}.jpg').write_bytes(data)

    def by_pillow() -> set:
        sizes = set()
        for image_id in ids:
            with PIL.Image.open(f'{root}/{image_id}.jpg') as img:
                sizes.add(img.size)
        return sizes

    found, seconds = take_turns(
        {'pfdet': lambda: find_image_files(root, ids), 'pillow': by_pillow}, rounds
    )
    assert (found['pfdet'].size == [48, 64]).all() and not found['pfdet'].missing
    assert found['pillow'] == {(64, 48)}
    return seconds


def open_and_read(path: str, n: int, rounds: int) -> dict:
    """Time opening an index and reading random images; measure its memory."""
    import numpy as np

    from pfdet.openimages.index import AnnotationIndex

    np.random.default_rng(0)
    before = memory(os.getpid(), 'Private_Dirty')
    start = processor_seconds()
    index = AnnotationIndex.open(path)
    index.annotation(0)
    opened = processor_seconds() - start
    private = memory(os.getpid(), 'Private_Dirty')
    if not n:
        return {'open': opened}

    import cv2
    from decoding import write_images

    wanted = np.random.default_rng(0).integers(0, len(index), n).tolist()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        (data,) = (path.read_bytes() for path in write_images(Path(folder), 1))
    encoded = np.frombuffer(data, np.uint8)
    _, seconds = take_turns(
        {
            'annotation': lambda: [index.annotation(i) for i in wanted],
            'decode': lambda: cv2.imdecode(encoded, cv2.IMREAD_COLOR),
        },
        rounds,
    )
    return {
        'open': opened,
        'private': private,
        'before': before,
        'annotation': [s / n for s in seconds['annotation']],
        'decode': seconds['decode'],
    }


def read_rows(root: str, by_name: bool) -> dict[str, float]:
    """Time reading the tables row by row into lists per image; compare with the index."""
    from csv_rows import compare, read_rows_by_name, read_rows_by_position

    from pfdet.openimages.classes import challenge_classes

    class_ids = challenge_classes().ids
    read = read_rows_by_name if by_name else read_rows_by_position
    start = processor_seconds()
    images = read(*table_paths(Path(root)), class_ids)
    seconds = processor_seconds() - start
    compare(images, Path(root) / 'benchmark.index')
    return {'seconds': seconds}


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
    task.__name__: task
    for task in (draw, build, read_tables, pass_over_files, open_and_read, read_rows)
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


def build_command(root: Path) -> list[str]:
    flags = [
        part for name, value in build_flags(root).items() for part in (f'--{name}', str(value))
    ]
    return [sys.executable, '-m', 'pfdet.openimages.build_index', '--keep-missing', *flags]


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


def measure(table: Table, root: Path, args: argparse.Namespace) -> None:
    """Run all measurements and print them."""

    def at_full_scale(goal: float) -> float | None:
        return goal if args.scale == 1 else None

    run_task(draw, root, args.scale)
    costs = costs_in_turns(
        {'build': build_command(root), 'read': task_command(read_tables, root)},
        args.rounds,
        stdout=subprocess.DEVNULL,
    )
    table.share(
        'build without image files',
        costs['build'].processor,
        costs['read'].processor,
        'pyarrow.csv, reading',
        BUILD_GOAL,
    )
    table.share(
        'build, peak memory',
        costs['build'].memory,
        costs['read'].memory,
        'pyarrow.csv, reading',
        BUILD_MEMORY_GOAL,
        megabytes_text,
    )
    with tempfile.TemporaryDirectory(dir=root) as files:
        passed = run_task(pass_over_files, files, args.files, args.rounds)
    table.share(
        f'sizes of {args.files:,} images', passed['pfdet'], passed['pillow'], 'Pillow', SIZES_GOAL
    )
    index = root / 'benchmark.index'
    size = index.stat().st_size / 1e6
    table.fact('size of the index', megabytes_text(size))

    opened = run_task(open_and_read, index, 2000, args.rounds)
    table.share(
        'private memory of a process',
        [opened['private']],
        [opened['before']],
        'after the imports',
        PRIVATE_GOAL,
        megabytes_text,
    )
    table.share(
        'annotation of a random image',
        opened['annotation'],
        opened['decode'],
        'decoding an image',
        ANNOTATION_GOAL,
    )
    compare_memory(table, index, size, args.processes, at_full_scale(PSS_GOAL))

    tenth = root / 'tenth'
    tenth.mkdir(exist_ok=True)
    run_task(draw, tenth, args.scale / 10)
    seconds: dict[str, list[float]] = {'build': [], 'open': [], 'DictReader': [], 'reader': []}
    for _ in range(args.rounds):
        seconds['build'].append(run_task(build, tenth)['seconds'])
        seconds['open'].append(run_task(open_and_read, tenth / 'benchmark.index', 0, 1)['open'])
        for name, by_name in (('DictReader', True), ('reader', False)):
            seconds[name].append(run_task(read_rows, tenth, by_name)['seconds'])
    for name, judged in (('DictReader', True), ('reader', False)):
        for what, own, goal in (('build', 'build', ROWS_GOAL), ('reopen', 'open', REOPEN_GOAL)):
            table.faster(
                f'a tenth: {what}',
                seconds[own],
                seconds[name],
                f'csv.{name} into lists',
                at_full_scale(goal) if judged else None,
            )


def compare_memory(table: Table, index: Path, size: float, n: int, goal: float | None) -> None:
    """Print the PSS of processes that hold an index, relative to the index and idle processes."""
    held = total_pss([[sys.executable, '-c', HOLD, str(index), '10000', str(k)] for k in range(n)])
    for name, program in (
        ('bare interpreters', ''),
        ('NumPy', 'import numpy'),
        ('the import', 'import pfdet.openimages.index'),
    ):
        table.share(
            f'PSS of {n} processes',
            [held],
            [size + total_pss(idle(program, n))],
            f'index, {name}',
            None if program else goal,
            megabytes_text,
        )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--scale', type=float, default=1, help='fraction of the full size (default: %(default)s)'
    )
    parser.add_argument('--processes', type=int, default=8)
    parser.add_argument('--files', type=int, default=5000, help='image files whose sizes are read')
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument(
        '--keep', type=Path, metavar='DIR', help='keep the tables and the index in DIR'
    )
    parser.add_argument('--task', nargs=2, help=argparse.SUPPRESS)
    add_check(parser)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(TASKS[args.task[0]](*json.loads(args.task[1]))))
        return 0
    if args.keep:
        args.keep.mkdir(parents=True, exist_ok=True)
    table = Table()
    with tempfile.TemporaryDirectory(prefix='pfdet-index-') as temporary:
        measure(table, args.keep or Path(temporary), args)
    return status(table.missed, args.check)


if __name__ == '__main__':
    sys.exit(main())
