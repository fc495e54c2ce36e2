"""The HTML report: one file per coin and one for the portfolio, each complete in itself.

They open without a network: the charting library, data and style are inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from bokeh.layouts import column

from backtest.price_chart import FULL_DETAIL, price_chart
from backtest.report_charts import (
    INK,
    MAX_POINTS,
    TimeAxis,
    bars_chart,
    by_sign,
    drawdown_chart,
    equity_charts,
    inventory_chart,
    returns_chart,
)
from backtest.report_document import coin_document, group_document
from backtest.report_page import Numbers, parameter_table, render, year_rows
from backtest.timeframes import timeframe_ms
from core.performance import drawdown_curve

Result = Mapping[str, Any]
Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

CARDS: Final = (
    ("Buy and hold", "metrics.buy_hold_return_pct", "signed_percent"),
    ("Sharpe", "metrics.sharpe_ratio", "ratio"),
    ("Sortino", "metrics.sortino_ratio", "ratio"),
    ("Calmar", "metrics.calmar_ratio", "ratio"),
    ("Round trips", "metrics.total_trades", "count"),
    ("Win rate", "metrics.win_rate_pct", "percent"),
    ("Profit factor", "metrics.profit_factor", "ratio"),
    ("Fees, USDT", "metrics.fees_paid", "money"),
    ("Funding, USDT", "metrics.funding_pnl", "signed_money"),
    ("In the market", "metrics.exposure_pct", "percent"),
    ("Turnover, x", "metrics.turnover", "ratio"),
    ("Stops, long", "metrics.stops_long", "count"),
    ("Stops, short", "metrics.stops_short", "count"),
    ("Prunes", "metrics.prune_count", "count"),
    ("Breaker halts", "metrics.circuit_breaker_triggers", "count"),
    ("Liquidations", "metrics.liquidations", "count"),
)
MONTH_NAMES: Final = (
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
)  # fmt: skip
HOLDING_NAMES: Final = (
    "same bar", "to 1 h", "to 2 h", "to 4 h", "to 8 h", "to 12 h", "to 1 d", "to 2 d", "to 3 d",
    "to 7 d", "over 7 d",
)  # fmt: skip


def coin_report(result: Result) -> bytes:
    """Return the report of one coin, HTML.

    Args:
        result: as ``BacktestSimulator.run_single`` answers; ``bands`` (a list of ``assumption``,
            ``return`` and ``drawdown`` in percent, ``calmar``) adds a section, ``run_id`` a line.
    """
    numbers = Numbers(coin_document(result))
    at, data = numbers.at, numbers.document["data"]
    months = at("attribution.by_month")
    most = max((abs(month["return_pct"] or 0.0) for month in months), default=0.0)
    sections = [("course", "Course"), ("months", "Months"), ("attribution", "Attribution"),
                ("trips", "Round trips"), ("risk", "Drawdowns and inventory"),
                ("parameters", "Parameters"), ("data", "Data")]  # fmt: skip
    if "bands" in numbers.document:
        sections.insert(0, ("bands", "Bands"))
    return render(
        "coin.html", numbers, _coin_charts(result, numbers),
        {
            "title": f"{result['coin']} grid backtest",
            "subtitle": _subtitle(data, result["params"]["initial_capital"]),
            "sections": sections,
            "cards": CARDS,
            "thinning": _thinning(len(result["equity_curve"])),
            "detailed": len(result["trades"]) <= FULL_DETAIL,
            "month_names": MONTH_NAMES,
            "years": year_rows(months, at("attribution.by_year")),
            "shade": lambda path: numbers.shade(path, most),
            "parameter_rows": parameter_table(at("parameters"), at("changed_parameters")),
            "facts": _facts(numbers.document),
        },
    )  # fmt: skip


def portfolio_report(portfolio: Result, results: Mapping[str, Result]) -> bytes:
    """Return the report of several coins together, HTML.

    Args:
        portfolio: as ``backtest.metrics.combine_portfolio`` answers.
        results: of its coins, by coin.
    """
    numbers = Numbers(group_document(portfolio, results))
    at, first = numbers.at, next(iter(results.values()))
    coins = list(results)
    values = [value or 0.0 for row in at("by_month")
              for value in (row["return_pct"], *row["coins"].values())]  # fmt: skip
    most = max(map(abs, values), default=0.0)
    matrices = [("Prices", _matrix(coins, "prices")), ("Equity", _matrix(coins, "equity"))]
    capital = portfolio["initial_capital"]
    return render(
        "portfolio.html", numbers, {"course": _portfolio_course(portfolio, results)},
        {
            "title": "Portfolio of " + ", ".join(coins),
            "subtitle": _subtitle(first["data"], capital),
            "sections": [("course", "Course"), ("coins", "Coins"), ("correlation", "Correlation"),
                         ("months", "Months"), ("risk", "Drawdowns"),
                         ("parameters", "Parameters"), ("data", "Data")],
            "cards": CARDS,
            "thinning": _thinning(len(portfolio["equity_curve"])),
            "matrices": matrices,
            "heat": lambda path: numbers.shade(path, 1.0),
            "shade": lambda path: numbers.shade(path, most),
            "parameter_rows": parameter_table(first["params"], at("changed_parameters")),
            "facts": _portfolio_facts(numbers.document, results),
        },
    )  # fmt: skip


def _coin_charts(result: Result, numbers: Numbers) -> dict[str, Any]:
    at = numbers.at
    trips = at("attribution.round_trips")
    hours, weekdays = at("attribution.by_hour"), at("attribution.by_weekday")
    return {
        "course": _coin_course(result),
        "hours": bars_chart(
            "Change of equity by hour of the day, USDT", [row["key"] for row in hours],
            [row["equity_change"] for row in hours], "0,0.[00]", "@value{+0,0.00} USDT",
        ),
        "weekdays": bars_chart(
            "Change of equity by weekday, USDT", [row["key"] for row in weekdays],
            [row["equity_change"] for row in weekdays], "0,0.[00]", "@value{+0,0.00} USDT",
        ),
        "profits": _profits_chart(trips["net"]["histogram"]),
        "holding": bars_chart(
            "Round trips by time held", HOLDING_NAMES,
            [row["count"] for row in trips["holding_hours"]["histogram"]], "0,0",
            "@value{0,0} round trips", colours=[INK] * len(HOLDING_NAMES),
        ) if trips["count"] else None,
    }  # fmt: skip


def _coin_course(result: Result) -> Any:
    """Return the linked charts of a coin over time."""
    times, closes = _times(result)
    equity = np.asarray(result["equity_curve"])
    price = np.array(result["candles"]["close"], dtype=np.float64)
    initial = float(result["params"]["initial_capital"])
    first = min(int(result["first_bar"]), len(times) - 1)
    held = initial * price / float(result["candles"]["open"].iloc[first])
    held[:first] = initial
    axis = TimeAxis(int(times[0]), int(closes[-1]))
    log = result["log"]
    sides = {
        side: np.divide(
            100.0 * np.asarray(log[name]) * price, equity, out=np.zeros(len(price)),
            where=equity > 0.0,
        )
        for side, name in (("LONG", "long_qty"), ("SHORT", "short_qty"))
    }  # fmt: skip
    charts = [
        *equity_charts(axis, closes, equity, initial, held),
        price_chart(axis, result),
        inventory_chart(axis, closes, sides),
        axis.overview(closes, price),
    ]
    return column(*charts, sizing_mode="stretch_width")


def _portfolio_course(portfolio: Result, results: Mapping[str, Result]) -> Any:
    times = np.asarray(portfolio["timestamp"], dtype=np.int64)
    bar_ms = timeframe_ms(next(iter(results.values()))["data"]["timeframe"])
    axis, closes = TimeAxis(int(times[0]), int(times[-1]) + bar_ms), times + bar_ms
    equity, initial = np.asarray(portfolio["equity_curve"]), portfolio["initial_capital"]
    curves = {}
    for coin, result in results.items():
        own = np.array(result["candles"]["timestamp"], dtype=np.int64)
        rows = np.searchsorted(own, times)
        start = result["params"]["initial_capital"]
        curves[coin] = 100.0 * (np.asarray(result["equity_curve"])[rows] / start - 1.0)
    strong = "portfolio"
    curves[strong] = 100.0 * (equity / initial - 1.0)
    charts = [
        returns_chart(axis, closes, curves, strong),
        drawdown_chart(axis, closes, -100.0 * drawdown_curve(equity, initial)),
        axis.overview(closes, equity),
    ]
    return column(*charts, sizing_mode="stretch_width")


def _profits_chart(bins: list[dict[str, Any]]) -> Any:
    """Return the histogram of profits; a bin is named by the edge nearer to 0, None if empty."""
    if not bins:
        return None
    names = [f"{row['from']:.4g}" for row in bins]
    names[0] = f"under {bins[0]['to']:.4g}"
    names[-1] = f"from {bins[-1]['from']:.4g}" if len(bins) > 1 else "all"
    return bars_chart(
        "Round trips by profit, USDT", names, [row["count"] for row in bins], "0,0",
        "@value{0,0} round trips", colours=by_sign([row["from"] for row in bins]),
    )  # fmt: skip


def _times(result: Result) -> tuple[Ints, Ints]:
    """Return when the bars open and close, ms UTC, each (n_bars,)."""
    times = np.array(result["candles"]["timestamp"], dtype=np.int64)
    return times, times + timeframe_ms(result["data"]["timeframe"])


def _subtitle(data: Mapping[str, Any], capital: float) -> str:
    days = [data[name].removesuffix(" 00:00") for name in ("start", "end")]
    return (
        f"{days[0]} to {days[1]} UTC \u00b7 {data['timeframe']} candles from {data['source']} "
        f"\u00b7 {capital:,.0f} USDT"
    )


def _thinning(n_bars: int) -> str:
    if n_bars <= MAX_POINTS:
        return "Every bar and every trade is drawn."
    return (
        f"Lines are thinned to the extremes of every stretch (about {MAX_POINTS:,} points for "
        f"{n_bars:,} bars); every trade is drawn."
    )


def _matrix(coins: list[str], kind: str) -> list[tuple[str, list[str | None]]]:
    """Return rows of paths to the correlations above the diagonal, mirrored below it."""
    return [
        (
            a,
            [
                None if a == b else f"correlation.{kind}.{'/'.join(sorted((a, b), key=coins.index))}"
                for b in coins
            ],
        )
        for a in coins
    ]


def _facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    data, market = document["data"], document["market"]
    gaps = (
        f"{len(data['gaps'])} ({data['missing_bars']:,} candles), not filled"
        if data["gaps"] else "none"
    )  # fmt: skip
    detail = f"{data['detail']}, for {data['detail_coverage_pct']:.1f} % of the bars"
    return [
        ("Candles", f"{data['bars']:,} of {data['timeframe']}, and {data['warmup_bars']:,} before "
         f"them to warm up, from {data['source']}"),
        ("Range", f"{data['start']} to {data['end']} UTC, end exclusive"),
        ("Finer candles inside them", detail if data["detail"] else "none"),
        ("Gaps", gaps),
        ("Bars without volume", f"{data['zero_volume_bars']:,}"),
        ("Funding", data["funding"]),
        ("Market rules", f"tick {market['tick_size']:g}, lot {market['step_size']:g}, minimum "
         f"quantity {market['min_qty']:g}, minimum notional {market['min_notional']:g} USDT"),
        ("Data hash", data["hash"]),
        ("Parameters hash", document["parameters_hash"]),
        ("Decision code", document["code_fingerprint"]),
        ("Run", document["run_id"] or "not on record"),
    ]  # fmt: skip


def _portfolio_facts(
    document: Mapping[str, Any], results: Mapping[str, Result]
) -> list[tuple[str, str]]:
    data = document["data"]
    coins = [
        (
            coin,
            f"hash {result['data']['hash']}; {len(result['data']['gaps'])} gaps; "
            f"{result['data']['zero_volume_bars']:,} bars without volume; funding "
            f"{result['data']['funding']}; from {result['data']['source']}",
        )
        for coin, result in results.items()
    ]
    common = f"{data['common_bars']:,}, {data['first_common_bar']} to {data['last_common_bar']} UTC"
    return [
        ("Bars in common", common), *coins, ("Decision code", document["code_fingerprint"])
    ]  # fmt: skip
