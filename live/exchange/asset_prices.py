"""The worth in USDT of an amount in another asset."""

from __future__ import annotations

import logging
from typing import Final, final

from core.errors import GridError
from live.exchange.connection import Connection
from live.exchange.replies.account import QUOTE
from live.exchange.replies.market import ticker_price
from live.exchange.request import Request

PRICE_KEPT_MS: Final = 60_000

_log: Final = logging.getLogger("live.exchange.binance")
_NO_SUCH_SYMBOL: Final = frozenset({-1121})


@final
class AssetPrices:
    """Last prices of the assets that fees and funding are paid in, kept for a minute."""

    def __init__(self, connection: Connection) -> None:
        """Ask nothing yet."""
        self._connection = connection
        self._prices: dict[str, tuple[int, float | None]] = {}
        self._reported: set[str] = set()

    def in_quote(self, amount: float, asset: str) -> float | None:
        """Return an amount in USDT at the asset's last price; None if it has no USDT market.

        The exchange does not tell the price it took, so this is off by what the asset moved
        since; said once in the log. BNFCR, the credits of EEA accounts, has no market.

        Raises:
            GridError: the price cannot be read and none was known before.
        """
        if asset == QUOTE or amount == 0:
            return amount
        price = self._price(asset)
        if asset not in self._reported:
            self._reported.add(asset)
            if price is None:
                _log.warning(
                    "amounts in %s cannot be valued: there is no %s%s market; they are counted as "
                    "0 and reported",
                    asset,
                    asset,
                    QUOTE,
                )
            else:
                _log.warning(
                    "amounts in %s are valued at the last %s%s price; pay fees in %s for exact "
                    "books",
                    asset,
                    asset,
                    QUOTE,
                    QUOTE,
                )
        return None if price is None else amount * price

    def _price(self, asset: str) -> float | None:
        now_ms = self._connection.clock.now_ms()
        known = self._prices.get(asset)
        if known is not None and 0 <= now_ms - known[0] < PRICE_KEPT_MS:
            return known[1]
        symbol = f"{asset}{QUOTE}"
        request = Request("fapiPublicV2GetTickerPrice", {"symbol": symbol})
        try:
            price = self._connection.find(
                request, lambda reply: ticker_price(reply, symbol), _NO_SUCH_SYMBOL
            )
        except GridError:
            if known is None:
                raise
            price = known[1]  # an old price beats no booking
        self._prices[asset] = (now_ms, price)
        return price
