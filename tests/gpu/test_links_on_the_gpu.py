"""Outputs and gradients of links on the GPU against those on the CPU."""

import chainer
import chainer.functions as F
import numpy as np
import pytest
from chainer.backends import cuda

from pfdet.boxes import coding
from pfdet.boxes.proposal_nms import suppress_sorted
from pfdet.functions.roi_align import pyramid_roi_align
from pfdet.links.bbox_head import BboxHead
from pfdet.links.efficientnet import EfficientNet
from pfdet.links.fpn import FPN
from pfdet.links.psp import PyramidSpatialPooling
from pfdet.links.resnet import ResNet
from pfdet.links.rpn import RPN
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.links.senet import SENet

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]

SHALLOW = 1, 1, 1, 1
BACKBONES = {
    'resnet': lambda: ResNet(SHALLOW),
    'resnext': lambda: ResNet(SHALLOW, 128, 32),
    'se_resnext': lambda: ResNet(SHALLOW, 128, 32, se=True),
    'senet': lambda: SENet(SHALLOW, 16, 64),
    'efficientnet': lambda: EfficientNet(0.5, 0.5),
    'mini': MiniSEResNeXt,
}
LINKS = {
    'fpn': lambda: FPN(MiniSEResNeXt(width=8), 16),
    'fpn of five scales': lambda: FPN(MiniSEResNeXt(width=8), 16, 5, psp=True),
    'fpn without bn': lambda: FPN(MiniSEResNeXt(width=8), 16, bn=False),
    'psp': lambda: PyramidSpatialPooling(8),
}


def assert_close(ours, theirs):
    """Compare with a tolerance of a thousandth of the largest entry."""
    assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
    np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3 * abs(theirs).max(initial=1e-6))


def run(link, *arrays, gpu, train=True):
    """Return outputs, gradients of input and parameters, and running statistics of a link."""
    link = link.copy('copy')
    if gpu:
        link.to_gpu()
        arrays = [cuda.to_gpu(a) if isinstance(a, np.ndarray) else a for a in arrays]
    link.cleargrads()
    x = chainer.Variable(arrays[0])
    with chainer.using_config('train', train):
        ys = link(x, *arrays[1:])
    ys = [
        y for y in (ys if isinstance(ys, list | tuple) else [ys]) if isinstance(y, chainer.Variable)
    ]
    # Unlike a sum, this loss depends on every position differently.
    loss = sum(F.sum(F.cos(y) * y) for y in ys)
    loss.backward()
    results = (
        [y.array for y in ys]
        + [x.grad]
        + [p.grad for _, p in sorted(link.namedparams()) if p.grad is not None]
    )
    results += [
        value
        for child in link.links()
        for name in sorted(child._persistent)
        if isinstance(value := getattr(child, name), chainer.get_array_types())
    ]
    return [cuda.to_cpu(a) for a in results]


