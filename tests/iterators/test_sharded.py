import io
import threading

import chainer
import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.iterators.samplers import SequentialSampler, replacements
from pfdet.iterators.sharded import ShardedIterator
from pfdet.openimages.corrupt_images import CorruptImages


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
        epochs.append(
            (
                iterator.epoch,
                iterator.is_new_epoch,
                iterator.epoch_detail,
                iterator.previous_epoch_detail,
            )
        )
    iterator.finalize()
    assert epochs == [
        (0, False, 0.4, 0),
        (0, False, 0.8, 0.4),
        (1, True, 1.2, 0.8),
        (1, False, 1.6, 1.2),
        (2, True, 2.0, 1.6),
    ]


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


def test_error_in_a_thread_is_raised_with_its_batch():
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


def test_invalid_arguments():
    with pytest.raises(ValueError, match='batch size'):
        make_iterator(batch_size=0)
    with pytest.raises(ValueError, match='rank'):
        make_iterator(2, 2)


def test_positions_of_many_ranks_have_no_gap():
    positions = np.concatenate(
        [list(make_iterator(rank, 512, 2).positions(1024)) for rank in range(512)]
    )
    assert sorted(positions) == list(range(1024, 2048))


BAD = {1, 2, 7}


def load_good(image, position, iteration):
    """Load an image; three of ten cannot be read."""
    if image in BAD:
        raise InputError(f'{image}.jpg: empty file')
    return image, position, iteration


def expected_sequence(n):
    sampler = SequentialSampler(10, 0)
    for p in range(n):
        yield next(i for i in [sampler[p], *replacements(sampler, p)] if i not in BAD)


@pytest.mark.parametrize('n_rank', [1, 2, 3, 6])
def test_replaced_images_are_the_same_on_any_number_of_ranks(n_rank):
    images, counts = {}, []
    for rank in range(n_rank):
        corrupt = CorruptImages(n_first=100)
        iterator = make_iterator(rank, n_rank, 6 // n_rank, load_good, corrupt=corrupt, n_thread=2)
        for i in range(7):
            for image, position, iteration in next(iterator):
                assert iteration == i == position // 6
                images[position] = image
        iterator.finalize()
        counts.append(corrupt.take())
    assert [images[p] for p in range(42)] == list(expected_sequence(42))
    # Images loaded ahead are not counted.
    n_corrupt = sum(c.n_corrupt for c in counts)
    assert sum(c.n_image for c in counts) == 42 + n_corrupt
    sampler = SequentialSampler(10, 0)
    assert {p for c in counts for p, _ in c.first} == {p for p in range(42) if sampler[p] in BAD}
    assert n_corrupt >= sum(sampler[p] in BAD for p in range(42)) > 10


def test_replaced_images_are_the_same_after_resuming():
    two = [make_iterator(rank, 2, 2, load_good, corrupt=CorruptImages()) for rank in range(2)]
    for _ in range(3):
        for iterator in two:
            next(iterator)
    one = make_iterator(0, 1, 3, load_good, corrupt=CorruptImages())
    chainer.serializers.load_npz(save(two[0]), one)
    found = [next(one) for _ in range(6)]
    assert [image for batch in found for image, _, _ in batch] == list(expected_sequence(30))[12:]
    for iterator in [one, *two]:
        iterator.finalize()


def test_corrupt_images_are_errors_without_a_counter():
    iterator = make_iterator(load=load_good, batch_size=1)
    sampler = SequentialSampler(10, 0)
    for p in range(10):
        if sampler[p] in BAD:
            with pytest.raises(InputError, match=f'^{sampler[p]}.jpg: empty file$'):
                next(iterator)
            break
        next(iterator)
    iterator.finalize()


def test_only_corrupt_images():
    def load(image, position, iteration):
        raise InputError(f'{image}.jpg: empty file')

    corrupt = CorruptImages()
    iterator = make_iterator(load=load, batch_size=1, corrupt=corrupt)
    with pytest.raises(InputError, match='none of the images that follow'):
        next(iterator)
    assert corrupt.n_corrupt == corrupt.n_image == 10
    iterator.finalize()


def test_other_errors_are_not_skipped():
    def load(image, position, iteration):
        raise MemoryError

    iterator = make_iterator(load=load, batch_size=1, corrupt=CorruptImages())
    with pytest.raises(MemoryError):
        next(iterator)
    iterator.finalize()
