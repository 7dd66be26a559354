"""A dry run: print the plan of a full run, and test all ranks on two small training steps.

The plan is that of the recipe at its own size. The two steps use the same options at mini size,
with one small image per rank, so that hundreds of ranks fit on one machine. This module imports
only what the steps need.
"""

import dataclasses
import json
import os
import warnings
import zlib
from pathlib import Path

import chainer
import numpy as np

from pfdet.atomic_write import replace_when_done
from pfdet.iterators.balanced import SoftBalanceSampler
from pfdet.iterators.class_images import class_images
from pfdet.iterators.samplers import SequentialSampler, aspect_groups
from pfdet.iterators.sharded import ShardedIterator
from pfdet.links.multi_node_batch_normalization import (
    group_of_ranks,
    use_multi_node_batch_normalization,
)
from pfdet.links.se_resnext import MiniSEResNeXt
from pfdet.openimages.index import AnnotationIndex
from pfdet.recipes.known import MIXED
from pfdet.recipes.mini import at_size
from pfdet.recipes.recipe import Recipe
from pfdet.training import build
from pfdet.training.augmentation import Augmentation
from pfdet.training.dry_run.plan import plan
from pfdet.training.dry_run.process_stats import available_memory, memory, seconds_since_start
from pfdet.training.dry_run.report import measured_lines, plan_lines
from pfdet.training.dry_run.synthetic_index import ImagesOrNoise, synthetic_index
from pfdet.training.optimizer import multi_node_optimizer
from pfdet.training.transforms import Batch, Converter, TrainLoader
from pfdet.training.updater import Updater

# Number of images of the challenge's training set, for plans without an index.
CHALLENGE_IMAGES = 1_674_979
N_STEP = 2
# Memory per rank for the steps with the mini network. With less, narrower layers are used.
_MINI_BYTES = 42 << 20
# Number of draws to compare, for samplers with replacement.
_N_DRAW = 1 << 16


def dry_run(
    recipe: Recipe,
    index: AnnotationIndex | None,
    comm,
    *,
    device: int = -1,
    seed: int = 0,
    n_rank: int = 0,
    accumulate: int = 1,
    bn_group_size: int = 0,
    out: Path | None = None,
) -> None:
    """Preview a run: print its plan and test all ranks; all ranks must call this.

    Args:
        recipe (Recipe): The recipe to train.
        index (AnnotationIndex): The training set. By default the plan has as many images as the
            2018 challenge, and the steps use synthetic annotations.
        comm (ChainerMN communicator): The ranks.
        device (int): GPU of this rank, or -1.
        seed (int): Seed of the weights, the order of images and augmentation.
        n_rank (int): Number of ranks to plan for; by default the number of ranks in ``comm``.
        accumulate, bn_group_size (int): See :class:`~pfdet.training.run_options.RunOptions`.
        out (path): Directory to which the first rank writes ``dry_run.json``, the plan and the
            measurements.

    Raises:
        InputError: The recipe or a file cannot be used.
        RuntimeError: The ranks do not partition the images, draw from different sequences, or have
            different weights after the steps.
    """
    started = comm.mpi_comm.gather((seconds_since_start(), *memory()))
    n_rank, synthetic = n_rank or comm.size, index is None
    n_image = CHALLENGE_IMAGES if synthetic else len(index)
    planned = None
    if synthetic:
        index = synthetic_index(4 * comm.size, seed)
    if comm.rank == 0:
        planned = plan(
            recipe,
            n_image,
            n_rank,
            index.hierarchy,
            accumulate,
            0 if synthetic else os.path.getsize(index.path),
        )
        path = None if synthetic else index.path
        print('\n'.join(plan_lines(planned, recipe, path)), flush=True)
    measured = check_split(n_image, n_rank, recipe.batch_size * accumulate, comm)
    sampler = _sampler(recipe, index, seed, comm, synthetic)
    measured |= check_draws(sampler, comm)
    measured |= _train_steps(recipe, index, sampler, comm, device, seed, bn_group_size)
    ended = comm.mpi_comm.gather((seconds_since_start(), *memory()))
    if comm.rank == 0:
        measured |= {
            'ranks': comm.size,
            'started': _over_ranks(started),
            'ended': _over_ranks(ended),
        }
        print('\n'.join(measured_lines(measured)), flush=True)
        if out is not None:
            with replace_when_done(out / 'dry_run.json') as path:
                path.write_text(
                    json.dumps({'plan': dataclasses.asdict(planned), 'found': measured}, indent=1)
                    + '\n'
                )


