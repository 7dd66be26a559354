"""All-reduce of a network's gradients on CPUs: the packed communicator against ChainerMN's naive.

    mpiexec -n 2 python benchmarks/allreduce.py [--rounds 5] [--check]

Times the gradients of the mini network (8 MB, mostly small arrays) and of PFDet's full-size network
(260 MB). The communicators take turns. The time is that of the clock, since ranks wait for each
other, and the median of the rounds' ratios counts. packed may take 1.1 times as long as naive.
float16 has no goal: it sends half the bytes but converts them, which pays off on slow networks
only.
"""

import argparse
import sys
import time

import pfdet.compat  # noqa: F401

import chainer
import chainermn
import numpy as np
from mpi4py import MPI
from timing import Table, add_check, status

from pfdet import recipes
from pfdet.training import build
from pfdet.training.communicators import PackedCommunicator

GOAL = 1.1
# All-reduces in a turn
CALLS = {'mini': 20, 'table1-baseline': 2}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    parser.add_argument('--recipes', nargs='+', default=list(CALLS))
    add_check(parser)
    args = parser.parse_args()
    world = MPI.COMM_WORLD
    table = Table() if world.rank == 0 else None
    for name in args.recipes:
        network = build.detector(recipes.find(name), 500)
        rng = np.random.default_rng(world.rank)
        for param in network.params():
            param.grad = rng.normal(size=param.shape).astype(np.float32)
        sizes = [param.grad.nbytes for param in network.params()]
        seconds = measure(world, network, args.rounds, CALLS.get(name, 2))
        if table is not None:
            print(f'{name}: {len(sizes)} arrays, {sum(sizes) / 1e6:.1f} MB, {world.size} ranks')
            table.share('  packed', seconds['packed'], seconds['naive'], 'naive', GOAL)
            table.share('  packed float16', seconds['packed float16'], seconds['naive'], 'naive')
    missed = world.bcast(table.missed if table is not None else None)
    return status(missed, args.check)


def measure(
    world: MPI.Comm, network: chainer.Link, rounds: int, calls: int
) -> dict[str, list[float]]:
    """Seconds of an all-reduce by communicator and round."""
    contenders = {
        'naive': chainermn.create_communicator('naive'),
        'packed': PackedCommunicator(world),
        'packed float16': PackedCommunicator(world, 'float16'),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    # The first round is not counted.
    for k in range(rounds + 1):
        for name in list(contenders)[:: -1 if k % 2 else 1]:
            world.Barrier()
            started = time.perf_counter()
            for _ in range(calls):
                contenders[name].multi_node_mean_grad(network, zero_fill=True)
            world.Barrier()
            if k > 0:
                seconds[name].append((time.perf_counter() - started) / calls)
    return seconds


if __name__ == '__main__':
    sys.exit(main())
