"""The table of the classes that COCO's categories are mapped to."""

import csv
from collections.abc import Sequence

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.openimages.classes import Classes
from pfdet.openimages.coco_mapping import Decision
from pfdet.printable import printable


def table_rows(
    decisions: Sequence[Decision], classes: Classes, annotations: dict[str, int] | None = None
) -> list[list[str]]:
    """Return the decisions as rows of a table.

    Args:
        decisions (sequence of Decision): From :func:`decide`.
        classes (Classes): The label space.
        annotations (dict): The number of annotations per COCO class. If given, it is the last
            column.

    Returns:
        list of list of str: The header and one row per decision.
    """
    rows = [['CocoClass', 'LabelName', 'DisplayName', 'How', 'OtherCandidates']]
    for d in decisions:
        mid, name = (
            (classes.mids[d.class_id], classes.names[d.class_id]) if d.class_id >= 0 else ('', '')
        )
        rows.append(
            [
                d.coco,
                mid,
                name,
                d.how,
                '; '.join(classes.names[c] for c in d.candidates if c != d.class_id),
            ]
        )
    if annotations is not None:
        for row, last in zip(rows, ['Annotations', *(annotations[d.coco] for d in decisions)]):
            row.append(str(last))
    return rows


def write_table(path: str, rows: list[list[str]]) -> None:
    """Write a table as CSV, or print it if ``path`` is ``-``.

    Raises:
        InputError: If the file cannot be written.
    """
    if path == '-':
        widths = [max(map(len, column)) for column in zip(*rows)]
        for row in rows:
            cells = (field.ljust(width) for field, width in zip(row, widths))
            print(printable('  '.join(cells).rstrip()))
        return
    try:
        with (
            replace_when_done(path) as unfinished,
            open(unfinished, 'w', newline='', encoding='utf-8') as f,
        ):
            csv.writer(f, lineterminator='\n').writerows(rows)
    except OSError as e:
        raise InputError(f'--table {path}: cannot write the table: {e.strerror or e}') from e
