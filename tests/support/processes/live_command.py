"""``live_trade.main`` on the simulated exchange, in this process and in virtual time."""

from __future__ import annotations

import functools
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

import engine.compiling
import live.commands.process
import live_trade
from config import LIVE_CONFIG
from live.health.monitor import HealthMonitor
from live.simulated.adapter import LoopbackAdapter
from live.simulated.clock import SimClock
from live.simulated.exchange import SimExchange
from live.simulated.server import SimServer
from tests.support.markets.synthetic import BAR_MS, RULES, synthetic_candles

N_BARS = 3_500
START_BAR = 3_406
"""More than any test's indicators need before it."""
KEYS = {"BINANCE_API_KEY": "sim-key", "BINANCE_API_SECRET": "sim-secret"}
SETTINGS: dict[str, Any] = {**LIVE_CONFIG, "buffer_bars": 100, "poll_s": 900.0}
BUSY = ["--preset", "documented", "--leverage", "5"]
"""Parameters that trade within a few candles."""
Outcome = tuple[int, str, str]
Action = Callable[[], None]


@functools.cache
def stage_candles() -> pd.DataFrame:
    """Return the candles of every stage."""
    return synthetic_candles(N_BARS, 5)


class StageClock(SimClock):
    """Virtual time in which something happens at a given candle."""

    def __init__(self, exchange: SimExchange) -> None:
        super().__init__(exchange)
        self.actions: list[tuple[int, Action]] = []
        self.woken = 0

    def sleep(self, seconds: float) -> None:
        """Let time go on; what is due then happens."""
        super().sleep(seconds)
        due = [item for item in self.actions if item[0] <= self.now_ms()]
        self.actions = [item for item in self.actions if item not in due]
        for _, action in due:
            action()

    def wake(self) -> None:
        """Count it: nobody waits in virtual time."""
        self.woken += 1


class Stage:
    """An exchange, and a command line that trades on it.

    Attributes:
        clock: of the sessions.
        folder: where the command is called.
    """

    def __init__(
        self,
        exchange: SimExchange,
        clock: StageClock,
        folder: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        self.exchange, self.clock, self.folder = exchange, clock, folder
        self._capsys = capsys

    def run(self, *arguments: str) -> Outcome:
        """Return exit code, standard output and standard error of a call for BTC."""
        code = live_trade.main(["--coin", "BTC", *arguments])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def run_for(self, bars: int, *arguments: str) -> Outcome:
        """Call it and send SIGTERM after some candles."""
        self.after(bars, terminate)
        return self.run(*arguments)

    def after(self, bars: int, action: Action) -> None:
        """Let something happen after some candles."""
        self.clock.actions.append((self.clock.now_ms() + bars * BAR_MS + 1_000, action))

    def paths(self) -> set[str]:
        """Return all files, relative."""
        found = self.folder.rglob("*")
        return {str(path.relative_to(self.folder)) for path in found if path.is_file()}

    def texts(self) -> str:
        """Return the content of all files."""
        files = [self.folder / name for name in self.paths()]
        return "\n".join(path.read_text(encoding="utf-8") for path in files)

    def held(self) -> dict[str, float]:
        """Return the quantity of each side at the exchange."""
        positions = self.exchange.account.positions
        return {name: float(side.qty) for name, side in positions.items()}

    def limits(self) -> list[Any]:
        """Return the limit orders at the exchange."""
        return list(self.exchange.book.open_orders.values())

    def stops(self) -> list[Any]:
        """Return the stops at the exchange."""
        return list(self.exchange.book.open_stops.values())


def terminate() -> None:
    """Send SIGTERM to this process, if a session listens."""
    assert callable(signal.getsignal(signal.SIGTERM)), "it would end the tests"
    signal.raise_signal(signal.SIGTERM)


@contextmanager
def open_stage(
    folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], **sim: Any
) -> Iterator[Stage]:
    """Yield a stage in an empty folder with keys in the environment and no terminal."""
    candles = sim.pop("candles", None)
    if candles is None:
        candles = stage_candles()
    exchange = SimExchange(candles, rules=RULES, **{"start_bar": START_BAR, **sim})
    clock = StageClock(exchange)
    patch.chdir(folder)
    for name, text in KEYS.items():
        patch.setenv(name, text)
    patch.delenv("GRID_ALERT_URLS", raising=False)
    patch.setattr(live_trade, "LIVE_CONFIG", SETTINGS)
    patch.setattr(sys.stdin, "isatty", lambda: False)
    patch.setattr(engine.compiling, "is_compiled", lambda: True)  # says nothing of compiling
    patch.setattr(live.commands.process, "system_clock", lambda: clock)
    watch = HealthMonitor.watch  # its thread looks in real time: too seldom to meet a test
    patch.setattr(
        HealthMonitor, "watch", lambda monitor: watch(monitor, float(str(SETTINGS["poll_s"])))
    )
    with SimServer(exchange) as server:

        def http_session() -> requests.Session:
            http = requests.Session()
            http.mount("https://", LoopbackAdapter(server.port))
            return http

        patch.setattr(live.commands.process, "http_session", http_session)
        yield Stage(exchange, clock, folder, capsys)
