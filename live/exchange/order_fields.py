"""Orders as the exchange takes them: texts on the tick and on the lot step, never floats."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from core.errors import ExchangeError
from core.market import MarketRules
from core.orders import OrderKind
from live.exchange.types import OrderSpec

OrderFields = dict[str, str]

_CLIENT_ID: Final = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")
_SLACK: Final = Decimal("0.001")
"""In steps: what a float may miss its step by; more is not a rounding error."""


def on_step(value: float, step: float, what: str) -> str:
    """Return ``value`` as the exact decimal text of the nearest multiple of ``step``.

    ``step`` is the float nearest to a decimal, so its shortest text is that decimal.

    Raises:
        ExchangeError: ``value`` is not positive or not on a multiple, so it would be refused.
    """
    exact_step = Decimal(repr(step))
    exact = Decimal(repr(float(value)))
    if exact.is_finite() and exact > 0:
        count = (exact / exact_step).quantize(Decimal(1), ROUND_HALF_EVEN)
        if count > 0 and abs(exact - count * exact_step) <= _SLACK * exact_step:
            return format((count * exact_step).normalize(), "f")
    raise ExchangeError(f"{what} = {value!r} must be a positive multiple of {step!r}; not sent")


def order_fields(
    spec: OrderSpec, symbol: str, rules: MarketRules, working_type: str
) -> OrderFields:
    """Return the request that places ``spec`` in hedge mode.

    The side a position has makes an order reducing or not; ``reduceOnly`` is refused there.
    ENTRY and TAKE_PROFIT are post-only (GTX). A STOP is an algo order that closes the whole
    side, without quantity, or a quantity beside such a one.

    Args:
        spec: the order.
        symbol: such as BTCUSDT.
        rules: tick and lot step.
        working_type: the price that fires a stop, CONTRACT_PRICE or MARK_PRICE.

    Raises:
        ExchangeError: the exchange would refuse it.
    """
    if not _CLIENT_ID.fullmatch(spec.client_id):
        raise ExchangeError(
            f"client id {spec.client_id!r} must be 1 to 36 of letters, digits and . : / _ -"
        )
    fields = {"symbol": symbol, "side": spec.side, "positionSide": spec.position_side}
    if spec.kind is OrderKind.STOP:
        amount = {"closePosition": "true"}
        if not spec.closes_all:
            amount = {"quantity": on_step(spec.qty, rules.step_size, "quantity")}
        return fields | {
            "algoType": "CONDITIONAL",
            "type": "STOP_MARKET",
            "triggerPrice": on_step(spec.price, rules.tick_size, "trigger price"),
            "workingType": working_type,
            **amount,
            "clientAlgoId": spec.client_id,
        }
    fields |= {
        "quantity": on_step(spec.qty, rules.step_size, "quantity"),
        "newClientOrderId": spec.client_id,
        "newOrderRespType": "RESULT",
    }
    if spec.kind is OrderKind.EXIT:
        return fields | {"type": "MARKET"}
    return fields | {
        "type": "LIMIT",
        "timeInForce": "GTX",
        "price": on_step(spec.price, rules.tick_size, "price"),
    }
