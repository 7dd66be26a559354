"""SGD with corrected momentum for mixed precision: a loss scale that adapts itself.

Gradients of float16 activations below 6e-8 become 0, and above 65,504 infinity. So the loss is
multiplied by a scale before the backward pass, and the gradients, which are float32, are divided by
it before the update (Micikevicius et al., 2018, section 3.2). The scale is as large as it can be:
it is halved whenever a gradient overflows, and doubled after some updates without an overflow. An
update with an overflow is skipped.

The gradients are those after the all-reduce, which are the same on all ranks. So all ranks skip the
same updates and have the same scale, without a message of their own.
"""

from typing import Any

import chainer
import numpy as np
from chainer.backends import cuda
from chainer.optimizers import CorrectedMomentumSGD

from pfdet.functions.finite import nan_unless_squares_finite

#: Scale of the first iteration.
FIRST = 2.0**16
#: Largest scale: with it, and gradients of 1, sums of squares are far from the limits of float32.
LARGEST = 2.0**24
#: Updates without an overflow after which the scale is doubled.
INTERVAL = 1000


class ScaledMomentumSGD(CorrectedMomentumSGD):
    """:class:`chainer.optimizers.CorrectedMomentumSGD` with a loss scale.

    The scale is a power of two, so that scaling rounds nothing. It is at least 1: gradients that
    are not finite at scale 1 are reported as such, and the run stops
    (:class:`~pfdet.training.finite_loss.FiniteLoss`).

    Scale and counter are part of the optimizer's state in snapshots.

    Args:
        lr, momentum (float): As in Chainer.
        interval (int): Updates without an overflow after which the scale is doubled.

    Attributes:
        loss_scale (float): The scale of the next backward pass.
        skipped (bool): Whether the last update was skipped because of an overflow.
    """

    # Chainer declares None, the scale of an optimizer without one.
    _loss_scale: Any

    def __init__(self, lr: float = 0.01, momentum: float = 0.9, interval: int = INTERVAL):
        super().__init__(lr, momentum)
        self.interval = interval
        self.skipped = False
        self._n_good = 0
        self._loss_scale = FIRST

    @property
    def loss_scale(self) -> float:
        """The scale of the next backward pass."""
        return float(self._loss_scale)

    def check_nan_in_grads(self) -> None:
        """Find out whether a gradient is not finite, and divide gradients by the scale.

        Chainer calls this before an update. Its version waits for the GPU once per parameter; this
        one once. Chainer would divide later, but its weight decay is multiplied by the scale
        although it comes after the division.
        """
        gradients = [p.grad for p in self.target.params() if p.grad is not None]
        checked = cuda.to_cpu(nan_unless_squares_finite(gradients))
        self._loss_scaling_isnan = not np.isfinite(checked)
        self.skipped = self._loss_scaling_isnan and self.loss_scale > 1
        if not self._loss_scaling_isnan:
            for param in self.target.params():
                # Not None; Chainer has allocated missing gradients.
                param.grad *= param.dtype.type(1 / self.loss_scale)
                param._loss_scale = None
        if self.skipped and self.t == 0:
            # A snapshot has the velocities, also before the first update.
            for param in self.target.params():
                if param.update_rule.enabled and param.update_rule.state is None:
                    param.update_rule._init_states(param)

    def update_loss_scale(self) -> None:
        """Adapt the scale; Chainer calls this after an update."""
        if self._loss_scaling_isnan:
            self._loss_scale = max(1.0, self._loss_scale / 2)
            self._n_good = 0
            return
        self._n_good += 1
        if self._n_good >= self.interval:
            self._loss_scale = min(LARGEST, self._loss_scale * 2)
            self._n_good = 0

    def serialize(self, serializer: Any) -> None:
        """Save or load the state, with the scale."""
        super().serialize(serializer)
        self._loss_scale = float(serializer('loss_scale', self._loss_scale))
        self._n_good = int(serializer('updates_since_overflow', self._n_good))


def scaled_optimizer(optimizer: Any) -> ScaledMomentumSGD | None:
    """The optimizer with a loss scale inside of a multi-node optimizer, or :obj:`None`."""
    inner = getattr(optimizer, 'actual_optimizer', optimizer)
    return inner if isinstance(inner, ScaledMomentumSGD) else None


def report(optimizer: Any) -> bool:
    """Report scale and overflow of the last update for the log.

    Args:
        optimizer: Any optimizer. Without a loss scale, nothing is reported.

    Returns:
        bool: Whether the last update was skipped.
    """
    scaled = scaled_optimizer(optimizer)
    if scaled is None:
        return False
    chainer.report({'loss_scale': scaled.loss_scale, 'skipped_updates': float(scaled.skipped)})
    return scaled.skipped
