"""The experts of a full model, for PFDet's Tables 2 and 4.

The classes of an expert are consecutive in the order of their number of training images. Table 4
reports ranks 11 to 350 of 500, rarest first. The paper does not say which experts are in the
ensemble of Table 2, but that the technique is beneficial "especially for the first 250 rarest
classes", and that experts of ranks 251 to 350 are worse than the full model. Here the ensemble has
the experts up to rank 250. For another number of classes, ranks are scaled as in the scores
(:func:`pfdet.evaluation.class_groups.rank_slice`).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.evaluation.class_groups import rank_slice
from pfdet.files.json_file import read_object
from pfdet.iterators.class_images import class_images
from pfdet.openimages.index import AnnotationIndex
from pfdet.subprocesses import run_python
from pfdet.training.experts import plan_experts
from pfdet.training.tables.rows import Rows, check_same, relative_to

# First and last rank in Table 4, and the last rank of an expert in the ensemble, of 500 classes.
_FIRST, _LAST, _LAST_IN_ENSEMBLE = 11, 350, 250


class Ranks(NamedTuple):
    """Ranks of the classes that get experts, from 1.

    They are those of :func:`~pfdet.training.experts.plan_experts`.

    Attributes:
        first, last (int): Of the rarest and of the most frequent class.
        last_in_ensemble (int): An ensemble has the experts whose first rank is at most this.
    """

    first: int
    last: int
    last_in_ensemble: int


def ranks_of_table4(index: AnnotationIndex) -> Ranks:
    """The ranks of PFDet's Table 4, scaled to the classes of a training set.

    Args:
        index (AnnotationIndex): The training set.

    Raises:
        InputError: None of these classes has a training image.
    """
    count = class_images(index, expand=True).count
    rank = np.argsort(np.argsort(count, kind='stable'))
    # Ranks in scores count all classes. Experts are planned for some of them, in the same order.
    planned = np.array([rank[expert.classes[0]] for expert in plan_experts(index, 1)])
    of_table = rank_slice(_FIRST, _LAST, len(count))
    first, last = 1 + int(np.sum(planned < of_table.start)), int(np.sum(planned < of_table.stop))
    if first > last:
        raise InputError(
            f'{index.path}: no class of ranks {_FIRST} to {_LAST} of 500 has images; give '
            '--class-range FIRST-LAST'
        )
    in_ensemble = rank_slice(_FIRST, _LAST_IN_ENSEMBLE, len(count)).stop
    return Ranks(first, last, max(int(np.sum(planned < in_ensemble)), first))


def fine_tune(
    rows: Rows,
    out: Path,
    recipe: str,
    init: Path,
    train_index: Path,
    seed: int,
    *,
    class_range: tuple[int, int] | None = None,
    images_seen: int | None = None,
    ranks_per_expert: int = 1,
) -> list[Path]:
    """Fine-tune the experts of a range of classes, unless done.

    Args:
        rows (Rows): Size, settings and ranks.
        out (path): Directory of the experts.
        recipe (str): Recipe of the experts.
        init (path): ``model.npz`` of the full model.
        train_index (path): Index of the training images.
        seed (int): Seed of the training.
        class_range (pair of int): First and last rank of the classes; by default all.
        images_seen (int): Images that each expert is trained on, repeated ones counted again; by
            default what ``pfdet train-experts`` chooses.
        ranks_per_expert (int): MPI ranks that train an expert together.

    Returns:
        list of paths: The directories of the experts, rarest classes first.

    Raises:
        InputError: The command failed, or ``out`` has experts that were trained otherwise.
    """
    text = None if class_range is None else '{}-{}'.format(*class_range)
    arguments = {
        'recipe': recipe,
        'scale': rows.size,
        'init': relative_to(rows.out, init),
        'train_index': relative_to(rows.out, train_index),
        'seed': seed,
        'class_range': text,
        'images_seen': images_seen,
        'settings': rows.given_fields,
    }
    _check_arguments(out, arguments)
    if not (out / 'done').exists():
        run_python(
            *('-m', 'pfdet', 'train-experts', '--recipe', recipe, '--scale', rows.size),
            *('--init', init, '--train-index', train_index, '--out', out, '--seed', seed),
            *([] if text is None else ['--class-range', text]),
            *([] if images_seen is None else ['--images-seen', images_seen]),
            *([] if ranks_per_expert == 1 else ['--ranks-per-expert', ranks_per_expert]),
            *(['--set', *rows.settings] if rows.settings else []),
            ranks=rows.ranks,
            log=out / 'output.txt',
        )
        (out / 'done').touch()
    return sorted(path for path in out.iterdir() if path.is_dir())


def in_ensemble(expert: Path, last: int) -> bool:
    """Whether the first rank of an expert's classes is at most ``last``.

    Args:
        expert (path): Its directory, named after its ranks: ``classes-011-020``.
        last (int): A rank.
    """
    return int(expert.name.split('-')[1]) <= last


def _check_arguments(out: Path, arguments: Mapping[str, object]) -> None:
    path = out / 'arguments.json'
    # The second file is written when the command has accepted its arguments.
    if path.exists() and (out / 'experts.json').exists():
        check_same(out, read_object(path, 'arguments of train-experts'), arguments)
    else:
        with replace_when_done(path) as unfinished:
            unfinished.write_text(json.dumps(arguments, indent=1) + '\n', encoding='utf-8')
