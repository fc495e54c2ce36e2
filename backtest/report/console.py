"""The printed report: a table of figures, and what to know about data and run."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import (
    PORTFOLIO,
    AllResults,
    PortfolioResult,
    Together,
    coins_of,
    portfolio_of,
)
from backtest.trust.bands_text import sign_warning
from engine.results import RunResult

_WIDTH: Final = 80
_INDENT: Final = " " * 6
_LABEL_WIDTH: Final = 20
_VALUE_WIDTH: Final = 12
_COLUMNS_PER_BLOCK: Final = 5
"""Label and five columns fill the width."""
_GAPS_LISTED: Final = 5
_PRUNE_PREFIX: Final = "PRUNE_"
_NOTHING: Final = "-"
_MIDNIGHT: Final = " 00:00"
_RANGE: Final = ("start", "end")


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def _signed_percent(value: float) -> str:
    return f"{value:+.2f} %"


def _share(value: float) -> str:
    return f"{100.0 * value:.2f} %"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _money(value: float) -> str:
    return f"{value:,.2f}"


def _count(value: float) -> str:
    return f"{value:,.0f}"


_ROWS: Final[tuple[tuple[str, tuple[str, ...], Callable[[float], str]], ...]] = (
    ("Return", ("total_return_pct",), _signed_percent),
    ("Return a year", ("cagr_pct",), _signed_percent),
    ("Buy and hold", ("buy_hold_return_pct",), _signed_percent),
    ("Max drawdown", ("max_drawdown_pct",), _percent),
    ("Sharpe", ("sharpe_ratio",), _ratio),
    ("Sortino", ("sortino_ratio",), _ratio),
    ("Calmar", ("calmar_ratio",), _ratio),
    ("Calmar a year", ("calmar_annual_ratio",), _ratio),
    ("Final capital", ("final_capital",), _money),
    ("Round trips", ("total_trades",), _count),
    ("Win rate", ("win_rate_pct",), _percent),
    ("Profit factor", ("profit_factor",), _ratio),
    ("Fees", ("fees_paid",), _money),
    ("Funding", ("funding_pnl",), _money),
    ("Turnover, x capital", ("turnover",), _ratio),
    ("In the market", ("exposure_pct",), _percent),
    ("Stop events", ("stops_long", "stops_short"), _count),
    ("Profit a trade", ("average_profit_per_trade_pct",), _signed_percent),
    ("Margin at most", ("margin_utilization_max",), _share),
    ("Stuck", ("stuck_total",), _count),
    ("  released", ("stuck_released",), _count),
    ("  recovered", ("stuck_recovered",), _count),
    ("Prunes", ("prune_count",), _count),
    ("Breaker halts", ("circuit_breaker_triggers",), _count),
    ("Trailing shifts", ("trailing_shifts",), _count),
    ("VaR blocks, bars", ("var_blocks",), _count),
    ("Liquidations", ("liquidations",), _count),
)
"""Row label, the metrics it adds up, and how the sum reads."""


def summary_table(results: AllResults) -> str:
    """Return the figures of all coins, one column each, in blocks no wider than 80 characters.

    Args:
        results: by coin, and the portfolio under ``_portfolio`` where there is one.
    """
    names = list(results)
    blocks = [names[i : i + _COLUMNS_PER_BLOCK] for i in range(0, len(names), _COLUMNS_PER_BLOCK)]
    return "\n\n".join(_block({name: results[name] for name in block}) for block in blocks)


def figures(result: CoinResult | PortfolioResult | RunResult) -> list[tuple[str, str]]:
    """Return what the table says of one result: label and figure of every line."""
    return [
        (label.strip(), _cell(_sum_of(result.metrics, keys), text))
        for label, keys, text in _ROWS
        if set(keys) <= result.metrics.keys()
    ]


def _block(results: AllResults) -> str:
    header = ["Portfolio" if name == PORTFOLIO else name for name in results]
    lines = [_line("", header), "-" * (_LABEL_WIDTH + _VALUE_WIDTH * len(header))]
    for label, keys, text in _ROWS:
        if not any(set(keys) <= item.metrics.keys() for item in results.values()):
            continue  # another strategy's
        sums = [_sum_of(item.metrics, keys) for item in results.values()]
        cells = [_cell(value, text) for value in sums]
        lines.append(_line(label, cells))
        if label == "Prunes":
            lines += _prune_lines(results)
    speeds = [_cell(_speed(item), _count) for item in results.values()]
    lines.append(_line("Bars per second", speeds))
    return "\n".join(lines)


def _speed(result: CoinResult | PortfolioResult) -> float:
    return result.run.bars_per_second if isinstance(result, CoinResult) else math.nan


def _sum_of(metrics: Mapping[str, Any], keys: Sequence[str]) -> float:
    """Return the sum of some metrics, NaN where one is not known (of a portfolio)."""
    return float(sum(metrics.get(key, math.nan) for key in keys))


def _prune_lines(results: AllResults) -> list[str]:
    """Return one line for every kind of prune that occurred."""
    by_coin = [item.metrics["prune_types"] for item in results.values()]
    labels = dict.fromkeys(label for types in by_coin for label in types)
    return [
        _line(
            "  " + label.removeprefix(_PRUNE_PREFIX).replace("_", " ").lower(),
            [_count(types.get(label, 0)) for types in by_coin],
        )
        for label in sorted(labels)
    ]


def _cell(value: float, text: Callable[[float], str]) -> str:
    return _NOTHING if math.isnan(value) else text(value)


def _line(label: str, cells: Sequence[str]) -> str:
    return (label.ljust(_LABEL_WIDTH) + "".join(c.rjust(_VALUE_WIDTH) for c in cells)).rstrip()


def heading(results: AllResults) -> str:
    """Return the line above the table: what was run, over which time, with how much.

    Where the coins' ranges differ each is named.
    """
    coins = list(coins_of(results).values())
    start = min(result.data["start"] for result in coins).removesuffix(_MIDNIGHT)
    end = max(result.data["end"] for result in coins).removesuffix(_MIDNIGHT)
    spans = {
        coin.coin: " to ".join(coin.data[name].removesuffix(_MIDNIGHT) for name in _RANGE)
        for coin in coins
    }
    differ = ", ".join(f"{coin} {span}" for coin, span in spans.items())
    capital, each = coins[0].params.initial_capital, " each" if len(coins) > 1 else ""
    portfolio = portfolio_of(results)
    if portfolio is not None and portfolio.together is not None:
        capital, each = portfolio.initial_capital, " in all"
    text = (
        f"{', '.join(result.coin for result in coins)}: {start} to {end} UTC, "
        f"{coins[0].data['timeframe']} candles, {capital:,.0f} USDT{each}"
    )
    if len(set(spans.values())) > 1:
        text += f"; ranges differ: {differ}"
    return textwrap.fill(text, _WIDTH)


def missing_lines(result: CoinResult) -> list[str]:
    """Return what a run lacked from the start: bars to warm up, and most of its range."""
    data, first = result.data, result.first_bar
    lines = []
    if data.get("warmup_missing"):
        asked = data["warmup_missing"] + data["warmup_bars"]
        waits = (
            f"trading begins {first:,} bars after the start"
            if first
            else ("indicators with a long memory are not yet those of a longer history")
        )
        lines.append(
            f"{data['warmup_missing']:,} of {asked:,} bars to warm up are missing: {waits}"
        )
    missing = data.get("range_missing", 0)
    if missing > data["bars"]:
        lines.append(
            f"{missing:,} of {missing + data['bars']:,} bars of the range are missing: most of it "
            "was not run"
        )
    return [piece for line in lines for piece in _wrapped(result.coin, line)]


def data_lines(result: CoinResult) -> list[str]:
    """Return where a coin's data came from and what is wrong with it."""
    data = result.data
    sentences = [
        f"{data['bars']:,} candles (+ {data['warmup_bars']:,} to warm up) from {data['source']}",
        f"hash {data['hash']}",
        f"funding {data['funding']}",
        f"{data['zero_volume_bars']} bars without volume",
        _gap_text(data),
    ]
    if data["detail"]:
        covered = data["detail_coverage_pct"]
        sentences.append(f"{data['detail']} detail for {covered:.1f} % of the bars")
    listed = [
        f"gap from {gap['from']} to {gap['to']}: {gap['bars']:,} candles"
        for gap in data["gaps"][:_GAPS_LISTED]
    ]
    if len(data["gaps"]) > _GAPS_LISTED:
        listed.append(f"and {len(data['gaps']) - _GAPS_LISTED} more gaps, in the summary file")
    return [*_wrapped(result.coin, "; ".join(sentences)), *(_INDENT + item for item in listed)]


