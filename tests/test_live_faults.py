"""What goes wrong at the exchange, on the way to it, on the account and on the disk."""

from __future__ import annotations

import errno
import json
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any, Final, NoReturn

import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from core.market import MarketRules
from live.runner import Ending
from live.trade_files import LiveTrade
from tests.live_scene import Scene, on_stage, settings_in, settlements, warm_bars
from tests.oracle import BAR_MS
from tests.sim_exchange import ORDER, READ, FaultKind, SimExchange
from tests.synthetic import RULES, synthetic_candles, synthetic_settlements

DOCUMENTED: Final = PRESETS["documented"]
WARM: Final = warm_bars(DOCUMENTED)
DAY_BARS: Final = 96
POLL_S: Final = 240.0
PATIENCE_MS: Final = 30_000
"""What finding out about a request that went wrong takes: its window, tries and pauses."""
MUCH_AT_A_TIME: Final = {"max_errors_in_row": 1_000}
SIDES: Final = ("LONG", "SHORT")
KINDS: Final = ("ENTRY", "TAKE_PROFIT", "STOP", "EXIT")
NO_LOSS_LIMIT: Final = {"equity_warn_pct": 1e5, "equity_emergency_pct": 1e6}
DELAYS_MS: Final = {FaultKind.DELAY: 3_000, FaultKind.CLOCK_JUMP: 50}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests write need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@cache
def busy_market(seed: int, n_bars: int) -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    candles = synthetic_candles(WARM + n_bars, seed)
    return candles, settlements(synthetic_settlements(candles, seed), candles)


@contextmanager
def busy_day(
    folder: Path, *, seed: int = 112, n_bars: int = DAY_BARS + 1, rules: MarketRules = RULES,
    config: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **stage: Any,
) -> Iterator[Scene]:  # fmt: skip
    """Yield a session that stands before the first step of a day with much trading."""
    candles, funding = busy_market(seed, n_bars)
    with on_stage(
        candles, {**DOCUMENTED, **(config or {})}, rules, folder, start_bar=WARM, funding=funding,
        settings=settings_in(folder, **{"poll_s": POLL_S, **(settings or {})}), **stage,
    ) as scene:  # fmt: skip
        yield scene


class Watchman:
    """Looks at the account before and after every request.

    Attributes:
        longest_bare_ms: longest time a position was without a stop, ms.
        doubled: open entries at the price of another one.
    """

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange = exchange
        self._bare_since: dict[str, int] = {}
        self.longest_bare_ms = 0
        self.doubled: list[str] = []
        exchange.before_request = exchange.after_request = self._look

    def _look(self, *_: object) -> None:
        book, now_ms = self._exchange.book, self._exchange.now_ms
        for direction, position in self._exchange.account.positions.items():
            covered = any(stop.direction == direction for stop in book.open_stops.values())
            if covered or not position.qty:
                self._bare_since.pop(direction, None)
                continue
            since_ms = self._bare_since.setdefault(direction, self._begin_ms(direction))
            self.longest_bare_ms = max(self.longest_bare_ms, now_ms - since_ms)
        entries = Counter(
            (o.direction, o.price) for o in book.open_orders.values() if not o.closes
        )
        self.doubled += [f"{place} at {now_ms}" for place, n in entries.items() if n > 1]

    def _begin_ms(self, direction: str) -> int:
        """Return since when a side that has no stop now has been bare."""
        held, opened_ms = Decimal(0), 0
        for trade in self._exchange.account.trades:
            if trade.direction == direction:
                opens = (trade.side == "BUY") == (direction == "LONG")
                opened_ms = trade.ts_ms if opens and not held else opened_ms
                held += trade.qty if opens else -trade.qty
        stops = self._exchange.book.stops.values()
        ended = [s.updated_ms for s in stops if s.direction == direction and not s.is_open]
        return max([opened_ms, *(ms for ms in ended if ms >= opened_ms)])


