"""The fixed grid at the exchange: the backtest's trades, and a state that needs no file."""

from __future__ import annotations

import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from core.orders import OrderKind
from engine.registry import FIXED_GRID
from live.commands.review import review_text
from live.commands.status import status_text
from live.commands.target import Target, find_target
from live.health.cycle_events import events_path
from live.session.shutdown import Ending
from live.simulated.adapter import InProcessAdapter
from live.simulated.filters import ApiError
from live.simulated.order_entry import OrderEntry
from live.store.flags_file import Flags, FlagsFile
from live.store.trade_files import TradeFiles
from tests.support.markets.synthetic import RULES
from tests.support.processes.fixed_session import FixedScene, backtest_rows, core_of, on_fixed_stage

MINUTE_MS = 60_000
BASE = {"quantity_usd": 300.0, "funding_enabled": False, "wait_time": 60.0}
STUCK = {"stuck_distance_pct": 1.0, "position_timeout_min": 5.0, "stop_loss_pct": 3.0}
SETTINGS: dict[str, dict[str, Any]] = {
    "shipped": {},
    "sell, shared stops": {"direction": "sell", "stop_loss_pct": 1.0, "max_stop_orders": 3},
    "ladder, escalation by close": {**STUCK, "escalation_min": 10.0, "escalation": "close"},
    "sell, ladder, escalation by hedge": {
        **STUCK,
        "direction": "sell",
        "escalation_min": 10.0,
        "escalation": "hedge",
        "hedge_max_hours": 1.0,
    },
    "hedge": {**STUCK, "recovery_mode": "hedge", "hedge_max_hours": 1.0},
    "aggressive": {**STUCK, "recovery_mode": "aggressive"},
    "none": {**STUCK, "recovery_mode": "none", "stop_loss_pct": 1.5, "max_stop_orders": 2},
}
EXPECTED = {
    "shipped": {"SELL_CLOSE_LONG", "RECOVERY_LADDER"},
    "sell, shared stops": {"STOP_SHORT", "BUY_CLOSE_SHORT"},
    "ladder, escalation by close": {"RECOVERY_LADDER", "RECOVERY_ESCALATION"},
    "sell, ladder, escalation by hedge": {"RECOVERY_LADDER", "RECOVERY_HEDGE_OPEN"},
    "hedge": {"RECOVERY_HEDGE_OPEN", "RECOVERY_HEDGE_CLOSE"},
    "aggressive": {"RECOVERY_CLOSE"},
    "none": {"STOP_LONG"},
}


def candles(seed: int, n: int, volatility: float = 0.004) -> pd.DataFrame:
    """Return one-minute candles on the tick, from 100 USDT on."""
    rng = np.random.default_rng(seed)
    path = np.round(100.0 * np.exp(np.cumsum(rng.normal(0.0, volatility, n + 1))), 1)
    opened, closed = path[:-1], path[1:]
    high = np.maximum(opened, closed) + np.round(rng.random(n) * 0.3, 1)
    low = np.minimum(opened, closed) - np.round(rng.random(n) * 0.3, 1)
    return pd.DataFrame(
        {
            "timestamp": 1_704_067_200_000 + MINUTE_MS * np.arange(n),
            "open": opened,
            "high": np.round(high, 1),
            "low": np.round(low, 1),
            "close": closed,
            "volume": 10.0,
        }
    )


@contextmanager
def stage(name: str, folder: Path, seed: int, n: int, **sim: Any) -> Iterator[FixedScene]:
    config = {**BASE, **SETTINGS[name]}
    # A rebuild costs a quarter of a minute's weight: with less of it, two in a row wait a candle.
    settings = {"max_weight_share": 1.0}
    with on_fixed_stage(candles(seed, n), config, RULES, folder, settings=settings, **sim) as it:
        yield it


