"""The samplers at Open Images' size: set-up, memory per rank, cost of a draw.

    python benchmarks/samplers.py [--scale 0.01] [--repeat-label 0.55] [--check]

Writes an index as large as the 2018 challenge's training split to a temporary folder (0.5 GB), with
500 classes with a long tail. For every sampler, two processes open the index, set up the sampler
and draw the first image. The first then draws as rank 0 of 1, the second as rank 7 of 512, whose
positions are 512 apart. The second runs while the first is still alive, like ranks of a node. It
then draws an image three epochs later, as after resuming. The references are, in turns in the same
process:

- of the set-up and of listing the images by class: the same lists by `numpy.unique`, which a rank
  without this package would make for itself;
- of a draw: `numpy.random.Generator.choice` of a class with its probability, and `integers` for an
  image of the class, with replacement;
- of the private memory: the same process after its imports.

Private memory includes the interpreter and NumPy, but not the unchanged pages of mapped files: all
ranks of a node share these, although the kernel sometimes counts some as private.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import Table, add_check, megabytes_text, processor_seconds, status, take_turns

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
# Times the cost of the references
LISTS_GOAL, EXPANDED_LISTS_GOAL, SET_UP_GOAL, MEMORY_GOAL = 1, 1, 0.5, 3.5
# By number of ranks. The positions of one rank of 512 are far apart.
DRAW_GOALS = {1: 0.5, 512: 4}
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


def plain_lists(index) -> tuple:
    """Offsets and images of the classes in plain NumPy."""
    import numpy as np

    columns = index.columns
    n_image = len(columns['object_offsets']) - 1
    n_label = np.diff(columns['label_offsets'][columns['object_offsets']])
    image = np.repeat(np.arange(n_image), n_label)
    pairs = np.unique(columns['label'].astype(np.int64) * n_image + image)
    count = np.bincount(pairs // n_image, minlength=len(index.classes))
    return np.append(0, np.cumsum(count)), (pairs % n_image).astype(np.int32)


def make_lists(path: str, expand: bool, rounds: int) -> dict:
    """Time writing the file of images by class, as the first rank does."""
    from pfdet.iterators.class_images import shared_class_images
    from pfdet.openimages.index import AnnotationIndex

    index = AnnotationIndex.open(path)

    def make():
        for file in Path(path).parent.glob('*.class-images*'):
            file.unlink()
        return shared_class_images(index, expand)

    found, seconds = take_turns(
        {'pfdet': make, 'plain': lambda: plain_lists(index)}, rounds, warm_up=False
    )
    images = found['pfdet'].images
    if not expand:
        assert (found['plain'][1] == images).all()
    return {**seconds, 'pairs': len(images)}


def set_up_sampler(path: str, name: str, own: bool, grouped: bool, rank: int):
    """Open the index, set up a sampler, and draw its first image; return index and sampler."""
    from pfdet.iterators import balanced, class_images
    from pfdet.iterators.samplers import SequentialSampler, aspect_groups
    from pfdet.openimages.index import AnnotationIndex

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
    assert 0 <= sampler[rank] < len(index)
    return index, sampler


def rank(
    path: str,
    name: str,
    own: bool,
    grouped: bool,
    rank: int,
    n_rank: int,
    n_draw: int,
    rounds: int,
) -> dict:
    """Set up a sampler, draw images, and measure both; the set-up only for several ranks."""
    import numpy as np

    from pfdet.iterators import balanced, class_images, samplers  # noqa: F401

    np.random.default_rng(0)
    before = private_memory()
    index, sampler = set_up_sampler(path, name, own, grouped, rank)
    n_turn = n_draw // rounds
    for position in range(rank, n_turn * n_rank, n_rank):
        sampler[position]
    private = private_memory()
    positions = iter(range(rank + n_turn * n_rank, (n_turn * (rounds + 1)) * n_rank, n_rank))

    def draw() -> None:
        for _, position in zip(range(n_turn), positions):
            sampler[position]

    rng = np.random.default_rng(0)
    classes = class_images.class_images(index)
    offsets, images = classes.offsets, classes.images
    probability = np.diff(offsets) / len(images)
    n_plain = min(n_turn, 2000)

    def draw_plainly() -> None:
        for _ in range(n_plain):
            c = rng.choice(len(probability), p=probability)
            images[rng.integers(offsets[c], offsets[c + 1])]

    _, draws = take_turns({'pfdet': draw, 'plain': draw_plainly}, rounds, warm_up=False)
    start = processor_seconds()
    sampler[n_draw * n_rank + 3 * len(index)]
    resume = processor_seconds() - start
    _, set_ups = take_turns(
        {
            'pfdet': lambda: set_up_sampler(path, name, own, grouped, rank),
            'plain': lambda: plain_lists(index),
        },
        rounds if n_rank > 1 else 0,
        warm_up=False,
    )
    return {
        'set_up': set_ups,
        'draw': {
            'pfdet': [s / n_turn for s in draws['pfdet']],
            'plain': [s / n_plain for s in draws['plain']],
        },
        'private': private,
        'before': before,
        'resume': resume,
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


def measure(table: Table, path: Path, args: argparse.Namespace) -> None:
    """Run all measurements and print them."""
    n_pair = run_task(draw_index, path, args.scale, args.repeat_label)
    table.fact('pairs of an image and its class', f'{n_pair:,}')
    for expand, goal in (True, EXPANDED_LISTS_GOAL), (False, LISTS_GOAL):
        listed = run_task(make_lists, path, expand, args.rounds)
        title = f'lists by class, {listed["pairs"]:,} pairs' + ', expanded' * expand
        table.share(title, listed['pfdet'], listed['plain'], 'numpy.unique', goal)
    cases = [(name, False, False) for name in SAMPLERS]
    # Private lists are the fallback if no file can be written.
    cases += [('soft_balance 0.7', True, False)]
    cases += [(name, False, True) for name in ('sequential', 'soft_balance 0.7')]
    for name, own, grouped in cases:
        print(name + ', private lists' * own + f', in runs of {CHUNK}' * grouped)
        tail = own, grouped
        children = []
        try:
            children.append(start_task(rank, path, name, *tail, 0, 1, args.draws, args.rounds))
            alone = result_of(children[0])
            n_draw = args.draws // 25
            children.append(start_task(rank, path, name, *tail, 7, 512, n_draw, args.rounds))
            far = result_of(children[1])
        finally:
            for child in children:
                child.communicate()
        set_up = far['set_up']
        goal = None if own else SET_UP_GOAL
        table.share('  set-up', set_up['pfdet'], set_up['plain'], 'numpy.unique', goal)
        table.share('  a draw three epochs later', [far['resume']], set_up['plain'], 'the same')
        table.share(
            '  private memory of a process',
            [far['private']],
            [far['before']],
            'after the imports',
            None if own else MEMORY_GOAL,
            megabytes_text,
        )
        for n_rank, figures in (1, alone), (512, far):
            draw = figures['draw']
            table.share(
                f'  a draw, one rank of {n_rank}',
                draw['pfdet'],
                draw['plain'],
                'Generator.choice',
                DRAW_GOALS[n_rank],
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
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    add_check(parser)
    parser.add_argument('--task', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.task:
        print(json.dumps(TASKS[args.task[0]](*json.loads(args.task[1]))), flush=True)
        sys.stdin.read()
        return 0
    table = Table()
    with tempfile.TemporaryDirectory(prefix='pfdet-samplers-') as temporary:
        measure(table, Path(temporary) / 'benchmark.index', args)
    return status(table.missed, args.check)


if __name__ == '__main__':
    sys.exit(main())
