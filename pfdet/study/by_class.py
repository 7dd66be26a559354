"""Where a claim is about some classes: AP of these classes, as Markdown."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pfdet.evaluation.comparison_text import Grid, pipes, signed
from pfdet.evaluation.paper_tables import table_of
from pfdet.evaluation.run_directory import Run
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy

_CS2 = 'cs-table2-{}-{}'
_BASE = ('softmax', 'softmax')


def parts_table(runs: Iterable[Run], classes: Classes, parts: Iterable[str]) -> str | None:
    """PFDet's Table 3: each part class without and with co-occurrence loss.

    Args:
        runs (iterable of Run): Among them those of ``mini`` and ``mini-without-cooccurrence``.
        classes (Classes): For names.
        parts (iterable of str): Machine ids.

    Returns:
        str: A table; :obj:`None` without both runs of any seed.
    """
    aps = _aps(runs)
    without, with_loss = aps['mini-without-cooccurrence'], aps['mini']
    seeds = sorted(without.keys() & with_loss.keys())
    if not seeds:
        return None
    table = table_of('table3-baseline')
    published = {measure.name: values for measure, *values in zip(
        table.measures, table.row('table3-baseline').values,
        table.row('table3-cooccurrence').values, strict=True)}
    lines = []
    for mid in sorted(set(parts) & without[seeds[0]].keys(), key=classes.id_of):
        name = classes.names[classes.id_of(mid)]
        pairs = [(without[seed][mid], with_loss[seed][mid]) for seed in seeds]
        paper = published.get(name)
        lines.append((name, *(f'{statistics.fmean(x):.1f}' for x in zip(*pairs, strict=True)),
                      *_differences(b - a for a, b in pairs),
                      f'{signed(paper[1] - paper[0])} ({paper[0]} to {paper[1]})' if paper else ''))
    return _table(('class', 'without', 'with', 'difference', 'seeds', 'PFDet, Table 3'), lines)


def relatives_table(runs: Iterable[Run], classes: Classes, hierarchy: Hierarchy) -> str | None:
    """What concurrent softmax does to classes by their place in the hierarchy.

    Args:
        runs (iterable of Run): Among them those of the second paper's Table 2.
        classes (Classes): :math:`C` classes.
        hierarchy (Hierarchy): Over them.

    Returns:
        str: A table of differences to softmax in training and testing; :obj:`None` without runs of
        all of the table's rows with one seed.
    """
    aps = _aps(runs)
    kinds = [(train, test) for train in ('softmax', 'concurrent')
             for test in ('softmax', 'concurrent')]
    seeds = sorted(set.intersection(*(set(aps[_CS2.format(*kind)]) for kind in kinds)))
    if not seeds:
        return None
    known = set(aps[_CS2.format(*_BASE)][seeds[0]])
    has_parent = hierarchy.ancestors.any(axis=1)
    groups = {'classes with children': ~hierarchy.is_leaf,
              'leaves with a parent': hierarchy.is_leaf & has_parent,
              'classes without relatives': hierarchy.is_leaf & ~has_parent}
    lines = []
    for train, test in kinds[1:]:
        for name, mask in groups.items():
            mids = {classes.mids[c] for c in np.flatnonzero(mask)} & known
            if not mids:
                continue
            gained = [statistics.fmean(
                aps[_CS2.format(train, test)][seed][mid] - ap
                for mid, ap in aps[_CS2.format(*_BASE)][seed].items() if mid in mids)
                for seed in seeds]
            lines.append((train, test, name, *_differences(gained)))
    return _table(('training', 'testing', 'mean AP of', 'difference', 'seeds'), lines)


def _aps(runs: Iterable[Run]) -> Mapping[str, dict[int, dict[str, float]]]:
    """AP in % by the row's name, its seed, and the class where it has ground truth."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        found[run.name][run.facts.get('seed', 0)] = {
            mid: 100 * ap for mid, ap in run.score['AP'].items() if ap is not None}
    return found


def _differences(values: Iterable[float]) -> tuple[str, str]:
    """Their mean, and each."""
    values = list(values)
    return signed(statistics.fmean(values)), ', '.join(map(signed, values))


def _table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    numbers = [name in ('without', 'with', 'difference') for name in header]
    return pipes(Grid(list(header), numbers, [list(line) for line in lines])) + '\n'
