"""Wallet, fills and trade records: the only code that changes money.

``wallet = initial + sum(pnl) - sum(fee) + funding`` holds after every call.
"""

from __future__ import annotations

from typing import Protocol

from core.jit import kernel
from core.market import Market, lots_down, lots_nearest, tick_down, tick_up
from core.params import StrategyParams
from engine.types import (
    KELLY_MEMORY,
    LONG,
    OPEN,
    SHORT,
    TAKE_PROFIT,
    Account,
    Fill,
    SideLedger,
    Tape,
    sign_of,
)


class Slipping(Protocol):
    """Parameters that say what a market order slips."""

    @property
    def slippage(self) -> float:
        """Share of the price."""
        ...


@kernel
def equity_at(state: Account, price: float) -> float:
    """Return wallet plus unrealised profit of both sides at ``price``, quote."""
    long, short = state.sides[LONG], state.sides[SHORT]
    return state.wallet + (price * long.qty - long.cost) - (price * short.qty - short.cost)


@kernel
def unrealized_at(position: SideLedger, sign: float, price: float) -> float:
    """Return the unrealised profit of one side at ``price``, quote."""
    return sign * (price * position.qty - position.cost)


@kernel
def find_fill(position: SideLedger, fill_id: int) -> int:
    """Return the row of fill ``fill_id``, -1 if it is not open."""
    for row in range(position.n_fills):
        if position.fills[row].fill_id == fill_id:
            return row
    return -1


@kernel
def worst_fill(position: SideLedger, sign: float) -> int:
    """Return the row of the worst entry (longs: highest; ties: older), -1 when flat."""
    worst = -1
    for row in range(position.n_fills):
        if worst < 0 or sign * position.fills[row].price > sign * position.fills[worst].price:
            worst = row
    return worst


@kernel
def sum_fills(position: SideLedger, market: Market) -> None:
    """Bring quantity, cost and average entry in line with the fills."""
    qty, cost = 0.0, 0.0
    for row in range(position.n_fills):
        fill = position.fills[row]
        qty += fill.qty
        cost += fill.price * fill.qty
    position.qty = lots_nearest(market, qty)
    position.cost = cost
    position.avg_entry = cost / qty if qty > 0.0 else 0.0
    position.tp_stale, position.settled = True, False
    if position.n_fills == 0:
        position.qty = 0.0
        position.stop_price = 0.0


@kernel
def write_trade(
    state: Account,
    tape: Tape,
    label: int,
    position_side: int,
    fill_id: int,
    price: float,
    qty: float,
    pnl: float,
    fee: float,
) -> None:
    """Append one record and book its profit and fee to the wallet."""
    trade = tape.trades[tape.n_trades]
    trade.bar, trade.ts_ms, trade.regime = state.now.bar, state.now.ts_ms, state.now.regime
    trade.price, trade.qty, trade.label = price, qty, label
    trade.pnl, trade.fee, trade.direction, trade.fill_id = pnl, fee, position_side, fill_id
    tape.n_trades += 1
    state.wallet += pnl - fee
    state.counters.turnover += price * qty
    state.counters.fees += fee
    if position_side >= 0:
        state.sides[position_side].realized_today += pnl - fee


