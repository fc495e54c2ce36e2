"""API keys: from the environment or a file ``.env``, and from there to the exchange only."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core.errors import ConfigError, CredentialsError
from core.files import read_limited

KEY: Final = "BINANCE_API_KEY"
SECRET: Final = "BINANCE_API_SECRET"  # noqa: S105 - the variable's name
ENV_FILE: Final = Path(".env")
FROM_FILE: Final = "_FILE"
"""Ending of a variable that names a file with the value: ``BINANCE_API_KEY_FILE``."""
URLS: Final = "GRID_ALERT_URLS"
SECOND_URLS: Final = "GRID_ALERT_URLS_SECOND"
_LONGEST: Final = 65_536
"""Bytes of a file with a value."""
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

    Keys, secrets and alert addresses may each lie in a file of their own, as Docker's secrets and
    systemd's credentials do: ``BINANCE_API_KEY_FILE`` names the one with ``BINANCE_API_KEY``.
    Nothing is put into the process's environment, where its children would see it.

    Raises:
        ConfigError: a file is there and cannot be read, or is named and not there.
    """
    from dotenv import dotenv_values  # noqa: PLC0415 - only who trades needs it

    try:
        values = dotenv_values(path, interpolate=False)  # a secret may hold a $
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; correct it or remove it") from None
    found = {name: text for name, text in values.items() if text} | dict(environ)
    for name in (KEY, SECRET, URLS, SECOND_URLS):
        place = found.get(name + FROM_FILE, "").strip()
        if place and not found.get(name):
            found[name] = _content(name, Path(place))
    return found


def _content(name: str, path: Path) -> str:
    """Return the value of a variable that lies in a file.

    Raises:
        ConfigError: it cannot be read; the text does not show what is in it.
    """
    try:
        return read_limited(path, _LONGEST).decode("utf-8").strip()
    except OSError as error:
        reason = error.strerror or type(error).__name__
    except UnicodeDecodeError:
        reason = "it is no text"
    raise ConfigError(f"cannot read {path}, which {name}_FILE names: {reason}; correct it")


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
