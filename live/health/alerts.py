"""When a person is alerted, and how it reaches them: limits, conditions, apprise.

Conditions are reported when they begin and when they end; apprise carries the texts to a phone or a
mailbox, and trading never waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import queue
import re
import threading
import time
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any, Final, Protocol

from core.errors import ConfigError

URLS_VARIABLE: Final = "GRID_ALERT_URLS"
SECOND_URLS_VARIABLE: Final = "GRID_ALERT_URLS_SECOND"
CAPACITY: Final = 100
"""Alerts that wait at most; further ones are dropped and logged."""
REPEAT_MS: Final = 15 * 60_000
"""An emergency that lasts is reported again after this."""
ALARM_REPEAT_MS: Final = 60_000
"""A side without a stop is reported again after this, at the level of an emergency."""
_LOG: Final = logging.getLogger(__name__)
_BETWEEN_URLS: Final = re.compile(r"[\s,]+(?=[A-Za-z0-9]+://)")
"""A comma within a URL separates its targets."""


class Verdict(IntEnum):
    """The runner's next action, by rising urgency."""

    OK = 0
    WARN = 1
    """Go on; a person should look."""
    ALARM = 2
    """Go on; a person must look at once."""
    SHUTDOWN = 3
    """Stop safely: cancel entries and take-profits, leave positions with their stops."""
    EMERGENCY = 4
    """Close everything and stop."""

    @property
    def word(self) -> str:
        """The word a person reads: an alarm is an emergency, whatever the runner does."""
        return "EMERGENCY" if self is Verdict.ALARM else self.name

    @property
    def repeat_ms(self) -> float:
        """After how long a condition that lasts is reported again, ms."""
        times = {Verdict.ALARM: ALARM_REPEAT_MS, Verdict.EMERGENCY: REPEAT_MS}
        return times.get(self, math.inf)


@dataclass(frozen=True, slots=True)
class Condition:
    """Something that is not as it should be."""

    name: str
    verdict: Verdict
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthLimits:
    """The limits of ``LIVE_CONFIG``; each must be positive."""

    heartbeat_max_s: float
    position_sync_tolerance_pct: float
    equity_warn_pct: float
    equity_emergency_pct: float
    max_errors_in_row: float
    clock_warn_ms: float
    candle_max_age_s: float
    max_weight_share: float
    max_outage_h: float

    @classmethod
    def from_settings(cls, settings: Mapping[str, Any]) -> HealthLimits:
        """Return the limits in ``settings``, which may hold other keys too.

        Raises:
            ConfigError: one is missing or not a positive number, or the equity limits are in the
                wrong order.
        """
        values: dict[str, Any] = {item.name: settings.get(item.name) for item in fields(cls)}
        for name, value in values.items():
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (is_number and 0.0 < value < math.inf):
                raise ConfigError(f"{name} = {value!r} must be a positive number")
        limits = cls(**values)
        if limits.equity_warn_pct > limits.equity_emergency_pct:
            raise ConfigError(
                f"equity_warn_pct = {limits.equity_warn_pct} must be <= equity_emergency_pct = "
                f"{limits.equity_emergency_pct}"
            )
        return limits


class StandingConditions:
    """Which conditions stand, so that each is reported when it begins and when it ends."""

    def __init__(self) -> None:
        self._reported: dict[str, int] = {}

    @property
    def names(self) -> frozenset[str]:
        """The conditions that stood at the last update."""
        return frozenset(self._reported)

    def update(
        self, conditions: Iterable[Condition], now_ms: int
    ) -> tuple[list[Condition], list[str]]:
        """Return the conditions to report now and the names of those that ended.

        Those are what began, and what lasts for longer than its verdict's ``repeat_ms``.
        """
        standing = {condition.name: condition for condition in conditions}
        ended = sorted(self._reported.keys() - standing.keys())
        begun = [
            condition
            for name, condition in standing.items()
            if name not in self._reported
            or now_ms - self._reported[name] >= condition.verdict.repeat_ms
        ]
        for name in ended:
            del self._reported[name]
        self._reported |= {condition.name: now_ms for condition in begun}
        return begun, ended


class Alerts(Protocol):
    """Where a person is alerted; must not wait."""

    def send(self, text: str) -> None:
        """Send ``text``."""
        ...


