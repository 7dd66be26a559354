"""Comparison with the papers as text tables, for the terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pfdet.recipes.paper_tables import PaperRow
from pfdet.report.comparison import Cell, ComparedRow, ComparedTable, coverage

NOT_RUN = 'not run'
#: Explanation of the columns.
COLUMNS_NOTE = (
    'Values are mean average precision at IoU 0.5 in percent. The number in parentheses after a '
    'value of the paper is its difference from the row that it is compared with. "here" is the '
    'mean over runs with different seeds, with the value of each run in parentheses. "difference" '
    'is the difference from the same row in the runs: per seed if both rows have the same seeds, '
    'otherwise between the means.'
)
#: Caveat for runs at mini scale.
SCALE_NOTE = (
    'Runs at mini scale use a smaller network, smaller images and usually another data set than '
    'the papers. Their values cannot be compared with those of the papers. The sign and the size '
    'of the differences between rows can.'
)
#: Explanation of the marks of rows that started from other weights than their recipe.
START_NOTE = (
    'Rows marked "from random weights", "from a backbone" or "from a detector" started from other '
    'weights than their recipe. Most recipes start from a backbone trained on ImageNet.'
)
# With more seeds, the range of the values is printed instead of all values.
_MAX_PRINTED_SEEDS = 5


@dataclass
class Grid:
    """A table of text.

    Attributes:
        header (list of str): Column names.
        numbers (list of bool): For each column, whether it is right-aligned.
        lines (list of lists of str): Cells of each line, one per column.
        has_run (list of bool): For each line, whether it has a run.
        agreement (list of str): For each line, see
            :attr:`~pfdet.report.comparison.Cell.agreement`.
    """

    header: list[str]
    numbers: list[bool]
    lines: list[list[str]] = field(default_factory=list)
    has_run: list[bool] = field(default_factory=list)
    agreement: list[str] = field(default_factory=list)

    def add(self, line: list[str], has_run: bool, agreement: str = '') -> None:
        """Append a line.

        Args:
            line (list of str): One text per column.
            has_run (bool): Whether the line has a run.
            agreement (str): See :attr:`~pfdet.report.comparison.Cell.agreement`.
        """
        self.lines.append(line)
        self.has_run.append(has_run)
        self.agreement.append(agreement)


def title(compared: ComparedTable) -> str:
    """Return the title of a table, with the scale of its runs if there are any."""
    scale = f', at {compared.scale} scale' if compared.n_run else ''
    return f'{compared.table.title}{scale}'


def grid(compared: ComparedTable) -> Grid:
    """Format a table: values of the paper and of the runs, and their differences.

    With several measures, there is one line per row and measure. If the paper prints rows as
    columns, there is one line per measure.

    Args:
        compared (ComparedTable): The table.

    Returns:
        Grid: The formatted table.
    """
    table = compared.table
    if table.across:
        return _transposed_grid(compared)
    measured = [k for k, measure in enumerate(table.measures) if measure.of]
    several = len(measured) > 1
    settings = list(dict.fromkeys(key for row in table.rows for key in row.settings))
    # The column "compared with" is needed if a row is not compared with the row above it.
    keys = [row.key for row in table.rows]
    has_base_column = any(
        row.over and row.over != above for above, row in zip([None, *keys], table.rows)
    )
    text_columns = [
        table.rows_are,
        *settings,
        *(['compared with'] if has_base_column else []),
        *(['classes'] if several else []),
    ]
    papers = ['paper'] if several else [f'{measure.name}, paper' for measure in table.measures]
    result = Grid(
        [*text_columns, *papers, 'here', 'difference', 'sign'],
        [False] * len(text_columns) + [True] * (len(papers) + 2) + [False],
    )
    for row in compared.rows:
        base = _base_text(table.row(row.row.over), row.row) if row.row.over else ''
        first = [
            _name(row),
            *(row.row.settings.get(key, '') for key in settings),
            *([base] if has_base_column else []),
        ]
        for k in measured:
            line = [*first, _measure_text(compared, k)] if several else first
            paper_cells = [row.cells[k]] if several else row.cells
            result.add(
                [
                    *line,
                    *(paper_text(cell, table.digits) for cell in paper_cells),
                    *_run_texts(row, row.cells[k]),
                ],
                bool(row.runs),
                row.cells[k].agreement,
            )
            first = [''] * len(first)
    return result


def _transposed_grid(compared: ComparedTable) -> Grid:
    rows = compared.rows
    result = Grid(
        [
            compared.table.rows_are,
            *(f'{row.row.name}, paper' for row in rows),
            *(f'{_name(row)}, here' for row in rows),
            'difference',
            'sign',
        ],
        [False] + [True] * (2 * len(rows) + 1) + [False],
    )
    for k in range(len(compared.table.measures)):
        cells = [row.cells[k] for row in rows]
        compared_cells = [cell for cell in cells if cell.differences]
        result.add(
            [
                _measure_text(compared, k),
                *(paper_text(cell, compared.table.digits) for cell in cells),
                *(_run_texts(row, cell)[0] for row, cell in zip(rows, cells)),
                ', '.join(map(difference_text, compared_cells)),
                ', '.join(cell.agreement for cell in compared_cells),
            ],
            any(cell.here for cell in cells),
            compared_cells[-1].agreement if compared_cells else '',
        )
    return result


def paper_text(cell: Cell, digits: int = 1) -> str:
    """Format the value of the paper and its difference.

    Args:
        cell (Cell): The measure.
        digits (int): Number of decimals.

    Returns:
        str: Such as ``'60.3 (+0.3)'``.
    """
    if cell.paper is None:
        return '–'
    text = f'{cell.paper:.{digits}f}'
    if cell.paper_difference is None:
        return text
    return f'{text} ({signed(cell.paper_difference, digits)})'


def here_text(cell: Cell) -> str:
    """Format the mean of the runs and their values.

    Args:
        cell (Cell): The measure.

    Returns:
        str: Such as ``'57.3 (56.4, 57.5, 58.0)'``.
    """
    return '–' if cell.mean is None else f'{cell.mean:.1f}' + _spread(cell.here, '{:.1f}')


def difference_text(cell: Cell) -> str:
    """Format the mean difference of the runs and that of each seed.

    Args:
        cell (Cell): The measure.

    Returns:
        str: Such as ``'+1.2 (+0.9, +1.5)'``.
    """
    if cell.difference is None:
        return '–'
    return signed(cell.difference) + _spread(cell.differences, '{:+.1f}')


def signed(x: float, digits: int = 1) -> str:
    """Format a number with its sign, as the papers print differences.

    Args:
        x (float): The number.
        digits (int): Number of decimals.

    Returns:
        str: Such as ``'-1.2'``; ``'+0.0'`` for 0.
    """
    text = f'{x:+.{digits}f}'
    return text.replace('-', '+') if float(text) == 0 else text


def terminal(compared: Sequence[ComparedTable], others: Sequence[ComparedRow] = ()) -> str:
    """Format the tables that have runs for the terminal, and list the others by name.

    Args:
        compared (sequence of ComparedTable): Tables of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Rows of :func:`~pfdet.report.comparison.other_runs`.

    Returns:
        str: Text with aligned columns.
    """
    parts = []
    for table in compared:
        if table.n_run:
            parts.append(f'{title(table)}: {table.table.caption}\n' + _columns(grid(table)))
    if others:
        parts.append('Other runs\n' + _columns(others_grid(others)))
    if omitted(compared):
        parts.append(omitted(compared))
    parts += notes(compared, others)
    return '\n\n'.join(parts)


def omitted(compared: Sequence[ComparedTable]) -> str:
    """A sentence that names the tables without a run; empty if all have one."""
    empty = [table.table.title for table in compared if not table.n_run]
    return 'Tables without runs: ' + '; '.join(empty) + '.' if empty else ''


def notes(compared: Sequence[ComparedTable], others: Sequence[ComparedRow] = ()) -> list[str]:
    """The caveats that apply to some of the runs.

    Args:
        compared (sequence of ComparedTable): Tables of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Rows of :func:`~pfdet.report.comparison.other_runs`.

    Returns:
        list of str: :data:`SCALE_NOTE` and :data:`START_NOTE`, or fewer.
    """
    rows = [*others, *(row for table in compared for row in table.rows)]
    found = []
    if any(table.scale == 'mini' for table in compared):
        found.append(SCALE_NOTE)
    if any(row.deviation for row in rows):
        found.append(START_NOTE)
    return found


def markdown(
    compared: Sequence[ComparedTable], others: Sequence[ComparedRow] = (), level: int = 2
) -> str:
    """Format all tables as Markdown.

    Args:
        compared (sequence of ComparedTable): Tables of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Rows of :func:`~pfdet.report.comparison.other_runs`.
        level (int): Level of the headings.

    Returns:
        str: Markdown with one heading per table.
    """
    parts = [COLUMNS_NOTE, *notes(compared, others)]
    for table in compared:
        parts += [
            '#' * level + f' {title(table)}',
            f'{table.table.caption}. {table.table.note}'
            if table.table.note
            else f'{table.table.caption}.',
            markdown_table(grid(table)),
        ]
    if others:
        parts += ['#' * level + ' Other runs', markdown_table(others_grid(others))]
    return '\n\n'.join(parts) + '\n'


def others_grid(others: Sequence[ComparedRow]) -> Grid:
    """Format the runs that are not a row of any table, with their mAP.

    Args:
        others (sequence of ComparedRow): Rows of :func:`~pfdet.report.comparison.other_runs`.

    Returns:
        Grid: One line per recipe, scale and setting.
    """
    result = Grid(['recipe', 'setting', 'runs', 'mAP here'], [False, False, True, True])
    for row in others:
        result.add(
            [_marked(row.row.name, row), row.setting, str(len(row.runs)), here_text(row.cells[0])],
            True,
        )
    return result


def markdown_table(table: Grid) -> str:
    """Format a grid as a Markdown table.

    Args:
        table (Grid): The grid.

    Returns:
        str: The table, without a final newline.
    """

    def line(texts: Sequence[str]) -> str:
        return '| ' + ' | '.join(text.replace('|', '\\|') for text in texts) + ' |'

    rule = ['---:' if number else '---' for number in table.numbers]
    return '\n'.join([line(table.header), '| ' + ' | '.join(rule) + ' |', *map(line, table.lines)])


def _columns(table: Grid) -> str:
    lines = [table.header, *table.lines]
    widths = [max(len(line[k]) for line in lines) for k in range(len(table.header))]
    return '\n'.join(
        '  '
        + '  '.join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, table.numbers)
        ).rstrip()
        for line in lines
    )


def _base_text(base: PaperRow, row: PaperRow) -> str:
    # The name and settings of the base row that differ from those of the row.
    settings = [
        f'{key} {value}'
        for key, value in base.settings.items()
        if value not in (row.settings.get(key), '–')
    ]
    return ', '.join([*([base.name] if base.name != row.name else []), *settings])


def _measure_text(compared: ComparedTable, k: int) -> str:
    measure = compared.table.measures[k]
    covered = next((coverage(row.runs[0].score, measure) for row in compared.rows if row.runs), '')
    return f'{measure.name} ({covered})' if covered else measure.name


def _name(row: ComparedRow) -> str:
    name = f'{row.row.name} [{row.setting}]' if row.setting else row.row.name
    return _marked(name, row)


def _marked(name: str, row: ComparedRow) -> str:
    return f'{name} ({row.deviation})' if row.deviation else name


def _run_texts(row: ComparedRow, cell: Cell) -> list[str]:
    # The texts in the columns "here", "difference" and "sign".
    if row.row.recipe is None:
        return ['', '', '']
    if not row.runs:
        return [NOT_RUN, '', '']
    return [here_text(cell), difference_text(cell) if row.row.over else '', cell.agreement]


def _spread(values: Sequence[float], template: str) -> str:
    if len(values) < 2:
        return ''
    if len(values) > _MAX_PRINTED_SEEDS:
        return (
            f' ({template.format(min(values))} to {template.format(max(values))}, '
            f'standard deviation {np.std(values, ddof=1):.1f}, {len(values)} runs)'
        )
    return ' (' + ', '.join(template.format(value) for value in values) + ')'
