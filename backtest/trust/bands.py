"""How far a result depends on what candles cannot settle.

A candle says neither in which order its extremes came, nor whether an order at its very low was
filled, nor what a market order slipped. The same run is repeated under every such assumption. What
lies between the worst and the best outcome is the band; a difference smaller than it proves
nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from backtest.market.market_data import MarketData
from backtest.runs.variants import Variants, run_side_by_side
from config import STRATEGY_PARAMS
from core.errors import GridError
from core.params import IntrabarPath, StrategyParams
from core.times import MINUTE_MS
from engine.results import RunResult

Band = dict[str, Any]

THROUGH_BPS: Final = 2.0
"""How far the path must go through a limit order to have filled it for sure."""
SLIPPAGE_FACTORS: Final = (0.0, 1.0, 3.0)
_SHIPPED: Final[Mapping[str, Any]] = STRATEGY_PARAMS
LEAST_SLIPPAGE: Final = float(_SHIPPED["slippage"])
"""The factors' basis where the run assumes less: a run without slippage has not shown that there is
none."""
MOST_SLIPPAGE: Final = 0.5
"""The parameter's bound."""
DETAIL: Final = "1m"
METRICS: Final = ("total_return_pct", "max_drawdown_pct", "calmar_ratio")
CENTRAL: Final = "as run"

PATH: Final = "path inside the candle"
FILLS: Final = "when a limit order fills"
TOUCH: Final = "fill at the first touch"
SLIPPAGE: Final = "slippage"
MINUTES: Final = "1m detail"
TOGETHER: Final = "several together"

_SAME: Final = 1e-9
"""Percent: returns nearer to each other than this are the same."""


class Assumption(NamedTuple):
    """One way in which the run might have gone.

    Attributes:
        about: what it is an assumption about; the central run's is empty.
        text: how it reads.
        params: of the run.
        detail: whether finer candles are walked inside the others.
    """

    about: str
    text: str
    params: StrategyParams
    detail: bool


def assumptions(
    params: StrategyParams, *, detailed: bool, other_detail: bool = False
) -> list[Assumption]:
    """Return the central run, every single change of an assumption, and their combinations.

    Args:
        params: of the central run.
        detailed: whether the central run walks finer candles.
        other_detail: whether there are finer candles to try although it does not.
    """
    found = [Assumption("", CENTRAL, params, detailed)]
    for about, text, changes in _single_changes(params):
        changed = replace(params, **changes)
        if changed != params:
            found.append(Assumption(about, text, changed, detailed))
    if detailed or other_detail:
        text = "candles alone" if detailed else f"{DETAIL} candles where there are any"
        found.append(Assumption(MINUTES, text, params, not detailed))
    found += [
        Assumption(TOGETHER, text, replace(params, **changes), detailed)
        for text, changes in _combinations(params)
    ]
    return found


def _single_changes(params: StrategyParams) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (about, text, changes) of one assumption at a time, the central ones among them."""
    for path in IntrabarPath:
        yield PATH, _PATH_TEXTS[path], {"intrabar_path": path}
    yield FILLS, "limits fill on touch", _through(0.0, 0)
    yield FILLS, "limits fill 1 tick through", _through(0.0, 1)
    yield FILLS, f"limits fill {THROUGH_BPS:g} bps through", _through(THROUGH_BPS, 0)
    for refused, word in ((False, "fills"), (True, "does not fill")):
        yield TOUCH, f"the first touch {word}", {"refuse_first_touch": refused}
    for factor in SLIPPAGE_FACTORS:
        yield SLIPPAGE, _slippage_text(params, factor), _slippage(params, factor)


_PATH_TEXTS: Final = {
    IntrabarPath.AUTO: "extremes in the candle's direction",
    IntrabarPath.LOW_FIRST: "low first",
    IntrabarPath.HIGH_FIRST: "high first",
}


def _combinations(params: StrategyParams) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (text, changes) of the corners: every fill rule at its strictest or at its kindest.

    Fewer fills need not be worse: the corners in which they meet the other slippage are run too.
    """
    strict = {
        **_through(max(params.fill_through_bps, THROUGH_BPS), max(params.fill_through_ticks, 1)),
        "refuse_first_touch": True,
    }
    kind = {**_through(0.0, 0), "refuse_first_touch": False}
    none, most = _slippage(params, min(SLIPPAGE_FACTORS)), _slippage(params, max(SLIPPAGE_FACTORS))
    for path in IntrabarPath:
        order = {"intrabar_path": path}
        yield f"all pessimistic, {_PATH_WORDS[path]}", {**strict, **most, **order}
        yield f"all optimistic, {_PATH_WORDS[path]}", {**kind, **none, **order}
    yield "strictest fills, no slippage", {**strict, **none}
    yield "kindest fills, most slippage", {**kind, **most}


_PATH_WORDS: Final = {
    IntrabarPath.AUTO: "own direction",
    IntrabarPath.LOW_FIRST: "low first",
    IntrabarPath.HIGH_FIRST: "high first",
}


def _through(bps: float, ticks: int) -> dict[str, Any]:
    return {"fill_through_bps": bps, "fill_through_ticks": ticks}


def _slippage(params: StrategyParams, factor: float) -> dict[str, Any]:
    return {"slippage": min(MOST_SLIPPAGE, factor * max(params.slippage, LEAST_SLIPPAGE))}


