"""Compile a data set with own classes to an annotation index.

::

    pfdet own-data --format coco --annotations instances.json --images images --out own.index
    pfdet own-data --format voc --annotations VOC2007 --out own.index
    pfdet own-data --format yolo --annotations data.yaml --split train --out train.index
"""

import argparse
import os
import time
from collections.abc import Sequence

from pfdet.errors import InputError, run_command
from pfdet.files.locks import output_lock
from pfdet.flags import Parser, path_text
from pfdet.openimages.coco_json import read_instances
from pfdet.openimages.image_files import check_image_directory
from pfdet.openimages.own.build import Options, build_own_index, describe_own
from pfdet.openimages.own.label_space import (
    label_space_of_index,
    parse_renames,
    read_own_classes,
)
from pfdet.openimages.own.source import Source
from pfdet.openimages.own.voc import COORDINATES, DIFFICULT, read_voc
from pfdet.openimages.own.yolo import read_yolo

FORMATS = ('coco', 'voc', 'yolo')
# Flags of one format.
_ONLY = {'split': 'yolo', 'difficult': 'voc', 'coordinates': 'voc'}


def read_coco(annotations: str | os.PathLike, images: str | os.PathLike | None) -> Source:
    """Read a COCO annotation file. Its classes are in the order of the categories' ids.

    Raises:
        InputError: As in :func:`~pfdet.openimages.coco_json.read_instances`, or without ``images``.
    """
    if images is None:
        raise InputError('--images: missing; expected the directory of the image files')
    return Source(read_instances(annotations, sort_categories=True), images)


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = Parser(
        description='Compile a data set with own classes, in the format of COCO, Pascal VOC or '
        'YOLO, to an annotation index.\n\n'
        '    pfdet own-data --format coco --annotations instances.json --images images \\\n'
        '        --out own.index\n'
        '    pfdet own-data --format voc --annotations VOC2007 --out own.index\n'
        '    pfdet own-data --format yolo --annotations data.yaml --split train \\\n'
        '        --out train.index',
    )
    add = parser.add_argument
    add('--format', required=True, choices=FORMATS, help='the format of the annotations')
    add(
        '--annotations',
        required=True,
        type=path_text,
        metavar='FILE',
        help='coco: the JSON; voc: the directory of the XML files, or that of Annotations and '
        'JPEGImages; yolo: data.yaml, or classes.txt with a name per line',
    )
    add(
        '--images',
        type=path_text,
        metavar='DIR',
        help='directory of the image files (default: voc: JPEGImages, or that of the XML files; '
        'yolo: as in data.yaml, or images beside classes.txt)',
    )
    add('--out', required=True, type=path_text, metavar='INDEX', help='the index to write')
    add(
        '--split',
        metavar='NAME',
        help='yolo: which images of data.yaml, such as val (default: train)',
    )
    add(
        '--ids',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='use only the images in these lists, such as ImageSets/Main/train.txt: an id per '
        'line, or CSV with a column ImageID',
    )
    add(
        '--classes',
        type=path_text,
        metavar='CSV',
        help='the classes in their order, a name or mid,name per line; others are skipped '
        '(default: all, in the order of the ids for coco and yolo, and of the names for voc)',
    )
    add(
        '--like',
        type=path_text,
        metavar='INDEX',
        help='take the classes and the hierarchy of this index, such as that of the training '
        'images',
    )
    add(
        '--hierarchy',
        type=path_text,
        metavar='JSON',
        help='class hierarchy in the form of Open Images; a class without a MID has its name as '
        'LabelName (default: no class is a kind of another)',
    )
    add(
        '--rename',
        nargs='+',
        default=[],
        metavar='OLD=NEW',
        help='other names for annotated classes, such as truck=vehicle car=vehicle, which makes '
        'them one class',
    )
    add(
        '--no-negatives',
        action='store_true',
        help='not all objects are annotated: do not take classes without a box as absent',
    )
    add(
        '--labels',
        nargs='+',
        type=path_text,
        metavar='CSV',
        help='which classes are verified in which image (ImageID,LabelName,Confidence, 1 present '
        'or 0 absent), in place of all classes in every image',
    )
    add(
        '--difficult',
        choices=DIFFICULT,
        help='voc: difficult objects get the group-of flag, are kept as others, or are skipped '
        'without being absent (default: group-of)',
    )
    add(
        '--coordinates',
        choices=COORDINATES,
        help='voc: pixels counted from 1, the last one included, as in VOC; or edges from 0, as '
        'some tools write them (default: voc)',
    )
    add('--keep-missing', action='store_true', help='keep images without a file')
    args = parser.parse_args(argv)
    for name, only in _ONLY.items():
        if getattr(args, name) is not None and args.format != only:
            raise InputError(f'--{name}: needs --format {only}, but it is {args.format}')
    for a, b in (
        ('like', 'classes'),
        ('like', 'hierarchy'),
        ('labels', 'no_negatives'),
        *([('split', 'images')] if args.format == 'yolo' else []),
    ):
        if getattr(args, a) and getattr(args, b):
            raise InputError(f'--{a} and --{b.replace("_", "-")}: expected one of them')
    return args


def _read(args: argparse.Namespace) -> Source:
    if args.format == 'coco':
        return read_coco(args.annotations, args.images)
    if args.format == 'voc':
        return read_voc(
            args.annotations,
            args.images,
            args.difficult or DIFFICULT[0],
            args.coordinates or COORDINATES[0],
        )
    return read_yolo(args.annotations, args.split or 'train', args.images)


def _options(args: argparse.Namespace) -> Options:
    classes, hierarchy = None, args.hierarchy
    if args.like is not None:
        classes, hierarchy = label_space_of_index(args.like)
    elif args.classes is not None:
        classes = read_own_classes(args.classes)
    return Options(
        classes,
        hierarchy,
        parse_renames(args.rename),
        args.ids,
        not args.no_negatives,
        args.labels,
        args.keep_missing,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``--help``.

    Raises:
        InputError: If an argument or an input is invalid.
    """
    args = _parse(argv)
    if args.images is not None and not args.keep_missing:
        check_image_directory(args.images)
    start = time.perf_counter()
    options = _options(args)
    with output_lock(args.out):
        report = build_own_index(_read(args), args.out, options)
    for line in describe_own(report, args.keep_missing):
        print(line)
    print(f'{args.out}: {report.size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s')


if __name__ == '__main__':
    run_command(main)
