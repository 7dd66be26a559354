"""Time of an all-reduce by message size, and the time added by multi-node batch normalization.

    mpiexec -n N python mpi_scripts/allreduce_benchmark.py [--communicator packed] [--out FILE.json]

Without --communicator, times MPI's all-reduce, and imports neither Chainer nor CuPy. With it, times
`multi_node_mean_grad` on a network with one parameter of the given size: what a training step
calls, including copies and division. Each size is repeated. All ranks start a repetition together,
after a barrier, and its time is that of the slowest rank. For small messages, a repetition is the
mean of many calls in a row. The bus bandwidth is 2 (n - 1) / n times the bytes over the time. For a
perfect ring it is the bandwidth of the slowest link, for any n.

With a communicator, also times forward and backward passes of a plain and of a multi-node batch
normalization for each of --bn-channels. A network with L of them waits L times for the difference.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from mpi4py import MPI

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, end_all_ranks_on_exception, run_command
from pfdet.flags import MAX_RANKS, Parser, integer, number
from pfdet.mpi import check_ranks

# Powers of four, and the gradients of PFDet's largest network
DEFAULT_SIZES = tuple(4**i for i in range(1, 15)) + (636_500_484,)
DTYPES = ('float32', 'float16', 'float64')
PERCENTILES = (10, 50, 90)
# Environment variables that change how libraries communicate: stored with the results
_SETTINGS = ('MPIR_CVAR_', 'OMPI_MCA_', 'I_MPI_', 'NCCL_', 'UCX_', 'FI_')


def main() -> None:
    args = parse_arguments()
    end_all_ranks_on_exception()
    world = MPI.COMM_WORLD
    check_ranks(world.size)
    group_size = args.group_size or world.size
    if world.size % group_size:
        raise InputError(f'--group-size {group_size}: expected a divisor of the {world.size} ranks')
    local = world.Split(world.rank // group_size, world.rank)
    if args.communicator == 'mpi':
        if args.dtype == 'float16':
            raise InputError(
                '--dtype float16: MPI cannot add it; take --communicator packed on '
                'CPUs or pure_nccl on GPUs'
            )
        bench, comm = MPIAllreduce(local, args.dtype), None
    else:
        comm = chainermn_communicator(args.communicator, args.dtype, group_size)
        bench = GradientAllreduce(comm)

    report = describe(args, world, group_size)
    print_once(
        world,
        f'{args.communicator}, {args.dtype}, groups of {group_size} of '
        f'{world.size} ranks\n{"bytes":>12}{"p10":>11}{"median":>11}{"p90":>11} us'
        f'{"bus":>10} GB/s',
    )
    for size in args.sizes:
        run = bench.prepare(size)
        seconds, inner = time_repetitions(run, world, args.repetitions, args.seconds)
        row = {'bytes': bench.n_byte(size), 'calls': inner, **summary(seconds)}
        row['bus_GBps'] = bus_bandwidth(row['bytes'], group_size, row['p50']) / 1e9
        report['allreduce'].append(row)
        print_once(
            world,
            f'{row["bytes"]:12}'
            + ''.join(f'{row[f"p{p}"] * 1e6:11.1f}' for p in PERCENTILES)
            + f'{row["bus_GBps"]:13.3f}',
        )
    if comm is not None and args.bn_channels:
        print_once(world, '\nbatch normalization, median us   plain  multi-node       added')
        for n_channel in args.bn_channels:
            row = time_batch_normalization(n_channel, args.bn_shape, comm, world, args)
            report['batch_normalization'].append(row)
            for way in 'forward', 'backward':
                plain, multi = (row[kind][way]['p50'] * 1e6 for kind in ('plain', 'multi_node'))
                print_once(
                    world,
                    f'{n_channel:6} channels, {way:9}'
                    f'{plain:14.1f}{multi:12.1f}{multi - plain:12.1f}',
                )
    if args.out is not None and world.rank == 0:
        with replace_when_done(args.out) as path:
            path.write_text(json.dumps(report, indent=1) + '\n')


class MPIAllreduce:
    """Sum of a message over ranks by MPI's function.

    Args:
        comm (mpi4py.MPI.Comm): The ranks.
        dtype (str): NumPy's name of the dtype.
    """

    def __init__(self, comm: MPI.Comm, dtype: str):
        self.comm = comm
        self.dtype = np.dtype(dtype)

    def n_byte(self, size: int) -> int:
        """Bytes of a message of about ``size`` bytes."""
        return max(1, size // self.dtype.itemsize) * self.dtype.itemsize

    def prepare(self, size: int) -> Callable[[], None]:
        """Return the call to time, after checking its result once.

        Raises:
            RuntimeError: The sum is wrong.
        """
        send = np.full(self.n_byte(size) // self.dtype.itemsize, self.comm.rank + 1, self.dtype)
        received = np.empty_like(send)

        def run() -> None:
            self.comm.Allreduce(send, received)

        run()
        expect(received, self.comm.size * (self.comm.size + 1) / 2)
        return run


class GradientAllreduce:
    """Mean of a gradient over ranks, as the multi-node optimizer computes it.

    Args:
        comm (ChainerMN communicator): The ranks.
    """

    def __init__(self, comm):
        import chainer

        self.chainer = chainer
        self.comm = comm
        dtype = getattr(comm, 'allreduce_grad_dtype', None)
        self.sent_itemsize = np.dtype(dtype or np.float32).itemsize

    def n_byte(self, size: int) -> int:
        """Bytes that are sent for a message of about ``size`` bytes."""
        return max(1, size // self.sent_itemsize) * self.sent_itemsize

    def prepare(self, size: int) -> Callable[[], None]:
        """Return the call to time, after checking its result once.

        Raises:
            RuntimeError: The mean is wrong.
        """
        chainer, comm = self.chainer, self.comm
        link = chainer.Link()
        with link.init_scope():
            link.param = chainer.Parameter(
                np.zeros(self.n_byte(size) // self.sent_itemsize, np.float32)
            )
        if comm_on_gpu(comm):
            link.to_gpu()
        link.param.grad = link.xp.full_like(link.param.array, comm.rank + 1)

        def run() -> None:
            comm.multi_node_mean_grad(link)
            synchronize(comm)

        run()
        expect(chainer.backends.cuda.to_cpu(link.param.grad), (comm.size + 1) / 2)
        return run


def expect(array: np.ndarray, value: float) -> None:
    # Up to 2,048 ranks, the sums are exact in float16 as well.
    if not np.allclose(array, value, rtol=1e-3):
        raise RuntimeError(f'the all-reduce is wrong: {array[:4]} ..., expected {value}')


def chainermn_communicator(name: str, dtype: str, group_size: int):
    """A communicator by name over groups of consecutive ranks, one GPU per rank if any."""
    import pfdet.compat  # noqa: F401

    import chainer

    from pfdet.training.communicators import communicator

    comm, device = communicator(name, dtype)
    if device >= 0:
        chainer.backends.cuda.get_device_from_id(device).use()
    if group_size == comm.size:
        return comm
    return comm.split(comm.rank // group_size, comm.rank)


def comm_on_gpu(comm) -> bool:
    return type(comm).__name__ in (
        'PureNcclCommunicator',
        'FlatCommunicator',
        'NonCudaAwareCommunicator',
    )


def synchronize(comm) -> None:
    """Wait for the GPU, which runs asynchronously."""
    if comm_on_gpu(comm):
        import chainer

        chainer.backends.cuda.Stream.null.synchronize()


def time_repetitions(
    run: Callable[[], None], world: MPI.Comm, n_repetition: int, seconds: float
) -> tuple[np.ndarray, int]:
    """Seconds per call in each repetition, on the slowest rank.

    Args:
        run (callable): The call to time, on all ranks.
        world (mpi4py.MPI.Comm): The ranks.
        n_repetition (int): Number of repetitions.
        seconds (float): Minimum duration of a repetition.

    Returns:
        pair: Seconds :math:`(n\\_repetition,)`, the same on all ranks, and calls per repetition.
    """
    probe = world.allreduce(_one_repetition(run, world, 3), MPI.MAX)
    inner = int(np.clip(np.ceil(seconds / probe), 1, 1000))
    own = [_one_repetition(run, world, inner) for _ in range(n_repetition)]
    return slowest_rank(own, world), inner


def _one_repetition(run: Callable[[], None], world: MPI.Comm, inner: int) -> float:
    world.Barrier()
    started = time.perf_counter()
    for _ in range(inner):
        run()
    return (time.perf_counter() - started) / inner


def slowest_rank(seconds: Sequence[float], world: MPI.Comm) -> np.ndarray:
    """Maximum over ranks of the time of each repetition, on all ranks."""
    own = np.array(seconds)
    slowest = np.empty_like(own)
    world.Allreduce(own, slowest, MPI.MAX)
    return slowest


def time_batch_normalization(
    n_channel: int, shape: tuple[int, int, int], comm, world: MPI.Comm, args: argparse.Namespace
) -> dict:
    """Time forward and backward passes of a plain and of a multi-node batch normalization."""
    import chainer
    import chainer.links as L

    from pfdet.cpu.install import install
    from pfdet.links.multi_node_batch_normalization import use_multi_node_batch_normalization

    install()  # as in training
    row = {'channels': n_channel, 'shape': list(shape)}
    for kind in 'plain', 'multi_node':
        chain = chainer.Chain()
        with chain.init_scope():
            chain.bn = L.BatchNormalization(n_channel)
        if kind == 'multi_node':
            use_multi_node_batch_normalization(chain, comm)
        if comm_on_gpu(comm):
            chain.to_gpu()
        size = shape[0], n_channel, *shape[1:]
        x = chain.xp.asarray(np.random.default_rng(comm.rank).normal(size=size), np.float32)
        g = chain.xp.ones_like(x)
        passes = {'forward': [], 'backward': []}
        for i in range(args.repetitions + 1):
            world.Barrier()
            start = time.perf_counter()
            y = chain.bn(chainer.Variable(x))
            synchronize(comm)
            middle = time.perf_counter()
            y.grad = g
            world.Barrier()
            again = time.perf_counter()
            y.backward()
            synchronize(comm)
            end = time.perf_counter()
            if i:
                passes['forward'].append(middle - start)
                passes['backward'].append(end - again)
        row[kind] = {way: summary(slowest_rank(own, world)) for way, own in passes.items()}
    return row


def bus_bandwidth(n_byte: int, n_rank: int, seconds: float) -> float:
    """Bytes per second over the slowest link of a perfect ring."""
    return 2 * (n_rank - 1) / n_rank * n_byte / seconds


def summary(seconds: np.ndarray) -> dict[str, float]:
    """Minimum, percentiles and maximum over repetitions."""
    return {
        'min': float(seconds.min()),
        **{f'p{p}': float(np.percentile(seconds, p)) for p in PERCENTILES},
        'max': float(seconds.max()),
    }


def describe(args: argparse.Namespace, world: MPI.Comm, group_size: int) -> dict:
    """Describe the measurement; every rank calls this."""
    node = world.Split_type(MPI.COMM_TYPE_SHARED)
    command = 'python mpi_scripts/allreduce_benchmark.py ' + ' '.join(sys.argv[1:])
    return {
        'command': f'mpiexec -n {world.size} {command}',
        'communicator': args.communicator,
        'dtype': args.dtype,
        'ranks': world.size,
        'group_size': group_size,
        'ranks_per_node': node.size,
        'cores_per_node': os.cpu_count(),
        'library': MPI.Get_library_version().splitlines()[0].strip(' \0'),
        'settings': {k: v for k, v in sorted(os.environ.items()) if k.startswith(_SETTINGS)},
        'repetitions': args.repetitions,
        'allreduce': [],
        'batch_normalization': [],
    }


def print_once(world: MPI.Comm, text: str) -> None:
    if world.rank == 0:
        print(text, flush=True)


def parse_size(text: str) -> int:
    """Parse ``'4'``, ``'64K'``, ``'16M'`` or ``'1G'`` into bytes, in powers of 1,024."""
    factor = {'K': 1 << 10, 'M': 1 << 20, 'G': 1 << 30}.get(text[-1:].upper(), 1)
    number = text[:-1] if factor > 1 else text
    if not number.isdigit() or int(number) < 1:
        raise InputError(f'--sizes {text}: expected bytes, such as 4, 64K or 16M')
    return int(number) * factor


def parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        '--communicator',
        default='mpi',
        help="mpi, packed, or ChainerMN's name: naive, flat, pure_nccl (default: %(default)s)",
    )
    add(
        '--dtype',
        choices=DTYPES,
        default='float32',
        help='dtype of the messages; float16 with packed and pure_nccl (default: %(default)s)',
    )
    add(
        '--sizes',
        nargs='+',
        metavar='BYTES',
        help='message sizes (default: powers of 4 up to 256M, and the gradients of PFDet with '
        'SENet-154)',
    )
    add('--max-size', metavar='BYTES', help='skip larger messages; each rank holds two')
    add(
        '--group-size',
        type=integer(0, MAX_RANKS),
        default=0,
        metavar='RANKS',
        help='consecutive ranks that all-reduce among themselves (default: all)',
    )
    add('--repetitions', type=integer(1, 10_000), default=20, help='per size (default: 20)')
    add(
        '--seconds',
        type=number(0, 1000),
        default=0.002,
        help='minimum duration of a repetition; the call is repeated (default: %(default)s)',
    )
    add(
        '--bn-channels',
        type=integer(1, 65_536),
        nargs='*',
        default=(64, 256, 2048),
        metavar='C',
        help='batch normalizations to time; none with --communicator mpi (default: 64 256 2048)',
    )
    add(
        '--bn-shape',
        type=integer(1, 10_000),
        nargs=3,
        default=(1, 25, 25),
        metavar=('N', 'H', 'W'),
        help="shape of a rank's images for these (default: 1 25 25)",
    )
    add('--out', type=Path, metavar='FILE.json', help='write the results to FILE')
    args = parser.parse_args()
    sizes = [parse_size(s) for s in args.sizes] if args.sizes else list(DEFAULT_SIZES)
    limit = parse_size(args.max_size) if args.max_size else None
    args.sizes = [s for s in sizes if limit is None or s <= limit]
    return args


if __name__ == '__main__':
    run_command(main)
