"""Make Chainer 7.8.1 and ChainerCV 0.13.1 work on today's Python, NumPy and CuPy.

Both are frozen: their last releases are from 2022 and 2019. Import this module before them::

    import pfdet.compat  # noqa: F401
    import chainer

Importing it costs next to nothing: it imports neither Chainer nor NumPy, and changes nothing in
NumPy or in the standard library. It installs an import hook, which hands a few modules of Chainer,
ChainerMN and ChainerCV to the functions below. Each function is one fix: it takes the source of
such a module and returns it repaired, and its docstring says what breaks, since which version, and
what it does about it. A fix whose version has not come yet is left out, and a source that is not
the one a fix knows is refused, so nothing is ever repaired by half.

``python -m pfdet.compat`` prints the versions of this environment and what was fixed.

Not repaired: ``chainer.links.caffe`` wants protobuf below 4; nothing here reads Caffe models.
"""

import functools
import importlib.abc
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

KNOWN = {'chainer': '7.8.1', 'chainercv': '0.13.1'}


@dataclass(frozen=True)
class Fix:
    """One repair.

    Attributes:
        name (str): Name of the function that does it.
        modules (tuple of str): Modules it repairs.
        since (str): Which versions make it necessary.
        needed (callable): Takes nothing; whether this environment has such a version.
        repair (callable): Takes the source of a module, returns it repaired.
        applied (set of str): The modules repaired in this process, so far.
    """

    name: str
    modules: tuple[str, ...]
    since: str
    needed: Callable[[], bool]
    repair: Callable[[str], str]
    applied: set[str] = field(default_factory=set)

    @property
    def reason(self) -> str:
        """What it does, in a line."""
        return (self.repair.__doc__ or '').strip().splitlines()[0]


FIXES: list[Fix] = []


def version_of(package: str) -> tuple[int, ...]:
    """The first three numbers of an installed package's version; empty if it is not installed."""
    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(n) for n in re.findall(r'\d+', version)[:3])


def _always() -> bool:
    return True


def _since(package: str, *version: int) -> Callable[[], bool]:
    return lambda: version_of(package) >= version


def _no_nms_extension() -> bool:
    # Looking for the package does not import it.
    spec = importlib.util.find_spec('chainercv')
    if spec is None or not spec.submodule_search_locations:
        return False
    folder = os.path.join(spec.submodule_search_locations[0], 'utils', 'bbox')
    return importlib.machinery.PathFinder.find_spec('_nms_gpu_post', [folder]) is None


def _fix(*modules: str, since: str, needed: Callable[[], bool] = _always) -> Callable:
    def register(repair: Callable[[str], str]) -> Callable[[str], str]:
        FIXES.append(Fix(repair.__name__, modules, since, functools.cache(needed), repair))
        return repair
    return register


def _replace(source: str, old: str, new: str, count: int = 1) -> str:
    if source.count(old) != count:
        raise ValueError(f'expected {old!r} {count} time(s), found it {source.count(old)} time(s)')
    return source.replace(old, new)


# ---- NumPy -------------------------------------------------------------------------------------

@_fix('chainer.functions.array.as_strided', since='NumPy 2.0', needed=_since('numpy', 2))
def numpy_sctypes(source: str) -> str:
    """Spell out ``np.sctypes``, which NumPy removed; ``import chainer`` fails without."""
    source = _replace(source, "np.sctypes['int']", '(np.int8, np.int16, np.int32, np.int64)')
    return _replace(source, "np.sctypes['float']", '(np.float16, np.float32, np.float64)')


@_fix('chainer.functions.array.resize_images', since='NumPy 1.24', needed=_since('numpy', 1, 24))
def numpy_float(source: str) -> str:
    """Say ``float`` for ``numpy.float`` in ``F.resize_images``; NumPy removed the alias."""
    return _replace(source, 'dtype=numpy.float)', 'dtype=float)', 6)


@_fix('chainercv.datasets.coco.coco_instances_base_dataset',
      'chainercv.datasets.cub.cub_keypoint_dataset',
      'chainercv.datasets.voc.voc_bbox_dataset',
      'chainercv.datasets.voc.voc_utils',
      'chainercv.experimental.links.model.fcis.fcis',
      'chainercv.experimental.links.model.fcis.fcis_train_chain',
      'chainercv.experimental.links.model.fcis.utils.proposal_target_creator',
      'chainercv.links.model.fpn.mask_head',
      'chainercv.links.model.fpn.mask_utils',
      'chainercv.utils.mask.scale_mask',
      'chainercv.utils.testing.assertions.assert_is_instance_segmentation_dataset',
      'chainercv.utils.testing.assertions.assert_is_instance_segmentation_link',
      'chainercv.utils.testing.assertions.assert_is_point',
      'chainercv.visualizations.vis_point',
      since='NumPy 1.24', needed=_since('numpy', 1, 24))
