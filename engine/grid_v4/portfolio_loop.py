"""Several coins of GridStrategyV4 in step: the compiled loop of a portfolio.

At each instant every coin that has a bar does its exits and publishes; then the portfolio decides
what share of its room each may use, and the orders are laid. So what rests is bounded over all of
them, as it is in a process that trades them live.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from core.jit import kernel
from core.market import Market
from core.params import StrategyParams
from core.portfolio_risk import PairWindow, add_bar
from core.records import Table
from core.signals import Signal
from engine.grid_v4.decision import open_step
from engine.grid_v4.loop import (
    close_at_end,
    exit_step,
    log_bar,
    order_step,
    pass_bar,
    records_per_step,
)
from engine.grid_v4.placement import entries_allowed, room_for_entries
from engine.grid_v4.types import PositionSide, State
from engine.grid_v4.walk import walk_gap
from engine.ledger import equity_at
from engine.portfolio import PortfolioRisk, PortfolioStep, Publication, assume_filled, share_of_room
from engine.portfolio_run import PortfolioLoop
from engine.tables import BarLog, Funding
from engine.types import LONG, MAX_TRADES, SHORT, Bar, Tape

Ints = npt.NDArray[np.int64]


class Coin:
    """Where a coin's rows lie in the tables of all coins, and how far it is."""

    begin: int  # first row of its bars
    end: int  # exclusive
    row: int  # next bar
    first_bar: int  # row before which no step acts
    acts: bool  # its step of this instant decides


@kernel
def publish(state: State, params: StrategyParams, into: Publication) -> None:
    """Write what the portfolio must know of a coin after its exits."""
    price = state.now.price
    equity = equity_at(state, price)
    into.net = (state.sides[LONG].qty - state.sides[SHORT].qty) * price
    into.sigma, into.equity = state.now.sigma, equity
    held = (state.sides[LONG].qty + state.sides[SHORT].qty) * price
    into.long_room, into.short_room = 0.0, 0.0
    if state.ended:
        into.equity = 0.0
        return
    if entries_allowed(state, params, LONG):
        into.long_room = max(0.0, room_for_entries(state, params, LONG, equity, held))
    if entries_allowed(state, params, SHORT):
        into.short_room = max(0.0, room_for_entries(state, params, SHORT, equity, held))


@kernel
def publish_absent(state: State, params: StrategyParams, into: Publication) -> None:
    """Write what a coin can become that does not step: all its resting entries may fill."""
    price = state.now.price
    into.net = (state.sides[LONG].qty - state.sides[SHORT].qty) * price
    assume_filled(
        into,
        resting_entries(state.sides[LONG], params),
        resting_entries(state.sides[SHORT], params),
    )


@kernel
def resting_entries(position: PositionSide, params: StrategyParams) -> float:
    """Return the notional of the side's entry orders that are not filled, quote."""
    total = 0.0
    for k in range(params.grid_levels):
        total += position.levels[k].qty * position.entries[k]
    return total


@kernel
def publish_closed(state: State, into: Publication) -> None:
    """Write that a coin holds nothing and opens nothing: its money backs the others."""
    into.net, into.long_room, into.short_room = 0.0, 0.0, 0.0
    into.equity = 0.0 if state.ended else state.wallet


@kernel
def records_fit(states: Table[State], params: Table[StrategyParams], tapes: Table[Tape]) -> bool:
    """Return whether the next step cannot overflow any tape."""
    for c in range(len(states)):
        needed = records_per_step(states[c], params[c])
        if tapes[c].n_trades + needed > MAX_TRADES:
            return False
    return True


@kernel
def begin_coin(
    state: State,
    params: StrategyParams,
    market: Market,
    bars: Table[Bar],
    signals: Table[Signal],
    funding: Table[Funding],
    coin: Coin,
    tape: Tape,
    into: Publication,
) -> None:
    """Do the first half of a coin's step at its next bar, up to its exits, and publish."""
    i = coin.row
    coin.acts = i >= coin.first_bar and i > coin.begin and signals[i - 1].ready and not state.ended
    if state.ended:
        publish_closed(state, into)
    if not coin.acts:
        return
    before, price = bars[i - 1].close, bars[i].open
    open_step(state, i - coin.begin, bars[i].ts_ms, price, before, signals[i - 1], funding[i].known)
    walk_gap(state, params, market, before, price, tape)
    exit_step(state, params, market, tape)
    publish(state, params, into)


