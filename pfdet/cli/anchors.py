"""Print how well anchors fit the boxes of a data set, and which would fit better.

    pfdet anchors --index train.index --recipe mini

The images have the sizes of the recipe's training. For each size and set of aspect ratios the table
has the share of the objects for which an anchor is positive, that is, has an IoU of at least the
recipe's rpn_positive_iou with them, and the mean IoU of the best anchor. The RPN learns other
objects from their best anchor only. The best anchors of the table are those of the highest mean
IoU: the share alone is decided by large objects.
"""

import argparse

from pfdet import recipes
from pfdet.cli.arguments import add_recipe_size, add_settings
from pfdet.flags import Parser, integer, path_text
from pfdet.openimages.index import AnnotationIndex
from pfdet.targets.anchor_coverage import RATIOS, SIZES, Coverage, coverage, resized_objects


def main() -> None:
    args = _parse_arguments()
    recipe = recipes.override(recipes.find(args.recipe, args.scale), args.set)
    index = AnnotationIndex.open(args.index)
    objects = resized_objects(index, recipe.min_size, recipe.max_size, args.objects, args.seed)
    low, high = recipe.min_size
    print(
        f'{len(objects.bbox):,} objects in images of {low}'
        + (f' to {high}' if low < high else '')
        + f' pixels on the shorter edge, at most {recipe.max_size} on the longer one'
    )
    own = recipe.anchor_size, recipe.anchor_ratios
    candidates = [(size, ratios) for ratios in RATIOS for size in SIZES]
    tried = [
        coverage(objects, *candidate, recipe.fpn_scale + 1, recipe.rpn_positive_iou)
        for candidate in sorted({own, *candidates}, key=lambda c: (len(c[1]), c[1], c[0]))
    ]
    best = max(tried, key=lambda c: c.iou)
    _print_table(tried, own, best)
    if (best.anchor_size, best.anchor_ratios) == own:
        print("The recipe's anchors fit best.")
        return
    settings = [
        f'{name}={value!r}'.replace(' ', '')
        for name, value, of_recipe in (
            ('anchor_size', best.anchor_size, recipe.anchor_size),
            ('anchor_ratios', best.anchor_ratios, recipe.anchor_ratios),
        )
        if value != of_recipe
    ]
    quoted = ' '.join(f"'{s}'" if '(' in s else s for s in settings)
    print(f'The best of these: --set {quoted}')


def _print_table(tried: list[Coverage], own: tuple[int, tuple[float, ...]], best: Coverage) -> None:
    print(f'{"anchor_size":>11}  {"anchor_ratios":<24} {"positive":>8} {"IoU":>6}')
    for c in tried:
        ratios = ', '.join(f'{ratio:.3g}' for ratio in c.anchor_ratios)
        marks = ['the recipe'] * ((c.anchor_size, c.anchor_ratios) == own) + ['best'] * (c is best)
        row = f'{c.anchor_size:>11}  {ratios:<24} {c.share:8.1%} {c.iou:6.3f}  {", ".join(marks)}'
        print(row.rstrip())


def _parse_arguments() -> argparse.Namespace:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        '--index', required=True, type=path_text, metavar='INDEX', help='the training set'
    )
    parser.add_argument(
        '--recipe',
        default='mini',
        metavar='NAME',
        help='a recipe of pfdet train --list, or a .json file (default: mini)',
    )
    add_recipe_size(parser)
    add_settings(parser)
    parser.add_argument(
        '--objects',
        type=integer(1, 10_000_000),
        default=100_000,
        metavar='N',
        help='number of objects that are drawn from a larger data set (default: 100000)',
    )
    parser.add_argument(
        '--seed',
        type=integer(0, 2**32 - 1),
        default=0,
        help='of the choice of objects and lengths (default: 0)',
    )
    return parser.parse_args()
