"""Charts of a search as PNG: progress, importance, stability, train against test, the holdout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from backtest.optimize.report.chart_data import (
    BASELINE,
    DARK,
    VERDICT_COLOURS,
    Document,
    Windows,
    bar_limits,
    capital_before,
    cloud_limits,
    course,
    curve,
    disqualified,
    importance,
    look_up,
    numbers,
    onto,
    picks,
    spreads,
    verdict_colours,
    windows,
)
from backtest.report.figures import COIN_COLOURS, INK, LOSS, MUTED
from backtest.report.png import equity_figure, png, thin
from backtest.report.template import number_text
from backtest.results.files import not_writable, write_file

_SIZE_INCHES: Final = (12.0, 6.5)
_DPI: Final = 100
_ROW_INCHES: Final = 0.32
"""Of height for each bar that lies on its side."""
_HEAD_INCHES: Final = 1.6
_PARTS: Final = {"train": MUTED, "test": INK}
_PENALISED: Final = Patch(
    hatch="//", edgecolor=LOSS, facecolor="white", linewidth=0.0, label="penalised"
)


def write_charts(document: Document, folder: Path) -> list[Path]:
    """Write ``optimizer_*.png`` into ``folder`` and return the files written.

    A chart for which the document has nothing is not written, and one that an earlier search left
    there is removed: it would be taken for this one's.

    Args:
        document: results of a search, as in its JSON file.
        folder: made if it is not there.

    Raises:
        DataError: the folder cannot be written.
    """
    written = []
    for name, draw in CHARTS.items():
        path, figure = folder / f"optimizer_{name}.png", draw(document)
        if figure is not None:
            write_file(path, png(figure))
            written.append(path)
            continue
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise not_writable(path, error) from None
    return written


def progress_figure(document: Document) -> Figure | None:
    """Draw the score of each trial and the best so far."""
    trials = course(document)
    known = np.isfinite(trials.score)
    if not known.any():
        return None
    figure = _figure()
    axes = figure.subplots()
    limits = cloud_limits(trials.score)
    out = disqualified(trials.score)
    shown = known & ~out
    axes.scatter(
        trials.number[shown],
        onto(trials.score, limits)[shown],
        s=14,
        color=INK,
        alpha=0.45,
        linewidths=0.0,
        label=f"trials ({shown.sum():,})",
    )
    if out.any():
        axes.scatter(
            trials.number[out],
            onto(trials.score, limits)[out],
            s=18,
            marker="x",
            color=LOSS,
            linewidths=0.8,
            label=f"disqualified ({out.sum():,})",
        )
    axes.step(trials.number, trials.best, where="post", color=DARK, label="best so far")
    axes.set_ylim(*limits)
    axes.set_xlabel("trial")
    axes.set_ylabel(_score_name(document))
    axes.set_title(f"Score of {known.sum():,} trials, train windows only", loc="left")
    axes.legend(loc="best", frameon=False, ncols=3)
    _finish(axes)
    return figure


def importance_figure(document: Document) -> Figure | None:
    """Draw how much of the scores' variation each parameter explains."""
    shares = importance(document)
    if not shares:
        return None
    figure, axes = _lying_bars(len(shares))
    axes.barh(list(shares), list(shares.values()), color=INK, height=0.7)
    axes.set_xlabel("share of the variation of the score")
    axes.set_title("Importance of the parameters searched", loc="left")
    _finish(axes, "x")
    return figure


def stability_figure(document: Document) -> Figure | None:
    """Draw how far apart seeds choose each parameter, in the colour of its verdict."""
    found = spreads(document)
    if not found:
        return None
    figure, axes = _lying_bars(len(found))
    values = [row["spread"] for row in found.values()]
    axes.barh(list(found), values, color=verdict_colours(found), height=0.7)
    random = numbers(row.get("random_spread") for row in found.values())
    drawn = axes.scatter(
        random, np.arange(len(found)), marker="|", s=190, color=DARK, linewidths=2.0
    )
    keys = [Patch(color=colour, label=name) for name, colour in VERDICT_COLOURS.items()]
    axes.legend(
        [*keys, drawn],
        [*VERDICT_COLOURS, "at random"],
        frameon=False,
        ncols=4,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
    )
    axes.set_xlabel("distance between the choices of independent seeds, share of the range")
    axes.set_title("Stability", loc="left")
    _finish(axes, "x")
    return figure


