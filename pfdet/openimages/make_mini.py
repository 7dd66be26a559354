"""Generate MiniOpenImages: ``python -m pfdet.openimages.make_mini --out DIR``.

MiniOpenImages is a synthetic data set with the annotation gaps and errors of Open Images, in the
same file formats: drawn scenes of about thirty of the 500 challenge classes, their hierarchy, boxes
and image-level labels. Each property of the annotations has a flag. The same seed gives the same
bytes with any number of worker processes. Other versions of NumPy and OpenCV may round pixels
differently.
"""

import argparse
import contextlib
import csv
import dataclasses
import hashlib
import json
import multiprocessing
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
from tqdm import tqdm

from pfdet.atomic_write import directory_when_done, replace_when_done
from pfdet.cores import n_core
from pfdet.errors import InputError, run_command
from pfdet.flags import SEED, SHARE, Parser, integer, number, path_text
from pfdet.interruption import not_in_children
from pfdet.openimages.mini.annotation import BoxRow, LabelRow, annotate
from pfdet.openimages.mini.classes import mini_classes, mini_hierarchy
from pfdet.openimages.mini.knobs import Knobs, flag
from pfdet.openimages.mini.painting import paint
from pfdet.openimages.mini.preview import contact_sheet
from pfdet.openimages.mini.scene import VisibleObject, compose
from pfdet.openimages.mini.world import Plan, plan_images

SPLITS = ('train', 'validation')
BOX_COLUMNS = (
    'ImageID',
    'Source',
    'LabelName',
    'Confidence',
    'XMin',
    'XMax',
    'YMin',
    'YMax',
    'IsOccluded',
    'IsTruncated',
    'IsGroupOf',
    'IsDepiction',
    'IsInside',
)
LABEL_COLUMNS = ('ImageID', 'Source', 'LabelName', 'Confidence')


def image_id(knobs: Knobs, split: str, number: int) -> str:
    """Return the id of an image: 16 hexadecimal digits, as in Open Images.

    Args:
        knobs (Knobs): For the seed.
        split (str): ``'train'`` or ``'validation'``.
        number (int): Number of the image in the split.
    """
    return hashlib.sha256(f'{knobs.seed}/{split}/{number}'.encode()).hexdigest()[:16]


def true_objects(knobs: Knobs, split: str) -> list[list[VisibleObject]]:
    """Return the visible objects in each image of a split, without drawing the images.

    Args:
        knobs (Knobs): The options.
        split (str): ``'train'`` or ``'validation'``.
    """
    return [compose(plan, knobs).objects for plan in plan_images(knobs, split)]


def make_mini(
    out: str | os.PathLike, knobs: Knobs, force: bool = False, workers: int | None = None
) -> None:
    """Generate the data set.

    Args:
        out (path): The directory to create. It appears when it is complete.
        knobs (Knobs): The options.
        force (bool): Replace an existing MiniOpenImages.
        workers (int): Number of processes. By default, one per core.

    Raises:
        InputError: If ``out`` is a file or a directory that must not be replaced, or cannot be
            written.
    """
    _check_out(Path(out), force)
    with directory_when_done(out) as unfinished:
        with open(unfinished / 'class-descriptions.csv', 'w', newline='', encoding='utf-8') as f:
            csv.writer(f, lineterminator='\n').writerows(
                (mid, name) for name, mid in mini_classes().items()
            )
        (unfinished / 'hierarchy.json').write_text(
            json.dumps(mini_hierarchy(), indent=1) + '\n', encoding='utf-8'
        )
        for split in SPLITS:
            (unfinished / split).mkdir()
            scenes = _paint_all(unfinished / split, knobs, split, workers)
            boxes, labels = annotate(scenes, knobs, split)
            ids = [image_id(knobs, split, i) for i in range(len(scenes))]
            _write_csv(
                unfinished / f'{split}-annotations-bbox.csv',
                BOX_COLUMNS,
                (_box_fields(row, ids) for row in boxes),
            )
            _write_csv(
                unfinished / f'{split}-annotations-human-imagelabels.csv',
                LABEL_COLUMNS,
                (_label_fields(row, ids) for row in labels),
            )


def make_preview(path: str | os.PathLike, knobs: Knobs, n_image: int = 24) -> None:
    """Write a contact sheet of the first training and validation images, with their boxes.

    Args:
        path (path): The image file to write, ``.png`` or ``.jpg``.
        knobs (Knobs): The options.
        n_image (int): Number of images. A third of them are from the validation split.

    Raises:
        InputError: If ``path`` has another suffix or cannot be written.
    """
    _check_preview(path)
    pictures, boxes = [], []
    for split in SPLITS:
        plans = plan_images(knobs, split)
        scenes = [compose(plan, knobs) for plan in plans]
        rows, _ = annotate([scene.objects for scene in scenes], knobs, split)
        shown = n_image * 2 // 3 if split == 'train' else n_image // 3
        for i, scene in enumerate(scenes[:shown]):
            pictures.append(paint(scene, knobs)[0])
            boxes.append([row for row in rows if row.image == i])
    _, data = cv2.imencode(Path(path).suffix.lower(), contact_sheet(pictures, boxes))
    try:
        with replace_when_done(path) as unfinished:
            unfinished.write_bytes(data.tobytes())
    except OSError as e:
        raise InputError(f'--preview {path}: {e.strerror}; expected a writable path') from e


