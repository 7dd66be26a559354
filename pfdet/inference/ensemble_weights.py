"""Weights of the models of an ensemble for each class (PFDet, section 2.4)."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.files.json_file import read_object, shortened
from pfdet.openimages.classes import Classes, challenge_classes, read_classes


def class_weights(ap: np.ndarray, covered: np.ndarray, alpha: float) -> np.ndarray:
    r"""Compute the weight of each model for each class.

    Let :math:`s` be the validation AP of a model for a class, and :math:`\mu` and :math:`t` the
    mean and the maximum over the models that cover the class. The weight is :math:`\alpha` where
    :math:`s < \mu`, and else :math:`\frac{s - \mu}{t - \mu} + \alpha \frac{t - s}{t - \mu}`. It
    rises from :math:`\alpha` at the mean to 1 at the maximum.

    The paper does not define two cases. Here, all weights are 1 where :math:`t = \mu`, which
    happens if a single model covers the class or all models are equally good, and where the class
    has no AP. An expert contributes to the mean of the classes that it covers only.

    Args:
        ap (array): Validation AP :math:`(M, C)`, NaN where a class has none.
        covered (bool array): Whether the model can detect the class, :math:`(M, C)`.
        alpha (float): Weight below the mean, in [0, 1].

    Returns:
        float64 array: Weights :math:`(M, C)`, 0 where the model does not cover the class.

    Raises:
        ValueError: A class has an AP for some of the models that cover it, but not for all.
    """
    known = covered & ~np.isnan(ap)
    mixed = np.flatnonzero(known.any(axis=0) & (known != covered).any(axis=0))
    if len(mixed):
        raise ValueError(f'class {mixed[0]} has a score for some models but not for all')
    n = np.maximum(known.sum(axis=0), 1)
    score = np.where(known, ap, 0.0)
    best = np.where(known, ap, -np.inf).max(axis=0)
    # Compared with the minimum, because the mean of equal scores is subject to rounding.
    worst = np.where(known, ap, np.inf).min(axis=0)
    equal = ~(best > worst)
    mean = score.sum(axis=0) / n
    span = np.where(equal, 1.0, best - mean)
    share = np.where(equal, 1.0, (score - mean) / span)
    weight = np.where(share < 0, alpha, share + alpha * (1 - share))
    return np.where(covered, weight, 0.0)


def label_space(path: Path | None, model_mids: Sequence[Sequence[str] | None]) -> Classes:
    """Determine the classes of the ensemble.

    Args:
        path (path): A file of classes. With :obj:`None`, the classes are the union of
            ``model_mids``, and of the challenge's classes if a model does not list its own.
        model_mids (sequence): For each model, the MIDs of its classes, or :obj:`None`.

    Returns:
        Classes: The classes of the ensemble.

    Raises:
        InputError: The file cannot be read.
    """
    if path is not None:
        return read_classes(path)
    mids = dict.fromkeys(mid for listed in model_mids for mid in listed or ())
    if None in model_mids:
        mids = dict.fromkeys([*mids, *challenge_classes().mids])
    return Classes(tuple(mids), tuple(mids))


def model_weights(
    detections: Sequence[Path],
    model_mids: Sequence[Sequence[str] | None],
    scores: Sequence[Path] | None,
    classes: Classes,
    alpha: float,
) -> np.ndarray:
    """Compute the weight of each model for each class from score files.

    The classes of a model are those that its file of detections lists. If it does not, as in CSV,
    they are the classes of its score file, or all classes without score files.

    Args:
        detections (sequence of paths): File of detections of each model, for messages.
        model_mids (sequence): For each model, the MIDs of its classes as read by
            :func:`~pfdet.evaluation.detections.read_model_classes`.
        scores (sequence of paths): ``score.json`` of each model, or :obj:`None` for weights of 1.
        classes (Classes): The :math:`C` classes of the ensemble.
        alpha (float): See :func:`class_weights`.

    Returns:
        float64 array: Weights :math:`(M, C)`, 0 where a model does not cover a class.

    Raises:
        InputError: A score file is invalid or lacks a class of its model, a model has a class
            that is not in ``classes``, or different classes have ground truth in the score files.
    """
    score_paths = scores or ()
    aps = [read_scores(path) for path in score_paths]
    covered = np.ones((len(detections), len(classes)), bool)
    ap = np.full(covered.shape, np.nan)
    for m, mids in enumerate(model_mids):
        if mids is None and aps:
            mids = list(aps[m])
        if mids is None:
            continue
        unknown = [mid for mid in mids if mid not in classes.ids]
        if unknown:
            raise InputError(
                f'{detections[m]}: its model has class {unknown[0]!r}, which is not one '
                f'of the {len(classes)} classes'
            )
        covered[m] = False
        covered[m, [classes.ids[mid] for mid in mids]] = True
        for mid in mids if aps else ():
            if mid not in aps[m]:
                raise InputError(
                    f'{score_paths[m]}: no AP of {mid}, a class of {detections[m]}; '
                    "expected the same model's score.json"
                )
            ap[m, classes.ids[mid]] = aps[m][mid]
    if not aps:
        return covered.astype(np.float64)
    for c in np.flatnonzero((covered & ~np.isnan(ap)).any(axis=0)):
        missing = np.flatnonzero(covered[:, c] & np.isnan(ap[:, c]))
        if len(missing):
            other = int(np.flatnonzero(covered[:, c] & ~np.isnan(ap[:, c]))[0])
            raise InputError(
                f'{score_paths[missing[0]]}: AP of {classes.mids[c]} is null, but a number in '
                f'{score_paths[other]}; expected scores on the same images'
            )
    return class_weights(ap, covered, alpha)


def read_scores(path: Path) -> dict[str, float]:
    """Read the AP of each class from a ``score.json``.

    Args:
        path (path): The file.

    Returns:
        dict: From MID to AP in [0, 1], NaN for classes without ground truth.

    Raises:
        InputError: The file cannot be read, or an AP is invalid.
    """
    ap = read_object(path, 'scores written by evaluate/score.py, with AP by class', AP=dict)['AP']
    for mid, value in ap.items():
        if value is not None and not (
            type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1
        ):
            raise InputError(
                f'{path}: AP of {mid} is {shortened(value)}; expected a number from 0 to 1, or null'
            )
    return {mid: math.nan if value is None else float(value) for mid, value in ap.items()}
