"""Health of a session: what is judged, what is reported, what the runner must do."""

from __future__ import annotations

import json
import logging
import math
import os
import threading
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from core.errors import GridError, RateLimitError, StateError
from core.text import money, number
from core.times import utc_text
from live.exchange.port import Clock
from live.exchange.types import Usage
from live.health.account_loss import account_limit, judge_account
from live.health.alerts import Alerts, Condition, HealthLimits, StandingConditions, Verdict
from live.health.escalation import Escalation
from live.health.logger import session_logger
from live.health.step_watch import Standstill, StepWatch
from live.store.durable_file import plain_symbol, write_atomically

WEIGHT_LIMIT: Final = 2_400
"""Request weight the exchange allows in a minute."""
RELEASE: Final = 0.9
"""Share of its limit under which a condition ends, so that it does not begin again at once."""
LOT_SLACK: Final = 1e-9
OUTAGE_TOLD_S: Final = 30.0
"""An outage that is over sooner is not reported."""
OUTAGE_LOG_MS: Final = 60_000
"""Between two log lines about an outage that lasts."""
_JOIN_S: Final = 5.0


@dataclass(slots=True, kw_only=True)
class Readings:
    """The last report of the session; None: nothing yet."""

    started_ms: int
    last_step_ms: int | None = None
    last_bar: int | None = None
    candle_close_ms: int | None = None
    candle_due_ms: int | None = None  # when the next one closes
    equity: float | None = None
    start_equity: float | None = None
    peak_equity: float | None = None
    errors_in_row: int = 0
    errors: int = 0
    weight_1m: int = 0
    clock_offset_ms: int = 0
    out_of_sync: dict[str, str] = field(default_factory=dict)  # by side
    unprotected: dict[str, str] = field(default_factory=dict)  # by side that should have a stop
    outage_since_ms: int | None = None  # when the exchange ceased to answer as it should
    defect: str = ""
    is_file_stale: bool = False

    def note_equity(self, equity: float) -> None:
        """Take in the equity, quote; the first is the start, the highest the peak."""
        self.equity = equity = float(equity)
        if math.isfinite(equity):
            self.start_equity = equity if self.start_equity is None else self.start_equity
            self.peak_equity = max(equity, self.peak_equity or equity, self.start_equity)

    def loss_pct(self, basis: float | None) -> float:
        """Return the loss of equity against ``basis``, percent; NaN where either is unknown."""
        if basis is None or self.equity is None or basis <= 0.0:
            return math.nan
        return 100.0 * (basis - self.equity) / basis

    def candle_age_s(self, now_ms: int) -> float:
        """Return the seconds since the newest closed candle closed; NaN before the first."""
        return math.nan if self.candle_close_ms is None else (now_ms - self.candle_close_ms) / 1e3

    def candle_late_s(self, now_ms: int) -> float:
        """Return for how many seconds the next candle has been due; NaN before the first."""
        return math.nan if self.candle_due_ms is None else (now_ms - self.candle_due_ms) / 1e3


@dataclass(frozen=True, slots=True)
class StepInfo:
    """A step that has ended.

    Attributes:
        bar: its index.
        candle_close_ms: close of the newest candle it read, ms UTC.
        bar_ms: until the next one closes.
        equity: after it, quote.
    """

    bar: int
    candle_close_ms: int
    equity: float
    bar_ms: int


def find_mismatches(
    ledger: Mapping[str, float], exchange: Mapping[str, float], *, tolerance_pct: float, lot: float
) -> list[str]:
    """Return the sides whose quantities differ by more than the tolerance, or are not numbers.

    Args:
        ledger: quantity by LONG and SHORT, base.
        exchange: likewise.
        tolerance_pct: of the larger of the two.
        lot: base, tolerated in any case.
    """
    found = []
    for side in ("LONG", "SHORT"):
        ours, theirs = ledger[side], exchange[side]
        tolerated = max(tolerance_pct / 100.0 * max(ours, theirs), lot) * (1.0 + LOT_SLACK)
        if not abs(ours - theirs) <= tolerated:
            found.append(side)
    return found


