"""The simulated exchange over HTTP: what ccxt makes of it, signatures, request weight."""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import ccxt  # type: ignore[import-untyped]  # no stubs
import pytest

from tests.support.exchanges.bench import BAR, START, SYMBOL, TREND, Bench


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a running exchange at the second bar of ``TREND``."""
    with Bench() as bench:
        yield bench


def test_ccxt_reads_the_symbols_rules_and_the_candles(bench: Bench) -> None:
    market = bench.client.load_markets()[SYMBOL]
    assert list(bench.client.markets) == [SYMBOL, "BNB/USDT:USDT"]
    assert (market["precision"]["price"], market["precision"]["amount"]) == (0.1, 0.001)
    assert market["limits"]["cost"]["min"] == 5.0
    assert market["limits"]["amount"]["min"] == 0.002
    assert market["active"]
    assert bench.client.fetch_time() == START + BAR
    bench.clock.sleep(900.0 + 450.0)
    rows = bench.client.fetch_ohlcv(SYMBOL, "15m")
    assert [row[0] for row in rows] == [START, START + BAR, START + 2 * BAR]
    # 445 of 838.75 s on the way 100 - 96 - 104 - 101 of 15: 7.958, to the tick before
    assert rows[-1][1:5] == [100.0, 100.0, 96.0, 99.9]
    assert bench.exchange.price == Decimal("99.9")
    assert bench.client.fetch_ohlcv(SYMBOL, "15m", START + BAR, 1)[0][0] == START + BAR
    assert bench.client.fetch_ohlcv(SYMBOL, "15m", None, 2)[0][0] == START + BAR
    latest = bench.client.fetch_ohlcv(SYMBOL, "15m", None, 9, {"until": START + BAR})
    assert [row[0] for row in latest] == [START, START + BAR]


def test_ccxt_trades_a_round_with_a_stop(bench: Bench) -> None:
    client, exchange = bench.client, bench.exchange
    order = bench.limit(98.0, "entry")
    assert (order["status"], order["clientOrderId"]) == ("open", "entry")
    assert [o["id"] for o in client.fetch_open_orders(SYMBOL)] == [order["id"]]
    bench.clock.sleep(10_000.0)
    assert client.fetch_order(None, SYMBOL, {"origClientOrderId": "entry"})["status"] == "closed"
    trade = client.fetch_my_trades(SYMBOL, params={"orderId": order["id"]})[0]
    assert (trade["price"], trade["fee"]["cost"]) == (98.0, 0.0196)
    assert trade["takerOrMaker"] == "maker"
    assert START + 2 * BAR < trade["timestamp"] < START + 3 * BAR
    position = client.fetch_positions([SYMBOL])[0]
    assert (position["side"], position["contracts"], position["entryPrice"]) == ("long", 1.0, 98.0)
    stop = bench.stop(95.0)
    assert (stop["status"], stop["triggerPrice"]) == ("open", 95.0)
    assert client.fetch_open_orders(SYMBOL) == []
    assert client.fetch_open_orders(SYMBOL, params={"trigger": True})[0]["id"] == stop["id"]
    bench.clock.sleep(10_000.0)
    fired = client.fetch_order(None, SYMBOL, {"trigger": True, "clientAlgoId": "s"})
    assert fired["status"] == "closed"
    exit_order = client.fetch_order(fired["info"]["actualOrderId"], SYMBOL)
    assert (exit_order["average"], exit_order["filled"]) == (94.9, 1.0)  # 94.9525
    assert client.fetch_positions([SYMBOL]) == []
    balance = client.fetch_balance()["USDT"]
    assert balance["free"] == balance["total"] == float(exchange.account.wallet)


def test_ccxt_sends_and_cancels_in_batches(bench: Bench) -> None:
    more = {"hedged": True, "postOnly": True}
    wanted = [
        {
            "symbol": SYMBOL,
            "type": "limit",
            "side": "buy",
            "amount": 1,
            "price": price,
            "params": {**more, "newClientOrderId": f"b{price}"},
        }
        for price in (97.0, 100.0, 96.0)
    ]
    answers = bench.client.create_orders(wanted)
    assert [answer["clientOrderId"] for answer in answers] == [None, "b97.0", "b96.0"]
    assert answers[0]["info"]["code"] == -5022
    ids = [answer["id"] for answer in answers[1:]]
    gone = bench.client.cancel_orders([*ids, "123"], SYMBOL)
    assert [answer["status"] for answer in gone].count("canceled") == 2
    assert bench.client.fetch_open_orders(SYMBOL) == []
    for price in (97.0, 96.0):
        bench.limit(price, f"c{price}")
    bench.client.cancel_orders([], SYMBOL, {"clientOrderIds": ["c97.0"]})
    assert len(bench.exchange.book.open_orders) == 1
    bench.client.cancel_all_orders(SYMBOL)
    assert not bench.exchange.book.open_orders
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.cancel_order(ids[0], SYMBOL)
    with pytest.raises(ccxt.BadRequest, match="-4082"):
        bench.client.create_orders(wanted[:1] * 6)
    assert (
        bench.signed.code(
            "DELETE", "v1/batchOrders", symbol="BTCUSDT", orderIdList=json.dumps(list(range(11)))
        )
        == -4032
    )


def test_ccxt_cancels_stops_only_by_their_own_endpoint(bench: Bench) -> None:
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    stop = bench.stop(95.0)
    bench.client.cancel_all_orders(SYMBOL)
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.cancel_order(stop["id"], SYMBOL)
    assert bench.exchange.book.open_stops
    bench.client.cancel_order(stop["id"], SYMBOL, {"trigger": True})
    assert not bench.exchange.book.open_stops
    bench.stop(95.0)
    bench.client.cancel_all_orders(SYMBOL, {"trigger": True})
    assert not bench.exchange.book.open_stops
    with pytest.raises(ccxt.OrderNotFound):
        bench.client.fetch_order("1", SYMBOL, {"trigger": True})


def test_ccxt_sets_up_the_account(bench: Bench) -> None:
    client, account = bench.client, bench.exchange.account
    client.load_markets()
    assert client.fetch_position_mode(SYMBOL)["hedged"]
    with pytest.raises(ccxt.OperationRejected, match="-4059"):
        client.set_position_mode(True, SYMBOL)
    with pytest.raises(ccxt.MarginModeAlreadySet, match="-4046"):
        client.set_margin_mode("cross", SYMBOL)
    client.set_leverage(3, SYMBOL)
    assert account.leverage == 3
    bench.limit(97.0)
    with pytest.raises(ccxt.OperationRejected, match="-4067"):
        client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4047"):
        client.set_margin_mode("isolated", SYMBOL)
    client.cancel_all_orders(SYMBOL)
    bench.exchange.hand_trade("LONG", "BUY", 2_500.0)
    with pytest.raises(ccxt.OperationRejected, match="-4068"):
        client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4048"):
        client.set_margin_mode("isolated", SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-2028"):
        client.set_leverage(1, SYMBOL)
    assert account.leverage == 3
    bench.exchange.hand_trade("LONG", "SELL", 2_500.0)
    client.set_position_mode(False, SYMBOL)
    with pytest.raises(ccxt.OperationRejected, match="-4061"):
        bench.limit(97.0)
    assert bench.signed.code("POST", "v1/leverage", symbol="BTCUSDT", leverage=126) == -4028


def test_ccxt_reads_fees_brackets_prices_and_margin(bench: Bench) -> None:
    client = bench.client
    fee = client.fetch_trading_fee(SYMBOL)
    assert (fee["maker"], fee["taker"]) == (0.0002, 0.0005)
    tiers = client.fetch_leverage_tiers([SYMBOL])[SYMBOL]
    assert [tier["maintenanceMarginRate"] for tier in tiers][:3] == [0.004, 0.005, 0.01]
    assert client.fetch_last_prices([SYMBOL])[SYMBOL]["price"] == 100.0
    assert client.fetch_funding_rate(SYMBOL)["markPrice"] == 100.0
    assert client.fetch_margin_mode(SYMBOL)["marginMode"] == "cross"
    bench.exchange.hand_trade("SHORT", "SELL", 2.0)
    position = client.fetch_positions([SYMBOL], {"useV2": True})[0]
    assert (position["side"], position["contracts"]) == ("short", 2.0)
    assert position["info"]["positionAmt"] == "-2.0"
    assert position["liquidationPrice"] > 10_000.0
    bench.limit(97.0, qty=10.0)
    free = client.fetch_balance({"useV2": True})["USDT"]["free"]
    # fee 0.0999, entry at 99.9 under a mark of 100
    assert free == pytest.approx(100_000 - 0.0999 - 0.2 - 200 - 970)
    rows = bench.signed("GET", "v3/balance").json()
    assert float(rows[0]["availableBalance"]) == free


def test_ccxt_reads_funding_paid_and_settled() -> None:
    settlements = [(START, 0.0003), (START + 2 * BAR + 4, 0.001)]
    with Bench(*TREND, funding=settlements) as bench:
        client = bench.client
        bench.exchange.hand_trade("LONG", "BUY", 2.0)
        coming = client.fetch_funding_rate(SYMBOL)
        assert coming["fundingTimestamp"] == START + 2 * BAR
        known = client.fetch_funding_rate_history(SYMBOL)
        assert [row["fundingRate"] for row in known] == [0.0003]
        bench.clock.sleep(900.0)
        paid = client.fetch_funding_history(SYMBOL, START)
        assert [(row["amount"], row["timestamp"]) for row in paid] == [(-0.2, START + 2 * BAR)]
        rates = client.fetch_funding_rate_history(SYMBOL, START + 1)
        assert [(row["timestamp"], row["fundingRate"]) for row in rates] == settlements[1:]


def test_ccxt_reaches_the_exchange_in_demo_trading_and_nothing_else(bench: Bench) -> None:
    bench.client.enable_demo_trading(True)
    assert bench.limit(97.0)["status"] == "open"
    with pytest.raises(ccxt.NetworkError):
        bench.client.publicGetTime()


def test_trades_come_by_id_or_in_windows_of_seven_days(bench: Bench) -> None:
    for _ in range(3):
        bench.exchange.hand_trade("LONG", "BUY", 1.0)
    first = bench.exchange.account.trades[0].trade_id
    ask = {"symbol": "BTCUSDT"}

    def ids(**params: int) -> list[int]:
        rows = bench.signed("GET", "v1/userTrades", **ask, **params).json()
        return [row["id"] - first for row in rows]

    assert ids() == ids(startTime=START) == [0, 1, 2]
    assert ids(fromId=first + 1) == [1, 2]
    assert ids(fromId=first + 1, limit=1) == [1]
    assert ids(limit=1) == [2]
    assert ids(startTime=START, limit=1) == [0]
    bench.exchange.advance(8 * 86_400_000)
    assert ids() == ids(startTime=START + BAR + 1) == []
    assert ids(startTime=START) == ids(endTime=START + BAR) == [0, 1, 2]
    signed, path = bench.signed, "v1/userTrades"
    assert signed.code("GET", path, **ask, fromId=1, startTime=START) == -1128
    assert signed.code("GET", path, **ask, startTime=START, endTime=START + 604_800_001) == -4165
    assert signed.code("GET", path, **ask, limit=1_001) == -1130
    assert len(signed("GET", "v1/income", limit=2, startTime=START, page=2).json()) == 1


def test_orders_are_forgotten_in_time(bench: Bench) -> None:
    ask = {"symbol": "BTCUSDT", "origClientOrderId": "a"}
    bench.limit(97.0)
    bench.client.cancel_order(None, SYMBOL, {"origClientOrderId": "a"})
    assert bench.signed("GET", "v1/order", **ask).json()["status"] == "CANCELED"
    assert len(bench.signed("GET", "v1/allOrders", symbol="BTCUSDT").json()) == 1
    bench.exchange.advance(3 * 86_400_000 + 1)
    assert bench.signed.code("GET", "v1/order", **ask) == -2013
    assert bench.signed.code("GET", "v1/order", symbol="BTCUSDT") == -1102
    assert bench.signed.code("DELETE", "v1/order", **ask) == -2011


def test_the_symbol_the_interval_and_the_path_must_exist(bench: Bench) -> None:
    assert bench.signed.code("GET", "v1/klines", symbol="DOGEUSDT", interval="15m") == -1121
    assert bench.signed.code("GET", "v1/klines", symbol="BTCUSDT", interval="1m") == -1120
    assert bench.signed.code("GET", "v1/klines", interval="15m") == -1102
    assert bench.signed("GET", "v1/nothing").status_code == 404


def test_a_halt_shows_in_the_rules(bench: Bench) -> None:
    bench.exchange.halt_symbol()
    assert not bench.client.load_markets()[SYMBOL]["active"]
    with pytest.raises(ccxt.OperationRejected, match="-4141"):
        bench.limit(97.0)


# --- key, signature, time, weight ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (-2014, {"key": ""}),
        (-2015, {"key": "other"}),
        (-1022, {"secret": "other"}),
        (-1021, {"timestamp": START + BAR + 1_000}),
        (-1021, {"timestamp": START + BAR - 5_001}),
        (-1021, {"timestamp": START + BAR - 5_001, "recvWindow": 5_000}),
        (-1131, {"recvWindow": 60_001}),
        (-1102, {"timestamp": ""}),
    ],
)
def test_key_signature_and_time_are_checked(
    bench: Bench, code: int, changes: dict[str, Any]
) -> None:
    assert bench.signed.code("GET", "v3/balance", **changes) == code


def test_timestamps_are_accepted_up_to_the_window_and_judged_by_the_exchanges_clock(
    bench: Bench,
) -> None:
    now = bench.exchange.now_ms
    for stamp in (now + 999, now - 5_000):
        assert bench.signed("GET", "v3/balance", timestamp=stamp).status_code == 200
    assert bench.signed("POST", "v1/leverage", symbol="BTCUSDT", leverage=2).status_code == 200
    bench.client.load_markets()
    bench.exchange.clock_skew_ms = 30_000
    with pytest.raises(ccxt.InvalidNonce, match="-1021"):
        bench.limit(97.0)
    bench.client.load_time_difference()
    assert bench.limit(97.0)["status"] == "open"


def test_weight_and_orders_are_reported_and_start_anew_with_the_minute(bench: Bench) -> None:
    def reported(name: str) -> int:
        return int(bench.client.last_response_headers[f"X-MBX-{name}"])

    bench.client.load_markets()
    assert reported("USED-WEIGHT-1M") == 1
    bench.limit(97.0, "a")
    assert (
        reported("USED-WEIGHT-1M"),
        reported("ORDER-COUNT-10S"),
        reported("ORDER-COUNT-1M"),
    ) == (1, 1, 1)
    bench.client.fetch_ohlcv(SYMBOL, "15m", None, 1_000)
    assert reported("USED-WEIGHT-1M") == 6
    bench.client.fetch_ohlcv(SYMBOL, "15m", params={"limit": 1_500})
    assert reported("USED-WEIGHT-1M") == 16
    bench.client.fetch_my_trades(SYMBOL)
    assert reported("USED-WEIGHT-1M") == 21
    assert "X-MBX-ORDER-COUNT-1M" not in bench.client.last_response_headers
    bench.clock.sleep(10.0)
    bench.limit(97.0, "b")
    assert (reported("ORDER-COUNT-10S"), reported("ORDER-COUNT-1M")) == (1, 2)
    bench.clock.sleep(50.0)
    bench.client.fetch_position_mode(SYMBOL)
    assert reported("USED-WEIGHT-1M") == 30
    assert bench.exchange.limits.max_weight == 30


def test_who_goes_on_over_the_limit_is_banned(bench: Bench) -> None:
    bench.exchange.limits.weight_limit = 10
    bench.clock.sleep(45.0)
    assert bench.signed("GET", "v3/balance").status_code == 200
    assert bench.signed("GET", "v3/balance").status_code == 200
    with pytest.raises(ccxt.DDoSProtection, match="429"):
        bench.client.fetch_time()
    assert bench.client.last_response_headers["Retry-After"] == "15"
    bench.clock.sleep(15.0)
    for _ in range(2):
        bench.signed("GET", "v3/balance")
    assert bench.signed("GET", "v3/balance").status_code == 429
    answer = bench.signed("GET", "v3/balance")
    assert (answer.status_code, answer.headers["Retry-After"]) == (418, "120")
    bench.clock.sleep(60.0)
    with pytest.raises(ccxt.DDoSProtection, match="418"):
        bench.client.fetch_time()
    bench.clock.sleep(60.0)
    assert bench.signed("GET", "v3/balance").status_code == 200


def test_three_hundred_orders_in_ten_seconds_are_the_most(bench: Bench) -> None:
    for _ in range(300):
        bench.signed("POST", "v1/order")
    answer = bench.signed("POST", "v1/order")
    assert (answer.status_code, answer.json()["code"]) == (429, -1015)
    bench.clock.sleep(10.0)
    assert bench.signed.code("POST", "v1/order") == -1102
