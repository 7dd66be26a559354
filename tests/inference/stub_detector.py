"""A detector that finds coloured rectangles, for tests of prediction without a network."""

import os
import signal

import cv2
import numpy as np

from pfdet.openimages.build_index import build_index

N_CLASS = 3
COLORS = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255]])


class StubDetector:
    """Detects one box around the pixels of each of three colours.

    Args:
        kill_at (int): The call of ``predict`` at which the process kills itself with SIGKILL.
    """

    def __init__(self, kill_at: int | None = None):
        self.kill_at = kill_at
        self.batches = []

    def padded_size(self, size):
        return tuple(-(-int(n) // 32) * 32 for n in size)

    def predict(self, imgs, score_thresh=0.0):
        if len(self.batches) == self.kill_at:
            os.kill(os.getpid(), signal.SIGKILL)
        assert len({self.padded_size(img.shape[1:]) for img in imgs}) == 1
        self.batches.append([img.shape[1:] for img in imgs])
        return [self.outputs(img) for img in imgs]

    @staticmethod
    def outputs(img):
        bbox, score = [], []
        height, width = img.shape[1:]
        for label, color in enumerate(COLORS):
            y, x = np.nonzero(np.abs(img.transpose(1, 2, 0).astype(int) - color).max(axis=2) < 99)
            if len(y) == 0:
                continue
            bbox.append(
                [y.min() / height, x.min() / width, (y.max() + 1) / height, (x.max() + 1) / width]
            )
            score.append(np.full(N_CLASS, 0.001))
            # The score depends on the image size.
            score[-1][label] = 0.9 - label / 10 - 1 / height
        return (
            np.array(bbox, np.float32).reshape(-1, 1, 4),
            np.array(score, np.float32).reshape(-1, N_CLASS),
        )


def draw(directory, n=40, seed=0):
    """Draw PNG images with up to three rectangles, build an index, and return the boxes by id.

    Coordinates are multiples of 1/8, so that flipping is exact.
    """
    rng = np.random.default_rng(seed)
    (directory / 'images').mkdir(parents=True)
    boxes = {}
    for i in range(n):
        height, width = [(64, 96), (96, 64), (64, 64), (48, 96)][rng.integers(4)]
        img = np.zeros((height, width, 3), np.uint8)
        boxes[f'{i:03}'] = {}
        # Rectangles are side by side, so that none covers another. Some images have none.
        for label in np.flatnonzero(rng.random(N_CLASS) < 0.6):
            y0, y1 = np.sort(rng.choice(9, 2, replace=False)) / 8
            x0, x1 = (label * 2 + 1) / 8, (label * 2 + 2) / 8
            img[int(y0 * height) : int(y1 * height), int(x0 * width) : int(x1 * width)] = COLORS[
                label
            ]
            boxes[f'{i:03}'][int(label)] = (y0, x0, y1, x1)
        cv2.imwrite(str(directory / 'images' / f'{i:03}.png'), img[:, :, ::-1])
    ids = sorted(boxes)
    (directory / 'boxes.csv').write_text(
        'ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,'
        'IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside\n'
        '000,x,/m/r,1,0,1,0,1,0,0,0,0,0\n'
    )
    (directory / 'labels.csv').write_text(
        'ImageID,Source,LabelName,Confidence\n' + ''.join(f'{i},verification,/m/r,1\n' for i in ids)
    )
    (directory / 'classes.csv').write_text('/m/r,Red\n/m/g,Green\n/m/b,Blue\n')
    (directory / 'hierarchy.json').write_text(
        '{"LabelName": "/m/0bl9f", "Subcategory": [{"LabelName": "/m/r"}, {"LabelName": "/m/g"}, '
        '{"LabelName": "/m/b"}]}'
    )
    build_index(
        directory / 'boxes.csv',
        directory / 'labels.csv',
        directory / 'classes.csv',
        directory / 'hierarchy.json',
        directory / 'images',
        directory / 'drawn.index',
    )
    return boxes
