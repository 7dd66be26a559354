"""Images without annotations, in the form of the tables of a split."""

import os
import unicodedata
from collections.abc import Callable

import numpy as np
import pyarrow as pa

from pfdet.errors import InputError
from pfdet.openimages.annotation_files import AnnotationTables, ReadOptions
from pfdet.openimages.arrow_arrays import from_numbers, from_strings
from pfdet.openimages.csv_columns import as_paths
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id
from pfdet.openimages.image_files import (
    SUFFIXES,
    ImageFiles,
    check_image_directory,
    folders_below,
)
from pfdet.openimages.image_ids import contains, read_image_ids
from pfdet.openimages.tables import BoxTable, no_image_labels


def unannotated_images(
    images: str | os.PathLike, options: ReadOptions, find_files: Callable[[list[str]], ImageFiles]
) -> AnnotationTables:
    """List images without annotations.

    Args:
        images (path): Directory of the image files.
        options (ReadOptions): With ``ids``, these are the images. By default, all image files in
            the directory and its folders are: see :func:`ids_of_files`. Those of ``exclude_ids``
            are left out.
        find_files (callable): From a list of image ids to their files.

    Returns:
        AnnotationTables: Without boxes and image labels. ``files`` is the result of ``find_files``;
        a message about each file whose name cannot be an image id is among its ``unreadable``. The
        count ``same_id`` is the number of files that have the image id of another one in the same
        folder.

    Raises:
        InputError: A list cannot be read, there is no image, or the options are about annotations.
    """
    for name in 'machine_labels', 'exhaustive', 'pixels':
        if getattr(options, name):
            raise InputError(f'--{name.replace("_", "-")}: needs --boxes')
    counts = {'listed': 0, 'listed_missing': 0, 'excluded': 0, 'same_id': 0}
    refused: list[str] = []
    if options.ids is not None:
        ids = read_image_ids(options.ids)
        counts['listed'] = len(ids)
    else:
        found, counts['same_id'], refused = ids_of_files(images)
        ids = from_strings(found)
        if not found:
            raise InputError(
                f'{images}: no image file; expected files ending in {", ".join(SUFFIXES)}'
            )
    if options.exclude_ids is not None:
        excluded = contains(ids, read_image_ids(options.exclude_ids))
        if not excluded.any():
            names = ', '.join(map(str, as_paths(options.exclude_ids)))
            raise InputError(
                f'{names}: none of its images is among the {len(ids):,} images; expected ids such '
                f'as {ids[0].as_py()!r}'
            )
        counts['excluded'] = int(excluded.sum())
        if excluded.all():
            raise InputError('--exclude-ids leaves none of the images')
        ids = ids.take(from_numbers(np.flatnonzero(~excluded).astype(np.int32)))
    files = find_files(ids.to_pylist())
    files.unreadable += refused
    if options.ids is not None:
        counts['listed_missing'] = len(files.missing)
    counts.update(expanded=0, expanded_in_part=0)
    return AnnotationTables(ids, _no_boxes(ids), no_image_labels(ids), counts, files)


def ids_of_files(images: str | os.PathLike) -> tuple[list[str], int, list[str]]:
    """Give each image file below a directory an image id.

    The id is the name of the file without its suffix. Files of the same name in several folders
    have their folder in front, as in ``day1/0001``. Files and folders whose name starts with a dot
    are left out.

    Args:
        images (path): The directory.

    Returns:
        tuple: The ids, sorted; the number of files that have the id of another one in the same
        folder; and one message per file whose name cannot be an image id.

    Raises:
        InputError: There is no such directory, or a folder cannot be listed.
    """
    check_image_directory(images)
    folders_of: dict[str, list[str]] = {}
    n_same, refused = 0, []
    for folder, names in folders_below(images):
        in_folder = set()
        for name in sorted(names):
            stem, suffix = os.path.splitext(name)
            if suffix not in SUFFIXES or name.startswith('.'):
                continue
            image_id = normal_image_id(stem)
            # Files are looked up by their folder as it is, and by the composed form of their name.
            if image_id != unicodedata.normalize('NFC', stem) or (
                folder and normal_image_id(folder) != folder
            ):
                path = os.path.join(images, folder, name)
                refused.append(f'{ascii(path)}: expected its name to be {IMAGE_ID}')
            elif image_id in in_folder:
                n_same += 1
            else:
                in_folder.add(image_id)
                folders_of.setdefault(image_id, []).append(folder)
    ids = [
        f'{folder}/{image_id}' if folder and len(folders) > 1 else image_id
        for image_id, folders in folders_of.items()
        for folder in folders
    ]
    return sorted(ids), n_same, refused


def _no_boxes(ids: pa.Array) -> BoxTable:
    names = ('rows', 'boxes', 'clipped', 'unknown_class', 'degenerate', 'rewritten')
    return BoxTable(
        ids,
        np.zeros(0, np.int32),
        np.zeros(0, np.int32),
        np.zeros((0, 4), np.float32),
        np.zeros(0, np.uint8),
        dict.fromkeys(names, 0),
        {},
    )
