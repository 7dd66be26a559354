"""What each model of an ensemble has to say on each class (PFDet, section 2.4)."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pfdet.errors import InputError
from pfdet.openimages.classes import Classes, challenge_classes, read_classes


def class_weights(ap: np.ndarray, has: np.ndarray, alpha: float) -> np.ndarray:
    r"""The weights of classes for each model of an ensemble.

    For class :math:`c` and model :math:`m` with validation score :math:`s`, with the mean
    :math:`\mu` and the best :math:`t` over the models that can tell the class: :math:`\alpha` where
    :math:`s < \mu`, and else
    :math:`\frac{s - \mu}{t - \mu} + \alpha \frac{t - s}{t - \mu}`, which goes from :math:`\alpha`
    at the mean to 1 at the best.

    The paper leaves open, and this is the choice here: all weights are 1 where :math:`t = \mu`,
    that is where one model alone can tell the class or all do equally well; and where the class
    has no score, since then nothing is known of who is better. An expert takes part in the mean of
    its classes alone.

    Args:
        ap (array): :math:`(M, C)`, validation scores; NaN where a class has none.
        has (bool array): :math:`(M, C)`, whether the model can tell the class.
        alpha (float): In [0, 1].

    Returns:
        float64 array: :math:`(M, C)`; 0 where the model cannot tell the class.

    Raises:
        ValueError: A class has a score for some of the models that can tell it, but not for all.
    """
    known = has & ~np.isnan(ap)
    mixed = np.flatnonzero(known.any(axis=0) & (known != has).any(axis=0))
    if len(mixed):
        raise ValueError(f'class {mixed[0]} has a score for some models but not for all')
    n = np.maximum(known.sum(axis=0), 1)
    score = np.where(known, ap, 0.0)
    best = np.where(known, ap, -np.inf).max(axis=0)
    # The mean of equal scores may be off by rounding.
    worst = np.where(known, ap, np.inf).min(axis=0)
    equal = ~(best > worst)
    mean = score.sum(axis=0) / n
    span = np.where(equal, 1.0, best - mean)
    share = np.where(equal, 1.0, (score - mean) / span)
    weight = np.where(share < 0, alpha, share + alpha * (1 - share))
    return np.where(has, weight, 0.0)


def label_space(path: Path | None, told: Sequence[Sequence[str] | None]) -> Classes:
    """The classes of all models.

    Args:
        path (path): A file of classes, or :obj:`None` for those that the detections tell, and
            those of the challenge where some tell none.
        told (sequence): The MIDs of each model, or :obj:`None`.

    Raises:
        InputError: The file cannot be read.
    """
    if path is not None:
        return read_classes(path)
    mids = dict.fromkeys(mid for each in told for mid in each or ())
    if None in told:
        mids = dict.fromkeys([*mids, *challenge_classes().mids])
    return Classes(tuple(mids), tuple(mids))


def model_weights(
    detections: Sequence[Path],
    told: Sequence[Sequence[str] | None],
    scores: Sequence[Path] | None,
    classes: Classes,
    alpha: float,
) -> np.ndarray:
    """The weights of classes for each model, from files.

    A model's classes are those that its detections tell; where they do not, as in CSV, those of
    its scores; without scores, all.

    Args:
        detections (sequence of paths): Of each model, for messages.
        told (sequence): The MIDs of each model as
            :func:`~pfdet.evaluation.detections.read_model_classes` finds them.
        scores (sequence of paths): ``score.json`` of each model, or :obj:`None` for weights of 1.
        classes (Classes): The classes of all.
        alpha (float): See :func:`class_weights`.

    Returns:
        float64 array: :math:`(M, C)`; 0 where a model cannot tell a class.

    Raises:
        InputError: A model's scores say nothing of a class of its, or models were scored where
            different classes have ground truth.
    """
    aps = [read_scores(path) for path in scores or ()]
    has = np.ones((len(detections), len(classes)), bool)
    ap = np.full(has.shape, np.nan)
    for m, mids in enumerate(told):
        if mids is None and aps:
            mids = list(aps[m])
        if mids is None:
            continue
        unknown = [mid for mid in mids if mid not in classes.ids]
        if unknown:
            raise InputError(
                f'{detections[m]}: its model knows {unknown[0]!r}, which is not one '
                f'of the {len(classes)} classes'
            )
        has[m] = False
        has[m, [classes.ids[mid] for mid in mids]] = True
        for mid in mids if aps else ():
            if mid not in aps[m]:
                raise InputError(
                    f'{scores[m]}: no AP of {mid}, which {detections[m]} may hold; '
                    "expected the same model's score.json"
                )
            ap[m, classes.ids[mid]] = aps[m][mid]
    if not aps:
        return has.astype(np.float64)
    for c in np.flatnonzero((has & ~np.isnan(ap)).any(axis=0)):
        lacking = np.flatnonzero(has[:, c] & np.isnan(ap[:, c]))
        if len(lacking):
            other = int(np.flatnonzero(has[:, c] & ~np.isnan(ap[:, c]))[0])
            raise InputError(
                f'{scores[lacking[0]]}: AP of {classes.mids[c]} is null, but a number in '
                f'{scores[other]}; expected scores on the same images'
            )
    return class_weights(ap, has, alpha)


def read_scores(path: Path) -> dict[str, float]:
    """The AP of each class of a ``score.json``; NaN where it has no ground truth.

    Raises:
        InputError: The file cannot be read, or has an AP that is not one.
    """
    try:
        ap = json.loads(path.read_text(encoding='utf-8'))['AP']
        items = list(ap.items())
    except OSError as e:
        raise InputError(f'{path}: cannot read the scores: {e.strerror or e}') from e
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise InputError(
            f'{path}: expected scores as evaluate/score.py writes them, a JSON object '
            f'with AP by class, but {type(e).__name__}: {e}'
        ) from e
    for mid, value in items:
        if value is not None and not (
            type(value) in (int, float) and math.isfinite(value) and 0 <= value <= 1
        ):
            raise InputError(
                f'{path}: AP of {mid} is {value!r}; expected a number from 0 to 1, or null'
            )
    return {mid: math.nan if value is None else float(value) for mid, value in items}
