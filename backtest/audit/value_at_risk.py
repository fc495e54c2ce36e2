"""A portfolio's value at risk, recomputed from candles and the positions of rebuilt accounts.

``1.65 * sqrt(w' R w * horizon)``: ``w`` is a coin's signed net notional times the sample standard
deviation of its last log returns, ``R`` the correlation of one-bar returns over the last 672 bars
that all coins then held have; a correlation above the threshold counts as 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.audit.ledger import Ledger
from backtest.audit.market import AuditBars
from backtest.audit.summary import quotient
from backtest.market.timeframes import format_time
from core.times import DAY_MS

ONE_SIDED_95: Final = 1.65
CORRELATED_BARS: Final = 672

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RiskRules:
    """The parameters of a value at risk.

    Attributes:
        volatility_period: log returns in a standard deviation.
        horizon_bars: bars it looks ahead.
        threshold: correlation above which two coins count as one.
    """

    volatility_period: int
    horizon_bars: float
    threshold: float


@dataclass(frozen=True, eq=False)
class Exposure:
    """One coin at the portfolio's bars, each array of shape (n_times,).

    Attributes:
        weight: signed net notional times volatility, quote per bar; 0 outside the coin's own bars.
        returns: from one bar to the next, NaN where one of the two is not there.
    """

    weight: Floats
    returns: Floats


def exposure_of(
    ledger: Ledger, bars: AuditBars, times: npt.NDArray[np.int64], period: int
) -> Exposure:
    """Return a coin's weight and returns at ``times``.

    Args:
        ledger: rebuilt from the coin's records.
        bars: its own.
        times: open times of the portfolio's bars, ms UTC, ascending.
        period: log returns in a standard deviation.
    """
    lots = np.zeros(len(bars))
    for change in ledger.changes:
        lots[change.bar] += 0.0 if change.at_end else change.signed_lots
    net = np.cumsum(lots) * ledger.step_size
    net[np.abs(net) < ledger.step_size / 2.0] = 0.0
    volatility = np.zeros(len(bars))
    if len(bars) > period:
        steps = np.diff(np.log(bars.close))
        windows = np.lib.stride_tricks.sliding_window_view(steps, period)
        volatility[period:] = windows.std(axis=1, ddof=1)
    own = {int(t): i for i, t in enumerate(bars.ts_ms)}
    weight, returns = np.zeros(len(times)), np.full(len(times), math.nan)
    latest, before = 0.0, None
    for place, t in enumerate(times.tolist()):
        i = own.get(t)
        if i is not None:
            latest = float(bars.close[i] * net[i] * volatility[i])
            if before is not None:
                returns[place] = bars.close[i] / bars.close[before] - 1.0
        weight[place] = latest if t <= int(bars.ts_ms[-1]) else 0.0
        before = i
    return Exposure(weight, returns)


def risk_figures(
    exposures: Mapping[str, Exposure],
    times: npt.NDArray[np.int64],
    equity: Floats,
    rules: RiskRules,
) -> Iterator[tuple[str, Any]]:
    """Yield (name, what must stand there); None where it has no denominator.

    Args:
        exposures: by coin, in the portfolio's order.
        times: open times of the portfolio's bars, ms UTC.
        equity: of the portfolio at their closes, quote.
        rules: of the run.
    """
    days = times // DAY_MS
    looks = [i for i in range(len(times)) if i + 1 == len(times) or days[i] != days[i + 1]]
    risks = [_at_risk(list(exposures.values()), i, rules) for i in looks]
    top = risks.index(max(risks))
    yield "end", risks[-1]
    yield "end_pct", quotient(100.0 * risks[-1], float(equity[looks[-1]]))
    yield "highest", risks[top]
    yield "highest_pct", quotient(100.0 * risks[top], float(equity[looks[top]]))
    yield "highest_at", format_time(int(times[looks[top]]))
    coins = list(exposures)
    for k, a in enumerate(coins):
        for b in coins[k + 1 :]:
            pair = _common([exposures[a].returns, exposures[b].returns])
            yield f"correlation.{a}/{b}", _correlation(pair)


def _at_risk(exposures: Sequence[Exposure], at: int, rules: RiskRules) -> float:
    """Return the value at risk at one bar, quote."""
    held = [one for one in exposures if one.weight[at] != 0.0]
    weights = [float(one.weight[at]) for one in held]
    rows = _common([one.returns[: at + 1] for one in held]) if held else np.empty((0, 0))
    apart = rows.shape[0] < 2  # noqa: PLR2004 - never met: as if they moved together
    if apart and len(held) > 1:
        return ONE_SIDED_95 * sum(map(abs, weights)) * math.sqrt(rules.horizon_bars)
    square = 0.0
    for i, a in enumerate(weights):
        for j, b in enumerate(weights):
            together = 1.0 if i == j else _correlation(rows[:, [i, j]]) or 0.0
            square += a * b * (1.0 if together > rules.threshold else together)
    return ONE_SIDED_95 * math.sqrt(max(0.0, square) * rules.horizon_bars)


def _common(returns: Sequence[Floats]) -> Floats:
    """Return the last rows that all have, shape (at most 672, n_coins)."""
    table = np.column_stack(returns)
    return table[np.isfinite(table).all(axis=1)][-CORRELATED_BARS:]


def _correlation(rows: Floats) -> float | None:
    """Return the correlation of two columns, None where a price stood still or there are no two."""
    if len(rows) < 2:  # noqa: PLR2004
        return None
    a, b = (rows[:, k] - rows[:, k].mean() for k in (0, 1))
    return quotient(float(np.sum(a * b)), math.sqrt(float(np.sum(a * a)) * float(np.sum(b * b))))
