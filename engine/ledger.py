"""Wallet, fills and trade records: the only code that changes money.

``wallet = initial + sum(pnl) - sum(fee) + funding`` holds after every call.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.market import Market, lots_down, lots_nearest, tick_down, tick_up
from core.params import StrategyParams
from engine.types import (
    KELLY_MEMORY,
    LONG,
    OPEN,
    SHORT,
    TAKE_PROFIT,
    Fill,
    PositionSide,
    State,
    Tape,
    sign_of,
)

SHARE_SLACK: Final = 1e-9
"""What floating point may miss a closed share by."""


@kernel
def equity_at(state: State, price: float) -> float:
    """Return wallet plus unrealised profit of both sides at ``price``, quote."""
    long, short = state.sides[LONG], state.sides[SHORT]
    return state.wallet + (price * long.qty - long.cost) - (price * short.qty - short.cost)


@kernel
def unrealized_at(position: PositionSide, sign: float, price: float) -> float:
    """Return the unrealised profit of one side at ``price``, quote."""
    return sign * (price * position.qty - position.cost)


@kernel
def find_fill(position: PositionSide, fill_id: int) -> int:
    """Return the row of fill ``fill_id``, -1 if it is not open."""
    for row in range(position.n_fills):
        if position.fills[row].fill_id == fill_id:
            return row
    return -1


@kernel
def worst_fill(position: PositionSide, sign: float) -> int:
    """Return the row of the worst entry (longs: highest; ties: older), -1 when flat."""
    worst = -1
    for row in range(position.n_fills):
        if worst < 0 or sign * position.fills[row].price > sign * position.fills[worst].price:
            worst = row
    return worst


@kernel
def sum_fills(position: PositionSide, market: Market) -> None:
    """Bring quantity, cost and average entry in line with the fills; flat resets stage 1."""
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
        position.stage1_done = False
        position.stop_price = 0.0


@kernel
def write_trade(
    state: State,
    tape: Tape,
    label: int,
    direction: int,
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
    trade.pnl, trade.fee, trade.direction, trade.fill_id = pnl, fee, direction, fill_id
    tape.n_trades += 1
    state.wallet += pnl - fee
    state.counters.turnover += price * qty
    state.counters.fees += fee
    if direction >= 0:
        state.sides[direction].realized_today += pnl - fee


@kernel
def open_fill(
    state: State,
    market: Market,
    side: int,
    level: int,
    price: float,
    qty: float,
    fee: float,
    tape: Tape,
) -> None:
    """Book an entry of ``qty`` at ``price`` (fee in quote) that came from grid level ``level``."""
    position = state.sides[side]
    fill = position.fills[position.n_fills]
    position.n_fills += 1
    fill.fill_id = state.next_fill_id
    state.next_fill_id += 1
    fill.bar, fill.ts_ms, fill.regime = state.now.bar, state.now.ts_ms, state.now.regime
    fill.generation, fill.level, fill.busy = position.generation, level, True
    fill.price, fill.entry_qty, fill.qty = price, qty, qty
    fill.entry_fee, fill.exit_fees, fill.pnl, fill.funding = fee, 0.0, 0.0, 0.0
    fill.tp_price, fill.tp_qty, fill.tp_count, fill.tp_touched = 0.0, 0.0, 0, 0
    position.levels[level].armed = False
    position.n_busy += 1
    position.traded = True
    sum_fills(position, market)
    write_trade(state, tape, OPEN + side, side, fill.fill_id, price, qty, 0.0, fee)


@kernel
def release_level(position: PositionSide, fill: Fill, tp_concentration: float) -> None:
    """Arm the fill's level again once enough of the fill is closed."""
    if fill.busy and fill.qty <= (1.0 - tp_concentration + SHARE_SLACK) * fill.entry_qty:
        fill.busy = False
        position.n_busy -= 1
        if fill.generation == position.generation:
            position.levels[fill.level].armed = True


@kernel
def remember_round_trip(state: State, fill: Fill) -> None:
    """Count a fully closed fill and keep its net return for Kelly."""
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
    state.kelly_stale = True


@kernel
def close_fill(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
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
    position = state.sides[side]
    fill = position.fills[row]
    sign = sign_of(side)
    pnl = sign * (price - fill.price) * qty
    rest = lots_nearest(market, fill.qty - qty)
    fill.pnl += pnl
    fill.exit_fees += fee
    fill.funding *= rest / fill.qty
    fill.qty = rest
    release_level(position, fill, params.tp_concentration)
    write_trade(state, tape, label, side, fill.fill_id, price, qty, pnl, fee)
    if label == TAKE_PROFIT + side:
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
def market_price(params: StrategyParams, market: Market, side: int, basis: float) -> float:
    """Return the price of a market exit of ``side`` at ``basis``: slippage, tick, against us."""
    if side == LONG:
        return max(tick_down(market, basis * (1.0 - params.slippage)), market.tick_size)
    return tick_up(market, basis * (1.0 + params.slippage))


@kernel
def close_at_market(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
    row: int,
    qty: float,
    basis: float,
    label: int,
    tape: Tape,
) -> None:
    """Close ``qty`` of the fill in ``row`` by a market order while the price is ``basis``."""
    price = market_price(params, market, side, basis)
    fee = price * qty * params.fee_taker
    close_fill(state, params, market, side, row, qty, price, fee, label, tape)


@kernel
def close_side(
    state: State,
    params: StrategyParams,
    market: Market,
    side: int,
    basis: float,
    label: int,
    tape: Tape,
) -> None:
    """Close a whole side by a market order, worst fill first."""
    position = state.sides[side]
    while position.n_fills > 0:
        row = worst_fill(position, sign_of(side))
        close_at_market(
            state, params, market, side, row, position.fills[row].qty, basis, label, tape
        )


@kernel
def partial_close_qty(market: Market, open_qty: float, wanted: float) -> float:
    """Return how much of a fill to close so that no rest under the minimum remains, base."""
    qty = min(open_qty, lots_down(market, wanted))
    if lots_nearest(market, open_qty - qty) < market.min_qty:
        return open_qty
    return qty


@kernel
def register_stop(state: State, params: StrategyParams, side: int) -> None:
    """Count a stop event (one stage on one side) and start the cooldown where it completes one."""
    if side == LONG:
        state.counters.stops_long += 1
    else:
        state.counters.stops_short += 1
    needed = params.stop_cooldown_thresh
    if state.n_stop_events == needed:
        for k in range(1, needed):
            state.stop_events[k - 1] = state.stop_events[k]
        state.n_stop_events -= 1
    state.stop_events[state.n_stop_events] = state.now.bar
    state.n_stop_events += 1
    oldest = state.stop_events[0]
    if state.n_stop_events == needed and state.now.bar - oldest <= params.stop_cooldown_bars:
        state.cooldown_bar = state.now.bar


@kernel
def settle_funding(state: State, rate: float, mark: float) -> float:
    """Book funding at ``rate`` on the open fills at ``mark``; return the sum received, quote."""
    total = 0.0
    for side in (LONG, SHORT):
        position = state.sides[side]
        for row in range(position.n_fills):
            fill = position.fills[row]
            payment = -sign_of(side) * fill.qty * mark * rate
            fill.funding += payment
            total += payment
    state.wallet += total
    state.funding += total
    return total
