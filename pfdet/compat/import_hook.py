"""Import hook that fixes the sources of other packages' modules as they are imported."""

import functools
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType

SUPPORTED = {'chainer': '7.8.1', 'chainermn': '7.8.1', 'chainercv': '0.13.1'}


@dataclass(frozen=True)
class Fix:
    """One fix.

    Attributes:
        name (str): Name of the function that applies it.
        modules (tuple of str): The modules to fix.
        since (str): Version that requires the fix.
        needed (callable): ``needed()`` says whether this environment requires the fix.
        repair (callable): Maps the source of a module to the fixed source. Raises
            :class:`ValueError` for a source that it does not know.
        applied (set of str): The modules fixed in this process so far.
    """

    name: str
    modules: tuple[str, ...]
    since: str
    needed: Callable[[], bool]
    repair: Callable[[str], str]
    applied: set[str] = field(default_factory=set)

    @property
    def reason(self) -> str:
        """First line of the docstring of :attr:`repair`."""
        return (self.repair.__doc__ or '').strip().splitlines()[0]


FIXES: list[Fix] = []


def fix(*modules: str, since: str, needed: Callable[[], bool] = lambda: True) -> Callable:
    """Register the decorated function as a fix; see :class:`Fix` for the arguments."""

    def register(repair: Callable[[str], str]) -> Callable[[str], str]:
        FIXES.append(Fix(repair.__name__, modules, since, functools.cache(needed), repair))
        return repair

    return register


def install() -> None:
    """Install the import hook. Repeated calls have no effect.

    Raises:
        ImportError: If a module that needs a fix has already been imported.
    """
    # Compare names, because reloading this module creates a new class.
    if any(type(finder).__name__ == _RepairingFinder.__name__ for finder in sys.meta_path):
        return
    early = [m for f in FIXES for m in f.modules if m in sys.modules and f.needed()]
    if early:
        raise ImportError(
            f'pfdet: {early[0]} was imported before pfdet, which fixes Chainer as it is imported: '
            'put "import pfdet" above the imports of chainer, chainermn and chainercv'
        )
    sys.meta_path.insert(0, _RepairingFinder())


class _RepairingFinder:
    """Finder for the modules that have fixes. Other modules are left to the default finders."""

    # Not a subclass of importlib.abc.MetaPathFinder, whose import takes two megabytes.

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Find a module that has fixes, as described in :mod:`importlib`."""
        fixes = [f for f in FIXES if fullname in f.modules and f.needed()]
        if not fixes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin is not None:
            spec.loader = _RepairingLoader(fullname, spec.origin, fixes, exists=True)
            return spec
        if path is None:
            # The package is not installed. Python raises the error.
            return None
        missing = os.path.join(next(iter(path)), fullname.rpartition('.')[2] + '.py')
        loader = _RepairingLoader(fullname, missing, fixes, exists=False)
        return importlib.machinery.ModuleSpec(fullname, loader, origin='pfdet.compat')


class _RepairingLoader(importlib.machinery.SourceFileLoader):
    """Loader of a fixed module. A module that does not exist consists of its fixes alone."""

    def __init__(self, name: str, path: str, fixes: Sequence[Fix], exists: bool) -> None:
        super().__init__(name, path)
        self.fixes = fixes
        self.exists = exists

    def get_code(self, fullname: str) -> CodeType:
        """Read the source, apply the fixes and compile the result."""
        source = (self.get_source(fullname) or '') if self.exists else ''
        for fix in self.fixes:
            try:
                source = fix.repair(source)
            except ValueError as e:
                package = fullname.split('.')[0]
                raise ImportError(
                    f'pfdet.compat cannot fix {fullname} ({fix.name}: {e}): '
                    f'it supports {package} {SUPPORTED[package]}'
                ) from e
            fix.applied.add(fullname)
        with warnings.catch_warnings():
            # Python 3.12 warns about backslashes in ChainerCV's docstrings on every compilation.
            # Without the hook, pip compiles the files once at installation.
            warnings.simplefilter('ignore')
            return compile(source, self.path, 'exec', dont_inherit=True)
