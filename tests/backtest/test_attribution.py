"""Attribution: where profit came from, on accounts made by hand and on the demo."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.market.timeframes import parse_time
from backtest.report.attribution import accounting_identity, attribution, funding_by_side
from backtest.report.document import daily_correlations, group_document, run_document
from backtest.report.drawdowns import drawdown_facts
from backtest.report.round_trips import (
    holding_histogram,
    open_fills,
    profit_histogram,
    round_trips,
    trip_statistics,
)
from backtest.results.files import json_bytes
from backtest.simulator import BacktestSimulator
from config import PRESETS
from core.errors import DataError
from core.kama import REGIME_NAMES
from core.records import dtype_of
from engine.tables import BarLog
from tests.support.results.typed import portfolio_of_all, typed, typed_all

BAR_MS = 900_000
CAPITAL = 10_000.0
TABLES = ("by_label", "by_side", "by_regime", "by_hour", "by_weekday", "by_month")
BY_BAR = ("by_regime", "by_hour", "by_weekday", "by_month")

Trade = dict[str, Any]


LOGGED = ("equity", "wallet", "funding", "long_qty", "short_qty")


def record(
    bar: int, label: str, price: float, qty: float, fill_id: int, pnl: float = 0.0, fee: float = 0.0
) -> Trade:
    short = label in {"SELL_OPEN_SHORT", "BUY_CLOSE_SHORT", "STOP_SHORT"}
    return {
        "bar": bar,
        "price": price,
        "qty": qty,
        "label": label,
        "pnl": pnl,
        "fee": fee,
        "fill_id": fill_id,
        "direction": "SHORT" if short else "LONG",
        "regime": "NOISE",
    }


def account(
    trades: Sequence[Trade],
    closes: Sequence[float],
    *,
    start: str = "2024-01-31T22:00",
    funding: Sequence[float] | None = None,
    regimes: Sequence[int] | None = None,
    first_bar: int = 0,
) -> dict[str, Any]:
    """Return a result whose equity is counted from its trades, bar by bar, the slow way."""
    n, first_ms = len(closes), parse_time(start, "start")
    times = first_ms + BAR_MS * np.arange(n)
    paid = np.zeros(n) if funding is None else np.array(funding, dtype=np.float64)
    codes = np.zeros(n, np.int64) if regimes is None else np.array(regimes)
    log = np.zeros(n, dtype_of(BarLog))
    held = {"LONG": [0.0, 0.0], "SHORT": [0.0, 0.0]}  # qty, cost
    prices = {trade["fill_id"]: trade["price"] for trade in reversed(trades)}
    wallet = CAPITAL
    for bar in range(n):
        for trade in trades:
            if trade["bar"] != bar:
                continue
            trade["timestamp"] = int(times[bar])
            trade["regime"] = REGIME_NAMES[int(codes[bar])]
            sign = 1.0 if trade["label"] in {"BUY_OPEN_LONG", "SELL_OPEN_SHORT"} else -1.0
            if trade["direction"]:
                own = held[trade["direction"]]
                own[0] += sign * trade["qty"]
                own[1] += sign * trade["qty"] * prices[trade["fill_id"]]
            wallet += trade["pnl"] - trade["fee"]
        wallet += paid[bar]
        (long, long_cost), (short, short_cost) = held["LONG"], held["SHORT"]
        open_profit = long * closes[bar] - long_cost - short * closes[bar] + short_cost
        account = (wallet + open_profit, wallet, paid[bar], long, short)
        log[list(LOGGED)][bar] = account
    candles = pd.DataFrame({"timestamp": times, "open": closes, "close": closes})
    return {
        "trades": list(trades),
        "equity_curve": np.array(log["equity"]),
        "log": log,
        "regime_log": codes,
        "first_bar": first_bar,
        "candles": candles,
        "params": {"initial_capital": CAPITAL},
        "data": {"timeframe": "15m"},
    }


def row(table: list[dict[str, Any]], key: str) -> dict[str, Any]:
    return next(item for item in table if item["key"] == key)


@pytest.fixture
def by_hand() -> dict[str, Any]:
    """Return a long that gains 20 and a short that loses 5, with funding, over a month's end."""
    trades = [
        record(1, "BUY_OPEN_LONG", 100.0, 2.0, 0, fee=0.04),
        record(3, "SELL_OPEN_SHORT", 105.0, 1.0, 1, fee=0.02),
        record(5, "SELL_CLOSE_LONG", 110.0, 1.5, 0, pnl=15.0, fee=0.03),
        record(8, "STOP_SHORT", 110.0, 1.0, 1, pnl=-5.0, fee=0.05),
        record(9, "SELL_CLOSE_LONG", 110.0, 0.5, 0, pnl=5.0, fee=0.01),
    ]
    closes = [100.0, 100.0, 90.0, 105.0, 108.0, 110.0, 110.0, 112.0, 111.0, 110.0]
    funding = [0.0, 0.0, 0.0, 0.0, -0.3, 0.0, 0.0, 0.2, 0.0, 0.0]
    regimes = [0, 0, 0, 0, 1, 1, 1, 1, 0, 0]
    return account(trades, closes, funding=funding, regimes=regimes, first_bar=1)


