"""Image ids and class ids as they are written in files, and their normal form."""

import unicodedata

# Besides letters, these characters without a glyph belong to words of some scripts.
_JOINERS = '\u200c\u200d'
_INVISIBLE = ('Cc', 'Cf', 'Cs', 'Zl', 'Zp')

#: What an image id has to be, for messages.
IMAGE_ID = (
    'an image id, which is a name and not a path: no "..", no "\\", no "/" at either end, no '
    'invisible characters'
)


def normal_mid(text: str) -> str | None:
    """Return the normal form of a class id (MID).

    Spaces, byte order marks and direction marks around it are removed. Accented letters are
    composed (Unicode's NFC).

    Args:
        text (str): As in the file.

    Returns:
        str: The normal form, or :obj:`None` if the text is empty or contains a control character
        or another invisible character.
    """
    if text.isascii() and text.isprintable():
        return text.strip(' ') or None
    text = unicodedata.normalize('NFC', _without_invisible_ends(text))
    return None if not text or any(map(_is_invisible, text)) else text


def normal_name(text: str) -> str | None:
    """Return the normal form of the name of a class, which may be in any script.

    Args:
        text (str): As in the file.

    Returns:
        str: Without spaces around it and with composed letters (Unicode's NFC). :obj:`None` if it
        is empty, contains a control character, or was not valid UTF-8.
    """
    if any(unicodedata.category(c) in ('Cc', 'Cs', 'Zl', 'Zp') for c in text.strip(' \t')):
        return None
    return unicodedata.normalize('NFC', _without_invisible_ends(text)) or None


def normal_image_id(text: str) -> str | None:
    """Return the normal form of an image id.

    An id is the name of a file without its suffix. ``/`` separates folders below the directory of
    the images, as in COCO's file names. An id never leaves that directory.

    Args:
        text (str): As in the file.

    Returns:
        str: As in :func:`normal_mid`. :obj:`None` also for an absolute path, a path with empty,
        ``.`` or ``..`` parts, and a backslash.
    """
    name = normal_mid(text)
    if name is None or '\\' in name:
        return None
    if ('/' in name or name.startswith('.')) and not {'', '.', '..'}.isdisjoint(name.split('/')):
        return None
    return name


def _is_invisible(c: str) -> bool:
    return unicodedata.category(c) in _INVISIBLE and c not in _JOINERS


def _without_invisible_ends(text: str) -> str:
    # Control characters stay, and are refused: they are a sign of damage.
    def is_removed(c: str) -> bool:
        return c == '\t' or unicodedata.category(c) in ('Zs', 'Cf')

    first, last = 0, len(text)
    while first < last and is_removed(text[first]):
        first += 1
    while last > first and is_removed(text[last - 1]):
        last -= 1
    return text[first:last]
