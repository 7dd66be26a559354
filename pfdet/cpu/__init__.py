"""Faster CPU versions of Chainer functions, on channels-last memory and all cores.

:func:`pfdet.cpu.install.install` replaces Chainer's versions by them.
"""
