"""A training run as one HTML page to look at."""

import datetime
import importlib.resources
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
from markupsafe import Markup

from pfdet.evaluation.figures import (
    Example,
    boxes_to_draw,
    loss_curves,
    lr_curve,
    map_curve,
    photograph,
    precision_recall_curves,
)
from pfdet.files import replace_when_done

__all__ = ['Example', 'write_report']


def write_report(
        path: str | os.PathLike, title: str, recipe: Mapping[str, Any],
        log: Sequence[Mapping[str, Any]], score: Mapping[str, Any],
        examples: Sequence[Example] = (), *, facts: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (), command: str | None = None, score_thresh: float = .3,
        n_curve: int = 8) -> None:
    """Write a run's report as one self-contained HTML file.

    The page has the mAP in large, facts beside it, the curves of training, the AP of every
    class, some precision-recall curves, and images with detections beside ground truth. It
    asks nothing of the network and follows the reader's light or dark setting. Parts without
    data are left out.

    Args:
        path (path): Where the page goes.
        title (str): Its heading.
        recipe (dict): What was trained, shown as a table; nested dicts become dotted names.
        log (sequence of dicts): Entries of Chainer's ``LogReport``: ``'iteration'``, ``'lr'``,
            ``'main/loss'`` and more losses, at some entries ``'validation/.../map'``.
        score (dict): What ``score.json`` holds, see
            :func:`~pfdet.evaluation.average_precision.score_dict`; ``'AP'`` and ``'mAP'`` are
            enough.
        examples (sequence of Example): Images to show.
        facts (dict): More figures for the head of the page, from name to value, such as
            ``{'Training images': 400, 'Wall time': '8 min'}``.
        notes (sequence of str): Paragraphs under the head, plain text.
        command (str): The command that made the run.
        score_thresh (float): Detections in ``examples`` below this score are not drawn.
        n_curve (int): For how many classes to draw precision and recall: those with the most
            ground truth.
    """
    source = importlib.resources.files('pfdet.evaluation').joinpath('report.html.jinja')
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(source.read_text(encoding='utf-8'))
    classes = _classes(score)
    most = sorted(classes, key=lambda c: -c['n'])[:n_curve]
    precision = score.get('precision', {})
    page = template.render(
        title=title,
        map=score.get('mAP'),
        facts=_facts(score, facts or {}),
        notes=notes,
        command=command,
        recipe=_flat(recipe),
        time=datetime.datetime.now().astimezone().strftime('%d %B %Y, %H:%M %Z'),
        losses=_svg(loss_curves(log)),
        lr=_svg(lr_curve(log)),
        map_curve=_svg(map_curve(log)),
        curves=_svg(precision_recall_curves(
            {c['mid']: precision[c['mid']] for c in most if c['mid'] in precision},
            {c['mid']: f'{c["name"]}  {c["ap"]:.2f}' for c in most})),
        classes=classes,
        has_parents=any(c['is_parent'] for c in classes),
        examples=_examples(examples, score_thresh),
        score_thresh=score_thresh)
    with replace_when_done(path) as unfinished:
        unfinished.write_text(page, encoding='utf-8')


def _svg(svg: str | None) -> Markup | None:
    # Made by figures.py, which escapes the names in it.
    return None if svg is None else Markup(svg)


def _classes(score: Mapping[str, Any]) -> list[dict[str, Any]]:
    names, counts = score.get('name', {}), score.get('n_ground_truth', {})
    parents = set(score.get('parents', ()))
    classes = [
        {'mid': mid, 'name': names.get(mid, mid), 'ap': ap, 'n': counts.get(mid, 0),
         'is_parent': mid in parents}
        for mid, ap in score.get('AP', {}).items() if ap is not None]
    return sorted(classes, key=lambda c: (-c['ap'], c['name']))


def _facts(score: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    if 'n_image' in score:
        facts['Validation images'] = score['n_image']
    if 'n_ground_truth' in score:
        facts['Boxes, with ancestors'] = sum(score['n_ground_truth'].values())
    facts['Classes scored'] = sum(ap is not None for ap in score.get('AP', {}).values())
    facts.update(more)
    return {name: _shown(value) for name, value in facts.items()}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    if isinstance(value, int) or (isinstance(value, float) and value.is_integer()):
        return f'{value:,.0f}'
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_shown, value))
    return str(value)


def _flat(recipe: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    flat = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{name}.'))
        else:
            flat[prefix + str(name)] = _shown(value)
    return flat


def _examples(examples: Sequence[Example], score_thresh: float) -> list[dict[str, Any]]:
    names = sorted({name for e in examples for name in (*e.gt_name, *e.name)})
    # Steps of the golden angle keep the hues of any number of classes apart.
    hues = {name: round(k * 137.508 + 210) % 360 for k, name in enumerate(names)}
    shown = []
    for e in examples:
        url, width, height = photograph(e.img)
        shown.append({
            'id': e.image_id, 'url': url, 'width': width, 'height': height,
            'panes': [
                ('annotated', boxes_to_draw(e.gt_bbox, e.gt_name, hues)),
                ('detected', boxes_to_draw(
                    e.bbox, e.name, hues, e.score, score_thresh, (e.gt_bbox, e.gt_name)))]})
    return shown