@pytest.fixture(scope="module")
def demo() -> dict[str, dict[str, Any]]:
    simulator = BacktestSimulator(PRESETS["documented"], source="demo")
    return simulator.run_multi(["BTC", "ETH"], "2024-01-10", "2024-04-10")


# --- the identity -------------------------------------------------------------------------------


def test_profit_minus_fees_plus_funding_is_the_change_of_equity(by_hand: dict[str, Any]) -> None:
    sums = accounting_identity(typed(by_hand))
    assert sums["price_profit"] == pytest.approx(15.0)
    assert sums["fees"] == pytest.approx(0.15)
    assert sums["funding"] == pytest.approx(-0.1)
    assert sums["equity_change"] == pytest.approx(14.75)
    assert abs(sums["difference"]) < 1e-9


def test_a_payment_nobody_recorded_shows_as_a_difference(by_hand: dict[str, Any]) -> None:
    by_hand["log"]["funding"][4] = 0.0
    assert accounting_identity(typed(by_hand))["difference"] == pytest.approx(-0.3)


def test_every_table_adds_up_to_the_change_of_equity(by_hand: dict[str, Any]) -> None:
    facts = attribution(typed(by_hand))
    for name in TABLES:
        assert math.fsum(item["net"] for item in facts[name]) == pytest.approx(14.75), name
    for name in BY_BAR:
        gained = math.fsum(item["equity_change"] for item in facts[name])
        assert gained == pytest.approx(14.75), name


