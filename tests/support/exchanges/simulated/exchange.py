"""The simulated exchange: one symbol, one account, virtual time, a price path out of candles."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from core.market import MarketRules
from tests.support.exchanges.simulated.account import Account, Brackets
from tests.support.exchanges.simulated.faults import FaultPlan
from tests.support.exchanges.simulated.filters import ApiError, Filters, exact
from tests.support.exchanges.simulated.limits import RateLimits
from tests.support.exchanges.simulated.live_state import LiveState
from tests.support.exchanges.simulated.market import Candles, FundingSchedule
from tests.support.exchanges.simulated.matching import Book, Costs
from tests.support.exchanges.simulated.order_entry import Moment, OrderEntry
from tests.support.exchanges.simulated.orders import Json, Order, is_closing
from tests.support.exchanges.simulated.parameters import Params, text_of
from tests.support.exchanges.simulated.walk import Walk

DEFAULT_RULES: Final = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=5.0)
LIQUIDATION_FEE: Final = 0.0125
Hook = Callable[[int, str, str], None]
"""Called with the number of a request (the first is 1), its method and path."""


class SimExchange:
    """A Binance USDT-M futures exchange of one symbol.

    Attributes:
        symbol: such as BTCUSDT.
        coin: such as BTC.
        account: wallet and positions.
        book: orders.
        entry: takes orders.
        walk: virtual time and price.
        filters: price and quantity filters.
        live: answers about open orders and positions.
        limits: request weight and order counts.
        faults: what goes wrong on the way.
        is_trading: whether the symbol takes orders.
        wakes_clients: whether an event ends a client's sleep.
        api_key: the key that is accepted.
        secret: what signatures are made with.
        clock_skew_ms: what the exchange's own clock is ahead of virtual time, in ``/time`` and in
            the judgement of timestamps.
        before_request: called before a request is looked at, in the server's thread.
        after_request: called when it has been processed and not yet been answered.
        lock: held while anything happens.
    """

    def __init__(
        self,
        candles: Any,
        *,
        coin: str = "BTC",
        rules: MarketRules = DEFAULT_RULES,
        fee_maker: float = 0.0002,
        fee_taker: float = 0.0005,
        slippage: float = 0.0005,
        wallet: float = 10_000.0,
        leverage: int = 1,
        brackets: Brackets | None = None,
        funding: Sequence[tuple[int, float]] = (),
        start_bar: int = 0,
        intrabar_path: str = "auto",
        liquidation_fee: float | None = None,
        is_hedged: bool = True,
        margin_type: str = "CROSSED",
        partial_fills: float = 0.0,
        seed: int = 0,
        still_ms: int = 5_000,
        price_band: float = 0.05,
        max_qty: float = 10_000.0,
        stops_need_position: bool = True,
        wakes_clients: bool = True,
    ) -> None:
        """Stand at the open of candle ``start_bar``; those before it are history.

        Args:
            candles: as ``Candles`` reads them.
            coin: base asset.
            rules: tick, step, minimums; brackets and liquidation fee where those are not given.
            fee_maker: of notional.
            fee_taker: of notional.
            slippage: of the price, of orders at market.
            wallet: quote.
            leverage: of the account at the start.
            brackets: (notional floor, maintenance rate, amount), by rising floor.
            funding: (settlement time ms, rate); due at the full minute.
            start_bar: the candle that opens now.
            intrabar_path: 'auto', 'low_first' or 'high_first'.
            liquidation_fee: of notional.
            is_hedged: position mode of the account at the start.
            margin_type: CROSSED or ISOLATED at the start.
            partial_fills: chance that an execution of a limit leaves a rest.
            seed: of partial fills and faults.
            still_ms: how long the price stands still at an open and after an event.
            price_band: how far above the price a BUY may lie, and below it a SELL, as a share.
            max_qty: largest order, base.
            stops_need_position: whether stops are refused without a position (-4509) or beside
                another one (-4130) and expire with the position, as since 2026.
            wakes_clients: whether an event ends a client's sleep, so that none ever falls between
                two of its looks; in reality a client sleeps on.
        """
        if liquidation_fee is None:
            given = rules.liquidation_fee
            liquidation_fee = LIQUIDATION_FEE if given is None else given
        self.coin, self.symbol = coin, f"{coin}USDT"
        self.filters = Filters.of(rules, max_qty, price_band)
        self.account = Account(
            wallet=exact(wallet),
            leverage=leverage,
            brackets=brackets or rules.brackets,
            liquidation_fee=exact(liquidation_fee),
            is_hedged=is_hedged,
            margin_type=margin_type,
        )
        costs = Costs(maker=exact(fee_maker), taker=exact(fee_taker), slippage=exact(slippage))
        self.book = Book(
            account=self.account,
            filters=self.filters,
            costs=costs,
            stops_need_position=stops_need_position,
            partial_fills=partial_fills,
            random=random.Random(seed),  # noqa: S311 - reproducible on purpose
        )
        self.walk = Walk(
            Candles(candles),
            FundingSchedule(funding),
            self.book,
            start_bar=start_bar,
            intrabar_path=intrabar_path,
            still_ms=still_ms,
        )
        self.entry = OrderEntry(self.book, self.moment)
        self.live = LiveState(self.symbol, self.book, self.walk)
        self.limits = RateLimits()
        self.faults = FaultPlan(seed)
        self.is_trading = True
        self.key_rights: dict[str, bool] = {
            "ipRestrict": True,
            "enableReading": True,
            "enableFutures": True,
            "enableWithdrawals": False,
            "enableInternalTransfer": False,
            "permitsUniversalTransfer": False,
        }
        self.wakes_clients = wakes_clients
        self.api_key, self.secret = "sim-key", "sim-secret"
        self.clock_skew_ms = 0
        self.before_request: Hook | None = None
        self.after_request: Hook | None = None
        self.lock = threading.RLock()

    # --- time and price -------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Virtual time, ms UTC."""
        return self.walk.now_ms

    @property
    def price(self) -> Decimal:
        """Last traded price, which is also the mark."""
        return self.walk.price

    @property
    def stamp_ms(self) -> int:
        """The time that is written on what happens now."""
        return self.walk.stamp_ms

    @property
    def clock_ms(self) -> int:
        """What the exchange's own clock shows, ms UTC."""
        return self.now_ms + self.clock_skew_ms

    def check_symbol(self, params: Params, *, optional: bool = False) -> None:
        """Refuse every symbol but ours (-1121), and none unless it is ``optional`` (-1102)."""
        if optional and not params.get("symbol"):
            return
        if text_of(params, "symbol") != self.symbol:
            raise ApiError(-1121)

    def moment(self) -> Moment:
        """Return when and where an order arrives."""
        return Moment(now_ms=self.stamp_ms, price=self.price, is_trading=self.is_trading)

    def run_until(self, ts_ms: int) -> bool:
        """Let time go on to ``ts_ms``, but stop right after an event; whether it is reached.

        An event is an execution, a triggered stop or a liquidation: a client can react to it
        before the price goes on.
        """
        with self.lock:
            is_reached = self.walk.run_until(ts_ms)
            self.remember()
            return is_reached

    def advance(self, duration_ms: int) -> None:
        """Let time go on by ``duration_ms``, whatever happens."""
        target = self.now_ms + duration_ms
        while not self.run_until(target):
            pass

    def pass_sleep(self, ts_ms: int) -> bool:
        """Let a client sleep until ``ts_ms``; whether that is reached.

        It is not where an event has woken the client.
        """
        if not self.wakes_clients:
            self.advance(ts_ms - self.now_ms)
            return True
        return self.run_until(ts_ms)

    def remember(self) -> None:
        """Keep orders and positions as they are where a stale answer may be asked for."""
        if self.faults.may_be_stale:
            self.live.remember()

    # --- what people do by hand -----------------------------------------------------------------

    def hand_trade(self, direction: str, side: str, qty: float) -> Order:
        """Trade at market as a person would on the exchange's own page.

        Raises:
            ValueError: it would close more than there is.
        """
        with self.lock:
            amount = exact(qty)
            if is_closing(side, direction) and amount > self.account.positions[direction].qty:
                raise ValueError(f"{direction} holds less than {amount}")
            order = self.book.new_order(
                client_id=f"web_{self.book.changes}",
                side=side,
                direction=direction,
                kind="MARKET",
                qty=amount,
                now_ms=self.stamp_ms,
            )
            self.book.fill_taker(order, self.price, self.stamp_ms)
            return order

    def set_one_way(self) -> None:
        """Cancel everything and leave hedge mode; -4068 with a position."""
        with self.lock:
            if not self.account.is_flat:
                raise ApiError(-4068)
            for order in list(self.book.open_orders.values()):
                self.book.end_order(order, "CANCELED", self.stamp_ms)
            for stop in list(self.book.open_stops.values()):
                self.book.end_stop(stop, "CANCELED", self.stamp_ms)
            self.account.is_hedged = False

    def halt_symbol(self) -> None:
        """Take no more orders; what rests still meets the price."""
        self.is_trading = False

    def resume_symbol(self) -> None:
        """Take orders again."""
        self.is_trading = True

    def withdraw(self, amount: float) -> None:
        """Take ``amount`` (quote) out of the wallet; a negative one is a deposit."""
        with self.lock:
            self.account.book_income("TRANSFER", -exact(amount), self.stamp_ms)

    def dump(self) -> dict[str, Json]:
        """Return the state in one piece, for a test in another process to look at."""
        with self.lock:
            return {
                "now": self.now_ms,
                "bar": self.walk.bar,
                "price": str(self.price),
                "wallet": str(self.account.wallet),
                "positions": {
                    side: {"qty": str(held.qty), "avg_entry": str(held.avg_entry)}
                    for side, held in self.account.positions.items()
                },
                "orders": [o.view(self.symbol) for o in self.book.open_orders.values()],
                "stops": [s.view(self.symbol) for s in self.book.open_stops.values()],
                "trades": [trade.view(self.symbol) for trade in self.account.trades],
                "incomes": [income.view(self.symbol) for income in self.account.incomes],
                "requests": dict(self.faults.requests),
                "faults": {kind.value: n for kind, n in self.faults.injected.items()},
                "max_weight": self.limits.max_weight,
            }