def numpy_bool_and_int(source: str) -> str:
    """Say ``bool`` and ``int`` for ``np.bool`` and ``np.int``; 1.24 removed both, 2.0 has one."""
    source, count = re.subn(r'\bnp\.(bool|int)\b', r'\1', source)
    if not count:
        raise ValueError('expected np.bool or np.int, found neither')
    return source


@_fix('chainercv.links.model.fpn.bbox_head', 'chainercv.links.model.fpn.mask_head',
      since='NumPy 1.24', needed=_since('numpy', 1, 24))
def hstack_of_generator(source: str) -> str:
    """Give ``hstack`` a list in the FPN heads' losses: NumPy no longer takes a generator."""
    levels = 'xp.array((l,) * len(rois[l])) for l in range(n_level)'
    return _replace(source, f'xp.hstack(\n        {levels})', f'xp.hstack(\n        [{levels}])')


@_fix('chainermn.iterators.multi_node_iterator', since='NumPy 1.25 warns, later fails')
def int_of_array(source: str) -> str:
    """Take the number out of the array in the multi-node iterator before ``int()`` sees it."""
    return _replace(source, 'int(_size)', 'int(_size[0])')


# ---- Packages that are gone --------------------------------------------------------------------

@_fix('chainer._environment_check', since='NumPy on Python 3.12, setuptools 82')
def environment_check(source: str) -> str:
    """Drop the check for Python 3.5.0, macOS's BLAS and CuPy 7, which needs removed packages.

    ``import chainer`` fails where either of ``numpy.distutils`` and ``pkg_resources`` is missing;
    where both are there, importing them takes longer than importing Chainer. CuPy's versions are
    this module's business: Chainer would warn of every CuPy since 8.
    """
    _replace(source, 'def check():', '')
    return '"""Replaced by pfdet.compat."""\n\n\ndef check():\n    pass\n'


@_fix('chainercv', since='setuptools 82')
def chainercv_version(source: str) -> str:
    """Read ChainerCV's own version by ``importlib.metadata`` instead of ``pkg_resources``."""
    source = _replace(source, 'import pkg_resources', 'import importlib.metadata')
    return _replace(source, "pkg_resources.get_distribution('chainercv').version",
                    "importlib.metadata.version('chainercv')")


@_fix('chainer.testing.helper', 'chainer.testing.doctest_helper', since='setuptools 82')
def testing_requirements(source: str) -> str:
    """Look up installed packages without ``pkg_resources``; ChainerCV imports these helpers."""
    return _replace(source, 'import pkg_resources', 'from pfdet import compat as pkg_resources')


class ResolutionError(Exception):
    """A package that is missing, or has another version; named as in ``pkg_resources``."""


class WorkingSet:
    """The installed packages; what ``chainer.testing`` uses of ``pkg_resources.WorkingSet``."""

    def require(self, *requirements: str) -> None:
        """Raise :class:`ResolutionError` unless every requirement, ``numpy>=1.10``, is met."""
        from packaging.requirements import Requirement
        for requirement in map(Requirement, requirements):
            try:
                version = importlib.metadata.version(requirement.name)
            except importlib.metadata.PackageNotFoundError as e:
                raise ResolutionError(f'{requirement.name} is not installed') from e
            if not requirement.specifier.contains(version, prereleases=True):
                raise ResolutionError(f'{requirement}: {version} is installed')


# ---- ChainerCV's C extension -------------------------------------------------------------------

@_fix('chainercv.utils.bbox._nms_gpu_post', since='Python 3.11, or set up without compiling it',
      needed=_no_nms_extension)
def nms_gpu_post(source: str) -> str:
    """Stand in for ChainerCV's C extension, which current Python does not compile."""
    return 'from pfdet.compat import select_by_mask as _nms_gpu_post  # NOQA\n'


def select_by_mask(mask: 'np.ndarray', n_bbox: int, threads_per_block: int,
                   col_blocks: int) -> 'tuple[np.ndarray, int]':
    """Choose boxes greedily, given which boxes each of them suppresses.

    The second half of ChainerCV's non-maximum suppression on GPU, whose kernel compares all pairs
    of boxes, best score first, and leaves the choice to the CPU.

    Args:
        mask (array): uint64, :math:`(R * col\\_blocks,)`. Bit :math:`b` of word :math:`j` in row
            :math:`i` says that box :math:`i` suppresses box :math:`64 j + b`; only later boxes
            count.
        n_bbox (int): The number of boxes, :math:`R`.
        threads_per_block (int): Bits in a word: 64.
        col_blocks (int): Words in a row.

    Returns:
        tuple of array and int: int32 indices, of shape :math:`(R,)`, and how many of them, from
        the first, are chosen boxes.
    """
    import numpy as np
    if threads_per_block != 64:
        raise ValueError(f'threads_per_block must be 64, the bits of a word: {threads_per_block}')
    rows = mask.astype('<u8', copy=False).reshape(n_bbox, col_blocks)
    selection = np.zeros(n_bbox, dtype=np.int32)
    n_selection = 0
    # A row as one long integer: a bit test and an "or" per box, without a NumPy call for either.
    suppressed = 0
    for i in range(n_bbox):
        if not suppressed >> i & 1:
            selection[n_selection] = i
            n_selection += 1
            suppressed |= int.from_bytes(rows[i].tobytes(), 'little')
    return selection, n_selection


