"""Model of PFDet's training time on many GPUs, and of options that reduce it.

    python mpi_scripts/scaling_model.py [--out docs/scaling.png] [--inputs] [--ranges] [--small]

The time of a step is the sum of its parts: the operations of an image of average size, the wait for
the most expensive image, a forward and a backward all-reduce for every batch normalization, and the
all-reduce of the gradients. Two parameters are fitted to the paper's two numbers: 33 hours for 16
epochs on 512 GPUs, and 83 % of the efficiency on 8. Prints the effect of float16, overlap, batch
normalization in groups and shared image sizes at 64, 512 and 4,096 GPUs, the range over what the
paper leaves open, and a comparison of the all-reduce model with measurements. docs/scaling.md
explains the model.
"""

import argparse
import dataclasses
from pathlib import Path

import numpy as np
from scaling import sweep
from scaling.detector import FILE, Detector, count_detector, read_detector, write_detector
from scaling.inputs import Inputs
from scaling.ranges import (
    READINGS,
    efficiency_ranges,
    likeliest_reading,
    variations,
    without_fitting_latency,
)
from scaling.small_jobs import GPUS as GPUS_OF_A_NODE
from scaling.small_jobs import jobs, largest_size
from scaling.step import (
    OPTIONS,
    Fit,
    Setting,
    efficiency,
    fit_to_paper,
    hours,
    paper_step,
    step_seconds,
    with_option,
)

from pfdet.atomic_write import replace_when_done
from pfdet.errors import InputError, run_command

GPUS = (64, 512, 4096)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, metavar='FILE.png', help='draw the figure to FILE')
    parser.add_argument('--inputs', action='store_true', help='print every input and its source')
    parser.add_argument(
        '--ranges',
        action='store_true',
        help='print the fit for every reading and for the low and high value of every input',
    )
    parser.add_argument(
        '--small',
        action='store_true',
        help='print hours and memory of recipes on 1 to 8 GPUs; builds their networks',
    )
    parser.add_argument(
        '--count',
        action='store_true',
        help=f'build the network, count again and write {FILE.name}',
    )
    parser.add_argument(
        '--sweep',
        type=Path,
        default=sweep.SWEEP,
        metavar='FILE.json',
        help='output of measure_allreduce.py (default: the one in this repository)',
    )
    args = parser.parse_args()
    if args.out is not None and args.out.suffix not in ('.png', '.svg', '.pdf'):
        raise InputError(f'--out {args.out}: expected a .png, .svg or .pdf')
    if not args.sweep.exists():
        raise InputError(f'--sweep {args.sweep}: no such file; measure_allreduce.py writes one')
    if args.count:
        write_detector(count_detector())

    detector, inputs = read_detector(), Inputs()
    setting, fitted = likeliest_reading(detector, inputs)
    if args.inputs:
        print_inputs()
    print_fit(detector, inputs)
    print_options(detector, inputs, fitted, setting)
    if args.ranges:
        print_ranges(detector)
    if args.small:
        print_small(detector)
    points = sweep.read_sweep(args.sweep)
    print_sweep(points)
    if args.out is not None:
        # Imported here, because Matplotlib takes long to import.
        from scaling.figure import draw_figure

        with replace_when_done(args.out) as path:
            draw_figure(path, detector, inputs, fitted, setting, points)


def print_inputs() -> None:
    """Print every input as a row of a Markdown table."""
    print('| input | value | low to high | source |\n| --- | --- | --- | --- |')
    for field in dataclasses.fields(Inputs):
        m = field.metadata
        span = '' if m['low'] == m['high'] else f'{m["low"]:g} to {m["high"]:g}'
        value = f'{field.default:,.12g} {m["unit"]}'.strip()
        print(f'| {field.name.replace("_", " ")} | {value} | {span} | {m["source"]} |')
    print()


