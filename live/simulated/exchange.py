"""The simulated exchange: one account, some symbols, virtual time, price paths out of candles."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, Final

from core.market import MarketRules
from live.simulated.account import Account, Brackets, Wallet
from live.simulated.faults import FaultPlan
from live.simulated.filters import ApiError, Filters, exact
from live.simulated.limits import RateLimits
from live.simulated.live_state import LiveState
from live.simulated.market import Candles, FundingSchedule
from live.simulated.matching import Book, Costs
from live.simulated.order_entry import OrderEntry
from live.simulated.orders import Json, Order, is_closing
from live.simulated.parameters import Params, text_of
from live.simulated.symbol_market import HALTED, SymbolMarket
from live.simulated.walk import Walk

DEFAULT_RULES: Final = MarketRules(tick_size=0.1, step_size=0.001, min_qty=0.001, min_notional=5.0)
LIQUIDATION_FEE: Final = 0.0125
Hook = Callable[[int, str, str], None]
"""Called with the number of a request (the first is 1), its method and path."""


class SimExchange:
    """A Binance USDT-M futures exchange as one account sees it.

    It begins with one symbol, whose parts are also its own attributes; ``add_symbol`` adds others,
    which share wallet, time, limits and faults with it.

    Attributes:
        markets: by symbol, such as BTCUSDT; the first one is ``market``.
        pool: the wallet.
        asset_prices: of assets other than coins of ``markets``, in quote; one without a price here
            has no market, such as BNFCR.
        limits: request weight and order counts.
        faults: what goes wrong on the way.
        wakes_clients: whether an event ends a client's sleep.
        api_key: the key that is accepted.
        secret: what signatures are made with.
        clock_skew_ms: what the exchange's own clock is ahead of virtual time, in ``/time`` and in
            the judgement of timestamps.
        before_request: called before a request is looked at, in the server's thread.
        after_time: each is called when time has gone on.
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
        max_market_qty: float | None = None,
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
            max_market_qty: largest order at market, base; None: as ``max_qty``.
            stops_need_position: whether stops are refused without a position (-4509) or beside
                another one (-4130) and expire with the position, as since 2026.
            wakes_clients: whether an event ends a client's sleep, so that none ever falls between
                two of its looks; in reality a client sleeps on.
        """
        self.pool = Wallet(balance=exact(wallet), is_hedged=is_hedged)
        self.markets: dict[str, SymbolMarket] = {}
        self._costs = Costs(
            maker=exact(fee_maker), taker=exact(fee_taker), slippage=exact(slippage)
        )
        self._liquidation_fee, self._seed = liquidation_fee, seed
        self._stops_need_position, self._partial_fills = stops_need_position, partial_fills
        self._intrabar_path, self._still_ms = intrabar_path, still_ms
        self._leverage, self._margin_type, self._price_band = leverage, margin_type, price_band
        self.market = self.add_symbol(
            candles,
            coin=coin,
            rules=rules,
            brackets=brackets,
            funding=funding,
            start_bar=start_bar,
            max_qty=max_qty,
            max_market_qty=max_market_qty,
        )
        self.asset_prices = {"BNB": Decimal(600)}
        self.limits = RateLimits()
        self.faults = FaultPlan(seed)
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
        self.after_time: list[Callable[[], None]] = []
        self.before_request: Hook | None = None
        self.after_request: Hook | None = None
        self.lock = threading.RLock()

    def add_symbol(
        self,
        candles: Any,
        *,
        coin: str,
        rules: MarketRules = DEFAULT_RULES,
        brackets: Brackets | None = None,
        funding: Sequence[tuple[int, float]] = (),
        start_bar: int = 0,
        max_qty: float = 10_000.0,
        max_market_qty: float | None = None,
    ) -> SymbolMarket:
        """Let the account trade another coin; its candle ``start_bar`` opens now.

        Raises:
            ValueError: its candle opens at another time.
        """
        fee = self._liquidation_fee
        if fee is None:
            fee = LIQUIDATION_FEE if rules.liquidation_fee is None else rules.liquidation_fee
        account = Account(
            pool=self.pool,
            leverage=self._leverage,
            brackets=brackets or rules.brackets,
            liquidation_fee=exact(fee),
            margin_type=self._margin_type,
        )
        book = Book(
            account=account,
            filters=Filters.of(rules, max_qty, self._price_band, max_market_qty),
            costs=self._costs,
            stops_need_position=self._stops_need_position,
            partial_fills=self._partial_fills,
            random=random.Random(self._seed + len(self.markets)),  # noqa: S311 - reproducible
        )
        walk = Walk(
            Candles(candles),
            FundingSchedule(funding),
            book,
            start_bar=start_bar,
            intrabar_path=self._intrabar_path,
            still_ms=self._still_ms,
        )
        if self.markets and walk.now_ms != self.now_ms:
            raise ValueError(f"candle {start_bar} of {coin} opens at {walk.now_ms}")
        market = SymbolMarket(coin, account, book, walk)
        for other in self.markets.values():
            account.neighbours.append(other.as_neighbour())
            other.account.neighbours.append(market.as_neighbour())
        self.markets[market.symbol] = market
        market.entry.is_algo_id_taken = lambda client_id: any(
            stop.client_id == client_id
            for other in self.markets.values()
            if other is not market
            for stop in other.book.open_stops.values()
        )
        return market

    # --- the first symbol -----------------------------------------------------------------------

    @property
    def coin(self) -> str:
        """The first symbol's coin, such as BTC."""
        return self.market.coin

    @property
    def symbol(self) -> str:
        """The first symbol, such as BTCUSDT."""
        return self.market.symbol

    @property
    def account(self) -> Account:
        """The first symbol's positions, and the wallet."""
        return self.market.account

    @property
    def book(self) -> Book:
        """The first symbol's orders."""
        return self.market.book

    @property
    def entry(self) -> OrderEntry:
        """The entry of orders of the first symbol."""
        return self.market.entry

    @property
    def walk(self) -> Walk:
        """Virtual time, and the first symbol's price."""
        return self.market.walk

    @property
    def filters(self) -> Filters:
        """The first symbol's filters."""
        return self.market.filters

    @property
    def live(self) -> LiveState:
        """Answers about the first symbol's open orders and positions."""
        return self.market.live

    @property
    def is_trading(self) -> bool:
        """Whether the first symbol takes orders."""
        return not self.market.closed_code

    # --- time and price -------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """Virtual time, ms UTC."""
        return self.walk.now_ms

    @property
    def price(self) -> Decimal:
        """The first symbol's last traded price, which is also the mark."""
        return self.walk.price

    @property
    def stamp_ms(self) -> int:
        """The time that is written on what happens now."""
        return self.walk.stamp_ms

    @property
    def clock_ms(self) -> int:
        """The time of the exchange's own clock, ms UTC."""
        return self.now_ms + self.clock_skew_ms

    def market_of(self, params: Params) -> SymbolMarket:
        """Return the market a request is about (-1102, -1121)."""
        market = self.markets.get(text_of(params, "symbol"))
        if market is None:
            raise ApiError(-1121)
        return market

    def markets_of(self, params: Params) -> list[SymbolMarket]:
        """Return the market a request is about, all where it names none (-1121)."""
        return [self.market_of(params)] if params.get("symbol") else list(self.markets.values())

    def run_until(self, ts_ms: int) -> bool:
        """Let time go on to ``ts_ms``, but stop right after an event; whether it is reached.

        An event is an execution, a triggered stop or a liquidation: a client can react to it
        before the price goes on.
        """
        with self.lock:
            is_reached = self._walk_until(ts_ms)
            self.remember()
            for look in self.after_time:
                look()
            return is_reached

    def _walk_until(self, ts_ms: int) -> bool:
        """Let every symbol's price go on to ``ts_ms`` or to the first event of any."""
        markets = list(self.markets.values())
        if len(markets) == 1:
            return self.walk.run_until(ts_ms)
        while self.now_ms < ts_ms:
            stop_ms = min(market.walk.next_stop_ms(ts_ms) for market in markets)
            for market in markets:
                before = market.book.changes
                market.walk.run_until(stop_ms)
                if market.book.changes != before:  # the others wait at that moment
                    for other in markets:
                        other.walk.run_until(market.walk.now_ms)
                    return self.now_ms >= ts_ms
        return True

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
            for market in self.markets.values():
                market.live.remember()

    # --- what people do by hand -----------------------------------------------------------------

    def hand_trade(
        self, position_side: str, side: str, qty: float, market: SymbolMarket | None = None
    ) -> Order:
        """Trade at market as a person would on the exchange's own page.

        Raises:
            ValueError: it would close more than there is.
        """
        with self.lock:
            amount, market = exact(qty), market or self.market
            held = market.account.positions[position_side].qty
            if is_closing(side, position_side) and amount > held:
                raise ValueError(f"{position_side} holds less than {amount}")
            order = market.book.new_order(
                client_id=f"web_{market.book.changes}",
                side=side,
                position_side=position_side,
                kind="MARKET",
                qty=amount,
                now_ms=self.stamp_ms,
            )
            market.book.fill_taker(order, market.price, self.stamp_ms)
            return order

    def set_one_way(self) -> None:
        """Cancel everything and leave hedge mode; -4068 with a position."""
        with self.lock:
            if not all(market.account.is_flat for market in self.markets.values()):
                raise ApiError(-4068)
            for market in self.markets.values():
                market.book.cancel_all(self.stamp_ms)
                market.book.cancel_all_stops(self.stamp_ms)
            self.pool.is_hedged = False

    def halt_symbol(self) -> None:
        """Take no more orders of the first symbol; what rests still meets the price."""
        self.market.closed_code = HALTED

    def resume_symbol(self) -> None:
        """Take orders of the first symbol again."""
        self.market.closed_code = 0

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
                **self._dump_of(self.market),
                "requests": dict(self.faults.requests),
                "faults": {kind.value: n for kind, n in self.faults.injected.items()},
                "max_weight": self.limits.max_weight,
                "others": {
                    market.symbol: self._dump_of(market)
                    for market in list(self.markets.values())[1:]
                },
            }

    @staticmethod
    def _dump_of(market: SymbolMarket) -> dict[str, Json]:
        account, book, symbol = market.account, market.book, market.symbol
        return {
            "positions": {
                side: {"qty": str(held.qty), "avg_entry": str(held.avg_entry)}
                for side, held in account.positions.items()
            },
            "orders": [o.view(symbol) for o in book.open_orders.values()],
            "stops": [s.view(symbol) for s in book.open_stops.values()],
            "trades": [trade.view(symbol) for trade in account.trades],
            "incomes": [income.view(symbol) for income in account.incomes],
        }
