"""Comparison of runs with the rows of the papers' tables: values, seeds and differences.

All values are in percent, as in the papers. :mod:`pfdet.report.comparison_text` formats the result
as text, :mod:`pfdet.report.comparison_page` as HTML.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pfdet.evaluation.class_groups import N_RANKED, rank_slice
from pfdet.evaluation.run_directory import Run
from pfdet.recipes.paper_tables import Measure, PaperRow, PaperTable, paper_tables

# Fields of a recipe that do not distinguish settings; 'scale' is the former name of 'size'.
_DESCRIPTIVE_FIELDS = ('name', 'about', 'size', 'scale')
# Entry of a setting that the rows are marked with; see Run.deviation.
_DEVIATION = 'run.deviation'


@dataclass(frozen=True)
class Cell:
    """A measure of a row, in the paper and in the runs.

    Attributes:
        paper (float): Value in the paper, or :obj:`None`.
        paper_difference (float): Difference in the paper from the row that it compares this row
            with, or :obj:`None`.
        here (tuple of float): Value of each run that has one, in the order of the runs.
        differences (tuple of float): Difference of the runs from those of the other row: one per
            seed if both rows have the same seeds, else one difference of means. Empty if either row
            has no runs.
        paired (bool): Whether ``differences`` has one value per seed.
    """

    paper: float | None
    paper_difference: float | None
    here: tuple[float, ...] = ()
    differences: tuple[float, ...] = ()
    paired: bool = False

    @property
    def mean(self) -> float | None:
        """Mean of ``here``, or :obj:`None` without runs."""
        return float(np.mean(self.here)) if self.here else None

    @property
    def difference(self) -> float | None:
        """Mean of ``differences``, or :obj:`None` without any."""
        return float(np.mean(self.differences)) if self.differences else None

    @property
    def agreement(self) -> str:
        """Comparison of the signs of ``differences`` and of ``paper_difference``.

        ``'as in the paper'`` if all have the sign of the paper, ``'opposite'`` if all have the
        opposite sign, ``'no difference'`` if all are below 0.05 and so are printed as 0.0, and
        ``'seeds differ'`` otherwise. Empty if there is no difference in the runs or in the paper.
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
        runs (tuple of Run): Runs of the recipe with one setting and different seeds; may be empty.
        setting (str): The fields that differ from other runs of the same recipe, such as
            ``'epochs=4.0'``; empty if there are no others.
        cells (tuple of Cell): One cell per measure of the table.
    """

    row: PaperRow
    runs: tuple[Run, ...]
    setting: str
    cells: tuple[Cell, ...]

    @property
    def deviation(self) -> str:
        """See :attr:`~pfdet.evaluation.run_directory.Run.deviation`; the runs have the same."""
        return self.runs[0].deviation if self.runs else ''


@dataclass(frozen=True)
class ComparedTable:
    """A table with the runs of one scale.

    Attributes:
        table (PaperTable): The table of the paper.
        scale (str): Scale of the runs, ``'full'`` or ``'mini'``; empty without runs.
        rows (tuple of ComparedRow): All rows of the table in order. A row whose recipe was run with
            several settings is repeated for each.
    """

    table: PaperTable
    scale: str
    rows: tuple[ComparedRow, ...]

    @property
    def n_run(self) -> int:
        """Number of rows that have runs."""
        return len({row.row.key for row in self.rows if row.runs})

    @property
    def n_recipe(self) -> int:
        """Number of rows that have a recipe."""
        return sum(row.recipe is not None for row in self.table.rows)


def compare(
    runs: Sequence[Run],
    frequency: Mapping[str, int] | None = None,
    tables: Sequence[PaperTable] | None = None,
) -> list[ComparedTable]:
    """Compare runs with tables of the papers.

    Args:
        runs (sequence of Run): Runs of any recipes and scales.
        frequency (mapping): From MID to number of training images, to rank classes. If omitted,
            classes are ranked by their number of validation boxes.
        tables (sequence of PaperTable): The tables, by default all of both papers.

    Returns:
        list of ComparedTable: The tables in order, each once for every scale that its recipes were
        run at, or once without runs.
    """
    compared = []
    for table in paper_tables() if tables is None else tables:
        recipes = {row.recipe for row in table.rows}
        table_runs = [run for run in runs if run.name in recipes]
        for scale in sorted({run.scale for run in table_runs}) or ['']:
            scale_runs = [run for run in table_runs if run.scale == scale]
            compared.append(_compare_table(table, scale, scale_runs, frequency))
    return compared


def other_runs(runs: Sequence[Run]) -> list[ComparedRow]:
    """Collect the runs whose recipe is not a row of any table.

    Args:
        runs (sequence of Run): Runs of any recipes and scales.

    Returns:
        list of ComparedRow: One row per recipe, scale and setting, with the mAP as its only cell,
        in the order of the runs.
    """
    known = {row.recipe for table in paper_tables() for row in table.rows}
    measure = Measure('mAP', 'mAP')
    rows = []
    names = list(dict.fromkeys((r.name, r.scale) for r in runs if r.name not in known))
    for name, scale in names:
        chosen = [run for run in runs if (run.name, run.scale) == (name, scale)]
        for setting, group in group_by_setting(chosen):
            cell = Cell(None, None, _values(group, measure, None))
            rows.append(
                ComparedRow(
                    PaperRow(f'{name} ({scale})', name, (None,)),
                    tuple(group),
                    _setting_text(setting),
                    (cell,),
                )
            )
    return rows


def group_by_setting(runs: Sequence[Run]) -> list[tuple[dict[str, Any], list[Run]]]:
    """Group runs of one recipe that differ only in their seed.

    Args:
        runs (sequence of Run): Runs of one recipe and scale.

    Returns:
        list of pairs: For each group, the recipe fields and facts that differ between groups, with
        their values, and the runs. One pair with an empty dict if nothing differs.
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


