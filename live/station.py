"""What a session needs of the machine it runs on: keys, clock, way to the exchange, lock, log."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import requests

from live.alerts import AlertSender, alert_urls
from live.assembly import Equipment
from live.clock import SystemClock
from live.credentials import Credentials, find_credentials, read_environment
from live.executor import BinanceExecutor
from live.instance_lock import InstanceLock
from live.logger import TradeLogger
from live.monitor import HealthMonitor
from live.stop_request import StopRequest
from live.target import Target

FIRST_RETRIES: Final = 1
"""Of the questions asked before anything begins: somebody waits for the answer."""


def http_session() -> requests.Session | None:
    """Return the HTTP session all requests go through; None: a new one."""
    return None


def system_clock() -> SystemClock:
    """Return the clock all times come from."""
    return SystemClock()


@dataclass(frozen=True, kw_only=True)
class Station:
    """Where a session runs.

    Attributes:
        target: the session.
        clock: of all times and waits.
        credentials: empty in a dry run, which never uses any.
        urls: where alerts go.
    """

    target: Target
    clock: SystemClock
    credentials: Credentials
    urls: tuple[str, ...]

    def executor(self, **changes: object) -> BinanceExecutor:
        """Return a way to the exchange; ``changes`` are to the settings."""
        return BinanceExecutor(
            self.target.coin,
            api_key=self.credentials.key,
            api_secret=self.credentials.secret,
            testnet=self.target.on_testnet,
            clock=self.clock,
            session=http_session(),
            settings={**self.target.settings, **changes},
        )


def find_station(target: Target) -> Station:
    """Return the station of a session; nothing is asked or written yet.

    Raises:
        ConfigError: the file ``.env`` or the alert URLs are unusable.
        CredentialsError: there are no keys and they are needed.
    """
    environ = read_environment()
    return Station(
        target=target,
        clock=system_clock(),
        credentials=Credentials() if target.mode == "dry" else find_credentials(environ),
        urls=alert_urls(target.settings, environ),
    )


@contextmanager
def silence() -> Iterator[None]:
    """Keep what is logged before there is a log off the terminal: an error says it all."""
    nothing, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(nothing)
    try:
        yield
    finally:
        root.removeHandler(nothing)


@contextmanager
def equipment_of(station: Station, alerts: AlertSender, level: str) -> Iterator[Equipment]:
    """Yield what a session uses of the process while nobody else trades the coin.

    The log of a session that never began is removed again.

    Args:
        station: where it runs.
        alerts: sends them.
        level: of the console.

    Raises:
        ConfigError: unknown level.
        StateError: another process trades the coin, or a folder cannot be written.
    """
    target, clock = station.target, station.clock
    is_new = not target.log_path.exists()
    with ExitStack() as stack:
        secrets = (station.credentials.key, station.credentials.secret, *station.urls)
        log = TradeLogger(target.symbol, target.log_path.parent, level, secrets=secrets)
        stack.callback(log.close)
        ...
