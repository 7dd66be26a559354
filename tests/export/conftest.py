"""Fixtures for the export: networks with random weights and statistics, and comparisons."""

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
import pytest

from pfdet import recipes
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.training import build

pytest.importorskip('onnx')
pytest.importorskip('onnxruntime')

# Fields that make the mini network of a recipe small enough for a test.
_SMALL = ['fpn_channel=8', 'head_unit=16', 'test_proposals=(60, 60)', 'canonical_size=28']


@pytest.fixture(autouse=True)
def seed_of_initializers():
    """Chainer's initializers use NumPy's global generator."""
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


@pytest.fixture(scope='session')
def randomized():
    """Give all statistics, scales and biases random values: ``randomized(link, seed=0)``.

    In a new network they are 0 and 1, and an exporter that forgets them would pass.
    """

    def randomize(link, seed=0):
        rng = np.random.default_rng(seed)

        def draw(array, low, high):
            array[...] = rng.uniform(low, high, array.shape)

        for child in link.links():
            if hasattr(child, 'avg_var'):
                draw(child.avg_mean, -0.3, 0.3)
                draw(child.avg_var, 0.5, 1.5)
                if child.gamma is not None:
                    draw(child.gamma.array, 0.7, 1.3)
                if child.beta is not None:
                    draw(child.beta.array, -0.3, 0.3)
        for name, parameter in link.namedparams():
            if name.endswith('/b'):
                parameter.array[...] += rng.normal(0, 0.1, parameter.shape)
        return link

    return randomize


@pytest.fixture(scope='session')
def small_detector(randomized):
    """Build a small network: ``small_detector(recipe, settings=(), n_class=7, backbone=None)``.

    Classes 0 and 5 are parents: 1, 2 and 3 descend from 0, 3 also from 2, and 6 from 5.
    """

    def build_one(recipe='mini', settings=(), n_class=7, backbone=None, seed=0):
        if isinstance(recipe, str):
            recipe = recipes.find(recipe, 'mini')
        recipe = recipes.override(recipe, [*_SMALL, *settings])
        rng = np.random.default_rng(seed)
        rates = rng.uniform(0, 1, (n_class, n_class)).astype(np.float32)
        descendants = np.zeros((n_class, n_class), bool)
        for parent, child in (0, 1), (0, 2), (0, 3), (2, 3), (5, 6):
            descendants[parent, child] = True
        if backbone is None:
            with chainer.using_config('dtype', np.dtype(recipe.dtype)):
                backbone = MiniSEResNeXt(width=8)
        network = build.detector(recipe, n_class, seed, rates, descendants, backbone)
        randomized(network, seed)
        # Outputs that differ by more than rounding between regions and classes, without saturating
        for link, factor in (
            (network.rpn.conf, 10),
            (network.rpn.loc, 10),
            (network.head.conf, 3),
            (network.head.loc, 10),
        ):
            link.W.array[...] *= factor
        return network

    return build_one


@pytest.fixture(scope='session')
def photos():
    """Draw images of different sizes, none a multiple of a stride: ``photos(seed, sizes)``.

    They are smooth, as photographs are, in three value types. The sizes are similar: features far
    inside padding are all equal, and rounding would decide the order of all anchors there.
    """

    def draw(seed=0, sizes=((100, 101), (97, 120), (90, 127))):
        rng = np.random.default_rng(seed)
        imgs = []
        for k, (height, width) in enumerate(sizes):
            coarse = rng.uniform(0, 256, (3, -(-height // 8), -(-width // 8)))
            img = coarse.repeat(8, axis=1).repeat(8, axis=2)[:, :height, :width]
            img = np.clip(img + rng.normal(0, 10, img.shape), 0, 255)
            imgs.append(img.astype((np.uint8, np.float32, np.float64)[k % 3]))
        return imgs

    return draw


@pytest.fixture(scope='session')
def assert_same_regions():
    """Compare outputs of ``predict`` as sets: ``assert_same_regions(a, b, share=0.95)``.

    Rounding decides the order of almost equal scores, and whether an IoU almost at the threshold
    suppresses. So a share of the rows needs a counterpart, whose boxes and scores differ by at most
    ``atol``.
    """

    def check(a, b, share=0.95, atol=1e-4):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert [x.shape[1:] for x in one] == [x.shape[1:] for x in other]
            assert abs(len(one[0]) - len(other[0])) <= (1 - share) * len(one[0])
            rows, others = (
                np.concatenate([bbox.reshape(len(bbox), -1), score], axis=1)
                for bbox, score in (one, other)
            )
            distance = abs(rows[:, None] - others).max(axis=2)
            for nearest in distance.min(axis=1), distance.min(axis=0):
                assert (nearest <= atol).mean() >= share, np.sort(nearest)[-5:]

    return check


@pytest.fixture(scope='session')
def forward():
    """Call a link or function at test time: ``forward(layer, x)`` returns an array."""

    def call(layer, *args):
        with chainer.using_config('train', False), chainer.no_backprop_mode():
            return chainer.as_array(layer(*args))

    return call


@pytest.fixture(scope='session')
def run_graph():
    """Run what a function writes: ``run_graph(network, write, inputs)`` returns arrays by name.

    ``write(graph, **values)`` gets the inputs as values, with all dimensions free, and returns a
    value or a dictionary of them.
    """
    import onnxruntime

    from pfdet.export.graph import Graph, Value

    def run(network, write, inputs):
        graph = Graph(network)
        inputs = {name: np.asarray(array) for name, array in inputs.items()}
        values = {
            name: graph.input(name, a.dtype, [f'{name}_{k}' for k in range(a.ndim)])
            for name, a in inputs.items()
        }
        outputs = write(graph, **values)
        if isinstance(outputs, Value):
            outputs = {'y': outputs}
        for name, value in outputs.items():
            graph.output(f'output_{name}', value, None)
        session = onnxruntime.InferenceSession(
            graph.model({}).SerializeToString(), providers=['CPUExecutionProvider']
        )
        return dict(zip(outputs, session.run(None, inputs), strict=True))

    return run
