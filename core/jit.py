"""The only module that knows how kernels are compiled and cached.

Numba keys its disk cache on the decorated function's own file only; an edited helper or constant in
another file would silently keep the old machine code (numba issue #1833). So machine code lies in a
folder named by the fingerprint of the kernel's module, which covers everything that module imports:
what changes nothing recompiles nothing, and an edit of one strategy leaves the others' code alone.
"""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import numba

from core.code_cache import ROOT, cache_folder, make_private
from core.fingerprint import fingerprint

_LOCATOR: Final = "core.jit.ClosureLocator"
_OPTIONS: Final[dict[str, Any]] = {
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # nothing calls kernels from C; each costs compile time
}
F = TypeVar("F", bound=Callable[..., Any])
_compiled: dict[int, Any] = {}
"""Kernels by the identity of the function that each was made of."""


def _leave_scipy_out() -> None:
    """Let numba find no BLAS: no kernel multiplies matrices, and finding it imports scipy.

    That is a seventh of a second at every start. Whoever wants scipy imports it as always.
    """
    if "scipy.linalg" in sys.modules:
        return
    sys.modules["scipy.linalg"] = cast(Any, None)  # an import of it fails
    try:
        importlib.import_module("numba.np.arraymath")  # looks for a BLAS once, when imported
    finally:
        del sys.modules["scipy.linalg"]


_leave_scipy_out()


class ClosureLocator:
    """Tells numba where the machine code of a kernel lies, and whether it is fresh."""

    def __init__(self, function: Any, folder: Path) -> None:
        self._folder = folder
        self._code = hashlib.sha256(function.__code__.co_code).hexdigest()[:8]

    @classmethod
    def from_function(cls, py_func: Any, py_file: str) -> ClosureLocator | None:
        """Return a locator, or None for code that is not ours."""
        module = _module_of(Path(py_file))
        folder = None if module is None else code_folder(module)
        return None if folder is None else cls(py_func, folder)

    def ensure_cache_path(self) -> None:
        """Make the folder, for us alone; numba calls this before it writes."""
        if not make_private(self._folder):
            raise OSError(f"{self._folder} is not a folder that only we can write to")

    def get_cache_path(self) -> str:
        """Return the folder, whose name is the fingerprint."""
        return str(self._folder)

    def get_source_stamp(self) -> str:
        """Return the fingerprint: numba discards machine code of another."""
        return self._folder.name

    def get_disambiguator(self) -> str:
        """Return what tells functions of one name in a module apart, whatever their line."""
        return self._code


def code_folder(module: str) -> Path | None:
    """Return the folder of the machine code of a module's kernels, None if none is kept."""
    folder = cache_folder()
    if folder is None:
        return None
    checked = "-checked" if os.environ.get("NUMBA_BOUNDSCHECK", "0") not in {"", "0"} else ""
    return folder / f"{module}-{fingerprint(module)}{checked}"


def _module_of(path: Path) -> str | None:
    try:
        return ".".join(path.resolve().relative_to(ROOT).with_suffix("").parts)
    except ValueError:
        return None


def kernel(function: F) -> F:
    """Compile ``function`` with the project's numba settings and keep its Python signature."""
    before = numba.config.CACHE_LOCATOR_CLASSES  # type: ignore[attr-defined]
    numba.config.CACHE_LOCATOR_CLASSES = _LOCATOR  # type: ignore[attr-defined]
    try:
        made = numba.njit(cache=cache_folder() is not None, **_OPTIONS)(function)
        if made is not function:  # NUMBA_DISABLE_JIT
            _compiled[id(function)] = made
        return cast(F, made)
    finally:
        numba.config.CACHE_LOCATOR_CLASSES = before  # type: ignore[attr-defined]


def has_machine_code(module: str, function: str) -> bool:
    """Return whether a kernel's machine code is on disk, or nothing is compiled at all."""
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        return True
    folder = code_folder(module)
    return folder is not None and any(folder.glob(f"*.{function}-*.nbi"))


@contextmanager
def interpreted() -> Iterator[None]:
    """Let kernels run as the Python they are written in: nothing is compiled or loaded meanwhile.

    For what cannot wait for a compiler. The answers are the same to the bit. Kernels that other
    threads call meanwhile are interpreted too; modules with kernels must have been imported before.
    """
    plain = {id(made): made.py_func for made in _compiled.values()}
    _exchange(plain)
    try:
        yield
    finally:
        _exchange(_compiled)


def _exchange(replacements: dict[int, Any]) -> None:
    """Put functions in place of others, given by identity, in all modules that name them."""
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if id(value) in replacements:
                setattr(module, name, replacements[id(value)])
