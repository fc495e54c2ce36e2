"""``BacktestSimulator``: ranges, warm-up, rules, capital, several coins, the portfolio."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.market.demo import demo_market
from backtest.market.market_data import MarketData, candle_table, empty_funding
from backtest.market.sources import MarketSource
from backtest.market.timeframes import parse_time
from backtest.runs.facts import check_capital, data_facts, run_notices
from backtest.runs.portfolio import combine_portfolio, net_positions
from backtest.runs.portfolio_result import PORTFOLIO
from backtest.simulator import BacktestSimulator, choose_rules
from config import BACKTEST_CONFIG, STRATEGY_PARAMS
from core.errors import CapitalError, ConfigError, DataError, NetworkError
from core.market import MarketRules
from core.params import StrategyParams
from core.records import zeros_table
from core.risk import DEFAULT_BRACKETS
from engine.results import RunResult
from engine.strategy import CODE_FINGERPRINT, GridStrategyV4
from engine.tables import BarLog
from engine.types import Trade
from tests.support.paths import MARKET
from tests.support.results.typed import typed, typed_coins

START, END = "2024-01-10", "2024-02-10"
BAR_MS = 900_000

Load = Callable[..., MarketData]


def demo(config: dict[str, Any] | None = None, **settings: Any) -> BacktestSimulator:
    return BacktestSimulator(config, settings, source="demo")


@pytest.fixture(scope="module")
def multi() -> dict[str, dict[str, Any]]:
    return demo().run_multi(["BTC", "ETH", "SOL"], START, END, jobs=3)


def flat_market(n_bars: int, coin: str = "NEW", price: float = 50.0) -> MarketData:
    """Return candles that stand still, so that nothing trades."""
    times = parse_time(START, "start") + BAR_MS * np.arange(n_bars)
    frame = candle_table(
        {
            "timestamp": times,
            "open": price,
            "high": price,
            "low": price,
            "close": price,
            "volume": 1.0,
        }
    )
    return MarketData(coin, frame, empty_funding(), None, BAR_MS, "a test")


def source(load: Load) -> MarketSource:
    return MarketSource(load, end_ms=parse_time(END, "end"))


# --- one coin -----------------------------------------------------------------------------------


def test_trading_begins_on_the_date_asked_for(multi: dict[str, dict[str, Any]]) -> None:
    result = multi["BTC"]
    assert result["first_bar"] == 0
    assert result["candles"]["timestamp"].iloc[0] == parse_time(START, "start")
    assert result["data"]["warmup_bars"] == 3_000
    assert result["trades"]


def test_bars_of_trades_index_candles_and_equity(multi: dict[str, dict[str, Any]]) -> None:
    for coin in ("BTC", "ETH", "SOL"):
        result = multi[coin]
        times = result["candles"]["timestamp"].to_numpy()
        n_bars = len(times)
        assert len(result["equity_curve"]) == len(result["regime_log"]) == n_bars
        assert len(result["log"]) == n_bars
        assert [times[trade["bar"]] for trade in result["trades"]] == [
            trade["timestamp"] for trade in result["trades"]
        ]
        assert result["trade_table"]["bar"].tolist() == [t["bar"] for t in result["trades"]]


def test_a_result_is_the_engines_own_cut_to_the_range(multi: dict[str, dict[str, Any]]) -> None:
    start_ms, end_ms = parse_time(START, "start"), parse_time(END, "end")
    market = demo_market("BTC", start_ms - 3_000 * BAR_MS, end_ms)
    direct = GridStrategyV4(None, "BTC").run(
        market.candles, funding=market.funding, first_bar=3_000
    )
    result = multi["BTC"]
    assert np.array_equal(result["equity_curve"], direct["equity_curve"][3_000:])
    assert repr(result["metrics"]) == repr(direct["metrics"])
    assert len(result["trades"]) == len(direct["trades"])
    for ours, theirs in zip(result["trades"], direct["trades"], strict=True):
        assert ours == {**theirs, "bar": theirs["bar"] - 3_000}


def test_a_result_says_what_it_was_made_from(multi: dict[str, dict[str, Any]]) -> None:
    result, data = multi["ETH"], multi["ETH"]["data"]
    assert result["coin"] == "ETH"
    assert result["fingerprint"] == CODE_FINGERPRINT
    assert result["params"] == StrategyParams.from_dict(STRATEGY_PARAMS).to_dict()
    assert (data["start"], data["end"]) == ("2024-01-10 00:00", "2024-02-10 00:00")
    assert (data["source"], data["funding"], data["gaps"]) == ("demo", "made up", [])
    assert len(data["hash"]) == 16
    json.dumps(data)


def test_without_warm_up_the_first_bars_do_not_trade() -> None:
    result = demo(warmup_bars=0).run_single("BTC", START, END)
    assert result["data"]["warmup_bars"] == 0
    assert result["first_bar"] > 0
    assert min(trade["bar"] for trade in result["trades"]) >= result["first_bar"]


def test_warm_up_takes_what_there_is_before_the_start() -> None:
    result = demo().run_single("BTC", "2023-12-05", "2024-01-05")
    assert result["data"]["warmup_bars"] == 5 * 96


def test_1m_detail_covers_the_demo_and_changes_the_walk() -> None:
    start, end = "2024-02-01", "2024-02-15"
    fine = BacktestSimulator(source="demo", detail="1m").run_single("SOL", start, end)
    coarse = demo().run_single("SOL", start, end)
    assert fine["data"]["detail_coverage_pct"] == 100.0
    assert coarse["data"]["detail_coverage_pct"] == 0.0
    assert fine["data"]["hash"] != coarse["data"]["hash"]


def test_detail_coverage_counts_only_bars_whose_every_minute_is_there() -> None:
    market = demo_market("BTC", parse_time(START, "s"), parse_time("2024-01-11", "e"), detail=True)
    assert market.detail is not None
    half = replace(market, detail=market.detail.iloc[: 48 * 15 - 1])
    facts = data_facts(half, 0, "15m", "1m", "real")
    assert facts["detail_coverage_pct"] == pytest.approx(100.0 * 47 / 96)


def test_gaps_are_reported_and_not_filled() -> None:
    whole = demo_market("BTC", parse_time(START, "s"), parse_time(END, "e"))
    holed = replace(whole, candles=whole.candles.drop(index=range(500, 510)))
    simulator = BacktestSimulator(source=source(lambda *_, **__: holed))
    result = simulator.run_single("BTC", START, END)
    assert result["data"]["gaps"] == [
        {"from": "2024-01-15 05:00", "to": "2024-01-15 07:30", "bars": 10}
    ]
    assert result["data"]["missing_bars"] == 10
    assert len(result["candles"]) == len(whole.candles) - 10


@pytest.mark.parametrize("spelling", ["btc", "BTC/USDT", "BTC/USDT:USDT", "BTCUSDT"])
def test_a_coin_may_be_spelled_in_any_way(spelling: str, multi: dict[str, dict[str, Any]]) -> None:
    result = demo().run_single(spelling, START, END)
    assert np.array_equal(result["equity_curve"], multi["BTC"]["equity_curve"])


# --- what is refused ----------------------------------------------------------------------------


def test_fewer_than_a_hundred_candles_are_refused() -> None:
    with pytest.raises(DataError) as caught:
        demo().run_single("BTC", "2024-01-10", "2024-01-10T14:15")
    assert str(caught.value) == (
        "Insufficient data for BTC: 57 candles between 2024-01-10 00:00 and 2024-01-10 14:15, "
        "at least 100 needed"
    )


def test_a_hundred_candles_suffice() -> None:
    assert len(demo().run_single("BTC", "2024-01-10", "2024-01-11T01:00")["candles"]) == 100


@pytest.mark.parametrize("end", ["2024-01-09", START])
def test_an_end_that_is_not_after_the_start_is_refused(end: str) -> None:
    with pytest.raises(ConfigError, match=r"end = .* must be after start = 2024-01-10 00:00"):
        demo().run_single("BTC", START, end)


def test_a_date_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="start = 'yesterday' must be a UTC date"):
        demo().run_single("BTC", "yesterday")


def test_an_end_in_the_future_is_now() -> None:
    asked: list[int] = []

    def load(coin: str, _start_ms: int, end_ms: int, **_: Any) -> MarketData:
        asked.append(end_ms)
        return flat_market(200, coin)

    BacktestSimulator(source=MarketSource(load)).run_single("NEW", START, "2999-01-01")
    assert abs(asked[0] / 1000.0 - time.time()) < 3600.0


def test_a_start_in_the_future_is_refused() -> None:
    with pytest.raises(ConfigError, match="must be after start = 2999"):
        demo().run_single("BTC", "2999-01-01")


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        ({"grid_level": 5}, {}, "unknown strategy parameter 'grid_level'; did you mean grid_le"),
        ({"grid_levels": 40}, {}, r"grid_levels = 40 is outside \[1, 24\]"),
        ({}, {"warmup": 5}, "unknown backtest setting 'warmup'; did you mean warmup_bars"),
        ({}, {"leverag": 5}, "unknown backtest setting 'leverag'; did you mean leverage"),
        ({}, {"warmup_bars": -1}, "warmup_bars = -1 must be a whole number"),
        ({}, {"timeframe": "7m"}, "timeframe = '7m' must be one of"),
    ],
)
def test_a_wrong_setting_is_named(
    config: dict[str, Any], settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        BacktestSimulator(config, settings, source="demo")


def test_detail_must_be_finer_than_the_candles() -> None:
    with pytest.raises(ConfigError, match="detail = '15m' must be shorter than timeframe = '15m'"):
        BacktestSimulator(source="demo", detail="15m")


@pytest.mark.parametrize(("timeframe", "detail"), [("1h", None), ("15m", "5m")])
def test_the_demo_has_no_other_timeframes(timeframe: str, detail: str | None) -> None:
    simulator = BacktestSimulator(
        backtest_config={"timeframe": timeframe}, source="demo", detail=detail
    )
    with pytest.raises(ConfigError, match="the demo has candles of 15m and details of 1m only"):
        simulator.run_single("BTC", START, END)


# --- settings -----------------------------------------------------------------------------------


def test_strategy_parameters_among_the_backtest_settings_win() -> None:
    simulator = demo({"initial_capital": 1.0, "leverage": 3.0}, initial_capital=5_000.0)
    assert simulator.params.initial_capital == 5_000.0
    assert simulator.params.leverage == 3.0


def test_validated_parameters_are_taken_too() -> None:
    params = StrategyParams.from_dict({**STRATEGY_PARAMS, "grid_levels": 7})
    assert BacktestSimulator(params, source="demo").params == params


def test_missing_arguments_come_from_the_settings() -> None:
    simulator = demo(coins=("SOL", "SOL/USDT"), start=START, end=END)
    results = simulator.run_multi()
    assert list(results) == ["SOL", PORTFOLIO]
    assert results["SOL"]["data"]["start"] == "2024-01-10 00:00"


# --- market rules -------------------------------------------------------------------------------


def test_configured_rules_come_before_the_sources() -> None:
    market = replace(flat_market(1, "BTC"), rules={"tick_size": 5.0})
    rules, notice = choose_rules("BTC", market, BACKTEST_CONFIG["markets"])  # type: ignore[arg-type]
    assert (rules.tick_size, notice) == (0.1, None)


def test_the_sources_rules_come_before_inferred_ones() -> None:
    given = {"tick_size": 0.5, "step_size": 1.0, "min_qty": 1.0, "min_notional": 7.0}
    rules, notice = choose_rules("NEW", replace(flat_market(1), rules=given), {})
    assert (rules.tick_size, rules.min_notional, notice) == (0.5, 7.0, None)


def test_inferred_rules_are_announced() -> None:
    rules, notice = choose_rules("NEW", flat_market(1), {})
    assert rules == MarketRules.inferred(50.0)
    assert notice is not None
    assert notice.startswith("NEW: exchange rules are not known and were inferred")


def test_the_sources_brackets_complete_the_rules() -> None:
    brackets = ((0.0, 0.01, 0.0), (1e6, 0.05, 40_000.0))
    market = replace(flat_market(1, "BTC"), brackets=brackets)
    known = {"BTC": {**BACKTEST_CONFIG["markets"]["BTC"]}}  # type: ignore[index]
    assert choose_rules("BTC", market, known)[0].brackets == brackets
    known["BTC"]["brackets"] = DEFAULT_BRACKETS
    assert choose_rules("BTC", market, known)[0].brackets == DEFAULT_BRACKETS


def test_rules_of_further_coins_add_to_the_known_ones() -> None:
    rules = {"tick_size": 0.5, "step_size": 1.0, "min_qty": 1.0, "min_notional": 7.0}
    simulator = BacktestSimulator(
        backtest_config={"markets": {"NEW": rules}},
        source=source(lambda coin, *_, **__: flat_market(200, coin)),
    )
    assert simulator.run_single("NEW", START)["market"].min_notional == 7.0
    assert simulator.run_single("BTC", START)["market"].tick_size == 0.1


# --- capital ------------------------------------------------------------------------------------


def test_capital_too_small_for_any_order_says_what_would_do() -> None:
    with pytest.raises(CapitalError) as caught:
        demo({"initial_capital": 50.0}).run_single("BTC", START, END)
    text = str(caught.value)
    assert text.startswith("initial_capital = 50 USDT is too small for any order of BTC")
    assert "must be at least 100 USDT" in text
    assert "--capital 2800 or --leverage 56 or more" in text


@pytest.mark.parametrize(
    "remedy", [{"initial_capital": 2_800.0}, {"leverage": 56.0}], ids=["capital", "leverage"]
)
def test_what_is_said_to_do_does(remedy: dict[str, float]) -> None:
    result = demo({"initial_capital": 50.0, **remedy}).run_single("BTC", START, END)
    assert any(trade["label"] == "BUY_OPEN_LONG" for trade in result["trades"])


def test_capital_too_small_for_a_time_is_only_a_warning() -> None:
    # An order is worth 110 USDT, the least one 0.003 BTC; later, above 50,000, it is 0.002.
    result = demo({"initial_capital": 2_200.0}).run_single("BTC", "2024-01-01", "2024-03-15")
    assert result["metrics"]["turnover"] > 0.0
    assert any("too small" in notice for notice in result["notices"])


def test_a_run_without_any_trade_says_so() -> None:
    simulator = BacktestSimulator(source=source(lambda coin, *_, **__: flat_market(200, coin)))
    assert "NEW: nothing was traded" in simulator.run_single("NEW", START)["notices"]


def run_of(**state: Any) -> tuple[Any, RunResult]:
    fields = {"ended": False, "too_small": False, "capital_needed": 0.0, **state}
    metrics = {"turnover": 1.0, "capacity_reached": 0}
    trades: Any = zeros_table(Trade, 1)
    trades["ts_ms"] = parse_time("2024-08-17", "t")
    log: Any = zeros_table(BarLog, 1)
    result = RunResult(metrics, log, np.zeros(1, np.int64), trades, 0, "real", 1.0)
    return SimpleNamespace(state=SimpleNamespace(**fields)), result


def test_a_liquidation_to_nothing_is_announced() -> None:
    notices = run_notices("BTC", *run_of(ended=True))
    assert notices == ["BTC: liquidated to 0 at 2024-08-17 00:00; the run ended there"]


def test_a_full_table_of_fills_is_announced() -> None:
    strategy, result = run_of()
    result.metrics["capacity_reached"] = 3
    assert "at 3 steps the table of open fills was full" in run_notices("BTC", strategy, result)[0]


def test_some_orders_possible_is_no_capital_error() -> None:
    strategy, result = run_of(too_small=True)
    check_capital("BTC", strategy, MarketRules.inferred(1.0), result)
    assert result.metrics["turnover"] > 0.0


# --- several coins ------------------------------------------------------------------------------


def test_results_do_not_depend_on_the_number_of_jobs(multi: dict[str, dict[str, Any]]) -> None:
    single = demo().run_multi(["BTC", "ETH", "SOL"], START, END, jobs=1)
    assert list(single) == list(multi) == ["BTC", "ETH", "SOL", PORTFOLIO]
    for name, result in single.items():
        assert np.array_equal(result["equity_curve"], multi[name]["equity_curve"])
        assert repr(result["metrics"]) == repr(multi[name]["metrics"])


def test_repeated_coins_run_once() -> None:
    names = demo().coin_names(["BTC", "btc/usdt", "ETH", "BTCUSDT"])
    assert names == ["BTC", "ETH"]


def test_no_coins_and_no_jobs_are_refused() -> None:
    with pytest.raises(ConfigError, match="coins is empty"):
        demo().run_multi([])
    with pytest.raises(ConfigError, match="jobs = 0 must be at least 1"):
        demo().run_multi(["BTC"], START, END, jobs=0)


def test_a_coin_that_fails_leaves_the_others_alone() -> None:
    outcomes = dict(demo().iter_multi(["BTC", "DOGE", "SOL"], START, END, jobs=2))
    assert isinstance(outcomes["DOGE"], DataError)
    assert isinstance(outcomes["BTC"], dict)
    assert isinstance(outcomes["SOL"], dict)


def test_all_together_raise_what_the_first_coin_failed_with() -> None:
    with pytest.raises(DataError, match="the demo has no coin DOGE"):
        demo().run_multi(["BTC", "DOGE", "NONE"], START, END)


def test_an_unexpected_error_is_not_swallowed() -> None:
    def load(*_: Any, **__: Any) -> MarketData:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        BacktestSimulator(source=source(load)).run_multi(["BTC"], START, END)


def test_no_network_reaches_the_caller() -> None:
    def load(*_: Any, **__: Any) -> MarketData:
        raise NetworkError("no answer")

    with pytest.raises(NetworkError):
        BacktestSimulator(source=source(load)).run_single("BTC", START, END)


# --- the portfolio ------------------------------------------------------------------------------


def test_the_portfolio_is_the_sum_of_its_coins(multi: dict[str, dict[str, Any]]) -> None:
    coins, portfolio = [multi[coin] for coin in ("BTC", "ETH", "SOL")], multi[PORTFOLIO]
    total = np.sum([result["equity_curve"] for result in coins], axis=0)
    assert np.array_equal(portfolio["equity_curve"], total)
    metrics = portfolio["metrics"]
    assert metrics["total_return_pct"] == pytest.approx((total[-1] / 30_000.0 - 1.0) * 100.0)
    peaks = np.maximum.accumulate(np.append(30_000.0, total))
    falls = 1.0 - np.append(30_000.0, total) / peaks
    assert metrics["max_drawdown_pct"] == pytest.approx(100.0 * falls.max())
    for name in ("total_trades", "fees_paid", "funding_pnl", "stops_long", "prune_count"):
        assert metrics[name] == pytest.approx(sum(item["metrics"][name] for item in coins))
    won = sum(item["metrics"]["win_rate_pct"] * item["metrics"]["total_trades"] for item in coins)
    assert metrics["win_rate_pct"] == pytest.approx(won / metrics["total_trades"])
    assert sum(metrics["prune_types"].values()) == metrics["prune_count"]


def test_exits_count_every_record_that_closes(multi: dict[str, dict[str, Any]]) -> None:
    for coin in ("BTC", "ETH", "SOL"):
        trades, metrics = multi[coin]["trades"], multi[coin]["metrics"]
        for side, name in (("LONG", "long_exits"), ("SHORT", "short_exits")):
            closes = [t for t in trades if t["direction"] == side and "_OPEN_" not in t["label"]]
            assert metrics[name] == len(closes)
        profits = sum(t["label"] in {"SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"} for t in trades)
        assert metrics["longs_closed"] + metrics["shorts_closed"] == profits
        assert profits < metrics["long_exits"] + metrics["short_exits"]


def test_a_portfolio_of_one_coin_is_that_coin() -> None:
    results = demo().run_multi(["SOL"], START, END)
    coin, portfolio = results["SOL"]["metrics"], results[PORTFOLIO]["metrics"]
    assert portfolio.pop("prune_types") == coin["prune_types"]
    assert portfolio == pytest.approx({name: coin[name] for name in portfolio})


def made_result(times: list[int], equity: float) -> dict[str, Any]:
    """Return a result that holds 2 base long throughout, closed at the end."""
    n_bars = len(times)
    frame = pd.DataFrame({"timestamp": times, "close": 100.0 + np.arange(n_bars) % 3})
    log = np.zeros(n_bars, [("long_qty", "f8"), ("short_qty", "f8")])
    log["long_qty"][:-1] = 2.0
    metrics = dict.fromkeys(
        (
            "longs_opened",
            "longs_closed",
            "shorts_opened",
            "shorts_closed",
            "long_exits",
            "short_exits",
            "stops_long",
            "stops_short",
            "total_trades",
            "prune_count",
            "circuit_breaker_triggers",
            "trailing_shifts",
            "var_blocks",
            "liquidations",
            "gross_profit",
            "gross_loss",
            "fees_paid",
            "funding_pnl",
            "capacity_reached",
            "buy_hold_return_pct",
            "turnover",
        ),
        0.0,
    )
    closing = {"label": "CLOSE_END", "direction": "LONG", "qty": 2.0}
    return {
        "candles": frame,
        "log": log,
        "equity_curve": np.full(n_bars, equity),
        "first_bar": 0,
        "metrics": {**metrics, "prune_types": {}, "win_rate_pct": math.nan},
        "trades": [closing],
    }


PARAMS = StrategyParams.from_dict(STRATEGY_PARAMS)


def combined(results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return combine_portfolio(typed_coins(results), BAR_MS, PARAMS).to_dict()


def test_the_portfolio_stands_on_every_bar_that_a_coin_has() -> None:
    times = [BAR_MS * i for i in range(40)]
    results = {"A": made_result(times[:30], 1.0), "B": made_result(times[5:], 2.0)}
    portfolio = combined(results)
    assert portfolio["timestamp"].tolist() == times
    capital = PARAMS.initial_capital
    assert portfolio["equity_curve"].tolist() == [1.0 + capital] * 5 + [3.0] * 35
    assert portfolio["common_bars"] == 25
    assert portfolio["metrics"]["final_capital"] == 3.0
    assert portfolio["metrics"]["total_return_pct"] == pytest.approx(100.0 * (3.0 / 20_000 - 1.0))


def test_a_coin_counts_with_its_last_equity_in_a_hole() -> None:
    times = [BAR_MS * i for i in range(10)]
    holed = made_result(times[:4] + times[8:], 0.0)
    holed["equity_curve"] = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    portfolio = combine_portfolio(
        typed_coins({"A": holed, "B": made_result(times, 10.0)}), BAR_MS, PARAMS
    ).to_dict()
    assert portfolio["equity_curve"].tolist() == [11, 12, 13, 14, 14, 14, 14, 14, 15, 16]
    assert portfolio["metrics"]["exposure_pct"] == pytest.approx(90.0)  # closed at the last close


def test_coins_without_a_common_bar_add_up_all_the_same() -> None:
    early, late = [BAR_MS * i for i in range(20)], [BAR_MS * i for i in range(50, 70)]
    results = {"A": made_result(early, 9_000.0), "B": made_result(late, 12_000.0)}
    portfolio = combined(results)
    assert portfolio["common_bars"] == 0
    assert portfolio["equity_curve"].tolist() == [19_000.0] * 20 + [21_000.0] * 20
    assert portfolio["metrics"]["final_capital"] == 21_000.0
    assert math.isnan(portfolio["var"]["correlation"]["A/B"])
    alone = combined({"B": results["B"]})["var"]
    assert portfolio["var"]["end"] == pytest.approx(alone["end"])  # what ended carries no risk


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(1, 60), st.floats(0.0, 1e6)),
        min_size=1,
        max_size=5,
    ),
    st.sets(st.integers(0, 120)),
)
def test_a_portfolio_adds_up_whatever_ranges_and_holes_its_coins_have(
    spans: list[tuple[int, int, float]], holes: set[int]
) -> None:
    results = {}
    for k, (first, count, equity) in enumerate(spans):
        rows = [i for i in range(first, first + count) if i % (k + 2) or i not in holes]
        results[f"C{k}"] = made_result([BAR_MS * i for i in rows or [first]], equity)
    portfolio = combined(results)
    ends = math.fsum(equity for _, _, equity in spans)
    assert portfolio["metrics"]["final_capital"] == pytest.approx(ends, abs=0.005)
    assert portfolio["equity_curve"][-1] == pytest.approx(ends, abs=0.005)
    every = {t for result in results.values() for t in result["candles"]["timestamp"]}
    assert portfolio["timestamp"].tolist() == sorted(every)


def test_ratios_without_a_denominator_are_nan() -> None:
    metrics = combine_portfolio(
        typed_coins({"A": made_result([0, BAR_MS], 1.0)}), BAR_MS, PARAMS
    ).to_dict()["metrics"]
    assert math.isnan(metrics["win_rate_pct"])
    assert math.isnan(metrics["profit_factor"])


def test_the_last_position_is_the_one_before_it_was_closed_for_good() -> None:
    assert net_positions(typed(made_result([0, 1, 2], 1.0))).tolist() == [2.0, 2.0, 2.0]


def test_the_value_at_risk_of_one_coin_is_its_own() -> None:
    result = made_result([BAR_MS * i for i in range(50)], 10_000.0)
    close = result["candles"]["close"].to_numpy()
    sigma = np.std(np.diff(np.log(close))[-PARAMS.volatility_period :], ddof=1)
    expected = 1.65 * 2.0 * close[-1] * sigma * math.sqrt(PARAMS.var_horizon_bars)
    var = combined({"A": result})["var"]
    assert var["end"] == pytest.approx(expected)
    assert var["end_pct"] == pytest.approx(expected / 100.0)
    assert var["highest"] >= var["end"]


def test_two_coins_that_move_alike_carry_their_full_risk() -> None:
    times = [BAR_MS * i for i in range(50)]
    alone = combine_portfolio(
        typed_coins({"A": made_result(times, 1.0)}), BAR_MS, PARAMS
    ).to_dict()["var"]
    results = {"A": made_result(times, 1.0), "B": made_result(times, 1.0)}
    both = combined(results)["var"]
    assert both["end"] == pytest.approx(2.0 * alone["end"])
    assert both["correlation"] == {"A/B": pytest.approx(1.0)}


# --- real candles -------------------------------------------------------------------------------


@pytest.mark.skipif(not MARKET.is_dir(), reason=f"no real candles in {MARKET}")
def test_real_candles_run_from_a_folder() -> None:
    simulator = BacktestSimulator(source=MARKET, detail="1m")
    result = simulator.run_single("BTC", "2025-01-15", "2025-03-01")
    assert result["data"]["funding"] == "real"
    assert 50.0 < result["data"]["detail_coverage_pct"] < 100.0
    assert result["market"].brackets != DEFAULT_BRACKETS
    assert result["first_bar"] == 0
    assert result["metrics"]["total_trades"] > 0