@given(
    st.lists(
        st.tuples(
            st.booleans(),
            st.integers(0, 20),
            st.integers(0, 20),
            st.floats(-50.0, 50.0),
            st.floats(-0.1, 1.0),
        ),
        max_size=12,
    ),
    st.lists(st.floats(-2.0, 2.0), min_size=300, max_size=300),
)
@pytest.mark.slow
def test_any_account_adds_up_in_every_table(
    trips: list[tuple[bool, int, int, float, float]], funding: list[float]
) -> None:
    trades = []
    for number, (long, start, length, gain, fee) in enumerate(trips):
        labels = ("BUY_OPEN_LONG", "SELL_CLOSE_LONG") if long else ("SELL_OPEN_SHORT", "STOP_SHORT")
        end = 100.0 + gain if long else 100.0 - gain
        trades.append(record(start * 7, labels[0], 100.0, 1.0, number, fee=fee))
        trades.append(record(start * 7 + length, labels[1], end, 1.0, number, gain, fee))
    trades.sort(key=lambda trade: trade["bar"])
    result = account(trades, [100.0] * 300, funding=funding, start="2023-12-30")
    facts = attribution(typed(result))
    change = facts["identity"]["equity_change"]
    assert abs(facts["identity"]["difference"]) < 1e-6
    for name in {*TABLES} - {"by_side"}:  # nobody held anything in some bars that paid
        assert math.fsum(item["net"] for item in facts[name]) == pytest.approx(change, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("coin", ["BTC", "ETH"])
def test_the_demo_adds_up_to_a_millionth(demo: dict[str, dict[str, Any]], coin: str) -> None:
    facts = attribution(typed(demo[coin]))
    change = facts["identity"]["equity_change"]
    assert len(demo[coin]["trades"]) > 1_000
    assert abs(facts["identity"]["difference"]) < 1e-6
    for name in TABLES:
        assert math.fsum(item["net"] for item in facts[name]) == pytest.approx(change, abs=1e-6)
    for name in BY_BAR:
        gained = math.fsum(item["equity_change"] for item in facts[name])
        assert gained == pytest.approx(change, abs=1e-6)


@pytest.mark.slow
def test_the_demo_agrees_with_its_metrics(demo: dict[str, dict[str, Any]]) -> None:
    metrics, facts = demo["BTC"]["metrics"], attribution(typed(demo["BTC"]))
    trips = facts["round_trips"]
    assert trips["count"] == metrics["total_trades"]
    net = metrics["gross_profit"] - metrics["gross_loss"]
    assert trips["net"]["mean"] * trips["count"] == pytest.approx(net)
    won = sum(item["win_rate_pct"] * item["count"] for item in trips["by_exit"]) / trips["count"]
    assert won == pytest.approx(metrics["win_rate_pct"])
    assert facts["time_in_market"]["any_pct"] == pytest.approx(metrics["exposure_pct"])
    assert facts["drawdowns"]["deepest"][0]["depth_pct"] == pytest.approx(
        metrics["max_drawdown_pct"]
    )
    assert facts["identity"]["fees"] == pytest.approx(metrics["fees_paid"])
    assert facts["identity"]["funding"] == pytest.approx(metrics["funding_pnl"])


# --- the tables ---------------------------------------------------------------------------------


def test_labels_have_their_own_profit_and_fees(by_hand: dict[str, Any]) -> None:
    labels = attribution(typed(by_hand))["by_label"]
    closes = row(labels, "SELL_CLOSE_LONG")
    assert (closes["records"], closes["price_profit"]) == (2, 20.0)
    assert closes["fees"] == pytest.approx(0.04)
    assert closes["notional"] == pytest.approx(220.0)
    assert row(labels, "STOP_SHORT")["net"] == pytest.approx(-5.05)
    assert row(labels, "FUNDING")["net"] == pytest.approx(-0.1)
    nets = [item["net"] for item in labels[:-1]]
    assert nets == sorted(nets, reverse=True)


def test_funding_goes_to_the_side_that_paid_it(by_hand: dict[str, Any]) -> None:
    sides = attribution(typed(by_hand))["by_side"]
    # Bar 4: 2 long against 1 short paid 0.3 net: the long side 0.6, the short side received 0.3.
    # Bar 7: 0.5 long against 1 short received 0.2 net: long paid 0.2, short received 0.4.
    assert row(sides, "LONG")["funding"] == pytest.approx(-0.6 - 0.2)
    assert row(sides, "SHORT")["funding"] == pytest.approx(0.3 + 0.4)


def test_funding_of_the_last_bar_counts_for_what_was_closed_there() -> None:
    trades = [record(0, "BUY_OPEN_LONG", 100.0, 1.0, 0), record(1, "CLOSE_END", 100.0, 1.0, 0)]
    result = account(trades, [100.0, 100.0], funding=[0.0, -0.5])
    assert funding_by_side(typed(result))["LONG"].tolist() == [0.0, -0.5]


def test_equal_sides_pay_each_other_and_nobody_knows_how_much() -> None:
    trades = [
        record(0, "BUY_OPEN_LONG", 100.0, 1.0, 0),
        record(0, "SELL_OPEN_SHORT", 100.0, 1.0, 1),
    ]
    sides = funding_by_side(typed(account(trades, [100.0, 100.0])))
    assert sides["LONG"].sum() == sides["SHORT"].sum() == 0.0


def test_a_regime_is_credited_with_what_was_booked_and_what_was_gained_in_it(
    by_hand: dict[str, Any],
) -> None:
    regimes = attribution(typed(by_hand))["by_regime"]
    trend = row(regimes, "UPTREND")
    assert trend["price_profit"] == 15.0
    assert trend["bars_pct"] == pytest.approx(100.0 * 4 / 9)
    equity = by_hand["equity_curve"]
    assert trend["equity_change"] == pytest.approx(equity[7] - equity[3])
    assert {item["key"] for item in regimes} == {"NOISE", "UPTREND"}


def test_hours_weekdays_and_months_are_those_of_the_bars_open(by_hand: dict[str, Any]) -> None:
    facts = attribution(typed(by_hand))
    assert row(facts["by_hour"], "22")["records"] == 2
    assert row(facts["by_hour"], "23")["price_profit"] == 15.0
    assert row(facts["by_hour"], "00")["price_profit"] == 0.0
    assert len(facts["by_hour"]) == 24
    assert facts["by_weekday"][0]["key"] == "Mon"
    assert row(facts["by_weekday"], "Wed")["records"] == 3  # 2024-01-31
    assert row(facts["by_weekday"], "Thu")["records"] == 2  # 2024-02-01
    assert [item["key"] for item in facts["by_month"]] == ["2024-01", "2024-02"]


def test_a_month_starts_where_the_last_one_ended(by_hand: dict[str, Any]) -> None:
    january, february = attribution(typed(by_hand))["by_month"]
    assert january["start_equity"] == CAPITAL
    assert january["end_equity"] == february["start_equity"] == by_hand["equity_curve"][7]
    booked = january["price_profit"] - january["fees"] + january["funding"]
    open_profit = 0.5 * 12.0 - 1.0 * 7.0  # long from 100, short from 105, at 112
    assert january["open_profit_change"] == pytest.approx(open_profit)
    assert january["end_equity"] - CAPITAL == pytest.approx(booked + open_profit)
    assert january["max_drawdown_pct"] == pytest.approx(100.0 * 20.04 / CAPITAL)


def test_a_year_is_its_months_together(by_hand: dict[str, Any]) -> None:
    assert attribution(typed(by_hand))["by_year"] == [
        {"key": "2024", "return_pct": pytest.approx(0.1475)}
    ]


# --- round trips --------------------------------------------------------------------------------


def test_a_round_trip_is_an_entry_with_all_its_closes(by_hand: dict[str, Any]) -> None:
    trips = round_trips(by_hand["trades"])
    assert trips.direction.tolist() == ["LONG", "SHORT"]
    assert trips.exit_label.tolist() == ["SELL_CLOSE_LONG", "STOP_SHORT"]
    assert trips.net.tolist() == pytest.approx([20.0 - 0.08, -5.0 - 0.07])
    assert (trips.holding_ms // BAR_MS).tolist() == [8, 5]
    assert trips.closed.all()


def test_what_is_still_open_is_no_round_trip_yet(by_hand: dict[str, Any]) -> None:
    trips = round_trips(by_hand["trades"][:-1])
    assert trips.closed.tolist() == [False, True]
    assert trip_statistics(trips)["count"] == 1


def test_a_halt_belongs_to_no_entry() -> None:
    halt = record(0, "CIRCUIT_BREAKER_HALT", 100.0, 0.0, -1) | {"direction": "", "timestamp": 0}
    assert len(round_trips([halt]).net) == 0


def test_distributions_know_their_middle_and_ends(by_hand: dict[str, Any]) -> None:
    statistics = trip_statistics(round_trips(by_hand["trades"]))
    held = statistics["holding_hours"]
    assert (held["min"], held["max"], held["median"]) == (1.25, 2.0, 1.625)
    assert statistics["net"]["mean"] == pytest.approx((19.92 - 5.07) / 2)
    assert statistics["net_pct"]["max"] == pytest.approx(100.0 * 19.92 / 200.0)
    stops = row(statistics["by_exit"], "STOP_SHORT")
    assert (stops["count"], stops["win_rate_pct"]) == (1, 0.0)
    assert stops["median_holding_hours"] == 1.25


@given(st.lists(st.floats(0.0, 1_000.0), max_size=50))
def test_every_holding_time_is_in_one_bin(hours: list[float]) -> None:
    assert sum(item["count"] for item in holding_histogram(np.array(hours))) == len(hours)


@given(st.lists(st.floats(-1e6, 1e6), max_size=80))
def test_every_profit_is_in_one_bin_and_no_bin_crosses_zero(net: list[float]) -> None:
    bins = profit_histogram(np.array(net))
    assert sum(item["count"] for item in bins) == len(net)
    assert all(item["from"] >= 0.0 or item["to"] <= 0.0 for item in bins)
    assert len(bins) <= 62


def test_one_disaster_does_not_flatten_the_histogram() -> None:
    net = np.append(np.linspace(-5.0, 5.0, 999), -10_000.0)
    bins = profit_histogram(net)
    assert bins[0]["from"] == -10_000.0
    assert max(item["count"] for item in bins) < 200


# --- drawdowns, time, inventory -----------------------------------------------------------------


def drawdowns(equity: list[float]) -> dict[str, Any]:
    start = parse_time("2024-01-01", "start")
    times = start + BAR_MS * np.arange(len(equity))
    return drawdown_facts(np.array(equity), 100.0, times, BAR_MS)


def test_a_drawdown_runs_from_its_peak_until_it_is_made_good() -> None:
    facts = drawdowns([100.0, 110.0, 99.0, 104.5, 110.0, 120.0, 118.0])
    deepest, second = facts["deepest"]
    assert deepest == facts["longest"]
    assert deepest["depth_pct"] == pytest.approx(10.0)
    assert deepest["depth"] == pytest.approx(11.0)
    assert deepest["peak_at"] == "2024-01-01 00:30"
    assert deepest["trough_at"] == "2024-01-01 00:45"
    assert deepest["recovered_at"] == "2024-01-01 01:15"
    assert deepest["bars"] == 3
    assert second["recovered_at"] is None


def test_a_run_that_falls_at_once_falls_from_its_capital() -> None:
    facts = drawdowns([95.0, 90.0])
    assert facts["longest"]["peak_at"] == "2024-01-01 00:00"
    assert facts["longest"]["depth_pct"] == pytest.approx(10.0)
    assert facts["longest"]["days"] == pytest.approx(2 / 96)


def test_the_longest_drawdown_need_not_be_the_deepest() -> None:
    facts = drawdowns([100.0, 50.0, 100.0, 99.0, 99.0, 99.0, 99.5, 101.0])
    assert facts["deepest"][0]["depth_pct"] == pytest.approx(50.0)
    assert facts["longest"]["depth_pct"] == pytest.approx(1.0)


def test_an_account_that_never_fell_has_no_drawdown() -> None:
    assert drawdowns([100.0, 100.0, 101.0]) == {"count": 0, "longest": None, "deepest": []}


@given(st.lists(st.floats(1.0, 1_000.0), min_size=1, max_size=60))
def test_the_deepest_drawdown_is_the_obvious_one(equity: list[float]) -> None:
    peaks = [max([100.0, *equity[: k + 1]]) for k in range(len(equity))]
    worst = max(1.0 - now / peak for now, peak in zip(equity, peaks, strict=True))
    deepest = drawdowns(equity)["deepest"]
    assert (deepest[0]["depth_pct"] if deepest else 0.0) == pytest.approx(100.0 * worst)


def test_time_in_the_market_counts_traded_bars_only(by_hand: dict[str, Any]) -> None:
    shares = attribution(typed(by_hand))["time_in_market"]
    assert shares["long_pct"] == pytest.approx(100.0 * 8 / 9)
    assert shares["short_pct"] == pytest.approx(100.0 * 5 / 9)
    assert shares["both_pct"] == pytest.approx(100.0 * 5 / 9)
    assert shares["any_pct"] + shares["flat_pct"] == pytest.approx(100.0)


def test_inventory_levels_are_open_entries_at_the_closes(by_hand: dict[str, Any]) -> None:
    trips = round_trips(by_hand["trades"])
    assert open_fills(trips, "LONG", 10).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]
    assert open_fills(trips, "SHORT", 10).tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    inventory = attribution(typed(by_hand))["inventory"]
    assert inventory["SHORT"]["levels"] == [
        {"open_fills": 0, "time_pct": pytest.approx(100.0 * 4 / 9)},
        {"open_fills": 1, "time_pct": pytest.approx(100.0 * 5 / 9)},
    ]
    largest = 100.0 * 2.0 * 108.0 / by_hand["equity_curve"][4]
    assert inventory["LONG"]["max_notional_pct"] == pytest.approx(largest)


def test_a_run_that_never_acted_has_no_shares_but_still_adds_up() -> None:
    result = account([], [100.0] * 5, first_bar=5)
    facts = attribution(typed(result))
    assert math.isnan(facts["time_in_market"]["any_pct"])
    assert facts["by_regime"] == []
    assert facts["round_trips"]["count"] == 0
    assert math.isnan(facts["round_trips"]["net"]["median"])
    assert facts["identity"]["difference"] == 0.0
    assert b"NaN" not in json_bytes(facts)


# --- documents ----------------------------------------------------------------------------------


def test_correlations_are_those_of_daily_returns() -> None:
    rng = np.random.default_rng(5)
    times = parse_time("2024-01-01", "start") + BAR_MS * np.arange(96 * 40)
    a, b = (100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, 96 * 40))) for _ in range(2))
    ends = slice(95, None, 96)
    returns = [curve[ends][1:] / curve[ends][:-1] - 1.0 for curve in (a, b)]
    found = daily_correlations({"A": a, "B": b, "C": a}, times)
    assert found["A/B"] == pytest.approx(pd.Series(returns[0]).corr(pd.Series(returns[1])))
    assert found["A/C"] == pytest.approx(1.0)
    assert list(found) == ["A/B", "A/C", "B/C"]


