"""How well anchors fit the boxes of a data set."""

import shlex

import numpy as np
import pytest
from chainercv.utils import bbox_iou as iou

from pfdet import recipes
from pfdet.cli import main as cli
from pfdet.errors import InputError
from pfdet.links.rpn import RPN
from pfdet.openimages.box_flags import GROUP_OF
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.resizing import resized_size
from pfdet.targets.anchor_coverage import Objects, best_iou, coverage, resized_objects


@pytest.fixture(scope='module')
def index(small_world):
    return AnnotationIndex.open(small_world / 'train.index')


@pytest.mark.parametrize('n_level', [5, 6])
@pytest.mark.parametrize('ratios', [(0.5, 1, 2), (1 / 3, 3)])
@pytest.mark.parametrize('anchor_size', [5, 16, 40])
def test_the_best_of_all_anchors_of_the_rpn(anchor_size, ratios, n_level):
    rng = np.random.default_rng(0)
    scales = [1 / (4 * 2**level) for level in range(n_level)]
    rpn = RPN(scales, ratios, anchor_size, 4)
    for size in (97, 160), (240, 131):
        corner = rng.uniform(0, 1, (60, 2))
        bbox = np.concatenate([corner, corner + (1 - corner) * rng.uniform(0, 1, (60, 2))], axis=1)
        bbox = bbox * np.tile(size, 2)
        coarsest = round(1 / scales[-1])
        padded = [-(-n // coarsest) * coarsest for n in size]
        anchors = rpn.anchors([[round(n * s) for n in padded] for s in scales])
        expected = iou(bbox.astype(np.float32), anchors).max(axis=1)
        objects = Objects(bbox, np.tile(np.array(size, float), (60, 1)))
        found = best_iou(objects, anchor_size, ratios, n_level)
        np.testing.assert_allclose(found, expected, atol=1e-4)
        result = coverage(objects, anchor_size, ratios, n_level, 0.5)
        assert result.share == (found >= 0.5).mean() > 0
        assert result.iou == pytest.approx(expected.mean(), abs=1e-4)


def test_objects_have_the_sizes_of_training(index):
    objects = resized_objects(index, (100, 140), 150, 10**6)
    not_group = (index.columns['flags'] & GROUP_OF) == 0
    assert len(objects.bbox) == not_group.sum() < len(not_group)
    image = np.repeat(np.arange(len(index)), np.diff(index.columns['object_offsets']))[not_group]
    for i, size in zip(image, objects.size, strict=True):
        assert tuple(size) in {
            resized_size(index.image_size(i), edge, 150) for edge in range(100, 141)
        }
    relative = objects.bbox / np.tile(objects.size, 2)
    np.testing.assert_allclose(relative, index.columns['bbox'][not_group], atol=1e-6)
    # More than one length is drawn.
    assert len(np.unique(objects.size.min(axis=1))) > 5


def test_a_sample_is_decided_by_the_seed(index):
    a, b, c = (resized_objects(index, (100, 140), 150, 20, seed) for seed in (0, 0, 1))
    assert len(a.bbox) == len(np.unique(a.bbox, axis=0)) == 20
    assert (a.bbox == b.bbox).all() and not (a.bbox == c.bbox).all()


def test_no_object(index, monkeypatch):
    flags = np.full_like(index.columns['flags'], GROUP_OF)
    monkeypatch.setattr(index, 'columns', {**index.columns, 'flags': flags})
    with pytest.raises(InputError, match=r'train.index: expected at least one object'):
        resized_objects(index, (100, 140), 150, 20)


def run(monkeypatch, capsys, *arguments):
    monkeypatch.setattr('sys.argv', ['pfdet', 'anchors', *map(str, arguments)])
    cli.main()
    return capsys.readouterr().out.splitlines()


def test_command(small_world, monkeypatch, capsys):
    path = small_world / 'train.index'
    lines = run(monkeypatch, capsys, '--index', path, '--set', 'anchor_size=60')
    [own] = [line.split() for line in lines if line.endswith('the recipe')]
    [best] = [line.split() for line in lines if line.endswith('best')]
    ious = [float(line.split('%')[1].split()[0]) for line in lines if '%' in line]
    assert own[0] == '60' and best[0] != '60' and max(ious) == float(best[-2])
    # The advice can be followed.
    flag, *settings = shlex.split(lines[-1].partition(': ')[2])
    assert flag == '--set'
    recipe = recipes.override(recipes.find('mini'), settings)
    assert recipe.anchor_size == int(best[0])
    lines = run(monkeypatch, capsys, '--index', path, flag, *settings)
    assert lines[-1] == "The recipe's anchors fit best."
