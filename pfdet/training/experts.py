"""Expert models: a full model fine-tuned to a few classes.

PFDet, section 2.3: "Each expert model is fine-tuned on a very small subset of the full category
space, which we find to perform well for rare classes." Table 4 orders the classes by frequency,
rarest first. An expert of "class10" covers ten consecutive classes in that order.

Section 3: "we used MS COCO to train expert models for classes that are in the intersection of the
label spaces of OID and MS COCO." COCO has knives, which are weapons in Open Images, but no other
weapons. An expert of COCO does not answer for such an ancestor, see :func:`completely_annotated`.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pfdet.errors import InputError
from pfdet.iterators.class_images import class_images
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes import Recipe, override
from pfdet.training.run_length import n_epoch


class Expert(NamedTuple):
    """The classes and training images of an expert.

    Attributes:
        name (str): Name of its directory, such as ``'classes-011-020'``.
        classes (int array): Class ids :math:`(K,)`, ascending.
        images (int array): Training images with an object of these classes, ascending.
    """

    name: str
    classes: np.ndarray
    images: np.ndarray


def plan_experts(
    index: AnnotationIndex, size: int, first: int = 1, last: int | None = None
) -> list[Expert]:
    """Distribute the classes of a training set over experts, rarest first.

    An image belongs to a class if it has a box of the class or of one of its descendants, because
    training expands the labels. Classes without images are skipped, and so are ancestors that the
    data set annotates only in part, see :func:`completely_annotated`. An expert's loss and its
    output have only the expert's classes.

    Args:
        index (AnnotationIndex): The training set.
        size (int): Classes per expert; the last expert may have fewer. With 0, one expert has all.
        first, last (int): Frequency ranks of the rarest and the most frequent class to train
            experts for, counted from 1, both inclusive. By default all classes.

    Raises:
        InputError: The ranks are out of range.
    """
    images_by_class = class_images(index, expand=True)
    count = images_by_class.count
    order = np.argsort(count, kind='stable')
    complete = completely_annotated(index.annotated, index.hierarchy)
    order = order[(count > 0)[order] & complete[order]]
    last = len(order) if last is None else last
    if not 1 <= first <= last <= len(order):
        raise InputError(
            f'classes {first} to {last}, rarest first: expected ranks from 1 to '
            f'{len(order)}, the completely annotated classes with images in {index.path}'
        )
    size = size or last - first + 1
    digits = len(str(len(order)))
    plan = []
    for start in range(first - 1, last, size):
        stop = min(start + size, last)
        classes = np.sort(order[start:stop])
        starts, stops = images_by_class.offsets[classes], images_by_class.offsets[classes + 1]
        images = np.unique(
            np.concatenate([images_by_class.images[a:b] for a, b in zip(starts, stops)])
        )
        plan.append(Expert(f'classes-{start + 1:0{digits}}-{stop:0{digits}}', classes, images))
    return plan


def completely_annotated(annotated: np.ndarray, hierarchy: Hierarchy) -> np.ndarray:
    """Find the classes of which a data set annotates all objects, as far as its classes tell.

    These are the classes that it annotates, and the ancestors all of whose leaves it annotates: as
    such, or as a class between the leaf and the ancestor. The unlabeled objects of other ancestors
    would be false negatives.

    Args:
        annotated (int array): Ids of the classes that the data set annotates.
        hierarchy (Hierarchy): The hierarchy of all :math:`C` classes.

    Returns:
        bool array: :math:`(C,)`.
    """
    is_annotated = np.zeros(hierarchy.n_class, bool)
    is_annotated[annotated] = True
    leaves = hierarchy.descendants & hierarchy.is_leaf
    below = (hierarchy.descendants & is_annotated).astype(np.float32)
    covered = below @ hierarchy.closure.T.astype(np.float32) > 0
    return is_annotated | ~hierarchy.is_leaf & ~(leaves & ~covered).any(axis=1)


def fine_tuning_recipe(recipe: Recipe, full: Recipe) -> Recipe:
    """Combine an expert's recipe with that of the full model it starts from.

    Args:
        recipe (Recipe): Recipe of the expert.
        full (Recipe): Recipe of the full model.

    Returns:
        Recipe: The full model's recipe with the expert's schedule and expert options. Its ``init``
        is the full model's name if ``recipe`` does not fine-tune another recipe.
    """
    own = (
        'name',
        'about',
        'init',
        'expert_size',
        'expert_head',
        'epochs',
        'iterations',
        'schedule',
        'steps',
        'base_lr',
        'lr_batch_size',
        'warmup_epochs',
        'warmup_iterations',
        'warmup_start',
    )
    fields = {name: getattr(recipe, name) for name in own}
    if recipe.init in ('imagenet', 'scratch'):
        fields['init'] = full.name
    return dataclasses.replace(full, **fields)


def expert_recipe(
    recipe: Recipe, full: Recipe, settings: Sequence[str] = (), ranks_per_expert: int = 1
) -> Recipe:
    """Resolve the recipe of an expert's run.

    On one rank, the batch statistics are those of the few images of one rank. The full model's are
    better, so the expert keeps them: ``frozen_bn`` is ``'all'`` unless the settings say otherwise.

    Args:
        recipe (Recipe): Recipe of the expert.
        full (Recipe): Recipe of the full model.
        settings (sequence of str): ``KEY=VALUE``, see :func:`~pfdet.recipes.settings.override`.
        ranks_per_expert (int): Number of ranks that train an expert together.

    Raises:
        InputError: A setting cannot be used, or the recipe is not one of experts.
    """
    resolved = override(fine_tuning_recipe(recipe, full), settings)
    if not resolved.expert_size:
        raise InputError(
            f'recipe {resolved.name}: expert_size=0 is a model of all classes; expected the number '
            'of classes of an expert'
        )
    is_set = any(setting.partition('=')[0] == 'frozen_bn' for setting in settings)
    if ranks_per_expert == 1 and not is_set:
        resolved = dataclasses.replace(resolved, frozen_bn='all')
    return resolved


def default_images_seen(recipe: Recipe, plan: Sequence[Expert]) -> int:
    """The number of images that each expert is trained on by default.

    PFDet does not say how long experts are trained. With epochs of their own images, experts of the
    rarest classes would be trained for a few iterations. So all get the same number of images. In
    total they are as many as in the recipe's epochs of each expert's own images.

    Args:
        recipe (Recipe): Recipe of the experts.
        plan (sequence of Expert): The experts.

    Returns:
        int: The recipe's epochs times the number of images of an expert on average, at least 1; or
        the images of its iterations.
    """
    n_image = float(np.mean([len(e.images) for e in plan]))
    return max(1, round(n_epoch(recipe, n_image) * n_image))


def with_images_seen(recipe: Recipe, n_image: int, n_seen: int | None) -> Recipe:
    """Set an expert's number of epochs so that it is trained on a given number of images.

    Args:
        recipe (Recipe): Recipe of the expert.
        n_image (int): Number of the expert's training images.
        n_seen (int): Images drawn during training, repetitions included. With :obj:`None` the
            recipe's number of epochs is kept, so an expert of rare classes is trained for fewer
            iterations than one of frequent classes.

    Returns:
        Recipe: The recipe with epochs and warm-up scaled by the same factor.
    """
    if n_seen is None:
        return recipe
    epochs = n_seen / n_image
    return dataclasses.replace(
        recipe,
        epochs=epochs,
        iterations=0,
        warmup_epochs=recipe.warmup_epochs * epochs / n_epoch(recipe, n_image),
    )


def pack(cost: Sequence[float], n_group: int) -> list[list[int]]:
    """Distribute tasks over groups of ranks so that all finish at about the same time.

    Tasks are assigned longest first, each to the group with the least work so far. The total time
    is at most 4/3 of the optimum (Graham, 1969).

    Args:
        cost (sequence of float): Cost of each task.
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
