"""A live session killed anywhere in a busy hour ends it as one that was not killed.

A process that is killed leaves two things: the account at the exchange and its files. Between two
changes of these all moments are the same experiment, so every request (before it is processed,
and after that but before the reply) and every operation on a file (before, after) is sorted by
the world around it, and each world is tried once.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import pytest

from config import PRESETS
from tests.live_process import SYMBOL, Nursery, Wish, world_of
from tests.oracle import BAR_MS
from tests.sim_exchange import SimExchange, SimServer
from tests.synthetic import RULES, synthetic_candles

SEED: Final = 91
FIRST: Final = 1_190
"""The candle at whose open the hour begins: found by trying 60 seeds for one with all of it."""
N_STEPS: Final = 4
POLL_S: Final = 5.0
"""How long a position may be without its stop."""
CONFIG: Final = {
    **PRESETS["documented"], "kama_slow": 10, "grid_levels": 3, "kelly_enabled": False,
    "atr_sl_mult": 1.0, "stop1_enabled": False, "max_position_age_hours": 0.25,
    "prune_cooldown_bars": 0, "prune_enabled": ("OLDEST",), "funding_harvest_enabled": False,
    "funding_bias_enabled": False,
}  # fmt: skip


class Point(NamedTuple):
    """A moment to be killed at: number and phase of a request or a file operation."""

    source: str
    number: int
    when: str


class Exchange(SimExchange):
    """The exchange in the hour, which notes how long positions lie without a stop."""

    def __init__(self, **options: Any) -> None:
        candles = synthetic_candles(1_300, SEED).iloc[: FIRST + N_STEPS + 3]
        funding_ms = int(candles["timestamp"].iloc[FIRST + 2])
        super().__init__(
            candles, rules=RULES, start_bar=FIRST, funding=[(funding_ms, 0.0007)], still_ms=60_000,
            **options,
        )  # fmt: skip
        self.bare_ms = 0

    def run_until(self, ts_ms: int) -> bool:
        """Let time go on, as the session sleeps."""
        before_ms, is_bare = self.now_ms, self.is_bare
        is_reached = super().run_until(ts_ms)
        self.bare_ms += (self.now_ms - before_ms) * is_bare
        return is_reached

    @property
    def is_bare(self) -> bool:
        """Whether a side holds something and has no stop."""
        guarded = {stop.direction for stop in self.book.open_stops.values()}
        held = {side for side, held in self.account.positions.items() if held.qty}
        return bool(held - guarded)


def stem(client_id: str) -> str:
    """Return an order's identity without the number of the attempt."""
    return client_id.rpartition("-")[0]


@dataclass
class Outcome:
    """What is left of the hour.

    Attributes:
        positions: by side.
        orders: open ones: kind, side, direction, price, quantity.
        intents: every order the exchange ever took, by identity, price and quantity.
        csv_rows: of the trade log.
        jsonl_rows: likewise.
        engine: the ledger in the state file.
        bare_ms: how long positions lay without a stop, ms.
    """

    positions: Any
    orders: list[tuple[str, ...]]
    intents: Counter[tuple[str, ...]]
    csv_rows: list[dict[str, Any]]
    jsonl_rows: list[dict[str, Any]]
    engine: Any
    bare_ms: int = field(compare=False)


