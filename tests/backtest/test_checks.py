"""``main.py --check``: each check passes on the strategy and catches what was planted."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import backtest.runs.step_run
import backtest.trust.checks
import main
from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData, candle_table, empty_funding
from backtest.runs.step_run import StepRun, first_difference, run_tables
from backtest.simulator import BacktestSimulator
from backtest.trust.lookahead import check_lookahead, cut_market, traded_steps
from backtest.trust.outcome import Budget, coarse_to_fine, spread
from backtest.trust.parity import check_parity
from backtest.trust.warmup import (
    BUFFERS,
    INDICATORS,
    NO_LABEL,
    at_last_bar,
    check_warmup,
    relative,
    worst_elsewhere,
)
from config import PRESETS
from core.errors import ConfigError, DataError
from core.kama import REGIME_NAMES
from core.params import StrategyParams
from core.regime_gmm import calculate_gmm_regime
from core.signals import compute_signals
from engine.grid_v4.walk import walk_bar
from engine.strategy import GridStrategyV4, read_config
from engine.tables import RunTables
from engine.types import SHORT
from tests.support.markets import oracle
from tests.support.markets.synthetic import (
    BAR_MS,
    FIRST_MS,
    RULES,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)

BUSY: dict[str, Any] = {**PRESETS["documented"], "spacing_floor": 0.003, "grid_spacing_k": 0.5}
HOUR_MS = 3_600_000


def coin_data(
    n_bars: int, seed: int, *, first: int = 0, hours: int = 8, fine: bool = False
) -> CoinData:
    """Return an invented market to check on."""
    candles = synthetic_candles(n_bars, seed)
    funding = synthetic_settlements(candles, seed, hours=hours)
    detail = synthetic_detail(candles, seed) if fine else None
    return data_of(MarketData("BTC", candles, funding, detail, BAR_MS, "a test"), first)


def data_of(market: MarketData, first: int = 0) -> CoinData:
    times = market.candles["timestamp"]
    span = int(times.iloc[0]), int(times.iloc[-1]) + BAR_MS
    return CoinData(market, RULES, first, span, None)


def real_data(coin: str, start: str, n_bars: int) -> CoinData:
    candles, funding = oracle.real_candles(coin, start, n_bars)
    rates = funding.assign(timestamp=funding["timestamp"] // 60_000 * 60_000)
    market = MarketData(coin, candles, rates[["timestamp", "rate"]], None, BAR_MS, "a test")
    return replace(data_of(market, 500), rules=oracle.coin_rules(coin))


# --- lookahead ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("preset", ["documented", "shipped"])
def test_the_strategy_passes_the_lookahead_check(preset: str, *, fine: bool) -> None:
    data, params = coin_data(900, 5, first=200, fine=fine), read_config(PRESETS[preset])
    outcome = check_lookahead(data, params, Budget(40))
    assert outcome.difference is None
    decisions = len(traded_steps(run_tables(data.market, params, 200), params, RULES)[0])
    assert decisions > 10
    assert outcome.summary.startswith(f"{min(40, decisions)} of {decisions} decisions that traded")


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize(("coin", "start"), [("BTC", "2023-08-01"), ("SOL", "2022-10-20")])
def test_the_strategy_passes_the_lookahead_check_on_real_candles(
    coin: str, start: str, preset: str
) -> None:
    outcome = check_lookahead(
        real_data(coin, start, 5_000), read_config(PRESETS[preset]), Budget(60)
    )
    assert outcome.difference is None


@pytest.mark.slow
@pytest.mark.parametrize("hours", [8, 2])
def test_a_hole_in_the_funding_record_is_no_lookahead(hours: int) -> None:
    """The check cuts the record too, so a rate that is missing must not show before it is."""
    data = coin_data(900, 6, hours=hours)
    missing = data.market.funding.drop(index=range(12, 12 + 40 // hours)).reset_index(drop=True)
    outcome = check_lookahead(
        data_of(replace(data.market, funding=missing)), read_config(BUSY), Budget(120)
    )
    assert outcome.difference is None


def knows_the_close(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Centre the grid on the close of the bar that will fill it."""
    candles = market.candles.assign(open=market.candles["close"])
    return run_tables(replace(market, candles=candles), params, first)


