"""Every table of both papers as data, with the recipe that each row is."""

import functools
import importlib.resources
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Measure:
    """A column of figures, and what is its like in a run's ``score.json``.

    Attributes:
        name (str): As in the paper.
        of (str): ``'mAP'``, the mean over all classes; ``'classes'``, the mean AP over ``mids``;
            ``'ranks'``, the mean AP over the classes from rank ``ranks[0]`` to ``ranks[1]``, the
            class with the fewest training images being the first of 500; or empty where a run has
            no such figure.
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
        name (str): As in the paper.
        recipe (str): The recipe that is this row, or :obj:`None` where there is none.
        values (tuple): Percent for each measure of the table; :obj:`None` where the paper has none.
        over (str): The :attr:`key` of the row that the paper compares this one with, or
            :obj:`None` where the row is where comparing starts.
        settings (mapping): What further columns of the table say of the row, from name to text.
    """

    name: str
    recipe: str | None
    values: tuple[float | None, ...]
    over: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """What tells the row from others of its table: the recipe, or the name without one."""
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
            the second paper: what the names of its recipes begin with.
        title (str): Such as ``'PFDet, Table 1'``.
        caption (str): What it shows.
        source (str): The paper.
        measures (tuple of Measure): Its columns of figures.
        rows (tuple of PaperRow): Its rows.
        rows_are (str): What the rows name, such as ``'loss'``: the first column's heading.
        across (bool): Rows stand side by side in the paper, and measures one under the other.
        note (str): What to know of its figures, or empty.
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
        """Decimals that the paper gives its figures with."""
        values = [value for row in self.rows for value in row.values if value is not None]
        return 1 if all(value == round(value, 1) for value in values) else 2

    def row(self, key: str) -> PaperRow:
        """The row of a :attr:`PaperRow.key`.

        Raises:
            KeyError: There is no such row.
        """
        for row in self.rows:
            if row.key == key:
                return row
        raise KeyError(key)

    def differences(self, row: PaperRow) -> tuple[float | None, ...]:
        """What a row is above the one it is compared with, in points of percent.

        Args:
            row (PaperRow): Of this table.

        Returns:
            tuple: For each measure; :obj:`None` where either row has no figure, or where the row
            is compared with none.
        """
        if row.over is None:
            return (None,) * len(row.values)
        return tuple(
            None if value is None or below is None else round(value - below, 2)
            for value, below in zip(row.values, self.row(row.over).values)
        )


@functools.cache
def paper_tables() -> tuple[PaperTable, ...]:
    """All tables: PFDet's 1 to 4 (Akiba et al., 2018), then the 5 of Peng et al., CVPR 2020."""
    file = importlib.resources.files('pfdet.recipes') / 'data' / 'paper_tables.json'
    papers = json.loads(file.read_text(encoding='utf-8'))
    return tuple(_table(paper, table) for paper in papers for table in paper['tables'])


def table_of(recipe: str) -> PaperTable | None:
    """The table that has a row of this recipe, or :obj:`None`.

    Args:
        recipe (str): Such as ``'table1-baseline'``.
    """
    for table in paper_tables():
        if any(row.recipe == recipe for row in table.rows):
            return table
    return None


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
        PaperRow(r['name'], r['recipe'], tuple(r['values']), r.get('over'), r.get('settings', {}))
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
