"""Communicators by name: ChainerMN's, and one for CPUs that sends few messages."""

import chainer
import numpy as np
from chainermn.communicators.naive_communicator import NaiveCommunicator
from mpi4py import MPI

from pfdet.errors import InputError, end_all_ranks_on_exception

DTYPES = ('float32', 'float16')
# A gradient of as many bytes is a message of its own: copying it would take longer than sending.
_OWN_MESSAGE = 1 << 20


def create_communicator(name: str | None = None, dtype: str | None = None):
    """The communicator of all ranks.

    Args:
        name (str): ``'packed'`` (:class:`PackedCommunicator`) or ChainerMN's name; by default
            ``'pure_nccl'`` where there is a GPU and ``'packed'`` where there is none.
        dtype (str): In what gradients are all-reduced, ``'float32'`` or ``'float16'``, which
            ``'packed'`` and ``'pure_nccl'`` can. By default float32.

    Raises:
        InputError: There is no such communicator, or it needs a GPU, or it cannot do the type.
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
            f'--communicator {name}: no such communicator; expected one of {", ".join(known)}'
        )
    if known[name] and not gpu:
        raise InputError(f'--communicator {name}: needs GPUs and CuPy; on CPUs take packed')
    if dtype not in (None, *DTYPES):
        raise InputError(f'--allreduce-dtype {dtype}: expected one of {", ".join(DTYPES)}')
    if name == 'packed':
        return PackedCommunicator(MPI.COMM_WORLD, dtype or 'float32')
    if name == 'pure_nccl':
        return chainermn.create_communicator(
            name, allreduce_grad_dtype=np.dtype(dtype or 'float32')
        )
    if dtype == 'float16':
        raise InputError(
            f'--allreduce-dtype float16: the communicator {name} sends float32 only; '
            'take pure_nccl, or packed on CPUs'
        )
    return chainermn.create_communicator(name)


def communicator(name: str | None = None, allreduce_dtype: str | None = None):
    """The communicator of all ranks, and this rank's device; an exception ends all ranks.

    Args:
        name, allreduce_dtype (str): See
            :func:`create_communicator`.

    Returns:
        pair: The communicator, and the GPU of this rank or -1.

    Raises:
        InputError: The ranks of a node are more than its GPUs.
    """
    end_all_ranks_on_exception()
    comm = create_communicator(name, allreduce_dtype)
    if not chainer.backends.cuda.available or name == 'packed':
        return comm, -1
    n_gpu = chainer.backends.cuda.cupy.cuda.runtime.getDeviceCount()
    if comm.intra_size > n_gpu:
        raise InputError(
            f'{comm.intra_size} ranks on a node with {n_gpu} GPU(s): expected at most '
            'one each; with CUDA_VISIBLE_DEVICES= they take the cores'
        )
    return comm, comm.intra_rank


class PackedCommunicator(NaiveCommunicator):
    """All-reduce of gradients on CPUs with few messages, in float32 or float16.

    ChainerMN's ``'naive'`` sends a message for every parameter, and most of them are small. Here
    these go together in one; large ones go as they are, without a copy. Everything else is
    ``'naive'``. ``benchmarks/allreduce.py`` compares them.

    With float16, half as many bytes are sent. MPI cannot add float16, so every rank gets its
    share of the gradients from all others, adds it up in float32, and all gather the means: two
    roundings to 11 bits, however many ranks there are. So that small gradients do not vanish
    (float16 ends at 6e-8) and large ones do not overflow (above 65,504), they are scaled by the
    power of two that brings the largest of all ranks between 16,384 and 32,768; what is more than
    2^38 times smaller than the largest becomes 0. Unlike a loss scale this needs no choice, but
    one message more, of one number. Converting on a CPU takes longer than sending over a fast
    network: it pays below some 5 Gbit/s a rank.

    Args:
        mpi_comm (mpi4py.MPI.Comm): The ranks.
        dtype (str or NumPy's): ``'float32'`` or ``'float16'``.
    """

    def __init__(self, mpi_comm, dtype: str | np.dtype = 'float32'):
        super().__init__(mpi_comm)
        with self.config_scope():
            self.allreduce_grad_dtype = np.dtype(dtype)
        self._buffers: dict[str, np.ndarray] = {}

    def split(self, color: int, key: int) -> 'PackedCommunicator':
        """A communicator of the ranks with the same color."""
        return PackedCommunicator(self.mpi_comm.Split(color, key), self.allreduce_grad_dtype)

    def multi_node_mean_grad(self, model: chainer.Link, zero_fill: bool = False) -> None:
        """Replace the gradients by their mean over all ranks.

        Args:
            model (chainer.Link): Whose parameters have the gradients.
            zero_fill (bool): A gradient that a rank does not have counts as zero; otherwise no
                rank may have it.
        """
        grads = []
        for _, param in sorted(model.namedparams()):
            if param.array is None or (param.grad is None and not zero_fill):
                continue
            if param.grad is None:
                param.grad = param.xp.zeros_like(param.array)
            grads.append(param)
        if not all(isinstance(param.grad, np.ndarray) for param in grads):
            raise TypeError('the communicator packed is for CPUs')
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
                if a.nbytes >= _OWN_MESSAGE and a.flags.c_contiguous:
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
        share = -(-n // self.size)
        sent = self._buffer('sent', share * self.size, np.float16)
        received = self._buffer('received', share * self.size, np.float16)
        sent[n:] = 0
        with np.errstate(over='ignore', under='ignore'):
            for view, a in zip(_views(sent, arrays), arrays, strict=True):
                view[...] = a * a.dtype.type(2.0**exponent)
        # MPI has no such type; it is only to carry it.
        self.mpi_comm.Alltoall(sent.view(np.uint16), received.view(np.uint16))
        mean = np.zeros(share, np.float32)
        for part in received.reshape(self.size, share):
            mean += part
        mean *= 1 / self.size
        self.mpi_comm.Allgather(mean.astype(np.float16).view(np.uint16), sent.view(np.uint16))
        for view, a in zip(_views(sent, arrays), arrays, strict=True):
            np.multiply(view, a.dtype.type(2.0**-exponent), out=a)

    def _buffer(self, name: str, size: int, dtype: np.dtype) -> np.ndarray:
        kept = self._buffers.get(name)
        if kept is None or kept.size != size or kept.dtype != dtype:
            kept = self._buffers[name] = np.empty(size, dtype)
        return kept


def _views(buffer: np.ndarray, arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Parts of a buffer, one after the other, of the shapes of arrays."""
    views, start = [], 0
    for a in arrays:
        views.append(buffer[start : start + a.size].reshape(a.shape))
        start += a.size
    return views
