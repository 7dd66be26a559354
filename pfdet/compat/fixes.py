"""Fixes of Chainer and ChainerCV for current versions of Python, NumPy and setuptools.

Every decorated function is one fix. It takes the source of a module and returns the fixed source.
The decorator gives the modules and the version that requires the fix. The docstring describes the
change. A fix raises :class:`ValueError` for a source that it does not know.
"""

import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Callable

from pfdet.compat.import_hook import fix


def version_of(package: str) -> tuple[int, ...]:
    """Return the first three numbers of a package's version; empty if it is not installed."""
    if package == 'numpy' and 'numpy' in sys.modules:
        return _numbers(sys.modules['numpy'].__version__)
    # Imported on demand, because it takes two megabytes and most processes do not need it.
    import importlib.metadata

    try:
        version = importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ()
    return _numbers(version)


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(n) for n in re.findall(r'\d+', version)[:3])


def _since(package: str, *version: int) -> Callable[[], bool]:
    return lambda: version_of(package) >= version


def _no_nms_extension() -> bool:
    # find_spec does not import the package.
    spec = importlib.util.find_spec('chainercv')
    if spec is None or not spec.submodule_search_locations:
        return False
    folder = os.path.join(spec.submodule_search_locations[0], 'utils', 'bbox')
    return importlib.machinery.PathFinder.find_spec('_nms_gpu_post', [folder]) is None


def _replace(source: str, old: str, new: str, count: int = 1) -> str:
    if source.count(old) != count:
        raise ValueError(f'expected {old!r} {count} time(s), found it {source.count(old)} time(s)')
    return source.replace(old, new)


@fix('chainer.functions.array.as_strided', since='NumPy 2.0', needed=_since('numpy', 2))
def numpy_sctypes(source: str) -> str:
    """Replace ``np.sctypes``, which NumPy removed; ``import chainer`` fails without this."""
    source = _replace(source, "np.sctypes['int']", '(np.int8, np.int16, np.int32, np.int64)')
    return _replace(source, "np.sctypes['float']", '(np.float16, np.float32, np.float64)')


@fix('chainer.functions.array.resize_images', since='NumPy 1.20 warns, 1.24 fails')
def numpy_float(source: str) -> str:
    """Replace ``numpy.float`` by ``float`` in ``F.resize_images``; NumPy removed the alias."""
    return _replace(source, 'dtype=numpy.float)', 'dtype=float)', 6)


@fix(
    'chainercv.datasets.coco.coco_instances_base_dataset',
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
    since='NumPy 1.20 warns, 1.24 fails',
)
def numpy_bool_and_int(source: str) -> str:
    """Replace ``np.bool`` and ``np.int`` by ``bool`` and ``int``; NumPy 1.24 removed both."""
    source, count = re.subn(r'\bnp\.(bool|int)\b', r'\1', source)
    if not count:
        raise ValueError('expected np.bool or np.int, found neither')
    return source


@fix(
    'chainercv.links.model.fpn.bbox_head',
    'chainercv.links.model.fpn.mask_head',
    since='NumPy 1.16 warns, 1.24 fails',
)
def hstack_of_generator(source: str) -> str:
    """Pass a list to ``hstack`` in the FPN heads' losses; NumPy does not accept a generator."""
    levels = 'xp.array((l,) * len(rois[l])) for l in range(n_level)'
    return _replace(source, f'xp.hstack(\n        {levels})', f'xp.hstack(\n        [{levels}])')


@fix(
    'chainermn.iterators.multi_node_iterator',
    since='NumPy 1.25 warns, 2.4 fails',
    needed=_since('numpy', 1, 25),
)
def int_of_array(source: str) -> str:
    """Index the one-element array passed to ``int()`` in the multi-node iterator."""
    return _replace(source, 'int(_size)', 'int(_size[0])')


@fix('chainer._environment_check', since='NumPy on Python 3.12, setuptools 82')
def environment_check(source: str) -> str:
    """Remove the check for Python 3.5.0, macOS's BLAS and CuPy 7, which needs removed packages.

    ``import chainer`` fails if ``numpy.distutils`` or ``pkg_resources`` is missing. If both exist,
    importing them takes longer than importing Chainer. The check also warns about every CuPy since
    version 8, which :mod:`pfdet.compat` supports.
    """
    _replace(source, 'def check():', '')
    return '"""Replaced by pfdet.compat."""\n\n\ndef check():\n    pass\n'


@fix('chainercv', since='setuptools 82')
def chainercv_version(source: str) -> str:
    """Read ChainerCV's version with ``importlib.metadata`` instead of ``pkg_resources``."""
    source = _replace(source, 'import pkg_resources\n', '')
    return _replace(
        source,
        "__version__ = pkg_resources.get_distribution('chainercv').version",
        'from pfdet.compat.replacements import CHAINERCV_VERSION as __version__',
    )


@fix('chainer.testing.helper', 'chainer.testing.doctest_helper', since='setuptools 82')
def testing_requirements(source: str) -> str:
    """Look up installed packages without ``pkg_resources``; ChainerCV imports these helpers."""
    return _replace(
        source, 'import pkg_resources', 'from pfdet.compat import replacements as pkg_resources'
    )


@fix('chainercv.utils.download', since='Python 3.12, 3.10 warns')
def distutils_strtobool(source: str) -> str:
    """Parse a boolean environment variable without ``distutils``, which Python removed."""
    return _replace(
        source,
        'from distutils.util import strtobool',
        'from pfdet.compat.replacements import strtobool',
    )


@fix(
    'chainercv.utils.bbox._nms_gpu_post',
    since='Python 3.11, or installed without compiling it',
    needed=_no_nms_extension,
)
def nms_gpu_post(source: str) -> str:
    """Replace ChainerCV's C extension, which does not compile on current Python."""
    return 'from pfdet.compat.replacements import select_by_mask as _nms_gpu_post  # NOQA\n'


@fix('chainer.utils.meta', since='always')
def overriding_warning(source: str) -> str:
    """Suppress ``DeprecationWarning: Overriding method 'to_cpu'`` for classes of ChainerCV."""
    return _replace(
        source,
        "if hasattr(f, '__override_action'):",
        "if (hasattr(f, '__override_action')\n"
        "                        and not d.get('__module__', '').startswith('chainercv.')):",
    )


@fix('chainer.iterators.multiprocess_iterator', since='Python 3.10 warns')
def thread_daemon(source: str) -> str:
    """Set the attribute ``daemon`` of a thread instead of calling ``setDaemon()``."""
    return _replace(source, 'thread.setDaemon(True)', 'thread.daemon = True')