def judge(
    readings: Readings, limits: HealthLimits, now_ms: int, active: Collection[str]
) -> list[Condition]:
    """Return what is not as it should be.

    Args:
        readings: what the session reported.
        limits: what is allowed.
        now_ms: ms UTC.
        active: names of the conditions that stood before; these end later than they began, and
            an equity emergency does not end by itself.
    """
    silent_s = (now_ms - (readings.last_step_ms or readings.started_ms)) / 1e3
    age_s = readings.candle_age_s(now_ms)
    offset, weight = abs(readings.clock_offset_ms), readings.weight_1m
    measured = (
        ("heartbeat", silent_s, limits.heartbeat_max_s, f"no step has ended for {silent_s:.0f} s"),
        (
            "candles",
            readings.candle_late_s(now_ms),
            limits.candle_max_age_s,
            f"the newest closed candle closed {age_s:.0f} s ago",
        ),
        (
            "clock",
            offset,
            limits.clock_warn_ms,
            f"our clock is off by {readings.clock_offset_ms:+d} ms",
        ),
        (
            "weight",
            weight,
            limits.max_weight_share * WEIGHT_LIMIT,
            f"request weight {weight} of {WEIGHT_LIMIT} in a minute",
        ),
    )
    conditions = [
        Condition(name, Verdict.WARN, text)
        for name, value, limit, text in measured
        if value > limit * (RELEASE if name in active else 1.0)
    ]
    conditions += [
        Condition(f"{side} position", Verdict.WARN, text)
        for side, text in readings.out_of_sync.items()
    ]
    conditions += [
        Condition(f"{side} stop", Verdict.ALARM, text)
        for side, text in readings.unprotected.items()
    ]
    conditions += _judge_outage(readings, limits, now_ms)
    if readings.defect:
        conditions.append(Condition("defect", Verdict.SHUTDOWN, readings.defect))
    if readings.is_file_stale:
        conditions.append(Condition("health file", Verdict.WARN, "it cannot be written"))
    if readings.errors_in_row > limits.max_errors_in_row:
        text = f"{readings.errors_in_row} errors in a row"
        conditions.append(Condition("errors", Verdict.SHUTDOWN, text))
    return conditions + _judge_equity(readings, limits, active)


def _judge_outage(readings: Readings, limits: HealthLimits, now_ms: int) -> list[Condition]:
    """Return the condition of an exchange that does not answer, once that lasts."""
    if readings.outage_since_ms is None:
        return []
    lasts_s = (now_ms - readings.outage_since_ms) / 1e3
    if lasts_s < OUTAGE_TOLD_S:
        return []
    text = (
        f"the exchange does not answer as it should since {utc_text(readings.outage_since_ms)}: "
        "entries are off, stops stay; it goes on by itself when that is over"
    )
    if lasts_s > 3_600.0 * limits.max_outage_h:
        text = f"the exchange has not answered for {lasts_s / 3_600.0:.1f} h: the session ends"
        return [Condition("outage too long", Verdict.SHUTDOWN, text)]
    return [Condition("outage", Verdict.WARN, text)]


def _judge_equity(
    readings: Readings, limits: HealthLimits, active: Collection[str]
) -> list[Condition]:
    """Return the conditions of equity; an emergency stands beside the warning, not for it."""
    equity = math.nan if readings.equity is None else readings.equity
    from_start = readings.loss_pct(readings.start_equity)
    from_peak = readings.loss_pct(readings.peak_equity)
    worst = 100.0 if equity <= 0.0 else max(from_start, from_peak)
    text = (
        f"equity {money(equity)} is {number(from_start, 1)} % under its start, "
        f"{number(from_peak, 1)} % under its peak"
    )
    found = []
    is_unknown = readings.equity is not None and not math.isfinite(equity)
    if is_unknown or worst >= limits.equity_warn_pct * (RELEASE if "equity" in active else 1.0):
        found.append(Condition("equity", Verdict.WARN, text))
    if "emergency" in active or worst >= limits.equity_emergency_pct:
        found.append(Condition("emergency", Verdict.EMERGENCY, text))
    return found


