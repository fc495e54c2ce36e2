"""The printed result of the short grid over ticks: an interval first, then what made it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from backtest.runs.ticks import MARKOUT_S, TickResult
from core.recording import SECOND_NS
from core.text import number

_LABEL: Final = 24
_COLUMN: Final = 19
_FEW_DAYS: Final = 14
"""Recorded days before which no result may be called an edge."""
_DAY_S: Final = 86_400
WORDS: Final[Mapping[str, str]] = {
    "gain": "a gain with every model of the queue",
    "loss": "a loss with every model of the queue",
    "undecided": "undecided: the models of the queue disagree whether it gains",
    "nothing": "nothing was traded",
}


def tick_table(result: TickResult) -> str:
    """Return everything that is printed of a result."""
    rows = [] if result.verdict == "nothing" else [*_rows(result), ""]
    return "\n".join([*_head(result), "", *rows, *_funnel(result)])


def recorded_seconds(result: TickResult) -> float:
    """Return how long all recordings are together."""
    return sum(
        float(part.events["t_ns"][-1] - part.events["t_ns"][0]) / SECOND_NS
        for part in result.recordings
    )


def interval_text(result: TickResult) -> str:
    """Return the net as an interval, the pessimistic end first."""
    nets = [figures["net_usd"] for figures in result.figures.values()]
    ends = " to ".join(number(net, 2, signed=True) for net in dict.fromkeys((nets[0], nets[-1])))
    return f"net {ends} USDT: {WORDS[result.verdict]}"


def _head(result: TickResult) -> list[str]:
    seconds = recorded_seconds(result)
    symbols = sorted({name for part in result.recordings for name in part.symbols})
    days = seconds / _DAY_S
    count = len(result.recordings)
    what = f"{count} {'recording' if count == 1 else 'recordings'}, {_span(seconds)}"
    lines = [f"short_grid on {', '.join(symbols)}: {what}", interval_text(result)]
    if days < _FEW_DAYS:
        lines.append(f"{days:.2f} of {_FEW_DAYS} days: no result of so few may be called an edge")
    if count > 1:
        lines.append("each recording begins without a position; its figures are added up")
    late = result.latency
    lines.append(
        f"latency: {late.up:g} ms to the exchange, {late.down:g} ms back, market data "
        f"{late.feed:g} ms"
    )
    return lines


def _span(seconds: float) -> str:
    if seconds < 3 * 3_600:
        return f"{seconds / 60.0:.1f} minutes"
    return f"{seconds / 3_600.0:.1f} hours"


def _mean(value: Mapping[str, float], unit: str = "", decimals: int = 2) -> str:
    if not value["n"]:
        return "-"
    error = f" ±{value['error']:.{decimals}f}" if math.isfinite(value["error"]) else ""
    return f"{value['mean']:.{decimals}f}{error}{unit}"


def _usd(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda figures: number(figures[name], 2)


def _rows(result: TickResult) -> list[str]:
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("Net, USDT", _usd("net_usd")),
        ("Gross", _usd("gross_usd")),
        ("Fees", _usd("fees_usd")),
        ("Funding", _usd("funding_usd")),
        ("Turnover", lambda f: number(f["turnover_usd"], 0)),
        ("Net per 1,000 traded", _usd("net_per_1000_usd")),
        ("Worst open loss", _usd("worst_open_loss_usd")),
        ("Capital held, USDT x h", lambda f: number(f["usd_hours"], 0)),
        ("Recovery debt", _usd("debt_usd")),
        ("Round trips", lambda f: f"{f['round_trips']:,}"),
        ("  won", lambda f: f"{f['won']:,}"),
        ("  lost in a row, most", lambda f: f"{f['longest_losing_streak']:,}"),
        ("  best 1 % made", lambda f: _share(f["best_trips_share"])),
        ("Held, s", lambda f: _mean(f["holding_s"], decimals=0)),
        ("Layers: trips", lambda f: _counts(f["layers"])),
        ("Entries sent", lambda f: f"{f['counts']['entries']:,}"),
        ("  refused", lambda f: f"{f['counts']['entries_refused']:,}"),
        ("  filled", lambda f: _share(f["fill_ratio"])),
        ("  time to fill, s", lambda f: _mean(f["time_to_fill_s"], decimals=1)),
        *((f"Markout {s} s, bps", _markout(s)) for s in MARKOUT_S),
        ("Exit slippage, bps", lambda f: _mean(f["exit_slippage_bps"])),
        ("Stops", lambda f: f"{f['counts']['stops']:,}"),
    ]
    reasons = sorted({reason for f in result.figures.values() for reason in f["exits"]})
    rows += [(f"Closed: {reason}", _exit(reason)) for reason in reasons]
    head = "".ljust(_LABEL) + "".join(model.name.lower().rjust(_COLUMN) for model in result.figures)
    return [
        head,
        *(
            label.ljust(_LABEL)
            + "".join(show(figures).rjust(_COLUMN) for figures in result.figures.values())
            for label, show in rows
        ),
    ]


def _markout(seconds: int) -> Callable[[Mapping[str, Any]], str]:
    return lambda figures: _mean(figures["markouts_bps"][str(seconds)])


def _exit(reason: str) -> Callable[[Mapping[str, Any]], str]:
    def show(figures: Mapping[str, Any]) -> str:
        found = figures["exits"].get(reason)
        return "-" if found is None else f"{found['n']:,}: {number(found['net_usd'], 2)}"

    return show


def _share(value: float) -> str:
    return f"{100.0 * value:.1f} %" if math.isfinite(value) else "-"


def _counts(histogram: Mapping[str, int]) -> str:
    return " ".join(f"{layers}:{count}" for layers, count in histogram.items()) or "-"


def _funnel(result: TickResult) -> list[str]:
    """Return which gate failed first, how often, under the headline's model."""
    figures = result.figures[result.headline]
    lines = [f"Gates ({result.headline.name.lower()}): steps at which each was the first to fail"]
    for kind, counted in figures["funnel"].items():
        total = sum(counted.values())
        lines.append(f"  {kind}, {total:,} steps")
        lines += [
            f"    {name.ljust(_LABEL - 4)}{count:>12,}  {100.0 * count / total:5.1f} %"
            for name, count in counted.items()
            if count
        ]
    return lines