def step_on(scene: FixedScene, bar: int) -> None:
    """Let a session go on until the step of candle ``bar`` is done, and leave it there."""
    progress, runner = scene.live.session.progress, scene.live.runner

    def is_there() -> bool:
        return progress.bar - scene.first_bar >= bar and bool(progress.done)

    while not is_there():
        runner._turn()  # noqa: SLF001 - a process that is killed ends no step
        if not is_there():  # else the next candle would open before anybody looks
            runner._wait()  # noqa: SLF001


def assert_parity(name: str, folder: Path, seed: int, n: int) -> Counter[str]:
    """Compare up to the step of the last candle, which the price has not walked yet."""
    with stage(name, folder, seed, n) as scene:
        scene.run_to(n - 1)
        got, alerts = scene.rows(), scene.alerts.texts
        held = scene.exchange.account.positions
        view = scene.strategy.view()
        gaps = [view.side(side).qty - float(held[side].qty) for side in ("LONG", "SHORT")]
    want = backtest_rows(candles(seed, n), {**BASE, **SETTINGS[name]}, RULES, 2)
    assert got == want[: len(got)]
    assert {bar for *_, bar in want[len(got) :]} <= {n - 1}
    assert [text for text in alerts if "has stood on its ladder for too long" not in text] == []
    assert gaps == pytest.approx([0.0, 0.0], abs=1e-9)
    return Counter(label for label, *_ in got)


def test_live_makes_the_trades_of_a_backtest(tmp_path: Path) -> None:
    assert sum(assert_parity("sell, shared stops", tmp_path, 5, 45).values()) > 15


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_over_hundreds_of_steps_live_makes_the_trades_of_a_backtest(
    name: str, tmp_path: Path
) -> None:
    labels = assert_parity(name, tmp_path, 6 if name == "shipped" else 7, 750)
    labels += assert_parity(name, tmp_path / "second", 4, 150)
    assert EXPECTED[name] <= set(labels)


def test_the_stop_price_closes_everything_and_ends_the_session(tmp_path: Path) -> None:
    config = {**BASE, **STUCK, "stop_price": 97.0}
    with on_fixed_stage(candles(8, 105), config, RULES, tmp_path) as scene:
        assert scene.live.runner.run() is Ending.EMERGENCY
        got = scene.rows()
        assert scene.exchange.account.is_flat
        assert not scene.exchange.book.open_orders
        assert not scene.exchange.book.open_stops
        flags = list(Path(scene.plan.settings["state_dir"]).glob("*_fixed_flags.json"))
        assert '"stopped": true' in flags[0].read_text()
    assert got == backtest_rows(candles(8, 105), config, RULES, 2)
    assert {"STOP_LONG", "STOP_PRICE"} & {label for label, *_ in got}


# --- the state from the exchange alone ------------------------------------------------------------


def assert_rebuilt(scene: FixedScene) -> FixedScene:
    """Compare a session's memory with what a new process finds; return the new process.

    Where something traded between the two looks they are taken again; where the next candle has
    opened meanwhile the session does its step first, which is what takes its fills in.
    """
    for _ in range(10):
        fresh = scene.reopened()
        before = len(scene.exchange.account.trades)
        bar = fresh.live.session.progress.bar
        if scene.live.session.progress.bar < bar:
            step_on(scene, bar - scene.first_bar)
            continue
        scene.live.broker.watch()  # what filled while the new one was waiting
        if len(scene.exchange.account.trades) == before:
            break
    else:
        pytest.fail("ten looks in a row fell into two candles, or something traded between them")
    assert core_of(fresh.strategy) == core_of(scene.strategy)
    return fresh


@pytest.mark.slow
@pytest.mark.parametrize("name", SETTINGS)
def test_the_rebuilt_state_is_the_one_in_memory(name: str, tmp_path: Path) -> None:
    n, seed = 160, 4 if name == "shipped" else 7
    looked_at, labels = 0, set[str]()
    with stage(name, tmp_path, seed, n) as first:
        scene = first
        for bar in range(3, n - 2, 4):
            step_on(scene, bar)
            scene = assert_rebuilt(scene)
            looked_at += 1
        labels = {label for label, *_ in scene.rows()}
    assert looked_at > 35
    assert EXPECTED[name] & labels


