"""Faults of the simulated exchange, its hooks, and time driven from elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import ccxt  # type: ignore[import-untyped]  # no stubs
import pytest

from live.simulated.clock import RemoteClock
from live.simulated.faults import CANCEL, ORDER, READ, FaultKind
from tests.support.exchanges.bench import BAR, FLAT, START, SYMBOL, Bench, exchange_of


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a running exchange at the second bar of ``TREND``."""
    with Bench() as bench:
        yield bench


# --- faults -------------------------------------------------------------------------------------

Outcome = tuple[FaultKind, bool | None, type[Exception]]
OUTCOMES: list[Outcome] = [
    (FaultKind.DROP, False, ccxt.NetworkError),
    (FaultKind.LOST_REPLY, True, ccxt.NetworkError),
    (FaultKind.TIMEOUT, None, ccxt.RequestTimeout),
    (FaultKind.UNKNOWN_503, None, ccxt.OperationFailed),
    (FaultKind.UNKNOWN_503_BARE, None, ccxt.ExchangeNotAvailable),
    (FaultKind.BUSY_503, False, ccxt.ExchangeNotAvailable),
    (FaultKind.OVERLOAD_503, False, ccxt.OperationFailed),
    (FaultKind.BAD_GATEWAY, None, ccxt.ExchangeNotAvailable),
    (FaultKind.CODE_1007, None, ccxt.RequestTimeout),
    (FaultKind.CODE_1000, None, ccxt.OperationFailed),
    (FaultKind.CODE_1001, False, ccxt.OperationFailed),
    (FaultKind.RATE_LIMIT, False, ccxt.DDoSProtection),
    (FaultKind.BANNED, False, ccxt.DDoSProtection),
]


@pytest.mark.parametrize(("kind", "processed", "raised"), OUTCOMES)
def test_a_fault_raises_what_ccxt_makes_of_it_and_takes_effect_as_its_kind_says(
    bench: Bench, kind: FaultKind, processed: bool | None, raised: type[Exception]
) -> None:
    bench.client.load_markets()
    for wish in [processed] if processed is not None else [True, False]:
        bench.exchange.faults.next(kind, [ORDER], processed=None if processed is not None else wish)
        with pytest.raises(raised) as caught:
            bench.limit(97.0, f"{wish}")
        assert caught.type is raised
        assert (f"{wish}" in bench.exchange.book.order_of) == wish
    assert bench.exchange.faults.injected[kind] == (1 if processed is not None else 2)
    if kind in {FaultKind.RATE_LIMIT, FaultKind.BANNED}:
        assert bench.client.last_response_headers["Retry-After"] == "7"


def test_a_ban_lasts_as_long_as_it_says(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.BANNED, retry_after=120)
    for _ in range(2):
        with pytest.raises(ccxt.DDoSProtection, match="418"):
            bench.client.fetch_time()
    bench.clock.sleep(120.0)
    assert bench.client.fetch_time() == START + BAR + 120_000


@pytest.mark.parametrize("kind", [FaultKind.HTML, FaultKind.CUT_JSON])
def test_a_spoilt_answer_makes_ccxt_see_no_order_and_no_position(
    bench: Bench, kind: FaultKind
) -> None:
    bench.client.load_markets()
    bench.client.load_leverage_brackets()
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    bench.exchange.faults.next(kind, times=2)
    assert bench.limit(97.0)["id"] is None
    assert bench.client.fetch_positions([SYMBOL]) == []
    assert "a" in bench.exchange.book.order_of
    assert len(bench.client.fetch_positions([SYMBOL])) == 1


def test_coin_tosses_fall_both_ways_and_the_same_for_the_same_seed() -> None:
    def tosses(seed: int) -> list[bool]:
        faults = exchange_of(FLAT, seed=seed).faults
        faults.rate(FaultKind.CODE_1007, 0.5, [ORDER])
        drawn = [faults.draw(ORDER, "POST", "/fapi/v1/order") for _ in range(60)]
        assert faults.draw(READ, "GET", "/fapi/v1/time") is None
        assert faults.injected[FaultKind.CODE_1007] == sum(fault is not None for fault in drawn)
        return [fault.processed for fault in drawn if fault is not None]

    assert set(tosses(1)) == {True, False}
    assert tosses(1) == tosses(1) != tosses(2)
    assert 15 < len(tosses(1)) < 45


