"""Which bars are trained on, which are tested on, and which nobody looks at until the end.

    |<-------------------- anchored walk-forward -------------------->|<- holdout ->|
    |---- train 1 ----|purge| test 1 |                                |
    |--------------- train 2 ---------------|purge| test 2 |          |
    |--------------------------- train 3 -----------|purge|   test 3  |

The bars before the holdout are cut into pieces of equal length. Train ``w`` runs from the first
bar to 70 % into piece ``w``; its test is what is left of that piece after a purge, so that no
position and no indicator of the train's last bars reaches into the test (Lopez de Prado, Advances
in Financial Machine Learning, 2018, chapter 7).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import format_time
from backtest.optimize.trial.space import Space
from core.atr import MEAN_WINDOW
from core.errors import ConfigError, DataError
from core.params import PruneRule, StrategyParams
from core.regime_gmm import GMM_RETURN_BARS, GMM_WINDOW
from core.times import DAY_MS, HOUR_MS

Ints = npt.NDArray[np.int64]

DEFAULT_WINDOWS: Final = 4
DEFAULT_HOLDOUT: Final = 0.15
MAX_HOLDOUT: Final = 0.5
"""A holdout longer than what is searched would be the wrong way round."""
TRAIN_SHARE: Final = 0.7
"""How far into its piece a train window runs."""
MIN_TRAIN_BARS: Final = 2_000
"""Three weeks of 15 minutes: at a trade every 100 bars, the 20 trades a score needs."""
MIN_TEST_BARS: Final = 480
"""Five days of 15 minutes: the shortest stretch in which a few positions come to their end."""
UNBOUNDED_HOLDING_HOURS: Final = 168.0
"""Counted as the longest holding time where nothing prunes old fills: a week, which is as long
as the slowest window means remember."""

_PLAIN_PERIODS: Final = ("atr_period", "adx_period", "z_score_period", "volatility_period")
_TREND_PERIODS: Final = ("kama_period", "kama_fast", "kama_slow", "atr_period")


@dataclass(frozen=True, slots=True)
class Window:
    """One train window, ``[first_bar, train_end)``, and its test, ``[test_start, test_end)``."""

    train_end: int
    test_start: int
    test_end: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Walk-forward windows in bar indices.

    Attributes:
        first_bar: of every train window.
        windows: in time order.
        holdout_start: first bar set aside; ``n_bars`` if none is.
        n_bars: end of all bars, the holdout included.
        purge_bars: between the end of a train window and its test.
    """

    first_bar: int
    windows: tuple[Window, ...]
    holdout_start: int
    n_bars: int
    purge_bars: int


def plan_windows(
    n_bars: int, first_bar: int, windows: int, holdout: float, purge_bars: int
) -> Plan:
    """Return the windows of the bars ``[first_bar, n_bars)``.

    Args:
        n_bars: end of the bars.
        first_bar: the first bar that trades.
        windows: how many pieces.
        holdout: share of the traded bars set aside at the end.
        purge_bars: as ``longest_purge`` answers.

    Raises:
        ConfigError: ``windows`` or ``holdout`` is impossible.
        DataError: the bars are too few; says how many windows are possible.
    """
    if isinstance(windows, bool) or not isinstance(windows, int) or windows < 1:
        raise ConfigError(f"windows = {windows!r} must be a whole number, at least 1")
    if not 0.0 <= holdout <= MAX_HOLDOUT:
        raise ConfigError(f"holdout = {holdout!r} must be a share of the bars, 0 to {MAX_HOLDOUT}")
    holdout_start = n_bars - math.ceil(holdout * max(n_bars - first_bar, 0))
    possible = _most_windows(first_bar, holdout_start, purge_bars)
    if windows > possible:
        raise DataError(_too_short(n_bars - first_bar, holdout, windows, possible, purge_bars))
    cut = _cut(first_bar, holdout_start, windows, purge_bars)
    return Plan(first_bar, cut, holdout_start, n_bars, purge_bars)