def test_what_fills_while_nobody_is_there_is_taken_in(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 60) as scene:
        step_on(scene, 10)
        before = len(scene.exchange.account.trades)
        scene.exchange.advance(8 * MINUTE_MS)
        assert len(scene.exchange.account.trades) > before
        fresh = scene.reopened()
        # Its folder holds no trade file yet, so it reports every trade there ever was, once.
        assert len(fresh.live.session.trades) == len(fresh.exchange.account.trades)
        held = fresh.exchange.account.positions["LONG"].qty
        assert fresh.strategy.view().long.qty == pytest.approx(float(held))


class KilledError(BaseException):
    """The process is gone."""


class KillingAdapter(InProcessAdapter):
    """Kills the process at one of its requests: before it is sent, or after it has arrived."""

    number: int = -1
    arrives: bool = False
    seen: int = 0

    def send(self, request: Any, *rest: Any, **options: Any) -> Any:
        """Send, or do not; either way the process is gone at request ``number``."""
        self.seen += 1
        if self.seen != self.number:
            return super().send(request, *rest, **options)
        if self.arrives:
            super().send(request, *rest, **options)
        raise KilledError


def assert_sound(scene: FixedScene) -> None:
    """The ledger is the account's, and what should rest does, once."""
    view, held = scene.strategy.view(), scene.exchange.account.positions
    for side in ("LONG", "SHORT"):
        assert view.side(side).qty == pytest.approx(float(held[side].qty), abs=1e-9)
    book = scene.exchange.book
    wanted = Counter(
        (order.kind is OrderKind.STOP, order.price, round(order.qty, 6))
        for order in scene.strategy.desired()
    )
    resting = Counter(
        (False, float(order.price), round(float(order.rest), 6))
        for order in book.open_orders.values()
    ) + Counter(
        (True, float(stop.trigger), round(float(stop.qty), 6)) for stop in book.open_stops.values()
    )
    assert resting == wanted


@pytest.mark.slow
@pytest.mark.parametrize("arrives", [False, True], ids=["before it is sent", "after it arrived"])
@pytest.mark.parametrize(
    ("first", "name"),
    [*enumerate(("sell, shared stops", "hedge", "ladder, escalation by close"), 1)],
)
def test_killed_at_any_request_a_new_process_goes_on(
    first: int, name: str, arrives: bool, tmp_path: Path
) -> None:
    killed = 0
    for number in range(first + 3 * arrives, 1_000, 11):
        with stage(name, tmp_path / str(number), 7, 60) as scene:
            step_on(scene, 12)
            adapter = KillingAdapter(scene.exchange)
            adapter.number, adapter.arrives = number, arrives
            scene.http.mount("https://", adapter)
            try:
                step_on(scene, 40)
                break  # it has fewer requests than that
            except KilledError:
                killed += 1
            scene.http.mount("https://", InProcessAdapter(scene.exchange))
            fresh = scene.reopened()
            bar = fresh.live.session.progress.bar - fresh.first_bar
            step_on(fresh, bar + 1)
            fresh.live.broker.watch()
            assert_sound(fresh)
            assert_rebuilt(fresh)
    assert killed > 20


def cancel(scene: FixedScene, kind: str) -> int:
    """Cancel by hand every order of a kind; return how many there were."""
    book, now_ms = scene.exchange.book, scene.exchange.now_ms
    if kind == "STOP":
        stops = list(book.open_stops.values())
        for stop in stops:
            book.end_stop(stop, "CANCELED", now_ms)
        return len(stops)
    wanted = {"ENTRY": "-E", "TAKE_PROFIT": "-T", "RUNG": "-L"}[kind]
    orders = [order for order in book.open_orders.values() if wanted in order.client_id]
    for order in orders:
        book.end_order(order, "CANCELED", now_ms)
    return len(orders)


