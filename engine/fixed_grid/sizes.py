"""Sizes at load: what a market allows of the parameters, and what rounding to lots does to them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from core.errors import ConfigError
from core.market import Market, MarketRules, lots_down
from engine.fixed_grid.params import Direction, FixedGridParams, RecoveryMode


def check_market(params: FixedGridParams, rules: MarketRules, price: float) -> None:
    """Refuse what a market does not allow while the price is ``price`` (quote).

    Raises:
        ConfigError: an order off the lot or under the exchange's minimum, a cap under one order's
            margin, a price already beyond ``stop_price``.
    """
    market = rules.to_record(params.liquidation_fee)
    qty = order_qty(params, market, price)
    if params.quantity > 0.0 and abs(qty - params.quantity) > 1e-9 * params.quantity:
        raise ConfigError(
            f"quantity = {params.quantity:g} is off the lot of {rules.step_size:g}; "
            f"{qty:g} would do"
        )
    least = max(market.min_qty, rules.min_notional / price)
    if qty < market.min_qty - 1e-9 * rules.step_size or qty * price < rules.min_notional - 1e-9:
        raise ConfigError(
            f"an order of {qty:g} ({qty * price:g} USDT) is under the exchange's minimum of "
            f"{rules.min_qty:g} and {rules.min_notional:g} USDT; quantity_usd = "
            f"{(least + rules.step_size) * price:.6g} would do"
        )
    margin = qty * price / params.leverage
    if margin > params.max_margin_usd:
        raise ConfigError(
            f"max_margin_usd = {params.max_margin_usd:g} is under the margin of one order, "
            f"{margin:.6g} USDT; raise it or lower the order"
        )
    if params.stop_price is not None and params.sign * (price - params.stop_price) <= 0.0:
        side = "below" if params.direction is Direction.BUY else "above"
        raise ConfigError(
            f"stop_price = {params.stop_price:g} must be {side} the price, which is {price:g}"
        )


def order_qty(params: FixedGridParams, market: Market, price: float) -> float:
    """Return the quantity of an order at ``price``, base."""
    wanted = params.quantity if params.quantity > 0.0 else params.quantity_usd / price
    return lots_down(market, wanted)


def market_warnings(params: FixedGridParams, rules: MarketRules, price: float) -> list[str]:
    """Return what rounding to the lot does to sizes while the price is ``price`` (quote)."""
    return list(_market_warnings(params, rules, price))


def _market_warnings(params: FixedGridParams, rules: MarketRules, price: float) -> Iterator[str]:
    market = rules.to_record(params.liquidation_fee)
    qty = order_qty(params, market, price)
    lots = round(qty / rules.step_size)
    if params.quantity_usd > 0.0 and lots <= COARSE_LOTS:
        yield (
            f"orders are whole lots of {rules.step_size:g}: quantity_usd = "
            f"{params.quantity_usd:g} buys {qty * price:.4g} USDT at {price:g}, and between "
            f"{params.quantity_usd * lots / (lots + 1):.4g} and {params.quantity_usd:g} as the "
            "price moves"
        )
    rungs = len(params.ladder_pct)
    if params.recovery_mode is RecoveryMode.LADDER and lots < rungs:
        yield f"a position of {lots} lots makes a ladder of 1 of {rungs} rungs"


COARSE_LOTS: Final = 10
"""With as few lots in an order, rounding takes a tenth of it or more."""
