"""Contracts of the table of signals: candles of several bars, readiness, causality, equality."""

from __future__ import annotations

import hashlib
import math
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import STRATEGY_PARAMS
from core.adx import calculate_adx
from core.atr import (
    calculate_atr,
    calculate_rolling_mean,
    calculate_rolling_volatility,
    calculate_z_score,
)
from core.errors import DataError
from core.kama import NOISE, calculate_er, calculate_kama, detect_regime
from core.params import StrategyParams
from core.signals import (
    SignalArray,
    aggregate_candles,
    compute_indicators,
    compute_raw_regime,
    compute_signals,
    read_completed,
    settle_regime,
    trend_series,
)
from tests.core.test_indicators import BAR_MS, FIRST_MS, Candles, random_candles, real_candles
from tests.support.paths import ROOT

FLOATS = ("er", "kama", "atr", "adx", "z", "sigma", "atr_mean", "volume_ratio")


def params(**changes: object) -> StrategyParams:
    return StrategyParams.from_dict(
        {**STRATEGY_PARAMS, "regime_timeframe_mult": 1, "regime_threshold": 0.15, **changes}
    )


def signals_of(candles: Candles, chosen: StrategyParams, bar_ms: int = BAR_MS) -> SignalArray:
    c = candles
    return compute_signals(c.ts_ms, c.high, c.low, c.close, c.volume, chosen, bar_ms=bar_ms)


def trends_of(candles: Candles, chosen: StrategyParams) -> list[np.ndarray]:
    return list(trend_series(candles.ts_ms, candles.high, candles.low, candles.close, chosen))


def dropped(candles: Candles, *bars: int) -> Candles:
    """Return ``candles`` with gaps where ``bars`` were."""
    return Candles(**{name: np.delete(column, bars) for name, column in vars(candles).items()})


def last_bars(candles: Candles, start: int) -> Candles:
    return dropped(candles, *range(start))


