"""API keys: from the environment or a file ``.env``, and from there to the exchange only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.errors import ConfigError, CredentialsError

KEY: Final = "BINANCE_API_KEY"
SECRET: Final = "BINANCE_API_SECRET"  # noqa: S105 - the variable's name
ENV_FILE: Final = Path(".env")
_OTHERS: Final = 0o077
_USABLE: Final = re.compile(r"[!-~]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A key and its secret; neither shows in ``repr``.

    Attributes:
        key: '' where none is needed.
        secret: likewise.
    """

    key: str = field(default="", repr=False)
    secret: str = field(default="", repr=False)


def read_environment(
    environ: Mapping[str, str] = os.environ, path: Path = ENV_FILE
) -> dict[str, str]:
    """Return the variables of ``path`` and of the process; the latter win.

    Nothing is put into the process's environment, where its children would see it.

    Raises:
        ConfigError: the file is there and cannot be read.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only who trades needs it

    try:
        values = dotenv_values(path, interpolate=False)  # a secret may hold a $
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; correct it or remove it") from None
    return {name: text for name, text in values.items() if text} | dict(environ)


def is_open_to_others(path: Path = ENV_FILE) -> bool:
    """Return whether other users of this machine may read ``path``."""
    return path.is_file() and bool(path.stat().st_mode & _OTHERS)


def find_credentials(environ: Mapping[str, str]) -> Credentials:
    """Return the keys.

    Raises:
        CredentialsError: one is missing or cannot be a key; the text does not show it.
    """
    found = {name: environ.get(name, "").strip() for name in (KEY, SECRET)}
    missing = [name for name, text in found.items() if not text]
    if missing:
        raise CredentialsError(
            f"{' and '.join(missing)} not set: put your API key and its secret into the "
            "environment or into a file .env in this folder (see .env.example), or try --dry-run, "
            "which needs none"
        )
    for name, text in found.items():
        if not _USABLE.fullmatch(text):
            raise CredentialsError(f"{name} holds characters no key has: copy it again")
    return Credentials(found[KEY], found[SECRET])
