"""Expert models: a full model fine-tuned to a few classes, many of them by one command.

PFDet, section 2.3: "Each expert model is fine-tuned on a very small subset of the full category
space, which we find to perform well for rare classes." Table 4 orders classes by their occurrence,
rarest first; an expert of "class10" answers for ten neighbours in that order.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.iterators.balanced import class_images
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.recipe import Recipe


class Expert(NamedTuple):
    """What one expert is for.

    Attributes:
        name (str): Of its directory, such as ``'classes-011-020'``.
        classes (int array): Class ids, ascending, :math:`(K,)`.
        images (int array): The training images that hold one of them, ascending.
    """

    name: str
    classes: np.ndarray
    images: np.ndarray


def experts(
    index: AnnotationIndex, size: int, first: int = 1, last: int | None = None
) -> list[Expert]:
    """Cut the classes of a training set, rarest first, into runs.

    A class has the images with a box of it or of a descendant, as labels are expanded in training.
    Classes without an image are not counted.

    Args:
        index (AnnotationIndex): The training set.
        size (int): Classes of an expert; the last one may have fewer. With 0, one expert has all.
        first, last (int): Ranks of the rarest and of the most frequent class that get an expert,
            from 1 on and both included; by default all.

    Raises:
        InputError: There are no classes at these ranks.
    """
    found = class_images(index, expand=True)
    count = found.count
    order = np.argsort(count, kind='stable')
    order = order[count[order] > 0]
    last = len(order) if last is None else last
    if not 1 <= first <= last <= len(order):
        raise InputError(
            f'classes {first} to {last}, rarest first: expected ranks from 1 to '
            f'{len(order)}, the classes with images in {index.path}'
        )
    size = size or last - first + 1
    digits = len(str(len(order)))
    plan = []
    for start in range(first - 1, last, size):
        stop = min(start + size, last)
        classes = np.sort(order[start:stop])
        images = np.unique(
            np.concatenate([found.images[found.offsets[c] : found.offsets[c + 1]] for c in classes])
        )
        plan.append(Expert(f'classes-{start + 1:0{digits}}-{stop:0{digits}}', classes, images))
    return plan


def fine_tuned(recipe: Recipe, full: Recipe) -> Recipe:
    """An expert's recipe for the network of the model that it starts from.

    Args:
        recipe (Recipe): Of the expert.
        full (Recipe): Of the full model.

    Returns:
        Recipe: The full model's, with the schedule and the classes of the expert's.
    """
    own = (
        'name',
        'about',
        'init',
        'expert_size',
        'expert_head',
        'epochs',
        'schedule',
        'steps',
        'base_lr',
        'lr_batch_size',
        'warmup_epochs',
    )
    return dataclasses.replace(full, **{name: getattr(recipe, name) for name in own})


def for_images(recipe: Recipe, n_image: int, n_seen: int | None) -> Recipe:
    """An expert's recipe, to be trained on so many images in all, however few its own are.

    Args:
        recipe (Recipe): Of the expert.
        n_image (int): The expert's training images.
        n_seen (int): Images that training goes through, one that comes again counted again. By
            default the recipe's epochs are of the expert's own images, and an expert of rare
            classes is trained for a fraction of the time that one of frequent classes is.

    Returns:
        Recipe: The same with other epochs and a warm-up longer or shorter by the same factor.
    """
    if n_seen is None:
        return recipe
    epochs = n_seen / n_image
    return dataclasses.replace(
        recipe, epochs=epochs, warmup_epochs=recipe.warmup_epochs * epochs / recipe.epochs
    )


def pack(cost: Sequence[float], n_group: int) -> list[list[int]]:
    """Share tasks out to groups of ranks so that all finish at about the same time.

    The longest task goes first, each to the group with the least work so far (Graham's rule: at
    most a third longer than the best possible).

    Args:
        cost (sequence of float): Of each task.
        n_group (int): Number of groups.

    Returns:
        list of lists of int: The tasks of each group, longest first.
    """
    groups = [[] for _ in range(n_group)]
    load = np.zeros(n_group)
    for task in sorted(range(len(cost)), key=lambda k: (-cost[k], k)):
        group = int(load.argmin())
        groups[group].append(task)
        load[group] += cost[task]
    return groups


def cut_head(
    weights: dict[str, np.ndarray], rows: np.ndarray, n_class: int, path: Path
) -> dict[str, np.ndarray]:
    """Keep only some classes of a detector's head.

    Args:
        weights (dict): From a ``model.npz``.
        rows (int array): The classes to keep, as ids of the full model, :math:`(K,)`.
        n_class (int): Classes of the full model, :math:`C`.
        path (path): For messages.

    Returns:
        dict: The same arrays but for the head's last layers. A background class stays last; with a
        box a class, boxes are cut too.

    Raises:
        InputError: The weights are not a detector's of so many classes.
    """
    try:
        conf, loc = weights['head/conf/W'], weights['head/loc/W']
    except KeyError as e:
        raise InputError(f"{path}: has no {e.args[0]}; expected a detector's model.npz") from None
    background = np.arange(n_class, len(conf))
    if len(conf) not in (n_class, n_class + 1) or len(loc) not in (4, 4 * n_class):
        raise InputError(
            f'{path}: its head has {len(conf)} outputs; expected one for each of '
            f'{n_class} classes, and perhaps one for the background'
        )
    picked = dict(weights)
    for name in ('head/conf/W', 'head/conf/b'):
        picked[name] = weights[name][np.append(rows, background).astype(np.int64)]
    if len(loc) > 4:
        for name in ('head/loc/W', 'head/loc/b'):
            each = weights[name].reshape(n_class, 4, -1)[rows]
            picked[name] = each.reshape(4 * len(rows), *weights[name].shape[1:])
    return picked
