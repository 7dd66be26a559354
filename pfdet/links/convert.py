"""Convert public weights of a backbone to a file for initializing training.

    pfdet convert --arch se_resnext101 --weights FILE.pth --out FILE.npz

From a detector trained with pfdet (``model.npz``), it extracts the backbone.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pfdet.compat  # noqa: F401

import numpy as np
from chainer import initializers

from pfdet.errors import InputError, run_command
from pfdet.files.reading import reading
from pfdet.flags import Parser, number
from pfdet.links.backbone import Conventions, is_classifier, is_convention
from pfdet.links.backbone_file import arrays_of, write_backbone
from pfdet.links.backbones import ALIASES, BACKBONES, backbone_name
from pfdet.links.checkpoint_files import PREFIXES, read_checkpoint
from pfdet.links.checkpoint_layouts import LAYOUTS, Layout
from pfdet.links.load_arrays import invalid_value


@dataclass
class Conversion:
    """A converted checkpoint, and descriptions of the parameters that did not fit.

    Attributes:
        arrays (dict): All parameters, statistics and conventions of the network by key. Missing
            ones have meaningless values.
        layout (Layout): Layout of the checkpoint.
        conventions (Conventions): Conventions of the weights.
        missing (dict): Parameters missing from the checkpoint, by key of the network.
        surplus (list of str): Arrays of the checkpoint that the network does not have.
        misshaped (list of str): Parameters whose shape differs from that in the network.
        invalid (list of str): Parameters with values that are not finite, and running variances
            below 0.
        skipped_classifier (list of str): Parameters of an incomplete classifier, which is skipped.
    """

    arrays: dict[str, np.ndarray]
    layout: Layout
    conventions: Conventions
    missing: dict[str, str] = field(default_factory=dict)
    surplus: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    skipped_classifier: list[str] = field(default_factory=list)


# Prefix of the backbone's keys in the weights of a detector.
_DETECTOR_PREFIX = 'extractor/base/'
# Parameters of a kind that are listed if they do not fit.
_N_LISTED = 10


def backbone_of_detector(checkpoint: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Select the backbone's arrays if the checkpoint is a detector.

    Args:
        checkpoint (dict): Arrays by name.

    Returns:
        dict: The arrays of the detector's backbone, or all arrays of any other checkpoint.
    """
    inner = {
        key.removeprefix(_DETECTOR_PREFIX): array
        for key, array in checkpoint.items()
        if key.startswith(_DETECTOR_PREFIX)
    }
    return inner or checkpoint


def convert(arch: str, checkpoint: dict[str, np.ndarray]) -> Conversion:
    """Convert the arrays of a checkpoint to the names and shapes of a backbone.

    A complete classifier is kept, with any number of classes.

    Args:
        arch (str): Name of the backbone.
        checkpoint (dict): Arrays by name, in any layout known for the backbone.

    Returns:
        Conversion: The arrays, and the parameters that did not fit.

    Raises:
        InputError: The backbone is unknown.
        ValueError: The conventions in the checkpoint are invalid.
    """
    arch = backbone_name(arch)
    # Initial values are not used, and drawing random ones takes seconds.
    network = BACKBONES[arch](
        n_class=_n_class(checkpoint, LAYOUTS[arch]), initialW=initializers.Zero()
    )
    keys = [key for key in arrays_of(network) if not _is_counter(key) and not is_convention(key)]
    layout = max(
        LAYOUTS[arch], key=lambda layout: sum(layout.rename(key) in checkpoint for key in keys)
    )
    network.use(_stored_conventions(checkpoint) or layout.conventions or network.conventions)

    result = Conversion(arrays_of(network), layout, network.conventions)
    classifier = {}
    for key in keys:
        name, shape = layout.rename(key), result.arrays[key].shape
        array = checkpoint.get(name)
        problem = None
        if array is None:
            problem = f'{name}, expected of shape {shape}'
            result.missing[key] = problem
        elif _squeezed(array, shape).shape != shape:
            problem = f'{name} of shape {array.shape}, expected {shape}'
            result.misshaped.append(problem)
        else:
            converted, problem = _as_parameter(key, name, _squeezed(array, shape))
            if problem is None:
                result.arrays[key] = converted
            else:
                result.invalid.append(problem)
        if is_classifier(key):
            classifier[key] = name, problem
    known = {layout.rename(key) for key in keys}
    result.surplus = [
        f'{name} of shape {array.shape}'
        for name, array in checkpoint.items()
        if name not in known
        and not _is_counter(name)
        and not is_convention(name)
        and name != 'left_out'
    ]
    _skip_incomplete_classifier(result, classifier)
    return result


def _n_class(checkpoint: dict[str, np.ndarray], layouts: Iterable[Layout]) -> int:
    """Number of classes of the checkpoint's classifier; 1 if it has none."""
    for layout in layouts:
        weight = checkpoint.get(layout.rename('fc6/W'))
        if weight is not None and weight.ndim == 2 and len(weight) > 0:
            return len(weight)
    return 1


def _skip_incomplete_classifier(
    result: Conversion, classifier: dict[str, tuple[str, str | None]]
) -> None:
    """Remove an incomplete classifier from the arrays and its problems from the lists."""
    problems = {problem for _, problem in classifier.values() if problem is not None}
    if not problems:
        return
    result.skipped_classifier = [problem or name for name, problem in classifier.values()]
    for key in [key for key in result.arrays if is_classifier(key)]:
        del result.arrays[key]
        result.missing.pop(key, None)
    result.misshaped = [text for text in result.misshaped if text not in problems]
    result.invalid = [text for text in result.invalid if text not in problems]


