"""Two sessions, a coin each, on one account of the simulated exchange, in one virtual time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pandas as pd

from tests.support.clocks.turns import Turns
from tests.support.exchanges.observer import ProtectionObserver
from tests.support.markets.synthetic import RULES
from tests.support.processes.live_session import Scene, open_scene
from tests.support.processes.watched_day import WARM, busy_market, wild_market

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
    first_ms = exchange.walk.candles[exchange.walk.bar].ts_ms
    shift_ms = first_ms - int(candles["timestamp"].iloc[WARM])
    candles = candles.assign(timestamp=candles["timestamp"] + shift_ms)
    exchange.add_symbol(
        candles,
        coin=OTHER_COIN,
        rules=RULES,
        funding=[(time_ms + shift_ms, rate) for time_ms, rate in funding],
        start_bar=WARM,
    )
    scene.clock.turns = Turns(exchange, 2)
    plan = replace(scene.plan, symbol=f"{OTHER_COIN}USDT")
    other = open_scene(exchange, scene.http, plan, resume=False, turns=scene.clock.turns)
    other.last_bar = scene.last_bar
    return other


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
