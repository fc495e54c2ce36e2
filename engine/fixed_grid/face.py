"""The fixed grid as drivers see it; see :class:`engine.contract.Strategy`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final
from zlib import crc32

import numpy as np

from core.market import MarketRules, lots_nearest
from core.orders import POSITION_SIDES, OrderKind
from core.records import dtype_of, load_jsonable, table_capacities, to_jsonable, zeros
from core.times import MINUTE_MS
from engine.booking import book_funding
from engine.contract import (
    AccountEvent,
    Bar,
    CloseAll,
    CycleState,
    Exit,
    ExitsDone,
    Fill,
    ForeignClose,
    FundingPaid,
    Gap,
    Liquidation,
    LiquidationDecided,
    Moment,
    Needs,
    OpenFill,
    OrderIdentity,
    RestingOrder,
    SideView,
    SimulatedEvent,
    StopFired,
    View,
)
from engine.fixed_grid import order_names as names
from engine.fixed_grid.booking import (
    begin_stop,
    book_close_order,
    book_entry,
    book_hedge_close,
    book_hedge_open,
    book_market_close,
    book_stop,
    give_up,
    row_of_cycle,
)
from engine.fixed_grid.decision import FIXED_PHASES, arrange, go_on, open_fixed_step, protect
from engine.fixed_grid.frozen import FixedParams, freeze_params
from engine.fixed_grid.matching import walk_bar, walk_gap
from engine.fixed_grid.order_names import OrderName
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.positions import (
    close_all,
    drop_working,
    execute_exit,
    free_slot,
    liquidate,
    margin_used,
)
from engine.fixed_grid.restoring import (
    add_position,
    restore_ladder,
    restore_old_position,
    restore_own_stops,
    restore_resting,
)
from engine.fixed_grid.sizes import order_qty
from engine.fixed_grid.stops import cover_sharing, deal_stops
from engine.fixed_grid.types import (
    EPOCH_2020_S,
    GATE_NAMES,
    HEALTH_NAMES,
    MARK_NAMES,
    NO_GATE,
    STAGE_HEDGED,
    STAGE_LADDER,
    STAGE_OPEN,
    FixedCounters,
    FixedState,
    FixedTape,
    new_fixed_state,
)
from engine.ledger import equity_at, find_fill, settle_funding, unrealized_at
from engine.trade_tables import trade_dicts
from engine.types import (
    LABEL_NAMES,
    LIQUIDATION,
    LONG,
    POSITION_SYNC,
    RECOVERY_HEDGE_CLOSE,
    RECOVERY_HEDGE_OPEN,
    SHORT,
    sign_of,
)
from engine.types import Bar as BarRecord

_KINDS: Final = {
    names.ENTRY: OrderKind.ENTRY,
    names.CLOSE: OrderKind.TAKE_PROFIT,
    names.RUNG: OrderKind.TAKE_PROFIT,
    names.STOP: OrderKind.STOP,
    names.MARKET_CLOSE: OrderKind.EXIT,
    names.HEDGE_OPEN: OrderKind.EXIT,
    names.HEDGE_CLOSE: OrderKind.EXIT,
}
_TIMEFRAMES: Final = {60: "1m", 300: "5m", 900: "15m"}
_SIDES: Final = {"LONG": LONG, "SHORT": SHORT}
_LIQUIDATION_NAME: Final = LABEL_NAMES[LIQUIDATION]
_HEDGE_OPEN_NAME: Final = LABEL_NAMES[RECOVERY_HEDGE_OPEN]


CENT: Final = 0.01
EXIT_REASONS: Final = (
    "RECOVERY_CLOSE",
    "RECOVERY_ESCALATION",
    "RECOVERY_HEDGE_CLOSE",
    "STOP_PRICE",
    "STOP_LONG",
    "STOP_SHORT",
    "LIQUIDATION",
    "CLOSE_END",
)
"""Labels of market orders; their places are the marks of the orders' names."""
RELEASES: Final = len(EXIT_REASONS)
"""Mark of a hedge's close after which its position goes on."""


