"""The state of GridStrategyV4 as one record: the account, and its grids, levels and switches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from core.params import MAX_LEVELS, MAX_STOP_EVENTS
from core.records import Table, load_jsonable, zeros
from engine.types import (
    LONG,
    MAX_FILLS,
    N_REGIMES,
    NEVER,
    SHORT,
    Account,
    Counters,
    Fill,
    Moment,
    SideLedger,
)

LATTICE: Final = 2 * MAX_LEVELS + 1
"""Prices of an exit lattice."""
NO_LEVEL: Final = -1
_EARLIER: Final = frozenset(
    {"kelly_stale", "kelly_trips", "kelly_regime", "kelly", "tp_valid_low", "tp_valid_high"}
)
FAR: Final = 1e300
"""Beyond any price."""


class FillMemo:
    """For what the take-profits of a fill were laid out."""

    tp_qty: float  # base, quantity of the fill then; 0 = not known


class GridFill(Fill):
    """A fill that came from a level of a generation."""

    generation: int
    level: int
    memo: FillMemo
    busy: bool  # keeps its level unarmed and counts as inventory


class Level:
    """One entry level of a generation; its price stands in ``PositionSide.entries``."""

    qty: float  # base, of the order resting there; 0 = none
    armed: bool
    touched: int  # bar in which the path first reached the order, 0 = not yet


class SideMemo:
    """Which prices are laid out, and what makes another layout of orders differ from the last."""

    entries_of: int  # generation whose levels stand in ``entries``, 0 = not known
    exits_of: int  # generation whose lattice stands in ``exits``, 0 = not known
    # Take-profits are laid out anew when fills or lattice changed or p left this range.
    tps_of: int  # generation on whose lattice they were laid out, 0 = not known
    tp_valid_low: float  # bounds of sign * p, inclusive
    tp_valid_high: float  # exclusive
    # Entries are chosen anew when fills or generation changed or one of these no longer holds.
    holds: bool  # the rest of this is known
    passive_to: float  # sign * p up to which no level passed over becomes passive
    cut_level: int  # the nearest level that a limit cut off, NO_LEVEL = none
    cut_stop: float  # quote, largest stop distance that cuts it off again for certain


class KellyMemo:
    """The order scale from closed fills that were entered in one regime."""

    known: bool
    trips: int  # round trips when it was last found to hold
    oldest: int  # number of the oldest round trip that counts
    factor: float


class StateMemo:
    """Values kept for the whole account."""

    kelly: Annotated[Table[KellyMemo], N_REGIMES]  # by regime, lowest first


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
    entries: Annotated[Table[float], MAX_LEVELS]  # prices, nearest first
    levels: Annotated[Table[Level], MAX_LEVELS]
    exits: Annotated[Table[float], LATTICE]  # prices, in the direction of profit
    fills: Annotated[Table[GridFill], MAX_FILLS]
    memo: SideMemo


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
    now: Now
    counters: GridCounters
    sides: Annotated[Table[PositionSide], 2]
    n_stop_events: int
    stop_events: Annotated[Table[int], MAX_STOP_EVENTS]  # bars, newest last
    memo: StateMemo


def new_state(initial_capital: float) -> State:
    """Return the state before the first step, with ``initial_capital`` (quote) in the wallet."""
    state = zeros(State)
    state.wallet, state.entry_share = initial_capital, 1.0
    state.cooldown_bar = NEVER
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

    A state that does not know its share of a portfolio's room has all of it. What earlier versions
    saved and this one works out anew is left out.

    Raises:
        ValueError: the fields or capacities differ.
    """
    data = {"entry_share": 1.0, **saved}
    data = {name: data[name] for name in data if name not in _EARLIER}
    data["sides"] = [
        {name: side[name] for name in side if name not in _EARLIER} for side in data["sides"]
    ]
    load_jsonable(state, data)
