"""Turn public weights of a backbone into a file that training can start from.

    python -m pfdet.links.convert --arch se_resnext101 --weights FILE.pth --out FILE.npz

Of a detector trained here (``model.npz``), it takes the backbone.
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
from pfdet.links.backbone import Conventions, is_classifier, is_convention
from pfdet.links.backbone_file import arrays_of, write_backbone
from pfdet.links.backbones import ALIASES, BACKBONES, backbone_name
from pfdet.links.checkpoint_files import read_checkpoint
from pfdet.links.checkpoint_layouts import LAYOUTS, Layout


@dataclass
class Conversion:
    """A checkpoint in the terms of our network, and what did not fit.

    Attributes:
        arrays (dict): Every parameter, statistic and convention of the network by key; those
            that are missing have meaningless values.
        layout (Layout): Whose names the checkpoint has.
        conventions (Conventions): Under which the weights were trained.
        missing (dict): By key of ours, what the checkpoint lacks, in words.
        surplus (list of str): What the network lacks, in words.
        misshaped (list of str): What has another shape in the network, in words.
        not_finite (list of str): What holds infinities or no numbers, in words.
        no_classifier (list of str): Parts of a classifier that is not whole, and left out.
    """

    arrays: dict[str, np.ndarray]
    layout: Layout
    conventions: Conventions
    missing: dict[str, str] = field(default_factory=dict)
    surplus: list[str] = field(default_factory=list)
    misshaped: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    no_classifier: list[str] = field(default_factory=list)


# Where a detector trained here has its backbone.
_IN_DETECTOR = 'extractor/base/'


def backbone_of_detector(checkpoint: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of a detector's backbone; those of anything else as they are."""
    inner = {
        key.removeprefix(_IN_DETECTOR): array
        for key, array in checkpoint.items()
        if key.startswith(_IN_DETECTOR)
    }
    return inner or checkpoint


def convert(arch: str, checkpoint: dict[str, np.ndarray]) -> Conversion:
    """Give the arrays of a checkpoint our names and shapes.

    A classifier is kept if it is whole, whatever its number of classes.

    Args:
        arch (str): Name of a backbone.
        checkpoint (dict): Arrays by the names of any layout that is known for the backbone.

    Raises:
        InputError: There is no such backbone.
    """
    arch = backbone_name(arch)
    # What the network's random values are does not matter, and drawing them takes seconds.
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
        wrong = None
        if array is None:
            wrong = f'{name}, expected of shape {shape}'
            result.missing[key] = wrong
        elif _squeezed(array, shape).shape != shape:
            wrong = f'{name} of shape {array.shape}, expected {shape}'
            result.misshaped.append(wrong)
        elif array.dtype.kind not in 'fiu' or not np.isfinite(array).all():
            wrong = f'{name} holds values that are no finite numbers'
            result.not_finite.append(wrong)
        else:
            result.arrays[key] = _squeezed(array, shape).astype(np.float32)
        if is_classifier(key):
            classifier[key] = name, wrong
    known = {layout.rename(key) for key in keys}
    result.surplus = [
        f'{name} of shape {array.shape}'
        for name, array in checkpoint.items()
        if name not in known
        and not _is_counter(name)
        and not is_convention(name)
        and name != 'left_out'
    ]
    _leave_out_classifier(result, classifier)
    return result


def _n_class(checkpoint: dict[str, np.ndarray], layouts: Iterable[Layout]) -> int:
    """Outputs of the checkpoint's classifier; 1 where it has none."""
    for layout in layouts:
        weight = checkpoint.get(layout.rename('fc6/W'))
        if weight is not None and weight.ndim == 2 and len(weight) > 0:
            return len(weight)
    return 1


def _leave_out_classifier(result: Conversion, classifier: dict) -> None:
    """Unless it is whole; then nothing about it is wrong either."""
    complaints = {wrong for _, wrong in classifier.values() if wrong is not None}
    if not complaints:
        return
    result.no_classifier = [wrong or name for name, wrong in classifier.values()]
    for key in [key for key in result.arrays if is_classifier(key)]:
        del result.arrays[key]
        result.missing.pop(key, None)
    result.misshaped = [text for text in result.misshaped if text not in complaints]
    result.not_finite = [text for text in result.not_finite if text not in complaints]


