import pickle

import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes, read_classes


def test_challenge_classes():
    classes = challenge_classes()
    assert len(classes) == len(set(classes.mids)) == 500
    apple = classes.id_of('/m/014j1m')
    assert (classes.mids[apple], classes.names[apple]) == ('/m/014j1m', 'Apple')
    assert [classes.ids[mid] for mid in classes.mids] == list(range(500))
    with pytest.raises(KeyError):
        classes.id_of('/m/none')
    copy = pickle.loads(pickle.dumps(classes))
    assert copy == classes and copy.ids == classes.ids


@pytest.mark.parametrize('head', ['', '\ufeff', 'LabelName,DisplayName\n', '\r\n'])
def test_read_classes(tmp_path, head):
    path = tmp_path / 'classes.csv'
    path.write_text(head + '/m/b,"Cat, domestic"\r\n\r\n/m/a,Duck', encoding='utf-8')
    assert read_classes(path) == Classes(('/m/b', '/m/a'), ('Cat, domestic', 'Duck'))


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'no classes'),
        (b'LabelName,DisplayName\n', 'no classes'),
        (b'/m/a,Duck\n/m/b\n', 'line 2: expected mid,name'),
        (b'/m/a,Duck\n\n/m/b,Cat,domestic\n', 'line 3: expected mid,name'),
        (b'/m/a,Duck\n,Cat\n', 'line 2'),
        (b'/m/a,Duck\n/m/b,"Cat\n', 'line 2'),
        (b'/m/a,Duck\n/m/b,Cat\n/m/a,Goose\n', "line 3: class '/m/a' repeats line 1"),
        (b'/m/a,D\xffck\n', 'UTF-8'),
    ],
)
def test_malformed_classes(tmp_path, content, message):
    path = tmp_path / 'classes.csv'
    path.write_bytes(content)
    with pytest.raises(InputError, match='classes.csv') as e:
        read_classes(path)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_missing_classes(tmp_path):
    with pytest.raises(InputError, match='none.csv: cannot read'):
        read_classes(tmp_path / 'none.csv')
    with pytest.raises(InputError, match='cannot read'):
        read_classes(tmp_path)
