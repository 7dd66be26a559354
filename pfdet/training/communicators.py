"""Communicators: those of ChainerMN by name, and one for CPUs that sends fewer messages."""

import chainer
import numpy as np
from chainermn.communicators.naive_communicator import NaiveCommunicator
from mpi4py import MPI

from pfdet import interruption, mpi, shared_memory
from pfdet.errors import InputError, end_all_ranks_on_exception
from pfdet.similar_names import expected_name
from pfdet.training.watched_communicator import WatchedComm

DTYPES = ('float32', 'float16')
# Gradients of at least this many bytes are sent separately: copying them would take longer.
_MIN_SEPARATE_SIZE = 1 << 20


def create_communicator(name: str | None = None, dtype: str | None = None):
    """Create the communicator of all ranks.

    Args:
        name (str): ``'packed'`` (:class:`PackedCommunicator`) or the name of a ChainerMN
            communicator. By default ``'pure_nccl'`` with a GPU, else ``'packed'``.
        dtype (str): Type in which gradients are all-reduced: ``'float32'`` (default), or
            ``'float16'`` with ``'packed'`` and ``'pure_nccl'``.

    Raises:
        InputError: The communicator does not exist, needs a GPU, or does not support the type.
    """
    import chainermn

    gpu = chainer.backends.cuda.available
    name = name or ('pure_nccl' if gpu else 'packed')
    known = {
        'packed': False,
        'naive': False,
        'pure_nccl': True,
        'flat': True,
        'non_cuda_aware': True,
    }
    if name not in known:
        raise InputError(
            f'--communicator {name}: no such communicator; {expected_name(name, known)}'
        )
    if known[name] and not gpu:
        raise InputError(f'--communicator {name}: needs GPUs and CuPy; use packed on CPUs')
    if dtype not in (None, *DTYPES):
        raise InputError(f'--allreduce-dtype {dtype}: expected one of {", ".join(DTYPES)}')
    world = WatchedComm(MPI.COMM_WORLD)
    if name == 'packed':
        return PackedCommunicator(world, dtype or 'float32')
    if name == 'pure_nccl':
        return chainermn.create_communicator(
            name, world, allreduce_grad_dtype=np.dtype(dtype or 'float32')
        )
    if dtype == 'float16':
        raise InputError(
            f'--allreduce-dtype float16: the communicator {name} sends float32 only; '
            'use pure_nccl, or packed on CPUs'
        )
    return chainermn.create_communicator(name, world)


def communicator(name: str | None = None, allreduce_dtype: str | None = None):
    """Create the communicator of all ranks, and make an exception on one rank end all ranks.

    Args:
        name, allreduce_dtype (str): See :func:`create_communicator`.

    Returns:
        pair: The communicator, and the GPU of this rank or -1.

    Raises:
        InputError: The ranks have not found each other, or a node has more ranks than GPUs.
    """
    end_all_ranks_on_exception()
    mpi.check_ranks(MPI.COMM_WORLD.size)
    comm = create_communicator(name, allreduce_dtype)
    interruption.listen_again()
    shared_memory.remove_abandoned()
    # All ranks of the node have opened it now.
    comm.mpi_comm.Barrier()
    shared_memory.remove_own()
    if not chainer.backends.cuda.available or name == 'packed':
        return comm, -1
    n_gpu = chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount()
    if comm.intra_size > n_gpu:
        raise InputError(
            f'{comm.intra_size} ranks on a node with {n_gpu} GPU(s): expected at most one rank per '
            'GPU; set CUDA_VISIBLE_DEVICES= to train on CPUs'
        )
    return comm, comm.intra_rank


