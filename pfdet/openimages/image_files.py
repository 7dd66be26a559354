"""Find the image files of a split and read their sizes."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.openimages.images import image_size

SUFFIXES = ['.jpg', '.jpeg', '.png', '.JPG', '.JPEG', '.PNG']


@dataclass
class ImageFiles:
    """The image files of a split with ``N`` images.

    Attributes:
        size (array): int32 ``(N, 2)``, height and width in pixels; 0 without a readable file.
        suffix (array): uint8 ``(N,)``, positions in :data:`SUFFIXES`.
        missing (list of str): Image ids without a file.
        unreadable (list of str): One error message per file that is not a readable image.
    """

    size: np.ndarray
    suffix: np.ndarray
    missing: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


def find_image_files(
    root: str | os.PathLike, image_ids: Sequence[str], n_thread: int = 8
) -> ImageFiles:
    """Find the file of every image and read the image size from the file header.

    Args:
        root (path): Directory of the image files.
        image_ids (sequence of str): File names without suffix.
        n_thread (int): Threads, which hide the latency of the disk.

    Returns:
        ImageFiles: Sizes, suffixes, and missing or unreadable files.
    """
    files = ImageFiles(np.zeros((len(image_ids), 2), np.int32), np.zeros(len(image_ids), np.uint8))
    try:
        names = set(os.listdir(root)) if len(image_ids) else set()
    except OSError:
        files.missing = list(image_ids)
        return files
    chunks = list(_chunks(len(image_ids), 512))
    with (
        ThreadPoolExecutor(n_thread) as pool,
        tqdm(total=len(image_ids), desc='image sizes', unit='image', disable=None) as bar,
    ):
        for chunk, (missing, unreadable) in zip(
            chunks,
            pool.map(lambda chunk: _find_chunk(Path(root), names, image_ids, chunk, files), chunks),
        ):
            files.missing += missing
            files.unreadable += unreadable
            bar.update(len(chunk))
    return files


def _chunks(n: int, size: int) -> Iterator[range]:
    for start in range(0, n, size):
        yield range(start, min(start + size, n))


def _find_chunk(
    root: Path, names: set[str], image_ids: Sequence[str], chunk: range, files: ImageFiles
) -> tuple[list[str], list[str]]:
    missing, unreadable = [], []
    prefix = os.path.join(root, '')
    for i in chunk:
        image_id = image_ids[i]
        for code, suffix in enumerate(SUFFIXES):
            name = image_id + suffix
            # The listing of the directory does not contain files of subdirectories.
            if name in names or '/' in name and os.path.exists(prefix + name):
                files.suffix[i] = code
                try:
                    files.size[i] = image_size(prefix + name)
                except InputError as e:
                    unreadable.append(str(e))
                break
        else:
            missing.append(image_id)
    return missing, unreadable
