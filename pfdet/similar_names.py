"""What a misspelled name may mean, for messages."""

import difflib
from collections.abc import Iterable


def similar(text: str, names: Iterable[str], n: int = 2) -> list[str]:
    """The names that a misspelled text may mean, the most similar one first; at most ``n``."""
    # The time is quadratic in the length.
    return difflib.get_close_matches(text[:100], list(names), n, 0.7)


def expected_name(text: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name.

    Args:
        text (str): The unknown name.
        names (iterable of str): Those that exist.

    Returns:
        str: ``'did you mean NAME?'`` if some are similar, else ``'expected one of NAME, ...'``.
    """
    names = list(names)
    close = similar(text, names)
    if close:
        return f'did you mean {" or ".join(close)}?'
    return f'expected one of {", ".join(names)}'
