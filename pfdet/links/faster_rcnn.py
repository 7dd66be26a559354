"""The detector: backbone with pyramid, region proposals, and the head."""

from collections.abc import Sequence

import chainer
import numpy as np

from pfdet.boxes import coding
from pfdet.links.bbox_head import BboxHead
from pfdet.links.fpn import FPN
from pfdet.links.rpn import RPN


class FasterRCNN(chainer.Chain):
    """Faster R-CNN with a feature pyramid and a multi-label head (PFDet, section 2.1).

    Args:
        extractor (FPN): Maps images to feature maps.
        rpn (RPN): Maps feature maps to proposals.
        head (BboxHead): Maps feature maps and boxes to classes and boxes.
    """

    def __init__(self, extractor: FPN, rpn: RPN, head: BboxHead):
        super().__init__()
        with self.init_scope():
            self.extractor = extractor
            self.rpn = rpn
            self.head = head

    @property
    def stride(self) -> int:
        """Height and width of a batch are padded to multiples of this."""
        return self.extractor.stride

    @property
    def dtype(self) -> np.dtype:
        """Type of the parameters, and so of all that is computed."""
        return self.rpn.conf.W.dtype

    @property
    def n_class(self) -> int:
        """Number of foreground classes."""
        return self.head.n_class

    def padded_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """The multiples of the stride that a height and a width are padded to."""
        return -(-int(size[0]) // self.stride) * self.stride, (
            -(-int(size[1]) // self.stride) * self.stride
        )

    def prepare(self, imgs: Sequence[np.ndarray], size: tuple[int, int] | None = None):
        """Make a batch of images of different sizes.

        Args:
            imgs (sequence of arrays): RGB in [0, 255], :math:`(3, H, W)`, any numeric type.
            size (pair of int): Height and width to pad to at least.

        Returns:
            array: :math:`(N, 3, H', W')` as the backbone expects it, zero where padded.
        """
        size = np.max([img.shape[1:] for img in imgs] + ([size] if size else []), axis=0)
        H, W = self.padded_size(size)
        if self.xp is not np:
            return self._prepare_on_gpu(imgs, H, W)
        x = np.zeros((len(imgs), H, W, 3), self.dtype)
        for i, img in enumerate(imgs):
            x[i, : img.shape[1], : img.shape[2]] = self.extractor.preprocess(img).transpose(1, 2, 0)
        return x.transpose(0, 3, 1, 2)

    def _prepare_on_gpu(self, imgs: Sequence[np.ndarray], H: int, W: int):
        # The images travel as they are, a byte a colour, and are normalized there.
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
        """Boxes and class scores of images, before any threshold or suppression.

        Args:
            imgs (sequence of arrays): RGB in [0, 255], :math:`(3, H, W)`, already of the size at
                which to detect.
            score_thresh (float): With a box a class, the boxes of lower scores are of no interest:
                they are not computed, and 0.

        Returns:
            list of pairs of arrays: For each image boxes :math:`(K, B, 4)` relative to the image,
            in [0, 1], where :math:`B` is 1 or, with a box a class, :math:`C`; and scores
            :math:`(K, C)` in [0, 1]. On the CPU.
        """
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            x = self.prepare(imgs)
            hs = self.extractor(x)
            locs, confs, n_anchors = self.rpn(hs)
            anchors = self.rpn.anchors([h.shape[2:] for h in hs])
            proposals = self.rpn.decode(locs.array, confs.array, anchors, n_anchors, x.shape[2:])
            image, place = self.xp.nonzero(proposals.valid)
            rois = proposals.bbox[image, place]
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
        image, bbox, score = (chainer.backends.cuda.to_cpu(a) for a in (image, bbox, score))
        # The proposals of an image follow those of the image before.
        ends = np.searchsorted(image, np.arange(len(imgs) + 1))
        return [
            (bbox[ends[i] : ends[i + 1]], score[ends[i] : ends[i + 1]]) for i in range(len(imgs))
        ]


def relative_boxes(offset, rois, size, std: tuple[float, float], chosen=None):
    """Decode boxes, clip them to their images and divide by the images' sizes.

    Args:
        offset (array): Of the head, :math:`(R, B, 4)`.
        rois (array): In pixels, :math:`(R, 1, 4)`.
        size (array): Height and width of each region's image, :math:`(R, 1, 2)`.
        std (pair of float): Units of the offsets.
        chosen (bool array): :math:`(R, B)`; the other boxes are 0. All of them by default.

    Returns:
        array: Boxes in [0, 1], :math:`(R, B, 4)`.
    """
    xp = chainer.backends.cuda.get_array_module(offset)
    if chosen is not None:
        place = xp.flatnonzero(chosen)
        row = place // offset.shape[1]
        bbox = xp.zeros(offset.shape, offset.dtype)
        bbox.reshape(-1, 4)[place] = relative_boxes(
            offset.reshape(-1, 4).take(place, axis=0),
            rois[:, 0].take(row, axis=0),
            size[:, 0].take(row, axis=0),
            std,
        )
        return bbox
    bbox = coding.clip(coding.decode(offset, rois, std), size)
    bbox /= xp.concatenate([size, size], axis=-1)
    return bbox
