"""A list of all rows of all tables, for people to read."""

from collections.abc import Iterator

from pfdet.recipes import TABLES, Composite
from pfdet.recipes.paper_tables import paper_tables

_WIDTH = 38


def list_rows() -> Iterator[str]:
    """Lines with every row of every table, and with the rows of the papers that cannot be run.

    Yields:
        str: The title of a table, or a row: its name, and what it is. Rows of several models have
        a ``*``, since ``pfdet train-table`` runs them, not ``pfdet train``.
    """
    papers = {table.key: table for table in paper_tables()}
    for key, table in TABLES.items():
        yield table.title
        for row in table.rows:
            mark = '*' if isinstance(row, Composite) else ''
            yield f'  {row.name + mark:{_WIDTH}} {row.about.partition(": ")[2]}'
        for row in papers[key].rows if key in papers else ():
            if row.recipe is None:
                yield f'  {"-":{_WIDTH}} {row.name} ({row.reason})'
    yield '* several models: pfdet train-table --table TABLE --rows NAME'
