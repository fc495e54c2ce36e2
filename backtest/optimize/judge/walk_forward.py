"""Judging by the test windows: what choosing by the past would have earned in what came next.

Train windows are anchored: train 3 contains tests 1 and 2. The parameters chosen in the end were
chosen on all train windows, so of their test windows only the last is one they have not been
fitted to. The clean walk-forward therefore takes, at every window, what a search of its own has
chosen that saw this window's train and nothing after it (``repeated_searches``). Where a search had
nothing to choose, all of its trials disqualified, nothing is traded and the test comes to 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from backtest.optimize.trial.trial import Scores, TrialOutcome
from backtest.optimize.trial.windows import SharedPlan
from core.times import DAY_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class Pick:
    """The choice at one window, and its result.

    Attributes:
        window: from 1.
        kind: ``median`` or ``medoid`` of the best tenth; empty: nothing could be chosen.
        train_score: lowest of all coins and train windows up to this one.
        test_score: lowest of all coins in this window's test.
        train_return_pct: of this window's train, the mean over the coins, percent.
        test_return_pct: of its test, likewise: each coin has the same capital.
    """

    window: int
    kind: str
    train_score: float
    test_score: float
    train_return_pct: float
    test_return_pct: float


@dataclass(frozen=True, kw_only=True)
class WalkForward:
    """The clean walk-forward, and the final choice on the same tests.

    Attributes:
        picks: one per window.
        train_daily_pct: mean return of the picks' trains, percent per day.
        test_daily_pct: mean return of all test days, percent per day.
        own_test_return_pct: of the final choice on every test, percent.
    """

    picks: tuple[Pick, ...]
    train_daily_pct: float
    test_daily_pct: float
    own_test_return_pct: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """Return per day on the tests over that on the trains; NaN where the trains lost.

        Source: Pardo, "The Evaluation and Optimization of Trading Strategies", 2008, chapter 11.
        """
        if not self.train_daily_pct > 0.0:
            return math.nan
        return self.test_daily_pct / self.train_daily_pct

    @property
    def test_return_pct(self) -> float:
        """Return of the picks' tests together, each with the same capital, percent."""
        return sum(pick.test_return_pct for pick in self.picks)

    @property
    def profitable(self) -> int:
        """Number of tests the picks gained in."""
        return sum(pick.test_return_pct > 0.0 for pick in self.picks)

    @property
    def profitable_share(self) -> float:
        """Share of the tests the picks gained in."""
        return self.profitable / len(self.picks)


def walk_forward(
    chosen: Sequence[tuple[str, TrialOutcome] | None], choice: TrialOutcome, plan: SharedPlan
) -> WalkForward:
    """Return what choosing by the past came to at every window.

    Args:
        chosen: kind and outcome of what was chosen by each window's own train; None: nothing.
        choice: the final one.
        plan: of the windows.
    """
    windows = plan.plan.windows
    picks = tuple(_pick(item, window) for window, item in enumerate(chosen, 1))
    train_days = [_days(plan, window.train_end - plan.plan.first_bar) for window in windows]
    test_days = [_days(plan, window.test_end - window.test_start) for window in windows]
    rates = [pick.train_return_pct / days for pick, days in zip(picks, train_days, strict=True)]
    return WalkForward(
        picks=picks,
        train_daily_pct=fmean(rates),
        test_daily_pct=sum(pick.test_return_pct for pick in picks) / sum(test_days),
        own_test_return_pct=tuple(
            mean_return_pct(choice.test, window) for window in range(1, len(windows) + 1)
        ),
    )


def mean_return_pct(scores: Scores, window: int) -> float:
    """Return the mean over the coins of a window's return, percent; windows count from 1."""
    return fmean(rows[window - 1].return_pct for rows in scores.values())


def _pick(chosen: tuple[str, TrialOutcome] | None, window: int) -> Pick:
    if chosen is None:
        return Pick(
            window=window,
            kind="",
            train_score=math.nan,
            test_score=math.nan,
            train_return_pct=0.0,
            test_return_pct=0.0,
        )
    kind, outcome = chosen
    return Pick(
        window=window,
        kind=kind,
        train_score=_score_until(outcome, window),
        test_score=min(rows[window - 1].score for rows in outcome.test.values()),
        train_return_pct=mean_return_pct(outcome.train, window),
        test_return_pct=mean_return_pct(outcome.test, window),
    )


def _score_until(outcome: TrialOutcome, window: int) -> float:
    """Return the lowest train score of all coins and the first ``window`` windows."""
    return min(row.score for rows in outcome.train.values() for row in rows[:window])


def _days(plan: SharedPlan, bars: int) -> float:
    return bars * plan.bar_ms / DAY_MS