def assert_books_agree(scene: Scene, trades: list[LiveTrade]) -> None:
    """Compare the ledger and its ``trades`` with the account: each of its trades booked once."""
    account, state = scene.exchange.account, scene.session.strategy.state
    booked: dict[str, float] = defaultdict(float)
    for trade in trades:
        if trade.qty > 0.0:
            booked[trade.trade_id.partition(":")[0]] += trade.qty
    real = {str(trade.trade_id): float(trade.qty) for trade in account.trades}
    assert booked == pytest.approx(real, abs=1e-9)
    assert len({trade.trade_id for trade in trades}) == len(trades)
    assert scene.position_gaps() == [0.0, 0.0]
    assert scene.equity_gap() == pytest.approx(0.0, abs=1e-6)
    earned = sum(trade.pnl - trade.fee for trade in trades) + float(state.funding)
    assert float(state.wallet) == pytest.approx(scene.capital + earned, abs=1e-6)


def assert_nothing_twice(scene: Scene) -> None:
    """No identity was used for two orders."""
    book = scene.exchange.book
    ids = Counter(order.client_id for order in book.orders.values())
    ids.update(stop.client_id for stop in book.stops.values())
    assert [name for name, n in ids.items() if n > 1] == []


def assert_one_order_a_fill(trades: list[LiveTrade]) -> None:
    """Where orders fill whole, an entry is one order's, and an order makes one entry."""
    entries = {(t.fill_id, t.client_id) for t in trades if "OPEN" in t.label}
    assert len(entries) == len({fill for fill, _ in entries}) == len({name for _, name in entries})


def errors_of(scene: Scene) -> int:
    """Return how many errors the session has counted."""
    return int(json.loads(scene.monitor.path.read_text())["errors"])


def finish(scene: Scene) -> tuple[Scene, list[LiveTrade]]:
    """Return the session after a last undisturbed look, and the trades of both."""
    scene.exchange.faults.clear()
    scene.exchange.clock_skew_ms = 0
    again = scene.reopened()
    assert again.run_until(scene.exchange.now_ms + 1_000) is Ending.ASKED
    return again, scene.session.trades + again.session.trades


def assert_stopped_in_order(exchange: SimExchange) -> None:
    """No limit order is open, and every position has its stop."""
    held = {name for name, side in exchange.account.positions.items() if side.qty}
    assert held
    assert not exchange.book.open_orders
    assert {stop.direction for stop in exchange.book.open_stops.values()} == held


# --- on the way to the exchange -----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", FaultKind, ids=lambda kind: kind.name)
def test_a_day_in_which_every_tenth_request_goes_wrong(kind: FaultKind, tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=MUCH_AT_A_TIME) as scene:
        watchman = Watchman(scene.exchange)
        scene.exchange.faults.rate(kind, 0.1, delay_ms=DELAYS_MS.get(kind, 0))
        assert scene.run_to(WARM + DAY_BARS) is Ending.ASKED
        end, trades = finish(scene)
    assert scene.exchange.faults.injected[kind] > 100
    assert len(trades) > 50
    assert_books_agree(end, trades)
    assert_nothing_twice(end)
    assert_one_order_a_fill(trades)
    assert watchman.doubled == []
    assert watchman.longest_bare_ms <= 1e3 * POLL_S + PATIENCE_MS
    # All requests of the time of a ban fail; no other fault outlasts the tries.
    assert errors_of(scene) < (400 if kind is FaultKind.BANNED else 10)


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "partial"), [(112, 0.0), (61, 0.5)])
def test_a_day_in_which_everything_goes_wrong(
    seed: int, partial: float, tmp_path: Path
) -> None:
    with busy_day(
        tmp_path, seed=seed, settings=MUCH_AT_A_TIME, partial_fills=partial
    ) as scene:
        watchman = Watchman(scene.exchange)
        for kind in FaultKind:
            scene.exchange.faults.rate(
                kind, 0.1 / len(FaultKind), delay_ms=DELAYS_MS.get(kind, 0)
            )
        assert scene.run_to(WARM + DAY_BARS) is Ending.ASKED
        end, trades = finish(scene)
    assert set(scene.exchange.faults.injected) == set(FaultKind)
    assert_books_agree(end, trades)
    assert_nothing_twice(end)
    assert watchman.doubled == []
    assert watchman.longest_bare_ms <= 1e3 * POLL_S + PATIENCE_MS
    if not partial:
        assert_one_order_a_fill(trades)


