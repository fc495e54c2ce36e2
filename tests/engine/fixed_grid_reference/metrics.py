"""SPEC 9 and A12: figures of a run, from its records, its equity and what each step looked like."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from tests.engine.fixed_grid_reference.bars import Bar
from tests.engine.fixed_grid_reference.ledger import (
    CLOSE_LABEL,
    ENTRY_LABEL,
    PROFIT_LABELS,
    RUNG,
    Account,
)
from tests.engine.fixed_grid_reference.market import LONG, SHORT

YEAR_S = 365 * 86_400
WEEK_S = 7 * 86_400
NAN = math.nan
OPENING = {*ENTRY_LABEL.values(), "RECOVERY_HEDGE_OPEN"}
NOT_RELEASED = {"STOP_LONG", "STOP_SHORT", "LIQUIDATION", "STOP_PRICE"}


@dataclass
class StepLog:
    """Figures of each step and of the end."""

    used: list[float] = field(default_factory=list)
    """M with the working order over ``max_margin_usd``, after phase 8."""
    health: list[str] = field(default_factory=list)
    had_position: list[bool] = field(default_factory=list)
    """Per bar, at its close."""
    exposure_at_end: float = 0.0
    stuck_at_end: set[int] = field(default_factory=set)
    open_cycles: set[int] = field(default_factory=set)

    def note_step(self, account: Account) -> None:
        """Take what holds after phase 8."""
        used = account.margin(with_working=True) / account.params.max_margin_usd
        self.used.append(used)
        self.health.append(account.health)

    def note_end(self, account: Account, close: float) -> None:
        """Take what is open before it is closed for the end of the data."""
        qty, _, hedge_qty, _ = account.legs()
        self.exposure_at_end = (qty + hedge_qty) * close
        self.stuck_at_end = {p.cycle for p in account.positions if p.stuck}
        self.open_cycles = {p.cycle for p in account.positions}


@dataclass
class Cycle:
    """One round trip: an entry and all that follows, hedge leg included."""

    entry_notional: float
    opened_ms: int
    net: float = 0.0
    closed_ms: int = 0
    closings: list[tuple[int, str]] = field(default_factory=list)
    """(index of the record, label) of every close."""


def cycles_of(records: Sequence[dict[str, Any]]) -> dict[int, Cycle]:
    """Return the round trips by cycle id, in the order of their entries."""
    cycles: dict[int, Cycle] = {}
    for i, record in enumerate(records):
        if record["label"] in ENTRY_LABEL.values():
            cycles[record["cycle"]] = Cycle(record["price"] * record["qty"], record["timestamp"])
        cycle = cycles[record["cycle"]]
        cycle.net += record["pnl"] - record["fee"]
        if record["label"] not in OPENING:
            cycle.closings.append((i, record["label"]))
            cycle.closed_ms = record["timestamp"]
    return cycles


def ratio(a: float, b: float) -> float:
    """Return ``a / b``, NaN without a denominator."""
    return a / b if b else NAN


def measure(
    account: Account, log: StepLog, bars: Sequence[Bar], equity: Sequence[float], length_s: int
) -> dict[str, float]:
    """Return every metric by its public name."""
    cycles = cycles_of(account.records)
    metrics: dict[str, float] = {}
    metrics.update(equity_metrics(account, bars, equity, length_s))
    metrics.update(record_metrics(account, log))
    metrics.update(trip_metrics(list(cycles.values())))
    metrics.update(recovery_metrics(account, log, cycles))
    metrics.update(step_metrics(log))
    metrics.update({f"blocked_{gate}": n for gate, n in account.blocked.items()})
    weeks = (bars[-1].ts_ms - bars[0].ts_ms) / 1000.0 / WEEK_S
    incidents = account.counters["position_mismatch_incidents"]
    metrics["mismatch_per_week"] = ratio(incidents, weeks)
    return metrics


def equity_metrics(
    account: Account, bars: Sequence[Bar], equity: Sequence[float], length_s: int
) -> dict[str, float]:
    """Return returns and ratios; the curve begins with the capital, and ends at ruin."""
    ruined = next((i for i, value in enumerate(equity) if value <= 0.0), len(equity) - 1)
    curve = [account.params.initial_capital, *equity[: ruined + 1]]
    returns = [b / a - 1.0 for a, b in pairwise(curve)]
    peak, drawdown = curve[0], 0.0
    for value in curve:
        peak = max(peak, value)
        drawdown = max(drawdown, 1.0 - value / peak)
    total = curve[-1] / curve[0] - 1.0
    per_year = math.sqrt(YEAR_S / length_s)
    mean = fmean(returns)
    spread = math.sqrt(ratio(sum((r - mean) ** 2 for r in returns), len(returns) - 1))
    downside = math.sqrt(fmean([min(0.0, r) ** 2 for r in returns]))
    return {
        "final_capital": equity[-1],
        "total_return_pct": 100.0 * total,
        "buy_hold_return_pct": 100.0 * (bars[-1].close / bars[0].open - 1.0),
        "max_drawdown_pct": 100.0 * drawdown,
        "sharpe_ratio": ratio(mean, spread) * per_year,
        "sortino_ratio": ratio(mean, downside) * per_year,
        "calmar_ratio": ratio(total, drawdown),
    }


def record_metrics(account: Account, log: StepLog) -> dict[str, float]:
    """Return counts and sums over the records."""
    records = account.records
    metrics: dict[str, float] = {}
    for sgn, name in ((LONG, "long"), (SHORT, "short")):
        mine = [r["label"] for r in records if r["direction"] == ("LONG" if sgn > 0 else "SHORT")]
        metrics[f"{name}s_opened"] = sum(label in OPENING for label in mine)
        metrics[f"{name}s_closed"] = sum(label in {CLOSE_LABEL[sgn], RUNG} for label in mine)
        metrics[f"{name}_exits"] = sum(label not in OPENING for label in mine)
        metrics[f"stops_{name}"] = account.counters[f"stops_{name}"]
    traded = sum(record["price"] * record["qty"] for record in records)
    held = log.had_position
    metrics.update(
        {
            "liquidations": account.counters["liquidations"],
            "fees_paid": sum(record["fee"] for record in records),
            "funding_pnl": account.funding,
            "turnover": traded / account.params.initial_capital,
            "exposure_pct": 100.0 * sum(held) / len(held),
            "current_exposure": log.exposure_at_end,
            "double_exit": account.counters["double_exit"],
            "position_mismatch_incidents": account.counters["position_mismatch_incidents"],
            "stop_execution_s_median": NAN,
            "stop_execution_s_max": NAN,
        }
    )
    return metrics


def trip_metrics(cycles: Sequence[Cycle]) -> dict[str, float]:
    """Return what concerns round trips, net of all their fees."""
    nets = [cycle.net for cycle in cycles]
    gains, losses = [x for x in nets if x > 0.0], [-x for x in nets if x <= 0.0]
    shares = [cycle.net / cycle.entry_notional for cycle in cycles]
    held = [(cycle.closed_ms - cycle.opened_ms) / 60_000.0 for cycle in cycles]
    return {
        "total_trades": len(cycles),
        "win_rate_pct": 100.0 * ratio(len(gains), len(cycles)),
        "gross_profit": sum(gains),
        "gross_loss": sum(losses),
        "profit_factor": ratio(sum(gains), sum(losses)),
        "average_profit_per_trade_pct": 100.0 * fmean(shares) if shares else NAN,
        "hold_minutes_median": median(held) if held else NAN,
    }


def recovery_metrics(account: Account, log: StepLog, cycles: dict[int, Cycle]) -> dict[str, float]:
    """Return what became of stuck cycles.

    Resolved: closed before the end. Released: nothing of it by stop, liquidation or STOP_PRICE.
    Recovered: all after the mark by take-profit or rung fills.
    """
    resolved = {c: n for c, n in account.stuck_marks.items() if c not in log.open_cycles}
    released = recovered = 0
    for cycle, marked_at in resolved.items():
        closings = cycles[cycle].closings
        released += not any(label in NOT_RELEASED for _, label in closings)
        recovered += all(label in PROFIT_LABELS for i, label in closings if i >= marked_at)
    return {
        "stuck_total": account.counters["stuck_total"],
        "stuck_now": len(log.stuck_at_end),
        "stuck_resolved": len(resolved),
        "stuck_released": released,
        "stuck_recovered": recovered,
        "recovery_attempts": account.counters["recovery_attempts"],
        "margin_exhausted": account.counters["margin_exhausted"],
    }


def step_metrics(log: StepLog) -> dict[str, float]:
    """Return shares of steps: margin used, health."""
    steps = len(log.used)
    metrics = {
        "margin_utilization_mean": fmean(log.used) if steps else NAN,
        "margin_utilization_max": max(log.used, default=NAN),
        "margin_utilization_over_80": ratio(sum(u > 0.8 for u in log.used), steps),
    }
    for level in ("healthy", "warning", "critical"):
        count = sum(h == level.upper() for h in log.health)
        metrics[f"health_share_{level}"] = ratio(count, steps)
    return metrics
