"""The report's figures: curves as inline SVG, and photographs with their boxes.

The curves' colours are CSS variables (``--fg``, ``--line``, ``--c1`` ...), and their letters the
page's, so that a figure follows the page from light to dark.
"""

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator
from PIL import Image

# Colours that matplotlib draws with, each replaced by a CSS variable in the SVG.
_VARIABLES = {'#010101': '--fg', '#020202': '--line', '#030303': '--muted'}
_SERIES = [f'#0404{k:02x}' for k in range(1, 9)]
_VARIABLES.update({colour: f'--c{k}' for k, colour in enumerate(_SERIES, 1)})
_FG, _LINE, _MUTED = list(_VARIABLES)[:3]
_STYLE = {
    'svg.fonttype': 'none', 'font.size': 10, 'text.parse_math': False,
    'text.color': _FG, 'axes.labelcolor': _MUTED, 'xtick.color': _MUTED, 'ytick.color': _MUTED,
    'axes.edgecolor': _LINE, 'axes.facecolor': 'none', 'figure.facecolor': 'none',
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.spines.left': False,
    'axes.grid': True, 'axes.grid.axis': 'y', 'grid.color': _LINE, 'grid.linewidth': .8,
    'axes.axisbelow': True, 'xtick.major.size': 3, 'ytick.major.size': 0,
    'lines.solid_capstyle': 'round', 'lines.solid_joinstyle': 'round',
}


@dataclass
class Example:
    """A validation image to show in the report.

    Boxes are ``(y_min, x_min, y_max, x_max)`` relative to the image, in [0, 1].

    Attributes:
        image_id (str): The caption.
        img (array): Shape :math:`(3, H, W)`, RGB in [0, 255], any dtype, as ChainerCV has it.
        gt_bbox (array): Shape :math:`(R, 4)`. An object of several classes may be several
            equal boxes.
        gt_name (sequence of str): The class name of each.
        bbox (array): Shape :math:`(D, 4)`, the detections.
        name (sequence of str): The class name of each.
        score (array): Shape :math:`(D,)`.
    """

    image_id: str
    img: np.ndarray
    gt_bbox: np.ndarray
    gt_name: Sequence[str]
    bbox: np.ndarray
    name: Sequence[str]
    score: np.ndarray


@dataclass
class DrawnBox:
    """A box to draw: its corner and size in percent of the image, and its captions."""

    x: float
    y: float
    width: float
    height: float
    names: list[str] = field(default_factory=list)
    hue: int = 0
    agrees: bool = True


