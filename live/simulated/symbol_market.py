"""One symbol of the exchange: its rules, its price, and what the account has in it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Final

from core.market import MarketRules
from live.simulated.account import Account, Neighbour
from live.simulated.filters import Filters, exact
from live.simulated.live_state import LiveState
from live.simulated.matching import Book
from live.simulated.order_entry import Moment, OrderEntry, Restriction
from live.simulated.orders import LONG, ZERO, Order
from live.simulated.walk import Walk

TRADING: Final = "TRADING"
SETTLING: Final = "SETTLING"
HALTED: Final = -4141
SETTLED: Final = -4108
MAX_LEVERAGE: Final = 125


class SymbolMarket:
    """One symbol.

    Attributes:
        coin: such as BTC.
        symbol: such as BTCUSDT.
        account: what the account holds of it, and the wallet all its symbols share.
        book: orders.
        walk: virtual time and price.
        entry: takes orders.
        live: answers about open orders and positions.
        closed_code: refusal while the symbol takes no orders, 0 while it does.
        max_leverage: highest leverage the symbol allows.
        restriction: which orders are refused although the symbol trades.
    """

    def __init__(self, coin: str, account: Account, book: Book, walk: Walk) -> None:
        self.coin, self.symbol = coin, f"{coin}USDT"
        self.account, self.book, self.walk = account, book, walk
        self.live = LiveState(self.symbol, book, walk)
        self.closed_code, self.max_leverage = 0, MAX_LEVERAGE
        self.restriction = Restriction()
        self.entry = OrderEntry(book, self.moment, self.restriction)

    @property
    def filters(self) -> Filters:
        """Price and quantity filters of now."""
        return self.book.filters

    @property
    def price(self) -> Decimal:
        """Last traded price, which is also the mark."""
        return self.walk.price

    @property
    def opening(self) -> Decimal:
        """Notional of the resting orders that open, quote."""
        return sum(self.book.opening_notional().values(), ZERO)

    def moment(self) -> Moment:
        """Return when and where an order arrives."""
        return Moment(
            now_ms=self.walk.stamp_ms, price=self.walk.price, closed_code=self.closed_code
        )

    @property
    def status(self) -> str:
        """The exchange's word for whether the symbol takes orders."""
        return SETTLING if self.closed_code else TRADING

    def as_neighbour(self) -> Neighbour:
        """Return what the account's other symbols see of this one."""
        return Neighbour(
            account=self.account, mark=lambda: self.walk.price, opening=lambda: self.opening
        )

    # --- what the exchange does -------------------------------------------------------------------

    def change_rules(
        self,
        rules: MarketRules,
        *,
        max_qty: float | None = None,
        max_market_qty: float | None = None,
        max_leverage: int | None = None,
    ) -> None:
        """Let other rules hold from now on; what rests stays as it is."""
        old = self.filters
        fresh = Filters.of(rules, float(max_qty or old.max_qty), float(old.price_band))
        most = old.max_market_qty if max_market_qty is None else exact(max_market_qty)
        self.book.filters = replace(fresh, max_market_qty=most)
        if rules.brackets:
            self.account.brackets = rules.brackets
        if max_leverage is not None:
            self.max_leverage = max_leverage
            self.account.leverage = min(self.account.leverage, max_leverage)

    def begin_settling(self) -> None:
        """Take no more orders, as before a delisting (-4108); what rests is cancelled."""
        self.closed_code = SETTLED
        self.book.cancel_all(self.walk.stamp_ms)

    def settle(self) -> list[Order]:
        """Close every position as the exchange does when a symbol is delisted."""
        self.closed_code, now_ms = SETTLED, self.walk.stamp_ms
        done = []
        for position_side, position in self.account.positions.items():
            if position.qty:
                name = f"settlement_autoclose-{now_ms}-{position_side}"
                done.append(
                    self.book.close_by_exchange(
                        position_side, position.qty, self.price, name, now_ms
                    )
                )
        self.book.cancel_all_stops(now_ms)
        return done

    def deleverage(self, position_side: str, qty: float) -> Order:
        """Close ``qty`` of a side by auto-deleveraging; all such orders bear the same name."""
        now_ms = self.walk.stamp_ms
        return self.book.close_by_exchange(
            position_side, exact(qty), self.price, "adl_autoclose", now_ms
        )

    def order_by_hand(
        self,
        client_id: str,
        position_side: str,
        price: float,
        qty: float,
        reported_status: str = "",
    ) -> Order:
        """Let somebody else's entry rest; ``reported_status`` is a word instead of its real one."""
        order = self.book.new_order(
            client_id=client_id,
            side="BUY" if position_side == LONG else "SELL",
            position_side=position_side,
            kind="LIMIT",
            qty=exact(qty),
            now_ms=self.walk.stamp_ms,
            price=exact(price),
        )
        order.reported_status = reported_status
        return order
