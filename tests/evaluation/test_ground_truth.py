"""Ground truth, expanded as by the script of the challenge."""

import json

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.evaluation.ground_truth import ground_truth_of_index, read_ground_truth
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import read_hierarchy

_CLASSES = Classes(('/m/fruit', '/m/apple', '/m/pear', '/m/toy'), ('Fruit', 'Apple', 'Pear', 'Toy'))
_FRUIT, _APPLE, _PEAR, _TOY = range(4)


@pytest.fixture
def files(tmp_path):
    boxes, labels = tmp_path / 'boxes.csv', tmp_path / 'labels.csv'
    boxes.write_text(
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,'
        'IsGroupOf,IsDepiction,IsInside\n'
        'b,xclick,/m/apple,1,0.1,0.2,0.3,0.4,0,0,1,0,0\n'
        'a,xclick,/m/toy,1,0,0.5,0,1,1,1,0,0,0\n'
        'a,xclick,/m/fruit,1,0,0.5,0,1,0,0,0,0,0\n'
        'a,xclick,/m/apple,1,0,0.5,0,1,0,0,0,0,0\n'
    )
    labels.write_text(
        'ImageID,Source,LabelName,Confidence\n'
        'a,verification,/m/fruit,1\na,verification,/m/toy,1\n'
        'b,verification,/m/apple,1\nb,verification,/m/toy,0\n'
        'c,verification,/m/fruit,0\nd,verification,/m/pear,0\n'
    )
    hierarchy = tmp_path / 'hierarchy.json'
    hierarchy.write_text(
        json.dumps(
            {
                'LabelName': '/m/0bl9f',
                'Subcategory': [
                    {
                        'LabelName': '/m/fruit',
                        'Subcategory': [{'LabelName': '/m/apple'}, {'LabelName': '/m/pear'}],
                    },
                    {'LabelName': '/m/toy'},
                ],
            }
        )
    )
    return boxes, labels, read_hierarchy(hierarchy, _CLASSES)


def _boxes(truth):
    return sorted(
        zip(
            [truth.image_ids[i] for i in truth.image],
            truth.label.tolist(),
            [tuple(np.round(b.astype(float), 6).tolist()) for b in truth.bbox],
            truth.group_of.tolist(),
        )
    )


_A, _B = (0.0, 0.0, 1.0, 0.5), (0.3, 0.1, 0.4, 0.2)


def test_files_that_are_already_expanded(files):
    truth = read_ground_truth(*files[:2], _CLASSES)
    assert truth.image_ids == ['a', 'b', 'c', 'd']
    assert _boxes(truth) == [
        ('a', _FRUIT, _A, False),
        ('a', _APPLE, _A, False),
        ('a', _TOY, _A, False),
        ('b', _APPLE, _B, True),
    ]
    np.testing.assert_array_equal(
        truth.verified,
        np.array(
            [
                # Fruit, Apple, Pear, Toy
                [1, 0, 0, 1],
                [0, 1, 0, 1],
                [1, 0, 0, 0],
                [0, 0, 1, 0],
            ],
            bool,
        ),
    )
    assert truth.bbox.dtype == np.float32 and truth.image.dtype == np.int32


def test_expansion(files):
    truth = read_ground_truth(files[0], files[1], _CLASSES, files[2])
    assert _boxes(truth) == [
        # Annotated as Fruit and as Apple: two boxes of Fruit, as in the official script.
        ('a', _FRUIT, _A, False),
        ('a', _FRUIT, _A, False),
        ('a', _APPLE, _A, False),
        ('a', _TOY, _A, False),
        ('b', _FRUIT, _B, True),
        ('b', _APPLE, _B, True),
    ]
    np.testing.assert_array_equal(
        truth.verified,
        np.array(
            [
                [1, 0, 0, 1],
                # A positive label is repeated for ancestors only.
                [1, 1, 0, 1],
                # A negative label is repeated for descendants only.
                [1, 1, 1, 0],
                [0, 0, 1, 0],
            ],
            bool,
        ),
    )


def test_ground_truth_of_index_equals_that_of_the_files(files, tmp_path):
    index = _Index(*files)
    from_index = ground_truth_of_index(index)
    from_files = read_ground_truth(files[0], files[1], _CLASSES, files[2])
    assert _boxes(from_index) == _boxes(from_files)
    # In the index, a class with a box is verified, as in the metric.
    verified = from_files.verified.copy()
    verified[from_files.image, from_files.label] = True
    np.testing.assert_array_equal(from_index.verified, verified)
    assert from_index.image_ids == from_files.image_ids


class _Index:
    """The files above in the form of an AnnotationIndex."""

    def __init__(self, boxes, labels, hierarchy):
        self.hierarchy = hierarchy
        self.columns = {
            'object_offsets': np.array([0, 1, 2, 2, 2]),
            'bbox': np.array([_A, _B], np.float32),
            'flags': np.array([3, 4], np.uint8),
            'label_offsets': np.array([0, 3, 4]),
            'label': np.array([_FRUIT, _APPLE, _TOY, _APPLE], np.int16),
            'positive_offsets': np.array([0, 3, 4, 4, 4]),
            'positive': np.array([_FRUIT, _APPLE, _TOY, _APPLE], np.int16),
            'negative_offsets': np.array([0, 0, 1, 2, 3]),
            'negative': np.array([_TOY, _FRUIT, _PEAR], np.int16),
        }

    def __len__(self):
        return 4

    def image_id(self, i):
        return 'abcd'[i]


def test_message_names_the_bad_file(files):
    files[0].write_text('ImageID,LabelName,XMin,XMax,YMin\n')
    with pytest.raises(InputError, match='boxes.csv'):
        read_ground_truth(files[0], files[1], _CLASSES)