def train_test_figure(document: Document) -> Figure | None:
    """Draw train against test scores: of the choice, and of the walk-forward picks."""
    parts = {
        "The choice, by coin and window": windows(document),
        "Walk-forward: a search per window": picks(document),
    }
    drawn = {title: scores for title, scores in parts.items() if scores.names}
    if not drawn:
        return None
    figure = _figure()
    panels = figure.subplots(
        1,
        len(drawn),
        squeeze=False,
        sharey=True,
        width_ratios=[2 + len(part.names) for part in drawn.values()],
    )
    panels[0][0].set_ylim(*bar_limits(*drawn.values()))
    for axes, (title, scores) in zip(panels[0], drawn.items(), strict=True):
        _score_pairs(axes, scores)
        axes.set_title(title, loc="left")
        _finish(axes, "y")
    panels[0][0].set_ylabel(_score_name(document))
    keys = [Patch(color=colour, label=name) for name, colour in _PARTS.items()]
    panels[0][0].legend(handles=[*keys, _PENALISED], frameon=False, ncols=3, loc="best")
    return figure


def holdout_figure(document: Document) -> Figure | None:
    """Draw the choice's equity on the holdout against that of the current parameters."""
    chosen = curve(document, "holdout.equity")
    if chosen is None:
        return None
    start = capital_before(chosen, look_up(document, "holdout.return_pct"))
    figure = equity_figure("", chosen.time, chosen.equity, start)
    upper = figure.axes[0]
    upper.lines[0].set_label("chosen parameters")
    before = curve(document, "holdout.baseline_equity")
    title = f"Holdout: chosen {_percent(document, 'holdout.return_pct')}"
    if before is not None:
        kept = thin(before.equity)
        times = before.time[kept].astype("datetime64[ms]")
        upper.plot(times, before.equity[kept], color=COIN_COLOURS[0], linewidth=1.1, label=BASELINE)
        title += f", {BASELINE} {_percent(document, 'holdout.baseline_return_pct')}"
    upper.set_title(title, loc="left")
    upper.legend(loc="best", frameon=False, ncols=3)
    return figure


CHARTS: Final[Mapping[str, Callable[[Document], Figure | None]]] = {
    "progress": progress_figure,
    "importance": importance_figure,
    "stability": stability_figure,
    "train_test": train_test_figure,
    "holdout": holdout_figure,
}
"""The charts, by the name of their file after ``optimizer_``."""


def _score_pairs(axes: Axes, scores: Windows) -> None:
    """Draw two bars per name; that of a penalised window goes on below the axis, hatched."""
    places = np.arange(len(scores.names), dtype=np.float64)
    for values, colour, shift in zip(
        (scores.train, scores.test), _PARTS.values(), (-0.21, 0.21), strict=True
    ):
        bars = axes.bar(places + shift, values, 0.4, color=colour)
        for bar, out in zip(bars, disqualified(values), strict=True):
            if out:
                bar.set(hatch=_PENALISED.get_hatch(), edgecolor=LOSS, linewidth=0.0)
    axes.axhline(0.0, color="#475569", linewidth=0.8)
    axes.set_xticks(places, scores.names, rotation=45, ha="right", fontsize=9)


def _score_name(document: Document) -> str:
    objective = look_up(document, "objective")
    return f"score ({objective})" if objective else "score"


def _percent(document: Document, path: str) -> str:
    return number_text(look_up(document, path), "signed_percent")


def _lying_bars(count: int) -> tuple[Figure, Axes]:
    """Return a figure high enough for ``count`` bars, the first on top."""
    figure = _figure(_HEAD_INCHES + _ROW_INCHES * count)
    axes = figure.subplots()
    axes.margins(y=0.01)
    axes.invert_yaxis()
    return figure, axes


def _figure(height_inches: float = _SIZE_INCHES[1]) -> Figure:
    return Figure(figsize=(_SIZE_INCHES[0], height_inches), dpi=_DPI, layout="constrained")


def _finish(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Give ``axes`` the look of the other charts, and grid lines on the axes of values."""
    axes.grid(visible=True, axis=grid, color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
