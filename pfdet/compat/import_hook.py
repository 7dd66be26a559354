"""The import hook that repairs modules of other packages as they are imported."""

import functools
import importlib.machinery
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import CodeType, ModuleType

KNOWN = {'chainer': '7.8.1', 'chainermn': '7.8.1', 'chainercv': '0.13.1'}


@dataclass(frozen=True)
class Fix:
    """One repair.

    Attributes:
        name (str): Name of the function that does it.
        modules (tuple of str): The modules it repairs.
        since (str): Which versions make it necessary.
        needed (callable): Takes nothing; whether this environment has such a version.
        repair (callable): Takes the source of a module, returns it repaired. Raises
            :class:`ValueError` for a source that it does not know.
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


def fix(*modules: str, since: str, needed: Callable[[], bool] = lambda: True) -> Callable:
    """Register the decorated function as the fix of ``modules``; see :class:`Fix`."""

    def register(repair: Callable[[str], str]) -> Callable[[str], str]:
        FIXES.append(Fix(repair.__name__, modules, since, functools.cache(needed), repair))
        return repair

    return register


def install() -> None:
    """Install the import hook, once.

    Raises:
        ImportError: If a module that needs a fix was imported before, without it.
    """
    # By name: a reloaded module has another class of this name.
    if any(type(finder).__name__ == _RepairingFinder.__name__ for finder in sys.meta_path):
        return
    early = [m for f in FIXES for m in f.modules if m in sys.modules and f.needed()]
    if early:
        raise ImportError(
            f'import pfdet before chainer, chainermn and chainercv: {early[0]} is loaded already'
        )
    sys.meta_path.insert(0, _RepairingFinder())


class _RepairingFinder:
    """Finds the modules that have fixes; all others are left to those who find them anyway."""

    # No subclass of importlib.abc's, which would load two megabytes into every process.

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        fixes = [f for f in FIXES if fullname in f.modules and f.needed()]
        if not fixes:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None:
            spec.loader = _RepairingLoader(fullname, spec.origin, fixes, exists=True)
            return spec
        if path is None:
            # The whole package is missing, which is for Python to say.
            return None
        missing = os.path.join(next(iter(path)), fullname.rpartition('.')[2] + '.py')
        loader = _RepairingLoader(fullname, missing, fixes, exists=False)
        return importlib.machinery.ModuleSpec(fullname, loader, origin='pfdet.compat')


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
                package = fullname.split('.')[0]
                raise ImportError(
                    f'pfdet.compat cannot repair {fullname} ({fix.name}: {e}): '
                    f'it knows {package} {KNOWN[package]}'
                ) from e
            fix.applied.add(fullname)
        with warnings.catch_warnings():
            # Python 3.12 warns of the backslashes in ChainerCV's docstrings when compiling them,
            # which otherwise happens once, when pip installs it.
            warnings.simplefilter('ignore')
            return compile(source, self.path, 'exec', dont_inherit=True)
