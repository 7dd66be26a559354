"""The image files of a split of a YOLO data set: a directory, several, or lists of files."""

import os
from typing import NamedTuple

from pfdet.errors import InputError
from pfdet.files.json_file import shortened
from pfdet.openimages.image_files import folders_below
from pfdet.openimages.own.data_yaml import DataYaml, Entry
from pfdet.openimages.own.source import SUFFIXES
from pfdet.openimages.text_files import open_utf8, text_lines
from pfdet.similar_names import expected_name

_MAX_LIST = 1 << 30


class FoundImages(NamedTuple):
    """Image files.

    Attributes:
        root (str): A directory that all files are below.
        names (list of str): Their paths below it.
        missing (tuple of str): Listed files that do not exist, with file and line.
    """

    root: str
    names: list[str]
    missing: tuple[str, ...] = ()


def images_below(root: str | os.PathLike) -> FoundImages:
    """List the image files in a directory and its folders.

    Raises:
        InputError: If there are none, or a folder cannot be listed.
    """
    names = [
        os.path.join(folder, name)
        for folder, files in folders_below(root)
        for name in files
        if os.path.splitext(name)[1] in SUFFIXES and not name.startswith('.')
    ]
    if not names:
        raise InputError(
            f'{root}: no image file; expected files ending in {", ".join(SUFFIXES[:3])} ...'
        )
    return FoundImages(os.fspath(root), names)


def images_of_split(data: DataYaml, split: str) -> FoundImages:
    """List the image files of a split.

    Paths are relative to ``path`` of the ``data.yaml``, or to its own directory. As Roboflow writes
    ``../train/images`` for a directory beside the file, ``../`` is left out if that helps.

    Args:
        data (DataYaml): The data set.
        split (str): Such as ``'train'``.

    Raises:
        InputError: If the data set has no such split, an entry is neither a directory nor a list,
            or there are no images.
    """
    if split not in data.splits:
        raise InputError(
            f'{data.path}: no images of the split {shortened(split)}; '
            f'{expected_name(split, data.splits) if data.splits else "expected train or --images"}'
        )
    bases = _bases(data)
    parts: list[FoundImages] = []
    for entry in data.splits[split]:
        paths = [path for base in bases for path in _readings(base, entry.text)]
        existing = [path for path in paths if os.path.exists(path)]
        if not existing:
            raise InputError(
                f'{data.path}, line {entry.line}: {split} is {shortened(entry.text)}, but there is '
                f'no {paths[0]}; expected a directory of images, or --images DIR'
            )
        path = existing[0]
        parts.append(images_below(path) if os.path.isdir(path) else _listed(path, bases))
    return parts[0] if len(parts) == 1 else _joined(parts)


def _bases(data: DataYaml) -> list[str]:
    own = os.path.dirname(os.path.abspath(data.path))
    if data.root is None:
        return [own]
    return [os.path.join(own, data.root.text), own]


def _readings(base: str, text: str) -> list[str]:
    path = os.path.normpath(os.path.join(base, text))
    if text.startswith('../'):
        return [path, os.path.normpath(os.path.join(base, text[3:]))]
    return [path]


def _listed(path: str, bases: list[str]) -> FoundImages:
    """Read a list of image files, one per line."""
    found, missing, first = {}, [], None
    folder = os.path.dirname(path)
    with open_utf8(path, 'list of images', _MAX_LIST) as (_, stream):
        for number, line in enumerate(text_lines(stream), 1):
            text = line.strip()
            if not text:
                continue
            first = first or Entry(text, number)
            # Darknet's lists begin with data/, which is not a folder of the data set.
            texts = [text, text[5:]] if text.startswith('data/') else [text]
            paths = [
                os.path.normpath(os.path.join(base, t)) for t in texts for base in (*bases, folder)
            ]
            existing = [p for p in paths if os.path.isfile(p)]
            if existing:
                found[existing[0]] = number
            else:
                missing.append(f'{path}, line {number}: {shortened(text)}')
    if first is None:
        raise InputError(f'{path}: no images; expected the path of an image on each line')
    if not found:
        raise InputError(
            f'{path}, line {first.line}: there is no image {shortened(first.text)}, nor another of '
            'the list; expected paths below the directory of the data set'
        )
    return _below_common(list(found), tuple(missing))


def _below_common(paths: list[str], missing: tuple[str, ...]) -> FoundImages:
    paths = [os.path.abspath(path) for path in paths]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])
    return FoundImages(root, [os.path.relpath(path, root) for path in paths], missing)


def _joined(parts: list[FoundImages]) -> FoundImages:
    paths = dict.fromkeys(
        os.path.abspath(os.path.join(part.root, name)) for part in parts for name in part.names
    )
    return _below_common(list(paths), tuple(text for part in parts for text in part.missing))
