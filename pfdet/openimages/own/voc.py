"""Read a Pascal VOC data set: an XML file per image.

An image's id is the name of its XML file without suffix, as in VOC. ``filename`` in the XML is not
read, because tools leave it as it is when files are renamed. Parts of objects are left out.
"""

import os
from pathlib import Path

import numpy as np
from tqdm import tqdm

from pfdet.errors import InputError
from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.identifiers import IMAGE_ID, normal_image_id
from pfdet.openimages.image_files import check_image_directory, folders_below
from pfdet.openimages.own.source import SUFFIXES, Source
from pfdet.openimages.own.voc_xml import VocObject, VocXml, read_voc_xml

#: What becomes of difficult objects.
DIFFICULT = ('group-of', 'keep', 'skip')
#: What coordinates in pixels mean.
COORDINATES = ('voc', 'edges')


def read_voc(
    annotations: str | os.PathLike,
    images: str | os.PathLike | None = None,
    difficult: str = 'group-of',
    coordinates: str = 'voc',
) -> Source:
    """Read a Pascal VOC data set.

    Args:
        annotations (path): The directory of the XML files, which may be in folders; or a directory
            with a folder ``Annotations``.
        images (path): The directory of the image files. By default ``JPEGImages`` beside
            ``Annotations`` if there is one, and otherwise that of the XML files.
        difficult (str): ``'group-of'``: difficult objects get the group-of flag, so that training
            ignores regions in them. ``'keep'``: they are objects like others. ``'skip'``: they are
            left out, and their class is not verified in the image.
        coordinates (str): ``'voc'``: pixels are counted from 1 and ``xmax`` is the last pixel of
            the box, as in VOC's own files. ``'edges'``: coordinates are those of the edges, from 0
            to the width.

    Returns:
        Source: The annotations. The classes are sorted by name.

    Raises:
        InputError: If there is no XML file, or one cannot be read or is malformed. The message
            names the file and the line.
    """
    folder = _annotation_directory(annotations)
    if images is None:
        beside = folder.parent / 'JPEGImages'
        images = beside if folder.name == 'Annotations' and beside.is_dir() else folder
    check_image_directory(images)
    paths = _xml_files(folder)
    ids = sorted(paths)
    bar = tqdm(ids, desc='annotations', unit='image', disable=None)
    files = [read_voc_xml(os.path.join(folder, paths[image_id])) for image_id in bar]
    objects = [o for file in files for o in file.objects]
    names = sorted({o.name for o in objects})
    below_one = [o for o in objects if coordinates == 'voc' and min(o.x_min, o.y_min) < 1]
    return Source(
        _annotation_set(folder, ids, files, names, difficult, coordinates),
        images,
        {
            'difficult': sum(o.difficult for o in objects),
            'below_one': len(below_one),
            'without_size': sum(file.size == (0, 0) for file in files),
        },
    )


def _annotation_directory(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.is_dir():
        raise InputError(f'{path}: no such directory; expected the one of the XML files')
    return path / 'Annotations' if (path / 'Annotations').is_dir() else path


def _xml_files(root: Path) -> dict[str, str]:
    """Return the paths of the XML files below a directory, by image id.

    The id is the name of the file. Of files of the same name in several folders, it is the path.
    """
    of_name: dict[str, list[str]] = {}
    for folder, names in folders_below(root):
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix.lower() == '.xml' and not name.startswith('.'):
                of_name.setdefault(stem, []).append(os.path.join(folder, name))
    if not of_name:
        raise InputError(f'{root}: no XML file; expected one per image, as of Pascal VOC')
    found: dict[str, str] = {}
    for stem, paths in of_name.items():
        for path in paths:
            text = stem if len(paths) == 1 else os.path.splitext(path)[0]
            image_id = normal_image_id(text)
            if image_id is None:
                where = ascii(os.path.join(root, path))
                raise InputError(f'{where}: expected its name to be {IMAGE_ID}')
            if image_id in found:
                raise InputError(
                    f'{os.path.join(root, path)}: the same image as {found[image_id]}; expected '
                    'one XML file per image'
                )
            found[image_id] = path
    return found


def _annotation_set(
    folder: Path,
    ids: list[str],
    files: list[VocXml],
    names: list[str],
    difficult: str,
    coordinates: str,
) -> AnnotationSet:
    number = {name: k for k, name in enumerate(names)}
    rows = [(i, o) for i, file in enumerate(files) for o in file.objects]
    first = 1.0 if coordinates == 'voc' else 0.0
    is_difficult = np.array([o.difficult for _, o in rows], bool)
    flags = np.array([o.flags for _, o in rows], np.uint8)
    if difficult == 'group-of':
        flags[is_difficult] |= GROUP_OF

    def place(a: int) -> str:
        i, o = rows[a]
        return f'{files[i].path}, line {o.line}'

    return AnnotationSet(
        str(folder),
        tuple(names),
        np.array([*ids, None], object)[:-1],
        SUFFIXES,
        None,
        np.array([file.size for file in files], np.int32).reshape(-1, 2),
        np.array([i for i, _ in rows], np.int32),
        np.array([number[o.name] for _, o in rows], np.int32),
        np.array([_corners(o, first) for _, o in rows], np.float64).reshape(-1, 4),
        False,
        flags,
        place,
        lambda i: f'{files[i].path}, line {files[i].line_of_size}',
        is_difficult if difficult == 'skip' else None,
    )


def _corners(o: VocObject, first: float) -> tuple[float, float, float, float]:
    return o.y_min - first, o.x_min - first, o.y_max, o.x_max
