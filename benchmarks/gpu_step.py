"""Training steps and inference on a GPU: speed, memory, time by section, against torchvision.

    python benchmarks/gpu_step.py [--recipes table1-baseline table1-senet154] [--batches 1 2 4 8]
        [--tf32] [--set dtype=mixed16]

Uses random weights and MiniOpenImages' images enlarged to 800 x 1333. For every recipe and batch
size, prints images/s and peak memory in training and inference, and the share of each section in a
training step, from CUDA events. If PyTorch and torchvision are installed, Faster R-CNN ResNet-50
FPN is measured first, at the same size and batch size, and the speed relative to it is printed.
That backbone is smaller than the papers': `--set backbone=resnet50` compares equal backbones.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pfdet.compat  # noqa: F401

import chainer
import numpy as np
from chainer.backends import cuda
from gpu_sections import SECTIONS, DeviceClock, Sections, divided

from pfdet import recipes
from pfdet.errors import InputError, run_command
from pfdet.gpu import cudnn, plans
from pfdet.gpu.precision import allow_tf32
from pfdet.openimages.dataset import OpenImagesDataset
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.known import MIXED
from pfdet.training import build
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.transforms import Converter, TrainLoader

SIZE = 800, 1333


def main() -> int:
    """Parse arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--recipes', nargs='+', default=['table1-baseline', 'table1-senet154'])
    parser.add_argument('--set', nargs='+', default=[], metavar='KEY=VALUE')
    parser.add_argument('--batches', nargs='+', type=int, default=[1, 2, 4, 8])
    parser.add_argument('--steps', type=int, default=20, help='timed steps, after 3 warm-up steps')
    parser.add_argument('--index', type=Path, help='images to use instead of synthetic ones')
    parser.add_argument('--tf32', action='store_true', help='allow TF32, also in torchvision')
    args = parser.parse_args()
    if not cuda.available:
        raise InputError('there is no GPU to measure: python -m pfdet.compat lists what is missing')
    cuda.get_device_from_id(0).use()
    name = cuda.cupy.cuda.runtime.getDeviceProperties(0)['name'].decode()
    print(
        f'{name}, CuPy {cuda.cupy.__version__}, '
        f'{convolution_by()}, {"TF32" if args.tf32 else "no TF32"}, {SIZE[0]} x {SIZE[1]}'
    )
    allow_tf32(args.tf32)
    mixed = f'dtype={MIXED}' in args.set
    with tempfile.TemporaryDirectory() as folder:
        index = AnnotationIndex.open(args.index or synthetic_index(Path(folder)))
        reference = {}
        for n in args.batches:
            reference[n] = or_out_of_memory(
                lambda n=n: torchvision_speed(n, args.steps, args.tf32, mixed)
            )
            release_torch()
            report('torchvision', n, reference[n])
        for recipe in args.recipes:
            for n in args.batches:
                result = or_out_of_memory(
                    lambda r=recipe, n=n: our_speed(r, args.set, index, n, args.steps)
                )
                report(recipe, n, result, reference[n])
    print(f'cuDNN 9: {plans.summary()}')
    return 0


def convolution_by() -> str:
    """What convolves."""
    if cuda.cudnn_enabled:
        return 'cuDNN 8'
    return 'im2col and cuBLAS' if cudnn.front_end() is None else 'cuDNN 9'


def our_speed(
    recipe: str,
    changes: Sequence[str],
    index: AnnotationIndex,
    n: int,
    steps: int,
    clock=None,
    size: tuple[int, int] = SIZE,
    device: int = 0,
) -> dict:
    """Measure a recipe.

    Args:
        recipe (str): Its name.
        changes (sequence of str): As ``--set``.
        index (AnnotationIndex): The images.
        n (int): Batch size.
        steps (int): Number of timed steps.
        clock: See :class:`gpu_sections.Sections`; by default CUDA events.
        size (pair of int): Length of the shorter edge, and limit of the longer edge.
        device (int): The GPU, or -1 for the CPU.

    Returns:
        dict: ``train`` and ``test`` images/s, ``train_memory`` and ``test_memory`` bytes, and
        ``share`` by section.
    """
    import chainermn

    r = recipes.override(recipes.find(recipe), list(changes))
    n_class = len(index.classes)
    rates = np.zeros((n_class, n_class), np.float32)
    network = build.detector(r, n_class, 0, rates, index.hierarchy.descendants)
    chain = build.train_chain(
        r, network, index.classes, index.hierarchy, 0, rates, np.ones(n_class)
    )
    comm = chainermn.create_communicator('pure_nccl' if device >= 0 else 'naive')
    if device >= 0:
        chain.to_device(f'@cupy:{device}')
    optimizer = multi_node_optimizer(chain, comm, loss_scaling=r.dtype == MIXED)
    optimizer.lr = 1e-4
    load = TrainLoader(OpenImagesDataset(index), (size[0], size[0]), size[1], True, 0)
    convert = Converter(index.hierarchy)
    sections = Sections(clock or DeviceClock())
    position = iter(range(10**9))

    def step() -> None:
        with sections.inside('data'):
            batch = convert(
                [load(p % len(index), p, 0) for p in (next(position) for _ in range(n))]
            )
        # The loss, the backward pass and the all-reduce have their own sections.
        with sections.inside('update'):
            optimizer.update(sections.within('other', chain), batch)

    with divided(chain, sections, comm):
        for _ in range(min(3, steps)):
            step()
        free_memory(device)
        sections.seconds()
        for _ in range(steps):
            step()
        by_section = sections.seconds()
    whole = sum(by_section.values())
    result = {
        'train': steps * n / whole,
        'train_memory': used_memory(device),
        'share': {name: by_section[name] / whole for name in SECTIONS},
    }
    chain.cleargrads()
    free_memory(device)
    dataset = OpenImagesDataset(index)
    imgs = [dataset.get_resized(i % len(index), *size).transpose(2, 0, 1) for i in range(n)]
    seconds = timed(lambda: network.predict(imgs), steps, sections.clock)
    return {**result, 'test': steps * n / seconds, 'test_memory': used_memory(device)}


