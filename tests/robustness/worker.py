"""Read files in forked processes with limits on time and memory; see ``conftest.py``.

Each line of standard input is a JSON object: ``reader`` (a key of :data:`READERS`), ``paths``,
``seconds`` and ``memory`` (bytes). A child process reads the files one after the other. For each
file, a line is written: ``outcome`` is ``'value'``, ``'refused'`` (an InputError), ``'raised'``
(any other exception), ``'killed'`` or ``'timeout'``; ``text`` has the message.
"""

import contextlib
import gc
import importlib.util
import io
import json
import os
import resource
import select
import signal
import sys
import time
import traceback
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import chainer.links as L
import chainer.memory_layouts  # needed by chainer.links.Linear, which does not import it

from pfdet.errors import InputError
from pfdet.evaluation import detections, image_order, submission
from pfdet.evaluation.class_groups import read_training_images
from pfdet.evaluation.prediction_strings import is_submission
from pfdet.evaluation.run_directory import read_run
from pfdet.inference.ensemble_weights import read_scores
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links import backbone_file, checkpoint_files
from pfdet.links.backbones import BACKBONES
from pfdet.openimages import coco_json, column_file, concurrent_rates, cooccurrence, images
from pfdet.openimages.classes import Classes, read_classes
from pfdet.openimages.hierarchy import read_hierarchy
from pfdet.openimages.index import AnnotationIndex
from pfdet.openimages.own import data_yaml, voc_xml, yolo
from pfdet.openimages.tables import read_boxes
from pfdet.training import checkpoints, model_directory

CLASSES = Classes(('/m/a', '/m/b', '/m/c'), ('A', 'B', 'C'))


def network():
    chain = chainer.Chain()
    with chain.init_scope():
        chain.fc = L.Linear(3, 2)
        chain.bn = L.BatchNormalization(2)
    return chain


def trainer():
    optimizer = chainer.optimizers.CorrectedMomentumSGD().setup(network())
    iterator = ShardedIterator(range(10_000), lambda *args: args, 4)
    updater = chainer.training.StandardUpdater(iterator, optimizer)
    return chainer.training.Trainer(updater, (1, 'epoch'))


def snapshot(path):
    damage = checkpoints.problem(path)
    if damage:
        raise InputError(f'{path}: {damage}')
    checkpoints.read_run(path)
    checkpoints.load(trainer(), path)


def is_backbone(path):
    backbone_file.is_backbone_file(path)
    backbone_file.load_backbone(BACKBONES['mini_se_resnext'](), path)


def index(path):
    opened = AnnotationIndex.open(path)
    for i in range(len(opened)):
        opened.image_id(i)


def blocks(path):
    directory = path.with_name(path.name + '.sorted')
    directory.mkdir()
    try:
        sorted_path = image_order.sorted_by_image(path, CLASSES, directory)
        for _ in detections.blocks_of_images(sorted_path, CLASSES, 1000):
            pass
    finally:
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()


def hierarchy(path):
    return read_hierarchy(path, CLASSES)


READERS = {
    'image': lambda path: images.read_image_uint8(path).shape,
    'image reduced': lambda path: images.read_reduced(path, (8, 8))[1],
    'image size': images.image_size,
    'npz': lambda path: len(checkpoint_files.read_npz(path)),
    'weights': lambda path: model_directory.load_weights(network(), path),
    'backbone': is_backbone,
    'rates npz': lambda path: concurrent_rates.read_concurrent_rates(path, CLASSES),
    'rates npy': lambda path: model_directory.read_npy(path).shape,
    'snapshot': snapshot,
    'safetensors': lambda path: len(checkpoint_files.read_safetensors(path)),
    'pth': lambda path: len(checkpoint_files.read_pth(path)),
    'recipe': lambda path: model_directory.read_recipe(path.parent),
    'run': lambda path: read_run(path.parent),
    'score': read_scores,
    'parquet': lambda path: len(detections.read_detections(path, CLASSES)),
    'parquet blocks': blocks,
    'detections csv': lambda path: len(detections.read_detections(path, CLASSES)),
    'detections csv blocks': blocks,
    'submission': lambda path: submission.validate_submission(path, CLASSES),
    'is submission': is_submission,
    'classes': read_classes,
    'class counts': lambda path: read_training_images(path, CLASSES),
    'hierarchy': hierarchy,
    'pairs': lambda path: cooccurrence.read_pairs(CLASSES, path),
    'coco': coco_json.read_instances,
    'voc': voc_xml.read_voc_xml,
    'yolo labels': lambda path: yolo.read_rows(path, 0, yolo.Rows([], [], [], [])),
    'class names': data_yaml.read_names,
    'boxes': lambda path: read_boxes(path, CLASSES),
    'index': index,
    'columns': lambda path: column_file.map_columns(path, 'part of a prediction'),
}
if importlib.util.find_spec('yaml'):
    READERS['data yaml'] = data_yaml.read_data_yaml


def outcome(reader, path):
    """Read a file; return the kind of the outcome, and its message."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            value = READERS[reader](Path(path))
    except InputError as e:
        return 'refused', str(e)
    except BaseException:
        return 'raised', traceback.format_exc()
    return 'value', repr(value)[:200]


def read_in_child(request, out):
    # What is allocated so far does not count.
    with open('/proc/self/statm') as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    limit = used + request['memory']
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # Messages of decoders on damaged images.
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    for path in request['paths']:
        started = time.perf_counter()
        kind, text = outcome(request['reader'], path)
        line = {
            'outcome': kind,
            'text': text,
            'seconds': time.perf_counter() - started,
            'peak': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10,
        }
        out.write(json.dumps(line) + '\n')
        out.flush()


def answer(request):
    """Yield one line per path of the request."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(read_end)
            with os.fdopen(write_end, 'w') as out:
                read_in_child(request, out)
        finally:
            os._exit(0)
    os.close(write_end)
    deadline = time.monotonic() + request['seconds']
    data, ended = b'', False
    while not ended and time.monotonic() < deadline:
        if select.select([read_end], [], [], max(0, deadline - time.monotonic()))[0]:
            block = os.read(read_end, 1 << 16)
            ended = not block
            data += block
    os.close(read_end)
    if not ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    lines = data.decode().splitlines()
    yield from lines
    if len(lines) < len(request['paths']):
        kind = 'killed' if ended else 'timeout'
        last = json.dumps({'outcome': kind, 'text': f'status {status}', 'seconds': 0, 'peak': 0})
        yield from [last] * (len(request['paths']) - len(lines))


def main():
    print(json.dumps(sorted(READERS)), flush=True)
    # Children share the memory of the modules instead of copying it.
    gc.collect()
    gc.freeze()
    for line in sys.stdin:
        for result in answer(json.loads(line)):
            print(result, flush=True)


if __name__ == '__main__':
    main()