class FixedGridFace:
    """One state record, the kernels that decide on it, and those that book what happened.

    Args:
        params: validated.
        rules: of the symbol; None: the state can be read, and nothing else.
        fingerprint: names the decision code.
    """

    name: str = "fixed_grid"
    phases: int = FIXED_PHASES
    asks_again: bool = True
    stops_positions: bool = True

    def __init__(
        self, params: FixedGridParams, rules: MarketRules | None, fingerprint: str
    ) -> None:
        self._symbol_number = 0
        self.params, self.fingerprint = params, fingerprint
        self.needs = Needs(
            bars=(_TIMEFRAMES[params.step_s], params.step_s // 60 * MINUTE_MS),
            truth="exchange",
            indicators=False,
        )
        self._params = freeze_params(params)
        self._rules = rules
        self._market: Any = rules.to_record(params.liquidation_fee) if rules else None
        self.state: FixedState = new_fixed_state(params.initial_capital)
        self._tape, self._bar = zeros(FixedTape), zeros(BarRecord)

    @property
    def frozen_params(self) -> FixedParams:
        """The parameters as kernels read them."""
        return self._params

    @property
    def capacities(self) -> dict[str, int]:
        """Lengths of the state's tables, by dotted name."""
        return table_capacities(dtype_of(FixedState))

    @property
    def ended(self) -> bool:
        """Whether nothing is left of the capital."""
        return bool(self.state.ended)

    @property
    def stopped(self) -> bool:
        """Whether the stop price has ended the session, and all is closed."""
        return bool(self.state.stopped) and int(self.state.sides[self._params.side].n_fills) == 0

    @property
    def paused(self) -> bool:
        """Whether a person has paused the entries."""
        return bool(self.state.paused)

    @property
    def is_stopping_price_reached(self) -> bool:
        """Whether the stop price was crossed, also while something is still open."""
        return bool(self.state.stopped)

    # --- deciding -------------------------------------------------------------------------------

    def begin(self, now: Moment) -> None:
        """See :func:`engine.fixed_grid.decision.open_fixed_step`."""
        if now.signal is None:
            self._go_to(now.ts_ms)
            return
        bar = now.ts_ms // self.needs.bar_ms
        open_fixed_step(self.state, self._params, bar, now.ts_ms, now.price, now.prev_close)

    def _go_to(self, ts_ms: int) -> None:
        bar = ts_ms // self.needs.bar_ms
        if bar > self.state.now.bar:
            go_on(self.state, self._params, bar, bar * self.needs.bar_ms)

    def exits(self, phase: int) -> list[Exit]:
        """Return the next market orders of a phase; it is asked again when they are done."""
        if self.state.ended:
            return []
        n = protect(self.state, self._params, self._market, phase, self._tape)
        return [self._exit(self._tape.exits[k]) for k in range(n)]

    def _exit(self, out: Any) -> Exit:
        label, fill_id = LABEL_NAMES[int(out.label)], int(out.fill_id)
        if label == _LIQUIDATION_NAME:
            return Exit(POSITION_SIDES[int(out.side)], fill_id, 0.0, label)
        return Exit(
            position_side=POSITION_SIDES[int(out.side)],
            fill_id=fill_id,
            qty=float(out.qty),
            label=label,
            opens=label == _HEDGE_OPEN_NAME,
            owner=self._owner_of_exit(fill_id, label, releases=bool(out.releases)),
        )

    def exit_owner(self, fill_id: int, label: str) -> str:
        """Return the name of a market order that closes a leg."""
        return self._owner_of_exit(fill_id, label, releases=False)

    def _owner_of_exit(self, fill_id: int, label: str, *, releases: bool) -> str:
        own = self.state.sides[self._params.side]
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            if label == _HEDGE_OPEN_NAME and position.fill_id == fill_id:
                return self._named(position, names.HEDGE_OPEN).stem
            if position.fill_id == fill_id:
                reason = EXIT_REASONS.index(label)
                return self._named(position, names.MARKET_CLOSE, reason).stem
            if position.hedge_id == fill_id:
                reason = RELEASES if releases else EXIT_REASONS.index(label)
                return self._named(position, names.HEDGE_CLOSE, reason).stem
        raise ValueError(f"no position has the leg {fill_id}")

    def _named(self, position: Any, kind: str, mark: int = 0) -> OrderName:
        ticks = self._ticks(float(position.price))
        return OrderName(int(position.cycle), kind, int(position.slot), mark, ticks)

    def _ticks(self, price: float) -> int:
        """Return a price in ticks; 0 where the rules are not known, as orders are only shown."""
        return 0 if self._market is None else round(price / float(self._market.tick_size))

    def order_id(self, owner: str, bar: int, count: int) -> str:
        """Return what the client id of an order carries behind the prefix of the instance.

        Args:
            owner: the order's name.
            bar: the step that sends it.
            count: how many orders of that name the step has sent already.
        """
        name = names.read_stem(owner)
        if name.kind in {names.ENTRY, names.CLOSE, names.STOP}:
            name = replace(name, mark=count)
        since = (name.cycle + EPOCH_2020_S) // self.params.step_s
        return name.at_step(max(0, bar - since))

    def stopped_by(self, owner: str) -> list[int]:
        """Return the ids of the legs that a stop is for: one, or all that share it."""
        name, own = names.read_stem(owner), self.state.sides[self._params.side]
        rows = (own.fills[row] for row in range(int(own.n_fills)))
        if name.is_shared_stop:
            return [
                int(position.fill_id)
                for position in rows
                if position.stop > 0.0 and not position.owns_stop and position.stage != STAGE_HEDGED
            ]
        return [int(position.fill_id) for position in rows if position.cycle == name.cycle]

    def set_mismatch(self, *, is_wrong: bool) -> None:
        """Enter nothing while ledger and account differ; every onset counts."""
        self.state.counters.mismatches += is_wrong and not self.state.mismatch
        self.state.mismatch = is_wrong

    def drop_entry(self) -> None:
        """Want the working order no more."""
        drop_working(self.state)

    def refuse(self, owner: str) -> None:
        """Take in that a hedge is refused: its position is closed instead."""
        name = names.read_stem(owner)
        row = int(row_of_cycle(self.state.sides[self._params.side], name.cycle))
        if name.kind == names.HEDGE_OPEN and row >= 0:
            self.state.sides[self._params.side].fills[row].hedge_refused = True

    def fewer_stops(self) -> None:
        """Share one stop more among the positions; at the least they share one."""
        self._params = self._params.copy()  # type: ignore[attr-defined]  # a record
        self._params.max_stop_orders = max(1, int(self._params.max_stop_orders) - 1)
        deal_stops(self.state, self._params)
        self.state.nearest.stale = True

    def arrange(self) -> None:
        """See :func:`engine.fixed_grid.decision.arrange`."""
        arrange(self.state, self._params, self._market)

    def desired(self, unbooked: Sequence[Fill] = ()) -> Iterable[RestingOrder]:
        """Return the entry, close orders and rungs, and stops."""
        if not unbooked:
            return list(self._orders(self.state))
        state = self.state.copy()  # type: ignore[attr-defined]  # a record: see core.records
        for fill in unbooked:
            self._book_fill(state, fill, zeros(FixedTape))
        return list(self._orders(state))

    def _orders(self, state: Any) -> Iterator[RestingOrder]:
        own, working = state.sides[self._params.side], state.working
        side = POSITION_SIDES[int(self._params.side)]
        if working.price > 0.0:
            yield self._entry(side, working)
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            level, cycle = int(position.slot), int(position.cycle)
            if position.stage == STAGE_OPEN and position.close_price > 0.0:
                price, qty = float(position.close_price), float(position.qty)
                owner = self._named(position, names.CLOSE).stem
                yield RestingOrder(side, OrderKind.TAKE_PROFIT, price, qty, level, cycle, owner)
            elif position.stage == STAGE_LADDER:
                ladder = state.ladders[level]
                for k in range(int(ladder.n_rungs)):
                    rung = ladder.rungs[k]
                    price, qty = float(rung.price), float(rung.qty)
                    owner = self._named(position, names.RUNG, int(rung.number)).stem
                    yield RestingOrder(side, OrderKind.TAKE_PROFIT, price, qty, level, cycle, owner)
        yield from self._stops(state, side)

    def _entry(self, side: str, working: Any) -> RestingOrder:
        price, cycle, slot = float(working.price), int(working.cycle), int(working.slot)
        ticks = self._ticks(price)
        owner = OrderName(cycle, names.ENTRY, slot, 0, ticks).stem
        return RestingOrder(side, OrderKind.ENTRY, price, float(working.qty), slot, cycle, owner)

    def _stops(self, state: Any, side: str) -> Iterator[RestingOrder]:
        own, shared = state.sides[self._params.side], 0.0
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            if position.stop <= 0.0 or position.stage == STAGE_HEDGED:
                continue
            if not position.owns_stop:
                shared += float(position.qty)
                continue
            price, qty, slot = float(position.stop), float(position.qty), int(position.slot)
            owner = self._named(position, names.STOP).stem
            yield RestingOrder(side, OrderKind.STOP, price, qty, slot, int(position.cycle), owner)
        if shared > 0.0 and state.shared_stop > 0.0:
            if self._market is not None:
                shared = float(lots_nearest(self._market, shared))
            owner = OrderName(0, names.STOP, 0, 0, self._symbol_number).stem
            yield RestingOrder(side, OrderKind.STOP, float(state.shared_stop), shared, -1, 0, owner)

    def cancel(self, position_side: str, *, keep_stop: bool) -> None:
        """Take the orders of a side off the book."""
        if _SIDES[position_side] != int(self._params.side):
            return
        state, own = self.state, self.state.sides[self._params.side]
        drop_working(state)
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            position.close_price = 0.0
            if not keep_stop:
                position.owns_stop = False
        if not keep_stop:
            state.shared_stop = 0.0
        state.nearest.stale = state.exits_stale = True

    def use_rules(self, rules: MarketRules) -> None:
        """Decide by another lot, other minimums and brackets from now on.

        The tick stays: the names of orders that rest, and of positions, count prices in it. An
        order goes to the exchange on the exchange's tick all the same.
        """
        if self._rules is not None:
            rules = replace(rules, tick_size=self._rules.tick_size)
        self._rules, self._market = rules, rules.to_record(self.params.liquidation_fee)

    def restore_stops(self) -> None:
        """Give those that share a stop one, where it has fired or none is wanted yet."""
        cover_sharing(self.state, self._params)

    # --- from the exchange alone ------------------------------------------------------------------

    def name_symbol(self, symbol: str) -> None:
        """Let the shared stop's name hold the symbol: names of stops belong to the account."""
        self._symbol_number = crc32(symbol.encode()) % 36**6

    def identify(self, text: str) -> OrderIdentity | None:
        """Return what an order is about, from its client id behind the prefix of the instance."""
        found = names.read_name(text)
        if found is None:
            return None
        name, steps = found
        label = ""
        if name.kind in {names.MARKET_CLOSE, names.HEDGE_CLOSE}:
            reason = 2 if name.mark == RELEASES else name.mark
            label = EXIT_REASONS[reason]
        elif name.kind == names.HEDGE_OPEN:
            label = _HEDGE_OPEN_NAME
        counted = name.kind in {names.ENTRY, names.CLOSE, names.STOP}
        return OrderIdentity(
            kind=_KINDS[name.kind],
            owner=(replace(name, mark=0) if counted else name).stem,
            bar=(name.cycle + EPOCH_2020_S) // self.params.step_s + steps,
            label=label,
            opens=name.kind == names.HEDGE_OPEN,
        )

    def lay_again(self, owners: Mapping[str, float], ts_ms: int) -> None:
        """Lay a ladder as it was laid at ``ts_ms``: prices of its rungs (quote) by their names."""
        rungs = {names.read_stem(owner).mark: price for owner, price in owners.items()}
        name = names.read_stem(next(iter(owners)))
        with self._at(ts_ms):
            step_s = int(self.state.now.step_s)
            restore_ladder(self.state, self._params, self._market, name.cycle, rungs, step_s)

    def note_own_stops(self, owners: Iterable[str]) -> None:
        """Note which stop orders rested when a shared one fired."""
        restore_own_stops(self.state, self._params, self._cycles(owners))

    def _cycles(self, owners: Iterable[str]) -> set[int]:
        found = (names.read_stem(owner) for owner in owners)
        return {name.cycle for name in found if not name.is_shared_stop}

    def take_over(self, resting: Sequence[RestingOrder], entered: Collection[str]) -> None:
        """Take over what rests at the exchange, once every execution is booked."""
        entry, closes, shared = None, dict[int, float](), 0.0
        stops = [order for order in resting if order.kind is OrderKind.STOP]
        for order in resting:
            name = names.read_stem(order.owner)
            if order.kind is OrderKind.ENTRY:
                entry = (name, order.price, order.qty)
            elif order.kind is OrderKind.TAKE_PROFIT:
                if order.owner.partition("-")[0] not in entered:
                    self._know(name, order)
                if name.kind == names.CLOSE:
                    closes[name.cycle] = order.price
            elif name.is_shared_stop:
                shared = order.price
        cycles = self._cycles(order.owner for order in stops)
        restore_resting(self.state, self._params, entry, closes, cycles, shared)

    def _know(self, name: OrderName, order: RestingOrder) -> None:
        """Add the position of a close order whose entry is too old to be listed."""
        own = self.state.sides[self._params.side]
        if int(row_of_cycle(own, name.cycle)) >= 0 or self._rules is None:
            return
        restore_old_position(self.state, self._params, self._rules, name, order.qty)

    def adopt(self, position_side: str, qty: float, price: float, ts_ms: int) -> bool:
        """Make quantity of the account a position in a free slot; whether it is of our side.

        Args:
            position_side: LONG or SHORT.
            qty: base.
            price: mean entry of the account, quote.
            ts_ms: now.
        """
        if _SIDES[position_side] != int(self._params.side):
            return False
        with self._at(ts_ms):
            cycle = int(self.state.now.step_s) - EPOCH_2020_S
            slot = int(free_slot(self.state, self._params))
            add_position(self.state, self._params, self._market, cycle, slot, price, qty)
        return True

    def cycles(self) -> list[str]:
        """Return the names of the open cycles, oldest first."""
        own = self.state.sides[self._params.side]
        found = sorted(int(own.fills[row].cycle) for row in range(int(own.n_fills)))
        return [names.in_base_36(cycle, 6) for cycle in found]

    def exits_of(self, cycle: str, label: str) -> list[Exit]:
        """Return the market exits of all legs of a cycle, the long leg first."""
        own, hedges = self.state.sides[self._params.side], self.state.sides[self._params.hedge_side]
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            if names.in_base_36(int(position.cycle), 6) != cycle.lower().rjust(6, "0"):
                continue
            found = [self._leg_exit(int(self._params.side), position, label)]
            if position.hedge_id >= 0:
                leg = hedges.fills[int(find_fill(hedges, int(position.hedge_id)))]
                found.append(self._leg_exit(int(self._params.hedge_side), leg, label))
            return sorted(found, key=lambda out: out.position_side)
        return []

    def _leg_exit(self, side: int, leg: Any, label: str) -> Exit:
        fill_id = int(leg.fill_id)
        owner = self._owner_of_exit(fill_id, label, releases=False)
        return Exit(POSITION_SIDES[side], fill_id, float(leg.qty), label, owner=owner)

    def set_flags(self, *, paused: bool, stopped: bool) -> None:
        """Take over what a person, or the stop price, has decided before."""
        self.state.paused, self.state.stopped = paused, stopped

    # --- what the account reports -----------------------------------------------------------------

    def book(self, event: AccountEvent) -> float:
        """Book what an exchange reports; see :mod:`engine.fixed_grid.booking`."""
        if isinstance(event, FundingPaid):
            book_funding(self.state, event.amount, event.rate, event.mark)
            return 0.0
        if isinstance(event, LiquidationDecided):
            self.state.counters.liquidations += 1
            return 0.0
        with self._at(event.ts_ms):
            if isinstance(event, Fill):
                return self._book_fill(self.state, event, self._tape)
            if isinstance(event, StopFired):
                begin_stop(self.state, self._params, self._market, event.trigger)
                return 0.0
            return self._give_up(event)

    @contextmanager
    def _at(self, ts_ms: int) -> Iterator[None]:
        """Let what is booked have the time at which it happened, also where it is listed late."""
        now, bar_ms = self.state.now, self.needs.bar_ms
        kept = (int(now.bar), int(now.ts_ms), int(now.step_s))
        bar = ts_ms // bar_ms if ts_ms else kept[0]
        go_on(self.state, self._params, bar, bar * bar_ms)
        yield
        if kept[0] > bar:
            now.bar, now.ts_ms, now.step_s = kept

    def _book_fill(self, state: FixedState, fill: Fill, tape: FixedTape) -> float:
        name, params, market = names.read_stem(fill.owner), self._params, self._market
        price, qty, fee = fill.price, fill.qty, fill.fee
        if name.kind == names.ENTRY:
            book_entry(state, params, market, name.cycle, name.slot, price, qty, fee, tape)
            return 0.0
        if name.kind in {names.CLOSE, names.RUNG}:
            rung = name.mark if name.kind == names.RUNG else -1
            return float(
                book_close_order(state, params, market, name.cycle, rung, price, qty, fee, tape)
            )
        if name.kind == names.STOP:
            cycle = name.cycle if name.cycle > 0 else -1
            return float(book_stop(state, params, market, cycle, price, qty, fee, tape))
        if name.kind == names.HEDGE_OPEN:
            return float(book_hedge_open(state, params, market, name.cycle, price, qty, fee, tape))
        return self._book_market(state, name, fill, tape)

    def _book_market(
        self, state: FixedState, name: OrderName, fill: Fill, tape: FixedTape
    ) -> float:
        params, market, price = self._params, self._market, fill.price
        if name.kind == names.MARKET_CLOSE:
            label = LABEL_NAMES.index(EXIT_REASONS[name.mark])
            return float(
                book_market_close(
                    state, params, market, name.cycle, price, fill.qty, fill.fee, label, tape
                )
            )
        releases = name.mark == RELEASES
        reason = RECOVERY_HEDGE_CLOSE
        if not releases:
            reason = LABEL_NAMES.index(EXIT_REASONS[name.mark])
        return float(
            book_hedge_close(
                state, params, market, name.cycle, price, fill.qty, fill.fee, reason, releases, tape
            )
        )

    def _give_up(self, event: Liquidation | ForeignClose) -> float:
        """Book what the exchange, or somebody else, has closed of a side: worst first."""
        label = LIQUIDATION if isinstance(event, Liquidation) else POSITION_SYNC
        if label == LIQUIDATION and not self.state.liquidated:
            self.state.liquidated = True
            self.state.counters.liquidations += 1
            drop_working(self.state)
        qty = float(lots_nearest(self._market, event.qty))
        left = give_up(
            self.state,
            self._params,
            self._market,
            _SIDES[event.position_side],
            event.price,
            qty,
            event.fee,
            label,
            self._tape,
        )
        held = any(int(self.state.sides[side].n_fills) for side in (LONG, SHORT))
        if label == LIQUIDATION and not held and self.state.wallet < CENT:
            self.state.ended = True  # what is left is what the exchange rounded
        return float(left)

    # --- what prices do -------------------------------------------------------------------------

    def simulate(self, event: SimulatedEvent) -> None:
        """See :mod:`engine.fixed_grid.matching`."""
        state, params, market, tape = self.state, self._params, self._market, self._tape
        if isinstance(event, Bar):
            self._walk(event)
        elif isinstance(event, Gap):
            walk_gap(state, params, market, event.start, event.end, tape)
        elif isinstance(event, ExitsDone):
            for k in range(int(tape.n_exits)):
                out = tape.exits[k]
                if out.label == LIQUIDATION:
                    liquidate(state, params, market, state.now.price, tape)
                else:
                    execute_exit(state, params, market, out, tape)
        elif isinstance(event, CloseAll):
            label = LABEL_NAMES.index(event.label)
            close_all(state, params, market, event.price, label, tape)
            drop_working(state)

    def _walk(self, bar: Bar) -> None:
        state, params, market, tape = self.state, self._params, self._market, self._tape
        record = self._bar
        record.ts_ms, record.open, record.close = bar.ts_ms, bar.open, bar.close
        record.high, record.low = bar.high, bar.low
        if bar.prev_close > 0.0:
            self._go_to(bar.ts_ms)
            walk_gap(state, params, market, bar.prev_close, bar.open, tape)
        if not state.ended:
            walk_bar(state, params, market, record, tape)
        if self.params.funding_enabled and bar.funding_rate != 0.0:
            settle_funding(state, bar.funding_rate, bar.close)

    # --- what others read -----------------------------------------------------------------------

    def view(self, price: float | None = None) -> View:
        """Return the account at ``price``, quote; None: at the step's."""
        state = self.state
        at = float(state.now.price) if price is None else price
        wallet = float(state.wallet)
        return View(
            price=at,
            wallet=wallet,
            equity=float(equity_at(state, at)) if at > 0.0 else wallet,
            funding=float(state.funding),
            long=self._side_view(LONG, at),
            short=self._side_view(SHORT, at),
            regime="NONE",
            halted=bool(state.paused or state.stopped or state.mismatch),
            ended=bool(state.ended),
            too_small=False,
            capital_needed=0.0,
            counters=self._counters(),
        )

    def _counters(self) -> dict[str, float]:
        counters = self.state.counters
        plain = {
            name: np.asarray(getattr(counters, name)).item()
            for name in _counter_names()
            if name not in {"blocked", "health"}
        }
        blocked: Any = counters.blocked
        return plain | {f"blocked_{name}": int(blocked[k]) for k, name in enumerate(GATE_NAMES)}

    def _side_view(self, side: int, price: float) -> SideView:
        ledger = self.state.sides[side]
        own = side == int(self._params.side)
        distance = float(ledger.avg_entry) * float(self._params.stop_share) if own else 0.0
        stop = float(self.state.nearest.stop_price) if own and ledger.n_fills > 0 else 0.0
        return SideView(
            qty=float(ledger.qty),
            avg_entry=float(ledger.avg_entry),
            unrealized=float(unrealized_at(ledger, sign_of(side), price)),
            n_fills=int(ledger.n_fills),
            stop=stop,
            risk=distance if self.params.stop_loss_enabled else 0.0,
            centre=float(self.state.working.price) if own else 0.0,
            spacing_pct=self.params.grid_step,
        )

    def fills(self, position_side: str) -> list[OpenFill]:
        """Return the open legs of a side, oldest first."""
        ledger = self.state.sides[_SIDES[position_side]]
        rows = (ledger.fills[row] for row in range(int(ledger.n_fills)))
        found = [
            OpenFill(
                int(leg.fill_id), position_side, int(leg.ts_ms), float(leg.price), float(leg.qty)
            )
            for leg in rows
            if leg.qty > 0.0
        ]
        return sorted(found, key=lambda leg: leg.fill_id)

    def take_trades(self) -> list[dict[str, Any]]:
        """Return the trade records on the tape, in their public names, and empty it."""
        n = int(self._tape.n_trades)
        if not n:
            return []
        table: Any = self._tape.trades
        records = trade_dicts(table[:n].copy())
        self._tape.n_trades = 0
        return records

    def take_marks(self) -> list[dict[str, Any]]:
        """Return what happened to cycles without a trade since the last call."""
        n = int(self._tape.n_marks)
        table: Any = self._tape.marks
        found = [
            {
                "ts_ms": int(mark["ts_ms"]),
                "event": MARK_NAMES[int(mark["kind"])],
                "cycle": int(mark["cycle"]),
                "slot": int(mark["slot"]),
                "price": float(mark["price"]),
                "qty": float(mark["qty"]),
            }
            for mark in table[:n]
        ]
        self._tape.n_marks = 0
        return found

    def cycle_state(self) -> CycleState:
        """Return how the cycles stand."""
        state, own = self.state, self.state.sides[self._params.side]
        working = state.working
        rests = float(working.price) > 0.0
        used = float(margin_used(state, self._params, with_working=True))
        return CycleState(
            open_cycles=tuple(int(own.fills[row].cycle) for row in range(int(own.n_fills))),
            gate=self.gate,
            health=self.health,
            is_wrong=bool(state.mismatch),
            is_paused=bool(state.paused),
            working=int(working.cycle) if rests else -1,
            working_price=float(working.price),
            working_qty=float(working.qty),
            margin=used / self.params.max_margin_usd,
            to_close=sum(
                float(own.fills[row].qty)
                for row in range(int(own.n_fills))
                if own.fills[row].stage != STAGE_HEDGED
            ),
            order_qty=self._order_qty(float(state.now.price)),
        )

    def _order_qty(self, price: float) -> float:
        known = self._market is not None and price > 0.0
        return float(order_qty(self.params, self._market, price)) if known else 0.0

    @property
    def gate(self) -> str:
        """Name of the gate that kept the last step's entry back, '' if none did."""
        gate = int(self.state.gate)
        return "" if gate == NO_GATE else GATE_NAMES[gate]

    @property
    def health(self) -> str:
        """Health after the last step."""
        return HEALTH_NAMES[int(self.state.health)]

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return dict(to_jsonable(self.state))

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Restore ``state_dict`` output.

        Raises:
            ValueError: the fields or capacities differ from this version's.
        """
        load_jsonable(self.state, data)


def _counter_names() -> tuple[str, ...]:
    return tuple(name for name in dtype_of(FixedCounters).names or ())
