"""Concurrent rates compared with a slow double loop, and with the rates of MiniOpenImages."""

import itertools
import random

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes
from pfdet.openimages.concurrent_rates import (
    concurrent_rates,
    confused_pairs,
    group_boxes,
    label_sets,
    read_concurrent_rates,
    with_hierarchy,
    write_concurrent_rates,
    write_pairs_csv,
)
from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy, flat_hierarchy
from pfdet.openimages.index import AnnotationIndex, write_index
from pfdet.openimages.make_mini import make_mini
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.tables import GROUP_OF

# Class 2 is a kind of class 1, and class 1 is a kind of class 0.
CHAIN = Hierarchy(np.array([[0, 0, 0, 0], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool))
A, B, C, D = range(4)


def offsets_of(lengths):
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)


def index_of(path, images, hierarchy=CHAIN):
    """Write an index of images given as lists of (bbox, labels, flags)."""
    objects = [one for image in images for one in image]
    n = len(images)
    n_class = hierarchy.n_class
    columns = {
        'id_offsets': offsets_of([4] * n),
        'id_bytes': np.frombuffer(b''.join(b'%04d' % i for i in range(n)), np.uint8),
        'image_size': np.full((n, 2), 100, np.int32),
        'image_suffix': np.zeros(n, np.uint8),
        'object_offsets': offsets_of([len(image) for image in images]),
        'bbox': np.array([bbox for bbox, _, _ in objects], np.float32).reshape(-1, 4),
        'flags': np.array([flags for _, _, flags in objects], np.uint8),
        'label_offsets': offsets_of([len(labels) for _, labels, _ in objects]),
        'label': np.array([c for _, labels, _ in objects for c in sorted(labels)], np.int16),
        'positive_offsets': np.zeros(n + 1, np.int32),
        'positive': np.zeros(0, np.int16),
        'negative_offsets': np.zeros(n + 1, np.int32),
        'negative': np.zeros(0, np.int16),
    }
    classes = Classes(
        tuple(f'/m/{c}' for c in range(n_class)), tuple(f'class {c}' for c in range(n_class))
    )
    write_index(path, columns, classes, hierarchy, path.parent, ['.jpg'], {})
    return AnnotationIndex.open(path)


def iou(a, b):
    height = min(a[2], b[2]) - max(a[0], b[0])
    width = min(a[3], b[3]) - max(a[1], b[1])
    if height <= 0 or width <= 0:
        return 0.0
    shared = height * width
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def slow_rates(index, iou_thresh=0.9, group_of=False, expanded=False):
    """Reference implementation: count per object and pair of labels."""
    n_class = len(index.classes)
    count = np.zeros(n_class, int)
    both = np.zeros((n_class, n_class), int)
    for i in range(len(index)):
        annotation = index.annotation(i)
        groups = []
        for bbox, label, flags in zip(
            annotation.bbox.astype(float).tolist(), annotation.label, annotation.flags
        ):
            if flags & GROUP_OF and not group_of:
                continue
            if expanded:
                label = label @ index.hierarchy.closure
            joined = ([bbox], set(np.flatnonzero(label).tolist()))
            for group in list(groups):
                if iou_thresh < 1 and any(iou(bbox, other) >= iou_thresh for other in group[0]):
                    groups.remove(group)
                    joined = (joined[0] + group[0], joined[1] | group[1])
            groups.append(joined)
        for _, labels in groups:
            for a in labels:
                count[a] += 1
                for b in labels - {a}:
                    both[a, b] += 1
    return count, both


def shifted(bbox, by):
    return [bbox[0], bbox[1] + by, bbox[2], bbox[3] + by]


