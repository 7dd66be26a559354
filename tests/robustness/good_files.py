"""One small good file for every reader of ``worker.py``, and what is made from them."""

import contextlib
import importlib.util
import io
import json
import shutil
import zipfile
from pathlib import Path

import chainer
import numpy as np
import PIL.Image

from pfdet.evaluation.detections import Detections, write_detections
from pfdet.evaluation.submission import write_submission
from pfdet.links import backbone_file
from pfdet.links.backbones import BACKBONES
from pfdet.openimages.build_index import build_index
from pfdet.openimages.column_file import write_columns
from pfdet.openimages.concurrent_rates import ConcurrentRates, write_concurrent_rates
from pfdet.openimages.hierarchy import flat_hierarchy
from pfdet.recipes.recipe import Recipe
from pfdet.training import checkpoints, model_directory


def load_module(name):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f'{name}.py'))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = load_module('worker')
CLASSES = worker.CLASSES
RNG = np.random.default_rng(0)
IMAGE = PIL.Image.fromarray(RNG.integers(0, 256, (20, 30, 3), np.uint8))
BOXES = """ImageID,LabelName,XMin,XMax,YMin,YMax,IsGroupOf
x,/m/a,0,0.5,0,1,0
x,/m/b,0.25,0.5,0,0.125,1
y,/m/a,0,1,0.5,1,0
"""
COCO = {
    'images': [{'id': 1, 'file_name': 'x.jpg', 'height': 20, 'width': 30}],
    'annotations': [{'image_id': 1, 'category_id': 7, 'bbox': [1, 2, 3, 4], 'iscrowd': 0}],
    'categories': [{'id': 7, 'name': 'cat'}],
}

VOC = """<annotation><size><width>30</width><height>20</height></size>
<object><name>cat</name><difficult>0</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>3.5</xmax><ymax>4</ymax></bndbox>
</object></annotation>
"""


def arrays_of(target):
    serializer = chainer.serializers.DictionarySerializer()
    serializer.save(target)
    return {key: np.asarray(value) for key, value in serializer.target.items()}


def trainer_state():
    """The state of a trainer after two steps."""
    trainer = worker.trainer()
    trainer._start_at = 0.0
    updater = trainer.updater
    for _ in range(2):
        for param in updater.get_optimizer('main').target.params():
            param.grad = np.ones_like(param.array)
        updater.get_optimizer('main').update()
        next(updater.get_iterator('main'))
        updater.iteration += 1
    updater.get_iterator('main').finalize()
    return arrays_of(trainer)


def detections(n=40):
    bbox = np.sort(RNG.random((n, 2, 2), np.float32), axis=1).reshape(n, 4)
    return Detections(
        ['x', 'y', 'z'],
        np.sort(RNG.integers(0, 2, n)).astype(np.int32),
        RNG.integers(0, 3, n).astype(np.int32),
        RNG.random(n, np.float32),
        bbox,
    )


def safetensors(header, data):
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, 'little') + text + data


def zip_pth():
    """A file of PyTorch 1.6 and later: one tensor of four values."""
    tensor = (
        b'ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n'
        b'X\1\0\0\0' + b'0X\3\0\0\0cpuK\4tQK\0K\2K\2\x86K\2K\1\x86\x89}tR'
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, 'w') as archive:
        archive.writestr('a/data.pkl', b'\x80\2}X\1\0\0\0a' + tensor + b's.')
        archive.writestr('a/data/0', np.arange(4, dtype='<f4').tobytes())
    return file.getvalue()


