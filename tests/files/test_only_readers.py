"""The package has no other way to read files than those of :mod:`pfdet.files`.

The source is searched, because a reader that was added later would not be in any list of readers.
"""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / 'pfdet'
# Functions that execute code, believe sizes, or start programs, by their last names.
FORBIDDEN = {
    ('np', 'load'): 'pfdet.files.npz',
    ('numpy', 'load'): 'pfdet.files.npz',
    ('np', 'loadtxt'): 'pfdet.files',
    ('np', 'genfromtxt'): 'pfdet.files',
    ('serializers', 'load_npz'): 'pfdet.links.load_arrays',
    ('serializers', 'NpzDeserializer'): 'pfdet.links.load_arrays',
    ('serializers', 'load_hdf5'): 'pfdet.links.load_arrays',
    ('pickle', 'load'): 'nothing',
    ('pickle', 'loads'): 'nothing',
    ('pickle', 'Unpickler'): 'nothing',
    ('torch', 'load'): 'pfdet.links.pth_file',
    ('cv2', 'imread'): 'pfdet.openimages.images',
    ('yaml', 'load'): 'nothing',
    ('joblib', 'load'): 'nothing',
    ('marshal', 'loads'): 'nothing',
}
# Where they may be used, with the reason.
ALLOWED = {
    # The subclass that checks each array.
    ('links/load_arrays.py', 'NpzDeserializer'),
}
# Modules that open files without the opener: their own temporary files, and those of the system.
OWN_FILES = {
    'evaluation/detections_file.py',
    'evaluation/image_order.py',
    'training/dry_run/process_stats.py',
}
# Modules that read text without limits: of the package, or their own results.
OWN_TEXT = {
    'cli/quickstart.py',
    'files/memory.py',
    'openimages/coco_mapping.py',
    'openimages/mini/classes.py',
    'recipes/paper_tables.py',
    'report/page.py',
    'version.py',
}


def calls():
    """Yield the file, the call and the names of what is called, of all calls in the package."""
    for path in sorted(PACKAGE.rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
            if isinstance(node, ast.Call):
                yield path.relative_to(PACKAGE).as_posix(), node, ast.unparse(node.func).split('.')


@pytest.fixture(scope='module')
def all_calls():
    found = list(calls())
    assert len(found) > 5000
    return found


def keywords(call):
    return {keyword.arg for keyword in call.keywords}


def test_no_reader_that_executes_or_believes(all_calls):
    found = [
        f'{file}, line {call.lineno}: {".".join(names)}; use {FORBIDDEN[tuple(names[-2:])]}'
        for file, call, names in all_calls
        if tuple(names[-2:]) in FORBIDDEN and (file, names[-1]) not in ALLOWED
    ]
    assert found == []


def test_pillow_is_given_the_format(all_calls):
    opened = [
        (file, call.lineno, keywords(call))
        for file, call, names in all_calls
        if names[-2:] == ['Image', 'open']
    ]
    assert opened
    for file, line, given in opened:
        assert 'formats' in given, f'{file}, line {line}: Pillow may start other programs'


def mode(call):
    """The mode of a call of open(), 'r' by default."""
    modes = [k.value for k in call.keywords if k.arg == 'mode'] or call.args[1:2]
    return modes[0].value if modes and isinstance(modes[0], ast.Constant) else 'r'


def test_only_regular_files_are_opened_for_reading(all_calls):
    found = [
        f'{file}, line {call.lineno}: give opener=regular_file to open()'
        for file, call, names in all_calls
        if names == ['open'] and mode(call) in ('r', 'rb', 'rt')
        if 'opener' not in keywords(call) and file not in OWN_FILES
        if '/proc/' not in ast.unparse(call)
    ]
    assert found == []


def test_text_is_read_with_limits(all_calls):
    found = [
        f'{file}, line {call.lineno}: use pfdet.files in place of {names[-1]}()'
        for file, call, names in all_calls
        # A function of pfdet.files has the name read_bytes, too.
        if len(names) > 1 and names[-1] in ('read_text', 'read_bytes')
        if file not in OWN_TEXT and '/proc/' not in ast.unparse(call)
    ]
    assert found == []
