"""The indexes and weights that the runs of a directory were made with."""

from collections.abc import Mapping
from pathlib import Path

from pfdet.errors import InputError
from pfdet.files.checksum import file_checksum
from pfdet.files.json_file import read_object, write_json
from pfdet.training.tables.halves import image_ids


def check_inputs(out: Path, files: Mapping[str, Path]) -> None:
    """Refuse to continue the runs of a directory with other data.

    The first call writes the checksums of the files to ``inputs.json``.

    Args:
        out (path): Directory of the runs.
        files (mapping): Indexes and weights by the flag that names them.

    Raises:
        InputError: A file cannot be read, or is another than before.
    """
    path = out / 'inputs.json'
    before = read_object(path, 'checksums of the inputs') if path.exists() else {}
    now = {}
    for flag, file in files.items():
        try:
            now[flag] = file_checksum(file)
        except OSError as e:
            raise InputError(f'{flag} {file}: {e.strerror or e}') from e
        if before.get(flag, now[flag]) != now[flag]:
            raise InputError(
                f'{flag} {file}: the runs in {out} used another file; give another --out, or the '
                'same file to resume'
            )
    if before != {**before, **now}:
        write_json(path, {**before, **now})


def check_disjoint(weights_index: Path, val_index: Path) -> None:
    """Refuse class weights from images that they are applied to.

    Args:
        weights_index (path): Index of the images that class weights are computed on.
        val_index (path): Index of the images that are scored.

    Raises:
        InputError: The indexes share an image.
    """
    shared = image_ids(weights_index) & image_ids(val_index)
    if shared:
        raise InputError(
            f'--weights-index {weights_index}: {len(shared)} of its images are scored too, such as '
            f'{min(shared)} in {val_index}; expected other images'
        )