def _cut(first_bar: int, end: int, windows: int, purge_bars: int) -> tuple[Window, ...]:
    edges = [first_bar + k * (end - first_bar) // windows for k in range(windows + 1)]
    train_ends = [start + int(TRAIN_SHARE * (stop - start)) for start, stop in pairwise(edges)]
    return tuple(
        Window(train_end, train_end + purge_bars, stop)
        for train_end, stop in zip(train_ends, edges[1:], strict=True)
    )


def _shortest_piece(purge_bars: int) -> float:
    """Return the length of a piece that leaves its train and its test long enough, in bars."""
    return max(MIN_TRAIN_BARS / TRAIN_SHARE, (MIN_TEST_BARS + purge_bars) / (1.0 - TRAIN_SHARE))


def _most_windows(first_bar: int, end: int, purge_bars: int) -> int:
    """Return into how many pieces the bars can be cut; 0 if not even one is long enough."""
    windows = max(0, int((end - first_bar) / _shortest_piece(purge_bars))) + 1
    while windows > 0:
        cut = _cut(first_bar, end, windows, purge_bars)
        shortest_test = min(window.test_end - window.test_start for window in cut)
        if cut[0].train_end - first_bar >= MIN_TRAIN_BARS and shortest_test >= MIN_TEST_BARS:
            break
        windows -= 1
    return windows


def _too_short(n_traded: int, holdout: float, windows: int, possible: int, purge_bars: int) -> str:
    needed = math.ceil(windows * _shortest_piece(purge_bars) / (1.0 - holdout) / 100.0 + 1) * 100
    return (
        (
            f"windows = {windows} must be at most {possible} for {n_traded} bars of which "
            f"{holdout:.0%} are set aside: the first train window needs {MIN_TRAIN_BARS} bars and "
            f"every test {MIN_TEST_BARS} after a purge of {purge_bars}; use fewer windows, or "
            f"dates with about {needed} bars"
        )
        if possible
        else (
            f"{n_traded} bars of which {holdout:.0%} are set aside are too few for any window: "
            f"the train window needs {MIN_TRAIN_BARS} bars and its test {MIN_TEST_BARS} after a "
            f"purge of {purge_bars}; use dates with about {needed} bars for windows = {windows}"
        )
    )


def longest_purge(params: StrategyParams, space: Space, bar_ms: int) -> int:
    """Return the gap between train and test: longest holding time plus longest memory, in bars.

    The largest of all values in ``space`` counts, so that one plan serves every trial.

    Args:
        params: values of what is not searched.
        space: what is searched.
        bar_ms: length of a bar.
    """

    def largest(name: str) -> float:
        return float(max(space.bounding_values(name, getattr(params, name))))

    rules = space.bounding_values("prune_enabled", params.prune_enabled)
    hours = [
        largest("max_position_age_hours") if PruneRule.OLDEST in rule else UNBOUNDED_HOLDING_HOURS
        for rule in rules
    ]
    mult = largest("regime_timeframe_mult")
    memory = [
        float(MEAN_WINDOW),
        *(largest(name) for name in _PLAIN_PERIODS),
        *(mult * largest(name) for name in _TREND_PERIODS),
    ]
    if largest("use_ml_regime"):
        memory.append(GMM_WINDOW + GMM_RETURN_BARS)
    return math.ceil(max(hours) * HOUR_MS / bar_ms) + math.ceil(max(memory))


@dataclass(frozen=True, eq=False)
class SharedPlan:
    """One plan for several coins, in time.

    Attributes:
        times_ms: open times of the traded bars every coin has, ms UTC, shape (n_bars,).
        bar_ms: length of a bar.
        plan: in rows of ``times_ms``.
    """

    times_ms: Ints
    bar_ms: int
    plan: Plan

    @property
    def start_ms(self) -> int:
        """Open of the first bar trained on."""
        return int(self.times_ms[0])

    @property
    def holdout_ms(self) -> int:
        """Open of the first bar set aside; the end of all bars if none is."""
        return self.time_of(self.plan.holdout_start)

    @property
    def end_ms(self) -> int:
        """Close of the last bar, the holdout included."""
        return int(self.times_ms[-1]) + self.bar_ms

    def time_of(self, row: int) -> int:
        """Return the open time of a row of the plan, of the row after the last its close."""
        return int(self.times_ms[row]) if row < len(self.times_ms) else self.end_ms

    @cached_property
    def days_ms(self) -> Ints:
        """Starts of the UTC days before the holdout, those without a common bar left out."""
        return self.times_ms[self._day_ends] // DAY_MS * DAY_MS

    @cached_property
    def day_ends_ms(self) -> Ints:
        """Open times of the last common bar of each of ``days_ms``."""
        return self.times_ms[self._day_ends]

    @cached_property
    def _day_ends(self) -> npt.NDArray[np.intp]:
        days = self.times_ms[: self.plan.holdout_start] // DAY_MS
        return np.flatnonzero(np.diff(days, append=-1))

    def for_coin(self, times_ms: Ints) -> Plan:
        """Return the same plan in the rows of one coin, which may have more bars.

        Args:
            times_ms: open times of the coin's bars, those that warm up included.
        """

        def row(common: int) -> int:
            return int(np.searchsorted(times_ms, self.time_of(common)))

        windows = tuple(
            Window(row(window.train_end), row(window.test_start), row(window.test_end))
            for window in self.plan.windows
        )
        plan = self.plan
        return Plan(
            row(plan.first_bar), windows, row(plan.holdout_start), row(plan.n_bars), plan.purge_bars
        )


def plan_shared(
    times_ms: Mapping[str, Ints], bar_ms: int, windows: int, holdout: float, purge: int
) -> SharedPlan:
    """Return the plan on the traded bars that all coins have.

    Args:
        times_ms: open times of every coin's traded bars.
        bar_ms: length of a bar.
        windows: as in ``plan_windows``.
        holdout: as in ``plan_windows``.
        purge: as ``longest_purge`` answers.

    Raises:
        ConfigError: as ``plan_windows``.
        DataError: as ``plan_windows``, or the coins have no bar in common.
    """
    common = reduce(np.intersect1d, times_ms.values())
    spans = ", ".join(
        f"{coin} {format_time(int(times[0]))} to {format_time(int(times[-1]) + bar_ms)}"
        for coin, times in times_ms.items()
    )
    if common.size == 0:
        raise DataError(f"the coins have no candle in common: {spans}; choose other coins or dates")
    try:
        plan = plan_windows(common.size, 0, windows, holdout, purge)
    except DataError as error:
        raise DataError(f"{error}. Bars that all coins have count: {spans}") from None
    return SharedPlan(common, bar_ms, plan)