@kernel
def finish_coin(
    state: State,
    params: StrategyParams,
    market: Market,
    bars: Table[Bar],
    funding: Table[Funding],
    detail: Table[Bar],
    detail_from: Ints,
    coin: Coin,
    tape: Tape,
    log: Table[BarLog],
    into: Publication,
) -> None:
    """Do the second half of a coin's step: orders, the bar's path, the account at its close.

    At its last bar everything is closed.
    """
    i, paid = coin.row, 0.0
    if coin.acts and not state.ended:
        order_step(state, params, market, tape)
        paid = pass_bar(
            state,
            params,
            market,
            bars[i],
            detail,
            detail_from[2 * i],
            detail_from[2 * i + 1],
            funding[i].due,
            tape,
        )
    log_bar(state, paid, bars[i].close, log[i])
    coin.row = i + 1
    if coin.row == coin.end:
        close_at_end(state, params, market, bars[i].close, tape, log[i])
        publish_closed(state, into)


@kernel
def run_together(
    states: Table[State],
    params: Table[StrategyParams],
    markets: Table[Market],
    bars: Table[Bar],
    signals: Table[Signal],
    funding: Table[Funding],
    detail: Table[Bar],
    detail_from: Ints,
    coins: Table[Coin],
    times: Ints,
    returns: Ints,
    windows: Table[PairWindow],
    risk: PortfolioRisk,
    start: int,
    tapes: Table[Tape],
    log: Table[BarLog],
    published: Table[Publication],
    steps: Table[PortfolioStep],
) -> int:
    """Do the steps at ``times`` from ``start`` on; return the index of the first not done.

    Stops early, between two steps, where a tape could overflow: the caller takes the trades off
    and calls again with the index returned.

    Args:
        states: as they stand before the step, shape (n_coins,).
        params: strategy parameters, shape (n_coins,).
        markets: rules, shape (n_coins,).
        bars: of all coins, one after the other, shape (n_rows,).
        signals: of the same rows.
        funding: of the same rows.
        detail: sub-bars of all coins.
        detail_from: of each row its first sub-bar and the one after its last, shape (2 * n_rows,).
        coins: where each one's rows lie.
        times: instants at which any coin has a bar, ms, rising, shape (n_times,).
        returns: of the bars that open at ``times``, in whole units, shape (n_coins, n_times).
        windows: of all pairs; hold the bars before ``times[start - 1]``.
        risk: what the portfolio may have at risk.
        start: first step of this call.
        tapes: trade records are appended, shape (n_coins,).
        log: written, shape (n_rows,).
        published: newest publication of each coin; before the first step: as it stands.
        steps: written, shape (n_times,).
    """
    n_coins = len(states)
    scratch, correlation = np.empty((4, n_coins)), np.empty((n_coins, n_coins))
    for u in range(start, len(times)):
        if not records_fit(states, params, tapes):
            return u
        if u > 0:
            add_bar(windows, returns, u - 1)
        for c in range(n_coins):
            coin = coins[c]
            coin.acts = False
            if coin.row < coin.end and bars[coin.row].ts_ms == times[u]:
                begin_coin(
                    states[c],
                    params[c],
                    markets[c],
                    bars,
                    signals,
                    funding,
                    coin,
                    tapes[c],
                    published[c],
                )
            else:
                publish_absent(states[c], params[c], published[c])
        share_of_room(published, windows, risk, scratch, correlation, steps[u])
        for c in range(n_coins):
            coin = coins[c]
            if coin.row < coin.end and bars[coin.row].ts_ms == times[u]:
                states[c].entry_share = steps[u].share
                finish_coin(
                    states[c],
                    params[c],
                    markets[c],
                    bars,
                    funding,
                    detail,
                    detail_from,
                    coin,
                    tapes[c],
                    log,
                    published[c],
                )
    return len(times)


PORTFOLIO_LOOP: Final = PortfolioLoop(run_together, Coin, BarLog)
