"""Pages that are generated when the documentation is built: recipes, commands, API.

They are written to ``docs/generated``, and only where their text has changed, so that Sphinx
builds only what is new.
"""

import dataclasses
import os
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pfdet
from pfdet import recipes
from pfdet.cli.main import COMMANDS
from pfdet.recipes import Composite, Recipe
from pfdet.recipes.composite import FULL, OTHERS

#: Not configuration: what a recipe is called.
_NAMES = ('name', 'about')


def write_pages(root: Path) -> None:
    """Write all generated pages.

    Args:
        root (path): The root of the repository, where the commands are run.
    """
    out = root / 'docs' / 'generated'
    pages = {
        'recipes.md': recipes_page(),
        'commands.md': commands_page(root),
        **{f'api/{name}.md': text for name, text in api_pages().items()},
    }
    for name, text in pages.items():
        _write(out / name, text)
    for path in out.rglob('*.md'):
        if str(path.relative_to(out)) not in pages:
            path.unlink()


def recipes_page() -> str:
    """Every recipe by table, with the fields that each row changes, and all fields."""
    parts = [
        '# Recipes',
        'A recipe is one row of a table of one of the papers. `pfdet train --list` prints this '
        'list, `pfdet train --recipe NAME --show` every field of one recipe. The default is '
        f'`{recipes.DEFAULT}`. Change fields with `--set`, for example '
        "`--set epochs=16 'min_size=(800, 800)'`.",
        'In the tables below, "base" is the recipe that the row is most similar to among the rows '
        'above it, the recipe that it is fine-tuned from, and the defaults. Rows of several models '
        'are run by `pfdet train-table`; see [Tables of the papers](../tables.md).',
    ]
    for table in recipes.TABLES.values():
        parts.append(f'## {table.title}')
        if table.recipes:
            parts.append(_rows(table.recipes))
        if table.composites:
            parts.append(_composites(table.composites))
    parts += ['## Mini size', _mini_size(), '## All fields', _all_fields()]
    return '\n\n'.join(parts) + '\n'


def _rows(rows: Sequence[Recipe]) -> str:
    lines = ['| recipe | row | base | changes |', '| --- | --- | --- | --- |']
    for k, recipe in enumerate(rows):
        base, changes = _base(recipe, rows[:k])
        lines.append(
            f'| `{recipe.name}` | {recipe.about.partition(": ")[2]} | {base} '
            f'| {"<br>".join(f"`{c}`" for c in changes) or "none"} |'
        )
    return '\n'.join(lines)


def _composites(rows: Sequence[Composite]) -> str:
    """Rows of several models, with the models in each."""
    lines = ['| row of several models | row | models |', '| --- | --- | --- |']
    for row in rows:
        models = ', '.join(
            key if key in (FULL, OTHERS) else f'`{key}`' for key in dict.fromkeys(row.models)
        )
        lines.append(f'| `{row.name}` | {row.about.partition(": ")[2]} | {models} |')
    return '\n'.join(lines)


def _base(recipe: Recipe, above: Sequence[Recipe]) -> tuple[str, list[str]]:
    """The recipe that differs least, and the fields in which ``recipe`` differs from it."""
    bases = [(f'`{base.name}`', base) for base in reversed(above)]
    if recipe.init in recipes.RECIPES:
        bases.append((f'`{recipe.init}`', recipes.RECIPES[recipe.init]))
    bases.append(('defaults', Recipe()))
    return min(
        ((name, _differences(base, recipe)) for name, base in bases), key=lambda pair: len(pair[1])
    )


def _differences(base: Recipe, recipe: Recipe) -> list[str]:
    return [
        f'{field.name}={_value(getattr(recipe, field.name))}'
        for field in dataclasses.fields(Recipe)
        if field.name not in _NAMES and getattr(recipe, field.name) != getattr(base, field.name)
    ]


def _value(value: object) -> str:
    if isinstance(value, float):
        return f'{value:.4g}'
    if isinstance(value, tuple):
        return '(' + ', '.join(map(_value, value)) + ')'
    return str(value) if value != '' else "''"


def _mini_size() -> str:
    full = recipes.find('table1-baseline')
    changes = _differences(full, recipes.find(full.name, 'mini'))
    return (
        'Every recipe can be trained at mini size, for two CPU cores. The switches stay, the sizes '
        f'shrink. For `{full.name}`:\n\n' + '\n'.join(f'- `{change}`' for change in changes)
    )


def _all_fields() -> str:
    parts = [
        'Defaults are the baseline of PFDet\'s Table 1. "At test" fields can be changed for a '
        'trained model, by `pfdet predict --set`; "on resume" fields when a run is resumed.'
    ]
    groups: dict[str, list[str]] = {}
    for field in dataclasses.fields(Recipe):
        if field.name not in _NAMES:
            group = groups.setdefault(field.metadata['group'], [])
            changes = [name for name in ('at_test', 'on_resume') if field.metadata[name]]
            group.append(
                f'| `{field.name}` | `{_value(field.default)}` | {field.metadata["about"]} '
                f'| {", ".join(changes).replace("_", " ")} |'
            )
    for name, rows in groups.items():
        header = '| field | default | meaning | may change |\n| --- | --- | --- | --- |'
        parts.append(f'### {name[0].upper()}{name[1:]}\n\n{header}\n' + '\n'.join(rows))
    return '\n\n'.join(parts)


def commands_page(root: Path) -> str:
    """The help text of every command."""
    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(lambda name: _help(root, name), COMMANDS))
    parts = [
        '# Commands',
        'Every command is a subcommand of `pfdet`, or of `python -m pfdet`. In a checkout, the '
        'scripts in `train/` and `evaluate/` run the same code. The texts below are printed by '
        '`pfdet COMMAND --help`.',
        '| command | purpose |\n| --- | --- |\n'
        + '\n'.join(f'| [`{name}`](#{name}) | {about} |' for name, (_, about) in COMMANDS.items()),
    ]
    for name, text in zip(COMMANDS, texts, strict=True):
        parts += [f'## {name}', f'```text\n{text.rstrip()}\n```']
    return '\n\n'.join(parts) + '\n'


def _help(root: Path, name: str) -> str:
    done = subprocess.run(
        [sys.executable, '-m', 'pfdet', name, '--help'],
        cwd=root,
        env={**os.environ, 'COLUMNS': '96'},
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f'pfdet {name} --help failed: {done.stderr}')
    return done.stdout


def api_pages() -> dict[str, str]:
    """One page per package with all its public modules, and a page that lists the packages."""
    packages: dict[str, list[str]] = {}
    for name, is_package in _modules():
        owner = name if is_package else name.rpartition('.')[0]
        packages.setdefault(owner, []).append(name)
    pages = {
        name: f'# {name}\n\n' + '\n\n'.join(_module(name, module) for module in modules) + '\n'
        for name, modules in packages.items()
    }
    pages['index'] = '# API\n\n```{toctree}\n:maxdepth: 1\n\n' + '\n'.join(pages) + '\n```\n'
    return pages


def _modules() -> Iterator[tuple[str, bool]]:
    yield 'pfdet', True
    for module in pkgutil.walk_packages(pfdet.__path__, 'pfdet.'):
        if not module.name.rpartition('.')[2].startswith('_'):
            yield module.name, module.ispkg


def _module(package: str, module: str) -> str:
    heading = '' if module == package else f'## {module.removeprefix(package + ".")}\n\n'
    return f'{heading}```{{eval-rst}}\n.. automodule:: {module}\n   :ignore-module-all:\n```'


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')
