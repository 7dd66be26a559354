"""Cost of a training step on the CPU, against ChainerCV and PyTorch.

    python benchmarks/step.py [--own-roi-align] [--size 480 640] [--check]

The contenders wait in processes of their own and take turns, with the same number of threads
(`OMP_NUM_THREADS`, by default 1) and the same random images: ResNet-50 with FPN on two images of
480 x 640, and SE-ResNeXt-101 with FPN on one. The goals are for this size. Prints these ratios:

- pfdet's step (forward, targets, loss, backward, update) over ChainerCV's links and train chain
  with Chainer's convolution and batch normalization. Chainer's RoIAlign is a Python loop that takes
  many minutes. Without --own-roi-align, ChainerCV uses pfdet's, which is faster;
- backbone and FPN, forward and backward, over the same network in PyTorch (skipped if torch is not
  installed);
- the share of pfdet's step outside convolutions and matrix products.
"""

import os

os.environ.setdefault('OMP_NUM_THREADS', '1')

import argparse
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator

import numpy as np
from timing import Table, add_check, processor_seconds, status

CASES = {'resnet50': 2, 'se_resnext101': 1}
FULL_SIZE = (480, 640)
# Upper limits of the ratios to ChainerCV and PyTorch, and of the share outside of products
GOALS = {
    'ChainerCV': {'resnet50': 0.6},
    'PyTorch': {'resnet50': 2.0, 'se_resnext101': 3.0},
    'step': {'resnet50': 0.25},
}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--rounds', type=int, default=3, help='default: %(default)s')
    parser.add_argument(
        '--own-roi-align', action='store_true', help="use Chainer's RoIAlign for ChainerCV"
    )
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=FULL_SIZE,
        metavar=('H', 'W'),
        help='multiples of 32 (default: 480 640)',
    )
    parser.add_argument('--backbones', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--skip', nargs='*', default=[], help='contenders to skip')
    parser.add_argument('--only', nargs=2, help=argparse.SUPPRESS)
    add_check(parser)
    args = parser.parse_args()
    if args.only:
        name, backbone = args.only
        options = {'own_roi_align': args.own_roi_align} if name == 'ChainerCV' else {}
        answer(CONTENDERS[name](backbone, tuple(args.size), **options))
        return 0

    goals = GOALS if tuple(args.size) == FULL_SIZE else {}
    table = Table()
    for backbone in args.backbones:
        names = [name for name in CONTENDERS if name not in args.skip]
        if backbone != 'resnet50':
            names = [name for name in names if name != 'ChainerCV']
        print(f'{backbone} with FPN, {CASES[backbone]} x {args.size[0]} x {args.size[1]}')
        flags = ['--size', *map(str, args.size)]
        flags += ['--own-roi-align'] if args.own_roi_align else []
        compare(table, backbone, names, flags, args.rounds, goals)
    return status(table.missed, args.check)


def compare(
    table: Table, backbone: str, names: list[str], flags: list[str], rounds: int, goals: dict
) -> None:
    """Let the contenders take turns, and print the ratios."""
    seconds: dict[tuple[str, str], list[float]] = {}
    with contextlib.ExitStack() as stack:
        children = {}
        for name in names:
            child = stack.enter_context(contender(name, backbone, flags))
            if ask(child, 'step' if name != 'PyTorch' else 'features') is not None:
                children[name] = child
            elif name == 'pfdet':
                raise SystemExit('pfdet itself failed')
            else:
                print(f'  {name}: skipped, it does not run here')
        # Above, each has done a step that is not counted.
        for k in range(rounds):
            for name in list(children)[:: -1 if k % 2 else 1]:
                for what in WORK[name]:
                    found = ask(children[name], what)
                    if found is None:
                        raise SystemExit(f'{name} failed')
                    seconds.setdefault((name, what), []).append(found)
    ours = seconds['pfdet', 'step']
    if 'ChainerCV' in children:
        goal = goals.get('ChainerCV', {}).get(backbone)
        table.share('  step', ours, seconds['ChainerCV', 'step'], "ChainerCV's", goal)
    if 'PyTorch' in children:
        own, peer = seconds['pfdet', 'features'], seconds['PyTorch', 'features']
        table.share(
            '  backbone and FPN', own, peer, "PyTorch's", goals.get('PyTorch', {}).get(backbone)
        )
    outside = np.array(ours) - np.array(seconds['pfdet', 'products'])
    goal = goals.get('step', {}).get(backbone)
    table.share('  outside of convolutions and products', outside, ours, 'step', goal)


@contextlib.contextmanager
def contender(name: str, backbone: str, flags: list[str]) -> Iterator[subprocess.Popen]:
    """A process that does what it is asked, see :func:`answer`."""
    with subprocess.Popen(
        [sys.executable, __file__, *flags, '--only', name, backbone],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=None if name == 'pfdet' else subprocess.DEVNULL,
        text=True,
    ) as child:
        yield child


def ask(child: subprocess.Popen, what: str) -> float | None:
    """Let a contender do something; return its processor seconds, or nothing if it has ended."""
    with contextlib.suppress(BrokenPipeError):
        print(what, file=child.stdin, flush=True)
    line = child.stdout.readline()
    return json.loads(line) if line else None


def answer(work: dict[str, Callable]) -> None:
    """Do what the lines of standard input say, and print the processor seconds of each."""
    for line in sys.stdin:
        start = processor_seconds()
        own = work[line.strip()]()
        print(json.dumps(processor_seconds() - start if own is None else own), flush=True)


def random_batch(batch_size: int, n_class: int, size: tuple[int, int]):
    rng = np.random.default_rng(0)
    imgs = [rng.integers(0, 255, (3, *size)).astype(np.uint8) for _ in range(batch_size)]
    # In units of the shorter edge
    corner = rng.uniform(0, 0.6, (batch_size, 8, 2))
    bbox = np.concatenate([corner, corner + rng.uniform(0.06, 0.35, corner.shape)], axis=2)
    bbox *= min(size)
    label = rng.integers(0, n_class, (batch_size, 8)).astype(np.int32)
    return imgs, list(bbox.astype(np.float32)), list(label)


class ProductTime:
    """Processor time in convolutions and fully connected layers, and in their gradients.

    In Chainer, gradients are functions with a forward pass of their own. So only forward passes are
    timed; backward passes would count gradients twice.
    """

    def __init__(self, chainer):
        self.seconds = 0.0
        self.hook = type(
            'Hook',
            (chainer.FunctionHook,),
            {
                'name': 'ProductTime',
                'forward_preprocess': self._begin,
                'forward_postprocess': self._end,
            },
        )()

    def _begin(self, function, in_data) -> None:
        self._started = processor_seconds()

    def _end(self, function, in_data) -> None:
        if any(name in function.label.lower() for name in ('convolution', 'linear')):
            self.seconds += processor_seconds() - self._started


def pfdet_work(backbone: str, size: tuple[int, int], n_class: int = 80) -> dict[str, Callable]:
    """pfdet's step, its backbone and FPN, and the products in a step."""
    import pfdet.compat  # noqa: F401

    import chainer

    from pfdet import recipes
    from pfdet.openimages.classes import Classes
    from pfdet.openimages.hierarchy import flat_hierarchy
    from pfdet.targets.batch_truth import collate
    from pfdet.training import build
    from pfdet.training.transforms import Batch

    recipe = recipes.override(
        recipes.find('table1-baseline'), [f'backbone={backbone}', 'fpn_bn=False']
    )
    network = build.detector(recipe, n_class)
    classes = Classes(tuple(map(str, range(n_class))), tuple(map(str, range(n_class))))
    hierarchy = flat_hierarchy(n_class)
    chain = build.train_chain(recipe, network, classes, hierarchy, 0)
    imgs, bbox, label = random_batch(CASES[backbone], n_class, size)
    nothing = [np.zeros(n_class, bool)] * len(imgs)
    truth = collate(
        bbox,
        [np.eye(n_class, dtype=bool)[k] for k in label],
        [np.zeros(len(b), np.uint8) for b in bbox],
        nothing,
        nothing,
        hierarchy,
    )
    batch = Batch(imgs, truth, list(range(len(imgs))), [''] * len(imgs), size)
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.001).setup(chain)
    x = network.prepare(imgs)

    def features():
        hs = network.extractor(x)
        network.cleargrads()
        sum(chainer.functions.sum(h) for h in hs).backward()

    def products() -> float:
        time_in_products = ProductTime(chainer)
        with time_in_products.hook:
            optimizer.update(chain, batch)
        return time_in_products.seconds

    return {
        'step': lambda: optimizer.update(chain, batch),
        'features': features,
        'products': products,
    }


