"""The parts of the study that are not rows of a single training: ways of testing, PFDet's Tables 2
and 4, and experts beyond those of the tables."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from pfdet import recipes
from pfdet.recipes import Composite
from pfdet.recipes.pfdet_2018 import COCO
from pfdet.training.tables.composites import Composites
from pfdet.training.tables.merging import Images
from pfdet.training.tables.rows import Rows

# The model that experts and ensembles start from, and the image sizes of test-time augmentation.
FULL = 'mini'
SIZES = (144, 184)
# "All the others" of PFDet's Table 2: models of all classes with another loss or sampling, and the
# full model's recipe with those of these seeds that are not its own.
OTHERS = ('mini-without-cooccurrence/seed0', 'cs-table1-co-bce/seed0')
OTHER_SEEDS = (0, 1, 2)
# Ranks of the classes that get an expert, rarest first: 40 of the 41, to be split into tens and
# twenties. PFDet's Table 4 omits the rarest classes too.
RANKS = (2, 41)
# The paper does not say how long experts are fine-tuned. All see the same number of images, since
# epochs of their own images would be very short for experts of the rarest classes.
IMAGES_SEEN = 4000

TABLE2, TABLE4 = (recipes.TABLES[key].composites for key in ('table2', 'table4'))
# Not in PFDet's Table 4: experts of 20 classes, and the full model fine-tuned as long as an expert.
CLASS20 = Composite(
    'table4-class20', 'Study: experts of 20 classes alone', ('expert-class20',), alone=True
)
LONGER = Composite(
    'table4-full-longer',
    'Study: the full model, fine-tuned as long as an expert',
    (COCO.name,),
    alone=True,
)


def ways_of_testing(rows: Rows, seed: int) -> None:
    """Test the full model with test-time augmentation and with NMS, unless done.

    Each is also scored at an IoU of 0.75 (``score-...-iou75.json``), which demands better
    localization.

    Args:
        rows (Rows): Where and how rows are run.
        seed (int): Seed of the full model.
    """
    full = rows.run(FULL, seed)
    for name, flags in (
        ('', ()),
        ('-nms', ('--suppression', 'nms')),
        ('-tta', ('--sizes', *SIZES, '--flip')),
        ('-tta-nms', ('--sizes', *SIZES, '--flip', '--suppression', 'nms')),
    ):
        detections, strict = full / f'detections{name}.parquet', full / f'score{name}-iou75.json'
        if not (full / f'score{name}.json').exists():
            rows.predict(rows.train(FULL, seed), detections, f'score{name}', *flags)
        if not strict.exists():
            rows.predict(rows.train(FULL, seed), detections, None, *flags)
            rows.score(detections, strict, None, '--iou-thresh', 0.75)


def experts_and_ensembles(rows: Rows, indexes: Mapping[str, Path], seed: int) -> None:
    """Run PFDet's Tables 2 and 4, unless done.

    Args:
        rows (Rows): Where and how rows are run.
        indexes (mapping): ``'validation'``; ``'test'``, whose images class weights are not computed
            from; and ``'second'``, another training set.
        seed (int): Seed of the full model.
    """
    composites = study_composites(rows, seed, indexes['second'])
    for row in (*TABLE4, CLASS20):
        composites.run(row, seed)
    longer = dataclasses.replace(
        composites, second_index=rows.train_index, second_name='full-longer'
    )
    longer.run(LONGER, seed)
    for row in TABLE2:
        composites.run(row, seed)
    # On other images, with the class weights of all validation images
    weighted = dataclasses.replace(composites, weights=composites.validation)
    for row in TABLE2:
        weighted.run(row, seed, Images('test', indexes['test']), 'score-test')


def study_composites(rows: Rows, seed: int, second_index: Path) -> Composites:
    """The options of the study's experts and ensembles.

    Args:
        rows (Rows): Where and how rows are run.
        seed (int): Seed of the full model.
        second_index (path): Index of another training set.
    """
    seeds = (other for other in OTHER_SEEDS if other != seed)
    return Composites(
        rows,
        FULL,
        (*(f'{FULL}/seed{other}' for other in seeds), *OTHERS),
        class_range=RANKS,
        images_seen=IMAGES_SEEN,
        ranks_per_expert=1,
        sizes=SIZES,
        second_index=second_index,
    )
