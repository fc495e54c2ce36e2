"""The wallet of a hedge-mode account, cross margin, and the two positions of each symbol.

``wallet = start + sum(pnl) - sum(fee) + funding + transfers`` holds after every call, to the
eighth decimal. Nothing here knows orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal
from itertools import count

from live.simulated.filters import exact
from live.simulated.orders import (
    BUY,
    CENT_OF_CENT,
    LONG,
    SELL,
    SHORT,
    ZERO,
    Income,
    Trade,
    is_closing,
)

Brackets = Sequence[tuple[float, float, float]]
"""(notional floor, maintenance rate, maintenance amount), by rising floor."""

FIRST_ID = 1_000_001
QUOTE = "USDT"


def money(amount: Decimal) -> Decimal:
    """Return ``amount`` as it is booked."""
    return amount.quantize(CENT_OF_CENT, ROUND_HALF_UP)


@dataclass(slots=True)
class Position:
    """One side: quantity (never negative), what it cost, when it last changed."""

    qty: Decimal = ZERO
    cost: Decimal = ZERO
    updated_ms: int = 0

    @property
    def avg_entry(self) -> Decimal:
        """Average entry price, 0 when flat."""
        return self.cost / self.qty if self.qty else ZERO

    def reduce(self, qty: Decimal, price: Decimal, sign: int) -> Decimal:
        """Take ``qty`` off at ``price`` and return the profit against the average entry."""
        share = self.cost * (qty / self.qty)
        self.qty -= qty
        self.cost = self.cost - share if self.qty else ZERO
        return sign * (price * qty - share)


@dataclass(kw_only=True)
class Wallet:
    """The part the symbols of one account share.

    Attributes:
        balance: quote, without unrealised profit.
        is_hedged: whether LONG and SHORT are kept apart.
        other_assets: balances in other assets than the quote, which fees may be paid in.
        tran_ids: of income entries.
        algo_ids: of conditional orders, which are the account's, whatever the symbol.
    """

    balance: Decimal
    is_hedged: bool = True
    other_assets: dict[str, Decimal] = field(default_factory=dict)
    tran_ids: count[int] = field(default_factory=lambda: count(9 * FIRST_ID))
    algo_ids: count[int] = field(default_factory=lambda: count(2 * FIRST_ID))


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """Another symbol of the same account.

    Attributes:
        account: its positions.
        mark: returns its price, quote.
        opening: returns the notional of its resting orders that open, quote.
    """

    account: Account
    mark: Callable[[], Decimal]
    opening: Callable[[], Decimal]


@dataclass(kw_only=True)
class Account:
    """One symbol's positions, and the money they share with the account's other symbols.

    Attributes:
        pool: the money.
        leverage: sets the initial margin.
        brackets: maintenance margin by notional.
        liquidation_fee: of notional.
        margin_type: CROSSED or ISOLATED; the sums are those of CROSSED in any case.
        fee_asset: what fees are paid in, at the price of one unit of the quote.
        positions: by LONG and SHORT.
        trades: every execution of the symbol.
        incomes: every change of the wallet by the symbol.
        neighbours: the account's other symbols.
    """

    pool: Wallet
    leverage: int
    brackets: Brackets
    liquidation_fee: Decimal
    margin_type: str = "CROSSED"
    fee_asset: str = QUOTE
    positions: dict[str, Position] = field(
        default_factory=lambda: {LONG: Position(), SHORT: Position()}
    )
    trades: list[Trade] = field(default_factory=list)
    incomes: list[Income] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    _trade_ids: count[int] = field(default_factory=lambda: count(FIRST_ID))

    @property
    def wallet(self) -> Decimal:
        """The account's quote without unrealised profit."""
        return self.pool.balance

    @wallet.setter
    def wallet(self, balance: Decimal) -> None:
        self.pool.balance = balance

    @property
    def is_hedged(self) -> bool:
        """Whether LONG and SHORT are kept apart."""
        return self.pool.is_hedged

    @is_hedged.setter
    def is_hedged(self, is_hedged: bool) -> None:
        self.pool.is_hedged = is_hedged

    @property
    def is_flat(self) -> bool:
        """Whether neither side holds anything."""
        return not any(position.qty for position in self.positions.values())

    @property
    def held(self) -> list[Position]:
        """The sides that hold something."""
        return [position for position in self.positions.values() if position.qty]

    def unrealized(self, price: Decimal) -> Decimal:
        """Return the open profit of both sides at ``price``, quote."""
        return sum((self.unrealized_of(side, price) for side in self.positions), ZERO)

    def unrealized_of(self, position_side: str, price: Decimal) -> Decimal:
        """Return the open profit of one side at ``price``, quote."""
        position = self.positions[position_side]
        profit = price * position.qty - position.cost
        return profit if position_side == LONG else -profit

    def equity(self, price: Decimal) -> Decimal:
        """Return wallet plus unrealised profit at ``price``, quote; others' at their own."""
        elsewhere = sum((other.account.unrealized(other.mark()) for other in self.neighbours), ZERO)
        return self.wallet + self.unrealized(price) + elsewhere

    def notional(self, price: Decimal) -> Decimal:
        """Return the notional of both sides at ``price``, quote."""
        return price * sum((position.qty for position in self.positions.values()), ZERO)

    def available(self, price: Decimal, opening: Decimal) -> Decimal:
        """Return what is free for new orders, quote.

        Args:
            price: mark.
            opening: notional of the resting orders that open, quote.
        """
        elsewhere = sum(
            (
                (other.account.notional(other.mark()) + other.opening()) / other.account.leverage
                for other in self.neighbours
            ),
            ZERO,
        )
        return self.equity(price) - (self.notional(price) + opening) / self.leverage - elsewhere

    def book_trade(
        self,
        *,
        order_id: int,
        side: str,
        position_side: str,
        price: Decimal,
        qty: Decimal,
        fee: Decimal,
        ts_ms: int,
        is_maker: bool,
    ) -> Trade:
        """Change position and wallet by an execution; ``fee`` in quote."""
        position = self.positions[position_side]
        pnl = ZERO
        if is_closing(side, position_side):
            pnl = money(position.reduce(qty, price, 1 if position_side == LONG else -1))
        else:
            position.qty += qty
            position.cost += price * qty
        position.updated_ms = ts_ms
        trade = Trade(
            trade_id=next(self._trade_ids),
            order_id=order_id,
            side=side,
            position_side=position_side,
            price=price,
            qty=qty,
            fee=money(fee),
            pnl=pnl,
            ts_ms=ts_ms,
            is_maker=is_maker,
            fee_asset=self.fee_asset,
        )
        self.trades.append(trade)
        if is_closing(side, position_side):
            self.book_income("REALIZED_PNL", pnl, ts_ms, str(trade.trade_id))
        self.book_income("COMMISSION", -trade.fee, ts_ms, str(trade.trade_id), self.fee_asset)
        return trade

    def book_income(
        self, kind: str, amount: Decimal, ts_ms: int, trade_id: str = "", asset: str = QUOTE
    ) -> None:
        """Change the balance of ``asset`` by ``amount`` and write it down."""
        if asset == QUOTE:
            self.pool.balance += amount
        else:
            before = self.pool.other_assets.get(asset, ZERO)
            self.pool.other_assets[asset] = before + amount
        self.incomes.append(
            Income(
                tran_id=next(self.pool.tran_ids),
                kind=kind,
                amount=amount,
                ts_ms=ts_ms,
                trade_id=trade_id,
                asset=asset,
            )
        )

    def settle_funding(self, rate: Decimal, mark: Decimal, ts_ms: int) -> None:
        """Let each side pay or receive ``position * mark * rate``; longs pay a positive rate."""
        for position_side, position in self.positions.items():
            if position.qty:
                payment = position.qty * mark * rate
                amount = -payment if position_side == LONG else payment
                self.book_income("FUNDING_FEE", money(amount), ts_ms, asset=self.fee_asset)

    # --- margin ---------------------------------------------------------------------------------

    def maintenance(self, notional: float) -> float:
        """Return the maintenance margin of one position of ``notional``, quote."""
        row = self.brackets[0]
        for candidate in self.brackets[1:]:
            if notional <= candidate[0]:
                break
            row = candidate
        return row[1] * notional - row[2]

    def excess(self, price: float) -> float:
        """Return equity minus the maintenance margin of both sides at ``price``, quote."""
        equity = float(self.wallet)
        for other in self.neighbours:
            mark, held = other.mark(), other.account
            equity += float(held.unrealized(mark))
            equity -= sum(held.maintenance(float(mark * side.qty)) for side in held.held)
        for position_side, position in self.positions.items():
            if position.qty:
                value = price * float(position.qty)
                profit = value - float(position.cost)
                equity += profit if position_side == LONG else -profit
                equity -= self.maintenance(value)
        return equity

    def liquidation_between(self, start: Decimal, end: Decimal) -> Decimal | None:
        """Return where between ``start`` and ``end`` equity first falls to maintenance margin.

        Excess margin is concave in the price, so on a stretch it is least at an end.
        """
        if self.is_flat:
            return None
        if self.excess(float(start)) <= 0.0:
            return start
        if self.excess(float(end)) > 0.0:
            return None
        return exact(self._crossing(float(start), float(end)))

    def liquidation_price(self, mark: Decimal) -> Decimal:
        """Return the price at which everything would be closed, 0 if there is none."""
        net = self.positions[LONG].qty - self.positions[SHORT].qty
        if self.is_flat or self.excess(float(mark)) <= 0.0:
            return ZERO
        end = float(mark) * (1e-6 if net > 0 else 1e9)
        return exact(self._crossing(float(mark), end)) if self.excess(end) <= 0.0 else ZERO

    def _crossing(self, safe: float, lost: float) -> float:
        """Return the price nearest to ``safe`` at which the margin no longer suffices."""
        while True:
            middle = 0.5 * (safe + lost)
            if middle in (safe, lost):
                return lost
            if self.excess(middle) > 0.0:
                safe = middle
            else:
                lost = middle

    def liquidate(self, price: Decimal, ts_ms: int, order_ids: dict[str, int]) -> None:
        """Close both sides at ``price``; the fee never leaves less than nothing.

        Fee ``min(rate * notional, equity)``, shared by notional. Where the price has jumped so
        far that equity is negative, so is the fee: the insurance fund bears the rest.

        Args:
            price: quote.
            ts_ms: ms UTC.
            order_ids: of the closing orders, by position side.
        """
        notional = self.notional(price)
        fee = min(self.liquidation_fee * notional, self.equity(price))
        for position_side, order_id in order_ids.items():
            qty = self.positions[position_side].qty
            self.book_trade(
                order_id=order_id,
                side=SELL if position_side == LONG else BUY,
                position_side=position_side,
                price=price,
                qty=qty,
                fee=fee * (price * qty / notional),
                ts_ms=ts_ms,
                is_maker=False,
            )
        is_alone = all(other.account.is_flat for other in self.neighbours)
        if fee < self.liquidation_fee * notional and self.wallet and is_alone:  # rounding
            self.book_income("INSURANCE_CLEAR", -self.wallet, ts_ms)
