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
    'head',
    [
        'mid,name',
        'label,name',
        'LabelName,ClassName',
        'LabelName,DisplayName',
        'Label_Name,Display Name',
        '"LabelName","DisplayName"',
        'MID,Name',
        'class_id,class_name',
        '# mid,name',
        '#mid,name',
        '# 500 classes, one per line',
    ],
)
def test_headers(tmp_path, head):
    path = tmp_path / 'classes.csv'
    path.write_text(f'{head}\n/m/b,Cat\n/m/a,Duck\n/g/1_x,Label\n')
    assert read_classes(path) == Classes(('/m/b', '/m/a', '/g/1_x'), ('Cat', 'Duck', 'Label'))


def test_without_header_no_class_is_lost(tmp_path):
    path = tmp_path / 'classes.csv'
    # Names that are words of headers; ids that are not MIDs.
    for lines in (['/m/a,Label', '/m/b,Name'], ['cat,Cat', 'dog,Dog'], ['x,Mid', 'y,Name']):
        path.write_text('\n'.join(lines))
        assert read_classes(path).mids == tuple(line.split(',')[0] for line in lines)
    path.write_text('code,what\n/m/a,Duck\n/m/b,Cat\n')
    with pytest.raises(InputError, match=r"classes.csv, line 1: 'code' is no class id"):
        read_classes(path)


@pytest.mark.parametrize(
    'text',
    [
        '/m/a;"Duck"\n/m/b;Cat, domestic\n',
        '/m/a\tDuck\n/m/b\tCat, domestic\n',
        'LabelName;DisplayName\n/m/a;Duck\n/m/b;Cat, domestic\n',
        ' /m/a , Duck\n\ufeff/m/b, "Cat, domestic"\n',
        'Duck,/m/a\n"Cat, domestic",/m/b\n',
        'DisplayName,LabelName\nDuck,/m/a\n"Cat, domestic",/m/b\n',
    ],
)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be'])
def test_forms_of_class_files(tmp_path, text, encoding):
    path = tmp_path / 'classes.csv'
    path.write_bytes(text.encode(encoding))
    assert read_classes(path) == Classes(('/m/a', '/m/b'), ('Duck', 'Cat, domestic'))


def test_names_in_other_scripts(tmp_path):
    path = tmp_path / 'classes.csv'
    # Composed and decomposed letters are one name. Direction marks belong to some names.
    path.write_text('/m/a,Cafe\u0301\n/m/b,\u05d0\u200f1\n', encoding='utf-8')
    assert read_classes(path).names == ('Caf\u00e9', '\u05d0\u200f1')


def test_classes_of_one_name(tmp_path):
    path = tmp_path / 'classes.csv'
    path.write_text('/m/04rmv,Mouse\n/m/020lf,Mouse\n')
    assert read_classes(path) == Classes(('/m/04rmv', '/m/020lf'), ('Mouse', 'Mouse'))


@pytest.mark.parametrize(
    'content, message',
    [
        (b'', 'no classes'),
        (b'# mid,name\n', 'no classes'),
        (b'/m/a,Duck\n/m/b,C\x1b[31mat\n', 'line 2: expected mid,name without control'),
        (b'/m/a,Duck\n/m/b\x00,Cat\n', 'line 2: expected mid,name without control'),
        ('/m/a,Duck\n/m/b,C\u2028at\n'.encode(), 'line 2: expected mid,name without control'),
        ('/m/a,Duck\n/m/b,C\u00e9t\n'.encode('latin-1'), 'line 2: expected mid,name without'),
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
