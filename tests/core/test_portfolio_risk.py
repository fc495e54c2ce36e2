"""The share of entries that several coins may fill: brute force over subsets, edges."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.portfolio_risk import (
    add_bar,
    allowed_share,
    largest_value_at_risk,
    pair_windows,
    whole_returns,
    write_correlation,
)
from core.risk import Z_95

Floats = np.ndarray


def correlations(returns: Floats, threshold: float = 0.8, begin: int = 0) -> Floats:
    """Return the matrix after the windows have been moved over all bars from ``begin`` on."""
    whole, windows = whole_returns(returns), pair_windows(len(returns))
    for k in range(len(windows)):
        windows[k].oldest = begin
    for bar in range(begin, returns.shape[1]):
        add_bar(windows, whole, bar)
    matrix = np.zeros((len(returns), len(returns)))
    write_correlation(windows, threshold, matrix)
    return matrix


class Book:
    """Positions of several coins and room for more, drawn from a seed."""

    def __init__(self, seed: int, n_coins: int) -> None:
        random = np.random.default_rng(seed)
        self.net = random.normal(0.0, 3_000.0, n_coins) * random.integers(0, 2, n_coins)
        self.sigma = random.uniform(0.0005, 0.02, n_coins)
        self.long_room = random.uniform(0.0, 5_000.0, n_coins) * random.integers(0, 2, n_coins)
        self.short_room = random.uniform(0.0, 5_000.0, n_coins) * random.integers(0, 2, n_coins)
        common = random.uniform(-1.5, 1.5, (n_coins, 1)) * random.normal(0.0, 0.003, 300)
        self.returns = random.normal(0.0, 0.003, (n_coins, 300)) + common
        self.correlation = correlations(self.returns)
        self.horizon = float(random.uniform(1.0, 96.0))

    def at_most(self, share: float) -> float:
        """Return the most that can be at risk with ``share`` of the rooms filled."""
        return float(
            largest_value_at_risk(
                share,
                self.net,
                self.sigma,
                self.long_room,
                self.short_room,
                self.correlation,
                self.horizon,
            )
        )

    def share(self, budget: float) -> float:
        """Return the share of the rooms that ``budget`` allows."""
        return float(
            allowed_share(
                self.net,
                self.sigma,
                self.long_room,
                self.short_room,
                self.correlation,
                self.horizon,
                budget,
            )
        )

    def at_risk(self, net: Floats) -> float:
        """Return the value at risk of ``net``: ``1.65 * sqrt(h * w' R w)``."""
        weights = net * self.sigma
        return Z_95 * math.sqrt(self.horizon * max(0.0, weights @ self.correlation @ weights))


seeds = st.integers(0, 2**32 - 1)
coins = st.integers(1, 5)
fractions = st.floats(0.0, 1.0)


@given(seeds, st.integers(1, 4), st.floats(0.02, 1.2))
def test_no_subset_of_whole_sides_exceeds_the_budget(seed: int, n_coins: int, part: float) -> None:
    book = Book(seed, n_coins)
    budget = part * book.at_most(1.0)
    share = book.share(budget)
    if book.at_most(0.0) > budget:
        assert share == 0.0
        return
    for filled in itertools.product((0.0, 1.0), repeat=2 * n_coins):
        long, short = np.array(filled[:n_coins]), np.array(filled[n_coins:])
        net = book.net + share * (long * book.long_room - short * book.short_room)
        assert book.at_risk(net) <= budget * (1.0 + 1e-9)


@given(seeds, coins, st.floats(0.02, 1.2), seeds)
def test_no_random_fills_within_the_share_exceed_the_budget(
    seed: int, n_coins: int, part: float, fills: int
) -> None:
    book = Book(seed, n_coins)
    budget = max(part * book.at_most(1.0), book.at_most(0.0))
    share, random = book.share(budget), np.random.default_rng(fills)
    for _ in range(20):
        long, short = random.uniform(0.0, share, (2, n_coins))
        net = book.net + long * book.long_room - short * book.short_room
        assert book.at_risk(net) <= budget * (1.0 + 1e-9)


@given(seeds, coins, fractions, fractions)
def test_more_room_never_has_less_at_risk(seed: int, n_coins: int, a: float, b: float) -> None:
    book, (low, high) = Book(seed, n_coins), sorted((a, b))
    assert book.at_most(low) <= book.at_most(high) * (1.0 + 1e-12)


@given(seeds, coins, st.floats(0.02, 0.98))
def test_the_share_is_the_largest_that_fits(seed: int, n_coins: int, part: float) -> None:
    book = Book(seed, n_coins)
    budget = book.at_most(0.0) + part * (book.at_most(1.0) - book.at_most(0.0))
    share = book.share(budget)
    assert book.at_most(share) <= budget
    if share < 1.0:
        assert book.at_most(min(1.0, share + 1e-6)) >= budget * (1.0 - 1e-12)


def test_one_coin_by_hand() -> None:
    one = np.array([1_000.0])
    sigma, room, none = np.array([0.01]), np.array([4_000.0]), np.array([0.0])
    matrix = np.array([[1.0]])
    budget = Z_95 * 0.01 * 3_000.0  # 1,000 held and half of 4,000
    assert allowed_share(one, sigma, room, none, matrix, 1.0, budget) == pytest.approx(0.5)
    # A short that closes what is held has less at risk until it is larger than what is held.
    assert allowed_share(one, sigma, none, room, matrix, 1.0, budget) == 1.0
    assert allowed_share(one, sigma, none, room, matrix, 1.0, budget / 3.0) == pytest.approx(0.5)


def test_what_is_held_beyond_the_budget_leaves_nothing() -> None:
    book = Book(7, 3)
    book.net = np.array([5_000.0, -2_000.0, 1_000.0])
    assert book.share(book.at_most(0.0) * 0.999) == 0.0
    assert book.share(0.0) == 0.0
    assert book.share(book.at_most(1.0)) == 1.0


@pytest.mark.parametrize("name", ["net", "sigma", "long_room", "short_room", "correlation"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_allows_no_entries(name: str, value: float) -> None:
    book = Book(3, 3)
    assert book.share(1e12) == 1.0
    getattr(book, name)[-1] = value
    assert book.share(1e12) == 0.0


@pytest.mark.parametrize("budget", [math.nan, math.inf, -1.0])
def test_a_budget_that_is_no_sum_of_money_allows_no_entries(budget: float) -> None:
    assert Book(3, 3).share(budget) == 0.0


@given(seeds, coins, st.floats(0.02, 1.2))
def test_interpreted_equals_compiled(seed: int, n_coins: int, part: float) -> None:
    book = Book(seed, n_coins)
    budget = part * book.at_most(1.0)
    interpreted: Any = getattr(allowed_share, "py_func", allowed_share)
    slow = interpreted(
        book.net,
        book.sigma,
        book.long_room,
        book.short_room,
        book.correlation,
        book.horizon,
        budget,
    )
    assert slow == book.share(budget)


def drawn(seed: int, n_coins: int, n_bars: int) -> Floats:
    random = np.random.default_rng(seed)
    return random.normal(0.0, 0.004, (n_coins, n_bars)) + random.normal(0.0, 0.006, n_bars)


@given(seeds, st.integers(2, 5), st.integers(3, 900))
def test_correlations_are_numpys_over_the_last_672_bars(seed: int, n: int, n_bars: int) -> None:
    returns = drawn(seed, n, n_bars)
    wanted = np.asarray(np.corrcoef(returns[:, -672:]))
    near = np.abs(wanted - 0.8) < 1e-4
    wanted = np.where(wanted > 0.8, 1.0, wanted)
    np.testing.assert_allclose(correlations(returns)[~near], wanted[~near], atol=1e-4)


@given(seeds, st.integers(0, 300), st.integers(0, 30))
def test_a_window_moved_over_years_equals_one_filled_now(
    seed: int, before: int, missing: int
) -> None:
    returns, random = drawn(seed, 3, before + 672 + missing), np.random.default_rng(seed)
    holes = random.integers(before, returns.shape[1], missing)
    returns[random.integers(0, 3), holes] = math.nan
    assert np.array_equal(correlations(returns), correlations(returns, begin=before))


@given(seeds, st.integers(1, 200))
def test_only_bars_that_both_coins_have_count(seed: int, missing: int) -> None:
    returns, random = drawn(seed, 2, 900), np.random.default_rng(seed)
    returns[random.integers(0, 2, missing), random.integers(0, 900, missing)] = math.nan
    both = returns[:, np.isfinite(returns).all(axis=0)]
    assert np.array_equal(correlations(returns), correlations(both))


def test_coins_that_have_not_met_twice_count_as_moving_together() -> None:
    apart = np.full((2, 50), math.nan)
    apart[0, :25], apart[1, 24:] = 0.001, 0.002
    assert correlations(apart).tolist() == [[1.0, 1.0], [1.0, 1.0]]


def test_a_price_that_stands_still_is_correlated_with_nothing() -> None:
    returns = drawn(1, 2, 50)
    returns[1] = 0.0
    assert correlations(returns).tolist() == [[1.0, 0.0], [0.0, 1.0]]


def test_returns_of_any_size_fit_the_windows() -> None:
    returns = np.full((2, 700), 1e9)
    returns[1, ::2] = -1.0
    assert np.all(np.abs(correlations(returns)) <= 1.0)
