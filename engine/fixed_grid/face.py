"""The fixed grid as drivers see it; see :class:`engine.contract.Strategy`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from core.market import MarketRules, lots_nearest
from core.records import dtype_of, load_jsonable, table_capacities, to_jsonable, zeros
from core.times import MINUTE_MS
from engine.contract import (
    POSITION_SIDES,
    AccountEvent,
    Bar,
    CloseAll,
    Exit,
    ExitsDone,
    Fill,
    Gap,
    Moment,
    Needs,
    OpenFill,
    RestingOrder,
    SideView,
    SimulatedEvent,
    View,
)
from engine.fixed_grid.decision import FIXED_PHASES, arrange, go_on, open_fixed_step, protect
from engine.fixed_grid.frozen import freeze_params
from engine.fixed_grid.matching import walk_bar, walk_gap
from engine.fixed_grid.params import FixedGridParams
from engine.fixed_grid.positions import close_all, drop_working, execute_exit, liquidate
from engine.fixed_grid.stops import deal_stops
from engine.fixed_grid.types import (
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
from engine.ledger import equity_at, settle_funding, unrealized_at
from engine.results import trade_dicts
from engine.types import LABEL_NAMES, LIQUIDATION, LONG, RECOVERY_HEDGE_OPEN, SHORT, sign_of
from engine.types import Bar as BarRecord

_TIMEFRAMES: Final = {60: "1m", 300: "5m", 900: "15m"}
_SIDES: Final = {"LONG": LONG, "SHORT": SHORT}
_LIQUIDATION_NAME: Final = LABEL_NAMES[LIQUIDATION]
_HEDGE_OPEN_NAME: Final = LABEL_NAMES[RECOVERY_HEDGE_OPEN]


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

    def __init__(
        self, params: FixedGridParams, rules: MarketRules | None, fingerprint: str
    ) -> None:
        self.params, self.fingerprint = params, fingerprint
        self.needs = Needs(
            bars=(_TIMEFRAMES[params.step_s], params.step_s // 60 * MINUTE_MS),
            truth="exchange",
            indicators=False,
        )
        self._params = freeze_params(params)
        self._market: Any = rules.to_record(params.liquidation_fee) if rules else None
        self.state: FixedState = new_fixed_state(params.initial_capital)
        self._tape, self._bar = zeros(FixedTape), zeros(BarRecord)

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
        label = LABEL_NAMES[int(out.label)]
        side = POSITION_SIDES[int(out.side)]
        return Exit(side, int(out.fill_id), float(out.qty), label)

    def arrange(self) -> None:
        """See :func:`engine.fixed_grid.decision.arrange`."""
        arrange(self.state, self._params, self._market)

    def desired(self, unbooked: Sequence[Fill] = ()) -> Iterable[RestingOrder]:
        """Return the entry, close orders and rungs, and stops."""
        if unbooked:
            raise NotImplementedError
        return list(self._orders())

    def _orders(self) -> Iterator[RestingOrder]:
        own, working = self.state.sides[self._params.side], self.state.working
        side = POSITION_SIDES[int(self._params.side)]
        if working.price > 0.0:
            price = float(working.price)
            yield RestingOrder(side, "ENTRY", price, float(working.qty), int(working.slot))
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            level = int(position.slot)
            if position.stage == STAGE_OPEN and position.close_price > 0.0:
                price, qty = float(position.close_price), float(position.qty)
                yield RestingOrder(side, "TAKE_PROFIT", price, qty, level)
            elif position.stage == STAGE_LADDER:
                ladder = self.state.ladders[level]
                for k in range(int(ladder.n_rungs)):
                    rung = ladder.rungs[k]
                    price, qty = float(rung.price), float(rung.qty)
                    yield RestingOrder(side, "TAKE_PROFIT", price, qty, level)
        yield from self._stops(side)

    def _stops(self, side: str) -> Iterator[RestingOrder]:
        own, shared = self.state.sides[self._params.side], 0.0
        for row in range(int(own.n_fills)):
            position = own.fills[row]
            if position.stop <= 0.0 or position.stage == STAGE_HEDGED:
                continue
            if not position.owns_stop:
                shared = lots_nearest(self._market, shared + float(position.qty))
                continue
            price, qty = float(position.stop), float(position.qty)
            yield RestingOrder(side, "STOP", price, qty, int(position.slot))
        if shared > 0.0 and self.state.shared_stop > 0.0:
            yield RestingOrder(side, "STOP", float(self.state.shared_stop), shared, -1)

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

    def restore_stops(self) -> None:
        """Deal the stops again, of what still holds something after a stop fired."""
        deal_stops(self.state, self._params)
        self.state.nearest.stale = True

    # --- what the account reports -----------------------------------------------------------------

    def book(self, event: AccountEvent) -> float:
        """Refuse: orders at an exchange are not carried out yet."""
        raise NotImplementedError(f"{type(event).__name__} cannot be booked")

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
