"""How well PFDet's Table 1 fits the images it was trained on: what is slow, and what over-fits."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable

from pfdet import recipes
from pfdet.evaluation.run_directory import Run
from pfdet.recipes.paper_tables import table_of
from pfdet.report.comparison_text import signed
from pfdet.training.table_runs import Rows
from study.tables import table

# A run's score on its training images.
SCORE = 'score-train'
_STEPS = [row.name for row in recipes.TABLES['table1'].rows]


def score_training_images(rows: Rows, seed: int) -> None:
    """Score Table 1's rows on the training images too, as far as not done yet.

    Args:
        rows (Rows): Where and how.
        seed (int): Of the rows.
    """
    for name in map(rows.same_training, _STEPS):
        directory = rows.run(name, seed)
        if not (directory / f'{SCORE}.json').exists():
            rows.predict(
                rows.trained(name, seed),
                directory / 'detections-train.parquet',
                SCORE,
                index=rows.train_index,
            )


def fit_table(runs: Iterable[Run]) -> str | None:
    """mAP on training and validation images, row by row.

    Args:
        runs (iterable of Run): Among them rows of Table 1.

    Returns:
        str: A table of means over seeds; :obj:`None` where no row was scored on training images.
    """
    found = defaultdict(list)
    for run in runs:
        path = run.path / f'{SCORE}.json'
        if run.name in _STEPS and path.exists():
            found[run.name].append(
                (100 * json.loads(path.read_text(encoding='utf-8'))['mAP'], 100 * run.score['mAP'])
            )
    table1, lines = table_of(_STEPS[0]), []
    for name in filter(found.__contains__, _STEPS):
        train, validation = (statistics.fmean(side) for side in zip(*found[name], strict=True))
        lines.append(
            (
                table1.row(name).name,
                f'{train:.1f}',
                f'{validation:.1f}',
                signed(validation - train),
                str(len(found[name])),
            )
        )
    if not lines:
        return None
    return table(('row', 'training images', 'validation images', 'difference', 'seeds'), lines)
