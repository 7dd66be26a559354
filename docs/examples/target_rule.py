"""A target rule of your own, and a training step written out.

python docs/examples/target_rule.py INDEX
"""

import sys
from functools import partial

import numpy as np

from pfdet import recipes
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.training import build
from pfdet.training.transforms import Converter, TrainLoader


def ignore_small(t, sample, truth, min_area=64.0):
    """Ignore all classes for the regions that are matched to a small object.

    Args:
        t (int8 array): Target matrix :math:`(N, S, C)`.
        sample (RoiSample): Regions of interest.
        truth (BatchTruth): Ground truth of the batch.
        min_area (float): In square pixels.
    """
    height_width = truth.bbox[:, :, 2:] - truth.bbox[:, :, :2]
    small = height_width.prod(axis=2) < min_area
    # Index of the image, to look up the matched object of each region
    n = np.arange(len(t))[:, None]
    ignored = small[n, sample.matched] & sample.foreground
    return np.where(ignored[:, :, None], np.int8(-1), t)


def main(path):
    recipe = recipes.find('mini')
    index = AnnotationIndex.open(path)
    network = build.detector(recipe, len(index.classes))
    chain = build.train_chain(recipe, network, index.classes, index.hierarchy, seed=0)
    chain.target_rules += (partial(ignore_small, min_area=100.0),)

    load = TrainLoader(OpenImagesDataset(index), recipe.min_size, recipe.max_size, True, seed=0)
    batch = Converter(index.hierarchy)([load(i, position=i, iteration=0) for i in range(4)])
    loss = chain(batch)
    loss.backward()
    print(f'loss {float(loss.array):.4f}')


if __name__ == '__main__':
    main(sys.argv[1])
