"""``docs/claims.md`` as text: the numbers of ``benchmarks.claims_runs`` and a verdict by rule."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from backtest.market.market_data import MarketData
from backtest.market.timeframes import format_time
from benchmarks.claims_runs import (
    CRASH_CHANGES,
    CRASH_DAYS,
    CRASHES,
    DAYS_BEFORE,
    LEVERAGES,
    TREND_CHANGES,
    TREND_DAYS,
    TRENDS,
    WARMUP_BARS,
    Runs,
    Window,
    real_funding_pct,
)
from config import PRESETS
from engine.results import RunResult
from engine.strategy import CODE_FINGERPRINT

Measured = Sequence[tuple[Window, Runs]]
Figure = Callable[[Window, RunResult], float]

STATIC: Final = "static grid, {}"
MAIN: Final = tuple(name.format(preset) for preset in PRESETS for name in (STATIC, "{}"))
TREND_NAMES: Final = tuple(name.format(preset) for preset in PRESETS for name in TREND_CHANGES)
CLAIMED_CAPTURE: Final = 80.0
CLAIMED_DRAWDOWN, CLAIMED_STATIC_DRAWDOWN = 25.0, 40.0


def captured(window: Window, outcome: RunResult) -> float:
    """Return the share of the price's move that became return, percent."""
    return 100.0 * total_return(window, outcome) / window.move_pct


def total_return(_window: Window, outcome: RunResult) -> float:
    """Return the return over the window, percent."""
    return float(outcome.metrics["total_return_pct"])


def drawdown(_window: Window, outcome: RunResult) -> float:
    """Return the deepest fall of equity from its highest, percent, negative."""
    return -float(outcome.metrics["max_drawdown_pct"])


def loss_in_fall(window: Window, outcome: RunResult) -> float:
    """Return the deepest fall of equity below its value when the fall begins, percent."""
    curve = outcome.equity_curve
    before, lowest = float(curve[-window.n_bars - 1]), float(curve[-window.n_bars :].min())
    return 100.0 * (lowest / before - 1.0) if before > 0.0 else -100.0


def figures(measured: Measured, name: str, figure: Figure) -> list[float]:
    """Return ``figure`` of the run called ``name`` in every window."""
    return [figure(window, runs[name]) for window, runs in measured]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values))


def _spread(values: Sequence[float]) -> list[str]:
    return [f"{value:+.1f} %" for value in (_mean(values), min(values), max(values))]


def by_window(
    measured: Measured,
    markets: Mapping[str, MarketData],
    names: Sequence[str],
    figure: Figure,
    days_before: int = 0,
) -> str:
    """Return a table with one row per window, one column per run.

    ``days_before`` the window its runs begin; over all of that counts how many of the funding
    settlements are on record.
    """
    rows = []
    for window, runs in measured:
        times = markets[window.coin].candles["timestamp"]
        start = format_time(int(times.iloc[window.first]))[:10]
        cells = [f"{figure(window, runs[name]):+.1f} %" for name in names]
        real = f"{real_funding_pct(markets[window.coin], window, days_before):.0f} %"
        rows.append([window.coin, start, f"{window.move_pct:+.1f} %", real, *cells])
    return table(["coin", "from", "price", "real funding", *names], rows)


def by_run(measured: Measured, names: Sequence[str], figure: Figure, what: str) -> str:
    """Return a table with one row per run: mean, lowest and highest over the windows."""
    rows = [[name, *_spread(figures(measured, name, figure))] for name in names]
    return table([what, "mean", "lowest", "highest"], rows)


def paragraph(text: str) -> str:
    """Return ``text`` wrapped like the project's other documents."""
    return textwrap.fill(
        " ".join(text.split()), 100, break_long_words=False, break_on_hyphens=False
    )


def _each(values: Mapping[str, float], form: str) -> str:
    return ", ".join(f"{form.format(value)} ({name})" for name, value in values.items())


def uptrends(measured: Measured, markets: Mapping[str, MarketData]) -> str:
    """Return the section on the first claim."""
    means = {name: _mean(figures(measured, name, captured)) for name in TREND_NAMES}
    full = {name: value for name, value in means.items() if not name.startswith("static")}
    best = max(full, key=lambda name: full[name])
    static = max(value for name, value in means.items() if name.startswith("static"))
    shifts = {
        preset: sum(runs[preset].metrics["trailing_shifts"] for _, runs in measured)
        for preset in PRESETS
    }
    gained = {name: means[name] - means[f"{name} without trailing"] for name in PRESETS}
    verdict = paragraph(
        f"**{'Found' if full[best] >= CLAIMED_CAPTURE else 'Not found'}.** On average over "
        f"{len(measured)} windows the best run of the full strategy ({best}) turned "
        f"{full[best]:.1f} % of the rise into return, the best static grid {static:.1f} %. "
        f"Trailing moved the grid {_each(shifts, '{:,.0f} times')}; the share captured differs "
        f"from the same run without trailing by {_each(gained, '{:+.1f} points')}."
    )
    return f"""\
## 1. "In uptrends trailing captures 80-90 % of the move where a static grid captures 20-30 %"

{verdict}

Share of the price's rise that became return (100 %: as much as holding the coin with all capital):

{by_window(measured, markets, MAIN, captured)}

All runs, the long grid alone among them (in a rise the short grid can only lose):

{by_run(measured, TREND_NAMES, captured, "share captured")}
"""


