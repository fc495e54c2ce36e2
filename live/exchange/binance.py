"""Binance USDT-margined futures, as the runner sees an exchange: parts, put together.

    Market         rules, candles, prices, funding rates; without keys
    Account        modes, rights, positions, wallet; one for all symbols
    TradeHistory   trades, funding paid
    Orders         orders sent and looked up
    Cancels        orders cancelled, the countdown that cancels them without us

All send through one ``Connection`` (time, limits, retries), and that through ccxt (``transport``)
and ``HttpSession`` (deadline, sizes, no redirects). Nothing else knows ccxt, but ``errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, final

import requests

from core.errors import ConfigError
from core.market import MarketRules
from core.orders import OrderKind
from live.exchange.account import Account
from live.exchange.cancels import Cancels
from live.exchange.connection import Connection
from live.exchange.market import Market
from live.exchange.orders import Orders
from live.exchange.port import Clock
from live.exchange.replies.account import QUOTE
from live.exchange.request import InFlight
from live.exchange.trade_history import TradeHistory
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

STOP_TRIGGERS: Final = ("CONTRACT_PRICE", "MARK_PRICE")


@final
class BinanceExecutor:
    """One symbol on one account, in hedge mode. Implements ``live.exchange.port.Exchange``.

    Every method is that of the part it asks; see there.

    Attributes:
        account: what belongs to all symbols; more exchanges can be made from it.
    """

    def __init__(
        self, account: Account, coin: str, *, bar_ms: int, stop_trigger: str = STOP_TRIGGERS[0]
    ) -> None:
        """Ask nothing yet.

        Args:
            account: whose orders these are.
            coin: such as BTC.
            stop_trigger: the price that fires stops, CONTRACT_PRICE or MARK_PRICE.
            bar_ms: length of a candle.

        Raises:
            ConfigError: ``stop_trigger`` is no price the exchange watches.
        """
        if stop_trigger not in STOP_TRIGGERS:
            raise ConfigError(
                f"stop_trigger = {stop_trigger!r} must be one of {', '.join(STOP_TRIGGERS)}"
            )
        symbol, connection = f"{coin}{QUOTE}", account.connection
        self.account: Final = account
        self._symbol, self._connection = symbol, connection
        self._market = Market(connection, symbol, bar_ms)
        self._history = TradeHistory(connection, account.prices, symbol)
        self._orders = Orders(connection, self._market, symbol, stop_trigger)
        self._cancels = Cancels(connection, self._orders, symbol)

    # --- the connection ---------------------------------------------------------------------------

    def usage(self) -> Usage:
        """Return what the last replies said about limits and clock; asks nothing."""
        return self._connection.usage()

    def server_ms(self) -> int:
        """Return the exchange's time, ms UTC."""
        return self._connection.server_ms()

    def measure_clock(self) -> None:
        """Ask once, not again, what the exchange's time is."""
        self._connection.measure_clock()

    @property
    def in_flight(self) -> InFlight | None:
        """The request under way, None between requests; may be read by other threads."""
        return self._connection.in_flight

    def hurry(self) -> None:
        """End the request under way within a second; safe in signal handlers and threads."""
        self._connection.hurry()

    def leave(self) -> None:
        """Hurry, and repeat later questions and cancels once only: the program is to end."""
        self._connection.leave()

    # --- the market -------------------------------------------------------------------------------

    def read_market(self) -> MarketFacts:
        """Return the symbol's rules and, with keys, the account's fees and brackets."""
        return self._market.read_market()

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)`` and have closed."""
        return self._market.closed_candles(start_ms, end_ms)

    def opening_price(self, open_ms: int) -> float:
        """Return the first price of the candle that opened at ``open_ms``, still forming."""
        return self._market.opening_price(open_ms)

    def last_price(self) -> float:
        """Return the last traded price, quote."""
        return self._market.last_price()

    def funding_rates(self, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        """Return (settlement time ms, rate) settled in ``[start_ms, end_ms]``, by time."""
        return self._market.funding_rates(start_ms, end_ms)

    # --- the account ------------------------------------------------------------------------------

    def assume_rules(self, rules: MarketRules) -> None:
        """See :meth:`live.exchange.port.Exchange.assume_rules`."""
        self._market.assume_rules(rules)

    def prepare_account(self, leverage: float) -> None:
        """Set hedge mode, cross margin and leverage; refuse where they cannot be set."""
        self.account.prepare(self._symbol, leverage)

    def positions(self) -> dict[str, SidePosition]:
        """Return the position of LONG and of SHORT."""
        return self.account.positions(self._symbol)

    def all_positions(self) -> dict[tuple[str, str], SidePosition]:
        """Return the account's open positions by (symbol, LONG, SHORT or BOTH)."""
        return self.account.all_positions()

    def all_open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the account, each with its symbol."""
        return self.account.all_open_orders()

    def balance(self) -> Balance:
        """Return the futures wallet."""
        return self.account.balance()

    def quantitative_rules(self) -> list[QuantitativeRule]:
        """Return where the symbol stands in the exchange's ratios of orders (-4400)."""
        return self.account.quantitative_rules(self._symbol)

    def key_rights(self) -> KeyRights:
        """Return what the API key may do."""
        return self.account.key_rights()

    # --- the past ---------------------------------------------------------------------------------

    def history_start_ms(self) -> int:
        """Return the time before which the exchange lists no trades any more, ms UTC."""
        return self._history.history_start_ms()

    def executions(self, from_id: int, start_ms: int) -> list[Execution]:
        """Return our trades with ``trade_id >= from_id``, all pages, by rising id."""
        return self._history.executions(from_id, start_ms)

    def executions_since(self, start_ms: int) -> list[Execution]:
        """Return our trades since ``start_ms``, those listed late included, by rising id."""
        return self._history.executions_since(start_ms)

    def order_executions(self, order_id: str) -> list[Execution]:
        """Return the trades of one normal order, by rising id."""
        return self._history.order_executions(order_id)

    def order_history(self, start_ms: int) -> list[ExchangeOrder]:
        """Return every order of the symbol since ``start_ms``, conditional ones included."""
        return self._history.orders(start_ms)

    def funding_payments(self, start_ms: int) -> list[FundingPayment]:
        """Return funding income from ``start_ms`` on, all pages, by time."""
        return self._history.funding_payments(start_ms)

    # --- orders -----------------------------------------------------------------------------------

    def open_orders(self) -> list[ExchangeOrder]:
        """Return every open order of the symbol, conditional and foreign ones included."""
        return self._orders.open_orders()

    def find_order(self, client_id: str, kind: OrderKind) -> ExchangeOrder | None:
        """Return the symbol's order with ``client_id``, open or not; None if there is none."""
        return self._orders.find_order(client_id, kind)

    def order_by_id(self, order_id: str) -> ExchangeOrder | None:
        """Return a normal order by the exchange's identity; None if the exchange has none."""
        return self._orders.order_by_id(order_id)

    def create_orders(self, orders: list[OrderSpec]) -> list[OrderReply]:
        """Send ``orders``, a reply each, in their order."""
        return self._orders.create_orders(orders)

    def cancel_orders(self, orders: list[ExchangeOrder]) -> list[CancelResult]:
        """Cancel; return what became of each, judged by the ``filled_qty`` known of it."""
        return self._cancels.cancel_orders(orders)

    def countdown_cancel_all(self, countdown_ms: int) -> None:
        """Let the exchange cancel the symbol's normal orders unless this is said again in time."""
        self._cancels.countdown(countdown_ms)


def open_exchange(
    coin: str,
    *,
    api_key: str = "",
    api_secret: str = "",
    testnet: bool = False,
    clock: Clock,
    session: requests.Session | None = None,
    settings: Mapping[str, Any],
    bar_ms: int,
) -> BinanceExecutor:
    """Return a symbol's exchange on an account of its own; asks nothing yet.

    Args:
        coin: such as BTC.
        api_key: '' for public data only.
        api_secret: likewise.
        testnet: demo trading instead of real money.
        clock: all times come from it and all waiting goes through it.
        session: HTTP session; None takes a new one.
        settings: ``LIVE_CONFIG``.
        bar_ms: length of a candle.

    Raises:
        ConfigError: ``stop_trigger`` is no price the exchange watches.
    """
    connection = Connection(
        api_key=api_key,
        api_secret=api_secret,
        testnet=testnet,
        clock=clock,
        session=session,
        settings=settings,
        seed=f"{settings['instance']}{coin}{QUOTE}",
    )
    return BinanceExecutor(
        Account(connection), coin, bar_ms=bar_ms, stop_trigger=str(settings["stop_trigger"])
    )
