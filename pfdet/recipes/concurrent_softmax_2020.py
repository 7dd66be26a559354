"""The configurations of the second paper, Peng et al., Large-Scale Object Detection in the Wild.

Section 5.2: ResNet-50 with FPN "following the setting mentioned in Detectron", shorter edge 800 and
longer edge up to 1333, 7 epochs with a tenth of the learning rate from epochs 4 and 6, 0.00125 a
sample, weight decay 0.0001, batch normalization over all ranks. Objects are groups of boxes with an
IoU of 0.9, whose labels count together.
"""

from dataclasses import replace

from pfdet.recipes.recipe import Recipe

RESNET50 = Recipe(
    name='resnet50-softmax', about='Peng et al.: ResNet-50 FPN at 800/1333, softmax, non-balance',
    backbone='resnet50', loss='softmax', join_iou=0.9, epochs=7., steps=(4 / 7, 6 / 7),
    base_lr=0.00125, lr_batch_size=1)
CONCURRENT = replace(
    RESNET50, name='resnet50-concurrent', loss='concurrent_softmax',
    about='Peng et al.: ResNet-50 FPN, concurrent softmax in training and testing, non-balance')
RESNEXT152 = replace(
    RESNET50, name='resnext152-softmax', backbone='resnext152',
    about='Peng et al.: ResNeXt-152 (32x8d) FPN, softmax, non-balance')

RECIPES = (RESNET50, CONCURRENT, RESNEXT152)
