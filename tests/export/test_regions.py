"""Pooling, scores and expansion in ONNX Runtime against NumPy."""

import chainer
import numpy as np
import pytest

from pfdet.export.proposals import Regions
from pfdet.export.regions import write_boxes, write_expansion, write_head, write_score
from pfdet.functions.concurrent_softmax import concurrent_softmax_score
from pfdet.functions.expand_scores import expand_scores, highest_in_family
from pfdet.functions.losses import SCORES, score_function
from pfdet.links.bbox_head import BboxHead
from pfdet.links.faster_rcnn import relative_boxes

_SCALES = (1 / 4, 1 / 8, 1 / 16, 1 / 32)


def _regions_of_all_kinds(rng):
    """Regions of every level, at every border, thinner than a bin and of whole images."""
    low, high = np.sort(rng.uniform(-10, 210, (2, 40, 2)), axis=0)
    special = [
        [0, 0, 192, 192],
        [0, 0, 56, 56],  # exactly at the bounds of levels with a canonical size of 56
        [0, 0, 28, 28],
        [10, 10, 122, 122],
        [50, 60, 50.3, 60.2],
        [0, 191, 192, 192],
        [191.9, 0, 192, 1],
        [-50, -50, -40, -40],
    ]
    rois = np.concatenate([np.concatenate([low, high], axis=1), special]).astype(np.float32)
    return rois, rng.integers(0, 2, len(rois))


@pytest.mark.parametrize(
    'options',
    [
        {},
        {'context': True, 'bn': False},
        {'roi_size': 3, 'sampling_ratio': 1},
        {'roi_size': 2, 'sampling_ratio': 3, 'n_conv': 2, 'n_fc': 1, 'class_agnostic': False},
        {'background': True, 'n_fc': 3},
    ],
)
@pytest.mark.parametrize('n', [48, 3, 0])
def test_head(options, n, randomized, run_graph):
    rng = np.random.default_rng(0)
    head = randomized(BboxHead(5, _SCALES, 6, n_unit=10, canonical_size=56, **options))
    hs = {f'p{k}': rng.normal(size=(2, 6, 48 >> k, 48 >> k)).astype('f') for k in range(4)}
    roi, image = (a[len(a) - n :] for a in _regions_of_all_kinds(rng))

    def write(graph, roi, image, **maps):
        outputs = write_head(graph, head, list(maps.values()), Regions(roi, image))
        return dict(zip(('offset', 'conf'), outputs, strict=True))

    actual = run_graph(head, write, {**hs, 'roi': roi, 'image': image})
    if n == 0:
        n_logit = 5 + options.get('background', False)
        assert actual['conf'].shape == (0, n_logit)
        assert actual['offset'].shape == (0, head.n_box, 4)
        return
    with chainer.using_config('train', False), chainer.no_backprop_mode():
        offset, conf = head(list(hs.values()), roi, image.astype(np.int32))
    np.testing.assert_allclose(actual['offset'], offset.array, atol=1e-5)
    np.testing.assert_allclose(actual['conf'], conf.array, atol=1e-4)


@pytest.mark.parametrize('name', SCORES)
@pytest.mark.parametrize('scale', [1, 30, 100])
def test_scores(name, scale, run_graph):
    """Also of logits so large that exponentials overflow in float32."""
    rng = np.random.default_rng(0)
    background = SCORES[name].background
    rates = rng.choice([0, 0.3, 1], (6, 6)).astype(np.float32)
    head = BboxHead(6, _SCALES, 6, background, score_function(name, rates), n_unit=4)
    x = rng.normal(0, scale, (50, 6 + background)).astype(np.float32)
    actual = run_graph(head, lambda graph, x: write_score(graph, head, x), {'x': x})['y']
    # Small scores keep their relative precision: with class-specific boxes, the highest of a family
    # decides whose box it gets.
    np.testing.assert_allclose(actual, head._score(x), rtol=1e-4, atol=1e-25)


def test_concurrent_softmax_below_a_larger_logit_of_weight_0(run_graph):
    rates = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    head = BboxHead(3, _SCALES, 6, True, score_function('concurrent_softmax', rates), n_unit=4)
    # Class 1 does not compete with class 0, which is therefore decided among classes 0 and 2.
    x = np.array([[-200, 0, -201, -300], [10, 500, 9, -5]], np.float32)
    actual = run_graph(head, lambda graph, x: write_score(graph, head, x), {'x': x})['y']
    np.testing.assert_allclose(actual[:, 0], 1 / (1 + np.exp(-1)), rtol=1e-4)
    np.testing.assert_allclose(actual, concurrent_softmax_score(x, rates), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('class_specific', [True, False])
@pytest.mark.parametrize('n', [20, 0])
def test_expansion(class_specific, n, run_graph):
    rng = np.random.default_rng(0)
    descendants = np.zeros((9, 9), bool)
    for parent, children in (0, [1, 2, 3, 8]), (2, [3]), (5, [4, 7]):
        descendants[parent, children] = True
    # Of few values, so that many scores are equal
    score = rng.choice([0.1, 0.5, 0.9], (n, 9)).astype(np.float32)
    bbox = rng.uniform(size=(n, 9 if class_specific else 1, 4)).astype(np.float32)
    head = BboxHead(9, _SCALES, 6, n_unit=4)

    def write(graph, bbox, score):
        outputs = write_expansion(graph, bbox, score, descendants, class_specific)
        return dict(zip(('bbox', 'score'), outputs, strict=True))

    actual = run_graph(head, write, {'bbox': bbox, 'score': score})
    np.testing.assert_array_equal(actual['score'], expand_scores(score, descendants))
    if class_specific:
        rows = np.arange(n)[:, None]
        bbox = bbox[rows, highest_in_family(score, descendants)]
    np.testing.assert_array_equal(actual['bbox'], bbox)


def test_expansion_without_parents(run_graph):
    score = np.array([[0.1, 0.2]], np.float32)
    bbox = np.ones((1, 1, 4), np.float32)
    head = BboxHead(2, _SCALES, 6, n_unit=4)

    def write(graph, bbox, score):
        none = np.zeros((2, 2), bool)
        return write_expansion(graph, bbox, score, none, False)[1]

    np.testing.assert_array_equal(
        run_graph(head, write, {'bbox': bbox, 'score': score})['y'], score
    )


def test_boxes_relative_to_the_sizes_of_their_images(run_graph):
    rng = np.random.default_rng(0)
    head = BboxHead(3, _SCALES, 6, n_unit=4, class_agnostic=False)
    roi, image = _regions_of_all_kinds(rng)
    offset = rng.normal(0, 4, (len(roi), 3, 4)).astype(np.float32)
    sizes = np.array([[150, 101], [192, 64]])
    actual = run_graph(
        head,
        lambda graph, offset, roi, image, sizes: write_boxes(
            graph, head, offset, Regions(roi, image), sizes
        ),
        {'offset': offset, 'roi': roi, 'image': image, 'sizes': sizes},
    )['y']
    size = sizes[image][:, None].astype(np.float32)
    np.testing.assert_allclose(
        actual, relative_boxes(offset, roi[:, None], size, head.std), rtol=1e-5, atol=1e-6
    )
    assert actual.min() == 0 and actual.max() == 1
