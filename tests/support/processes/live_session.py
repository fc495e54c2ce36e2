"""A live session against the simulated exchange, in this process and in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import requests
from requests.adapters import HTTPAdapter

from config import LIVE_CONFIG
from core.market import MarketRules
from core.warmup import bars_needed
from engine.registry import GRID_V4
from engine.strategy import GridStrategyV4, read_config
from live.exchange.binance import open_exchange
from live.execution.books import LiveSession
from live.health.events import Events, Notice
from live.health.monitor import HealthMonitor
from live.session.assembly import Assembled, Equipment, Plan, assemble_live
from live.session.shutdown import Ending, StopRequest
from live.simulated.adapter import InProcessAdapter, LoopbackAdapter
from live.simulated.clock import SimClock, wait_ms
from live.simulated.exchange import SimExchange
from live.simulated.server import SimServer
from live.simulated.symbol_market import SymbolMarket
from tests.support.clocks.turns import Turns
from tests.support.markets.oracle import BAR_MS

Row = tuple[str, float, float, int]
"""Label, price, quantity, bar since the first candle."""
Action = Callable[[], object]
LONGEST_MS: Final = 4 * BAR_MS
"""So long after the last candle a session that still waits would wait forever."""


class KeptAlerts:
    """Alerts that a test can read."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def send(self, text: str) -> None:
        """Keep ``text``."""
        self.texts.append(text)

    def count(self, words: str) -> int:
        """Return how many alerts hold ``words``."""
        return sum(words in text for text in self.texts)


class SceneClock(SimClock):
    """Virtual time; a wait ends early where ``wake`` was called, as on a real clock.

    Attributes:
        stop: asks the session to end.
        ahead_ms: what it shows beyond the exchange's clock; may jump.
        turns: of the sessions that share the exchange; None: this is the only one.
    """

    def __init__(self, exchange: SimExchange, ahead_ms: int = 0) -> None:
        super().__init__(exchange)
        self.stop = StopRequest(self.wake)
        self.ahead_ms = ahead_ms
        self._is_woken = False
        self._planned: list[tuple[int, Action]] = []
        self.turns: Turns | None = None

    def now_ms(self) -> int:
        """Return what our clock shows, ms UTC."""
        return self._exchange.now_ms + self.ahead_ms

    def at(self, ts_ms: int, action: Action) -> None:
        """Let ``action`` happen at ``ts_ms`` of the exchange, or when the client next waits."""
        self._planned.append((ts_ms, action))

    def sleep(self, seconds: float) -> None:
        """Let time go on, and what is planned happen."""
        end_ms = self._exchange.now_ms + (wait_ms(seconds) if seconds > 0 else 0)
        while not self._is_woken and self._exchange.now_ms < end_ms:
            due_ms = min([end_ms, *(ts_ms for ts_ms, _ in self._planned)])
            due_ms = max(due_ms, self._exchange.now_ms + 1)
            if self.turns is None:
                self._exchange.pass_sleep(due_ms)
            else:
                self.turns.sleep(id(self), due_ms)
            self._act()
            if self._exchange.wakes_clients:
                break
        self._is_woken = False  # the wait has ended
        if self._exchange.walk.over_ms > LONGEST_MS:
            raise AssertionError("the candles are over for long, and the session still waits")

    def _act(self) -> None:
        due = [item for item in self._planned if item[0] <= self._exchange.now_ms]
        self._planned = [item for item in self._planned if item not in due]
        for _, action in due:
            action()

    def wake(self) -> None:
        """End the wait that is under way, or else the next one."""
        self._is_woken = True


