"""Every loss against its equation in plain loops, and its gradient against numerical gradients.

The ``plain_*`` functions take lists of rows and return the sum of the terms.
"""

import math

import numpy as np
import pytest
from chainer import gradient_check

from pfdet.functions.focal import focal_loss
from pfdet.functions.losses import LOSSES, loss_function
from pfdet.functions.smooth_l1 import smooth_l1

C = 6
SOFTMAX = [name for name, form in LOSSES.items() if form.background]
SIGMOID = [name for name, form in LOSSES.items() if not form.background]


def plain_sigmoid(x, t, rates, weight=None):
    loss = 0.0
    for x_row, t_row in zip(x, t, strict=True):
        for c, (a, b) in enumerate(zip(x_row, t_row, strict=True)):
            p = 1 / (1 + math.exp(-a))
            if b >= 0:
                loss -= (weight[c] if weight else 1) * math.log(p if b else 1 - p)
    return loss


def plain_focal(x, t, rates, weight=None, alpha=0.25, gamma=2.0):
    loss = 0.0
    for x_row, t_row in zip(x, t, strict=True):
        for c, (a, b) in enumerate(zip(x_row, t_row, strict=True)):
            p = 1 / (1 + math.exp(-a))
            p_t = p if b else 1 - p
            alpha_t = 1 if alpha is None else alpha if b else 1 - alpha
            if b >= 0:
                loss -= (weight[c] if weight else 1) * alpha_t * (1 - p_t) ** gamma * math.log(p_t)
    return loss


def labels_and_negatives(t_row):
    """Classes with y = 1 and with y = 0. The background is the last class."""
    background = len(t_row)
    labels = [c for c, v in enumerate(t_row) if v == 1]
    negatives = [c for c, v in enumerate(t_row) if v == 0]
    if labels:
        return labels, negatives + [background]
    return ([background] if negatives else []), negatives


def plain_softmax(x, t, rates, weight=None, share=False):
    loss = 0.0
    for z, t_row in zip(x, t, strict=True):
        labels, negatives = labels_and_negatives(t_row)
        for i in labels:
            sigma = math.exp(z[i]) / sum(math.exp(z[j]) for j in labels + negatives)
            y = 1 / len(labels) if share else 1
            loss -= ([*weight, 1][i] if weight else 1) * y * math.log(sigma)
    return loss


def plain_dist_ce(x, t, rates, weight=None):
    return plain_softmax(x, t, rates, weight, share=True)


def plain_concurrent_softmax(x, t, rates, weight=None):
    loss = 0.0
    for z, t_row in zip(x, t, strict=True):
        labels, negatives = labels_and_negatives(t_row)
        for i in labels:
            denominator = math.exp(z[i])
            for j in negatives:
                r = 0 if len(t_row) in (i, j) else rates[i][j]
                denominator += (1 - r) * math.exp(z[j])
            w = [*weight, 1][i] if weight else 1
            loss -= w * math.log(math.exp(z[i]) / denominator)
    return loss


# Also used by benchmarks/losses.py.
LITERAL = {
    'sigmoid': plain_sigmoid,
    'focal': plain_focal,
    'softmax': plain_softmax,
    'multi_label_softmax': plain_softmax,
    'dist_ce': plain_dist_ce,
    'concurrent_softmax': plain_concurrent_softmax,
}


def random_rates(rng):
    rates = np.where(rng.random((C, C)) < 0.5, rng.random((C, C)), 0)
    rates[0, 1] = rates[1, 0] = rates[2, 3] = 1
    np.fill_diagonal(rates, 0)
    return rates


def random_case(kind, seed, n_column):
    """Draw logits and targets of five rows."""
    rng = np.random.default_rng((len(kind), seed))
    x = rng.normal(scale=2, size=(5, n_column))
    t = np.zeros((5, C), np.int8)
    if kind == 'one':
        t[np.arange(5), rng.integers(C, size=5)] = 1
    elif kind in ('many', 'peak'):
        for row in t:
            row[rng.choice(C, rng.integers(2, C + 1), replace=False)] = 1
    elif kind == 'mixed':
        t = rng.integers(-1, 2, (5, C)).astype(np.int8)
    if kind != 'many':
        t[rng.random(t.shape) < 0.2] = -1
    if kind in ('ignored', 'mixed'):
        t[rng.integers(5, size=2 if kind == 'mixed' else 20)] = -1
    if kind == 'peak':
        # One label has a softmax close to 1, so that m sigma > 1.
        for x_row, t_row in zip(x, t, strict=True):
            x_row[np.flatnonzero(t_row == 1)[:1]] += 6
    return x, t, rng


KINDS = ['none', 'one', 'many', 'ignored', 'mixed', 'peak']


