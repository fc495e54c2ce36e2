"""The deflated Sharpe ratio against its paper's numbers, and how many trials a search is worth."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kurtosis, skew  # type: ignore[import-untyped]

from backtest.optimize.judge.deflated_sharpe import (
    daily_sharpes,
    deflated_sharpe,
    expected_max_sharpe,
    probabilistic_sharpe,
)
from backtest.optimize.judge.effective_trials import effective_trials
from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]


def noise(n_days: int, n_trials: int, seed: int = 0) -> Floats:
    return np.random.default_rng(seed).normal(0.0, 0.01, (n_days, n_trials))


# --- the formulas -------------------------------------------------------------------------------


def test_the_paper_s_example_is_reproduced() -> None:
    luck = expected_max_sharpe(100, 0.5 / 250.0)
    assert luck == pytest.approx(0.1132, abs=5e-5)
    found = probabilistic_sharpe(2.5 / math.sqrt(250.0), luck, 1250, -3.0, 10.0)
    assert found == pytest.approx(0.9004, abs=5e-5)


@pytest.mark.parametrize("n_trials", [10, 100, 1000])
def test_the_expected_maximum_is_near_that_of_simulated_worthless_trials(n_trials: int) -> None:
    drawn = np.random.default_rng(1).normal(0.0, 0.3, (2_000, n_trials)).max(axis=1)
    assert expected_max_sharpe(n_trials, 0.09) == pytest.approx(float(drawn.mean()), rel=0.04)


@given(st.integers(1, 10_000), st.floats(0.0, 10.0))
def test_more_trials_never_lower_the_bar(n_trials: int, variance: float) -> None:
    assert expected_max_sharpe(n_trials + 1, variance) >= expected_max_sharpe(n_trials, variance)


def test_normal_returns_have_the_probability_of_a_z_test() -> None:
    expected = 0.5 * (1.0 + math.erf(0.1 * math.sqrt(400.0 / 1.005) / math.sqrt(2.0)))
    assert probabilistic_sharpe(0.1, 0.0, 401, 0.0, 3.0) == pytest.approx(expected, rel=1e-12)


def test_a_fat_left_tail_lowers_the_probability_of_the_same_sharpe_ratio() -> None:
    plain = probabilistic_sharpe(0.1, 0.05, 500, 0.0, 3.0)
    assert probabilistic_sharpe(0.1, 0.05, 500, -2.0, 12.0) < plain


def test_a_sharpe_ratio_without_a_standard_error_has_no_probability() -> None:
    assert math.isnan(probabilistic_sharpe(1.0, 0.0, 100, 2.0, 5.0))
    assert math.isnan(probabilistic_sharpe(1.0, 0.0, 1, 0.0, 3.0))


# --- a series of returns ------------------------------------------------------------------------


def test_the_parts_of_the_answer_are_those_of_the_series() -> None:
    trials = noise(400, 20)
    best = trials[:, 3] + 0.002
    sharpes = daily_sharpes(trials)
    found = deflated_sharpe(best, 20, trial_sharpes=sharpes)
    assert found.sharpe == pytest.approx(float(best.mean() / best.std(ddof=1)), rel=1e-12)
    assert found.skewness == pytest.approx(float(skew(best)), rel=1e-9)
    assert found.kurtosis == pytest.approx(float(kurtosis(best, fisher=False)), rel=1e-9)
    assert found.variance == pytest.approx(float(sharpes.var(ddof=1)), rel=1e-12)
    assert found.sr0 == expected_max_sharpe(20, found.variance)
    assert found.dsr == probabilistic_sharpe(
        found.sharpe, found.sr0, 400, found.skewness, found.kurtosis
    )
    assert found.dsr < found.psr
    assert found.reason == ""


def test_the_best_of_many_noise_series_passes_alone_and_fails_deflated() -> None:
    trials = noise(500, 200, seed=5)
    sharpes = daily_sharpes(trials)
    best = trials[:, int(np.argmax(sharpes))]
    found = deflated_sharpe(best, 200, trial_sharpes=sharpes)
    assert found.psr > 0.95
    assert found.dsr < 0.95


def test_a_single_trial_is_not_deflated() -> None:
    found = deflated_sharpe(noise(100, 1)[:, 0], 1, trial_sharpes=[0.1])
    assert found.sr0 == 0.0
    assert found.dsr == found.psr


def test_trials_without_a_sharpe_ratio_do_not_count_for_the_variance() -> None:
    series = noise(100, 1)[:, 0]
    plain = deflated_sharpe(series, 3, trial_sharpes=[0.1, 0.2, 0.05])
    assert deflated_sharpe(series, 3, trial_sharpes=[0.1, math.nan, 0.2, 0.05]) == plain


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (np.full(100, 0.001), "same on all 100 days"),
        (np.zeros(100), "same on all 100 days"),
        (0.1 + np.resize([0.0, 1e-16], 100), "same on all 100 days"),
        (noise(29, 1)[:, 0], "29 days are too few"),
        (np.where(np.arange(100) == 7, np.nan, noise(100, 1)[:, 0]), "1 of 100 days"),
        (np.empty(0), "0 days"),
    ],
)
def test_a_series_that_cannot_be_judged_has_no_ratio_and_says_why(
    returns: Floats, reason: str
) -> None:
    found = deflated_sharpe(returns, 10, variance=0.01)
    assert math.isnan(found.dsr)
    assert math.isnan(found.sharpe)
    assert reason in found.reason


def test_without_two_sharpe_ratios_among_many_trials_there_is_no_ratio() -> None:
    found = deflated_sharpe(noise(100, 1)[:, 0], 10, trial_sharpes=[0.1, math.nan])
    assert math.isnan(found.dsr)
    assert math.isfinite(found.psr)
    assert "fewer than two trials" in found.reason


def test_wrong_arguments_are_refused() -> None:
    series = noise(100, 1)[:, 0]
    with pytest.raises(ConfigError, match="n_trials = 0"):
        deflated_sharpe(series, 0, variance=0.1)
    with pytest.raises(ConfigError, match="one, and not both"):
        deflated_sharpe(series, 2)
    with pytest.raises(ConfigError, match="one, and not both"):
        deflated_sharpe(series, 2, variance=0.1, trial_sharpes=[0.1, 0.2])
    with pytest.raises(ConfigError, match="must be >= 0"):
        expected_max_sharpe(2, -0.1)
    with pytest.raises(DataError, match="one series"):
        deflated_sharpe(noise(100, 2), 2, variance=0.1)


def test_sharpe_ratios_of_columns_are_nan_where_there_is_none() -> None:
    trials = noise(50, 4)
    trials[:, 1], trials[3, 2] = 0.001, np.nan
    assert np.isnan(daily_sharpes(trials)).tolist() == [False, True, True, False]
    assert np.isnan(daily_sharpes(np.zeros((50, 2)))).all()


# --- effective number of trials -----------------------------------------------------------------


@pytest.mark.parametrize("correlation", [0.0, 0.2, 0.5, 0.9, 1.0])
def test_equally_correlated_trials_count_as_the_paper_says(correlation: float) -> None:
    common, own = noise(4_000, 1), noise(4_000, 50, seed=1)
    trials = math.sqrt(correlation) * common + math.sqrt(1.0 - correlation) * own
    scales = np.random.default_rng(3).uniform(0.5, 2.0, 50)
    found = effective_trials(trials * scales)
    assert found.correlation == pytest.approx(correlation, abs=0.03)
    assert found.number == pytest.approx(correlation + (1.0 - correlation) * 50, abs=2.5)


def test_the_mean_correlation_is_that_of_all_pairs() -> None:
    trials = noise(100, 12) + 0.7 * noise(100, 1, seed=4)
    pairs = np.asarray(np.corrcoef(trials, rowvar=False))[np.triu_indices(12, 1)]
    assert effective_trials(trials).correlation == pytest.approx(pairs.mean(), rel=1e-9)


@pytest.mark.parametrize("n_days", [60, 250, 1000])
@pytest.mark.parametrize("n_trials", [2, 10, 100])
def test_independent_noise_counts_about_its_number(n_days: int, n_trials: int) -> None:
    assert 0.9 * n_trials <= effective_trials(noise(n_days, n_trials)).number <= n_trials


def test_the_number_does_not_jump_as_trials_move_together() -> None:
    common, own = noise(500, 1), noise(500, 60, seed=1)
    shares = np.linspace(0.0, 1.0, 41)
    found = [effective_trials(share * common + (1.0 - share) * own).number for share in shares]
    assert found[-1] == 1
    assert found == sorted(found, reverse=True)
    assert max(-np.diff(found)) <= 6


def test_constant_and_incomplete_trials_are_left_out() -> None:
    trials = noise(200, 6)
    trials[:, 0], trials[5, 3] = 0.0, np.nan
    found = effective_trials(trials)
    assert (found.number, found.left_out) == (4, 2)


def test_trials_that_never_moved_count_one_and_say_so() -> None:
    found = effective_trials(np.zeros((200, 5)))
    assert (found.number, found.left_out) == (1, 5)
    assert "nothing to tell apart" in found.reason


def test_in_too_few_days_every_trial_counts() -> None:
    found = effective_trials(np.repeat(noise(29, 1), 5, axis=1))
    assert found.number == 5
    assert "29 days are too few" in found.reason


def test_returns_must_be_days_by_trials() -> None:
    with pytest.raises(DataError, match="two dimensions"):
        effective_trials(np.zeros(50))