def timed(function: Callable, times: int, clock) -> float:
    """Seconds of ``times`` calls, after one warm-up call."""
    function()
    clock.wait()
    start = clock.stamp()
    for _ in range(times):
        function()
    end = clock.stamp()
    clock.wait()
    return clock.seconds(start, end)


def free_memory(device: int) -> None:
    """Empty the memory pool, to measure its peak from here on."""
    if device >= 0:
        cuda.cupy.get_default_memory_pool().free_all_blocks()


def used_memory(device: int) -> int:
    """Peak bytes of the memory pool since :func:`free_memory`."""
    return cuda.cupy.get_default_memory_pool().total_bytes() if device >= 0 else 0


def torchvision_speed(n: int, steps: int, tf32: bool = False, mixed: bool = False) -> dict | None:
    """Measure torchvision's Faster R-CNN ResNet-50 FPN; :obj:`None` if it is not installed.

    Args:
        n (int): Batch size.
        steps (int): Number of timed steps.
        tf32 (bool): Whether convolutions and matrix products may use TF32.
        mixed (bool): Whether to compute in mixed precision by ``torch.autocast``.
    """
    try:
        import torch
        import torchvision
    except ImportError:
        return None
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = tf32
    torch.backends.cudnn.benchmark = True
    precision = torch.autocast('cuda', torch.float16, enabled=mixed)
    model = torchvision.models.detection.fasterrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, num_classes=501
    ).cuda()
    optimizer = torch.optim.SGD(model.parameters(), 1e-4, momentum=0.9, weight_decay=1e-4)
    imgs = [torch.rand(3, *SIZE, device='cuda') for _ in range(n)]
    boxes = torch.tensor([[100.0, 100, 400, 500], [600, 50, 1200, 700]], device='cuda')
    targets = [{'boxes': boxes, 'labels': torch.tensor([1, 2], device='cuda')} for _ in imgs]

    def step() -> None:
        optimizer.zero_grad()
        with precision:
            loss = sum(model(imgs, targets).values())
        loss.backward()
        optimizer.step()

    def predict() -> None:
        with torch.no_grad(), precision:
            model(imgs)

    class Clock:
        def stamp(self):
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            return event

        def seconds(self, start, end) -> float:
            return start.elapsed_time(end) / 1000

        def wait(self) -> None:
            torch.cuda.synchronize()

    result = {}
    for name, function, training in ('train', step, True), ('test', predict, False):
        model.train(training)
        torch.cuda.reset_peak_memory_stats()
        result[name] = steps * n / timed(function, steps, Clock())
        result[f'{name}_memory'] = torch.cuda.max_memory_allocated()
    return result


def release_torch() -> None:
    """Release PyTorch's cached memory."""
    if 'torch' in sys.modules:
        import torch

        torch.cuda.empty_cache()


def or_out_of_memory(measure: Callable[[], dict | None]) -> dict | None:
    """Call a measurement; return an empty result if the GPU runs out of memory."""
    try:
        return measure()
    except (RuntimeError, MemoryError) as e:
        if 'out of memory' not in str(e).lower():
            raise
        cuda.cupy.get_default_memory_pool().free_all_blocks()
        return {}


def report(name: str, n: int, found: dict | None, reference: dict | None = None) -> None:
    """Print one line for training and one for inference."""
    if not found:
        print(f'{name}, batch {n}: {"not installed" if found is None else "out of memory"}')
        return
    for what in 'train', 'test':
        line = (
            f'{name}, batch {n}, {what}: {found[what]:.2f} images/s, '
            f'{found[what + "_memory"] / 2**30:.1f} GiB'
        )
        if reference:
            line += f', {found[what] / reference[what]:.2f} times torchvision'
        print(line)
    if 'share' in found:
        print(
            '    '
            + '  '.join(
                f'{section} {100 * share:.1f} %' for section, share in found['share'].items()
            )
        )
    sys.stdout.flush()


def synthetic_index(folder: Path) -> Path:
    """An index of 32 images of MiniOpenImages."""
    import contextlib
    import io

    from pfdet.openimages.build_index import build_index
    from pfdet.openimages.make_mini import make_mini
    from pfdet.openimages.mini.knobs import Knobs

    data = folder / 'data'
    make_mini(data, Knobs(images=32, validation_images=1), workers=4)
    with contextlib.redirect_stdout(io.StringIO()):
        build_index(
            data / 'train-annotations-bbox.csv',
            data / 'train-annotations-human-imagelabels.csv',
            data / 'class-descriptions.csv',
            data / 'hierarchy.json',
            data / 'train',
            folder / 'train.index',
        )
    return folder / 'train.index'


if __name__ == '__main__':
    chainer.global_config.autotune = True
    run_command(main)
