"""Tables of the page as Markdown."""

from collections.abc import Sequence

from pfdet.report.comparison_text import Grid, pipes


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table, of which columns of nothing but numbers are set flush right.

    Args:
        header (sequence of str): The columns' names; the first column is never flush right.
        lines (sequence of sequences of str): As many texts each.
    """
    numbers = [
        k > 0 and all(line[k].replace('.', '').strip('+-').isdigit() for line in lines)
        for k in range(len(header))
    ]
    return pipes(Grid(list(header), numbers, [list(line) for line in lines])) + '\n'
