import json
from pathlib import Path

import pytest

from pfdet import recipes
from pfdet.training.tables.rows import Rows

SIZES = {'expert-class10': 4, 'expert-class20': 2, 'expert-class40': 1, 'expert-coco': 1}
TABLES = 'pfdet.training.tables'


@pytest.fixture
def commands(monkeypatch):
    """Replace commands by ones that only write their files; returns the list of their arguments."""
    recorded = []

    def record(*args, **_):
        assert args[:2] == ('-m', 'pfdet')
        args = [str(arg) for arg in args[2:]]
        recorded.append(args)
        out = Path(args[args.index('--out') + 1])
        out.parent.mkdir(parents=True, exist_ok=True)
        name = args[args.index('--recipe') + 1] if '--recipe' in args else ''
        if name in SIZES:
            for k in range(SIZES[name]):
                write_model(out / f'{k}', name)
        elif name:
            write_model(out, name)
        elif out.suffix == '.json':
            out.write_text(json.dumps({'mAP': 0.5, 'AP': {}}))
        else:
            out.touch()

    def write_model(out, name):
        out.mkdir(parents=True)
        (out / 'model.npz').touch()
        recipe = recipes.override(recipes.at_size(recipes.find(name), 'mini'), ['batch_size=8'])
        (out / 'recipe.json').write_text(
            json.dumps({'recipe': recipes.to_dict(recipe), 'run': {'init': None}})
        )

    def join(parts, classes, out):
        out.touch()

    for module in 'rows', 'experts', 'merging':
        monkeypatch.setattr(f'{TABLES}.{module}.run_python', record)
    monkeypatch.setattr(
        f'{TABLES}.merging.split_in_halves', lambda index, out, seed: (out / '0', out / '1')
    )
    monkeypatch.setattr(f'{TABLES}.merging.image_ids', lambda index: {index.name})
    monkeypatch.setattr(f'{TABLES}.merging.read_model_classes', lambda path: [])
    monkeypatch.setattr(f'{TABLES}.merging.join_images', join)
    return recorded


@pytest.fixture
def rows(tmp_path):
    return Rows(
        tmp_path / 'runs',
        tmp_path / 'train.index',
        tmp_path / 'validation.index',
        'mini',
        1,
        ('batch_size=8',),
    )
