"""The state of GridStrategyV4 as one record: the account, and its grids, levels and switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from core.params import MAX_LEVELS, MAX_STOP_EVENTS
from core.records import Table, load_jsonable, zeros
from engine.types import LONG, MAX_FILLS, NEVER, SHORT, Account, Counters, Fill, Moment, SideLedger

LATTICE: Final = 2 * MAX_LEVELS + 1
"""Prices of an exit lattice."""
NOT_COMPUTED: Final = -1


class GridFill(Fill):
    """A fill that came from a level of a generation."""

    generation: int
    level: int
    busy: bool  # keeps its level unarmed and counts as inventory


class Level:
    """One entry level of a generation; its price stands in ``PositionSide.entries``."""

    qty: float  # base, of the order resting there; 0 = none
    armed: bool
    touched: int  # bar in which the path first reached the order, 0 = not yet


class PositionSide(SideLedger):
    """Ledger, grid and resting orders of one position side."""

    n_busy: int
    stage1_done: bool
    was_allowed: bool
    last_prune_bar: int
    # Generation.
    generation: int  # 0 = none yet
    reference: float  # m, quote
    centre: float  # r, quote
    entry_pct: float
    exit_pct: float
    spacing: float  # entry_pct * m, quote
    stop_floor: float  # smallest unit of stop distances, quote
    # Resting orders.
    next_entry_level: int
    resting_notional: float  # quote, of the entry orders
    stop_needed: float  # quote, smallest stop distance beyond which no entry lies
    stop_distance: float  # quote, of stage 2
    # Take-profits are laid out anew when fills or lattice changed or p left this range.
    tp_valid_low: float  # bounds of sign * p, inclusive
    tp_valid_high: float  # exclusive
    entries: Annotated[Table[float], MAX_LEVELS]  # prices, nearest first
    levels: Annotated[Table[Level], MAX_LEVELS]
    exits: Annotated[Table[float], LATTICE]  # prices, in the direction of profit
    fills: Annotated[Table[GridFill], MAX_FILLS]


class Now(Moment):
    """The knowledge of step ``i``: the clock, the reference price, indicators of bar ``i - 1``."""

    prev_close: float
    er: float
    kama: float
    atr: float
    z: float
    sigma: float
    atr_mean: float
    volume_ratio: float
    funding_rate: float


class GridCounters(Counters):
    """Events that only this strategy knows."""

    halts: int
    trailing_shifts: int
    var_blocks: int


class State(Account):
    """The whole strategy."""

    acting: bool  # a step has acted
    halted: bool
    cooldown_bar: int
    kelly_trips: int  # round trips when kelly was computed
    kelly_regime: int
    kelly: float
    now: Now
    counters: GridCounters
    sides: Annotated[Table[PositionSide], 2]
    n_stop_events: int
    stop_events: Annotated[Table[int], MAX_STOP_EVENTS]  # bars, newest last


def new_state(initial_capital: float) -> State:
    """Return the state before the first step, with ``initial_capital`` (quote) in the wallet."""
    state = zeros(State)
    state.wallet, state.entry_share = initial_capital, 1.0
    state.cooldown_bar = NEVER
    state.kelly_trips = NOT_COMPUTED
    for position_side in (LONG, SHORT):
        state.sides[position_side].last_prune_bar = NEVER
        state.sides[position_side].tp_stale = True
    return state


def own_counts(state: State) -> dict[str, int]:
    """Return the counts of a run that only this strategy has, by the names of metrics."""
    counters = state.counters
    return {
        "circuit_breaker_triggers": int(counters.halts),
        "trailing_shifts": int(counters.trailing_shifts),
        "var_blocks": int(counters.var_blocks),
    }


def load_state(state: State, saved: Mapping[str, Any]) -> None:
    """Fill ``state`` from ``to_jsonable`` output of this version or of an earlier one.

    A state that does not know its share of a portfolio's room has all of it.

    Schema 1 noted whether ``kelly`` had to be computed anew; now that follows from the number of
    round trips it was computed with.

    Raises:
        ValueError: the fields or capacities differ.
    """
    data = {"entry_share": 1.0, **saved}
    if "kelly_stale" in data:
        stale = data.pop("kelly_stale")
        data["kelly_trips"] = NOT_COMPUTED if stale else data["counters"]["round_trips"]
    load_jsonable(state, data)
