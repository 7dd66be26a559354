"""Checksums of JSON files."""

import hashlib
import json
import math
import os

import numpy as np
import pytest

from pfdet.errors import InputError
from pfdet.files.checksum import file_checksum
from pfdet.files.json_digest import KEY
from pfdet.files.json_file import read_json, read_object, write_json

CONTENT = {
    'mAP': 0.1 + 0.2,
    'AP': {'/m/b': 1e-300, '/m/a': None, '/m/é': 1},
    'list': [1, -0.0, True, [], {}],
    'text': 'line\n"quoted" é \U0001f600',
    'nan': math.nan,
}


@pytest.fixture
def path(tmp_path):
    write_json(tmp_path / 'x.json', CONTENT)
    return tmp_path / 'x.json'


def test_content_is_read_back_without_the_checksum(path):
    found = read_json(path, 'a test')
    assert repr(found) == repr(CONTENT) and list(found) == list(CONTENT)
    assert repr(read_object(path, 'a test', AP=dict)) == repr(CONTENT)


def test_checksum_is_that_of_the_documentation(path):
    """Computed here without the package."""
    content = json.loads(path.read_text())
    checksum = content.pop('content_sha256')
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    assert checksum == hashlib.sha256(text.encode()).hexdigest()


def test_layout_does_not_matter(path):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(content.items())), ensure_ascii=False))
    assert read_json(path, 'a test')['text'] == CONTENT['text']


def test_flipped_bits_are_one_line_or_change_nothing(path):
    whole = path.read_bytes()
    key = range(whole.index(KEY.encode()) - 1, whole.index(KEY.encode()) + len(KEY) + 1)
    rng, n_error = np.random.default_rng(0), 0
    for at in range(len(whole)):
        damaged = bytearray(whole)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            found = read_json(path, 'a test')
        except InputError as e:
            assert str(e).startswith(f'{path}: ') and '\n' not in str(e)
            n_error += 1
        else:
            # Another entry in the place of the checksum, or a change of the layout.
            if at in key:
                found = {name: found[name] for name in CONTENT}
            assert repr(found) == repr(CONTENT), at
    assert 0.8 * len(whole) < n_error < len(whole)


@pytest.mark.parametrize(
    'change',
    [
        lambda content: content.update(mAP=0.5),
        lambda content: content.pop('nan'),
        lambda content: content['AP'].update({'/m/c': 1}),
        lambda content: content.update({KEY: None}),
        lambda content: content.update({KEY: [1] * 1000}),
    ],
)
def test_edited_files_are_one_line(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=rf'x\.json: damaged or edited.*remove.*{KEY}') as e:
        read_json(path, 'a test')
    assert '\n' not in str(e.value)
    # As the message says.
    del content[KEY]
    path.write_text(json.dumps(content))
    assert repr(read_json(path, 'a test')) == repr(content)


@pytest.mark.parametrize('content', [{'a': 1}, [1, 2], 'text', None, {}])
def test_files_without_a_checksum_are_read(tmp_path, content):
    (tmp_path / 'x.json').write_text(json.dumps(content))
    assert read_json(tmp_path / 'x.json', 'a test') == content


def test_values_of_other_types_are_those_of_json(tmp_path):
    write_json(tmp_path / 'x.json', {1: (2, 3), 'a': {'b': (4,)}})
    assert read_json(tmp_path / 'x.json', 'a test') == {'1': [2, 3], 'a': {'b': [4]}}
    # Content that was read with its checksum.
    write_json(tmp_path / 'y.json', json.loads((tmp_path / 'x.json').read_text()))
    assert (tmp_path / 'x.json').read_bytes() == (tmp_path / 'y.json').read_bytes()


def test_file_appears_when_it_is_complete(tmp_path):
    (tmp_path / 'x.json').write_text('before')
    with pytest.raises(TypeError):
        write_json(tmp_path / 'x.json', {'a': object()})
    assert (tmp_path / 'x.json').read_text() == 'before' and os.listdir(tmp_path) == ['x.json']


def test_checksum_of_a_file(tmp_path):
    content = np.random.default_rng(0).bytes((1 << 20) + 17)
    (tmp_path / 'x').write_bytes(content)
    assert file_checksum(tmp_path / 'x') == hashlib.sha256(content).hexdigest()
    with pytest.raises(OSError):
        file_checksum(tmp_path)
