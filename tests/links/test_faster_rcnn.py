import chainer
import numpy as np
import pytest
from chainer import gradient_check
from chainercv.links.model.fpn import FPN as ChainerCVFPN

from pfdet import recipes
from pfdet.boxes import coding
from pfdet.functions.softmax import softmax_score
from pfdet.links.bbox_head import BboxHead, twice_the_area
from pfdet.links.faster_rcnn import FasterRCNN
from pfdet.links.fpn import FPN
from pfdet.links.se_resnext import MiniSEResNeXt, se_resnext101
from pfdet.training import build


@pytest.fixture(scope='module')
def mini():
    return build.detector(recipes.find('mini'), 7, seed=1)


@pytest.mark.parametrize('backbone', [MiniSEResNeXt, se_resnext101])
def test_backbone_returns_c2_to_c5(backbone):
    base = backbone()
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        hs = base(np.zeros((1, 3, 64, 96), np.float32))
    assert [h.shape[1:] for h in hs] == [
        (c, 64 // s, 96 // s) for c, s in zip(base.out_channels, (4, 8, 16, 32), strict=True)
    ]


def test_fpn_without_bn_equals_chainercv():
    class Base(chainer.Chain):
        out_channels = (5,) * 4

        def forward(self, x):
            return tuple(x[:, :, ::s, ::s] for s in (1, 2, 4, 8))

    theirs = ChainerCVFPN(Base(), 4, tuple(1 / 2**n for n in range(2, 7)))
    ours = FPN(Base(), bn=False)
    x = np.random.default_rng(0).normal(size=(2, 5, 8, 16)).astype(np.float32)
    expected = theirs(x)
    ours.inner.copyparams(theirs.inner)
    ours.outer.copyparams(theirs.outer)
    for a, b in zip(ours(x), expected, strict=True):
        np.testing.assert_allclose(a.array, b.array, atol=1e-4)


def test_fpn_of_five_scales_with_context():
    base = MiniSEResNeXt(width=8)
    fpn = FPN(base, 16, 5, psp=True)
    x = np.random.default_rng(0).normal(size=(2, 3, 128, 192)).astype(np.float32)
    hs = fpn(x)
    assert [h.shape[2:] for h in hs] == [(128 // s, 192 // s) for s in (4, 8, 16, 32, 64)] + [
        (1, 2)
    ]
    assert fpn.stride == 64 and fpn.scales == tuple(1 / 2**n for n in range(2, 8))
    # The fifth scale contributes to the finest output through the top-down path.
    fpn.extra.conv.W.array[...] = 0
    assert abs(fpn(x)[0].array - hs[0].array).max() > 1e-3


def test_fpn_with_an_invalid_number_of_scales():
    with pytest.raises(ValueError, match='4 or 5'):
        FPN(MiniSEResNeXt(), n_scale=3)


def test_preprocessing_of_the_backbone():
    base = MiniSEResNeXt(width=8)
    base.std, base.channel_order = np.array([1, 2, 4], np.float32)[:, None, None], 'BGR'
    img = np.full((3, 2, 2), 130, np.uint8)
    expected = ((130 - base.mean[:, 0, 0]) / [1, 2, 4])[::-1]
    np.testing.assert_allclose(FPN(base).preprocess(img)[:, 0, 0], expected, rtol=1e-6)


def test_context_is_twice_the_area_and_clipped():
    bbox = np.array([[10, 20, 30, 60]], np.float32)
    grown = twice_the_area(bbox)
    np.testing.assert_allclose((grown[:, :2] + grown[:, 2:]) / 2, [[20, 40]])
    np.testing.assert_allclose((grown[:, 2:] - grown[:, :2]).prod(axis=1), 2 * 20 * 40)
    rng = np.random.default_rng(0)
    head = BboxHead(3, (1 / 4,), 4, n_unit=8, bn=False, context=True)
    hs = [rng.normal(size=(1, 4, 16, 16)).astype(np.float32)]
    rois, index = np.array([[0, 0, 40, 40]], np.float32), np.zeros(1, np.int32)
    around = coding.clip(twice_the_area(rois), (64, 64))
    assert (around[0, :2] == 0).all()
    both = np.concatenate([head.pool(hs, b, index).array for b in (rois, around)], axis=1)
    h = chainer.functions.relu(head.fc2(chainer.functions.relu(head.fc1(both))))
    np.testing.assert_allclose(head(hs, rois, index)[1].array, head.conf(h).array, rtol=1e-5)


def test_gradient_through_context_equals_the_numerical_gradient():
    rng = np.random.default_rng(0)
    with chainer.using_config('dtype', np.float64):
        head = BboxHead(
            2, (1 / 4, 1 / 8), 2, n_unit=3, bn=False, context=True, roi_size=2, canonical_size=30
        )
    for param in head.params():
        param.array[...] = rng.normal(size=param.shape)
    hs = rng.normal(size=(1, 2, 8, 8)), rng.normal(size=(1, 2, 4, 4))
    rois = np.array([[2, 3, 11, 12], [4, 1, 30, 29]], np.float64)
    assert set(head.level_of(rois).tolist()) == {0, 1}

    def both(*hs):
        locs, confs = head(hs, rois, np.zeros(2, np.int32))
        return chainer.functions.concat([locs[:, 0], confs], axis=1)

    gradient_check.check_backward(
        both, hs, rng.normal(size=(2, 6)), dtype=np.float64, atol=1e-4, rtol=1e-4
    )


def test_class_specific_boxes():
    head = BboxHead(3, (1 / 4,), 4, n_unit=8, class_agnostic=False)
    hs = [np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)]
    rois = np.array([[0, 0, 40, 40], [8, 8, 30, 20]], np.float32)
    locs, confs = head(hs, rois, np.zeros(2, np.int32))
    assert locs.shape == (2, 3, 4) and confs.shape == (2, 3)


def test_class_specific_boxes_of_low_scores_are_zero(mini):
    detector = FasterRCNN(
        mini.extractor,
        mini.rpn,
        BboxHead(5, mini.head.scales, mini.rpn.conv.W.shape[1], n_unit=16, class_agnostic=False),
    )
    detector.head.loc.W.array[:] = np.random.default_rng(0).normal(
        0, 0.2, detector.head.loc.W.shape
    )
    imgs = [np.random.default_rng(k).uniform(0, 255, (3, 64, 90)) for k in range(2)]
    full = detector.predict(imgs)
    thresh = float(np.median(full[0][1]))
    for (bbox, score), (partial, same_score) in zip(full, detector.predict(imgs, thresh)):
        np.testing.assert_array_equal(same_score, score)
        chosen = score >= thresh
        assert chosen.any() and not chosen.all()
        np.testing.assert_array_equal(partial, np.where(chosen[:, :, None], bbox, 0))


def test_softmax_head_has_a_background_logit_and_no_background_score():
    head = BboxHead(3, (1 / 4,), 4, background=True, score=softmax_score, n_unit=8)
    hs = [np.random.default_rng(0).normal(size=(1, 4, 16, 16)).astype(np.float32)]
    rois = np.array([[0, 0, 40, 40], [8, 8, 30, 20]], np.float32)
    _, confs = head(hs, rois, np.zeros(2, np.int32))
    assert confs.shape == (2, 4)
    expected = chainer.functions.softmax(confs).array[:, :3]
    np.testing.assert_allclose(head.score(confs), expected, rtol=1e-5)


def test_head_keeps_the_order_of_boxes():
    rng = np.random.default_rng(0)
    head = BboxHead(3, (1 / 4, 1 / 8), 4, n_unit=8, canonical_size=70)
    hs = [rng.normal(size=(2, 4, s, s)).astype(np.float32) for s in (16, 8)]
    corner = rng.uniform(0, 30, (9, 2))
    rois = np.concatenate([corner, corner + rng.uniform(2, 60, (9, 2))], axis=1).astype(np.float32)
    indices = rng.integers(0, 2, 9).astype(np.int32)
    assert len(set(head.level_of(rois).tolist())) == 2
    with chainer.using_config('train', False):
        locs, confs = head(hs, rois, indices)
        for i in range(9):
            loc, conf = head(hs, rois[i : i + 1], indices[i : i + 1])
            np.testing.assert_allclose(locs.array[i], loc.array[0], atol=1e-5)
            np.testing.assert_allclose(confs.array[i], conf.array[0], atol=1e-5)


def test_level_of_a_box_equals_the_papers_equation():
    head = BboxHead(3, (1 / 4, 1 / 8, 1 / 16, 1 / 32), 4, n_unit=8)
    side = np.array([10, 111, 113, 223, 224, 447, 449, 900], np.float32)
    rois = np.stack([side * 0, side * 0, side, side], axis=1)
    # k = floor(4 + log2(side / 224)), clipped. Level 0 is P2.
    np.testing.assert_array_equal(head.level_of(rois), [0, 0, 1, 1, 2, 2, 3, 3])


def test_untrained_head_returns_its_prior():
    head = BboxHead(3, (1 / 4,), 4, n_unit=8, prior=0.03)
    np.testing.assert_allclose(chainer.functions.sigmoid(head.conf.b).array, 0.03, rtol=1e-5)


def test_prepare_pads_and_subtracts(mini):
    imgs = [np.full((3, 20, 40), 200, np.uint8), np.full((3, 33, 10), 100, np.uint8)]
    x = mini.prepare(imgs)
    assert x.shape == (2, 3, 64, 64) and x.dtype == np.float32
    mean = mini.extractor.base.mean[:, 0, 0]
    np.testing.assert_allclose(x[0, :, 19, 39], 200 - mean)
    assert (x[0, :, 20:] == 0).all() and (x[1, :, :, 10:] == 0).all()
    assert mini.prepare(imgs, (65, 64)).shape == (2, 3, 96, 64)


@pytest.fixture(scope='module')
def two_images():
    rng = np.random.default_rng(0)
    return [rng.integers(0, 255, (3, 64, 96)).astype(np.uint8) for _ in range(2)]


def test_features_do_not_depend_on_the_batch(mini, two_images):
    """Up to rounding, which in a matrix product may depend on the number of rows."""
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        batch = mini.extractor(mini.prepare(two_images))
        *outputs, n_anchors = mini.rpn(batch)
        for i, img in enumerate(two_images):
            single = mini.extractor(mini.prepare([img]))
            *single_outputs, single_n_anchors = mini.rpn(single)
            assert single_n_anchors == n_anchors
            for a, b in zip([*single, *single_outputs], [*batch, *outputs], strict=True):
                np.testing.assert_allclose(a.array[0], b.array[i], rtol=1e-4, atol=1e-4)


def test_decoding_does_not_depend_on_the_batch(mini):
    """The same logits give exactly the same proposals, because nothing is rounded differently."""
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3), (1, 2)]
    anchors = mini.rpn.anchors(sizes)
    n_anchors = [h * w * len(mini.rpn.anchor_ratios) for h, w in sizes]
    rng = np.random.default_rng(0)
    locs = rng.normal(0, 0.2, (3, len(anchors), 4)).astype(np.float32)
    confs = rng.normal(0, 1, (3, len(anchors))).astype(np.float32)
    with chainer.using_config('train', False):
        batch = mini.rpn.decode(locs, confs, anchors, n_anchors, (64, 96))
        for i in range(3):
            single = mini.rpn.decode(
                locs[i : i + 1], confs[i : i + 1], anchors, n_anchors, (64, 96)
            )
            n = single.valid.sum()
            assert n == batch.valid[i].sum() > 20
            for a, b in zip(single, batch, strict=True):
                np.testing.assert_array_equal(a[0, :n], b[i, :n])


