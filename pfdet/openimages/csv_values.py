"""The kinds of values in annotation tables: their range, normal form and conversion.

Most files are in the form that Open Images publishes, and are converted by pyarrow alone. Values in
another but unambiguous form, such as ``1.0`` for a flag or a space before a class id, are brought
to the normal form one distinct value at a time.
"""

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pfdet.openimages.arrow_arrays import from_numbers, from_strings, numbers, string_buffers
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id, normal_mid

# ASCII digits, as in pyarrow; \d would match the digits of all scripts.
_NUMBER = re.compile(r'-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?')
_FLAG = re.compile(r'(-?[0-9]+)(\.0*)?')
_INTEGER = re.compile(r'[ \t]*-?[0-9]+[ \t]*')
# For repeated values: the distinct values, and one code per row.
_DICTIONARY = pa.dictionary(pa.int32(), pa.string())
# Without a check of the encoding, because the text is only compared with ASCII text.
_ANY_TEXT = pa.dictionary(pa.int32(), pa.binary())
_FLOAT32_MAX = float(np.finfo(np.float32).max)
# Coordinates outside of [0, 1] by more than this are in pixels. Annotators' boxes exceed the image
# by a fraction of its size at most.
_SLACK = 1


class MalformedError(Exception):
    """A value is malformed. A second pass in Python finds the line."""


@dataclass(frozen=True)
class Kind:
    """A kind of values.

    Attributes:
        type (pyarrow.DataType): The type of the column.
        expected (str): Description for messages.
        normal_form (callable): From text to its normal form, or :obj:`None` if it is malformed.
            Numbers that are not flags have none.
        low, high (float): The range of numbers.
        suspicious (bytes): Characters of a text, besides blanks and characters that are not
            visible ASCII, with which it may be malformed or not be in normal form.
        is_usual (callable): Whether pyarrow reads the text as its normal form. By default, whether
            it is in normal form.
        outside (str): Added to the message about a number out of range.
    """

    type: pa.DataType
    expected: str
    normal_form: Callable[[str], str | None] | None = None
    low: float = -np.inf
    high: float = np.inf
    suspicious: bytes = b''
    is_usual: Callable[[str], bool] | None = None
    outside: str = ''

    @property
    def is_number(self) -> bool:
        """Whether values are numbers."""
        return not pa.types.is_dictionary(self.type)

    def problem(self, text: str, decimal_comma: bool) -> str | None:
        """Describe what is wrong with a value.

        Args:
            text (str): The value in the file.
            decimal_comma (bool): Whether numbers may have a decimal comma.

        Returns:
            str: What was expected instead, or :obj:`None` if the value is valid.
        """
        if self.normal_form is not None:
            return self.expected if self.normal_form(text) is None else None
        if not self.is_number:
            return None
        value = text.strip(' \t')
        if decimal_comma:
            value = value.replace(',', '.')
        if not _NUMBER.fullmatch(value):
            return self.expected
        in_range = self.low <= float(value) <= self.high
        return None if in_range else self.outside or self.expected


def _normal_flag(text: str) -> str | None:
    text = text.strip(' \t').casefold()
    if text in ('', 'true', 'false'):
        return {'': '-1', 'true': '1', 'false': '0'}[text]
    match = _FLAG.fullmatch(text)
    # A number of thousands of digits cannot be converted.
    if match is None or len(match[1]) > 20 or int(match[1]) not in (-1, 0, 1):
        return None
    return str(int(match[1]))


KINDS = {
    'id': Kind(_DICTIONARY, IMAGE_ID, normal_image_id, suspicious=b'\\/.'),
    'class': Kind(_DICTIONARY, 'a class id such as /m/014j1m', normal_mid),
    'text': Kind(_ANY_TEXT, 'text'),
    'coordinate': Kind(
        pa.float32(),
        'a number',
        low=-_SLACK,
        high=1 + _SLACK,
        outside='a number from 0 to 1 (for a table in pixels, give --pixels to pfdet index)',
    ),
    'pixel': Kind(pa.float32(), 'a number', low=-_FLOAT32_MAX, high=_FLOAT32_MAX),
    'flag': Kind(
        pa.int8(),
        '0, 1 or -1',
        _normal_flag,
        -1,
        1,
        is_usual=lambda text: _INTEGER.fullmatch(text) is not None,
    ),
    'confidence': Kind(pa.float32(), 'a number from 0 to 1', low=0, high=1),
}


def text_kind(kind: Kind) -> Kind:
    """Return the kind with which pyarrow reads the values as text, for :func:`from_text`."""
    if not kind.is_number:
        return kind
    as_text = _DICTIONARY if kind.normal_form is not None else pa.string()
    return dataclasses.replace(kind, type=as_text)


def check_numbers(column: pa.Array, kind: Kind) -> None:
    """Check the range of a column of numbers.

    Raises:
        MalformedError: If a value is missing or out of range.
    """
    values = numbers(column)
    # Comparisons with NaN are false, so NaN is not valid.
    if column.null_count or not ((values >= kind.low) & (values <= kind.high)).all():
        raise MalformedError(f'expected {kind.expected}')


def from_text(column: pa.Array, kind: Kind, decimal_comma: bool) -> tuple[pa.Array, int]:
    """Convert a column that was read as text.

    Args:
        column (pyarrow.Array): Of the type of :func:`text_kind`.
        kind (Kind): The kind.
        decimal_comma (bool): Whether numbers may have a decimal comma.

    Returns:
        tuple: The column of the type of ``kind``, and how many flags were not in normal form.

    Raises:
        MalformedError: If a value is malformed.
        pyarrow.ArrowInvalid: If a value is not a number.
    """
    if kind.normal_form is None:
        if decimal_comma:
            column = pc.replace_substring(column, ',', '.')
        column = pc.utf8_trim_whitespace(column).cast(kind.type)
        check_numbers(column, kind)
        return column, 0
    normal, n_changed = _normal_values(column, kind)
    flags = np.array([int(text) for text in normal] or [0], np.int8)
    return from_numbers(flags[numbers(column.indices)]), n_changed


def normalized(column: pa.DictionaryArray, kind: Kind) -> tuple[pa.DictionaryArray, int]:
    """Bring a column of ids to normal form.

    Args:
        column (pyarrow.DictionaryArray): Ids or classes. Distinct values may become equal.
        kind (Kind): The kind.

    Returns:
        tuple: The column, and how many rows were not in normal form.

    Raises:
        MalformedError: If a value is malformed.
    """
    if kind.normal_form is None:
        return column, 0
    offsets, text = string_buffers(column.dictionary)
    unusual = (text <= 0x20) | (text >= 0x7F)
    for byte in kind.suspicious:
        unusual |= text == byte
    if not unusual.any() and (offsets[1:] > offsets[:-1]).all():
        return column, 0
    normal, n_changed = _normal_values(column, kind)
    if n_changed:
        column = pa.DictionaryArray.from_arrays(column.indices, from_strings(normal))
    return column, n_changed


def _normal_values(column: pa.DictionaryArray, kind: Kind) -> tuple[list[str], int]:
    """Return the normal form of each distinct value, and the number of rows that it changes."""
    assert kind.normal_form is not None
    texts = column.dictionary.to_pylist()
    normal = [kind.normal_form(text) for text in texts]
    if None in normal:
        raise MalformedError(f'expected {kind.expected}')
    is_usual = kind.is_usual or (lambda text: kind.normal_form(text) == text)
    changed = np.array([not is_usual(text) for text in texts] + [False])
    return normal, int(changed[numbers(column.indices)].sum())
