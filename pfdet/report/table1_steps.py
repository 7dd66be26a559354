"""Which steps of PFDet's Table 1 a recipe has."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pfdet.recipes.paper_tables import paper_tables
from pfdet.report.comparison import Cell
from pfdet.report.comparison_text import paper_text


@dataclass(frozen=True)
class Step:
    """A row of the table: the step's name, the paper's mAP, the recipe of the row, and whether the
    recipe in question has it: ``'yes'``, what part of it, or empty."""

    name: str
    paper: str
    recipe: str
    on: str


def steps_of_table1(recipe: Mapping[str, Any]) -> list[Step]:
    """The steps of PFDet's Table 1, and which of them a recipe has.

    Args:
        recipe (mapping): Resolved, as ``recipe.json`` has it.

    Returns:
        list of Step: In the table's order; none if the recipe lacks a field that tells.
    """
    try:
        has = _switches(recipe)
    except (KeyError, TypeError):
        return []
    table = paper_tables()[0]
    return [
        Step(row.name, paper_text(Cell(row.values[0], difference)), row.recipe, on)
        for row, on in zip(table.rows, has)
        for difference in table.differences(row)
    ]


def _switches(recipe: Mapping[str, Any]) -> list[str]:
    low, high = recipe['min_size']
    mini = ' (a mini network)' if recipe['backbone'].startswith('mini') else ''

    def said(parts: Mapping[str, bool]) -> str:
        on = [name for name, value in parts.items() if value]
        return 'yes' if len(on) == len(parts) else ', '.join(on) + ' only' if on else ''

    return [
        'yes' + mini,
        said({'multi-scale': low < high}),
        said({'PSP': recipe['psp'], 'BN in the head': recipe['head_bn']}),
        said({'cosine': recipe['schedule'] == 'cosine'}),
        said({'scale': recipe['fpn_scale'] >= 5}),
        said({'co-occurrence': recipe['cooccurrence']}),
        'yes' if recipe['epochs'] >= 16 else '',
        said({'context': recipe['context']}),
        said(
            {
                'SENet-154': recipe['backbone'] == 'senet154',
                'anchors': len(recipe['anchor_ratios']) >= 5,
            }
        ),
    ]
