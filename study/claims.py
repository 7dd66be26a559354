"""The claims of both papers, as differences between runs that can be measured at any scale.

The claims are listed in ``claims.json``, and the papers' figures are read from the papers' tables
(:mod:`pfdet.recipes.paper_tables`).
"""

import json
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pfdet.evaluation.class_groups import class_groups
from pfdet.openimages.classes import challenge_classes
from pfdet.recipes.paper_tables import table_of
from study.expert_ensembles import RANKS

Measure = Callable[[Mapping[str, Any]], float | None]
_CLAIMS = Path(__file__).with_name('claims.json')


@dataclass(frozen=True)
class Claim:
    """A difference between two runs that the papers report.

    Attributes:
        key (str): Its name in notes.
        topic (str): The section that lists it.
        text (str): The claim in words.
        row, against (str): Names of the runs compared.
        paper (float): The paper's difference in points of AP, or :obj:`None` where it gives none.
        where (str): The table or section of the paper.
        file, against_file (str): Which of a run's scores.
        measure (callable): Computes the compared value, in [0, 1], from a score.
        of (str): Name of the measure.
        no_loss (bool): Whether the claim is only that the row is not worse.
        sign (int): -1 where the paper finds the row worse.
    """

    key: str
    topic: str
    text: str
    row: str
    against: str
    paper: float | None
    where: str
    file: str = 'score'
    against_file: str = 'score'
    measure: Measure = field(default=lambda score: score['mAP'])
    of: str = 'mAP'
    no_loss: bool = False
    sign: int = 1

    def uses_noise(self, n_seed: int) -> bool:
        """Whether the verdict depends on the noise of seeds.

        Args:
            n_seed (int): Number of seeds that both runs have.
        """
        return self.no_loss or n_seed == 1


def part_classes() -> set[str]:
    """Machine ids of the parts and possessions of PFDet's 47 pairs."""
    classes = challenge_classes()
    return {classes.mids[c] for c in class_groups(classes)['parts']}


def mean_over(mids: set[str]) -> Measure:
    """The mean AP of those of the given classes that have ground truth.

    Args:
        mids (set of str): Machine ids.
    """

    def measure(score: Mapping[str, Any]) -> float | None:
        aps = [ap for mid, ap in score['AP'].items() if mid in mids and ap is not None]
        return statistics.fmean(aps) if aps else None

    return measure


def thirds(counts: Mapping[str, int], first: int = 1, last: int | None = None) -> list[set[str]]:
    """Split the classes into thirds by their number of training images.

    Args:
        counts (mapping): Training images of each class by machine id. Classes without any are
            omitted.
        first, last (int): Ranks of the rarest and of the most frequent class to include, from 1.

    Returns:
        list of sets: Machine ids of each third, the rarest first.
    """
    mids = sorted((mid for mid, n in counts.items() if n > 0), key=counts.__getitem__)
    mids = mids[first - 1 : last]
    bounds = [round(k * len(mids) / 3) for k in range(4)]
    return [set(mids[a:b]) for a, b in zip(bounds, bounds[1:], strict=False)]


def claims(counts: Mapping[str, int]) -> list[Claim]:
    """All claims of both papers that the study measures.

    Args:
        counts (mapping): Training images of each class by machine id.
    """
    measures: dict[str, Measure] = {
        'mAP': lambda score: score['mAP'],
        'mAP at IoU 0.75': lambda score: score['mAP'],
        'mean AP of part classes': mean_over(part_classes()),
    }
    for name, mids in zip(('rarest', 'middle', 'most frequent'), thirds(counts), strict=True):
        measures[f'mean AP of the {name} third'] = mean_over(mids)
    expert_thirds = thirds(counts, *RANKS)
    for name, mids in zip(('rarest', 'middle', 'most frequent'), expert_thirds, strict=True):
        measures[f'mean AP of the {name} third, classes with experts'] = mean_over(mids)
    topics = json.loads(_CLAIMS.read_text(encoding='utf-8'))
    return [
        _claim(topic, entry, measures) for topic, entries in topics.items() for entry in entries
    ]


def published_difference(
    row: str, against: str, measure: str | None = None
) -> tuple[float | None, str]:
    """Look up a difference between two rows of a paper's table.

    Args:
        row, against (str): Recipes of the rows.
        measure (str): The table's column, by default the first.

    Returns:
        tuple: The difference in points, :obj:`None` where a row has no figure; and where it is
        printed, such as ``'PFDet, Table 1'``.
    """
    table = table_of(row)
    where = table.title if measure is None else f'{table.title}, {measure}'
    return table.difference(row, against, measure), where


def _claim(topic: str, entry: Mapping[str, Any], measures: Mapping[str, Measure]) -> Claim:
    fields = dict(entry)
    of = fields.pop('measure', 'mAP')
    if 'where' in fields:
        paper, where = None, fields.pop('where')
    else:
        rows = fields.pop('paper', (fields['row'], fields['against']))
        paper, where = published_difference(*rows)
    return Claim(topic=topic, paper=paper, where=where, of=of, measure=measures[of], **fields)
