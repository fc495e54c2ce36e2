"""An exchange's reports are booked as the simulated one's fills, in whole and in parts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.orders import OrderKind
from core.records import to_jsonable, zeros
from engine.booking import book_exit, book_funding, book_side, book_take_profit
from engine.grid_v4.book import OrderBook
from engine.grid_v4.booking import begin_stop, book_entry
from engine.grid_v4.decision import arrange
from engine.grid_v4.execution import fill_entry, fill_take_profit, trigger_stop
from engine.grid_v4.types import State
from engine.ledger import equity_at, market_price, settle_funding
from engine.types import DIRECTION_NAMES as NAMES
from engine.types import LONG, POSITION_SYNC, SHORT, STOP, Tape
from tests.support.markets.oracle import StepLoop, coin_rules, inputs_of
from tests.support.markets.synthetic import synthetic_candles

BUSY = {"grid_spacing_k": 0.5, "spacing_floor": 0.002, "regime_enabled": False, "leverage": 5.0}


def copied(state: State) -> State:
    """Return a copy of a state."""
    twin = zeros(State)
    np.asarray(twin)[()] = np.asarray(state)
    return twin


def moments(pick: Callable[[StepLoop], bool], most: int = 12) -> Iterator[StepLoop]:
    """Yield the loop at decided steps for which ``pick`` holds."""
    loop = StepLoop(
        inputs_of(synthetic_candles(2_500, 11), BUSY | {"tp_concentration": 0.6}, coin_rules("BTC"))
    )
    found = 0
    for i in range(len(loop.inputs.bars)):
        if loop.acts(i):
            loop.decide(i)
            if pick(loop):
                found += 1
                yield loop
                if found == most:
                    return
            loop.match(i)
        assert loop.trades is not None
    assert found > 3, "the scenario must meet the situation"


def records(tape: Tape) -> list[Any]:
    table: Any = tape.trades
    return [to_jsonable(row) for row in table[: int(tape.n_trades)]]


def assert_same(ours: tuple[State, Tape], theirs: tuple[State, Tape]) -> None:
    assert records(ours[1]) == records(theirs[1])
    assert to_jsonable(ours[0]) == to_jsonable(theirs[0])


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_a_whole_entry_is_booked_as_the_simulated_exchange_fills_it(side: int) -> None:
    for loop in moments(lambda loop: loop.state.sides[side].next_entry > 0.0):
        x = loop.inputs
        simulated, booked = copied(loop.state), copied(loop.state)
        tapes = zeros(Tape), zeros(Tape)
        fill_entry(simulated, x.params, x.market, side, tapes[0])
        position = booked.sides[side]
        level = int(position.next_entry_level)
        price, qty = float(position.entries[level]), float(position.levels[level].qty)
        fee = price * qty * x.params.fee_maker
        book_entry(
            booked,
            x.params,
            x.market,
            side,
            int(position.generation),
            level,
            price,
            qty,
            fee,
            tapes[1],
        )
        assert_same((booked, tapes[1]), (simulated, tapes[0]))


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_a_whole_take_profit_is_booked_as_the_simulated_exchange_fills_it(side: int) -> None:
    for loop in moments(lambda loop: loop.state.sides[side].next_tp > 0.0):
        x = loop.inputs
        simulated, booked = copied(loop.state), copied(loop.state)
        tapes = zeros(Tape), zeros(Tape)
        price = float(simulated.sides[side].next_tp)
        fill_take_profit(simulated, x.params, x.market, side, tapes[0])
        qty = sum(row["qty"] for row in records(tapes[0]))
        fee = sum(row["fee"] for row in records(tapes[0]))
        left = book_take_profit(booked, x.market, side, price, price, qty, fee, tapes[1])
        assert left == 0.0
        assert [row["qty"] for row in records(tapes[1])] == [
            row["qty"] for row in records(tapes[0])
        ]
        assert booked.wallet == pytest.approx(simulated.wallet, rel=1e-14)
        assert booked.sides[side].qty == simulated.sides[side].qty
        assert booked.sides[side].next_tp == simulated.sides[side].next_tp


@pytest.mark.parametrize("side", [LONG, SHORT])
def test_a_fired_stop_is_booked_as_the_simulated_exchange_does_it(side: int) -> None:
    for loop in moments(lambda loop: loop.state.sides[side].stop_price > 0.0):
        x = loop.inputs
        simulated, booked = copied(loop.state), copied(loop.state)
        tapes = zeros(Tape), zeros(Tape)
        basis = float(simulated.sides[side].stop_price)
        trigger_stop(simulated, x.params, x.market, side, basis, tapes[0])
        price, qty = market_price(x.params, x.market, side, basis), float(booked.sides[side].qty)
        begin_stop(booked, x.params, side)
        left = book_side(
            booked,
            x.market,
            side,
            price,
            qty,
            price * qty * x.params.fee_taker,
            STOP + side,
            tapes[1],
        )
        assert left == 0.0
        assert [(row["qty"], row["price"]) for row in records(tapes[1])] == [
            (row["qty"], row["price"]) for row in records(tapes[0])
        ]
        assert booked.wallet == pytest.approx(simulated.wallet, rel=1e-14)
        assert booked.n_stop_events == simulated.n_stop_events
        assert not [order for order in OrderBook(booked, 5) if order.position_side == NAMES[side]]


@given(cuts=st.lists(st.integers(1, 9), min_size=1, max_size=4))
@settings(deadline=None, max_examples=15)
def test_parts_of_an_entry_make_the_fill_that_the_whole_makes(cuts: list[int]) -> None:
    loop = next(moments(lambda loop: loop.state.sides[LONG].next_entry > 0.0))
    x = loop.inputs
    whole, parts = copied(loop.state), copied(loop.state)
    position = whole.sides[LONG]
    level, generation = int(position.next_entry_level), int(position.generation)
    price, lots = float(position.entries[level]), round(float(position.levels[level].qty) * 1000)
    cuts = [cut for cut in cuts if cut < lots]
    sizes = np.diff(sorted({0, lots, *np.cumsum(cuts)[np.cumsum(cuts) < lots].tolist()})) / 1000
    book_entry(
        whole, x.params, x.market, LONG, generation, level, price, lots / 1000, 0.5, zeros(Tape)
    )
    before = int(parts.sides[LONG].n_fills)
    for size in sizes:
        fee = 0.5 * float(size) / (lots / 1000)
        book_entry(
            parts, x.params, x.market, LONG, generation, level, price, float(size), fee, zeros(Tape)
        )
    assert parts.sides[LONG].n_fills == before + 1
    ours, theirs = parts.sides[LONG].fills[before], whole.sides[LONG].fills[before]
    for name in ("qty", "entry_qty", "fill_id", "level", "busy"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.entry_fee == pytest.approx(theirs.entry_fee)
    assert parts.wallet == pytest.approx(whole.wallet, rel=1e-14)
    assert parts.sides[LONG].stop_price == whole.sides[LONG].stop_price
    assert parts.sides[LONG].levels[level].qty == 0.0


def test_the_rest_of_an_entry_goes_on_resting_and_occupies_no_second_place() -> None:
    loop = next(moments(lambda loop: loop.state.sides[LONG].next_entry > 0.0))
    x, state = loop.inputs, copied(loop.state)
    position = state.sides[LONG]
    level, price = int(position.next_entry_level), float(position.next_entry)
    ordered = float(position.levels[level].qty)
    resting = sum(1 for order in OrderBook(state, 5) if order.kind is OrderKind.ENTRY)
    book_entry(
        state,
        x.params,
        x.market,
        LONG,
        int(position.generation),
        level,
        price,
        0.001,
        0.01,
        zeros(Tape),
    )
    arrange(state, x.params, x.market)
    rest = {
        order.level: order.qty
        for order in OrderBook(state, 5)
        if order.kind is OrderKind.ENTRY and order.position_side == "LONG"
    }
    assert rest[level] == pytest.approx(ordered - 0.001)
    assert sum(1 for order in OrderBook(state, 5) if order.kind is OrderKind.ENTRY) == resting


def test_an_order_of_an_earlier_grid_that_filled_late_occupies_no_level() -> None:
    loop = next(moments(lambda loop: loop.state.sides[LONG].next_entry > 0.0))
    x, state = loop.inputs, copied(loop.state)
    position = state.sides[LONG]
    armed = [bool(position.levels[k].armed) for k in range(5)]
    book_entry(
        state,
        x.params,
        x.market,
        LONG,
        int(position.generation) - 1,
        2,
        100.0,
        0.01,
        0.01,
        zeros(Tape),
    )
    assert [bool(position.levels[k].armed) for k in range(5)] == armed
    assert position.fills[int(position.n_fills) - 1].generation == position.generation - 1


def test_more_than_the_ledger_holds_is_handed_back() -> None:
    loop = next(moments(lambda loop: loop.state.sides[LONG].n_fills > 0))
    x, state = loop.inputs, copied(loop.state)
    position = state.sides[LONG]
    held, fill_id = float(position.qty), int(position.fills[0].fill_id)
    first = float(position.fills[0].qty)
    left = book_exit(state, x.market, LONG, fill_id, 100.0, first + 0.002, 0.1, STOP, zeros(Tape))
    assert left == pytest.approx(0.002)
    assert book_exit(
        state, x.market, LONG, fill_id, 100.0, 0.001, 0.1, STOP, zeros(Tape)
    ) == pytest.approx(0.001)
    left = book_side(state, x.market, LONG, 100.0, held, 0.0, POSITION_SYNC, zeros(Tape))
    assert left == pytest.approx(first)
    assert position.qty == 0.0


def test_funding_that_was_paid_reaches_the_wallet_and_the_fills_their_shares() -> None:
    loop = next(moments(lambda loop: loop.state.sides[LONG].n_fills > 0))
    ours, theirs = copied(loop.state), copied(loop.state)
    total = settle_funding(theirs, 0.0001, 100.0)
    book_funding(ours, total + 0.25, 0.0001, 100.0)
    assert ours.wallet == pytest.approx(theirs.wallet + 0.25)
    assert ours.funding == pytest.approx(theirs.funding + 0.25)
    assert ours.sides[LONG].fills[0].funding == theirs.sides[LONG].fills[0].funding
    assert equity_at(ours, 100.0) == pytest.approx(equity_at(theirs, 100.0) + 0.25)
