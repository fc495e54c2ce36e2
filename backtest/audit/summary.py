"""A summary's figures against the account that the audit rebuilt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from backtest.audit.files import Finding, Summary
from backtest.audit.ledger import LONG, SHORT, Ledger
from backtest.audit.market import AuditBars
from backtest.market.timeframes import format_time
from core.times import DAY_MS

ABSOLUTE: Final = 1e-6
RELATIVE: Final = 1e-9
"""Largest rounding error of a figure."""
NOT_CHECKED: Final = (
    "metrics.trailing_shifts, var_blocks and capacity_reached (steps that leave no record)",
    "parameters that neither bound a record nor an order's size (what decides when to trade)",
    "regimes and circuit breaker against the candles, and whether an order was due at all",
    "Kelly, cooldown, harvest, reserve and thin volume (sizes are held against bounds only)",
    "changed_parameters: whether the list is complete, and the shipped values in it",
    "bands other than the run itself, bands_summary, notices, program_version, code_fingerprint",
    "HTML report and charts",
)
"""Facts that no file besides the summary can confirm, or only running again can."""


class Between(NamedTuple):
    """A whole number that the records leave open within bounds."""

    least: int
    most: int


def check_summary(summary: Summary, ledger: Ledger, bars: AuditBars) -> tuple[int, Finding | None]:
    """Return how many figures were compared, and the first that is wrong."""
    compared = 0
    for name, expected in figures(summary, ledger, bars):
        found = summary.metrics.get(name)
        compared += 1
        if not agrees(found, expected):
            wrong = "it does not follow from trades, candles and funding"
            if name == "funding_pnl":
                wrong += _missing_payment(found, expected, ledger, bars)
            return compared, Finding(f"metrics.{name}", repr(found), wrong, expected_text(expected))
    for place, found, expected in _repeated(summary):
        compared += 1
        if found != expected:
            wrong = "it is not what stands elsewhere in the file"
            return compared, Finding(place, repr(found), wrong, repr(expected))
    return compared, None


def _repeated(summary: Summary) -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, what stands there, what must) of what a summary says twice."""
    for name, change in summary.changed_parameters.items():
        value = change.get("value") if isinstance(change, dict) else change
        yield f"changed_parameters.{name}", value, summary.parameters.get(name)
    for name in ("total_return_pct", "max_drawdown_pct", "calmar_ratio"):
        if summary.bands:
            central = summary.bands[0]
            found = central.get(name) if isinstance(central, dict) else central
            yield f"bands.0.{name}", found, summary.metrics.get(name)


def figures(summary: Summary, ledger: Ledger, bars: AuditBars) -> Iterator[tuple[str, Any]]:
    """Yield (metric, what it must be); None where it has no denominator."""
    yield from _of_account(summary, ledger, bars)
    yield from _of_records(ledger)


def _of_account(summary: Summary, ledger: Ledger, bars: AuditBars) -> Iterator[tuple[str, Any]]:
    capital = ledger.capital
    equity, held = account_curve(ledger, bars)
    first = min(summary.first_bar, len(bars) - 1)
    peak = np.maximum.accumulate(np.maximum(equity, capital))
    yield "funding_pnl", ledger.funding
    yield "fees_paid", ledger.fees
    yield "final_capital", ledger.wallet
    total, fall = (ledger.wallet / capital - 1.0) * 100.0, float(np.max(1.0 - equity / peak))
    yield "total_return_pct", total
    yield "max_drawdown_pct", 100.0 * fall
    yield "calmar_ratio", quotient(total, 100.0 * fall)
    yield from annual_figures(ledger.wallet / capital, len(equity[first:]), bars.bar_ms, fall)
    sharpe, sortino = return_ratios(equity[first:], capital, bars.bar_ms)
    yield "sharpe_ratio", sharpe
    yield "sortino_ratio", sortino
    yield "exposure_pct", 100.0 * float(np.mean(held[first:]))
    yield "buy_hold_return_pct", 100.0 * float(bars.close[-1] / bars.open[first] - 1.0)
    yield "turnover", ledger.turnover / capital


def annual_figures(
    growth: float, n_bars: int, bar_ms: int, fall: float
) -> Iterator[tuple[str, float | None]]:
    """Yield the return a year, percent, and that over the largest drawdown (a share)."""
    exponent = 365.0 * DAY_MS / (n_bars * bar_ms)
    try:
        yearly: float | None = 100.0 * (math.pow(max(growth, 0.0), exponent) - 1.0)
    except OverflowError:
        yearly = None
    yield "cagr_pct", yearly
    yield "calmar_annual_ratio", None if yearly is None else quotient(yearly, 100.0 * fall)


