"""Values between the runner and an exchange, in our words: orders, answers, account.

Nothing here knows ccxt; ``live.exchange.binance`` translates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Final

import numpy.typing as npt

from core.market import MarketRules
from core.orders import OrderKind

Candles = npt.NDArray[Any]
"""Table of ``live.exchange.types.Candle``, shape (n_bars,), by rising open time."""


UNKNOWN_STATUS: Final = "UNKNOWN"
QTY_SLACK: Final = 1e-9
"""Relative difference of two quantities that rounding may make."""


class Candle:
    """One closed 15-minute candle."""

    ts_ms: int  # open time, ms UTC
    open: float  # quote
    high: float
    low: float
    close: float
    volume: float  # base


class Answer(Enum):
    """The outcome of an order that was sent."""

    ACCEPTED = "accepted"
    """It exists: it rests, or it has been filled since."""
    WOULD_CROSS = "would cross"
    """Post-only and on the wrong side of the price: it does not exist, the level is still owed."""
    PASSED = "passed"
    """A stop whose price is already passed: it does not exist, the side must go at market."""
    NOTHING_TO_CLOSE = "nothing to close"
    """It would reduce more than there is to be seen, or is in conflict with other closing orders.

    A fill may be seen later than its trade, so that is no proof that nothing is held.
    """
    NO_MARGIN = "no margin"
    REFUSED = "refused"
    """A filter or rule of the symbol: the same order would be refused again."""
    FORBIDDEN = "forbidden"
    """The keys may not trade: every order would be refused, a person must act."""
    NOT_SENT = "not sent"
    """The exchange said it did not take it (overload, rate limit): it may be sent again."""
    UNKNOWN = "unknown"
    """Neither the reply nor a look-up said so: it must be looked up before anything is sent."""


class Meaning(Enum):
    """The meaning of a failure for whoever must act on it."""

    UNKNOWN = "unknown outcome"
    """Whether it was done is not known: look it up before anything is sent."""
    NOT_DONE = "not executed"
    """The exchange did not take it: the same may be sent again."""
    LATER = "try later"
    """Not now, without anybody's fault: the same will be taken when a limit or state has passed."""
    REFUSED = "refused for good"
    """The same would be refused again."""
    RULES = "rules changed"
    """Refused by the symbol's rules: read them again, then make the order anew."""
    ENTRIES_OFF = "entries off"
    """The exchange takes only what reduces: closing goes on, nothing is opened."""
    KEYS = "keys"
    """The keys, their rights or the address: a person must act if it stays so."""
    STOP_EXISTS = "a stop exists"
    """Another stop closes this side already; whether at our price it does not say: read it."""
    TOO_OLD = "older than the records of the exchange"
    """A question about a time its records no longer hold; no later try will answer it."""


