"""Measures a live session on this machine: ``python3 -m benchmarks.live``.

The session is the real one, down to the socket; behind it stands the simulated exchange, whose
replies take as long as a real one's. Aims: from a candle's close to the last of 40 orders under
1.5 s at 50 ms a request, under 50 ms of own computing a step, and at most 45 of request weight a
minute and coin.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
import requests

from benchmarks.engine import COIN, machine_line, market
from config import LIVE_CONFIG, PRESETS
from core.times import BAR_MS
from core.warmup import bars_needed
from engine.compiling import load_live_code
from engine.registry import GRID_V4
from engine.strategy import known_market, read_config
from live.exchange.binance import open_exchange
from live.health.events import Events
from live.health.monitor import HealthMonitor
from live.session.assembly import Assembled, Equipment, Plan, assemble_live
from live.session.shutdown import StopRequest
from live.simulated.adapter import LoopbackAdapter
from live.simulated.clock import SimClock
from live.simulated.exchange import SimExchange
from live.simulated.server import SimServer
from live.store.state_file import StateManager

WALLET: Final = 1_000_000.0
N_CANDLES: Final = 20_000
POLL_S: Final = 60.0
GRACE_MS: Final = int(1_000 * float(str(LIVE_CONFIG["candle_grace_s"])))
WEIGHED: Final = 4
"""Candles over which request weight is counted."""
MANY: Final = 30
"""Orders from which on a step has moved the grid."""
FORTY: Final = {
    "grid_levels": 20,
    "max_inventory_per_side": 20,
    "order_pct": 0.01,
    "spacing_floor": 0.002,
    "grid_spacing_k": 0.1,
    "adaptive_floor_scale": 0.0,
    "optimal_spread_enabled": False,
    "regime_enabled": False,
    "trailing_enabled": False,
    "var_block_enabled": False,
    "regen_drift_mult": 0.1,
    "round_number_nudge": 0.0,
}
"""Parameters that lay 20 entries a side and renew them at almost every step."""


class TimedAdapter(LoopbackAdapter):
    """Lets every reply take a while, and counts."""

    def __init__(self, port: int) -> None:
        super().__init__(port)
        self.ordered_at = 0.0
        self.begin(0.0)

    def begin(self, reply_s: float) -> None:
        """Count anew; replies take ``reply_s`` from now on."""
        self.reply_s, self.n_requests = reply_s, 0

    def send(self, request: requests.PreparedRequest, *rest: Any, **options: Any) -> Any:
        """Send ``request``."""
        sent_at = time.perf_counter()
        response = super().send(request, *rest, **options)
        time.sleep(max(0.0, sent_at + self.reply_s - time.perf_counter()))
        self.n_requests += 1
        if request.method == "POST" and "batchOrders" in (request.url or ""):
            self.ordered_at = time.perf_counter()
        return response


class StepClock(SimClock):
    """Virtual time that notes when a candle closes; only from then on are replies slow."""

    def __init__(self, exchange: SimExchange, adapter: TimedAdapter, reply_s: float) -> None:
        super().__init__(exchange)
        self._adapter, self._reply_s = adapter, reply_s
        self._next_ms = 0
        self.closed_at = self.closed_own = 0.0

    def sleep(self, seconds: float) -> None:
        """Let time go on."""
        self._adapter.reply_s = 0.0
        super().sleep(seconds)
        if self.now_ms() % BAR_MS == GRACE_MS:
            self._adapter.begin(self._reply_s)
            self.closed_at, self.closed_own = time.perf_counter(), time.thread_time()


class Silence:
    """Nobody is reported."""

    def send(self, text: str) -> None:
        """Drop ``text``."""


@dataclass(frozen=True)
class Step:
    """A step as measured, seconds.

    Attributes:
        n_orders: limits laid.
        n_requests: sent.
        ordered_s: from the candle's close to the reply to the last order.
        own_s: processor time of the step, whatever it waits for.
        saving_s: writing the state down, the disk's time included.
    """

    n_orders: int
    n_requests: int
    ordered_s: float
    own_s: float
    saving_s: float


@dataclass(frozen=True)
class Stage:
    """A session, its exchange and its way there."""

    live: Assembled
    exchange: SimExchange
    clock: StepClock
    adapter: TimedAdapter

    def step(self) -> Step:
        """Let the session go on until the next step is done."""
        placed_before, adapter = len(self.exchange.book.orders), self.adapter
        with timed(StateManager, "save") as saving:
            self.live.runner.run(once=True)
        return Step(
            n_orders=len(self.exchange.book.orders) - placed_before,
            n_requests=adapter.n_requests,
            ordered_s=adapter.ordered_at - self.clock.closed_at + GRACE_MS / 1e3,
            own_s=time.thread_time() - self.clock.closed_own,
            saving_s=sum(took for began, took in saving if began >= self.clock.closed_at),
        )


@contextmanager
def timed(owner: type[Any], name: str) -> Iterator[list[tuple[float, float]]]:
    """Yield when each call of a method began and how long it took, s."""
    call, calls = getattr(owner, name), list[tuple[float, float]]()

    def measured(*arguments: Any, **options: Any) -> Any:
        began = time.perf_counter()
        try:
            return call(*arguments, **options)
        finally:
            calls.append((began, time.perf_counter() - began))

    setattr(owner, name, measured)
    try:
        yield calls
    finally:
        setattr(owner, name, call)


@contextmanager
def stage(
    candles: pd.DataFrame, config: Mapping[str, Any], reply_s: float, poll_s: float = POLL_S
) -> Iterator[Stage]:
    """Yield a session with as many candles behind it as it wants."""
    params, rules = read_config(config), known_market(COIN)
    n_bars = bars_needed(params, int(str(LIVE_CONFIG["buffer_bars"])), BAR_MS) + 2
    exchange = SimExchange(candles, coin=COIN, rules=rules, start_bar=n_bars, wallet=WALLET)
    with tempfile.TemporaryDirectory() as folder, SimServer(exchange) as server:
        adapter, http = TimedAdapter(server.port), requests.Session()
        http.mount("https://", adapter)
        clock = StepClock(exchange, adapter, reply_s)
        settings = {**LIVE_CONFIG, "state_dir": folder, "poll_s": poll_s}
        executor = open_exchange(
            COIN,
            api_key=exchange.api_key,
            api_secret=exchange.secret,
            clock=clock,
            session=http,
            settings=settings,
            bar_ms=BAR_MS,
        )
        plan = Plan(
            symbol=exchange.symbol,
            spec=GRID_V4,
            params=params,
            mode="live",
            capital=None,
            resume=False,
            accept_code_change=False,
            settings=settings,
        )
        monitor = HealthMonitor(plan.symbol, Path(folder), settings, clock, Silence())
        equipment = Equipment(clock=clock, stop=StopRequest(), monitor=monitor, events=Events())
        live = assemble_live(plan, executor, equipment)
        live.runner.read_history()
        yield Stage(live, exchange, clock, adapter)
        http.close()


def report_orders(candles: pd.DataFrame, reply_s: float, n_steps: int) -> None:
    """Print how long steps take that lay 40 orders: the first one, and later ones."""
    print(f"\n40 orders at {reply_s * 1e3:.0f} ms a request: seconds from the candle's close")
    print(f"{'':22} {'orders':>7} {'requests':>9} {'all laid':>9} {'own':>7}")
    with stage(candles, FORTY, reply_s) as scene:
        print_orders("first grid", [scene.step()])
        steps = [scene.step() for _ in range(n_steps)]
    moved = [step for step in steps if step.n_orders > MANY]
    print_orders("grid moved, median", sorted(moved, key=lambda s: s.ordered_s)[len(moved) // 2 :])
    print_orders("grid moved, slowest", [max(moved, key=lambda step: step.ordered_s)])


def print_orders(name: str, steps: Sequence[Step]) -> None:
    """Print the first of ``steps``."""
    step = steps[0]
    print(
        f"{name:22} {step.n_orders:7} {step.n_requests:9} {step.ordered_s:9.2f} {step.own_s:7.3f}"
    )


def report_own_time(candles: pd.DataFrame, n_steps: int) -> None:
    """Print a step's own time for both presets, without and with the mixture."""
    print(f"\nA step's own processor time, ms, over {n_steps} steps, and what saving takes")
    print(f"{'':22} {'candles':>8} {'median':>7} {'slowest':>8} {'saving':>7}")
    for preset, changes in PRESETS.items():
        for mixture in (False, True):
            config = {**changes, "use_ml_regime": mixture}
            with stage(candles, config, 0.0) as scene:
                steps = [scene.step() for _ in range(n_steps)]
            own = [1e3 * step.own_s for step in steps]
            saving = statistics.median(1e3 * step.saving_s for step in steps)
            name = f"{preset}{', mixture' * mixture}"
            n_candles = bars_needed(
                read_config(config), int(str(LIVE_CONFIG["buffer_bars"])), BAR_MS
            )
            print(
                f"{name:22} {n_candles:8,} {statistics.median(own):7.1f} {max(own):8.1f} "
                f"{saving:7.1f}"
            )


