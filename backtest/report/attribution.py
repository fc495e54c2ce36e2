"""Where a run's profit and loss came from. Pure functions of a result; nothing is run again.

``price profit - fees + funding = change of equity``: what is open at the end of a run is closed
there, so every table's ``net`` column adds up to the change of equity.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import timeframe_ms
from backtest.report.drawdowns import drawdown_facts
from backtest.report.round_trips import RoundTrips, open_fills, round_trips, trip_statistics
from backtest.runs.coin_result import CoinResult
from core.kama import REGIME_NAMES
from core.performance import drawdown_curve, ratio
from core.times import DAY_MS, HOUR_MS
from engine.types import CLOSE_END, DIRECTION_NAMES

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Row = dict[str, Any]

SIDES: Final = ("LONG", "SHORT")
WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
FUNDING_ROW: Final = "FUNDING"
"""Among the labels: what no trade record carries."""
_THURSDAY: Final = 3
"""Weekday of 1970-01-01."""


def attribution(result: CoinResult) -> dict[str, Any]:
    """Return where the profit and loss of a coin came from, JSON-ready.

    Args:
        result: of the run; its trades, account, regimes and candles are read.

    Returns:
        ``identity`` (see :func:`accounting_identity`); ``by_label by_side by_regime by_hour
        by_weekday by_month``, lists of rows with ``key records notional price_profit fees funding
        net`` (quote), those by time and regime also ``equity_change``: what the account gained in
        these bars, open profit included, and ``bars_pct``, their share of the traded time;
        ``by_year`` (``key return_pct``); ``drawdowns``; ``time_in_market``; ``round_trips``;
        ``inventory``. Times are UTC, a bar counts by its open, and so does funding settled at its
        close.
    """
    times = result.times_ms
    trips = round_trips(result.trade_dicts)
    at = np.array(result.trades["bar"])
    regimes = np.array([REGIME_NAMES[code] for code in REGIME_NAMES])
    codes = {code: k for k, code in enumerate(REGIME_NAMES)}
    by_bar = np.array([codes[int(code)] for code in result.run.regime_log.tolist()], np.int64)
    months = times.astype("datetime64[ms]").astype("datetime64[M]")
    month_names, month_of = np.unique(months, return_inverse=True)
    by_month = _with_month_ends(
        result, month_of, _by_bar(result, at, month_of, [str(name) for name in month_names])
    )
    return {
        "identity": accounting_identity(result),
        "by_label": _by_label(result),
        "by_side": _by_side(result),
        "by_regime": [
            row for row in _by_bar(result, at, by_bar, regimes.tolist()) if row["bars_pct"] > 0.0
        ],
        "by_hour": _by_bar(
            result, at, (times // HOUR_MS) % 24, [f"{hour:02d}" for hour in range(24)]
        ),
        "by_weekday": _by_bar(result, at, (times // DAY_MS + _THURSDAY) % 7, WEEKDAYS),
        "by_month": by_month,
        "by_year": _years(by_month),
        "drawdowns": drawdown_facts(
            result.equity_curve,
            result.params.initial_capital,
            times,
            timeframe_ms(result.data["timeframe"]),
        ),
        "time_in_market": time_in_market(result),
        "round_trips": trip_statistics(trips),
        "inventory": inventory(result, trips),
    }


def accounting_identity(result: CoinResult) -> dict[str, float]:
    """Return the sums that must meet, quote.

    Returns:
        ``initial_capital``, ``price_profit`` (gross, of all closes), ``fees``, ``funding``
        (received, negative: paid), ``expected`` (capital + profit - fees + funding),
        ``final_equity``, ``equity_change`` and ``difference`` (final - expected, rounding only).
    """
    initial = float(result.params.initial_capital)
    profit = math.fsum(result.trades["pnl"].tolist())
    fees = math.fsum(result.trades["fee"].tolist())
    funding = math.fsum(np.asarray(result.log["funding"]).tolist())
    final = float(result.equity_curve[-1]) if len(result.equity_curve) else initial
    expected = math.fsum((initial, profit, -fees, funding))
    return {
        "initial_capital": initial,
        "price_profit": profit,
        "fees": fees,
        "funding": funding,
        "expected": expected,
        "final_equity": final,
        "equity_change": final - initial,
        "difference": final - expected,
    }


def funding_by_side(result: CoinResult) -> dict[str, Floats]:
    """Return the funding of each side, quote, each of shape (n_bars,).

    The sides' payments of a bar are in the ratio of their quantities with opposite signs, so their
    sum determines both. Where both sides are of equal size it is 0 and does not; such bars count
    as 0 on both sides.
    """
    log = result.log
    long, short = np.asarray(log["long_qty"]), np.asarray(log["short_qty"])
    total, net = np.asarray(log["funding"]), long - short
    closed_end = _closed_at_end(result)
    if closed_end and total[-1] != 0.0:  # the last row stands after the final close
        long, short, net = long.copy(), short.copy(), net.copy()
        long[-1], short[-1] = closed_end.get("LONG", 0.0), closed_end.get("SHORT", 0.0)
        net[-1] = long[-1] - short[-1]
    per_unit = np.divide(total, net, out=np.zeros_like(total), where=net != 0.0)
    return {"LONG": per_unit * long, "SHORT": -per_unit * short}


def time_in_market(result: CoinResult) -> dict[str, float]:
    """Return the share of traded bars that closed with a position, percent.

    Returns:
        ``any_pct long_pct short_pct both_pct flat_pct``; NaN if no bar could trade.
    """
    log = result.log[result.first_bar :]
    long, short = np.asarray(log["long_qty"]) > 0.0, np.asarray(log["short_qty"]) > 0.0
    shares = {
        "any_pct": long | short,
        "long_pct": long,
        "short_pct": short,
        "both_pct": long & short,
        "flat_pct": ~(long | short),
    }
    return {name: ratio(100.0 * int(held.sum()), len(held)) for name, held in shares.items()}


def inventory(result: CoinResult, trips: RoundTrips) -> dict[str, Any]:
    """Return where the inventory of each side sat, by ``LONG`` and ``SHORT``.

    Returns:
        per side: ``levels``, rows of ``open_fills`` and ``time_pct``, the share of traded bars
        that closed with so many entries open; ``mean_open_fills``; ``mean_notional_pct`` and
        ``max_notional_pct``, of equity at the closes.
    """
    first, n_bars = result.first_bar, len(result.equity_curve)
    close = result.column("close")
    equity = result.equity_curve
    facts = {}
    for side, column in zip(SIDES, ("long_qty", "short_qty"), strict=True):
        fills = open_fills(trips, side, n_bars)[first:]
        notional = np.asarray(result.log[column]) * close
        share = np.divide(100.0 * notional, equity, out=np.zeros(n_bars), where=equity > 0.0)
        share = share[first:]
        counts = np.bincount(fills) if fills.size else np.zeros(0, np.int64)
        facts[side] = {
            "levels": [
                {"open_fills": level, "time_pct": 100.0 * count / len(fills)}
                for level, count in enumerate(counts.tolist())
            ],
            "mean_open_fills": float(fills.mean()) if fills.size else math.nan,
            "mean_notional_pct": float(share.mean()) if share.size else math.nan,
            "max_notional_pct": float(share.max()) if share.size else math.nan,
        }
    return facts


def _closed_at_end(result: CoinResult) -> dict[str, float]:
    """Return what was closed because the run ended, base, by side."""
    closed: dict[str, float] = {}
    for trade in result.trades[::-1]:
        if trade["label"] != CLOSE_END:
            break
        side = DIRECTION_NAMES[trade["direction"]]
        closed[side] = closed.get(side, 0.0) + float(trade["qty"])
    return closed


def _row(key: str, trades: Sequence[Mapping[str, Any]], funding: float) -> Row:
    profit = math.fsum(trade["pnl"] for trade in trades)
    fees = math.fsum(trade["fee"] for trade in trades)
    return {
        "key": key,
        "records": len(trades),
        "notional": math.fsum(trade["price"] * trade["qty"] for trade in trades),
        "price_profit": profit,
        "fees": fees,
        "funding": funding,
        "net": math.fsum((profit, -fees, funding)),
    }


def _by_label(result: CoinResult) -> list[Row]:
    """Return a row for each label that occurred, most money first, and one for funding."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trade in result.trade_dicts:
        groups.setdefault(trade["label"], []).append(trade)
    rows = [_row(label, trades, 0.0) for label, trades in groups.items()]
    rows.sort(key=lambda row: -row["net"])
    return [*rows, _row(FUNDING_ROW, (), accounting_identity(result)["funding"])]


