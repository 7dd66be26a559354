"""Lists of photographs: image files that no annotation names."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pfdet.errors import InputError
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id
from pfdet.openimages.image_files import folders_below

#: Suffixes of the files that are taken from a directory, in any case.
SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.bmp', '.tif', '.tiff', '.gif')


class Photograph(NamedTuple):
    """An image file.

    Attributes:
        path (path): The file.
        name (str): Its image id, different from those of all other files: its path below the given
            directory, without the suffix if no other file has the same.
    """

    path: Path
    name: str


def find_photographs(
    given: Sequence[Path], out: Path | None = None
) -> tuple[list[Photograph], list[str]]:
    """List photographs.

    Args:
        given (sequence of paths): Files, and directories, in which files with one of
            :data:`SUFFIXES` are searched, also in folders. Files and folders whose name starts with
            a dot are left out there.
        out (path): A directory that is left out, because results are written to it.

    Returns:
        tuple: The photographs, those of a directory sorted by folder and name, each file once; and
        one message per file whose name cannot be an image id.

    Raises:
        InputError: A path does not exist, a directory cannot be listed, or there is no photograph.
    """
    photographs, refused = [], []
    names: set[str] = set()
    seen: set[str] = set()
    for path, relative in _files(given, out):
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        name = normal_image_id(relative.rpartition('.')[0] or relative)
        if name is None:
            refused.append(f'{ascii(str(path))}: expected its name to be {IMAGE_ID}')
            continue
        name = _unused(name, path, names)
        names.add(name)
        photographs.append(Photograph(path, name))
    if not photographs:
        where = ', '.join(map(str, given[:3])) + (', ...' if len(given) > 3 else '')
        raise InputError(f'{where}: no photograph; expected files ending in {", ".join(SUFFIXES)}')
    return photographs, refused


def _files(given: Sequence[Path], out: Path | None) -> Iterator[tuple[Path, str]]:
    """Each file, and its path below the directory that was given."""
    left_out = None if out is None else os.path.realpath(out)
    for path in given:
        if not path.exists():
            raise InputError(f'{path}: no such file or directory; expected a photograph')
        if not path.is_dir():
            yield path, path.name
            continue
        if not os.access(path, os.R_OK | os.X_OK):
            raise InputError(f'{path}: cannot list the folder; expected a readable one')
        root = os.path.realpath(path)
        is_below = left_out is not None and left_out.startswith(os.path.join(root, ''))
        for folder, names in folders_below(path):
            if is_below and os.path.join(os.path.realpath(path / folder), '').startswith(
                os.path.join(left_out, '')
            ):
                continue
            for name in sorted(names):
                if not name.startswith('.') and name.lower().endswith(SUFFIXES):
                    yield path / folder / name, os.path.join(folder, name)


def _unused(name: str, path: Path, used: set[str]) -> str:
    """The name, or one close to it that no other file has."""
    suffix = normal_image_id(path.suffix.lstrip('.'))
    candidates = [name]
    if suffix:
        candidates.append(f'{name}.{suffix}')
    parent = normal_image_id(path.absolute().parent.name)
    if parent:
        candidates.append(f'{parent}/{name.rpartition("/")[2]}')
    for candidate in candidates:
        if candidate not in used:
            return candidate
    k = 2
    while f'{name}-{k}' in used:
        k += 1
    return f'{name}-{k}'
