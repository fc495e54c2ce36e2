"""The simulated exchange as one account with several symbols, and what the exchange itself does."""

from __future__ import annotations

import threading
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from live.simulated.exchange import SimExchange
from live.simulated.faults import ORDER, FaultKind
from live.simulated.symbol_market import SymbolMarket
from tests.support.clocks.turns import Turns
from tests.support.exchanges.bench import (
    BAR,
    FLAT,
    LIMIT,
    RULES,
    START,
    STOP,
    Bench,
    exchange_of,
    lay,
    lay_stop,
    refused,
)
from tests.support.exchanges.observer import ProtectionObserver, Side

FALL = (100.0, 100.0, 90.0, 95.0)
LATE_FALL = (100.0, 101.0, 90.0, 95.0)


def with_ether(exchange: SimExchange, *bars: tuple[float, float, float, float]) -> SymbolMarket:
    rows = [(START + i * BAR, *ohlc, 10.0) for i, ohlc in enumerate(bars)]
    return exchange.add_symbol(rows, coin="ETH", rules=RULES, start_bar=exchange.walk.bar)


def long_with_stop(market: SymbolMarket, exchange: SimExchange, client_id: str) -> None:
    exchange.hand_trade("LONG", "BUY", 1.0, market)
    market.entry.place_stop({**STOP, "clientAlgoId": client_id})


# --- several symbols ------------------------------------------------------------------------------


def test_two_symbols_share_the_wallet_and_keep_their_positions_and_orders() -> None:
    exchange = exchange_of(FLAT, FALL)
    ether = with_ether(exchange, FLAT, FLAT)
    lay(exchange, "BUY", "LONG", 97.0)
    ether.entry.place({**LIMIT, "price": "99"})
    exchange.hand_trade("SHORT", "SELL", 2.0, ether)
    exchange.advance(2 * BAR - 1)
    assert float(exchange.account.positions["LONG"].qty) == 1.0
    assert [float(side.qty) for side in ether.account.positions.values()] == [0.0, 2.0]
    assert len(ether.book.open_orders) == 1
    booked = exchange.account.incomes + ether.account.incomes
    assert exchange.account.wallet == ether.account.wallet
    assert exchange.pool.balance == 100_000 + sum(income.amount for income in booked)


def test_margin_that_one_symbol_holds_is_not_free_for_another() -> None:
    exchange = exchange_of(FLAT, wallet=1_000.0)
    ether = with_ether(exchange, FLAT)
    exchange.hand_trade("LONG", "BUY", 6.0)
    with refused(-2019):
        ether.entry.place({**LIMIT, "quantity": "5"})
    ether.entry.place({**LIMIT, "quantity": "4"})


def test_an_event_of_either_symbol_stops_time_for_both() -> None:
    exchange = exchange_of(LATE_FALL)
    ether = with_ether(exchange, FALL)
    lay(exchange, "BUY", "LONG", 97.0)
    ether.entry.place({**LIMIT, "price": "97"})
    assert not exchange.run_until(START + BAR - 1)
    assert (len(ether.account.trades), len(exchange.account.trades)) == (1, 0)
    assert exchange.now_ms == ether.walk.now_ms == ether.account.trades[0].ts_ms
    assert not exchange.run_until(START + BAR - 1)
    assert len(exchange.account.trades) == 1
    assert exchange.now_ms == ether.walk.now_ms
    assert exchange.run_until(START + BAR - 1)


def test_names_of_conditional_orders_belong_to_the_account() -> None:
    exchange = exchange_of(FLAT)
    ether = with_ether(exchange, FLAT)
    long_with_stop(exchange.market, exchange, "same")
    exchange.hand_trade("LONG", "BUY", 1.0, ether)
    with refused(-20132):
        ether.entry.place_stop({**STOP, "clientAlgoId": "same"})
    ether.entry.place_stop({**STOP, "clientAlgoId": "other"})
    with refused(-4116):
        ether.entry.place_stop({**STOP, "clientAlgoId": "other"})


def test_a_conditional_order_is_found_and_cancelled_whatever_symbol_is_named() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        ether = with_ether(bench.exchange, FLAT)
        long_with_stop(ether, bench.exchange, "theirs")
        reported = bench.signed(
            "GET", "v1/algoOrder", symbol="BTCUSDT", clientAlgoId="theirs"
        ).json()
        assert reported["symbol"] == "ETHUSDT"
        bench.signed("DELETE", "v1/algoOrder", symbol="BTCUSDT", clientAlgoId="theirs")
        assert not ether.book.open_stops


