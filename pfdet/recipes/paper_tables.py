"""All tables of both papers as data, with the recipe or composite of each row."""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A column of figures, and the corresponding value in a run's ``score.json``.

    Attributes:
        name (str): The paper's name for it.
        of (str): ``'mAP'``, the mean over all classes; ``'classes'``, the mean AP over ``mids``;
            ``'ranks'``, the mean AP over the classes from rank ``ranks[0]`` to ``ranks[1]`` of 500,
            where rank 1 has the fewest training images; or empty where a run has no such value.
        mids (tuple of str): Machine ids of classes.
        ranks (pair of int): First and last rank, from 1.
    """

    name: str
    of: str
    mids: tuple[str, ...] = ()
    ranks: tuple[int, int] | None = None


@dataclass(frozen=True)
class PaperRow:
    """A row of a table.

    Attributes:
        name (str): The paper's name for it.
        recipe (str): Name of the recipe or composite of the row, or :obj:`None` if it cannot be
            run.
        values (tuple): Percent for each measure of the table; :obj:`None` where the paper has none.
        over (str): The :attr:`key` of the row that the paper compares this one with, or
            :obj:`None` if it compares with none.
        settings (mapping): Further columns of the table that describe the row, from name to text.
        reason (str): Why the row cannot be run; empty if it can.
    """

    name: str
    recipe: str | None
    values: tuple[float | None, ...]
    over: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    reason: str = ''

    @property
    def key(self) -> str:
        """Identifies the row within its table: the recipe, or the name without one."""
        return self.recipe or self.name

    @property
    def label(self) -> str:
        """The name and the settings in one: ``'Softmax Loss, class-aware'``."""
        return ', '.join([self.name, *(s for s in self.settings.values() if s != '–')])


@dataclass(frozen=True)
class PaperTable:
    """A table of a paper.

    Attributes:
        key (str): ``'table1'`` to ``'table4'`` for PFDet, ``'cs-table1'`` to ``'cs-table5'`` for
            Peng et al. (2020). The names of its recipes begin with it.
        title (str): Such as ``'PFDet, Table 1'``.
        caption (str): What the table shows.
        source (str): The paper.
        measures (tuple of Measure): Its columns of figures.
        rows (tuple of PaperRow): Its rows.
        rows_are (str): Heading of the first column, such as ``'loss'``.
        across (bool): Whether the paper prints rows as columns, and measures as rows.
        note (str): A remark on its figures, or empty.
    """

    key: str
    title: str
    caption: str
    source: str
    measures: tuple[Measure, ...]
    rows: tuple[PaperRow, ...]
    rows_are: str = ''
    across: bool = False
    note: str = ''

    @property
    def digits(self) -> int:
        """Decimals of the figures in the paper."""
        values = [value for row in self.rows for value in row.values if value is not None]
        return 1 if all(value == round(value, 1) for value in values) else 2

    def row(self, key: str) -> PaperRow:
        """The row with a :attr:`PaperRow.key`.

        Raises:
            KeyError: There is no such row.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def differences(self, row: PaperRow) -> tuple[float | None, ...]:
        """Differences between a row and the one that the paper compares it with.

        Args:
            row (PaperRow): Of this table.

        Returns:
            tuple: Points of percent for each measure; :obj:`None` where either row has no figure,
            or where the paper compares the row with none.
        """
        if row.over is None:
            return (None,) * len(row.values)
        return tuple(map(_difference, row.values, self.row(row.over).values))

    def difference(self, key: str, against: str, measure: str | None = None) -> float | None:
        """The difference between any two rows.

        Args:
            key, against (str): :attr:`PaperRow.key` of the rows.
            measure (str): Name of a measure, by default the first.

        Returns:
            float: Points of percent; :obj:`None` where either row has no figure.

        Raises:
            KeyError: There is no such row or measure.
        """
        names = [m.name for m in self.measures]
        if measure is not None and measure not in names:
            raise KeyError(measure)
        k = 0 if measure is None else names.index(measure)
        return _difference(self.row(key).values[k], self.row(against).values[k])


@functools.cache
def paper_tables() -> tuple[PaperTable, ...]:
    """All tables: 1 to 4 of PFDet (Akiba et al., 2018), then 1 to 5 of Peng et al. (2020)."""
    file = importlib.resources.files('pfdet.recipes') / 'data' / 'paper_tables.json'
    papers = json.loads(file.read_text(encoding='utf-8'))
    return tuple(_table(paper, table) for paper in papers for table in paper['tables'])


def table_of(recipe: str) -> PaperTable | None:
    """The table that has a row with this recipe, or :obj:`None`.

    Args:
        recipe (str): Such as ``'table1-baseline'``.
    """
    for table in paper_tables():
        if any(row.recipe == recipe for row in table.rows):
            return table
    return None


def _difference(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(value - base, 2)


def _table(paper: Mapping[str, Any], table: Mapping[str, Any]) -> PaperTable:
    measures = tuple(
        Measure(
            m['name'],
            m['of'],
            tuple(m.get('mids', ())),
            tuple(m['ranks']) if 'ranks' in m else None,
        )
        for m in table['measures']
    )
    rows = tuple(
        PaperRow(
            r['name'],
            r['recipe'],
            tuple(r['values']),
            r.get('over'),
            r.get('settings', {}),
            r.get('reason', ''),
        )
        for r in table['rows']
    )
    number = table['number']
    return PaperTable(
        f'{paper["prefix"]}table{number}',
        f'{paper["name"]}, Table {number}',
        table['caption'],
        paper['source'],
        measures,
        rows,
        table['rows_are'],
        table.get('across', False),
        table.get('note', ''),
    )