def knows_the_next_bar(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Read the indicators of the bar that is just opening."""
    tables = run_tables(market, params, first)
    return replace(tables, signals=np.roll(tables.signals, -1))


def knows_the_next_rate(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Read a funding rate before it is settled."""
    tables = run_tables(market, params, first)
    funding = tables.funding.copy()
    funding["known"] = np.roll(funding["known"], -32)
    return replace(tables, funding=funding)


def knows_the_mean(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Scale one indicator by a mean over the whole series, the future included."""
    tables = run_tables(market, params, first)
    signals = tables.signals.copy()
    signals["sigma"] *= 1.0 + 1e-9 * float(np.mean(market.candles["close"]))
    return replace(tables, signals=signals)


def knows_the_next_close(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Judge stops by the close of the bar that is just opening."""
    tables = run_tables(market, params, first)
    bars = tables.bars.copy()
    bars["close"] = np.roll(bars["close"], -1)
    return replace(tables, bars=bars)


def knows_the_end_of_a_hole(market: MarketData, params: StrategyParams, first: int) -> RunTables:
    """Model a hole from its beginning because real rates return only after it."""
    times = market.funding["timestamp"].to_numpy()
    longest = int(np.diff(times).argmax())
    if times[longest + 1] - times[longest] <= 24 * HOUR_MS:
        return run_tables(market, params, first)
    slots = np.arange(times[longest] // HOUR_MS + 1, times[longest + 1] // HOUR_MS) * HOUR_MS
    made = pd.DataFrame({"timestamp": slots[slots % (8 * HOUR_MS) == 0], "rate": 0.0003})
    filled = pd.concat([market.funding, made]).sort_values("timestamp", ignore_index=True)
    return run_tables(replace(market, funding=filled), params, first)


@pytest.mark.slow
def test_a_hole_modelled_with_hindsight_is_caught() -> None:
    data, params = coin_data(900, 6), read_config(BUSY)
    times = data.market.funding["timestamp"]
    lost = times.between(times.iloc[6] + 1, times.iloc[6] + 40 * HOUR_MS)
    holed = data_of(replace(data.market, funding=data.market.funding[~lost].reset_index(drop=True)))
    outcome = check_lookahead(holed, params, Budget(200), knows_the_end_of_a_hole)
    assert outcome.difference is not None
    assert check_lookahead(holed, params, Budget(200)).difference is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("leak", "first_found"),
    [
        (knows_the_close, "order"),
        (knows_the_next_bar, "indicators"),
        (knows_the_next_rate, "order"),
        (knows_the_mean, "indicators: sigma at bar"),
        (knows_the_next_close, "state.now.prev_close"),
    ],
)
def test_a_planted_leak_is_caught(leak: Callable[..., RunTables], first_found: str) -> None:
    data, params = coin_data(900, 21, first=200), read_config(BUSY)
    outcome = check_lookahead(data, params, Budget(20), leak)
    assert outcome.difference is not None
    assert first_found in outcome.difference
    assert "on all data" in outcome.difference
    assert "on the cut data" in outcome.difference
    assert outcome.summary.startswith("cut at the open of bar ")
    assert check_lookahead(data, params, Budget(20)).difference is None


def test_a_market_is_cut_at_the_open_of_a_bar() -> None:
    market, k = coin_data(600, 3, fine=True).market, 301
    cut, whole = cut_market(market, k), market.candles
    now = int(whole["timestamp"].iloc[k])
    assert cut.candles[:k].equals(whole[:k])
    blank = cut.candles[k:]
    assert blank["timestamp"].tolist() == whole["timestamp"][k : k + 193].tolist()
    for name in ("open", "high", "low", "close"):
        assert (blank[name] == whole["open"].iloc[k]).all()
    assert (blank["volume"] == 0.0).all()
    known = market.funding[market.funding["timestamp"] <= now]
    assert cut.funding.equals(known)
    assert 0 < len(known) < len(market.funding)
    assert market.detail is not None
    assert cut.detail is not None
    assert cut.detail.equals(market.detail[market.detail["timestamp"] < now])
    assert market.candles["volume"].iloc[k] > 0.0


def test_where_nothing_was_traded_every_step_that_acts_may_be_cut() -> None:
    times = FIRST_MS + BAR_MS * np.arange(300)
    candles = candle_table(
        {"timestamp": times, "open": 50.0, "high": 50.0, "low": 50.0, "close": 50.0, "volume": 1.0}
    )
    data = data_of(MarketData("BTC", candles, empty_funding(), None, BAR_MS, "a test"), 100)
    outcome = check_lookahead(data, read_config(None), Budget(5))
    assert outcome.difference is None
    assert outcome.summary.startswith("5 of 200 decisions (none traded)")


def test_the_end_of_the_run_is_no_decision() -> None:
    data = coin_data(700, 8)
    params = read_config(BUSY)
    tables = run_tables(data.market, params, 0)
    steps, _ = traded_steps(tables, params, RULES)
    run = StepRun(tables, params, RULES)
    run.run_compiled(0, 700)
    run.close(700)
    bars = set(run.trades["bar"].tolist())
    assert set(steps) == bars - {699} or set(steps) == bars
    assert steps == sorted(steps)


# --- warm-up ------------------------------------------------------------------------------------


def calm_after_wild(n_wild: int, n_calm: int) -> MarketData:
    """Return bars that close at 100, with a true range of 2 first and of 1 later."""
    reach = np.repeat([1.0, 0.5], [n_wild, n_calm])
    times = FIRST_MS + BAR_MS * np.arange(reach.size)
    candles = candle_table(
        {
            "timestamp": times,
            "open": 100.0,
            "high": 100.0 + reach,
            "low": 100.0 - reach,
            "close": 100.0,
            "volume": np.repeat([3.0, 1.0], [n_wild, n_calm]),
        }
    )
    return MarketData("BTC", candles, empty_funding(), None, BAR_MS, "a test")


def test_the_differences_are_right_on_a_known_case() -> None:
    """Wilder's average forgets (n-1)/n of its past at each bar; a mean of 672 bars counts them."""
    market = calm_after_wild(1_000, 600)
    params = read_config({"atr_period": 200, "regime_timeframe_mult": 1})
    (row,) = at_last_bar(market, params, [500])
    left = (199 / 200) ** 600
    assert row.bars == 500
    assert row.differences["atr"] == pytest.approx(left / (1.0 + left), rel=1e-9)
    assert row.differences["kama"] == 0.0
    assert row.differences["sigma"] == 0.0
    mean = (72 * 3.0 + 600 * 1.0) / 672
    assert row.differences["volume_ratio"] == pytest.approx(mean - 1.0, rel=1e-9)
    assert row.regime == ("NOISE", "NOISE")


def test_the_differences_are_those_of_the_indicators_recomputed() -> None:
    market, params = coin_data(4_000, 12).market, read_config(None)
    rows = at_last_bar(market, params, [500, 3_000])
    for row in rows:
        c = market.candles.iloc[-row.bars :]
        ours = compute_signals(c.timestamp, c.high, c.low, c.close, c.volume, params)[-1]
        c = market.candles
        theirs = compute_signals(c.timestamp, c.high, c.low, c.close, c.volume, params)[-1]
        for name in INDICATORS:
            off = abs(float(ours[name]) - float(theirs[name])) / abs(float(theirs[name]))
            assert row.differences[name] == pytest.approx(off, rel=1e-12, abs=1e-300)
        names = REGIME_NAMES[int(ours["regime"])], REGIME_NAMES[int(theirs["regime"])]
        assert row.regime == names
    assert max(rows[0].differences.values()) > 1e-3
    assert max(rows[1].differences.values()) < 1e-9


def test_the_verdict_names_the_smallest_buffer_that_is_enough() -> None:
    outcome = check_warmup(coin_data(6_000, 4), read_config(None), 3_000, Budget(20))
    assert outcome.difference is None
    assert outcome.summary == (
        "enough for 1e-06 relative on these candles: 1,000 bars; a run has 3,000 to warm up; live "
        "keeps 13,290, enough in any market"
    )
    header, columns, *lines = outcome.table
    assert header.endswith("against all 6,000 bars")
    assert columns.split() == ["from", "the", "last", *(f"{n:,}" for n in BUFFERS)]
    assert [line.split()[0] for line in lines[:8]] == list(INDICATORS)
    assert lines[-1].startswith("worst at 20 bars")
    assert lines[6].split()[-1] == "0"


def test_a_warm_up_that_is_too_short_fails_with_the_first_difference() -> None:
    slow = read_config({"atr_period": 200})
    outcome = check_warmup(coin_data(8_000, 4), slow, 1_000, Budget(10))
    assert not outcome.passed
    assert outcome.difference is not None
    assert outcome.difference.startswith("atr from the last 1,000 bars is ")
    assert outcome.difference.endswith(" % off")
    assert "enough for 1e-06 relative on these candles: 3,000 bars" in outcome.summary


def test_no_buffer_may_be_enough() -> None:
    slow = read_config({"atr_period": 200})
    outcome = check_warmup(coin_data(2_500, 4), slow, 3_000, Budget(10))
    assert "no buffer up to 2,000 bars" in outcome.summary
    assert not outcome.passed


def test_an_indicator_that_is_not_warm_is_infinitely_far_off() -> None:
    slow = read_config({"kama_period": 150, "regime_timeframe_mult": 4})
    outcome = check_warmup(coin_data(1_500, 4), slow, 500, Budget(1))
    assert outcome.difference == "er from the last 500 bars is not warm yet"
    assert "not warm" in outcome.table[2]


def test_a_lucky_last_bar_is_not_enough() -> None:
    """At the last bar 1,000 bars agree, the wild ones being long past; not so at others."""
    market = calm_after_wild(2_000, 2_300)
    params = read_config({"atr_period": 100, "regime_timeframe_mult": 1})
    outcome = check_warmup(data_of(market), params, 1_000, Budget(40))
    assert all(d <= 1e-6 for d in at_last_bar(market, params, [1_000])[0].differences.values())
    assert outcome.difference is not None
    worst, looked_at = worst_elsewhere(market, params, [1_000, 3_000], Budget(40))
    assert looked_at == 40
    assert worst[1_000].difference > 1e-6
    assert outcome.difference.startswith(f"{worst[1_000].indicator} from 1,000 bars is ")
    assert " % off at 2024-" in outcome.difference


def test_too_few_bars_to_compare_are_refused() -> None:
    with pytest.raises(DataError, match="BTC: 400 bars are too few to compare a buffer with"):
        check_warmup(coin_data(400, 1), read_config(None), 3_000, Budget(5))


@pytest.mark.slow
def test_the_label_of_the_mixture_is_the_one_a_whole_history_gives() -> None:
    market, params = coin_data(4_000, 11).market, read_config({"use_ml_regime": True})
    rows = at_last_bar(market, params, [500, 3_000])
    c = market.candles
    atr = compute_signals(c.timestamp, c.high, c.low, c.close, c.volume, read_config(None))["atr"]
    labels = calculate_gmm_regime(c.timestamp, c.close, atr, params.gmm_seed)
    assert {row.gmm[1] for row in rows} == {REGIME_NAMES[int(labels[-1])]}
    assert rows[0].gmm[0] == NO_LABEL
    assert rows[1].gmm[0] == rows[1].gmm[1]


@pytest.mark.slow
def test_a_buffer_too_short_for_the_mixture_is_not_enough_where_it_decides() -> None:
    data, calm = coin_data(3_600, 4), {"regime_enabled": True, "adx_veto_enabled": False}
    outcome = check_warmup(data, read_config({**calm, "use_ml_regime": True}), 3_000, Budget(5))
    assert "enough for 1e-06 relative on these candles: 3,000 bars" in outcome.summary
    assert outcome.table[-2].split("none yet")[0].strip() == "GMM label"
    assert "1,000 bars" in check_warmup(data, read_config(calm), 3_000, Budget(5)).summary


@pytest.mark.parametrize(
    ("value", "exact", "expected"),
    [
        (1.0, 1.0, 0.0),
        (1.5, 1.0, 0.5),
        (-1.0, 1.0, 2.0),
        (0.0, 0.0, 0.0),
        (1.0, 0.0, np.inf),
        (np.nan, 1.0, np.inf),
        (1.0, np.nan, np.inf),
        (np.nan, np.nan, 0.0),
    ],
)
def test_a_difference_is_relative_to_the_whole_history(
    value: float, exact: float, expected: float
) -> None:
    assert relative(value, exact) == expected


# --- parity -------------------------------------------------------------------------------------


@pytest.mark.parametrize("fine", [False, True])
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.slow
def test_the_strategy_passes_the_parity_check(preset: str, *, fine: bool) -> None:
    data = coin_data(700, 5, first=150, fine=fine)
    outcome = check_parity(data, read_config(PRESETS[preset]), Budget(50))
    assert outcome.difference is None
    assert "550 of 550 bars one step at a time, 50 restarts from JSON" in outcome.summary


def test_a_run_that_is_liquidated_passes_the_parity_check() -> None:
    lost = {
        **PRESETS["documented"],
        "leverage": 20.0,
        "stop1_enabled": False,
        "stop2_enabled": False,
        "prune_enabled": (),
        "var_block_enabled": False,
        "var_deleverage_enabled": False,
        "spacing_floor": 0.003,
    }
    data = coin_data(1_500, 8)
    assert check_parity(data, read_config(lost), Budget(20)).difference is None
    params = read_config(lost)
    run = StepRun(run_tables(data.market, params, 0), params, RULES)
    run.run_compiled(0, 1_500)
    assert run.strategy.state.ended


def test_the_tables_of_a_check_make_the_run_of_a_backtest() -> None:
    data = coin_data(900, 13, first=100, fine=True)
    params = read_config(BUSY)
    run = StepRun(run_tables(data.market, params, 100), params, RULES)
    run.run_compiled(0, 900)
    run.close(900)
    theirs = GridStrategyV4(BUSY, RULES).run(
        data.market.candles, funding=data.market.funding, detail=data.market.detail, first_bar=100
    )
    assert run.trades.tobytes() == theirs["trade_table"].tobytes()
    assert run.log.tobytes() == theirs["log"].tobytes()


def loses_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the path of every tenth bar."""
    seen = [0]

    def walk_most(*arguments: Any) -> None:
        seen[0] += 1
        if seen[0] % 10:
            walk_bar(*arguments)

    monkeypatch.setattr(backtest.runs.step_run, "walk_bar", walk_most)


def forgets_the_halt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose one field of the state at a restart."""
    load = GridStrategyV4.load_state_dict

    def load_most(strategy: GridStrategyV4, data: dict[str, Any]) -> None:
        load(strategy, data)
        strategy.state.sides[SHORT].traded = False

    monkeypatch.setattr(GridStrategyV4, "load_state_dict", load_most)


def charges_no_funding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backtest.runs.step_run, "settle_funding", lambda *_: 0.0)


def rounds_the_wallet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose the last digits of the wallet on the way through JSON."""
    load = GridStrategyV4.load_state_dict

    def load_rounded(strategy: GridStrategyV4, data: dict[str, Any]) -> None:
        load(strategy, data | {"wallet": round(data["wallet"], 9)})

    monkeypatch.setattr(GridStrategyV4, "load_state_dict", load_rounded)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "found"),
    [
        (loses_a_bar, "trade "),
        (forgets_the_halt, "trade "),
        (charges_no_funding, "account: equity in bar "),
        (rounds_the_wallet, "account: "),
    ],
)
def test_a_planted_difference_is_caught(
    plant: Callable[[pytest.MonkeyPatch], None], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, params = coin_data(700, 21), read_config({**BUSY, "order_pct": 0.01})
    assert check_parity(data, params, Budget(60)).passed
    plant(monkeypatch)
    outcome = check_parity(data, params, Budget(60))
    assert outcome.difference is not None
    assert outcome.difference.startswith(found)
    assert "step by step" in outcome.difference


def test_a_field_that_no_trade_shows_is_caught_in_the_state(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load = GridStrategyV4.load_state_dict

    def load_other(strategy: GridStrategyV4, data: dict[str, Any]) -> None:
        load(strategy, data)
        strategy.state.counters.var_blocks += 1

    monkeypatch.setattr(GridStrategyV4, "load_state_dict", load_other)
    difference = check_parity(coin_data(300, 2), read_config(None), Budget(3)).difference
    assert difference == "state.counters.var_blocks is 0 compiled, 3 step by step"


def test_where_the_time_is_up_the_bars_up_to_then_are_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    outcome = check_parity(coin_data(600, 5), read_config(BUSY), Budget(None, 100.0))
    assert outcome.difference is None
    assert outcome.summary.startswith("100 of 600 bars one step at a time, ")


# --- budgets and differences --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("200", Budget(200)),
        (" 1 ", Budget(1)),
        ("30s", Budget(None, 30.0)),
        ("0.5s", Budget(None, 0.5)),
    ],
)
def test_a_budget_is_a_count_or_a_time(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "0s", "s", "", "many", "30m", "1e3", "9999999"])
def test_anything_else_is_no_budget(text: str) -> None:
    with pytest.raises(ConfigError, match="must be a number of cuts or restarts"):
        Budget.parse(text)


def test_at_least_one_item_is_done_however_short_the_time() -> None:
    assert list(Budget(None, 1e-9).spend([3, 4, 5], "x")) == [3]


@given(count=st.integers(1, 300), wanted=st.integers(1, 400))
def test_a_spread_has_both_ends_and_even_steps(count: int, wanted: int) -> None:
    chosen = spread(count, wanted)
    assert len(chosen) == min(count, wanted)
    assert chosen[-1] == count - 1
    assert min(count, wanted) == 1 or chosen[0] == 0
    steps = np.diff(chosen)
    assert steps.size == 0 or steps.max() - steps.min() <= 1


@given(count=st.integers(0, 300), wanted=st.integers(1, 400))
def test_coarse_to_fine_has_each_once_and_the_first_few_all_over(count: int, wanted: int) -> None:
    order = coarse_to_fine(count, Budget(wanted))
    assert sorted(order) == (spread(count, wanted) if count else [])
    assert len(set(order)) == len(order)
    first = order[:8]
    assert first == sorted(first)
    assert not first or max(first) == count - 1


def table(*rows: tuple[float, int]) -> Any:
    return np.array(list(rows), dtype=[("price", "f8"), ("bar", "i8")])


def test_the_first_difference_is_that_of_the_first_row() -> None:
    ours = table((1.0, 1), (np.nan, 2), (3.0, 3), (4.0, 4))
    assert first_difference(ours, table((1.0, 1), (np.nan, 2), (3.0, 3), (4.0, 4))) is None
    assert first_difference(ours, table((1.0, 1), (np.nan, 2), (3.5, 3), (4.0, 9))) == (
        2,
        "price",
        3.0,
        3.5,
    )
    assert first_difference(ours, table((1.0, 1), (np.nan, 7), (3.5, 3))) == (1, "bar", 2, 7)
    assert first_difference(ours, ours[:2]) is None
    assert first_difference(ours[:0], ours) is None


# --- the command --------------------------------------------------------------------------------

Command = Callable[..., tuple[int, str, str]]
SHORT_RANGE = ["--demo", "--coins", "BTC", "--start", "2024-01-10", "--end", "2024-01-20"]


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Command:
    """Return ``main.main`` in an empty folder: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(backtest.trust.checks, "is_compiled", lambda _: True)

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main.main(arguments)
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return call


@pytest.mark.slow
def test_all_checks_pass_on_the_demo_and_write_nothing(command: Command, tmp_path: Path) -> None:
    names = ["lookahead", "warmup", "parity"]
    code, out, err = command(*SHORT_RANGE, "--check", *names, "--budget", "20")
    assert (code, err) == (0, "")
    for name in names:
        assert f"BTC   {name}: passed: " in out
    assert max(len(line) for line in out.splitlines()) <= 90
    assert list(tmp_path.iterdir()) == []


def test_a_check_that_fails_exits_with_1_and_says_where(command: Command) -> None:
    slow = ["--set", "regime_timeframe_mult=96", "--set", "kama_slow=500"]
    code, out, _ = command(*SHORT_RANGE, *slow, "--check", "warmup", "--budget", "5")
    text = " ".join(out.split())
    assert code == 1
    assert "BTC warmup: FAILED: enough for 1e-06 relative on these candles: " in text
    assert "first difference: kama from the last 3,000 bars is " in text


def test_machines_are_answered_in_json(command: Command) -> None:
    arguments = ["--check", "parity", "parity", "--budget", "3", "--json"]
    code, out, _ = command(*SHORT_RANGE, *arguments)
    outcome = json.loads(out)["checks"]["BTC"]["parity"]
    assert code == 0
    assert outcome["difference"] is None
    assert "960 of 960 bars" in outcome["summary"]


def test_the_users_own_data_and_parameters_are_checked(command: Command, tmp_path: Path) -> None:
    candles = synthetic_candles(900, 3)
    (tmp_path / "mine").mkdir()
    candles.to_csv(tmp_path / "mine" / "BTCUSDT-15m.csv", index=False)
    day = pd.Timestamp(FIRST_MS + 2 * 24 * HOUR_MS, unit="ms").strftime("%Y-%m-%d")
    mine = ["--data", "mine", "--coins", "BTC", "--start", day, "--preset", "documented"]
    code, out, _ = command(*mine, "--check", "lookahead", "--budget", "10", "--no-short")
    assert code == 0
    assert "10 of " in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check", "looahead"], "unknown check 'looahead'; did you mean lookahead? (there are:"),
        (["--check", "parity", "--budget", "soon"], "budget = 'soon' must be a number of cuts"),
        (["--budget", "30s"], "--budget 30s needs --check NAME"),
        (["--check", "parity", "--set", "grid_levels=40"], "is outside [1, 24] levels per side"),
        (["--check", "parity", "--end", "2024-01-09"], "end = 2024-01-09 00:00 must be after"),
        (["--check", "parity", "--coins", "DOGE"], "the demo has no coin DOGE"),
        (["--check", "parity", "--end", "2024-01-10T05:00"], "Insufficient data for BTC: 20"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_and_exit_code_2(
    command: Command, arguments: list[str], message: str
) -> None:
    code, out, err = command(*SHORT_RANGE, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert message in err


def test_a_check_and_an_audit_are_not_asked_for_at_once(command: Command) -> None:
    with pytest.raises(SystemExit) as caught:
        command(*SHORT_RANGE, "--check", "parity", "--audit")
    assert caught.value.code == 2


def test_the_first_check_says_that_it_compiles(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backtest.trust.checks, "is_compiled", lambda _: False)
    assert "compiling" in command(*SHORT_RANGE, "--check", "warmup", "--budget", "1")[2]


def test_a_simulator_loads_what_it_would_run_on() -> None:
    simulator = BacktestSimulator(source="demo")
    data = simulator.load("btc/usdt", "2024-01-10", "2024-01-20")
    result = simulator.run_single("BTC", "2024-01-10", "2024-01-20")
    assert data.market.data_hash == result["data"]["hash"]
    assert data.first_bar == 3_000
    assert data.rules == result["market"]
    assert data.notice is None
