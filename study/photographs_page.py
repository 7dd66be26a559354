"""``docs/photographs.md``: what the papers' methods do on a set of photographs."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pfdet.atomic_write import replace_when_done
from pfdet.openimages.classes import challenge_classes
from pfdet.report.comparison_text import signed
from study.claims import mean_over
from study.results import read_results
from study.tables import table

# What a run starts from: random weights, or a backbone trained on drawn scenes.
RANDOM, DRAWN = 'random', 'drawn'
_ALL = 'all classes'
_VEHICLES = 'Ambulance', 'Bus', 'Car', 'Motorcycle', 'Truck'
_PARENTS = 'Vehicle', 'Land vehicle'


@dataclass(frozen=True)
class Effect:
    """A method and the run that it is compared with.

    Attributes:
        text (str): The method.
        row, against (str): Recipes with it and without.
        classes (tuple of str): Names of the classes that it is for.
        named (str): What they are called together.
    """

    text: str
    row: str
    against: str
    classes: tuple[str, ...] = ()
    named: str = ''


EFFECTS = (
    Effect(
        'co-occurrence loss',
        'small',
        'small-without-cooccurrence',
        ('Vehicle registration plate',),
        'Vehicle registration plate',
    ),
    Effect(
        'ancestors are positive',
        'small',
        'small-without-ancestors',
        _PARENTS,
        ' and '.join(_PARENTS),
    ),
    Effect(
        'descendants are ignored', 'small', 'small-with-descendants', _VEHICLES, 'kinds of vehicle'
    ),
    Effect('concurrent softmax against softmax', 'small-concurrent', 'small-softmax'),
    Effect('sigmoid against softmax', 'small', 'small-softmax'),
    Effect('soft-balance sampling', 'small-soft-balance', 'small'),
)


def write_page(results: Path, page: Path, notes: Path) -> None:
    """Write the page from stored results.

    Args:
        results (path): Written by :func:`~study.results.write_results`.
        page (path): A Markdown file.
        notes (path): Markdown that the page begins with.
    """
    runs = read_results(results)[1]
    scores: dict[str, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    starts = []
    for run in runs:
        group, name, _ = Path(run['run']).parts
        if group == 'effects':
            scores[name][run['facts']['seed']] = run['scores']['score']
        else:
            starts.append((group.rpartition('-')[2], run))
    parts = [
        notes.read_text(encoding='utf-8'),
        *_section(
            'Number of photographs',
            'mAP in percent, from random weights and from a backbone that was trained on drawn '
            'scenes.',
            _sets_table(starts),
        ),
        *_section(
            "Effects of the papers' methods",
            'Points of AP with the method minus without it, for each seed.',
            _effects_table(scores),
        ),
        *_section('AP by class', 'In percent, means over seeds.', _class_table(scores)),
    ]
    with replace_when_done(page) as path:
        path.write_text('\n'.join(parts).rstrip() + '\n', encoding='utf-8')


def _section(title: str, caption: str, content: str | None) -> list[str]:
    return [] if content is None else [f'## {title}\n\n{caption}\n', content]


def _effects_table(scores: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str | None:
    lines = []
    for effect in EFFECTS:
        measures: list[tuple[str, Callable]] = [(_ALL, lambda score: score['mAP'])]
        if effect.classes:
            measures.append((effect.named, mean_over(set(_mids(effect.classes)))))
        row, against = scores.get(effect.row, {}), scores.get(effect.against, {})
        for named, measure in measures:
            pairs = [
                (100 * measure(against[seed]), 100 * measure(row[seed]))
                for seed in sorted(row.keys() & against.keys())
            ]
            if pairs:
                before, after = (statistics.fmean(side) for side in zip(*pairs, strict=True))
                lines.append(
                    (
                        effect.text,
                        named,
                        f'{before:.1f}',
                        f'{after:.1f}',
                        signed(after - before),
                        ', '.join(signed(b - a) for a, b in pairs),
                    )
                )
    if not lines:
        return None
    return table(('method', 'classes', 'without', 'with', 'difference', 'seeds'), lines)


def _class_table(scores: Mapping[str, Mapping[int, Mapping[str, Any]]]) -> str | None:
    if not scores:
        return None
    classes = challenge_classes()
    mids = sorted(
        {mid for seeds in scores.values() for score in seeds.values() for mid in score['AP']},
        key=classes.id_of,
    )
    lines = [
        (
            name,
            *(
                f'{100 * statistics.fmean(score["AP"][mid] for score in seeds.values()):.1f}'
                for mid in mids
            ),
        )
        for name, seeds in scores.items()
    ]
    return table(('recipe', *(classes.names[classes.id_of(mid)] for mid in mids)), lines)


def _sets_table(starts: Sequence[tuple[str, Mapping[str, Any]]]) -> str | None:
    lines: dict[tuple[int, int], dict[str, str]] = defaultdict(dict)
    for start, run in starts:
        key = run['facts']['images'], run['recipe']['iterations']
        lines[key][start] = f'{100 * run["scores"]["score"]["mAP"]:.1f}'
    if not lines:
        return None
    return table(
        ('photographs', 'iterations', 'epochs', 'random weights', 'drawn scenes'),
        [
            (
                f'{images}',
                f'{iterations}',
                f'{8 * iterations / images:.0f}',
                found.get(RANDOM, ''),
                found.get(DRAWN, ''),
            )
            for (images, iterations), found in sorted(lines.items())
        ],
    )


def _mids(names: Sequence[str]) -> list[str]:
    classes = challenge_classes()
    return [classes.mids[classes.names.index(name)] for name in names]