def _slippage_text(params: StrategyParams, factor: float) -> str:
    """Return what is varied: the run's own slippage, or absolute ones where that is too small."""
    changed = float(_slippage(params, factor)["slippage"])
    if params.slippage < LEAST_SLIPPAGE:
        return f"slippage {1e4 * changed:g} bps" if changed else "no slippage"
    return f"slippage x {changed / params.slippage:.3g}"


def run_bands(
    variants: Variants,
    central: Mapping[str, Any],
    other_detail: pd.DataFrame | None = None,
    threads: int | None = None,
) -> list[Band]:
    """Run under every assumption.

    Args:
        variants: of the central run; its candles, rates and indicators serve all.
        central: metrics of the central run.
        other_detail: finer candles to try where the central run had none.
        threads: runs at a time; None: one per processor.

    Returns:
        one dict per run, the central one first: ``about assumption total_return_pct
        max_drawdown_pct calmar_ratio``.
    """
    own = variants.data.market.detail
    finer = other_detail if own is None else own
    first, *others = assumptions(
        variants.params, detailed=own is not None, other_detail=other_detail is not None
    )
    sub_bars = {False: variants.sub_bars(None), True: variants.sub_bars(finer)}

    def figures(case: Assumption) -> dict[str, Any]:
        # Of a run nothing else is kept: its log is as long as the candles, and there are many runs.
        return dict(variants.run(case.params, sub_bars[case.detail]).metrics)

    outcomes = run_side_by_side([partial(figures, case) for case in others], threads)
    metrics = [central, *outcomes]
    return [
        {"about": case.about, "assumption": case.text, **{name: item[name] for name in METRICS}}
        for case, item in zip([first, *others], metrics, strict=True)
    ]


def summarize(bands: Sequence[Band]) -> dict[str, Any]:
    """Return what the runs of ``run_bands`` say together, JSON-ready.

    Returns:
        of each metric its ``pessimistic``, ``central`` and ``optimistic`` value (over all runs; the
        worst return and the worst drawdown need not be of the same run; NaN where no run has one);
        ``moves_most``: ``about``, ``assumption`` and ``points`` (percentage points of return away
        from the central run) of the single assumption that matters most, None if none does;
        ``sign_depends_on``: the single assumptions under which the return has another sign, or, if
        there are none, the combinations; ``runs``, their number, and ``distinct``, how many results
        they came to: an assumption that decides nothing repeats another's.
    """
    central = bands[0]["total_return_pct"]
    singles = [band for band in bands[1:] if band["about"] != TOGETHER]
    combined = [band for band in bands[1:] if band["about"] == TOGETHER]
    most = max(singles, key=lambda band: abs(band["total_return_pct"] - central))
    points = most["total_return_pct"] - central
    turning = [band for band in singles if _sign(band) != _sign(bands[0])]
    turning = turning or [band for band in combined if _sign(band) != _sign(bands[0])]
    return {
        **{name: _range(bands, name) for name in METRICS},
        "moves_most": (
            {"about": most["about"], "assumption": most["assumption"], "points": points}
            if abs(points) > _SAME
            else None
        ),
        "sign_depends_on": [band["assumption"] for band in turning],
        "runs": len(bands),
        "distinct": len({tuple(_rounded(band[name]) for name in METRICS) for band in bands}),
    }


def _rounded(value: float) -> float | None:
    """Return ``value`` such that what differs by rounding errors only is equal."""
    return None if math.isnan(value) else round(value / _SAME) * _SAME


def _sign(band: Band) -> int:
    value = band["total_return_pct"]
    return 0 if abs(value) <= _SAME else (1 if value > 0.0 else -1)


def _range(bands: Sequence[Band], name: str) -> dict[str, float]:
    values = np.array([band[name] for band in bands], dtype=np.float64)
    known = values[~np.isnan(values)]
    low, high = (float(known.min()), float(known.max())) if known.size else (math.nan, math.nan)
    if name == "max_drawdown_pct":
        low, high = high, low
    return {"pessimistic": low, "central": float(values[0]), "optimistic": high}


LoadMinutes = Callable[[str, int, int], MarketData]
"""Answers with a coin's data of ``[start_ms, end_ms)``, ``DETAIL`` candles among it."""


def add_bands(
    variants: Variants, result: RunResult, load_minutes: LoadMinutes | None = None
) -> dict[str, Any]:
    """Return ``bands`` and ``bands_summary`` of a coin's result.

    Args:
        variants: of the central run.
        result: of the central run.
        load_minutes: fetches finer candles where the central run has none; None: they are not
            tried. ``bands_summary["no_detail"]`` says why they were not, or is None.
    """
    other, missing = _other_detail(variants, load_minutes)
    bands = run_bands(variants, result.metrics, other)
    return {"bands": bands, "bands_summary": summarize(bands) | {"no_detail": missing}}


def _other_detail(
    variants: Variants, load_minutes: LoadMinutes | None
) -> tuple[pd.DataFrame | None, str | None]:
    """Return finer candles the central run did without, or None and why."""
    data = variants.data
    if data.market.detail is not None or data.market.bar_ms <= MINUTE_MS:
        return None, None
    if load_minutes is None:
        return None, f"not asked for; --detail {DETAIL} asks"
    start_ms = int(data.market.candles["timestamp"].iloc[data.first_bar])
    try:
        return load_minutes(data.market.coin, start_ms, data.span_ms[1]).detail, None
    except GridError as error:  # the band lacks this run then, and says so
        return None, str(error)