@dataclass
class Scene:
    """A session, the exchange it trades on, and the way it tells the time."""

    exchange: SimExchange
    clock: SceneClock
    monitor: HealthMonitor
    alerts: KeptAlerts
    live: Assembled
    plan: Plan
    http: requests.Session
    capital: float
    """The capital the ledger began with, quote."""
    market: SymbolMarket
    """The symbol it trades."""
    last_bar: int = -1
    """Step, counted from the first candle, after which the session is asked to stop; -1: none."""

    @property
    def session(self) -> LiveSession:
        """Ledger and orders."""
        return self.live.session

    @property
    def first_bar(self) -> int:
        """Index of the first candle."""
        return self.exchange.walk.candles[0].ts_ms // BAR_MS

    def opens_ms(self, bar: int) -> int:
        """Return when candle ``bar``, counted from the first, opens, ms UTC."""
        return (self.first_bar + bar) * BAR_MS

    def rows(self) -> list[Row]:
        """Return the trades of the session as the backtest's are compared."""
        return [(t.label, t.price, t.qty, t.bar - self.first_bar) for t in self.session.trades]

    def run(self) -> Ending:
        """Let the session run until it ends."""
        return self.live.runner.run()

    def run_to(self, bar: int) -> Ending:
        """Let the session run until the step of candle ``bar`` is done."""
        self.last_bar = bar
        return self.run()

    def run_until(self, ts_ms: int) -> Ending:
        """Let the session run until ``ts_ms``, as if a signal came then."""
        self.clock.at(ts_ms, self.clock.stop.set)
        return self.run()

    def reopened(self) -> Scene:
        """Return the session that goes on from the state file."""
        scene = open_scene(
            self.exchange,
            self.http,
            self.plan,
            resume=True,
            ahead_ms=self.clock.ahead_ms,
            turns=self.clock.turns,
        )
        scene.capital = self.capital
        return scene

    def equity_gap(self) -> float:
        """Return the ledger's equity minus the account's, counted from their starts, quote."""
        account = self.market.account
        ours = self.session.strategy.view(float(self.market.price)).equity
        booked = sum(float(item.amount) for item in account.incomes if item.kind != "TRANSFER")
        earned = booked + float(account.unrealized(self.market.price))
        return ours - self.capital - earned

    def position_gaps(self) -> list[float]:
        """Return the ledger's quantity minus the account's, LONG and SHORT, base."""
        view, held = self.session.strategy.view(), self.market.account.positions
        return [round(view.side(name).qty - float(held[name].qty), 9) for name in ("LONG", "SHORT")]


