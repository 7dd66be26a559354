"""All-reduce algorithms: simulated step by step, and against measurements."""

import dataclasses

import numpy as np
import pytest
from scaling import sweep
from scaling.allreduce import Network, hierarchical, message_sizes, ring, tree

NETWORK = Network(8, 100e9, 10e9, 5e-6, 0.5e-6, 3e-6)
ALGORITHMS = 'ring', 'recursive_doubling', 'reduce_scatter_allgather'


def run_ring(vectors: list[np.ndarray], links: list[tuple[float, float]]) -> float:
    """All-reduce in place, step by step; link i is (latency, bandwidth) from rank i to the next.

    A rank sends its next chunk once it has the last one from its neighbour, and its link is free.
    """
    n = len(vectors)
    chunks = [np.array_split(v, n) for v in vectors]
    ready, free = [0.0] * n, [0.0] * n
    for s in range(2 * (n - 1)):
        sent = []
        for rank in range(n):
            k = (rank - s) % n
            latency, bandwidth = links[rank]
            free[rank] = max(ready[rank], free[rank]) + chunks[rank][k].nbytes / bandwidth
            sent.append((k, chunks[rank][k].copy(), free[rank] + latency))
        for rank in range(n):
            k, chunk, time = sent[rank - 1]
            if s < n - 1:
                chunks[rank][k] += chunk
            else:
                chunks[rank][k][:] = chunk
            ready[rank] = max(ready[rank], time)
    return max(ready)


@pytest.mark.parametrize('n', [2, 3, 8])
def test_ring_step_by_step(n):
    rng = np.random.default_rng(n)
    vectors = [rng.normal(size=n * 120) for _ in range(n)]
    total = np.sum(vectors, axis=0)
    n_byte = vectors[0].nbytes
    time = run_ring(vectors, [(0.5e-6, 100e9)] * n)
    for v in vectors:
        np.testing.assert_allclose(v, total)
    assert ring(NETWORK, n, n_byte) - NETWORK.base == pytest.approx(time)
    assert time == pytest.approx(2 * (n - 1) * 0.5e-6 + 2 * (n - 1) / n * n_byte / 100e9)


@pytest.mark.parametrize('n_node', [2, 4])
def test_ring_through_nodes(n_node):
    """Small messages are limited by latencies, large ones by the slowest links' bandwidth.

    A chunk crosses every link in turn, so latencies add up as in the formula. Like NCCL, the
    formula counts two links between nodes less than the slowest chunk crosses.
    """
    n = 8 * n_node
    rng = np.random.default_rng(0)
    links = [(3e-6, 10e9) if (r + 1) % 8 == 0 else (0.5e-6, 100e9) for r in range(n)]
    small, large = ([rng.normal(size=n * k) for _ in range(n)] for k in (1, 40000))
    time = run_ring(small, links)
    assert 0 <= time + NETWORK.base - ring(NETWORK, n, small[0].nbytes) < 2 * 3e-6
    time = run_ring(large, links)
    assert time + NETWORK.base == pytest.approx(ring(NETWORK, n, large[0].nbytes), rel=0.05)


def run_halving(vectors: list[np.ndarray]) -> list[int]:
    """Reduce-scatter by halves and all-gather, in place; return the bytes that rank 0 sends."""
    n, size = len(vectors), len(vectors[0])
    low, high, sent = [0] * n, [size] * n, []
    distance = n // 2
    while distance:
        old = [v.copy() for v in vectors]
        for rank in range(n):
            middle = (low[rank] + high[rank]) // 2
            if rank == 0:
                sent.append((high[0] - middle) * vectors[0].itemsize)
            if rank & distance:
                low[rank] = middle
            else:
                high[rank] = middle
            kept = slice(low[rank], high[rank])
            vectors[rank][kept] += old[rank ^ distance][kept]
        distance //= 2
    distance = 1
    while distance < n:
        old, spans = [v.copy() for v in vectors], list(zip(low, high, strict=True))
        for rank in range(n):
            start, end = spans[rank ^ distance]
            vectors[rank][start:end] = old[rank ^ distance][start:end]
            if rank == 0:
                sent.append((spans[0][1] - spans[0][0]) * vectors[0].itemsize)
            low[rank], high[rank] = min(low[rank], start), max(high[rank], end)
        distance *= 2
    return sent


@pytest.mark.parametrize('n', [2, 8, 32])
def test_halving_step_by_step(n):
    vectors = [np.random.default_rng(r).normal(size=64) for r in range(n)]
    total = np.sum(vectors, axis=0)
    sent = run_halving(vectors)
    for v in vectors:
        np.testing.assert_allclose(v, total)
    np.testing.assert_array_equal(
        message_sizes('reduce_scatter_allgather', n, vectors[0].nbytes), sent
    )


