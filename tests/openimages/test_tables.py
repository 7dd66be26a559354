import gzip

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.csv_columns import map_batches
from pfdet.openimages.tables import (
    GROUP_OF,
    INSIDE,
    TRUNCATED,
    describe_unknown,
    read_boxes,
    read_image_labels,
)

SPACE = Classes(('/m/a', '/m/b', '/m/c', '/m/d', '/m/e'), ('A', 'B', 'C', 'D', 'E'))
BOX_COLUMNS = (
    'ImageID',
    'Source',
    'LabelName',
    'Confidence',
    'XMin',
    'XMax',
    'YMin',
    'YMax',
    'IsOccluded',
    'IsTruncated',
    'IsGroupOf',
    'IsDepiction',
    'IsInside',
)
HEADER = ','.join(BOX_COLUMNS)
GOOD = 'i1,xclick,/m/a,1,0.1,0.5,0.2,0.6,0,0,0,0,0'


def rows_of(table):
    return [
        (table.image_ids[i], int(label), tuple(map(float, bbox)), int(flags))
        for i, label, bbox, flags in zip(table.image, table.label, table.bbox, table.flags)
    ]


@pytest.mark.parametrize('seed', range(5))
def test_boxes_equal_slow_reader(helpers, tmp_path, seed):
    split = helpers.write_split(tmp_path, seed)
    table = read_boxes(split['boxes'], SPACE)
    slow, counts = helpers.read_slowly(split['boxes'], split['labels'])
    expected = [(image_id, *row) for image_id, image in slow.items() for row in image['rows']]
    assert sorted(rows_of(table)) == sorted(expected)
    n_row = split['boxes'].read_bytes().count(b'\n') - 1
    assert table.counts == {
        'rows': n_row,
        'boxes': counts['boxes'],
        'clipped': counts['clipped'],
        'unknown_class': counts['box_unknown'],
        'degenerate': counts['degenerate'],
        'rewritten': 0,
    }
    assert min(n for name, n in table.counts.items() if name != 'rewritten') > 0
    assert table.unknown == {'/m/unknown': counts['box_unknown']}
    written = {line.split(',')[0] for line in split['boxes'].read_text().splitlines()[1:]}
    assert table.image_ids.tolist() == sorted(written)
    assert (table.image.dtype, table.label.dtype, table.bbox.dtype, table.flags.dtype) == (
        np.int32,
        np.int32,
        np.float32,
        np.uint8,
    )
    assert not np.signbit(table.bbox).any()


@pytest.mark.parametrize('seed', range(3))
def test_labels_equal_slow_reader(helpers, tmp_path, seed):
    split = helpers.write_split(tmp_path, seed)
    table = read_image_labels(split['labels'], SPACE)
    _, counts = helpers.read_slowly(split['boxes'], split['labels'])
    expected = [
        (r[0], SPACE.ids[r[2]], r[3] == '1')
        for r in (line.split(',') for line in split['labels'].read_text().splitlines()[1:])
        if r[2] in SPACE.ids and r[3] != '0.7'
    ]
    found = [
        (table.image_ids[i], int(label), bool(positive))
        for i, label, positive in zip(table.image, table.label, table.positive)
    ]
    assert found == expected
    assert table.counts == {
        'rows': 160,
        'labels': counts['labels'],
        'unknown_class': counts['label_unknown'],
        'unverified': counts['unverified'],
        'machine': 0,
        'rewritten': 0,
    }


def test_several_files_gzip_and_small_blocks(split, tmp_path):
    lines = split['boxes'].read_bytes().splitlines(keepends=True)
    whole = read_boxes(split['boxes'], SPACE)
    parts = []
    # Gzip is detected from the content. A gzip file may have several members.
    for k, part in enumerate((lines[1:60], lines[60:61], lines[61:])):
        parts.append(tmp_path / f'part{k}.csv')
        content = gzip.compress(lines[0]) + gzip.compress(b''.join(part))
        parts[-1].write_bytes(content if k else b''.join([lines[0], *part]))
    joined = read_boxes(parts, SPACE)
    assert rows_of(joined) == rows_of(whole) and joined.counts == whole.counts
    batches = list(
        map_batches(lambda batch: batch, split['boxes'], {'ImageID': 'id'}, {}, block_size=256)
    )
    assert len(batches) > 10
    assert [i for batch in batches for i in batch.column(0).to_pylist()] == [
        line.decode().split(',')[0] for line in lines[1:]
    ]


