"""The version of this package and the commit of its code."""

import functools
import importlib.metadata
import json
import subprocess
from pathlib import Path

from pfdet import __version__

ROOT = Path(__file__).resolve().parents[1]
# A file system that hangs must not hold up a run.
_SECONDS = 30


@functools.cache
def commit() -> str:
    """What the code is at.

    Returns:
        str: In a checkout, a commit's short name, and ``-dirty`` after changes outside ``docs/``.
        Installed from a repository, the commit that pip has recorded. Otherwise ``'unknown'``.
    """
    if not (ROOT / 'setup.py').exists():
        # Installed: a repository around the directory would be another project's.
        return _recorded_commit() or 'unknown'
    name = _git('describe', '--always')
    if not name:
        return 'unknown'
    # The study writes its page and results to docs/; what it runs does not read them.
    changed = _git('status', '--porcelain', '--untracked-files=no', '--', '.', ':(exclude)docs')
    return name + ('-dirty' if changed else '')


def describe() -> str:
    """The version and the commit, such as ``'pfdet 0.1.0 (commit 1a2b3c4)'``."""
    return f'pfdet {__version__} (commit {commit()})'


def _git(*args: str) -> str:
    try:
        return subprocess.run(
            ['git', '-C', str(ROOT), *args],
            capture_output=True,
            text=True,
            check=False,
            timeout=_SECONDS,
            stdin=subprocess.DEVNULL,
        ).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        # git is not installed.
        return ''


def _recorded_commit() -> str:
    """The commit in ``direct_url.json``, which pip writes for ``pip install git+URL``."""
    try:
        text = importlib.metadata.distribution('pfdet').read_text('direct_url.json')
        return json.loads(text or '{}')['vcs_info']['commit_id'][:7]
    except (importlib.metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return ''
