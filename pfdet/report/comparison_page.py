"""Comparison of runs with the papers' tables as an HTML page."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pfdet.evaluation.run_directory import Run
from pfdet.recipes.initial_weights import described_start, deviation_sentence
from pfdet.report.comparison import ComparedRow, ComparedTable
from pfdet.report.comparison_plots import difference_chart, frequency_figures, training_curves
from pfdet.report.comparison_text import (
    COLUMNS_NOTE,
    grid,
    notes,
    omitted,
    others_grid,
    title,
)
from pfdet.report.examples import ErrorExamples
from pfdet.report.images import Example
from pfdet.report.page import (
    class_context,
    curve_context,
    error_context,
    example_context,
    svg,
    write_page,
)
from pfdet.report.plots import ap_against_frequency


def write_comparison(
    path: str | os.PathLike,
    compared: Sequence[ComparedTable],
    others: Sequence[ComparedRow],
    shown: Run,
    *,
    examples: Sequence[Example] = (),
    errors: Sequence[ErrorExamples] = (),
    frequency: Mapping[str, int] | None = None,
    unfinished: Sequence[os.PathLike] = (),
    score_thresh: float = 0.3,
    n_curve: int = 8,
) -> None:
    """Write a page with the tables of the papers that have runs, and details of one run.

    Tables without any run are named, but not shown.

    Args:
        path (path): The file to write.
        compared (sequence of ComparedTable): Tables of :func:`~pfdet.report.comparison.compare`.
        others (sequence of ComparedRow): Rows of :func:`~pfdet.report.comparison.other_runs`.
        shown (Run): The run to show in detail.
        examples (sequence of Example): Images with its detections.
        errors (sequence of ErrorExamples): Its errors by class.
        frequency (mapping): From MID to number of training images with the class. If omitted, the
            number of validation boxes is used instead.
        unfinished (sequence of paths): Directories of runs without a score, to be listed.
        score_thresh (float): Detections in ``examples`` with a lower score are not drawn. Must be
            the threshold that ``errors`` were computed with.
        n_curve (int): Number of classes with a precision-recall curve: those with the most ground
            truth boxes.

    Raises:
        InputError: The file cannot be written.
    """
    runs = [run for table in compared for row in table.rows for run in row.runs]
    runs += [run for row in others for run in row.runs]
    images = frequency if frequency is not None else shown.score.get('n_ground_truth', {})
    images = {mid: int(n) for mid, n in images.items() if n > 0}
    unit = 'training images' if frequency is not None else 'validation boxes'
    figures = frequency_figures(runs, images, unit)
    if not figures:
        figure = ap_against_frequency(
            images, {shown.name: shown.score['AP']}, shown.score.get('name', {}), 'frequency', unit
        )
        figures = [(f'{shown.path}.', figure)] if figure else []
    classes = class_context(shown.score)
    write_page(
        path,
        'comparison.html.jinja',
        title='Comparison with the papers',
        columns_note=COLUMNS_NOTE,
        notes=notes(compared, others),
        n_run=len(runs),
        tables=[_table(table) for table in compared if table.n_run],
        omitted=omitted(compared),
        others=others_grid(others) if others else None,
        unfinished=[str(path) for path in unfinished],
        frequency=[(caption, svg(figure)) for caption, figure in figures],
        frequency_unit=unit,
        shown=shown,
        shown_seed=shown.seed,
        shown_start=described_start(shown.facts),
        shown_deviation=deviation_sentence(shown.recipe, shown.facts),
        curves=curve_context(shown.score, n_curve),
        classes=classes,
        has_parents=any(c['is_parent'] for c in classes),
        examples=example_context(examples, score_thresh),
        errors=error_context(errors, shown.score),
        score_thresh=score_thresh,
    )


def _table(compared: ComparedTable) -> dict[str, Any]:
    table_grid = grid(compared)
    agreement = [sign for sign in table_grid.agreement if sign]
    return {
        'id': f'{compared.table.key}-{compared.scale}'.strip('-'),
        'title': title(compared),
        'table': compared.table,
        'n_run': compared.n_run,
        'n_recipe': compared.n_recipe,
        'grid': table_grid,
        'chart': svg(difference_chart(compared)),
        'curves': svg(training_curves(compared)),
        'n_difference': len(agreement),
        'n_same': agreement.count('as in the paper'),
        'n_opposite': agreement.count('opposite'),
    }