def test_a_fault_can_be_planned_for_one_request_one_path_or_one_class(bench: Bench) -> None:
    faults = bench.exchange.faults
    faults.at(2, FaultKind.BUSY_503)
    faults.next(FaultKind.CODE_1001, path="balance")
    faults.next(FaultKind.BAD_GATEWAY, [CANCEL], processed=False)
    ask = {"symbol": "BTCUSDT"}
    assert bench.signed("GET", "v1/openOrders", **ask).status_code == 200
    answer = bench.signed("GET", "v1/openOrders", **ask)
    assert (answer.status_code, answer.json()) == (503, {"msg": "Service Unavailable."})
    assert bench.signed("GET", "v3/balance").json()["code"] == -1001
    assert bench.signed("DELETE", "v1/allOpenOrders", **ask).status_code == 502
    assert bench.signed("DELETE", "v1/allOpenOrders", **ask).status_code == 200
    assert faults.requests["GET /fapi/v1/openOrders"] == 2
    faults.rate(FaultKind.DROP, 1.0)
    faults.clear()
    assert bench.signed("GET", "v3/balance").status_code == 200


def test_a_delayed_order_arrives_when_the_price_has_moved_or_its_time_is_over() -> None:
    with Bench(FLAT, FLAT, (95.0, 95.0, 95.0, 95.0)) as bench:
        bench.client.load_markets()
        bench.clock.sleep(895.0)
        bench.exchange.faults.next(FaultKind.DELAY, [ORDER], delay_ms=8_000)
        bench.exchange.faults.next(FaultKind.DELAY, [ORDER], delay_ms=10_001)
        with pytest.raises(ccxt.OrderNotFillable):
            bench.limit(98.0)
        assert bench.exchange.now_ms == START + 2 * BAR + 3_000
        with pytest.raises(ccxt.InvalidNonce):
            bench.limit(94.0)


def test_a_stale_read_answers_what_was_true_some_time_ago(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.STALE, [READ], path="openOrders", lag_ms=5_000)
    bench.exchange.faults.next(FaultKind.STALE, [READ], path="positionRisk", lag_ms=5_000)
    bench.limit(97.0, "old")
    bench.clock.sleep(5.0)
    bench.limit(96.0, "new")
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    assert [o["clientOrderId"] for o in bench.client.fetch_open_orders(SYMBOL)] == ["old"]
    assert len(bench.client.fetch_open_orders(SYMBOL)) == 2
    assert bench.client.fetch_positions([SYMBOL]) == []
    assert len(bench.client.fetch_positions([SYMBOL])) == 1


def test_the_exchanges_clock_can_jump(bench: Bench) -> None:
    bench.client.load_markets()
    bench.exchange.faults.next(FaultKind.CLOCK_JUMP, delay_ms=20_000)
    assert bench.client.fetch_time() == bench.exchange.now_ms + 20_000
    with pytest.raises(ccxt.InvalidNonce):
        bench.client.fetch_balance()


def test_hooks_see_every_request_before_it_counts_and_before_it_is_answered(bench: Bench) -> None:
    seen: list[tuple[str, int, str, bool]] = []

    def note(when: str) -> Callable[[int, str, str], None]:
        def hook(number: int, method: str, path: str) -> None:
            seen.append((when, number, f"{method} {path}", "a" in bench.exchange.book.order_of))

        return hook

    bench.client.load_markets()
    bench.exchange.before_request, bench.exchange.after_request = note("before"), note("after")
    bench.limit(97.0)
    assert seen == [
        ("before", 2, "POST /fapi/v1/order", False),
        ("after", 2, "POST /fapi/v1/order", True),
    ]


# --- time from elsewhere ------------------------------------------------------------------------