def test_columns_are_identified_by_name(helpers, tmp_path):
    path = helpers.write_csv(
        tmp_path / 'b.csv',
        ['IsInside', 'Later', 'YMax', 'XMax', 'LabelName', 'YMin', 'XMin', 'IsGroupOf', 'ImageID'],
        [
            ['1', 'x', '.6', '.5', '/m/b', '.2', '.1', '-1', 'i'],
            ['-1', '', '.6', '.5', '/m/c', '.2', '.1', '1', 'h'],
        ],
    )
    table = read_boxes(path, SPACE)
    np.testing.assert_array_equal(table.bbox, np.float32([[0.2, 0.1, 0.6, 0.5]] * 2))
    assert table.flags.tolist() == [INSIDE, GROUP_OF]
    assert table.image_ids.tolist() == ['h', 'i'] and table.image.tolist() == [1, 0]


BASE = 'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax'
FLAGS = 'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside'
CLICKS = ','.join(f'XClick{k}{axis}' for axis in 'XY' for k in range(1, 5))


@pytest.mark.parametrize(
    'header, rows, flags',
    [
        # Challenge 2018; V4 and V5.
        (
            f'{BASE},{FLAGS}',
            [
                'i,freeform,/m/a,1,0.071905,0.145346,0.206591,0.391306,0,1,1,0,0',
                'j,xclick,/m/b,1,0.022673031,0.9642005,0.07103825,0.80054647,-1,-1,0,0,1',
            ],
            [TRUNCATED | GROUP_OF, INSIDE],
        ),
        # Challenge 2019, train and validation.
        (
            'ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf',
            [
                'i,/m/a,0.071905,0.145346,0.206591,0.391306,1',
                'j,/m/b,0.022673031,0.9642005,0.07103825,0.80054647,0',
            ],
            [GROUP_OF, 0],
        ),
        # V6 and V7, train: positions of the annotators' clicks, or -1.
        (
            f'{BASE},{FLAGS},{CLICKS}',
            [
                'i,xclick,/m/a,1,0.071905,0.145346,0.206591,0.391306,0,1,0,0,0,0.1,0.071905,0.12,0.145346,'
                '0.206591,0.3,0.391306,0.325',
                'j,activemil,/m/b,1,0.022673031,0.9642005,0.07103825,0.80054647,-1,-1,-1,-1,-1,'
                '-1.0,-1.0,-1.0,-1.0,-1.0,-1.0,-1.0,-1.0',
            ],
            [TRUNCATED, 0],
        ),
    ],
    ids=['2018', '2019', 'V7'],
)
@pytest.mark.parametrize('zipped', [False, True], ids=['plain', 'gzip'])
def test_releases(tmp_path, header, rows, flags, zipped):
    path = tmp_path / 'annotations-bbox.csv'
    data = '\n'.join([header, *rows, '']).encode()
    path.write_bytes(gzip.compress(data) if zipped else data)
    table = read_boxes(path, SPACE)
    np.testing.assert_array_equal(
        table.bbox,
        np.float32(
            [
                [0.206591, 0.071905, 0.391306, 0.145346],
                [0.07103825, 0.022673031, 0.80054647, 0.9642005],
            ]
        ),
    )
    assert table.label.tolist() == [0, 1] and table.flags.tolist() == flags
    assert table.image_ids.tolist() == ['i', 'j']
    for header, row in (
        ('ImageID,Source,LabelName,Confidence', '{},verification,{},{}'),
        ('ImageID,LabelName,Confidence', '{},{},{}'),
    ):  # of 2019
        path.write_text('\n'.join([header, row.format('j', '/m/a', 0), row.format('i', '/m/b', 1)]))
        labels = read_image_labels(path, SPACE)
        assert labels.image_ids.tolist() == ['i', 'j'] and labels.image.tolist() == [1, 0]
        assert labels.label.tolist() == [0, 1] and labels.positive.tolist() == [False, True]


