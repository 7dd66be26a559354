"""The parts of the study that are no single rows: ways of testing, experts, ensembles."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pfdet.atomic_write import replace_when_done
from pfdet.recipes import to_dict
from pfdet.subprocesses import commit, run_python
from pfdet.training.table_runs import Rows

# What the experts and ensembles start from, and how it is looked at with augmentation.
FULL = 'mini'
SIZES = (144, 184)
# "All the others" of Table 2: models of all classes with another loss or other samples, and those
# of the full model's recipe with these seeds but its own.
OTHERS = (('mini-without-cooccurrence', 0), ('cs-table1-co-bce', 0))
OTHER_SEEDS = (0, 1, 2)
# Classes that get an expert by rank, rarest first: 40 of the 41, to be cut into tens and twenties.
# Table 4 leaves out the rarest ones, too.
RANKS = (2, 41)
# The paper does not say how long experts are fine-tuned. As long as each other: by epochs of their
# own images, those of the rarest classes hardly begin.
IMAGES_SEEN = 4000


# What is added to the ensemble, step by step: the row of Table 2, which models, in words.
STEPS = (
    ('table2-single', 'single', 'the single model, augmented'),
    ('table2-class20-experts', 'class20', '+ class20 experts'),
    ('table2-class10-experts', 'class10', '+ class10 experts'),
    ('table2-all', 'others', '+ all the others except the second source'),
    ('table2-coco', 'coco', '+ the second source'),
)
WEIGHTED = 'table2-class-weight'
# The first row of Table 4, tested as its experts are; and no row of it, but what they would be
# without having fewer classes.
AS_EXPERTS, LONGER = 'table4-full', 'table4-full-longer'


def ways_of_testing(rows: Rows, seed: int) -> None:
    """The full model with test-time augmentation and with NMS, as far as not done yet.

    Each is scored at an IoU of 0.75 too (``score-...-iou75.json``), where it counts how well a box
    fits.

    Args:
        rows (Rows): Where and how.
        seed (int): Of the full model.
    """
    full = rows.run(FULL, seed)
    for name, flags in (
        ('', ()),
        ('-nms', ('--suppression', 'nms')),
        ('-tta', ('--sizes', *SIZES, '--flip')),
        ('-tta-nms', ('--sizes', *SIZES, '--flip', '--suppression', 'nms')),
    ):
        detections, strict = full / f'detections{name}.parquet', full / f'score{name}-iou75.json'
        if not (full / f'score{name}.json').exists():
            rows.predict(rows.trained(FULL, seed), detections, f'score{name}', *flags)
        if not strict.exists():
            rows.predict(rows.trained(FULL, seed), detections, None, *flags)
            rows.score(detections, strict, None, '--iou-thresh', 0.75)


def experts_and_ensembles(rows: Rows, indexes: Mapping[str, Path], seed: int) -> None:
    """PFDet's Tables 2 and 4, as far as not done yet.

    Args:
        rows (Rows): Where and how.
        indexes (mapping): ``'validation'``, ``'test'`` for class weights to be tried on other
            images than they were found on, and ``'second'``, another training set.
        seed (int): Of the full model.
    """
    ensembles = [*(step[0] for step in STEPS), WEIGHTED]
    scores = [
        (AS_EXPERTS, 'score'),
        (LONGER, 'score'),
        *((name, score) for name in ensembles for score in ('score', 'score-test')),
    ]
    if all((rows.directory(name, seed) / f'{score}.json').exists() for name, score in scores):
        return
    models = {'single': [rows.trained(FULL, seed)]}
    single_scale(rows, AS_EXPERTS, seed, models['single'], 'the full model alone')
    for size in 'class40', 'class20', 'class10':
        models[size] = train_experts(rows, size, seed)
        single_scale(rows, f'table4-{size}', seed, models[size])
    single_scale(
        rows,
        LONGER,
        seed,
        [train_on(rows, 'full-longer', seed, rows.train_index)],
        'the full model, trained as much longer as experts are',
    )
    models['others'] = [rows.trained(FULL, other) for other in OTHER_SEEDS if other != seed]
    models['others'] += [rows.trained(name, other) for name, other in OTHERS]
    models['coco'] = [train_on(rows, 'expert-coco', seed, indexes['second'])]

    for split, score in ('validation', 'score'), ('test', 'score-test'):
        together = []
        for name, key, about in STEPS:
            together += outputs(rows, models[key], indexes[split], split)
            ensemble(rows, name, about, seed, together, indexes[split], score)
        ensemble(
            rows,
            WEIGHTED,
            '+ class-weight ensemble',
            seed,
            together,
            indexes[split],
            score,
            own_scores(rows, together, indexes['validation']),
        )


def train_experts(rows: Rows, size: str, seed: int) -> list[Path]:
    """Experts of ``'class10'``, ``'class20'`` or ``'class40'``, fine-tuned from the full model.

    Returns:
        list of paths: Their directories.
    """
    return _fine_tune(
        rows,
        f'expert-{size}',
        f'expert-{size}',
        seed,
        rows.train_index,
        '--range',
        '{}-{}'.format(*RANKS),
    )


def train_on(rows: Rows, name: str, seed: int, index: Path) -> Path:
    """The full model fine-tuned with all its classes, as one expert: on another data set, as
    COCO's were, or on its own, to tell what experts gain by being trained longer alone.

    Args:
        rows (Rows): Where and how.
        name (str): Of its directory.
        seed (int): Of the full model and this.
        index (path): What to train on.
    """
    (expert,) = _fine_tune(rows, 'expert-coco', name, seed, index, '--ranks-per-expert', rows.ranks)
    return expert


def _fine_tune(
    rows: Rows, recipe: str, name: str, seed: int, index: Path, *flags: object
) -> list[Path]:
    init, out = rows.trained(FULL, seed), rows.out / name / f'seed{seed}'
    if not (out / 'done').exists():
        run_python(
            '-m',
            'pfdet',
            'train-experts',
            '--recipe',
            recipe,
            '--scale',
            'mini',
            '--init',
            init / 'model.npz',
            '--train-index',
            index,
            '--out',
            out,
            '--images-seen',
            IMAGES_SEEN,
            '--seed',
            seed,
            *flags,
            ranks=rows.ranks,
            log=out / 'output.txt',
        )
        (out / 'done').touch()
    return sorted(path for path in out.iterdir() if path.is_dir())


def outputs(rows: Rows, models: Sequence[Path], index: Path, split: str) -> list[Path]:
    """Augmented outputs of models before suppression, for ensembles."""
    found = []
    for model in models:
        detections = model / f'outputs-{split}.parquet'
        rows.predict(
            model, detections, None, '--sizes', *SIZES, '--flip', '--no-suppression', index=index
        )
        found.append(detections)
    return found


def single_scale(
    rows: Rows, name: str, seed: int, models: Sequence[Path], about: str = 'experts alone'
) -> Path:
    """What experts find at one scale, each in its own classes: a row of Table 4."""
    detections = []
    for model in models:
        detections.append(model / 'detections.parquet')
        rows.predict(model, detections[-1], None)
    return ensemble(rows, name, about, seed, detections)


def own_scores(rows: Rows, detections: Sequence[Path], index: Path) -> list[Path]:
    """The validation score of each model by itself, with augmentation.

    Args:
        rows (Rows): Where and how.
        detections (sequence of paths): The models' outputs, of any images.
        index (path): The validation set.
    """
    found = []
    for model in (path.parent for path in detections):
        found.append(model / 'score-augmented.json')
        if not found[-1].exists():
            suppressed = model / 'augmented.parquet'
            run_python(
                '-m',
                'pfdet',
                'ensemble',
                '--detections',
                model / 'outputs-validation.parquet',
                '--out',
                suppressed,
                '--max-per-image',
                rows.recipe(FULL).max_per_image,
                log=model / 'output.txt',
            )
            rows.score(suppressed, found[-1], index)
    return found


def ensemble(
    rows: Rows,
    name: str,
    about: str,
    seed: int,
    detections: Sequence[Path],
    index: Path | None = None,
    score: str = 'score',
    scores: Sequence[Path] = (),
) -> Path:
    """Put outputs together and score them.

    Args:
        rows (Rows): Where and how.
        name (str): Of the row; its directory is like that of a run.
        about (str): What it is.
        seed (int): Of the models.
        detections (sequence of paths): Outputs of the models.
        index (path): Of the images; by default the validation set's.
        score (str): Name of the score's file without ``.json``.
        scores (sequence of paths): Each model's validation score, for class weights.

    Returns:
        pathlib.Path: The score.
    """
    directory = rows.directory(name, seed)
    out = directory / f'{score}.json'
    if out.exists():
        return out
    directory.mkdir(parents=True, exist_ok=True)
    merged = directory / f'{score}-detections.parquet'
    run_python(
        '-m',
        'pfdet',
        'ensemble',
        '--detections',
        *detections,
        *(['--scores', *scores] if scores else []),
        '--out',
        merged,
        '--max-per-image',
        rows.recipe(FULL).max_per_image,
        log=directory / 'output.txt',
    )
    content = {
        'recipe': {'name': name, 'about': about, 'scale': rows.scale},
        'run': {
            'seed': seed,
            'full': to_dict(rows.recipe(FULL)),
            'models': [d.parent.relative_to(rows.out).as_posix() for d in detections],
        },
    }
    with replace_when_done(directory / 'recipe.json') as path:
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    rows.score(merged, out, index)
    (directory / 'done').write_text(commit() + '\n', encoding='utf-8')
    return out