class CancelResult(IntEnum):
    """The result of a cancel; of several the smallest counts."""

    STUCK = 0
    """It may still be open."""
    GONE = 1
    """It is no longer open, and may have traded what is not known yet."""
    UNTRADED = 2
    """It is no longer open, and has traded nothing beyond what is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderSpec:
    """An order as we want it.

    Attributes:
        client_id: our identity for it, unique for ever, <= 36 characters.
        position_side: LONG or SHORT, the position it belongs to.
        price: limit or trigger price, quote; 0 for a market order.
        qty: base; of a STOP that closes all the position when it was laid.
        closes_all: of a STOP: whether it closes whatever there is (the exchange takes one such a
            side), or ``qty`` (it takes these beside it).
        opens: of an EXIT: it opens the side instead, as a hedge.
    """

    client_id: str
    kind: OrderKind
    position_side: str
    price: float
    qty: float
    closes_all: bool = True
    opens: bool = False

    @property
    def side(self) -> str:
        """BUY or SELL."""
        opens = self.kind is OrderKind.ENTRY or self.opens
        return "BUY" if (self.position_side == "LONG") == opens else "SELL"


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReply:
    """The answer to one order.

    Attributes:
        client_id: of the order.
        answer: what became of it.
        order_id: the exchange's identity ('' unless accepted); of a STOP the algo order's.
        text: the exchange's own words, for the log.
        code: the exchange's error code, 0 if it named none.
        meaning: of what was not accepted, for whoever acts; None of what was.
    """

    client_id: str
    answer: Answer
    order_id: str = ""
    text: str = ""
    code: int = 0
    meaning: Meaning | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeOrder:
    """An order as the exchange reports it.

    Attributes:
        client_id: ours, or of somebody else.
        order_id: the exchange's; of a STOP the algo order's.
        kind: STOP for conditional orders; else ENTRY or TAKE_PROFIT by side and position side, EXIT
            for market orders.
        position_side: LONG, SHORT or BOTH (one-way accounts).
        price: limit or trigger price, quote.
        qty: ordered, base; 0 for a stop that closes the position.
        filled_qty: base.
        is_open: whether it still rests.
        status: the exchange's word; ``UNKNOWN_STATUS`` of somebody else's order with a new one.
        fired_order_id: of a STOP that has triggered: the market order it became, else ''.
        closes_all: of a STOP: whether it closes the whole side.
        symbol: such as BTCUSDT.
        created_ms: when it was taken, ms UTC; 0 where it is not told.
        updated_ms: when it last changed, likewise.
    """

    client_id: str
    order_id: str
    kind: OrderKind
    position_side: str
    price: float
    qty: float
    filled_qty: float
    is_open: bool
    status: str
    fired_order_id: str = ""
    closes_all: bool = False
    symbol: str = ""
    created_ms: int = 0
    updated_ms: int = 0

    def has_traded_beyond(self, qty: float) -> bool:
        """Return whether it has traded more than ``qty``, base, rounding aside."""
        return self.filled_qty > qty * (1.0 + QTY_SLACK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unvalued:
    """An amount in an asset that has no USDT price, such as BNFCR.

    Attributes:
        amount: of the asset.
        asset: its name.
    """

    amount: float
    asset: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """One trade of ours at the exchange.

    Attributes:
        trade_id: the exchange's, rising within the symbol.
        order_id: of the order filled (of a triggered stop: the market order it became).
        position_side: LONG, SHORT or BOTH.
        side: BUY or SELL.
        price: quote.
        qty: base.
        fee: quote paid, negative = rebate; 0 where ``unvalued`` holds it.
        ts_ms: ms UTC.
        is_maker: whether it rested.
        unvalued: the fee, if it was paid in an asset that cannot be valued.
    """

    trade_id: int
    order_id: str
    position_side: str
    side: str
    price: float
    qty: float
    fee: float
    ts_ms: int
    is_maker: bool
    unvalued: Unvalued | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingPayment:
    """One funding settlement on the account.

    Attributes:
        income_id: the exchange's, unique.
        amount: quote received, negative = paid; both sides of the symbol may come as one or two.
            0 where ``unvalued`` holds it.
        ts_ms: ms UTC.
        unvalued: what was received, if it was in an asset that cannot be valued.
    """

    income_id: str
    amount: float
    ts_ms: int
    unvalued: Unvalued | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SidePosition:
    """One side as the exchange has it.

    Attributes:
        qty: base, never negative.
        avg_entry: quote, 0 when flat.
        mark_price: quote.
        liquidation_price: quote, 0 if there is none.
    """

    qty: float
    avg_entry: float
    mark_price: float
    liquidation_price: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """The futures wallet, USDT.

    Attributes:
        wallet: without unrealised profit.
        available: free for new orders.
    """

    wallet: float
    available: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MarketFacts:
    """The facts read at start.

    Attributes:
        symbol: the exchange's, such as BTCUSDT.
        rules: tick, lot, minimums, maintenance brackets.
        fee_maker: of this account, of notional; None where it cannot be read (no keys).
        fee_taker: likewise.
        is_trading: whether the symbol's status lets orders in.
        max_orders: open orders the symbol allows.
        max_market_qty: largest market order, base; a larger exit goes in parts.
        status: the exchange's word: TRADING, PENDING_TRADING, SETTLING, CLOSE, ...
        highest_buy: a BUY may cost at most the mark price times this (PERCENT_PRICE).
        lowest_sell: a SELL must cost at least the mark price times this.
        min_price: lowest price of any limit, quote (PRICE_FILTER).
        max_price: highest one.
    """

    symbol: str
    rules: MarketRules
    fee_maker: float | None
    fee_taker: float | None
    is_trading: bool
    max_orders: int
    max_market_qty: float = math.inf
    status: str = "TRADING"
    highest_buy: float = math.inf
    lowest_sell: float = 0.0
    min_price: float = 0.0
    max_price: float = math.inf

    def takes_price(self, side: str, price: float, mark: float) -> bool:
        """Return whether a limit at ``price`` passes the price filters while the mark is ``mark``.

        On futures PERCENT_PRICE has one bound a side: far away on its passive side is fine.
        """
        if not self.min_price <= price <= self.max_price:
            return False
        return (
            price <= mark * self.highest_buy if side == "BUY" else price >= mark * self.lowest_sell
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantitativeRule:
    """One of the exchange's ratios of unfilled, cancelled or expired orders (-4400).

    Attributes:
        scope: a symbol, or ``ACCOUNT``.
        indicator: UFR, IFER, GCR, DR, TMV, ...
        value: where the account stands.
        trigger_value: where only reducing orders are taken.
        is_locked: whether that is so.
        recovers_ms: when it ends by plan, ms UTC; 0 if not locked.
    """

    scope: str
    indicator: str
    value: float
    trigger_value: float
    is_locked: bool
    recovers_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRights:
    """The rights of the API key.

    Attributes:
        may_read: read the account.
        may_trade_futures: place futures orders.
        may_withdraw: take money out; a trading key must not.
        may_transfer: move money between wallets or accounts.
        is_bound_to_addresses: whether it works from listed addresses only.
    """

    may_read: bool
    may_trade_futures: bool
    may_withdraw: bool
    may_transfer: bool
    is_bound_to_addresses: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """How much of the exchange's patience is used, from its last replies.

    Attributes:
        weight_1m: request weight of this minute, of 2,400; 0 until a reply said.
        orders_10s: orders of these ten seconds, of 300.
        orders_1m: orders of this minute, of 1,200.
        clock_offset_ms: our clock minus the exchange's.
    """

    weight_1m: int
    orders_10s: int
    orders_1m: int
    clock_offset_ms: int
