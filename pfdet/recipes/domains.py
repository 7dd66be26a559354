"""The values that a field of a recipe may have.

A domain says what is accepted and, in words, what is expected. The type of a value is checked
before: a domain of numbers gets numbers.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Domain(NamedTuple):
    """A set of values.

    Attributes:
        expected (str): The values in words, for messages: ``'a number from 0 to 1'``.
        accepts (callable): Takes a value, returns whether it is one of them.
    """

    expected: str
    accepts: Callable[[Any], bool]


def number(low: float, high: float, *, above: bool = False, below: bool = False) -> Domain:
    """Finite numbers in an interval.

    Args:
        low, high (float): Its ends.
        above (bool): Whether ``low`` itself is excluded.
        below (bool): Whether ``high`` itself is excluded.
    """
    first = f'above {low:g}' if above else f'from {low:g}'
    last = f'below {high:g}' if below else f'to {high:g}'
    joint = ' and ' if above or below else ' '
    return Domain(
        f'a number {first}{joint}{last}',
        lambda x: (
            math.isfinite(x)
            and (x > low if above else x >= low)
            and (x < high if below else x <= high)
        ),
    )


def integer(low: int, high: int, multiple_of: int = 1) -> Domain:
    """Integers in an interval, both ends included, that a number divides."""
    what = 'an integer' if multiple_of == 1 else f'a multiple of {multiple_of}'
    return Domain(
        f'{what} from {low:,} to {high:,}',
        lambda x: low <= x <= high and x % multiple_of == 0,
    )


def one_of(*values: Any) -> Domain:
    """Some values."""
    return Domain('one of ' + ', '.join(repr(v) for v in values), lambda x: x in values)


def sequence(item: Domain, least: int, most: int, *, rising: bool = False) -> Domain:
    """Tuples whose items are in a domain.

    Args:
        item (Domain): The items' domain.
        least, most (int): Limits of the number of items.
        rising (bool): Whether an item may not be smaller than the one before it.
    """
    n = f'{least}' if least == most else f'{least} to {most}'
    order = ', none smaller than the one before it' if rising else ''

    def accepts(x: Sequence[Any]) -> bool:
        return (
            least <= len(x) <= most
            and all(item.accepts(v) for v in x)
            and (not rising or list(x) == sorted(x))
        )

    return Domain(f'{n} values, each {item.expected}{order}', accepts)


def text(longest: int) -> Domain:
    """Text of one line, without control characters."""
    return Domain(
        f'text of one line, at most {longest} characters',
        lambda x: len(x) <= longest and x.isprintable(),
    )


def word(longest: int) -> Domain:
    """A name that can be a file's name: letters, digits, dots, hyphens and underscores."""
    return Domain(
        f'a name of letters, digits, "-", "_" and "." (at most {longest} characters)',
        lambda x: (
            0 < len(x) <= longest
            and x[0] not in '.-'
            and all(c.isascii() and (c.isalnum() or c in '._-') for c in x)
        ),
    )


BOOLEAN = Domain('true or false', lambda x: True)
#: Lengths of an image's edge in pixels.
EDGE = integer(16, 10_000)