def check_split(n_image: int, n_rank: int, batch_size: int, comm) -> dict[str, int]:
    """Check that the planned ranks cover every position of an epoch exactly once.

    Each rank simulates every ``comm.size``-th planned rank.

    Args:
        n_image (int): Images per epoch.
        n_rank (int): Number of planned ranks.
        batch_size (int): Images per rank and iteration.
        comm (ChainerMN communicator): The ranks.

    Returns:
        dict: Number of positions checked.

    Raises:
        RuntimeError: A position is missing or occurs more than once.
    """
    n_iteration = -(-n_image // (n_rank * batch_size))
    iterator = ShardedIterator(range(n_image), lambda *_: None, batch_size, 0, n_rank)
    step = iterator.global_batch_size
    simulated = range(comm.rank, n_rank, comm.size)
    positions = np.empty((len(simulated), n_iteration, batch_size), np.int64)
    for part, iterator.rank in zip(positions, simulated, strict=True):
        for i in range(n_iteration):
            part[i] = iterator.positions(i * step)
    iterator.finalize()
    parts = comm.mpi_comm.gather(positions.ravel())
    n = n_iteration * n_rank * batch_size
    if comm.rank == 0 and not np.array_equal(np.sort(np.concatenate(parts)), np.arange(n)):
        raise RuntimeError(
            f'dry run: {n_rank} ranks do not cover each of the first {n} positions once'
        )
    return {'positions': n}


def check_draws(sampler, comm) -> dict[str, int]:
    """Check that all ranks draw from the same sequence.

    A sequential sampler must also draw every image exactly once per epoch.

    Args:
        sampler (sequence): Maps positions to images.
        comm (ChainerMN communicator): The ranks.

    Returns:
        dict: Number of draws and of different images.

    Raises:
        RuntimeError: The sequences differ, or an image is not drawn exactly once.
    """
    sequential = isinstance(sampler, SequentialSampler)
    n = len(sampler) if sequential else min(len(sampler), _N_DRAW)
    drawn = comm.mpi_comm.gather(
        np.array([sampler[p] for p in range(comm.rank, n, comm.size)], np.int64)
    )
    if comm.rank > 0:
        return {}
    images = np.empty(n, np.int64)
    for rank, part in enumerate(drawn):
        images[rank :: comm.size] = part
    tested = range(0, n, max(1, n // 1000))
    if [sampler[p] for p in tested] != images[tested].tolist():
        raise RuntimeError('dry run: ranks draw from different sequences')
    if sequential and not np.array_equal(np.sort(images), np.arange(n)):
        raise RuntimeError(f'dry run: the ranks do not draw each of {n} images once')
    return {'draws': n, 'images_drawn': len(np.unique(images))}


def _sampler(recipe: Recipe, index: AnnotationIndex, seed: int, comm, synthetic: bool):
    if not synthetic or recipe.sampler not in ('class_aware', 'soft_balance'):
        return build.sampler(recipe, index, seed, comm)
    # A synthetic index has no file next to which the images of classes could be stored and shared.
    group = aspect_groups(index.columns['image_size']) if recipe.aspect_chunk > 1 else None
    lam = 1.0 if recipe.sampler == 'class_aware' else recipe.soft_balance_lambda
    return SoftBalanceSampler(class_images(index), lam, seed, group, recipe.aspect_chunk)


def _train_steps(
    recipe: Recipe,
    index: AnnotationIndex,
    sampler,
    comm,
    device: int,
    seed: int,
    bn_group_size: int,
) -> dict:
    """Train two steps, and check that the ranks agree."""
    # Wait until all ranks have started: they share the remaining memory.
    comm.mpi_comm.Barrier()
    narrow = comm.allreduce_obj(int(0 < available_memory() < comm.intra_size * _MINI_BYTES)) > 0
    small, chain = _mini_chain(recipe, index, comm, device, seed, bn_group_size, narrow)
    optimizer = multi_node_optimizer(
        chain, comm, small.momentum, small.weight_decay, loss_scaling=small.dtype == MIXED
    )
    optimizer.lr = 0.1 * small.base_lr
    images = ImagesOrNoise(index)
    iterator = ShardedIterator(
        sampler,
        TrainLoader(
            images,
            small.min_size,
            small.max_size,
            small.flip,
            seed,
            Augmentation(small.color_jitter, small.crop, small.rotation),
        ),
        small.batch_size,
        comm.rank,
        comm.size,
        n_ahead=0,
    )
    batches: list[Batch] = []
    convert = Converter(index.hierarchy, comm, small.join_iou)

    def convert_and_record(samples, device=None) -> Batch:
        batch = convert(samples, device)
        batches.append(dataclasses.replace(batch, truth=None))
        return batch

    updater = Updater(iterator, optimizer, convert_and_record)
    reporter = chainer.Reporter()
    reporter.add_observer('main', chain)
    seconds, losses = [], []
    try:
        for _ in range(N_STEP):
            observed = {}
            with reporter.scope(observed), warnings.catch_warnings():
                # Features pooled to one position have one sample per rank.
                warnings.filterwarnings('ignore', 'A batch with no more than one sample')
                updater.update()
            seconds.append(updater.seconds)
            losses.append(float(observed['main/loss'].array))
    finally:
        iterator.finalize()
    parts = comm.mpi_comm.gather(
        (
            [b.positions for b in batches],
            [b.size for b in batches],
            losses,
            seconds,
            _checksum(chain),
            images.n_read,
            images.n_noise,
            [img.shape[1] * img.shape[2] for b in batches for img in b.imgs],
        )
    )
    if comm.rank > 0:
        return {}
    positions, sizes, losses, seconds, checksums, n_read, n_noise, pixels = zip(*parts, strict=True)
    _check_steps(np.array(positions), sizes, np.array(losses), checksums)
    return {
        'narrow': narrow,
        'parameters': sum(p.size for p in chain.params()),
        'losses': np.mean(losses, axis=0).tolist(),
        'seconds_a_step': np.max(seconds, axis=0).tolist(),
        'sizes': sizes[0],
        'padding': 1 - np.sum(pixels) / (sum(h * w for h, w in sizes[0]) * comm.size),
        'images_read': sum(n_read),
        'images_made': sum(n_noise),
    }


def _mini_chain(
    recipe: Recipe,
    index: AnnotationIndex,
    comm,
    device: int,
    seed: int,
    bn_group_size: int,
    narrow: bool,
):
    small = dataclasses.replace(
        at_size(recipe, 'mini'),
        batch_size=1,
        min_size=(56, 72),
        max_size=112,
        n_anchor=32,
        n_roi=16,
        train_proposals=(64, 64),
    )
    backbone = None
    if narrow:
        small = dataclasses.replace(small, fpn_channel=16, head_unit=32)
        backbone = MiniSEResNeXt(width=8)
    n_class = len(index.classes)
    # Placeholders for statistics of the data set: a dry run does not depend on their values.
    rates = np.zeros((n_class, n_class), np.float32) if build.needs_rates(small) else None
    counts = np.ones(n_class) if small.effective_beta > 0 else None
    network = build.detector(small, n_class, seed, rates, index.hierarchy.descendants, backbone)
    if comm.size > 1:
        use_multi_node_batch_normalization(network, group_of_ranks(comm, bn_group_size))
    chain = build.train_chain(small, network, index.classes, index.hierarchy, seed, rates, counts)
    if device >= 0:
        chainer.backends.cuda.get_device_from_id(device).use()
        chain.to_gpu()
    return small, chain


def _check_steps(positions: np.ndarray, sizes, losses: np.ndarray, checksums) -> None:
    n = positions.size
    if not np.array_equal(np.sort(positions, axis=None), np.arange(n)):
        raise RuntimeError(f'dry run: {N_STEP} steps did not use each of {n} positions once')
    if len(set(map(str, sizes))) > 1:
        raise RuntimeError('dry run: ranks have batches of different sizes in pixels')
    if not np.isfinite(losses).all():
        rank = int(np.argwhere(~np.isfinite(losses))[0][0])
        raise RuntimeError(f'dry run: the loss of rank {rank} is not finite')
    if len(set(checksums)) > 1:
        raise RuntimeError('dry run: after the steps, ranks have different weights')


def _checksum(link: chainer.Link) -> int:
    checksum = 0
    for _, param in sorted(link.namedparams()):
        checksum = zlib.crc32(
            np.ascontiguousarray(chainer.backends.cuda.to_cpu(param.array)), checksum
        )
    return checksum


def _over_ranks(parts: list[tuple[float, int, int]]) -> dict[str, float]:
    seconds, private, proportional = np.array(parts).T
    return {
        'seconds': seconds.max(),
        'private_mean': private.mean(),
        'private_max': private.max(),
        'proportional_sum': proportional.sum(),
    }
