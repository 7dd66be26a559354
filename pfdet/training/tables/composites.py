"""Rows whose detections are those of several models: PFDet's Tables 2 and 4, and ensembles.

From a full model, experts are fine-tuned (section 2.3). Each model predicts without suppression,
and one suppression runs on all detections together, whose scores may be multiplied by class weights
before (section 2.4). Finished steps are skipped.

The result of a row is in ``OUT/ROW/seedS``, the experts are in ``OUT/RECIPE/seedS``, and the
predictions of a model are in its own directory.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.files.json_file import read_object, write_json
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.label_space import RUN
from pfdet.recipes import Composite, Recipe
from pfdet.recipes.composite import FULL, OTHERS
from pfdet.recipes.pfdet_2018 import COCO
from pfdet.training.tables.experts import Ranks, fine_tune, in_ensemble, ranks_of_table4
from pfdet.training.tables.merging import Images, Merger, Model, augmentation
from pfdet.training.tables.rows import Rows, relative_to
from pfdet.version import commit

# GPUs, and so images, of an expert's update at full size: the batch that base_lr is given for.
_RANKS_PER_EXPERT = 8


@dataclasses.dataclass(frozen=True)
class Composites:
    """The composite rows of the tables, with the options of their runs.

    Attributes:
        rows (Rows): Where and how single models are trained.
        full (str or path): The model that experts are fine-tuned from: the name of a recipe, or the
            directory of a trained model.
        others (tuple of str): "All the others" of PFDet's Table 2: names of recipes, with the seed
            of the row, ``RECIPE/seedS``, or directories of trained models. The paper does not name
            them.
        class_range (pair of int): First and last rank of the classes that get experts, rarest
            first; all these experts are in the ensembles. By default those of
            :func:`~pfdet.training.tables.experts.ranks_of_table4`.
        images_seen (int): Images that each expert is trained on, see
            :func:`~pfdet.training.tables.experts.fine_tune`.
        ranks_per_expert (int): MPI ranks that train an expert together; by default eight at full
            size, one at mini size.
        sizes (tuple of int): Lengths of the shorter edge in test-time augmentation, by default
            those of the row.
        second_index (path): Training images of a second data set, for the expert of Table 2 that
            PFDet trains on COCO. Rows that need it cannot be run without.
        second_name (str): Name of that expert's directory in the one of all runs.
        weights (Images): Images that class weights are computed on. By default they are computed by
            halves, see :mod:`pfdet.training.tables.halves`.
        split_seed (int): Seed of the halves.
    """

    rows: Rows
    full: str | Path = recipes.DEFAULT
    others: tuple[str, ...] = ('table1-epochs', 'table1-context')
    class_range: tuple[int, int] | None = None
    images_seen: int | None = None
    ranks_per_expert: int | None = None
    sizes: tuple[int, ...] = ()
    second_index: Path | None = None
    second_name: str = COCO.name
    weights: Images | None = None
    split_seed: int = 0

    @property
    def validation(self) -> Images:
        """The validation images."""
        return Images('validation', self.rows.val_index)

    def needs_second_index(self, row: Composite) -> bool:
        """Whether a row cannot be run without :attr:`second_index`."""
        return self.second_index is None and COCO.name in row.models

    def single_models(self, row: Composite) -> list[str]:
        """The recipes of the models of a row, without those of experts.

        The full model that experts are fine-tuned from counts, unless it is given.
        """
        names: list[str] = []
        for key in row.models:
            if key == OTHERS:
                names += [entry.partition('/')[0] for entry in self.others if not is_model(entry)]
            elif key == FULL or _is_expert(key):
                names += [self.full] if isinstance(self.full, str) else []
            else:
                names.append(key)
        return list(dict.fromkeys(names))

    def run(
        self, row: Composite, seed: int, images: Images | None = None, score: str = 'score'
    ) -> Path:
        """Train what is missing, merge the detections of all models of a row and score them.

        Args:
            row (Composite): The row.
            seed (int): Seed of the models.
            images (Images): What to score, by default the validation images.
            score (str): Name of the score's file without ``.json``.

        Returns:
            pathlib.Path: The directory of the row, with ``recipe.json``, ``detections.parquet`` and
            ``score.json``. Detections of another ``score`` are in ``SCORE-detections.parquet``.

        Raises:
            InputError: A step failed, or the row needs a second training set.
        """
        if self.needs_second_index(row):
            raise InputError(
                f'{row.name}: needs the training images of a second data set, such as COCO: give '
                '--second-index INDEX'
            )
        images = images or self.validation
        directory = self.rows.directory(row.name, seed)
        facts = self._facts(row, images)
        with self.rows.lock(directory / 'done'):
            run = _read_run(directory)
            if not _is_done(directory, run, score, facts):
                self._run(row, seed, images, directory, score, run, facts)
        return directory

    def _run(
        self,
        row: Composite,
        seed: int,
        images: Images,
        directory: Path,
        score: str,
        before: Mapping[str, Any],
        facts: Mapping[str, Any],
    ) -> None:
        models = self.models(row, seed)
        merger = Merger(self.rows, models[0].recipe)
        merged = directory / f'{score}-detections.parquet'
        if score == 'score':
            merged = directory / 'detections.parquet'
        for path in directory / 'done', directory / f'{score}.json', merged:
            path.unlink(missing_ok=True)
        detections = [merger.predict(model, images, row.alone) for model in models]
        if row.class_weights:
            merger.merge_weighted(models, detections, images, self.weights, self.split_seed, merged)
        else:
            merger.merge(detections, merged)
        content = {
            'recipe': {'name': row.name, 'about': row.about, 'size': self.rows.size},
            'run': {
                'seed': seed,
                'models': [relative_to(self.rows.out, model.path) for model in models],
                'scores': {**before.get('scores', {}), score: facts},
            },
        }
        write_json(directory / 'recipe.json', content)
        self.rows.score(merged, directory / f'{score}.json', images.index)
        (directory / 'done').write_text(commit() + '\n', encoding='utf-8')

    def models(self, row: Composite, seed: int) -> list[Model]:
        """The trained models of a row, with its way of testing; missing ones are trained.

        Recipes of a row that have the same training, as those of different backbones at mini size,
        are trained with different seeds.
        """
        models: list[Model] = []
        n_trained: Counter[str] = Counter()
        for key in row.models:
            if key == FULL:
                models.append(self.full_model(seed))
            elif key == OTHERS:
                models += [self._other(entry, seed) for entry in self.others]
            elif _is_expert(key):
                models += map(Model, self.experts(key, seed, not row.alone))
            else:
                training = self.rows.same_training(key)
                models.append(self._trained(key, seed + n_trained[training]))
                n_trained[training] += 1
        flags = augmentation(self._sizes(row), row.flip)
        return [Model(model.path, (*model.flags, *flags)) for model in models]

    def full_model(self, seed: int) -> Model:
        """The model that experts are fine-tuned from."""
        return Model(self.full) if isinstance(self.full, Path) else self._trained(self.full, seed)

    def experts(self, recipe: str, seed: int, in_ensembles: bool) -> list[Path]:
        """The experts of a recipe; those that are missing are fine-tuned.

        Args:
            recipe (str): Its name.
            seed (int): Seed of the full model and of the training.
            in_ensembles (bool): Omit those that are only in PFDet's Table 4.

        Returns:
            list of paths: Their directories, rarest classes first.
        """
        if recipe == COCO.name:
            assert self.second_index is not None
            return self._fine_tune(self.second_name, recipe, seed, self.second_index)
        ranks = self._ranks()
        alone = any(row.alone and recipe in row.models for row in recipes.COMPOSITES.values())
        last = ranks.last if alone else ranks.last_in_ensemble
        experts = self._fine_tune(recipe, recipe, seed, self.rows.train_index, (ranks.first, last))
        if in_ensembles and last > ranks.last_in_ensemble:
            return [expert for expert in experts if in_ensemble(expert, ranks.last_in_ensemble)]
        return experts

    def _fine_tune(
        self,
        name: str,
        recipe: str,
        seed: int,
        index: Path,
        class_range: tuple[int, int] | None = None,
    ) -> list[Path]:
        """Fine-tune the full model to the experts of a range of classes.

        Without a range, all ranks train one expert of all classes together.
        """
        rows, together = self.rows, self.ranks_per_expert
        if class_range is None:
            together = rows.ranks
        elif together is None:
            together = min(rows.ranks, 1 if rows.size == 'mini' else _RANKS_PER_EXPERT)
        out = rows.directory(name, seed)
        init = self.full_model(seed).path / 'model.npz'
        with rows.lock(out):
            return fine_tune(
                rows,
                out,
                recipe,
                init,
                index,
                seed,
                class_range=class_range,
                images_seen=self.images_seen,
                ranks_per_expert=together,
            )

    def _trained(self, recipe: str, seed: int) -> Model:
        return Model(self.rows.train(recipe, seed), tuple(self.rows.test_flags(recipe)))

    def _other(self, entry: str, seed: int) -> Model:
        if is_model(entry):
            return Model(Path(entry))
        recipe, _, number = entry.partition('/seed')
        return self._trained(recipe, int(number) if number else seed)

    def _ranks(self) -> Ranks:
        if self.class_range is not None:
            first, last = self.class_range
            return Ranks(first, last, last)
        return ranks_of_table4(AnnotationIndex.open(self.rows.train_index))

    def _sizes(self, row: Composite) -> tuple[int, ...]:
        if not row.sizes:
            return ()
        return (
            self.sizes or recipes.at_size(Recipe(test_sizes=row.sizes), self.rows.size).test_sizes
        )

    def _facts(self, row: Composite, images: Images) -> dict[str, Any]:
        """All options that the score of a row depends on."""
        facts: dict[str, Any] = {'images': images.name, 'settings': self.rows.given_fields}
        experts = [key for key in row.models if _is_expert(key)]
        if experts or FULL in row.models:
            by_name = isinstance(self.full, str)
            recipe = self.rows.recipe(self.full) if by_name else Model(self.full).recipe
            facts['full'] = recipes.to_dict(recipe)
            facts['full_model'] = None if by_name else str(self.full.resolve())
        if experts:
            facts['class_range'] = self.class_range
            facts['images_seen'] = self.images_seen
        if OTHERS in row.models:
            facts['others'] = self.others
        if row.sizes:
            facts['sizes'], facts['flip'] = self._sizes(row), row.flip
        if row.class_weights:
            facts['weights'] = (
                self.weights.name if self.weights else f'halves, seed {self.split_seed}'
            )
        return json.loads(json.dumps(facts))


def is_model(path: str) -> bool:
    """Whether a path is the directory of a trained model."""
    return (Path(path) / 'model.npz').exists()


def _is_expert(key: str) -> bool:
    return key in recipes.RECIPES and recipes.RECIPES[key].expert_size > 0


def _read_run(directory: Path) -> dict[str, Any]:
    """What ``recipe.json`` says about the run; empty before the first."""
    path = directory / 'recipe.json'
    if not path.exists():
        return {}
    return read_object(path, RUN, run=dict)['run']


def _is_done(directory: Path, run: Mapping[str, Any], score: str, facts: Mapping[str, Any]) -> bool:
    if not (directory / 'done').exists() or not (directory / f'{score}.json').exists():
        return False
    # Results that were written without the options are taken as they are.
    return 'scores' not in run or run['scores'].get(score) == facts