@pytest.mark.slow
@pytest.mark.parametrize("is_restarted", [False, True], ids=["running", "restarted"])
@pytest.mark.parametrize("kind", ["ENTRY", "TAKE_PROFIT", "RUNG", "STOP"])
def test_what_was_cancelled_by_hand_is_laid_again(
    kind: str, is_restarted: bool, tmp_path: Path
) -> None:
    cancelled = 0
    with stage("ladder, escalation by close", tmp_path, 7, 90) as first:
        scene = first
        for bar in range(8, 80, 6):
            step_on(scene, bar)
            cancelled += cancel(scene, kind)
            if is_restarted:
                scene = scene.reopened()
            step_on(scene, bar + 2)
            scene.live.broker.watch()
            assert_sound(scene)
            assert_rebuilt(scene)
    assert cancelled > 2


def test_quantity_that_no_order_explains_is_left_alone_or_adopted(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 60) as scene:
        step_on(scene, 12)
        scene.exchange.entry.place(
            {
                "type": "MARKET",
                "side": "BUY",
                "positionSide": "LONG",
                "quantity": "2",
                "newClientOrderId": "by-hand",
            }
        )
        left = scene.reopened()
        held = float(scene.exchange.account.positions["LONG"].qty)
        assert left.strategy.view().long.qty == pytest.approx(held - 2.0)
        assert "--adopt makes it a position" in left.alerts.texts[-1]
        step_on(left, 15)
        assert left.strategy.gate == "mismatch"
        assert not left.live.session.orders.alive(OrderKind.ENTRY)
        adopted = left.reopened(adopts=True)
        assert adopted.strategy.view().long.qty == pytest.approx(
            float(scene.exchange.account.positions["LONG"].qty)
        )
        step_on(adopted, 18)
        adopted.live.broker.watch()
        assert_sound(adopted)
        assert adopted.strategy.gate != "mismatch"


def test_a_step_that_changes_nothing_asks_six_times_at_most(tmp_path: Path) -> None:
    flat = candles(5, 60, volatility=0.0)
    flat[["high", "low"]] = flat[["open", "close"]]
    with on_fixed_stage(flat, dict(BASE), RULES, tmp_path) as scene:
        step_on(scene, 10)
        adapter = KillingAdapter(scene.exchange)
        scene.http.mount("https://", adapter)
        step_on(scene, 20)
        # Every half minute the countdown is renewed; that is no part of a step.
        assert adapter.seen <= 10 * (6 + 2)
        counted = adapter.seen
        runner, session = scene.live.runner, scene.live.session
        bar = session.progress.bar + 1
        scene.exchange.advance((bar * MINUTE_MS + 300) - scene.exchange.now_ms)
        adapter.seen = 0
        runner.step(bar)
        assert 0 < adapter.seen <= 6, counted


def test_a_session_that_runs_pauses_at_the_next_look_and_goes_on(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 60) as scene:
        step_on(scene, 12)
        orders = scene.live.session.orders
        assert orders.alive(OrderKind.ENTRY)
        flags = FlagsFile(scene.plan.symbol, scene.plan.state_folder)
        flags.change(paused=True)
        step_on(scene, 13)
        assert not orders.alive(OrderKind.ENTRY)
        n_stops = len(scene.exchange.book.open_stops)
        step_on(scene, 20)
        assert scene.strategy.gate == "pause"
        assert not orders.alive(OrderKind.ENTRY)
        assert n_stops > 0
        assert_rebuilt(scene)
        flags.change(paused=False)
        step_on(scene, 24)
        assert scene.strategy.gate != "pause"
        assert orders.alive(OrderKind.ENTRY)


def test_flags_that_cannot_be_read_pause_the_session_and_stay_as_they_are(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 60) as scene:
        step_on(scene, 12)
        path = FlagsFile(scene.plan.symbol, scene.plan.state_folder).path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('{"paused": tru')
        step_on(scene, 16)
        assert scene.strategy.gate == "pause"
        assert not scene.live.session.orders.alive(OrderKind.ENTRY)
        assert path.read_text() == '{"paused": tru'