def test_correlations_of_what_stood_still_are_unknown() -> None:
    times = parse_time("2024-01-01", "start") + BAR_MS * np.arange(96 * 5)
    moving = np.linspace(1.0, 2.0, 96 * 5)
    assert math.isnan(daily_correlations({"A": moving, "B": np.ones(96 * 5)}, times)["A/B"])
    assert math.isnan(daily_correlations({"A": moving[:96], "B": moving[:96]}, times[:96])["A/B"])


@pytest.mark.slow
def test_the_portfolios_document_adds_up(demo: dict[str, dict[str, Any]]) -> None:
    document = group_document(portfolio_of_all(demo))
    assert abs(document["identity"]["difference"]) < 1e-6
    assert document["identity"]["final_equity"] == pytest.approx(
        document["metrics"]["final_capital"]
    )
    assert [item["key"] for item in document["by_month"]] == [
        "2024-01",
        "2024-02",
        "2024-03",
        "2024-04",
    ]
    growth = math.prod(1.0 + item["return_pct"] / 100.0 for item in document["by_month"])
    assert 100.0 * (growth - 1.0) == pytest.approx(document["metrics"]["total_return_pct"])
    assert set(document["correlation"]["prices"]) == {"BTC/ETH"}


@pytest.mark.slow
def test_the_document_names_what_failed(demo: dict[str, dict[str, Any]]) -> None:
    document = run_document(typed_all({"BTC": demo["BTC"]}), {"DOGE": DataError("no such coin")})
    assert document["portfolio"] is None
    assert document["failed"] == {"DOGE": "no such coin"}
    assert "bands" not in document["coins"]["BTC"]
    with_bands = run_document(
        typed_all({"BTC": demo["BTC"] | {"bands": [{"assumption": "x"}]}}), {}
    )
    assert with_bands["coins"]["BTC"]["bands"] == [{"assumption": "x"}]
