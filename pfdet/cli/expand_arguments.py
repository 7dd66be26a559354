"""The arguments of commands that raise detections to the ancestors of their classes."""

import argparse
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes, read_classes
from pfdet.openimages.hierarchy import Hierarchy, challenge_hierarchy, read_hierarchy
from pfdet.openimages.index import AnnotationIndex


def add_expand(parser: argparse.ArgumentParser, default_classes: str) -> None:
    """Add ``--classes``, ``--index``, ``--expand`` and ``--hierarchy``.

    Args:
        parser (argparse.ArgumentParser): Of the command.
        default_classes (str): The classes without ``--classes`` and ``--index``, in words.
    """
    parser.add_argument(
        '--classes',
        type=Path,
        metavar='CSV',
        help=f'mid,name without header (default: {default_classes})',
    )
    parser.add_argument(
        '--index',
        type=Path,
        metavar='INDEX',
        help='annotation index, instead of --classes and --hierarchy',
    )
    parser.add_argument(
        '--expand',
        action='store_true',
        help='raise detections to the ancestors of their classes: of boxes of the same object, a '
        'class gets the one with the highest score among its own and its descendants',
    )
    parser.add_argument(
        '--hierarchy',
        type=Path,
        metavar='JSON',
        help="the hierarchy for --expand (default: the challenge's)",
    )


def read_label_space(args: argparse.Namespace) -> tuple[Classes | None, Hierarchy | None]:
    """Read the classes and the hierarchy of an index, or the classes.

    Returns:
        tuple: The classes, and the hierarchy of the index; each is :obj:`None` if not given.

    Raises:
        InputError: A file cannot be read, or arguments contradict each other.
    """
    if args.hierarchy is not None and not args.expand:
        raise InputError(f'--hierarchy {args.hierarchy}: expected --expand, which uses it')
    if args.index is not None:
        for name in 'classes', 'hierarchy':
            if getattr(args, name) is not None:
                raise InputError(f'--{name}: expected --index or --{name}, not both')
        index = AnnotationIndex.open(args.index)
        return index.classes, index.hierarchy
    return None if args.classes is None else read_classes(args.classes), None


def read_expansion(
    args: argparse.Namespace, classes: Classes, of_index: Hierarchy | None
) -> Hierarchy | None:
    """Read the hierarchy to expand by.

    Args:
        args (argparse.Namespace): With the arguments of :func:`add_expand`.
        classes (Classes): The classes of the detections.
        of_index (Hierarchy): The hierarchy of the index, if one is given.

    Returns:
        Hierarchy: The hierarchy of ``classes``, or :obj:`None` without ``--expand``.

    Raises:
        InputError: The file cannot be read, or no class has an ancestor.
    """
    if not args.expand:
        return None
    source = args.index or args.hierarchy or "the challenge's hierarchy"
    if of_index is not None:
        hierarchy = of_index
    elif args.hierarchy is not None:
        hierarchy = read_hierarchy(args.hierarchy, classes)
    else:
        hierarchy = _challenge_hierarchy_of(classes)
    if not hierarchy.ancestors.any():
        raise InputError(
            f'--expand: no class is an ancestor of another one in {source}, of the '
            f'{len(classes)} classes {", ".join(classes.mids[:3])}, ...; expected classes with '
            'their ancestors, by --classes or --index'
        )
    return hierarchy


def _challenge_hierarchy_of(classes: Classes) -> Hierarchy:
    challenge = challenge_classes()
    known = np.array([i for i, mid in enumerate(classes.mids) if mid in challenge.ids], np.int64)
    ids = np.array([challenge.ids[classes.mids[i]] for i in known], np.int64)
    ancestors = np.zeros((len(classes), len(classes)), bool)
    ancestors[np.ix_(known, known)] = challenge_hierarchy().ancestors[np.ix_(ids, ids)]
    return Hierarchy(ancestors)
