"""mAP of PFDet's Table 1 on its training images, to tell slow training from overfitting."""

import json
import statistics
from collections import defaultdict
from collections.abc import Iterable

from pfdet import recipes
from pfdet.evaluation.run_directory import Run
from pfdet.recipes.paper_tables import table_of
from pfdet.report.comparison_text import signed
from pfdet.training.tables.rows import Rows
from study.tables import table

# A run's score on its training images.
SCORE = 'score-train'
_STEPS = [row.name for row in recipes.TABLES['table1'].recipes]


def score_training_images(rows: Rows, seed: int) -> None:
    """Score the rows of Table 1 on the training images, unless done.

    Args:
        rows (Rows): Where and how rows are run.
        seed (int): Seed of the rows.
    """
    for name in map(rows.same_training, _STEPS):
        directory = rows.run(name, seed)
        if not (directory / f'{SCORE}.json').exists():
            rows.predict(
                rows.train(name, seed),
                directory / 'detections-train.parquet',
                SCORE,
                index=rows.train_index,
            )


def fit_table(runs: Iterable[Run]) -> str | None:
    """Table of the mAP on training and validation images, row by row.

    Args:
        runs (iterable of Run): Those of other tables are ignored.

    Returns:
        str: Means over seeds; :obj:`None` if no row was scored on training images.
    """
    scores = defaultdict(list)
    for run in runs:
        path = run.path / f'{SCORE}.json'
        if run.name in _STEPS and path.exists():
            scores[run.name].append(
                (100 * json.loads(path.read_text(encoding='utf-8'))['mAP'], 100 * run.score['mAP'])
            )
    table1, lines = table_of(_STEPS[0]), []
    for name in filter(scores.__contains__, _STEPS):
        train, validation = (statistics.fmean(side) for side in zip(*scores[name], strict=True))
        lines.append(
            (
                table1.row(name).name,
                f'{train:.1f}',
                f'{validation:.1f}',
                signed(validation - train),
                str(len(scores[name])),
            )
        )
    if not lines:
        return None
    return table(('row', 'training images', 'validation images', 'difference', 'seeds'), lines)
