"""Write the index of a set of annotations."""

import os
from collections.abc import Mapping

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.annotation_columns import annotation_columns, file_columns, id_columns
from pfdet.openimages.annotation_set import AnnotationSet
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy
from pfdet.openimages.index import write_index
from pfdet.openimages.set_images import SetImages
from pfdet.openimages.tables import BoxTable, ImageLabelTable


def write_set_index(
    out: str | os.PathLike,
    annotations: AnnotationSet,
    images: str | os.PathLike,
    found: SetImages,
    boxes: BoxTable,
    labels: ImageLabelTable,
    classes: Classes,
    hierarchy: Hierarchy,
    counts: Mapping[str, int],
    annotated: np.ndarray | None = None,
) -> tuple[dict[str, int], int]:
    """Write an index. The file appears when it is complete.

    Args:
        out (path): The index file.
        annotations (AnnotationSet): The annotations.
        images (path): The directory of the image files.
        found (SetImages): The image files.
        boxes (BoxTable): The boxes of the same images.
        labels (ImageLabelTable): The verified classes of the same images.
        classes (Classes): The label space.
        hierarchy (Hierarchy): The hierarchy of ``classes``.
        counts (mapping): Counts of the format.
        annotated (array): See :attr:`~pfdet.openimages.index.AnnotationIndex.annotated`.

    Returns:
        tuple: The counts of the index, and its size in bytes. The counts are ``images``,
        ``objects``, ``labels``, ``positive`` and ``negative`` in the index, those given, and the
        images without a file (``missing``), with an ``unreadable`` file, and with a file of another
        size of the same shape (``resized``).

    Raises:
        InputError: If ``out`` cannot be written.
    """
    files, kept = found.files, found.kept
    columns, _ = annotation_columns(boxes, labels, kept, len(classes))
    columns.update(id_columns(annotations.image_ids[kept].tolist()))
    columns.update(file_columns(files, kept))
    all_counts = {
        'images': int(kept.sum()),
        'objects': len(columns['bbox']),
        'labels': len(columns['label']),
        'positive': len(columns['positive']),
        'negative': len(columns['negative']),
        **counts,
        'missing': len(files.missing),
        'unreadable': len(files.unreadable),
        'resized': found.resized,
    }
    try:
        size = write_index(
            out,
            columns,
            classes,
            hierarchy,
            images,
            found.suffixes,
            all_counts,
            annotated,
            files.folders,
            files.file_names,
        )
    except OSError as e:
        raise InputError(f'{out}: cannot write the index: {e.strerror or e}') from e
    return all_counts, size
