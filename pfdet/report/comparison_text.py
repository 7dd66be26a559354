"""A comparison with the papers as grids of text, for the terminal and as Markdown."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pfdet.recipes.paper_tables import PaperRow
from pfdet.report.comparison import Cell, ComparedRow, ComparedTable, reading

NOT_RUN = 'not run'
#: What to bear in mind where runs at mini scale stand beside a paper's figures.
SCALE_REMARK = (
    'Runs at mini scale have another network, smaller images and, as a rule, another data set than '
    "the papers. Their level says nothing about the papers' figures; what compares is the sign "
    'and the size of differences between rows.'
)
# Of more seeds than this, the range is shown instead of every value.
_SHOWN_SEEDS = 5


@dataclass
class Grid:
    """A table of text.

    Attributes:
        header (list of str): The column's names.
        lines (list of lists of str): As many texts each as the header has.
        numbers (list of bool): Of each column, whether it is set flush right.
        ran (list of bool): Of each line, whether it stands for a run.
        agreement (list of str): Of each line, see
            :attr:`~pfdet.report.comparison.Cell.agreement`.
    """

    header: list[str]
    numbers: list[bool]
    lines: list[list[str]] = field(default_factory=list)
    ran: list[bool] = field(default_factory=list)
    agreement: list[str] = field(default_factory=list)

    def add(self, line: list[str], ran: bool, agreement: str = '') -> None:
        """Append a line."""
        self.lines.append(line)
        self.ran.append(ran)
        self.agreement.append(agreement)


def title(compared: ComparedTable) -> str:
    """The table's name and, where it has runs, their scale."""
    scale = f', at {compared.scale} scale' if compared.n_run else ''
    return f'{compared.table.title}{scale}'


def grid(compared: ComparedTable) -> Grid:
    """Lay out a table: the paper's figures, the runs', and the differences of both.

    Tables with several measures have a line for each measure of each row, or, where the paper has
    its rows side by side, a line for each measure.

    Args:
        compared (ComparedTable): A table.
    """
    table = compared.table
    if table.across:
        return _across(compared)
    counted = [k for k, measure in enumerate(table.measures) if measure.of]
    several = len(counted) > 1
    settings = list(dict.fromkeys(key for row in table.rows for key in row.settings))
    # Said where it is not the row above.
    keys = [row.key for row in table.rows]
    says_against = any(
        row.over and row.over != above for above, row in zip([None, *keys], table.rows)
    )
    words = [
        table.rows_are,
        *settings,
        *(['compared with'] if says_against else []),
        *(['classes'] if several else []),
    ]
    papers = ['paper'] if several else [f'{measure.name}, paper' for measure in table.measures]
    result = Grid(
        [*words, *papers, 'here', 'difference', 'sign'],
        [False] * len(words) + [True] * (len(papers) + 2) + [False],
    )
    for row in compared.rows:
        against = _against(table.row(row.row.over), row.row) if row.row.over else ''
        first = [
            _name(row),
            *(row.row.settings.get(key, '') for key in settings),
            *([against] if says_against else []),
        ]
        for k in counted:
            line = [*first, _measure(compared, k)] if several else first
            shown = [row.cells[k]] if several else row.cells
            result.add(
                [
                    *line,
                    *(paper_text(cell, table.digits) for cell in shown),
                    *_here(row, row.cells[k]),
                ],
                bool(row.runs),
                row.cells[k].agreement,
            )
            first = [''] * len(first)
    return result


def _across(compared: ComparedTable) -> Grid:
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
        told = [cell for cell in cells if cell.differences]
        result.add(
            [
                _measure(compared, k),
                *(paper_text(cell, compared.table.digits) for cell in cells),
                *(_here(row, cell)[0] for row, cell in zip(rows, cells)),
                ', '.join(map(difference_text, told)),
                ', '.join(cell.agreement for cell in told),
            ],
            any(cell.here for cell in cells),
            told[-1].agreement if told else '',
        )
    return result


def paper_text(cell: Cell, digits: int = 1) -> str:
    """The paper's figure, with its difference as the paper gives it: ``'60.3 (+0.3)'``."""
    if cell.paper is None:
        return '–'
    text = f'{cell.paper:.{digits}f}'
    if cell.paper_difference is None:
        return text
    return f'{text} ({signed(cell.paper_difference, digits)})'


def here_text(cell: Cell) -> str:
    """The mean of the runs here and their spread: ``'57.3 (56.4, 57.5, 58.0)'``."""
    return '–' if cell.mean is None else f'{cell.mean:.1f}' + _spread(cell.here, '{:.1f}')


