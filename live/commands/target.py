"""Which session is meant: the coin, what it trades with, and where its files are."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from live.exchange.replies.account import QUOTE
from live.session.settings import check_settings

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
    def health_path(self) -> Path:
        """The health file."""
        return self.state_folder / f"{self.symbol}_health.json"

    @property
    def lock_path(self) -> Path:
        """The lock of the process that trades it."""
        return self.state_folder / f"{self.symbol}.lock"


def mode_folder(settings: Mapping[str, Any], key: str, mode: str) -> Path:
    """Return the folder under ``settings[key]`` that a mode has for itself; that of live is it."""
    folder = Path(settings[key])
    return folder if mode == "live" else folder / mode


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
