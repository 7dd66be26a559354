"""PFDet: large-scale object detection on Open Images with Chainer.

Importing this package, or any part of it, makes a later import of Chainer work on today's Python
and NumPy (:mod:`pfdet.compat`); it does not import Chainer itself.
"""

from pfdet import interruption

# Before the imports that take time.
interruption.listen_if_command()

from pfdet import compat  # noqa: E402, F401

__version__ = '0.1.0'
