"""The process of a session: keys, clock, way to the exchange, log, alerts."""

from __future__ import annotations

import contextlib
import logging
import queue
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import requests

from core.errors import GridError, StateError
from core.processes import forbid_memory_dumps
from live.commands.target import Target
from live.exchange.binance import BinanceExecutor, open_exchange
from live.exchange.credentials import Credentials, find_credentials, read_environment
from live.health.alerts import AlertSender, alert_urls, second_urls
from live.health.events import Events, Notice, StateSaved
from live.health.logger import TradeLogger, session_logger
from live.health.monitor import HealthMonitor
from live.health.step_watch import StepWatch
from live.session.assembly import Assembled, Equipment, Plan, assemble_dry, assemble_live
from live.session.shutdown import StopRequest
from live.store.control_log import ControlLog


class SystemClock:
    """UTC time of this machine; a wait can be cut short, also out of a signal handler."""

    def __init__(self) -> None:
        # Not a threading.Event: one that a signal handler sets while the same thread begins to
        # wait for it never wakes, as its lock is not reentrant. SimpleQueue.put is.
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.is_asleep = False
        """Whether somebody waits by the clock; for a watchdog in another thread."""

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return time.time_ns() // 1_000_000

    def sleep(self, seconds: float) -> None:
        """Wait; ``wake`` ends it early."""
        if seconds > 0.0:
            self.is_asleep = True
            try:
                with contextlib.suppress(queue.Empty):
                    self._wakes.get(timeout=seconds)
            finally:
                self.is_asleep = False

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._wakes.put(None)


def http_session() -> requests.Session | None:
    """Return the HTTP session all requests go through; None: a new one."""
    return None


def system_clock() -> SystemClock:
    """Return the clock all times come from."""
    return SystemClock()


@dataclass(frozen=True, kw_only=True)
class Process:
    """Where a session runs.

    Attributes:
        target: the session.
        clock: of all times and waits.
        credentials: empty in a dry run, which never uses any.
        urls: where alerts go.
        second_urls: where emergencies go that nobody acknowledges.
        bar_ms: length of the candles its strategy reads.
    """

    target: Target
    clock: SystemClock
    credentials: Credentials
    bar_ms: int
    urls: tuple[str, ...]
    second_urls: tuple[str, ...] = ()
    _exchanges: list[BinanceExecutor] = field(default_factory=list, repr=False)

    def wake(self) -> None:
        """End the wait or the request under way, as the program is to end; for signal handlers."""
        self.clock.wake()
        for exchange in self._exchanges:
            exchange.leave()

    def executor(self, **changes: object) -> BinanceExecutor:
        """Return a way to the exchange; ``changes`` are to the settings."""
        exchange = open_exchange(
            self.target.coin,
            api_key=self.credentials.key,
            api_secret=self.credentials.secret,
            testnet=self.target.on_testnet,
            clock=self.clock,
            session=http_session(),
            settings={**self.target.settings, **changes},
            bar_ms=self.bar_ms,
        )
        self._exchanges.append(exchange)
        return exchange


def find_process(target: Target, bar_ms: int) -> Process:
    """Return the process of a session; nothing is asked or written yet.

    Args:
        target: the session.
        bar_ms: length of the candles its strategy reads.

    Raises:
        ConfigError: the file ``.env`` or the alert URLs are unusable.
        CredentialsError: there are no keys and they are needed.
    """
    forbid_memory_dumps()  # before there is a key to be read in it
    environ = read_environment()
    return Process(
        target=target,
        clock=system_clock(),
        credentials=Credentials() if target.mode == "dry" else find_credentials(environ),
        urls=alert_urls(target.settings, environ),
        second_urls=second_urls(environ),
        bar_ms=bar_ms,
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


def open_log(process: Process, level: str) -> TradeLogger:
    """Return console and log file of a session.

    Raises:
        ConfigError: unknown level.
        StateError: the file cannot be written.
    """
    secrets = (
        process.credentials.key,
        process.credentials.secret,
        *process.urls,
        *process.second_urls,
    )
    return TradeLogger(
        process.target.symbol, process.target.log_path.parent, level, secrets=secrets
    )


def equip(process: Process, stop: StopRequest, log: TradeLogger, alerts: AlertSender) -> Equipment:
    """Return what a session uses of the process; whoever uses it closes its monitor.

    Raises:
        ConfigError: a limit in the settings is of no use.
    """
    target = process.target

    monitor = HealthMonitor(
        target.symbol, target.state_folder, target.settings, process.clock, alerts
    )
    events = Events()
    log.listen(events)
    events.subscribe(Notice, lambda notice: alerts.send(f"{target.symbol} {notice.text}"))
    return Equipment(clock=process.clock, stop=stop, monitor=monitor, events=events)


def assemble(plan: Plan, process: Process, equipment: Equipment, log: TradeLogger) -> Assembled:
    """Return a session whose state is on the disk: what cannot be written down is not traded.

    A log made for a session that cannot begin is taken away again.

    Raises:
        GridError: the account, the exchange, the state file or the disk refuses.
    """
    path = process.target.log_path
    is_new = path.exists() and path.stat().st_size == 0
    try:
        assembled = _assembled(plan, process, equipment)
        assembled.session.save()
    except GridError:
        log.close()
        if is_new:
            path.unlink(missing_ok=True)
        raise
    log.rules = assembled.facts.rules
    return assembled


def _assembled(plan: Plan, process: Process, equipment: Equipment) -> Assembled:
    executor = process.executor()
    _watch_over(executor, process, equipment)
    if plan.mode == "dry":
        return assemble_dry(plan, executor, equipment)
    return assemble_live(plan, executor, equipment)


def _watch_over(executor: BinanceExecutor, process: Process, equipment: Equipment) -> None:
    """Let the monitor see whether the session does anything."""
    watch = StepWatch(
        float(process.target.settings["poll_s"]),
        lambda: executor.in_flight,
        lambda: getattr(process.clock, "is_asleep", False),
    )
    equipment.events.subscribe(StateSaved, lambda _: watch.note())
    equipment.monitor.attach(watch)


def note_control(process: Process, alerts: AlertSender, event: str, **facts: Any) -> None:
    """Write an event into the control log; where it fails trading goes on and a person hears."""
    target = process.target
    try:
        ControlLog(target.symbol, target.state_folder).append(
            event, process.clock.now_ms(), **facts
        )
    except StateError as error:
        session_logger(target.symbol).warning("the control log does not take it: %s", error)
        alerts.send(f"{target.symbol} the control log does not take it: {error}")
