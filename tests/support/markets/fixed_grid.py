"""The compiled fixed grid beside its slow reference, on the same candles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pandas as pd

from core.market import MarketRules
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.fixed_grid.types import GATE_NAMES
from engine.results import RunResult
from tests.engine.fixed_grid_reference import ReferenceRun, run_fixed_grid
from tests.engine.fixed_grid_reference.params import Params

Columns = Sequence[Sequence[Any]]
NAMES = ("timestamp", "open", "high", "low", "close", "volume")
EXACT = (
    "bar",
    "timestamp",
    "price",
    "qty",
    "label",
    "regime",
    "direction",
    "fill_id",
    "cycle",
    "slot",
)
MONEY = ("pnl", "fee")


def fixed_params(changes: Mapping[str, Any]) -> FixedGridParams:
    """Return the engine's parameters with the values that the reference takes."""
    values = asdict(Params.from_mapping(changes))
    return FixedGridParams.from_dict(
        {**values, "funding_enabled": True, "liquidation_fee": 0.0125, "refuse_first_touch": False}
    )


def frame_of(rows: Columns) -> pd.DataFrame:
    """Return columns as a frame of candles."""
    return pd.DataFrame(dict(zip(NAMES, rows, strict=True)))


def no_settlements() -> dict[str, list[Any]]:
    """Return an empty record of funding."""
    return {"timestamp": [], "rate": []}


def engine_run(
    rows: Columns,
    changes: Mapping[str, Any],
    market: Mapping[str, Any],
    funding: Sequence[tuple[int, float]] = (),
    quarters: Columns | None = None,
) -> tuple[FixedGridStrategy, RunResult]:
    """Run the compiled engine; without settlements there is no funding."""
    params = fixed_params(changes)
    values = {**market, "brackets": tuple(market["brackets"])} if "brackets" in market else market
    strategy = FixedGridStrategy(params, MarketRules(**values))
    tables = strategy.tables(
        frame_of(rows),
        settled=pd.DataFrame(list(funding), columns=["timestamp", "rate"], dtype=object).astype(
            {"timestamp": "int64", "rate": "float64"}
        ),
        quarters=None if quarters is None else frame_of(quarters),
    )
    if not funding:
        tables.funding["due"] = 0.0
    return strategy, strategy.run_tables(tables)


def compare(expected: ReferenceRun, state: Any, result: RunResult) -> list[str]:
    """Return what differs, in words; nothing where reference and engine agree."""
    return [
        *record_differences(expected, result),
        *curve_differences(expected, result),
        *figure_differences(expected, state, result),
    ]


def record_differences(expected: ReferenceRun, result: RunResult) -> list[str]:
    """Return what differs in the first trade record that differs."""
    ours = result.trade_dicts
    for k, (a, b) in enumerate(zip(ours, expected.records, strict=False)):
        names = [name for name in EXACT if a[name] != b[name] and not _same_liquidation(a, b, name)]
        names += [name for name in MONEY if not _near(a[name], b[name])]
        if names:
            return [f"record {k} {name}: {a[name]}, not {b[name]}" for name in names]
    if len(ours) != len(expected.records):
        return [f"{len(ours)} records, not {len(expected.records)}"]
    return []


def curve_differences(expected: ReferenceRun, result: RunResult) -> list[str]:
    """Return the first bar at which equity or wallet differ."""
    if len(result.log) != len(expected.equity):
        return [f"{len(result.log)} bars, not {len(expected.equity)}"]
    found = []
    for name, theirs in (("equity", expected.equity), ("wallet", expected.wallet)):
        ours = result.log[name].tolist()
        off = [i for i, value in enumerate(theirs) if not _near(ours[i], value)]
        found += [f"{name} at bar {i}: {ours[i]}, not {theirs[i]}" for i in off[:1]]
    return found


def figure_differences(expected: ReferenceRun, state: Any, result: RunResult) -> list[str]:
    """Return the gates, counters and metrics that differ."""
    blocked = state.counters.blocked
    pairs = [
        (f"gate {gate}", float(blocked[GATE_NAMES.index(gate)]), float(count))
        for gate, count in expected.blocked.items()
    ]
    theirs = expected.metrics | {name: expected.counters[name] for name in ("steps", "holes")}
    pairs += [(name, float(result.metrics[name]), float(v)) for name, v in theirs.items()]
    return [f"{name}: {ours}, not {value}" for name, ours, value in pairs if not _near(ours, value)]


def _same_liquidation(a: Mapping[str, Any], b: Mapping[str, Any], name: str) -> bool:
    """Return whether two prices at which the margin ran out are the same: they lie on no tick."""
    both = a["label"] == b["label"] == "LIQUIDATION"
    return both and name == "price" and math.isclose(a[name], b[name], rel_tol=1e-9)


def _near(a: float, b: float) -> bool:
    return math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-6) or (math.isnan(a) and math.isnan(b))


def differences(
    rows: Columns,
    changes: Mapping[str, Any],
    market: Mapping[str, Any],
    funding: Sequence[tuple[int, float]] = (),
    quarters: Columns | None = None,
) -> list[str]:
    """Run reference and engine and return what differs."""
    expected = run_fixed_grid(rows, changes, market, list(funding), quarter_candles=quarters)
    strategy, result = engine_run(rows, changes, market, funding, quarters)
    return compare(expected, strategy.state, result)
