"""PFDet: large-scale object detection on Open Images with Chainer.

Importing this package does not import Chainer. Modules that need it import
:mod:`pfdet.compat` first, which makes Chainer work on today's Python and NumPy.
"""

__version__ = '0.1.0'
