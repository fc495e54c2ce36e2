"""Words of the HTML report: what was run on which data, and the figures on top."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from backtest.report.figures import MAX_POINTS
from backtest.runs.portfolio_result import Results

CARDS: Final = (
    ("Buy and hold", "metrics.buy_hold_return_pct", "signed_percent"),
    ("Sharpe", "metrics.sharpe_ratio", "ratio"),
    ("Sortino", "metrics.sortino_ratio", "ratio"),
    ("Calmar", "metrics.calmar_ratio", "ratio"),
    ("Return a year", "metrics.cagr_pct", "signed_percent"),
    ("Calmar a year", "metrics.calmar_annual_ratio", "ratio"),
    ("Round trips", "metrics.total_trades", "count"),
    ("Win rate", "metrics.win_rate_pct", "percent"),
    ("Profit factor", "metrics.profit_factor", "ratio"),
    ("Fees, USDT", "metrics.fees_paid", "money"),
    ("Funding, USDT", "metrics.funding_pnl", "signed_money"),
    ("In the market", "metrics.exposure_pct", "percent"),
    ("Turnover, x", "metrics.turnover", "ratio"),
    ("Stop events, long", "metrics.stops_long", "count"),
    ("Stop events, short", "metrics.stops_short", "count"),
    ("Profit a trade", "metrics.average_profit_per_trade_pct", "signed_percent"),
    ("Stuck", "metrics.stuck_total", "count"),
    ("Stuck, released", "metrics.stuck_released", "count"),
    ("Prunes", "metrics.prune_count", "count"),
    ("Breaker halts", "metrics.circuit_breaker_triggers", "count"),
    ("Liquidations", "metrics.liquidations", "count"),
)
MONTH_NAMES: Final = (
    "Jan",
    "Feb",
    "Mar",
    "Apr",
    "May",
    "Jun",
    "Jul",
    "Aug",
    "Sep",
    "Oct",
    "Nov",
    "Dec",
)


def known_cards(data_of: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the cards whose figures are among a run's metrics."""
    return [card for card in CARDS if card[1].removeprefix("metrics.") in data_of]


def subtitle(data: Mapping[str, Any], capital: float) -> str:
    """Return range, candles and capital (quote) in one line."""
    days = [data[name].removesuffix(" 00:00") for name in ("start", "end")]
    return (
        f"{days[0]} to {days[1]} UTC \u00b7 {data['timeframe']} candles from {data['source']} "
        f"\u00b7 {capital:,.0f} USDT"
    )


def thinning(n_bars: int) -> str:
    """Return what the lines of ``n_bars`` bars leave out."""
    if n_bars <= MAX_POINTS:
        return "Every bar is drawn."
    return (
        f"Lines are thinned to the extremes of every stretch (about {MAX_POINTS:,} points for "
        f"{n_bars:,} bars)."
    )


def matrix(coins: Sequence[str], kind: str) -> list[tuple[str, list[str | None]]]:
    """Return rows of paths to the coins' correlations of ``kind``, None on the diagonal."""

    def path(a: str, b: str) -> str:
        first, second = sorted((a, b), key=coins.index)
        return f"correlation.{kind}.{first}/{second}"

    return [(a, [None if a == b else path(a, b) for b in coins]) for a in coins]


def facts(document: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a reader must know of a coin's data, rules and code."""
    data, market = document["data"], document["market"]
    candles = (
        f"{data['bars']:,} of {data['timeframe']}, and {data['warmup_bars']:,} before them to warm "
        f"up, from {data['source']}"
    )
    detail = f"{data['detail']}, for {data['detail_coverage_pct']:.1f} % of the bars"
    gaps = f"{len(data['gaps'])} ({data['missing_bars']:,} candles), not filled"
    rules = (
        f"tick {market['tick_size']:g}, lot {market['step_size']:g}, minimum quantity "
        f"{market['min_qty']:g}, minimum notional {market['min_notional']:g} USDT"
    )
    return [
        ("Candles", candles),
        ("Range", f"{data['start']} to {data['end']} UTC, end exclusive"),
        ("Finer candles inside them", detail if data["detail"] else "none"),
        ("Gaps", gaps if data["gaps"] else "none"),
        ("Bars without volume", f"{data['zero_volume_bars']:,}"),
        ("Funding", data["funding"]),
        ("Market rules", rules),
        ("Data hash", data["hash"]),
        ("Parameters hash", document["parameters_hash"]),
        ("Program and decision code", _code(document)),
        ("Run", document["run_id"] or "not on record"),
    ]


def portfolio_facts(document: Mapping[str, Any], results: Results) -> list[tuple[str, str]]:
    """Return what a reader must know of the data of each coin."""
    data = document["data"]
    coins = [(coin, _origin(result.data)) for coin, result in results.items()]
    bars = (
        f"{data['bars']:,}, {data['first_bar']} to {data['last_bar']} UTC; all coins have "
        f"{data['common_bars']:,} of them"
    )
    code = ("Program and decision code", _code(document))
    return [("Bars", bars), *coins, code]


def _code(document: Mapping[str, Any]) -> str:
    version = document.get("program_version") or "unknown version"  # of runs before 4.1.0
    return f"{version}, {document['code_fingerprint']}"


def _origin(data: Mapping[str, Any]) -> str:
    return (
        f"{data['start']} to {data['end']}; hash {data['hash']}; {len(data['gaps'])} gaps; "
        f"{data['zero_volume_bars']:,} bars without volume; funding {data['funding']}; "
        f"from {data['source']}"
    )
