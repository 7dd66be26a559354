"""Read and write JSON files."""

import json
import os
from collections.abc import Mapping
from typing import Any

from pfdet.atomic_write import replace_when_done
from pfdet.files.json_digest import with_digest, without_digest
from pfdet.files.memory import check_memory
from pfdet.files.reading import reading
from pfdet.files.regular import read_bytes
from pfdet.printable import printable

_MAX_SIZE = 1 << 27
# Memory of the content per byte of text, at most: that of [[],[],...].
_GROWTH = 24


def read_json(path: str | os.PathLike, expected: str, max_size: int = _MAX_SIZE) -> Any:
    """Read a JSON file, and verify its checksum if it has one (:mod:`pfdet.files.json_digest`).

    Args:
        path (path): The file, in UTF-8, with or without a byte order mark.
        expected (str): What the file should be, for messages.
        max_size (int): Larger files are refused.

    Returns:
        object: The content.

    Raises:
        InputError: The file cannot be read, is not JSON, or does not match its checksum.
    """
    with reading(path, expected):
        data = read_bytes(path, max_size=max_size)
    check_memory(path, _GROWTH * len(data))
    content = parse_json(path, data, expected)
    with reading(path, expected):
        return without_digest(path, content, expected)


def write_json(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write an object with its checksum to a JSON file. The file appears when it is complete.

    Args:
        path (path): The file.
        content (mapping): Serializable as JSON.

    Raises:
        InputError: The file cannot be written.
    """
    with replace_when_done(path) as unfinished:
        text = json.dumps(with_digest(content), indent=1)
        unfinished.write_text(text + '\n', encoding='utf-8')


def read_object(path: str | os.PathLike, expected: str, **entries: type) -> dict[str, Any]:
    """Read a JSON file with an object.

    Args:
        path (path): The file, as for :func:`read_json`.
        expected (str): What the file should be, for messages.
        **entries (type): Entries that it must have, with their types.

    Returns:
        dict: The object.

    Raises:
        InputError: The file cannot be read, is not JSON, is not an object, or lacks an entry.
    """
    content = read_json(path, expected)
    with reading(path, expected):
        if not isinstance(content, dict):
            raise ValueError('it is not an object')
        for key, kind in entries.items():
            if not isinstance(content.get(key), kind):
                raise ValueError(f'it has no entry {key} of type {kind.__name__}')
    return content


def shortened(value: Any) -> str:
    """Represent a value of a JSON file in a message, in at most 60 characters."""
    try:
        text = printable(repr(value))
    except (RecursionError, ValueError):
        # Nested too deeply, or a number of thousands of digits.
        text = f'a long {type(value).__name__}'
    return text if len(text) <= 60 else text[:57] + '...'


def parse_json(path: str | os.PathLike, text: str | bytes, expected: str, part: str = '') -> Any:
    """Parse JSON that is part of a file.

    Args:
        path (path): The file, for messages.
        text (str or bytes): The JSON text.
        expected (str): What the file should be, for messages.
        part (str): Which part of the file it is, for messages.

    Returns:
        object: The content.

    Raises:
        InputError: The text is not JSON in UTF-8.
    """
    with reading(path, expected, part):
        try:
            return json.loads(text if isinstance(text, str) else text.decode('utf-8-sig'))
        except json.JSONDecodeError as e:
            raise ValueError(f'not JSON, line {e.lineno}, column {e.colno}: {e.msg}') from e
