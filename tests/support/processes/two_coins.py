"""Two sessions, a coin each, on one account of the simulated exchange, in one virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd
import requests

from engine.registry import GRID_V4
from engine.strategy import read_config
from live.session.assembly import Plan
from live.simulated.adapter import InProcessAdapter
from live.simulated.exchange import SimExchange
from tests.support.clocks.turns import Turns
from tests.support.exchanges.observer import ProtectionObserver
from tests.support.markets.synthetic import RULES
from tests.support.processes.live_session import Row, Scene, open_scene, settings_in
from tests.support.processes.watched_day import (
    DOCUMENTED,
    NO_LOSS_LIMIT,
    WARM,
    assert_books_agree,
    assert_nothing_twice,
    busy_market,
    finish,
    wild_market,
)

OTHER_COIN: Final = "ETH"
OTHER_SEED: Final = 61
"""Of the second coin's candles: another day with much trading."""
PRICE_RATIO: Final = 0.0625
"""Of the second coin's price to a synthetic market's, so that prices are never those of the first;
a power of two."""


def other_market(n_bars: int) -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    """Return the second coin's candles, of which ``n_bars`` are traded, and its funding."""
    return _cheaper(*busy_market(OTHER_SEED, n_bars))


def other_wild_market() -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    """Return the second coin's candles and funding of an hour with much trading."""
    return _cheaper(*wild_market(OTHER_SEED))


def _cheaper(
    candles: pd.DataFrame, funding: list[tuple[int, float]]
) -> tuple[pd.DataFrame, list[tuple[int, float]]]:
    candles = candles.copy()
    for name in ("open", "high", "low", "close"):
        candles[name] = (candles[name] * PRICE_RATIO).round(1)
    return candles, funding


def join_other(scene: Scene, candles: pd.DataFrame, funding: list[tuple[int, float]]) -> Scene:
    """Let a second session trade another coin on the account of ``scene``; return it."""
    exchange = scene.exchange
    list_other(exchange, candles, funding)
    scene.clock.turns = Turns(exchange, 2)
    plan = replace(scene.plan, symbol=f"{OTHER_COIN}USDT")
    other = open_scene(exchange, scene.http, plan, resume=False, turns=scene.clock.turns)
    other.last_bar = scene.last_bar
    return other


def list_other(
    exchange: SimExchange, candles: pd.DataFrame, funding: list[tuple[int, float]]
) -> None:
    """List the second coin at the exchange, its first candle to be traded opening now."""
    first_ms = exchange.walk.candles[exchange.walk.bar].ts_ms
    shift_ms = first_ms - int(candles["timestamp"].iloc[WARM])
    exchange.add_symbol(
        candles.assign(timestamp=candles["timestamp"] + shift_ms),
        coin=OTHER_COIN,
        rules=RULES,
        funding=[(time_ms + shift_ms, rate) for time_ms, rate in funding],
        start_bar=WARM,
    )


class SharedExchange(SimExchange):
    """An exchange whose time a session in another process and one in this process share."""

    PROCESS: Final = "process"
    """Its seat."""
    turns: Turns | None = None

    def pass_sleep(self, ts_ms: int) -> bool:
        """Let the process sleep, until the one in this process does too."""
        if self.turns is None or self.turns.passes:
            return super().pass_sleep(ts_ms)
        return self.turns.sleep(self.PROCESS, ts_ms)


class Companion:
    """A second coin's session in this process, beside another one's processes that are killed.

    Time stands still while there is no process, or it does something.

    Args:
        exchange: whose ``turns`` this sets.
        folder: of its files.
        until_ms: when it is asked to end, ms UTC.
    """

    def __init__(self, exchange: SharedExchange, folder: Path, until_ms: int) -> None:
        list_other(exchange, *other_wild_market())
        self._turns = exchange.turns = Turns(exchange, 2)
        self._http, self._until_ms = requests.Session(), until_ms
        self._http.mount("https://", InProcessAdapter(exchange))
        plan = Plan(
            symbol=f"{OTHER_COIN}USDT",
            spec=GRID_V4,
            params=read_config(DOCUMENTED),
            mode="live",
            capital=None,
            resume=False,
            accept_code_change=False,
            settings=settings_in(folder, **NO_LOSS_LIMIT),
        )
        self.scene = open_scene(exchange, self._http, plan, resume=False, turns=self._turns)
        self._turns.order = [exchange.PROCESS, id(self.scene.clock)]
        self._problem: BaseException | None = None
        self._thread = threading.Thread(target=self._live)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    @staticmethod
    def is_asking() -> bool:
        """Return whether the request under way is this session's; for hooks of the exchange."""
        return threading.current_thread().name == "request"  # of live.exchange.http_session

    def _live(self) -> None:
        try:
            self.scene.clock.sleep(0.001)  # the process goes first
            self.scene.run_until(self._until_ms)
        except BaseException as problem:  # noqa: BLE001 - handed to the test's thread
            self._problem = problem
        finally:
            self._turns.leave(id(self.scene.clock), for_good=True)

    def finish(self) -> list[Row]:
        """Wait for its end, check its books and return its trades; no process comes any more."""
        self._turns.leave(SharedExchange.PROCESS, for_good=True)
        self._thread.join()
        self.scene.clock.turns = None
        if self._problem is not None:
            raise self._problem
        end, trades = finish(self.scene)
        self._http.close()
        assert_books_agree(end, trades)
        assert_nothing_twice(end)
        return self.scene.rows()


def run_together(scenes: list[Scene], run: Callable[[Scene], object]) -> list[Any]:
    """Run every session in a thread of its own, one at a time; return what ``run`` returned.

    Raises:
        BaseException: the first that a session raised.
    """
    turns = scenes[0].clock.turns
    assert turns is not None
    turns.seats, turns.order = len(scenes), [id(scene.clock) for scene in scenes]
    results: dict[int, Any] = {}
    problems: list[BaseException] = []

    def live(number: int, scene: Scene) -> None:
        try:
            scene.clock.sleep(0.001)  # nobody begins before all are there
            results[number] = run(scene)
        except BaseException as problem:  # noqa: BLE001 - handed to the test's thread
            problems.append(problem)
        finally:
            turns.leave(id(scene.clock), for_good=True)

    threads = [
        threading.Thread(target=live, args=(number, scene)) for number, scene in enumerate(scenes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for scene in scenes:
        scene.clock.turns = None  # who goes on does so alone
    if problems:
        raise problems[0]
    return [results[number] for number in range(len(scenes))]


def watch(scenes: list[Scene], known_after_ms: int) -> ProtectionObserver:
    """Return an observer of every session's positions and health file."""
    health: dict[str, Path] = {scene.market.symbol: scene.monitor.path for scene in scenes}
    return ProtectionObserver(scenes[0].exchange, health, known_after_ms)
