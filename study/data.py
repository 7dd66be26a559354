"""The data sets of the study, and the backbone that replaces one trained on ImageNet."""

from collections.abc import Sequence
from pathlib import Path

from pfdet import recipes
from pfdet.subprocesses import run_python
from study.plan import BATCH

# Annotators of Open Images verify the labels that an image classifier suggests, which finds mostly
# large parts.
_PROMINENT = ('--parts-prominent', 0.8)
_ALL_VERIFIED = ('--parts-verified', 1, '--parent-only', 0, '--negatives', 60)
# The data set and split of each index.
_INDEXES = {
    'train': ('first', 'train'),
    'validation': ('first', 'validation'),
    'test': ('test', 'validation'),
    'second': ('second', 'train'),
    'pretraining': ('pretraining', 'train'),
}


def draw(
    data: Path,
    n_image: int,
    seed: int,
    names: Sequence[str] = ('pretraining', 'first', 'test', 'second'),
) -> dict[str, Path]:
    """Draw the data sets of the study and compile them to indexes.

    Args:
        data (path): Directory of the data sets. Those that exist are kept.
        n_image (int): Number of training images; there are a quarter as many validation images.
        seed (int): Seed of the first data set; the others have the following ones.
        names (sequence of str): Data sets to draw.

    Returns:
        dict: The indexes ``'train'`` and ``'validation'``; ``'test'``, whose images are not those
        that class weights are computed from; ``'second'``, another training set in which every
        class is verified, as in COCO; and ``'pretraining'``, in which the classes are almost
        balanced, for the backbone.
    """
    flags = {
        'first': ('--seed', seed, *_PROMINENT),
        'test': ('--seed', seed + 1, '--images', 4),
        'second': ('--seed', seed + 2, *_ALL_VERIFIED, '--validation-images', 1),
        'pretraining': (
            *('--seed', seed + 3, *_ALL_VERIFIED),
            *('--tail', 0.2, '--validation-images', 150),
        ),
    }
    for name in names:
        if not (data / name).exists():
            run_python(
                *('-m', 'pfdet.openimages.make_mini', '--out', data / name),
                *('--images', n_image, '--validation-images', n_image // 4),
                *flags[name],
                quiet=True,
            )
    indexes = {}
    for key, (name, split) in _INDEXES.items():
        if name not in names:
            continue
        source, indexes[key] = data / name, data / f'{key}.index'
        if not indexes[key].exists():
            run_python(
                *('-m', 'pfdet.openimages.build_index'),
                *('--boxes', source / f'{split}-annotations-bbox.csv'),
                *('--labels', source / f'{split}-annotations-human-imagelabels.csv'),
                *('--classes', source / 'class-descriptions.csv'),
                *('--hierarchy', source / 'hierarchy.json'),
                *('--images', source / split, '--out', indexes[key]),
                quiet=True,
            )
    return indexes


def pretrain(out: Path, index: Path) -> Path:
    """Train the backbone that replaces one trained on ImageNet, unless it exists.

    It is trained as part of a detector; only the backbone's weights are kept.

    Args:
        out (path): Directory of the study; the detector goes below it.
        index (path): Annotation index to train on.

    Returns:
        pathlib.Path: The backbone's weights.
    """
    run, backbone = out / 'pretraining', out / 'backbone.npz'
    if not backbone.exists():
        if not (run / 'model.npz').exists():
            run_python(
                *('-m', 'pfdet', 'train', '--recipe', 'mini'),
                *('--set', 'epochs=12', f'batch_size={BATCH // 2}', '--seed', 3),
                *('--train-index', index, '--out', run, '--resume'),
                ranks=2,
                log=run / 'output.txt',
            )
        run_python(
            *('-m', 'pfdet.links.convert', '--arch', recipes.find('mini').backbone),
            *('--weights', run / 'model.npz', '--out', backbone),
            quiet=True,
        )
    return backbone
