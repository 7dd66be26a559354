"""Images, an index and detections of a small world, as other programs get them."""

import json

import numpy as np

from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import Hierarchy

CLASSES = Classes(
    ('/m/a', '/m/b', '/m/c', '/m/d'), ('Apple', 'Éclair "à la" & co: #1', 'Bat', 'Bat')
)
# Sorted. The last two have no detections, and the last one is not predicted.
IDS = [*(f'{k:02}' for k in range(8)), 'a.b', 'x c', 'é y', 'é z']
N_PREDICTED = 11


def pixels(bbox, size):
    return bbox.astype(np.float64) * (*size, *size)


def load(path):
    return json.loads(path.read_text(encoding='utf-8'))


def tree():
    """Bats are Apples, of all things."""
    ancestors = np.zeros((4, 4), bool)
    ancestors[2, 0] = True
    return Hierarchy(ancestors)