def test_dialects(tmp_path):
    path = tmp_path / 'b.csv'
    quoted = ','.join(f'"{field}"' for field in GOOD.split(','))
    path.write_bytes(f'\ufeff{HEADER}\r\n\r\n{quoted}\r\n\r\n{GOOD}'.encode())
    assert len(read_boxes(path, SPACE).image) == 2


def test_labels_without_confidence_are_positive(helpers, tmp_path):
    path = helpers.write_csv(
        tmp_path / 'l.csv', ['LabelName', 'ImageID'], [['/m/a', 'i'], ['/m/b', 'i']]
    )
    assert read_image_labels(path, SPACE).positive.tolist() == [True, True]


def changed(at, value):
    fields = GOOD.split(',')
    fields[at] = value
    return ','.join(fields)


@pytest.mark.parametrize(
    'row, message',
    [
        ('i1,xclick,/m/a', 'expected 13 fields as in the header, got 3'),
        (GOOD + ',1', 'expected 13 fields as in the header, got 14'),
        ('i1', 'expected 13 fields'),
        (' ', 'expected 13 fields'),
        (changed(4, 'left'), "expected XMin to be a number, got 'left'"),
        (changed(5, ''), 'expected XMax to be a number'),
        (changed(6, 'nan'), 'expected YMin to be a number'),
        (changed(7, 'inf'), 'expected YMax to be a number'),
        (changed(7, '1e999'), 'expected YMax to be a number'),
        (changed(4, '1_0'), 'expected XMin to be a number'),
        (changed(4, '0x1'), 'expected XMin to be a number'),
        (changed(8, '2'), 'expected IsOccluded to be 0, 1 or -1'),
        (changed(9, 'yes'), 'expected IsTruncated to be 0, 1 or -1'),
        (changed(10, '0x1'), 'expected IsGroupOf to be 0, 1 or -1'),
        (changed(10, '0X1'), 'expected IsGroupOf to be 0, 1 or -1'),
        (changed(10, '0.5'), 'expected IsGroupOf to be 0, 1 or -1'),
        (changed(10, '1' * 5000), 'expected IsGroupOf to be 0, 1 or -1'),
        (changed(11, '300'), 'expected IsDepiction to be 0, 1 or -1'),
        (changed(0, ''), 'expected ImageID to be an image id'),
        (changed(0, 'a\x00b'), 'expected ImageID to be an image id'),
        (changed(0, 'a\udcffb'), 'expected ImageID to be an image id'),
        (changed(2, ''), 'expected LabelName to be a class id'),
        (changed(0, '"i1'), 'expected 13 fields in one line'),
        (changed(1, '"a\nb"'), 'expected 13 fields'),
    ],
)
@pytest.mark.parametrize('n_before', [0, 3, 3000])
def test_malformed_row_is_named(tmp_path, row, message, n_before):
    path = tmp_path / 'boxes.csv'
    lines = [HEADER, *[GOOD] * n_before, '', row, *[GOOD] * 4, 'bad', '']
    path.write_bytes('\n'.join(lines).encode('utf-8', 'surrogateescape'))
    with pytest.raises(InputError) as e:
        list(
            map_batches(
                lambda batch: batch,
                path,
                {
                    'ImageID': 'id',
                    'LabelName': 'class',
                    'XMin': 'coordinate',
                    'XMax': 'coordinate',
                    'YMin': 'coordinate',
                    'YMax': 'coordinate',
                },
                dict.fromkeys(BOX_COLUMNS[-5:], 'flag'),
                block_size=4096,
            )
        )
    assert f'boxes.csv, line {n_before + 3}: ' in str(e.value)
    assert message in str(e.value) and '\n' not in str(e.value)
    with pytest.raises(InputError) as again:
        read_boxes(path, SPACE)
    assert str(again.value) == str(e.value)


