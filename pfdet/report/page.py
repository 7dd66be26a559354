"""Rendering of HTML pages, and the template context for scores, examples and errors."""

import datetime
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from pfdet.atomic_write import replace_when_done
from pfdet.printable import printable
from pfdet.report.error_analysis import REASONS
from pfdet.report.examples import ErrorExamples
from pfdet.report.images import Example, boxes_to_draw, encode_image
from pfdet.report.plots import precision_recall_curves


def write_page(path: str | os.PathLike, template: str, **context: Any) -> None:
    """Render a template of this package to a self-contained HTML file.

    Args:
        path (path): The file to write.
        template (str): Name of the template.
        context: Variables of the template; ``time`` is added.

    Raises:
        InputError: The file cannot be written.
    """
    directory = importlib.resources.files('pfdet.report')
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: (directory / name).read_text(encoding='utf-8')),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=_without_control_characters,
    )
    time = datetime.datetime.now().astimezone().strftime('%d %B %Y, %H:%M %Z')
    page = environment.get_template(template).render(time=time, **context)
    with replace_when_done(path) as unfinished:
        unfinished.write_text(page, encoding='utf-8')


def _without_control_characters(value: Any) -> Any:
    # Names of classes and images may contain marks that turn the direction of the text after them.
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return '\n'.join(map(printable, value.split('\n')))


def svg(text: str | None) -> Markup | None:
    """Mark the SVG of a plot as safe markup. Names in it are already escaped.

    Args:
        text (str): SVG of this package, or :obj:`None`.

    Returns:
        markupsafe.Markup: The same text, or :obj:`None`.
    """
    return None if text is None else Markup(text)


def format_value(value: Any) -> str:
    """Format a value of a recipe or of a run for display.

    Args:
        value: A bool, number, string, list, tuple or :obj:`None`.

    Returns:
        str: Such as ``'yes'``, ``'1,000'`` or ``'0.0123'``; ``'–'`` if empty.
    """
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f'{value:,.0f}'
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(format_value, value))
    return '–' if value in ('', None) else str(value)


def class_context(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Template context of the AP by class.

    Args:
        score (mapping): Content of ``score.json``.

    Returns:
        list of dict: The classes that have an AP, highest AP first.
    """
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


def curve_context(score: Mapping[str, Any], n: int) -> Markup | None:
    """Plot precision and recall of the ``n`` classes with the most ground truth boxes.

    Args:
        score (mapping): Content of ``score.json``.
        n (int): Number of classes.

    Returns:
        markupsafe.Markup: SVG, or :obj:`None` if the score has no curves.
    """
    precision = score.get('precision', {})
    most_frequent = sorted(class_context(score), key=lambda c: -c['n'])[:n]
    return svg(
        precision_recall_curves(
            {c['mid']: precision[c['mid']] for c in most_frequent if c['mid'] in precision},
            {c['mid']: f'{c["name"]}  {c["ap"]:.2f}' for c in most_frequent},
        )
    )


def example_context(examples: Sequence[Example], score_thresh: float) -> list[dict[str, Any]]:
    """Template context of images with ground truth and detections.

    Args:
        examples (sequence of Example): The images.
        score_thresh (float): Detections with a lower score are not drawn.

    Returns:
        list of dict: One per image.
    """
    names = sorted({name for e in examples for name in (*e.gt_name, *e.name)})
    # Multiples of the golden angle give distinct hues for any number of classes.
    hues = {name: round(k * 137.508 + 210) % 360 for k, name in enumerate(names)}
    result = []
    for e in examples:
        url, width, height = encode_image(e.img)
        annotated = ([*e.gt_bbox, *e.expanded[0]], [*e.gt_name, *e.expanded[1]])
        detected = boxes_to_draw(e.bbox, e.name, hues, e.score, score_thresh, annotated)
        result.append(
            {
                'id': e.image_id,
                'url': url,
                'width': width,
                'height': height,
                'panes': [
                    ('annotated', boxes_to_draw(e.gt_bbox, e.gt_name, hues)),
                    ('detected', detected),
                ],
            }
        )
    return result


def error_context(
    classes: Sequence[ErrorExamples], score: Mapping[str, Any], n_open: int = 3
) -> dict[str, Any] | None:
    """Template context of the error analysis.

    Args:
        classes (sequence of ErrorExamples): The errors of each class.
        score (mapping): Content of ``score.json``.
        n_open (int): Number of classes whose details are open when the page is loaded.

    Returns:
        dict: Totals by kind of error, and the errors, curve and crops of each class; :obj:`None`
        without classes.
    """
    if not classes:
        return None
    precision = score.get('precision', {})
    total = {reason: sum(c.reasons[reason] for c in classes) for reason in REASONS}
    largest = max(max(sum(c.reasons.values()) for c in classes), 1)
    # Open the classes with all kinds of content.
    complete = [
        c.mid for c in classes if c.false_positives and c.missed and any(c.reasons.values())
    ]
    return {
        'opened': complete[:n_open],
        'reasons': list(REASONS),
        'total': total,
        'largest': largest,
        'classes': [
            {
                'examples': c,
                'n_false_positive': sum(c.reasons.values()),
                'curve': _polyline(precision.get(c.mid)),
            }
            for c in classes
        ],
    }


def _polyline(precision: Sequence[float] | None) -> str | None:
    # Points of an SVG polyline in a box of 100 x 100, up to the largest recall of the class.
    if not precision:
        return None
    last = max((k for k, p in enumerate(precision) if p > 0), default=0)
    if last == 0:
        return None
    step = 100 / (len(precision) - 1)
    points = [(k * step, 100 - 100 * p) for k, p in enumerate(precision[: last + 1])]
    # Drop points inside horizontal segments.
    kept = [
        p
        for k, p in enumerate(points)
        if k in (0, last) or not points[k - 1][1] == p[1] == points[k + 1][1]
    ]
    return ' '.join(f'{x:.0f},{y:.1f}' for x, y in kept)
