"""Superior predictive ability: noise passes as often as it should, an edge is found."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from backtest.optimize.judge.superior import superior_predictive_ability
from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]
NOTHING = np.zeros(500)


def noise(seed: int, n_models: int = 15, n_days: int = 500) -> Floats:
    return np.random.default_rng(seed).normal(0.0, 0.01, (n_days, n_models))


def slow_p_value(series: Floats, block: int, seed: int, reps: int) -> float:
    """Return the p value of one model that does not clearly lose, by its definition."""
    rng = np.random.default_rng(seed)
    days, mean, exceeded = len(series), series.mean(), 0
    for _ in range(reps):
        rows = np.empty(days, dtype=np.int64)
        for day in range(days):
            jump = day == 0 or rng.random() < 1.0 / block
            rows[day] = rng.integers(days) if jump else (rows[day - 1] + 1) % days
        exceeded += bool(series[rows].mean() - mean > mean)
    return (1 + exceeded) / (1 + reps)


@pytest.mark.slow
def test_noise_has_p_values_spread_evenly() -> None:
    found = [superior_predictive_ability(noise(seed), NOTHING, seed, 200) for seed in range(60)]
    p_values = np.array([item.consistent for item in found])
    assert float(p_values.mean()) == pytest.approx(0.5, abs=0.12)
    assert int((p_values < 0.05).sum()) <= 7
    assert int((p_values < 0.5).sum()) in range(18, 43)


def test_a_true_edge_among_noise_is_found() -> None:
    for seed in range(3):
        models = noise(seed)
        models[:, 4] += 0.002
        found = superior_predictive_ability(models, NOTHING, seed, 200)
        assert max(found.lower, found.consistent, found.upper) < 0.05


def test_the_same_edge_in_the_benchmark_is_no_superiority() -> None:
    models = noise(1) + 0.002
    assert superior_predictive_ability(models, NOTHING, 1, 200).consistent < 0.05
    assert superior_predictive_ability(models, NOTHING + 0.002, 1, 200).consistent > 0.05


def test_a_steady_edge_is_not_hidden_by_a_wild_model() -> None:
    models = noise(2)
    models[:, 0] *= 100.0
    models[:, 3] += 0.002
    assert superior_predictive_ability(models, NOTHING, 2, 200).consistent < 0.05


def test_one_model_s_p_value_is_that_of_a_slow_bootstrap() -> None:
    series = noise(3, 1, 200)[:, 0] + 0.0007
    found = superior_predictive_ability(series[:, None], np.zeros(200), 1, 1000)
    expected = slow_p_value(series, found.block_days, 7, 1000)
    assert found.consistent == pytest.approx(expected, abs=0.05)
    assert 0.02 < expected < 0.5


def test_the_three_p_values_are_ordered_and_never_zero() -> None:
    models = noise(4)
    models[:, ::2] -= 0.002
    models[:, 1] += 0.004
    found = superior_predictive_ability(models, NOTHING, 4, 100)
    assert found.lower <= found.consistent <= found.upper
    assert found.lower == 1 / 101


def test_models_that_clearly_lose_do_not_save_the_others_from_being_judged() -> None:
    models = noise(5, 40)
    models[:, 1:] -= 0.01
    models[:, 0] += 0.0005
    found = superior_predictive_ability(models, NOTHING, 5, 300)
    alone = superior_predictive_ability(models[:, :1], NOTHING, 5, 300)
    assert found.consistent == pytest.approx(alone.consistent, abs=0.05)
    assert found.upper > found.consistent


def test_the_same_seed_gives_the_same_answer_in_any_order_of_the_models() -> None:
    models = noise(6)
    first = superior_predictive_ability(models, NOTHING, 1, 100)
    assert superior_predictive_ability(models[:, ::-1], NOTHING, 1, 100) == first
    other = superior_predictive_ability(models, NOTHING, 2, 100)
    assert other.consistent != first.consistent


def test_models_that_cannot_be_compared_are_dropped_first() -> None:
    models = noise(7, 4)
    plain = superior_predictive_ability(models, NOTHING, 1, 100)
    gap = np.where(np.arange(500) == 3, np.nan, models[:, 0])
    more = np.column_stack((models, NOTHING, NOTHING + 0.01, gap, models[:, 1]))
    found = superior_predictive_ability(more, NOTHING, 1, 100)
    assert (found.n_models, found.dropped) == (4, 4)
    assert found.consistent == plain.consistent


def test_only_models_like_the_benchmark_leave_no_p_value() -> None:
    benchmark = noise(8, 1)[:, 0]
    found = superior_predictive_ability(np.repeat(benchmark[:, None], 3, axis=1), benchmark, 1)
    assert math.isnan(found.consistent)
    assert found.dropped == 3
    assert "no model differs" in found.reason


def test_too_few_days_or_a_benchmark_with_gaps_leave_no_p_value() -> None:
    short = superior_predictive_ability(noise(1, 3, 29), np.zeros(29), 1)
    assert math.isnan(short.consistent)
    assert "29 days" in short.reason
    gap = np.where(np.arange(500) == 3, np.nan, 0.0)
    found = superior_predictive_ability(noise(1), gap, 1)
    assert math.isnan(found.consistent)
    assert "1 of 500 days" in found.reason


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(DataError, match="benchmark_returns of shape"):
        superior_predictive_ability(noise(1), np.zeros(499), 1)
    with pytest.raises(ConfigError, match="reps = 0"):
        superior_predictive_ability(noise(1), NOTHING, 1, 0)
