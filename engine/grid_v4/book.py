"""The resting orders of a state: taking them off, the wick stop, and a face to read them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from core.jit import kernel
from core.market import Market
from core.orders import OrderKind
from core.params import StrategyParams
from engine.contract import RestingOrder
from engine.grid_v4.types import PositionSide, State
from engine.margin import stop_level
from engine.types import DIRECTION_NAMES


@kernel
def cancel_from(position: PositionSide, params: StrategyParams, first: int) -> None:
    """Take the entry orders at level ``first`` and beyond off the book."""
    for k in range(first, params.grid_levels):
        position.levels[k].qty = 0.0


@kernel
def cancel_entries(position: PositionSide, params: StrategyParams) -> None:
    """Take all entry orders of a side off the book."""
    if position.resting_notional > 0.0:
        cancel_from(position, params, 0)
    position.next_entry, position.resting_notional, position.settled = 0.0, 0.0, False


@kernel
def find_next_entry(position: PositionSide, params: StrategyParams, first: int) -> None:
    """Point ``next_entry`` at the nearest order at level ``first`` or beyond."""
    position.next_entry = 0.0
    for k in range(first, params.grid_levels):
        if position.levels[k].qty > 0.0:
            position.next_entry, position.next_entry_level = position.entries[k], k
            return


@kernel
def clear_side(state: State, params: StrategyParams, position_side: int) -> None:
    """Take every order of the side off the book."""
    position = state.sides[position_side]
    cancel_entries(position, params)
    position.next_tp, position.stop_price = 0.0, 0.0
    for row in range(position.n_fills):
        position.fills[row].tp_price = 0.0
    position.tp_stale = True


@kernel
def set_stop(state: State, params: StrategyParams, market: Market, position_side: int) -> None:
    """Put the wick stop of the side where position and ``stop_distance`` ask for it."""
    position = state.sides[position_side]
    position.stop_price = 0.0
    if params.stop2_enabled and position.n_fills > 0:
        position.stop_price = stop_level(
            market, position_side, position.avg_entry, position.stop_distance
        )


_TAKE_PROFIT: Final = ("tp_price", "tp_qty", "tp_count", "tp_next", "tp_stride", "tp_slice")


class OrderBook:
    """Read-only face on the resting orders of a state."""

    def __init__(self, state: State, grid_levels: int) -> None:
        self._state = state
        self._grid_levels = grid_levels

    def __iter__(self) -> Iterator[RestingOrder]:
        """Yield entries, take-profits by price, and the stop of each side.

        Asked for many times a step: columns are read at once, not field by field.
        """
        for position_side, name in enumerate(DIRECTION_NAMES):
            position = self._state.sides[position_side]
            levels: Any = position.levels
            entries: Any = position.entries
            prices, generation = entries[: self._grid_levels].tolist(), int(position.generation)
            for k, qty in enumerate(levels["qty"][: self._grid_levels].tolist()):
                if qty > 0.0:
                    yield RestingOrder(name, OrderKind.ENTRY, prices[k], qty, k, generation)
            for price, qty in sorted(self.take_profits(position_side).items()):
                yield RestingOrder(name, OrderKind.TAKE_PROFIT, price, qty, -1)
            if position.stop_price > 0.0:
                yield RestingOrder(
                    name, OrderKind.STOP, float(position.stop_price), float(position.qty), -1
                )

    def take_profits(self, position_side: int) -> dict[float, float]:
        """Return price -> quantity of the take-profit orders of the side."""
        position = self._state.sides[position_side]
        fills: Any = position.fills
        columns = [fills[name][: int(position.n_fills)].tolist() for name in _TAKE_PROFIT]
        orders: dict[float, float] = {}
        for price, qty, count, following, stride, part in zip(*columns, strict=True):
            if price <= 0.0:
                continue
            orders[price] = orders.get(price, 0.0) + qty
            for later in range(count):
                further = float(position.exits[following + later * stride])
                orders[further] = orders.get(further, 0.0) + part
        return orders
