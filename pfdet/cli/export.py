"""Export a trained detector to ONNX.

    pfdet export RUN --out model.onnx

The file has everything that pfdet predict --model model.onnx needs. Other programs give it images
and get boxes and scores: docs/deployment.md describes inputs and outputs.

If ONNX Runtime is installed, the exported network is compared with the original on random input.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

from pfdet.errors import InputError
from pfdet.flags import Parser


def main() -> None:
    args = parse_arguments()

    from pfdet.export import model_file
    from pfdet.export.check import largest_difference
    from pfdet.files.checksum import file_checksum
    from pfdet.links.mixed_precision import use_single_precision
    from pfdet.optional_packages import optional_package
    from pfdet.training import model_directory

    optional_package('onnx')
    model = model_directory.read(args.model, args.set, args.rates, args.weights)
    # Weights are float32 also in mixed precision, and so is the graph.
    use_single_precision(model.network)
    note = model_directory.weights_note(model)
    if note:
        print(note, file=sys.stderr, flush=True)
    hierarchy = model_directory.read_recipe(args.model).hierarchy
    about = 'not compared with the original'
    if args.check and importlib.util.find_spec('onnxruntime') is not None:
        difference = largest_difference(model.network)
        about = f'largest relative difference from the original on random input: {difference:.1g}'
    weights = file_checksum(model.weights)
    size = model_file.write(args.out, model, hierarchy, args.part, weights)
    print(f'{args.out}: {args.part}, {len(model.classes)} classes, {size / 2**20:.1f} MiB; {about}')


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        'model',
        type=Path,
        metavar='RUN',
        help='--out directory of a training run; before its end, the newest snapshot is taken',
    )
    add('--out', type=Path, required=True, metavar='FILE', help='a name ending in .onnx')
    add(
        '--part',
        choices=('detector', 'trunk', 'head'),
        default='detector',
        help='the whole detector; images to feature maps and outputs of the RPN; or feature maps '
        'and regions to box offsets and scores (default: %(default)s)',
    )
    add(
        '--set',
        nargs='+',
        action='extend',
        default=[],
        metavar='KEY=VALUE',
        help='replace prediction fields of the recipe, such as test_proposals=(300, 300)',
    )
    add(
        '--weights',
        type=Path,
        metavar='FILE.npz',
        help='other weights of the run, such as its best.npz or a snapshot',
    )
    add('--rates', type=Path, metavar='FILE', help='concurrent rates, as in pfdet predict')
    add(
        '--check',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='compare with the original if ONNX Runtime is installed (default: yes)',
    )
    args = parser.parse_args()
    if args.out.suffix != '.onnx':
        raise InputError(f'--out {args.out}: expected a name ending in .onnx')
    return args
