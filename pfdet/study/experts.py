"""The parts of the study that are no single rows: experts, test-time augmentation, ensembles."""

import json
from collections.abc import Sequence
from pathlib import Path

from pfdet.commands import ROOT, run_python
from pfdet.files import replace_when_done
from pfdet.study.rows import Rows

# What the experts and ensembles start from, and how it is looked at with augmentation.
FULL = 'mini'
SIZES = (128, 160, 192)
# "All the others" of Table 2, beside the full model of other seeds.
OTHERS = ('table1-multiscale', 'table1-context', 'cs-table1-concurrent-balanced')


def train_experts(rows: Rows, size: int, seed: int) -> list[Path]:
    """Experts of so many classes each, fine-tuned from the full model of the same seed.

    Returns:
        list of paths: Their directories.
    """
    init, out = rows.trained(FULL, seed), rows.out / f'expert-class{size}' / f'seed{seed}'
    if not (out / 'done').exists():
        run_python(
            ROOT / 'train' / 'train_experts.py', '--recipe', f'expert-class{size}', '--scale',
            'mini', '--init', init / 'model.npz', '--train-index', rows.train_index, '--out', out,
            '--seed', seed, ranks=rows.ranks, log=out / 'output.txt')
        (out / 'done').touch()
    return sorted(path for path in out.iterdir() if path.is_dir())


def train_on_second_source(rows: Rows, seed: int, index: Path) -> Path:
    """One expert of all classes, fine-tuned on another data set, as COCO's were."""
    init, out = rows.trained(FULL, seed), rows.out / 'expert-coco' / f'seed{seed}'
    if not (out / 'done').exists():
        run_python(
            ROOT / 'train' / 'train_experts.py', '--recipe', 'expert-coco', '--scale', 'mini',
            '--init', init / 'model.npz', '--train-index', index, '--out', out, '--seed', seed,
            '--ranks-per-expert', rows.ranks, ranks=rows.ranks, log=out / 'output.txt')
        (out / 'done').touch()
    expert, = (path for path in out.iterdir() if path.is_dir())
    return expert


def outputs(rows: Rows, models: Sequence[Path], index: Path, split: str) -> list[Path]:
    """Augmented outputs of models before suppression, for ensembles."""
    found = []
    for model in models:
        detections = model / f'outputs-{split}.parquet'
        rows.predict(model, detections, None, '--sizes', *SIZES, '--flip', '--no-suppression',
                     index=index)
        found.append(detections)
    return found


def single_scale(rows: Rows, name: str, seed: int, models: Sequence[Path]) -> Path:
    """What experts find at one scale, each in its own classes: a row of Table 4."""
    detections = []
    for model in models:
        detections.append(model / 'detections.parquet')
        rows.predict(model, detections[-1], None)
    return ensemble(rows, name, 'experts alone', seed, detections)


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
                ROOT / 'evaluate' / 'ensemble.py', '--detections',
                model / 'outputs-validation.parquet', '--out', suppressed, '--max-per-image',
                rows.recipe(FULL).max_per_image, log=model / 'output.txt')
            rows.score(suppressed, found[-1], index)
    return found


def ensemble(rows: Rows, name: str, about: str, seed: int, detections: Sequence[Path],
             index: Path | None = None, score: str = 'score', scores: Sequence[Path] = ()) -> Path:
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
        ROOT / 'evaluate' / 'ensemble.py', '--detections', *detections,
        *(['--scores', *scores] if scores else []), '--out', merged, '--max-per-image',
        rows.recipe(FULL).max_per_image, log=directory / 'output.txt')
    content = {'recipe': {'name': name, 'about': about, 'scale': rows.scale},
               'run': {'seed': seed, 'models': [str(d.parent) for d in detections]}}
    with replace_when_done(directory / 'recipe.json') as path:
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    rows.score(merged, out, index)
    return out
