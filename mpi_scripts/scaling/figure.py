"""The figure of the model."""

from pathlib import Path

import matplotlib

matplotlib.use('Agg')

import matplotlib.pyplot as plt
import numpy as np

from scaling.detector import Detector
from scaling.image_sizes import DRAWS, expected_step
from scaling.inputs import Inputs
from scaling.ranges import efficiency_ranges
from scaling.step import (
    OPTIONS,
    Fit,
    Parts,
    Setting,
    costs,
    efficiency,
    step_parts,
    with_option,
)
from scaling.sweep import Point, fit, predict, split

GPUS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096)
COLORS = dict(
    zip(
        OPTIONS,
        (
            'black',
            'tab:blue',
            'tab:cyan',
            'tab:red',
            'tab:orange',
            'tab:green',
            'tab:purple',
            'tab:brown',
        ),
        strict=True,
    )
)
# Only the ranges that matter: overlapping ranges cannot be read.
SHADED = ('as in the paper', 'BN groups of 8')
DRAW_NAMES = {
    'each': 'each GPU draws edge and image',
    'edge': 'edge length shared',
    'all': 'edge length and aspect ratio shared',
}


def draw_figure(
    path: Path,
    detector: Detector,
    inputs: Inputs,
    fitted: Fit,
    setting: Setting,
    points: list[Point],
) -> None:
    """Draw efficiency, parts of a step, image sizes and the check of the all-reduce; PNG or SVG."""
    figure, ((a, b), (c, d)) = plt.subplots(2, 2, figsize=(13, 9.5), constrained_layout=True)
    _efficiencies(a, detector, inputs, fitted, setting)
    _parts(b, detector, inputs, fitted, setting)
    _sizes(c, detector, inputs)
    _sweep(d, points)
    metadata = {'Date': None} if path.suffix == '.svg' else None
    figure.savefig(path, dpi=100, metadata=metadata)
    plt.close(figure)


def _efficiencies(ax, detector: Detector, inputs: Inputs, fitted: Fit, setting: Setting) -> None:
    ranges = efficiency_ranges(detector, GPUS)
    for option, color in COLORS.items():
        own = with_option(setting, option)
        # Two lines coincide.
        style = '--' if option.startswith('trees') else '-'
        ax.plot(
            GPUS,
            [efficiency(detector, inputs, fitted, own, n, setting) for n in GPUS],
            style,
            color=color,
            label=option,
            lw=2 if option in SHADED else 1.3,
        )
        if option in SHADED:
            low, high = np.array(ranges[option]).T
            ax.fill_between(GPUS, low, high, color=color, alpha=0.13, lw=0)
    ax.plot([512], [0.83], 'o', color='black', ms=8, label='paper: 83 % at 512')
    ax.set(
        xscale='log',
        xlabel='GPUs',
        ylim=(0, None),
        ylabel='images/s per GPU (paper, 8 GPUs = 1)',
        title='Weak scaling; shaded: range over readings and inputs',
    )
    ax.set_xticks(GPUS, [str(n) for n in GPUS], fontsize=8)
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8, ncols=2, loc='lower left')


def _parts(ax, detector: Detector, inputs: Inputs, fitted: Fit, setting: Setting) -> None:
    gpus, names = (64, 512, 4096), list(OPTIONS)
    colors = 'tab:gray', 'tab:olive', 'tab:red', 'tab:blue'
    place, labels = [], []
    for i, n in enumerate(gpus):
        for j, option in enumerate(names):
            x = i * (len(names) + 1.5) + j
            parts = step_parts(detector, inputs, fitted, with_option(setting, option), n)
            bottom = 0.0
            for part, seconds, color in zip(Parts._fields, parts, colors, strict=True):
                ax.bar(
                    x,
                    seconds,
                    0.85,
                    bottom,
                    color=color,
                    label=part.replace('_', ' ') if i == j == 0 else None,
                )
                bottom += seconds
            place.append(x)
            labels.append(option)
        ax.text(i * (len(names) + 1.5) + (len(names) - 1) / 2, 3.62, f'{n} GPUs', ha='center')
    ax.set_xticks(place, labels, rotation=90, fontsize=7)
    ax.set(ylabel='seconds per step', ylim=(0, 4.1), title='Parts of a step')
    ax.legend(fontsize=8, ncols=4, loc='upper left')
    ax.grid(axis='y', alpha=0.3)


def _sizes(ax, detector: Detector, inputs: Inputs) -> None:
    own = costs(detector, inputs.passes)
    mean = expected_step(own, 1, 'all')
    gpus = (1, 2, 4, *GPUS)
    for draw in DRAWS:
        ax.plot(
            gpus,
            [expected_step(own, n, draw) / mean for n in gpus],
            'o-',
            ms=3,
            label=DRAW_NAMES[draw],
        )
    ax.set(
        xscale='log',
        xlabel='GPUs',
        ylabel='slowest GPU / mean',
        ylim=(0.95, None),
        title='Waiting for the most expensive image',
    )
    ax.set_xticks(gpus, [str(n) for n in gpus], fontsize=7)
    ax.minorticks_off()
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)


def _sweep(ax, points: list[Point]) -> None:
    fitted, held_out = split(points)
    coefficients = fit(fitted)
    colors = dict(zip(sorted(coefficients), ('tab:blue', 'tab:green', 'tab:red'), strict=True))
    for some, style, what in ((fitted, 'none', 'fitted'), (held_out, None, 'predicted')):
        for algorithm, color in colors.items():
            own = [p for p in some if p.algorithm == algorithm]
            ranks = ', '.join(map(str, sorted({p.n_rank for p in own})))
            ax.scatter(
                [1e3 * p.seconds for p in own],
                [1e3 * predict(coefficients, p) for p in own],
                s=22,
                facecolors=style or color,
                edgecolors=color,
                label=f'{algorithm.replace("_", " ")}: {what} ({ranks} ranks)',
            )
    ends = np.array([0.08, 1500.0])
    ax.plot(ends, ends, color='gray', lw=1)
    ax.fill_between(
        ends, ends / 2, ends * 2, color='gray', alpha=0.12, lw=0, label='within a factor of 2'
    )
    ax.set(
        xscale='log',
        yscale='log',
        xlabel='measured, ms',
        ylabel='model, ms',
        xlim=ends,
        ylim=ends,
        title='All-reduce on one machine with two cores, 4 KB to 8 MB',
    )
    ax.grid(alpha=0.3)
    ax.legend(fontsize=7)