def test_a_pause_written_while_the_stop_price_ends_a_session_loses_neither(tmp_path: Path) -> None:
    config = {**BASE, **STUCK, "stop_price": 97.0}
    with on_fixed_stage(candles(8, 105), config, RULES, tmp_path) as scene:
        flags = FlagsFile(scene.plan.symbol, scene.plan.state_folder)
        scene.strategy.set_flags(paused=False, stopped=True)
        flags.change(paused=True)
        scene.live.session.save()
        assert flags.read() == Flags(paused=True, stopped=True)
        flags.change(paused=False)
        assert flags.read().stopped


def test_close_orders_that_lack_for_two_steps_stop_the_entries_and_are_laid_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with stage("sell, shared stops", tmp_path, 7, 90) as scene:
        step_on(scene, 12)
        place, refused = OrderEntry.place, list[str]()

        def without_closes(entry: OrderEntry, params: dict[str, Any]) -> Any:
            if "-T" in str(params.get("newClientOrderId", "")):
                refused.append(str(params["newClientOrderId"]))
                raise ApiError(-2022)
            return place(entry, params)

        monkeypatch.setattr(OrderEntry, "place", without_closes)
        assert cancel(scene, "TAKE_PROFIT") > 2
        step_on(scene, 13)
        assert not scene.strategy.state.mismatch  # one step is none
        step_on(scene, 16)
        assert scene.strategy.state.mismatch
        assert scene.strategy.gate == "mismatch"
        assert scene.strategy.state.counters.mismatches == 1
        assert not scene.live.session.orders.alive(OrderKind.ENTRY)
        assert [text for text in scene.alerts.texts if "close orders for" in text]
        assert len(refused) > 3
        monkeypatch.undo()
        step_on(scene, 19)
        scene.live.broker.watch()
        assert_sound(scene)
        assert not scene.strategy.state.mismatch
        assert scene.strategy.state.counters.mismatches == 1


def test_after_an_upgrade_the_stops_stand_before_anything_is_compiled(tmp_path: Path) -> None:
    with stage("sell, shared stops", tmp_path, 7, 60) as scene:
        step_on(scene, 12)
        assert cancel(scene, "STOP") > 1
        stops_when_compiled = list[int]()

        def compiling() -> None:
            stops_when_compiled.append(len(scene.exchange.book.open_stops))

        spec = replace(FIXED_GRID, has_code=lambda: False, load_code=compiling)
        fresh = scene.reopened(spec=spec)
        wanted = sum(order.kind is OrderKind.STOP for order in fresh.strategy.desired())
        assert stops_when_compiled == [wanted]
        assert wanted > 0
        step_on(scene, fresh.live.session.progress.bar - scene.first_bar)
        scene.live.broker.watch()
        assert core_of(fresh.strategy) == core_of(scene.strategy)