def _of_records(ledger: Ledger) -> Iterator[tuple[str, Any]]:
    labels = ledger.labels
    prunes = {name: n for name, n in labels.items() if name.startswith("PRUNE_")}
    yield "stops_long", Between(*ledger.stops.get(LONG, (0, 0)))
    yield "stops_short", Between(*ledger.stops.get(SHORT, (0, 0)))
    yield "liquidations", ledger.liquidations
    yield "longs_opened", labels["BUY_OPEN_LONG"]
    yield "longs_closed", labels["SELL_CLOSE_LONG"]
    yield "long_exits", ledger.exits[LONG]
    yield "short_exits", ledger.exits[SHORT]
    yield "shorts_opened", labels["SELL_OPEN_SHORT"]
    yield "shorts_closed", labels["BUY_CLOSE_SHORT"]
    yield "circuit_breaker_triggers", labels["CIRCUIT_BREAKER_HALT"]
    yield "prune_count", sum(prunes.values())
    yield "prune_types", prunes
    yield "total_trades", ledger.round_trips
    yield "gross_profit", ledger.gross_profit
    yield "gross_loss", ledger.gross_loss
    yield "win_rate_pct", quotient(100.0 * ledger.wins, ledger.round_trips)
    yield "profit_factor", quotient(ledger.gross_profit, ledger.gross_loss)


def account_curve(
    ledger: Ledger, bars: AuditBars
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Return (equity, whether a position is open) at every bar's close, each (n_bars,)."""
    wallet, lots, open_lots, cost = (np.zeros(len(bars)) for _ in range(4))
    for change in ledger.changes:
        wallet[change.bar] += change.wallet
        lots[change.bar] += change.signed_lots
        open_lots[change.bar] += change.open_lots
        cost[change.bar] += change.signed_lots * change.entry_price
    unrealized = np.cumsum(lots) * bars.close - np.cumsum(cost)
    equity = ledger.capital + np.cumsum(wallet) + unrealized * ledger.step_size
    equity[np.abs(equity) < RELATIVE * ledger.capital] = 0.0  # nothing left, but for rounding
    return equity, np.cumsum(open_lots) > 0.0


def return_ratios(
    equity: npt.NDArray[np.float64], capital: float, bar_ms: int
) -> tuple[float | None, float | None]:
    """Return (Sharpe, Sortino) of the returns from bar to bar, annualised, None without spread.

    The mean over the sample standard deviation, and over the root mean square of the losses; of a
    ruined account up to the bar that ruined it.
    """
    for bar, value in enumerate(equity.tolist()):
        if value <= 0.0:
            equity = equity[: bar + 1]
            break
    before = np.concatenate(([capital], equity[:-1]))
    alive = before > 0.0
    returns = np.zeros(len(equity))
    returns[alive] = equity[alive] / before[alive] - 1.0
    if len(returns) < 2:  # noqa: PLR2004 - a standard deviation needs as many
        return None, None
    scale = math.sqrt(365.0 * DAY_MS / bar_ms) * float(np.mean(returns))
    losses = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return quotient(scale, float(np.std(returns, ddof=1))), quotient(scale, losses)


def quotient(numerator: float, denominator: float) -> float | None:
    """Return the quotient, None without a denominator."""
    return numerator / denominator if denominator else None


def expected_text(expected: Any) -> str:
    """Return what should stand in a file, as text."""
    if isinstance(expected, Between):
        least, most = expected
        return str(least) if least == most else f"{least} to {most}"
    return repr(expected)


def agrees(found: Any, expected: Any) -> bool:
    """Return whether a figure is the expected one, but for rounding."""
    if isinstance(expected, Between):
        return isinstance(found, int) and expected.least <= found <= expected.most
    if isinstance(expected, float) and isinstance(found, int | float):
        return abs(found - expected) <= ABSOLUTE + RELATIVE * abs(expected)
    return bool(found == expected)


def _missing_payment(found: Any, expected: float, ledger: Ledger, bars: AuditBars) -> str:
    """Return which one payment the difference is, if it is one."""
    if not isinstance(found, int | float):
        return ""
    for bar, payment in ledger.payments:
        if abs(found + payment - expected) <= ABSOLUTE:
            at = format_time(int(bars.ts_ms[bar]))
            return f": {payment:.6f} USDT of the settlement in bar {bar} ({at}) is missing"
    return ""
