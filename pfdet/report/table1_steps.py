"""The steps of PFDet's Table 1, and which of them a recipe enables."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pfdet.recipes.paper_tables import paper_tables
from pfdet.report.comparison import Cell
from pfdet.report.comparison_text import paper_text


@dataclass(frozen=True)
class Step:
    """A row of Table 1.

    Attributes:
        name (str): Name of the step in the paper.
        paper (str): The paper's mAP in percent, with its difference.
        recipe (str): The recipe of the row.
        enabled (str): ``'yes'`` if the recipe in question has the step, the parts that it has if it
            has only some, or empty.
    """

    name: str
    paper: str
    recipe: str
    enabled: str


def table1_steps(recipe: Mapping[str, Any]) -> list[Step]:
    """List the steps of PFDet's Table 1 with those that a recipe enables.

    Args:
        recipe (mapping): A resolved recipe, as in ``recipe.json``.

    Returns:
        list of Step: In the order of the table. Empty if the recipe lacks a field that decides.
    """
    try:
        enabled = _enabled(recipe)
    except (KeyError, TypeError):
        return []
    table = paper_tables()[0]
    return [
        Step(row.name, paper_text(Cell(row.values[0], difference)), row.recipe or '', on)
        for row, on in zip(table.rows, enabled)
        for difference in table.differences(row)
    ]


def _enabled(recipe: Mapping[str, Any]) -> list[str]:
    low, high = recipe['min_size']
    mini = ' (a mini network)' if recipe['backbone'].startswith('mini') else ''

    def text(parts: Mapping[str, bool]) -> str:
        on = [name for name, value in parts.items() if value]
        return 'yes' if len(on) == len(parts) else ', '.join(on) + ' only' if on else ''

    return [
        'yes' + mini,
        text({'multi-scale': low < high}),
        text({'PSP': recipe['psp'], 'BN in the head': recipe['head_bn']}),
        text({'cosine': recipe['schedule'] == 'cosine'}),
        text({'scale': recipe['fpn_scale'] >= 5}),
        text({'co-occurrence': recipe['cooccurrence']}),
        'yes' if recipe['epochs'] >= 16 else '',
        text({'context': recipe['context']}),
        text(
            {
                'SENet-154': recipe['backbone'] == 'senet154',
                'anchors': len(recipe['anchor_ratios']) >= 5,
            }
        ),
    ]
