"""Every change of money of the fixed grid: positions, hedge legs, their closes and records."""

from __future__ import annotations

from core.jit import kernel
from core.market import Market, lots_nearest
from engine.fixed_grid.frozen import FixedParams
from engine.fixed_grid.levels import stop_trigger, take_profit_price
from engine.fixed_grid.types import (
    MARK_HEDGE,
    MARK_RELEASED,
    STAGE_HEDGED,
    STAGE_OPEN,
    FixedExit,
    FixedState,
    FixedTape,
    Position,
    Side,
    Step,
    write_mark,
)
from engine.ledger import equity_at, find_fill, market_price, sum_fills, write_trade
from engine.types import (
    CLOSE_END,
    LIQUIDATION,
    LONG,
    OPEN,
    RECOVERY_CLOSE,
    RECOVERY_ESCALATION,
    RECOVERY_HEDGE_CLOSE,
    RECOVERY_HEDGE_OPEN,
    RECOVERY_LADDER,
    SHORT,
    STOP,
    STOP_PRICE,
    TAKE_PROFIT,
    sign_of,
)


@kernel
def margin_used(state: FixedState, params: FixedParams, with_working: bool) -> float:
    """Return M on entry prices, quote: positions, hedges, and the working order where asked."""
    resting = 0.0
    if with_working:
        resting = state.working.qty * state.working.price
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    return (own.cost + hedges.cost + resting) / params.leverage


@kernel
def sum_legs(state: FixedState, side: Side, market: Market) -> None:
    """Bring quantity and cost of a side in line with its legs."""
    sum_fills(side, market)
    state.nearest.stale = True


@kernel
def free_slot(state: FixedState, params: FixedParams) -> int:
    """Return the lowest slot that no position has."""
    own = state.sides[params.side]
    slot = 0
    while True:
        taken = False
        for row in range(own.n_fills):
            taken = taken or own.fills[row].slot == slot
        if not taken:
            return slot
        slot += 1


@kernel
def take_age(state: FixedState) -> int:
    """Return the next order's place in the queue."""
    state.next_age += 1
    return state.next_age


@kernel
def drop_working(state: FixedState) -> None:
    """Want no entry order any more."""
    state.working.price, state.working.qty = 0.0, 0.0


@kernel
def write_record(
    state: FixedState,
    tape: FixedTape,
    label: int,
    position_side: int,
    fill_id: int,
    position: Position,
    price: float,
    qty: float,
    pnl: float,
    fee: float,
) -> None:
    """Append a trade record of a cycle and book its money."""
    write_trade(state, tape, label, position_side, fill_id, price, qty, pnl, fee)
    trade = tape.trades[tape.n_trades - 1]
    trade.cycle, trade.slot = position.cycle, position.slot
    position.pnl += pnl
    position.fees += fee


@kernel
def clear_position(position: Position, now: Step) -> None:
    """Set what a new position or leg has not got yet."""
    position.bar, position.ts_ms, position.regime = now.bar, now.ts_ms, now.regime
    position.entry_fee, position.exit_fees = 0.0, 0.0
    position.tp_price, position.tp_qty, position.tp_slice = 0.0, 0.0, 0.0
    position.tp_touched, position.tp_next, position.tp_stride, position.tp_count = 0, 0, 0, 0
    position.funding, position.pnl, position.fees = 0.0, 0.0, 0.0
    position.take_profit, position.stop, position.stage = 0.0, 0.0, STAGE_OPEN
    position.close_price, position.close_age, position.close_touched = 0.0, 0, 0
    position.hedge_id, position.told = -1, -1
    position.owns_stop, position.stuck, position.recovered = False, False, False
    position.unreleased, position.lost_after_mark = False, False
    position.hedge_refused = False


