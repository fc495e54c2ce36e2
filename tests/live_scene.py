"""A live session against the simulated exchange, over HTTP, in virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import requests

from config import LIVE_CONFIG
from core.market import MarketRules
from engine.strategy import GridStrategyV4, read_config
from live.assembly import Assembled, Equipment, Plan, assemble_live
from live.executor import BinanceExecutor
from live.monitor import HealthMonitor
from live.stop_request import StopRequest
from tests.oracle import BAR_MS
from tests.sim_exchange import LoopbackAdapter, SimClock, SimExchange, SimServer

Row = tuple[str, float, float, int]
"""Label, price, quantity, bar since the first candle."""
KEYS = {"api_key": "sim-key", "api_secret": "sim-secret"}


class Ears:
    """Alerts that a test can read."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def send(self, text: str) -> None:
        """Keep ``text``."""
        self.heard.append(text)


@dataclass
class Scene:
    """A session, the exchange it trades on, and the way it tells the time."""

    exchange: SimExchange
    clock: SimClock
    stop: StopRequest
    monitor: HealthMonitor
    ears: Ears
    live: Assembled
    plan: Plan

    def rows(self) -> list[Row]:
        """Return the trades of the session as the backtest's are compared."""
        first = self.exchange.walk.candles[0].ts_ms // BAR_MS
        return [(t.label, t.price, t.qty, t.bar - first) for t in self.live.session.trades]

    def run_to(self, bar: int) -> Any:
        """Let the session run until the step of candle ``bar`` is done."""
        end_ms = self.exchange.walk.candles[0].ts_ms + bar * BAR_MS
        return run_until(self.live, self.clock, self.stop, end_ms)


def run_until(live: Assembled, clock: Any, stop: StopRequest, end_ms: int) -> Any:
    """Run a session and ask it to stop when its step at ``end_ms`` is done."""
    session = live.session
    save = session.save

    def saved(*, snapshot: bool = False) -> None:
        save(snapshot=snapshot)
        if snapshot and session.progress.bar >= end_ms // BAR_MS:
            stop.set()

    session.save = saved  # type: ignore[method-assign] - a test's ear at the seam
    return live.runner.run()


def settings_in(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return ``LIVE_CONFIG`` with its folders under ``folder``."""
    folders = {"state_dir": str(folder / "state"), "log_dir": str(folder / "logs")}
    return {**LIVE_CONFIG, **folders, "buffer_bars": 100, **changes}


@contextmanager
def on_stage(
    candles: pd.DataFrame, config: Mapping[str, Any], rules: MarketRules, folder: Path, *,
    coin: str = "BTC", start_bar: int, funding: list[tuple[int, float]] | None = None,
    wallet: float = 10_000.0, capital: float | None = None, resume: bool = False,
    settings: Mapping[str, Any] | None = None, **sim: Any,
) -> Iterator[Scene]:  # fmt: skip
    """Yield a session that stands before the step of candle ``start_bar``."""
    params = read_config(config)
    exchange = SimExchange(
        candles, coin=coin, rules=rules, funding=funding or [], wallet=wallet,
        start_bar=start_bar, fee_maker=params.fee_maker, fee_taker=params.fee_taker,
        slippage=params.slippage, **sim,
    )  # fmt: skip
    with SimServer(exchange) as server:
        yield open_scene(
            exchange, server.port, read_config(config), folder, capital=capital, resume=resume,
            settings=settings or settings_in(folder),
        )  # fmt: skip


def open_scene(
    exchange: SimExchange, port: int, params: Any, folder: Path, *, capital: float | None,
    resume: bool, settings: Mapping[str, Any],
) -> Scene:  # fmt: skip
    """Return a session that talks to the exchange at ``port``."""
    clock, stop, ears = SimClock(exchange), StopRequest(), Ears()
    http = requests.Session()
    http.mount("https://", LoopbackAdapter(port))
    executor = BinanceExecutor(
        exchange.coin, **KEYS, clock=clock, session=http, settings=settings
    )
    plan = Plan(
        symbol=exchange.symbol, params=params, mode="live", capital=capital, resume=resume,
        accept_code_change=False, settings=settings,
    )  # fmt: skip
    monitor = HealthMonitor(exchange.symbol, Path(settings["state_dir"]), settings, clock, ears)
    equipment = Equipment(clock=clock, stop=stop, monitor=monitor, log=None, alert=ears.send)
    live = assemble_live(plan, executor, equipment)
    return Scene(exchange, clock, stop, monitor, ears, live, plan)


def backtest_rows(
    candles: pd.DataFrame, config: Mapping[str, Any], rules: MarketRules, start_bar: int,
    funding: pd.DataFrame | None = None, capital: float | None = None,
) -> list[Row]:  # fmt: skip
    """Return the trades of a backtest over the same candles, without the close at the end."""
    chosen = dict(config) if capital is None else {**config, "initial_capital": capital}
    result = GridStrategyV4(chosen, rules).run(candles, funding=funding, first_bar=start_bar)
    return [
        (t["label"], t["price"], t["qty"], t["bar"])
        for t in result["trades"]
        if t["label"] != "CLOSE_END"
    ]


def settlements(funding: pd.DataFrame, candles: pd.DataFrame) -> list[tuple[int, float]]:
    """Return (time ms, rate) of ``funding`` from a day before ``candles`` on."""
    first, last = int(candles["timestamp"].iloc[0]), int(candles["timestamp"].iloc[-1]) + BAR_MS
    inside = funding["timestamp"].between(first - 86_400_000, last)
    times = np.array(funding["timestamp"][inside], np.int64) // 60_000 * 60_000
    return list(zip(times.tolist(), np.array(funding["rate"][inside]).tolist(), strict=True))