def downtrends(measured: Measured, markets: Mapping[str, MarketData]) -> str:
    """Return the section on the second claim."""
    means = {name: _mean(figures(measured, name, drawdown)) for name in TREND_NAMES}
    static = {name: means[STATIC.format(name)] for name in PRESETS}
    small = {name: means[f"{STATIC.format(name)}, a quarter of the size"] for name in PRESETS}
    wanted = CLAIMED_DRAWDOWN / CLAIMED_STATIC_DRAWDOWN
    enough = [name for name in PRESETS if means[name] >= wanted * static[name]]
    verdict = "Found" if len(enough) == len(PRESETS) else "Found in part" if enough else "Not found"
    changes = "; ".join(
        f"{name}: from {static[name]:.1f} % to {means[name]:.1f} %, smaller in "
        f"{_smaller(measured, name)} of {len(measured)} windows"
        for name in PRESETS
    )
    by_size = [name for name in PRESETS if small[name] >= means[name]]
    text = paragraph(
        f"**{verdict}** as a reduction by at least {100 - 100 * wanted:.1f} %: mean drawdown "
        f"({changes}). But the amounts are not the claimed ones, and much of the reduction is mere "
        f"size: a static grid with a quarter of the order size, the strategy's smallest Kelly "
        f"factor, fell by {_each(small, '{:.1f} %')}, which is no more than the full strategy "
        f"for {' and '.join(by_size) or 'neither preset'}."
    )
    return f"""\
## 2. "In downtrends drawdown falls from about -40 % to -25 %"

{text}

Deepest fall of equity from its highest within the window:

{by_window(measured, markets, MAIN, drawdown)}

All runs:

{by_run(measured, TREND_NAMES, drawdown, "drawdown")}

And what the window returned:

{by_run(measured, TREND_NAMES, total_return, "return")}
"""


def _smaller(measured: Measured, name: str) -> int:
    """Return in how many windows the drawdown was smaller than the static grid's."""
    full, static = (figures(measured, run, drawdown) for run in (name, STATIC.format(name)))
    return sum(ours > theirs for ours, theirs in zip(full, static, strict=True))


def crash_section(measured: Measured, markets: Mapping[str, MarketData]) -> str:
    """Return the section on the third claim."""
    names = [name.format(preset) for preset in PRESETS for name in CRASH_CHANGES]
    dead = {
        name: sum(runs[name].metrics["liquidations"] > 0 for _, runs in measured) for name in names
    }
    safe = [
        leverage
        for leverage in LEVERAGES
        if not any(dead[f"{preset} x{leverage:g}"] for preset in PRESETS)
    ]
    found = f"Found at leverage {', '.join(f'{x:g}' for x in safe)}" if safe else "Not found"
    text = paragraph(
        f"**{found}** in {len(measured)} crashes, where survived means not liquidated. Surviving "
        "is not coming out whole: the losses are below, and in a real crash orders are refused and "
        "stops slip further than the backtest assumes. The static grid was liquidated in "
        f"{_each({name: dead[name] for name in names if name.startswith('static')}, '{}')}."
    )
    rows = [
        [name, str(dead[name]), *_spread(figures(measured, name, loss_in_fall))] for name in names
    ]
    at_one = [f"{name} x1" for name in MAIN]
    return f"""\
## 3. "Crashes are survived"

{text}

Deepest fall of equity below what it was when the fall began, at leverage 1 (the price's is to its
lowest low):

{by_window(measured, markets, at_one, loss_in_fall, DAYS_BEFORE)}

By leverage:

{table(["run", "liquidated in", "mean", "worst", "least"], rows)}
"""


def document(markets: Mapping[str, MarketData], measured: Mapping[str, Measured]) -> str:
    """Return the whole document."""
    times = next(iter(markets.values())).candles["timestamp"]
    start, end = (format_time(int(times.iloc[row]))[:10] for row in (0, -1))
    about = paragraph(
        f"The design of this strategy makes three claims. These are the numbers found for them, "
        f"whatever they are, on recorded 15-minute candles of {', '.join(markets)} perpetuals from "
        f"{start} to {end}, with fees and funding. Funding is real where it is on record: the "
        'column "real funding" has the share of the settlements in each window that are, the '
        "others are modelled from the price."
    )
    origin = f"`python3 -m benchmarks.claims` wrote this file (decision code `{CODE_FINGERPRINT}`)."
    windows = paragraph(
        f"**Windows** are chosen by rule, per coin, among those that start at 00:00 UTC with "
        f"{WARMUP_BARS:,} bars before them to warm up: the windows of {TREND_DAYS} days with the "
        f"largest rise and with the largest fall from first open to last close ({TRENDS} each), "
        f"and the windows of {CRASH_DAYS} days with the deepest low below the first open "
        f"({CRASHES}); the strongest first, each next one not overlapping those of its kind before "
        f"it. Runs start without a position: at the window's start, in the crashes {DAYS_BEFORE} "
        f"days before it, so that the grid holds what it would hold when the fall comes."
    )
    runs = paragraph(
        "**Runs**: `shipped` and `documented` are the two presets in full. The static grid has the "
        "same levels, spacing, take-profits, limits and costs, but a fixed anchor, no regime, no "
        "skew, no trailing, no reduced sizes and no protection. Leverage is 1 unless said."
    )
    sections = (
        uptrends(measured["up"], markets),
        downtrends(measured["down"], markets),
        crash_section(measured["crash"], markets),
    )
    head = f"# The design's three claims, measured\n\n{about}\n\n{origin}\n\n{windows}\n\n{runs}"
    return f"{head}\n\n" + "\n".join(sections)
