"""Find the image files of a split and read their sizes."""

import os
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.openimages.images import image_size

SUFFIXES = ['.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG', '.webp', '.WEBP']


@dataclass
class ImageFiles:
    """The image files of a split with ``N`` images.

    Attributes:
        size (array): int32 ``(N, 2)``, height and width in pixels; 0 without a readable file.
        suffix (array): uint8 ``(N,)``, positions in the list of suffixes, :data:`SUFFIXES` by
            default.
        folder (array): int32 ``(N,)``, positions in ``folders``.
        folders (list of str): Folders below the directory of the images, ``''`` first.
        file_names (dict): From image id to path below that directory, of the files whose names are
            in another Unicode normalization than the ids.
        missing (list of str): Image ids without a file.
        unreadable (list of str): One error message per file that is not a readable image.
        repeated (list of str): Image ids with a file in several folders.
    """

    size: np.ndarray
    suffix: np.ndarray
    folder: np.ndarray
    folders: list[str] = field(default_factory=lambda: [''])
    file_names: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def check_image_directory(images: str | os.PathLike) -> None:
    """Refuse a directory of image files that is missing.

    Raises:
        InputError: There is no such directory, or it cannot be read.
    """
    if not os.path.isdir(images):
        raise InputError(f'{images}: no such directory; expected the one of the image files')
    if not os.access(images, os.R_OK | os.X_OK):
        raise InputError(f'{images}: cannot be read; expected a readable directory of image files')


def find_image_files(
    root: str | os.PathLike,
    image_ids: Sequence[str],
    n_thread: int = 8,
    suffixes: Sequence[str] = SUFFIXES,
    suffix_of: np.ndarray | None = None,
) -> ImageFiles:
    """Find the file of every image and read the image size from the file header.

    The files may be in folders, such as one per class or per first digit of the id. Each folder is
    listed once; folders whose name starts with a dot are not. If several folders have a file of an
    image, the one nearest to ``root`` is taken, and of these the first by name.

    Args:
        root (path): Directory of the image files.
        image_ids (sequence of str): File names without suffix, in normal form (see
            :mod:`pfdet.openimages.identifiers`).
        n_thread (int): Threads, which hide the latency of the disk.
        suffixes (sequence of str): The suffixes of image files, in order of preference.
        suffix_of (array): uint8 ``(N,)``, the suffix of each file. By default any of ``suffixes``.

    Returns:
        ImageFiles: Sizes, suffixes, folders, and missing or unreadable files.

    Raises:
        InputError: If a folder cannot be listed, or two files in a folder have names that differ
            only in their Unicode normalization.
    """
    n_image = len(image_ids)
    files = ImageFiles(
        np.zeros((n_image, 2), np.int32), np.zeros(n_image, np.uint8), np.zeros(n_image, np.int32)
    )
    found = _find(root, image_ids, files, suffixes, suffix_of)
    files.missing = [image_ids[i] for i in np.flatnonzero(~found).tolist()]
    chunks = np.array_split(np.flatnonzero(found), max(1, n_image // 512))
    with (
        ThreadPoolExecutor(n_thread) as pool,
        tqdm(total=int(found.sum()), desc='image sizes', unit='image', disable=None) as bar,
    ):
        work = pool.map(lambda chunk: _read_sizes(root, image_ids, chunk, files, suffixes), chunks)
        for chunk, unreadable in zip(chunks, work):
            files.unreadable += unreadable
            bar.update(len(chunk))
    return files


def _find(
    root: str | os.PathLike,
    image_ids: Sequence[str],
    files: ImageFiles,
    suffixes: Sequence[str],
    suffix_of: np.ndarray | None,
) -> np.ndarray:
    """Set folders, suffixes and unusual file names; return which images have a file."""
    position = {image_id: i for i, image_id in enumerate(image_ids)}
    has_folders = any('/' in image_id for image_id in image_ids)
    code_of = {suffix: code for code, suffix in enumerate(suffixes)}
    found = np.zeros(len(image_ids), bool)
    repeated = set()
    # Ids are looked up in the listings, and never joined to the path of the directory.
    for folder, names in folders_below(root):
        in_folder: dict[int, str] = {}
        for name in names:
            stem, suffix = os.path.splitext(name)
            code = code_of.get(suffix)
            if code is None:
                continue
            image_id = stem if stem.isascii() else unicodedata.normalize('NFC', stem)
            i = position.get(f'{folder}/{image_id}') if has_folders and folder else None
            below = i is not None
            i = position.get(image_id) if i is None else i
            if i is None or (suffix_of is not None and code != suffix_of[i]):
                continue
            if i in in_folder:
                _check_twins(root, folder, in_folder[i], name)
                if code > code_of[os.path.splitext(in_folder[i])[1]]:
                    continue
            elif found[i]:
                repeated.add(i)
                continue
            in_folder[i] = name
            files.suffix[i] = code
            files.folder[i] = 0 if below else len(files.folders) - (folder == '')
            files.file_names.pop(image_ids[i], None)
            if image_id != stem:
                files.file_names[image_ids[i]] = os.path.join(folder, name)
        found[list(in_folder)] = True
        if folder and in_folder:
            files.folders.append(folder)
        if found.all():
            break
    files.repeated = [image_ids[i] for i in sorted(repeated)]
    return found


def _check_twins(root: str | os.PathLike, folder: str, a: str, b: str) -> None:
    if os.path.splitext(a)[1] == os.path.splitext(b)[1]:
        raise InputError(
            f'{os.path.join(root, folder)}: the files {ascii(a)} and {ascii(b)} have the same name '
            'in two forms of Unicode; expected one of them'
        )


def folders_below(root: str | os.PathLike) -> Iterator[tuple[str, list[str]]]:
    """List a directory and all folders below it, those of the same depth by name.

    Folders whose name starts with a dot are left out.

    Args:
        root (path): The directory.

    Yields:
        tuple: The path of the folder below ``root`` and its regular files. Nothing if there is no
        directory ``root``.

    Raises:
        InputError: A folder below ``root`` cannot be listed.
    """
    level, visited = [''], set()
    while level:
        below = []
        for folder in level:
            path = os.path.join(root, folder)
            try:
                status = os.stat(path)
                # A symbolic link may lead to a folder above.
                if (status.st_dev, status.st_ino) in visited:
                    continue
                visited.add((status.st_dev, status.st_ino))
                names = []
                with os.scandir(path) as entries:
                    for entry in entries:
                        if entry.is_file():
                            names.append(entry.name)
                        elif entry.is_dir() and not entry.name.startswith('.'):
                            below.append(os.path.join(folder, entry.name))
            except OSError as e:
                if not folder:
                    return
                raise InputError(
                    f'{path}: cannot list the folder: {e.strerror or e}; expected a readable '
                    'folder of images'
                ) from e
            yield folder, names
        level = sorted(below)


def _read_sizes(
    root: str | os.PathLike,
    image_ids: Sequence[str],
    chunk: np.ndarray,
    files: ImageFiles,
    suffixes: Sequence[str],
) -> list[str]:
    unreadable = []
    for i in chunk.tolist():
        image_id = image_ids[i]
        name = files.file_names.get(image_id) or os.path.join(
            files.folders[files.folder[i]], image_id + suffixes[files.suffix[i]]
        )
        try:
            files.size[i] = image_size(os.path.join(root, name))
        except InputError as e:
            unreadable.append(str(e))
    return unreadable