def loss_curves(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw every loss against the iteration, the sum strongest.

    Args:
        log (sequence of dicts): Entries of Chainer's ``LogReport``.

    Returns:
        str: SVG, or :obj:`None` without any loss in the log.
    """
    names = [k for k in _keys(log) if k.startswith('main/') and 'loss' in k]
    names.sort(key=lambda k: (k != 'main/loss', k))
    if not names:
        return None

    def draw(ax: Axes) -> None:
        for k, name in enumerate(names):
            x, y = _series(log, name)
            colour = _SERIES[k % len(_SERIES)]
            strong = name == 'main/loss'
            window = max(1, len(y) // 40)
            if window > 2:
                ax.plot(x, y, color=colour, linewidth=.7, alpha=.3)
                y = _running_mean(y, window)
            ax.plot(x, y, color=colour, linewidth=2 if strong else 1.3,
                    label=name.removeprefix('main/'), marker='o' if len(y) == 1 else None)
        ax.set_ylim(bottom=0)
        ax.legend(frameon=False, loc='upper right', ncols=2, fontsize=9, labelcolor=_FG)

    return _draw(draw, 'losses', width=9.6, height=3.2)


def lr_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw the learning rate; arguments and result as of :func:`loss_curves`."""
    if 'lr' not in _keys(log):
        return None

    def draw(ax: Axes) -> None:
        x, y = _series(log, 'lr')
        ax.plot(x, y, color=_SERIES[3], linewidth=1.6, marker='o' if len(y) == 1 else None)
        ax.set_ylim(bottom=0)

    return _draw(draw, 'lr', width=4.7, height=2.2)


def map_curve(log: Sequence[Mapping[str, Any]]) -> str | None:
    """Draw validation mAP over training; arguments and result as of :func:`loss_curves`."""
    names = [k for k in _keys(log) if k.lower().rsplit('/', 1)[-1] in ('map', 'mean_ap')]
    if not names:
        return None

    def draw(ax: Axes) -> None:
        x, y = _series(log, names[0])
        ax.plot(x, y, color=_SERIES[0], linewidth=1.8, marker='o', markersize=4)
        ax.annotate(f'{y[-1]:.3f}', (x[-1], y[-1]), (0, 6), textcoords='offset points',
                    ha='center', color=_FG)
        ax.set_ylim(0, max(.05, y.max() * 1.25))

    return _draw(draw, 'map', width=4.7, height=2.2)


def precision_recall_curves(
        precision: Mapping[str, Sequence[float]], names: Mapping[str, str]) -> str | None:
    """Draw precision against recall for a few classes.

    Args:
        precision (dict): From class to its precision at equally spaced recalls from 0 to 1.
        names (dict): From class to what to call it.

    Returns:
        str: SVG, or :obj:`None` without a class.
    """
    if not precision:
        return None

    def draw(ax: Axes) -> None:
        for k, (key, values) in enumerate(precision.items()):
            recall = np.linspace(0, 1, len(values))
            # The curve ends where the class's recall does.
            n = max(1, int(np.count_nonzero(values)))
            ax.plot(recall[:n], values[:n], color=_SERIES[k % len(_SERIES)], linewidth=1.6,
                    label=names[key])
            ax.plot(recall[n - 1], values[n - 1], 'o', color=_SERIES[k % len(_SERIES)],
                    markersize=3.5)
        ax.set_xlim(0, 1.01)
        ax.set_ylim(0, 1.03)
        ax.set_xlabel('recall')
        ax.set_ylabel('precision')
        ax.legend(frameon=False, loc='center left', bbox_to_anchor=(1, .5), fontsize=9,
                  labelcolor=_FG)

    return _draw(draw, 'precision-recall', width=9.6, height=3.6, of_iteration=False)


def photograph(img: np.ndarray, longest: int = 560) -> tuple[str, int, int]:
    """Encode an image for a page.

    Args:
        img (array): Shape :math:`(3, H, W)`, RGB in [0, 255].
        longest (int): Its longer side is made at most this many pixels.

    Returns:
        tuple: A ``data:`` URL of a JPEG, its width and its height in pixels.
    """
    pixels = np.clip(np.round(img), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    picture = Image.fromarray(np.ascontiguousarray(pixels))
    picture.thumbnail((longest, longest))
    buffer = io.BytesIO()
    picture.save(buffer, 'JPEG', quality=85)
    url = 'data:image/jpeg;base64,' + base64.b64encode(buffer.getvalue()).decode()
    return url, picture.width, picture.height


def boxes_to_draw(
        bbox: np.ndarray, name: Sequence[str], hues: Mapping[str, int],
        score: np.ndarray | None = None, score_thresh: float = 0.,
        agree_with: tuple[np.ndarray, Sequence[str]] | None = None,
        same: float = .8) -> list[DrawnBox]:
    """Choose what to draw: boxes of one object become one box with several names.

    Args:
        bbox (array): Shape :math:`(N, 4)`, in [0, 1].
        name (sequence of str): Class names.
        hues (dict): From class name to the hue of its boxes in degrees.
        score (array): Shape :math:`(N,)`, or :obj:`None` for annotations.
        score_thresh (float): Boxes with a lower score are not drawn.
        agree_with (tuple): Annotated boxes and names. A drawn box agrees if all its names are
            annotated with an IoU of at least 0.5.
        same (float): Boxes with at least this IoU are the same object.

    Returns:
        list of DrawnBox: Larger boxes first, so that they do not cover smaller ones.
    """
    bbox = np.asarray(bbox, np.float64).reshape(-1, 4)
    chosen = np.arange(len(bbox))
    if score is not None:
        score = np.asarray(score)
        chosen = np.flatnonzero(score >= score_thresh)
        chosen = chosen[np.argsort(-score[chosen], kind='stable')]
    leaders: list[int] = []
    drawn: list[DrawnBox] = []
    for i in chosen:
        caption = name[i] if score is None else f'{name[i]} {score[i]:.2f}'
        agrees = agree_with is None or any(
            other == name[i] and _iou(bbox[i], b) >= .5 for b, other in zip(*agree_with))
        for leader, box in zip(leaders, drawn):
            if _iou(bbox[i], bbox[leader]) >= same:
                if caption not in box.names:
                    box.names.append(caption)
                box.agrees &= agrees
                break
        else:
            y_min, x_min, y_max, x_max = bbox[i] * 100
            leaders.append(i)
            drawn.append(DrawnBox(
                x_min, y_min, x_max - x_min, y_max - y_min, [caption], hues[name[i]], agrees))
    return sorted(drawn, key=lambda box: -box.width * box.height)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    height, width = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    union = np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - height * width
    return float(height * width / union) if union > 0 else 0.


def _keys(log: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(k for entry in log for k in entry))


def _series(log: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    # Iterations and values of the entries that have the value.
    points = [(entry.get('iteration', i), entry[name]) for i, entry in enumerate(log, 1)
              if entry.get(name) is not None]
    x, y = np.array(points, np.float64).T
    return x, y


def _running_mean(y: np.ndarray, window: int) -> np.ndarray:
    # Over the window's values so far at the beginning, so that nothing is invented there.
    y = np.nan_to_num(y)
    total = np.concatenate(([0], np.cumsum(y)))
    end = np.arange(1, len(y) + 1)
    begin = np.maximum(end - window, 0)
    return (total[end] - total[begin]) / (end - begin)


def _draw(draw: Any, salt: str, width: float, height: float, of_iteration: bool = True) -> str:
    # The salt keeps identifiers of several figures in one page apart.
    with matplotlib.rc_context({**_STYLE, 'svg.hashsalt': salt}):
        figure = Figure(figsize=(width, height), layout='constrained')
        ax = figure.subplots()
        draw(ax)
        if of_iteration:
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f'{x:,.0f}'))
            ax.set_xlabel('iteration')
        buffer = io.StringIO()
        figure.savefig(buffer, format='svg', metadata={'Date': None, 'Creator': None})
    return _for_page(buffer.getvalue())


def _for_page(svg: str) -> str:
    svg = svg[svg.index('<svg'):]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.DOTALL)
    # A size in points would not follow the column; the viewBox keeps the proportions.
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1', svg, count=1)
    svg = re.sub(r'<g id="[^"]*"', '<g', svg)
    svg = re.sub(r'font: ([\d.]+)px [^;"]*', r'font-size: \1px; font-family: inherit', svg)
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f'var({variable})')
    return svg
