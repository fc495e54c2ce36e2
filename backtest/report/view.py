"""A result as a person looks at it: a chart, a report, a few lines in a notebook.

``engine.result_dict.ResultDict`` finds this module by its name.
"""

from __future__ import annotations

import html as markup
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from backtest.market.market_data import MarketData, empty_funding
from backtest.market.timeframes import TIMEFRAMES, format_span, format_time
from backtest.report.console import figures, heading
from backtest.runs.coin_result import CoinResult
from backtest.runs.facts import data_facts
from backtest.runs.fixed_variants import market_regimes
from backtest.runs.portfolio_result import PortfolioResult
from core.errors import ConfigError, DataError
from core.files import write_atomically
from engine.registry import known_spec
from engine.results import RunResult
from engine.types import NO_REGIME

Typed = CoinResult | PortfolioResult | RunResult
Floats = npt.NDArray[np.float64]

CHARTS: Final = ("equity", "trades")
_NAME: Final = "candles"
"""Of a run over candles that nobody named."""
_WIDTH: Final = 480
_HEIGHT: Final = 90
_POINTS: Final = 480
_DAY_LENGTH: Final = 10
"""Of an ISO date."""


def figure(result: Typed, what: str) -> Any:
    """Return a matplotlib figure; a notebook shows it.

    Args:
        result: any typed result.
        what: one of ``CHARTS``.

    Raises:
        ConfigError: there is no such chart, or not of several coins together.
    """
    from backtest.report.png import equity_figure, trades_figure  # noqa: PLC0415 (0.4 s)

    if what not in CHARTS:
        raise ConfigError(f"plot({what!r}): must be one of {', '.join(CHARTS)}")
    if what == "equity":
        capital = _capital(result)
        return equity_figure(name_of(result), _times(result), result.equity_curve, capital)
    if isinstance(result, PortfolioResult):
        raise ConfigError(
            "plot('trades') shows one coin: take it from the result, such as "
            f"results[{result.coins[0]!r}].plot('trades')"
        )
    return trades_figure(as_coin(result))


def write_report(result: Typed, path: Path) -> Path:
    """Write the HTML report to ``path``, or into that folder, and return where it lies.

    Raises:
        DataError: it cannot be written, or the run does not know what it was made of.
    """
    from backtest.report.html import coin_report, portfolio_report  # noqa: PLC0415 (0.5 s)

    if path.is_dir():
        path = path / f"{_file_name(result)}_report.html"
    if isinstance(result, PortfolioResult):
        body = portfolio_report(result)
    else:
        body = coin_report(as_coin(result))
    try:
        write_atomically(path, body)
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; make room or rights there, or give "
            "another path"
        ) from None
    return path


def html(result: Typed) -> str:
    """Return a few lines of HTML: what was run, the course of equity, the figures."""
    if isinstance(result, RunResult):
        days = [format_time(int(ms))[:_DAY_LENGTH] for ms in _times(result)[[0, -1]]]
        title = f"{name_of(result)}: {' to '.join(days)} UTC, {len(result.log):,} bars"
    elif isinstance(result, CoinResult):
        title = heading({result.coin: result})
    else:
        title = heading(result.results)
    rows = figures(result)
    half = -(-len(rows) // 2)
    lines = [
        "<tr>"
        + "".join(_cells(*row) for row in (rows[k], *rows[half + k : half + k + 1]))
        + "</tr>"
        for k in range(half)
    ]
    return (
        f"<div><p><b>{markup.escape(title)}</b></p>{_curve(result.equity_curve, _capital(result))}"
        f"<table>{''.join(lines)}</table></div>"
    )


def _cells(label: str, text: str) -> str:
    return (
        f'<th style="text-align:left;padding-left:1.5em">{markup.escape(label)}</th>'
        f'<td style="text-align:right">{markup.escape(text)}</td>'
    )


def _curve(equity: Floats, initial: float) -> str:
    """Return equity as a line drawing, the capital at the start as a dashed line."""
    from backtest.report.png import thin  # noqa: PLC0415 (0.4 s)

    rows = thin(equity, _POINTS)
    shown = equity[rows]
    low, high = min(float(shown.min()), initial), max(float(shown.max()), initial)
    scale = (_HEIGHT - 4.0) / (high - low) if high > low else 0.0

    def y(value: Any) -> Any:
        return 2.0 + scale * (high - value)

    x = rows * (_WIDTH / max(len(equity) - 1, 1))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y(shown), strict=True))
    return (
        f'<svg width="{_WIDTH}" height="{_HEIGHT}" role="img" aria-label="equity">'
        f'<line x1="0" x2="{_WIDTH}" y1="{y(initial):.1f}" y2="{y(initial):.1f}" '
        'stroke="#94a3b8" stroke-dasharray="4 3"/>'
        f'<polyline points="{points}" fill="none" stroke="#1d4ed8" stroke-width="1.3"/></svg>'
    )


def name_of(result: Typed) -> str:
    """Return the title of a result."""
    if isinstance(result, PortfolioResult):
        return "Portfolio of " + ", ".join(result.coins)
    return result.coin if isinstance(result, CoinResult) else _strategy(result)


def _file_name(result: Typed) -> str:
    if isinstance(result, PortfolioResult):
        return "portfolio"
    return result.coin if isinstance(result, CoinResult) else _NAME


def _strategy(run: RunResult) -> str:
    return run.context.strategy if run.context is not None else "run"


def _times(result: Typed) -> npt.NDArray[np.int64]:
    return result.times_ms


def _capital(result: Typed) -> float:
    if isinstance(result, PortfolioResult):
        return result.initial_capital
    if isinstance(result, CoinResult):
        return float(result.params.initial_capital)
    if result.context is None:
        return float(result.equity_curve[0])
    return float(result.context.params.initial_capital)


def as_coin(result: CoinResult | RunResult) -> CoinResult:
    """Return a run over a frame of candles as the result of a coin without a name.

    Raises:
        DataError: the run does not know what it was made of.
    """
    if isinstance(result, CoinResult):
        return result
    context = result.context
    if context is None or result.bars is None:
        raise DataError(
            "this result was made from prepared tables and does not know its parameters and "
            "rules: take what run(), run_single() or run_multi() answers"
        )
    bars = result.bars
    volume = np.zeros(len(bars)) if context.volume is None else context.volume
    prices = {name: np.array(bars[name]) for name in ("open", "high", "low", "close")}
    candles = pd.DataFrame({"timestamp": result.times_ms, **prices, "volume": volume})
    spec = known_spec(context.strategy)
    length = {ms: text for text, ms in TIMEFRAMES.items()}.get(context.bar_ms)
    if length is None:
        raise DataError(
            f"candles of {format_span(context.bar_ms)} have no report; it knows "
            f"{', '.join(TIMEFRAMES)}"
        )
    market = MarketData(_NAME, candles, empty_funding(), None, context.bar_ms, "a frame given")
    unknown = bool(np.all(result.regime_log == NO_REGIME))
    return CoinResult(
        coin=_NAME,
        run=replace(result, regime_log=market_regimes(candles)) if unknown else result,
        candles=candles,
        params=context.params,
        market=context.rules,
        data=data_facts(market, 0, length, None, result.funding_source),
        fingerprint=spec.fingerprint,
        notices=list(context.notices),
        strategy=context.strategy,
    )
