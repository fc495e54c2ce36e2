"""Fills, the two sides and the account: every change of money goes through here.

    wallet = initial + sum(pnl) - sum(fee) + funding
    equity = wallet + sum over fills of side * (mark - price) * qty

Quantities are kept as whole lots, so that nothing drifts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.engine.reference.grid import Generation
from tests.engine.reference.market import BOTH_SIDES, DIRECTION, LONG, SHORT, Market

MS_PER_DAY = 24 * 60 * 60 * 1000
ENTRY_LABEL = {LONG: "BUY_OPEN_LONG", SHORT: "SELL_OPEN_SHORT"}
TAKE_PROFIT_LABEL = {LONG: "SELL_CLOSE_LONG", SHORT: "BUY_CLOSE_SHORT"}
STOP_LABEL = {LONG: "STOP_LONG", SHORT: "STOP_SHORT"}


@dataclass(frozen=True)
class Step:
    """The facts known at ``t_i``; every record of bar ``i`` carries its bar, time and regime."""

    bar: int
    ts_ms: int
    price: float
    """p = O_i."""
    last_close: float
    """C_{i-1}."""
    signal: Mapping[str, Any]
    """Indicators at i - 1."""
    funding_rate: float
    """Last settled rate, 0 if there is none or it is older than a day."""
    trailing_active: bool

    @property
    def regime(self) -> int:
        """Regime of the step."""
        return int(self.signal["regime"])


@dataclass(eq=False)
class Fill:
    """One filled entry; ``lots`` is what is still open of ``opened_lots``."""

    fill_id: int
    side: int
    price: float
    lots: int
    opened_lots: int
    ts_ms: int
    generation: int
    level: int
    regime: int
    fees: float
    pnl: float = 0.0
    funding: float = 0.0
    """Received (negative: paid) by what is still open."""


@dataclass(eq=False)
class EntryOrder:
    """A resting limit order that opens a fill at a level of a generation."""

    generation: int
    level: int
    price: float
    lots: int
    age: int


@dataclass(eq=False)
class TakeProfitOrder:
    """A resting reduce-only order: slices of several fills at one price, best fill first."""

    price: float
    parts: list[tuple[Fill, int]]
    age: int

    @property
    def lots(self) -> int:
        """Quantity of the order, in lots."""
        return sum(lots for _, lots in self.parts)


@dataclass(eq=False)
class Side:
    """Position, generation, orders and memory of one side."""

    sign: int
    fills: list[Fill] = field(default_factory=list)
    generation: Generation | None = None
    filled_since: bool = False
    """An entry or take-profit filled since the generation was made."""
    forced_close: bool = False
    """A stop, prune or liquidation closed something since the generation was made."""
    was_allowed: bool = False
    stage1_done: bool = False
    last_prune: int | None = None
    profit_today: float = 0.0
    entries: list[EntryOrder] = field(default_factory=list)
    take_profits: list[TakeProfitOrder] = field(default_factory=list)
    stop: float | None = None
    """Wick stop, None without a position or with stage 2 off."""
    stop_distance: float = 0.0
    """Distance of the wick stop from the average entry, of the last step 8."""

    @property
    def lots(self) -> int:
        """Position, in lots."""
        return sum(fill.lots for fill in self.fills)

    @property
    def average_entry(self) -> float:
        """Quantity-weighted entry price; there must be a position."""
        return sum(fill.price * fill.lots for fill in self.fills) / self.lots

    def worst_first(self) -> list[Fill]:
        """Return the open fills: longs highest entry first, shorts lowest; ties older first."""
        return sorted(self.fills, key=lambda fill: (-self.sign * fill.price, fill.fill_id))

    def best_first(self) -> list[Fill]:
        """Return the open fills: longs lowest entry first, shorts highest; ties older first."""
        return sorted(self.fills, key=lambda fill: (self.sign * fill.price, fill.fill_id))

    def cancel_orders(self) -> None:
        """Drop entries, take-profits and the wick stop."""
        self.entries = []
        self.take_profits = []
        self.stop = None


@dataclass(eq=False)
class Account:
    """Wallet, both sides, the trade list and what the rules remember."""

    params: Mapping[str, Any]
    market: Market
    wallet: float
    sides: dict[int, Side] = field(default_factory=lambda: {s: Side(s) for s in BOTH_SIDES})
    trades: list[dict[str, Any]] = field(default_factory=list)
    closed_fills: list[tuple[int, float]] = field(default_factory=list)
    """(regime at entry, return on entry notional), in the order of their last close."""
    stop_bars: list[int] = field(default_factory=list)
    cooldown_from: int | None = None
    halted: bool = False
    ended: bool = False
    day: int = -1
    next_fill_id: int = 0
    next_age: int = 0
    counters: dict[str, int] = field(
        default_factory=lambda: dict.fromkeys(
            (
                "var_blocks",
                "trailing_shifts",
                "stops_long",
                "stops_short",
                "breaker_halts",
                "liquidations",
            ),
            0,
        )
    )

    def notional(self, side: int, price: float) -> float:
        """Return the position's notional at ``price``, in quote."""
        return self.market.qty(self.sides[side].lots) * price

    def unrealised(self, side: int, price: float) -> float:
        """Return the gross profit of closing ``side`` at ``price``."""
        fills = self.sides[side].fills
        return sum(side * (price - fill.price) * self.market.qty(fill.lots) for fill in fills)

    def equity(self, price: float) -> float:
        """Return wallet + unrealised profit of both sides at ``price``."""
        return self.wallet + sum(self.unrealised(side, price) for side in BOTH_SIDES)

    def has_position(self) -> bool:
        """Tell whether any fill is open."""
        return any(self.sides[side].fills for side in BOTH_SIDES)

    def begin_day(self, ts_ms: int) -> None:
        """Forget yesterday's realised profit when ``ts_ms`` is on a new UTC day."""
        if ts_ms // MS_PER_DAY != self.day:
            self.day = ts_ms // MS_PER_DAY
            for side in BOTH_SIDES:
                self.sides[side].profit_today = 0.0

    def take_age(self) -> int:
        """Return the next order's place in the queue."""
        self.next_age += 1
        return self.next_age

    def write(
        self,
        step: Step,
        label: str,
        side: int,
        fill_id: int,
        *,
        price: float,
        qty: float,
        pnl: float,
        fee: float,
    ) -> None:
        """Append a trade record and book its money; ``side`` 0 has no direction."""
        self.trades.append(
            {
                "bar": step.bar,
                "ts_ms": step.ts_ms,
                "price": price,
                "qty": qty,
                "label": label,
                "regime": step.regime,
                "pnl": pnl,
                "fee": fee,
                "direction": DIRECTION.get(side, ""),
                "fill_id": fill_id,
            }
        )
        self.wallet += pnl - fee
        if side:
            self.sides[side].profit_today += pnl - fee

    def open_fill(self, step: Step, side: int, order: EntryOrder) -> None:
        """Book a filled entry order."""
        qty = self.market.qty(order.lots)
        fee = self.params["fee_maker"] * order.price * qty
        fill = Fill(
            self.next_fill_id,
            side,
            order.price,
            order.lots,
            order.lots,
            step.ts_ms,
            order.generation,
            order.level,
            step.regime,
            fee,
        )
        self.next_fill_id += 1
        self.sides[side].fills.append(fill)
        self.write(
            step,
            ENTRY_LABEL[side],
            side,
            fill.fill_id,
            price=order.price,
            qty=qty,
            pnl=0.0,
            fee=fee,
        )

    def close_fill(
        self, step: Step, fill: Fill, lots: int, *, price: float, fee: float, label: str
    ) -> None:
        """Close ``lots`` of a fill at ``price``; the fill's funding shrinks pro rata."""
        qty = self.market.qty(lots)
        pnl = fill.side * (price - fill.price) * qty
        self.write(step, label, fill.side, fill.fill_id, price=price, qty=qty, pnl=pnl, fee=fee)
        fill.pnl += pnl
        fill.fees += fee
        fill.funding *= self.market.qty(fill.lots - lots) / self.market.qty(fill.lots)
        fill.lots -= lots
        if fill.lots == 0:
            side = self.sides[fill.side]
            side.fills.remove(fill)
            entry_notional = fill.price * self.market.qty(fill.opened_lots)
            self.closed_fills.append((fill.regime, (fill.pnl - fill.fees) / entry_notional))
            if not side.fills:
                side.stage1_done = False
                side.stop = None

    def close_at_market(
        self, step: Step, parts: list[tuple[Fill, int]], price: float, label: str
    ) -> None:
        """Close parts of fills of one side as one market order around ``price``."""
        for fill, lots in parts:
            paid = self.market.market_exit_price(price, fill.side, self.params["slippage"])
            fee = self.params["fee_taker"] * paid * self.market.qty(lots)
            self.close_fill(step, fill, lots, price=paid, fee=fee, label=label)

    def note_stop(self, side: int, bar: int) -> None:
        """Count one stop event and start the cooldown if it completes a cluster."""
        self.counters["stops_long" if side == LONG else "stops_short"] += 1
        self.stop_bars.append(bar)
        needed = self.params["stop_cooldown_thresh"]
        if len(self.stop_bars) >= needed:
            span = bar - self.stop_bars[-needed]
            if span <= self.params["stop_cooldown_bars"]:
                self.cooldown_from = bar

    def pay_funding(self, mark: float, rate: float) -> None:
        """Settle funding on every fill: payment = -side * qty * mark * rate."""
        for side in BOTH_SIDES:
            for fill in self.sides[side].fills:
                payment = -side * self.market.qty(fill.lots) * mark * rate
                fill.funding += payment
                self.wallet += payment