def chainercv_work(
    backbone: str, size: tuple[int, int], n_class: int = 80, own_roi_align: bool = False
) -> dict[str, Callable]:
    """ChainerCV's Faster R-CNN with its losses, assembled as in its FPN example."""
    import pfdet.compat  # noqa: F401  without pfdet.cpu, which would replace Chainer's functions

    import chainer
    import chainer.functions as F
    from chainercv.links import FasterRCNNFPNResNet50
    from chainercv.links.model.fpn import (
        bbox_head_loss_post,
        bbox_head_loss_pre,
        rpn_loss,
    )

    if not own_roi_align:
        from pfdet.functions import roi_align

        F.roi_average_align_2d = roi_align.roi_average_align_2d
    network = FasterRCNNFPNResNet50(n_fg_class=n_class, pretrained_model=None)
    optimizer = chainer.optimizers.CorrectedMomentumSGD(0.001).setup(network)
    imgs, bbox, label = random_batch(CASES[backbone], n_class, size)
    x = np.stack(imgs).astype(np.float32) - network.extractor.mean
    sizes = [img.shape[1:] for img in imgs]

    def loss():
        hs = network.extractor(x)
        locs, confs = network.rpn(hs)
        anchors = network.rpn.anchors(h.shape[2:] for h in hs)
        losses = list(rpn_loss(locs, confs, anchors, sizes, bbox))
        rois, indices = network.rpn.decode(locs, confs, anchors, x.shape)
        rois = np.vstack([rois, *bbox])
        indices = np.hstack([indices, *[np.full(len(b), i, np.int32) for i, b in enumerate(bbox)]])
        rois, indices = network.bbox_head.distribute(rois, indices)
        rois, indices, gt_locs, gt_labels = bbox_head_loss_pre(
            rois, indices, network.bbox_head.std, bbox, label
        )
        locs, confs = network.bbox_head(hs, rois, indices)
        losses += bbox_head_loss_post(locs, confs, indices, gt_locs, gt_labels, len(imgs))
        return F.sum(F.stack(losses))

    return {'step': lambda: optimizer.update(loss)}


