"""The detector: feature pyramid, region proposal network and head."""

from collections.abc import Sequence

import chainer
import numpy as np

from pfdet.boxes import coding
from pfdet.boxes.arrays import Array
from pfdet.errors import NotFiniteError
from pfdet.functions.expand_scores import expand_scores, highest_in_family
from pfdet.links.bbox_head import BboxHead
from pfdet.links.fpn import FPN
from pfdet.links.rpn import RPN


class FasterRCNN(chainer.Chain):
    """Faster R-CNN with a feature pyramid and a multi-label head (PFDet, section 2.1).

    Args:
        extractor (FPN): Feature extractor from images to feature maps.
        rpn (RPN): Region proposal network on the feature maps.
        head (BboxHead): Head that classifies and refines proposals.
        descendants (bool array): :math:`(C, C)`; prediction gives each class the highest score of
            its own and its descendants', and with one box per class the box of that class. By
            default scores are not expanded.
    """

    def __init__(
        self, extractor: FPN, rpn: RPN, head: BboxHead, descendants: np.ndarray | None = None
    ):
        super().__init__()
        self.descendants = descendants
        with self.init_scope():
            self.extractor = extractor
            self.rpn = rpn
            self.head = head

    @property
    def stride(self) -> int:
        """Divisor of the height and width of a batch."""
        return self.extractor.stride

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the parameters and of all computations."""
        return self.rpn.conf.W.dtype

    @property
    def n_class(self) -> int:
        """Number of foreground classes."""
        return self.head.n_class

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Round height and width up to multiples of :attr:`stride`."""
        return -(-int(size[0]) // self.stride) * self.stride, (
            -(-int(size[1]) // self.stride) * self.stride
        )

    def prepare(self, imgs: Sequence[np.ndarray], size: tuple[int, int] | None = None) -> Array:
        """Preprocess images of different sizes and pad them to a batch.

        Args:
            imgs (sequence of arrays): RGB images in [0, 255], :math:`(3, H, W)`, any numeric dtype.
            size (pair of int): Minimum height and width of the batch.

        Returns:
            array: Batch :math:`(N, 3, H', W')` preprocessed for the backbone and padded with zeros.
        """
        size = np.max([img.shape[1:] for img in imgs] + ([size] if size else []), axis=0)
        H, W = self.padded_size(size)
        if self.xp is not np:
            return self._prepare_on_gpu(imgs, H, W)
        x = np.zeros((len(imgs), H, W, 3), self.dtype)
        for i, img in enumerate(imgs):
            x[i, : img.shape[1], : img.shape[2]] = self.extractor.preprocess(img).transpose(1, 2, 0)
        return x.transpose(0, 3, 1, 2)

    def _prepare_on_gpu(self, imgs: Sequence[np.ndarray], H: int, W: int) -> Array:
        # Images are copied to the GPU in their own dtype, usually uint8, and normalized there.
        raw = np.zeros((len(imgs), H, W, 3), np.result_type(*imgs))
        for i, img in enumerate(imgs):
            raw[i, : img.shape[1], : img.shape[2]] = img.transpose(1, 2, 0)
        raw = self.xp.asarray(raw)
        x = self.xp.zeros((len(imgs), 3, H, W), self.dtype)
        for i, (_, h, w) in enumerate(img.shape for img in imgs):
            x[i, :, :h, :w] = self.extractor.preprocess(raw[i, :h, :w].transpose(2, 0, 1))
        return x

    def predict(
        self, imgs: Sequence[np.ndarray], score_thresh: float = 0.0
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Detect objects in images, without score threshold and suppression.

        Args:
            imgs (sequence of arrays): RGB images in [0, 255], :math:`(3, H, W)`, already resized.
            score_thresh (float): Class-specific boxes with lower scores are not decoded and are
                returned as 0.

        Returns:
            list of pairs of arrays: For each image, boxes :math:`(K, B, 4)` relative to the image
            size, in [0, 1], where :math:`B` is 1 or, for class-specific boxes, :math:`C`; and
            scores :math:`(K, C)` in [0, 1]. NumPy arrays.

        Raises:
            NotFiniteError: The outputs of the region proposal network have a NaN or an infinity.
        """
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            x = self.prepare(imgs)
            hs = self.extractor(x)
            locs, confs, n_anchors = self.rpn(hs)
            _check_finite(locs.array, confs.array)
            anchors = self.rpn.anchors([h.shape[2:] for h in hs])
            proposals = self.rpn.decode(locs.array, confs.array, anchors, n_anchors, x.shape[2:])
            image, index = self.xp.nonzero(proposals.valid)
            rois = proposals.bbox[image, index]
            if len(rois) == 0:
                return [
                    (
                        np.zeros((0, self.head.n_box, 4), self.dtype),
                        np.zeros((0, self.n_class), self.dtype),
                    )
                ] * len(imgs)
            offset, conf = self.head(hs, rois, image.astype(np.int32))
            score = self.head.score(conf)
        size = self.xp.asarray([img.shape[1:] for img in imgs], dtype=self.dtype)[image][:, None]
        chosen = score >= score_thresh if score_thresh > 0 and self.head.n_box > 1 else None
        bbox = relative_boxes(offset.array, rois[:, None], size, self.head.std, chosen)
        if self.descendants is not None:
            bbox, score = self._expanded(bbox, score, self.descendants)
        image, bbox, score = (chainer.backends.cuda.to_cpu(a) for a in (image, bbox, score))
        # Proposals are ordered by image.
        ends = np.searchsorted(image, np.arange(len(imgs) + 1))
        return [
            (bbox[ends[i] : ends[i + 1]], score[ends[i] : ends[i + 1]]) for i in range(len(imgs))
        ]

    def _expanded(self, bbox: Array, score: Array, descendants: np.ndarray) -> tuple[Array, Array]:
        """Boxes and scores, where a class takes those of a descendant with a higher score."""
        if self.head.n_box == 1:
            return bbox, expand_scores(score, descendants)
        highest = highest_in_family(score, descendants)
        rows = self.xp.arange(len(score))[:, None]
        return bbox[rows, highest], score[rows, highest]


def _check_finite(locs: Array, confs: Array) -> None:
    """Refuse outputs of the region proposal network that are not finite.

    Proposals made of them would be dropped silently.
    """
    xp = chainer.backends.cuda.get_array_module(confs)
    finite = xp.isfinite(confs).all(axis=1) & xp.isfinite(locs).all(axis=(1, 2))
    for image in np.flatnonzero(~chainer.backends.cuda.to_cpu(finite)):
        raise NotFiniteError('proposals', int(image))


def relative_boxes(
    offset: Array, rois: Array, size: Array, std: tuple[float, float], chosen: Array | None = None
) -> Array:
    """Decode boxes, clip them to their images and divide them by the image sizes.

    Args:
        offset (array): Offsets from the head, :math:`(R, B, 4)`.
        rois (array): Regions of interest in pixels, :math:`(R, 1, 4)`.
        size (array): Height and width of each region's image, :math:`(R, 1, 2)`.
        std (pair of float): Divisors of the offsets, see :func:`pfdet.boxes.coding.decode`.
        chosen (bool array): Boxes to decode, :math:`(R, B)`; the others are 0. By default, all.

    Returns:
        array: Boxes :math:`(R, B, 4)` in [0, 1].
    """
    xp = chainer.backends.cuda.get_array_module(offset)
    if chosen is not None:
        index = xp.flatnonzero(chosen)
        row = index // offset.shape[1]
        bbox = xp.zeros(offset.shape, offset.dtype)
        bbox.reshape(-1, 4)[index] = relative_boxes(
            offset.reshape(-1, 4).take(index, axis=0),
            rois[:, 0].take(row, axis=0),
            size[:, 0].take(row, axis=0),
            std,
        )
        return bbox
    bbox = coding.clip(coding.decode(offset, rois, std), size)
    bbox /= xp.concatenate([size, size], axis=-1)
    return bbox
