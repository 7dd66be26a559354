"""Markdown tables of the page."""

from collections.abc import Sequence

from pfdet.report.comparison_text import Grid, markdown_table


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Format a table; columns that contain only numbers are right-aligned.

    Args:
        header (sequence of str): Names of the columns. The first is never right-aligned.
        lines (sequence of sequences of str): One cell per column each.
    """
    numbers = [
        k > 0 and all(line[k].replace('.', '').strip('+-').isdigit() for line in lines)
        for k in range(len(header))
    ]
    return markdown_table(Grid(list(header), numbers, [list(line) for line in lines])) + '\n'