def test_bytes_and_steps():
    """Ring and halving send 2 (n - 1) / n of the message, recursive doubling log2 n of it."""
    for n in 2, 4, 64:
        for algorithm in 'ring', 'reduce_scatter_allgather':
            assert message_sizes(algorithm, n, 4096).sum() == pytest.approx(2 * (n - 1) / n * 4096)
        assert message_sizes('recursive_doubling', n, 4096).sum() == np.log2(n) * 4096
        assert len(message_sizes('ring', n, 4096)) == 2 * (n - 1)
        assert len(message_sizes('reduce_scatter_allgather', n, 4096)) == 2 * np.log2(n)
    for algorithm in ALGORITHMS:
        assert message_sizes(algorithm, 1, 4096).sum() == 0
    with pytest.raises(ValueError, match='powers of two'):
        message_sizes('recursive_doubling', 6, 4)
    with pytest.raises(ValueError, match='no such algorithm'):
        message_sizes('star', 4, 4)


def test_one_gpu_and_one_node():
    for reduce in ring, hierarchical, tree:
        assert reduce(NETWORK, 1, 1e9) == 0
    # In one node a hierarchy is a ring.
    assert hierarchical(NETWORK, 8, 1e6) == pytest.approx(ring(NETWORK, 8, 1e6))
    # The same with one GPU per node: then there is only the network.
    alone = dataclasses.replace(NETWORK, gpus_per_node=1)
    assert hierarchical(alone, 16, 1e6) == pytest.approx(ring(alone, 16, 1e6))
    with pytest.raises(ValueError, match='12 GPUs'):
        ring(NETWORK, 12, 1)


def test_hierarchy_saves_hops_not_bytes():
    small = [reduce(NETWORK, 512, 8) for reduce in (ring, hierarchical, tree)]
    assert small[0] > 2 * small[1] > 2 * small[2]
    # Every byte crosses a node's ports about twice with each algorithm.
    large = [reduce(NETWORK, 512, 1e10) for reduce in (ring, hierarchical, tree)]
    assert large[1] == pytest.approx(large[0] + 2 * 7 / 8 * 1e10 / 100e9, rel=0.03)
    assert large[2] == pytest.approx(2 * 1e10 / 10e9, rel=0.01)


def test_more_bytes_and_gpus_take_longer():
    for reduce in ring, hierarchical, tree:
        for n_byte in 8, 1e6, 1e9:
            times = [reduce(NETWORK, n, n_byte) for n in (1, 2, 4, 8, 16, 64, 512, 4096)]
            assert np.all(np.diff(times) > 0)
            assert reduce(NETWORK, 64, 2 * n_byte) > reduce(NETWORK, 64, n_byte)


def test_measured_sweep_is_predicted():
    """Fitted to 2, 8 and 32 ranks, the model predicts 4, 16 and 64 ranks of this sweep.

    Times range from a tenth of a millisecond to a second. Without the terms for ranks that share a
    core, the error is much larger, so not just any formula fits.
    """
    points = sweep.read_sweep()
    assert {p.n_rank for p in points} == {2, 4, 8, 16, 32, 64}
    assert {p.algorithm for p in points} == set(ALGORITHMS)
    seconds = [p.seconds for p in points]
    assert max(seconds) > 3000 * min(seconds)
    fitted, held_out = sweep.split(points)
    assert not {p.n_rank for p in fitted} & {p.n_rank for p in held_out}
    factors = sweep.error_factors(sweep.fit(fitted), held_out)
    assert np.median(factors) < 1.25 and np.mean(factors < 2) > 0.9 and factors.max() < 3
    dedicated = [p._replace(n_core=p.n_rank) for p in points]
    few, many = sweep.split(dedicated)
    assert np.max(sweep.error_factors(sweep.fit(few), many)) > 10


def test_fit_recovers_the_coefficients():
    true = {
        a: np.array(c)
        for a, c in zip(
            ALGORITHMS,
            [[1e-4, 2e-9, 3e-10, 1e-6], [5e-5, 0.0, 1e-10, 2e-6], [1e-5, 1e-9, 0.0, 0.0]],
            strict=True,
        )
    }
    points = [p._replace(seconds=sweep.predict(true, p)) for p in sweep.read_sweep()]
    fitted, held_out = sweep.split(points)
    found = sweep.fit(fitted)
    for algorithm in ALGORITHMS:
        np.testing.assert_allclose(found[algorithm], true[algorithm], rtol=1e-6, atol=1e-16)
    np.testing.assert_allclose(sweep.error_factors(found, held_out), 1, rtol=1e-6)
