"""The parts of the study that are not single rows: ways of testing, experts, ensembles."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from pfdet.atomic_write import replace_when_done
from pfdet.recipes import to_dict
from pfdet.subprocesses import commit, run_python
from pfdet.training.table_runs import Rows

# The model that experts and ensembles start from, and the image sizes of test-time augmentation.
FULL = 'mini'
SIZES = (144, 184)
# "All the others" of PFDet's Table 2: models of all classes with another loss or sampling, and the
# full model's recipe with those of these seeds that are not its own.
OTHERS = (('mini-without-cooccurrence', 0), ('cs-table1-co-bce', 0))
OTHER_SEEDS = (0, 1, 2)
# Ranks of the classes that get an expert, rarest first: 40 of the 41, to be split into tens and
# twenties. PFDet's Table 4 omits the rarest classes too.
RANKS = (2, 41)
# The paper does not say how long experts are fine-tuned. All see the same number of images, since
# epochs of their own images would be very short for experts of the rarest classes.
IMAGES_SEEN = 4000


# Steps of the ensemble: the row of PFDet's Table 2, the models that it adds, and a description.
STEPS = (
    ('table2-single', 'single', 'the single model, augmented'),
    ('table2-class20-experts', 'class20', '+ class20 experts'),
    ('table2-class10-experts', 'class10', '+ class10 experts'),
    ('table2-all', 'others', '+ all the others except the second source'),
    ('table2-coco', 'coco', '+ the second source'),
)
WEIGHTED = 'table2-class-weight'
# The first row of PFDet's Table 4, tested like its experts; and the full model fine-tuned as long
# as the experts, which is not in the table.
AS_EXPERTS, LONGER = 'table4-full', 'table4-full-longer'


def ways_of_testing(rows: Rows, seed: int) -> None:
    """Test the full model with test-time augmentation and with NMS, unless done.

    Each is also scored at an IoU of 0.75 (``score-...-iou75.json``), which demands better
    localization.

    Args:
        rows (Rows): Where and how rows are run.
        seed (int): Seed of the full model.
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
            rows.predict(rows.train(FULL, seed), detections, f'score{name}', *flags)
        if not strict.exists():
            rows.predict(rows.train(FULL, seed), detections, None, *flags)
            rows.score(detections, strict, None, '--iou-thresh', 0.75)


def experts_and_ensembles(rows: Rows, indexes: Mapping[str, Path], seed: int) -> None:
    """Run PFDet's Tables 2 and 4, unless done.

    Args:
        rows (Rows): Where and how rows are run.
        indexes (mapping): ``'validation'``; ``'test'``, whose images class weights are not computed
            from; and ``'second'``, another training set.
        seed (int): Seed of the full model.
    """
    ensembles = [*(step[0] for step in STEPS), WEIGHTED]
    scores = [
        (AS_EXPERTS, 'score'),
        (LONGER, 'score'),
        *((name, score) for name in ensembles for score in ('score', 'score-test')),
    ]
    if all((rows.directory(name, seed) / f'{score}.json').exists() for name, score in scores):
        return
    models = {'single': [rows.train(FULL, seed)]}
    single_scale(rows, AS_EXPERTS, seed, models['single'], 'the full model alone')
    for size in 'class40', 'class20', 'class10':
        models[size] = train_experts(rows, size, seed)
        single_scale(rows, f'table4-{size}', seed, models[size])
    single_scale(
        rows,
        LONGER,
        seed,
        [train_on(rows, 'full-longer', seed, rows.train_index)],
        'the full model, fine-tuned as long as an expert',
    )
    models['others'] = [rows.train(FULL, other) for other in OTHER_SEEDS if other != seed]
    models['others'] += [rows.train(name, other) for name, other in OTHERS]
    models['coco'] = [train_on(rows, 'expert-coco', seed, indexes['second'])]

    for split, score in ('validation', 'score'), ('test', 'score-test'):
        detections = []
        for name, key, about in STEPS:
            detections += outputs(rows, models[key], indexes[split], split)
            ensemble(rows, name, about, seed, detections, indexes[split], score)
        ensemble(
            rows,
            WEIGHTED,
            '+ class-weight ensemble',
            seed,
            detections,
            indexes[split],
            score,
            single_scores(rows, detections, indexes['validation']),
        )


def train_experts(rows: Rows, size: str, seed: int) -> list[Path]:
    """Fine-tune experts from the full model.

    Args:
        rows (Rows): Where and how rows are run.
        size (str): ``'class10'``, ``'class20'`` or ``'class40'``.
        seed (int): Seed of the full model and the experts.

    Returns:
        list of paths: Directories of the experts.
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
    """Fine-tune the full model with all its classes.

    This is done on another data set, as PFDet does with COCO, or on the same one, to measure what
    longer training alone gains.

    Args:
        rows (Rows): Where and how rows are run.
        name (str): Name of the directory.
        seed (int): Seed of the full model and of fine-tuning.
        index (path): Annotation index to train on.

    Returns:
        pathlib.Path: Its directory.
    """
    (expert,) = _fine_tune(rows, 'expert-coco', name, seed, index, '--ranks-per-expert', rows.ranks)
    return expert


def _fine_tune(
    rows: Rows, recipe: str, name: str, seed: int, index: Path, *flags: object
) -> list[Path]:
    init, out = rows.train(FULL, seed), rows.out / name / f'seed{seed}'
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
    """Predict with augmentation and without suppression, for ensembles.

    Args:
        rows (Rows): Where and how rows are run.
        models (sequence of paths): Directories of the models.
        index (path): Annotation index of the images.
        split (str): Goes into the file names.

    Returns:
        list of paths: Detections of each model.
    """
    paths = []
    for model in models:
        detections = model / f'outputs-{split}.parquet'
        rows.predict(
            model, detections, None, '--sizes', *SIZES, '--flip', '--no-suppression', index=index
        )
        paths.append(detections)
    return paths


def single_scale(
    rows: Rows, name: str, seed: int, models: Sequence[Path], about: str = 'experts alone'
) -> Path:
    """Test models at one scale, experts in their own classes: a row of PFDet's Table 4.

    Args:
        rows (Rows): Where and how rows are run.
        name (str): Name of the row.
        seed (int): Seed of the models.
        models (sequence of paths): Directories of the models.
        about (str): Description.

    Returns:
        pathlib.Path: The score.
    """
    detections = []
    for model in models:
        detections.append(model / 'detections.parquet')
        rows.predict(model, detections[-1], None)
    return ensemble(rows, name, about, seed, detections)


def single_scores(rows: Rows, detections: Sequence[Path], index: Path) -> list[Path]:
    """Score each model alone on the validation set, with augmentation.

    Args:
        rows (Rows): Where and how rows are run.
        detections (sequence of paths): The models' outputs on any images.
        index (path): Annotation index of the validation set.

    Returns:
        list of paths: The scores.
    """
    paths = []
    for model in (path.parent for path in detections):
        paths.append(model / 'score-augmented.json')
        if not paths[-1].exists():
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
            rows.score(suppressed, paths[-1], index)
    return paths


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
    """Merge the outputs of several models and score them.

    Args:
        rows (Rows): Where and how rows are run.
        name (str): Name of the row, whose directory is like that of a run.
        about (str): Description.
        seed (int): Seed of the models.
        detections (sequence of paths): Outputs of the models.
        index (path): Annotation index of the images, by default the validation set's.
        score (str): Name of the score's file without ``.json``.
        scores (sequence of paths): Validation score of each model, for class weights.

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
        'recipe': {'name': name, 'about': about, 'size': rows.size},
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
