"""Damaged tables are refused in one line, or give the rows that the csv module reads."""

import csv
import functools
import gzip
import io
import itertools
import re
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pfdet.errors import InputError
from pfdet.openimages import csv_columns, tables
from pfdet.openimages.build_index import build_index
from pfdet.openimages.classes import Classes
from pfdet.openimages.index import AnnotationIndex

SPACE = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))
COLUMNS = (
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
SPECIAL = b',"\n\r\t\x00 -+.e0123456789\xff\xef\xbb\xbf/mabci'
SETTINGS = settings(max_examples=150, derandomize=True, deadline=None, database=None)


def plain_rows(data):
    """The rows of a table, read by the csv module with a check of the number of fields."""
    if data[:2] == b'\x1f\x8b':
        data = gzip.decompress(data)
    # The csv module of Python 3.10 refuses NUL in any column.
    text = data.decode('utf-8-sig', 'surrogateescape').replace('\0', '\1')
    header, *rows = csv.reader(io.StringIO(text, newline=''))
    rows = [row for row in rows if row]
    assert all(len(row) == len(header) for row in rows)
    return [dict(zip(header, row)) for row in rows]


def plain_name(text):
    """The normal form of an id, and whether it differs."""
    name = re.sub(r'^\t+|\t+$', '', text)
    while name and (name[0] == '\t' or unicodedata.category(name[0]) in ('Zs', 'Cf')):
        name = name[1:]
    while name and (name[-1] == '\t' or unicodedata.category(name[-1]) in ('Zs', 'Cf')):
        name = name[:-1]
    name = unicodedata.normalize('NFC', name)
    return name, name != text


def plain_flag(text):
    text = text.strip(' \t')
    known = {'': -1, 'true': 1, 'false': 0}
    if text.casefold() in known:
        return known[text.casefold()], True
    return int(float(text)), '.' in text


def plain_boxes(data):
    """The sorted usable boxes of a table, its image ids, and the counts."""
    found, ids = [], set()
    counts = dict(rows=0, boxes=0, clipped=0, unknown_class=0, degenerate=0, rewritten=0)
    for row in plain_rows(data):
        corners = [np.float32(row[name]) for name in ('YMin', 'XMin', 'YMax', 'XMax')]
        bbox = [min(max(corner, np.float32(0)), np.float32(1)) for corner in corners]
        values = {name: plain_flag(row[name]) for name in tables.FLAGS if name in row}
        flags = sum(tables.FLAGS[name] for name, (value, _) in values.items() if value == 1)
        assert all(-1 <= corner <= 2 for corner in corners)
        assert all(value in (-1, 0, 1) for value, _ in values.values())
        row['ImageID'], id_changed = plain_name(row['ImageID'])
        row['LabelName'], class_changed = plain_name(row['LabelName'])
        counts['rewritten'] += id_changed + class_changed + sum(c for _, c in values.values())
        ids.add(row['ImageID'])
        counts['rows'] += 1
        if row['LabelName'] not in SPACE.ids:
            counts['unknown_class'] += 1
        elif bbox[0] >= bbox[2] or bbox[1] >= bbox[3]:
            counts['degenerate'] += 1
        else:
            counts['boxes'] += 1
            counts['clipped'] += bbox != corners
            found.append(
                (row['ImageID'], SPACE.ids[row['LabelName']], tuple(map(float, bbox)), flags)
            )
    return sorted(found), sorted(ids), counts


def plain_labels(data):
    found, ids = [], set()
    counts = dict(rows=0, labels=0, unknown_class=0, machine=0, unverified=0, rewritten=0)
    for row in plain_rows(data):
        confidence = float(row.get('Confidence', '1'))
        assert 0 <= confidence <= 1
        row['ImageID'], id_changed = plain_name(row['ImageID'])
        row['LabelName'], class_changed = plain_name(row['LabelName'])
        counts['rewritten'] += id_changed + class_changed
        ids.add(row['ImageID'])
        counts['rows'] += 1
        if row['LabelName'] not in SPACE.ids:
            counts['unknown_class'] += 1
        elif row.get('Source', '').strip().casefold() not in tables.HUMAN_SOURCES:
            counts['machine'] += 1
        elif confidence not in (0, 1):
            counts['unverified'] += 1
        else:
            counts['labels'] += 1
            found.append((row['ImageID'], SPACE.ids[row['LabelName']], confidence == 1))
    return sorted(found), sorted(ids), counts


def fast_boxes(path):
    table = tables.read_boxes(path, SPACE)
    return (
        sorted(
            (table.image_ids[i], int(label), tuple(map(float, bbox)), int(flags))
            for i, label, bbox, flags in zip(table.image, table.label, table.bbox, table.flags)
        ),
        table.image_ids.tolist(),
        table.counts,
    )


def fast_labels(path):
    table = tables.read_image_labels(path, SPACE)
    return (
        sorted(
            (table.image_ids[i], int(label), bool(positive))
            for i, label, positive in zip(table.image, table.label, table.positive)
        ),
        table.image_ids.tolist(),
        table.counts,
    )


def agree_or_refuse(fast, plain, path, data):
    """Return whether the bytes are accepted. Fail on a wrong result or a malformed message."""
    path.write_bytes(data)
    try:
        found = fast(path)
    except InputError as e:
        assert str(e).startswith(str(path)) and '\n' not in str(e) and 'expected' in str(e)
        return False
    assert found == plain(data)
    return True


def written(quoting=csv.QUOTE_MINIMAL, end='\n', n=25, seed=0):
    rng = np.random.default_rng(seed)
    file = io.StringIO(newline='')
    writer = csv.writer(file, quoting=quoting, lineterminator=end)
    writer.writerow(COLUMNS)
    for _ in range(n):
        low, high = np.sort(rng.uniform(-0.1, 1.1, (2, 2)), axis=0)
        writer.writerow(
            [
                f'i{rng.integers(9)}',
                'xclick',
                rng.choice(['/m/a', '/m/b', '/m/x']),
                1,
                *(f'{value:.6f}' for value in (low[0], high[0], low[1], high[1])),
                *rng.integers(-1, 2, 5),
            ]
        )
    return file.getvalue().encode()


@pytest.fixture(params=[None, 64], ids=['one block', 'small blocks'])
def block_size(request, monkeypatch):
    if request.param:
        monkeypatch.setattr(
            tables,
            'map_batches',
            functools.partial(csv_columns.map_batches, block_size=request.param),
        )


@pytest.mark.parametrize(
    'fast, plain', [(fast_boxes, plain_boxes), (fast_labels, plain_labels)], ids=['boxes', 'labels']
)
def test_mutated(helpers, tmp_path, fast, plain, block_size):
    rng = np.random.default_rng(0)
    sources = [
        written(quoting, end)
        for quoting, end in itertools.product(
            (csv.QUOTE_MINIMAL, csv.QUOTE_ALL), ('\n', '\r\n', '\r')
        )
    ]
    assert all(agree_or_refuse(fast, plain, tmp_path / 't.csv', source) for source in sources)
    accepted = [
        agree_or_refuse(
            fast, plain, tmp_path / 't.csv', helpers.mutate(rng, sources[k % len(sources)], SPECIAL)
        )
        for k in range(250)
    ]
    assert 25 < sum(accepted) < 225


def test_mutated_gzip(helpers, tmp_path):
    rng = np.random.default_rng(1)
    path = tmp_path / 't.csv.gz'
    whole = gzip.compress(written(), mtime=0)
    assert agree_or_refuse(fast_boxes, plain_boxes, path, whole)
    accepted = [
        agree_or_refuse(fast_boxes, plain_boxes, path, helpers.mutate(rng, whole, SPECIAL))
        for _ in range(60)
    ]
    assert not all(accepted)


values = st.one_of(
    st.sampled_from(
        [
            '0',
            '1',
            '-1',
            '0.5',
            '.25',
            '1e-3',
            ' 0.75',
            '-0',
            '2',
            '',
            'nan',
            'inf',
            'true',
            'False',
            '1.0',
            '0.0 ',
            '1e39',
            '0x1',
            '1_0',
            '\u0663',
            '+1',
            '00',
            '-',
            '1.',
            '1e',
            '0.1 ',
        ]
    ),
    st.floats(width=32).map(repr),
    st.text('0123456789.eE+-', max_size=8),
)
names = st.one_of(
    st.sampled_from(['i', '/m/a', '/m/b', '/m/x', ' i', '"i"', 'a,b', '\u00fc']),
    st.text(max_size=4),
)
tables_of_text = st.lists(
    st.tuples(
        names,
        names,
        st.one_of(st.sampled_from(['/m/a', '/m/b']), names),
        values,
        *[values] * 4,
        *[st.one_of(st.sampled_from(['0', '1', '-1']), values)] * 5,
    ),
    min_size=1,
    max_size=3,
)


@SETTINGS
@given(
    rows=tables_of_text,
    always=st.booleans(),
    end=st.sampled_from(['\n', '\r\n', '\r']),
    head=st.sampled_from(['', '\ufeff']),
)
def test_any_text_in_any_field(tmp_path_factory, rows, always, end, head):
    path = tmp_path_factory.getbasetemp() / 'any.csv'
    # csv.writer cannot write NUL before Python 3.11.
    lines = [
        ','.join(
            '"' + field.replace('"', '""') + '"' if always or set(field) & set('",\r\n') else field
            for field in row
        )
        for row in (COLUMNS, *rows)
    ]
    data = (head + end.join(lines)).encode('utf-8', 'surrogatepass')
    agree_or_refuse(fast_boxes, plain_boxes, path, data)
    agree_or_refuse(fast_labels, plain_labels, path, data)


@SETTINGS
@given(
    data=st.one_of(
        st.binary(max_size=60),
        st.text(',"\n\r 0a\ufeff', max_size=40).map(
            lambda text: ('ImageID,LabelName\n' + text).encode()
        ),
    )
)
def test_any_bytes(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / 'bytes.csv'
    agree_or_refuse(fast_labels, plain_labels, path, data)


@pytest.mark.parametrize(
    'row, line',
    [
        ('i,"xclick,/m/a,1,0,1,0,1,0,0,0,0,0\ni,xclick",/m/a,1,0,1,0,1,0,0,0,0,0', 3),
        ('"i,xclick,/m/a,1,0,1,0,1,0,0,0,0,0\ni",xclick,/m/a,1,0,1,0,1,0,0,0,0,0', 3),
        ('i,xc"lick,/m/a,1,0,1,0,1,0,0,0,0,0', 3),
        ('i,"xclick"s,/m/a,1,0,1,0,1,0,0,0,0,0', 3),
        ('i,"xclick,/m/a,1,0,1,0,1,0,0,0,0,0', 3),
    ],
)
def test_stray_quote_hides_no_row(tmp_path, block_size, row, line):
    path = tmp_path / 't.csv'
    good = 'i,xclick,/m/a,1,0,1,0,1,0,0,0,0,0'
    path.write_text('\n'.join([','.join(COLUMNS), good, row, good, good]) + '\n')
    with pytest.raises(InputError, match=f't.csv, line {line}: a stray quote; expected 13 fields'):
        tables.read_boxes(path, SPACE)


@pytest.mark.parametrize('seed', range(3))
def test_index_of_mutated_tables(helpers, tmp_path, seed):
    """End to end: the index equals the result of the slow reader, or is not written."""
    split = helpers.write_split(tmp_path / 'split', seed, n_image=8, n_box=20)
    whole = {name: split[name].read_bytes() for name in ('boxes', 'labels')}
    rng = np.random.default_rng(seed)
    n_built = 0
    for k in range(40):
        for name, data in whole.items():
            split[name].write_bytes(
                helpers.mutate(rng, data, SPECIAL) if rng.random() < 0.6 else data
            )
        split['out'] = tmp_path / f'{k}.index'
        try:
            build_index(**split, keep_missing=True)
        except InputError as e:
            assert '\n' not in str(e) and not split['out'].exists()
            continue
        n_built += 1
        index = AnnotationIndex.open(split['out'])
        slow, _ = helpers.read_slowly(split['boxes'], split['labels'])
        assert [index.image_id(i) for i in range(len(index))] == sorted(slow)
        for i, image_id in enumerate(sorted(slow)):
            a = index.annotation(i)
            assert {
                (tuple(map(float, bbox)), bool(flags & 4)): [set(np.flatnonzero(label)), int(flags)]
                for bbox, label, flags in zip(a.bbox, a.label, a.flags)
            } == slow[image_id]['objects']
            assert set(np.flatnonzero(a.positive)) == slow[image_id]['positive']
            assert set(np.flatnonzero(a.negative)) == slow[image_id]['negative']
    assert 5 < n_built < 40
    assert not [path for path in tmp_path.iterdir() if path.name.startswith('.')]
