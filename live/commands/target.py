"""Which session is meant: the coin, what it trades with, and where its files are."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from live.exchange.replies.account import QUOTE
from live.health.account_loss import account_limit
from live.health.alerts import HealthLimits
from live.store.folders import mode_folder

MODE_NAMES: Final = {"live": "REAL MONEY", "testnet": "testnet (demo money)", "dry": "dry run"}


@dataclass(frozen=True, kw_only=True)
class Target:
    """One coin in one mode.

    Attributes:
        coin: such as BTC.
        mode: live, testnet or dry.
        on_testnet: whether prices are those of demo trading; a dry run may take either.
        settings: ``LIVE_CONFIG``, with the folders asked for.
        flags: of the command line that lead to it again.
    """

    coin: str
    mode: str
    on_testnet: bool
    settings: Mapping[str, Any]
    flags: str

    @property
    def symbol(self) -> str:
        """Such as BTCUSDT."""
        return f"{self.coin}{QUOTE}"

    @property
    def mode_name(self) -> str:
        """The mode for people."""
        name = MODE_NAMES[self.mode]
        return f"{name} on the testnet's prices" if self.mode == "dry" and self.on_testnet else name

    @property
    def title(self) -> str:
        """Of alerts."""
        return f"Grid {self.symbol}, {self.mode_name}"

    @property
    def state_folder(self) -> Path:
        """Of state, trades, health and lock."""
        return mode_folder(self.settings, "state_dir", self.mode)

    @property
    def log_path(self) -> Path:
        """The log being written."""
        return mode_folder(self.settings, "log_dir", self.mode) / f"{self.symbol}.log"

    @property
    def state_path(self) -> Path:
        """The state file."""
        return self.state_folder / f"{self.symbol}_state.json"

    @property
    def status_path(self) -> Path:
        """A copy of the state of a session whose state is kept at the exchange."""
        return self.state_folder / f"{self.symbol}_status.json"

    @property
    def health_path(self) -> Path:
        """The health file."""
        return self.state_folder / f"{self.symbol}_health.json"

    @property
    def acknowledged_path(self) -> Path:
        """Touched when a person acknowledges an emergency."""
        return self.state_folder / f"{self.symbol}_acknowledged"

    @property
    def lock_path(self) -> Path:
        """The lock of the process that trades it."""
        return self.state_folder / f"{self.symbol}.lock"


def find_target(
    coin: str,
    *,
    dry_run: bool,
    testnet: bool,
    settings: Mapping[str, Any],
    state_dir: Path | None = None,
    log_dir: Path | None = None,
) -> Target:
    """Return what the command line asks for.

    A dry run on the testnet's prices has folders of its own too: two price series must not meet
    in one ledger.

    Args:
        coin: such as BTC.
        dry_run: trade on paper.
        testnet: demo trading, or its prices.
        settings: ``LIVE_CONFIG``.
        state_dir: instead of the settings'.
        log_dir: likewise.

    Raises:
        ConfigError: the settings are unusable.
    """
    check_settings(settings)
    chosen = {"state_dir": state_dir, "log_dir": log_dir}
    folders = {key: Path(chosen[key] or settings[key]) for key in chosen}
    if dry_run and testnet:
        folders = {key: folder / "testnet" for key, folder in folders.items()}
    words = ["--dry-run"] * dry_run + ["--testnet"] * testnet
    for key, folder in chosen.items():
        words += [f"--{key.replace('_', '-')}", str(folder)] if folder else []
    return Target(
        coin=coin,
        mode="dry" if dry_run else "testnet" if testnet else "live",
        on_testnet=testnet,
        settings={**settings, **{key: str(folder) for key, folder in folders.items()}},
        flags=shlex.join(["--coin", coin, *words]),
    )


_NUMBERS: Final = {
    "max_capital_pct": (0.01, 1.0),
    "candle_grace_s": (0.0, 60.0),
    "poll_s": (0.5, 900.0),
    "request_timeout_s": (1.0, 60.0),
    "max_weight_share": (0.05, 0.95),
    "max_outage_h": (0.1, 72.0),
}
_WHOLE: Final = {
    "buffer_bars": (1, 50_000),
    "recv_window_ms": (1_000, 60_000),
    "retries": (0, 10),
    "snapshots": (1, 10_000),
}
_FOLDERS: Final = ("state_dir", "log_dir")
_INSTANCE: Final = re.compile(r"[A-Za-z0-9]{1,8}")


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse settings no session could run with; ``stop_trigger`` and the URLs are read elsewhere.

    Raises:
        ConfigError: one is missing, of the wrong type or out of range.
    """
    for table, kind in ((_NUMBERS, "a number"), (_WHOLE, "a whole number")):
        for name, (low, high) in table.items():
            value: Any = settings.get(name)
            if not (_is_number(value, whole=table is _WHOLE) and low <= value <= high):
                raise ConfigError(
                    f"LIVE_CONFIG: {name} = {value!r} must be {kind} in [{low:g}, {high:g}]"
                )
    for name in _FOLDERS:
        if not isinstance(settings.get(name), str) or not settings[name]:
            raise ConfigError(f"LIVE_CONFIG: {name} = {settings.get(name)!r} must name a folder")
    if not _INSTANCE.fullmatch(str(settings.get("instance"))):
        raise ConfigError(
            f"LIVE_CONFIG: instance = {settings.get('instance')!r} must be 1 to 8 letters or digits"
        )
    HealthLimits.from_settings(settings)
    account_limit(settings)


def _is_number(value: Any, *, whole: bool) -> bool:
    kinds = int if whole else int | float
    return isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