def difference_text(cell: Cell) -> str:
    """The difference here and that of each seed: ``'+1.2 (+0.9, +1.5)'``."""
    if cell.difference is None:
        return '–'
    return signed(cell.difference) + _spread(cell.differences, '{:+.1f}')


def signed(x: float, digits: int = 1) -> str:
    """A number with its sign, as the papers print differences; 0 is ``'+0.0'``."""
    text = f'{x:+.{digits}f}'
    return text.replace('-', '+') if float(text) == 0 else text


def terminal(compared: Sequence[ComparedTable], others: Sequence[ComparedRow] = ()) -> str:
    """The tables that have runs, in columns; the others by name.

    Args:
        compared (sequence of ComparedTable): Of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Of :func:`~pfdet.report.comparison.other_runs`.
    """
    parts = []
    for table in compared:
        if table.n_run:
            parts.append(f'{title(table)}: {table.table.caption}\n' + _columns(grid(table)))
    if others:
        parts.append('Runs of no table\n' + _columns(others_grid(others)))
    empty = [table.table.title for table in compared if not table.n_run]
    if empty:
        parts.append('No row was run of ' + '; '.join(empty) + '.')
    if any(table.scale == 'mini' for table in compared):
        parts.append(SCALE_REMARK)
    return '\n\n'.join(parts)


def markdown(
    compared: Sequence[ComparedTable], others: Sequence[ComparedRow] = (), level: int = 2
) -> str:
    """All tables as Markdown.

    Args:
        compared (sequence of ComparedTable): Of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Of :func:`~pfdet.report.comparison.other_runs`.
        level (int): Of the tables' headings.
    """
    parts = [READING]
    if any(table.scale == 'mini' for table in compared):
        parts.append(SCALE_REMARK)
    for table in compared:
        parts += [
            '#' * level + f' {title(table)}',
            f'{table.table.caption}. {table.table.note}'
            if table.table.note
            else f'{table.table.caption}.',
            pipes(grid(table)),
        ]
    if others:
        parts += ['#' * level + ' Runs of no table', pipes(others_grid(others))]
    return '\n\n'.join(parts) + '\n'


#: How to read the columns.
READING = (
    'Figures are mean average precision at IoU 0.5 in percent. In brackets after a figure of the '
    'paper: its difference from the row it is compared with. "here" is the mean over runs with '
    'different seeds, and in brackets each of them; "difference" is against the same row, seed by '
    'seed where both rows have the same seeds, else of the means.'
)


def others_grid(others: Sequence[ComparedRow]) -> Grid:
    """Runs that are no row of a table, with their mAP."""
    result = Grid(['recipe', 'setting', 'runs', 'mAP here'], [False, False, True, True])
    for row in others:
        result.add([row.row.name, row.setting, str(len(row.runs)), here_text(row.cells[0])], True)
    return result


def pipes(table: Grid) -> str:
    """A grid as a table of Markdown."""

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


def _against(base: PaperRow, row: PaperRow) -> str:
    # What tells the row that another is compared with from that other.
    settings = [
        f'{key} {value}'
        for key, value in base.settings.items()
        if value not in (row.settings.get(key), '–')
    ]
    return ', '.join([*([base.name] if base.name != row.name else []), *settings])


def _measure(compared: ComparedTable, k: int) -> str:
    measure = compared.table.measures[k]
    here = next((reading(row.runs[0].score, measure) for row in compared.rows if row.runs), '')
    return f'{measure.name} ({here})' if here else measure.name


def _name(row: ComparedRow) -> str:
    return f'{row.row.name} [{row.setting}]' if row.setting else row.row.name


def _here(row: ComparedRow, cell: Cell) -> list[str]:
    # The texts under here, difference, as in the paper.
    if row.row.recipe is None:
        return ['', '', '']
    if not row.runs:
        return [NOT_RUN, '', '']
    return [here_text(cell), difference_text(cell) if row.row.over else '', cell.agreement]


def _spread(values: Sequence[float], form: str) -> str:
    if len(values) < 2:
        return ''
    if len(values) > _SHOWN_SEEDS:
        return (
            f' ({form.format(min(values))} to {form.format(max(values))}, '
            f'standard deviation {np.std(values, ddof=1):.1f}, {len(values)} runs)'
        )
    return ' (' + ', '.join(form.format(value) for value in values) + ')'
