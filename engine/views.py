"""An account's records as drivers read them; a strategy adds what only it knows."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.kama import REGIME_NAMES
from core.orders import POSITION_SIDES
from engine.contract import OpenFill, SideView, View
from engine.ledger import equity_at, unrealized_at
from engine.trade_tables import trade_dicts
from engine.types import LONG, SHORT, Tape, sign_of


def side_view(state: Any, position_side: int, price: float, **own: float) -> SideView:
    """Return a side at ``price``, quote.

    Args:
        state: a record with the fields of ``engine.types.Account``.
        position_side: LONG or SHORT, as kernels number them.
        price: quote.
        own: ``risk centre spacing_pct`` of the strategy; 0 where it has none.
    """
    position = state.sides[position_side]
    more = {"risk": 0.0, "centre": 0.0, "spacing_pct": 0.0} | own
    return SideView(
        qty=float(position.qty),
        avg_entry=float(position.avg_entry),
        unrealized=float(unrealized_at(position, sign_of(position_side), price)),
        n_fills=int(position.n_fills),
        stop=float(position.stop_price),
        **more,
    )


def account_view(
    state: Any, at: float | None = None, sides: tuple[SideView, SideView] | None = None, **own: Any
) -> View:
    """Return the account at a price.

    Args:
        state: a record with the fields of ``engine.types.Account``.
        at: quote; None: the step's.
        sides: long and short at that price; None: with nothing of the strategy's own.
        own: ``halted too_small capital_needed`` of the strategy.
    """
    price = float(state.now.price) if at is None else at
    wallet = float(state.wallet)
    long, short = sides or (side_view(state, LONG, price), side_view(state, SHORT, price))
    counters = {name: np.asarray(state.counters[name]) for name in state.counters.dtype.names}
    more = {"halted": False, "too_small": False, "capital_needed": 0.0} | own
    return View(
        price=price,
        wallet=wallet,
        equity=float(equity_at(state, price)) if price > 0.0 else wallet,
        funding=float(state.funding),
        long=long,
        short=short,
        regime=REGIME_NAMES[int(state.now.regime)],
        ended=bool(state.ended),
        counters={name: value.item() for name, value in counters.items() if value.ndim == 0},
        **more,
    )


def open_fills(state: Any, position_side: str) -> list[OpenFill]:
    """Return the open fills of the side called LONG or SHORT, oldest first."""
    position = state.sides[POSITION_SIDES.index(position_side)]
    rows = (position.fills[row] for row in range(int(position.n_fills)))
    return [
        OpenFill(
            int(fill.fill_id), position_side, int(fill.ts_ms), float(fill.price), float(fill.qty)
        )
        for fill in rows
    ]


def taken_trades(tape: Tape) -> list[dict[str, Any]]:
    """Return the trade records on the tape, in their public names, and empty it."""
    n = int(tape.n_trades)
    if not n:
        return []
    table: Any = tape.trades
    records = trade_dicts(table[:n].copy())
    tape.n_trades = 0
    return records
