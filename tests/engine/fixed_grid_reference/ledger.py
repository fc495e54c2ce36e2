"""Positions, hedge legs, orders and the account: every change of money goes through here.

    wallet = initial + sum(pnl) - sum(fee) + funding
    equity = wallet + sum over legs of side * (mark - price) * qty
    M      = (sum(entry*qty) + sum(hedge price*qty) + working rest*price) / leverage

Quantities are kept as whole lots, so that nothing drifts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.engine.fixed_grid_reference.market import DIRECTION, LONG, SHORT, Market
from tests.engine.fixed_grid_reference.params import Params
from tests.engine.fixed_grid_reference.prices import stop_trigger, take_profit_price

EPOCH_2020_S = 1_577_836_800
"""2020-01-01 00:00 UTC; cycle ids count from here."""

OPEN, LADDER, HEDGED = "OPEN", "LADDER", "HEDGED"
ENTRY_LABEL = {LONG: "BUY_OPEN_LONG", SHORT: "SELL_OPEN_SHORT"}
CLOSE_LABEL = {LONG: "SELL_CLOSE_LONG", SHORT: "BUY_CLOSE_SHORT"}
STOP_LABEL = {LONG: "STOP_LONG", SHORT: "STOP_SHORT"}
RUNG = "RECOVERY_LADDER"
PROFIT_LABELS = {*CLOSE_LABEL.values(), RUNG}
"""Fills of a T or an L order; every other close of a position is a loss exit."""
GATES = (
    "pause",
    "stopping",
    "stopped",
    "mismatch",
    "price",
    "orders",
    "size",
    "margin",
    "minimum",
    "portfolio",
    "cooldown",
)
COUNTERS = (
    "stuck_total",
    "recovery_attempts",
    "margin_exhausted",
    "stops_long",
    "stops_short",
    "liquidations",
    "double_exit",
    "position_mismatch_incidents",
    "holes",
    "steps",
)


@dataclass(frozen=True)
class Moment:
    """When and where something happens: rules read the step, records the candle."""

    step_s: int
    """t_k, seconds since 1970; every time a rule compares."""
    bar: int
    ts_ms: int
    """Open time of the candle."""
    price: float
    """p, the last price at the step."""


@dataclass(eq=False)
class LimitOrder:
    """A resting order; ``age`` is its place in the queue."""

    price: float
    lots: int
    age: int


@dataclass(eq=False)
class WorkingOrder(LimitOrder):
    """The one entry order that may rest, with the cycle that it begins."""

    cycle: int
    slot: int


@dataclass(eq=False)
class Hedge:
    """The opposite leg of a hedged position."""

    fill_id: int
    sgn: int
    price: float
    lots: int


@dataclass(eq=False)
class Position:
    """The filled part of a cycle; ``lots`` is what is still open."""

    fill_id: int
    cycle: int
    slot: int
    entry: float
    lots: int
    opened: int
    """Step of the first execution, or of the release from a hedge; seconds."""
    filled: int
    """Step of the first execution; seconds."""
    take_profit: float
    """T."""
    stop: float | None
    """S, None where no stop is wanted."""
    stage: str = OPEN
    stage_time: int = 0
    """Step of the stage's begin, seconds."""
    close_order: LimitOrder | None = None
    rungs: list[LimitOrder] = field(default_factory=list)
    hedge: Hedge | None = None
    stuck: bool = False
    released: bool = False
    told: int | None = None
    """Step of the last escalation told."""
    owns_stop: bool = False
    """Whether its stop is an order of its own, not the shared one."""
    announced: bool = False
    pnl: float = 0.0
    fees: float = 0.0

    @property
    def exits(self) -> list[LimitOrder]:
        """Return the resting reduce-only limit orders."""
        return [self.close_order] if self.close_order is not None else self.rungs


