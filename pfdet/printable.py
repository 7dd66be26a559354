"""Text that is safe to print: control characters and direction marks are escaped."""

import unicodedata

# Marks that change the direction of the text that follows them, besides control characters.
_DIRECTION = frozenset('\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069')
_ESCAPED_CATEGORIES = ('Cc', 'Cs', 'Zl', 'Zp')


def printable(text: str) -> str:
    """Escape the characters that a terminal or an editor would act on instead of showing them.

    These are control characters (such as those that colour or erase a terminal), line separators,
    marks of the writing direction, and surrogates, which cannot be encoded. All other characters,
    also of scripts that are written from right to left, stay as they are.

    Args:
        text (str): Such as the name of a class.

    Returns:
        str: The text, with escapes as in a Python string, such as ``\\x1b``.
    """
    if text.isascii() and text.isprintable():
        return text
    return ''.join(
        c.encode('unicode_escape').decode()
        if c in _DIRECTION or unicodedata.category(c) in _ESCAPED_CATEGORIES
        else c
        for c in text
    )
