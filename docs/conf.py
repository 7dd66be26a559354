"""Configuration of the documentation: ``python -m sphinx -W -b html docs build/docs``."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / 'docs')]

import generate  # noqa: E402

import pfdet  # noqa: E402

project = 'pfdet'
author = 'pfdet authors'
copyright = 'pfdet authors'
version = release = pfdet.__version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
source_suffix = {'.md': 'markdown'}
exclude_patterns = ['study/**', '_build/**']
nitpicky = False

myst_enable_extensions = ['dollarmath']
myst_heading_anchors = 3

autodoc_default_options = {'members': True, 'show-inheritance': True}
autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
napoleon_numpy_docstring = False
# The fields of a NamedTuple or dataclass are documented in its Attributes section alone.
napoleon_use_ivar = True

# Docstrings name types by their class alone; some classes of different modules share a name.
suppress_warnings = ['ref.python']

html_theme = 'furo'
html_title = f'pfdet {release}'


def skip_fields(app, what: str, name: str, obj, skip: bool, options) -> bool | None:
    """Skip the fields of NamedTuples, whose docstrings are 'Alias for field number n'."""
    if (getattr(obj, '__doc__', None) or '').startswith('Alias for field number'):
        return True
    return None


def setup(app) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    app.connect('config-inited', lambda app, config: generate.write_pages(ROOT))
    app.connect('autodoc-skip-member', skip_fields)