# ---- Others ------------------------------------------------------------------------------------

@_fix('chainercv.transforms.image.resize', 'chainercv.transforms.image.rotate',
      since='Pillow 11.3 warns, 13 fails', needed=_since('pillow', 11, 3))
def pillow_mode(source: str) -> str:
    """Leave it to Pillow that a float32 array is an image of mode F."""
    return _replace(source, "fromarray(ch, mode='F')", 'fromarray(ch)')


@_fix('chainer.utils.meta', since='ever')
def overriding_warning(source: str) -> str:
    """Keep ``DeprecationWarning: Overriding method 'to_cpu'`` for classes outside ChainerCV."""
    return _replace(
        source, "if hasattr(f, '__override_action'):",
        "if (hasattr(f, '__override_action')\n"
        "                        and not d.get('__module__', '').startswith('chainercv.')):")


# ---- The import hook ---------------------------------------------------------------------------

class _RepairingLoader(importlib.machinery.SourceFileLoader):
    """Loads a module from its source after the fixes, or from nothing but what they make."""

    def __init__(self, name: str, path: str, fixes: Sequence[Fix], exists: bool) -> None:
        super().__init__(name, path)
        self.fixes = fixes
        self.exists = exists

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_source(fullname) if self.exists else ''
        for fix in self.fixes:
            try:
                source = fix.repair(source)
            except ValueError as e:
                package = fullname.split('.')[0].replace('chainermn', 'chainer')
                raise ImportError(
                    f'pfdet.compat cannot repair {fullname} ({fix.name}: {e}): '
                    f'it knows {package} {KNOWN[package]}') from e
            fix.applied.add(fullname)
        with warnings.catch_warnings():
            # Python 3.12 warns of backslashes in docstrings whenever it compiles them.
            warnings.simplefilter('ignore')
            return compile(source, self.path, 'exec', dont_inherit=True)


class _RepairingFinder(importlib.abc.MetaPathFinder):
    """Finds the modules that have fixes; all others are left to those who find them anyway."""

    def find_spec(self, fullname: str, path: Sequence[str] | None = None,
                  target: ModuleType | None = None) -> importlib.machinery.ModuleSpec | None:
        fixes = [f for f in FIXES if fullname in f.modules and f.needed()]
        if not fixes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is None:
            if path is None:
                return None
            missing = os.path.join(next(iter(path)), fullname.rpartition('.')[2] + '.py')
            loader = _RepairingLoader(fullname, missing, fixes, exists=False)
            return importlib.machinery.ModuleSpec(fullname, loader, origin='pfdet.compat')
        spec.loader = _RepairingLoader(fullname, spec.origin, fixes, exists=True)
        return spec


def install() -> None:
    """Install the import hook; done once, by importing this module.

    Raises:
        ImportError: If Chainer was imported before, unrepaired.
    """
    if any(type(finder).__name__ == _RepairingFinder.__name__ for finder in sys.meta_path):
        return
    early = [m for f in FIXES for m in f.modules if m in sys.modules and f.needed()]
    if early:
        raise ImportError(
            f'import pfdet.compat before chainer, chainermn and chainercv ({early[0]} is loaded)')
    sys.meta_path.insert(0, _RepairingFinder())


def versions() -> dict[str, str]:
    """The versions of this environment, by name; MPI's library is asked, the others looked up."""
    found = {'Python': sys.version.split()[0]}
    names = {
        'NumPy': ['numpy'], 'SciPy': ['scipy'], 'CuPy': ['cupy', 'cupy-cuda12x', 'cupy-cuda13x'],
        'Chainer': ['chainer'], 'ChainerCV': ['chainercv'], 'mpi4py': ['mpi4py']}
    for name, packages in names.items():
        numbers = [importlib.metadata.version(p) for p in packages if version_of(p)]
        found[name] = numbers[0] if numbers else 'not installed'
    try:
        from mpi4py import MPI
        found['MPI'] = ' '.join(MPI.Get_library_version().rstrip('\0').splitlines()[0].split())
    except (ImportError, RuntimeError) as e:
        found['MPI'] = f'not found ({e})'
    return found


def report() -> str:
    """The table that ``python -m pfdet.compat`` prints: versions, and every fix with its state."""
    lines = [f'{name:<11}{version}' for name, version in versions().items()]
    lines.append('')
    for fix in FIXES:
        state = f'applied to {len(fix.applied)}' if fix.applied else (
            'not loaded' if fix.needed() else 'not needed')
        lines.append(f'{fix.name:<22}{state:<14}{fix.reason}  [{fix.since}]')
    return '\n'.join(lines)


if __name__ == '__main__':
    # This file is a second copy of the module, named __main__; the other one repairs and knows.
    import pfdet.compat

    import chainercv  # noqa: F401
    import chainermn  # noqa: F401
    print(pfdet.compat.report())
else:
    install()