def measure_value(
    score: Mapping, measure: Measure, frequency: Mapping[str, int] | None = None
) -> float | None:
    """Compute a measure of a table from the score of a run.

    Args:
        score (mapping): Content of ``score.json``.
        measure (Measure): The measure.
        frequency (mapping): See :func:`compare`.

    Returns:
        float: The value in percent, or :obj:`None` if the score does not have it.
    """
    if measure.of == 'mAP':
        return None if score['mAP'] is None else 100 * score['mAP']
    if measure.of == 'classes':
        return _mean_ap(score, measure.mids)
    if measure.of == 'ranks' and measure.ranks is not None:
        value = _group_in_score(score, measure.ranks)
        if value is not None:
            return value
        counts = frequency or score.get('n_ground_truth', {})
        return _mean_ap(score, classes_of_rank(counts, list(score['AP']), measure.ranks))
    return None


def coverage(score: Mapping, measure: Measure) -> str:
    """Name the classes that a measure covers in a run, if they differ from the paper's.

    Args:
        score (mapping): Content of ``score.json``.
        measure (Measure): The measure.

    Returns:
        str: Such as ``'here 5 of 47 classes'`` or ``'here ranks 1-8 of 41'``; empty if there is no
        difference.
    """
    if measure.of == 'classes' and len(measure.mids) > 1:
        n = sum(score['AP'].get(mid) is not None for mid in measure.mids)
        return '' if n == len(measure.mids) else f'here {n} of {len(measure.mids)} classes'
    n = len(score['AP'])
    if measure.of == 'ranks' and measure.ranks is not None and n != N_RANKED:
        positions = rank_slice(*measure.ranks, n)
        return f'here ranks {positions.start + 1}-{positions.stop} of {n}'
    return ''


def classes_of_rank(
    frequency: Mapping[str, int], mids: Sequence[str], ranks: tuple[int, int]
) -> list[str]:
    """Return the classes of a range of ranks; rank 1 is the class with the fewest images.

    Args:
        frequency (mapping): From MID to number of training images; 0 for classes not in it.
        mids (sequence of str): All classes.
        ranks (pair of int): First and last rank out of 500. They are scaled to the number of
            classes: of 41 classes, ranks 11-100 are the first to the eighth.

    Returns:
        list of str: MIDs, rarest first. Equally rare classes keep the order of ``mids``.
    """
    by_rarity = sorted(mids, key=lambda mid: frequency.get(mid, 0))
    return by_rarity[rank_slice(*ranks, len(by_rarity))]


