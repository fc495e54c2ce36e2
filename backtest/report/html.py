"""The HTML report: one file per coin and one for the portfolio, each complete in itself.

They open without a network: the charting library, data and style are inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.market.timeframes import timeframe_ms
from backtest.report.chart_lines import chart_lines
from backtest.report.document import coin_document, group_document
from backtest.report.figures import (
    INK,
    TimeAxis,
    bars_chart,
    by_sign,
    drawdown_chart,
    equity_charts,
    inventory_chart,
    returns_chart,
)
from backtest.report.legend import legend_rows
from backtest.report.price_chart import FULL_DETAIL, price_chart
from backtest.report.template import Numbers, parameter_table, render, year_rows
from backtest.report.words import (
    MONTH_NAMES,
    facts,
    known_cards,
    matrix,
    portfolio_facts,
    subtitle,
    thinning,
)
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio import equity_curves
from backtest.runs.portfolio_result import PortfolioResult
from core.performance import drawdown_curve

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_TRADES_DRAWN: Final = "Every trade is drawn."
HOLDING_NAMES: Final = (
    "same bar",
    "to 1 h",
    "to 2 h",
    "to 4 h",
    "to 8 h",
    "to 12 h",
    "to 1 d",
    "to 2 d",
    "to 3 d",
    "to 7 d",
    "over 7 d",
)


def coin_report(result: CoinResult) -> bytes:
    """Return the report of one coin, HTML.

    Args:
        result: of its run; bands (of each ``assumption total_return_pct max_drawdown_pct
            calmar_ratio``) and their summary add a section, ``run_id`` a line.
    """
    numbers = Numbers(coin_document(result))
    at, data = numbers.at, numbers.document["data"]
    months = at("attribution.by_month")
    most = max((abs(month["return_pct"] or 0.0) for month in months), default=0.0)
    course = _coin_course(result)
    sections = [
        ("course", "Course"),
        ("months", "Months"),
        ("attribution", "Attribution"),
        ("trips", "Round trips"),
        ("risk", "Drawdowns and inventory"),
        ("parameters", "Parameters"),
        ("data", "Data"),
    ]
    if "cycles" in numbers.document:
        sections.insert(3, ("cycles", "Cycles"))
    if "bands" in numbers.document:
        sections.insert(0, ("bands", "Bands"))
    return render(
        "coin.html",
        numbers,
        {**course, **_coin_charts(numbers)},
        {
            "title": f"{result.coin} grid backtest",
            "subtitle": subtitle(data, result.params.initial_capital),
            "sections": sections,
            "cards": known_cards(data_of=numbers.document["metrics"]),
            **_course_texts(course),
            "thinning": f"{thinning(len(result.equity_curve))} {_TRADES_DRAWN}",
            "levels": chart_lines(result).sentence(result),
            "detailed": len(result.trades) <= FULL_DETAIL,
            "month_names": MONTH_NAMES,
            "years": year_rows(months, at("attribution.by_year")),
            "shade": lambda path: numbers.shade(path, most),
            "parameter_rows": parameter_table(
                at("parameters"), at("changed_parameters"), at("strategy")
            ),
            "facts": facts(numbers.document),
        },
        at_once=len(course),
    )


def _course_texts(course: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "course": list(course),
        "legends": {name: legend_rows(chart) for name, chart in course.items()},
    }


def portfolio_report(portfolio: PortfolioResult) -> bytes:
    """Return the report of several coins together, HTML.

    Args:
        portfolio: of their results.
    """
    results = portfolio.results
    numbers = Numbers(group_document(portfolio))
    at, first = numbers.at, next(iter(results.values()))
    coins = list(results)
    values = [
        value or 0.0
        for row in at("by_month")
        for value in (row["return_pct"], *row["coins"].values())
    ]
    most = max(map(abs, values), default=0.0)
    matrices = [("Prices", matrix(coins, "prices")), ("Equity", matrix(coins, "equity"))]
    data = first.data | {
        "start": min(result.data["start"] for result in results.values()),
        "end": max(result.data["end"] for result in results.values()),
    }
    course = _portfolio_course(portfolio)
    return render(
        "portfolio.html",
        numbers,
        course,
        {
            "title": "Portfolio of " + ", ".join(coins),
            "subtitle": subtitle(data, portfolio.initial_capital),
            "sections": [
                ("course", "Course"),
                ("coins", "Coins"),
                ("correlation", "Correlation"),
                ("months", "Months"),
                ("risk", "Drawdowns"),
                ("parameters", "Parameters"),
                ("data", "Data"),
            ],
            "cards": known_cards(data_of=numbers.document["metrics"]),
            **_course_texts(course),
            "thinning": thinning(len(portfolio.equity_curve)),
            "matrices": matrices,
            "heat": lambda path: numbers.shade(path, 1.0),
            "shade": lambda path: numbers.shade(path, most),
            "parameter_rows": parameter_table(
                first.params.to_dict(), at("changed_parameters"), at("strategy")
            ),
            "facts": portfolio_facts(numbers.document, results),
        },
        at_once=len(course),
    )


def _coin_charts(numbers: Numbers) -> dict[str, Any]:
    at = numbers.at
    trips = at("attribution.round_trips")
    hours, weekdays = at("attribution.by_hour"), at("attribution.by_weekday")
    return {
        "hours": bars_chart(
            "Change of equity by hour of the day, USDT",
            [row["key"] for row in hours],
            [row["equity_change"] for row in hours],
            "0,0.[00]",
            "@value{+0,0.00} USDT",
        ),
        "weekdays": bars_chart(
            "Change of equity by weekday, USDT",
            [row["key"] for row in weekdays],
            [row["equity_change"] for row in weekdays],
            "0,0.[00]",
            "@value{+0,0.00} USDT",
        ),
        "profits": _profits_chart(trips["net"]["histogram"]),
        "holding": bars_chart(
            "Round trips by time held",
            HOLDING_NAMES,
            [row["count"] for row in trips["holding_hours"]["histogram"]],
            "0,0",
            "@value{0,0} round trips",
            colours=[INK] * len(HOLDING_NAMES),
        )
        if trips["count"]
        else None,
    }


def _coin_course(result: CoinResult) -> dict[str, Any]:
    """Return the linked charts of a coin over time, from top to bottom."""
    times, closes = _times(result)
    equity = result.equity_curve
    price = result.column("close")
    initial = float(result.params.initial_capital)
    first = min(int(result.first_bar), len(times) - 1)
    held = initial * price / float(result.candles["open"].iloc[first])
    held[:first] = initial
    axis = TimeAxis(int(times[0]), int(closes[-1]))
    log = result.log
    sides = {
        side: np.divide(
            100.0 * np.asarray(log[name]) * price,
            equity,
            out=np.zeros(len(price)),
            where=equity > 0.0,
        )
        for side, name in (("LONG", "long_qty"), ("SHORT", "short_qty"))
    }
    curve, fall = equity_charts(axis, closes, equity, initial, held)
    return {
        "equity": curve,
        "drawdown": fall,
        "price": price_chart(axis, result),
        "inventory": inventory_chart(axis, closes, sides),
        "overview": axis.overview(closes, price),
    }


def _portfolio_course(portfolio: PortfolioResult) -> dict[str, Any]:
    results, times = portfolio.results, portfolio.times_ms
    bar_ms = timeframe_ms(next(iter(results.values())).data["timeframe"])
    axis, closes = TimeAxis(int(times[0]), int(times[-1]) + bar_ms), times + bar_ms
    equity, initial = portfolio.equity_curve, portfolio.initial_capital
    curves = {
        coin: 100.0 * (curve / float(results[coin].params.initial_capital) - 1.0)
        for coin, curve in equity_curves(results, times).items()
    }
    strong = "portfolio"
    curves[strong] = 100.0 * (equity / initial - 1.0)
    return {
        "returns": returns_chart(axis, closes, curves, strong),
        "drawdown": drawdown_chart(axis, closes, -100.0 * drawdown_curve(equity, initial)),
        "overview": axis.overview(closes, equity),
    }


def _profits_chart(bins: list[dict[str, Any]]) -> Any:
    """Return the histogram of profits; a bin is named by the edge nearer to 0, None if empty."""
    if not bins:
        return None
    names = [f"{row['from']:.4g}" for row in bins]
    names[0] = f"under {bins[0]['to']:.4g}"
    names[-1] = f"from {bins[-1]['from']:.4g}" if len(bins) > 1 else "all"
    return bars_chart(
        "Round trips by profit, USDT",
        names,
        [row["count"] for row in bins],
        "0,0",
        "@value{0,0} round trips",
        colours=by_sign([row["from"] for row in bins]),
    )


def _times(result: CoinResult) -> tuple[Ints, Ints]:
    """Return when the bars open and close, ms UTC, each (n_bars,)."""
    times = result.times_ms
    return times, times + timeframe_ms(result.data["timeframe"])
