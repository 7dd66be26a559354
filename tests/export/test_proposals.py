"""Anchors and proposals in ONNX Runtime against the RPN, and against plain loops."""

import numpy as np
import pytest

from pfdet.export.proposals import Level, decode, write_proposals, write_rpn
from pfdet.links.rpn import RPN


def _run(rpn, run_graph, locs, confs, anchors, size):
    """Proposals of outputs of the RPN, by level: boxes by image."""
    inputs = {'size': np.array(size, np.int64)}
    for k, arrays in enumerate(zip(locs, confs, anchors, strict=True)):
        inputs.update(zip((f'loc{k}', f'conf{k}', f'anchor{k}'), arrays, strict=True))

    def write(graph, size, **values):
        levels = [
            Level(values[f'loc{k}'], values[f'conf{k}'], values[f'anchor{k}'])
            for k in range(len(locs))
        ]
        return write_proposals(graph, rpn, levels, size)._asdict()

    result = run_graph(rpn, write, inputs)
    assert (np.diff(result['image']) >= 0).all()
    return [result['bbox'][result['image'] == i] for i in range(len(confs[0]))]


@pytest.mark.parametrize('limits', [(1000, 1000), (20, 1000), (20, 30), (1000, 7), (1, 1)])
def test_proposals(limits, run_graph):
    rng = np.random.default_rng(0)
    rpn = RPN((1 / 4, 1 / 8, 1 / 16), anchor_size=16, test_limits=limits)
    sizes = [(8, 12), (4, 6), (2, 3)]
    anchors = [
        RPN((scale,), anchor_size=16).anchors([size])
        for scale, size in zip(rpn.scales, sizes, strict=True)
    ]
    locs = [rng.normal(0, 0.7, (2, len(a), 4)).astype(np.float32) for a in anchors]
    confs = [rng.normal(0, 3, (2, len(a))).astype(np.float32) for a in anchors]
    # Not ordered by objectness: NaN-free, with negative logits only in the second image
    confs = [conf - [[0], [20]] for conf in confs]
    confs = [conf.astype(np.float32) for conf in confs]
    actual = _run(rpn, run_graph, locs, confs, anchors, (32, 48))
    import chainer

    with chainer.using_config('train', False):
        expected = rpn.decode(
            np.concatenate(locs, axis=1),
            np.concatenate(confs, axis=1),
            np.concatenate(anchors),
            [len(a) for a in anchors],
            (32, 48),
        )
    for bbox, all_, valid in zip(actual, expected.bbox, expected.valid, strict=True):
        np.testing.assert_allclose(bbox, all_[valid], atol=1e-4)


@pytest.mark.parametrize(
    ('thresh', 'shift', 'kept'),
    [
        # IoU of squares of side 16, one moved by `shift`: (16 - shift) / (16 + shift)
        (0.6, 4, 1),  # exactly 0.6
        (0.6, 4.01, 2),
        (0.6, 3.99, 1),
        (1 / 3, 8, 1),  # exactly 1 / 3
        (1 / 3, 8.01, 2),
        (1.0, 0, 1),  # equal boxes
        (1.0, 0.01, 2),
    ],
)
def test_suppression_at_the_threshold(thresh, shift, kept, run_graph):
    rpn = RPN((1 / 4,), nms_thresh=thresh)
    anchor = np.array([[16, 16, 32, 32], [16, 16 + shift, 32, 32 + shift]], np.float32)
    loc = np.zeros((1, 2, 4), np.float32)
    conf = np.array([[-3.0, -2.0]], np.float32)
    (bbox,) = _run(rpn, run_graph, [loc], [conf], [anchor], (64, 64))
    assert len(bbox) == kept
    np.testing.assert_allclose(bbox[0], anchor[1], atol=1e-5)
    valid = rpn.decode(loc, conf, anchor, [2], (64, 64)).valid
    assert valid.sum() == kept


