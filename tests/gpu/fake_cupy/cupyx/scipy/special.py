"""Imported by Chainer, not used by pfdet."""