def test_a_remote_clock_drives_time_and_wakes_after_an_event(bench: Bench) -> None:
    clock = RemoteClock(bench.server.port)
    bench.limit(97.0)
    assert clock.now_ms() == START + BAR
    clock.sleep(900.0)
    assert clock.now_ms() == START + 2 * BAR
    clock.sleep(900.0)
    assert START + 2 * BAR < clock.now_ms() < START + 3 * BAR
    state = clock.ask("state")
    assert (state["bar"], state["price"]) == (2, "97")
    assert state["positions"]["LONG"] == {"qty": "1", "avg_entry": "97"}
    assert state["requests"]["POST /fapi/v1/order"] == 1
    clock.ask("faults", {"kind": "503 busy", "path": "time"})
    clock.ask("faults", {"kind": "502", "n": bench.exchange.faults.n_requests + 2})
    clock.ask("faults", {"kind": "-1001", "rate": 1.0, "classes": ["cancel"]})
    for _ in range(2):
        with pytest.raises(ccxt.ExchangeNotAvailable):
            bench.client.fetch_time()
    with pytest.raises(ccxt.OperationFailed):
        bench.client.cancel_all_orders(SYMBOL)
    assert bench.client.fetch_time() == clock.now_ms()
    clock.close()


def test_clocks_do_not_move_for_a_sleep_of_nothing_and_move_for_the_least(bench: Bench) -> None:
    bench.clock.sleep(0.0)
    assert bench.clock.now_ms() == START + BAR
    bench.clock.sleep(1e-9)
    assert bench.clock.now_ms() == START + BAR + 1


# --- what is known late -------------------------------------------------------------------------


def opens_reported(bench: Bench) -> list[int]:
    """Return the open times of the candles that are reported, in bars since the first."""
    ask = {"symbol": "BTCUSDT", "interval": "15m"}
    return [(row[0] - START) // BAR for row in bench.signed("GET", "v1/klines", **ask).json()]


def test_a_candle_can_be_known_some_time_after_its_close(bench: Bench) -> None:
    bench.exchange.faults.rate(FaultKind.LATE_CANDLES, 1.0, lag_ms=4_000)
    bench.clock.sleep(3.999)
    assert opens_reported(bench) == []
    bench.clock.sleep(0.001)
    assert opens_reported(bench) == [0, 1]
    bench.clock.sleep(BAR / 1e3 - 1.0)
    assert opens_reported(bench) == [0]
    bench.exchange.faults.end(FaultKind.LATE_CANDLES)
    assert opens_reported(bench) == [0, 1, 2]
    bench.exchange.faults.next(FaultKind.NO_CANDLES, times=2)
    assert bench.signed("GET", "v3/balance").status_code == 200  # it waits for its endpoint
    assert [opens_reported(bench) for _ in range(3)] == [[], [], [0, 1, 2]]


def test_a_trade_can_be_listed_after_positions_show_it(bench: Bench) -> None:
    bench.client.load_leverage_brackets()
    bench.exchange.faults.rate(FaultKind.LATE_TRADES, 1.0, lag_ms=2_000)
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    for listed in (0, 1):
        assert len(bench.signed("GET", "v1/userTrades", symbol="BTCUSDT").json()) == listed
        assert len(bench.client.fetch_positions([SYMBOL])) == 1
        bench.clock.sleep(2.0)


@pytest.mark.parametrize(
    ("code", "status"), [(-4045, 400), (-4400, 400), (-1015, 429), (-1008, 503)]
)
def test_a_stop_can_be_refused_with_any_code(bench: Bench, code: int, status: int) -> None:
    bench.exchange.hand_trade("LONG", "BUY", 1.0)
    bench.exchange.faults.rate(FaultKind.REFUSED_STOP, 1.0, code=code)
    bench.limit(97.0)
    with pytest.raises(ccxt.BaseError, match=f'"code":{code}'):
        bench.stop(90.0)
    assert bench.client.last_response_headers.get("Retry-After") == ("7" if status == 429 else None)
    assert not bench.exchange.book.stops
    bench.exchange.faults.end(FaultKind.REFUSED_STOP)
    assert bench.stop(90.0)["id"]


def test_a_client_may_sleep_through_what_happens() -> None:
    with Bench(wakes_clients=False) as bench:
        remote = RemoteClock(bench.server.port)
        bench.limit(97.0, "a")
        bench.limit(95.0, "b")
        bench.clock.sleep(900.0)
        bench.clock.sleep(899.0)
        assert bench.clock.now_ms() == START + 3 * BAR - 1_000
        assert len(bench.exchange.account.trades) == 1
        remote.sleep(901.0)
        assert remote.now_ms() == START + 4 * BAR
        assert len(bench.exchange.account.trades) == 2
        remote.close()
