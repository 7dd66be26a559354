"""Rows that are a single training: train, predict and score them; finished steps are skipped.

The run of a row is in ``OUT/RECIPE/seedS``. Rows with the same training, or that differ only in
testing, share one training run: that of the first such row in the order of the tables.
"""

import dataclasses
import json
import shutil
import threading
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.evaluation.run_directory import Run, find_runs
from pfdet.files.json_file import read_object, write_json
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.label_space import RUN
from pfdet.recipes import Recipe
from pfdet.recipes.recipe import fields_that
from pfdet.recipes.settings import given_fields
from pfdet.subprocesses import run_python
from pfdet.training.run_length import n_epoch
from pfdet.version import commit

# Recipe fields that only prediction uses.
_TEST_FIELDS = fields_that(trains=False, at_test=True)


@dataclasses.dataclass(frozen=True)
class Rows:
    """The rows of the tables, with the options of their runs.

    Rows may be run from several threads; a shared training is run once.

    Attributes:
        out (path): Directory of the runs.
        train_index, val_index (paths): Annotation indexes.
        size (str): ``'full'`` or ``'mini'``.
        ranks (int): MPI ranks per training or prediction.
        settings (tuple of str): ``KEY=VALUE`` overrides of all recipes.
        validations (int): Validations per training, evenly spaced; 0 for none.
        validated (tuple of str): Rows whose trainings are validated; empty for all.
        backbones (mapping): File of pretrained weights by the name of the backbone, for rows that
            start from a backbone trained on ImageNet.
        random_weights (bool): Rows whose backbone has no file start from random weights. At mini
            size, they always do.
    """

    out: Path
    train_index: Path
    val_index: Path
    size: str
    ranks: int
    settings: tuple[str, ...] = ()
    validations: int = 8
    validated: tuple[str, ...] = ()
    backbones: Mapping[str, Path] = dataclasses.field(default_factory=dict)
    random_weights: bool = False
    _locks: dict = dataclasses.field(
        default_factory=lambda: defaultdict(threading.Lock), repr=False, compare=False
    )
    # By name; dataclasses.replace() starts with empty ones.
    _recipes: dict = dataclasses.field(default_factory=dict, init=False, repr=False, compare=False)
    _trainings: dict = dataclasses.field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def recipe(self, name: str) -> Recipe:
        """Resolve the recipe of a row."""
        if name not in self._recipes:
            size = None if recipes.find(name).size == self.size else self.size
            self._recipes[name] = recipes.override(recipes.find(name, size), self.settings)
        return self._recipes[name]

    def directory(self, name: str, seed: int) -> Path:
        """The directory of the run of a row."""
        return self.out / name / f'seed{seed}'

    @property
    def given_fields(self) -> dict[str, object]:
        """The fields in :attr:`settings`, whatever their spelling, as JSON returns them."""
        return json.loads(json.dumps(given_fields(self.settings)))

    def lock(self, path: Path) -> threading.Lock:
        """The lock of a file or directory that several threads may need."""
        return self._locks[path]

    def run(self, name: str, seed: int) -> Path:
        """Train, predict and score a row; finished steps are skipped.

        Args:
            name (str): Name of the recipe.
            seed (int): Seed of the training.

        Returns:
            pathlib.Path: The directory of the row, with ``recipe.json``, ``log``,
            ``detections.parquet`` and ``score.json``. It has ``model.npz`` only if the row does
            not share the training of another row.

        Raises:
            InputError: A step failed, or the directory has a run with other settings.
        """
        directory = self.directory(name, seed)
        with self.lock(directory / 'done'):
            self._check_settings(name, directory)
            if not (directory / 'done').exists():
                self._run(name, seed, directory)
        return directory

    def finished(self) -> list[Run]:
        """All finished runs. Unfinished runs may have a ``score.json`` from a validation."""
        return [run for run in find_runs([self.out])[0] if (run.path / 'done').exists()]

    def _run(self, name: str, seed: int, directory: Path) -> None:
        first, flags = self.same_training(name), self.test_flags(name)
        if first == name or flags:
            trained = self.train(name, seed)
            if first != name:
                self._write_description(name, trained, directory)
            self.predict(trained, directory / 'detections.parquet', 'score', *flags)
        else:
            tested = self.run(first, seed)
            self._write_description(name, tested, directory)
            for file in 'detections.parquet', 'score.json':
                if (tested / file).exists():
                    shutil.copyfile(tested / file, directory / file)
        (directory / 'done').write_text(commit() + '\n', encoding='utf-8')

    def _epochs(self, recipe: Recipe) -> float:
        if not recipe.iterations:
            return recipe.epochs
        return n_epoch(recipe, len(AnnotationIndex.open(self.train_index)))

    def train(self, name: str, seed: int) -> Path:
        """Train a row, or the row whose training it shares; return the directory of that run."""
        name = self.same_training(name)
        recipe, directory = self.recipe(name), self.directory(name, seed)
        flags: list[object] = []
        if self.validations and (
            not self.validated or name in map(self.same_training, self.validated)
        ):
            flags += [
                '--val-index',
                self.val_index,
                '--val-interval',
                self._epochs(recipe) / self.validations,
            ]
        if recipe.init in recipes.RECIPES:
            flags += ['--init', self.train(recipe.init, seed) / 'model.npz']
        elif recipe.init == 'imagenet':
            flags += self._backbone_flags(recipe)
        with self.lock(directory):
            self._check_settings(name, directory)
            self._check_start(recipe, directory)
            if not (directory / 'model.npz').exists():
                run_python(
                    '-m',
                    'pfdet',
                    'train',
                    '--recipe',
                    name,
                    '--scale',
                    self.size,
                    *flags,
                    *(['--set', *self.settings] if self.settings else []),
                    '--seed',
                    seed,
                    '--train-index',
                    self.train_index,
                    '--out',
                    directory,
                    '--resume',
                    ranks=self.ranks,
                    log=directory / 'output.txt',
                )
        return directory

    def same_training(self, name: str) -> str:
        """The name of the first row of the tables with the same training."""
        key = self._training_fields(name)
        for other in recipes.RECIPES.values():
            if self.size == 'mini' or other.size == 'full':
                if self._training_fields(other.name) == key:
                    return other.name
        return name

    def _training_fields(self, name: str) -> dict:
        if name not in self._trainings:
            self._trainings[name] = self._find_training_fields(name)
        return self._trainings[name]

    def is_trained(self, name: str, seed: int) -> bool:
        """Whether the training of a row is finished."""
        return (self.directory(self.same_training(name), seed) / 'model.npz').exists()

    def with_what_it_starts_from(self, name: str) -> list[str]:
        """A row and those that it is fine-tuned from, first ones first."""
        init = self.recipe(name).init
        return [*(self.with_what_it_starts_from(init) if init in recipes.RECIPES else []), name]

    def predict(
        self,
        model: Path,
        detections: Path,
        score: str | None,
        *flags: object,
        index: Path | None = None,
    ) -> None:
        """Predict with a model, and score the detections.

        Args:
            model (path): Directory of a training run.
            detections (path): Output file; the score is written to the same directory.
            score (str): Name of the score file without ``.json``, or :obj:`None` for no score.
            flags: Additional arguments of ``pfdet predict``.
            index (path): Index of the images; by default the validation set.
        """
        log = detections.parent / 'output.txt'
        index = index or self.val_index
        with self.lock(detections):
            if not detections.exists():
                run_python(
                    '-m',
                    'pfdet',
                    'predict',
                    '--model',
                    model,
                    '--index',
                    index,
                    '--out',
                    detections,
                    *flags,
                    ranks=self.ranks,
                    log=log,
                )
        if score is not None:
            self.score(detections, detections.with_name(f'{score}.json'), index)

    def score(self, detections: Path, out: Path, index: Path | None = None, *flags: object) -> None:
        """Score detections against an index; ``flags`` are arguments of ``pfdet score``."""
        run_python(
            '-m',
            'pfdet',
            'score',
            '--index',
            index or self.val_index,
            '--train-index',
            self.train_index,
            '--detections',
            detections,
            '--out',
            out,
            *flags,
            log=detections.parent / 'output.txt',
        )

    def test_flags(self, name: str) -> list[str]:
        """Arguments of ``pfdet predict`` for a row that shares the training of another row."""
        recipe, trained = self.recipe(name), self.recipe(self.same_training(name))
        changed = [
            f'{field}={getattr(recipe, field)!r}'
            for field in _TEST_FIELDS
            if getattr(recipe, field) != getattr(trained, field)
        ]
        if not changed:
            return []
        return ['--set', *changed, '--rates', str(self.train_index)]

    def _backbone_flags(self, recipe: Recipe) -> list[object]:
        if recipe.backbone in self.backbones:
            return ['--init', self.backbones[recipe.backbone]]
        # At full size, pfdet train refuses to start without weights or this flag.
        return ['--random-weights'] if self.random_weights else []

    def _find_training_fields(self, name: str) -> dict:
        recipe = self.recipe(name)
        fields = dataclasses.asdict(recipe)
        for field in ('name', 'about', *_TEST_FIELDS):
            del fields[field]
        if fields['sampler'] == 'soft_balance' and fields['soft_balance_lambda'] == 1:
            fields.update(sampler='class_aware', soft_balance_lambda=Recipe.soft_balance_lambda)
        if fields['init'] in recipes.RECIPES:
            fields['init'] = self.same_training(fields['init'])
        elif recipe.backbone not in self.backbones and (self.random_weights or self.size == 'mini'):
            # Without weights, a row from ImageNet is a row from scratch.
            fields['init'] = 'scratch'
        return fields

    def _check_settings(self, name: str, directory: Path) -> None:
        """Refuse the run of another recipe or of other settings."""
        path = directory / 'recipe.json'
        if not path.exists():
            return
        content = read_object(path, RUN, recipe=dict)
        check_same(
            directory,
            recipes.to_dict(recipes.from_dict(content['recipe'], str(path))),
            recipes.to_dict(self.recipe(name)),
        )

    def _check_start(self, recipe: Recipe, directory: Path) -> None:
        """Refuse a run that started from random weights if these do not, or the reverse."""
        path = directory / 'recipe.json'
        if recipe.init != 'imagenet' or not path.exists():
            return
        started_from = read_object(path, RUN, run=dict)['run'].get('init')
        backbone = self.backbones.get(recipe.backbone)
        # Without --backbone, a finished training may have had one.
        may_be_random = self.random_weights or self.size == 'mini'
        if (backbone and not started_from) or (started_from and not backbone and may_be_random):
            raise InputError(
                f'{directory}: was started from {started_from or "random weights"}, not from '
                f'{backbone or "random weights"}; give another --out, or the same arguments to '
                'resume'
            )

    def _write_description(self, name: str, trained: Path, directory: Path) -> None:
        """Write the recipe and log of a row that shares the training of another row."""
        directory.mkdir(parents=True, exist_ok=True)
        content = read_object(trained / 'recipe.json', RUN, run=dict)
        content['recipe'] = recipes.to_dict(self.recipe(name))
        content['run']['trained'] = str(trained.relative_to(self.out))
        write_json(directory / 'recipe.json', content)
        shutil.copyfile(trained / 'log', directory / 'log')


def relative_to(out: Path, path: Path) -> str:
    """A path inside the directory of all runs relative to it, so that it can be moved."""
    path, out = path.resolve(), out.resolve()
    return (path.relative_to(out) if path.is_relative_to(out) else path).as_posix()


def check_same(directory: Path, before: Mapping[str, object], now: Mapping[str, object]) -> None:
    """Refuse to continue what was started with other settings.

    Args:
        directory (path): Where it was started.
        before, now (mappings): The settings by name, those of ``directory`` and the present ones.
            ``'name'`` and ``'about'`` do not count.

    Raises:
        InputError: They differ.
    """
    for key in now:
        if key not in ('name', 'about') and before.get(key) != now[key]:
            raise InputError(
                f'{directory}: was started with {key}={before.get(key)}, not {now[key]}; give '
                'another --out, or the same arguments to resume'
            )