def test_predict_is_in_the_image_and_independent_of_the_batch(mini, two_images):
    """Compare as sets: boxes of almost equal score may be swapped or replace each other."""
    batch = mini.predict(two_images)
    for img, (bbox, score) in zip(two_images, batch, strict=True):
        assert len(bbox) == len(score) > 0 and score.shape[1] == 7
        assert (bbox >= 0).all() and (bbox <= 1).all()
        ((single_bbox, single_score),) = mini.predict([img])
        rows = np.concatenate([bbox[:, 0], score], axis=1)
        single_rows = np.concatenate([single_bbox[:, 0], single_score], axis=1)
        distance = abs(rows[:, None] - single_rows).max(axis=2)
        matched = (distance.min(axis=1) < 1e-3).mean(), (distance.min(axis=0) < 1e-3).mean()
        assert min(matched) > 0.95 and abs(len(bbox) - len(single_bbox)) <= 0.05 * len(bbox)


def test_same_seed_same_weights(mini):
    again = build.detector(recipes.find('mini'), 7, seed=1)
    other = build.detector(recipes.find('mini'), 7, seed=2)
    a, b, c = (dict(m.namedparams()) for m in (mini, again, other))
    assert all((a[k].array == b[k].array).all() for k in a)
    assert any((a[k].array != c[k].array).any() for k in a)