@pytest.fixture
def hand_made(tmp_path):
    box, far = [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1.0, 0.75]
    return index_of(
        tmp_path / 'hand.index',
        [
            [(box, [A, D], 0), (far, [A], 0)],
            # Boxes of side 0.5 that are shifted by 0.02 have an IoU of 0.48 / 0.52 = 0.92; shifted
            # by 0.04, 0.85. The first and the last box are one object via the second.
            [(box, [A], 0), (shifted(box, 0.02), [B], 0), (shifted(box, 0.04), [A], 0)],
            [(box, [A], 0), (shifted(box, 0.04), [D], 0)],
            [],
            [(box, [A, D], GROUP_OF), (shifted(box, 0.02), [B], 0)],
            [(box, [C], 0)],
        ],
    )


def test_hand_made_index(hand_made):
    found = concurrent_rates(hand_made)
    # Class A: two objects in the first image, one each in the next two.
    np.testing.assert_array_equal(found.count, [4, 2, 1, 2])
    expected = np.zeros((4, 4))
    expected[A, D], expected[D, A] = 1 / 4, 1 / 2
    expected[A, B], expected[B, A] = 1 / 4, 1 / 2
    np.testing.assert_array_equal(found.rates, expected.astype(np.float32))
    assert found.rates.dtype == np.float32 and found.count.dtype == np.int64


def test_hand_made_index_with_options(hand_made):
    equal = concurrent_rates(hand_made, iou_thresh=1)
    np.testing.assert_array_equal(equal.count, [5, 2, 1, 2])
    assert equal.both[A, B] == 0 and equal.both[A, D] == 1
    groups = concurrent_rates(hand_made, group_of=True)
    np.testing.assert_array_equal(groups.count, [5, 2, 1, 3])
    assert groups.both[A, D] == 2 and groups.both[B, D] == 1
    expanded = concurrent_rates(hand_made, expanded=True)
    np.testing.assert_array_equal(expanded.count, [6, 3, 1, 2])
    assert expanded.rates[C, A] == expanded.rates[C, B] == 1
    with pytest.raises(ValueError, match='IoU threshold 0'):
        concurrent_rates(hand_made, iou_thresh=0)


