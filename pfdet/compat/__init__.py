"""Make Chainer 7.8.1 and ChainerCV 0.13.1 work on today's Python, NumPy and CuPy.

Both packages are no longer maintained; their last releases are from 2022 and 2019. Importing any
part of pfdet applies the fixes. A program that imports Chainer first must import this module before
it::

    import pfdet.compat  # noqa: F401

    import chainer

The import is cheap: it loads neither Chainer nor NumPy and changes nothing in NumPy or the standard
library. It installs an import hook (:mod:`pfdet.compat.import_hook`). When a module of Chainer,
ChainerMN or ChainerCV is imported, the hook passes its source to the fixes in
:mod:`pfdet.compat.fixes` and others. A fix is a function that takes the source of a module and
returns the fixed source. Fixes that this environment does not need are skipped. A fix raises an
error for a source that it does not know, so a module is never fixed partially.

``python -m pfdet.compat`` prints the versions in this environment and the fixes applied.

Not fixed: ``chainer.links.caffe`` requires protobuf below 4. pfdet does not read Caffe models.
"""

from pfdet.compat import cupy_fixes, fixes, lazy_packages  # noqa: F401
from pfdet.compat.import_hook import install

install()
