"""Detect objects in photographs with a trained model, and draw them.

    pfdet detect --model RUN PHOTO|DIR ... --out DIR

DIR then has a picture of each photograph with boxes, class names and scores, in the same folders as
the photographs, and a file of all detections. The photographs need no index and no annotations.
They are shown upright, as their EXIF orientation says. --no-exif takes the pixels as they are
stored: boxes of Open Images refer to these.

Photographs that cannot be read are named and left out. The last line counts them.

For the score of a whole data set, on several ranks, see pfdet index and pfdet predict.
"""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from pfdet.errors import InputError
from pfdet.flags import SHARE, Parser

FORMATS = ('parquet', 'csv', 'json')
# A block of photographs is in memory at once, and the next one while it is being read.
_BLOCK = 16
_PIXELS_A_BLOCK = 64_000_000


def main() -> None:
    args = parse_arguments()

    from pfdet.files.locks import output_lock

    with output_lock(args.out, is_directory=True):
        _detect(args)


def _detect(args: argparse.Namespace) -> None:
    from chainer.backends import cuda
    from tqdm import tqdm

    from pfdet import api
    from pfdet.openimages.photographs import find_photographs

    photographs, unread = find_photographs(args.photographs, args.out)
    if args.pictures:
        _check_overwriting(args.out, photographs)
    model = api.load(args.model, args.weights, score_thresh=args.score_thresh)
    if cuda.available and hasattr(model.network, 'to_gpu'):
        model.to_gpu()
    for line in unread:
        print(f'skipped: {line}', file=sys.stderr, flush=True)
    n_detection = n_done = 0
    file = args.out / f'detections.{args.format}'
    with (
        _writer(file, args.format, model) as write,
        ThreadPoolExecutor(2) as pool,
        tqdm(total=len(photographs), desc='detect', unit='image', disable=None) as bar,
    ):

        def skip(error: InputError) -> None:
            unread.append(str(error))
            bar.update()
            bar.write(f'skipped: {error}', file=sys.stderr)

        for block in _read(photographs, args.exif, pool, skip):
            found = list(zip(*model.predict([photo.img for photo in block])))
            # A thread draws and encodes. Files are written by this one, which handles signals.
            pictures = [
                pool.submit(_picture, photo.img, *detections, model.label_names)
                for photo, detections in zip(block, found)
                if args.pictures
            ]
            for photo, picture in zip(block, pictures):
                _write_picture(_picture_path(args.out, photo.name), picture)
            write(block, found)
            n_done += len(block)
            n_detection += sum(len(score) for _, _, score in found)
            bar.update(len(block))
        if not n_done:
            raise InputError(f'none of the {len(unread)} photographs can be read')
    pictures = f' and {n_done} pictures' if args.pictures else ''
    print(f'{n_detection} detections in {n_done} photographs: {file}{pictures}')
    if unread:
        print(f'skipped: {len(unread)} of {n_done + len(unread)} photographs')


def _check_overwriting(out: Path, photographs: list) -> None:
    originals = {os.path.realpath(photo.path): photo.path for photo in photographs}
    for photo in photographs:
        original = originals.get(os.path.realpath(_picture_path(out, photo.name)))
        if original is not None:
            raise InputError(
                f'--out {out}: a picture would replace the photograph {original}; give another '
                'directory'
            )


def _picture_path(out: Path, name: str) -> Path:
    return out / f'{name}.jpg'


class _Read(NamedTuple):
    path: Path
    name: str
    img: Any


def _read(
    photographs: list, exif: bool, pool: ThreadPoolExecutor, skip: Callable[[InputError], None]
) -> Iterator[list[_Read]]:
    """Read photographs block by block, one block ahead."""
    from pfdet.openimages.orientation import read_photograph

    def start(block: list) -> list[tuple[Any, Future]]:
        return [(photo, pool.submit(read_photograph, photo.path, exif)) for photo in block]

    def result(started: list[tuple[Any, Future]]) -> list[_Read]:
        block = []
        for photo, future in started:
            try:
                block.append(_Read(photo.path, photo.name, future.result()))
            except InputError as e:
                skip(e)
        return block

    started: list[tuple[Any, Future]] = []
    for block in _blocks(photographs, skip):
        ahead = start(block)
        if read := result(started):
            yield read
        started = ahead
    if read := result(started):
        yield read


