"""The command ``pfdet``: one name for all commands of the package.

pfdet COMMAND [ARGUMENT ...]
mpiexec -n 8 pfdet train --recipe NAME --train-index INDEX --out DIR
"""

import importlib
import sys

from pfdet import version
from pfdet.errors import InputError, run_command
from pfdet.similar_names import expected_name

#: By name: the module whose ``main`` is run, and what it does.
COMMANDS = {
    'quickstart': ('pfdet.cli.quickstart', 'the whole way once, on a small drawn data set'),
    'make-mini': ('pfdet.openimages.make_mini', 'draw MiniOpenImages'),
    'index': ('pfdet.openimages.build_index', 'compile annotation files to an index'),
    'split': ('pfdet.openimages.split', 'cut an index into parts'),
    'coco': ('pfdet.openimages.coco', "compile COCO annotations with Open Images' classes"),
    'own-data': ('pfdet.openimages.own.command', 'compile COCO, VOC or YOLO files, own classes'),
    'statistics': ('pfdet.openimages.statistics', 'counts, imbalance and concurrent rates'),
    'anchors': ('pfdet.cli.anchors', 'which anchors fit the boxes of a data set'),
    'convert': ('pfdet.links.convert', "convert a public backbone's weights"),
    'train': ('pfdet.cli.train', 'train a recipe'),
    'train-experts': ('pfdet.cli.train_experts', 'fine-tune expert models'),
    'train-table': ('pfdet.cli.train_table', 'train, predict and score the rows of a table'),
    'predict': ('pfdet.cli.predict', "detect objects in an index's images"),
    'detect': ('pfdet.cli.detect', 'detect objects in photographs and draw them'),
    'export': ('pfdet.cli.export', 'export a trained detector to ONNX'),
    'ensemble': ('pfdet.cli.ensemble', 'combine the detections of several models'),
    'export-detections': (
        'pfdet.cli.export_detections',
        'write detections for COCO, YOLO or Label Studio',
    ),
    'score': ('pfdet.cli.score', "compute the challenge's average precision"),
    'make-submission': ('pfdet.cli.make_submission', 'write a Kaggle submission'),
    'validate-submission': ('pfdet.cli.validate_submission', 'check a Kaggle submission'),
    'report': ('pfdet.cli.report', 'write a page about one run'),
    'compare-tables': ('pfdet.cli.compare_tables', "compare runs with the papers' tables"),
    'compat': ('pfdet.compat.__main__', 'print versions and what was fixed in Chainer'),
}


def main() -> int | None:
    """Run the command that the first argument names."""
    if len(sys.argv) < 2 or sys.argv[1] in ('-h', '--help'):
        print(usage())
        return None
    if sys.argv[1] == '--version':
        print(version.describe())
        return None
    name, *arguments = sys.argv[1:]
    if name not in COMMANDS:
        raise InputError(f'pfdet {name}: no such command; {expected_name(name, COMMANDS)}')
    sys.argv = [f'pfdet {name}', *arguments]
    return _main_of(name)


def _main_of(name: str) -> int | None:
    return importlib.import_module(COMMANDS[name][0]).main()


def run_script(name: str) -> None:
    """Run a command as a script of its own and exit, see :func:`pfdet.errors.run_command`.

    The command is imported only after signals are handled.

    Args:
        name (str): A key of :data:`COMMANDS`.
    """
    run_command(lambda: _main_of(name))


def usage() -> str:
    """The commands, one per line."""
    width = max(map(len, COMMANDS))
    lines = [f'  {name:<{width}}  {about}' for name, (_, about) in COMMANDS.items()]
    return '\n'.join(
        [
            'usage: pfdet COMMAND [ARGUMENT ...]',
            '',
            *lines,
            '',
            "'pfdet COMMAND --help' describes a command's arguments.",
        ]
    )


def console() -> None:
    """Entry point of the installed ``pfdet``."""
    run_command(main)