@pytest.mark.parametrize('end', ['\n', '\r\n', '\r'])
@pytest.mark.parametrize('block_size', [1, 7, 100, 1 << 20])
def test_line_numbers_with_all_line_ends(tmp_path, end, block_size):
    path = tmp_path / 'labels.csv'
    lines = ['ImageID,LabelName', 'i,/m/a', '', '', 'j,/m/b', '\ufeffk,/m/c', '', 'l,']
    path.write_bytes(end.join(lines).encode())
    with pytest.raises(InputError, match='labels.csv, line 8: expected LabelName'):
        list(
            map_batches(
                lambda batch: batch, path, {'ImageID': 'id', 'LabelName': 'class'}, {}, block_size
            )
        )
    path.write_bytes(end.join(lines[:-1]).encode())
    ids = [
        i
        for batch in map_batches(lambda batch: batch, path, {'ImageID': 'id'}, {}, block_size)
        for i in batch.column(0).to_pylist()
    ]
    assert ids == ['i', 'j', 'k']


@pytest.mark.parametrize('value', ['2', '-0.5', 'yes', '', 'nan'])
def test_malformed_confidence(helpers, tmp_path, value):
    path = helpers.write_csv(
        tmp_path / 'l.csv',
        ['ImageID', 'LabelName', 'Confidence'],
        [['i', '/m/a', '1'], ['i', '/m/b', value]],
    )
    with pytest.raises(InputError, match='l.csv, line 3: expected Confidence to be a number from'):
        read_image_labels(path, SPACE)


@pytest.mark.parametrize(
    'content, message',
    [
        ('', 'line 1: no column ImageID'),
        ('\n', 'line 1: no column'),
        (HEADER.replace('XMax', 'Right') + '\n' + GOOD, 'line 1: no column XMax'),
        (GOOD + '\n' + GOOD, 'line 1: no column ImageID, LabelName'),
        (HEADER.replace('Source', 'XMin') + '\n' + GOOD, 'column XMin occurs twice'),
        (HEADER, 'no rows'),
        (HEADER + '\n\n\n', 'no rows'),
        (HEADER + '\n' + GOOD.replace('/m/a', '/m/x'), 'right class file'),
        ('"' + HEADER, 'line 1'),
    ],
)
def test_malformed_file(tmp_path, content, message):
    path = tmp_path / 'boxes.csv'
    path.write_text(content)
    with pytest.raises(InputError, match='boxes.csv') as e:
        read_boxes(path, SPACE)
    assert message in str(e.value) and '\n' not in str(e.value)


def test_empty_file_among_others_is_refused(tmp_path):
    good, empty = tmp_path / 'good.csv', tmp_path / 'empty.csv'
    good.write_text(f'{HEADER}\n{GOOD}\n')
    empty.write_text(f'{HEADER}\n')
    with pytest.raises(InputError, match='empty.csv: no rows'):
        read_boxes([good, empty], SPACE)


def test_unreadable(tmp_path):
    for path in (tmp_path / 'none.csv', tmp_path):
        with pytest.raises(InputError, match='cannot read'):
            read_boxes(path, SPACE)


@pytest.mark.parametrize('end', [5, 30, -4, -20])
def test_truncated_gzip(tmp_path, end):
    path = tmp_path / 'boxes.csv.gz'
    rows = [changed(0, f'{i * 7919:x}') for i in range(2000)]
    path.write_bytes(gzip.compress('\n'.join([HEADER, *rows]).encode())[:end])
    with pytest.raises(InputError, match='boxes.csv.gz.*gzip'):
        read_boxes(path, SPACE)


def test_describe_unknown():
    assert describe_unknown({'b': 2, 'a': 2, 'c': 5}, 2) == 'c (5), a (2) and 1 more'
