"""Probability of backtest overfitting: against a slow version, on noise and on a true edge."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backtest.optimize.judge.overfitting import probability_of_overfitting, with_interval
from core.errors import ConfigError, DataError

Floats = npt.NDArray[np.float64]


def noise(seed: int, n_days: int = 1000, n_trials: int = 50) -> Floats:
    return np.random.default_rng(seed).normal(0.0, 0.01, (n_days, n_trials))


def slow_version(returns: Floats, blocks: int) -> Floats:
    """Return logit and both Sharpe ratios by the paper's text; for returns without ties."""
    parts = [
        returns[len(returns) * k // blocks : len(returns) * (k + 1) // blocks]
        for k in range(blocks)
    ]
    found = []
    for chosen in combinations(range(blocks), blocks // 2):
        inside = np.vstack([parts[k] for k in chosen])
        outside = np.vstack([parts[k] for k in range(blocks) if k not in chosen])
        before = inside.mean(axis=0) / inside.std(axis=0, ddof=1)
        best = int(np.argmax(before))
        ratio = outside.mean(axis=0) / outside.std(axis=0, ddof=1)
        rank = 1 + sum(other < ratio[best] for other in ratio)
        relative = rank / (returns.shape[1] + 1)
        found.append((math.log(relative / (1.0 - relative)), before[best], ratio[best]))
    return np.array(found).T


@pytest.mark.parametrize(("n_days", "n_trials", "blocks"), [(60, 5, 6), (127, 8, 10), (64, 2, 2)])
def test_every_split_is_judged_as_by_a_slow_version(
    n_days: int, n_trials: int, blocks: int
) -> None:
    returns = noise(3, n_days, n_trials)
    logits, inside, outside = slow_version(returns, blocks)
    found = probability_of_overfitting(returns, blocks)
    assert found.logits == pytest.approx(logits, abs=1e-12)
    assert found.in_sample == pytest.approx(inside, rel=1e-9)
    assert found.out_of_sample == pytest.approx(outside, rel=1e-9)
    assert len(found.logits) == math.comb(blocks, blocks // 2)
    share = float(((logits < 0.0) + 0.5 * (logits == 0.0)).mean())
    assert found.pbo == pytest.approx(share, abs=1e-12)
    assert found.loss_probability == float((outside < 0.0).mean())


def test_choosing_among_noise_is_overfit_half_of_the_time() -> None:
    found = [probability_of_overfitting(noise(seed)) for seed in range(40)]
    assert float(np.mean([item.pbo for item in found])) == pytest.approx(0.5, abs=0.08)


def test_choosing_one_true_edge_is_not_overfit() -> None:
    returns = noise(1)
    returns[:, 17] += 0.003
    found = probability_of_overfitting(returns)
    assert found.pbo < 0.01
    assert found.loss_probability < 0.01
    assert found.out_of_sample.mean() == pytest.approx(0.3, abs=0.05)


def test_the_choice_looks_better_in_sample_than_out_of_it() -> None:
    found = probability_of_overfitting(noise(2))
    assert found.in_sample.min() > 0.0
    assert found.in_sample.mean() > found.out_of_sample.mean() + 0.05


def test_trials_that_are_all_the_same_are_exactly_in_the_middle() -> None:
    for n_trials in (2, 3, 7, 16):
        found = probability_of_overfitting(np.repeat(noise(4, 200, 1), n_trials, axis=1))
        assert found.pbo == 0.5
        assert not found.logits.any()


def test_copies_of_every_trial_change_neither_probability_nor_the_sharpe_ratios() -> None:
    returns = noise(5, 200, 9)
    once = probability_of_overfitting(returns)
    twice = probability_of_overfitting(np.hstack((returns, returns)))
    assert twice.pbo == once.pbo
    assert twice.in_sample == pytest.approx(once.in_sample, abs=1e-15)
    assert twice.out_of_sample == pytest.approx(once.out_of_sample, abs=1e-15)


def test_doing_nothing_beats_losers_and_loses_to_winners() -> None:
    returns = noise(6, 300, 3)
    returns[:, 1] = 0.0
    returns[:, [0, 2]] -= 0.01
    among_losers = probability_of_overfitting(returns)
    assert (among_losers.pbo, among_losers.loss_probability) == (0.0, 0.0)
    assert not among_losers.in_sample.any()
    returns[:, 0] += 0.02
    assert probability_of_overfitting(returns).in_sample.min() > 0.0


def test_a_trial_that_starts_late_ranks_by_the_days_it_has() -> None:
    returns = noise(7, 200, 4)
    returns[:100, 0] = 0.0
    found = probability_of_overfitting(returns, 2)
    assert np.isfinite(found.logits).all()
    assert np.isfinite(found.in_sample).all()


def test_a_constant_gain_is_the_best_of_all() -> None:
    returns = noise(8, 200, 4)
    returns[:, 2] = 0.001
    found = probability_of_overfitting(returns)
    assert found.pbo == 0.0
    assert np.isposinf(found.in_sample).all()


def test_trials_with_a_missing_day_are_left_out_and_counted() -> None:
    returns = noise(9, 200, 6)
    whole = probability_of_overfitting(returns)
    gap = np.full((200, 1), np.nan)
    found = probability_of_overfitting(np.hstack((gap, returns)))
    assert (found.n_trials, found.dropped) == (6, 1)
    assert found.pbo == whole.pbo


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.001, 1000.0))
def test_the_unit_of_returns_does_not_matter(seed: int, scale: float) -> None:
    returns = noise(seed, 120, 6)
    plain = probability_of_overfitting(returns, 6)
    assert probability_of_overfitting(returns * scale, 6).pbo == plain.pbo
    assert 0.0 <= plain.pbo <= 1.0


@pytest.mark.parametrize(
    ("n_days", "n_trials", "reason"),
    [(200, 1, "at least 2"), (200, 0, "at least 2"), (59, 5, "59 days are too few")],
)
def test_what_cannot_be_split_has_no_probability_and_says_why(
    n_days: int, n_trials: int, reason: str
) -> None:
    found = probability_of_overfitting(noise(0, n_days, n_trials))
    assert math.isnan(found.pbo)
    assert len(found.logits) == 0
    assert reason in found.reason


@pytest.mark.parametrize("blocks", [0, 3, 18, -2])
def test_blocks_must_be_an_even_number_in_range(blocks: int) -> None:
    with pytest.raises(ConfigError, match=f"blocks = {blocks} must be an even number"):
        probability_of_overfitting(noise(0, 200, 3), blocks)


def test_returns_must_be_days_by_trials() -> None:
    with pytest.raises(DataError, match="two dimensions"):
        probability_of_overfitting(np.zeros(100))


def test_the_interval_holds_the_probability_and_says_how_much_the_days_decide() -> None:
    rng = np.random.default_rng(3)
    trials = rng.normal(0.0, 0.01, (120, 15))
    found = probability_of_overfitting(trials)
    wide = with_interval(found, trials, 1)
    assert 0.0 <= wide.low <= wide.pbo <= wide.high <= 1.0
    assert wide.high - wide.low > 0.1
    assert with_interval(found, trials, 1).low == wide.low
    edge = trials + np.r_[0.02, np.zeros(14)]
    sure = with_interval(probability_of_overfitting(edge), edge, 1)
    assert (sure.low, sure.high) == (0.0, 0.0)
    few = probability_of_overfitting(trials[:50])
    assert with_interval(few, trials[:50], 1) is few
