"""A busy hour on the simulated exchange, traded by sessions that are killed in it.

Four bars with entries on both sides, a take-profit, a stop that moves and one that fires, a market
exit, a halt and a funding payment.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from live.simulated.server import SimServer
from tests.support.markets.oracle import BAR_MS
from tests.support.markets.synthetic import RULES, synthetic_candles
from tests.support.processes.forked_sessions import ForkedSessions
from tests.support.processes.live_process import STATE, SYMBOL, Wish, world_of
from tests.support.processes.live_session import Row
from tests.support.processes.tally import note
from tests.support.processes.two_coins import Companion, SharedExchange

SEED: Final = 91
FIRST: Final = 1_190
"""The candle at whose open the hour begins; of 100 seeds the one with all of that in four bars."""
N_BARS: Final = 4
END_MS: Final = 40_000
"""So long after the open of the bar behind it the scene ends; the price still stands."""
CHANGES: Final = {
    "kama_slow": "10",
    "grid_levels": "3",
    "kelly_enabled": "false",
    "atr_sl_mult": "1.0",
    "stop1_enabled": "false",
    "max_position_age_hours": "0.25",
    "prune_cooldown_bars": "0",
    "prune_enabled": "OLDEST",
    "funding_harvest_enabled": "false",
    "funding_bias_enabled": "false",
}
ARGUMENTS: Final = (
    "--preset",
    "documented",
    *(f"--set={name}={value}" for name, value in CHANGES.items()),
)
SETTINGS: Final = {"poll_s": 900.0, "buffer_bars": 100}
GIVE_UP_S: Final = 600.0
"""Of the test's threads for each other, in real time; what a machine never needs."""
Hook = Callable[[int, str, str], None]
EXIT: Final = re.compile(r"-[LS]X\d+$")
"""The end of a market exit's identity without the number of the attempt."""
OrderRow = tuple[str, str, float, float]
"""Kind, position side, price, quantity of an open order; of a stop the position's."""


class Point(NamedTuple):
    """A moment to be killed at."""

    source: str  # request or file
    number: int  # of the request, or of the operation on a file
    when: str  # before, torn or after