def write_good_files(root):
    """Write the files, each in a directory of its own; return their paths by reader."""
    paths = {}

    def path_of(reader, name):
        directory = root / reader.replace(' ', '-')
        directory.mkdir()
        paths[reader] = directory / name
        return paths[reader]

    for reader in 'image', 'image reduced', 'image size':
        IMAGE.save(path_of(reader, 'x.jpg'), 'JPEG')
    np.savez(path_of('npz', 'a.npz'), a=np.arange(50), b=np.eye(3), c=np.array(['/m/a', 'b']))
    np.savez_compressed(path_of('weights', 'model.npz'), **arrays_of(worker.network()))
    backbone = backbone_file.arrays_of(BACKBONES['mini_se_resnext']())
    backbone_file.write_backbone(path_of('backbone', 'backbone.npz'), backbone)
    rates = ConcurrentRates(np.array([9, 5, 4]), np.eye(3, dtype=np.int64)[::-1], 0.9, False, False)
    rates.both[1, 1] = 0
    write_concurrent_rates(path_of('rates npz', 'rates.npz'), rates, CLASSES)
    np.save(path_of('rates npy', 'rates.npy'), rates.rates)
    checkpoints.write(path_of('snapshot', 'iter_00000002.npz'), trainer_state(), {'seed': 1})
    path_of('safetensors', 'a.safetensors').write_bytes(
        safetensors({'a': {'dtype': 'F32', 'shape': [3], 'data_offsets': [0, 12]}}, bytes(12))
    )
    path_of('pth', 'a.pth').write_bytes(zip_pth())
    recipe = path_of('recipe', 'recipe.json')
    model_directory.write_recipe(recipe.parent, Recipe(), CLASSES, flat_hierarchy(3), {'seed': 0})
    score = json.dumps({'mAP': 0.5, 'AP': {'/m/a': 0.5, '/m/b': None, '/m/c': 1}})
    shutil.copy(recipe, path_of('run', 'recipe.json'))
    (paths['run'].with_name('score.json')).write_text(score)
    path_of('score', 'score.json').write_text(score)
    for reader in 'parquet', 'parquet blocks':
        write_detections(path_of(reader, 'd.parquet'), detections(), CLASSES)
    for reader in 'detections csv', 'detections csv blocks':
        write_detections(path_of(reader, 'd.csv'), detections(), CLASSES)
    for reader in 'submission', 'is submission':
        write_submission(path_of(reader, 's.csv'), detections(), CLASSES)
    path_of('classes', 'classes.csv').write_text('/m/a,A\n/m/b,B\n/m/c,"C, d"\n')
    path_of('class counts', 'classes.csv').write_text(
        'LabelName,ImagesExpanded\n/m/a,3\n/m/b,0\n/m/c,12\n'
    )
    path_of('hierarchy', 'hierarchy.json').write_text(
        json.dumps(
            {'LabelName': '/m/0', 'Subcategory': [{'LabelName': '/m/a'}, {'LabelName': '/m/b'}]}
        )
    )
    path_of('pairs', 'pairs.csv').write_text('SubjectMID,PartMID\n/m/a,/m/b\n')
    path_of('coco', 'instances.json').write_text(json.dumps(COCO))
    path_of('voc', 'x.xml').write_text(VOC)
    path_of('yolo labels', 'x.txt').write_text('0 0.5 0.5 0.25 0.25\n1 0.25 0.5 0.125 1\n')
    path_of('class names', 'classes.txt').write_text('cat\nblack dog\n')
    if importlib.util.find_spec('yaml'):
        path_of('data yaml', 'data.yaml').write_text(
            'path: .\ntrain: images/train\nval: [a, b]\nnc: 2\nnames: {0: cat, 1: "dog"}\n'
        )
    path_of('boxes', 'boxes.csv').write_text(BOXES)
    index = path_of('index', 'x.index')
    write_index(index)
    write_columns(
        path_of('columns', '000001.part'), 'part of a prediction', {'a': np.arange(9)}, {'b': 1}
    )
    return paths


def write_index(path):
    """Compile the index of two images."""
    folder = path.parent / 'images'
    folder.mkdir()
    for name in 'x', 'y':
        IMAGE.save(folder / f'{name}.jpg')
    files = {
        'boxes.csv': BOXES,
        'labels.csv': 'ImageID,Source,LabelName,Confidence\nx,verification,/m/a,1\n',
        'classes.csv': '/m/a,A\n/m/b,B\n/m/c,C\n',
        'hierarchy.json': json.dumps({'LabelName': '/m/0', 'Subcategory': [{'LabelName': '/m/a'}]}),
    }
    for name, text in files.items():
        (path.parent / name).write_text(text)
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(*(path.parent / name for name in files), folder, path)
