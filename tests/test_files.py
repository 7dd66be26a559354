import os
import stat

import pytest

from pfdet.files import replace_when_done


def test_the_file_appears_when_done(tmp_path):
    path = tmp_path / 'new' / 'folder' / 'score.json'
    with replace_when_done(path) as unfinished:
        unfinished.write_text('{}')
        assert not path.exists()
        # The same folder, so renaming is not copying; the suffix, since writers go by it.
        assert unfinished.parent == path.parent
        assert unfinished.suffix == '.json'
    assert path.read_text() == '{}'
    assert os.listdir(path.parent) == ['score.json']


def test_a_failure_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / 'score.json'
    path.write_text('old')
    with pytest.raises(RuntimeError), replace_when_done(path) as unfinished:
        unfinished.write_text('ne')
        raise RuntimeError
    assert path.read_text() == 'old'
    assert os.listdir(tmp_path) == ['score.json']


def test_a_path_may_be_a_string_without_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with replace_when_done('plain.txt') as unfinished:
        unfinished.write_bytes(b'x')
    assert (tmp_path / 'plain.txt').read_bytes() == b'x'


@pytest.mark.parametrize('umask', [0o022, 0o077])
def test_others_may_read_what_the_umask_allows(tmp_path, umask):
    before = os.umask(umask)
    try:
        with replace_when_done(tmp_path / 'x') as unfinished:
            unfinished.write_text('x')
        mode = stat.S_IMODE(os.stat(tmp_path / 'x').st_mode)
        assert mode == 0o666 & ~umask
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
