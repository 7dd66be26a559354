"""Training refuses a validation set that has training images."""

import numpy as np
import pytest

from pfdet import recipes
from pfdet.errors import InputError
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.subset import subset
from pfdet.training.run_options import RunOptions
from pfdet.training.train import train


def test_shared_images_are_refused(small_world, tmp_path):
    whole = AnnotationIndex.open(small_world / 'train.index')
    subset(whole, np.arange(3, 5), tmp_path / 'validation.index')
    validation = AnnotationIndex.open(tmp_path / 'validation.index')
    message = f'share 2 images, such as {whole.image_id(3)!r}; expected none'
    with pytest.raises(InputError, match=message):
        train(
            recipes.find('mini'), whole, tmp_path / 'run', None, RunOptions(), val_index=validation
        )
    assert not (tmp_path / 'run').exists()
