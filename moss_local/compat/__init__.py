"""Stand in for the hosted SDK: what imports `moss` gets this library, unmodified.

    from moss_local import compat

    compat.install()  # before anything imports moss, inferedge_moss or moss_core

or, for a program as it is: `python -m moss_local.compat script.py arguments`. Integrations that
depend on the hosted SDK are installed without it: `pip install --no-deps langchain-moss`.

What holds: tests/moss_local/test_compat.py; tests/compat drives the integrations themselves.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from types import ModuleType

from moss_local.compat.names import MODULES
from moss_sync import MossError

__all__ = ["install", "installed", "uninstall"]


def install() -> None:
    """Make `moss`, `inferedge_moss`, `moss_core` and their submodules this library's names.

    Idempotent. Whether the hosted SDK is installed makes no difference.

    Raises:
        MossError: one of these modules was imported before, and is not this library's.
    """
    foreign = [name for name in MODULES if name in sys.modules and not _is_ours(sys.modules[name])]
    if foreign:
        raise MossError(
            f"{', '.join(foreign)} was imported before moss_local.compat.install()",
            hint="call install() first, or run: python -m moss_local.compat script.py",
        )
    if not installed():
        sys.meta_path.insert(0, _FINDER)


def installed() -> bool:
    """Return whether an import of `moss` gets this library."""
    return _FINDER in sys.meta_path


def uninstall() -> None:
    """Undo `install`: the next import of `moss` gets whatever is installed. For tests."""
    if installed():
        sys.meta_path.remove(_FINDER)
    for name in MODULES:
        if name in sys.modules and _is_ours(sys.modules[name]):
            del sys.modules[name]


class StandIn(ModuleType):
    """One module of the hosted SDK, whose names are found in this library when asked for."""

    def __getattr__(self, name: str) -> object:
        source, names = MODULES[self.__name__]
        if name == "__all__":
            return sorted(names)
        if name in names:
            value = getattr(importlib.import_module(source), name)
            self.__dict__[name] = value
            return value
        if name == "__version__":
            return importlib.import_module("moss_local").__version__
        if f"{self.__name__}.{name}" in MODULES:
            return importlib.import_module(f"{self.__name__}.{name}")
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *MODULES[self.__name__][1]})


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname not in MODULES:
            return None
        inside = any(name.startswith(f"{fullname}.") for name in MODULES)
        return importlib.machinery.ModuleSpec(fullname, self, is_package=inside)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return StandIn(spec.name, f"{spec.name} as moss_local offers it; see moss_local.compat.")

    def exec_module(self, module: ModuleType) -> None:
        """Nothing is run: names are found when they are asked for."""


_FINDER = _Finder()


def _is_ours(module: ModuleType) -> bool:
    return isinstance(module, StandIn)
