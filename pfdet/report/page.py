"""Parts that the HTML pages share: from scores, examples and errors to what templates show."""

import datetime
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from pfdet.atomic_write import replace_when_done
from pfdet.report.error_analysis import REASONS
from pfdet.report.examples import ClassSample
from pfdet.report.images import Example, boxes_to_draw, photograph
from pfdet.report.plots import precision_recall_curves


def write_page(path: str | os.PathLike, template: str, **context: Any) -> None:
    """Render a template of this package to one self-contained HTML file.

    Args:
        path (path): Where the page goes.
        template (str): Name of the template.
        context: What it shows; ``time`` is added.
    """
    directory = importlib.resources.files('pfdet.report')
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (directory / name).read_text(encoding='utf-8')),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    time = datetime.datetime.now().astimezone().strftime('%d %B %Y, %H:%M %Z')
    page = environment.get_template(template).render(time=time, **context)
    with replace_when_done(path) as unfinished:
        unfinished.write_text(page, encoding='utf-8')


def svg(text: str | None) -> Markup | None:
    """A figure of this package as markup, which its names are escaped in already."""
    return None if text is None else Markup(text)


def shown(value: Any) -> str:
    """A value of a recipe or a fact as a reader wants it."""
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f'{value:,.0f}'
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(shown, value))
    return '–' if value in ('', None) else str(value)


def shown_classes(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes that have an AP, the highest first."""
    names, counts = score.get('name', {}), score.get('n_ground_truth', {})
    parents = set(score.get('parents', ()))
    classes = [
        {
            'mid': mid,
            'name': names.get(mid, mid),
            'ap': ap,
            'n': counts.get(mid, 0),
            'is_parent': mid in parents,
        }
        for mid, ap in score.get('AP', {}).items()
        if ap is not None
    ]
    return sorted(classes, key=lambda c: (-c['ap'], c['name']))


def shown_curves(score: Mapping[str, Any], n: int) -> Markup | None:
    """Precision and recall of the ``n`` classes with the most ground truth."""
    precision = score.get('precision', {})
    most = sorted(shown_classes(score), key=lambda c: -c['n'])[:n]
    return svg(
        precision_recall_curves(
            {c['mid']: precision[c['mid']] for c in most if c['mid'] in precision},
            {c['mid']: f'{c["name"]}  {c["ap"]:.2f}' for c in most},
        )
    )


def shown_examples(examples: Sequence[Example], score_thresh: float) -> list[dict[str, Any]]:
    """Photographs with what is annotated and what was detected."""
    names = sorted({name for e in examples for name in (*e.gt_name, *e.name)})
    # Steps of the golden angle keep the hues of any number of classes apart.
    hues = {name: round(k * 137.508 + 210) % 360 for k, name in enumerate(names)}
    result = []
    for e in examples:
        url, width, height = photograph(e.img)
        right = ([*e.gt_bbox, *e.expanded[0]], [*e.gt_name, *e.expanded[1]])
        result.append(
            {
                'id': e.image_id,
                'url': url,
                'width': width,
                'height': height,
                'panes': [
                    ('annotated', boxes_to_draw(e.gt_bbox, e.gt_name, hues)),
                    ('detected', boxes_to_draw(e.bbox, e.name, hues, e.score, score_thresh, right)),
                ],
            }
        )
    return result


def shown_errors(
    samples: Sequence[ClassSample], score: Mapping[str, Any], n_open: int = 3
) -> dict[str, Any] | None:
    """The errors of all classes: shares of reasons, and each class with its curve and crops."""
    if not samples:
        return None
    precision = score.get('precision', {})
    total = {reason: sum(s.reasons[reason] for s in samples) for reason in REASONS}
    most = max(max(sum(s.reasons.values()) for s in samples), 1)
    # Those that show most are open from the beginning.
    both = [s.mid for s in samples if s.wrong and s.missed and any(s.reasons.values())]
    return {
        'opened': both[:n_open],
        'reasons': list(REASONS),
        'total': total,
        'most': most,
        'classes': [
            {
                'sample': s,
                'n_wrong': sum(s.reasons.values()),
                'curve': _small_curve(precision.get(s.mid)),
            }
            for s in samples
        ],
    }


def _small_curve(precision: Sequence[float] | None) -> str | None:
    # The points of a line in a box of 100 by 100, as far as the class's recall goes.
    if not precision:
        return None
    last = max((k for k, p in enumerate(precision) if p > 0), default=0)
    if last == 0:
        return None
    step = 100 / (len(precision) - 1)
    points = [(k * step, 100 - 100 * p) for k, p in enumerate(precision[: last + 1])]
    # Points on a level stretch add nothing.
    kept = [
        p
        for k, p in enumerate(points)
        if k in (0, last) or not points[k - 1][1] == p[1] == points[k + 1][1]
    ]
    return ' '.join(f'{x:.0f},{y:.1f}' for x, y in kept)