def test_boxes_without_extent_are_no_proposals_and_suppress_nothing(run_graph):
    rpn = RPN((1 / 4,))
    anchor = np.array(
        [[10, 10, 20, 20], [-30, 5, -10, 9], [10, 70, 20, 90], [11, 10, 20, 20], [0, 0, 9, 64]],
        np.float32,
    )
    conf = np.array([[1, 5, 4, 0, 2]], np.float32)
    loc = np.zeros((1, 5, 4), np.float32)
    (bbox,) = _run(rpn, run_graph, [loc], [conf], [anchor], (64, 64))
    np.testing.assert_allclose(bbox, anchor[[4, 0]], atol=1e-5)


def test_equal_scores_keep_the_order_of_anchors(run_graph):
    rpn = RPN((1 / 4,), test_limits=(3, 2))
    anchor = np.array([[0, 10 * k, 9, 10 * k + 9] for k in range(5)], np.float32)
    (bbox,) = _run(
        rpn,
        run_graph,
        [np.zeros((1, 5, 4), np.float32)],
        [np.array([[0, 1, 1, 1, 1]], np.float32)],
        [anchor],
        (64, 64),
    )
    np.testing.assert_allclose(bbox, anchor[[1, 2]], atol=1e-5)


@pytest.mark.parametrize('ratios', [(0.5, 1, 2), (1 / 3, 0.5, 1, 2, 3), (1,)])
def test_anchors_are_equal_to_the_last_bit(ratios, run_graph):
    rpn = RPN((1 / 4, 1 / 8), ratios, anchor_size=24, n_channel=4)
    hs = {'h0': np.zeros((2, 4, 6, 9), np.float32), 'h1': np.zeros((2, 4, 3, 5), np.float32)}

    def write(graph, h0, h1):
        levels = write_rpn(graph, rpn, [h0, h1])
        return {f'anchor{k}': level.anchor for k, level in enumerate(levels)}

    actual = np.concatenate(list(run_graph(rpn, write, hs).values()))
    np.testing.assert_array_equal(actual, rpn.anchors([(6, 9), (3, 5)]))


def test_outputs_of_the_rpn_are_in_the_order_of_anchors(run_graph, forward):
    rng = np.random.default_rng(0)
    rpn = RPN((1 / 4, 1 / 8), n_channel=4)
    hs = [rng.normal(size=(2, 4, *size)).astype(np.float32) for size in ((6, 9), (3, 5))]

    def write(graph, **values):
        levels = write_rpn(graph, rpn, list(values.values()))
        return {
            'loc': graph.concatenate([level.loc for level in levels], axis=1),
            'conf': graph.concatenate([level.conf for level in levels], axis=1),
        }

    actual = run_graph(rpn, write, {f'h{k}': h for k, h in enumerate(hs)})
    loc, conf, _ = rpn(hs)
    np.testing.assert_allclose(actual['loc'], loc.array, atol=1e-5)
    np.testing.assert_allclose(actual['conf'], conf.array, atol=1e-5)


def test_decoding_of_large_offsets(run_graph):
    """The size of a box grows by at most 1000 / 16, however large the offset is."""
    base = np.array([[10, 20, 26, 52]], np.float32)
    offset = np.array([[0.1, -0.2, 100, 0.5], [0, 0, 0, 0], [1, 1, -100, 2]], np.float32)
    expected = []
    for dy, dx, dh, dw in offset:
        height, width = 16 * min(np.exp(dh * 0.2), 62.5), 32 * min(np.exp(dw * 0.2), 62.5)
        y, x = 18 + dy * 0.1 * 16, 36 + dx * 0.1 * 32
        expected.append([y - height / 2, x - width / 2, y + height / 2, x + width / 2])
    actual = run_graph(
        RPN((1,)),
        lambda graph, offset, base: decode(graph, offset, base, (0.1, 0.2)),
        {'offset': offset, 'base': base},
    )['y']
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-4)
