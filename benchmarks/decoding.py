"""Time to read an image at the network's input size, in one thread.

    python benchmarks/decoding.py [--images 24] [--files DIR] [--check]

Synthetic JPEGs of Open Images' usual size, 1024 x 768 and 300 kB, with roughly the spectrum of
photographs, are read and resized in three ways in turn: decoded at full size by Pillow, at full
size by OpenCV, and at reduced size as the dataset does. Prints how many times as fast as full-size
OpenCV the last is, in the same run. Then follow the mean absolute difference between the pixels of
the last two (over all images, and of the worst image), and the difference of each from Pillow's
Lanczos filter of the full-size image, in gray values of 255. --files reads real files instead, each
resized by the same factor.
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
from timing import Table, add_check, status, take_turns

from pfdet.openimages.images import read_image_uint8, read_reduced, resize_to
from pfdet.openimages.resizing import resized_size

SIZE = (768, 1024)
# Shorter edges: full size, just above half, half, the mini recipes' range, and less.
EDGES = (800, 400, 384, 211, 160, 96)
# Up to this edge, decoding at reduced size must be this much faster. Above it, full-size decoding
# cannot be avoided.
GOAL_EDGE, GOAL_RATIO = 211, 1.3
# Reduced decoding may increase the distance from the Lanczos filter by at most this.
GOAL_DISTANCE = 2.5


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=24, help='default: %(default)s')
    parser.add_argument('--rounds', type=int, default=5, help='default: %(default)s')
    parser.add_argument('--files', type=Path, metavar='DIR', help='read real JPEGs instead')
    add_check(parser)
    args = parser.parse_args()
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as directory:
        if args.files:
            paths = sorted(args.files.glob('*.jpg'))[: args.images]
        else:
            paths = write_images(Path(directory), args.images)
        return status(measure(paths, args.rounds), args.check)


def write_images(directory: Path, n: int) -> list[Path]:
    """Write JPEGs with the spectrum of photographs."""
    rng = np.random.default_rng(0)
    fy, fx = np.fft.fftfreq(SIZE[0])[:, None], np.fft.rfftfreq(SIZE[1])
    amplitude = np.maximum(np.hypot(fy, fx), 1 / SIZE[1]) ** -1.2
    paths = []
    for i in range(n):
        # Brightness varies more than color.
        layers = []
        for _ in range(3):
            phase = rng.normal(size=(2, *amplitude.shape))
            layer = np.fft.irfft2(amplitude * (phase[0] + 1j * phase[1]), s=SIZE)
            layers.append(layer / layer.std())
        img = np.stack(
            [layers[0] + 0.3 * layer for layer in (layers[1], -layers[1], layers[2])], axis=2
        )
        paths.append(directory / f'{i}.jpg')
        cv2.imwrite(
            str(paths[-1]),
            np.clip(118 + 55 * img, 0, 255).astype(np.uint8),
            [cv2.IMWRITE_JPEG_QUALITY, 86],
        )
    return paths


def by_pillow(path: Path, size: tuple[int, int]) -> np.ndarray:
    """Decode at full size and resize with Pillow, as ChainerCV does."""
    with PIL.Image.open(path) as img:
        return np.asarray(img.convert('RGB').resize(size[::-1], PIL.Image.Resampling.BILINEAR))


def full_size(path: Path, size: tuple[int, int]) -> np.ndarray:
    return resize_to(read_image_uint8(path), size)


def reduced(path: Path, size: tuple[int, int]) -> np.ndarray:
    return resize_to(read_reduced(path, size)[0], size)


def lanczos(path: Path, size: tuple[int, int]) -> np.ndarray:
    img = PIL.Image.fromarray(read_image_uint8(path))
    return np.asarray(img.resize(size[::-1], PIL.Image.Resampling.LANCZOS))


def read_all(read, paths: list[Path], sizes: list[tuple[int, int]]) -> None:
    for path, size in zip(paths, sizes, strict=True):
        read(path, size)


def measure(paths: list[Path], rounds: int) -> int:
    """Print the table; return the number of missed goals."""
    sizes = [read_image_uint8(path).shape[:2] for path in paths]
    wanted = {
        edge: [resized_size(size, round(edge * min(size) / min(SIZE)), 10**6) for size in sizes]
        for edge in EDGES
    }
    print(f'{len(paths)} images of {np.mean([p.stat().st_size for p in paths]) / 1000:.0f} kB')
    table = Table()
    for edge in EDGES:
        ways = by_pillow, full_size, reduced
        _, seconds = take_turns(
            {way.__name__: partial(read_all, way, paths, wanted[edge]) for way in ways}, rounds
        )
        height, width = wanted[edge][0]
        full = seconds['full_size']
        goal = GOAL_RATIO if edge <= GOAL_EDGE else None
        table.faster(f'edge {edge}, {width} x {height}', seconds['reduced'], full, 'OpenCV', goal)
        table.faster('  decoded at full size by Pillow', seconds['by_pillow'], full, 'OpenCV')
    print(
        'gray values      reduced - full     from Lanczos\n'
        'edge              mean   worst     full  reduced'
    )
    further = []
    for edge in EDGES:
        differences, distances = [], []
        for path, size in zip(paths, wanted[edge], strict=True):
            reduced_img, full_img, best = (
                read(path, size).astype(int) for read in (reduced, full_size, lanczos)
            )
            differences.append(np.abs(reduced_img - full_img).mean())
            distances.append([np.abs(full_img - best).mean(), np.abs(reduced_img - best).mean()])
        distance = np.mean(distances, axis=0)
        print(
            f'{edge:4}          {np.mean(differences):8.2f}{max(differences):8.2f}'
            f'{distance[0]:9.2f}{distance[1]:9.2f}'
        )
        further.append(distance[1] - distance[0])
    table.require(
        f'at most {GOAL_DISTANCE} further from Lanczos than full size: {max(further):.2f}',
        max(further) <= GOAL_DISTANCE,
    )
    return table.missed


if __name__ == '__main__':
    sys.exit(main())
