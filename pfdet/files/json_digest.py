"""Checksums of JSON objects, which are entries of the objects themselves.

The checksum is the SHA-256 of the rest of the object, in the form that :func:`json.dumps` gives it
with sorted keys and without spaces. So it does not depend on the layout of the file, and the file
stays JSON for other programs. Objects without the entry, as earlier versions wrote them, are
accepted.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from typing import Any

from pfdet.errors import InputError

#: The entry with the checksum, in hexadecimal.
KEY = 'content_sha256'


def with_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Add the checksum to an object.

    Args:
        content (mapping): Serializable as JSON. An earlier checksum is replaced.

    Returns:
        dict: As read back from JSON, with the checksum as its last entry.
    """
    content = json.loads(json.dumps(content))
    content.pop(KEY, None)
    return {**content, KEY: _digest(content)}


def without_digest(path: str | os.PathLike, content: Any, expected: str) -> Any:
    """Verify the checksum of a file's content, and remove it.

    Args:
        path (path): The file, for the message.
        content (object): The content of the file. Only objects can have a checksum.
        expected (str): What the file should be, for the message.

    Returns:
        object: The content without the checksum.

    Raises:
        InputError: The content does not match its checksum.
    """
    if not isinstance(content, dict) or KEY not in content:
        return content
    rest = {key: value for key, value in content.items() if key != KEY}
    if content[KEY] != _digest(rest):
        raise InputError(
            f'{path}: damaged or edited, does not match its checksum; expected {expected}; if it '
            f'was edited, remove its entry {KEY}'
        )
    return rest


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    return hashlib.sha256(text.encode()).hexdigest()
