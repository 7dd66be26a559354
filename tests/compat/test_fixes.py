import ast
import importlib.util
import warnings
from pathlib import Path

from pfdet.compat.import_hook import FIXES

import chainer
import chainer.functions as F
import numpy as np
import PIL.Image
import pytest
from chainercv import transforms
from chainercv.links.model.fpn import bbox_head_loss_pre, mask_head_loss_pre
from chainercv.utils import scale_mask

# Deprecation warnings are failures too, because they become errors in later versions.
pytestmark = [
    pytest.mark.filterwarnings('error::DeprecationWarning:chainer'),
    pytest.mark.filterwarnings('error::FutureWarning:chainer'),
]


def sources(package):
    """Yield the modules of a package and their sources after the fixes."""
    root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for path in sorted(root.rglob('*.py')):
        parts = path.relative_to(root.parent).with_suffix('').parts
        name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
        source = path.read_text(encoding='utf-8')
        for fix in FIXES:
            if name in fix.modules and fix.needed():
                source = fix.repair(source)
        yield name, source


def numpy_names(tree):
    """Yield the attribute chains of NumPy, such as ``numpy.random.choice``."""
    aliases = {'xp'}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            aliases |= {a.asname or a.name for a in node.names if a.name == 'numpy'}
    for node in ast.walk(tree):
        names = []
        while isinstance(node, ast.Attribute):
            names.insert(0, node.attr)
            node = node.value
        if names and isinstance(node, ast.Name) and node.id in aliases:
            yield names


@pytest.mark.parametrize('package', ['chainer', 'chainermn', 'chainercv'])
def test_modules_use_only_names_of_this_numpy(package):
    n_found, missing = 0, set()
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        for module, source in sources(package):
            for names in numpy_names(ast.parse(source)):
                n_found += 1
                value = np
                for name in names:
                    if not hasattr(value, name):
                        missing.add((module, '.'.join(names)))
                        break
                    value = getattr(value, name)
    assert n_found > 50
    assert not missing


def test_as_strided_forward_and_backward():
    x = chainer.Variable(np.arange(6, dtype=np.float32))
    y = F.as_strided(x, (3, 2), (2, 1), 0)
    np.testing.assert_array_equal(y.array, [[0, 1], [2, 3], [4, 5]])
    y.grad = np.array([[1, 2], [3, 4], [5, 6]], dtype=np.float32)
    y.backward()
    np.testing.assert_array_equal(x.grad, [1, 2, 3, 4, 5, 6])


@pytest.mark.parametrize('mode', ['bilinear', 'nearest'])
@pytest.mark.parametrize('align_corners', [True, False])
def test_resize_images_keeps_a_ramp(mode, align_corners):
    if mode == 'nearest' and align_corners:
        pytest.skip('not supported by Chainer')
    x = chainer.Variable(np.arange(4, dtype=np.float32).reshape(1, 1, 1, 4))
    y = F.resize_images(x, (2, 8), mode=mode, align_corners=align_corners)
    expected = {
        ('bilinear', True): np.linspace(0, 3, 8),
        ('bilinear', False): [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3],
        ('nearest', False): [0, 0, 1, 1, 2, 2, 3, 3],
    }[mode, align_corners]
    assert y.dtype == np.float32
    np.testing.assert_allclose(y.array[0, 0], [expected] * 2, atol=1e-6)
    F.sum(y).backward()
    assert x.grad.sum() == pytest.approx(16)


def test_bbox_head_loss_pre():
    rois = [
        np.array([[0, 0, 10, 10], [30, 30, 50, 50]], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([[0, 0, 100, 90]], np.float32),
    ]
    roi_indices = [np.array([0, 0], np.int32), np.zeros(0, np.int32), np.array([1], np.int32)]
    bboxes = [np.array([[0, 0, 10, 20]], np.float32), np.array([[0, 0, 100, 100]], np.float32)]
    labels = [np.array([4], np.int32), np.array([2], np.int32)]
    out_rois, out_indices, gt_locs, gt_labels = bbox_head_loss_pre(
        rois, roi_indices, (0.1, 0.2), bboxes, labels
    )
    for out, expected in zip(out_rois, rois):
        np.testing.assert_array_equal(out, expected)
    assert [i.tolist() for i in out_indices] == [[0, 0], [], [1]]
    # An IoU of 0.5 is foreground. Label 0 is the background.
    assert [t.tolist() for t in gt_labels] == [[5, 0], [], [3]]
    np.testing.assert_allclose(gt_locs[0][0], [0, 5, 0, np.log(2) / 0.2], atol=1e-5)


def test_mask_head_loss_pre():
    rois = [np.array([[0, 0, 8, 8]], np.float32), np.array([[0, 0, 16, 16]], np.float32)]
    roi_indices = [np.zeros(1, np.int32)] * 2
    mask = np.zeros((1, 16, 16), bool)
    mask[:, :8] = True
    gt_labels = [np.array([1], np.int32), np.array([0], np.int32)]
    bbox = np.array([[0, 0, 8, 16]], np.float32)
    out_rois, _, segms, labels = mask_head_loss_pre(rois, roi_indices, [mask], [bbox], gt_labels, 4)
    assert [len(r) for r in out_rois] == [1, 0]
    assert labels[0].tolist() == [1]
    np.testing.assert_array_equal(segms[0][0], np.ones((4, 4)))


def test_masks_of_bool():
    mask = np.zeros((1, 8, 8), bool)
    mask[:, 2:6, 2:6] = True
    bbox = np.array([[2, 2, 6, 6]], np.float32)
    scaled = scale_mask(mask, bbox, 16)
    assert scaled.dtype == bool
    assert scaled.shape == (1, 16, 16)
    assert scaled[0, 5:11, 5:11].all() and scaled.sum() <= 10 * 10


@pytest.mark.parametrize('size', [(4, 6), (8, 3)])
def test_resize_with_pillow(size):
    image = np.random.RandomState(0).uniform(0, 255, (3, 4, 6)).astype(np.float32)
    with chainer.using_config('cv_resize_backend', 'PIL'):
        resized = transforms.resize(image, size, PIL.Image.NEAREST)
    assert resized.dtype == np.float32
    rows = (np.arange(size[0]) + 0.5) * 4 // size[0]
    columns = (np.arange(size[1]) + 0.5) * 6 // size[1]
    np.testing.assert_array_equal(resized, image[:, rows.astype(int)][:, :, columns.astype(int)])


def test_rotate_with_pillow():
    image = np.random.RandomState(0).uniform(0, 255, (3, 4, 6)).astype(np.float32)
    with chainer.using_config('cv_rotate_backend', 'PIL'):
        rotated = transforms.rotate(image, 90)
    np.testing.assert_allclose(rotated, np.rot90(image, axes=(1, 2)), atol=1e-3)


def test_overriding_warning_is_kept_outside_chainercv():
    with pytest.warns(DeprecationWarning, match='to_cpu'):

        class Own(chainer.Link):
            def to_cpu(self):
                return self

    assert Own().to_cpu()