def outcome_of(exchange: Exchange, folder: Path) -> Outcome:
    """Read what is left at the exchange and on the disk."""
    book, state = exchange.book, folder / "state"
    limits = [
        (o.kind, o.side, o.direction, str(o.price), str(o.rest)) for o in book.open_orders.values()
    ]
    stops = [(s.direction, str(s.trigger)) for s in book.open_stops.values()]
    taken = [(stem(o.client_id), o.side, str(o.price), str(o.qty)) for o in book.orders.values()]
    taken += [(stem(s.client_id), s.side, str(s.trigger)) for s in book.stops.values()]
    with (state / f"{SYMBOL}_trades.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    lines = (state / f"{SYMBOL}_trades.jsonl").read_text(encoding="utf-8").splitlines()
    document = json.loads((state / f"{SYMBOL}_state.json").read_text(encoding="utf-8"))
    return Outcome(
        positions=exchange.dump()["positions"], orders=sorted([*limits, *stops]),
        intents=Counter(taken), csv_rows=[_comparable(row) for row in rows],
        jsonl_rows=[_comparable(json.loads(line)) for line in lines],
        engine=document["engine"], bare_ms=exchange.bare_ms,
    )  # fmt: skip


def _comparable(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row without the number of the attempt and the second the session began in."""
    trade_id = row["trade_id"] if ":" in row["trade_id"] else row["trade_id"].rpartition("-")[2]
    return row | {"client_id": stem(row["client_id"]), "trade_id": trade_id}


def difference(found: Outcome, wanted: Outcome) -> str:
    """Return in what two outcomes differ, '' if in nothing."""
    ours, theirs = asdict(found), asdict(wanted)
    return "; ".join(
        f"{name}: {ours[name]} instead of {theirs[name]}"
        for name in ours
        if name != "bare_ms" and ours[name] != theirs[name]
    )


class Hour:
    """One run of the hour in a folder of its own."""

    def __init__(self, nursery: Nursery, folder: Path, **options: Any) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        self.nursery, self.folder, self.exchange = nursery, folder, Exchange(**options)
        times = self.exchange.walk.candles.times
        self.end_ms = times[FIRST + N_STEPS]
        self._pid, self._started = 0, threading.Event()

    def wish(self, port: int, **changes: Any) -> Wish:
        """Return what a session of the hour is to do."""
        usual = Wish(
            port=port, folder=str(self.folder), config=CONFIG, settings={"poll_s": 900.0},
            end_ms=self.end_ms,
        )  # fmt: skip
        return replace(usual, **changes)

    @contextmanager
    def served(self) -> Iterator[int]:
        """Serve the exchange and yield its port."""
        with SimServer(self.exchange) as server:
            yield server.port

    def start(self, wish: Wish) -> int:
        """Start a session; return its process id, also to those who are to kill it."""
        self._pid = self.nursery.start(wish)
        self._started.set()
        return self._pid

    def run(self) -> Outcome:
        """Run without being disturbed."""
        with self.served() as port:
            assert self.nursery.run(self.wish(port)) == 0
        return outcome_of(self.exchange, self.folder)

    def run_killed(self, point: Point) -> Outcome:
        """Run, be killed at ``point``, and go on."""
        with self.served() as port:
            wish = self.wish(port)
            if point.source == "file":
                wish = replace(wish, kill_at=(point.number, point.when))
            else:
                self._kill_at_request(point)
            self.start(wish)
            assert self.nursery.wait() == -signal.SIGKILL, f"nothing was killed at {point}"
            assert self.nursery.run(self.wish(port, resume=True)) == 0, self.console()
        return outcome_of(self.exchange, self.folder)

    def _kill_at_request(self, point: Point) -> None:
        def kill(number: int, method: str, path: str) -> None:  # noqa: ARG001 - a hook's
            if number != point.number:
                return
            self._started.wait()
            os.kill(self._pid, signal.SIGKILL)
            if point.when == "before":
                raise ConnectionResetError  # lost on the way

        setattr(self.exchange, f"{point.when}_request", kill)

    def console(self) -> str:
        """Return what the sessions printed."""
        return (self.folder / "console.txt").read_text(encoding="utf-8")[-2_000:]

    def survey(self) -> list[tuple[Point, str, str]]:
        """Run undisturbed; return every point with its world and the file it is about, by time."""
        found: list[tuple[int, Point, str, str]] = []
        for when in ("before", "after"):
            setattr(self.exchange, f"{when}_request", self._surveyor(found, when))
        with self.served() as port:
            assert self.nursery.run(self.wish(port, is_survey=True)) == 0
        lines = (self.folder / "survey.jsonl").read_text(encoding="utf-8").splitlines()
        for row in map(json.loads, lines):
            point = Point("file", row["n"], row["when"])
            found.append((row["time"], point, row["world"], row["file"]))
        return [(point, world, file) for _, point, world, file in sorted(found)]

    def _surveyor(self, found: list[tuple[int, Point, str, str]], when: str) -> Any:
        def note(number: int, method: str, path: str) -> None:
            world = world_of(self.exchange.dump(), self.folder)
            point = Point("request", number, when)
            found.append((time.monotonic_ns(), point, world, f"{method} {path}"))

        return note


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as running:
        yield running


@pytest.fixture(scope="module")
def undisturbed(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return Hour(nursery, tmp_path_factory.mktemp("undisturbed")).run()


def try_all(
    nursery: Nursery, folder: Path, points: Sequence[Point], wanted: Outcome, **options: Any
) -> dict[Point, str]:
    """Be killed at each of ``points``; return what went wrong where."""
    wrong = {}
    for point in points:
        found = Hour(nursery, folder, **options).run_killed(point)
        problem = difference(found, wanted)
        if found.bare_ms > POLL_S * 1_000:
            problem += f"; {found.bare_ms} ms without a stop"
        if problem:
            wrong[point] = problem
    return wrong


def test_the_hour_is_busy(undisturbed: Outcome) -> None:
    labels = {row["label"] for row in undisturbed.csv_rows}
    assert {"BUY_OPEN_LONG", "SELL_OPEN_SHORT", "SELL_CLOSE_LONG", "STOP_LONG"} <= labels
    assert "PRUNE_OLDEST" in labels
    assert undisturbed.csv_rows
    assert BAR_MS
