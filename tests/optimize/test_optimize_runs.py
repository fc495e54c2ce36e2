"""A trial's runs: equal to plain backtests, blind to tests and holdout, alike on every thread."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import backtest.optimize.trial.coin_runs
import backtest.optimize.trial.shared_signals
from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData, slice_time
from backtest.market.sources import MarketSource
from backtest.market.timeframes import format_time
from backtest.optimize.trial.objective import WORST_SCORE, Objective, WindowFacts, score_window
from backtest.optimize.trial.prepare import Prepared, prepare
from backtest.optimize.trial.range_runs import with_candles
from backtest.optimize.trial.shared_signals import SharedSignals
from backtest.optimize.trial.space import read_space
from backtest.optimize.trial.trial import TrialOutcome, WindowScore
from backtest.optimize.trial.windows import Plan
from backtest.simulator import BacktestSimulator
from core.errors import ConfigError, DataError
from core.records import dtype_of
from core.signals import Signal, compute_signals
from core.times import DAY_MS
from engine.strategy import GridStrategyV4, read_config
from tests.support.markets.synthetic import (
    BAR_MS,
    CONFIGS,
    FIRST_MS,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)
from tests.support.paths import MARKET

WARMUP = 1_000
N_BARS = 11_500
START, END = format_time(FIRST_MS + WARMUP * BAR_MS), format_time(FIRST_MS + N_BARS * BAR_MS)
BASE = {"grid_spacing_k": 1.5, "spacing_floor": 0.006, "max_position_age_hours": 6.0}
SPACE = read_space()

DRAWS = st.fixed_dictionaries(
    {
        name: st.integers(int(entry.low or 0), int(entry.high or 0))
        if entry.kind == "int"
        else st.floats(entry.low, entry.high)
        for name, entry in SPACE.entries.items()
    }
)
"""Values out of the shipped space."""


def market(coin: str, seed: int, *, missing: float = 0.0, detail: bool = False) -> MarketData:
    candles = synthetic_candles(N_BARS, seed, missing=missing)
    return MarketData(
        coin=coin,
        candles=candles,
        funding=synthetic_settlements(candles, seed),
        detail=synthetic_detail(candles, seed) if detail else None,
        bar_ms=BAR_MS,
        source="test",
    )


def prepared_of(*markets: MarketData, **options: Any) -> Prepared:
    """Return what ``prepare`` makes of ``markets``, two windows of it."""
    by_coin = {item.coin: item for item in markets}

    def load(
        coin: str, start_ms: int, end_ms: int, /, *, timeframe: str, detail: str | None
    ) -> MarketData:
        del timeframe, detail
        item = by_coin[coin]
        fine = item.detail
        return replace(
            item,
            candles=slice_time(item.candles, start_ms, end_ms),
            funding=slice_time(item.funding, start_ms, end_ms + 1),
            detail=None if fine is None else slice_time(fine, start_ms, end_ms),
        )

    simulator = BacktestSimulator(BASE, {"warmup_bars": WARMUP}, MarketSource(load))
    options = {"coins": list(by_coin), "start": START, "end": END, "windows": 2, **options}
    return prepare(simulator, SPACE, **options)


@functools.cache
def two_coins() -> Prepared:
    return prepared_of(market("BTC", 1), market("ETH", 2))


Windows = list[WindowFacts]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Windows:
    """Return the facts of every window that is scored from now on, in order."""
    seen: Windows = []

    def record(facts: WindowFacts, objective: Objective) -> WindowScore:
        seen.append(facts)
        return score_window(facts, objective)

    monkeypatch.setattr(backtest.optimize.trial.coin_runs, "score_window", record)
    return seen


def plan_of(prepared: Prepared, coin: str) -> Plan:
    times = prepared.data[coin].market.candles["timestamp"].to_numpy()
    return prepared.plan.for_coin(times)


# --- windows are plain backtests -----------------------------------------------------------------


def fresh_run(data: CoinData, drawn: Mapping[str, Any], first: int, end: int) -> dict[str, Any]:
    """Return a plain backtest of the bars ``[first, end)`` and all before that warm it up."""
    strategy = GridStrategyV4({**BASE, **drawn}, data.rules)
    return strategy.run(
        data.market.candles[:end],
        funding=data.market.funding,
        first_bar=first,
        detail=data.market.detail,
    )


def round_trips(trades: pd.DataFrame) -> tuple[int, float, float]:
    """Return count, gross profit and gross loss of the fills whose records sum to nothing open."""
    kept = trades[(trades["label"] != "CLOSE_END") & (trades["direction"] != "")]
    opens = kept["label"].str.contains("_OPEN_")
    signed = kept["qty"].where(opens, -kept["qty"])
    by_fill = pd.DataFrame(
        {
            "left": signed.groupby(kept["fill_id"]).sum(),
            "net": (kept["pnl"] - kept["fee"]).groupby(kept["fill_id"]).sum(),
        }
    )
    net = by_fill.loc[by_fill["left"].abs() < 1e-9, "net"]
    return len(net), float(net[net > 0].sum()), float(-net[net <= 0].sum())


def assert_is_fresh_run(
    facts: WindowFacts, data: CoinData, drawn: Mapping[str, Any], first: int, end: int
) -> None:
    beyond = fresh_run(data, drawn, first, end + 1)  # its last bar alone is after a close
    assert facts.equity.tobytes() == beyond["equity_curve"][first:end].tobytes()
    trips, profit, loss = round_trips(pd.DataFrame(fresh_run(data, drawn, first, end)["trades"]))
    assert facts.trades == trips > 20
    assert (facts.gross_profit, facts.gross_loss) == pytest.approx((profit, loss))


@pytest.mark.slow
@pytest.mark.parametrize("detail", [False, True])
def test_every_window_equals_a_separate_backtest_of_its_bars(
    scored: Windows, *, detail: bool
) -> None:
    prepared = prepared_of(market("BTC", 3, missing=0.01, detail=detail))
    data, plan = prepared.data["BTC"], plan_of(prepared, "BTC")
    drawn = {"gamma": 0.7}
    prepared.evaluate({"gamma": 1.3})  # leaves its marks in the buffers
    scored.clear()
    prepared.evaluate(drawn)
    spans = [(plan.first_bar, window.train_end) for window in plan.windows]
    spans += [(window.test_start, window.test_end) for window in plan.windows]
    assert len(scored) == len(spans) == 4
    for facts, (first, end) in zip(scored, spans, strict=True):
        if end < len(data.market.candles):
            assert_is_fresh_run(facts, data, drawn, first, end)
    last_test = scored[-1].equity[:-1]
    first, end = spans[-1]
    assert end == len(data.market.candles)
    run = fresh_run(data, drawn, first, end)["equity_curve"]
    assert last_test.tobytes() == run[first : end - 1].tobytes()


def test_daily_returns_are_those_of_one_run_with_equal_capital() -> None:
    prepared, drawn = two_coins(), {"gamma": 0.7}
    runs = prepared.evaluate_range(drawn)
    equity = np.sum([run.equity_curve for run in runs.values()], axis=0) / 20_000.0
    times = runs["BTC"].times_ms
    assert times[0] == prepared.plan.start_ms
    last_of_day = np.flatnonzero(np.diff(times // DAY_MS, append=0))
    expected = np.diff(equity[last_of_day], prepend=1.0) / np.append(1.0, equity[last_of_day][:-1])
    returns = prepared.evaluate(drawn).daily_returns
    assert len(returns) == len(prepared.plan.days_ms) == len(last_of_day)
    # The range closes what is open at its end.
    np.testing.assert_allclose(returns[:-1], expected[:-1], rtol=0, atol=1e-13)
    assert np.std(returns) > 0.0


def test_the_score_is_the_lowest_train_score() -> None:
    outcome = two_coins().evaluate({})
    assert list(outcome.train) == list(outcome.test) == ["BTC", "ETH"]
    assert outcome.score == min(row.score for rows in outcome.train.values() for row in rows)
    assert outcome.train["BTC"] != outcome.train["ETH"]


# --- signals -------------------------------------------------------------------------------------


def fresh_signals(data: MarketData, config: Mapping[str, Any]) -> Any:
    frame = data.candles
    return compute_signals(
        frame["timestamp"],
        frame["high"],
        frame["low"],
        frame["close"],
        frame["volume"],
        read_config(config),
    )


def assert_shared_signals(shared: SharedSignals, data: MarketData, config: Any) -> None:
    table = np.full(len(data.candles), -1, dtype_of(Signal))
    shared.write(read_config(config), table)
    fresh = fresh_signals(data, config)
    for name in fresh.dtype.names:
        np.testing.assert_array_equal(table[name], fresh[name], err_msg=name)


SIGNAL_CHOICES: dict[str, list[Any]] = {
    "kama_period": [5, 10],
    "kama_fast": [2, 4],
    "kama_slow": [20, 30],
    "atr_period": [7, 14],
    "adx_period": [7, 14],
    "z_score_period": [10, 20],
    "volatility_period": [10, 14],
    "regime_timeframe_mult": [1, 4],
    "regime_enabled": [True, True, False],
    "regime_threshold": [0.1, 0.3],
    "er_trend_threshold": [0.3, 0.5],
    "adx_veto_enabled": [True, False],
    "adx_trend_threshold": [15.0, 25.0],
    "regime_hysteresis_bars": [1, 3],
    "gmm_seed": [1, 42],
}
SIGNAL_CONFIGS = st.builds(
    lambda config, changes: {**config, **changes},
    CONFIGS,
    st.fixed_dictionaries({k: st.sampled_from(v) for k, v in SIGNAL_CHOICES.items()}),
)


@pytest.mark.slow
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(SIGNAL_CONFIGS, min_size=1, max_size=12))
def test_shared_signals_equal_fresh_ones_whatever_was_asked_before(configs: list[Any]) -> None:
    data = short_market()
    shared = SharedSignals(data, read_config(BASE))
    for config in [*configs, configs[0]]:
        assert_shared_signals(shared, data, config)


@functools.cache
def short_market() -> MarketData:
    whole = market("BTC", 4)
    return replace(whole, candles=whole.candles[:1_200])


def test_shared_signals_of_the_mixture_equal_fresh_ones() -> None:
    whole = market("BTC", 4)
    data = replace(whole, candles=whole.candles[:3_300])
    shared = SharedSignals(data, read_config(BASE))
    ml = {"use_ml_regime": True}
    for changes in ({}, ml, {**ml, "kama_period": 5}, {**ml, "atr_period": 7}, {"kama_period": 5}):
        assert_shared_signals(shared, data, changes)
    assert not np.array_equal(fresh_signals(data, ml)["regime"], fresh_signals(data, {})["regime"])


def count_calls(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    calls: list[str] = []
    real = getattr(backtest.optimize.trial.shared_signals, name)

    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(name)
        return real(*args, **kwargs)

    monkeypatch.setattr(backtest.optimize.trial.shared_signals, name, counted)
    return calls


@pytest.mark.parametrize(
    ("config", "changes", "computed"),
    [
        ({}, {"gamma": 0.9, "grid_levels": 3}, (0, 0, 0)),
        ({}, {"adx_trend_threshold": 30.0}, (0, 0, 1)),
        ({}, {"regime_hysteresis_bars": 5, "adx_veto_enabled": False}, (0, 0, 1)),
        ({}, {"regime_threshold": 0.2}, (0, 1, 1)),
        ({}, {"gmm_seed": 7}, (0, 0, 0)),
        ({}, {"adx_period": 10}, (1, 1, 1)),
        ({"use_ml_regime": True}, {"kama_slow": 25, "regime_threshold": 0.2}, (1, 0, 1)),
    ],
)
def test_only_what_a_parameter_changes_is_computed_again(
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    changes: dict[str, Any],
    computed: tuple[int, int, int],
) -> None:
    data = short_market()
    base = read_config({**BASE, **config})
    shared = SharedSignals(data, base)
    table = np.zeros(len(data.candles), dtype_of(Signal))
    shared.write(base, table)
    names = ("compute_indicators", "compute_raw_regime", "settle_regime")
    calls = [count_calls(monkeypatch, name) for name in names]
    shared.write(replace(base, **changes), table)
    shared.write(replace(base, **changes), table)
    assert tuple(len(one) for one in calls) == computed


def test_pieces_used_least_recently_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    data, base = short_market(), read_config(BASE)
    shared = SharedSignals(data, base)
    table = np.zeros(len(data.candles), dtype_of(Signal))
    calls = count_calls(monkeypatch, "compute_indicators")
    for period in [10, 11, 12, 13, 14, 14, 10]:
        shared.write(replace(base, adx_period=period), table)
    assert len(calls) == 6  # 14 is still there, 10 went


# --- what a trial must not depend on -------------------------------------------------------------


def plain(outcome: TrialOutcome) -> dict[str, Any]:
    return outcome.to_dict()


def test_two_threads_answer_what_one_answers() -> None:
    prepared = two_coins()
    drawn = [
        {"gamma": 0.3 + 0.1 * k, "adx_trend_threshold": 20.0 + k, "kama_period": 8 + k % 6}
        for k in range(16)
    ]
    alone = [plain(prepared.evaluate(values)) for values in drawn]
    with ThreadPoolExecutor(2) as pool:
        together = [plain(outcome) for outcome in pool.map(prepared.evaluate, drawn)]
    assert together == alone
    assert len({outcome["daily_returns"] for outcome in alone}) == len(drawn)


def changed(data: MarketData, from_ms: int, to_ms: int) -> MarketData:
    """Return ``data`` with other prices and volumes in ``[from_ms, to_ms)``."""
    other = market(data.coin, 99).candles
    times = data.candles["timestamp"].to_numpy()
    rows = (times >= from_ms) & (times < to_ms)
    assert rows.any()
    candles = data.candles.copy()
    candles.loc[rows] = other.loc[rows]
    return replace(data, candles=candles)


def test_candles_of_the_last_test_change_no_train_score() -> None:
    original = market("BTC", 5)
    before = prepared_of(original)
    window, plan = before.plan.plan.windows[-1], before.plan
    bounds = plan.time_of(window.test_start), plan.time_of(window.test_end)
    after = prepared_of(changed(original, *bounds))
    one, two = before.evaluate({}), after.evaluate({})
    assert one.train == two.train
    assert one.score == two.score
    assert one.test != two.test
    unchanged = plan.days_ms < bounds[0] - DAY_MS
    assert np.array_equal(one.daily_returns[unchanged], two.daily_returns[unchanged])


def test_candles_of_the_holdout_change_nothing_but_the_hash() -> None:
    original = market("BTC", 5)
    before = prepared_of(original)
    after = prepared_of(changed(original, before.plan.holdout_ms, before.plan.end_ms))
    assert plain(before.evaluate({})) == plain(after.evaluate({}))
    assert before.data_hash != after.data_hash
    assert before.holdout.reads == after.holdout.reads == 0


def test_the_search_holds_no_candle_and_no_later_rate_of_the_holdout() -> None:
    prepared = two_coins()
    for data in prepared.data.values():
        assert data.market.candles["timestamp"].iloc[-1] == prepared.plan.holdout_ms - BAR_MS
        assert data.market.funding["timestamp"].iloc[-1] <= prepared.plan.holdout_ms
        assert data.market.candles["timestamp"].iloc[data.first_bar] == prepared.plan.start_ms


# --- the holdout and other ranges ----------------------------------------------------------------


def test_the_holdout_is_read_once() -> None:
    prepared = prepared_of(market("BTC", 6))
    assert list(prepared.holdout.take()) == ["BTC"]
    with pytest.raises(DataError, match="asked for 2 times and may be read once"):
        prepared.holdout.take()
    assert prepared.holdout.reads == 2


def test_without_a_holdout_there_is_nothing_to_read() -> None:
    prepared = prepared_of(market("BTC", 6), holdout=0.0)
    assert prepared.plan.holdout_ms == prepared.plan.end_ms
    with pytest.raises(DataError, match="holdout = 0 sets no bars aside"):
        prepared.holdout.take()


def simulated(source: MarketData, start_ms: int, end_ms: int) -> dict[str, Any]:
    """Return what ``run_single`` answers for a range of ``source``."""

    def load(_: str, start: int, end: int, /, *, timeframe: str, detail: str | None) -> MarketData:
        del timeframe, detail
        return replace(
            source,
            candles=slice_time(source.candles, start, end),
            funding=slice_time(source.funding, start, end + 1),
        )

    simulator = BacktestSimulator(BASE, {"warmup_bars": WARMUP}, MarketSource(load))
    return simulator.run_single("BTC", format_time(start_ms), format_time(end_ms))


def test_a_run_on_the_holdout_is_the_backtest_of_its_dates() -> None:
    source = market("BTC", 6, missing=0.01)
    prepared = prepared_of(source)
    plan = prepared.plan
    run = prepared.evaluate_range({}, data=prepared.holdout.take())["BTC"]
    expected = simulated(source, plan.holdout_ms, plan.end_ms)
    assert run.equity_curve.tobytes() == expected["equity_curve"].tobytes()
    assert run.metrics == expected["metrics"]
    assert run.times_ms[0] == plan.holdout_ms
    assert run.metrics["total_trades"] > 0


def test_a_run_before_the_holdout_is_the_backtest_of_its_dates() -> None:
    source = market("BTC", 6)
    prepared = prepared_of(source)
    plan = prepared.plan
    run = prepared.evaluate_range({})["BTC"]
    expected = simulated(source, plan.start_ms, plan.holdout_ms)
    assert run.equity_curve.tobytes() == expected["equity_curve"].tobytes()


def test_a_range_runs_between_its_times_and_must_hold_candles() -> None:
    prepared = two_coins()
    start = prepared.plan.start_ms + 1_000 * BAR_MS
    runs = prepared.evaluate_range({}, start_ms=start, end_ms=start + 500 * BAR_MS)
    assert [len(run.times_ms) for run in runs.values()] == [500, 500]
    assert all(run.times_ms[0] == start for run in runs.values())
    with pytest.raises(DataError, match=r"BTC: no candles from 2.* there are some from 2024"):
        prepared.evaluate_range({}, start_ms=prepared.plan.holdout_ms)


def test_replaced_candles_are_run_in_place_of_the_coins_own() -> None:
    prepared = two_coins()
    data = prepared.data["BTC"]
    doubled = data.market.candles.copy()
    doubled[["open", "high", "low", "close"]] *= 2.0
    runs = prepared.evaluate_range({}, data={"BTC": with_candles(data, doubled)})
    own = prepared.evaluate_range({})
    assert list(runs) == ["BTC"]
    assert not np.array_equal(runs["BTC"].equity_curve, own["BTC"].equity_curve)
    with pytest.raises(DataError, match=r"BTC: the 100 replaced candles must open"):
        with_candles(data, doubled[:100])
    with pytest.raises(DataError, match=r"BTC: replaced candles: row 0 .* is below low"):
        with_candles(data, doubled.assign(high=1.0))


# --- values, coins, data -------------------------------------------------------------------------


@settings(max_examples=25)
@given(DRAWS)
def test_any_values_of_the_shipped_space_have_a_finite_score(drawn: dict[str, Any]) -> None:
    outcome = two_coins().evaluate(drawn)
    windows = [row for rows in (*outcome.train.values(), *outcome.test.values()) for row in rows]
    assert all(math.isfinite(row.score) for row in windows)
    assert math.isfinite(outcome.score)
    assert np.isfinite(outcome.daily_returns).all()
    assert outcome.note == ""


def test_values_that_contradict_each_other_have_the_worst_score_and_a_note() -> None:
    prepared = two_coins()
    outcome = prepared.evaluate({"kelly_window": 10})
    good = prepared.evaluate({})
    assert outcome.score == WORST_SCORE < good.score
    assert "kelly_min_trades = 20 must be <= kelly_window = 10" in outcome.note
    assert outcome.train["BTC"][0].note == outcome.note
    assert outcome.daily_returns.shape == good.daily_returns.shape
    assert {coin: len(rows) for coin, rows in outcome.test.items()} == {"BTC": 2, "ETH": 2}
    with pytest.raises(ConfigError, match="kelly_min_trades"):
        prepared.evaluate_range({"kelly_window": 10})


def test_a_name_that_is_no_parameter_is_an_error_not_a_bad_trial() -> None:
    with pytest.raises(ConfigError, match="did you mean gamma"):
        two_coins().evaluate({"gama": 0.5})


def test_a_coin_that_starts_late_shortens_the_range_and_is_named() -> None:
    late = market("ETH", 8)
    late = replace(late, candles=late.candles[2_000:].reset_index(drop=True))
    prepared = prepared_of(market("BTC", 7), late)
    assert prepared.plan.start_ms == FIRST_MS + 2_000 * BAR_MS
    assert prepared.data["BTC"].first_bar == WARMUP
    assert prepared.data["ETH"].first_bar == 0
    assert [text for text in prepared.notices if text.startswith("BTC: 1000 of its 10500 bars")]
    assert math.isfinite(prepared.evaluate({}).score)


def test_the_data_hash_is_that_of_all_coins_in_any_order() -> None:
    one, two = market("BTC", 1), market("ETH", 2)
    assert prepared_of(one, two).data_hash == prepared_of(two, one).data_hash
    assert prepared_of(one, two).data_hash != prepared_of(one).data_hash


def test_too_few_candles_say_how_many_windows_are_possible() -> None:
    with pytest.raises(DataError, match="windows = 9 must be at most 2 "):
        prepared_of(market("BTC", 1), windows=9)


def test_an_unknown_objective_is_refused_before_anything_is_loaded() -> None:
    loaded: list[str] = []

    def load(coin: str, *_: Any, **__: Any) -> MarketData:
        loaded.append(coin)
        raise AssertionError

    simulator = BacktestSimulator(None, None, MarketSource(load))
    with pytest.raises(ConfigError, match="unknown objective 'profit'"):
        prepare(simulator, SPACE, coins=["BTC"], start=START, end=END, objective="profit")
    assert loaded == []


def test_the_objective_changes_scores_but_not_figures() -> None:
    source = market("BTC", 1)
    default, other = (
        prepared_of(source, objective=name).evaluate({}) for name in ("calmar_pf", "sharpe")
    )
    assert default.score != other.score
    assert default.train["BTC"][0].return_pct == other.train["BTC"][0].return_pct


# --- real candles --------------------------------------------------------------------------------


@pytest.mark.skipif(not MARKET.is_dir(), reason="no recorded market data beside the checkout")
def test_windows_of_recorded_candles_equal_separate_backtests(scored: Windows) -> None:
    prepared = prepare(
        BacktestSimulator(BASE, source=MARKET),
        SPACE,
        coins=["SOL"],
        start="2024-01-01",
        end="2024-07-01",
        windows=2,
    )
    plan = plan_of(prepared, "SOL")
    prepared.evaluate({})
    for facts, window in zip(scored[:2], plan.windows, strict=True):
        assert_is_fresh_run(facts, prepared.data["SOL"], {}, plan.first_bar, window.train_end)