@pytest.mark.slow
def test_orders_that_mostly_get_no_answer_are_still_sent_once(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=MUCH_AT_A_TIME) as scene:
        watchman = Watchman(scene.exchange)
        scene.exchange.faults.rate(FaultKind.LOST_REPLY, 0.3, [ORDER])
        scene.exchange.faults.rate(FaultKind.TIMEOUT, 0.3, [ORDER])
        scene.exchange.faults.rate(FaultKind.STALE, 0.5, [READ])
        assert scene.run_to(WARM + DAY_BARS // 2) is Ending.ASKED
        end, trades = finish(scene)
    assert_books_agree(end, trades)
    assert_nothing_twice(end)
    assert_one_order_a_fill(trades)
    assert watchman.doubled == []


# --- partial fills ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("seed", [112, 391])
def test_orders_that_fill_in_parts_are_booked_part_by_part(seed: int, tmp_path: Path) -> None:
    with busy_day(tmp_path, seed=seed, partial_fills=0.5) as scene:
        watchman = Watchman(scene.exchange)
        assert scene.run_to(WARM + DAY_BARS) is Ending.ASKED
        end, trades = finish(scene)
    assert_books_agree(end, trades)
    assert_nothing_twice(end)
    assert watchman.doubled == []
    assert watchman.longest_bare_ms <= 1e3 * POLL_S
    parts = Counter(trade.client_id for trade in trades if "OPEN" in trade.label)
    assert max(parts.values()) > 1
    assert scene.ears.heard == []
    orders = {order.client_id: order for order in scene.exchange.book.orders.values()}
    for trade in trades:
        if "CLOSE" in trade.label:  # take-profits close at their price, and no more than they hold
            assert trade.price == float(orders[trade.client_id].price)
            assert "T" in trade.client_id.split("-")[2]


# --- the account --------------------------------------------------------------------------------


def once_held(scene: Scene, action: Callable[[str], object], bars: Iterable[int]) -> list[str]:
    """Let ``action`` happen within the first of ``bars`` in which a side holds something.

    Returns:
        The side it was done to, once it is done.
    """
    done: list[str] = []

    def look() -> None:
        for name, position in scene.exchange.account.positions.items():
            if position.qty and not done:
                done.append(name)
                action(name)

    for bar in bars:
        scene.clock.at(scene.opens_ms(bar) + 400_000, look)
    return done


def in_lots(qty: Decimal) -> float:
    """Return ``qty`` cut to the lot."""
    return int(qty / Decimal("0.001")) / 1_000


def test_what_a_person_closes_of_ours_leaves_the_ledger_after_two_looks(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange

        def close_half(name: str) -> None:
            qty = in_lots(exchange.account.positions[name].qty / 2)
            exchange.hand_trade(name, "SELL" if name == "LONG" else "BUY", qty)

        done = once_held(scene, close_half, range(WARM + 12, WARM + 40))
        assert scene.run_to(WARM + 48) is Ending.ASKED
        assert_stopped_in_order(exchange)
    assert done
    (sync,) = [trade for trade in scene.session.trades if trade.label == "POSITION_SYNC"]
    (by_hand,) = [
        trade
        for trade in exchange.account.trades
        if exchange.book.orders[trade.order_id].client_id.startswith("web_")
    ]
    steps = sync.bar - by_hand.ts_ms // BAR_MS
    assert (sync.direction, sync.qty, steps) == (done[0], float(by_hand.qty), 2)
    assert scene.position_gaps() == [0.0, 0.0]
    for stop in exchange.book.open_stops.values():
        side = SIDES.index(stop.direction)
        assert float(stop.trigger) == scene.session.strategy.state.sides[side].stop_price
    assert scene.ears.count("is not of this bot") == 1
    assert scene.ears.count("is gone from the account") == 1


def test_what_is_not_ours_is_told_once_and_never_touched(tmp_path: Path) -> None:
    with busy_day(tmp_path, config={"allow_short": False}) as scene:
        exchange = scene.exchange
        when = scene.opens_ms(WARM + 3) + 100_000
        scene.clock.at(when, lambda: exchange.hand_trade("SHORT", "SELL", 0.05))
        assert scene.run_to(WARM + 16) is Ending.ASKED
    assert exchange.account.positions["SHORT"].qty == Decimal("0.05")
    assert {
        order.client_id[:4]
        for order in exchange.book.orders.values()
        if order.direction == "SHORT"
    } == {"web_"}
    assert scene.ears.count("is not of this bot") == 1
    assert scene.ears.count("WARN SHORT position") == 1
    assert "POSITION_SYNC" not in {trade.label for trade in scene.session.trades}
    assert errors_of(scene) == 0


def test_without_margin_entries_wait_and_positions_keep_their_stops(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange

        def withdraw(_: str) -> None:
            exchange.withdraw(float(exchange.account.wallet) - 600.0)

        done = once_held(scene, withdraw, range(WARM + 12, WARM + 30))
        assert scene.run_to(WARM + 40) is Ending.ASKED
        assert done
        assert_stopped_in_order(exchange)
    assert scene.ears.count("no margin") in {1, 2}  # longs, shorts
    assert len(scene.ears.heard) == scene.ears.count("no margin")
    assert errors_of(scene) == 0
    assert scene.position_gaps() == [0.0, 0.0]


def test_what_was_refused_is_offered_again_in_the_next_bar_not_at_every_look(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path) as scene:
        requests = scene.exchange.faults.requests
        scene.exchange.withdraw(9_900.0)
        assert scene.run_to(WARM + 8) is Ending.ASKED
        assert requests["POST /fapi/v1/batchOrders"] <= 8 * 4  # 20 levels, 5 to a request
    assert scene.ears.count("no margin") == 2


def test_an_account_too_small_for_any_order_sends_none_and_says_so_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rules = replace(RULES, min_notional=100.0)
    with busy_day(tmp_path, wallet=100.0, rules=rules) as scene:
        assert scene.run_to(WARM + 8) is Ending.ASKED
    assert scene.exchange.book.orders == {}
    said = [r.message for r in caplog.records if "under the exchange's minimum" in r.message]
    assert len(said) == 1
    assert scene.ears.heard == []


@pytest.mark.slow
def test_the_rest_of_an_order_under_the_minimum_is_told_once_and_kept_back(
    tmp_path: Path,
) -> None:
    rules = replace(RULES, min_notional=200.0)
    with busy_day(tmp_path, rules=rules, partial_fills=0.9) as scene:
        book, stop = scene.exchange.book, scene.clock.stop

        def look(*_: object) -> None:
            rests = [o for o in book.open_orders.values() if o.filled and not o.closes]
            if any(float(order.rest * order.price) < rules.min_notional for order in rests):
                stop.set()

        scene.exchange.before_request = look
        assert scene.run() is Ending.ASKED
        scene.exchange.before_request = None
        again = scene.reopened()  # the rest was cancelled: it is laid anew, and refused
        assert again.run_until(scene.exchange.now_ms + 5 * BAR_MS) is Ending.ASKED
        trades = scene.session.trades + again.session.trades
    assert again.ears.count("refused") == 1
    assert errors_of(again) == 0
    assert_books_agree(again, trades)


def test_while_the_symbol_is_halted_nothing_breaks_and_it_is_told_once(tmp_path: Path) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        done = once_held(scene, lambda _: exchange.halt_symbol(), range(WARM + 12, WARM + 30))
        assert scene.run_to(WARM + 32) is Ending.ASKED
        assert done
        told = Counter(" ".join(text.split()[:3]) for text in scene.ears.heard)
        assert set(told) <= {f"order {kind} {side}" for kind in KINDS for side in SIDES}
        assert set(told.values()) == {1}
        assert errors_of(scene) == 0
        assert scene.position_gaps() == [0.0, 0.0]
        exchange.resume_symbol()
        again = scene.reopened()
        again.run_until(exchange.now_ms + 2_000)
        assert_stopped_in_order(exchange)


# --- endings ------------------------------------------------------------------------------------


def falling(n_bars: int) -> pd.DataFrame:
    """Return a busy market that loses a third of its price in six candles at its end."""
    candles = busy_market(112, n_bars)[0].copy()
    slide = np.concatenate([np.ones(WARM + n_bars - 6), 0.94 ** np.arange(1, 7)])
    before = np.concatenate([[1.0], slide[:-1]])
    for name, factor in (("open", before), ("high", before), ("low", slide), ("close", slide)):
        candles[name] = np.round(candles[name] * factor, 1)
    return candles


@contextmanager
def crash(folder: Path, **stage: Any) -> Iterator[Scene]:
    """Yield a session without near stops that a crash makes lose over a quarter."""
    config = {
        **DOCUMENTED, "leverage": 5.0, "atr_sl_mult": 8.0, "regime_enabled": False,
        "circuit_breaker_enabled": False, "prune_enabled": (), "var_deleverage_enabled": False,
        "var_block_enabled": False, "kelly_enabled": False, "allow_short": False,
    }  # fmt: skip
    settings = settings_in(folder, poll_s=POLL_S)
    with on_stage(
        falling(24), config, RULES, folder, start_bar=WARM, settings=settings, price_band=0.9,
        **stage,
    ) as scene:  # fmt: skip
        yield scene


def test_at_the_loss_limit_everything_of_ours_is_closed_and_nothing_else(tmp_path: Path) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        when = scene.opens_ms(WARM + 2) + 100_000
        scene.clock.at(when, lambda: exchange.hand_trade("SHORT", "SELL", 0.02))
        assert scene.run() is Ending.EMERGENCY
    held = {name: float(side.qty) for name, side in exchange.account.positions.items()}
    assert held == {"LONG": 0.0, "SHORT": 0.02}
    assert not exchange.book.open_orders
    assert not exchange.book.open_stops
    assert "CLOSE_END" in {trade.label for trade in scene.session.trades}
    assert scene.session.strategy.state.sides[0].n_fills == 0
    assert scene.ears.count("EMERGENCY") == 1


def test_what_cannot_be_closed_at_the_loss_limit_keeps_its_stop(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with crash(tmp_path) as scene:
        exchange = scene.exchange
        exchange.before_request = lambda _, method, path: (
            exchange.halt_symbol()
            if (method, path) == ("POST", "/fapi/v1/order")
            else exchange.resume_symbol()
        )
        assert scene.run() is Ending.EMERGENCY
        assert_stopped_in_order(exchange)
    assert "close them by hand" in caplog.text


def test_errors_in_a_row_end_the_session_and_leave_the_stops(tmp_path: Path) -> None:
    limit = 3
    with busy_day(tmp_path, settings={**NO_LOSS_LIMIT, "max_errors_in_row": limit}) as scene:
        faults = scene.exchange.faults

        def break_off(_: str) -> None:
            faults.next(FaultKind.DROP, path="klines", times=10**6)

        done = once_held(scene, break_off, range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.FAILED
        assert done
        assert_stopped_in_order(scene.exchange)
    assert errors_of(scene) == limit + 1
    assert scene.ears.count("SHUTDOWN errors") == 1


def test_a_full_disk_ends_trading_leaves_the_stops_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_room(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        sent: Counter[str] = Counter()

        def fill_disk(_: str) -> None:
            monkeypatch.setattr("live.instance_lock.write_durably", no_room)
            sent.update(exchange.faults.requests)

        done = once_held(scene, fill_disk, range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.FAILED
        assert done
        assert_stopped_in_order(exchange)
        later = exchange.faults.requests - sent
        assert not [name for name in later if name.startswith("POST")]
        assert "trading stops, positions keep their stops: cannot write" in caplog.text
        assert "may still be open" not in caplog.text
        monkeypatch.undo()
        again = scene.reopened()
        assert again.run_to(WARM + 40) is Ending.ASKED
    assert again.position_gaps() == [0.0, 0.0]
    assert again.equity_gap() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_a_stop_that_fires_while_nobody_watches_is_booked_when_somebody_does(
    tmp_path: Path,
) -> None:
    with busy_day(tmp_path, settings=NO_LOSS_LIMIT) as scene:
        exchange = scene.exchange
        done = once_held(scene, lambda _: scene.clock.stop.set(), range(WARM + 12, WARM + 30))
        assert scene.run() is Ending.ASKED
        n_trades = len(exchange.account.trades)
        while len(exchange.account.trades) == n_trades:
            exchange.run_until(exchange.now_ms + BAR_MS)
        again = scene.reopened()
        assert again.run_until(exchange.now_ms + 60_000) is Ending.ASKED
    assert done
    stopped = {t.client_id for t in again.session.trades if t.label.startswith("STOP")}
    assert len(stopped) == 1
    assert "S00" in stopped.pop()
    assert again.position_gaps() == [0.0, 0.0]
    assert again.equity_gap() == pytest.approx(0.0, abs=1e-6)
