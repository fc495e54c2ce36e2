"""How windows are scored, and the record a trial leaves."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.optimize.trial.objective import (
    OBJECTIVES,
    WORST_SCORE,
    WindowFacts,
    flaws,
    read_objective,
    score_window,
)
from backtest.optimize.trial.trial import TrialOutcome, WindowScore
from core.errors import ConfigError
from core.performance import BARS_PER_YEAR, equity_metrics

DEFAULT = read_objective("calmar_pf")


def facts_of(
    *equity: float,
    trades: int = 20,
    profit: float = 300.0,
    loss: float = 100.0,
    repeat: int = 1_000,
) -> WindowFacts:
    """Return a window that starts at 100; every equity stands for ``repeat`` bars."""
    curve = np.repeat(np.array(equity), repeat)
    return WindowFacts(curve, 100.0, trades, profit, loss, float(BARS_PER_YEAR))


ANY_FACTS = st.builds(
    WindowFacts,
    st.lists(st.one_of(st.just(0.0), st.floats(0.01, 1e9)), min_size=1, max_size=50).map(np.array),
    st.floats(1.0, 1e6),
    st.integers(0, 10**7),
    st.floats(0.0, 1e12),
    st.floats(0.0, 1e12),
    st.just(float(BARS_PER_YEAR)),
)


def test_the_default_is_calmar_times_the_root_of_the_profit_factor() -> None:
    # 10 % gained, 10 % lost on the way: Calmar 1; profit factor 3.
    window = score_window(facts_of(110.0, 99.0, 110.0), DEFAULT)
    assert window.score == pytest.approx(1.0 * math.sqrt(3.0))
    assert (window.return_pct, window.max_drawdown_pct) == pytest.approx((10.0, 10.0))
    assert (window.calmar, window.profit_factor) == pytest.approx((1.0, 3.0))
    assert (window.trades, window.note) == (20, "")


def test_a_profit_factor_counts_as_four_at_most() -> None:
    window = score_window(facts_of(110.0, 99.0, 110.0, profit=1_600.0), DEFAULT)
    assert window.score == pytest.approx(2.0)
    assert window.profit_factor == 16.0


def test_without_a_losing_trade_the_profit_factor_counts_as_four() -> None:
    window = score_window(facts_of(110.0, 99.0, 110.0, loss=0.0), DEFAULT)
    assert window.score == pytest.approx(2.0)
    assert math.isnan(window.profit_factor)


def test_a_losing_window_is_divided_by_the_root_of_the_profit_factor() -> None:
    # The account lost on funding what its trades had gained.
    window = score_window(facts_of(99.0, 90.0, profit=400.0), DEFAULT)
    assert window.score == pytest.approx(-1.0 / 2.0)


@given(ANY_FACTS, st.floats(0.0, 1e12))
def test_a_higher_profit_factor_never_scores_worse(facts: WindowFacts, more: float) -> None:
    better = replace(facts, gross_profit=facts.gross_profit + more)
    assert score_window(better, DEFAULT).score >= score_window(facts, DEFAULT).score


@pytest.mark.parametrize(("trades", "cost"), [(30, 0.0), (31, 0.01), (130, 1.0)])
def test_round_trips_above_300_per_10_000_bars_cost_a_hundredth_each(
    trades: int, cost: float
) -> None:
    few, many = (
        score_window(facts_of(110.0, trades=count), read_objective("return"))
        for count in (20, trades)
    )
    assert few.score - many.score == pytest.approx(cost)


@pytest.mark.parametrize(
    ("facts", "note"),
    [
        (facts_of(110.0, 99.0, 110.0, trades=19), "19 trades, fewer than 20"),
        (facts_of(300.0, 149.0), "drawdown 50.3 %, over 50 %"),
        (facts_of(95.0, profit=49.0), "profit factor 0.49, under 0.5"),
        (facts_of(50.0), "capital halved"),
    ],
)
def test_a_window_that_shows_nothing_or_ruin_is_penalised_by_ten(
    facts: WindowFacts, note: str
) -> None:
    window = score_window(facts, DEFAULT)
    assert window.note == note
    base = DEFAULT.function(facts)
    assert window.score == pytest.approx((base / (1 + base) if base > 0 else base) - 10.0)


def test_several_flaws_cost_ten_once_and_are_all_named() -> None:
    window = score_window(facts_of(40.0, trades=3, profit=1.0), DEFAULT)
    assert window.note == (
        "3 trades, fewer than 20; drawdown 60.0 %, over 50 %; profit factor 0.01, under 0.5; "
        "capital halved"
    )
    assert -12.0 <= window.score < -10.0


def test_just_inside_every_limit_there_is_no_penalty() -> None:
    assert flaws(facts_of(101.0, 50.5, trades=20, profit=50.0)) == []


def test_worse_flawed_windows_still_rank_below_better_ones() -> None:
    curves = [(100.0, 90.0), (100.0, 95.0), (110.0, 90.0, 101.0), (110.0, 108.9), (150.0, 149.9)]
    scores = [score_window(facts_of(*curve, trades=5), DEFAULT).score for curve in curves]
    assert scores == sorted(scores)
    assert scores[-1] - scores[-2] > 1e-3


@given(ANY_FACTS, st.sampled_from(list(OBJECTIVES)))
def test_every_score_is_finite_and_a_flawed_one_at_most_minus_nine(
    facts: WindowFacts, name: str
) -> None:
    window = score_window(facts, read_objective(name))
    assert math.isfinite(window.score)
    assert window.score >= WORST_SCORE
    if window.note:
        assert window.score <= -9.0


def test_a_window_without_a_trade_scores_minus_ten() -> None:
    window = score_window(facts_of(100.0, 100.0, trades=0, profit=0.0, loss=0.0), DEFAULT)
    assert window.score == -10.0
    assert math.isnan(window.calmar)
    assert math.isnan(window.profit_factor)


def test_figures_and_other_objectives_are_those_of_a_backtest() -> None:
    curve = 100.0 * np.exp(0.01 * np.random.default_rng(5).standard_normal(1_000))
    facts = facts_of(*curve, repeat=1)
    expected = equity_metrics(facts.equity, 100.0)
    window = score_window(facts, DEFAULT)
    assert window.return_pct == expected["total_return_pct"]
    assert window.max_drawdown_pct == expected["max_drawdown_pct"]
    assert window.calmar == expected["calmar_ratio"]
    for name, figure in [
        ("calmar", expected["calmar_ratio"]),
        ("sharpe", expected["sharpe_ratio"]),
        ("sortino", expected["sortino_ratio"]),
        ("return", expected["total_return_pct"] / 100.0),
    ]:
        assert score_window(facts, read_objective(name)).score == pytest.approx(figure)


def test_an_unknown_objective_suggests_a_known_one() -> None:
    with pytest.raises(ConfigError, match=r"did you mean sortino.*calmar_pf, calmar, sharpe"):
        read_objective("sortini")


def test_every_objective_has_a_line_of_documentation() -> None:
    assert all(item.doc and "\n" not in item.doc for item in OBJECTIVES.values())


# --- the record ----------------------------------------------------------------------------------

FINITE = st.floats(allow_nan=False, allow_infinity=False)
MAYBE_NAN = st.one_of(FINITE, st.just(math.nan))
SCORES = st.dictionaries(
    st.sampled_from(["BTC", "ETH"]),
    st.lists(
        st.builds(
            WindowScore,
            FINITE,
            MAYBE_NAN,
            MAYBE_NAN,
            MAYBE_NAN,
            MAYBE_NAN,
            st.integers(0, 10**6),
            st.text(max_size=5),
        ),
        max_size=3,
    ),
)


@given(FINITE, SCORES, SCORES, st.lists(st.floats(allow_nan=True), max_size=9), st.text())
def test_an_outcome_survives_json_bit_for_bit(
    score: float,
    train: dict[str, list[WindowScore]],
    test: dict[str, list[WindowScore]],
    returns: list[float],
    note: str,
) -> None:
    outcome = TrialOutcome(score, train, test, np.array(returns, dtype=np.float64), note)
    text = json.dumps(outcome.to_dict(), allow_nan=False)
    again = TrialOutcome.from_dict(json.loads(text))
    assert again.to_dict() == outcome.to_dict()
    assert again.daily_returns.tobytes() == outcome.daily_returns.tobytes()
    assert repr((again.score, again.train, again.test)) == repr((score, train, test))
    again.daily_returns[:] = 0.0  # a copy, not a view on read-only bytes


def test_what_has_no_value_is_null() -> None:
    row = WindowScore(-10.0, 0.0, 0.0, math.nan, math.nan, 0, "nothing")
    data = json.loads(json.dumps(row.to_dict()))
    assert data["calmar"] is None
    assert data["profit_factor"] is None