def _gap_text(data: Mapping[str, Any]) -> str:
    ends = [
        f"{data[key]:,} candles missing {where} of the range"
        for key, where in (("missing_before", "at the start"), ("missing_after", "at the end"))
        if data.get(key)
    ]
    gaps = f"{len(data['gaps'])} gaps ({data['missing_bars']:,} candles), not filled"
    return "; ".join([*ends, gaps if data["gaps"] else "no gaps"])


def _wrapped(name: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        _WIDTH,
        initial_indent=f"{name:<{len(_INDENT) - 1}} ",
        subsequent_indent=_INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def var_lines(portfolio: PortfolioResult) -> list[str]:
    """Return the portfolio's value at risk and the correlations behind it."""
    var = portfolio.var
    pairs = ", ".join(f"{pair} {value:.2f}" for pair, value in var["correlation"].items())
    text = (
        f"95 % over {var['horizon_bars']:g} bars: {var['end']:,.2f} USDT "
        f"({_cell(var['end_pct'], _percent)} of equity) before the last close; at most "
        f"{var['highest']:,.2f} USDT ({_cell(var['highest_pct'], _percent)}), on "
        f"{var['highest_at'][:10]}; correlations at the end: {pairs or _NOTHING}"
    )
    return _wrapped("VaR", text)


def together_lines(together: Together) -> list[str]:
    """Return how coins that ran in step were bounded together."""
    figures = together.to_dict()
    shares = ", ".join(f"{coin} {100.0 * part:.4g} %" for coin, part in together.weights.items())
    if math.isnan(together.drawdown_pct):
        return _wrapped("One", f"account, shared: {shares}; entries were not bounded together")
    capped, blocked, steps = (
        figures[name] for name in ("portfolio_capped", "portfolio_blocked", "steps")
    )
    text = (
        f"account, shared: {shares}. Entries may have {100.0 * together.drawdown_pct:g} % of the "
        f"equity at risk with all that is held: capped at {capped:,} of {steps:,} steps, blocked "
        f"at {blocked:,}"
    )
    if capped:
        text += (
            f"; the smallest share of the room was {100.0 * figures['lowest_share']:.1f} %, "
            f"{figures['lowest_at']}"
        )
    return _wrapped("One", text)


def print_report(results: AllResults, write: Callable[[str], object] = print) -> None:
    """Print heading, table and remarks of ``results``, coins and ``_portfolio``.

    Args:
        results: by coin; at least one.
        write: takes one piece of text, without its line end.
    """
    coins = list(coins_of(results).values())
    write("\n".join([heading(results), *(line for coin in coins for line in missing_lines(coin))]))
    write("")
    write(f"{summary_table(results)}\n")
    warnings = [text for result in coins if (text := sign_warning(result)) is not None]
    if warnings:
        lines = [line for text in warnings for line in textwrap.wrap(text, _WIDTH)]
        write("\n".join(lines) + "\n")
    portfolio = portfolio_of(results)
    if portfolio is not None:
        write("\n".join(var_lines(portfolio)))
        if portfolio.together is not None:
            write("\n".join(together_lines(portfolio.together)))
    for result in coins:
        write("\n".join(data_lines(result)))
    write(f"Decision code {coins[0].fingerprint}")
