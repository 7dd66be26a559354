import io
import threading

import chainer
import numpy as np
import pytest

from pfdet.iterators.samplers import SequentialSampler
from pfdet.iterators.sharded import ShardedIterator


def make_iterator(rank=0, n_rank=1, batch_size=3, load=lambda *args: args, **kwargs):
    return ShardedIterator(SequentialSampler(10, 0), load, batch_size, rank, n_rank, **kwargs)


@pytest.mark.parametrize('n_rank', [1, 2, 3])
def test_ranks_share_one_sequence(n_rank):
    sampler = SequentialSampler(10, 0)
    seen = []
    for rank in range(n_rank):
        iterator = make_iterator(rank, n_rank, 6 // n_rank)
        for i in range(7):
            for image, position, iteration in next(iterator):
                assert position % n_rank == rank and iteration == i == position // 6
                assert image == sampler[position]
                seen.append(position)
        iterator.finalize()
    assert sorted(seen) == list(range(42))


def test_epochs():
    iterator = make_iterator(batch_size=4)
    epochs = []
    for _ in range(5):
        next(iterator)
        epochs.append((iterator.epoch, iterator.is_new_epoch, iterator.epoch_detail,
                       iterator.previous_epoch_detail))
    iterator.finalize()
    assert epochs == [(0, False, .4, 0), (0, False, .8, .4), (1, True, 1.2, .8),
                      (1, False, 1.6, 1.2), (2, True, 2., 1.6)]


def save(iterator):
    file = io.BytesIO()
    chainer.serializers.save_npz(file, iterator)
    file.seek(0)
    return file


def test_resumes_on_another_number_of_ranks():
    two = [make_iterator(rank, 2, 2) for rank in range(2)]
    for _ in range(3):
        for iterator in two:
            next(iterator)
    files = [save(iterator) for iterator in two]
    one = make_iterator(0, 1, 1)
    next(one)
    chainer.serializers.load_npz(files[1], one)
    assert [next(one)[0][1] for _ in range(5)] == [12, 13, 14, 15, 16]
    for iterator in [one, *two]:
        iterator.finalize()


def test_error_in_a_thread_is_raised_in_turn():
    def load(image, position, iteration):
        if position == 7:
            raise RuntimeError('image 7')
        return position

    iterator = make_iterator(load=load, batch_size=2, n_thread=3)
    assert [next(iterator) for _ in range(3)] == [[0, 1], [2, 3], [4, 5]]
    with pytest.raises(RuntimeError, match='image 7'):
        next(iterator)
    iterator.finalize()


def test_loads_ahead_in_threads():
    loaded = threading.Event()
    main = threading.get_ident()

    def load(image, position, iteration):
        assert threading.get_ident() != main
        if position == 2:
            loaded.set()

    iterator = make_iterator(load=load, batch_size=1, n_ahead=2)
    next(iterator)
    assert loaded.wait(10)
    iterator.finalize()


def test_refuses():
    with pytest.raises(ValueError, match='batch size'):
        make_iterator(batch_size=0)
    with pytest.raises(ValueError, match='rank'):
        make_iterator(2, 2)


def test_many_ranks_without_gap():
    positions = np.concatenate([
        list(make_iterator(rank, 512, 2).positions(1024)) for rank in range(512)])
    assert sorted(positions) == list(range(1024, 2048))
