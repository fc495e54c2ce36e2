"""Volatility regime: baseline of closed candles, blend, drift, tail."""

from __future__ import annotations

import itertools
import math
import statistics
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.ticks.files import new_events
from core.recording import SECOND_NS, EventKind
from core.records import zeros
from engine.short_grid.volatility import (
    Regime,
    baseline_of,
    candle_deviation,
    step_regime,
    take_candles,
)
from tests.engine.short_grid_ticks import START_NS, params


def regime_with(baseline: float) -> Any:
    regime: Any = zeros(Regime)
    regime.baseline, regime.baseline_t_ns = baseline, START_NS
    return regime


def test_the_deviation_is_that_of_log_returns_per_square_root_of_a_second() -> None:
    rng = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 200)))
    open_ms = np.arange(200) * 300_000
    returns = [math.log(b / a) for a, b in itertools.pairwise(close)]
    expected = statistics.stdev(returns) * 1e4 / math.sqrt(300)
    assert candle_deviation(open_ms, close, 300) == pytest.approx(expected, rel=1e-12)


def test_a_missing_candle_makes_no_return() -> None:
    rng = np.random.default_rng(2)
    close = 100 * np.exp(np.cumsum(rng.normal(0, 1e-3, 200)))
    close[100:] *= 2.0
    open_ms = np.arange(200) * 60_000
    assert candle_deviation(open_ms, close, 60) > 50.0
    open_ms[100:] += 60_000
    assert candle_deviation(open_ms, close, 60) < 2.0


def test_few_candles_are_no_deviation() -> None:
    assert candle_deviation(np.arange(30) * 60_000, np.linspace(1, 2, 30), 60) == 0.0


@pytest.mark.parametrize(
    ("found", "baseline"),
    [
        ((2.0, 2.0, 2.0), 2.0),
        ((1.0, 2.0, 3.0), 0.5 + 0.6 + 0.6),
        ((1.0, 0.0, 3.0), 1.1 / 0.7),
        ((0.0, 0.0, 3.0), 3.0),
        ((0.0, 0.0, 0.0), 0.0),
    ],
)
def test_weights_are_rescaled_over_what_is_there(
    found: tuple[float, float, float], baseline: float
) -> None:
    assert baseline_of(params(), *found) == pytest.approx(baseline)


def test_an_empty_answer_keeps_the_last_baseline() -> None:
    regime = regime_with(0.0)
    event = new_events(1)
    event["kind"], event["t_ns"], event["price"] = EventKind.REPLY, START_NS, 3.0
    take_candles(regime, params(), event[0])
    assert regime.baseline == 3.0
    event["price"], event["t_ns"] = 0.0, START_NS + SECOND_NS
    take_candles(regime, params(), event[0])
    assert (regime.baseline, regime.baseline_t_ns) == (3.0, START_NS)


@given(st.floats(0.1, 50.0), st.floats(0.0, 200.0))
def test_blend_drift_and_tail_are_as_defined(baseline: float, sigma: float) -> None:
    regime = regime_with(baseline)
    step_regime(regime, params(), sigma, START_NS, False)
    blended = 0.55 * baseline + 0.45 * sigma
    assert regime.blended == pytest.approx(blended)
    assert regime.drift == pytest.approx(max(0.8, min(3.0, blended / baseline)))
    assert regime.tail == pytest.approx(sigma / baseline)
    assert regime.vol == pytest.approx(blended * math.sqrt(60))
    assert regime.vol_30s == pytest.approx(blended * math.sqrt(30))


@pytest.mark.parametrize(("tail", "pause_s"), [(2.1, 0), (2.2, 20), (4.4, 40), (50.0, 60)])
def test_a_tail_pauses_adds_while_holding(tail: float, pause_s: int) -> None:
    regime = regime_with(1.0)
    step_regime(regime, params(), tail, START_NS, True)
    assert regime.tail_until_ns == (START_NS + pause_s * SECOND_NS if pause_s else 0)
    flat = regime_with(1.0)
    step_regime(flat, params(), tail, START_NS, False)
    assert flat.tail_until_ns == 0


def test_a_baseline_not_renewed_is_none_after_five_refreshes() -> None:
    regime = regime_with(2.0)
    step_regime(regime, params(), 1.0, START_NS + 600 * SECOND_NS, False)
    assert regime.baseline == 2.0
    step_regime(regime, params(), 1.0, START_NS + 601 * SECOND_NS, False)
    assert (regime.baseline, regime.blended, regime.vol) == (0.0, 0.0, 0.0)


def test_the_live_value_is_the_baseline_only_where_asked_for() -> None:
    regime = regime_with(0.0)
    step_regime(regime, params(), 4.0, START_NS, False)
    assert regime.vol == 0.0
    step_regime(regime, params(baseline_live=True), 4.0, START_NS, False)
    assert (regime.baseline, regime.tail, regime.drift) == (4.0, 1.0, 1.0)
