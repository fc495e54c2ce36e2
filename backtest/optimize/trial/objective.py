"""How good one window of one coin is: the objectives by name, and the penalties all of them get."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.optimize.trial.trial import WindowScore
from core.errors import ConfigError
from core.params import unknown_key
from core.performance import bar_returns, drawdown_curve, ratio, sharpe_ratio, sortino_ratio

Floats = npt.NDArray[np.float64]

DEFAULT_OBJECTIVE: Final = "calmar_pf"
MAX_PROFIT_FACTOR: Final = 4.0
"""More than four times as much won as lost says how few losses there were, not how good it is."""
MIN_DRAWDOWN_PCT: Final = 0.01
"""Drawdowns count as at least this, one basis point: less is what a single fee moves."""

TRADES_PER_10K_BARS: Final = 300.0
"""Round trips that cost nothing: about three a day in 15-minute bars."""
EXCESS_TRADE_COST: Final = 0.01
PENALTY: Final = 10.0
MIN_TRADES: Final = 20
MAX_DRAWDOWN_PCT: Final = 50.0
MIN_PROFIT_FACTOR: Final = 0.5
MIN_RETURN_PCT: Final = -50.0
"""The capital is halved."""
WORST_SCORE: Final = -1_000.0
"""No score is lower, and that of parameters that contradict each other is this."""


@dataclass(frozen=True, eq=False)
class WindowFacts:
    """The figures of one window of one coin.

    Attributes:
        equity: at every close, open positions at that close, quote, shape (n_bars,), n_bars > 0.
        initial: equity before the first bar, quote.
        trades: round trips completed.
        gross_profit: of those that won, net of their fees, quote.
        gross_loss: of the others, not negative, quote.
        bars_per_year: to annualise with.
    """

    equity: Floats
    initial: float
    trades: int
    gross_profit: float
    gross_loss: float
    bars_per_year: float

    @cached_property
    def return_pct(self) -> float:
        """Total return, percent."""
        return (float(self.equity[-1]) / self.initial - 1.0) * 100.0

    @cached_property
    def max_drawdown_pct(self) -> float:
        """Largest fall from the highest equity so far, percent of it."""
        return float(drawdown_curve(self.equity, self.initial).max()) * 100.0

    @property
    def profit_factor(self) -> float:
        """Gross profit over gross loss; NaN without a loss."""
        return ratio(self.gross_profit, self.gross_loss)


class Objective(NamedTuple):
    """One way to judge a window.

    Attributes:
        function: answers with the score before penalties; what is not finite counts as 0.
        doc: what it is, in a line.
    """

    function: Callable[[WindowFacts], float]
    doc: str


def calmar(facts: WindowFacts) -> float:
    """Return total return over maximum drawdown, both percent of the whole window."""
    return facts.return_pct / max(facts.max_drawdown_pct, MIN_DRAWDOWN_PCT)


def calmar_pf(facts: WindowFacts) -> float:
    """Return ``Calmar * sqrt(min(profit factor, 4))``, for losses ``Calmar / sqrt(...)``.

    Multiplied, a loss would count the less the worse its profit factor is; so a negative Calmar,
    which lies in [-1, 0), is divided, by a profit factor not under 1/4: a higher profit factor
    never lowers the score, and a losing window scores -2 at worst. Without a losing trade the
    profit factor is 4, without any trade 1.
    """
    base = calmar(facts)
    factor = min(facts.profit_factor, MAX_PROFIT_FACTOR)
    if math.isnan(facts.profit_factor):
        factor = MAX_PROFIT_FACTOR if facts.gross_profit > 0.0 else 1.0
    if base >= 0.0:
        return base * math.sqrt(factor)
    return base / math.sqrt(max(factor, 1.0 / MAX_PROFIT_FACTOR))


def sharpe(facts: WindowFacts) -> float:
    """Return the annualised Sharpe ratio of the returns per bar."""
    return sharpe_ratio(bar_returns(facts.equity, facts.initial), facts.bars_per_year)


def sortino(facts: WindowFacts) -> float:
    """Return the annualised Sortino ratio of the returns per bar."""
    return sortino_ratio(bar_returns(facts.equity, facts.initial), facts.bars_per_year)


def total_return(facts: WindowFacts) -> float:
    """Return the total return as a share: in percent it would drown or be drowned by penalties."""
    return facts.return_pct / 100.0


OBJECTIVES: Final[Mapping[str, Objective]] = {
    DEFAULT_OBJECTIVE: Objective(calmar_pf, "Calmar ratio x sqrt(profit factor, at most 4)"),
    "calmar": Objective(calmar, "total return over maximum drawdown"),
    "sharpe": Objective(sharpe, "annualised Sharpe ratio of the returns per bar"),
    "sortino": Objective(sortino, "annualised Sortino ratio of the returns per bar"),
    "return": Objective(total_return, "total return as a share (0.05: 5 %)"),
}


def read_objective(name: str) -> Objective:
    """Return the objective called ``name``.

    Raises:
        ConfigError: there is none.
    """
    if name not in OBJECTIVES:
        raise ConfigError(
            f"{unknown_key(name, OBJECTIVES, 'objective')}; must be one of {', '.join(OBJECTIVES)}"
        )
    return OBJECTIVES[name]


def score_window(facts: WindowFacts, objective: Objective) -> WindowScore:
    """Return the score of a window and the figures behind it.

    The objective, minus 0.01 for every round trip above 300 per 10,000 bars. Where the window
    shows nothing or ruin (``flaws``), 10 are taken off once, and what was above 0 counts as
    ``x / (1 + x)``: a lucky handful of trades may have any ratio, and must not make up for the
    10. So a flawed window has at most -9, and worse ones still rank below better ones, which a
    flat -10 would not tell the search. The score is finite, never under ``WORST_SCORE``.
    """
    base = objective.function(facts)
    score = base if math.isfinite(base) else 0.0
    free = TRADES_PER_10K_BARS * facts.equity.size / 10_000.0
    score -= EXCESS_TRADE_COST * max(0.0, facts.trades - free)
    found = flaws(facts)
    if found:
        score = (score / (1.0 + score) if score > 0.0 else score) - PENALTY
    return WindowScore(
        score=max(score, WORST_SCORE),
        return_pct=facts.return_pct,
        max_drawdown_pct=facts.max_drawdown_pct,
        calmar=ratio(facts.return_pct, facts.max_drawdown_pct),
        profit_factor=facts.profit_factor,
        trades=facts.trades,
        note="; ".join(found),
    )


def flaws(facts: WindowFacts) -> list[str]:
    """Return why a window is penalised, in words; empty if it is not."""
    found = []
    if facts.trades < MIN_TRADES:
        found.append(f"{facts.trades} trades, fewer than {MIN_TRADES}")
    if facts.max_drawdown_pct > MAX_DRAWDOWN_PCT:
        found.append(f"drawdown {facts.max_drawdown_pct:.1f} %, over {MAX_DRAWDOWN_PCT:.0f} %")
    if facts.profit_factor < MIN_PROFIT_FACTOR:
        found.append(f"profit factor {facts.profit_factor:.2f}, under {MIN_PROFIT_FACTOR:g}")
    if facts.return_pct <= MIN_RETURN_PCT:
        found.append("capital halved")
    return found
