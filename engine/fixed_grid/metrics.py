"""Figures of a run of the fixed grid: SPEC 9 and A12."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

from core.performance import equity_metrics, ratio
from core.times import DAY_MS
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.types import GATE_NAMES, HEALTH_NAMES, FixedState
from engine.tables import Records
from engine.types import LONG, OPEN, RECOVERY_HEDGE_OPEN, RECOVERY_LADDER, SHORT, TAKE_PROFIT

YEAR_MS: Final = 365 * DAY_MS
WEEK_MS: Final = 7 * DAY_MS
MINUTES_MS: Final = 60_000.0


def fixed_metrics(
    state: FixedState,
    params: FixedGridParams,
    bars: Records,
    log: Records,
    trades: Records,
    first: int,
) -> dict[str, Any]:
    """Return all metrics of a run from candle ``first`` on.

    Args:
        state: after the last step.
        params: starting capital and caps.
        bars: walked candles, shape (n_bars,).
        log: shape (n_bars,).
        trades: table of ``FixedTrade``, (n_trades,).
        first: the first candle that was traded.
    """
    traded, times = log[first:], bars["ts_ms"][first:]
    length = int(np.diff(times).min()) if len(times) > 1 else params.step_s * 1000
    metrics: dict[str, Any] = equity_metrics(
        np.array(traded["equity"]), params.initial_capital, YEAR_MS / length
    )
    growth = float(bars["close"][-1]) / float(bars["open"][first])
    metrics["buy_hold_return_pct"] = 100.0 * (growth - 1.0)
    metrics["exposure_pct"] = 100.0 * int(state.counters.bars_held) / len(traded)
    metrics["turnover"] = float(state.counters.turnover) / params.initial_capital
    weeks = float(times[-1] - times[0]) / WEEK_MS
    metrics["mismatch_per_week"] = ratio(float(state.counters.mismatches), weeks)
    return metrics | record_metrics(state, trades) | step_metrics(state)


def record_metrics(state: FixedState, trades: Records) -> dict[str, Any]:
    """Return event and record counts and the figures of round trips."""
    counters = state.counters
    profit, loss = float(counters.gross_profit), float(counters.gross_loss)
    trips = int(counters.round_trips)
    metrics: dict[str, Any] = {}
    for side, name in ((LONG, "long"), (SHORT, "short")):
        labels = trades["label"][trades["direction"] == side]
        opening = (labels == OPEN + side) | (labels == RECOVERY_HEDGE_OPEN)
        closing = (labels == TAKE_PROFIT + side) | (labels == RECOVERY_LADDER)
        metrics[f"{name}s_opened"] = int(opening.sum())
        metrics[f"{name}s_closed"] = int(closing.sum())
        metrics[f"{name}_exits"] = int((~opening).sum())
        metrics[f"stops_{name}"] = int(getattr(counters, f"stops_{name}"))
    counted = (
        "liquidations stuck_total stuck_now stuck_resolved stuck_released stuck_recovered "
        "recovery_attempts margin_exhausted double_exit holes"
    )
    metrics |= {name: int(getattr(counters, name)) for name in counted.split()}
    return metrics | {
        "position_mismatch_incidents": int(counters.mismatches),
        "current_exposure": float(counters.current_exposure),
        "total_trades": trips,
        "win_rate_pct": ratio(100.0 * int(counters.wins), trips),
        "profit_factor": ratio(profit, loss),
        "gross_profit": profit,
        "gross_loss": loss,
        "average_profit_per_trade_pct": ratio(100.0 * float(counters.net_shares), trips),
        "hold_minutes_median": median_hold_minutes(trades),
        "fees_paid": float(counters.fees),
        "funding_pnl": float(state.funding),
        "stop_execution_s_median": math.nan,
        "stop_execution_s_max": math.nan,
    }


def median_hold_minutes(trades: Records) -> float:
    """Return the median time from the entry to the last close of a round trip, in minutes."""
    if len(trades) == 0:
        return math.nan
    order = np.argsort(trades["cycle"], kind="stable")
    cycles, times = trades["cycle"][order], trades["ts_ms"][order]
    first = np.flatnonzero(np.diff(cycles, prepend=cycles[0] - 1))
    last = np.append(first[1:], len(cycles)) - 1
    return float(np.median((times[last] - times[first]) / MINUTES_MS))


def step_metrics(state: FixedState) -> dict[str, Any]:
    """Return shares of steps: margin used, health; and how often each gate blocked."""
    counters = state.counters
    steps = int(counters.steps)
    metrics: dict[str, Any] = {
        "steps": steps,
        "margin_utilization_mean": ratio(float(counters.margin_used), steps),
        "margin_utilization_max": float(counters.margin_used_max) if steps else math.nan,
        "margin_utilization_over_80": ratio(int(counters.margin_over_80), steps),
    }
    for code, name in enumerate(HEALTH_NAMES):
        metrics[f"health_share_{name.lower()}"] = ratio(int(counters.health[code]), steps)
    for code, name in enumerate(GATE_NAMES):
        metrics[f"blocked_{name}"] = int(counters.blocked[code])
    return metrics
