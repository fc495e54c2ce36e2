"""The life of a fixed grid's cycles: how long, how ended, what recovery did; promised and measured.

A cycle is one entry and all that follows, a hedge leg included; its profit is net of all its fees,
funding apart.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from backtest.runs.coin_result import CoinResult
from core.performance import ratio
from core.times import HOUR_MS
from engine.fixed_grid.types import MARK_NAMES
from engine.trade_tables import trade_columns

Row = dict[str, Any]

_ENTRIES: Final = ("BUY_OPEN_LONG", "SELL_OPEN_SHORT")


def cycle_facts(result: CoinResult) -> dict[str, Any]:
    """Return what became of a run's cycles, JSON-ready.

    Args:
        result: of a run of the fixed grid.

    Returns:
        ``endings``: rows of ``key`` (label of the last close) ``cycles share_pct net mean_net_pct
        median_hours``; ``stuck_endings``: the same of cycles that were stuck; ``recovery``: counts
        of what recovery did; ``promises``: rows of ``promise measured kind``.
    """
    cycles, marks = cycle_table(result), result.marks
    stuck = set(marks["cycle"][marks["kind"] == MARK_NAMES.index("STUCK")].tolist())
    return {
        "endings": _endings(cycles),
        "stuck_endings": _endings(cycles[cycles.index.isin(stuck)]),
        "recovery": _recovery(result),
        "promises": _promises(result.metrics),
    }


def cycle_table(result: CoinResult) -> pd.DataFrame:
    """Return one row a cycle: ``ending net notional hours``, by cycle id in the order of entry."""
    trades = pd.DataFrame(trade_columns(result.trades))
    trades["net"] = trades["pnl"] - trades["fee"]
    trades["notional"] = np.where(
        trades["label"].isin(_ENTRIES), trades["price"] * trades["qty"], 0.0
    )
    groups = trades.groupby("cycle", sort=False)
    table = groups.agg(
        ending=("label", "last"),
        net=("net", "sum"),
        notional=("notional", "sum"),
        first=("timestamp", "first"),
        last=("timestamp", "last"),
    )
    table["hours"] = (table["last"] - table["first"]) / HOUR_MS
    return table


def _endings(cycles: pd.DataFrame) -> list[Row]:
    rows = [
        {
            "key": str(key),
            "cycles": len(part),
            "share_pct": ratio(100.0 * len(part), len(cycles)),
            "net": float(part["net"].sum()),
            "mean_net_pct": float((100.0 * part["net"] / part["notional"]).mean()),
            "median_hours": float(part["hours"].median()),
        }
        for key, part in cycles.groupby("ending")
    ]
    return sorted(rows, key=lambda row: -row["cycles"])


def _recovery(result: CoinResult) -> dict[str, int]:
    kinds = np.bincount(result.marks["kind"], minlength=len(MARK_NAMES)).tolist()
    counts = dict(zip(MARK_NAMES, kinds, strict=True))
    metrics = result.metrics
    return {
        "stuck": int(metrics["stuck_total"]),
        "ladders": counts["LADDER"],
        "rungs_laid": counts["RUNG"],
        "hedges": counts["HEDGE"],
        "hedges_released": counts["RELEASED"],
        "escalations": counts["ESCALATION"],
        "resolved": int(metrics["stuck_resolved"]),
        "released": int(metrics["stuck_released"]),
        "recovered": int(metrics["stuck_recovered"]),
        "still_stuck": int(metrics["stuck_now"]),
    }


def _promises(metrics: Mapping[str, Any]) -> list[Row]:
    """Return what the strategy's description promised beside what this run measured (A12)."""
    resolved = metrics["stuck_resolved"]
    measured = (
        (
            "recovery over 90 %: stuck positions freed before their stop",
            ratio(100.0 * metrics["stuck_released"], resolved),
            "percent",
        ),
        (
            "of these by limit orders alone",
            ratio(100.0 * metrics["stuck_recovered"], resolved),
            "percent",
        ),
        ("a stop done within 30 s (measured live only)", metrics["stop_execution_s_max"], "ratio"),
        (
            "margin under 80 %: share of steps above it",
            100.0 * metrics["margin_utilization_over_80"],
            "percent",
        ),
        ("highest margin", 100.0 * metrics["margin_utilization_max"], "percent"),
        ("win rate over 60 %", metrics["win_rate_pct"], "percent"),
        ("profit over 0.5 % a trade", metrics["average_profit_per_trade_pct"], "signed_percent"),
        ("drawdown under 5 %", metrics["max_drawdown_pct"], "percent"),
    )
    return [{"promise": text, "measured": value, "kind": kind} for text, value, kind in measured]
