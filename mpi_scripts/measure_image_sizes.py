"""Time of a forward and backward pass by image size, against the number of operations.

    OMP_NUM_THREADS=1 python mpi_scripts/measure_image_sizes.py --out FILE.json [--recipe NAME]

The scaling model assumes that the time of an image is proportional to its operations, padding
included. This script measures the time of a recipe's network with random weights on images of
several sizes, with as many regions in the head as in training, and prints it with the operations.
On the CPU it measures processor time, which other processes affect least; use one thread. SENet-154
needs about 8 GB with the default sizes.
"""

import argparse
import json
import time
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np

from pfdet import recipes
from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command
from pfdet.links.complexity import detector_flops
from pfdet.training import build


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--recipe', default=recipes.DEFAULT, help='default: %(default)s')
    parser.add_argument(
        '--sizes',
        nargs='+',
        metavar='HxW',
        default=['256x256', '256x384', '384x384', '384x512', '512x512'],
    )
    parser.add_argument('--repeat', type=int, default=2, help='repetitions; the fastest counts')
    parser.add_argument('--gpu', type=int, default=-1, metavar='ID', help='GPU (default: CPU)')
    parser.add_argument('--out', type=Path, metavar='FILE.json')
    args = parser.parse_args()
    sizes = [parse_size(text) for text in args.sizes]

    recipe = recipes.find(args.recipe)
    network = build.detector(recipe, 500)
    operations = [3 * detector_flops(network, size, recipe.n_roi) for size in sizes]
    if args.gpu >= 0:
        chainer.backends.cuda.get_device_from_id(args.gpu).use()
        network.to_gpu()
    step(network, recipe.n_roi, sizes[0])
    rows = []
    for size, count in zip(sizes, operations, strict=True):
        seconds = min(step(network, recipe.n_roi, size) for _ in range(args.repeat))
        rows.append({'size': list(size), 'tera_operations': count / 1e12, 'seconds': seconds})
        print(
            f'{size[0]:5} x {size[1]:4}{count / 1e12:10.3f} T{seconds:10.3f} s'
            f'{count / seconds / 1e12:10.3f} T/s',
            flush=True,
        )
    if args.out is not None:
        with replace_when_done(args.out) as path:
            path.write_text(
                json.dumps(
                    {
                        'command': 'OMP_NUM_THREADS=1 python mpi_scripts/measure_image_sizes.py',
                        'recipe': recipe.name,
                        'device': 'CPU' if args.gpu < 0 else 'GPU',
                        'rows': rows,
                    },
                    indent=1,
                )
                + '\n'
            )


def step(network, n_roi: int, size: tuple[int, int]) -> float:
    """Time a forward and a backward pass through all layers with weights."""
    xp, rng = network.xp, np.random.default_rng(0)
    x = xp.asarray(rng.normal(size=(1, 3, *size)), np.float32)
    corner = rng.uniform(0, 0.5, (n_roi, 2))
    rois = np.concatenate([corner, corner + rng.uniform(0.1, 0.5, (n_roi, 2))], axis=1)
    rois = xp.asarray(rois * [*size, *size], np.float32)
    clock = time.process_time if xp is np else time.perf_counter
    synchronize(xp)
    start = clock()
    hs = network.extractor(x)
    locs, confs, _ = network.rpn(hs)
    offset, conf = network.head(hs, rois, xp.zeros(n_roi, np.int32))
    network.cleargrads()
    sum(chainer.functions.sum(y) for y in (locs, confs, offset, conf)).backward()
    synchronize(xp)
    return clock() - start


def synchronize(xp) -> None:
    if xp is not np:
        chainer.backends.cuda.Stream.null.synchronize()


def parse_size(text: str) -> tuple[int, int]:
    """Parse ``'256x384'`` into height and width."""
    parts = text.split('x')
    if len(parts) != 2 or not all(p.isdigit() and int(p) > 0 and int(p) % 64 == 0 for p in parts):
        raise InputError(f'--sizes {text}: expected HxW in multiples of 64, such as 256x384')
    return int(parts[0]), int(parts[1])


if __name__ == '__main__':
    run_command(main)