def _blocks(photographs: list, skip: Callable[[InputError], None]) -> Iterator[list]:
    """Group photographs so that a block has a limited number of pixels."""
    from pfdet.openimages.images import image_size

    block: list = []
    n_pixel = 0
    for photo in photographs:
        try:
            height, width = image_size(photo.path)
        except InputError as e:
            skip(e)
            continue
        if block and (len(block) == _BLOCK or n_pixel + height * width > _PIXELS_A_BLOCK):
            yield block
            block, n_pixel = [], 0
        block.append(photo)
        n_pixel += height * width
    if block:
        yield block


def _picture(img, bbox, label, score, names) -> bytes:
    from pfdet.report.draw import draw_detections, encode_jpeg

    return encode_jpeg(draw_detections(img, bbox, label, score, names))


def _write_picture(path: Path, picture: Future) -> None:
    from pfdet.atomic_write import replace_when_done

    with replace_when_done(path) as unfinished:
        unfinished.write_bytes(picture.result())


@contextlib.contextmanager
def _writer(path: Path, form: str, model: Any) -> Iterator[Callable]:
    """Write detections block by block; yields ``write(block, found)``."""
    if form == 'json':
        with _json_writer(path, model) as write:
            yield write
        return
    from pfdet.evaluation.detections import detections_writer
    from pfdet.inference.predict import as_detections

    def in_columns(block: list[_Read], found: list) -> None:
        relative = []
        for photo, (bbox, label, score) in zip(block, found):
            size = photo.img.shape[1:] * 2
            relative.append(((bbox / size).clip(0, 1), score, label))
        write(as_detections([photo.name for photo in block], relative))

    with detections_writer(path, model.classes) as write:
        yield in_columns


@contextlib.contextmanager
def _json_writer(path: Path, model: Any) -> Iterator[Callable]:
    """Write a list with one object per photograph, a line each; boxes are in pixels."""
    from pfdet.atomic_write import replace_when_done

    separator = '[\n'

    def write(block: list[_Read], found: list) -> None:
        nonlocal separator
        for photo, (bbox, label, score) in zip(block, found):
            content = {
                'ImageID': photo.name,
                # A name of a file need not be UTF-8.
                'file': str(photo.path).encode(errors='backslashreplace').decode(),
                'height': photo.img.shape[1],
                'width': photo.img.shape[2],
                'detections': [
                    {
                        'mid': model.mids[k],
                        'name': model.label_names[k],
                        'score': round(s, 6),
                        'box': [round(e, 2) for e in b],
                    }
                    for b, k, s in zip(bbox.tolist(), label.tolist(), score.tolist())
                ],
            }
            stream.write(separator + json.dumps(content, ensure_ascii=False))
            separator = ',\n'

    with replace_when_done(path) as unfinished:
        with open(unfinished, 'w', encoding='utf-8') as stream:
            yield write
            stream.write('\n]\n')


def parse_arguments() -> argparse.Namespace:
    """Parse and check the arguments."""
    parser = Parser(description=__doc__)
    add = parser.add_argument
    add(
        'photographs',
        type=Path,
        nargs='+',
        metavar='PHOTO|DIR',
        help='image files, and directories, which are searched with their folders',
    )
    add(
        '--model',
        type=Path,
        required=True,
        metavar='RUN',
        help='--out directory of a training run, or a file of pfdet export ending in .onnx; of a '
        'run that has not ended, the newest snapshot is taken',
    )
    add('--out', type=Path, required=True, metavar='DIR', help='directory for the results')
    add(
        '--weights',
        type=Path,
        metavar='FILE.npz',
        help='other weights of the run, such as its best.npz or a snapshot',
    )
    add(
        '--score-thresh',
        type=SHARE,
        default=0.3,
        metavar='S',
        help='lowest score of a detection (default: %(default)s)',
    )
    add(
        '--format',
        choices=FORMATS,
        default='parquet',
        help='of the file of detections; json has boxes (y_min, x_min, y_max, x_max) in pixels, '
        'the others are those of pfdet predict (default: %(default)s)',
    )
    add(
        '--pictures',
        action=argparse.BooleanOptionalAction,
        default=True,
        help='draw the detections (default)',
    )
    add(
        '--exif',
        action=argparse.BooleanOptionalAction,
        default=True,
        help="turn photographs upright by their EXIF orientation (default); Open Images' boxes "
        'need --no-exif',
    )
    args = parser.parse_args()
    if args.model.suffix == '.onnx' and args.weights is not None:
        raise InputError(f'--weights {args.weights}: {args.model} has its weights')
    return args
