"""The printed bands: first whether the sign of the return can be trusted, then each coin's."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping
from typing import Any, Final

from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import AllResults, coins_of
from backtest.trust.bands import DETAIL, METRICS, TOGETHER

_WIDTH: Final = 80
_TEXT_WIDTH: Final = 38
_VALUE_WIDTH: Final = 14
_EDGES: Final = ("pessimistic", "central", "optimistic")


def _percent(value: float) -> str:
    return f"{value:.2f} %"


def _signed_percent(value: float) -> str:
    return f"{value:+.2f} %"


def _ratio(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


_COLUMNS: Final[Mapping[str, tuple[str, Callable[[float], str]]]] = {
    "total_return_pct": ("Return", _signed_percent),
    "max_drawdown_pct": ("Max drawdown", _percent),
    "calmar_ratio": ("Calmar", _ratio),
}


def sign_sentence(result: CoinResult) -> str:
    """Return whether the sign of a coin's return depends on what candles cannot settle."""
    bands, summary = result.bands, result.bands_summary
    central, count = bands[0]["total_return_pct"], summary["runs"]
    turning = summary["sign_depends_on"]
    if not turning:
        word = "positive" if central > 0.0 else "negative" if central < 0.0 else "zero"
        return (
            f"{result.coin}: the return is {word} under all {count} assumptions tried, which "
            f"came to {summary['distinct']} distinct result{'s' * (summary['distinct'] > 1)}"
        )
    other = next(band for band in bands if band["assumption"] == turning[0])
    more = f", and {len(turning) - 1} more change it" if len(turning) > 1 else ""
    which = "several assumptions together" if other["about"] == TOGETHER else "an assumption"
    return (
        f"{result.coin}: the sign of the return depends on {which}: "
        f"{_signed_percent(central)} as run, {_signed_percent(other['total_return_pct'])} with "
        f'"{other["assumption"]}"{more}'
    )


def sign_warning(result: CoinResult) -> str | None:
    """Return one line for under the table: what the sign of the return depends on, or None.

    None too where the result has no bands.
    """
    turning = result.bands_summary.get("sign_depends_on")
    if not turning:
        return None
    more = f" and {len(turning) - 1} more" if len(turning) > 1 else ""
    return f"{result.coin}: the sign of the return depends on '{turning[0]}'{more} (see --bands)"


def band_lines(result: CoinResult) -> list[str]:
    """Return a coin's bands: from worst to best, what moves them, and every run."""
    summary = result.bands_summary
    lines = [_line(result.coin, _EDGES), "-" * (_TEXT_WIDTH + 3 * _VALUE_WIDTH)]
    for name, (title, text) in _COLUMNS.items():
        lines.append(_line(title, [text(summary[name][edge]) for edge in _EDGES]))
    lines += [*_wrapped(_most_sentence(summary)), ""]
    lines.append(_line("assumption", [_COLUMNS[name][0] for name in METRICS]))
    for band in result.bands:
        cells = [_COLUMNS[name][1](band[name]) for name in METRICS]
        lines.append(_line(band["assumption"], cells))
    if summary["no_detail"] is not None:
        lines += _wrapped(f"not tried: {DETAIL} candles ({summary['no_detail']})")
    return lines


def _most_sentence(summary: Mapping[str, Any]) -> str:
    most = summary["moves_most"]
    if most is None:
        return "No single assumption moves the return."
    return (
        f'The return is moved most by: {most["about"]} ("{most["assumption"]}": '
        f"{most['points']:+.2f} points)"
    )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)


def _line(label: str, cells: Any) -> str:
    return label.ljust(_TEXT_WIDTH) + "".join(cell.rjust(_VALUE_WIDTH) for cell in cells)


def print_bands(results: AllResults, write: Callable[[str], object] = print) -> None:
    """Print the bands of all coins; coins whose return may have either sign come first.

    Args:
        results: by coin, each with ``bands``; the portfolio is passed over.
        write: takes one piece of text, without its line end.
    """
    coins = list(coins_of(results).values())
    for result in sorted(coins, key=lambda item: not item.bands_summary["sign_depends_on"]):
        write("\n".join(_wrapped(sign_sentence(result))))
    write("")
    for result in coins:
        write("\n".join(band_lines(result)) + "\n")
