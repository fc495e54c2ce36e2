"""Refusals of the exchange, and their words: error codes and the filters of a symbol."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import Final

from core.market import MarketRules

MAX_OPEN_ORDERS: Final = 200
MAX_OPEN_STOPS: Final = 10

MESSAGES: Final = {
    -1008: "Server is currently overloaded with other requests. Please try again in a few minutes.",
    -1003: "Too many requests.",
    -1015: "Too many new orders.",
    -1021: "Timestamp for this request is outside of the recvWindow.",
    -1022: "Signature for this request is not valid.",
    -1102: "Mandatory parameter '{}' was not sent, was empty/null, or malformed.",
    -1106: "Parameter '{}' sent when not required.",
    -1111: "Precision is over the maximum defined for this asset.",
    -1115: "Invalid timeInForce.",
    -1116: "Invalid orderType.",
    -1117: "Invalid side.",
    -1120: "Invalid interval.",
    -1121: "Invalid symbol.",
    -1128: "Combination of optional parameters invalid.",
    -1130: "Data sent for parameter '{}' is not valid.",
    -1131: "recvWindow must be less than 60000",
    -2011: "Unknown order sent.",
    -2013: "Order does not exist.",
    -2014: "API-key format invalid.",
    -2015: "Invalid API-key, IP, or permissions for action.",
    -2019: "Margin is insufficient.",
    -2021: "Order would immediately trigger.",
    -2022: "ReduceOnly Order is rejected.",
    -2025: "Reach max open order limit.",
    -2027: "Exceeded the maximum allowable position at current leverage.",
    -2028: "Leverage is smaller than permitted: insufficient margin balance",
    -4003: "Quantity less than or equal to zero.",
    -4004: "Quantity less than min quantity.",
    -4005: "Quantity greater than max quantity.",
    -4014: "Price not increased by tick size.",
    -4015: "Client order id is not valid.",
    -4016: "Limit price can't be higher than {}.",
    -4023: "Quantity not increased by step size.",
    -4024: "Limit price can't be lower than {}.",
    -4028: "Leverage {} is not valid",
    -4032: "Exceed maximum cancel order size.",
    -4045: "Reach max stop order limit.",
    -4046: "No need to change margin type.",
    -4047: "Margin type cannot be changed if there exists open orders.",
    -4048: "Margin type cannot be changed if there exists position.",
    -4059: "No need to change position side.",
    -4061: "Order's position side does not match user's setting.",
    -4067: "Position side cannot be changed if there exists open orders.",
    -4068: "Position side cannot be changed if there exists position.",
    -4082: "Invalid number of batch place orders.",
    -4116: "ClientOrderId is duplicated.",
    -4120: (
        "Order type not supported for this endpoint. Please use the Algo Order API endpoints"
        " instead."
    ),
    -4087: "User can only place reduce only order.",
    -4088: "User can not place order currently.",
    -4108: "Symbol is not trading: it is being settled or delivered.",
    -4109: "This is an inactive account.",
    -4130: (
        "An open stop or take profit order with GTE and closePosition in the direction is existing."
    ),
    -4131: ("The counterparty's best price does not meet the PERCENT_PRICE filter limit."),
    -4137: "Quantity must be zero with closePosition equals true",
    -4141: "Symbol is closed.",
    -4164: "Order's notional must be no smaller than {} (unless you choose reduce only).",
    -4165: "Maximum time interval is 7 days.",
    -4166: "Search window is restricted to recent 90 days only.",
    -4192: "Trade forbidden due to Cooling-off Period.",
    -4202: "Your account is restricted from adjusting the leverage.",
    -4400: (
        "Futures Trading Quantitative Rules violated, only reduceOnly order is allowed, please try"
        " again later."
    ),
    -4401: "Only reduce-only orders are allowed in your region.",
    -4402: "This service is not available in your region.",
    -4411: "Please sign the TradFi-Perps agreement first.",
    -4509: "TIF GTE can only be used with open positions.",
    -5022: (
        "Due to the order could not be executed as maker, the Post Only order will be rejected."
        " The order will not be recorded in the order history"
    ),
    -20124: "Algo id is invalid or completed.",
    -20132: "Client algo id is duplicated.",
}
STATUS: Final = {-1008: 503, -1015: 429, -2014: 401, -2015: 401}
"""HTTP status of the codes that do not come with 400."""


class ApiError(Exception):
    """The exchange refuses a request.

    Attributes:
        code: the exchange's error code, negative.
        text: its words.
        status: HTTP status of the answer.
    """

    def __init__(self, code: int, *details: object) -> None:
        self.code = code
        self.text = MESSAGES[code].format(*details)
        self.status = STATUS.get(code, 400)
        super().__init__(f"{code}: {self.text}")

    def body(self) -> dict[str, object]:
        """Return what is sent as JSON."""
        return {"code": self.code, "msg": self.text}


def exact(number: float) -> Decimal:
    """Return the shortest decimal that is written like ``number``."""
    return Decimal(repr(float(number)))


def plain(number: Decimal) -> str:
    """Return ``number`` without an exponent, as replies carry it."""
    return format(number, "f")


def digits_of(number: Decimal) -> int:
    """Return how many decimals ``number`` needs."""
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Filters:
    """Price and quantity filters of one symbol.

    Attributes:
        tick: price step, quote.
        step: quantity step, base.
        min_qty: smallest order, base.
        max_qty: largest order, base.
        max_market_qty: largest order at market, base.
        min_notional: smallest opening order, quote.
        price_band: how far above the mark price a BUY may lie, and below it a SELL, as a share.
        price_digits: decimals a price may have (one more than the tick has, as on many symbols).
        qty_digits: decimals a quantity may have.
    """

    tick: Decimal
    step: Decimal
    min_qty: Decimal
    max_qty: Decimal
    max_market_qty: Decimal
    min_notional: Decimal
    price_band: Decimal
    price_digits: int
    qty_digits: int

    @classmethod
    def of(
        cls,
        rules: MarketRules,
        max_qty: float,
        price_band: float,
        max_market_qty: float | None = None,
    ) -> Filters:
        """Return the filters that say the same as ``rules``, with what those do not say."""
        tick, step = exact(rules.tick_size), exact(rules.step_size)
        return cls(
            tick=tick,
            step=step,
            min_qty=exact(rules.min_qty),
            max_qty=exact(max_qty),
            max_market_qty=exact(max_qty if max_market_qty is None else max_market_qty),
            min_notional=exact(rules.min_notional),
            price_band=exact(price_band),
            price_digits=digits_of(tick) + 1,
            qty_digits=digits_of(step),
        )

    def check_tick(self, price: Decimal) -> None:
        """Refuse a price off the tick (-1111, -4014)."""
        if digits_of(price) > self.price_digits:
            raise ApiError(-1111)
        if price <= 0 or price % self.tick != 0:
            raise ApiError(-4014)

    def check_band(self, side: str, price: Decimal, mark: Decimal) -> None:
        """Refuse a BUY too far above the mark price, a SELL too far below (-4016, -4024).

        One bound a side: on its passive side an order may rest as far away as it likes.
        """
        highest, lowest = mark * (1 + self.price_band), mark * (1 - self.price_band)
        if side == "BUY" and price > highest:
            raise ApiError(-4016, plain(highest))
        if side == "SELL" and price < lowest:
            raise ApiError(-4024, plain(lowest))

    def check_qty(self, qty: Decimal, *, at_market: bool = False) -> None:
        """Refuse a quantity off the step or out of range (-1111, -4003, -4004, -4005, -4023)."""
        if qty <= 0:
            raise ApiError(-4003)
        if digits_of(qty) > self.qty_digits:
            raise ApiError(-1111)
        if qty < self.min_qty:
            raise ApiError(-4004)
        if qty > (self.max_market_qty if at_market else self.max_qty):
            raise ApiError(-4005)
        if qty % self.step != 0:
            raise ApiError(-4023)

    def check_notional(self, price: Decimal, qty: Decimal) -> None:
        """Refuse an opening order that is too small (-4164)."""
        if price * qty < self.min_notional:
            raise ApiError(-4164, plain(self.min_notional))

    def market_price(self, basis: Decimal, side: str, slippage: Decimal) -> Decimal:
        """Return what a market order pays at ``basis``: slippage, to the tick, against it."""
        if side == "SELL":
            ticks = (basis * (1 - slippage) / self.tick).to_integral_value(ROUND_FLOOR)
            return max(ticks, Decimal(1)) * self.tick
        return (basis * (1 + slippage) / self.tick).to_integral_value(ROUND_CEILING) * self.tick