@pytest.mark.parametrize('weighted', [False, True])
@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', LOSSES)
def test_value_equals_the_equation(name, kind, weighted):
    for seed in range(20):
        x, t, rng = random_case(kind, seed, C + LOSSES[name].background)
        rates = random_rates(rng)
        weight = rng.uniform(0.1, 3, C) if weighted else None
        expected = LITERAL[name](
            x.tolist(), t.tolist(), rates.tolist(), weight.tolist() if weighted else None
        )
        counts = {
            'roi': 5,
            'used': max(1, (t >= 0).any(axis=1).sum()),
            'positive': max(1, (t > 0).any(axis=1).sum()),
        }
        if name in SIGMOID:
            counts['element'] = max(1, (t >= 0).sum())
        for normalize, count in counts.items():
            loss = loss_function(name, rates, weight, normalize=normalize)(x, t)
            assert loss.shape == () and loss.dtype == x.dtype
            assert float(loss.array) == pytest.approx(expected / count, rel=1e-9, abs=1e-12)
        loss = loss_function(name, rates, weight)(x.astype(np.float32), t)
        assert loss.dtype == np.float32
        count = counts[LOSSES[name].normalize]
        assert float(loss.array) == pytest.approx(expected / count, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize('kind', KINDS)
@pytest.mark.parametrize('name', LOSSES)
def test_gradient_equals_the_numerical_gradient(name, kind):
    for seed in range(3):
        x, t, rng = random_case(kind, seed, C + LOSSES[name].background)
        loss = loss_function(name, random_rates(rng), rng.uniform(0.1, 3, C) if seed else None)
        gradient_check.check_backward(
            lambda x, loss=loss, t=t: loss(x, t),
            x,
            np.array(2.0),
            dtype=np.float64,
            atol=1e-4,
            rtol=1e-4,
        )


@pytest.mark.parametrize('alpha', [None, 0.0, 0.7, 1.0])
@pytest.mark.parametrize('gamma', [0.0, 0.5, 1.0, 5.0])
def test_focal_options(alpha, gamma):
    x, t, rng = random_case('mixed', 0, C)
    expected = plain_focal(x.tolist(), t.tolist(), None, None, alpha, gamma)
    loss = focal_loss(x, t, alpha=alpha, gamma=gamma)
    assert float(loss.array) == pytest.approx(expected / 5, rel=1e-9)
    gradient_check.check_backward(
        lambda x: focal_loss(x, t, alpha=alpha, gamma=gamma),
        x,
        np.array(1.0),
        dtype=np.float64,
        atol=1e-4,
        rtol=1e-4,
    )


def test_focal_without_its_options_is_sigmoid_cross_entropy():
    x, t, _ = random_case('mixed', 1, C)
    assert float(focal_loss(x, t, alpha=None, gamma=0).array) == pytest.approx(
        float(loss_function('sigmoid')(x, t).array), rel=1e-12
    )


@pytest.mark.parametrize('name', LOSSES)
def test_loss_is_zero_without_targets(name):
    columns = C + LOSSES[name].background
    rates = np.zeros((C, C))
    for t in np.full((3, C), -1, np.int8), np.zeros((0, C), np.int8):
        for normalize in 'roi', 'used', 'positive':
            x = np.random.default_rng(0).normal(size=(len(t), columns)).astype(np.float32)
            assert float(loss_function(name, rates, normalize=normalize)(x, t).array) == 0


@pytest.mark.parametrize('name', LOSSES)
def test_invalid_arguments(name):
    rates = np.zeros((C, C), np.float32)
    x = np.zeros((2, C + LOSSES[name].background), np.float32)
    t = np.zeros((2, C), np.int8)
    with pytest.raises(ValueError, match='logits have shape'):
        loss_function(name, rates)(x, t[:1])
    with pytest.raises(ValueError, match='logits have shape'):
        loss_function(name, rates)(np.zeros((2, C + 2), np.float32), t)
    with pytest.raises(ValueError, match='normalize must be'):
        loss_function(name, rates, normalize='batch')(x, t)
    with pytest.raises(ValueError, match='weight has shape'):
        loss_function(name, rates, np.ones(C + 1, np.float32))(x, t)
    if name in SOFTMAX:
        with pytest.raises(ValueError, match='normalize must be'):
            loss_function(name, rates, normalize='element')(x, t)


def test_invalid_names_rates_and_options():
    with pytest.raises(ValueError, match='no loss'):
        loss_function('hinge')
    with pytest.raises(ValueError, match='needs concurrent rates'):
        loss_function('concurrent_softmax')
    with pytest.raises(ValueError, match='rates have shape'):
        loss_function('concurrent_softmax', np.zeros((2, 3)))(
            np.zeros((1, 3)), np.zeros((1, 2), np.int8)
        )
    for options in {'gamma': -1}, {'alpha': 1.5}:
        with pytest.raises(ValueError, match='must'):
            focal_loss(np.zeros((1, 1)), np.zeros((1, 1), np.int8), **options)


def test_smooth_l1_equals_its_equation():
    x = np.array([[0.05, -0.5, 2, -3]], np.float32)
    t = np.zeros((1, 4), np.float32)
    for beta in 1.0, 1 / 9:
        expected = sum(0.5 * v * v / beta if abs(v) < beta else abs(v) - beta / 2 for v in x[0])
        assert float(smooth_l1(x, t, beta).array[0]) == pytest.approx(expected, rel=1e-5)
