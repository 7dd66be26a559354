"""Tables as other programs write them: forms that are harmless are read, others are named."""

import gzip
import unicodedata

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.identifiers import normal_image_id, normal_mid, normal_name
from pfdet.openimages.image_ids import read_image_ids
from pfdet.openimages.tables import GROUP_OF, OCCLUDED, read_boxes, read_image_labels
from pfdet.printable import printable

SPACE = Classes(('/m/a', '/m/b'), ('A', 'B'))
COLUMNS = 'ImageID,Source,LabelName,XMin,XMax,YMin,YMax,IsOccluded,IsGroupOf'
ROWS = [
    'i1,xclick,/m/a,0.1,0.5,0.2,0.6,1,0',
    'i2,xclick,/m/b,0.25,1,0,0.75,0,1',
]


def boxes_of(path):
    table = read_boxes(path, SPACE)
    return table, [
        (table.image_ids[i], int(label), tuple(bbox.tolist()), int(flags))
        for i, label, bbox, flags in zip(table.image, table.label, table.bbox, table.flags)
    ]


def as_float32(*values):
    return tuple(np.float32(values).tolist())


EXPECTED = [
    ('i1', 0, as_float32(0.2, 0.1, 0.6, 0.5), OCCLUDED),
    ('i2', 1, as_float32(0, 0.25, 0.75, 1), GROUP_OF),
]


def german(text):
    return text.replace(',', ';').replace('.', ',')


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'encoding',
    ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32'],
)
@pytest.mark.parametrize('zipped', [False, True], ids=['plain', 'gzip'])
@pytest.mark.parametrize(
    'change',
    [
        str,
        lambda text: text.replace(',', ';'),
        lambda text: text.replace(',', '\t'),
        german,
        lambda text: text.replace('\n', '\r\n'),
        lambda text: text.replace(',', '","').replace('\n', '"\n"').join('""'),
    ],
    ids=['comma', 'semicolon', 'tab', 'decimal comma', 'windows', 'quoted'],
)
def test_encodings_and_separators(tmp_path, encoding, zipped, change):
    path = tmp_path / 'boxes.csv'
    data = change('\n'.join([COLUMNS, *ROWS])).encode(encoding)
    path.write_bytes(gzip.compress(data) if zipped else data)
    table, rows = boxes_of(path)
    assert rows == EXPECTED and table.counts['rewritten'] == 0


