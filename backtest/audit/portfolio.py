"""A portfolio's figures against the accounts of its coins that the audit rebuilt."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.audit.files import Finding, Summary, read_text
from backtest.audit.ledger import LONG, SHORT, Ledger
from backtest.audit.market import AuditBars
from backtest.audit.summary import (
    Between,
    account_curve,
    agrees,
    annual_figures,
    expected_text,
    quotient,
    return_ratios,
)
from backtest.audit.value_at_risk import RiskRules, exposure_of, risk_figures
from backtest.market.timeframes import format_time
from core.errors import DataError
from core.files import parse_json

PORTFOLIO_FILE: Final = "portfolio_summary.json"
NOT_CHECKED: Final = (
    "together: its budget, and the steps at which entries were bounded or blocked",
    "changed_parameters and code_fingerprint of the portfolio",
)
_SECTIONS: Final = ("coins", "initial_capital", "metrics", "data", "value_at_risk")
_RISK_RULES: Final = {
    "horizon_bars": "var_horizon_bars",
    "volatility_period": "volatility_period",
    "high_corr_threshold": "high_corr_threshold",
}
"""Parameters of the value at risk, and those of the coins that must be the same."""
_COPIED: Final = ("trailing_shifts", "var_blocks", "capacity_reached")
"""Counts that leave no record: the sums of what the coins' summaries say."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class CoinAccount:
    """One coin's account as its records make it, and what its summary says."""

    summary: Summary
    ledger: Ledger
    bars: AuditBars


def read_portfolio(folder: Path) -> Mapping[str, Any] | None:
    """Return the portfolio's summary in ``folder``, None where there is none.

    Raises:
        DataError: it is not JSON, or lacks what an audit needs.
    """
    path = folder / PORTFOLIO_FILE
    if not path.is_file():
        return None
    try:
        content = parse_json(read_text(path))
    except ValueError as error:
        raise DataError(f"{path}: is not JSON: {error}; run the backtest again") from None
    sections = content if isinstance(content, dict) else {}
    missing = [name for name in _SECTIONS if name not in sections]
    data = sections.get("data")
    if not missing and not (isinstance(data, dict) and "ranges" in data):
        missing = ["data.ranges"]
    if not missing:
        risk = sections["value_at_risk"]
        known = risk if isinstance(risk, dict) else {}
        missing = [f"value_at_risk.{name}" for name in _RISK_RULES if name not in known]
    if missing:
        raise DataError(
            f"{path}: lacks {', '.join(missing)}; it is damaged or of an older version: run the "
            "backtest again"
        )
    return sections


def check_portfolio(
    portfolio: Mapping[str, Any], accounts: Sequence[CoinAccount]
) -> tuple[int, Finding | None]:
    """Return how many figures were compared, and the first that is wrong.

    Args:
        portfolio: as ``read_portfolio`` answers it.
        accounts: of its coins, in its order.
    """
    compared = 0
    for place, expected in _figures(portfolio, accounts):
        found: Any = portfolio
        for name in place.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        compared += 1
        if not agrees(found, expected):
            wrong = "it does not follow from the coins' records, candles and funding"
            return compared, Finding(place, repr(found), wrong, expected_text(expected))
    return compared, None


def _figures(
    portfolio: Mapping[str, Any], accounts: Sequence[CoinAccount]
) -> Iterator[tuple[str, Any]]:
    """Yield (place in the portfolio's summary, what must stand there)."""
    yield "initial_capital", sum(account.ledger.capital for account in accounts)
    yield from _of_ranges(accounts)
    yield from _of_curve(accounts)
    yield from _of_sums(accounts)
    yield from _of_risk(accounts)
    if "together" in portfolio:
        total = sum(account.ledger.capital for account in accounts)
        for account in accounts:
            share = account.ledger.capital / total
            yield f"together.weights.{account.summary.coin}", share
        yield "together.steps", len(_times(accounts))


def _times(accounts: Sequence[CoinAccount]) -> npt.NDArray[np.int64]:
    """Return the open times of all bars that any coin has, ms UTC, ascending."""
    return np.unique(np.concatenate([account.bars.ts_ms for account in accounts]))


def _of_ranges(accounts: Sequence[CoinAccount]) -> Iterator[tuple[str, Any]]:
    shared = [set(account.bars.ts_ms.tolist()) for account in accounts]
    times = _times(accounts).tolist()
    yield "data.first_bar", format_time(times[0])
    yield "data.last_bar", format_time(times[-1])
    yield "data.bars", len(times)
    yield "data.common_bars", len(set.intersection(*shared))
    yield "data.hashes", {one.summary.coin: one.summary.data["hash"] for one in accounts}
    yield (
        "data.ranges",
        {
            one.summary.coin: {name: one.summary.data[name] for name in ("start", "end", "bars")}
            for one in accounts
        },
    )