def report_weight(candles: pd.DataFrame, n_steps: int) -> None:
    """Print the request weight a minute that one coin takes between two looks of 5 s."""
    with stage(candles, PRESETS["documented"], 0.0, poll_s=5.0) as scene:
        scene.step()  # the start, with its candles, is no ordinary minute
        weights, asked = WeightByMinute(scene.exchange), scene.exchange.faults.requests
        before = dict(asked)
        for _ in range(n_steps):
            scene.step()
    minutes = n_steps * BAR_MS / 60_000
    print(f"\nRequest weight a minute, one coin, poll_s 5, over {n_steps} candles")
    used = weights.by_minute.values()
    print(f"mean {statistics.mean(used):.1f}, most {max(used)}")
    for name, n in sorted(asked.items(), key=lambda item: before.get(item[0], 0) - item[1]):
        if n > before.get(name, 0):
            print(f"  {name:36} {(n - before.get(name, 0)) / minutes:6.2f} requests a minute")


class WeightByMinute:
    """Adds up what the exchange's counter says, minute by minute of virtual time."""

    def __init__(self, exchange: SimExchange) -> None:
        self._exchange, self._begun = exchange, exchange.now_ms // 60_000
        self.by_minute: dict[int, int] = {}
        """Whole minutes only: the one it begins in has the start of the session in it."""
        exchange.after_request = self._note

    def _note(self, *_: object) -> None:
        minute = self._exchange.now_ms // 60_000
        if minute > self._begun:
            most = max(self._exchange.limits.weight, self.by_minute.get(minute, 0))
            self.by_minute[minute] = most


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition(":")[0])
    parser.add_argument("--reply-ms", type=float, default=50.0, help="of a request (default: 50)")
    parser.add_argument("--steps", type=int, default=40, help="steps per figure (default: 40)")
    arguments = parser.parse_args(argv)
    load_live_code()
    source, candles, _ = market()
    print(machine_line())
    print(f"{source}; machine code loaded")
    report_orders(candles.iloc[:N_CANDLES], arguments.reply_ms / 1e3, arguments.steps)
    report_own_time(candles.iloc[:N_CANDLES], arguments.steps)
    report_weight(candles.iloc[:N_CANDLES], WEIGHED)
    return 0


if __name__ == "__main__":
    sys.exit(main())
