"""How much of a batch is padding, with and without grouping images by aspect ratio.

    python benchmarks/aspect_grouping.py [--images 100000] [--check]

The images of an iteration, over all ranks, are padded to their largest height and width, rounded up
to the network's stride, because the padding is part of the statistics of batch normalization over
all ranks. The table shows the share of padding in all pixels of an epoch with the recipes' sampler:
for images in random order, in runs of similar aspect ratio, and, as a lower bound, for each image
padded to the stride alone.

The sizes are synthetic, not those of Open Images: its images are mostly 1024 pixels wide or high,
and the mix below is a guess of their aspect ratios. MiniOpenImages has sizes of its own. The goal
is that grouping halves the padding at full size. Nothing is timed.
"""

import argparse
import math
import sys
from collections.abc import Sequence

import numpy as np
from timing import add_check, status

from pfdet.iterators.samplers import SequentialSampler, aspect_groups
from pfdet.openimages.mini.knobs import Knobs
from pfdet.openimages.mini.scene import compose
from pfdet.openimages.mini.world import plan_images
from pfdet.openimages.resizing import resized_size
from pfdet.recipes.mini import at_size
from pfdet.recipes.recipe import Recipe

# Width, height and share. The rest has random ratios from 1:2 to 2:1, like cropped images.
MIX = (
    (1024, 768, 0.42),
    (768, 1024, 0.13),
    (1024, 683, 0.14),
    (683, 1024, 0.06),
    (1024, 681, 0.03),
    (1024, 685, 0.02),
    (1024, 576, 0.04),
    (576, 1024, 0.01),
    (1024, 1024, 0.02),
    (768, 768, 0.01),
    (1024, 680, 0.02),
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--images', type=int, default=100_000, help='default: %(default)s')
    add_check(parser)
    args = parser.parse_args()

    full = Recipe()
    sizes = synthetic_sizes(args.images)
    print(f'synthetic sizes, {args.images:,} images; runs of {full.aspect_chunk}')
    print_head()
    missed = 0
    for about, edges, stride in (
        ('shorter edge 800', (800, 800), 32),
        ('five scales', (800, 800), 64),
        ('multi-scale 640-1056', (640, 1056), 64),
    ):
        for ranks, batch_size in (1, 8), (8, 1), (512, 1):
            before, after, _ = print_row(
                about, sizes, ranks, batch_size, edges, full.max_size, stride, full.aspect_chunk
            )
            missed += after > before / 2
    print('runs of other lengths')
    print_head()
    for chunk in 8, 64, 512, 4096:
        for ranks in 8, 512:
            print_row(f'runs of {chunk}', sizes, ranks, 1, (800, 800), full.max_size, 32, chunk)

    mini = at_size(full, 'mini')
    knobs = Knobs()
    scenes = [compose(plan, knobs) for plan in plan_images(knobs, 'train')]
    sizes = np.array([(scene.height, scene.width) for scene in scenes])
    print(f"MiniOpenImages' sizes, {len(sizes):,} images; runs of {mini.aspect_chunk}")
    print_head()
    for ranks, batch_size in (1, 4), (2, 4), (8, 1):
        for stride in 32, 64:
            print_row(
                'mini size',
                sizes,
                ranks,
                batch_size,
                mini.min_size,
                mini.max_size,
                stride,
                mini.aspect_chunk,
            )
    print('padding at full size at least halved: ' + ('MISSED' if missed else 'met'))
    return status(missed, args.check)


def synthetic_sizes(n: int) -> np.ndarray:
    """Heights and widths of the mix, :math:`(n, 2)`."""
    rng = np.random.default_rng(0)
    share = np.array([s for _, _, s in MIX])
    kind = rng.choice(len(MIX) + 1, n, p=[*share, 1 - share.sum()])
    ratio = 2 ** rng.uniform(-1, 1, n)
    free = np.round(1024 * np.stack([np.minimum(1, 1 / ratio), np.minimum(1, ratio)], axis=1))
    known = np.array([(h, w) for w, h, _ in MIX] + [(0, 0)])[kind]
    return np.where(kind[:, None] == len(MIX), free, known).astype(int)


def print_head() -> None:
    print('                          ranks  batch  stride   random order  in runs  alone')


def print_row(
    about: str,
    sizes: np.ndarray,
    ranks: int,
    batch_size: int,
    edges: tuple[int, int],
    max_size: int,
    stride: int,
    chunk: int,
) -> Sequence[float]:
    """Print and return the shares of padding."""
    group = aspect_groups(sizes)
    n_batch = ranks * batch_size
    free = SequentialSampler(len(sizes), 0)
    in_runs = SequentialSampler(len(sizes), 0, group, chunk)
    shares = [
        padded_share(sizes, sampler, n, edges, max_size, stride)
        for sampler, n in ((free, n_batch), (in_runs, n_batch), (free, 1))
    ]
    print(
        f'  {about:22}{ranks:7}{batch_size:7}{stride:8}'
        + ''.join(f'{100 * share:{width}.1f} %' for share, width in zip(shares, (13, 7, 5)))
    )
    return shares


def padded_share(
    sizes: np.ndarray,
    sampler: SequentialSampler,
    n_batch: int,
    edges: tuple[int, int],
    max_size: int,
    stride: int,
) -> float:
    """Share of padding in all pixels of an epoch of global batches of ``n_batch`` images."""
    rng = np.random.default_rng(1)
    drawn = sizes[[sampler[p] for p in range(len(sampler))]]
    filled = total = 0
    for k in range(0, len(drawn), n_batch):
        edge = int(rng.integers(edges[0], edges[1] + 1))
        batch = np.array(
            [resized_size((h, w), edge, max_size) for h, w in drawn[k : k + n_batch].tolist()]
        )
        height, width = (math.ceil(n / stride) * stride for n in batch.max(axis=0))
        filled += int(batch.prod(axis=1).sum())
        total += len(batch) * height * width
    return 1 - filled / total


if __name__ == '__main__':
    sys.exit(main())