def _check_preview(path: str | os.PathLike) -> None:
    if Path(path).suffix.lower() not in ('.png', '.jpg'):
        raise InputError(f'--preview {path}: expected a name that ends in .png or .jpg')


def _paint_all(
    directory: Path, knobs: Knobs, split: str, workers: int | None
) -> list[list[VisibleObject]]:
    plans = plan_images(knobs, split)
    tasks = [
        (plan, knobs, str(directory / f'{image_id(knobs, split, plan.number)}.jpg'))
        for plan in plans
    ]
    workers = min(workers or n_core(), -(-len(tasks) // 16))
    bar = tqdm(total=len(tasks), desc=split, unit='image', disable=None)
    with contextlib.ExitStack() as stack:
        stack.enter_context(bar)
        results: Iterator[list[VisibleObject]] = map(_paint_one, tasks)
        if workers > 1:
            # Spawned, not forked: the caller may have threads or MPI.
            with not_in_children():
                pool = stack.enter_context(multiprocessing.get_context('spawn').Pool(workers))
            results = pool.imap(_paint_one, tasks, chunksize=8)
        scenes = []
        for objects in results:
            scenes.append(objects)
            bar.update()
    return scenes


def _paint_one(task: tuple[Plan, Knobs, str]) -> list[VisibleObject]:
    plan, knobs, path = task
    cv2.setNumThreads(1)
    scene = compose(plan, knobs)
    image, quality = paint(scene, knobs)
    ok, data = cv2.imencode('.jpg', image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise RuntimeError(f'OpenCV could not encode {path}')
    Path(path).write_bytes(data.tobytes())
    return scene.objects


def _box_fields(row: BoxRow, ids: Sequence[str]) -> tuple[str, ...]:
    x0, y0, x1, y1 = row.bbox
    return (
        ids[row.image],
        'xclick',
        mini_classes()[row.name],
        '1',
        *(f'{edge:.6f}' for edge in (x0, x1, y0, y1)),
        *(str(row.flags >> bit & 1) for bit in range(5)),
    )


def _label_fields(row: LabelRow, ids: Sequence[str]) -> tuple[str, ...]:
    return (ids[row.image], 'verification', mini_classes()[row.name], str(int(row.positive)))


def _write_csv(path: Path, columns: Sequence[str], rows: Iterator[tuple[str, ...]]) -> None:
    with open(path, 'w', newline='', encoding='utf-8') as f:
        writer = csv.writer(f, lineterminator='\n')
        writer.writerow(columns)
        writer.writerows(rows)


def _check_out(out: Path, force: bool) -> None:
    if out.exists() and not out.is_dir():
        raise InputError(f'--out {out}: is a file; expected a directory to create')
    if out.is_dir() and any(out.iterdir()):
        if not force:
            raise InputError(
                f'--out {out}: is not empty; expected a new directory, or --force '
                'to replace an existing MiniOpenImages'
            )
        # --force must not remove other files.
        if not all((out / f'{split}-annotations-bbox.csv').is_file() for split in SPLITS):
            raise InputError(f'--out {out}: is not a MiniOpenImages; expected a new directory')


# Types of the flags of knobs that are numbers, but no rates.
_TYPES = {
    'images': integer(1, 10_000_000),
    'validation_images': integer(-1, 10_000_000),
    'seed': SEED,
    'long_side': integer(64, 4096),
    'tail': number(0, 100),
    'validation_tail': number(0, 100),
    'negatives': number(0, 500),
}


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Adds defaults to the help texts of knobs."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        if action.default in (None, False, argparse.SUPPRESS):
            return action.help
        return f'{action.help} (default: %(default)s)'


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Generate MiniOpenImages, a small synthetic data set.\n\n'
        '    pfdet make-mini --out data --images 1000',
        formatter_class=_Formatter,
    )
    parser.add_argument('--out', type=path_text, metavar='DIR', help='the directory to create')
    parser.add_argument(
        '--preview',
        type=path_text,
        metavar='FILE.png',
        help='write a contact sheet of images with their boxes; without --out, do nothing else',
    )
    parser.add_argument('--force', action='store_true', help='replace an existing MiniOpenImages')
    parser.add_argument(
        '--workers',
        type=integer(1, 1024),
        help='processes (default: one per core); the result does not depend on their number',
    )
    for field in dataclasses.fields(Knobs):
        pair = isinstance(field.default, tuple)
        parser.add_argument(
            flag(field.name),
            default=field.default,
            help=field.metadata['help'],
            type=_TYPES.get(field.name, SHARE if field.metadata['rate'] else str),
            nargs=2 if pair else None,
            metavar=('R12', 'R21') if pair else 'X' if field.metadata['rate'] else None,
        )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; see ``--help``.

    Returns:
        int: The exit status, 0.

    Raises:
        InputError: If an argument is invalid.
    """
    args = _parse(arguments)
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(Knobs)}
    knobs = Knobs(
        **{
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
    )
    if args.out is None and args.preview is None:
        raise InputError('--out DIR: missing; expected the directory to create')
    if args.preview is not None:
        _check_preview(args.preview)
    if args.out is not None:
        make_mini(args.out, knobs, args.force, args.workers)
        print(
            f'{args.out}: {knobs.n_image("train")} training and '
            f'{knobs.n_image("validation")} validation images of {len(mini_classes())} classes'
        )
    if args.preview is not None:
        make_preview(args.preview, knobs)
        print(f'{args.preview}: contact sheet')
    return 0


if __name__ == '__main__':
    run_command(lambda: main(sys.argv[1:]))