def _compare_table(
    table: PaperTable, scale: str, runs: Sequence[Run], frequency: Mapping[str, int] | None
) -> ComparedTable:
    groups = {
        row.key: group_by_setting([r for r in runs if r.name == row.recipe]) or [({}, [])]
        for row in table.rows
    }
    rows = []
    for row in table.rows:
        paper_differences = table.differences(row)
        for setting, group in groups[row.key]:
            base = _base_runs(groups.get(row.over or '', []), group, setting)
            cells = []
            for k, measure in enumerate(table.measures):
                differences, paired = _differences(group, base, measure, frequency)
                cells.append(
                    Cell(
                        row.values[k],
                        paper_differences[k],
                        _values(group, measure, frequency),
                        differences,
                        paired,
                    )
                )
            rows.append(ComparedRow(row, tuple(group), _setting_text(setting), tuple(cells)))
    return ComparedTable(table, scale, tuple(rows))


def _base_runs(
    base_groups: Sequence[tuple[dict[str, Any], list[Run]]],
    runs: Sequence[Run],
    setting: Mapping[str, Any],
) -> list[Run]:
    # The group of the other row to compare with: it agrees with the runs in all fields that
    # distinguish groups of either row.
    run_setting = _setting(runs[0]) if runs else {}
    for base_setting, group in base_groups:
        if group and runs:
            group_setting = _setting(group[0])
            fields = {*base_setting, *setting}
            if all(run_setting.get(k) == group_setting.get(k) for k in fields):
                return group
    return []


def _differences(
    runs: Sequence[Run], base: Sequence[Run], measure: Measure, frequency: Mapping[str, int] | None
) -> tuple[tuple[float, ...], bool]:
    # Differences of the runs from the base runs, and whether they are paired by seed.
    values, base_values = (_values(group, measure, frequency) for group in (runs, base))
    if not values or not base_values:
        return (), False
    seeds, base_seeds = ([run.seed for run in group] for group in (runs, base))
    paired = (
        None not in seeds
        and len(values) == len(seeds) == len(set(seeds))
        and len(base_values) == len(base_seeds) == len(seeds)
        and set(seeds) == set(base_seeds)
    )
    if paired:
        base_value = dict(zip(base_seeds, base_values))
        return tuple(value - base_value[seed] for seed, value in zip(seeds, values)), True
    return (float(np.mean(values) - np.mean(base_values)),), False


def _values(
    runs: Sequence[Run], measure: Measure, frequency: Mapping[str, int] | None
) -> tuple[float, ...]:
    values = [measure_value(run.score, measure, frequency) for run in runs]
    return tuple(value for value in values if value is not None)


def _mean_ap(score: Mapping, mids: Sequence[str]) -> float | None:
    aps = [score['AP'][mid] for mid in mids if score['AP'].get(mid) is not None]
    return 100 * float(np.mean(aps)) if aps else None


def _group_in_score(score: Mapping, ranks: tuple[int, int]) -> float | None:
    # score.json may already have the mean AP of a range of ranks.
    first, last = ranks
    pattern = re.compile(rf'(^|\D){first}\s*[-–]\s*{last}(\D|$)')
    groups = score.get('groups')
    for name, group in groups.items() if isinstance(groups, dict) else ():
        value = group.get('mAP') if isinstance(group, dict) else group
        if pattern.search(name) and isinstance(value, (int, float)):
            return 100 * value
    return None


def _setting_text(setting: Mapping[str, Any]) -> str:
    return ', '.join(f'{key}={value}' for key, value in setting.items() if key != _DEVIATION)


def _setting(run: Run) -> dict[str, Any]:
    setting = {k: v for k, v in run.recipe.items() if k not in _DESCRIPTIVE_FIELDS}
    for fact in ('images', 'iterations'):
        if fact in run.facts:
            setting[f'run.{fact}'] = run.facts[fact]
    if run.deviation:
        setting[_DEVIATION] = run.deviation
    return setting
