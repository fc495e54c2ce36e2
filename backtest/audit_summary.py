"""A summary's figures against the account that the audit rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.audit_files import Finding, Summary
from backtest.audit_ledger import Ledger
from backtest.audit_market import AuditBars
from backtest.timeframes import format_time

ABSOLUTE: Final = 1e-6
RELATIVE: Final = 1e-9
"""What rounding may miss a figure by."""


def check_summary(summary: Summary, ledger: Ledger, bars: AuditBars) -> tuple[int, Finding | None]:
    """Return how many figures were compared, and the first that is wrong."""
    compared = 0
    for name, expected in figures(summary, ledger, bars):
        found = summary.metrics.get(name)
        compared += 1
        if not _agrees(found, expected):
            wrong = "it does not follow from trades, candles and funding"
            if name == "funding_pnl":
                wrong += _missing_payment(found, expected, ledger, bars)
            return compared, Finding(f"metrics.{name}", repr(found), wrong, repr(expected))
    return compared, None


def figures(summary: Summary, ledger: Ledger, bars: AuditBars) -> Iterator[tuple[str, Any]]:
    """Yield (metric, what it must be); None where it has no denominator."""
    capital, labels = ledger.capital, ledger.labels
    prunes = {name: n for name, n in labels.items() if name.startswith("PRUNE_")}
    equity, held = account_curve(ledger, bars)
    first = min(summary.first_bar, len(bars) - 1)
    peak = np.maximum.accumulate(np.maximum(equity, capital))
    yield "funding_pnl", ledger.funding
    yield "fees_paid", ledger.fees
    yield "final_capital", ledger.wallet
    yield "total_return_pct", (ledger.wallet / capital - 1.0) * 100.0
    yield "max_drawdown_pct", 100.0 * float(np.max(1.0 - equity / peak))
    yield "exposure_pct", 100.0 * float(np.mean(held[first:]))
    yield "buy_hold_return_pct", 100.0 * float(bars.close[-1] / bars.open[first] - 1.0)
    yield "turnover", ledger.turnover / capital
    yield "longs_opened", labels["BUY_OPEN_LONG"]
    yield "longs_closed", labels["SELL_CLOSE_LONG"]
    yield "shorts_opened", labels["SELL_OPEN_SHORT"]
    yield "shorts_closed", labels["BUY_CLOSE_SHORT"]
    yield "circuit_breaker_triggers", labels["CIRCUIT_BREAKER_HALT"]
    yield "prune_count", sum(prunes.values())
    yield "prune_types", prunes
    yield "total_trades", ledger.round_trips
    yield "gross_profit", ledger.gross_profit
    yield "gross_loss", ledger.gross_loss
    yield "win_rate_pct", _ratio(100.0 * ledger.wins, ledger.round_trips)
    yield "profit_factor", _ratio(ledger.gross_profit, ledger.gross_loss)


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
    return equity, np.cumsum(open_lots) > 0.0


def _ratio(numerator: float, denominator: float) -> float | None:
    return numerator / denominator if denominator else None


def _agrees(found: Any, expected: Any) -> bool:
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
