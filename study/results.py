"""Results of the study in one small file, so that another machine need not repeat the runs.

The file has one JSON object per line. The first line identifies the data; every other line is a run
with its resolved recipe, its scores, and its loss and validation mAP during training. Weights and
detections are not stored.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pfdet import recipes
from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError
from pfdet.training.tables.rows import Rows
from study.expert_ensembles import FULL

# Fields of a run.
_FIELDS = frozenset({'run', 'commit', 'recipe', 'facts', 'scores', 'log'})
# Fields of a log entry.
_LOGGED = ('epoch', 'iteration', 'elapsed_time', 'main/loss', 'validation/mAP')


def digest(data: Path) -> str:
    """Hash of all annotation files below a directory, which identifies the data sets."""
    paths = sorted(data.glob('*/*-annotations-*.csv'))
    return sha256_of({path.relative_to(data).as_posix(): path for path in paths})


def sha256_of(paths: Mapping[str, Path]) -> str:
    """Hash of files and of the names that they have in a study."""
    total = hashlib.sha256()
    for name, path in paths.items():
        total.update(name.encode())
        total.update(hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()[:16]


def write_results(rows: Rows, data: str, out: Path) -> int:
    """Write all finished runs to a file.

    Args:
        rows (Rows): The runs.
        data (str): The :func:`digest` of the data.
        out (path): The file.

    Returns:
        int: Number of runs.
    """
    runs = rows.finished()
    lines = [{'data': data}]
    for run in runs:
        place = run.path.relative_to(rows.out).as_posix()
        scores = {
            path.stem: shortened(json.loads(path.read_text(encoding='utf-8')))
            for path in sorted(run.path.glob('score*.json'))
        }
        commit = (run.path / 'done').read_text(encoding='utf-8').strip()
        lines.append(
            {
                'run': place,
                'commit': commit,
                'recipe': run.recipe,
                'facts': run.facts,
                'scores': scores,
                'log': [
                    _rounded({k: entry[k] for k in _LOGGED if k in entry})
                    for k, entry in enumerate(run.log, 1)
                    if 'validation/mAP' in entry or k == len(run.log)
                ],
            }
        )
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_when_done(out) as path:
        path.write_text(''.join(json.dumps(line) + '\n' for line in lines), encoding='utf-8')
    return len(runs)


def restore_results(rows: Rows, data: str, given: Path, changed: bool = False) -> int:
    """Write the runs of a file where :class:`~pfdet.training.tables.rows.Rows` looks for them.

    A run that exists already, finished or not, is kept.

    Args:
        rows (Rows): Where runs belong.
        data (str): The :func:`digest` of the local data.
        given (path): A file written by :func:`write_results`.
        changed (bool): Also take runs whose recipe has changed since.

    Returns:
        int: Number of runs written.

    Raises:
        InputError: The file cannot be read, or its runs were trained on other data.
    """
    their_data, lines = read_results(given)
    if their_data != data:
        raise InputError(
            f'{given}: its runs used other data ({their_data}) than is drawn here ({data}); omit '
            '--given to run everything'
        )
    n = 0
    for line in lines:
        directory = rows.out / line['run']
        if (directory / 'recipe.json').exists():
            continue
        if changed or is_current(rows, line['recipe'], line['facts']):
            restore_run(line, directory)
            n += 1
    return n


def restore_run(line: Mapping[str, Any], directory: Path) -> None:
    """Write a run of :func:`read_results` as a finished run of a directory."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, score in line['scores'].items():
        _write(directory / f'{name}.json', score)
    _write(directory / 'log', line['log'])
    (directory / 'done').write_text(line['commit'], encoding='utf-8')
    # Written last, since it marks the directory as a run.
    _write(directory / 'recipe.json', {'recipe': line['recipe'], 'run': line['facts']})


def read_results(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """Read a file written by :func:`write_results`.

    Returns:
        tuple: The digest of the data, and one object per run with ``'run'``, ``'commit'``,
        ``'recipe'``, ``'facts'``, ``'scores'`` and ``'log'``.

    Raises:
        InputError: The file cannot be read.
    """
    number, lines = 0, []
    try:
        for number, text in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
            lines.append(json.loads(text))
            missing = ({'data'} if number == 1 else _FIELDS) - lines[-1].keys()
            if missing:
                raise ValueError(f'no {sorted(missing)[0]}')
        if not lines:
            raise ValueError('empty')
    except (OSError, ValueError, AttributeError) as e:
        raise InputError(
            f'{path}, line {number}: {e}; expected results of the study, one JSON object per line'
        ) from None
    return lines[0]['data'], lines[1:]


def is_current(rows: Rows, recipe: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Whether the recipe of a run has not changed since; of ensembles, that of the full model.

    Args:
        rows (Rows): The recipes as they are now.
        recipe, facts (mappings): ``'recipe'`` and ``'run'`` of the run's ``recipe.json``.
    """
    name = recipe['name']
    if name not in recipes.RECIPES:
        name = FULL
        # Results of earlier versions have the recipe beside the scores.
        score = facts.get('scores', {}).get('score', {})
        recipe = score.get('full', facts.get('full', {}))
    try:
        then = recipes.from_dict(recipe, name)
    except InputError:
        # It has a field or a value that no longer exists.
        return False
    now = rows.recipe(name)
    return dataclasses.replace(then, about=now.about) == now


def shortened(score: dict[str, Any]) -> dict[str, Any]:
    """mAP and AP by class of a score, with five decimals, without classes of no ground truth."""
    return _rounded(
        {'mAP': score['mAP'], 'AP': {mid: ap for mid, ap in score['AP'].items() if ap is not None}}
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    return round(value, 5) if isinstance(value, float) else value


def _write(path: Path, content: Any) -> None:
    with replace_when_done(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