def compare(link, *arrays, **kwargs):
    on_cpu, on_gpu = (run(link, *arrays, gpu=gpu, **kwargs) for gpu in (False, True))
    assert len(on_cpu) > 2
    for ours, theirs in zip(on_gpu, on_cpu, strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize('name', BACKBONES)
def test_backbones(name):
    np.random.seed(0)
    # float64, because batch normalization over few positions amplifies rounding errors.
    x = np.random.default_rng(0).normal(size=(2, 3, 32, 64))
    with chainer.using_config('dtype', np.float64):
        link = BACKBONES[name]()
    compare(link, x)


@pytest.mark.parametrize('name', LINKS)
@pytest.mark.parametrize('train', [True, False])
def test_pyramids(name, train):
    np.random.seed(0)
    shape = (2, 8, 9, 13) if name == 'psp' else (2, 3, 64, 128)
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    compare(LINKS[name](), x, train=train)


def test_preprocessing():
    fpn = FPN(MiniSEResNeXt(width=8))
    fpn.base.channel_order, fpn.base.std = 'BGR', [1, 2, 3]
    img = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
    assert_close(cuda.to_cpu(fpn.preprocess(cuda.to_gpu(img))), fpn.preprocess(img))


def random_boxes(rng, *shape, size=100):
    corner = rng.uniform(-10, size - 10, (*shape, 2))
    return np.concatenate([corner, corner + rng.uniform(1, 60, (*shape, 2))], axis=-1).astype(
        np.float32
    )


@pytest.mark.parametrize('sizes', [(12, 6, 3), (12, 6, 1)])
@pytest.mark.parametrize('class_agnostic, context, bn', [(True, True, True), (False, False, False)])
def test_head(sizes, class_agnostic, context, bn):
    rng = np.random.default_rng(0)
    np.random.seed(0)
    head = BboxHead(
        5,
        (1 / 4, 1 / 8, 1 / 16)[: len(sizes)],
        6,
        n_unit=8,
        bn=bn,
        context=context,
        class_agnostic=class_agnostic,
        canonical_size=40,
    )
    rois = coding.clip(random_boxes(rng, 40, size=48), (48, 64))
    indices = rng.integers(0, 2, 40).astype(np.int32)
    maps = [rng.normal(size=(2, 6, s, s * 4 // 3)).astype(np.float32) for s in sizes]

    class HeadOfMaps(chainer.Chain):
        def __init__(self):
            super().__init__()
            with self.init_scope():
                self.head = head

        def forward(self, x, *rest):
            return self.head([x, *rest[:-2]], *rest[-2:])

    compare(HeadOfMaps(), *maps, rois, indices)


@pytest.mark.parametrize('levels', [[0, 1, 2], [1], []])
def test_roi_align_of_a_pyramid(levels):
    rng = np.random.default_rng(0)
    maps = [rng.normal(size=(2, 3, s, s)).astype(np.float32) for s in (16, 8, 4)]
    rois = random_boxes(rng, 30 if levels else 1, size=64)
    level = rng.choice(levels or [2], len(rois)).astype(np.int32)
    indices = rng.integers(0, 2, len(rois)).astype(np.int32)
    results = []
    for to_device in (lambda a: a), cuda.to_gpu:
        xs = [chainer.Variable(to_device(x)) for x in maps]
        y = pyramid_roi_align(
            xs, *map(to_device, (rois, indices, level)), (3, 2), (1 / 4, 1 / 8, 1 / 16)
        )
        F.sum(y * y).backward()
        results.append([cuda.to_cpu(a) for a in (y.array, *(x.grad for x in xs)) if a is not None])
    # Unused maps have a gradient of zero or none.
    results = [[a for a in arrays if a.any()] for arrays in results]
    for ours, theirs in zip(results[1], results[0], strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize('n_box', [1, 63, 64, 65, 300])
def test_suppression(n_box):
    rng = np.random.default_rng(n_box)
    bbox = random_boxes(rng, 6, n_box)
    valid = rng.random((6, n_box)) < [[1], [0.9], [0.5], [0], [0.9], [0.9]]
    on_gpu = suppress_sorted(cuda.to_gpu(bbox), cuda.to_gpu(valid), 0.4)
    keep = suppress_sorted(bbox, valid, 0.4)
    if n_box > 60:
        assert keep[0].sum() < n_box - 5
    np.testing.assert_array_equal(cuda.to_cpu(on_gpu), keep)


def test_suppression_of_nothing():
    empty = suppress_sorted(cuda.cupy.zeros((0, 5, 4), 'f'), cuda.cupy.zeros((0, 5), bool), 0.5)
    assert empty.shape == (0, 5) and empty.dtype == bool


@pytest.mark.parametrize('train', [True, False])
def test_rpn(train):
    rng = np.random.default_rng(0)
    np.random.seed(0)
    sizes = [(12, 16), (6, 8), (3, 4)]
    rpn = RPN(
        (1 / 4, 1 / 8, 1 / 16), (0.5, 1, 2), 32, 4, train_limits=(50, 60), test_limits=(40, 30)
    )
    hs = [rng.normal(size=(2, 4, *s)).astype(np.float32) for s in sizes]
    results = []
    for gpu in False, True:
        link = rpn.copy('copy')
        if gpu:
            link.to_gpu()
        with chainer.using_config('train', train):
            locs, confs, n = link([cuda.to_gpu(h) if gpu else h for h in hs])
            anchors = link.anchors(sizes)
            # Random offsets and logits, because those of initial weights are almost equal.
            locs, confs = (
                np.random.default_rng(1).normal(scale=s, size=a.shape).astype('f')
                for s, a in ((0.3, locs), (1, confs))
            )
            if gpu:
                locs, confs = cuda.to_gpu((locs, confs))
            results.append(
                [cuda.to_cpu(a) for a in (anchors, *link.decode(locs, confs, anchors, n, (48, 64)))]
            )
    (anchors, bbox, valid, anchor), (gpu_anchors, gpu_bbox, gpu_valid, gpu_anchor) = results
    np.testing.assert_array_equal(gpu_anchors, anchors)
    assert gpu_anchors.dtype == np.float32 and gpu_bbox.dtype == bbox.dtype
    for i in range(2):
        # On the GPU there may be more invalid entries at the end.
        np.testing.assert_array_equal(gpu_anchor[i][gpu_valid[i]], anchor[i][valid[i]])
        assert_close(gpu_bbox[i][gpu_valid[i]], bbox[i][valid[i]])
