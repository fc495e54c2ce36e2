"""Protocols of an exchange and of a clock; ``live.exchange.binance`` answers for Binance.

Nothing here knows ccxt.
"""

from __future__ import annotations

from typing import Protocol

from live.exchange.types import (
    Balance,
    Candles,
    ExchangeOrder,
    Execution,
    Fate,
    FundingPayment,
    MarketFacts,
    OrderKind,
    OrderReply,
    OrderSpec,
    SidePosition,
    Usage,
)


class Clock(Protocol):
    """Where time comes from; tests bring their own."""

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        ...

    def sleep(self, seconds: float) -> None:
        """Wait."""
        ...


class MarketReader(Protocol):
    """Public market data of one symbol."""

    def read_market(self) -> MarketFacts:
        """Return the symbol's rules and, with keys, the account's fees."""
        ...

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)`` and have closed.

        May answer with fewer than there should be; the caller checks continuity.
        """
        ...

    def opening_price(self, open_ms: int) -> float:
        """Return the first price of the candle that opened at ``open_ms``, still forming.

        Where nothing has traded in it yet: the last price.
        """
        ...

    def last_price(self) -> float:
        """Return the last traded price, quote."""
        ...

    def funding_rates(self, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        """Return (settlement time ms, rate) settled in ``[start_ms, end_ms]``, by time."""
        ...


class Exchange(MarketReader, Protocol):
    """Everything the runner asks of an exchange. All calls may raise ``core.errors.GridError``.

    No call answers with anything but what the exchange said: an unreadable reply raises.
    """

    def usage(self) -> Usage:
        """Return what the last replies told about limits and clock; asks nothing."""
        ...

    def prepare_account(self, leverage: float) -> None:
        """Set hedge mode, cross margin and leverage; refuse where they cannot be set."""
        ...

    def positions(self) -> dict[str, SidePosition]:
        """Return the position of LONG and of SHORT."""
        ...

    def balance(self) -> Balance:
        """Return the futures wallet."""
        ...

    def open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the symbol, conditional ones and strangers' included."""
        ...

    def find_order(self, client_id: str, kind: OrderKind) -> ExchangeOrder | None:
        """Return the order with ``client_id``, open or not; None if the exchange has none."""
        ...

    def order_by_id(self, order_id: str) -> ExchangeOrder | None:
        """Return a normal order by the exchange's identity; None if the exchange has none."""
        ...

    def executions(self, from_id: int, start_ms: int) -> list[Execution]:
        """Return our trades with ``trade_id >= from_id``, all pages, by rising id.

        ``from_id`` 0: from ``start_ms`` on.
        """
        ...

    def funding_payments(self, start_ms: int) -> list[FundingPayment]:
        """Return funding income from ``start_ms`` on, all pages, by time."""
        ...

    def create_orders(self, orders: list[OrderSpec]) -> list[OrderReply]:
        """Send ``orders`` (in batches where the exchange has them), a reply each, in their order.

        An unknown outcome has been looked up by client id before it is answered.
        """
        ...

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[Fate]:
        """Cancel; return what became of each, judged by the ``filled_qty`` known of it."""
        ...
