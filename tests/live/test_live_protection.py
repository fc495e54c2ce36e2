"""No position is unprotected for longer than one poll, whatever fails; measured at the exchange.

From its first fill on a side is never without an accepted stop for longer than one poll while the
exchange takes orders, nor later than one poll after it does so again; the health file never calls
an unprotected side in order; at the end ledger and account agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import pytest

from core.errors import ExchangeError
from core.orders import OrderKind
from live.session.shutdown import Ending
from live.simulated.exchange import SimExchange
from live.simulated.faults import CANCEL, ORDER, READ, FaultKind
from live.simulated.symbol_market import SymbolMarket
from tests.support.exchanges.observer import ProtectionObserver
from tests.support.markets.synthetic import RULES
from tests.support.processes.live_session import Scene
from tests.support.processes.two_coins import join_other, other_market, run_together, watch
from tests.support.processes.watched_day import (
    CALM_SEED,
    NO_LOSS_LIMIT,
    WARM,
    assert_books_agree,
    assert_nothing_twice,
    busy_day,
    finish,
    no_waiting_for_the_disk,  # noqa: F401 - a fixture
)

POLL_S: Final = 5.0
POLL_MS: Final = 5_000
READABLE_MS: Final = 2_000
"""Time of a look where everything can be read: a moment to sleep, and its requests."""
KNOWN_MS: Final = POLL_MS + READABLE_MS
"""After so long a session must know of a fill, so its health file may not be silent."""
QUIET: Final = {**NO_LOSS_LIMIT, "poll_s": POLL_S, "max_errors_in_row": 10_000}
FOREVER: Final = 10**18
FILL_MS: Final = 20_000


@dataclass
class Watched:
    """A session, who watches it, and what happens to it."""

    scene: Scene
    observer: ProtectionObserver

    @property
    def exchange(self) -> SimExchange:
        """Where it trades."""
        return self.scene.exchange

    def at(self, after_ms: int, action: Callable[[], object]) -> None:
        """Let ``action`` happen so long after the first candle opened."""
        self.scene.clock.at(self.scene.opens_ms(WARM) + after_ms, action)

    def run(self, until_ms: int) -> Ending:
        """Run until so long after the first candle opened."""
        return self.scene.run_until(self.scene.opens_ms(WARM) + until_ms)

    def fault(
        self, from_ms: int, until_ms: int, kind: FaultKind, *classes: str, **more: Any
    ) -> None:
        """Let requests go wrong for a time, counted from the open of the first candle."""
        first = self.scene.opens_ms(WARM)
        given = [classes] if classes else []
        self.exchange.faults.during(first + from_ms, first + until_ms, kind, *given, **more)

    def agree(self, longest_ms: float = KNOWN_MS) -> None:
        """Assert what must hold at the end."""
        self.observer.assert_protected(longest_ms)
        end, trades = finish(self.scene)
        assert_books_agree(end, trades)
        assert_nothing_twice(end)


def fill(market: SymbolMarket, position_side: str = "LONG") -> None:
    """Let the entry nearest to the price fill."""
    entries = [
        order
        for order in market.book.open_orders.values()
        if not order.closes and order.position_side == position_side
    ]
    nearest = min(entries, key=lambda order: abs(order.price - market.price))
    market.book.fill_limit(nearest, market.walk.stamp_ms)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """A session in a calm candle, in which a long entry fills after 20 s."""
    with busy_day(tmp_path, seed=CALM_SEED, settings=QUIET) as scene:
        found = Watched(scene, watch([scene], KNOWN_MS))
        found.at(FILL_MS, lambda: fill(scene.market))
        yield found


def held(watched: Watched) -> Decimal:
    return watched.exchange.account.positions["LONG"].qty


# --- the order endpoints --------------------------------------------------------------------------

DOWN: Final = (
    FaultKind.BUSY_503,
    FaultKind.OVERLOAD_503,
    FaultKind.DROP,
    FaultKind.TIMEOUT,
    FaultKind.CODE_1001,
)


@pytest.mark.slow
@pytest.mark.parametrize("kind", DOWN, ids=lambda kind: kind.name)
def test_while_order_endpoints_are_down_it_is_an_emergency_and_the_stop_follows_at_once(
    watched: Watched, kind: FaultKind
) -> None:
    watched.fault(FILL_MS - 1_000, 300_000, kind, ORDER, processed=False)
    assert watched.run(400_000) is Ending.ASKED
    alerts = watched.scene.alerts
    assert alerts.count("EMERGENCY LONG stop") >= 3
    assert alerts.count("OK LONG stop") == 1
    watched.agree(KNOWN_MS + 12_000)


@pytest.mark.slow
def test_a_session_asked_to_end_over_an_unprotected_side_goes_on_until_it_is_protected(
    watched: Watched,
) -> None:
    watched.fault(FILL_MS - 1_000, 120_000, FaultKind.OVERLOAD_503, ORDER)
    assert watched.run(60_000) is Ending.ASKED
    assert watched.exchange.now_ms >= watched.scene.opens_ms(WARM) + 119_000
    assert not watched.observer.unprotected
    watched.agree()


@pytest.mark.slow
def test_a_session_that_cannot_protect_a_side_does_not_end_with_success(watched: Watched) -> None:
    watched.fault(FILL_MS - 1_000, FOREVER // 2, FaultKind.OVERLOAD_503, ORDER)
    assert watched.run(60_000) is Ending.FAILED
    assert watched.observer.unprotected
    assert watched.observer.false_health == []


# --- what is listed late, or not at all -----------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", [FaultKind.LATE_STOPS, FaultKind.LATE_ORDERS])
@pytest.mark.parametrize("lag_ms", [10_000, 90_000])
def test_orders_that_are_listed_late_are_there(
    watched: Watched, kind: FaultKind, lag_ms: int
) -> None:
    watched.fault(0, FOREVER // 2, kind, READ, lag_ms=lag_ms)
    assert watched.run(400_000) is Ending.ASKED
    assert held(watched) > 0, "nothing was closed"
    watched.agree()


@pytest.mark.slow
@pytest.mark.parametrize("lag_ms", [10_000, 60_000])
def test_a_trade_that_is_listed_after_a_younger_one_is_not_lost(
    watched: Watched, lag_ms: int
) -> None:
    watched.fault(0, FOREVER // 2, FaultKind.TRADES_OUT_OF_ORDER, READ, lag_ms=lag_ms)
    for after_ms in (21_000, 22_000, 50_000):
        watched.at(after_ms, lambda: fill(watched.scene.market))
    assert watched.run(400_000) is Ending.ASKED
    assert len(watched.exchange.account.trades) >= 4
    watched.agree()


@pytest.mark.slow
@pytest.mark.parametrize("path", ["positionRisk", "openAlgoOrders", "openOrders", "userTrades"])
def test_an_empty_answer_gives_up_nothing(watched: Watched, path: str) -> None:
    for from_ms in (30_000, 899_000, 1_799_000):
        watched.fault(from_ms, from_ms + 20_000, FaultKind.EMPTY, READ, path=path)
    assert watched.run(1_900_000) is Ending.ASKED
    labels = {trade.label for trade in watched.scene.session.trades}
    assert "POSITION_SYNC" not in labels
    watched.agree()


# --- refusals -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("is_listed", [True, False], ids=["listed", "not listed either"])
def test_a_position_that_does_not_show_yet_gets_its_stop_when_it_does(
    is_listed: bool, watched: Watched
) -> None:
    watched.exchange.market.restriction.unseen_ms = 12_000
    if not is_listed:
        watched.fault(FILL_MS, FILL_MS + 12_000, FaultKind.EMPTY, READ, path="positionRisk")
    assert watched.run(200_000) is Ending.ASKED
    assert held(watched) > 0
    watched.agree(12_000 + KNOWN_MS)


@pytest.mark.slow
def test_one_conditional_order_is_enough_where_the_exchange_takes_no_more(watched: Watched) -> None:
    watched.exchange.market.restriction.max_open_stops = 1
    watched.at(60_000, lambda: fill(watched.scene.market))
    assert watched.run(1_000_000) is Ending.ASKED
    watched.agree()


@pytest.mark.slow
def test_rules_that_change_are_read_again(watched: Watched) -> None:
    coarser = replace(RULES, tick_size=0.5, step_size=0.002)
    watched.at(60_000, lambda: watched.exchange.market.change_rules(coarser))
    watched.at(400_000, lambda: fill(watched.scene.market))
    assert watched.run(1_900_000) is Ending.ASKED
    assert watched.scene.alerts.count("rules have changed") == 1
    desired = watched.scene.session.strategy.desired()  # the strategy decides by them, too
    exits = {order.price for order in desired if order.kind is OrderKind.TAKE_PROFIT}
    assert exits
    for price in exits:
        assert Decimal(repr(price)) % Decimal("0.5") == 0, price
    laid = {float(o.price) for o in watched.scene.market.book.orders.values() if o.closes}
    assert exits <= laid
    watched.agree()


@pytest.mark.slow
def test_what_a_new_lot_does_not_let_be_closed_is_said(watched: Watched) -> None:
    assert watched.run(60_000) is Ending.ASKED
    assert held(watched) > 0
    coarser = replace(RULES, step_size=float(held(watched)) * 0.75)
    watched.exchange.market.change_rules(coarser)
    broker = watched.scene.live.broker
    with pytest.raises(ExchangeError, match="stops stay there"):  # by the lot of before
        broker.flatten("CLOSE_END")
    assert not watched.observer.unprotected
    broker.flatten("CLOSE_END")
    assert 0 < held(watched) < Decimal(repr(coarser.step_size))
    assert watched.scene.alerts.count("0.002 of LONG are left: less than the exchange's lot") == 1


@pytest.mark.slow
@pytest.mark.parametrize("code", [-4400, -4401, -4087, -4192])
def test_while_only_reducing_is_allowed_entries_are_off_and_stops_go_on(
    watched: Watched, code: int
) -> None:
    rule = watched.exchange.market.restriction
    long_ms = 2_000_000  # until something is to be laid: what rests already is not refused

    def restrict() -> None:
        rule.opening_code, rule.until_ms = code, watched.exchange.now_ms + long_ms

    watched.at(25_000, restrict)
    assert watched.run(4_400_000) is Ending.ASKED
    assert watched.scene.alerts.count("entries are off") == 1
    assert watched.scene.alerts.count("entries are on again") == 1
    watched.agree()


@pytest.mark.slow
def test_fees_in_an_asset_without_a_price_stop_nothing(watched: Watched) -> None:
    watched.exchange.account.fee_asset = "BNFCR"
    assert watched.run(1_900_000) is Ending.ASKED
    watched.observer.assert_protected(KNOWN_MS)
    assert watched.scene.position_gaps() == [0.0, 0.0]


@pytest.mark.slow
def test_somebody_elses_order_in_an_unknown_state_blocks_nothing(watched: Watched) -> None:
    watched.at(
        10_000,
        lambda: watched.exchange.market.order_by_hand("web_x", "LONG", 10.0, 1.0, "PENDING_REVIEW"),
    )
    assert watched.run(200_000) is Ending.ASKED
    watched.agree()


# --- the exchange closes --------------------------------------------------------------------------


@pytest.mark.slow
def test_auto_deleveraging_is_booked_as_a_close_and_the_rest_stays_protected(
    watched: Watched,
) -> None:
    def deleverage() -> None:
        qty = float(held(watched))
        watched.exchange.market.deleverage("LONG", round(qty / 2, 3))

    watched.at(60_000, deleverage)
    assert watched.run(200_000) is Ending.ASKED
    labels = {trade.label for trade in watched.scene.session.trades}
    assert "LIQUIDATION" not in labels
    assert watched.scene.alerts.count("auto-deleveraging") == 1
    watched.agree()


@pytest.mark.slow
def test_a_delisting_ends_entries_and_its_settlement_is_booked(watched: Watched) -> None:
    watched.at(60_000, watched.exchange.market.begin_settling)
    watched.at(600_000, watched.exchange.market.settle)
    assert watched.run(1_000_000) is Ending.ASKED
    assert watched.exchange.account.is_flat
    assert watched.scene.position_gaps() == [0.0, 0.0]
    assert watched.scene.alerts.count("SETTLING") >= 1
    assert watched.observer.false_health == []


# --- a process that is gone -----------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("takes_stops", [False, True])
def test_without_a_process_the_entries_go_and_the_next_one_lays_the_stops_first(
    watched: Watched, takes_stops: bool
) -> None:
    exchange = watched.exchange
    exchange.walk.countdown_takes_stops = takes_stops
    at_the_end: list[int] = []

    def die() -> None:
        at_the_end.append(len(exchange.book.open_orders))
        raise KeyboardInterrupt

    watched.at(100_000, die)
    with pytest.raises(KeyboardInterrupt):
        watched.scene.run()
    assert at_the_end[0] > 0
    exchange.advance(121_000)
    assert not exchange.book.open_orders
    again = watched.scene.reopened()
    assert again.run_until(exchange.now_ms + 30_000) is Ending.ASKED
    assert not watched.observer.unprotected
    assert again.position_gaps() == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["exchangeInfo", "klines"])
def test_a_saved_session_that_cannot_go_on_leaves_its_stops_and_no_entries(
    watched: Watched, path: str
) -> None:
    exchange = watched.exchange

    def die() -> None:
        raise KeyboardInterrupt

    watched.at(100_000, die)
    with pytest.raises(KeyboardInterrupt):
        watched.scene.run()
    assert len(exchange.book.open_orders) > 1
    exchange.faults.next(FaultKind.REFUSED, path=path, times=10**6, code=-1120)
    with pytest.raises(ExchangeError):
        watched.scene.reopened().live.runner.read_history()
    assert not exchange.book.open_orders
    assert {stop.position_side for stop in exchange.book.open_stops.values()} == {"LONG"}
    exchange.faults.clear()
    again = watched.scene.reopened()
    assert again.run_until(exchange.now_ms + 30_000) is Ending.ASKED
    assert again.position_gaps() == [0.0, 0.0]


# --- two coins ------------------------------------------------------------------------------------


@contextmanager
def two_coins(folder: Path, n_bars: int, poll_s: float = POLL_S) -> Iterator[list[Scene]]:
    """Yield two sessions on one account before a time with much trading."""
    with busy_day(folder, n_bars=n_bars, settings={**QUIET, "poll_s": poll_s}) as scene:
        yield [scene, join_other(scene, *other_market(n_bars))]


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [None, FaultKind.LOST_REPLY, FaultKind.OVERLOAD_503, FaultKind.TRADES_OUT_OF_ORDER],
    ids=lambda kind: kind.name if kind else "no fault",
)
def test_two_coins_on_one_account_keep_out_of_each_others_way(
    kind: FaultKind | None, tmp_path: Path
) -> None:
    with two_coins(tmp_path, 12) as scenes:
        observer = watch(scenes, KNOWN_MS + 30_000)
        if kind is not None:
            scenes[0].exchange.faults.rate(kind, 0.05, [ORDER, CANCEL, READ])
        endings = run_together(scenes, lambda scene: scene.run_to(WARM + 8))
        assert endings == [Ending.ASKED, Ending.ASKED]
        observer.assert_protected(POLL_MS + (30_000 if kind else READABLE_MS))
        for scene in scenes:
            assert scene.session.trades
            end, trades = finish(scene)
            assert_books_agree(end, trades)
            assert_nothing_twice(end)
