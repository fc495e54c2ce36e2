"""What a session needs of the machine it runs on: keys, clock, way to the exchange, log, alerts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

import requests

from core.errors import GridError
from live.commands.clock import SystemClock
from live.commands.target import Target
from live.exchange.binance import BinanceExecutor, open_exchange
from live.exchange.credentials import Credentials, find_credentials, read_environment
from live.health.alerts import AlertSender, alert_urls
from live.health.logger import TradeLogger
from live.health.monitor import HealthMonitor
from live.session.assembly import Assembled, Equipment, Plan, assemble_dry, assemble_live
from live.session.stop_request import StopRequest

_LOG: Final = logging.getLogger(__name__)


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
        return open_exchange(
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
    """Keep what is logged before there is a log off the terminal: the error says it all."""
    nothing, root = logging.NullHandler(), logging.getLogger()
    root.addHandler(nothing)
    try:
        yield
    finally:
        root.removeHandler(nothing)


def open_log(station: Station, level: str) -> TradeLogger:
    """Return console and log file of a session.

    Raises:
        ConfigError: unknown level.
        StateError: the file cannot be written.
    """
    secrets = (station.credentials.key, station.credentials.secret, *station.urls)
    return TradeLogger(
        station.target.symbol, station.target.log_path.parent, level, secrets=secrets
    )


def equip(station: Station, stop: StopRequest, log: TradeLogger, alerts: AlertSender) -> Equipment:
    """Return what a session uses of the process; whoever uses it closes its monitor.

    Raises:
        ConfigError: a limit in the settings is of no use.
    """
    target = station.target

    def tell(text: str) -> None:
        _LOG.warning("%s", text)
        alerts.send(f"{target.symbol} {text}")

    monitor = HealthMonitor(
        target.symbol, target.state_folder, target.settings, station.clock, alerts
    )
    return Equipment(clock=station.clock, stop=stop, monitor=monitor, log=log, alert=tell)


def assemble(plan: Plan, station: Station, equipment: Equipment) -> Assembled:
    """Return a session whose state is on the disk: what cannot be written down is not traded.

    A log made for a session that cannot begin is taken away again.

    Raises:
        GridError: the account, the exchange, the state file or the disk refuses.
    """
    path = station.target.log_path
    is_new = path.exists() and path.stat().st_size == 0
    try:
        assembled = _assembled(plan, station, equipment)
        assembled.session.save()
    except GridError:
        if equipment.log is not None:
            equipment.log.close()
        if is_new:
            path.unlink(missing_ok=True)
        raise
    if equipment.log is not None:
        equipment.log.rules = assembled.facts.rules
    return assembled


def _assembled(plan: Plan, station: Station, equipment: Equipment) -> Assembled:
    executor = station.executor()
    if plan.mode == "dry":
        return assemble_dry(plan, executor, equipment)
    return assemble_live(plan, executor, equipment)
