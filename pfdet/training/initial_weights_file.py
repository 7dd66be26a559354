"""The file with the weights that a run starts from: its kind and checksum."""

import contextlib
from pathlib import Path
from typing import Any

from pfdet.errors import InputError
from pfdet.files.checksum import file_checksum
from pfdet.links.backbone_file import is_backbone_file
from pfdet.recipes.initial_weights import BACKBONE, DETECTOR
from pfdet.training import model_directory


def initial_weights_facts(init: Path | None) -> dict[str, Any]:
    """Describe the weights that a run starts from, for ``"run"`` in its ``recipe.json``.

    Args:
        init (path): A backbone file, the ``model.npz`` of a run, or :obj:`None` for random weights.

    Returns:
        dict: ``random_weights`` (bool) and ``init`` (str or :obj:`None`), the file; with a file
        also ``init_sha256``, its checksum in hexadecimal, ``init_kind``, ``'backbone'`` or
        ``'detector'``, and ``init_recipe``, the name of the detector's recipe, or :obj:`None` if
        no ``recipe.json`` next to the file says it.

    Raises:
        InputError: The file cannot be read.
    """
    if init is None:
        return {'random_weights': True, 'init': None}
    kind = BACKBONE if is_backbone_file(init) else DETECTOR
    name = None
    if kind == DETECTOR:
        # The weights can be used without a recipe.json of their run.
        with contextlib.suppress(InputError):
            name = model_directory.read_recipe(init.parent).recipe.name
    return {
        'random_weights': False,
        'init': str(init),
        'init_sha256': _checksum(init),
        'init_kind': kind,
        'init_recipe': name,
    }


def check_backbone(path: Path) -> None:
    """Refuse a file that is not a backbone file.

    Raises:
        InputError: It has the weights of a detector, or cannot be read.
    """
    if not is_backbone_file(path):
        raise InputError(
            f'--backbone {path}: not a backbone file; expected one written by pfdet convert '
            '(--init also takes the model.npz of a run)'
        )


def _checksum(path: Path) -> str:
    try:
        return file_checksum(path)
    except OSError as e:
        raise InputError(f'{path}: {e.strerror or e}') from e