def test_a_line_of_utf_16_is_named(tmp_path):
    path = tmp_path / 'boxes.csv'
    text = '\n'.join([COLUMNS, *ROWS * 3000, 'i3,xclick,/m/a,x,1,0,1,0,0'])
    path.write_bytes(text.encode('utf-16'))
    with pytest.raises(InputError, match=r'boxes.csv, line 6002: expected XMin to be a number'):
        read_boxes(path, SPACE)
    path.write_bytes(text.encode('utf-16')[:-1])
    with pytest.raises(InputError, match=r'boxes.csv: damaged text'):
        read_boxes(path, SPACE)


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'column, text, n_rewritten',
    [
        # Flags, as pandas and spreadsheets write them.
        ('IsOccluded', '1.0', 1),
        ('IsOccluded', 'true', 1),
        ('IsOccluded', 'True', 1),
        ('IsOccluded', ' TRUE', 1),
        ('IsOccluded', '1.', 1),
        ('IsOccluded', ' 1', 0),
        ('IsGroupOf', '0.0', 1),
        ('IsGroupOf', 'false', 1),
        ('IsGroupOf', 'FALSE ', 1),
        ('IsGroupOf', '', 1),
        ('IsGroupOf', '-1.0', 1),
        ('IsGroupOf', '-1', 0),
        # Ids with characters that are not visible around them.
        ('LabelName', ' /m/a', 1),
        ('LabelName', '/m/a ', 1),
        ('LabelName', '\u00a0/m/a', 1),
        ('LabelName', '\ufeff/m/a', 1),
        ('ImageID', ' i1', 1),
        ('ImageID', 'i1\t', 1),
        ('ImageID', '\u200ei1\u200f', 1),
        ('ImageID', '\ufeffi1', 1),
        # Numbers: pyarrow itself skips the space.
        ('XMin', ' 0.1', 0),
        ('XMin', '1e-1', 0),
        # Sources of boxes do not matter.
        ('Source', '', 0),
        ('Source', '\u00e9', 0),
    ],
)
@pytest.mark.parametrize('n_before', [0, 200])
def test_harmless_forms_are_read_and_counted(tmp_path, column, text, n_rewritten, n_before):
    path = tmp_path / 'boxes.csv'
    fields = ROWS[0].split(',')
    fields[COLUMNS.split(',').index(column)] = text
    path.write_text('\n'.join([COLUMNS, *[ROWS[1]] * n_before, ','.join(fields)]))
    table, rows = boxes_of(path)
    assert rows == [EXPECTED[1]] * n_before + [EXPECTED[0]]
    assert table.counts['rewritten'] == n_rewritten


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'column, text, expected',
    [
        ('IsGroupOf', '0x1', '0, 1 or -1'),
        ('IsGroupOf', '0X1', '0, 1 or -1'),
        ('IsGroupOf', '0x0', '0, 1 or -1'),
        ('IsGroupOf', '1e0', '0, 1 or -1'),
        ('IsGroupOf', '+1', '0, 1 or -1'),
        ('IsGroupOf', '2.0', '0, 1 or -1'),
        ('IsGroupOf', 'yes', '0, 1 or -1'),
        ('IsGroupOf', '\u0661', '0, 1 or -1'),
        ('XMin', '0x1', 'a number'),
        ('XMin', '0,5', None),
        ('ImageID', 'i\u200f1', 'an image id'),
        ('ImageID', 'i\x071', 'an image id'),
        ('ImageID', '\x1fi1', 'an image id'),
        ('ImageID', 'i\ufeff1', 'an image id'),
        ('LabelName', '/m/\u200ea', 'a class id'),
        ('LabelName', '/m/a\x00', 'a class id'),
        ('LabelName', ' ', 'a class id'),
    ],
)
@pytest.mark.parametrize('n_before', [0, 200])
def test_other_forms_are_named(tmp_path, column, text, expected, n_before):
    path = tmp_path / 'boxes.csv'
    fields = ROWS[0].split(',')
    fields[COLUMNS.split(',').index(column)] = text
    path.write_text('\n'.join([COLUMNS, *[ROWS[1]] * n_before, ','.join(fields), ROWS[0]]))
    # A comma within a field of a table with commas makes one field too many.
    message = f'expected {column} to be {expected}' if expected else 'expected 9 fields'
    with pytest.raises(InputError, match=f'boxes.csv, line {n_before + 2}: {message}') as e:
        read_boxes(path, SPACE)
    assert '\n' not in str(e.value) and printable(str(e.value)) == str(e.value)


BAD_IDS = [
    '../secret/s',
    '..',
    '.',
    'a/../../s',
    'a/./b',
    'a//b',
    '/etc/passwd',
    '/',
    'a/',
    '..\\secret',
    'C:\\s',
    'a\\b',
    'a\x00b',
    'a/..',
    ' ../s',
    '\u200e/s',
]


@pytest.mark.faults('ids that are paths')
@pytest.mark.parametrize('image_id', BAD_IDS)
def test_ids_that_are_paths_are_named_in_every_table(tmp_path, image_id):
    assert normal_image_id(image_id) is None
    path = tmp_path / 'table.csv'
    for read, header, row in (
        (lambda: read_boxes(path, SPACE), 'ImageID,LabelName,XMin,XMax,YMin,YMax', '/m/a,0,1,0,1'),
        (lambda: read_image_labels(path, SPACE), 'ImageID,LabelName', '/m/a'),
        (lambda: read_image_ids(path), 'ImageID,Split', 'train'),
    ):
        path.write_text(f'{header}\ni,{row}\n{image_id},{row}\n')
        with pytest.raises(InputError, match=r'table.csv, line 3: expected ImageID to be an image'):
            read()
    path.write_text(f'i\n{image_id}\n')
    with pytest.raises(InputError, match='table.csv, line 2: expected a header'):
        read_image_ids(path)


@pytest.mark.parametrize(
    'image_id', ['000595fe6fee6369', 'train/0001', 'a.b', '..a', '.hidden', 'a..b', 'C:s', '-1']
)
def test_ids_that_are_names(image_id):
    assert normal_image_id(image_id) == image_id


def test_composed_and_decomposed_ids_are_one_image(tmp_path):
    path = tmp_path / 'boxes.csv'
    composed, decomposed = (unicodedata.normalize(form, 'z-\u00fcber') for form in ('NFC', 'NFD'))
    rows = [ROWS[0].replace('i1', name) for name in (composed, decomposed)]
    path.write_text('\n'.join([COLUMNS, *rows]))
    table = read_boxes(path, SPACE)
    assert table.image_ids.tolist() == [composed] and table.image.tolist() == [0, 0]
    assert table.counts['rewritten'] == 1