class KillingDisk:
    """Kills the process at one of its operations on files: before it, half way, or after it."""

    calls = ("open", "write", "fsync", "replace", "ftruncate", "unlink")

    def __init__(self, folder: Path, number: int, when: str) -> None:
        self.folder, self.number, self.when, self.seen = folder, number, when, 0
        self.is_dead = False

    def install(self, patch: pytest.MonkeyPatch) -> None:
        """Put the count into ``os``."""
        for name in self.calls:
            patch.setattr(os, name, self._counted(name, getattr(os, name)))

    def _counted(self, name: str, call: Any) -> Any:
        def counted(*arguments: Any, **options: Any) -> Any:
            if self.is_dead:
                raise KilledError  # the dead tidy nothing up
            if not self._is_ours(arguments[0]):
                return call(*arguments, **options)
            self.seen += 1
            self.is_dead = self.seen == self.number
            if self.is_dead and self.when == "torn" and name == "write":
                call(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
            if self.is_dead and self.when != "after":
                raise KilledError
            answer = call(*arguments, **options)
            if self.is_dead:
                raise KilledError
            return answer

        return counted

    def _is_ours(self, file: Any) -> bool:
        path = Path(f"/proc/self/fd/{file}").readlink() if isinstance(file, int) else Path(file)
        return path.is_relative_to(self.folder)


def target_of(scene: FixedScene) -> Target:
    """Return what the command line would call the session."""
    settings = {**scene.plan.settings, "max_weight_share": 0.5}
    return find_target("BTC", dry_run=False, testnet=False, settings=settings)


def assert_files_whole(scene: FixedScene) -> None:
    """Every execution stands in the trade files once; events and copy can be read."""
    executed = Counter(str(trade.trade_id) for trade in scene.exchange.account.trades)
    files = TradeFiles.of_strategy(FIXED_GRID, scene.plan.symbol, scene.plan.state_folder)
    ids = [str(row["trade_id"]) for row in files.rows()]
    assert len(ids) == len(set(ids))
    assert {one.partition(":")[0] for one in ids} == set(executed)
    target = target_of(scene)
    assert "cycles closed" in review_text(target, None)
    assert "cycles" in status_text(target, scene.exchange.now_ms)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("first", "name"),
    [*enumerate(("sell, shared stops", "hedge", "ladder, escalation by close"), 1)],
)
def test_killed_at_any_write_a_new_process_goes_on_and_the_files_are_whole(
    first: int, name: str, tmp_path: Path
) -> None:
    killed = 0
    for number in range(first, 1_000, 31):
        when = ("before", "torn", "after")[number % 3]
        with stage(name, tmp_path / str(number), 7, 60) as scene:
            step_on(scene, 12)
            disk = KillingDisk(tmp_path / str(number), number, when)
            with pytest.MonkeyPatch.context() as patch:
                disk.install(patch)
                try:
                    step_on(scene, 40)
                    break  # it has fewer operations than that
                except KilledError:
                    killed += 1
            fresh = scene.reopened(settings=scene.plan.settings)
            bar = fresh.live.session.progress.bar - fresh.first_bar
            step_on(fresh, bar + 1)
            fresh.live.broker.watch()
            fresh.live.session.save()
            assert_sound(fresh)
            assert_files_whole(fresh)
            assert_rebuilt(fresh)
    assert killed > 10


def test_a_cycle_that_spans_a_restart_closes_with_its_entry_and_its_age(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 60) as scene:
        step_on(scene, 12)
        held = set(scene.strategy.cycle_state().open_cycles)
        assert held
        path = events_path(scene.plan.symbol, scene.plan.state_folder)
        with path.open("ab") as file:
            file.write(b'{"ts": 17')  # torn by the kill
        fresh = scene.reopened(settings=scene.plan.settings)
        step_on(fresh, 50)
        rows = [json.loads(line) for line in path.read_bytes().split(b"\n") if line[-1:] == b"}"]
        closed = [row for row in rows if row["event"] == "CYCLE_CLOSED" and row["cycle"] in held]
        assert closed
        for row in closed:
            assert row["entry"] > 0.0
            assert row["duration_s"] >= MINUTE_MS // 1000
        filled = Counter(row["cycle"] for row in rows if row["event"] == "ENTRY_FILLED")
        assert max(filled.values()) == 1
        target = target_of(scene)
        assert "cycles closed" in review_text(target, None)


def test_a_review_of_events_without_a_gate_says_so(tmp_path: Path) -> None:
    with stage("shipped", tmp_path, 5, 30) as scene:
        step_on(scene, 2)
        path = events_path(scene.plan.symbol, scene.plan.state_folder)
        assert b'"GATE"' not in path.read_bytes()
        assert re.search(r"cycles closed +0", review_text(target_of(scene), None))


RATES = {60: 0.001, 120: -0.002}
"""Of settlements, by the candle that opens then: whole hours."""


