"""The JSON in which the exchange tells positions and balances, by version of the endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final, Protocol

from live.simulated.account import Account, money
from live.simulated.filters import plain
from live.simulated.orders import LONG, ZERO, Json

OLDER_POSITIONS: Final = 2
"""Version of ``positionRisk`` that tells empty sides and leverage too."""
MAX_NOTIONAL: Final = "100000000"


class Resting(Protocol):
    """Orders of one symbol."""

    def opening_notional(self) -> dict[str, Decimal]:
        """Return the notional that open orders would open, by side, quote."""
        ...


class Holding(Protocol):
    """One symbol of the account; ``opening``: notional of its orders that open, quote."""

    @property
    def symbol(self) -> str: ...  # noqa: D102 - the class says what it is
    @property
    def account(self) -> Account: ...  # noqa: D102
    @property
    def book(self) -> Resting: ...  # noqa: D102
    @property
    def price(self) -> Decimal: ...  # noqa: D102
    @property
    def opening(self) -> Decimal: ...  # noqa: D102


def position_row(
    account: Account, symbol: str, position_side: str, mark: Decimal, liquidation: Decimal
) -> dict[str, Json]:
    """Return what both versions of ``positionRisk`` say of one side; a short is negative."""
    position = account.positions[position_side]
    sign = 1 if position_side == LONG else -1
    return {
        "symbol": symbol,
        "positionSide": position_side,
        "positionAmt": plain(sign * position.qty),
        "entryPrice": plain(money(position.avg_entry)),
        "breakEvenPrice": plain(money(position.avg_entry)),
        "markPrice": plain(mark),
        "unRealizedProfit": plain(money(account.unrealized_of(position_side, mark))),
        "liquidationPrice": plain(money(liquidation)) if position.qty else "0",
        "isolatedMargin": "0",
        "notional": plain(sign * mark * position.qty),
        "isolatedWallet": "0",
        "updateTime": position.updated_ms,
    }


def position_risk(
    account: Account, symbol: str, mark: Decimal, version: int, opening: dict[str, Decimal]
) -> list[dict[str, Json]]:
    """Return the answer of ``positionRisk``.

    Version 2 tells both sides always and the account's leverage; version 3 only sides with a
    position or an opening order, and no leverage.

    Args:
        symbol: the exchange's.
        mark: quote.
        version: 2 or 3.
        opening: notional of the resting orders that open, by side, quote.
    """
    rows = []
    liquidation = account.liquidation_price(mark)
    for position_side, position in account.positions.items():
        row = position_row(account, symbol, position_side, mark, liquidation)
        value = mark * position.qty
        if version == OLDER_POSITIONS:
            row |= {
                "leverage": str(account.leverage),
                "maxNotionalValue": MAX_NOTIONAL,
                "marginType": "cross" if account.margin_type == "CROSSED" else "isolated",
                "isAutoAddMargin": "false",
            }
            rows.append(row)
        elif position.qty or opening[position_side]:
            position_margin = value / account.leverage
            order_margin = opening[position_side] / account.leverage
            row |= {
                "marginAsset": "USDT",
                "initialMargin": plain(money(position_margin + order_margin)),
                "maintMargin": plain(money(maintenance_at(account, value))),
                "positionInitialMargin": plain(money(position_margin)),
                "openOrderInitialMargin": plain(money(order_margin)),
                "adl": 1,
                "bidNotional": "0",
                "askNotional": "0",
            }
            rows.append(row)
    return rows


def maintenance_at(account: Account, value: Decimal) -> Decimal:
    """Return the maintenance margin of one position worth ``value``, quote."""
    return Decimal(account.maintenance(float(value))) if value else ZERO


def asset_sums(markets: Sequence[Holding]) -> dict[str, str]:
    """Return the sums of the USDT wallet as ``account`` names them, over all symbols."""
    account, mark = markets[0].account, markets[0].price
    held = resting = required = ZERO
    for market in markets:
        own = market.account
        held += own.notional(market.price) / own.leverage
        resting += market.opening / own.leverage
        required += sum((maintenance_at(own, market.price * side.qty) for side in own.held), ZERO)
    unrealized = account.equity(mark) - account.wallet
    available = account.available(mark, markets[0].opening)
    sums = {
        "walletBalance": account.wallet,
        "unrealizedProfit": unrealized,
        "marginBalance": account.wallet + unrealized,
        "maintMargin": required,
        "initialMargin": held + resting,
        "positionInitialMargin": held,
        "openOrderInitialMargin": resting,
        "crossWalletBalance": account.wallet,
        "crossUnPnl": unrealized,
        "availableBalance": max(ZERO, available),
        "maxWithdrawAmount": max(ZERO, available - max(ZERO, unrealized)),
    }
    return {name: plain(money(value)) for name, value in sums.items()}


def account_view(markets: Sequence[Holding], now_ms: int) -> dict[str, Json]:
    """Return the answer of ``account``, the same in versions 2 and 3 but for unused fields."""
    sums = asset_sums(markets)
    totals = {
        f"total{name[0].upper()}{name[1:]}": value
        for name, value in sums.items()
        if name not in {"availableBalance", "maxWithdrawAmount"}
    }
    positions = []
    for market in markets:
        account, opening = market.account, market.book.opening_notional()
        for row in position_risk(account, market.symbol, market.price, 3, opening):
            row["unrealizedProfit"] = row.pop("unRealizedProfit")
            positions.append({**row, "leverage": str(account.leverage), "isolated": False})
    return {
        "feeTier": 0,
        "canTrade": True,
        "canDeposit": True,
        "canWithdraw": True,
        "multiAssetsMargin": False,
        "updateTime": 0,
        **totals,
        "availableBalance": sums["availableBalance"],
        "maxWithdrawAmount": sums["maxWithdrawAmount"],
        "assets": [{"asset": "USDT", **sums, "marginAvailable": True, "updateTime": now_ms}],
        "positions": positions,
    }


def balance_view(markets: Sequence[Holding], now_ms: int) -> list[dict[str, Json]]:
    """Return the answer of ``balance``, versions 2 and 3."""
    sums = asset_sums(markets)
    row = {
        "accountAlias": "SimSimSimSim",
        "asset": "USDT",
        "balance": sums["walletBalance"],
        "crossWalletBalance": sums["crossWalletBalance"],
        "crossUnPnl": sums["crossUnPnl"],
        "availableBalance": sums["availableBalance"],
        "maxWithdrawAmount": sums["maxWithdrawAmount"],
        "marginAvailable": True,
        "updateTime": now_ms,
    }
    others = [
        row
        | dict.fromkeys(("crossUnPnl", "availableBalance", "maxWithdrawAmount"), "0")
        | {"asset": asset, "balance": plain(amount), "crossWalletBalance": plain(amount)}
        for asset, amount in markets[0].account.pool.other_assets.items()
    ]
    return [row, *others]
