"""A sampler of your own, and the iterator that splits its sequence over the ranks.

python docs/examples/sampler.py INDEX
"""

import sys

import numpy as np

from pfdet.iterators.sharded import ShardedIterator
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.training.transforms import TrainLoader


class BoxCountSampler:
    """Draw images with replacement, in proportion to their number of boxes.

    Args:
        index (AnnotationIndex): The training set.
        seed (int): Seed of the sequence.
    """

    def __init__(self, index, seed):
        count = np.diff(index.columns['object_offsets'])
        self.cumulative = np.cumsum(count) / count.sum()
        self.seed = seed

    def __len__(self):
        """Positions per epoch."""
        return len(self.cumulative)

    def __getitem__(self, position):
        """The image at a position. It must depend on the position and the seed alone."""
        u = np.random.default_rng((self.seed, position)).random()
        return int(np.searchsorted(self.cumulative, u, side='right'))


def main(path):
    index = AnnotationIndex.open(path)
    load = TrainLoader(OpenImagesDataset(index), (160, 160), 256, True, seed=0)
    # The batch of rank 1 of 2; on rank 0 it holds the other images of the iteration.
    iterator = ShardedIterator(BoxCountSampler(index, 0), load, batch_size=4, rank=1, n_rank=2)
    for sample in next(iterator):
        print(sample.position, sample.image_id, sample.img.shape, len(sample.bbox), 'boxes')
    iterator.finalize()


if __name__ == '__main__':
    main(sys.argv[1])
