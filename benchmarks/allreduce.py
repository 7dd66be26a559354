"""All-reduce of a network's gradients on CPUs: the packed communicator against ChainerMN's naive.

    mpiexec -n 2 python benchmarks/allreduce.py [--repeat 5]

Times the gradients of the mini network (8 MB, mostly small arrays) and of PFDet's full-size network
(260 MB). The communicators take turns; the fastest round of each counts, in milliseconds. The exit
status is 1 if packed takes more than 1.1 times as long as naive. float16 has no goal: it sends half
the bytes but converts them, which pays off on slow networks only.
"""

import argparse
import sys
import time

import pfdet.compat  # noqa: F401

import chainermn
import numpy as np
from mpi4py import MPI

from pfdet import recipes
from pfdet.training import build
from pfdet.training.communicators import PackedCommunicator

GOAL = 1.1
ROUNDS = {'mini': 20, 'table1-baseline': 2}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--repeat', type=int, default=5, help='rounds (default: %(default)s)')
    parser.add_argument('--recipes', nargs='+', default=list(ROUNDS))
    args = parser.parse_args()
    world, missed = MPI.COMM_WORLD, 0
    for name in args.recipes:
        network = build.detector(recipes.find(name), 500)
        rng = np.random.default_rng(world.rank)
        for param in network.params():
            param.grad = rng.normal(size=param.shape).astype(np.float32)
        sizes = [param.grad.nbytes for param in network.params()]
        contenders = {
            'naive': chainermn.create_communicator('naive'),
            'packed': PackedCommunicator(world),
            'packed float16': PackedCommunicator(world, 'float16'),
        }
        best = dict.fromkeys(contenders, np.inf)
        for _ in range(args.repeat):
            for contender, comm in contenders.items():
                world.Barrier()
                started = time.perf_counter()
                for _ in range(ROUNDS.get(name, 2)):
                    comm.multi_node_mean_grad(network, zero_fill=True)
                world.Barrier()
                seconds = (time.perf_counter() - started) / ROUNDS.get(name, 2)
                best[contender] = min(best[contender], seconds)
        ratio = best['packed'] / best['naive']
        missed += ratio > GOAL
        if world.rank == 0:
            print(f'{name}: {len(sizes)} arrays, {sum(sizes) / 1e6:.1f} MB, {world.size} ranks')
            for contender, seconds in best.items():
                print(f'  {contender:16}{seconds * 1e3:10.2f} ms')
            print(
                f'  packed / naive: {ratio:.2f}  goal at most {GOAL}: '
                + ('reached' if ratio <= GOAL else 'MISSED'),
                flush=True,
            )
    return int(world.bcast(missed) > 0)


if __name__ == '__main__':
    sys.exit(main())
