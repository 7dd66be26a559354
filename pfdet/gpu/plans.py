"""Plans of cuDNN: one per operation, kept, and chosen by timing.

A plan is an engine of cuDNN with its settings. cuDNN's heuristics rank the plans of an operation.
The first use of an operation runs the plan that they rank first. At its third use, the best plans
are timed on the arrays at hand, and the fastest is kept. So image sizes that come once or twice in
a run cost no timing. With ``chainer.config.autotune`` the first use is timed, and with
``chainer.config.cudnn_deterministic`` none is, because timing varies.
"""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import chainer
import numpy as np
from chainer.backends.cuda import cupy

from pfdet.gpu import cudnn as library
from pfdet.gpu.graphs import Operation, describe
from pfdet.gpu.layout import Array

#: Plans that are kept. The least recently used one is dropped.
MAX_PLANS = 8192
#: Plans of an operation that are timed.
MAX_TIMED = 8
#: Use of an operation at which its plans are timed.
TIMED_USE = 3
#: Bytes of workspace that a plan may need.
MAX_WORKSPACE = 1 << 30
_RUNS = 3


class Summary(NamedTuple):
    """Numbers of operations since the start of the process.

    Attributes:
        described (int): Operations that cuDNN was asked for, including dropped ones.
        timed (int): Operations whose plans were timed.
        declined (int): Operations that cuDNN declined. Chainer computes them.
    """

    described: int
    timed: int
    declined: int


class Plan:
    """The plan of an operation.

    Args:
        cudnn (module): The front end.
        operation (Operation): What it computes.

    Raises:
        cudnn.cudnnGraphNotSupportedError: No plan can be built.
    """

    def __init__(self, cudnn: Any, operation: Operation):
        self.cudnn = cudnn
        self.described = describe(cudnn, operation, handle=library.handle(cudnn))
        self.scalars = [np.array([value], np.float32) for value in operation.scalars]
        self.n_use = 0
        self.is_timed = operation.deterministic
        self.index = self._build(range(self.described.graph.get_execution_plan_count()), 1)[0]

    def _build(self, indices: Sequence[int], n: int) -> list[int]:
        """Build the first ``n`` plans that can be built, and return their indices."""
        graph = self.described.graph
        built: list[int] = []
        for i in indices:
            try:
                graph.build_plan_at_index(i)
                if graph.get_workspace_size_plan_at_index(i) > MAX_WORKSPACE:
                    continue
            except (self.cudnn.cudnnGraphNotSupportedError, RuntimeError):
                # It needs tensor cores, is not deterministic, or cannot be compiled.
                continue
            built.append(i)
            if len(built) == n:
                break
        if not built:
            raise self.cudnn.cudnnGraphNotSupportedError('no plan can be built')
        return built

    def run(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Compute the outputs.

        Args:
            inputs, outputs (sequences of arrays): CuPy arrays with the layouts of the operation.
        """
        self.n_use += 1
        if not self.is_timed and (self.n_use >= TIMED_USE or chainer.config.autotune):
            self._choose(inputs, outputs)
        self._run(self.index, inputs, outputs)

    def _run(self, index: int, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        graph, input_ids, output_ids, scalar_ids = self.described
        arrays = zip([*input_ids, *output_ids], [*inputs, *outputs], strict=True)
        pointers = {uid: int(a.data.ptr) for uid, a in arrays}
        for uid, value in zip(scalar_ids, self.scalars, strict=True):
            pointers[uid] = value.ctypes.data
        size = graph.get_workspace_size_plan_at_index(index)
        # The pool hands the memory out again only to work that follows on this stream.
        workspace = cupy.cuda.alloc(size) if size else None
        graph.execute_plan_at_index(
            pointers,
            workspace=int(workspace.ptr) if workspace else None,
            index=index,
            handle=library.handle(self.cudnn),
        )

    def _choose(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Time the best plans and keep the fastest. The outputs are overwritten."""
        global _n_timed
        self.is_timed = True
        _n_timed += 1
        n = self.described.graph.get_execution_plan_count()
        candidates = self._build(range(n), MAX_TIMED)
        if len(candidates) == 1:
            return
        seconds = {i: self._seconds(i, inputs, outputs) for i in candidates}
        self.index = min(candidates, key=seconds.__getitem__)

    def _seconds(self, index: int, inputs: Sequence[Array], outputs: Sequence[Array]) -> float:
        best = float('inf')
        try:
            self._run(index, inputs, outputs)
        except MemoryError:
            # CuPy's error: its workspace does not fit.
            return best
        for _ in range(_RUNS):
            start, end = cupy.cuda.Event(), cupy.cuda.Event()
            start.record()
            self._run(index, inputs, outputs)
            end.record()
            end.synchronize()
            best = min(best, cupy.cuda.get_elapsed_time(start, end))
        return best


_plans: OrderedDict[tuple[int, Operation], Plan | None] = OrderedDict()
_n_described = _n_timed = _n_declined = 0


def run(operation: Operation, inputs: Sequence[Array], outputs: Sequence[Array]) -> bool:
    """Compute an operation by cuDNN.

    Args:
        operation (Operation): What to compute.
        inputs, outputs (sequences of arrays): CuPy arrays with its layouts.

    Returns:
        bool: :obj:`False` if cuDNN declines the operation. Nothing has been computed then.
    """
    plan = plan_of(operation)
    if plan is None:
        return False
    plan.run(inputs, outputs)
    return True


def plan_of(operation: Operation) -> Plan | None:
    """The plan of an operation on the current device; :obj:`None` if cuDNN declines it."""
    global _n_described, _n_declined
    cudnn: Any = library.front_end()
    key = cupy.cuda.runtime.getDevice(), operation
    if key in _plans:
        _plans.move_to_end(key)
        return _plans[key]
    _n_described += 1
    plan: Plan | None
    try:
        plan = Plan(cudnn, operation)
    except cudnn.cudnnGraphNotSupportedError:
        plan = None
        _n_declined += 1
    _plans[key] = plan
    if len(_plans) > MAX_PLANS:
        _plans.popitem(last=False)
    return plan


def summary() -> Summary:
    """Count the operations so far."""
    return Summary(_n_described, _n_timed, _n_declined)


def clear() -> None:
    """Drop all plans, and count from zero."""
    global _n_described, _n_timed, _n_declined
    _plans.clear()
    _n_described = _n_timed = _n_declined = 0
