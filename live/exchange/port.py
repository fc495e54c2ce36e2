"""Protocols of an exchange and of a clock; ``live.exchange.binance`` answers for Binance.

Nothing here knows ccxt.
"""

from __future__ import annotations

from typing import Protocol

from core.market import MarketRules
from core.orders import OrderKind
from live.exchange.request import InFlight
from live.exchange.types import (
    Balance,
    CancelResult,
    Candles,
    ExchangeOrder,
    Execution,
    FundingPayment,
    KeyRights,
    MarketFacts,
    OrderReply,
    OrderSpec,
    QuantitativeRule,
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
        """Return what the last replies said about limits and clock; asks nothing."""
        ...

    @property
    def in_flight(self) -> InFlight | None:
        """The request under way, None between requests; for a watchdog in another thread."""
        ...

    def hurry(self) -> None:
        """End the request under way within a second; safe in signal handlers and threads.

        Its outcome is unknown and it is not repeated; later requests are sent as ever.
        """
        ...

    def leave(self) -> None:
        """Hurry, and repeat later questions and cancels once only: the program is to end."""
        ...

    def server_ms(self) -> int:
        """Return the exchange's time, ms UTC."""
        ...

    def measure_clock(self) -> None:
        """Ask once, not again, what the exchange's time is; ``usage`` tells the offset. Weight 1.

        For whoever has reason to think that our clock was set.
        """
        ...

    def assume_rules(self, rules: MarketRules) -> None:
        """Send orders by rules of an earlier reading, until they are read; asks nothing."""
        ...

    def prepare_account(self, leverage: float) -> None:
        """Set hedge mode, cross margin and leverage; refuse where they cannot be set."""
        ...

    def positions(self) -> dict[str, SidePosition]:
        """Return the position of LONG and of SHORT."""
        ...

    def all_positions(self) -> dict[tuple[str, str], SidePosition]:
        """Return the account's open positions by (symbol, LONG, SHORT or BOTH); weight 5."""
        ...

    def all_open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the account, each with its symbol; weight 80."""
        ...

    def balance(self) -> Balance:
        """Return the futures wallet."""
        ...

    def quantitative_rules(self) -> list[QuantitativeRule]:
        """Return where the symbol stands in the exchange's ratios of orders; weight 1.

        Locked ones take entries off until ``recovers_ms`` (-4400, ``Meaning.ENTRIES_OFF``).
        """
        ...

    def key_rights(self) -> KeyRights:
        """Return what the API key may do; refused on demo trading."""
        ...

    def open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the symbol, conditional and foreign ones included; weight 2.

        A status word that is not known counts as open, as ``UNKNOWN_STATUS``.
        """
        ...

    def find_order(self, client_id: str, kind: OrderKind) -> ExchangeOrder | None:
        """Return the symbol's order with ``client_id``, open or not; None if there is none.

        Of a STOP: its trigger is ``price``, its state ``status``, and once it has fired
        ``fired_order_id`` names the market order it became. Names of stops belong to the
        account: one that is another symbol's order is not ours, so None.
        """
        ...

    def order_by_id(self, order_id: str) -> ExchangeOrder | None:
        """Return a normal order by the exchange's identity; None if the exchange has none."""
        ...

    def executions(self, from_id: int, start_ms: int) -> list[Execution]:
        """Return our trades with ``trade_id >= from_id``, all pages, by rising id.

        ``from_id`` 0: from ``start_ms`` on. What is older than ``history_start_ms`` is left out.
        """
        ...

    def executions_since(self, start_ms: int) -> list[Execution]:
        """Return our trades since ``start_ms``, all pages, by rising id; weight 5 a page.

        A trade may be listed after a younger one. Ask from before the newest known trade, and
        drop the ids that are known: so none is lost.
        """
        ...

    def order_executions(self, order_id: str) -> list[Execution]:
        """Return the trades of one normal order, by rising id; weight 5."""
        ...

    def order_history(self, start_ms: int) -> list[ExchangeOrder]:
        """Return every order of the symbol since ``start_ms``, conditional ones included.

        Also those that are gone, as long as the exchange remembers them: 90 days, of cancelled
        ones that were never filled 3 days. Weight 10 a week.
        """
        ...

    def history_start_ms(self) -> int:
        """Return the time before which the exchange lists no trades any more, ms UTC."""
        ...

    def funding_payments(self, start_ms: int) -> list[FundingPayment]:
        """Return funding income from ``start_ms`` on, all pages, by time."""
        ...

    def create_orders(self, orders: list[OrderSpec]) -> list[OrderReply]:
        """Send ``orders`` (in batches where the exchange has them), a reply each, in their order.

        An unknown outcome has been looked up by client id before it is answered.
        """
        ...

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[CancelResult]:
        """Cancel; return what became of each, judged by the ``filled_qty`` known of it."""
        ...

    def countdown_cancel_all(self, countdown_ms: int) -> None:
        """Let the exchange cancel the symbol's normal orders unless this is said again in time.

        All of the account's, foreign ones included; 0 switches it off. Weight 10.
        """
        ...