@pytest.mark.parametrize(
    'source, is_human',
    [
        ('verification', True),
        ('crowdsource-verification', True),
        ('human', True),
        ('xclick', True),
        ('freeform', True),
        ('activemil', True),
        ('Verification ', True),
        ('', True),
        ('machine', False),
        ('MACHINE', False),
        ('unheard-of', False),
    ],
)
@pytest.mark.parametrize('confidence', ['0', '1', '0.0', '1.0'])
def test_only_annotators_verify(tmp_path, source, is_human, confidence):
    path = tmp_path / 'labels.csv'
    path.write_text(
        'ImageID,Source,LabelName,Confidence\ni,verification,/m/a,1\n'
        f'j,{source},/m/b,{confidence}\nj,{source},/m/x,1\nj,{source},/m/b,0.5\n'
    )
    table = read_image_labels(path, SPACE)
    assert table.counts['labels'] == 1 + is_human
    assert table.counts['machine'] == (0 if is_human else 2)
    assert table.counts['unverified'] == (1 if is_human else 0)
    assert table.sources == ({} if is_human else {source.casefold(): 2})
    assert table.image_ids.tolist() == ['i', 'j']
    everything = read_image_labels(path, SPACE, machine_labels=True)
    assert everything.counts['labels'] == 2 and everything.counts['machine'] == 0
    assert everything.positive.tolist() == [True, float(confidence) == 1]


def test_labels_of_a_classifier_alone_are_refused(tmp_path):
    path = tmp_path / 'labels.csv'
    path.write_text('ImageID,Source,LabelName,Confidence\n' + 'i,machine,/m/a,1\n' * 3)
    with pytest.raises(InputError, match=r'labels.csv: no row of annotators.*machine \(3\)'):
        read_image_labels(path, SPACE)
    assert read_image_labels(path, SPACE, machine_labels=True).counts['labels'] == 3


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'text',
    [
        'ImageID\ni2\ni1\ni2\n',
        'ImageID,Rotation\ni2,0.0\ni1,\n',
        'OriginalURL;ImageID\nx;i1\ny;i2\n',
        'i1\n\ni2\n',
        'train/i1\nvalidation/i2\n',
        ' i1\r\ni2 ',
    ],
)
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-16', 'utf-8-sig'])
def test_lists_of_images(tmp_path, text, encoding):
    path = tmp_path / 'ids.csv'
    path.write_bytes(text.encode(encoding))
    assert read_image_ids(path).to_pylist() == ['i1', 'i2']
    path.write_bytes(gzip.compress(text.encode(encoding)))
    assert read_image_ids([path, path]).to_pylist() == ['i1', 'i2']


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'text, message',
    [
        ('', 'no image ids'),
        ('\n\n', 'no image ids'),
        ('ImageID\n', 'no rows'),
        ('i1\ni2,x\n', 'line 2: expected a header with the column ImageID'),
        ('id,name\n', 'line 1: expected a header'),
    ],
)
def test_malformed_lists_of_images(tmp_path, text, message):
    path = tmp_path / 'ids.csv'
    path.write_text(text)
    with pytest.raises(InputError, match=f'ids.csv.*{message}'):
        read_image_ids(path)
    with pytest.raises(InputError, match=r'none.csv: cannot read the list'):
        read_image_ids(tmp_path / 'none.csv')


@pytest.mark.faults('forms of text')
@pytest.mark.parametrize(
    'text, expected',
    [
        ('Apple', 'Apple'),
        ('\u00dcber \u4e2d \u05d0', '\u00dcber \u4e2d \u05d0'),
        ('a\x1b[31mb', 'a\\x1b[31mb'),
        ('a\rb\x00\x7f\x9b', 'a\\rb\\x00\\x7f\\x9b'),
        ('\u202eelppA\u202c', '\\u202eelppA\\u202c'),
        ('\u05d0\u200f', '\u05d0\\u200f'),
        ('\u2028\udcff', '\\u2028\\udcff'),
    ],
)
def test_printable(text, expected):
    assert printable(text) == expected
    printable(text).encode()


def test_normal_forms_do_not_change_again():
    for text in (' a', '\u200ea\u0301 ', 'e\u0301', '\ufeff/m/a', 'x\u200dy'):
        for normal in (normal_mid, normal_image_id, normal_name):
            once = normal(text)
            assert once is None or normal(once) == once
