"""``pfdet.load(...).to_gpu()`` against the CPU, and back."""

import pfdet.compat  # noqa: F401

import numpy as np
import pytest
from chainer.backends import cuda

from pfdet import api, recipes
from pfdet.openimages.classes import Classes
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.training import build, model_directory

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not cuda.available, reason='no GPU')]


def test_the_same_detections_on_both(tmp_path):
    classes = Classes(('/m/0', '/m/1'), ('A', 'B'))
    recipe = recipes.override(
        recipes.find('mini', 'mini'), ['test_sizes=(64,)', 'batch_size=2', 'score_thresh=0.0']
    )
    model_directory.write_recipe(tmp_path, recipe, classes, flat_hierarchy(2), {})
    model_directory.write_weights(tmp_path, build.detector(recipe, 2))
    # Without suppression and limit, which almost equal scores would decide.
    model = api.load(tmp_path, suppression='none', max_per_image=None)
    rng = np.random.default_rng(0)
    imgs = [rng.integers(0, 255, (3, h, 80)).astype(np.uint8) for h in (70, 90, 70)]
    expected = model.predict(imgs)
    assert model.to_gpu() is model and model.xp is cuda.cupy
    for given in imgs, [cuda.to_gpu(img) for img in imgs]:
        found = model.predict(given)
        for bbox, label, score, bbox_cpu, _, score_cpu in zip(*found, *expected, strict=True):
            assert all(isinstance(a, np.ndarray) for a in (bbox, label, score))
            assert bbox.shape == bbox_cpu.shape and len(score) > 5
            np.testing.assert_allclose(score, score_cpu, rtol=1e-3, atol=1e-5)
    assert model.to_cpu() is model and model.xp is np
    for part, part_cpu in zip(model.predict(imgs), expected, strict=True):
        for a, b in zip(part, part_cpu, strict=True):
            np.testing.assert_array_equal(a, b)
