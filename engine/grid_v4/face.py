"""GridStrategyV4 as drivers see it; see :class:`engine.contract.Strategy`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from core.market import MarketRules, lots_nearest
from core.orders import POSITION_SIDES, OrderKind
from core.params import StrategyParams
from core.records import dtype_of, freeze, table_capacities, to_jsonable, zeros
from core.times import BAR_MS
from engine.booking import book_exit, book_funding, book_side, book_take_profit
from engine.contract import (
    AccountEvent,
    Bar,
    CloseAll,
    Exit,
    ExitsDone,
    Fill,
    ForeignClose,
    Gap,
    Liquidation,
    LiquidationDecided,
    Moment,
    Needs,
    OpenFill,
    RestingOrder,
    SideView,
    SimulatedEvent,
    StopFired,
    StopsChecked,
    View,
)
from engine.grid_v4.book import OrderBook, clear_side, set_stop
from engine.grid_v4.booking import begin_liquidation, begin_stop, book_entry
from engine.grid_v4.decision import PROTECT_PHASES, arrange, move_clock, open_step, protect
from engine.grid_v4.execution import execute_exits, trigger_passed_stops
from engine.grid_v4.types import State, load_state, new_state
from engine.grid_v4.walk import walk_bar, walk_gap
from engine.ledger import close_side, settle_funding
from engine.margin import has_position
from engine.types import LABEL_NAMES, LIQUIDATION, LONG, POSITION_SYNC, SHORT, STOP, Tape
from engine.types import Bar as BarRecord
from engine.views import account_view, open_fills, side_view, taken_trades

CENT: Final = 0.01
NEEDS: Final = Needs(bars=("15m", BAR_MS))
_SIDES: Final = {"LONG": LONG, "SHORT": SHORT}


class GridV4:
    """One state record, the kernels that decide on it, and those that book what happened.

    Args:
        params: validated.
        rules: of the symbol; None: the state can be read, and nothing else.
        fingerprint: names the decision code.
    """

    name: str = "grid_v4"
    needs: Needs = NEEDS
    phases: int = PROTECT_PHASES
    asks_again: bool = False
    stops_positions: bool = False
    stopped: bool = False

    def __init__(self, params: StrategyParams, rules: MarketRules | None, fingerprint: str) -> None:
        self.params, self.fingerprint = params, fingerprint
        self._params = freeze(params)
        self._market: Any = self._record_of(rules) if rules else None
        self.state: State = new_state(params.initial_capital)
        self._tape, self._bar = zeros(Tape), zeros(BarRecord)

    def _record_of(self, rules: MarketRules) -> Any:
        return rules.to_record(self.params.liquidation_fee)

    @property
    def capacities(self) -> dict[str, int]:
        """Lengths of the state's tables, by dotted name."""
        return table_capacities(dtype_of(State))

    @property
    def ended(self) -> bool:
        """Whether nothing is left of the capital."""
        return bool(self.state.ended)

    # --- deciding -------------------------------------------------------------------------------

    def begin(self, now: Moment) -> None:
        """See :func:`engine.grid_v4.decision.open_step`."""
        if now.signal is None:
            self._go_to(now.ts_ms)
            return
        bar = now.ts_ms // NEEDS.bar_ms
        open_step(
            self.state, bar, now.ts_ms, now.price, now.prev_close, now.signal, now.funding_rate
        )

    def _go_to(self, ts_ms: int) -> None:
        bar = ts_ms // NEEDS.bar_ms
        if bar > self.state.now.bar:
            move_clock(self.state, bar, bar * NEEDS.bar_ms)

    def exits(self, phase: int) -> list[Exit]:
        """See :func:`engine.grid_v4.decision.protect`."""
        n = protect(self.state, self._params, self._market, phase, self._tape)
        decided = [self._tape.exits[k] for k in range(n)]
        return [
            Exit(
                POSITION_SIDES[int(out.side)],
                int(out.fill_id),
                float(out.qty),
                LABEL_NAMES[int(out.label)],
            )
            for out in decided
        ]

    def arrange(self) -> None:
        """See :func:`engine.grid_v4.decision.arrange`."""
        arrange(self.state, self._params, self._market)

    def desired(self, unbooked: Sequence[Fill] = ()) -> Iterable[RestingOrder]:
        """Return entries, take-profits by price, and the stop of each side."""
        state = self.state
        if unbooked:
            state = state.copy()  # type: ignore[attr-defined]  # a record: see core.records
            tape = zeros(Tape)
            for fill in unbooked:
                self._book_entry(state, fill, tape)
        return OrderBook(state, self.params.grid_levels)

    def cancel(self, position_side: str, *, keep_stop: bool) -> None:
        """Take the orders of a side off the book."""
        side = _SIDES[position_side]
        clear_side(self.state, self._params, side)
        if keep_stop:
            set_stop(self.state, self._params, self._market, side)

    def use_rules(self, rules: MarketRules) -> None:
        """Decide by other rules from now on.

        Take-profits are laid out anew and further entries chosen anew; entries that rest, and the
        prices of their generation, stay as they are.
        """
        self._market = self._record_of(rules)
        for side in (LONG, SHORT):
            position = self.state.sides[side]
            position.memo.exits_of, position.tp_stale, position.settled = 0, True, False

    def restore_stops(self) -> None:
        """Give a side that still holds something after its stop fired its stop back."""
        for side in (LONG, SHORT):
            position = self.state.sides[side]
            if position.n_fills > 0 and position.stop_price <= 0.0:
                set_stop(self.state, self._params, self._market, side)

    def exit_owner(self, fill_id: int, label: str) -> str:  # noqa: ARG002
        """Return '': what closes at market of a side goes as one order."""
        return ""

    def stopped_by(self, owner: str) -> list[int]:  # noqa: ARG002
        """Return nothing: the stop of a side has no name and closes all of it."""
        return []

    def set_mismatch(self, *, is_wrong: bool) -> None:
        """Nothing: what differs is reported, and the side's stop closes whatever there is."""

    def drop_entry(self) -> None:
        """Nothing: an entry that is gone is laid again at its level."""

    def refuse(self, owner: str) -> None:
        """Nothing: what is refused is decided again at the next step."""

    def fewer_stops(self) -> None:
        """Nothing: a side has one."""

    # --- what the account reports -----------------------------------------------------------------

    def book(self, event: AccountEvent) -> float:
        """Book what an exchange reports; see :mod:`engine.booking`."""
        state, params = self.state, self._params
        if isinstance(event, Fill):
            self._go_to(event.ts_ms)
            return self._book_fill(event)
        if isinstance(event, StopFired):
            self._go_to(event.ts_ms)
            begin_stop(state, params, _SIDES[event.position_side])
        elif isinstance(event, LiquidationDecided):
            begin_liquidation(state, params)
        elif isinstance(event, Liquidation):
            self._go_to(event.ts_ms)
            self._book_liquidation(event)
        elif isinstance(event, ForeignClose):
            self._go_to(event.ts_ms)
            qty = lots_nearest(self._market, event.qty)
            return self._book_side(replace(event, qty=qty), event.fee, POSITION_SYNC)
        else:
            book_funding(self.state, event.amount, event.rate, event.mark)
        return 0.0

    def _book_fill(self, fill: Fill) -> float:
        side = _SIDES[fill.position_side]
        if fill.kind is OrderKind.ENTRY:
            self._book_entry(self.state, fill, self._tape)
            return 0.0
        if fill.kind is OrderKind.TAKE_PROFIT:
            return float(
                book_take_profit(
                    self.state,
                    self._market,
                    side,
                    fill.order_price,
                    fill.price,
                    fill.qty,
                    fill.fee,
                    self._tape,
                )
            )
        if fill.kind is OrderKind.STOP:
            return self._book_side(fill, fill.fee, STOP + side)
        return self._book_exit(fill, side)

    def _book_entry(self, state: State, fill: Fill, tape: Tape) -> None:
        book_entry(
            state,
            self._params,
            self._market,
            _SIDES[fill.position_side],
            fill.generation,
            fill.level,
            fill.price,
            fill.qty,
            fill.fee,
            tape,
        )

    def _book_exit(self, fill: Fill, side: int) -> float:
        """Share an execution of a market exit among the fills it was sent for."""
        label = LABEL_NAMES.index(fill.label)
        least = 0.5 * self._market.step_size
        skip, left = fill.booked_qty, fill.qty
        for fill_id, wanted in fill.exits:
            part = lots_nearest(self._market, min(max(0.0, wanted - skip), left))
            skip = max(0.0, skip - wanted)
            if part < least:
                continue
            fee = fill.fee * (part / fill.qty)
            short = book_exit(
                self.state, self._market, side, fill_id, fill.price, part, fee, label, self._tape
            )
            left = lots_nearest(self._market, left - part + short)
        if left < least:
            return 0.0
        return float(
            book_side(
                self.state,
                self._market,
                side,
                fill.price,
                left,
                fill.fee * (left / fill.qty),
                label,
                self._tape,
            )
        )

    def _book_side(self, event: Fill | Liquidation | ForeignClose, fee: float, label: int) -> float:
        return float(
            book_side(
                self.state,
                self._market,
                _SIDES[event.position_side],
                event.price,
                event.qty,
                fee,
                label,
                self._tape,
            )
        )

    def _book_liquidation(self, event: Liquidation) -> None:
        if not self.state.orders_gone:
            begin_liquidation(self.state, self._params)
        self._book_side(event, event.fee, LIQUIDATION)
        if not has_position(self.state) and self.state.wallet < CENT:
            self.state.ended = True  # what is left is what the exchange rounded

    # --- what prices do -------------------------------------------------------------------------

    def simulate(self, event: SimulatedEvent) -> None:
        """See :mod:`engine.matching` and :mod:`engine.execution`."""
        state, params, market, tape = self.state, self._params, self._market, self._tape
        if isinstance(event, Bar):
            self._walk(event)
        elif isinstance(event, Gap):
            walk_gap(state, params, market, event.start, event.end, tape)
        elif isinstance(event, ExitsDone):
            execute_exits(state, params, market, tape)
        elif isinstance(event, StopsChecked):
            trigger_passed_stops(state, params, market, tape)
        else:
            self._close_all(event)

    def _walk(self, bar: Bar) -> None:
        state, params, market, tape = self.state, self._params, self._market, self._tape
        record = self._bar
        record.ts_ms, record.open, record.close = bar.ts_ms, bar.open, bar.close
        record.high, record.low = bar.high, bar.low
        if bar.prev_close > 0.0:
            self._go_to(bar.ts_ms)
            walk_gap(state, params, market, bar.prev_close, bar.open, tape)
        walk_bar(state, params, market, record, tape)
        if self.params.funding_enabled and bar.funding_rate != 0.0:
            settle_funding(state, bar.funding_rate, bar.close)

    def _close_all(self, event: CloseAll) -> None:
        label = LABEL_NAMES.index(event.label)
        for side in (LONG, SHORT):
            close_side(self.state, self._params, self._market, side, event.price, label, self._tape)

    # --- what others read -----------------------------------------------------------------------

    def view(self, price: float | None = None) -> View:
        """Return the account at ``price``, quote; None: at the step's."""
        state = self.state
        at = float(state.now.price) if price is None else price
        return account_view(
            state,
            at,
            (self._side_view(LONG, at), self._side_view(SHORT, at)),
            halted=bool(state.halted),
            too_small=bool(state.too_small),
            capital_needed=float(state.capital_needed),
        )

    def _side_view(self, side: int, price: float) -> SideView:
        position, params = self.state.sides[side], self.params
        return side_view(
            self.state,
            side,
            price,
            risk=float(position.stop_distance) * params.stop1_mult / params.stop2_mult,
            centre=float(position.centre),
            spacing_pct=float(position.entry_pct),
        )

    def fills(self, position_side: str) -> list[OpenFill]:
        """Return the open fills of a side, oldest first."""
        return open_fills(self.state, position_side)

    def take_trades(self) -> list[dict[str, Any]]:
        """Return the trade records on the tape, in their public names, and empty it."""
        return taken_trades(self._tape)

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        return dict(to_jsonable(self.state))

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Restore ``state_dict`` output.

        Raises:
            ValueError: the fields or capacities differ from this version's.
        """
        load_state(self.state, data)