def settings_in(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return ``LIVE_CONFIG`` with its folders under ``folder``, looking once a candle."""
    folders = {"state_dir": str(folder / "state"), "log_dir": str(folder / "logs")}
    return {**LIVE_CONFIG, **folders, "buffer_bars": 1, "poll_s": 900.0, **changes}


def warm_bars(config: Mapping[str, Any]) -> int:
    """Return how many candles a session reads before its first step."""
    return bars_needed(read_config(config), 1, BAR_MS)


@contextmanager
def on_stage(
    candles: pd.DataFrame,
    config: Mapping[str, Any],
    rules: MarketRules,
    folder: Path,
    *,
    coin: str = "BTC",
    start_bar: int,
    funding: list[tuple[int, float]] | None = None,
    wallet: float = 10_000.0,
    capital: float | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] | None = None,
    over_socket: bool = False,
    ahead_ms: int = 0,
    **sim: Any,
) -> Iterator[Scene]:
    """Yield a session that stands before the step of candle ``start_bar``."""
    params = read_config(config)
    exchange = SimExchange(
        candles,
        coin=coin,
        rules=rules,
        funding=funding or [],
        wallet=wallet,
        start_bar=start_bar,
        fee_maker=params.fee_maker,
        fee_taker=params.fee_taker,
        slippage=params.slippage,
        **{"liquidation_fee": params.liquidation_fee, **sim},
    )
    plan = Plan(
        symbol=exchange.symbol,
        spec=GRID_V4,
        params=params,
        mode="live",
        capital=capital,
        resume=resume,
        accept_code_change=False,
        settings=settings or settings_in(folder),
    )
    with ExitStack() as stack:
        http = stack.enter_context(requests.Session())
        http.trust_env = False
        adapter: HTTPAdapter = InProcessAdapter(exchange)
        if over_socket:
            adapter = LoopbackAdapter(stack.enter_context(SimServer(exchange)).port)
        http.mount("https://", adapter)
        yield open_scene(exchange, http, plan, resume=resume, ahead_ms=ahead_ms)


def open_scene(
    exchange: SimExchange,
    http: requests.Session,
    plan: Plan,
    *,
    resume: bool,
    ahead_ms: int = 0,
    turns: Turns | None = None,
) -> Scene:
    """Return a session that talks to the exchange through ``http``, of the plan's symbol."""
    plan = replace(plan, resume=resume)
    clock, alerts, market = (
        SceneClock(exchange, ahead_ms),
        KeptAlerts(),
        exchange.markets[plan.symbol],
    )
    clock.turns = turns
    executor = open_exchange(
        market.coin,
        api_key=exchange.api_key,
        api_secret=exchange.secret,
        clock=clock,
        session=http,
        settings=plan.settings,
        bar_ms=BAR_MS,
    )
    folder = Path(plan.settings["state_dir"])
    monitor = HealthMonitor(market.symbol, folder, plan.settings, clock, alerts)
    events = Events()
    events.subscribe(Notice, lambda notice: alerts.send(notice.text))
    equipment = Equipment(clock=clock, stop=clock.stop, monitor=monitor, events=events)
    live = assemble_live(plan, executor, equipment)
    capital = live.session.strategy.params.initial_capital
    scene = Scene(exchange, clock, monitor, alerts, live, plan, http, capital, market)
    _stop_after_last_bar(scene)
    return scene


def _stop_after_last_bar(scene: Scene) -> None:
    session = scene.session
    save = session.save

    def saved(*, snapshot: bool = False) -> None:
        save(snapshot=snapshot)  # with a snapshot: the step is done
        is_last = session.progress.bar - scene.first_bar >= scene.last_bar >= 0
        if snapshot and is_last:
            scene.clock.stop.set()

    session.save = saved  # type: ignore[method-assign]  # a test's ear at the seam


def backtest(
    candles: pd.DataFrame,
    config: Mapping[str, Any],
    rules: MarketRules,
    start_bar: int,
    funding: pd.DataFrame | None = None,
    capital: float | None = None,
) -> dict[str, Any]:
    """Return a backtest over the same candles."""
    chosen = dict(config) if capital is None else {**config, "initial_capital": capital}
    return GridStrategyV4(chosen, rules).run(candles, funding=funding, first_bar=start_bar)


def rows_of(trades: list[dict[str, Any]]) -> list[Row]:
    """Return a backtest's trades without the close at its end."""
    return [
        (t["label"], t["price"], t["qty"], t["bar"]) for t in trades if t["label"] != "CLOSE_END"
    ]


def settlements(funding: pd.DataFrame, candles: pd.DataFrame) -> list[tuple[int, float]]:
    """Return (time ms, rate) of ``funding`` from a day before ``candles`` on."""
    first, last = int(candles["timestamp"].iloc[0]), int(candles["timestamp"].iloc[-1]) + BAR_MS
    inside = funding["timestamp"].between(first - 86_400_000, last)
    times = np.array(funding["timestamp"][inside], np.int64) // 60_000 * 60_000
    return list(zip(times.tolist(), np.array(funding["rate"][inside]).tolist(), strict=True))


def on_tick(candles: pd.DataFrame, rules: MarketRules) -> pd.DataFrame:
    """Return ``candles`` with prices on the tick of ``rules``; ticks were finer once."""
    per_unit = round(1.0 / rules.tick_size)
    prices = {
        name: np.round(np.array(candles[name]) * per_unit) / per_unit
        for name in ("open", "high", "low", "close")
    }
    return candles.assign(**prices)
