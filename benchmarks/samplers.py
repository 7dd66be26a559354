"""The samplers at Open Images' size: set-up, memory per rank, draws per second.

    python benchmarks/samplers.py [--scale 0.01] [--repeat-label 0.55]

Writes an index as large as the 2018 challenge's training split to a temporary folder (0.5 GB), with
500 classes with a long tail. For every sampler, two processes open the index, set up the sampler
and draw the first image. The first then draws as rank 0 of 1, the second as rank 7 of 512, whose
positions are 512 apart. The second runs while the first is still alive, like ranks of a node. It
then draws an image three epochs later, as after resuming. Private memory includes the interpreter
and NumPy, but not the unchanged pages of mapped files: all ranks of a node share these, although
the kernel sometimes counts some as private.

Prints goals and measurements; the exit status is 1 if a goal is missed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

N_IMAGE = 1_674_979
N_BOX = 12_195_144
N_CLASS = 500
CHUNK = 512
# Height, width and share of common photographs.
SHAPES = (
    (768, 1024, 0.5),
    (683, 1024, 0.25),
    (1024, 768, 0.1),
    (1024, 683, 0.05),
    (576, 1024, 0.07),
    (1024, 1024, 0.03),
)
SAMPLERS = ('sequential', 'class_aware', 'soft_balance 0', 'soft_balance 0.7', 'soft_balance 1.5')


def draw_index(path: str, scale: float, repeat_label: float) -> int:
    """Write an index; return its number of pairs of an image and one of its classes."""
    import numpy as np
    from synthetic_tables import class_rates

    from pfdet.openimages.classes import challenge_classes
    from pfdet.openimages.hierarchy import challenge_hierarchy
    from pfdet.openimages.index import AnnotationIndex, write_index

    n_image, n_box = int(N_IMAGE * scale), int(N_BOX * scale)
    rng = np.random.default_rng(0)
    weight = rng.lognormal(0, 0.9, n_image)
    n_own_box = 1 + rng.multinomial(n_box - n_image, weight / weight.sum())
    box_offsets = np.append(0, np.cumsum(n_own_box)).astype(np.int32)
    edges = np.cumsum(class_rates(N_CLASS))
    label = np.searchsorted(edges, rng.random(n_box) * edges[-1], 'right').astype(np.int16)
    # Objects of a class occur together: a box often has the label of the previous box.
    new = rng.random(n_box) >= repeat_label
    new[box_offsets[:-1]] = True
    label = label[np.maximum.accumulate(np.where(new, np.arange(n_box), 0))]
    sizes = np.array([shape[:2] for shape in SHAPES], np.int32)
    share = np.array([shape[2] for shape in SHAPES])
    none = np.zeros(n_image + 1, np.int32)
    write_index(
        path,
        {
            'id_offsets': np.arange(n_image + 1, dtype=np.int32) * 16,
            'id_bytes': np.zeros(16 * n_image, np.uint8),
            'image_size': sizes[rng.choice(len(sizes), n_image, p=share)],
            'image_suffix': np.zeros(n_image, np.uint8),
            'object_offsets': box_offsets,
            'bbox': np.zeros((n_box, 4), np.float32),
            'flags': np.zeros(n_box, np.uint8),
            'label_offsets': np.arange(n_box + 1, dtype=np.int32),
            'label': label,
            'positive_offsets': none,
            'positive': np.zeros(0, np.int16),
            'negative_offsets': none,
            'negative': np.zeros(0, np.int16),
        },
        challenge_classes(),
        challenge_hierarchy(),
        Path(path).parent,
        ['.jpg'],
        {},
    )
    return len(AnnotationIndex.open(path).image_classes()[1])


def make_lists(path: str, expand: bool) -> dict[str, float]:
    """Time writing the file of images by class, as the first rank does."""
    from pfdet.iterators.class_images import shared_class_images
    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(path)
    start = time.perf_counter()
    found = shared_class_images(index, expand)
    return {'seconds': time.perf_counter() - start, 'pairs': len(found.images)}


def rank(
    path: str, name: str, own: bool, grouped: bool, rank: int, n_rank: int, n_draw: int
) -> dict[str, float]:
    """Set up a sampler, draw images, and measure both."""
    import numpy as np

    from pfdet.iterators import balanced, class_images
    from pfdet.iterators.samplers import SequentialSampler, aspect_groups
    from pfdet.openimages.index import AnnotationIndex

    np.random.default_rng(0)
    before = private_memory()
    start = time.perf_counter()
    index = AnnotationIndex.open(path)
    options = {}
    if grouped:
        options = {'group': aspect_groups(index.columns['image_size']), 'chunk': CHUNK}
    kind, _, lam = name.partition(' ')
    if kind == 'sequential':
        sampler = SequentialSampler(len(index), 0, **options)
    else:
        find = class_images.class_images if own else class_images.shared_class_images
        classes = find(index)
        if kind == 'class_aware':
            sampler = balanced.ClassAwareSampler(classes, 0, **options)
        else:
            sampler = balanced.SoftBalanceSampler(classes, float(lam), 0, **options)
    del options
    assert 0 <= sampler[rank] < len(index)
    set_up = time.perf_counter() - start
    start = time.perf_counter()
    for position in range(rank, n_draw * n_rank, n_rank):
        sampler[position]
    seconds = time.perf_counter() - start
    private = private_memory()
    start = time.perf_counter()
    sampler[n_draw * n_rank + 3 * len(index)]
    return {
        'set_up': set_up,
        'rate': n_draw / seconds,
        'private': private,
        'grown': private - before,
        'resume': time.perf_counter() - start,
    }


def private_memory() -> float:
    """Return the private dirty memory of this process in MB."""
    lines = Path('/proc/self/smaps_rollup').read_text().splitlines()
    sizes = [int(line.split()[1]) for line in lines if line.startswith('Private_Dirty')]
    return sum(sizes) * 1024 / 1e6


TASKS = {task.__name__: task for task in (draw_index, make_lists, rank)}


def start_task(task, *args) -> subprocess.Popen:
    """Start a task in a new process, which waits for the end of its input afterwards."""
    return subprocess.Popen(
        [sys.executable, __file__, '--task', task.__name__, json.dumps(args, default=str)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS='1', OPENBLAS_NUM_THREADS='1'),
    )


def result_of(child: subprocess.Popen):
    line = child.stdout.readline()
    if not line:
        raise SystemExit('a measured process failed')
    return json.loads(line)


def run_task(task, *args):
    child = start_task(task, *args)
    try:
        return result_of(child)
    finally:
        child.communicate()


# Claim, goal, measurement, and whether the goal is reached.
Row = tuple[str, str, str, bool | None]


def measure(path: Path, args: argparse.Namespace) -> Iterator[Row]:
    """Run all measurements; yield one row each."""
    n_pair = run_task(draw_index, path, args.scale, args.repeat_label)
    yield ('pairs of an image and its class', '', f'{n_pair:,}', None)
    listed = run_task(make_lists, path, True)
    yield (
        'list images by class, expanded, once per node',
        '< 2 s',
        f'{listed["seconds"]:.2f} s',
        listed['seconds'] < 2,
    )
    yield ('  pairs', '', f'{listed["pairs"]:,}', None)
    listed = run_task(make_lists, path, False)
    yield (
        'list images by class, once per node',
        '< 2 s',
        f'{listed["seconds"]:.2f} s',
        listed['seconds'] < 2,
    )
    cases = [(name, False, False) for name in SAMPLERS]
    cases += [('soft_balance 0.7', True, False)]
    cases += [(name, False, True) for name in ('sequential', 'soft_balance 0.7')]
    for name, own, grouped in cases:
        title = name + ', private lists' * own + f', in runs of {CHUNK}' * grouped
        children = []
        try:
            children.append(start_task(rank, path, name, own, grouped, 0, 1, args.draws))
            alone = result_of(children[0])
            children.append(start_task(rank, path, name, own, grouped, 7, 512, args.draws // 25))
            far = result_of(children[1])
        finally:
            for child in children:
                child.communicate()
        yield (f'{title}: set-up', '< 2 s', f'{far["set_up"]:.3f} s', far['set_up'] < 2)
        yield ('  draw three epochs later', '', f'{far["resume"]:.3f} s', None)
        # Private lists are the fallback if no file can be written next to the index.
        yield (
            '  private memory of a process',
            '' if own else '< 60 MB',
            f'{far["private"]:.1f} MB',
            None if own else far['private'] < 60,
        )
        yield ('  of it, after the imports', '', f'{far["grown"]:.1f} MB', None)
        for n_rank, figures in (1, alone), (512, far):
            yield (
                f'  draws per second, one rank of {n_rank}',
                '>= 50,000 / s',
                f'{figures["rate"]:,.0f} / s',
                figures['rate'] >= 50_000,
            )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--scale', type=float, default=1, help='fraction of the full size')
    parser.add_argument(
        '--repeat-label',
        type=float,
        default=0.55,
        metavar='SHARE',
        help='share of boxes with the label of the previous box (default: %(default)s)',
    )
    parser.add_argument(
        '--draws',
        type=int,
        default=500_000,
        help='draws of rank 0 of 1; rank 7 of 512 draws 1/25 of them',
    )
    parser.add_argument('--task', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(TASKS[args.task[0]](*json.loads(args.task[1]))), flush=True)
        sys.stdin.read()
        return 0
    missed = 0
    with tempfile.TemporaryDirectory(prefix='pfdet-samplers-') as temporary:
        for claim, goal, figure, reached in measure(Path(temporary) / 'benchmark.index', args):
            verdict = {None: '', True: 'reached', False: 'MISSED'}[reached]
            print(f'{claim:48}{goal:>14}{figure:>16}  {verdict}', flush=True)
            missed += reached is False
    return 1 if missed else 0


if __name__ == '__main__':
    sys.exit(main())
