"""The only module that knows how kernels are compiled and cached."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar, cast

_ROOT = Path(__file__).resolve().parent.parent
_KERNEL_SOURCES = ("core/*.py", "engine/*.py")


def _fingerprint() -> str:
    """Digest every source that can end up inside a compiled kernel.

    Numba keys its disk cache on the decorated function's own file only; an edited helper or
    constant in another file would silently keep the old machine code (numba issue #1833).
    """
    digest = hashlib.sha256()
    for pattern in _KERNEL_SOURCES:
        for path in sorted(_ROOT.glob(pattern)):
            digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


CODE_FINGERPRINT: Final = _fingerprint()
"""Names the decision code a result was made with."""


def _cache_folder() -> Path:
    """Return a writable folder for machine code, beside the sources if possible."""
    variant = f"{CODE_FINGERPRINT}-{os.environ.get('NUMBA_BOUNDSCHECK', '0')}"
    fallback = Path(tempfile.gettempdir()) / f"grid-strategy-{os.getuid()}"
    for base in (_ROOT / ".numba_cache", fallback):
        folder = base / variant
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    return fallback


CACHE_FOLDER: Final = _cache_folder()
os.environ["NUMBA_CACHE_DIR"] = str(CACHE_FOLDER)

import numba  # noqa: E402

numba.config.reload_config()  # type: ignore[no-untyped-call]

_OPTIONS: Final[dict[str, Any]] = {
    "cache": True,
    "nogil": True,
    "error_model": "numpy",
    "no_cfunc_wrapper": True,  # nothing calls kernels from C; each costs compile time
}
F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compile ``function`` with the project's numba settings and keep its Python signature."""
    return cast(F, numba.njit(**_OPTIONS)(function))


def is_compiled() -> bool:
    """Return whether machine code of this source is on disk, so that starting is quick."""
    return os.environ.get("NUMBA_DISABLE_JIT") == "1" or any(CACHE_FOLDER.rglob("*run_bars*.nbi"))