def random_index(path, seed, n_image=60):
    """Images of many boxes with similar positions and areas, some of them near-duplicates."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(n_image):
        image = []
        for _ in range(rng.integers(0, 14)):
            size = rng.choice([0.1, 0.2, 0.25, 0.5], 2)
            at = rng.choice(np.linspace(0, 0.45, 7), 2)
            bbox = np.concatenate([at, at + size])
            for _ in range(rng.choice([1, 1, 2, 3])):
                near = bbox + rng.uniform(-0.04, 0.04, 4) * np.tile(size, 2)
                labels = rng.choice(4, rng.integers(1, 4), replace=False).tolist()
                image.append(
                    (near.astype(np.float32), labels, GROUP_OF if rng.random() < 0.1 else 0)
                )
        images.append(image)
    return index_of(path, images)


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize(
    'options',
    [{}, {'group_of': True}, {'expanded': True}, {'iou_thresh': 1.0}, {'iou_thresh': 0.5}],
)
def test_equals_slow_double_loop(tmp_path, seed, options):
    index = random_index(tmp_path / 'random.index', seed)
    count, both = slow_rates(index, **options)
    found = concurrent_rates(index, **options)
    assert both.any()
    np.testing.assert_array_equal(found.count, count)
    np.testing.assert_array_equal(found.both, both)
    np.testing.assert_array_equal(found.rates, (both / np.maximum(count, 1)[:, None]).astype('f4'))


def test_result_does_not_depend_on_block_size(tmp_path):
    index = random_index(tmp_path / 'random.index', 7)
    whole = concurrent_rates(index)
    for block in (1, 10, 100):
        pieces = list(label_sets(index, block=block))
        assert len(pieces) > 1
        assert sum(piece.shape[0] for piece in pieces) == next(label_sets(index)).shape[0]
        np.testing.assert_array_equal(
            sum(np.bincount(piece.indices, minlength=4) for piece in pieces), whole.count
        )


def test_index_without_objects(tmp_path):
    for images in ([[], []], [[([0, 0, 1, 1], [A], GROUP_OF)]]):
        found = concurrent_rates(index_of(tmp_path / 'empty.index', images))
        assert not found.count.any() and not found.rates.any()
        assert found.rates.shape == (4, 4)


def test_groups_are_connected_components():
    rng = np.random.default_rng(0)
    at = rng.uniform(0, 0.05, (200, 2))
    bbox = np.concatenate([at, at + rng.uniform(0.4, 0.5, (200, 2))], axis=1)
    image = np.sort(rng.integers(0, 20, 200))
    group = np.arange(200)
    for a, b in itertools.combinations(range(200), 2):
        if image[a] == image[b] and iou(bbox[a], bbox[b]) >= 0.9:
            group[group == group[b]] = group[a]
    found = group_boxes(bbox, image)
    assert 20 < found.max() + 1 < 200
    np.testing.assert_array_equal(found[:, None] == found, group[:, None] == group)
    first = np.unique(found, return_index=True)[1]
    np.testing.assert_array_equal(np.sort(first), first)


def test_with_hierarchy():
    rates = np.full((4, 4), 0.25, np.float32)
    np.fill_diagonal(rates, 0)
    for rate in (0.0, 1.0):
        found = with_hierarchy(rates, CHAIN, rate)
        related = [(1, 0), (2, 1), (2, 0)]
        for i, j in itertools.product(range(4), repeat=2):
            expected = rate if (i, j) in related or (j, i) in related else rates[i, j]
            assert found[i, j] == expected
    assert found.dtype == np.float32 and rates[1, 0] == 0.25
    np.testing.assert_array_equal(with_hierarchy(rates, flat_hierarchy(4)), rates)
    with pytest.raises(ValueError, match='4 classes'):
        with_hierarchy(rates[:3, :3], CHAIN)
    with pytest.raises(ValueError, match='rate 1.5'):
        with_hierarchy(rates, CHAIN, 1.5)
    assert with_hierarchy(np.zeros((500, 500), np.float32), challenge_hierarchy()).sum() > 2 * 443


def test_confused_pairs(hand_made):
    rates = concurrent_rates(hand_made)
    pairs = confused_pairs(rates)
    assert [(p.i, p.j) for p in pairs] == [(B, A), (D, A), (A, B), (A, D)]
    assert pairs[0] == (B, A, 0.5, 0.25, 1, 2)
    assert [(p.i, p.j) for p in confused_pairs(rates, 0.3)] == [(B, A), (D, A)]
    leaves = hand_made.hierarchy.is_leaf
    assert confused_pairs(rates, among=leaves) == []
    assert [(p.i, p.j) for p in confused_pairs(rates, min_count=3)] == [(A, B), (A, D)]


def test_files(hand_made, tmp_path):
    rates = concurrent_rates(hand_made)
    path = tmp_path / 'rates.npz'
    write_concurrent_rates(path, rates, hand_made.classes)
    back = read_concurrent_rates(path, hand_made.classes)
    np.testing.assert_array_equal(back.rates, rates.rates)
    assert (back.iou_thresh, back.group_of, back.expanded) == (0.9, False, False)
    some = Classes(('/m/3', '/m/0'), ('class 3', 'class 0'))
    np.testing.assert_array_equal(
        read_concurrent_rates(path, some).rates, rates.rates[np.ix_([3, 0], [3, 0])]
    )
    write_pairs_csv(tmp_path / 'pairs.csv', confused_pairs(rates), hand_made.classes)
    lines = (tmp_path / 'pairs.csv').read_text().splitlines()
    assert lines[0].startswith('LabelName,DisplayName,AsLabelName')
    assert lines[1] == '/m/1,class 1,/m/0,class 0,0.500000,0.250000,1,2'
    assert not list(tmp_path.glob('.*'))


def test_bad_files_are_refused(hand_made, tmp_path):
    path = tmp_path / 'rates.npz'
    write_concurrent_rates(path, concurrent_rates(hand_made), hand_made.classes)
    whole = path.read_bytes()
    with pytest.raises(InputError, match='such as /m/z'):
        read_concurrent_rates(path, Classes(('/m/z',), ('z',)))
    with pytest.raises(InputError, match='missing.npz: No such file'):
        read_concurrent_rates(tmp_path / 'missing.npz', hand_made.classes)
    np.savez(tmp_path / 'other.npz', x=np.arange(3))
    np.save(tmp_path / 'single.npy', np.arange(3))
    np.savez(
        tmp_path / 'shapes.npz',
        mids=np.array(['/m/0']),
        count=np.zeros(2),
        iou_thresh=0.9,
        both=np.zeros((2, 2)),
        group_of=False,
        expanded=False,
    )
    for name, data in (('empty', b''), ('text', b'rates'), ('half', whole[: len(whole) // 2])):
        (tmp_path / f'{name}.npz').write_bytes(data)
    for name in ('other.npz', 'single.npy', 'shapes.npz', 'empty.npz', 'text.npz', 'half.npz'):
        with pytest.raises(InputError, match=name):
            read_concurrent_rates(tmp_path / name, hand_made.classes)


def test_mutated_files_are_refused_or_equal(hand_made, tmp_path):
    path = tmp_path / 'rates.npz'
    rates = concurrent_rates(hand_made)
    write_concurrent_rates(path, rates, hand_made.classes)
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        data[generator.randrange(len(data))] = generator.randrange(256)
        path.write_bytes(data)
        try:
            found = read_concurrent_rates(path, hand_made.classes)
        except InputError as e:
            refused += 'rates.npz' in str(e)
        else:
            np.testing.assert_array_equal(found.both, rates.both)
            np.testing.assert_array_equal(found.count, rates.count)
    assert 100 < refused < 300


@pytest.mark.parametrize(
    'knobs',
    [
        Knobs(seed=1, images=800, validation_images=1, long_side=64),
        Knobs(
            seed=2,
            images=800,
            validation_images=1,
            long_side=64,
            torch_flashlight=(0.3, 0.8),
            leopard_cheetah=(0.9, 0.25),
        ),
    ],
)
def test_rates_of_mini_open_images_are_recovered(tmp_path, knobs):
    data = tmp_path / 'mini'
    make_mini(data, knobs, workers=1)
    build_index(
        data / 'train-annotations-bbox.csv',
        data / 'train-annotations-human-imagelabels.csv',
        data / 'class-descriptions.csv',
        data / 'hierarchy.json',
        data / 'train',
        tmp_path / 'train.index',
    )
    index = AnnotationIndex.open(tmp_path / 'train.index')
    found = concurrent_rates(index)
    names = index.classes.names
    for one, other, expected in (
        ('Torch', 'Flashlight', knobs.torch_flashlight),
        ('Leopard', 'Cheetah', knobs.leopard_cheetah),
    ):
        i, j = names.index(one), names.index(other)
        assert found.rates[i, j] == pytest.approx(expected[0], abs=0.03)
        assert found.rates[j, i] == pytest.approx(expected[1], abs=0.03)
        # At an IoU threshold of 1, the boxes of two annotators are two objects.
        assert concurrent_rates(index, iou_thresh=1).rates[i, j] == 0
    # These are all confused leaf classes. Toy cars are confused, too, but Car is not a leaf.
    confused = {frozenset(('Torch', 'Flashlight')), frozenset(('Leopard', 'Cheetah'))}
    for among, extra in ((index.hierarchy.is_leaf, set()), (None, {frozenset(('Car', 'Toy'))})):
        pairs = confused_pairs(found, among=among, min_count=10)
        assert {frozenset((names[p.i], names[p.j])) for p in pairs} == confused | extra
