"""The exchange's rules of one symbol out of its answers."""

from __future__ import annotations

import contextlib
import difflib
import math
from typing import Any, Final

from core.errors import DataError, ReplyError
from core.market import MarketRules
from core.risk import DEFAULT_BRACKETS
from live.exchange.replies.shapes import Row, as_row, as_rows, wrong
from live.exchange.types import MarketFacts

BracketTable = tuple[tuple[float, float, float], ...]
"""(notional floor, maintenance rate, maintenance amount), by rising floor."""

_TRADING: Final = "TRADING"
_SHOWN: Final = 3  # nearest symbols named in an error


def market_facts(
    info: Any, symbol: str, *, brackets: Any = None, commission: Any = None
) -> MarketFacts:
    """Return what is known of ``symbol``.

    Market orders have a lot filter of their own. Both hold for us, so the coarser step and the
    higher minimum are taken.

    Args:
        info: answer of ``exchangeInfo``.
        symbol: such as BTCUSDT.
        brackets: answer of ``leverageBracket``; None takes the default brackets.
        commission: answer of ``commissionRate``; None leaves the fees open.

    Raises:
        DataError: the exchange has no such symbol; the text names the nearest.
        ReplyError: an answer is not of the shape it must have.
    """
    market = _market(info, symbol)
    filters = {row.text("filterType"): row for row in as_rows(market.get("filters"), "filter")}
    lots = [_filter(filters, name) for name in ("LOT_SIZE", "MARKET_LOT_SIZE")]
    prices, band = _filter(filters, "PRICE_FILTER"), _filter(filters, "PERCENT_PRICE")
    highest_buy, lowest_sell = band.positive("multiplierUp"), band.number("multiplierDown", 0.0)
    if lowest_sell >= highest_buy:
        raise wrong("filter.PERCENT_PRICE", (highest_buy, lowest_sell), "a range")
    has_fee = market.get("liquidationFee") is not None
    rules = MarketRules(
        tick_size=prices.positive("tickSize"),
        step_size=max(lot.positive("stepSize") for lot in lots),
        min_qty=max(lot.number("minQty", 0.0) for lot in lots),
        min_notional=_filter(filters, "MIN_NOTIONAL").number("notional", 0.0),
        liquidation_fee=market.number("liquidationFee", 0.0) if has_fee else None,
        brackets=DEFAULT_BRACKETS if brackets is None else bracket_table(brackets, symbol),
    )
    fees = None if commission is None else as_row(commission, "commission")
    return MarketFacts(
        symbol=symbol,
        rules=rules,
        fee_maker=None if fees is None else fees.number("makerCommissionRate"),
        fee_taker=None if fees is None else fees.number("takerCommissionRate"),
        is_trading=market.text("status") == _TRADING,
        max_orders=_filter(filters, "MAX_NUM_ORDERS").integer("limit"),
        max_market_qty=_limit(_filter(filters, "MARKET_LOT_SIZE"), "maxQty"),
        status=market.text("status"),
        highest_buy=highest_buy,
        lowest_sell=lowest_sell,
        min_price=prices.number("minPrice", 0.0) if prices.get("minPrice") is not None else 0.0,
        max_price=_limit(prices, "maxPrice"),
    )


def _limit(row: Row, key: str) -> float:
    """Return an upper limit; a missing one, or 0, is none."""
    return (row.number(key, 0.0) if row.get(key) is not None else 0.0) or math.inf


def _market(info: Any, symbol: str) -> Row:
    markets = as_rows(as_row(info, "exchange information").get("symbols"), "market")
    names = [market.text("symbol") for market in markets]
    if symbol in names:
        return markets[names.index(symbol)]
    nearest = ", ".join(difflib.get_close_matches(symbol, names, n=_SHOWN)) or "none"
    raise DataError(f"the exchange has no market {symbol}; nearest: {nearest}")


def _filter(filters: dict[str, Row], name: str) -> Row:
    if name not in filters:
        raise wrong("filters", sorted(filters), f"with {name}")
    return filters[name]


def _bracket_rows(reply: Any, symbol: str) -> list[Row]:
    """Return the brackets, which come alone or in a list of one symbol."""
    if isinstance(reply, list) and len(reply) == 1:
        reply = reply[0]
    table = as_row(reply, "leverage brackets")
    table.text("symbol", symbol)
    rows = as_rows(table.get("brackets"), "bracket")
    if not rows:
        raise wrong("leverage brackets", rows, "at least one")
    return sorted(rows, key=lambda row: row.number("notionalFloor", 0.0))


def bracket_table(reply: Any, symbol: str) -> BracketTable:
    """Return the maintenance brackets out of ``leverageBracket``.

    Raises:
        ReplyError: they do not begin at 0, repeat a floor, or hold an impossible rate.
    """
    table: list[tuple[float, float, float]] = []
    for row in _bracket_rows(reply, symbol):
        floor, rate = row.number("notionalFloor", 0.0), row.positive("maintMarginRatio")
        if (floor <= table[-1][0]) if table else (floor != 0):
            raise wrong("bracket.notionalFloor", floor, "0 first, then rising")
        if rate >= 1:
            raise wrong("bracket.maintMarginRatio", rate, "under 1")
        table.append((floor, rate, row.number("cum", 0.0)))
    return tuple(table)


def highest_leverage(reply: Any, symbol: str) -> int:
    """Return the highest leverage any bracket allows.

    Raises:
        ReplyError: as ``bracket_table``.
    """
    return max(row.integer("initialLeverage") for row in _bracket_rows(reply, symbol))


def perpetual_rules(info: Any, quote: str) -> dict[str, dict[str, float]]:
    """Return the rules of all perpetuals in ``quote`` by coin, out of ``exchangeInfo``.

    ``tick_size step_size min_qty min_notional liquidation_fee``; a market that lacks one of them
    cannot be traded and is left out.

    Raises:
        ReplyError: the answer is something else, or holds no such market.
    """
    rules: dict[str, dict[str, float]] = {}
    for market in as_rows(as_row(info, "exchange information").get("symbols"), "market"):
        if market.get("contractType") == "PERPETUAL" and market.get("quoteAsset") == quote:
            with contextlib.suppress(ReplyError):
                rules[market.text("baseAsset")] = _perpetual_rules(market)
    if not rules:
        raise wrong("exchange information", len(rules), f"with perpetuals in {quote}")
    return rules


def _perpetual_rules(market: Row) -> dict[str, float]:
    filters = {row.text("filterType"): row for row in as_rows(market.get("filters"), "filter")}
    lot = _filter(filters, "LOT_SIZE")
    return {
        "tick_size": _filter(filters, "PRICE_FILTER").positive("tickSize"),
        "step_size": lot.positive("stepSize"),
        "min_qty": lot.number("minQty", 0.0),
        "min_notional": _filter(filters, "MIN_NOTIONAL").number("notional", 0.0),
        "liquidation_fee": market.number("liquidationFee", 0.0),
    }