def print_fit(detector: Detector, inputs: Inputs) -> None:
    """Print the network, the paper's step, and the fit for each reading of the paper."""
    print(
        f'{detector.recipe}: {detector.n_parameter / 1e6:.1f} M parameters, '
        f'{len(detector.bn_channels)} batch normalizations\n'
        f'paper: {paper_step(detector, inputs):.3f} s per step of 512 images, '
        f'{inputs.efficiency * paper_step(detector, inputs):.3f} s on 8 GPUs\n'
    )
    print(
        f'{"reading":26}{"Tops/s":>8}{"latency":>9}{"512 GPUs":>10}{"hours":>7}'
        '   latency not fitted'
    )
    for reading, setting in READINGS.items():
        own = fit_to_paper(detector, inputs, setting)
        late, early = without_fitting_latency(detector, setting)
        print(
            f'{reading:26}{own.tflops:8.2f}{own.hop_factor:8.2f}x'
            f'{efficiency(detector, inputs, own, setting, 512):10.1%}'
            f'{hours(detector, inputs, own, setting, 512):7.1f}   {late:.1%} to {early:.1%}'
            + ('' if own.hop_factor > 0 else '   impossible')
        )


def print_options(detector: Detector, inputs: Inputs, fitted: Fit, setting: Setting) -> None:
    """Print the effect of each option, and its range over all readings and inputs."""
    ranges = efficiency_ranges(detector, GPUS)
    print(
        '\nseconds per step, hours for 16 epochs, efficiency relative to 8 GPUs as in the paper, '
        'and its range\n' + ' ' * 24 + ''.join(f'{n:>16,} GPUs            ' for n in GPUS)
    )
    for option in OPTIONS:
        own = with_option(setting, option)
        line = f'{option:24}'
        for n, (low, high) in zip(GPUS, ranges[option], strict=True):
            line += (
                f'{step_seconds(detector, inputs, fitted, own, n):5.2f}'
                f'{hours(detector, inputs, fitted, own, n):7.1f}'
                f'{efficiency(detector, inputs, fitted, own, n, setting):6.0%}'
                f' ({low:4.0%} to {high:4.0%})'
            )
        print(line)


def print_ranges(detector: Detector) -> None:
    """Print the fit for every variation."""
    print(f'\n{"reading, input":48}{"Tops/s":>8}{"latency":>9}{"4096 GPUs":>11}')
    for v in variations(detector):
        at = efficiency(detector, v.inputs, v.fit, v.setting, 4096)
        print(
            f'{v.name:48}{v.fit.tflops:8.2f}{v.fit.hop_factor:8.2f}x{at:11.0%}'
            + ('' if v.fit.hop_factor >= 0 else '  impossible')
        )


def print_small(detector: Detector) -> None:
    """Print hours and memory on 1 to 8 GPUs as rows of a Markdown table."""
    print('\n| recipe | epochs |' + ''.join(f' {n} GPU{"s" * (n > 1)} |' for n in GPUS_OF_A_NODE))
    print('| --- | ---: |' + ' ---: |' * len(GPUS_OF_A_NODE))
    found = list(jobs(detector))
    for job in found:
        line = f'| `{job.detector.recipe}` | {job.detector.epochs:g} |'
        for likely, low, high in job.hours:
            line += f' {likely:,.0f} h ({low:,.0f} to {high:,.0f}) |'
        print(line)
    print('\n| recipe | largest image | weights and their copies | activations |')
    print('| --- | --- | ---: | ---: |')
    for job in found:
        height, width = largest_size(job.detector)
        print(
            f'| `{job.detector.recipe}` | {height} x {width} | {job.fixed_bytes / 1e9:.1f} GB '
            f'| {job.activation_bytes / 1e9:.1f} GB |'
        )


def print_sweep(points: list[sweep.Point]) -> None:
    """Print how well the all-reduce model predicts numbers of ranks it was not fitted to."""
    fitted, held_out = sweep.split(points)
    coefficients = sweep.fit(fitted)
    print('\nmeasured all-reduces: error factor of the model, median and maximum')
    for name, some in (('fitted', fitted), ('predicted', held_out)):
        for n in sorted({p.n_rank for p in some}):
            factors = sweep.error_factors(coefficients, [p for p in some if p.n_rank == n])
            print(f'{name:10}{n:4} ranks{np.median(factors):7.2f}{factors.max():7.2f}')
        factors = sweep.error_factors(coefficients, some)
        print(f'{name:10} all     {np.median(factors):7.2f}{factors.max():7.2f}')


if __name__ == '__main__':
    run_command(main)
