"""The chain that computes the training loss of a batch."""

from collections.abc import Callable

import chainer
import chainer.functions as F
import numpy as np

from pfdet.boxes import coding
from pfdet.functions.finite import PROPOSALS, nan_unless_finite
from pfdet.functions.smooth_l1 import smooth_l1
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.targets import rules, sampling
from pfdet.targets.batch_truth import BatchTruth, only_objects_of
from pfdet.training.transforms import Batch

TargetRule = Callable[[np.ndarray, sampling.RoiSample, BatchTruth], np.ndarray]


class TrainChain(chainer.Chain):
    """The sum of the losses of the region proposal network and the head.

    Every term is averaged over the images of the batch, and every image has the same number of
    regions. So the mean over ranks is the loss of the whole batch of all ranks.

    Args:
        detector (FasterRCNN): The network.
        loss (callable): Classification loss of logits :math:`(R, C)` and the target matrix
            :math:`(R, C)`.
        target_rules (sequence of callables): Applied to the target matrix one after the other.
        seed (int): Seed of the sampling of anchors and regions.
        sample_anchors (callable): :func:`pfdet.targets.sampling.sample_anchors` with the settings
            of the RPN.
        sample_rois (callable): :func:`pfdet.targets.sampling.sample_rois` with those of the head.
        expand_ancestors (bool): See :func:`pfdet.targets.rules.positives`.
        pick (int array): Ids of the detector's classes :math:`(K,)`, if it has only some of the
            label space. The rules use all labels, the loss only those of these classes.
        only_picked (bool): Treat objects of other classes as background, also in the region
            proposal network.
    """

    def __init__(
        self,
        detector: FasterRCNN,
        loss: Callable,
        target_rules: tuple[TargetRule, ...] = (),
        seed: int = 0,
        sample_anchors: Callable[..., sampling.AnchorTargets] = sampling.sample_anchors,
        sample_rois: Callable[..., sampling.RoiSample] = sampling.sample_rois,
        expand_ancestors: bool = True,
        pick: np.ndarray | None = None,
        only_picked: bool = False,
    ):
        super().__init__()
        with self.init_scope():
            self.detector = detector
        self.loss = loss
        self.target_rules = target_rules
        self.seed = seed
        self.sample_anchors = sample_anchors
        self.sample_rois = sample_rois
        self.expand_ancestors = expand_ancestors
        self.pick = pick
        self.only_picked = only_picked

    def forward(self, batch: Batch) -> chainer.Variable:
        """Compute the loss of a batch, and report its terms.

        Args:
            batch (Batch): Images and ground truth.

        Returns:
            chainer.Variable: A scalar.
        """
        detector, xp = self.detector, self.xp
        x = detector.prepare(batch.imgs, batch.size)
        truth = BatchTruth(*(xp.asarray(a) for a in batch.truth))
        truth = truth._replace(bbox=truth.bbox.astype(x.dtype, copy=False))
        pick = None if self.pick is None else xp.asarray(self.pick)
        if self.only_picked:
            truth = only_objects_of(truth, pick)
        sizes = np.array([img.shape[1:] for img in batch.imgs], np.float32)

        hs = detector.extractor(x)
        locs, confs, n_anchors = detector.rpn(hs)
        anchors = detector.rpn.anchors([h.shape[2:] for h in hs])
        priority = xp.asarray(
            sampling.priorities(self.seed, batch.positions, len(anchors) + truth.valid.shape[1])
        )

        sampled = self.sample_anchors(anchors, truth, sizes, priority[:, : len(anchors)])
        rpn_loc_loss, rpn_conf_loss = rpn_loss(locs, confs, sampled)

        proposals = detector.rpn.decode(locs.array, confs.array, anchors, n_anchors, x.shape[2:])
        rois = self.sample_rois(proposals, truth, priority)._replace(positions=batch.positions)
        t = rules.positives(rois, truth, self.expand_ancestors)
        for rule in self.target_rules:
            t = rule(t, rois, truth)
        if pick is not None:
            t = t[:, :, pick]

        N, S = rois.foreground.shape
        roi_indices = xp.repeat(xp.arange(N, dtype=np.int32), S)
        offset, conf = detector.head(hs, rois.bbox.reshape(-1, 4), roi_indices)
        head_conf_loss = self.loss(conf, t.reshape(N * S, -1))
        head_loc_loss = self._head_loc_loss(offset, t, rois, truth)

        loss = rpn_loc_loss + rpn_conf_loss + head_loc_loss + head_conf_loss
        chainer.report(
            {
                'loss': loss,
                'loss/rpn_loc': rpn_loc_loss,
                'loss/rpn_conf': rpn_conf_loss,
                'loss/head_loc': head_loc_loss,
                'loss/head_conf': head_conf_loss,
                PROPOSALS: chainer.as_variable(nan_unless_finite(locs.array, confs.array)),
            },
            self,
        )
        return loss

    def _head_loc_loss(self, offset, t, rois: sampling.RoiSample, truth: BatchTruth):
        """Smooth L1 loss of foreground regions, divided by the number of all regions."""
        xp = self.xp
        N, S = rois.foreground.shape
        foreground = rois.foreground & rois.used
        if offset.shape[1] == 1:
            # Use all regions: selecting the foreground would make the host wait for the GPU.
            matched = truth.bbox[xp.arange(N)[:, None], rois.matched]
            base, predicted = rois.bbox, offset[:, 0]
            weight = foreground.ravel().astype(offset.dtype)
            # Background regions have weight 0, but need a box with an area.
            unit_box = xp.asarray([0, 0, 1, 1], dtype=base.dtype)
            matched, base = (
                xp.where(foreground[:, :, None], a, unit_box).reshape(-1, 4)
                for a in (matched, base)
            )
        else:
            # Class-specific boxes: average over all positive classes of a region.
            image, roi, label = xp.nonzero((t > 0) & foreground[:, :, None])
            weight = (1 / xp.maximum((t > 0).sum(axis=2), 1))[image, roi].astype(offset.dtype)
            matched = truth.bbox[image, rois.matched[image, roi]]
            base, predicted = rois.bbox[image, roi], offset[image * S + roi, label]
        true_offset = coding.encode(matched, base, self.detector.head.std)
        loss = smooth_l1(predicted, true_offset.astype(offset.dtype, copy=False))
        return F.sum(weight * loss) / (N * S)


def rpn_loss(locs, confs, sampled: sampling.AnchorTargets, beta: float = 1 / 9):
    """Losses of the region proposal network (Faster R-CNN, equation 1).

    Args:
        locs, confs (variables): Offsets :math:`(N, A, 4)` and logits :math:`(N, A)`.
        sampled (AnchorTargets): The sampled anchors and their targets.
        beta (float): Parameter of the smooth L1 loss, as in ChainerCV and Detectron.

    Returns:
        tuple of variables: The loss of the offsets and the loss of the logits, each divided by the
        number of sampled anchors of the image and averaged over images.
    """
    N = len(confs)
    weight = sampled.weight / locs.dtype.type(N)
    conf = confs[sampled.image, sampled.anchor]
    conf_loss = F.sum(
        weight * F.sigmoid_cross_entropy(conf, sampled.positive.astype(np.int32), reduce='no')
    )
    loc_loss = F.sum(
        weight
        * sampled.positive
        * smooth_l1(locs[sampled.image, sampled.anchor], sampled.offset, beta)
    )
    return loc_loss, conf_loss
