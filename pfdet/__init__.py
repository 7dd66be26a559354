"""PFDet: large-scale object detection on Open Images with Chainer.

Importing this package, or any part of it, makes a later import of Chainer work on today's Python
and NumPy (:mod:`pfdet.compat`); it does not import Chainer itself. ``pfdet.load``,
``pfdet.Detector`` and ``pfdet.read_image``, of :mod:`pfdet.api`, are imported when they are used.
"""

from pfdet import interruption

# Before the imports that take time.
interruption.listen_if_command()

from pfdet import compat  # noqa: E402, F401

__version__ = '0.1.0'

_OF_API = ('Detector', 'load', 'read_image')


def __getattr__(name: str) -> object:
    if name in _OF_API:
        from pfdet import api

        return getattr(api, name)
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
    return sorted([*globals(), *_OF_API])
