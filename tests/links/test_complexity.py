import chainer
import chainer.functions as F
import chainer.links as L
import numpy as np

from pfdet import recipes
from pfdet.links.complexity import (
    CountArrays,
    CountOperations,
    activation_bytes,
    detector_flops,
    n_parameter,
)
from pfdet.training import build


def test_counts_by_hand():
    x = np.zeros((2, 4, 10, 12), np.float32)
    W = np.zeros((8, 2, 3, 3), np.float32)
    with CountOperations() as count:
        h = F.convolution_2d(x, W, stride=2, pad=1, groups=2)
        F.linear(F.average(h, axis=(2, 3)), np.zeros((5, 8), np.float32))
    # 2 images x 5 x 6 positions x 8 channels x (2 x 3 x 3) products, and 2 x 8 x 5.
    assert count.flops == 2 * (2 * 5 * 6 * 8 * 18 + 2 * 8 * 5)
    assert n_parameter(L.Linear(8, 5)) == 45


def test_scaled_count_equals_the_count_of_a_large_image():
    network = build.detector(recipes.find('mini'), 5)
    with CountOperations() as count, chainer.using_config('train', False):
        hs = network.extractor(np.zeros((1, 3, 192, 256), np.float32))
        network.rpn(hs)
        network.head(hs, np.tile(np.float32([[0, 0, 9, 9]]), (7, 1)), np.zeros(7, np.int32))
    assert abs(detector_flops(network, (180, 250), 7) / count.flops - 1) < 0.02


def test_arrays_are_counted_once_by_hand():
    link = L.Linear(6, 5)
    x = np.zeros((2, 6), np.float32)
    with CountArrays(link) as count:
        h = F.relu(link(x))
        # A view of the same array
        F.reshape(h, (10,)) + F.reshape(h, (10,))
    # x; the product, which ReLU takes; and the output of ReLU, however often it is taken.
    assert count.n_byte == 4 * (2 * 6 + 2 * 5 + 2 * 5)


def test_scaled_arrays_equal_those_of_a_large_image():
    network = build.detector(recipes.find('mini'), 5)
    with CountArrays(network) as count, chainer.using_config('train', False):
        hs = network.extractor(np.zeros((1, 3, 192, 256), np.float32))
        network.rpn(hs)
        rois = np.tile(np.float32([[0, 0, 9, 9]]), (40, 1))
        network.head(hs, rois, np.zeros(40, np.int32))
    assert abs(activation_bytes(network, (180, 250), 40) / count.n_byte - 1) < 0.02
