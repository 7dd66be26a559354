"""Runs beside the rows of the papers' tables: values, spread over seeds, differences.

Pure functions from runs to figures; :mod:`pfdet.report.comparison_text` writes them as text,
:mod:`pfdet.report.comparison_page` as HTML. All figures are percent, as in the papers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfdet.evaluation.class_groups import N_RANKED, rank_slice
from pfdet.evaluation.run_directory import Run
from pfdet.recipes.paper_tables import Measure, PaperRow, PaperTable, paper_tables

#: Fields of a recipe that do not tell one setting from another.
_WORDS = ('name', 'about', 'size')


@dataclass(frozen=True)
class Cell:
    """A measure of a row, in the paper and here.

    Attributes:
        paper (float): The paper's figure, if it has one.
        paper_difference (float): What it is above the row it is compared with.
        here (tuple of float): The figure of each run that has it, in the order of the runs.
        differences (tuple of float): What ``here`` is above that row here: seed by seed where both
            rows have the same seeds, else the one difference of the means; empty where either row
            was not run.
        paired (bool): Whether ``differences`` are seed by seed.
    """

    paper: float | None
    paper_difference: float | None
    here: tuple[float, ...] = ()
    differences: tuple[float, ...] = ()
    paired: bool = False

    @property
    def mean(self) -> float | None:
        """Of ``here``."""
        return float(np.mean(self.here)) if self.here else None

    @property
    def difference(self) -> float | None:
        """The mean of ``differences``."""
        return float(np.mean(self.differences)) if self.differences else None

    @property
    def agreement(self) -> str:
        """How the difference here stands to the paper's.

        ``'as in the paper'`` if all of ``differences`` have the sign of the paper's,
        ``'opposite'`` if all have the other, ``'no difference'`` if all are less than 0.05, which
        is printed as 0.0, ``'seeds differ'`` otherwise; empty where there is no difference here,
        or none in the paper.
        """
        if not self.differences or not self.paper_difference:
            return ''
        signs = {
            0 if abs(d) < 0.05 else 1 if d * self.paper_difference > 0 else -1
            for d in self.differences
        }
        if len(signs) > 1:
            return 'seeds differ'
        return {1: 'as in the paper', -1: 'opposite', 0: 'no difference'}[signs.pop()]


@dataclass(frozen=True)
class ComparedRow:
    """A row of a table with the runs of its recipe.

    Attributes:
        row (PaperRow): The row.
        runs (tuple of Run): Its runs, seeds of one setting; empty if it was not run.
        setting (str): What tells these runs from others of the same recipe, such as
            ``'epochs=4.0'``; empty where there are no others.
        cells (tuple of Cell): One for each measure of the table.
    """

    row: PaperRow
    runs: tuple[Run, ...]
    setting: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class ComparedTable:
    """A table with runs of one scale.

    Attributes:
        table (PaperTable): The paper's.
        scale (str): Of the runs.
        rows (tuple of ComparedRow): All rows of the table in order; one whose recipe was run with
            several settings stands once for each.
    """

    table: PaperTable
    scale: str
    rows: tuple[ComparedRow, ...]

    @property
    def n_run(self) -> int:
        """Rows of the paper that were run."""
        return len({row.row.key for row in self.rows if row.runs})

    @property
    def n_recipe(self) -> int:
        """Rows of the paper that are recipes."""
        return sum(row.recipe is not None for row in self.table.rows)


def compare(
    runs: Sequence[Run],
    frequency: Mapping[str, int] | None = None,
    tables: Sequence[PaperTable] | None = None,
) -> list[ComparedTable]:
    """Lay runs beside every table.

    Args:
        runs (sequence of Run): Any number, of any scale.
        frequency (mapping): From machine id to training images, for means by class rank. Without,
            classes are ranked by their validation boxes.
        tables (sequence of PaperTable): By default all of both papers.

    Returns:
        list of ComparedTable: The tables in order, each once for every scale that one of its
        recipes was run at, or once without runs.
    """
    compared = []
    for table in paper_tables() if tables is None else tables:
        recipes = {row.recipe for row in table.rows}
        mine = [run for run in runs if run.name in recipes]
        for scale in sorted({run.scale for run in mine}) or ['']:
            chosen = [run for run in mine if run.scale == scale]
            compared.append(_compare_table(table, scale, chosen, frequency))
    return compared


def other_runs(runs: Sequence[Run]) -> list[ComparedRow]:
    """The runs whose recipe is no row of any table, those of one setting together.

    Returns:
        list of ComparedRow: Each with the mAP as its one cell, in the order of the runs.
    """
    known = {row.recipe for table in paper_tables() for row in table.rows}
    measure = Measure('mAP', 'mAP')
    rows = []
    names = list(dict.fromkeys((r.name, r.scale) for r in runs if r.name not in known))
    for name, scale in names:
        chosen = [run for run in runs if (run.name, run.scale) == (name, scale)]
        for setting, group in by_setting(chosen):
            cell = Cell(None, None, _values(group, measure, None))
            rows.append(
                ComparedRow(
                    PaperRow(f'{name} ({scale})', name, (None,)),
                    tuple(group),
                    _text(setting),
                    (cell,),
                )
            )
    return rows


def by_setting(runs: Sequence[Run]) -> list[tuple[dict[str, Any], list[Run]]]:
    """Part runs of one recipe that are not merely seeds of each other.

    Args:
        runs (sequence of Run): Of one recipe and scale.

    Returns:
        list of pairs: The fields of the recipe and facts of the run that differ between parts, with
        their values; and the runs. One pair with an empty dict if nothing differs.
    """
    groups: dict[str, list[Run]] = {}
    for run in runs:
        groups.setdefault(repr(sorted(_setting(run).items())), []).append(run)
    settings = [_setting(group[0]) for group in groups.values()]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    differing = [k for k in keys if len({repr(setting.get(k)) for setting in settings}) > 1]
    return [
        ({k: setting.get(k) for k in differing}, group)
        for setting, group in zip(settings, groups.values())
    ]


def measured(
    score: Mapping, measure: Measure, frequency: Mapping[str, int] | None = None
) -> float | None:
    """A measure of a table, taken from a run's score.

    Args:
        score (mapping): What ``score.json`` holds.
        measure (Measure): Which.
        frequency (mapping): See :func:`compare`.

    Returns:
        float: Percent; :obj:`None` where the score has nothing of the kind.
    """
    if measure.of == 'mAP':
        return None if score['mAP'] is None else 100 * score['mAP']
    if measure.of == 'classes':
        return _mean_ap(score, measure.mids)
    if measure.of == 'ranks':
        group = _group(score, measure)
        return (
            group
            if group is not None
            else _mean_ap(
                score,
                classes_of_rank(
                    frequency or score.get('n_ground_truth', {}), score['AP'], measure.ranks
                ),
            )
        )
    return None


def reading(score: Mapping, measure: Measure) -> str:
    """What a measure is taken over here, where that is not what the paper takes it over.

    Args:
        score (mapping): What ``score.json`` holds.
        measure (Measure): Which.

    Returns:
        str: Such as ``'here 5 of 47 classes'`` or ``'here ranks 1-8 of 41'``; empty where the same.
    """
    if measure.of == 'classes' and len(measure.mids) > 1:
        n = sum(score['AP'].get(mid) is not None for mid in measure.mids)
        return '' if n == len(measure.mids) else f'here {n} of {len(measure.mids)} classes'
    n = len(score['AP'])
    if measure.of == 'ranks' and n != N_RANKED:
        places = rank_slice(*measure.ranks, n)
        return f'here ranks {places.start + 1}-{places.stop} of {n}'
    return ''


def classes_of_rank(
    frequency: Mapping[str, int], mids: Sequence[str], ranks: tuple[int, int]
) -> list[str]:
    """The classes of a range of ranks, the class with the fewest images being the first.

    Args:
        frequency (mapping): From machine id to training images; a class not in it has none.
        mids (sequence of str): All classes.
        ranks (pair of int): First and last rank of 500. Of another number of classes, the same
            share is taken: of 41 classes, ranks 11-100 are the first to the eighth.

    Returns:
        list of str: Machine ids, the rarest first; of equally rare ones, as in ``mids``.
    """
    rarest = sorted(mids, key=lambda mid: frequency.get(mid, 0))
    return rarest[rank_slice(*ranks, len(rarest))]


def _compare_table(
    table: PaperTable, scale: str, runs: Sequence[Run], frequency: Mapping[str, int] | None
) -> ComparedTable:
    groups = {
        row.key: by_setting([r for r in runs if r.name == row.recipe]) or [({}, [])]
        for row in table.rows
    }
    rows = []
    for row in table.rows:
        printed = table.differences(row)
        for setting, group in groups[row.key]:
            below = _base(groups.get(row.over, []), group, setting)
            cells = []
            for k, measure in enumerate(table.measures):
                differences, paired = _differences(group, below, measure, frequency)
                cells.append(
                    Cell(
                        row.values[k],
                        printed[k],
                        _values(group, measure, frequency),
                        differences,
                        paired,
                    )
                )
            rows.append(ComparedRow(row, tuple(group), _text(setting), tuple(cells)))
    return ComparedTable(table, scale, tuple(rows))


def _base(
    groups: Sequence[tuple[dict[str, Any], list[Run]]],
    runs: Sequence[Run],
    setting: Mapping[str, Any],
) -> list[Run]:
    # The runs to compare with: those that share what tells either's runs from others of their row.
    ours = _setting(runs[0]) if runs else {}
    for telling, group in groups:
        if group and runs:
            theirs = _setting(group[0])
            if all(ours.get(k) == theirs.get(k) for k in {*telling, *setting}):
                return group
    return []


def _differences(
    runs: Sequence[Run], below: Sequence[Run], measure: Measure, frequency: Mapping[str, int] | None
) -> tuple[tuple[float, ...], bool]:
    ours, theirs = (_values(some, measure, frequency) for some in (runs, below))
    if not ours or not theirs:
        return (), False
    seeds, others = ([run.seed for run in some] for some in (runs, below))
    complete = len(ours) == len(seeds) == len(set(seeds)) and len(theirs) == len(others)
    if complete and None not in seeds and len(seeds) == len(others) and set(seeds) == set(others):
        of_seed = dict(zip(others, theirs))
        return tuple(value - of_seed[seed] for seed, value in zip(seeds, ours)), True
    return (float(np.mean(ours) - np.mean(theirs)),), False


def _values(
    runs: Sequence[Run], measure: Measure, frequency: Mapping[str, int] | None
) -> tuple[float, ...]:
    values = [measured(run.score, measure, frequency) for run in runs]
    return tuple(value for value in values if value is not None)


def _mean_ap(score: Mapping, mids: Sequence[str]) -> float | None:
    aps = [score['AP'][mid] for mid in mids if score['AP'].get(mid) is not None]
    return 100 * float(np.mean(aps)) if aps else None


def _group(score: Mapping, measure: Measure) -> float | None:
    # score.json may have the mean of a group of ranks already.
    wanted = re.compile(r'(^|\D){}\s*[-–]\s*{}(\D|$)'.format(*measure.ranks))
    groups = score.get('groups')
    for name, group in groups.items() if isinstance(groups, dict) else ():
        value = group.get('mAP') if isinstance(group, dict) else group
        if wanted.search(name) and isinstance(value, (int, float)):
            return 100 * value
    return None


def _text(setting: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in setting.items())


def _setting(run: Run) -> dict[str, Any]:
    setting = {k: v for k, v in run.recipe.items() if k not in _WORDS}
    for fact in ('images', 'iterations'):
        if fact in run.facts:
            setting[f'run.{fact}'] = run.facts[fact]
    return setting
