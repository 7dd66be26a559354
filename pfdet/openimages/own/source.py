"""What the reader of a format returns."""

import os
from dataclasses import dataclass, field

from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.photographs import SUFFIXES as PHOTOGRAPHS

#: Suffixes of image files, in the order of preference if an image has several.
SUFFIXES = [*PHOTOGRAPHS, *map(str.upper, PHOTOGRAPHS)]


@dataclass(frozen=True)
class Source:
    """A data set that was read.

    Attributes:
        annotations (AnnotationSet): The annotations.
        images (path): The directory of the image files.
        counts (dict): What was found in this format, by the names of :data:`FOUND`.
        missing (tuple of str): Image files that are listed, but do not exist, with the places.
    """

    annotations: AnnotationSet
    images: str | os.PathLike
    counts: dict[str, int] = field(default_factory=dict)
    missing: tuple[str, ...] = ()


#: Texts about the counts of a format.
FOUND = {
    'difficult': 'difficult objects',
    'below_one': 'boxes that begin before the first pixel, so that the coordinates may be those of '
    'edges (--coordinates edges)',
    'without_labels': 'images without a label file, which have no objects',
    'polygons': 'polygons, of which the box was taken',
    'without_size': 'images without a size in the annotations, so that of the file was taken',
}
