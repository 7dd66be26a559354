"""Frozen batch normalization and frozen backbone stages.

With few images per rank, batch statistics are noisy, and detectors keep those of the pretrained
backbone. Detectron2's frozen batch normalization and MMDetection's ``norm_eval`` with
``requires_grad=False`` are the same: a constant affine map per channel.

Frozen parameters stay parameters of the network, so files of weights do not change and any rank can
load them. They get no gradient, and :func:`frozen_links` tells the optimizer which links not to
update.
"""

from collections.abc import Iterator

import chainer
import numpy as np

from pfdet.boxes.arrays import Array
from pfdet.errors import InputError
from pfdet.functions.affine_channel import affine_channel
from pfdet.links.backbone import FEATURES, Backbone
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.replacement import replace_links

#: Which batch normalizations :func:`freeze` can freeze: none, those of the backbone, or all.
FROZEN_BN = ('', 'backbone', 'all')


class FrozenBatchNormalization(chainer.Link):
    """Batch normalization with stored statistics, in training as at test time.

    The output is ``gamma * (x - avg_mean) / sqrt(avg_var + eps) + beta`` by channel. Gamma and beta
    get no gradient, and the statistics do not change. Parameters and statistics have the names of
    :class:`chainer.links.BatchNormalization`, so each loads the weights of the other.

    Args:
        size (int or tuple of int): Number of channels.
        eps (float): Epsilon.
        dtype (numpy.dtype): Dtype of parameters and statistics; by default Chainer's.
        use_gamma, use_beta (bool): Whether there are a scale and a shift.
    """

    gamma: chainer.Parameter | None = None
    beta: chainer.Parameter | None = None

    def __init__(
        self,
        size: int | tuple[int, ...],
        eps: float = 2e-5,
        dtype: np.dtype | None = None,
        use_gamma: bool = True,
        use_beta: bool = True,
    ):
        super().__init__()
        dtype = chainer.get_dtype(dtype)
        self.eps = eps
        with self.init_scope():
            if use_gamma:
                self.gamma = chainer.Parameter(np.ones(size, dtype))
            if use_beta:
                self.beta = chainer.Parameter(np.zeros(size, dtype))
        self.avg_mean = np.zeros(size, dtype)
        self.avg_var = np.ones(size, dtype)
        # Images seen in Chainer's fine-tuning mode. Not used, but part of the file.
        self.N = 0
        for name in 'avg_mean', 'avg_var', 'N':
            self.register_persistent(name)

    def forward(self, x: chainer.Variable | Array) -> chainer.Variable:
        """Normalize activations :math:`(N, C)` or :math:`(N, C, H, W)`."""
        scale = 1 / self.xp.sqrt(self.avg_var + self.avg_var.dtype.type(self.eps))
        if self.gamma is not None:
            scale *= self.gamma.array
        shift = -self.avg_mean * scale
        if self.beta is not None:
            shift += self.beta.array
        return affine_channel(x, scale, shift)


def freeze(network: FasterRCNN, batch_normalization: str = '', stages: int = 0) -> None:
    """Freeze batch normalizations and backbone stages of a detector.

    Call it after the weights of the backbone are loaded, or before. It does not matter whether
    :func:`~pfdet.links.multi_node_batch_normalization.use_multi_node_batch_normalization` comes
    before or after it. Set up the optimizer after it.

    Args:
        network (FasterRCNN): The detector, modified in place.
        batch_normalization (str): Which batch normalizations to freeze: ``''`` for none,
            ``'backbone'`` for those of the backbone, or ``'all'``. Those of pyramid and head have
            no pretrained statistics. Unless the weights of a detector are loaded, they are the
            identity when frozen.
        stages (int): Number of frozen parts of the backbone, see :func:`freeze_stages`.

    Raises:
        InputError: An argument is out of range. The network has not been modified.
    """
    if batch_normalization not in FROZEN_BN:
        raise InputError(
            f'frozen_bn={batch_normalization}: expected backbone, all or an empty string'
        )
    _check_stages(stages)
    if stages:
        freeze_stages(network.extractor.base, stages)
    if batch_normalization:
        freeze_batch_normalization(
            network.extractor.base if batch_normalization == 'backbone' else network
        )


def freeze_batch_normalization(link: chainer.Link) -> None:
    """Replace every batch normalization below a link by :class:`FrozenBatchNormalization`.

    Args:
        link (chainer.Link): A network or a part of it, modified in place. Parameters and statistics
            are copied.
    """
    replace_links(link, _frozen)


def _frozen(link: chainer.Link) -> FrozenBatchNormalization | None:
    # MultiNodeBatchNormalization is not a subclass of BatchNormalization.
    if isinstance(link, FrozenBatchNormalization) or not hasattr(link, 'avg_var'):
        return None
    new = FrozenBatchNormalization(
        link.avg_mean.shape,
        link.eps,
        link.avg_mean.dtype,
        getattr(link, 'gamma', None) is not None,
        getattr(link, 'beta', None) is not None,
    )
    new.copyparams(link)
    new.to_device(link.device)
    return new


def freeze_stages(backbone: Backbone, n: int) -> None:
    """Freeze the first parts of a backbone: the stem, then one residual stage after the other.

    The parameters of frozen parts, batch normalization included, get no gradient, and there is no
    backward pass through them. Their batch normalization uses stored statistics.

    Args:
        backbone (Backbone): The backbone, modified in place.
        n (int): Number of parts as in Detectron2's ``FREEZE_AT``: 0 for none, 1 for the stem, 2 for
            the stem and the first residual stage, which is the field's usual choice, and 5 for the
            whole backbone. MMDetection's ``frozen_stages`` is ``n - 1``.

    Raises:
        InputError: ``n`` is not in 0, ..., 5.
    """
    _check_stages(n)
    backbone.n_frozen_stage = n
    for name in backbone.frozen_layers:
        layer = backbone[name]
        if isinstance(layer, chainer.Link):
            freeze_batch_normalization(layer)


def _check_stages(n: int) -> None:
    if n not in range(len(FEATURES) + 2):
        raise InputError(f'frozen_stages={n}: expected 0 to {len(FEATURES) + 1}')


def frozen_links(link: chainer.Link) -> Iterator[chainer.Link]:
    """Yield the frozen links below a link. All their parameters must stay as they are.

    Without a gradient, an update does not leave a parameter as it is: Chainer replaces missing
    gradients by zeros, to which weight decay adds. So an optimizer must skip these links.

    Args:
        link (chainer.Link): A network.
    """
    for child in link.links():
        if isinstance(child, FrozenBatchNormalization):
            yield child
        elif isinstance(child, Backbone):
            layers = (child[name] for name in child.frozen_layers)
            yield from (layer for layer in layers if isinstance(layer, chainer.Link))