def torch_work(backbone: str, size: tuple[int, int]) -> dict[str, Callable]:
    """The same backbone and FPN in PyTorch, forward and backward."""
    import torch
    from torch import nn

    torch.set_num_threads(int(os.environ['OMP_NUM_THREADS']))

    def conv(i, o, k, stride=1, groups=1):
        return nn.Conv2d(i, o, k, stride, k // 2, groups=groups, bias=False)

    class Bottleneck(nn.Module):
        def __init__(self, i, mid, o, stride, groups, se):
            super().__init__()
            self.body = nn.Sequential(
                conv(i, mid, 1),
                nn.BatchNorm2d(mid),
                nn.ReLU(),
                conv(mid, mid, 3, stride, groups),
                nn.BatchNorm2d(mid),
                nn.ReLU(),
                conv(mid, o, 1),
                nn.BatchNorm2d(o),
            )
            self.se = (
                nn.Sequential(
                    nn.AdaptiveAvgPool2d(1),
                    nn.Conv2d(o, o // 16, 1),
                    nn.ReLU(),
                    nn.Conv2d(o // 16, o, 1),
                    nn.Sigmoid(),
                )
                if se
                else None
            )
            self.skip = (
                nn.Identity() if i == o else nn.Sequential(conv(i, o, 1, stride), nn.BatchNorm2d(o))
            )

        def forward(self, x):
            h = self.body(x)
            if self.se is not None:
                h = h * self.se(h)
            return torch.relu(h + self.skip(x))

    class Features(nn.Module):
        def __init__(self, depths, width, groups, se):
            super().__init__()
            self.stem = nn.Sequential(
                conv(3, 64, 7, 2), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
            )
            self.stages, i = nn.ModuleList(), 64
            for n, depth in enumerate(depths):
                mid, o = width * 2**n, 256 * 2**n
                blocks = [Bottleneck(i, mid, o, 1 + (n > 0), groups, se)]
                blocks += [Bottleneck(o, mid, o, 1, groups, se) for _ in range(depth - 1)]
                self.stages.append(nn.Sequential(*blocks))
                i = o
            self.inner = nn.ModuleList([nn.Conv2d(256 * 2**n, 256, 1) for n in range(4)])
            self.outer = nn.ModuleList([nn.Conv2d(256, 256, 3, padding=1) for _ in range(4)])

        def forward(self, x):
            h, hs = self.stem(x), []
            for stage in self.stages:
                h = stage(h)
                hs.append(h)
            hs = [inner(h) for inner, h in zip(self.inner, hs)]
            for n in (2, 1, 0):
                hs[n] = hs[n] + nn.functional.interpolate(hs[n + 1], scale_factor=2)
            return [outer(h) for outer, h in zip(self.outer, hs)]

    network = {
        'resnet50': lambda: Features((3, 4, 6, 3), 64, 1, False),
        'se_resnext101': lambda: Features((3, 4, 23, 3), 128, 32, True),
    }[backbone]()
    imgs, _, _ = random_batch(CASES[backbone], 80, size)
    x = torch.tensor(np.stack(imgs).astype(np.float32) - 120)

    def features():
        network.zero_grad()
        sum(h.sum() for h in network(x)).backward()

    return {'features': features}


CONTENDERS = {'pfdet': pfdet_work, 'PyTorch': torch_work, 'ChainerCV': chainercv_work}
# What each is asked for in its turn
WORK = {
    'pfdet': ('step', 'features', 'products'),
    'PyTorch': ('features',),
    'ChainerCV': ('step',),
}

if __name__ == '__main__':
    sys.exit(main())