def _of_curve(accounts: Sequence[CoinAccount]) -> Iterator[tuple[str, Any]]:
    """Yield the figures of the summed equity; a coin's last value stands where it has no bar."""
    times = _times(accounts).tolist()
    equity, held = _summed(accounts, times)
    capital = sum(account.ledger.capital for account in accounts)
    first = min(times.index(_first_tradable(account)) for account in accounts)
    peak = np.maximum.accumulate(np.maximum(equity, capital))
    wallet = sum(account.ledger.wallet for account in accounts)
    total, fall = (wallet / capital - 1.0) * 100.0, 100.0 * float(np.max(1.0 - equity / peak))
    bar_ms = min(account.bars.bar_ms for account in accounts)
    sharpe, sortino = return_ratios(equity[first:], capital, bar_ms)
    yield "metrics.final_capital", wallet
    yield "metrics.total_return_pct", total
    yield "metrics.max_drawdown_pct", fall
    yield "metrics.calmar_ratio", quotient(total, fall)
    for name, value in annual_figures(wallet / capital, len(times) - first, bar_ms, fall / 100.0):
        yield f"metrics.{name}", value
    yield "metrics.sharpe_ratio", sharpe
    yield "metrics.sortino_ratio", sortino
    yield "metrics.exposure_pct", 100.0 * float(np.mean(held[first:]))


def _summed(
    accounts: Sequence[CoinAccount], times: Sequence[int]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return the sum of equity, quote, and whether anything is held, each of shape (n_times,)."""
    equity, held = np.zeros(len(times)), np.zeros(len(times), np.bool_)
    for account in accounts:
        own_equity, own_held = account_curve(account.ledger, account.bars)
        by_time = {
            int(t): (float(value), bool(is_open))
            for t, value, is_open in zip(account.bars.ts_ms, own_equity, own_held, strict=True)
        }
        now = (account.ledger.capital, False)
        for i, t in enumerate(times):
            now = by_time.get(t, now)
            equity[i] += now[0]
            held[i] |= now[1]
    return equity, held


def _of_risk(accounts: Sequence[CoinAccount]) -> Iterator[tuple[str, Any]]:
    """Yield the value at risk; its parameters are those of the coins, which ran with the same."""
    parameters = accounts[0].summary.parameters
    for name, parameter in _RISK_RULES.items():
        yield f"value_at_risk.{name}", parameters.get(parameter)
    rules = RiskRules(
        volatility_period=int(parameters["volatility_period"]),
        horizon_bars=float(parameters["var_horizon_bars"]),
        threshold=float(parameters["high_corr_threshold"]),
    )
    times = _times(accounts)
    exposures = {
        one.summary.coin: exposure_of(one.ledger, one.bars, times, rules.volatility_period)
        for one in accounts
    }
    equity, _ = _summed(accounts, times.tolist())
    for name, expected in risk_figures(exposures, times, equity, rules):
        yield f"value_at_risk.{name}", expected


def _of_sums(accounts: Sequence[CoinAccount]) -> Iterator[tuple[str, Any]]:
    ledgers = [account.ledger for account in accounts]
    capital = sum(ledger.capital for ledger in ledgers)
    profit = sum(ledger.gross_profit for ledger in ledgers)
    loss, trips = (sum(ledger.gross_loss for ledger in ledgers)), _total(ledgers, "round_trips")
    yield "metrics.fees_paid", _total(ledgers, "fees")
    yield "metrics.funding_pnl", _total(ledgers, "funding")
    yield "metrics.turnover", _total(ledgers, "turnover") / capital
    weights = [one.ledger.capital for one in accounts]
    held = [_buy_and_hold(one) for one in accounts]
    yield "metrics.buy_hold_return_pct", float(np.average(held, weights=weights))
    yield "metrics.total_trades", trips
    yield "metrics.gross_profit", profit
    yield "metrics.gross_loss", loss
    yield "metrics.win_rate_pct", quotient(100.0 * _total(ledgers, "wins"), trips)
    yield "metrics.profit_factor", quotient(profit, loss)
    yield "metrics.liquidations", _total(ledgers, "liquidations")
    for name, side in (("stops_long", LONG), ("stops_short", SHORT)):
        bounds = [ledger.stops.get(side, (0, 0)) for ledger in ledgers]
        yield f"metrics.{name}", Between(sum(a for a, _ in bounds), sum(b for _, b in bounds))
    labels: dict[str, int] = {}
    for ledger in ledgers:
        for label, count in ledger.labels.items():
            labels[label] = labels.get(label, 0) + count
    prunes = {label: n for label, n in labels.items() if label.startswith("PRUNE_")}
    yield "metrics.prune_types", prunes
    yield "metrics.prune_count", sum(prunes.values())
    yield "metrics.longs_opened", labels.get("BUY_OPEN_LONG", 0)
    for name, side in (("long_exits", LONG), ("short_exits", SHORT)):
        yield f"metrics.{name}", sum(ledger.exits[side] for ledger in ledgers)
    yield "metrics.longs_closed", labels.get("SELL_CLOSE_LONG", 0)
    yield "metrics.shorts_opened", labels.get("SELL_OPEN_SHORT", 0)
    yield "metrics.shorts_closed", labels.get("BUY_CLOSE_SHORT", 0)
    yield "metrics.circuit_breaker_triggers", labels.get("CIRCUIT_BREAKER_HALT", 0)
    for name in _COPIED:
        yield f"metrics.{name}", sum(account.summary.metrics.get(name, 0) for account in accounts)


def _total(ledgers: Sequence[Ledger], name: str) -> Any:
    values = [getattr(ledger, name) for ledger in ledgers]
    return math.fsum(values) if any(isinstance(value, float) for value in values) else sum(values)


def _first_tradable(account: CoinAccount) -> int:
    return int(account.bars.ts_ms[min(account.summary.first_bar, len(account.bars) - 1)])


def _buy_and_hold(account: CoinAccount) -> float:
    bars = account.bars
    first = min(account.summary.first_bar, len(bars) - 1)
    return 100.0 * float(bars.close[-1] / bars.open[first] - 1.0)
