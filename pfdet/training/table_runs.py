"""Rows of the papers' tables: trained, predicted and scored, each only once and resumed.

A row's run is in ``OUT/RECIPE/seedS``. Rows of different tables that are the same training, or that
differ only in how they are tested, share it: the first of them in the order of the tables is
trained.
"""

import dataclasses
import json
import shutil
import threading
from collections import defaultdict
from pathlib import Path

from pfdet import recipes
from pfdet.atomic_write import replace_when_done
from pfdet.evaluation.run_directory import Run, find_runs
from pfdet.recipes import Recipe
from pfdet.recipes.recipe import fields_that
from pfdet.subprocesses import commit, run_python

# The fields that only prediction uses.
_OF_TEST = fields_that(trains=False, at_test=True)


@dataclasses.dataclass(frozen=True)
class Rows:
    """How rows are run.

    Attributes:
        out (path): Where the runs go.
        train_index, val_index (paths): Annotation indexes.
        size (str): ``'full'`` or ``'mini'``.
        ranks (int): MPI ranks of a training or prediction.
        settings (tuple of str): ``KEY=VALUE`` for all rows.
        validations (int): Of a training, evenly spaced; 0 for none.
        validated (tuple of str): Rows whose trainings are validated; empty for all.
        backbone (path): What rows begin with that the papers begin with a backbone trained on
            ImageNet; by default with random weights.

    Rows may be run from several threads: what two of them need is trained once.
    """

    out: Path
    train_index: Path
    val_index: Path
    size: str
    ranks: int
    settings: tuple[str, ...] = ()
    validations: int = 8
    validated: tuple[str, ...] = ()
    backbone: Path | None = None
    _locks: dict = dataclasses.field(
        default_factory=lambda: defaultdict(threading.Lock), repr=False, compare=False
    )

    def recipe(self, name: str) -> Recipe:
        """The resolved recipe of a row."""
        size = None if recipes.find(name).size == self.size else self.size
        return recipes.override(recipes.find(name, size), self.settings)

    def directory(self, name: str, seed: int) -> Path:
        """Where the run of a row is."""
        return self.out / name / f'seed{seed}'

    def run(self, name: str, seed: int) -> Path:
        """Train, predict and score a row, as far as that is not done yet.

        Args:
            name (str): Of its recipe.
            seed (int): Of the training.

        Returns:
            pathlib.Path: Its directory, with ``recipe.json``, ``log``, ``detections.parquet`` and
            ``score.json``, and where it is trained itself ``model.npz``.

        Raises:
            InputError: A step has failed.
        """
        directory = self.directory(name, seed)
        with self._locks[directory / 'done']:
            if not (directory / 'done').exists():
                self._run(name, seed, directory)
        return directory

    def finished(self) -> list[Run]:
        """All runs that are done; one in training may have a validation's score already."""
        return [run for run in find_runs([self.out])[0] if (run.path / 'done').exists()]

    def _run(self, name: str, seed: int, directory: Path) -> None:
        same, flags = self.same_training(name), self._test_flags(name)
        if same == name or flags:
            trained = self.trained(name, seed)
            if same != name:
                self._describe(name, trained, directory)
            self.predict(trained, directory / 'detections.parquet', 'score', *flags)
        else:
            tested = self.run(same, seed)
            self._describe(name, tested, directory)
            for file in 'detections.parquet', 'score.json':
                if (tested / file).exists():
                    shutil.copyfile(tested / file, directory / file)
        (directory / 'done').write_text(commit() + '\n', encoding='utf-8')

    def trained(self, name: str, seed: int) -> Path:
        """Train a row, or the one that it shares its training with; returns that one's run."""
        name = self.same_training(name)
        recipe, directory = self.recipe(name), self.directory(name, seed)
        flags = []
        if self.validations and (
            not self.validated or name in map(self.same_training, self.validated)
        ):
            flags += [
                '--val-index',
                self.val_index,
                '--val-interval',
                recipe.epochs / self.validations,
            ]
        if recipe.init == 'imagenet' and self.backbone is not None:
            flags += ['--init', self.backbone]
        elif recipe.init in recipes.RECIPES:
            flags += ['--init', self.trained(recipe.init, seed) / 'model.npz']
        with self._locks[directory]:
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
        """The first recipe of all tables that is trained as this one is."""
        key = self._training(name)
        for table in recipes.TABLES.values():
            for other in table.rows:
                if self.size == 'mini' or other.size == 'full':
                    if self._training(other.name) == key:
                        return other.name
        return name

    def predict(
        self,
        model: Path,
        detections: Path,
        score: str | None,
        *flags: object,
        index: Path | None = None,
    ) -> None:
        """Predict with a model, and score.

        Args:
            model (path): A run.
            detections (path): Where they go; the score goes beside them.
            score (str): Name of the score's file without ``.json``, or :obj:`None` for none.
            flags: For ``predict.py``.
            index (path): Of the images; by default the validation set's.
        """
        log = detections.parent / 'output.txt'
        index = index or self.val_index
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
        """Score detections against the annotations of an index; ``flags`` are for ``score.py``."""
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

    def _training(self, name: str) -> dict:
        fields = dataclasses.asdict(self.recipe(name))
        for field in ('name', 'about', *_OF_TEST):
            del fields[field]
        if fields['sampler'] == 'soft_balance' and fields['soft_balance_lambda'] == 1:
            fields.update(sampler='class_aware', soft_balance_lambda=Recipe.soft_balance_lambda)
        if fields['init'] in recipes.RECIPES:
            fields['init'] = self.same_training(fields['init'])
        elif self.backbone is None and self.size == 'mini':
            # No weights of ImageNet fit the small network.
            del fields['init']
        return fields

    def _test_flags(self, name: str) -> list[str]:
        """What ``predict.py`` is told where a row shares another's training."""
        own, trained = self.recipe(name), self.recipe(self.same_training(name))
        changed = [
            f'{field}={getattr(own, field)!r}'
            for field in _OF_TEST
            if getattr(own, field) != getattr(trained, field)
        ]
        if not changed:
            return []
        return ['--set', *changed, '--rates', str(self.train_index)]

    def _describe(self, name: str, trained: Path, directory: Path) -> None:
        """Say in a row's directory what it is, where another row's training is its own."""
        directory.mkdir(parents=True, exist_ok=True)
        content = json.loads((trained / 'recipe.json').read_text(encoding='utf-8'))
        content['recipe'] = recipes.to_dict(self.recipe(name))
        content['run']['trained'] = str(trained.relative_to(self.out))
        with replace_when_done(directory / 'recipe.json') as path:
            path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
        shutil.copyfile(trained / 'log', directory / 'log')