@kernel
def insert_position(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    slot: int,
    price: float,
    qty: float,
) -> int:
    """Add an open position where its entry belongs, worst first; return its row."""
    own = state.sides[params.side]
    row = own.n_fills
    while row > 0 and params.sign * own.fills[row - 1].price < params.sign * price:
        own.fills[row] = own.fills[row - 1]
        row -= 1
    own.n_fills += 1
    position = own.fills[row]
    clear_position(position, state.now)
    position.fill_id = state.next_fill_id
    state.next_fill_id += 1
    position.cycle, position.slot = cycle, slot
    position.price, position.entry_qty, position.qty = price, qty, qty
    now = state.now.step_s
    position.opened, position.filled, position.stage_time = now, now, now
    position.take_profit = take_profit_price(params, market, price)
    position.stop = stop_trigger(params, market, price)
    state.exits_stale = True
    return row


@kernel
def enter_position(
    state: FixedState,
    params: FixedParams,
    market: Market,
    cycle: int,
    slot: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> int:
    """Book an entry of ``qty`` (base) at ``price`` for ``fee`` (quote); return its row."""
    own = state.sides[params.side]
    row = insert_position(state, params, market, cycle, slot, price, qty)
    position = own.fills[row]
    sum_legs(state, own, market)
    label = OPEN + params.side
    write_record(state, tape, label, params.side, position.fill_id, position, price, qty, 0.0, fee)
    state.last_entry_fill = state.now.step_s
    return row


@kernel
def open_position(
    state: FixedState, params: FixedParams, market: Market, fee: float, tape: FixedTape
) -> int:
    """Book the filled working order for ``fee`` (quote); return the position's row.

    Its exits follow at the next step.
    """
    order = state.working
    row = enter_position(
        state, params, market, order.cycle, order.slot, order.price, order.qty, fee, tape
    )
    drop_working(state)
    return row


@kernel
def is_profit_exit(label: int) -> bool:
    """Return whether a close was a fill of a close order or a rung."""
    return label in (TAKE_PROFIT + LONG, TAKE_PROFIT + SHORT, RECOVERY_LADDER)


@kernel
def note_close(position: Position, label: int) -> None:
    """Keep what the figures of recovery need of a close of the cycle."""
    if label in (STOP + LONG, STOP + SHORT, LIQUIDATION, STOP_PRICE):
        position.unreleased = True
    if position.stuck and not is_profit_exit(label):
        position.lost_after_mark = True


@kernel
def close_own(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    qty: float,
    price: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Book the close of ``qty`` of a position's own leg at ``price`` (fee in quote)."""
    own = state.sides[params.side]
    position = own.fills[row]
    rest = lots_nearest(market, position.qty - qty)
    position.funding *= rest / position.qty
    position.qty = rest
    pnl = params.sign * (price - position.price) * qty
    write_record(state, tape, label, params.side, position.fill_id, position, price, qty, pnl, fee)
    note_close(position, label)
    if is_profit_exit(label):
        state.last_profit_exit = state.now.step_s
    else:
        state.last_loss_exit = state.now.step_s
    if label in (RECOVERY_CLOSE, RECOVERY_ESCALATION):
        state.counters.recovery_attempts += 1
    sum_legs(state, own, market)
    end_cycle(state, params, market, row, label)


@kernel
def close_hedge(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    price: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Book the close of the whole hedge of the position in ``row``."""
    hedges, position = state.sides[params.hedge_side], state.sides[params.side].fills[row]
    qty = hedges.fills[find_fill(hedges, position.hedge_id)].qty
    close_hedge_part(state, params, market, row, qty, price, fee, label, tape)


@kernel
def close_hedge_part(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    qty: float,
    price: float,
    fee: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Book the close of ``qty`` of a hedge; neither a profit nor a loss exit."""
    hedges, position = state.sides[params.hedge_side], state.sides[params.side].fills[row]
    leg_row = find_fill(hedges, position.hedge_id)
    leg = hedges.fills[leg_row]
    fill_id = leg.fill_id
    pnl = -params.sign * (price - leg.price) * qty
    leg.funding *= lots_nearest(market, leg.qty - qty) / leg.qty
    leg.qty = lots_nearest(market, leg.qty - qty)
    if leg.qty <= 0.0:
        for later in range(leg_row + 1, hedges.n_fills):
            hedges.fills[later - 1] = hedges.fills[later]
        hedges.n_fills -= 1
        position.hedge_id = -1
    write_record(state, tape, label, params.hedge_side, fill_id, position, price, qty, pnl, fee)
    note_close(position, label)
    sum_legs(state, hedges, market)
    end_cycle(state, params, market, row, label)


@kernel
def end_cycle(state: FixedState, params: FixedParams, market: Market, row: int, label: int) -> None:
    """Drop a position of which both legs are closed and count its round trip."""
    own = state.sides[params.side]
    position = own.fills[row]
    if position.qty > 0.0 or position.hedge_id >= 0:
        return
    counters = state.counters
    net = position.pnl - position.fees
    counters.round_trips += 1
    counters.net_shares += net / (position.price * position.entry_qty)
    if net > 0.0:
        counters.wins += 1
        counters.gross_profit += net
    else:
        counters.gross_loss -= net
    if position.stuck and label != CLOSE_END:
        counters.stuck_resolved += 1
        counters.stuck_released += 0 if position.unreleased else 1
        counters.stuck_recovered += 0 if position.lost_after_mark else 1
    state.ladders[position.slot].n_rungs = 0
    for later in range(row + 1, own.n_fills):
        own.fills[later - 1] = own.fills[later]
    own.n_fills -= 1
    sum_legs(state, own, market)
    state.exits_stale = True
    if not has_sharing(own):
        state.shared_stop = 0.0


@kernel
def has_sharing(own: Side) -> bool:
    """Return whether any position relies on the shared stop."""
    found = False
    for row in range(own.n_fills):
        found = found or shares_stop(own.fills[row])
    return found


@kernel
def shares_stop(position: Position) -> bool:
    """Return whether a position relies on the shared stop."""
    return position.stop > 0.0 and not position.owns_stop and position.stage != STAGE_HEDGED


@kernel
def open_hedge(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    price: float,
    qty: float,
    fee: float,
    tape: FixedTape,
) -> None:
    """Book the opposite leg of the position in ``row``; then close order, rungs and stop go."""
    position = state.sides[params.side].fills[row]
    hedges = state.sides[params.hedge_side]
    leg = hedges.fills[hedges.n_fills]
    clear_position(leg, state.now)
    leg.fill_id = state.next_fill_id
    state.next_fill_id += 1
    leg.cycle, leg.slot = position.cycle, position.slot
    leg.price, leg.entry_qty, leg.qty = price, qty, qty
    hedges.n_fills += 1
    position.hedge_id = leg.fill_id
    write_record(
        state,
        tape,
        RECOVERY_HEDGE_OPEN,
        params.hedge_side,
        leg.fill_id,
        position,
        price,
        leg.qty,
        0.0,
        fee,
    )
    state.counters.recovery_attempts += 1
    position.recovered = True
    position.stage, position.stage_time = STAGE_HEDGED, state.now.step_s
    position.close_price = 0.0
    state.ladders[position.slot].n_rungs = 0
    position.owns_stop = False
    write_mark(state, tape, MARK_HEDGE, position, price, leg.qty)
    sum_legs(state, hedges, market)
    state.exits_stale = True


@kernel
def release(state: FixedState, position: Position, tape: FixedTape) -> None:
    """Take a position out of its hedge: it is open again, from now on."""
    position.stage, position.stage_time = STAGE_OPEN, state.now.step_s
    position.opened = state.now.step_s
    write_mark(state, tape, MARK_RELEASED, position, state.now.price, position.qty)
    state.nearest.stale = state.exits_stale = True


@kernel
def own_at_market(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    basis: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Close a position's own leg by a market order while the price is ``basis``."""
    qty = state.sides[params.side].fills[row].qty
    price = market_price(params, market, params.side, basis)
    close_own(state, params, market, row, qty, price, params.fee_taker * price * qty, label, tape)


@kernel
def hedge_at_market(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    basis: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Close a position's hedge by a market order while the price is ``basis``."""
    hedges = state.sides[params.hedge_side]
    qty = hedges.fills[find_fill(hedges, state.sides[params.side].fills[row].hedge_id)].qty
    price = market_price(params, market, params.hedge_side, basis)
    close_hedge(state, params, market, row, price, params.fee_taker * price * qty, label, tape)


@kernel
def both_at_market(
    state: FixedState,
    params: FixedParams,
    market: Market,
    row: int,
    basis: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Close all legs of a position by market orders, the long leg first."""
    hedged = state.sides[params.side].fills[row].hedge_id >= 0
    if hedged and params.side == SHORT:
        hedge_at_market(state, params, market, row, basis, label, tape)
    own_at_market(state, params, market, row, basis, label, tape)
    if hedged and params.side == LONG:
        hedge_at_market(state, params, market, row, basis, label, tape)


@kernel
def close_all(
    state: FixedState,
    params: FixedParams,
    market: Market,
    basis: float,
    label: int,
    tape: FixedTape,
) -> None:
    """Close every position at market, worst first."""
    own = state.sides[params.side]
    while own.n_fills > 0:
        both_at_market(state, params, market, 0, basis, label, tape)


@kernel
def execute_exit(
    state: FixedState, params: FixedParams, market: Market, out: FixedExit, tape: FixedTape
) -> None:
    """Carry one decided market exit out at the step's price."""
    own, price = state.sides[params.side], state.now.price
    if out.label == RECOVERY_HEDGE_OPEN:
        row = find_fill(own, out.fill_id)
        hedge_price = market_price(params, market, params.side, price)
        fee = params.fee_taker * hedge_price * out.qty
        open_hedge(state, params, market, row, hedge_price, out.qty, fee, tape)
    elif out.side == params.side:
        row = find_fill(own, out.fill_id)
        own_at_market(state, params, market, row, price, out.label, tape)
    else:
        row = position_of_hedge(own, out.fill_id)
        position = own.fills[row]
        released = out.label == RECOVERY_HEDGE_CLOSE and out.releases
        hedge_at_market(state, params, market, row, price, out.label, tape)
        if released:
            release(state, position, tape)


@kernel
def position_of_hedge(own: Side, hedge_id: int) -> int:
    """Return the row of the position whose hedge leg has this fill id, -1 if there is none."""
    for row in range(own.n_fills):
        if own.fills[row].hedge_id == hedge_id:
            return row
    return -1


@kernel
def liquidate(
    state: FixedState, params: FixedParams, market: Market, price: float, tape: FixedTape
) -> None:
    """Close every leg at ``price`` without slippage, long legs first, worst first.

    Fee ``min(rate * notional, equity)``, shared by notional. Where the price has jumped so far
    that equity is negative, so is the fee: the exchange's insurance fund bears the rest.
    """
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    total = own.qty + hedges.qty
    left = equity_at(state, price)
    fee = min(market.liquidation_fee * (total * price), left)
    drop_working(state)
    state.shared_stop = 0.0
    for side in (LONG, SHORT):
        if side == params.side:
            _liquidate_own(state, params, market, price, fee / total, tape)
        else:
            _liquidate_hedges(state, params, market, price, fee / total, tape)
    state.counters.liquidations += 1
    if fee >= left:
        state.ended = True
        state.wallet = 0.0


@kernel
def _liquidate_own(
    state: FixedState,
    params: FixedParams,
    market: Market,
    price: float,
    fee_per_unit: float,
    tape: FixedTape,
) -> None:
    own, row = state.sides[params.side], 0
    while row < own.n_fills:
        position = own.fills[row]
        qty, hedged = position.qty, position.hedge_id >= 0
        fee = fee_per_unit * qty
        close_own(state, params, market, row, qty, price, fee, LIQUIDATION, tape)
        if hedged:
            row += 1


@kernel
def _liquidate_hedges(
    state: FixedState,
    params: FixedParams,
    market: Market,
    price: float,
    fee_per_unit: float,
    tape: FixedTape,
) -> None:
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    sign = sign_of(params.hedge_side)
    while hedges.n_fills > 0:
        worst, entry, qty = -1, 0.0, 0.0
        for row in range(own.n_fills):
            if own.fills[row].hedge_id < 0:
                continue
            leg = hedges.fills[find_fill(hedges, own.fills[row].hedge_id)]
            if worst < 0 or sign * leg.price > sign * entry:
                worst, entry, qty = row, leg.price, leg.qty
        fee = fee_per_unit * qty
        close_hedge(state, params, market, worst, price, fee, LIQUIDATION, tape)