class HourExchange(SharedExchange):
    """The exchange of the hour; notes how long positions lie without a stop."""

    def __init__(self, **options: Any) -> None:
        candles = synthetic_candles(1_300, SEED).iloc[: FIRST + N_BARS + 4]
        funding_ms = int(candles["timestamp"].iloc[FIRST + 2])
        super().__init__(
            candles,
            rules=RULES,
            start_bar=FIRST,
            funding=[(funding_ms, 0.0007)],
            still_ms=60_000,
            **options,
        )
        self.start_ms = self.now_ms
        self.unprotected_ms = 0
        self.orders: dict[int, list[OrderRow]] = {}
        """The orders that rested through the last sleep of every bar."""
        self.before_time: Callable[[], None] = lambda: None
        """Called before time goes on: the session sleeps."""

    def run_until(self, ts_ms: int) -> bool:
        """Let time go on."""
        self.before_time()
        before_ms, is_unprotected = self.now_ms, self.is_unprotected
        self.orders[(self.now_ms - self.start_ms) // BAR_MS] = self.resting()
        is_reached = super().run_until(ts_ms)
        self.unprotected_ms += (self.now_ms - before_ms) * is_unprotected
        return is_reached

    def resting(self) -> list[OrderRow]:
        """Return the open orders."""
        limits = [
            ("TAKE_PROFIT" if o.closes else "ENTRY", o.position_side, float(o.price), float(o.rest))
            for o in self.book.open_orders.values()
        ]
        stops = [
            (
                "STOP",
                s.position_side,
                float(s.trigger),
                float(self.account.positions[s.position_side].qty),
            )
            for s in self.book.open_stops.values()
        ]
        return sorted(limits + stops)

    @property
    def is_unprotected(self) -> bool:
        """Whether a side holds something and has no stop."""
        guarded = {stop.position_side for stop in self.book.open_stops.values()}
        held = {side for side, held in self.account.positions.items() if held.qty}
        return bool(held - guarded)


@dataclass
class Outcome:
    """The traces of a scene.

    Attributes:
        positions: by side.
        orders: what rested through the last sleep of every bar.
        intents: every limit and market order the exchange ever took, by identity, side, price and
            quantity. (It takes no second stop for a side; one that was cancelled may come again.)
        csv_rows: of the trade log.
        jsonl_rows: likewise.
        engine: the ledger in the state file.
        beside: trades of the other coin's session on the account.
        unprotected_ms: how long positions lay without a stop.
    """

    positions: Any
    orders: dict[int, list[OrderRow]]
    intents: Counter[tuple[str, ...]]
    csv_rows: list[dict[str, Any]]
    jsonl_rows: list[dict[str, Any]]
    engine: Any
    beside: list[Row]
    unprotected_ms: int = field(compare=False)

    def difference(self, wanted: Outcome) -> str:
        """Return in what it differs from ``wanted``, '' if in nothing."""
        pairs = (
            (item.name, getattr(self, item.name), getattr(wanted, item.name))
            for item in fields(self)
            if item.compare
        )
        return "; ".join(f"{name}: {a} instead of {b}" for name, a, b in pairs if a != b)


def stem(client_id: str) -> str:
    """Return an order's identity without the number of the attempt."""
    return client_id.rpartition("-")[0]


def outcome_of(exchange: HourExchange, folder: Path, beside: Sequence[Row] = ()) -> Outcome:
    """Read what is left at the exchange and on the disk."""
    state = folder / STATE
    taken: Counter[tuple[str, ...]] = Counter(
        (stem(o.client_id), o.side, str(o.price), str(o.qty)) for o in exchange.book.orders.values()
    )
    with (state / f"{SYMBOL}_trades.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = (state / f"{SYMBOL}_trades.jsonl").read_text(encoding="utf-8").splitlines()
    return Outcome(
        positions={side: str(p.qty) for side, p in exchange.account.positions.items()},
        orders=exchange.orders,
        intents=taken,
        csv_rows=[_comparable(row) for row in rows],
        jsonl_rows=[_comparable(json.loads(line)) for line in lines],
        engine=state_of(folder)["engine"],
        beside=list(beside),
        unprotected_ms=exchange.unprotected_ms,
    )


def state_of(folder: Path) -> dict[str, Any]:
    """Return the document in the state file of a session."""
    path = folder / STATE / f"{SYMBOL}_state.json"
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the number of the attempt and the instant the session began at.

    A market exit is executed when it is sent, which after a kill may be a look-up later.
    """
    trade_id = row["trade_id"] if ":" in row["trade_id"] else row["trade_id"].rpartition("-")[2]
    found = row | {"client_id": stem(row["client_id"]), "trade_id": trade_id}
    return found | {"executed_ms": ""} if EXIT.search(found["client_id"]) else found


def hour_wish(
    exchange: HourExchange, port: int, folder: Path, *arguments: str, n_bars: int = N_BARS
) -> Wish:
    """Return what a session is to do that trades ``n_bars`` and the step after them."""
    return Wish(
        port=port,
        folder=str(folder),
        arguments=(*ARGUMENTS, *arguments),
        settings=SETTINGS,
        until_ms=exchange.start_ms + n_bars * BAR_MS + END_MS,
    )


class Hour:
    """One run of the hour in a folder of its own.

    Args:
        folder: emptied first.
        coins: 2: a session of this process trades another coin on the same account.
        options: of the exchange.
    """

    def __init__(
        self, sessions: ForkedSessions, folder: Path, *, coins: int = 1, **options: Any
    ) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.sessions, self.folder, self.exchange = sessions, folder, HourExchange(**options)
        self._pid, self._started = 0, threading.Event()
        self._kills = 0
        self._companion: Companion | None = None
        self._beside: list[Row] = []
        if coins > 1:
            end_ms = self.exchange.start_ms + N_BARS * BAR_MS
            self._companion = Companion(self.exchange, folder / "companion", end_ms)

    def wish(self, port: int, *arguments: str, **changes: Any) -> Wish:
        """Return what a session of the hour is to do."""
        return replace(hour_wish(self.exchange, port, self.folder, *arguments), **changes)

    @contextmanager
    def served(self) -> Iterator[int]:
        """Serve the exchange and yield its port."""
        with SimServer(self.exchange) as server:
            if self._companion is not None:
                self._companion.start()
            yield server.port
            if self._companion is not None:
                self._beside = self._companion.finish()

    def session(self, wish: Wish) -> int:
        """Run a session and return its exit code; hooks may ``send`` it signals."""
        self._started.clear()
        self._pid = self.sessions.start(wish)
        self._started.set()
        code = self.sessions.wait()
        self._kills += code == -signal.SIGKILL
        return code

    def send(self, number: signal.Signals) -> None:
        """Send the running session a signal."""
        self._started.wait(GIVE_UP_S)
        os.kill(self._pid, number)

    def outcome(self) -> Outcome:
        """Read what is left."""
        note(coins=1 if self._companion is None else 2, kills=self._kills)
        return outcome_of(self.exchange, self.folder, self._beside)

    def run(self) -> Outcome:
        """Run without being disturbed."""
        with self.served() as port:
            assert self.session(self.wish(port)) == 0, self.console()
        return self.outcome()

    def run_killed(self, point: Point) -> Outcome:
        """Run, be killed at ``point``, and go on."""
        with self.served() as port:
            wish = self.wish(port)
            if point.source == "file":
                wish = replace(wish, kill_at=(point.number, point.when))
            else:
                setattr(self.exchange, f"{point.when}_request", self.killer(point))
            assert self.session(wish) == -signal.SIGKILL, f"nothing was killed at {point}"
            assert self.session(self.wish(port, "--resume")) == 0, self.console()
        return self.outcome()

    def killer(self, point: Point) -> Hook:
        """Return a hook that kills the session over a request, which is lost if not processed.

        It is the first of the session from the point's number on.
        """
        killed = threading.Event()

        def kill(number: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
            if number >= point.number and not killed.is_set() and not Companion.is_asking():
                killed.set()
                self.send(signal.SIGKILL)
                if point.when == "before":
                    raise ConnectionResetError

        return kill

    def run_late(self, number: int) -> Outcome:
        """Be killed over request ``number``, which arrives when the next session has slept in."""
        slept, done = threading.Event(), threading.Event()

        def before(now: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
            if now == number:
                self.send(signal.SIGKILL)
                slept.wait(GIVE_UP_S)

        def after(now: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
            if now == number:
                done.set()

        def asleep() -> None:
            if not slept.is_set():
                slept.set()
                done.wait(GIVE_UP_S)

        with self.served() as port:
            self.exchange.before_request, self.exchange.after_request = before, after
            assert self.session(self.wish(port)) == -signal.SIGKILL, "nothing was killed"
            self.exchange.before_time = asleep
            assert self.session(self.wish(port, "--resume")) == 0, self.console()
        return self.outcome()

    def console(self) -> str:
        """Return the last words of the sessions."""
        return (self.folder / "console.txt").read_text(encoding="utf-8")[-2_000:]

    def survey(self) -> list[tuple[Point, str, str]]:
        """Run undisturbed; return (point, world, what it is about) of every point, by time."""
        found: list[tuple[int, Point, str, str]] = []
        for when in ("before", "after"):
            setattr(self.exchange, f"{when}_request", self._surveyor(found, when))
        with self.served() as port:
            assert self.session(self.wish(port, is_survey=True)) == 0, self.console()
        lines = (self.folder / "survey.jsonl").read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, lines):
            point = Point("file", row["n"], row["when"])
            found.append((row["time"], point, row["world"], f"{row['call']} {row['file']}"))
        return [(point, world, about) for _, point, world, about in sorted(found)]

    def _surveyor(self, found: list[tuple[int, Point, str, str]], when: str) -> Hook:
        def note(number: int, method: str, path: str) -> None:
            if Companion.is_asking():
                return
            world = world_of(self.exchange.dump(), self.folder)
            point = Point("request", number, when)
            found.append((time.monotonic_ns(), point, world, f"{method} {path}"))

        return note
