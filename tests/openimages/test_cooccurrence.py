import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes
from pfdet.openimages.cooccurrence import read_pairs

CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def write(tmp_path, text):
    path = tmp_path / 'pairs.csv'
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_the_47_pairs():
    classes = challenge_classes()
    subject, part = read_pairs(classes)
    assert len(subject) == len(set(part.tolist())) == 47
    names = {(classes.names[s], classes.names[p]) for s, p in zip(subject, part, strict=True)}
    assert {('Person', 'Human face'), ('Land vehicle', 'Tire'), ('Door', 'Door handle')} <= names
    assert {s for s, _ in names} == {'Person', 'Land vehicle', 'Door'}


def test_pairs_outside_the_label_space_are_skipped(tmp_path):
    subject, part = read_pairs(CLASSES)
    assert subject.shape == part.shape == (0,) and subject.dtype == np.int64
    path = write(
        tmp_path,
        '\ufeffPartMID,Part,SubjectMID\n/m/b,x,/m/a\n/m/z,y,/m/a\n/m/b,x,/m/a\n/m/c,x,/m/a\n',
    )
    subject, part = read_pairs(CLASSES, path)
    assert (subject.tolist(), part.tolist()) == ([0, 0], [1, 2])


@pytest.mark.parametrize(
    'text, message',
    [
        ('SubjectMID,Part\n/m/a,/m/b\n', 'line 1: no column PartMID'),
        ('', 'line 1: no column SubjectMID'),
        ('SubjectMID,PartMID\n/m/a,/m/b\n/m/a,\n', 'line 3: expected two class ids'),
        ('SubjectMID,PartMID\n/m/a\n', 'line 2: expected two class ids'),
        ('SubjectMID,PartMID\n/m/a,/m/a\n', 'line 2: /m/a is paired with itself'),
        ('SubjectMID,PartMID\n/m/x,/m/y\n', 'none of the 1 pairs is in the label space'),
        ('SubjectMID,PartMID\n', 'none of the 0 pairs is in the label space'),
        (b'SubjectMID,PartMID\n\xff\xfe', 'expected pairs as CSV in UTF-8'),
        ('SubjectMID,PartMID\n"/m/a"b,/m/b\n', 'line 2: expected CSV'),
    ],
)
def test_malformed_files(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as e:
        read_pairs(CLASSES, path)
    assert str(path) in str(e.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match='cannot read the pairs'):
        read_pairs(CLASSES, tmp_path / 'none.csv')