def _squeezed(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A 1x1 convolution as the fully connected layer that it is, where that is expected."""
    if array.ndim == 4 and len(shape) == 2 and array.shape[2:] == (1, 1):
        return array[:, :, 0, 0]
    return array


def _is_counter(name: str) -> bool:
    """Whether it is the number of batches that a batch normalization has seen."""
    return name.endswith(('.num_batches_tracked', '/N'))


def _stored_conventions(checkpoint: dict[str, np.ndarray]) -> Conventions | None:
    """Those of a file that was itself converted."""
    try:
        return Conventions.from_arrays(checkpoint)
    except KeyError:
        return None


def report(result: Conversion, allow_missing: bool, path: Path) -> None:
    """Print everything that did not fit, and refuse what must not be passed over.

    Raises:
        InputError: A parameter is surplus, of another shape, not finite, or missing without
            ``allow_missing``.
    """
    problems = {
        'surplus': result.surplus,
        'misshaped': result.misshaped,
        'not finite': result.not_finite,
        'missing': list(result.missing.values()),
    }
    if allow_missing:
        for text in problems.pop('missing'):
            print(f'left out: {text}')
    for kind, texts in problems.items():
        for text in texts:
            print(f'{kind}: {text}', file=sys.stderr)
    counts = {kind: len(texts) for kind, texts in problems.items() if texts}
    if counts:
        hint = '; --allow-missing leaves out what is missing' if list(counts) == ['missing'] else ''
        listed = ', '.join(f'{n} {kind}' for kind, n in counts.items())
        raise InputError(
            f'{path}: parameters do not fit the names and shapes of {result.layout.source}: '
            f'{listed}, listed above{hint}'
        )
    for text in result.no_classifier:
        print(f'left out of the classifier: {text}')


def main() -> None:
    """The command."""
    args = _parse()
    arch = backbone_name(args.arch)
    if args.std and min(args.std) <= 0:
        raise InputError(f'--std {_list(args.std)}: expected numbers above 0')
    if args.out.suffix != '.npz':
        raise InputError(f'{args.out}: expected a name that ends in .npz')
    result = convert(arch, backbone_of_detector(read_checkpoint(args.weights)))
    report(result, args.allow_missing, args.weights)

    given = {
        key: value
        for key, value in [
            ('mean', args.mean),
            ('std', args.std),
            ('channel_order', args.channel_order),
        ]
        if value
    }
    given = {key: tuple(v) if isinstance(v, list) else v for key, v in given.items()}
    conventions = replace(result.conventions, **given)
    write_backbone(args.out, {**result.arrays, **conventions.to_arrays()}, result.missing)
    n_value = sum(
        a.size
        for key, a in result.arrays.items()
        if not _is_counter(key) and not is_convention(key) and key not in result.missing
    )
    print(
        f'{args.out}: {arch}, {n_value / 1e6:.1f} M values, named as by {result.layout.source}; '
        f'{conventions.channel_order} images, mean {_list(conventions.mean)}, '
        f'divided by {_list(conventions.std)}'
    )


def _list(values: Sequence[float]) -> str:
    return ' '.join(f'{value:g}' for value in values)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        help='.pth (needs PyTorch), .safetensors, a .npz of ChainerCV, or the '
        'model.npz of a training run',
    )
    parser.add_argument('--out', required=True, type=Path, metavar='FILE.npz')
    parser.add_argument(
        '--allow-missing',
        action='store_true',
        help='leave out parameters that the checkpoint lacks',
    )
    conventions = parser.add_argument_group(
        'preprocessing', 'of the images; by default that of the public checkpoints'
    )
    conventions.add_argument(
        '--mean',
        type=float,
        nargs=3,
        metavar=('R', 'G', 'B'),
        help='subtracted from channels in [0, 255]',
    )
    conventions.add_argument(
        '--std',
        type=float,
        nargs=3,
        metavar=('R', 'G', 'B'),
        help='what the channels are then divided by',
    )
    conventions.add_argument('--channel-order', choices=('RGB', 'BGR'))
    return parser.parse_args()


if __name__ == '__main__':
    run_command(main)
