"""Orders, conditional orders, trades and income entries, and the JSON the exchange makes of them.

Times are ms UTC, prices quote, quantities base.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from live.simulated.filters import plain

LONG: Final = "LONG"
SHORT: Final = "SHORT"
BUY: Final = "BUY"
SELL: Final = "SELL"
ZERO: Final = Decimal(0)
CENT_OF_CENT: Final = Decimal("0.00000001")
"""Money is booked to eight decimals."""

Json = Any
"""Whatever ``json.dumps`` takes."""


def is_closing(side: str, position_side: str) -> bool:
    """Return whether an order of ``side`` reduces the position of ``position_side``."""
    return (side == SELL) == (position_side == LONG)


@dataclass(slots=True, kw_only=True)
class Order:
    """A normal order.

    Attributes:
        order_id: the exchange's, rising.
        client_id: the client's.
        side: BUY or SELL.
        position_side: LONG or SHORT, the position it belongs to.
        kind: LIMIT or MARKET.
        time_in_force: GTC or GTX.
        price: limit; 0 of a market order.
        qty: ordered.
        ts_ms: when it was taken.
        updated_ms: when it last changed.
        filled: quantity executed.
        quote: notional executed.
        status: the exchange's word.
        from_kind: STOP_MARKET of the order a stop became, else ``kind``.
        reported_status: a word the exchange tells instead of ``status``; '': none.
    """

    order_id: int
    client_id: str
    side: str
    position_side: str
    kind: str
    time_in_force: str
    price: Decimal
    qty: Decimal
    ts_ms: int
    updated_ms: int
    filled: Decimal = ZERO
    quote: Decimal = ZERO
    status: str = "NEW"
    from_kind: str = ""
    reported_status: str = ""

    @property
    def closes(self) -> bool:
        """Whether it reduces its position."""
        return is_closing(self.side, self.position_side)

    @property
    def rest(self) -> Decimal:
        """Quantity not executed."""
        return self.qty - self.filled

    @property
    def is_open(self) -> bool:
        """Whether it can still execute."""
        return self.status in {"NEW", "PARTIALLY_FILLED"}

    def view(self, symbol: str) -> dict[str, Json]:
        """Return the JSON of a reply about the order."""
        average = self.quote / self.filled if self.filled else ZERO
        return {
            "orderId": self.order_id,
            "symbol": symbol,
            "status": self.reported_status or self.status,
            "clientOrderId": self.client_id,
            "price": plain(self.price),
            "avgPrice": plain(average),
            "origQty": plain(self.qty),
            "executedQty": plain(self.filled),
            "cumQty": plain(self.filled),
            "cumQuote": plain(self.quote),
            "timeInForce": self.time_in_force,
            "type": self.kind,
            "reduceOnly": self.closes,
            "closePosition": False,
            "side": self.side,
            "positionSide": self.position_side,
            "stopPrice": "0",
            "workingType": "CONTRACT_PRICE",
            "priceProtect": False,
            "origType": self.from_kind or self.kind,
            "priceMatch": "NONE",
            "selfTradePreventionMode": "EXPIRE_MAKER",
            "goodTillDate": 0,
            "time": self.ts_ms,
            "updateTime": self.updated_ms,
        }


@dataclass(slots=True, kw_only=True)
class Stop:
    """A conditional market order of the algo service that closes a side, or a part of it.

    Attributes:
        algo_id: the exchange's, rising.
        client_id: the client's.
        side: BUY or SELL.
        position_side: LONG or SHORT.
        trigger: price at which it becomes a market order.
        qty: base; 0: it closes the whole side (``closePosition``).
        ts_ms: when it was taken.
        updated_ms: when it last changed.
        status: the exchange's word.
        fired_ms: when it triggered, 0 before.
        fired_order_id: the market order it became, 0 before.
        fired_price: what that order paid.
    """

    algo_id: int
    client_id: str
    side: str
    position_side: str
    trigger: Decimal
    ts_ms: int
    updated_ms: int
    qty: Decimal = ZERO
    status: str = "NEW"
    fired_ms: int = 0
    fired_order_id: int = 0
    fired_price: Decimal = ZERO

    @property
    def is_open(self) -> bool:
        """Whether it can still trigger."""
        return self.status == "NEW"

    def view(self, symbol: str) -> dict[str, Json]:
        """Return the JSON of a reply about the order."""
        return {
            "algoId": self.algo_id,
            "clientAlgoId": self.client_id,
            "algoType": "CONDITIONAL",
            "orderType": "STOP_MARKET",
            "symbol": symbol,
            "side": self.side,
            "positionSide": self.position_side,
            "timeInForce": "GTC" if self.qty else "GTE_GTC",
            "quantity": plain(self.qty),
            "algoStatus": self.status,
            "actualOrderId": str(self.fired_order_id or ""),
            "actualPrice": plain(self.fired_price),
            "triggerPrice": plain(self.trigger),
            "price": "0",
            "icebergQuantity": None,
            "selfTradePreventionMode": "EXPIRE_MAKER",
            "workingType": "CONTRACT_PRICE",
            "priceMatch": "NONE",
            "closePosition": not self.qty,
            "priceProtect": False,
            "reduceOnly": True,
            "createTime": self.ts_ms,
            "updateTime": self.updated_ms,
            "triggerTime": self.fired_ms,
            "goodTillDate": 0,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One execution; ``pnl`` is gross, ``fee`` what was paid."""

    trade_id: int
    order_id: int
    side: str
    position_side: str
    price: Decimal
    qty: Decimal
    fee: Decimal
    pnl: Decimal
    ts_ms: int
    is_maker: bool
    fee_asset: str = "USDT"

    def view(self, symbol: str) -> dict[str, Json]:
        """Return the JSON of a reply about the trade."""
        return {
            "symbol": symbol,
            "id": self.trade_id,
            "orderId": self.order_id,
            "side": self.side,
            "price": plain(self.price),
            "qty": plain(self.qty),
            "realizedPnl": plain(self.pnl),
            "marginAsset": "USDT",
            "quoteQty": plain(self.price * self.qty),
            "commission": plain(self.fee),
            "commissionAsset": self.fee_asset,
            "time": self.ts_ms,
            "positionSide": self.position_side,
            "buyer": self.side == BUY,
            "maker": self.is_maker,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Income:
    """One change of a balance; ``trade_id`` '' where no trade caused it."""

    tran_id: int
    kind: str
    amount: Decimal
    ts_ms: int
    trade_id: str = ""
    asset: str = "USDT"

    def view(self, symbol: str) -> dict[str, Json]:
        """Return the JSON of a reply about the entry."""
        return {
            "symbol": "" if self.kind == "TRANSFER" else symbol,
            "incomeType": self.kind,
            "income": plain(self.amount),
            "asset": self.asset,
            "info": self.trade_id or self.kind,
            "time": self.ts_ms,
            "tranId": self.tran_id,
            "tradeId": self.trade_id,
        }