@kernel
def open_fill(
    state: Account,
    market: Market,
    position_side: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> int:
    """Book an entry of ``qty`` at ``price`` (fee in quote); return the row of the new fill.

    Fields that a strategy adds to its fills are the caller's.
    """
    position = state.sides[position_side]
    row = position.n_fills
    fill = position.fills[row]
    position.n_fills += 1
    fill.fill_id = state.next_fill_id
    state.next_fill_id += 1
    fill.bar, fill.ts_ms, fill.regime = state.now.bar, state.now.ts_ms, state.now.regime
    fill.price, fill.entry_qty, fill.qty = price, qty, qty
    fill.entry_fee, fill.exit_fees, fill.pnl, fill.funding = fee, 0.0, 0.0, 0.0
    fill.tp_price, fill.tp_qty, fill.tp_count, fill.tp_touched = 0.0, 0.0, 0, 0
    position.traded = True
    sum_fills(position, market)
    write_trade(
        state, tape, OPEN + position_side, position_side, fill.fill_id, price, qty, 0.0, fee
    )
    return row


@kernel
def remember_round_trip(state: Account, fill: Fill) -> None:
    """Count a fully closed fill and keep its net return."""
    net = fill.pnl - fill.entry_fee - fill.exit_fees
    counters = state.counters
    counters.round_trips += 1
    if net > 0.0:
        counters.wins += 1
        counters.gross_profit += net
    else:
        counters.gross_loss -= net
    closed = state.closed[state.closed_head]
    closed.net_return = net / (fill.price * fill.entry_qty)
    closed.regime = fill.regime
    state.closed_head = (state.closed_head + 1) % KELLY_MEMORY
    state.n_closed = min(state.n_closed + 1, KELLY_MEMORY)


@kernel
def close_fill(
    state: Account,
    market: Market,
    position_side: int,
    row: int,
    qty: float,
    price: float,
    fee: float,
    label: int,
    tape: Tape,
) -> None:
    """Book the close of ``qty`` of the fill in ``row`` at ``price`` (fee in quote).

    A fill that is closed entirely leaves the table; the rows behind it move up, so that rows stay
    in the order of age.
    """
    position = state.sides[position_side]
    fill = position.fills[row]
    sign = sign_of(position_side)
    pnl = sign * (price - fill.price) * qty
    rest = lots_nearest(market, fill.qty - qty)
    fill.pnl += pnl
    fill.exit_fees += fee
    fill.funding *= rest / fill.qty
    fill.qty = rest
    write_trade(state, tape, label, position_side, fill.fill_id, price, qty, pnl, fee)
    if label == TAKE_PROFIT + position_side:
        position.traded = True
    else:
        position.cut = True
    if rest <= 0.0:
        remember_round_trip(state, fill)
        for later in range(row + 1, position.n_fills):
            position.fills[later - 1] = position.fills[later]
        position.n_fills -= 1
    sum_fills(position, market)


@kernel
def market_price(params: Slipping, market: Market, position_side: int, basis: float) -> float:
    """Return the price of a market exit of the side at ``basis``: slippage, tick, against us."""
    if position_side == LONG:
        return max(tick_down(market, basis * (1.0 - params.slippage)), market.tick_size)
    return tick_up(market, basis * (1.0 + params.slippage))


@kernel
def close_at_market(
    state: Account,
    params: StrategyParams,
    market: Market,
    position_side: int,
    row: int,
    qty: float,
    basis: float,
    label: int,
    tape: Tape,
) -> None:
    """Close ``qty`` of the fill in ``row`` by a market order while the price is ``basis``."""
    price = market_price(params, market, position_side, basis)
    fee = price * qty * params.fee_taker
    close_fill(state, market, position_side, row, qty, price, fee, label, tape)


@kernel
def close_side(
    state: Account,
    params: StrategyParams,
    market: Market,
    position_side: int,
    basis: float,
    label: int,
    tape: Tape,
) -> None:
    """Close a whole side by a market order, worst fill first."""
    position = state.sides[position_side]
    while position.n_fills > 0:
        row = worst_fill(position, sign_of(position_side))
        close_at_market(
            state, params, market, position_side, row, position.fills[row].qty, basis, label, tape
        )


@kernel
def partial_close_qty(market: Market, open_qty: float, wanted: float) -> float:
    """Return how much of a fill to close so that no rest under the minimum remains, base."""
    qty = min(open_qty, lots_down(market, wanted))
    if lots_nearest(market, open_qty - qty) < market.min_qty:
        return open_qty
    return qty


@kernel
def settle_funding(state: Account, rate: float, mark: float) -> float:
    """Book funding at ``rate`` on the open fills at ``mark``; return the sum received, quote."""
    total = 0.0
    for position_side in (LONG, SHORT):
        position = state.sides[position_side]
        for row in range(position.n_fills):
            fill = position.fills[row]
            payment = -sign_of(position_side) * fill.qty * mark * rate
            fill.funding += payment
            total += payment
    state.wallet += total
    state.funding += total
    return total
