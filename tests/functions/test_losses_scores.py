"""Scores at test time, and class weights."""

import numpy as np
import pytest

from pfdet.functions.concurrent_softmax import concurrent_softmax_score
from pfdet.functions.effective_number import effective_number_weights
from pfdet.functions.losses import LOSSES, SCORES, score_function
from pfdet.functions.sigmoid import sigmoid_score
from pfdet.functions.softmax import softmax_score


def random_logits(seed=0, R=40, C=7):
    rng = np.random.default_rng(seed)
    rates = rng.random((C, C)) * (rng.random((C, C)) < 0.5)
    rates[0, 1] = rates[1, 0] = 1
    np.fill_diagonal(rates, 0)
    return rng.normal(scale=3, size=(R, C + 1)), rates


def plain_concurrent_score(z, rates):
    C = len(rates)
    score = []
    for i in range(C):
        denominator = np.exp(z[C])
        for j in range(C):
            denominator += (1 - rates[i][j]) * np.exp(z[j])
        score.append(np.exp(z[i]) / denominator)
    return score


def test_concurrent_softmax_score_equals_equation_5():
    x, rates = random_logits()
    expected = [plain_concurrent_score(z, rates) for z in x]
    np.testing.assert_allclose(concurrent_softmax_score(x, rates), expected, rtol=1e-9)
    single = concurrent_softmax_score(x.astype(np.float32), rates.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4)


def test_a_class_always_competes_with_itself():
    x, rates = random_logits()
    diagonal = rates + np.eye(len(rates))
    np.testing.assert_array_equal(
        concurrent_softmax_score(x, diagonal), concurrent_softmax_score(x, rates)
    )


def test_softmax_score_equals_concurrent_softmax_without_rates():
    x, rates = random_logits()
    score = softmax_score(x)
    np.testing.assert_allclose(concurrent_softmax_score(x, np.zeros_like(rates)), score)
    background = np.exp(x[:, -1]) / np.exp(x).sum(axis=1)
    np.testing.assert_allclose(score.sum(axis=1) + background, 1)
    assert (concurrent_softmax_score(x, rates) >= score).all()


def test_sigmoid_score_equals_its_equation():
    x, _ = random_logits()
    np.testing.assert_allclose(sigmoid_score(x), 1 / (1 + np.exp(-x)), rtol=1e-12)


@pytest.mark.parametrize('name', SCORES)
def test_scores_of_large_logits(name):
    rng = np.random.default_rng(0)
    _, rates = random_logits()
    x = rng.choice([-1e4, -90, 0, 90, 1e4], (300, 7 + SCORES[name].background))
    with np.errstate(over='raise', invalid='raise', divide='raise'):
        score = score_function(name, rates.astype(np.float32))(x.astype(np.float32))
    assert score.shape == (300, 7) and score.dtype == np.float32
    assert (score >= 0).all() and (score <= 1).all()


def test_score_next_to_a_much_larger_concurrent_logit():
    rates = np.zeros((3, 3), np.float32)
    rates[0, 1] = rates[1, 0] = 1
    # exp(-200) underflows in float32, but class 0 competes only with class 2 and the background.
    x = np.array([[0, 200, -1, -2]], np.float32)
    score = concurrent_softmax_score(x, rates)
    np.testing.assert_allclose(score, [[1 / (1 + np.exp(-1) + np.exp(-2)), 1, 0]], rtol=1e-5)


def test_every_loss_has_a_score_for_its_logits():
    for form in LOSSES.values():
        assert SCORES[form.score].background == form.background


def test_score_with_invalid_arguments():
    with pytest.raises(ValueError, match='no score'):
        score_function('margin')
    with pytest.raises(ValueError, match='needs concurrent rates'):
        score_function('concurrent_softmax')
    with pytest.raises(ValueError, match='rates have shape'):
        concurrent_softmax_score(np.zeros((1, 3)), np.zeros((3, 3)))


def test_effective_number_weights_equal_the_equation():
    counts = np.array([1, 13, 1000, 807_000, 0])
    for beta in 0.9, 0.99, 0.9999:
        effective = [(1 - beta ** int(n)) / (1 - beta) for n in counts[:4]]
        expected = 1 / np.array(effective)
        expected /= expected.mean()
        weight = effective_number_weights(counts, beta)
        assert weight.dtype == np.float32
        np.testing.assert_allclose(weight, [*expected, 1], rtol=1e-6)
    np.testing.assert_array_equal(effective_number_weights(counts, 0), 1)
    # As beta approaches 1, the effective number approaches the number of samples.
    weight = effective_number_weights(counts[:3], 1 - 1e-12)
    np.testing.assert_allclose(weight[0] / weight, counts[:3], rtol=1e-3)


def test_effective_number_weights_with_invalid_arguments():
    for beta in 1, -0.1:
        with pytest.raises(ValueError, match='beta'):
            effective_number_weights(np.ones(2), beta)
    with pytest.raises(ValueError, match='counts'):
        effective_number_weights(np.array([1, -1]))