def hand_aggregated(candles: Candles, mult: int) -> Candles:
    """Aggregate with pandas instead of the kernel."""
    frame = pd.DataFrame(vars(candles))
    grouped = frame.groupby(frame["ts_ms"] // (mult * BAR_MS))
    return Candles(
        np.array(list(grouped.groups)) * mult * BAR_MS,
        np.array(grouped["high"].max()),
        np.array(grouped["low"].min()),
        np.array(grouped["close"].last()),
        np.array(grouped["volume"].sum()),
    )


def test_every_field_equals_the_public_function_of_its_name() -> None:
    c = random_candles(900)
    signals = signals_of(c, params())
    er = calculate_er(c.close, 10)
    atr = calculate_atr(c.high, c.low, c.close, 14)
    expected = {
        "er": er,
        "kama": calculate_kama(c.close, er, 2, 30),
        "atr": atr,
        "adx": calculate_adx(c.high, c.low, c.close, 14),
        "z": calculate_z_score(c.close, atr, 20),
        "sigma": calculate_rolling_volatility(c.close, 14),
        "atr_mean": calculate_rolling_mean(atr / c.close),
        "volume_ratio": c.volume / calculate_rolling_mean(c.volume),
    }
    assert set(signals.dtype.names or ()) == {*expected, "regime", "ready"}
    for name, column in expected.items():
        np.testing.assert_array_equal(signals[name], column, err_msg=name)
    raw = detect_regime(expected["kama"], er, atr, threshold=0.15, er_trend_thresh=0.5)
    regime = settle_regime(raw, expected["adx"], params())
    np.testing.assert_array_equal(signals["regime"], regime)
    assert len(set(regime.tolist())) == 5


def test_every_period_and_threshold_reaches_its_indicator() -> None:
    c = random_candles(900)
    base = signals_of(c, params())
    changes: dict[str, tuple[object, set[str]]] = {
        "kama_period": (12, {"er", "kama", "regime"}),
        "kama_fast": (3, {"kama", "regime"}),
        "kama_slow": (40, {"kama", "regime"}),
        "atr_period": (20, {"atr", "z", "atr_mean", "regime"}),
        "adx_period": (7, {"adx", "regime"}),
        "z_score_period": (25, {"z"}),
        "volatility_period": (20, {"sigma"}),
        "regime_threshold": (0.3, {"regime"}),
        "er_trend_threshold": (0.3, {"regime"}),
        "adx_trend_threshold": (40.0, {"regime"}),
        "regime_hysteresis_bars": (6, {"regime"}),
        "regime_timeframe_mult": (4, {"er", "kama", "regime"}),
    }
    for name, (value, fields) in changes.items():
        changed = signals_of(c, params(**{name: value}))
        differ = {f for f in (*FLOATS, "regime") if base[f].tobytes() != changed[f].tobytes()}
        assert differ == fields, name


def test_ready_begins_where_the_last_indicator_becomes_finite_and_never_ends() -> None:
    c = random_candles(300)
    c.volume[200] = math.nan
    signals = signals_of(c, params())
    assert math.isnan(signals["volume_ratio"][200])
    assert np.flatnonzero(signals["ready"])[0] == 41  # 28 values of ATR/close, from bar 14 on
    assert signals["ready"][41:].all()
    slow = signals_of(c, params(z_score_period=100))["ready"]
    assert np.flatnonzero(slow)[0] == 99


def test_ready_waits_for_candles_of_the_higher_timeframe() -> None:
    signals = signals_of(random_candles(300), params(regime_timeframe_mult=8))
    assert np.flatnonzero(signals["ready"])[0] == 11 * 8 - 1  # ER: the eleventh candle's close


def test_a_regime_switched_off_is_noise_throughout() -> None:
    signals = signals_of(random_candles(500), params(regime_enabled=False))
    assert (signals["regime"] == NOISE).all()


def test_the_pieces_make_up_the_whole() -> None:
    c, chosen = random_candles(900), params(regime_timeframe_mult=4)
    columns = (c.ts_ms, c.high, c.low, c.close, c.volume)
    signals, slope = compute_indicators(*columns, chosen)
    raw = compute_raw_regime(c.ts_ms, c.close, signals, slope, chosen)
    assert (signals["regime"] == NOISE).all()
    signals["regime"] = settle_regime(raw, signals["adx"], chosen)
    assert signals.tobytes() == signals_of(c, chosen).tobytes()


@pytest.mark.slow
def test_the_mixture_replaces_the_raw_regime_and_is_settled_like_it() -> None:
    c = random_candles(3_100, seed=2)
    chosen = params(use_ml_regime=True, regime_timeframe_mult=4)
    signals, slope = compute_indicators(c.ts_ms, c.high, c.low, c.close, c.volume, chosen)
    raw = compute_raw_regime(c.ts_ms, c.close, signals, slope, chosen)
    assert set(raw.tolist()) == {-1, 0, 1}
    settled = settle_regime(raw, signals["adx"], chosen)
    assert settled.tolist() != raw.tolist()
    assert signals_of(c, chosen)["regime"].tolist() == settled.tolist()


def test_a_bar_reads_the_last_candle_that_has_ended_when_it_closes() -> None:
    c = last_bars(random_candles(14), 2)  # bars 2..13: the first candle of four is cut in half
    *candles, completed = aggregate_candles(c.ts_ms, c.high, c.low, c.close, 4, BAR_MS)
    assert completed.tolist() == [-1, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    expected = hand_aggregated(c, 4)
    for ours, theirs in zip(candles, (expected.high, expected.low, expected.close), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_candle_without_its_last_bar_ends_when_a_later_bar_shows_it() -> None:
    c = dropped(random_candles(12), 3, 6)
    completed = aggregate_candles(c.ts_ms, c.high, c.low, c.close, 4, BAR_MS)[3]
    # bars      0   1   2  (3) 4  5 (6) 7  8  9  10 11
    assert completed.tolist() == [-1, -1, -1, 0, 0, 1, 1, 1, 1, 2]


def test_no_value_is_read_before_a_candle_is_complete() -> None:
    values = read_completed(np.array([5.0, 6.0]), np.array([-1, 0, 0, 1]))
    np.testing.assert_array_equal(values, [math.nan, 5.0, 5.0, 6.0])


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1_000),
    start=st.integers(0, 9),
    gaps=st.sets(st.integers(20, 280), max_size=20),
    mult=st.sampled_from([2, 4, 5, 12]),
)
def test_higher_timeframe_equals_a_plain_run_on_hand_aggregated_candles(
    seed: int, start: int, gaps: set[int], mult: int
) -> None:
    bars = last_bars(dropped(random_candles(400, seed), *gaps), start)
    larger = hand_aggregated(bars, mult)
    plain = trends_of(larger, params())
    ends = larger.ts_ms + mult * BAR_MS
    read = np.searchsorted(ends, bars.ts_ms + BAR_MS, side="right") - 1
    for ours, candle_values in zip(
        trends_of(bars, params(regime_timeframe_mult=mult)), plain, strict=True
    ):
        expected = np.where(read >= 0, candle_values[np.maximum(read, 0)], math.nan)
        np.testing.assert_array_equal(ours, expected)


def test_regime_of_four_bar_candles_equals_that_of_one_bar_candles_of_an_hour() -> None:
    changes = {"adx_veto_enabled": False, "regime_hysteresis_bars": 1}
    bars = random_candles(2_000)
    regime = signals_of(bars, params(regime_timeframe_mult=4, **changes))["regime"]
    hourly = signals_of(hand_aggregated(bars, 4), params(**changes), bar_ms=4 * BAR_MS)["regime"]
    assert regime[3::4].tolist() == hourly.tolist()
    assert set(regime.tolist()) == {-2, -1, 0, 1, 2}


def test_candles_of_one_bar_are_the_bars() -> None:
    c = dropped(random_candles(300), 50, 51, 120)
    high, low, close, completed = aggregate_candles(c.ts_ms, c.high, c.low, c.close, 1, BAR_MS)
    assert completed.tolist() == list(range(297))
    for ours, theirs in ((high, c.high), (low, c.low), (close, c.close)):
        assert ours.tobytes() == theirs.tobytes()


def test_atr_stays_that_of_the_bars() -> None:
    candles = random_candles(400)
    plain, larger = (signals_of(candles, params(regime_timeframe_mult=m)) for m in (1, 4))
    for name in ("atr", "adx", "z", "sigma", "atr_mean", "volume_ratio"):
        assert plain[name].tobytes() == larger[name].tobytes(), name


@pytest.mark.parametrize("mult", [1, 4])
@settings(max_examples=25, deadline=None)
@given(k=st.integers(0, 399), seed=st.integers(0, 1_000))
def test_bars_from_k_on_change_no_signal_before_k(mult: int, k: int, seed: int) -> None:
    chosen = params(regime_timeframe_mult=mult)
    candles = random_candles(400, seed)
    changed = candles.from_bar_on(k, random_candles(400, seed + 1, price=300.0))
    before, after = signals_of(candles, chosen), signals_of(changed, chosen)
    assert before[:k].tobytes() == after[:k].tobytes()
    assert before[k:].tobytes() != after[k:].tobytes()


@pytest.mark.parametrize("mult", [1, 4])
def test_bars_not_yet_there_change_no_signal(mult: int) -> None:
    chosen, candles = params(regime_timeframe_mult=mult), random_candles(400, seed=5)
    whole = signals_of(candles, chosen)
    for k in (1, 2, 3, 4, 5, 100, 101, 102, 103, 399):
        part = signals_of(dropped(candles, *range(k, 400)), chosen)
        assert part.tobytes() == whole[:k].tobytes()


@pytest.mark.slow
def test_a_late_start_agrees_with_the_full_history() -> None:
    candles = real_candles("BTC", 8_000)
    whole = signals_of(candles, params())
    late = signals_of(last_bars(candles, 3_000), params())
    for name in FLOATS:
        np.testing.assert_allclose(late[name][-500:], whole[name][-500:], rtol=1e-6, atol=1e-9)
    assert late["regime"][-500:].tolist() == whole["regime"][-500:].tolist()


@pytest.mark.parametrize("n", [0, 1, 5])
@pytest.mark.parametrize("mult", [1, 4])
@pytest.mark.parametrize("mixture", [False, True])
def test_few_bars_give_nan_and_noise(n: int, mult: int, *, mixture: bool) -> None:
    chosen = params(regime_timeframe_mult=mult, use_ml_regime=mixture)
    signals = signals_of(random_candles(n), chosen)
    assert signals.shape == (n,)
    assert all(np.isnan(signals[name]).all() for name in FLOATS)
    assert not signals["ready"].any()
    assert (signals["regime"] == NOISE).all()


@pytest.mark.parametrize("mult", [1, 4])
def test_flat_prices_without_volume_are_ready_and_noise(mult: int) -> None:
    flat = np.full(100, 250.0)
    candles = Candles(FIRST_MS + BAR_MS * np.arange(100), flat, flat, flat, np.zeros(100))
    signals = signals_of(candles, params(regime_timeframe_mult=mult))
    assert signals["ready"][-1]
    assert (signals["regime"] == NOISE).all()
    assert signals[-1].tolist()[:8] == (0.0, 250.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_lists_and_series_give_the_same_signals_as_arrays() -> None:
    c, chosen = random_candles(200), params(regime_timeframe_mult=4)
    expected = signals_of(c, chosen).tobytes()
    series: dict[str, Any] = {name: pd.Series(column) for name, column in vars(c).items()}
    lists: dict[str, Any] = {name: column.tolist() for name, column in vars(c).items()}
    for columns in (series, lists):
        assert signals_of(Candles(**columns), chosen).tobytes() == expected


def test_a_missing_time_is_refused() -> None:
    c = random_candles(50)
    with pytest.raises(DataError, match=r"ts_ms has shape \(49,\) but must be \(50,\)"):
        compute_signals(c.ts_ms[1:], c.high, c.low, c.close, c.volume, params())


def digests() -> list[str]:
    """Return one digest per field and timeframe of a fixed series with gaps and a flat stretch."""
    candles = dropped(random_candles(800, seed=12), 100, 101, 102, 103, 307)
    for column in (candles.high, candles.low, candles.close):
        column[400:440] = candles.close[400]
    lines = []
    for mult in (1, 4):
        signals = signals_of(candles, params(regime_timeframe_mult=mult))
        for name in signals.dtype.names or ():
            content = hashlib.sha256(signals[name].tobytes()).hexdigest()
            lines.append(f"{mult} {name} {content}")
    return lines


@pytest.mark.slow
def test_compiled_and_interpreted_signals_are_equal_to_the_last_bit() -> None:
    interpreted_here = os.environ.get("NUMBA_DISABLE_JIT", "0") != "0"
    other_mode = {**os.environ, "NUMBA_DISABLE_JIT": "0" if interpreted_here else "1"}
    code = "from tests.core.test_signals import digests; print('\\n'.join(digests()))"
    run = subprocess.run(  # noqa: S603  this interpreter, the code above
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=other_mode,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.splitlines() == digests()
