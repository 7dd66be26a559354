"""Make Chainer 7.8.1 and ChainerCV 0.13.1 work on today's Python, NumPy and CuPy.

Both are frozen: their last releases are of 2022 and 2019. Importing any part of pfdet does all
there is to do; a program that imports Chainer before anything else of pfdet says so first::

    import pfdet.compat  # noqa: F401

    import chainer

It costs next to nothing: it imports neither Chainer nor NumPy, and changes nothing in NumPy or in
the standard library. It installs an import hook (:mod:`pfdet.compat.import_hook`), which hands some
modules of Chainer, ChainerMN and ChainerCV to the functions of :mod:`pfdet.compat.fixes` as they
are imported. Each function is one fix: it takes the source of such a module and returns it
repaired. A fix that this environment does not need is left out, and a source that is not the one a
fix knows is refused, so nothing is repaired by half.

``python -m pfdet.compat`` prints the versions of this environment and what was fixed.

Not repaired: ``chainer.links.caffe`` wants protobuf below 4; nothing here reads Caffe models.
"""

from pfdet.compat import cupy_fixes, fixes, lazy_packages  # noqa: F401
from pfdet.compat.import_hook import install

install()
