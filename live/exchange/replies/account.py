"""Positions, balance, trades and income out of the exchange's answers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from core.errors import AccountError, ReplyError
from core.orders import POSITION_SIDES
from live.exchange.replies.shapes import Row, as_row, as_rows, rows_of, wrong
from live.exchange.types import (
    Balance,
    Execution,
    FundingPayment,
    KeyRights,
    QuantitativeRule,
    SidePosition,
    Unvalued,
)

QUOTE: Final = "USDT"

InQuote = Callable[[float, str], float | None]
"""Returns an amount of an asset in quote, None if it cannot be valued: ``(amount, asset)``."""


def open_sides(reply: Any, symbol: str) -> dict[str, SidePosition]:
    """Return the sides an answer of v3 ``positionRisk`` holds; flat ones may be missing.

    Raises:
        ReplyError: it is no list of positions of ``symbol``, or contradicts itself.
        AccountError: the account is in one-way mode and holds a position.
    """
    sides: dict[str, SidePosition] = {}
    for row in rows_of(reply, "position", symbol):
        position_side = row.text("positionSide", *POSITION_SIDES, "BOTH")
        amount = row.number("positionAmt")
        if position_side == "BOTH":
            if amount:
                raise AccountError(
                    f"{symbol}: the account is in one-way mode and holds {amount:g}; close that "
                    "position and start again, which sets hedge mode"
                )
            continue
        if position_side in sides:
            raise wrong("positions", position_side, "listed once each")
        sides[position_side] = _side(row, amount if position_side == "LONG" else -amount)
    return sides


def all_open_sides(reply: Any) -> dict[tuple[str, str], SidePosition]:
    """Return the open positions of all symbols by (symbol, LONG, SHORT or BOTH).

    Raises:
        ReplyError: it is no list of positions, or contradicts itself.
    """
    sides: dict[tuple[str, str], SidePosition] = {}
    for row in rows_of(reply, "position"):
        position_side = row.text("positionSide", *POSITION_SIDES, "BOTH")
        amount = row.number("positionAmt")
        if not amount:
            continue
        name = (row.text("symbol"), position_side)
        if name in sides:
            raise wrong("positions", name, "listed once each")
        qty = {"LONG": amount, "SHORT": -amount}.get(position_side, abs(amount))
        sides[name] = _side(row, qty)
    return sides


def _side(row: Row, qty: float) -> SidePosition:
    """Return one side; the amount of a short is negative at the exchange."""
    if qty < 0:
        raise wrong("position.positionAmt", row.get("positionAmt"), "of its side's sign")
    return SidePosition(
        qty=abs(qty),  # no negative zero
        avg_entry=row.positive("entryPrice") if qty else 0.0,
        mark_price=row.positive("markPrice"),
        liquidation_price=row.number("liquidationPrice", 0.0),
    )


def futures_balance(reply: Any) -> Balance:
    """Return the wallet out of v3 ``balance``.

    Raises:
        ReplyError: it is no list of assets with exactly one row of USDT.
    """
    rows = [row for row in as_rows(reply, "balance") if row.text("asset") == QUOTE]
    if len(rows) != 1:
        raise ReplyError(
            f"the futures wallet's answer has {len(rows)} rows of {QUOTE}, must be 1; if the "
            f"wallet is empty, transfer {QUOTE} to it"
        )
    return Balance(wallet=rows[0].number("balance"), available=rows[0].number("availableBalance"))


def execution_page(reply: Any, symbol: str, from_id: int, in_quote: InQuote) -> list[Execution]:
    """Return trades of ours by rising id.

    Args:
        reply: answer of ``userTrades``.
        symbol: the trades must be of.
        from_id: no trade may have a lower id.
        in_quote: values fees that were paid in another asset.

    Raises:
        ReplyError: it is no such list, or ids repeat or are too low.
    """
    trades = [_execution(row, in_quote) for row in rows_of(reply, "trade", symbol)]
    trades.sort(key=lambda trade: trade.trade_id)
    ids = [trade.trade_id for trade in trades]
    if len(set(ids)) != len(ids) or (ids and ids[0] < from_id):
        raise wrong("trade ids", ids[:3], f"different and at least {from_id}")
    return trades


def _valued(amount: float, asset: str, in_quote: InQuote) -> tuple[float, Unvalued | None]:
    """Return an amount in quote, or 0 and the amount as it is."""
    value = in_quote(amount, asset)
    return (0.0, Unvalued(amount=amount, asset=asset)) if value is None else (value, None)


def _execution(row: Row, in_quote: InQuote) -> Execution:
    fee, unvalued = _valued(row.number("commission"), row.text("commissionAsset"), in_quote)
    return Execution(
        trade_id=row.integer("id"),
        order_id=str(row.integer("orderId")),
        position_side=row.text("positionSide", *POSITION_SIDES, "BOTH"),
        side=row.text("side", "BUY", "SELL"),
        price=row.positive("price"),
        qty=row.positive("qty"),
        fee=fee,
        ts_ms=row.integer("time"),
        is_maker=row.flag("maker"),
        unvalued=unvalued,
    )


def funding_income(
    reply: Any, symbol: str, start_ms: int, in_quote: InQuote
) -> list[FundingPayment]:
    """Return funding settlements by time.

    Args:
        reply: answer of ``income``.
        symbol: the payments must be of.
        start_ms: none may be earlier.
        in_quote: values amounts of another asset.

    Raises:
        ReplyError: it is no such list.
    """
    payments: list[FundingPayment] = []
    for row in rows_of(reply, "income", symbol):
        row.text("incomeType", "FUNDING_FEE")
        time_ms = row.integer("time")
        if time_ms < start_ms:
            raise wrong("income.time", time_ms, f"at least {start_ms}")
        amount, unvalued = _valued(row.number("income"), row.text("asset"), in_quote)
        income_id = str(row.integer("tranId"))
        payments.append(
            FundingPayment(income_id=income_id, amount=amount, ts_ms=time_ms, unvalued=unvalued)
        )
    return sorted(payments, key=lambda payment: payment.ts_ms)


def is_hedged(reply: Any) -> bool:
    """Return whether an answer of ``positionSide/dual`` says hedge mode.

    Raises:
        ReplyError: it says neither.
    """
    return as_row(reply, "position mode").flag("dualSidePosition")


def symbol_settings(reply: Any, symbol: str) -> tuple[str, int]:
    """Return (``CROSSED`` or ``ISOLATED``, leverage) out of ``symbolConfig``.

    Raises:
        ReplyError: it is no list of exactly one row of ``symbol``.
    """
    rows = rows_of(reply, "symbol settings", symbol)
    if len(rows) != 1:
        raise wrong("symbol settings", len(rows), "one row")
    return rows[0].text("marginType", "CROSSED", "ISOLATED"), rows[0].integer("leverage")


def quantitative_rules(reply: Any) -> list[QuantitativeRule]:
    """Return the ratios of ``apiTradingStatus``, the account's own under the scope ``ACCOUNT``.

    Raises:
        ReplyError: it is no ``{"indicators": {symbol: [{"indicator": ..., "isLocked": ...}]}}``.
    """
    indicators = as_row(reply, "trading status").get("indicators")
    rules: list[QuantitativeRule] = []
    for scope, items in as_row(indicators, "trading status indicators").fields.items():
        for row in as_rows(items, "trading status indicator"):
            is_locked = row.flag("isLocked")
            rule = QuantitativeRule(
                scope=str(scope),
                indicator=row.text("indicator"),
                value=row.number("value"),
                trigger_value=row.number("triggerValue"),
                is_locked=is_locked,
                recovers_ms=row.integer("plannedRecoverTime") if is_locked else 0,
            )
            rules.append(rule)
    return rules


def key_rights(reply: Any) -> KeyRights:
    """Return what a key may do out of ``apiRestrictions``.

    Raises:
        ReplyError: a right that matters is not named; it is not guessed.
    """
    row = as_row(reply, "key rights")
    return KeyRights(
        may_read=row.flag("enableReading"),
        may_trade_futures=row.flag("enableFutures"),
        may_withdraw=row.flag("enableWithdrawals"),
        may_transfer=row.flag("enableInternalTransfer") or row.flag("permitsUniversalTransfer"),
        is_bound_to_addresses=row.flag("ipRestrict"),
    )