def _by_side(result: CoinResult) -> list[Row]:
    funding = funding_by_side(result)
    return [
        _row(
            side,
            [trade for trade in result.trade_dicts if trade["direction"] == side],
            math.fsum(funding[side].tolist()),
        )
        for side in SIDES
    ]


def _by_bar(result: CoinResult, at: Ints, group: Ints, names: Sequence[str]) -> list[Row]:
    """Return one row per name; ``group`` (n_bars,) says which name a bar belongs to."""
    trades = result.trades
    n, own = len(names), group[at]

    def per_trade(values: Any) -> list[float]:
        return [float(x) for x in np.bincount(own, values, n)]

    def per_bar(values: Any) -> list[float]:
        return [float(x) for x in np.bincount(group, values, n)]

    equity = result.equity_curve
    change = np.diff(equity, prepend=result.params.initial_capital)
    traded = np.arange(len(group)) >= result.first_bar
    columns = {
        "records": np.bincount(own, minlength=n).tolist(),
        "notional": per_trade(trades["price"] * trades["qty"]),
        "price_profit": per_trade(trades["pnl"]),
        "fees": per_trade(trades["fee"]),
        "funding": per_bar(np.asarray(result.log["funding"])),
    }
    rows = [
        {"key": name} | {column: values[k] for column, values in columns.items()}
        for k, name in enumerate(names)
    ]
    gained, bars = per_bar(change), per_bar(traded)
    for row, gain, count in zip(rows, gained, bars, strict=True):
        row["net"] = row["price_profit"] - row["fees"] + row["funding"]
        row["equity_change"] = gain
        row["bars_pct"] = ratio(100.0 * count, int(traded.sum()))
    return rows


