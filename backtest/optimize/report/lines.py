"""The lines of the printed report: their width, and a parameter's value in them."""

from __future__ import annotations

from typing import Any, Final

from backtest.report.parameter_table import value_text

WIDTH: Final = 96


def short(value: Any) -> str:
    """Return a parameter's value in few characters."""
    return f"{value:.4g}" if isinstance(value, float) else value_text(value)