class PackedCommunicator(NaiveCommunicator):
    """All-reduce of gradients on CPUs with few messages, in float32 or float16.

    ChainerMN's ``'naive'`` sends one message per parameter, and most parameters are small. Here,
    small gradients are packed into one message, and large ones are sent without a copy. Everything
    else is as in ``'naive'``. ``benchmarks/allreduce.py`` compares both.

    With float16, half as many bytes are sent. MPI cannot add float16. So every rank receives its
    share of the gradients from all other ranks, sums it in float32, and all ranks gather the means.
    This rounds to 11 bits twice, for any number of ranks. Gradients are scaled so that small ones
    do not underflow (below 6e-8) and large ones do not overflow (above 65,504). The scale is the
    power of two that brings the largest absolute value over all ranks between 16,384 and 32,768.
    Values more than 2^38 times smaller than the largest become 0. Unlike a loss scale, this has no
    parameter to tune, but it needs one more message with one number. Conversion on a CPU is slower
    than a fast network, so float16 pays off below about 5 Gbit/s per rank.

    Args:
        mpi_comm (mpi4py.MPI.Comm): The ranks.
        dtype (str or numpy.dtype): ``'float32'`` or ``'float16'``.
    """

    def __init__(self, mpi_comm, dtype: str | np.dtype = 'float32'):
        super().__init__(mpi_comm)
        with self.config_scope():
            self.allreduce_grad_dtype = np.dtype(dtype)
        self._buffers: dict[str, np.ndarray] = {}

    def split(self, color: int, key: int) -> 'PackedCommunicator':
        """Create a communicator of the ranks with the same color."""
        return PackedCommunicator(self.mpi_comm.Split(color, key), self.allreduce_grad_dtype)

    def multi_node_mean_grad(self, model: chainer.Link, zero_fill: bool = False) -> None:
        """Replace the gradients by their mean over all ranks.

        Args:
            model (chainer.Link): The link with the parameters.
            zero_fill (bool): Treat missing gradients as zero. Otherwise a gradient must be missing
                on all ranks or on none.
        """
        grads = []
        for _, param in sorted(model.namedparams()):
            if param.array is None or (param.grad is None and not zero_fill):
                continue
            if param.grad is None:
                param.grad = param.xp.zeros_like(param.array)
            grads.append(param)
        if not all(isinstance(param.grad, np.ndarray) for param in grads):
            raise TypeError('the communicator packed supports only CPUs')
        if self.size > 1 and grads:
            arrays = [param.grad for param in grads]
            if self.allreduce_grad_dtype == np.float16:
                self._mean_in_half(arrays)
            else:
                self._mean(arrays)

    def _mean(self, arrays: list[np.ndarray]) -> None:
        for dtype in sorted({a.dtype for a in arrays}, key=str):
            small = []
            for a in arrays:
                if a.dtype != dtype:
                    continue
                if a.nbytes >= _MIN_SEPARATE_SIZE and a.flags.c_contiguous:
                    self.mpi_comm.Allreduce(MPI.IN_PLACE, a, MPI.SUM)
                    a *= 1 / self.size
                else:
                    small.append(a)
            buffer = self._buffer('packed', sum(a.size for a in small), dtype)
            views = _views(buffer, small)
            for view, a in zip(views, small, strict=True):
                view[...] = a
            self.mpi_comm.Allreduce(MPI.IN_PLACE, buffer, MPI.SUM)
            buffer *= 1 / self.size
            for view, a in zip(views, small, strict=True):
                a[...] = view

    def _mean_in_half(self, arrays: list[np.ndarray]) -> None:
        largest = np.array(max(max(-a.min(), a.max()) for a in arrays), np.float64)
        if not np.isfinite(largest):
            largest[...] = np.inf
        self.mpi_comm.Allreduce(MPI.IN_PLACE, largest, MPI.MAX)
        exponent = 0
        if 0 < largest < np.inf:
            exponent = int(np.clip(15 - np.frexp(largest)[1], -126, 126))

        n = sum(a.size for a in arrays)
        chunk_size = -(-n // self.size)
        sent = self._buffer('sent', chunk_size * self.size, np.float16)
        received = self._buffer('received', chunk_size * self.size, np.float16)
        sent[n:] = 0
        with np.errstate(over='ignore', under='ignore'):
            for view, a in zip(_views(sent, arrays), arrays, strict=True):
                view[...] = a * a.dtype.type(2.0**exponent)
        # MPI has no float16, so it is sent as uint16.
        self.mpi_comm.Alltoall(sent.view(np.uint16), received.view(np.uint16))
        mean = np.zeros(chunk_size, np.float32)
        for part in received.reshape(self.size, chunk_size):
            mean += part
        mean *= 1 / self.size
        self.mpi_comm.Allgather(mean.astype(np.float16).view(np.uint16), sent.view(np.uint16))
        for view, a in zip(_views(sent, arrays), arrays, strict=True):
            # Without dtype, NumPy 1 multiplies in float16, where the factor underflows to 0.
            np.multiply(view, a.dtype.type(2.0**-exponent), out=a, dtype=a.dtype)

    def _buffer(self, name: str, size: int, dtype: np.dtype) -> np.ndarray:
        buffer = self._buffers.get(name)
        if buffer is None or buffer.size != size or buffer.dtype != dtype:
            buffer = self._buffers[name] = np.empty(size, dtype)
        return buffer


def _views(buffer: np.ndarray, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Consecutive views of a buffer with the shapes of the arrays."""
    views, start = [], 0
    for a in arrays:
        views.append(buffer[start : start + a.size].reshape(a.shape))
        start += a.size
    return views
