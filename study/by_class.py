"""Markdown tables of AP by class or by group of classes."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping

import numpy as np

from pfdet.evaluation.run_directory import Run
from pfdet.iterators.balanced import soft_balance
from pfdet.iterators.class_images import ClassImages, class_images
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.paper_tables import table_of
from pfdet.report.comparison_text import signed
from study.expert_ensembles import CLASS20, FULL, LONGER
from study.tables import table

_BASE = 'cs-table2-softmax-softmax'
# Loss in training, score in testing, and the row.
_COMPARED = (
    ('softmax', 'concurrent', 'cs-table2-softmax-concurrent'),
    ('concurrent', 'softmax', 'cs-table2-concurrent-softmax'),
    ('concurrent', 'concurrent', 'cs-table2-concurrent-concurrent'),
    ('binary cross entropy', 'sigmoid', 'cs-table1-bce'),
)


def parts_table(runs: Iterable[Run], classes: Classes, parts: Iterable[str]) -> str | None:
    """Table of each part class without and with co-occurrence loss (PFDet, Table 3).

    Args:
        runs (iterable of Run): Only ``mini`` and ``mini-without-cooccurrence`` are used.
        classes (Classes): For names.
        parts (iterable of str): Machine ids.

    Returns:
        str: The table; :obj:`None` if no seed has both runs.
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
                *_mean_and_each(b - a for a, b in pairs),
                f'{signed(paper[1] - paper[0])} ({paper[0]} to {paper[1]})' if paper else '',
            )
        )
    return table(('class', 'without', 'with', 'difference', 'seeds', 'PFDet, Table 3'), lines)


def relatives_table(runs: Iterable[Run], classes: Classes, hierarchy: Hierarchy) -> str | None:
    """Table of other losses against softmax, by the place of classes in the hierarchy.

    Args:
        runs (iterable of Run): Those of Table 2 of Peng et al. (2020) and of BCE are used.
        classes (Classes): :math:`C` classes.
        hierarchy (Hierarchy): Over these classes.

    Returns:
        str: Differences to softmax in training and testing, for the seeds that both runs have;
        :obj:`None` if there are none.
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
            differences = [
                [aps[row][seed][mid] - ap for mid, ap in aps[_BASE][seed].items() if mid in members]
                for seed in seeds
            ]
            if any(differences):
                means = map(statistics.fmean, differences)
                lines.append((train, test, name, *_mean_and_each(means)))
    if not lines:
        return None
    return table(('training', 'testing', 'mean AP of', 'difference', 'seeds'), lines)


def views_table(index: AnnotationIndex, groups: Mapping[str, Iterable[str]]) -> str:
    """Table of the mean number of a group's classes in a training image, by sampling method.

    Balanced sampling draws more images of rare classes. It draws fewer of frequent classes only if
    images of rare classes do not show frequent ones as well.

    Args:
        index (AnnotationIndex): The training set.
        groups (mapping): Machine ids of classes by the group's name.
    """
    with_class = class_images(index, expand=True)
    lists = np.split(with_class.images, with_class.offsets[1:-1])
    probabilities = {
        'every image once': np.full(len(index), 1 / len(index)),
        'class-aware': _probability(class_images(index), 1.0),
        'soft-balance at 0.7': _probability(class_images(index), 0.7),
    }
    lines = []
    for name, mids in groups.items():
        ids = [index.classes.id_of(mid) for mid in mids]
        lines.append(
            (name, *(f'{sum(p[lists[c]].sum() for c in ids):.2f}' for p in probabilities.values()))
        )
    return table(('classes in an image', *probabilities), lines)


def experts_table(runs: Iterable[Run], groups: Mapping[str, Iterable[str]]) -> str | None:
    """Table of experts and of the full model by groups of classes (PFDet, Table 4).

    Args:
        runs (iterable of Run): Only those of the full model and its experts are used.
        groups (mapping): Machine ids of classes by the group's name.

    Returns:
        str: Mean AP over the seeds that the full model has too, and in brackets the difference to
        it; :obj:`None` if there are no experts.
    """
    aps = _aps(runs)
    lines = []
    for text, row in (
        ('the full model', FULL),
        ('the full model, fine-tuned as long', LONGER.name),
        ('experts of 40 classes', 'table4-class40'),
        ('experts of 20 classes', CLASS20.name),
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
    """Probability of each image, if first a class is drawn and then one of its images."""
    class_probability = soft_balance(images.count, lam)
    lists = np.split(images.images, images.offsets[1:-1])
    probability = np.zeros(images.n_image)
    for p, ids in zip(class_probability, lists, strict=True):
        if len(ids):
            probability[ids] += p / len(ids)
    return probability


def _aps(runs: Iterable[Run]) -> Mapping[str, dict[int, dict[str, float]]]:
    """AP in % by row, seed and class, for classes with ground truth."""
    aps: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for run in runs:
        aps[run.name][run.facts.get('seed', 0)] = {
            mid: 100 * ap for mid, ap in run.score['AP'].items() if ap is not None
        }
    return aps


def _mean_and_each(values: Iterable[float]) -> tuple[str, str]:
    """The mean and the single values as text."""
    values = list(values)
    return signed(statistics.fmean(values)), ', '.join(map(signed, values))