def _with_month_ends(result: CoinResult, month_of: Ints, rows: list[Row]) -> list[Row]:
    """Add ``start_equity end_equity return_pct max_drawdown_pct open_profit_change`` to months.

    ``net`` is booked profit; ``open_profit_change`` is what positions carried over gained besides.
    """
    equity = result.equity_curve
    start = float(result.params.initial_capital)
    for k, row in enumerate(rows):
        within = equity[month_of == k]
        row["start_equity"], row["end_equity"] = start, float(within[-1])
        row["return_pct"] = ratio(100.0 * (row["end_equity"] - start), start)
        fall = drawdown_curve(within, start) if start > 0.0 else np.zeros(1)
        row["max_drawdown_pct"] = 100.0 * float(fall.max())
        row["open_profit_change"] = row["equity_change"] - row["net"]
        start = row["end_equity"]
    return rows


def _years(months: Sequence[Row]) -> list[Row]:
    """Return the years' returns in percent from rows of months."""
    rows: dict[str, Row] = {}
    for month in months:
        year = month["key"][:4]
        start = rows[year]["start"] if year in rows else month["start_equity"]
        gain = month["end_equity"] - start
        rows[year] = {"key": year, "start": start, "return_pct": ratio(100.0 * gain, start)}
    return [{"key": row["key"], "return_pct": row["return_pct"]} for row in rows.values()]
