"""Turn what libraries raise for unreadable files into one line."""

import contextlib
import os
import zlib
from collections.abc import Iterator

from pfdet.errors import InputError
from pfdet.printable import printable

_MAX_REASON = 200
# For these, the name of the type says nothing to a user.
_SELF_EXPLANATORY = (ValueError, EOFError, zlib.error)


@contextlib.contextmanager
def reading(path: str | os.PathLike, expected: str, part: str = '') -> Iterator[None]:
    """Turn any exception of the ``with`` block into an :class:`~pfdet.errors.InputError`.

    Libraries raise exceptions of many types for damaged files, and the types differ between their
    versions. So the block should have only calls that read the file and check its content.

    Args:
        path (path): The file.
        expected (str): What the file should be, such as ``'a .npz file of arrays'``.
        part (str): The part of the file that is read, such as ``'array conv1/W'``.

    Raises:
        InputError: The block raised an exception. An :class:`~pfdet.errors.InputError` of the block
            is raised unchanged.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as e:
        where = f'{path}: {printable(part)}' if part else f'{path}'
        raise InputError(f'{where}: {reason(e)}; expected {expected}') from e


def reason(error: Exception) -> str:
    """Describe an exception in one line of at most 200 characters.

    Args:
        error (Exception): Raised by a library.

    Returns:
        str: The system's message of an :class:`OSError`; otherwise the exception's text, preceded
        by its type where that helps.
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, MemoryError):
        return 'there is not enough memory to read it'
    if isinstance(error, RecursionError):
        return 'it is nested too deeply'
    text = ' '.join(str(error).split())
    if not text or not isinstance(error, _SELF_EXPLANATORY):
        text = f'{type(error).__name__}: {text}' if text else type(error).__name__
    return printable(text)[:_MAX_REASON]
