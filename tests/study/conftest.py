import json
from pathlib import Path

import pytest

from pfdet.training.table_runs import Rows

SIZES = {'expert-class10': 4, 'expert-class20': 2, 'expert-class40': 1, 'expert-coco': 1}


@pytest.fixture
def commands(monkeypatch):
    """Replace commands by ones that only write their files; returns the list of their arguments."""
    recorded = []

    def record(*args, **_):
        assert args[:2] == ('-m', 'pfdet')
        args = [str(arg) for arg in args[2:]]
        recorded.append(args)
        out = Path(args[args.index('--out') + 1])
        name = args[args.index('--recipe') + 1] if '--recipe' in args else ''
        if name in SIZES:
            for k in range(SIZES[name]):
                (out / f'{k}').mkdir(parents=True)
        elif name:
            out.mkdir(parents=True)
            (out / 'model.npz').touch()
        elif out.suffix == '.json':
            out.write_text(json.dumps({'mAP': 0.5, 'AP': {}}))
        else:
            out.touch()

    monkeypatch.setattr('pfdet.training.table_runs.run_python', record)
    monkeypatch.setattr('study.expert_ensembles.run_python', record)
    return recorded


@pytest.fixture
def rows(tmp_path):
    return Rows(
        tmp_path / 'runs', tmp_path / 'train.index', tmp_path / 'validation.index', 'mini', 1
    )
