"""Gradients of the losses as stated by Peng et al. (2020), and numerical stability."""

import chainer
import chainer.functions as F
import numpy as np
import pytest

from pfdet.functions.concurrent_softmax import concurrent_softmax_cross_entropy
from pfdet.functions.losses import LOSSES, loss_function
from pfdet.functions.softmax import dist_cross_entropy, softmax_cross_entropy


def value_and_gradient(loss, x, t):
    x = chainer.Variable(x)
    y = loss(x, t)
    y.backward()
    return float(y.array), x.grad


def random_rows(seed, n=200, C=8, n_label=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(scale=3, size=(n, C + 1))
    t = np.zeros((n, C), np.int8)
    for row in t:
        row[rng.choice(C, n_label or rng.integers(1, C), replace=False)] = 1
    rates = rng.random((C, C)) * (rng.random((C, C)) < 0.5)
    np.fill_diagonal(rates, 0)
    return x, t, rates


def softmax(x):
    e = np.exp(x - x.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def test_softmax_gradient_equals_equation_2():
    x, t, _ = random_rows(0)
    y = np.pad(t, ((0, 0), (0, 1)))
    _, gradient = value_and_gradient(softmax_cross_entropy, x, t)
    m_sigma = t.sum(axis=1, keepdims=True) * softmax(x)
    np.testing.assert_allclose(gradient * len(x), m_sigma - y, atol=1e-12)
    # "z_i is optimized to become lower even if i is one of the ground-truth labels"
    assert (gradient[(y == 1) & (m_sigma > 1)] > 0).all() and (m_sigma[y == 1] > 1).any()
    _, gradient = value_and_gradient(dist_cross_entropy, x, t)
    np.testing.assert_allclose(
        gradient * len(x), softmax(x) - y / y.sum(axis=1, keepdims=True), atol=1e-12
    )


def test_concurrent_softmax_gradient_equals_equation_4():
    x, t, rates = random_rows(1)
    C = t.shape[1]
    for dtype in np.float64, np.float32:
        _, gradient = value_and_gradient(
            lambda x, t: concurrent_softmax_cross_entropy(x, t, rates), x.astype(dtype), t
        )
        gradient *= len(x)
        for z, y, g in zip(x, t, gradient, strict=True):
            expected = np.zeros(C + 1)
            for i in np.flatnonzero(y):
                competition = np.append((y == 0) * (1 - rates[i]), 1)
                total = (competition * np.exp(z)).sum() + np.exp(z[i])
                expected += competition * np.exp(z) / total
                expected[i] += np.exp(z[i]) / total - 1
            np.testing.assert_allclose(g, expected, atol=1e-12 if dtype == np.float64 else 2e-6)
            assert (g[:C][y == 1] <= 0).all() and (g[:C][y == 0] >= 0).all()


def test_concurrent_softmax_of_one_label_without_rates_is_softmax_cross_entropy():
    x, t, rates = random_rows(2, n_label=1)
    t[::3] = 0
    label = np.where(t.any(axis=1), t.argmax(axis=1), t.shape[1]).astype(np.int32)
    t[::7] = -1
    label[::7] = -1
    theirs = value_and_gradient(F.softmax_cross_entropy, x, label)
    for loss in (
        softmax_cross_entropy,
        dist_cross_entropy,
        lambda x, t, n: concurrent_softmax_cross_entropy(x, t, np.zeros_like(rates), n),
    ):
        ours = value_and_gradient(lambda x, t, loss=loss: loss(x, t, 'used'), x, t)
        assert ours[0] == pytest.approx(theirs[0], rel=1e-14)
        np.testing.assert_allclose(ours[1], theirs[1], atol=1e-16)


def test_concurrent_classes_get_no_gradient_from_each_other():
    rates = np.zeros((4, 4))
    rates[0, 1] = rates[1, 0] = 1
    x = np.array([[1.0, 2.0, 3.0, 4.0, 5.0]])
    for own, other in (0, 1), (1, 0):
        t = np.zeros((1, 4), np.int8)
        t[0, own] = 1

        def loss(x, t=t):
            return value_and_gradient(
                lambda x, t: concurrent_softmax_cross_entropy(x, t, rates), x, t
            )

        value, gradient = loss(x)
        assert gradient[0, other] == 0 and gradient[0, 2] > 0
        changed = x.copy()
        changed[0, other] += 50
        changed_value, changed_gradient = loss(changed)
        assert changed_value == value
        np.testing.assert_array_equal(changed_gradient, gradient)


def test_rates_are_read_from_the_row_of_the_label():
    """In r_ij, i is the label. The column of the label is not used."""
    rates = np.zeros((2, 2))
    rates[0, 1] = 1
    x = np.array([[0.0, 3.0, -1.0]])
    _, gradient = value_and_gradient(
        lambda x, t: concurrent_softmax_cross_entropy(x, t, rates), x, np.array([[1, 0]], np.int8)
    )
    assert gradient[0, 1] == 0
    _, gradient = value_and_gradient(
        lambda x, t: concurrent_softmax_cross_entropy(x, t, rates), x, np.array([[0, 1]], np.int8)
    )
    assert gradient[0, 0] > 0


@pytest.mark.parametrize('name', [name for name, form in LOSSES.items() if form.background])
def test_ignored_classes_are_omitted(name):
    x, t, rates = random_rows(3)
    t[:50] = 0
    t[:, 2] = -1
    loss = loss_function(name, rates)
    value, gradient = value_and_gradient(loss, x, t)
    assert (gradient[:, 2] == 0).all()
    without = loss_function(name, np.delete(np.delete(rates, 2, 0), 2, 1))
    value_without, gradient_without = value_and_gradient(
        without, np.delete(x, 2, axis=1), np.delete(t, 2, axis=1)
    )
    assert value == pytest.approx(value_without)
    np.testing.assert_allclose(np.delete(gradient, 2, axis=1), gradient_without, atol=1e-15)


def log_sum(values):
    return np.logaddexp.reduce(np.array(values, np.float64)) if len(values) else -np.inf


def stable(name, x, t, rates):
    """Sum of the terms in float64, computed with log-sum-exp."""
    total = 0.0
    for z, y in zip(x.astype(np.float64), t, strict=True):
        if (y < 0).all():
            continue
        if not LOSSES[name].background:
            for a, b in zip(z, y, strict=True):
                q = np.logaddexp(0, -a if b else a)
                focus = (0.25 if b else 0.75) * np.exp(-2 * np.logaddexp(0, a if b else -a))
                total += (b >= 0) * q * (focus if name == 'focal' else 1)
            continue
        y = np.append(y, 0 if (y > 0).any() else 1)
        padded = np.pad(rates.astype(np.float64), ((0, 1), (0, 1)))
        labels = np.flatnonzero(y > 0)
        for i in labels:
            if name == 'concurrent_softmax':
                terms = [
                    z[j] + np.log1p(-padded[i, j])
                    for j in np.flatnonzero(y == 0)
                    if padded[i, j] < 1
                ] + [z[i]]
            else:
                terms = z[y >= 0]
            total += (log_sum(terms) - z[i]) / (len(labels) if name == 'dist_ce' else 1)
    return total


@pytest.mark.parametrize('name', LOSSES)
def test_large_logits_in_float32(name):
    rng = np.random.default_rng(0)
    C = 5
    columns = C + LOSSES[name].background
    rates = np.where(rng.random((C, C)) < 0.5, 1, rng.random((C, C))).astype(np.float32)
    np.fill_diagonal(rates, 0)
    loss = loss_function(name, rates, normalize='roi')
    for k in range(60):
        x = rng.choice([-1e4, -100, -1, 0, 1, 100, 1e4], (20, columns)).astype(np.float32)
        if k % 2:
            x = rng.uniform(-1e4, 1e4, x.shape).astype(np.float32)
        t = rng.choice([-1, 0, 1], (20, C), p=[0.2, 0.5, 0.3]).astype(np.int8)
        with np.errstate(over='raise', invalid='raise', divide='raise'):
            value, gradient = value_and_gradient(loss, x, t)
        assert np.isfinite(value) and np.isfinite(gradient).all()
        assert value * 20 == pytest.approx(stable(name, x, t, rates), rel=1e-5, abs=1e-5)
        assert abs(gradient).max() <= 5.01 / 20


def test_all_competitors_are_concurrent_in_float32():
    rates = np.array([[0, 1], [1, 0]], np.float32)
    t = np.array([[1, 0]], np.int8)

    def loss(x):
        return value_and_gradient(
            lambda x, t: concurrent_softmax_cross_entropy(x, t, rates), np.array([x], np.float32), t
        )

    # The background is negligible.
    for x in [0, 1e4, -1e4], [-9e3, 1e4, -1e4], [1e4, 1e4, -1e4], [1e4, -1e4, 0]:
        value, gradient = loss(x)
        assert value == 0
        np.testing.assert_array_equal(gradient, 0)
    # With a competitor of positive weight, the largest logit still has weight 0.
    value, gradient = loss([-5000, 1e4, -5000])
    assert value == pytest.approx(np.log(2))
    np.testing.assert_allclose(gradient, [[-0.5, 0, 0.5]])