@pytest.mark.parametrize("direction", ["buy", "sell"])
def test_funding_is_booked_as_in_a_backtest_and_found_again_by_a_rebuild(
    direction: str, tmp_path: Path
) -> None:
    minutes = candles(5, 135)
    due = [(int(minutes["timestamp"][bar]), rate) for bar, rate in RATES.items()]
    config = {**BASE, "funding_enabled": True, "direction": direction}
    with on_fixed_stage(
        minutes, config, RULES, tmp_path, settings={"max_weight_share": 1.0}, funding=due
    ) as scene:
        step_on(scene, 130)
        scene.live.broker.watch()
        paid = scene.strategy.view().funding
        account = scene.exchange.account
        income = [float(item.amount) for item in account.incomes if item.kind == "FUNDING_FEE"]
        assert len(income) == 2
        assert paid == pytest.approx(sum(income), abs=1e-6)
        settled = pd.DataFrame(due, columns=["timestamp", "rate"])
        rows = backtest_rows(minutes, config, RULES, 2, settled)
        assert scene.rows() == rows[: len(scene.rows())]
        assert len(scene.rows()) > 20
        price = scene.strategy.view().price
        gained = (
            float(account.equity(Decimal(str(price)))) - 20_000.0
        )  # what the account began with
        begun = scene.strategy.params.initial_capital
        assert scene.strategy.view(price).equity == pytest.approx(begun + gained, abs=0.01)
        fresh = assert_rebuilt(scene)
        assert fresh.strategy.view().funding == pytest.approx(paid, abs=1e-6)


def test_a_step_that_changes_nothing_takes_20_ms_of_own_time_at_most(tmp_path: Path) -> None:
    flat = candles(5, 60, volatility=0.0)
    flat[["high", "low"]] = flat[["open", "close"]]
    with on_fixed_stage(flat, dict(BASE), RULES, tmp_path) as scene:
        step_on(scene, 10)
        adapter, elsewhere_s, own_s = InProcessAdapter(scene.exchange), [0.0], list[float]()
        send = adapter.send

        def sent(*arguments: Any, **options: Any) -> Any:
            begun = time.thread_time()
            try:
                return send(*arguments, **options)
            finally:
                elsewhere_s[0] += time.thread_time() - begun

        adapter.send = sent  # type: ignore[method-assign]  # the exchange's time is not ours
        scene.http.mount("https://", adapter)
        for bar in range(11, 31):
            instant = (scene.first_bar + bar) * MINUTE_MS + 300
            scene.exchange.advance(instant - scene.exchange.now_ms)
            elsewhere_s[0], begun = 0.0, time.process_time()
            scene.live.runner.step(scene.first_bar + bar)
            own_s.append(time.process_time() - begun - elsewhere_s[0])
    assert sorted(own_s)[len(own_s) // 4] < 0.020  # a busy machine adds to it, and takes nothing


@pytest.mark.parametrize("name", ["ladder, escalation by close", "hedge"])
def test_no_order_closes_more_than_the_ledger_holds_where_others_hold_the_side_too(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closing = list[tuple[float, float]]()
    with stage(name, tmp_path, 7, 90) as scene:
        step_on(scene, 12)
        (side,) = scene.strategy.params.position_sides
        by_hand = {"type": "MARKET", "side": "BUY" if side == "LONG" else "SELL"}
        scene.exchange.entry.place(
            {**by_hand, "positionSide": side, "quantity": "50", "newClientOrderId": "by-hand"}
        )
        opens = {"LONG": "BUY", "SHORT": "SELL"}
        place, place_stop = OrderEntry.place, OrderEntry.place_stop

        def look(params: dict[str, Any]) -> None:
            assert str(params.get("closePosition", "false")).lower() != "true"
            on = str(params["positionSide"])
            if params["side"] != opens[on]:
                held = scene.strategy.view().side(on).qty
                closing.append((float(params["quantity"]), held))

        def placed(entry: OrderEntry, params: dict[str, Any]) -> Any:
            look(params)
            return place(entry, params)

        def placed_stop(entry: OrderEntry, params: dict[str, Any]) -> Any:
            look(params)
            return place_stop(entry, params)

        monkeypatch.setattr(OrderEntry, "place", placed)
        monkeypatch.setattr(OrderEntry, "place_stop", placed_stop)
        step_on(scene, 60)
        held = float(scene.exchange.account.positions[side].qty)
        assert held - scene.strategy.view().side(side).qty == pytest.approx(50.0)
        assert scene.strategy.gate == "mismatch"
    assert len(closing) > 2
    assert all(qty <= held + 1e-9 for qty, held in closing)
