"""Chainer's CPU functions over channels-last memory, on all cores.

:func:`pfdet.cpu.install.install` puts them in place of Chainer's own.
"""