def alert_urls(
    settings: Mapping[str, Any], environ: Mapping[str, str] = os.environ
) -> tuple[str, ...]:
    """Return the URLs of ``settings['alert_urls']`` and of GRID_ALERT_URLS, each once.

    Raises:
        ConfigError: ``alert_urls`` is not a list of texts.
    """
    configured = settings.get("alert_urls", ())
    if isinstance(configured, str):
        configured = _split(configured)
    if not isinstance(configured, list | tuple) or not all(isinstance(u, str) for u in configured):
        raise ConfigError("alert_urls must be a list of texts such as 'tgram://bottoken/ChatID'")
    return tuple(dict.fromkeys([*configured, *_split(environ.get(URLS_VARIABLE, ""))]))


def second_urls(environ: Mapping[str, str] = os.environ) -> tuple[str, ...]:
    """Return the URLs of GRID_ALERT_URLS_SECOND: where emergencies go that nobody acknowledges."""
    return tuple(dict.fromkeys(_split(environ.get(SECOND_URLS_VARIABLE, ""))))


def _split(text: str) -> list[str]:
    return [url for url in _BETWEEN_URLS.split(text.strip(" \t\r\n,")) if url]


class AlertSender:
    """Sends texts to every URL, from a thread of its own, in their order.

    Without URLs it does nothing and has no thread. A failure is logged with the kind of service
    only: the rest of a URL is secret, and so is what apprise and the service say about it.

    Args:
        urls: apprise's, see ``alert_urls``.
        title: of every alert.

    Raises:
        ConfigError: apprise does not understand a URL.
    """

    def __init__(self, urls: Sequence[str], title: str) -> None:
        self._title = title
        self._queue: queue.Queue[str | None] = queue.Queue(CAPACITY)
        self._services = [_service(url, place) for place, url in enumerate(urls, start=1)]
        self._thread: threading.Thread | None = None
        if self._services:
            self._thread = threading.Thread(target=self._work, name="alerts", daemon=True)
            self._thread.start()

    def send(self, text: str) -> None:
        """Put ``text`` in the queue and return at once."""
        if self._thread is None:
            return
        try:
            self._queue.put_nowait(text)
        except queue.Full:
            _LOG.warning("an alert is dropped, %d are waiting to be sent: %s", CAPACITY, text)

    def close(self, timeout: float = 10.0) -> bool:
        """Send what waits, for ``timeout`` seconds at most; return whether all of it went out."""
        if self._thread is None:
            return True
        thread, self._thread = self._thread, None
        deadline = time.monotonic() + timeout
        try:
            self._queue.put(None, timeout=timeout)
            thread.join(max(0.0, deadline - time.monotonic()))
        except queue.Full:
            pass  # the thread is stuck: reported below
        if not thread.is_alive():
            return True
        dropped = self._drop_waiting()
        self._queue.put_nowait(None)  # whenever it comes loose, the thread ends
        _LOG.warning("alerts hang: after %g seconds %d are dropped", timeout, dropped)
        return False

    def _drop_waiting(self) -> int:
        dropped = 0
        with contextlib.suppress(queue.Empty):
            while True:
                dropped += self._queue.get_nowait() is not None
        return dropped

    def _work(self) -> None:
        while (text := self._queue.get()) is not None:
            for kind, service in self._services:
                try:
                    sent = service.notify(body=text, title=self._title)
                except Exception as error:  # noqa: BLE001 - the thread's outermost edge
                    _LOG.warning("an alert to %s failed: %s", kind, type(error).__name__)
                else:
                    if not sent:
                        _LOG.warning("an alert to %s was not delivered", kind)


def _service(url: str, place: int) -> tuple[str, Any]:
    """Return the kind of service behind ``url`` and apprise's face on it.

    Raises:
        ConfigError: apprise does not understand it.
    """
    import apprise  # noqa: PLC0415 - slow to import, and only wanted with URLs

    # Its messages quote URLs, and with them their tokens.
    logging.getLogger("apprise").setLevel(logging.CRITICAL + 1)
    kind = f"{url.partition('://')[0]}://..." if "://" in url else "..."
    service = apprise.Apprise()
    with warnings.catch_warnings():
        # Loading its services imports a module that Python has deprecated.
        warnings.simplefilter("ignore", DeprecationWarning)
        understood = service.add(url)
    if not understood:
        raise ConfigError(
            f"alert URL {place} ({kind}) is not one apprise understands; must be like "
            "tgram://bottoken/ChatID"
        )
    return kind, service
