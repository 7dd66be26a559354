"""Report of one training run as an HTML page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pfdet.recipes.initial_weights import described_start, deviation_sentence
from pfdet.report.examples import ErrorExamples
from pfdet.report.images import Example
from pfdet.report.page import (
    class_context,
    curve_context,
    error_context,
    example_context,
    format_value,
    svg,
    write_page,
)
from pfdet.report.plots import ap_against_frequency, loss_curves, lr_curve, map_curve
from pfdet.report.table1_steps import table1_steps

__all__ = ['Example', 'write_report']


def write_report(
    path: str | os.PathLike,
    title: str,
    recipe: Mapping[str, Any],
    log: Sequence[Mapping[str, Any]],
    score: Mapping[str, Any],
    examples: Sequence[Example] = (),
    *,
    errors: Sequence[ErrorExamples] = (),
    frequency: Mapping[str, int] | None = None,
    run: Mapping[str, Any] | None = None,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    command: str | None = None,
    score_thresh: float = 0.3,
    n_curve: int = 8,
) -> None:
    """Write the report of a run to a self-contained HTML file.

    The page shows the mAP, key figures of the run, images with ground truth and detections,
    training curves, the AP of each class, AP against class frequency, precision-recall curves, the
    errors of each class, and the steps of PFDet's Table 1 that the recipe enables. Sections without
    data are omitted. The page loads nothing from the network and follows the reader's light or dark
    mode.

    Args:
        path (path): The file to write.
        title (str): Heading of the page.
        recipe (dict): The recipe, shown as a table. Nested dicts become dotted names.
        log (sequence of dicts): Entries of Chainer's ``LogReport`` with ``'iteration'``, ``'lr'``,
            ``'main/loss'`` and other losses, and in some entries ``'validation/.../map'``.
        score (dict): Content of ``score.json``, see
            :func:`~pfdet.evaluation.average_precision.score_dict`. Only ``'AP'`` and ``'mAP'`` are
            required.
        examples (sequence of Example): Images to show, see
            :func:`pfdet.report.examples.example_images`.
        errors (sequence of ErrorExamples): Errors by class, see
            :func:`pfdet.report.examples.error_examples`.
        frequency (dict): From MID to number of training images with the class. If omitted, the
            number of validation boxes is used instead.
        run (dict): ``"run"`` of the run's ``recipe.json``. The page names the weights that the run
            started from, and says so if its recipe starts from others.
        facts (dict): More key figures, from name to value, such as ``{'Training images': 400,
            'Wall time': '8 min'}``.
        notes (sequence of str): Paragraphs below the key figures, plain text.
        command (str): The command that started the run.
        score_thresh (float): Detections in ``examples`` with a lower score are not drawn. Must be
            the threshold that ``errors`` were computed with.
        n_curve (int): Number of classes with a precision-recall curve: those with the most ground
            truth boxes.

    Raises:
        InputError: The file cannot be written.
    """
    classes = class_context(score)
    images = frequency if frequency is not None else score.get('n_ground_truth', {})
    unit = 'training images' if frequency is not None else 'validation boxes'
    start = described_start(run or {})
    deviation = deviation_sentence(recipe, run or {})
    write_page(
        path,
        'run_page.html.jinja',
        title=title,
        map=score.get('mAP'),
        facts=_facts(score, {**({'Started from': start} if start else {}), **(facts or {})}),
        notes=[*([deviation] if deviation else []), *notes],
        command=command,
        recipe=_flat(recipe),
        losses=svg(loss_curves(log)),
        lr=svg(lr_curve(log)),
        map_curve=svg(map_curve(log)),
        curves=curve_context(score, n_curve),
        frequency=svg(
            ap_against_frequency(
                {mid: int(n) for mid, n in images.items() if n > 0},
                {'AP': score.get('AP', {})},
                score.get('name', {}),
                'frequency',
                unit,
            )
        ),
        frequency_unit=unit,
        classes=classes,
        has_parents=any(c['is_parent'] for c in classes),
        examples=example_context(examples, score_thresh),
        errors=error_context(errors, score),
        steps=table1_steps(recipe),
        is_mini=recipe.get('size') == 'mini',
        score_thresh=score_thresh,
    )


def _facts(score: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, str]:
    facts = {}
    if 'n_image' in score:
        facts['Validation images'] = score['n_image']
    if 'n_ground_truth' in score:
        facts['Boxes, including ancestors'] = sum(score['n_ground_truth'].values())
    facts['Classes scored'] = sum(ap is not None for ap in score.get('AP', {}).values())
    facts.update(more)
    return {name: format_value(value) for name, value in facts.items()}


def _flat(recipe: Mapping[str, Any], prefix: str = '') -> dict[str, str]:
    flat = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f'{prefix}{name}.'))
        else:
            flat[prefix + str(name)] = format_value(value)
    return flat
