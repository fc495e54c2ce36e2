"""A picture of the short grid's result: equity of every queue model, and what was held."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt
from matplotlib.ticker import AutoLocator, ScalarFormatter

from backtest.report.png import finish, new_figure, png, times_of
from backtest.runs.ticks import TickResult
from core.recording import MS_NS, SECOND_NS
from engine.short_grid.types import E8
from engine.short_grid.venue import QueueModel

COLOURS: Final = {
    QueueModel.PESSIMISTIC: "#c0392b",
    QueueModel.PROPORTIONAL: "#7d848c",
    QueueModel.OPTIMISTIC: "#1f7a4d",
}


def tick_chart(result: TickResult, title: str) -> bytes:
    """Return a PNG: profit over time for every model of the queue, exposure below.

    Several recordings stand one after the other, in recorded minutes; their profits are added up.
    """
    figure = new_figure()
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    for model, outcomes in result.outcomes.items():
        times, profit, exposure = _curves(outcomes)
        upper.plot(times, profit, color=COLOURS[model], linewidth=1.1, label=model.name.lower())
        if model is result.headline:
            lower.fill_between(times, exposure, 0.0, color=COLOURS[model], alpha=0.3, linewidth=0)
    upper.axhline(0.0, color="#888888", linewidth=0.9, linestyle="--")
    upper.set_ylabel("profit, USDT")
    upper.legend(loc="upper left", frameon=False, ncols=3)
    upper.set_title(title, loc="left")
    lower.set_ylabel("held, USDT")
    lower.set_ylim(bottom=0.0)
    finish(upper, lower)
    if len(result.recordings) > 1:
        lower.xaxis.set_major_locator(AutoLocator())
        lower.xaxis.set_major_formatter(ScalarFormatter())
        lower.set_xlabel("recorded minutes")
    return png(figure)


def _curves(outcomes: Any) -> tuple[Any, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    profit_before, minutes_before = 0.0, 0.0
    profits, minutes = [], []
    for outcome in outcomes:
        account = outcome.account
        profits.append(profit_before + (account["realized_e8"] + account["open_e8"]) / E8)
        profit_before += outcome.net_usd
        if len(account):
            since = (account["t_ns"] - account["t_ns"][0]) / (60 * SECOND_NS)
            minutes.append(minutes_before + since)
            minutes_before = float(minutes[-1][-1])
    exposure = np.concatenate([outcome.account["exposure_e8"] for outcome in outcomes]) / E8
    if len(outcomes) > 1:
        return np.concatenate(minutes), np.concatenate(profits), exposure
    return times_of(outcomes[0].account["t_ns"] // MS_NS), np.concatenate(profits), exposure
