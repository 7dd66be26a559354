"""Predictions of several models, merged as in PFDet, section 2.4.

The predictions and scores of a model are files in its own directory, so that all rows share them.
Those of models from elsewhere are in ``OUT/given``.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from pfdet import recipes
from pfdet.evaluation.class_names import named_classes
from pfdet.evaluation.detections import read_model_classes
from pfdet.files.json_file import read_object
from pfdet.openimages.label_space import RUN
from pfdet.recipes import Recipe
from pfdet.subprocesses import run_python
from pfdet.training.tables.halves import image_ids, join_images, split_in_halves
from pfdet.training.tables.rows import Rows


class Images(NamedTuple):
    """A set of images to predict.

    Attributes:
        name (str): Goes into the names of files of detections and scores.
        index (path): Annotation index.
    """

    name: str
    index: Path


class Model(NamedTuple):
    """A trained model, and how it is tested.

    Attributes:
        path (path): Its directory.
        flags (tuple of str): Arguments of ``pfdet predict``.
    """

    path: Path
    flags: tuple[str, ...] = ()

    @property
    def recipe(self) -> Recipe:
        """The recipe of its training."""
        path = self.path / 'recipe.json'
        content = read_object(path, RUN, recipe=dict)
        return recipes.from_dict(content['recipe'], str(path))


class Merger:
    """Predicts with models, and merges and scores their detections; finished steps are skipped.

    Args:
        rows (Rows): Where and how commands are run.
        suppression (Recipe): The recipe whose suppression, IoU and number of detections per image
            are used.
    """

    def __init__(self, rows: Rows, suppression: Recipe) -> None:
        self._rows = rows
        self._flags = (
            *('--suppression', suppression.suppression),
            *('--iou-thresh', suppression.suppression_iou),
            *('--max-per-image', suppression.max_per_image),
        )

    def predict(self, model: Model, images: Images, suppress: bool) -> Path:
        """Predict with a model.

        Args:
            model (Model): The model.
            images (Images): The images.
            suppress (bool): Whether its detections are suppressed.

        Returns:
            pathlib.Path: The file of detections.
        """
        kind, tag = 'detections' if suppress else 'outputs', _tag(model.flags)
        name = f'{kind}-{images.name}{tag}'
        if suppress and images.index == self._rows.val_index and not tag:
            # The file of a row that is a single training
            name = 'detections'
        out = self._place(model) / f'{name}.parquet'
        flags = model.flags if suppress else (*model.flags, '--no-suppression')
        self._rows.predict(model.path, out, None, *flags, index=images.index)
        return out

    def merge(self, detections: Sequence[Path], out: Path, scores: Sequence[Path] = ()) -> None:
        """Merge the detections of several models.

        Args:
            detections (sequence of paths): Of each model.
            out (path): The merged ones.
            scores (sequence of paths): Score of each model, for class weights.
        """
        run_python(
            *('-m', 'pfdet', 'ensemble', '--detections', *detections),
            *(['--scores', *scores] if scores else []),
            *('--out', out, *self._flags),
            log=out.parent / 'output.txt',
        )

    def merge_weighted(
        self,
        models: Sequence[Model],
        detections: Sequence[Path],
        images: Images,
        weights: Images | None,
        split_seed: int,
        out: Path,
    ) -> None:
        """Merge with class weights that were computed on other images.

        Args:
            models (sequence of Model): The models.
            detections (sequence of paths): Their detections, without suppression.
            images (Images): The images of these.
            weights (Images): The images that weights are computed on. With :obj:`None`, these are
                the other half of the images, see :mod:`pfdet.training.tables.halves`.
            split_seed (int): Seed of the halves.
            out (path): The merged detections.
        """
        if weights is not None:
            self.merge(detections, out, [self._score_alone(m, weights, weights) for m in models])
            return
        halves = self._rows.out / 'halves' / f'{images.name}-seed{split_seed}'
        with self._rows.lock(halves):
            indexes = split_in_halves(images.index, halves, split_seed)
        parts = []
        for k, index in enumerate(indexes):
            half = Images(f'{images.name}-half{k}-seed{split_seed}', index)
            scores = [self._score_alone(model, images, half) for model in models]
            merged = out.with_name(f'{out.stem}-weights-of-half{k}.parquet')
            self.merge(detections, merged, scores)
            parts.append((merged, image_ids(indexes[1 - k])))
        mids = read_model_classes(parts[0][0]) or []
        join_images(parts, named_classes(mids, [merged for merged, _ in parts]), out)
        for merged, _ in parts:
            merged.unlink()

    def _score_alone(self, model: Model, predicted: Images, scored: Images) -> Path:
        """The score of a model's detections, suppressed by themselves, on some of their images."""
        place, tag = self._place(model), _tag(model.flags)
        score = place / f'score-{scored.name}{tag}.json'
        with self._rows.lock(score):
            if not score.exists():
                alone = place / f'alone-{predicted.name}{tag}.parquet'
                if not alone.exists():
                    self.merge([self.predict(model, predicted, suppress=False)], alone)
                self._rows.score(alone, score, scored.index)
        return score

    def _place(self, model: Model) -> Path:
        """The directory of a model's predictions."""
        if model.path.resolve().is_relative_to(self._rows.out.resolve()):
            return model.path
        digest = hashlib.sha256(str(model.path.resolve()).encode()).hexdigest()[:8]
        return self._rows.out / 'given' / f'{model.path.name}-{digest}'


def augmentation(sizes: Sequence[int], flip: bool) -> tuple[str, ...]:
    """Arguments of ``pfdet predict`` for test-time augmentation.

    Args:
        sizes (sequence of int): Lengths of the shorter edge; empty for no augmentation.
        flip (bool): Also predict the flipped images.
    """
    if not sizes:
        return ()
    return ('--sizes', *map(str, sizes), *(['--flip'] if flip else []))


def _tag(flags: Sequence[str]) -> str:
    """Tells files of one model that are predicted with different arguments apart."""
    return f'-{hashlib.sha256(" ".join(flags).encode()).hexdigest()[:8]}' if flags else ''
