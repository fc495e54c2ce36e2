"""Contracts of the regime: ladder, veto, hysteresis, Gaussian mixture."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from config import STRATEGY_PARAMS
from core.atr import calculate_atr
from core.errors import DataError
from core.kama import (
    BREAKOUT_DOWN,
    BREAKOUT_UP,
    DOWNTREND,
    NOISE,
    REGIME_NAMES,
    UPTREND,
    calculate_er,
    calculate_kama,
    detect_regime,
)
from core.params import StrategyParams
from core.regime_gmm import (
    GMM_WINDOW,
    calculate_gmm_regime,
    component_regimes,
    fit_mixture,
    gmm_features,
    refit_bars,
)
from core.signals import hysteresis_series, settle_regime, veto_series
from tests.core.test_indicators import BAR_MS, FIRST_MS, Candles, random_candles

DAY_MS = 86_400_000


def params(**changes: object) -> StrategyParams:
    return StrategyParams.from_dict({**STRATEGY_PARAMS, **changes})


def raw_regime(slope: float, er: float, atr: float = 1.0, theta: float = 0.25) -> int:
    regime = detect_regime([8.0, 8.0 + slope], [er, er], [atr, atr], theta, er_trend_thresh=0.5)
    assert regime[0] == NOISE
    return int(regime[1])


# --- ladder ------------------------------------------------------------------------------------


def test_every_code_has_its_name() -> None:
    assert REGIME_NAMES == {
        0: "NOISE",
        1: "UPTREND",
        2: "BREAKOUT_UP",
        -1: "DOWNTREND",
        -2: "BREAKOUT_DOWN",
    }


@pytest.mark.parametrize(
    ("slope", "er", "expected"),
    [
        (0.0, 1.0, NOISE),
        (0.25, 1.0, NOISE),  # not above theta
        (0.2500001, 1.0, UPTREND),
        (0.2500001, 0.5, NOISE),  # not above the ER threshold
        (0.2500001, 0.5000001, UPTREND),
        (0.5, 1.0, UPTREND),  # not above 2 theta
        (0.5, 0.0, NOISE),
        (0.5000001, 0.0, BREAKOUT_UP),  # whatever the ER
    ],
)
def test_each_rung_of_the_ladder_begins_above_its_boundary(
    slope: float, er: float, expected: int
) -> None:
    assert raw_regime(slope, er) == expected
    assert raw_regime(-slope, er) == -expected


def test_slope_is_measured_in_atrs() -> None:
    assert raw_regime(3.0, 1.0, atr=8.0) == UPTREND
    assert raw_regime(-3.0, 1.0, atr=4.0) == BREAKOUT_DOWN


def test_a_zero_threshold_leaves_a_level_average_in_noise() -> None:
    assert raw_regime(0.0, 1.0, theta=0.0) == NOISE


def test_no_atr_is_no_slope() -> None:
    assert raw_regime(5.0, 1.0, atr=0.0) == NOISE


@pytest.mark.parametrize(
    ("kama", "er", "atr"), [(math.nan, 1.0, 1.0), (9.0, math.nan, 1.0), (9.0, 1.0, math.nan)]
)
def test_what_is_not_warm_is_noise(kama: float, er: float, atr: float) -> None:
    assert detect_regime([8.0, kama], [1.0, er], [1.0, atr]).tolist() == [NOISE, NOISE]


def test_detect_regime_answers_whole_numbers_for_every_bar() -> None:
    candles = random_candles(500)
    er = calculate_er(candles.close, period=10)
    kama = calculate_kama(candles.close, er, fast_period=2, slow_period=30)
    atr = calculate_atr(candles.high, candles.low, candles.close, period=14)
    regime = detect_regime(kama, er, atr, threshold=0.15, er_trend_thresh=0.5)
    assert regime.dtype == np.int64
    assert regime.shape == (500,)
    assert set(regime.tolist()) == set(REGIME_NAMES)
    assert detect_regime([], [], []).shape == (0,)


# --- veto and hysteresis -----------------------------------------------------------------------


def test_a_weak_adx_vetoes_trends_and_leaves_breakouts() -> None:
    raw = np.array([1, -1, 2, -2, 0])
    weak, strong = np.full(5, 24.9999), np.full(5, 25.0)
    assert veto_series(raw, weak, 25.0).tolist() == [0, 0, 2, -2, 0]
    assert veto_series(raw, strong, 25.0).tolist() == [1, -1, 2, -2, 0]
    assert veto_series(raw, np.full(5, math.nan), 25.0).tolist() == [0, 0, 2, -2, 0]
    assert raw.tolist() == [1, -1, 2, -2, 0]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ([1, 1, 1, 1], [0, 0, 1, 1]),
        ([1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 1]),  # interrupted by the current one
        ([1, 1, -1, 1, 1], [0, 0, 0, 0, 0]),  # interrupted by another one
        ([1, 1, -1, -1, -1], [0, 0, 0, 0, -1]),
        ([1, 1, 1, 0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1, 1, 1, 0]),
        ([2, 0, 0, 0], [2, 2, 2, 0]),  # a breakout at once, out of it like any other
        ([0, -2, 1, 1, 1], [0, -2, -2, -2, 1]),
        ([2, -2, 2], [2, -2, 2]),
        ([1, 1, 2, 1, 1, 1], [0, 0, 2, 2, 2, 1]),
        ([], []),
    ],
)
def test_a_regime_changes_after_three_bars_or_at_once_for_a_breakout(
    raw: list[int], expected: list[int]
) -> None:
    assert hysteresis_series(np.array(raw, dtype=np.int64), 3).tolist() == expected


def literal_hysteresis(raw: list[int], bars: int) -> list[int]:
    """Read the rule word by word: look back over the last ``bars`` values at every bar."""
    current, out = NOISE, []
    for i, value in enumerate(raw):
        last = raw[max(0, i - bars + 1) : i + 1]
        stood = len(last) == bars and set(last) == {value}
        if value != current and (stood or abs(value) == BREAKOUT_UP):
            current = value
        out.append(current)
    return out


@settings(max_examples=100, deadline=None)
@given(raw=st.lists(st.sampled_from(sorted(REGIME_NAMES)), max_size=40), bars=st.integers(1, 5))
def test_hysteresis_equals_its_wording(raw: list[int], bars: int) -> None:
    column = np.array(raw, dtype=np.int64)
    assert hysteresis_series(column, bars).tolist() == literal_hysteresis(raw, bars)


def test_the_veto_comes_before_the_hysteresis() -> None:
    raw, adx = np.array([1, 1, 1, 1, 1, 1]), [30.0, 30.0, 20.0, 30.0, 30.0, 30.0]
    assert settle_regime(raw, adx, params()).tolist() == [0, 0, 0, 0, 0, 1]
    off = params(adx_veto_enabled=False)
    assert settle_regime(raw, adx, off).tolist() == [0, 0, 1, 1, 1, 1]


# --- Gaussian mixture --------------------------------------------------------------------------


def atr_of(candles: Candles) -> np.ndarray:
    return calculate_atr(candles.high, candles.low, candles.close)


def test_refits_are_at_the_bars_that_close_at_midnight() -> None:
    ts_ms = FIRST_MS + BAR_MS * np.arange(GMM_WINDOW + 200)
    refits = refit_bars(ts_ms)
    assert refits.tolist() == [GMM_WINDOW - 1, GMM_WINDOW + 95, GMM_WINDOW + 191]
    assert ((ts_ms[refits] + BAR_MS) % DAY_MS == 0).all()


def test_the_first_fit_waits_for_a_full_window() -> None:
    ts_ms = FIRST_MS + BAR_MS * np.arange(1, GMM_WINDOW + 200)  # one bar short at that midnight
    assert refit_bars(ts_ms)[0] == GMM_WINDOW - 2 + 96


def test_after_a_gap_the_first_bar_that_closes_past_midnight_refits() -> None:
    ts_ms = FIRST_MS + BAR_MS * np.arange(GMM_WINDOW + 600)
    closes_at = (ts_ms + BAR_MS) % DAY_MS
    kept = (closes_at > 3 * BAR_MS) & (closes_at < DAY_MS - 5 * BAR_MS)
    refits = refit_bars(ts_ms[kept])
    assert refits.size > 0
    assert ((ts_ms[kept][refits] + BAR_MS) % DAY_MS == 4 * BAR_MS).all()


@pytest.mark.slow
def test_components_are_named_by_their_mean_return() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0.0, 0.01], [-0.3, 0.02], [0.3, 0.02]])
    rows = np.concatenate([rng.normal(c, 0.005, (400, 2)) for c in centres])
    model = fit_mixture(rows, seed=42)
    assert model is not None
    assert component_regimes(model)[model.predict(centres)].tolist() == [NOISE, DOWNTREND, UPTREND]


def literal_gmm_regime(candles: Candles, seed: int) -> list[int]:
    """Follow the rule bar by bar: one prediction per bar, nothing kept but the last fit."""
    features = gmm_features(candles.close, atr_of(candles))
    model, regimes = None, []
    for i in range(len(candles.close)):
        if i + 1 >= GMM_WINDOW and (candles.ts_ms[i] + BAR_MS) % DAY_MS == 0:
            rows = features[i - GMM_WINDOW + 1 : i + 1]
            model = fit_mixture(rows[~np.isnan(rows).any(axis=1)], seed)
        if model is None:
            regimes.append(NOISE)
            continue
        means = model.means[:, 0].tolist()
        component = int(model.predict(features[i : i + 1])[0])
        names = {means.index(max(means)): UPTREND, means.index(min(means)): DOWNTREND}
        regimes.append(names.get(component, NOISE))
    return regimes


@pytest.mark.slow
def test_mixture_regime_equals_its_rule_read_bar_by_bar() -> None:
    candles = random_candles(GMM_WINDOW + 250, seed=8)
    regime = calculate_gmm_regime(candles.ts_ms, candles.close, atr_of(candles), seed=7)
    assert (regime[: GMM_WINDOW - 1] == NOISE).all()
    assert set(regime.tolist()) == {NOISE, UPTREND, DOWNTREND}
    assert regime.tolist() == literal_gmm_regime(candles, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("k", [GMM_WINDOW - 1, GMM_WINDOW + 40, GMM_WINDOW + 95, GMM_WINDOW + 96])
def test_bars_from_k_on_change_no_mixture_regime_before_k(k: int) -> None:
    candles = random_candles(GMM_WINDOW + 150, seed=9)
    changed = candles.from_bar_on(k, random_candles(GMM_WINDOW + 150, seed=10, price=500.0))
    before = calculate_gmm_regime(candles.ts_ms, candles.close, atr_of(candles))
    after = calculate_gmm_regime(candles.ts_ms, changed.close, atr_of(changed))
    assert before[:k].tolist() == after[:k].tolist()
    assert before[k:].tolist() != after[k:].tolist()


@pytest.mark.slow
def test_nothing_before_the_window_matters_to_the_mixture() -> None:
    candles = random_candles(GMM_WINDOW + 300, seed=11)
    atr, start = atr_of(candles), 96
    whole = calculate_gmm_regime(candles.ts_ms, candles.close, atr)
    late = calculate_gmm_regime(candles.ts_ms[start:], candles.close[start:], atr[start:])
    # The first window of the late series lacks its first 24 returns, the second is complete.
    complete = GMM_WINDOW - 1 + 96
    assert late[complete:].tolist() == whole[start + complete :].tolist()
    assert whole[start + complete :].any()


@pytest.mark.slow
@pytest.mark.parametrize("drift", [0.0, 0.001])
def test_prices_without_variation_are_noise_to_the_mixture(drift: float) -> None:
    n = GMM_WINDOW + 100
    close = 100.0 * np.exp(drift * np.arange(n))
    candles = Candles(FIRST_MS + BAR_MS * np.arange(n), close, close, close, np.ones(n))
    regime = calculate_gmm_regime(candles.ts_ms, close, atr_of(candles))
    assert (regime == NOISE).all()


@pytest.mark.slow
def test_a_fit_cut_short_is_used_without_a_warning() -> None:
    rows = np.repeat([[0.01, 0.001], [-0.01, 0.001]], 50, axis=0)  # two clusters for three
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit_mixture(rows, seed=42)
    assert model is not None
    assert sorted(component_regimes(model).tolist()) == [DOWNTREND, NOISE, UPTREND]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_too_few_rows_are_not_fitted(n: int) -> None:
    assert fit_mixture(np.zeros((n, 2)), seed=42) is None


@pytest.mark.parametrize("n", [0, 1, 5, 100])
def test_few_bars_are_noise_to_the_mixture(n: int) -> None:
    candles = random_candles(n)
    regime = calculate_gmm_regime(candles.ts_ms, candles.close, atr_of(candles))
    assert regime.tolist() == [NOISE] * n


def test_times_of_another_length_are_refused() -> None:
    with pytest.raises(DataError, match=r"ts_ms has shape \(3,\) but must be \(2,\)"):
        calculate_gmm_regime([0, 1, 2], [1.0, 2.0], [0.1, 0.1])
