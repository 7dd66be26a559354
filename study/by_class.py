"""Where a claim is about some classes: AP of these classes, as Markdown."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from pfdet.evaluation.run_directory import Run
from pfdet.iterators.balanced import ClassImages, class_images, soft_balance
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.paper_tables import table_of
from pfdet.report.comparison_text import signed
from study.expert_ensembles import FULL, LONGER
from study.tables import table

_CS2 = 'cs-table2-{}-{}'
# Trained and tested with, and the row.
_BASE = _CS2.format('softmax', 'softmax')
_COMPARED = (
    ('softmax', 'concurrent', _CS2.format('softmax', 'concurrent')),
    ('concurrent', 'softmax', _CS2.format('concurrent', 'softmax')),
    ('concurrent', 'concurrent', _CS2.format('concurrent', 'concurrent')),
    ('binary cross entropy', 'sigmoid', 'cs-table1-bce'),
)


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
    table3 = table_of('table3-baseline')
    published = {
        measure.name: values
        for measure, *values in zip(
            table3.measures,
            table3.row('table3-baseline').values,
            table3.row('table3-cooccurrence').values,
            strict=True,
        )
    }
    lines = []
    for mid in sorted(set(parts) & without[seeds[0]].keys(), key=classes.id_of):
        name = classes.names[classes.id_of(mid)]
        pairs = [(without[seed][mid], with_loss[seed][mid]) for seed in seeds]
        paper = published.get(name)
        lines.append(
            (
                name,
                *(f'{statistics.fmean(x):.1f}' for x in zip(*pairs, strict=True)),
                *_differences(b - a for a, b in pairs),
                f'{signed(paper[1] - paper[0])} ({paper[0]} to {paper[1]})' if paper else '',
            )
        )
    return table(('class', 'without', 'with', 'difference', 'seeds', 'PFDet, Table 3'), lines)


def relatives_table(runs: Iterable[Run], classes: Classes, hierarchy: Hierarchy) -> str | None:
    """What other losses do to classes by their place in the hierarchy, against softmax.

    Args:
        runs (iterable of Run): Among them those of the second paper's Table 2.
        classes (Classes): :math:`C` classes.
        hierarchy (Hierarchy): Over them.

    Returns:
        str: A table of differences to softmax in training and testing, of the seeds that both
        have; :obj:`None` without any.
    """
    aps = _aps(runs)
    has_parent = hierarchy.ancestors.any(axis=1)
    groups = {
        'classes with children': ~hierarchy.is_leaf,
        'leaves with a parent': hierarchy.is_leaf & has_parent,
        'classes without relatives': hierarchy.is_leaf & ~has_parent,
    }
    lines = []
    for train, test, row in _COMPARED:
        seeds = sorted(aps[row].keys() & aps[_BASE].keys())
        for name, mask in groups.items():
            members = {classes.mids[c] for c in np.flatnonzero(mask)}
            gained = [
                [aps[row][seed][mid] - ap for mid, ap in aps[_BASE][seed].items() if mid in members]
                for seed in seeds
            ]
            if any(gained):
                lines.append((train, test, name, *_differences(map(statistics.fmean, gained))))
    if not lines:
        return None
    return table(('training', 'testing', 'mean AP of', 'difference', 'seeds'), lines)


def views_table(index: AnnotationIndex, groups: Mapping[str, Iterable[str]]) -> str:
    """How many classes of a group the images of an epoch show, by how images are sampled.

    Args:
        index (AnnotationIndex): The training set.
        groups (mapping): Machine ids of classes by the group's name.

    Returns:
        str: A table. Balanced sampling gives more images of rare classes; it gives fewer of
        frequent ones only where images of rare classes do not show frequent classes as well.
    """
    shown = class_images(index, expand=True)
    lists = np.split(shown.images, shown.offsets[1:-1])
    drawn = {
        'every image once': np.full(len(index), 1 / len(index)),
        'class-aware': _probability(class_images(index), 1.0),
        'soft-balance at 0.7': _probability(class_images(index), 0.7),
    }
    lines = []
    for name, mids in groups.items():
        ids = [index.classes.id_of(mid) for mid in mids]
        lines.append(
            (name, *(f'{sum(p[lists[c]].sum() for c in ids):.2f}' for p in drawn.values()))
        )
    return table(('classes in an image', *drawn), lines)


def experts_table(runs: Iterable[Run], groups: Mapping[str, Iterable[str]]) -> str | None:
    """PFDet's Table 4 for groups of classes, with the full model trained as much longer.

    Args:
        runs (iterable of Run): Among them those of the full model and its experts.
        groups (mapping): Machine ids of classes by the group's name.

    Returns:
        str: A table of mean AP, of the seeds that the full model has too, and in brackets the
        difference to it; :obj:`None` without experts.
    """
    aps = _aps(runs)
    lines = []
    for text, row in (
        ('the full model', FULL),
        ('trained as much longer', LONGER),
        ('experts of 40 classes', 'table4-class40'),
        ('experts of 20 classes', 'table4-class20'),
        ('experts of 10 classes', 'table4-class10'),
    ):
        seeds = sorted(aps[row].keys() & aps[FULL].keys())
        if not seeds:
            continue
        cells = []
        for mids in groups.values():
            mean, full = (
                statistics.fmean(
                    statistics.fmean(aps[name][seed][mid] for mid in mids if mid in aps[FULL][seed])
                    for seed in seeds
                )
                for name in (row, FULL)
            )
            cells.append(f'{mean:.1f}' if row == FULL else f'{mean:.1f} ({signed(mean - full)})')
        lines.append((text, *cells, f'{len(seeds)}'))
    return table(('model', *groups, 'seeds'), lines) if len(lines) > 1 else None


def _probability(images: ClassImages, lam: float) -> np.ndarray:
    """Of an image to be the next: its class is drawn, then one of the class's images."""
    of_class = soft_balance(images.count, lam)
    lists = np.split(images.images, images.offsets[1:-1])
    found = np.zeros(images.n_image)
    for p, ids in zip(of_class, lists, strict=True):
        if len(ids):
            found[ids] += p / len(ids)
    return found


def _aps(runs: Iterable[Run]) -> Mapping[str, dict[int, dict[str, float]]]:
    """AP in % by the row's name, its seed, and the class where it has ground truth."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        found[run.name][run.facts.get('seed', 0)] = {
            mid: 100 * ap for mid, ap in run.score['AP'].items() if ap is not None
        }
    return found


def _differences(values: Iterable[float]) -> tuple[str, str]:
    """Their mean, and each."""
    values = list(values)
    return signed(statistics.fmean(values)), ', '.join(map(signed, values))