@dataclass(eq=False)
class Account:
    """Wallet, positions, orders, the records and what the rules remember."""

    params: Params
    market: Market
    wallet: float
    positions: list[Position] = field(default_factory=list)
    """Worst entry first, ties older first."""
    working: WorkingOrder | None = None
    shared_stop: float | None = None
    """Trigger of the order that all positions without a stop of their own share."""
    records: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    counters: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTERS, 0))
    blocked: dict[str, int] = field(default_factory=lambda: dict.fromkeys(GATES, 0))
    stuck_marks: dict[int, int] = field(default_factory=dict)
    """Cycle -> how many records there were when it was marked stuck."""
    last_entry_fill: int | None = None
    last_profit_exit: int | None = None
    last_loss_exit: int | None = None
    funding: float = 0.0
    fired_at_stop_price: bool = False
    stopped: bool = False
    ended: bool = False
    gate: str | None = None
    """The gate that failed at the last step."""
    health: str = "HEALTHY"
    next_fill_id: int = 0
    next_age: int = 0
    sums: tuple[float, float, float, float] | None = None
    """(qty, cost, hedge qty, hedge cost) as of the last change, or None."""

    # what is held

    def legs(self) -> tuple[float, float, float, float]:
        """Return (qty, cost) of the positions and of their hedges, base and quote."""
        if self.sums is None:
            held = [(p.entry, self.market.qty(p.lots)) for p in self.positions]
            hedges = [p.hedge for p in self.positions if p.hedge is not None]
            against = [(h.price, self.market.qty(h.lots)) for h in hedges]
            self.sums = (
                self.market.qty(sum(p.lots for p in self.positions)),
                sum(price * qty for price, qty in held),
                self.market.qty(sum(h.lots for h in hedges)),
                sum(price * qty for price, qty in against),
            )
        return self.sums

    def equity(self, mark: float) -> float:
        """Return wallet + unrealised profit of all legs at ``mark``."""
        qty, cost, hedge_qty, hedge_cost = self.legs()
        gain = (qty * mark - cost) - (hedge_qty * mark - hedge_cost)
        return self.wallet + self.params.sgn * gain

    def maintenance(self, mark: float) -> float:
        """Return the maintenance margin of both sides at ``mark``."""
        qty, _, hedge_qty, _ = self.legs()
        return self.market.maintenance(qty * mark) + self.market.maintenance(hedge_qty * mark)

    def margin(self, *, with_working: bool) -> float:
        """Return M, on entry prices."""
        _, cost, _, hedge_cost = self.legs()
        resting = 0.0
        if with_working and self.working is not None:
            resting = self.market.qty(self.working.lots) * self.working.price
        return (cost + hedge_cost + resting) / self.params.leverage

    def free_slot(self) -> int:
        """Return the lowest slot that no position has."""
        used = {position.slot for position in self.positions}
        return next(slot for slot in range(len(used) + 1) if slot not in used)

    def take_age(self) -> int:
        """Return the next order's place in the queue."""
        self.next_age += 1
        return self.next_age

    def take_fill_id(self) -> int:
        """Return the next entry's number."""
        self.next_fill_id += 1
        return self.next_fill_id - 1

    # bookings

    def write(
        self,
        now: Moment,
        label: str,
        sgn: int,
        position: Position,
        fill_id: int,
        *,
        price: float,
        lots: int,
        pnl: float,
        fee: float,
    ) -> None:
        """Append a record and book its money."""
        self.records.append(
            {
                "bar": now.bar,
                "timestamp": now.ts_ms,
                "price": price,
                "qty": self.market.qty(lots),
                "label": label,
                "regime": "NONE",
                "pnl": pnl,
                "fee": fee,
                "direction": DIRECTION[sgn],
                "fill_id": fill_id,
                "cycle": position.cycle,
                "slot": position.slot,
            }
        )
        self.wallet += pnl - fee
        position.pnl += pnl
        position.fees += fee
        self.sums = None

    def tell(self, now: Moment, event: str, subject: Any = None, **more: Any) -> None:
        """Append an event about a position, an order or nothing."""
        row: dict[str, Any] = {
            "ts": now.ts_ms,
            "event": event,
            "cycle": getattr(subject, "cycle", None),
            "slot": getattr(subject, "slot", None),
            "price": None,
            "qty": None,
            "entry": getattr(subject, "entry", None),
            "pnl": None,
            "fee": None,
            "duration_s": None,
            "reason": None,
            "n_open": len(self.positions),
            "margin": self.margin(with_working=True),
            "health": self.health,
        }
        row.update(more)
        self.events.append(row)

    def open_position(self, now: Moment) -> Position:
        """Book the filled working order; its exits follow at the next step."""
        order = self.working
        if order is None:
            raise RuntimeError("no working order to fill")
        self.working = None
        position = Position(
            fill_id=self.take_fill_id(),
            cycle=order.cycle,
            slot=order.slot,
            entry=order.price,
            lots=order.lots,
            opened=now.step_s,
            filled=now.step_s,
            stage_time=now.step_s,
            take_profit=take_profit_price(self.params, self.market, order.price),
            stop=stop_trigger(self.params, self.market, order.price),
        )
        self.positions.append(position)
        self.positions.sort(key=lambda p: (-self.params.sgn * p.entry, p.fill_id))
        fee = self.params.fee_maker * order.price * self.market.qty(order.lots)
        self.write(
            now,
            ENTRY_LABEL[self.params.sgn],
            self.params.sgn,
            position,
            position.fill_id,
            price=order.price,
            lots=order.lots,
            pnl=0.0,
            fee=fee,
        )
        self.last_entry_fill = now.step_s
        qty = self.market.qty(order.lots)
        self.tell(now, "ENTRY_FILLED", position, price=order.price, qty=qty, fee=fee)
        return position

    def close_position(
        self, now: Moment, position: Position, lots: int, *, price: float, fee: float, label: str
    ) -> None:
        """Close ``lots`` of a position's own leg."""
        pnl = self.params.sgn * (price - position.entry) * self.market.qty(lots)
        position.lots -= lots
        self.write(
            now,
            label,
            self.params.sgn,
            position,
            position.fill_id,
            price=price,
            lots=lots,
            pnl=pnl,
            fee=fee,
        )
        if label in PROFIT_LABELS:
            self.last_profit_exit = now.step_s
        else:
            self.last_loss_exit = now.step_s
        self.forget_closed(now, position, price)

    def close_hedge(
        self, now: Moment, position: Position, *, price: float, fee: float, label: str
    ) -> None:
        """Close the hedge leg of a position; neither a profit nor a loss exit."""
        hedge = position.hedge
        if hedge is None:
            raise RuntimeError("no hedge to close")
        pnl = hedge.sgn * (price - hedge.price) * self.market.qty(hedge.lots)
        position.hedge = None
        self.write(
            now,
            label,
            hedge.sgn,
            position,
            hedge.fill_id,
            price=price,
            lots=hedge.lots,
            pnl=pnl,
            fee=fee,
        )
        self.forget_closed(now, position, price)

    def forget_closed(self, now: Moment, position: Position, price: float) -> None:
        """Drop a position of which both legs are closed: the cycle's end."""
        if position.lots or position.hedge is not None:
            return
        self.positions.remove(position)
        self.sums = None
        if all(p.owns_stop or p.stop is None or p.stage == HEDGED for p in self.positions):
            self.shared_stop = None
        self.tell(
            now,
            "CYCLE_CLOSED",
            position,
            price=price,
            pnl=position.pnl - position.fees,
            fee=position.fees,
            duration_s=now.step_s - position.filled,
            reason=self.records[-1]["label"],
        )

    def open_hedge(self, now: Moment, position: Position, price: float) -> None:
        """Book the opposite leg; then take-profit, rungs and stop go."""
        position.hedge = Hedge(self.take_fill_id(), -self.params.sgn, price, position.lots)
        fee = self.params.fee_taker * price * self.market.qty(position.lots)
        self.write(
            now,
            "RECOVERY_HEDGE_OPEN",
            -self.params.sgn,
            position,
            position.hedge.fill_id,
            price=price,
            lots=position.lots,
            pnl=0.0,
            fee=fee,
        )
        position.stage, position.stage_time = HEDGED, now.step_s
        position.close_order, position.rungs, position.owns_stop = None, [], False

    # market orders of a step

    def market_close(self, now: Moment, position: Position, label: str) -> None:
        """Close a position's own leg at market at ``p``."""
        sgn = self.params.sgn
        price = self.market.market_price(now.price, sgn, self.params.slippage)
        fee = self.params.fee_taker * price * self.market.qty(position.lots)
        self.close_position(now, position, position.lots, price=price, fee=fee, label=label)

    def market_close_hedge(self, now: Moment, position: Position, label: str) -> None:
        """Close a position's hedge leg at market at ``p``."""
        sgn = -self.params.sgn
        lots = position.hedge.lots if position.hedge is not None else 0
        price = self.market.market_price(now.price, sgn, self.params.slippage)
        fee = self.params.fee_taker * price * self.market.qty(lots)
        self.close_hedge(now, position, price=price, fee=fee, label=label)

    def market_close_both(self, now: Moment, position: Position, label: str) -> None:
        """Close all legs of a position at market at ``p``, the long leg first."""
        legs = [self.market_close]
        if position.hedge is not None:
            legs.append(self.market_close_hedge)
        for close in legs if self.params.sgn == LONG else reversed(legs):
            close(now, position, label)

    def cancel_orders(self) -> None:
        """Drop every resting order: entry, closes, rungs and stops."""
        self.working = None
        self.shared_stop = None
        for position in self.positions:
            position.close_order, position.rungs, position.owns_stop = None, [], False

    def pay_funding(self, mark: float, rate: float) -> None:
        """Settle funding on every leg: payment = -side * qty * mark * rate."""
        qty, _, hedge_qty, _ = self.legs()
        payment = -self.params.sgn * (qty - hedge_qty) * mark * rate
        self.wallet += payment
        self.funding += payment