def _as_parameter(key: str, name: str, array: np.ndarray) -> tuple[np.ndarray, str | None]:
    """Convert an array to float32; also describe its first invalid value, if any."""
    if array.dtype.kind not in 'fiu':
        return array, f'{name} has dtype {array.dtype}, expected numbers'
    with np.errstate(over='ignore'):
        converted = array.astype(np.float32)
    invalid = invalid_value(key, converted)
    return converted, None if invalid is None else f'{name} has {invalid}'


def _squeezed(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Convert the filters of a 1x1 convolution if a fully connected layer is expected."""
    if array.ndim == 4 and len(shape) == 2 and array.shape[2:] == (1, 1):
        return array[:, :, 0, 0]
    return array


def _is_counter(name: str) -> bool:
    """Whether an array is the batch counter of a batch normalization."""
    return name.endswith(('.num_batches_tracked', '/N'))


def _stored_conventions(checkpoint: dict[str, np.ndarray]) -> Conventions | None:
    """Conventions in the checkpoint, if it is a backbone file."""
    try:
        conventions = Conventions.from_arrays(checkpoint)
    except KeyError:
        return None
    for key, array in conventions.to_arrays().items():
        invalid = invalid_value(key, array)
        if invalid:
            raise ValueError(f'{key} has {invalid}')
    return conventions


def report(result: Conversion, allow_missing: bool, path: Path) -> None:
    """Print parameters that did not fit, and raise an error if any must fit.

    At most :data:`_N_LISTED` of each kind are printed.

    Args:
        result (Conversion): The converted checkpoint.
        allow_missing (bool): Whether parameters may be missing.
        path (path): The checkpoint, for the error message.

    Raises:
        InputError: A parameter is surplus, misshaped, invalid, or missing without
            ``allow_missing``.
    """
    problems = {
        'surplus': result.surplus,
        'misshaped': result.misshaped,
        'invalid': result.invalid,
        'missing': list(result.missing.values()),
    }
    if allow_missing:
        for text in problems.pop('missing'):
            print(f'skipped: {text}')
    for kind, texts in problems.items():
        for text in texts[:_N_LISTED]:
            print(f'{kind}: {text}', file=sys.stderr)
        if len(texts) > _N_LISTED:
            print(f'{kind}: ... and {len(texts) - _N_LISTED} more', file=sys.stderr)
    counts = {kind: len(texts) for kind, texts in problems.items() if texts}
    if counts:
        hint = '; --allow-missing skips missing ones' if list(counts) == ['missing'] else ''
        if result.surplus and len(result.missing) > len(result.arrays) // 2:
            hint = (
                '; most names differ: expected those of a backbone alone, without a prefix other '
                f'than {" ".join(PREFIXES)}'
            )
        listed = ', '.join(f'{n} {kind}' for kind, n in counts.items())
        raise InputError(
            f'{path}: parameters do not fit the names and shapes of {result.layout.source}: '
            f'{listed}, listed above{hint}'
        )
    for text in result.skipped_classifier:
        print(f'skipped classifier: {text}')


def main() -> None:
    """Run the command."""
    args = _parse()
    arch = backbone_name(args.arch)
    if args.out.suffix != '.npz':
        raise InputError(f'{args.out}: expected a name that ends in .npz')
    checkpoint = backbone_of_detector(read_checkpoint(args.weights))
    with reading(args.weights, f'weights of a backbone {arch}'):
        result = convert(arch, checkpoint)
    report(result, args.allow_missing, args.weights)

    changes = {
        key: value
        for key, value in [
            ('mean', args.mean),
            ('std', args.std),
            ('channel_order', args.channel_order),
        ]
        if value
    }
    changes = {key: tuple(v) if isinstance(v, list) else v for key, v in changes.items()}
    conventions = replace(result.conventions, **changes)
    write_backbone(args.out, {**result.arrays, **conventions.to_arrays()}, result.missing)
    n_value = sum(
        a.size
        for key, a in result.arrays.items()
        if not _is_counter(key) and not is_convention(key) and key not in result.missing
    )
    print(
        f'{args.out}: {arch}, {n_value / 1e6:.1f} M values, names of {result.layout.source}; '
        f'{conventions.channel_order} images, mean {_list(conventions.mean)}, '
        f'divided by {_list(conventions.std)}'
    )


def _list(values: Sequence[float]) -> str:
    return ' '.join(f'{value:g}' for value in values)


def _parse() -> argparse.Namespace:
    parser = Parser(description=__doc__)
    parser.add_argument(
        '--arch',
        required=True,
        metavar='NAME',
        help=f'{", ".join(BACKBONES)}; or {", ".join(ALIASES)}',
    )
    parser.add_argument(
        '--weights',
        required=True,
        type=Path,
        metavar='FILE',
        help='.pth, .safetensors, a .npz of ChainerCV, or the model.npz of a training run',
    )
    parser.add_argument('--out', required=True, type=Path, metavar='FILE.npz')
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='skip parameters missing from the checkpoint',
    )
    conventions = parser.add_argument_group(
        'preprocessing', 'of images; by default that of the public checkpoints'
    )
    conventions.add_argument(
        '--mean',
        type=number(-1000, 1000),
        nargs=3,
        metavar=('R', 'G', 'B'),
        help='values subtracted from the channels, which are in [0, 255]',
    )
    conventions.add_argument(
        '--std',
        type=number(0, 1e6, above=True),
        nargs=3,
        metavar=('R', 'G', 'B'),
        help='divisors of the channels after subtraction',
    )
    conventions.add_argument('--channel-order', choices=('RGB', 'BGR'))
    return parser.parse_args()


if __name__ == '__main__':
    run_command(main)