class HealthMonitor:
    """Takes in how the session fares, alerts a person once, and answers what to do.

    Its file ``{SYMBOL}_health.json`` is for other programs: one whose ``updated_at`` stands still
    belongs to a session that hangs or was killed. May be used from several threads.

    Args:
        symbol: such as BTCUSDT or BTC/USDT.
        folder: of the file; made if there is none.
        settings: ``LIVE_CONFIG``.
        clock: of all ages.
        alerts: to a person.

    Raises:
        ConfigError: a limit in ``settings`` is of no use.
    """

    def __init__(
        self, symbol: str, folder: Path, settings: Mapping[str, Any], clock: Clock, alerts: Alerts
    ) -> None:
        self._symbol = plain_symbol(symbol)
        self.path = folder / f"{self._symbol}_health.json"
        self._limits = HealthLimits.from_settings(settings)
        self._account_limit_pct = account_limit(settings)
        self._escalation: Escalation | None = None
        self._clock, self._alerts, self._log = clock, alerts, session_logger(symbol)
        self._readings = Readings(started_ms=clock.now_ms())
        self._standing = StandingConditions()
        self._verdict, self._conditions = Verdict.OK, list[Condition]()
        self._lock, self._stop = threading.RLock(), threading.Event()
        self._watch: threading.Thread | None = None
        self._step_watch: StepWatch | None = None
        self._standstill: Standstill | None = None
        self._outage_logged_ms = 0

    def beat(self, step: StepInfo) -> None:
        """Take in that a step has ended."""
        with self._lock:
            self._readings.last_step_ms = self._clock.now_ms()
            self._readings.last_bar = int(step.bar)  # JSON knows no numpy numbers
            self._readings.candle_close_ms = int(step.candle_close_ms)
            self._readings.candle_due_ms = int(step.candle_close_ms + step.bar_ms)
            self._readings.note_equity(step.equity)

    def note_equity(self, equity: float) -> None:
        """Take in the equity between steps, quote."""
        with self._lock:
            self._readings.note_equity(equity)

    def note_usage(self, usage: Usage) -> None:
        """Take in what the exchange's replies say about limits and clock."""
        with self._lock:
            self._readings.weight_1m = int(usage.weight_1m)
            self._readings.clock_offset_ms = int(usage.clock_offset_ms)

    def check_positions(
        self, ledger: Mapping[str, float], exchange: Mapping[str, float], lot: float
    ) -> list[str]:
        """Return the sides on which ledger and exchange differ; see ``find_mismatches``."""
        found = find_mismatches(
            ledger, exchange, tolerance_pct=self._limits.position_sync_tolerance_pct, lot=lot
        )
        with self._lock:
            self._readings.out_of_sync = {
                side: f"ledger {ledger[side]:g}, exchange {exchange[side]:g}" for side in found
            }
        return found

    def note_unprotected(self, sides: Mapping[str, str]) -> None:
        """Take in which sides should have a stop at the exchange and have none, with a text."""
        with self._lock:
            self._readings.unprotected = dict(sides)

    def note_defect(self, error: Exception) -> None:
        """Take in that the program itself is wrong: a person is alerted at once."""
        text = f"{type(error).__name__}: {error}; a defect of the program: the session ends"
        with self._lock:
            self._readings.defect = text
        self._log.critical("%s", text, exc_info=error)
        self.check()

    def error(self, error: BaseException) -> None:
        """Take in that something went wrong; too many in a row end the session."""
        with self._lock:
            self._readings.errors += 1
            self._readings.errors_in_row += 1
            count = self._readings.errors_in_row
        trace = None if isinstance(error, GridError) else error  # expected ones say it all
        self._log.error(
            "error %d in a row: %s: %s", count, type(error).__name__, error, exc_info=trace
        )

    def outage(self, error: BaseException) -> None:
        """Take in that the exchange did not answer; that ends a session by its length only.

        A wait that the exchange demands is its rule, known and limited: it counts as no error.
        """
        is_demanded = isinstance(error, RateLimitError) and error.retry_after > 0.0
        with self._lock:
            now_ms, readings = self._clock.now_ms(), self._readings
            readings.errors += not is_demanded
            began = readings.outage_since_ms is None
            if readings.outage_since_ms is None:
                readings.outage_since_ms = now_ms
            is_quiet = 0 <= now_ms - self._outage_logged_ms < OUTAGE_LOG_MS and not began
            if not is_quiet:
                self._outage_logged_ms = now_ms
        if not is_quiet:
            self._log.warning("no answer as it should be: %s: %s", type(error).__name__, error)

    def outage_s(self) -> float:
        """Return for how long the exchange has not answered as it should, 0: it does."""
        with self._lock:
            since_ms = self._readings.outage_since_ms
            return 0.0 if since_ms is None else max(0.0, (self._clock.now_ms() - since_ms) / 1e3)

    def ok(self) -> None:
        """Take in that things went well: the row of errors and an outage end."""
        with self._lock:
            self._readings.errors_in_row = 0
            self._readings.outage_since_ms = None

    def restore_equity(self, start: float, peak: float) -> None:
        """Measure losses against an earlier start and peak, quote; 0 where there was none."""
        with self._lock:
            self._readings.start_equity = start if start > 0.0 else None
            self._readings.peak_equity = peak if peak > 0.0 else None

    def check(self) -> Verdict:
        """Judge, report what began and what ended, write the file; return what to do."""
        if self._step_watch is not None:
            self._step_watch.note()  # of no account from the monitor's own thread
        with self._lock:
            now_ms, active = self._clock.now_ms(), self._standing.names
            self._conditions = judge(self._readings, self._limits, now_ms, active)
            self._standstill = None if self._step_watch is None else self._step_watch.standstill()
            self._conditions += judge_account(
                self.path,
                self._readings.start_equity,
                self._readings.equity,
                self._account_limit_pct,
                now_ms,
            )
            if self._standstill is not None:
                self._conditions.append(Condition("hang", Verdict.WARN, self._standstill.text))
            self._verdict = max((c.verdict for c in self._conditions), default=Verdict.OK)
            self._report(now_ms)
            if self._escalation is not None:
                self._escalation.check(now_ms)
            self._write(now_ms)
            return self._verdict

    def _report(self, now_ms: int) -> None:
        begun, ended = self._standing.update(self._conditions, now_ms)
        for condition in begun:
            level = logging.WARNING if condition.verdict is Verdict.WARN else logging.CRITICAL
            self._log.log(level, "%s: %s", condition.name, condition.text)
            text = f"{condition.verdict.word} {condition.name}: {condition.text}"
            self._alerts.send(f"{self._symbol} {text}")
            if condition.verdict is Verdict.EMERGENCY and self._escalation is not None:
                self._escalation.begin(f"{self._symbol} {text}", now_ms)
        for name in ended:
            self._log.info("%s: in order again", name)
            self._alerts.send(f"{self._symbol} OK {name}: in order again")

    def _status(self) -> str:
        if self._stop.is_set():
            return "STOPPED"
        return "WARN" if self._verdict is Verdict.SHUTDOWN else self._verdict.word

    def _write(self, now_ms: int) -> None:
        """Write the file; where that fails trading goes on, and it counts as one error."""
        readings = self._readings
        standing_ms = 0 if self._standstill is None else round(1e3 * self._standstill.seconds)
        document = {
            "status": self._status(),
            "verdict": self._verdict.word,
            "conditions": {c.name: c.text for c in self._conditions},
            "symbol": self._symbol,
            **asdict(readings),
            "drawdown_from_start_pct": readings.loss_pct(readings.start_equity),
            "drawdown_from_peak_pct": readings.loss_pct(readings.peak_equity),
            "candle_age_s": readings.candle_age_s(now_ms),
            "pid": os.getpid(),
            "updated_at": now_ms - standing_ms,
        }
        finite = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in document.items()
        }
        try:
            write_atomically(self.path, (json.dumps(finite, indent=2) + "\n").encode())
        except StateError as error:
            if not readings.is_file_stale:
                self.error(error)
            readings.is_file_stale = True
        else:
            readings.is_file_stale = False

    def status_line(self) -> str:
        """Return the state of health in one line."""
        with self._lock:
            readings, age_s = self._readings, self._readings.candle_age_s(self._clock.now_ms())
            step = "none" if readings.last_step_ms is None else utc_text(readings.last_step_ms)
            equity = math.nan if readings.equity is None else readings.equity
            loss_pct = readings.loss_pct(readings.peak_equity)
            return (
                f"{self._status()} | last step {step} | equity {money(equity)} | "
                f"{number(loss_pct, 1)} % under peak | errors {readings.errors_in_row} | "
                f"weight {readings.weight_1m}/{WEIGHT_LIMIT} | "
                f"clock {readings.clock_offset_ms:+d} ms | candle {number(age_s, 0)} s"
            )

    def escalate_to(self, escalation: Escalation) -> None:
        """Send emergencies nobody acknowledges there."""
        self._escalation = escalation

    def attach(self, step_watch: StepWatch) -> None:
        """Take in what watches the thread that trades."""
        self._step_watch = step_watch

    def watch(self, every_s: float = 30.0) -> None:
        """Check from a thread of its own too, so that a session that hangs is noticed.

        Args:
            every_s: seconds between checks; with a step watch no longer than a poll.
        """
        if self._step_watch is not None:
            self._step_watch.note()
            every_s = min(every_s, self._step_watch.poll_s)
        self._watch = threading.Thread(
            target=self._watch_until_stopped, args=(every_s,), name="health", daemon=True
        )
        self._watch.start()

    def _watch_until_stopped(self, every_s: float) -> None:
        while not self._stop.wait(every_s):
            self.check()

    def close(self) -> None:
        """End the thread and leave a file that says STOPPED."""
        self._stop.set()
        if self._watch is not None:
            self._watch.join(_JOIN_S)
        with self._lock:
            if self._escalation is not None:
                self._escalation.check(self._clock.now_ms(), at_the_end=True)
            self._write(self._clock.now_ms())