def test_without_a_symbol_the_account_tells_of_all_and_with_one_of_that() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        ether = with_ether(bench.exchange, FLAT)
        for market in (bench.exchange.market, ether):
            bench.exchange.hand_trade("LONG", "BUY", 1.0, market)
            market.entry.place({**LIMIT, "price": "97"})
        for path in ("v3/positionRisk", "v1/openOrders", "v1/income"):
            rows = bench.signed("GET", path).json()
            assert {row["symbol"] for row in rows} == {"BTCUSDT", "ETHUSDT"}, path
            rows = bench.signed("GET", path, symbol="ETHUSDT").json()
            assert {row["symbol"] for row in rows} == {"ETHUSDT"}, path
        account = bench.signed("GET", "v3/account").json()
        assert float(account["totalInitialMargin"]) == pytest.approx(200.0 + 2 * 97.0)
        assert bench.signed.code("GET", "v1/openOrders", symbol="XYZUSDT") == -1121


# --- sleeping sessions ----------------------------------------------------------------------------


def test_sessions_that_share_a_clock_wake_in_the_order_of_their_wishes() -> None:
    exchange, woken = exchange_of(FLAT, FLAT), list[tuple[str, int]]()
    turns = Turns(exchange, 2)

    def live(name: str, step_ms: int) -> None:
        for _ in range(3):
            turns.sleep(name, exchange.now_ms + step_ms)
            woken.append((name, exchange.now_ms - START))
        turns.leave(name, for_good=True)

    threads = [threading.Thread(target=live, args=item) for item in (("a", 200), ("b", 300))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(woken, key=lambda item: item[1]) == woken
    assert {item for item in woken if item[0] == "a"} == {("a", 200), ("a", 400), ("a", 600)}
    assert {item for item in woken if item[0] == "b"} == {("b", 300), ("b", 600), ("b", 900)}


# --- what the exchange does of itself -------------------------------------------------------------


@pytest.mark.parametrize("takes_stops", [False, True])
def test_the_countdown_cancels_orders_when_it_is_not_renewed(takes_stops: bool) -> None:
    with Bench(FLAT, FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        exchange.walk.countdown_takes_stops = takes_stops
        exchange.hand_trade("LONG", "BUY", 1.0)
        lay(exchange, "BUY", "LONG", 97.0)
        lay_stop(exchange, "LONG", 90.0)
        bench.signed("POST", "v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=120_000)
        exchange.advance(90_000)
        bench.signed("POST", "v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=120_000)
        exchange.advance(119_999)
        assert len(exchange.book.open_orders) == 1
        exchange.advance(1)
        assert not exchange.book.open_orders
        assert len(exchange.book.open_stops) == (0 if takes_stops else 1)
        lay(exchange, "BUY", "LONG", 97.0)
        exchange.advance(300_000)
        assert len(exchange.book.open_orders) == 1


def test_a_countdown_of_nothing_switches_it_off() -> None:
    with Bench(FLAT, FLAT, start_bar=0) as bench:
        lay(bench.exchange, "BUY", "LONG", 97.0)
        for wait_ms in (5_000, 0):
            bench.signed("POST", "v1/countdownCancelAll", symbol="BTCUSDT", countdownTime=wait_ms)
        bench.exchange.advance(10_000)
        assert len(bench.exchange.book.open_orders) == 1


def test_rules_that_change_hold_for_what_comes_and_leave_what_rests() -> None:
    exchange = exchange_of(FLAT)
    lay(exchange, "BUY", "LONG", 97.1)
    exchange.market.change_rules(replace(RULES, tick_size=0.5, step_size=0.01), max_leverage=20)
    with refused(-4014):
        lay(exchange, "BUY", "LONG", 97.1)
    with refused(-1111):
        lay(exchange, "BUY", "LONG", 97.5, 1.001)
    lay(exchange, "BUY", "LONG", 97.5, 1.01)
    assert len(exchange.book.open_orders) == 2


def test_a_highest_leverage_that_fell_is_reported_and_kept() -> None:
    with Bench(FLAT, start_bar=0, leverage=50) as bench:
        bench.exchange.market.change_rules(RULES, max_leverage=20)
        assert bench.exchange.account.leverage == 20
        assert bench.signed.code("POST", "v1/leverage", symbol="BTCUSDT", leverage=21) == -4028
        (row,) = bench.signed("GET", "v1/leverageBracket", symbol="BTCUSDT").json()
        assert max(bracket["initialLeverage"] for bracket in row["brackets"]) == 20


def test_an_order_at_market_may_be_smaller_at_most_than_a_limit() -> None:
    exchange = exchange_of(FLAT, max_market_qty=2.0)
    lay(exchange, "BUY", "LONG", 97.0, 3.0)
    market = {name: LIMIT[name] for name in ("side", "positionSide")}
    with refused(-4005):
        exchange.entry.place({**market, "type": "MARKET", "quantity": "2.001"})
    exchange.entry.place({**market, "type": "MARKET", "quantity": "2"})


def test_delisting_ends_orders_then_closes_what_is_left() -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    lay(exchange, "BUY", "LONG", 97.0)
    lay_stop(exchange, "LONG", 90.0)
    exchange.market.begin_settling()
    assert not exchange.book.open_orders
    with refused(-4108):
        lay(exchange, "SELL", "LONG", 103.0)
    (order,) = exchange.market.settle()
    assert order.client_id.startswith("settlement_autoclose-")
    assert exchange.account.is_flat
    assert not exchange.book.open_stops


def test_auto_deleveraging_takes_a_part_under_the_exchanges_name() -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    lay_stop(exchange, "LONG", 90.0)
    order = exchange.market.deleverage("LONG", 0.4)
    assert (order.client_id, order.status) == ("adl_autoclose", "FILLED")
    assert exchange.account.positions["LONG"].qty == Decimal("0.6")
    assert len(exchange.book.open_stops) == 1


def test_fees_in_another_asset_leave_the_quote_alone() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        exchange.account.fee_asset = "BNFCR"
        exchange.hand_trade("LONG", "BUY", 1.0)
        (trade,) = bench.signed("GET", "v1/userTrades", symbol="BTCUSDT").json()
        assert trade["commissionAsset"] == "BNFCR"
        assert exchange.account.wallet == 100_000
        assert exchange.pool.other_assets["BNFCR"] == -exchange.account.trades[0].fee
        assert bench.signed.code("GET", "v2/ticker/price", symbol="BNFCRUSDT") == -1121
        assert float(bench.signed("GET", "v2/ticker/price", symbol="BNBUSDT").json()["price"]) > 0


@pytest.mark.parametrize("code", [-4400, -4401, -4192, -4087])
def test_what_only_forbids_opening_lets_closing_through(code: int) -> None:
    exchange = exchange_of(FLAT, FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.market.restriction.opening_code = code
    exchange.market.restriction.until_ms = START + 60_000
    with refused(code):
        lay(exchange, "BUY", "LONG", 97.0)
    lay(exchange, "SELL", "LONG", 103.0, 0.5)
    lay_stop(exchange, "LONG", 90.0)
    exchange.advance(60_000)
    lay(exchange, "BUY", "LONG", 97.0)


def test_the_quantitative_rules_tell_until_when_they_hold() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        rule = bench.exchange.market.restriction
        assert bench.signed("GET", "v1/apiTradingStatus").json()["indicators"] == {}
        rule.opening_code, rule.until_ms = -4400, START + 60_000
        reported = bench.signed("GET", "v1/apiTradingStatus", symbol="BTCUSDT").json()["indicators"]
        assert reported["BTCUSDT"][0]["plannedRecoverTime"] == START + 60_000


def test_a_position_too_young_to_be_seen_gets_no_closing_stop() -> None:
    exchange = exchange_of(FLAT, FLAT)
    exchange.market.restriction.unseen_ms = 3_000
    exchange.hand_trade("LONG", "BUY", 1.0)
    with refused(-4509):
        lay_stop(exchange, "LONG", 90.0)
    exchange.advance(3_000)
    lay_stop(exchange, "LONG", 90.0)


def test_stops_with_a_quantity_stand_beside_the_closing_one_and_close_no_more_than_there_is() -> (
    None
):
    exchange = exchange_of(FLAT, FALL)
    exchange.hand_trade("LONG", "BUY", 1.0)
    part = {name: value for name, value in STOP.items() if name != "closePosition"}
    exchange.entry.place_stop({**part, "quantity": "0.4", "triggerPrice": "95"})
    lay_stop(exchange, "LONG", 94.0)
    exchange.entry.place_stop({**part, "quantity": "5", "triggerPrice": "96"})
    with refused(-4130):
        lay_stop(exchange, "LONG", 93.0)
    with refused(-4137):
        exchange.entry.place_stop({**STOP, "quantity": "1"})
    exchange.hand_trade("LONG", "BUY", 9.0)
    exchange.advance(2 * BAR - 1)
    closed = [float(trade.qty) for trade in exchange.account.trades if trade.side == "SELL"]
    assert closed == [5.0, 0.4, 4.6]
    assert not exchange.book.open_stops


def test_one_conditional_order_too_many_is_refused() -> None:
    exchange = exchange_of(FLAT)
    exchange.hand_trade("LONG", "BUY", 1.0)
    exchange.market.restriction.max_open_stops = 1
    lay_stop(exchange, "LONG", 90.0)
    part = {name: value for name, value in STOP.items() if name != "closePosition"}
    with refused(-4045):
        exchange.entry.place_stop({**part, "quantity": "1", "triggerPrice": "95"})


def test_somebody_elses_order_may_be_reported_in_a_word_nobody_knows() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        bench.exchange.market.order_by_hand("web_x", "LONG", 90.0, 1.0, "PENDING_REVIEW")
        (row,) = bench.signed("GET", "v1/openOrders", symbol="BTCUSDT").json()
        assert (row["clientOrderId"], row["status"]) == ("web_x", "PENDING_REVIEW")


def test_trades_of_more_than_three_months_ago_are_not_reported() -> None:
    with Bench(FLAT, start_bar=0) as bench:
        bench.exchange.hand_trade("LONG", "BUY", 1.0)
        old = bench.exchange.now_ms - 91 * 86_400_000
        asked: dict[str, Any] = {"symbol": "BTCUSDT", "startTime": old}
        assert bench.signed.code("GET", "v1/userTrades", **asked) == -4166
        bench.exchange.advance(91 * 86_400_000)
        assert bench.signed("GET", "v1/userTrades", symbol="BTCUSDT", fromId=1).json() == []


# --- faults ---------------------------------------------------------------------------------------


def test_the_order_endpoints_may_be_down_alone_and_for_a_time() -> None:
    with Bench(FLAT, FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        exchange.hand_trade("LONG", "BUY", 1.0)
        exchange.faults.during(START + 1_000, START + 5_000, FaultKind.OVERLOAD_503, [ORDER])
        exchange.advance(1_000)
        sent = {"symbol": "BTCUSDT", **STOP, "triggerPrice": "90"}
        assert bench.signed.code("POST", "v1/algoOrder", **sent) == -1008
        assert bench.signed("GET", "v1/openOrders", symbol="BTCUSDT").status_code == 200
        exchange.advance(4_000)
        assert bench.signed("POST", "v1/algoOrder", **sent).status_code == 200


def test_faults_of_one_symbol_leave_the_other_alone() -> None:
    exchange = exchange_of(FLAT)
    exchange.faults.during(0, 10**18, FaultKind.DROP, [ORDER], symbol="BTCUSDT")
    draw = exchange.faults.draw
    assert draw(ORDER, "POST", "/fapi/v1/order", "BTCUSDT", START) is not None
    assert draw(ORDER, "POST", "/fapi/v1/order", "ETHUSDT", START) is None


@pytest.mark.parametrize(
    ("kind", "listed", "single"),
    [
        (FaultKind.LATE_ORDERS, "openOrders", "order"),
        (FaultKind.LATE_STOPS, "openAlgoOrders", "algoOrder"),
    ],
)
def test_what_was_taken_may_be_listed_and_known_late(
    kind: FaultKind, listed: str, single: str
) -> None:
    with Bench(FLAT, FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        exchange.hand_trade("LONG", "BUY", 1.0)
        exchange.entry.place({**LIMIT, "newClientOrderId": "one"})
        exchange.entry.place_stop({**STOP, "triggerPrice": "90", "clientAlgoId": "one"})
        exchange.faults.during(0, 10**18, kind, lag_ms=5_000)
        name = {"clientAlgoId": "one"} if single == "algoOrder" else {"origClientOrderId": "one"}
        assert bench.signed("GET", f"v1/{listed}", symbol="BTCUSDT").json() == []
        assert bench.signed.code("GET", f"v1/{single}", symbol="BTCUSDT", **name) == -2013
        exchange.advance(5_000)
        assert len(bench.signed("GET", f"v1/{listed}", symbol="BTCUSDT").json()) == 1
        assert bench.signed("GET", f"v1/{single}", symbol="BTCUSDT", **name).status_code == 200


def test_a_trade_may_be_listed_after_a_younger_one() -> None:
    with Bench(FLAT, FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        for _ in range(4):
            exchange.hand_trade("LONG", "BUY", 1.0)
        known = [trade.trade_id for trade in exchange.account.trades]
        exchange.faults.during(0, 10**18, FaultKind.TRADES_OUT_OF_ORDER, lag_ms=5_000)

        def reported() -> list[int]:
            return [
                row["id"] for row in bench.signed("GET", "v1/userTrades", symbol="BTCUSDT").json()
            ]

        assert reported() == [number for number in known if number % 2 == 0]
        assert 0 < len(reported()) < 4
        exchange.advance(5_000)
        assert reported() == known


@pytest.mark.parametrize("path", ["v3/positionRisk", "v1/openOrders", "v1/userTrades"])
def test_a_list_may_come_empty_from_one_endpoint(path: str) -> None:
    with Bench(FLAT, start_bar=0) as bench:
        exchange = bench.exchange
        exchange.hand_trade("LONG", "BUY", 1.0)
        lay(exchange, "BUY", "LONG", 97.0)
        exchange.faults.next(FaultKind.EMPTY, path=path)
        assert bench.signed("GET", path, symbol="BTCUSDT").json() == []
        assert bench.signed("GET", path, symbol="BTCUSDT").json() != []


# --- the observer ---------------------------------------------------------------------------------


def watched(exchange: SimExchange, health: Path | None = None) -> ProtectionObserver:
    files = {} if health is None else {exchange.symbol: health}
    return ProtectionObserver(exchange, files, known_after_ms=5_000)


def test_the_observer_measures_from_the_fill_to_the_stop() -> None:
    exchange = exchange_of(FLAT, FLAT)
    observer = watched(exchange)
    exchange.advance(1_000)
    exchange.hand_trade("LONG", "BUY", 1.0)
    observer.look()
    exchange.advance(3_000)
    assert observer.unprotected == {Side("BTCUSDT", "LONG")}
    lay_stop(exchange, "LONG", 90.0)
    observer.look()
    exchange.advance(60_000)
    assert observer.longest_ms == 3_000
    assert observer.unprotected == set()
    observer.assert_protected(3_000)
    with pytest.raises(AssertionError):
        observer.assert_protected(2_999)


def test_the_observer_proves_nothing_where_nothing_was_held() -> None:
    with pytest.raises(AssertionError, match="nothing was ever held"):
        watched(exchange_of(FLAT)).assert_protected(0)


def test_the_observer_counts_a_position_that_its_stops_cover_in_part_as_unprotected() -> None:
    exchange = exchange_of(FLAT)
    observer = watched(exchange)
    exchange.hand_trade("LONG", "BUY", 1.0)
    part = {name: value for name, value in STOP.items() if name != "closePosition"}
    exchange.entry.place_stop({**part, "quantity": "0.6", "triggerPrice": "90"})
    assert observer.unprotected == {Side("BTCUSDT", "LONG")}
    exchange.entry.place_stop({**part, "quantity": "0.4", "triggerPrice": "90"})
    assert observer.unprotected == set()


def test_the_observer_does_not_count_the_time_in_which_no_order_is_taken() -> None:
    exchange = exchange_of(FLAT, FLAT)
    observer = watched(exchange)
    exchange.faults.during(START + 2_000, START + 50_000, FaultKind.BUSY_503, [ORDER])
    exchange.hand_trade("LONG", "BUY", 1.0)
    observer.look()
    for _ in range(26):
        exchange.advance(2_000)
    assert observer.longest_ms == 2_000  # before the outage, and after it
    exchange.advance(7_000)
    assert observer.longest_ms == 9_000


def test_the_observer_reads_what_the_health_file_says_of_an_unprotected_side(
    tmp_path: Path,
) -> None:
    exchange, path = exchange_of(FLAT, FLAT), tmp_path / "health.json"
    observer = watched(exchange, path)
    exchange.hand_trade("LONG", "BUY", 1.0)
    observer.look()
    exchange.advance(6_000)

    def say(conditions: str) -> None:
        stamp = exchange.now_ms
        path.write_text(f'{{"status": "OK", "updated_at": {stamp}, "conditions": {conditions}}}')
        observer.look()

    say('{"LONG stop": "none"}')
    assert observer.false_health == []
    say("{}")
    assert [(side, status) for _, side, status in observer.false_health] == [
        (Side("BTCUSDT", "LONG"), "OK")
    ]


def test_the_observer_looks_beside_the_hooks_of_a_test() -> None:
    exchange, seen = exchange_of(FLAT), list[int]()
    exchange.before_request = lambda number, *_: seen.append(number)
    observer = watched(exchange)
    exchange.hand_trade("LONG", "BUY", 1.0)
    assert exchange.before_request is not None
    exchange.before_request(7, "GET", "/fapi/v1/time")
    assert seen == [7]
    assert observer.looks > 1
