"""Methods of Chainer's classes that this package computes where it can."""

import functools
from collections.abc import Callable
from typing import Any


def override(cls: Any, name: str, own: Callable) -> None:
    """Replace a method by one that may decline.

    Args:
        cls (type): A class of Chainer.
        name (str): Name of its method.
        own (callable): Takes the same arguments. If it returns :obj:`None`, it declines, and
            Chainer's method is called.
    """
    original = getattr(cls, name)

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = own(self, *args, **kwargs)
        return original(self, *args, **kwargs) if result is None else result

    setattr(cls, name, method)
