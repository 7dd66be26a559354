"""A training run as one HTML page to look at."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pfdet.report.examples import ClassSample
from pfdet.report.images import Example
from pfdet.report.page import (
    shown,
    shown_classes,
    shown_curves,
    shown_errors,
    shown_examples,
    svg,
    write_page,
)
from pfdet.report.plots import ap_against_frequency, loss_curves, lr_curve, map_curve
from pfdet.report.table1_steps import steps_of_table1

__all__ = ['Example', 'write_report']


def write_report(
    path: str | os.PathLike,
    title: str,
    recipe: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    score: Mapping[str, Any],
    examples: Sequence[Example] = (),
    *,
    errors: Sequence[ClassSample] = (),
    frequency: Mapping[str, int] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    score_thresh: float = 0.3,
    n_curve: int = 8,
) -> None:
    """Write a run's report as one self-contained HTML file.

    The page has the mAP in large, facts beside it, images with detections beside ground truth, the
    curves of training, the AP of every class, also against its frequency, some precision-recall
    curves, the errors of every class, and the steps of PFDet's Table 1 that the recipe has. It
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
        examples (sequence of Example): Images to show, see
            :func:`pfdet.report.examples.examples`.
        errors (sequence of ClassSample): Of :func:`pfdet.report.examples.class_samples`.
        frequency (dict): From machine id to training images with the class. Without, classes are
            set against their validation boxes.
        facts (dict): More figures for the head of the page, from name to value, such as
            ``{'Training images': 400, 'Wall time': '8 min'}``.
        notes (sequence of str): Paragraphs under the head, plain text.
        command (str): The command that made the run.
        score_thresh (float): Detections in ``examples`` below this score are not drawn; that of
            ``errors``.
        n_curve (int): For how many classes to draw precision and recall: those with the most
            ground truth.
    """
    classes = shown_classes(score)
    counted = frequency if frequency is not None else score.get('n_ground_truth', {})
    unit = 'training images' if frequency is not None else 'validation boxes'
    write_page(
        path,
        'run_page.html.jinja',
        title=title,
        map=score.get('mAP'),
        facts=_facts(score, facts or {}),
        notes=notes,
        command=command,
        recipe=_flat(recipe),
        losses=svg(loss_curves(log)),
        lr=svg(lr_curve(log)),
        map_curve=svg(map_curve(log)),
        curves=shown_curves(score, n_curve),
        frequency=svg(
            ap_against_frequency(
                {mid: int(n) for mid, n in counted.items() if n > 0},
                {'AP': score.get('AP', {})},
                score.get('name', {}),
                'frequency',
                unit,
            )
        ),
        frequency_unit=unit,
        classes=classes,
        has_parents=any(c['is_parent'] for c in classes),
        examples=shown_examples(examples, score_thresh),
        errors=shown_errors(errors, score),
        steps=steps_of_table1(recipe),
        is_mini=recipe.get('size') == 'mini',
        score_thresh=score_thresh,
    )


def _facts(score: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    if 'n_image' in score:
        facts['Validation images'] = score['n_image']
    if 'n_ground_truth' in score:
        facts['Boxes, with ancestors'] = sum(score['n_ground_truth'].values())
    facts['Classes scored'] = sum(ap is not None for ap in score.get('AP', {}).values())
    facts.update(more)
    return {name: shown(value) for name, value in facts.items()}


def _flat(recipe: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    flat = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{name}.'))
        else:
            flat[prefix + str(name)] = shown(value)
    return flat
