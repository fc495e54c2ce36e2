"""A session of the fixed grid against the simulated exchange, in this process and virtual time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd
import requests

from core.market import MarketRules
from engine.fixed_grid.face import FixedGridFace
from engine.fixed_grid.strategy import FixedGridStrategy
from engine.registry import FIXED_GRID
from live.exchange.binance import open_exchange
from live.health.events import Events, Notice
from live.health.monitor import HealthMonitor
from live.session.assembly import Assembled, Equipment, Plan, assemble_live
from live.session.shutdown import Ending
from live.simulated.adapter import InProcessAdapter
from live.simulated.exchange import SimExchange
from tests.support.processes.live_session import KeptAlerts, SceneClock, settings_in

NO_LOSS_LIMIT = {"equity_warn_pct": 1e5, "equity_emergency_pct": 1e6}
Row = tuple[str, float, float, int]
"""Label, price, quantity, bar since the first candle."""


@dataclass
class FixedScene:
    """A session, the exchange it trades on, and the way it tells the time."""

    exchange: SimExchange
    clock: SceneClock
    alerts: KeptAlerts
    live: Assembled
    plan: Plan
    http: requests.Session
    earlier: list[Row] = field(default_factory=list)
    last_bar: int = -1

    @property
    def strategy(self) -> FixedGridFace:
        """The strategy as it stands."""
        strategy = self.live.session.strategy
        assert isinstance(strategy, FixedGridFace)
        return strategy

    @property
    def bar_ms(self) -> int:
        """Length of a step, ms."""
        return self.live.session.bar_ms

    @property
    def first_bar(self) -> int:
        """Index of the first candle."""
        return self.exchange.walk.candles[0].ts_ms // self.bar_ms

    def rows(self) -> list[Row]:
        """Return the trades as a backtest's are compared, those of earlier processes included."""
        trades = self.live.session.trades
        return self.earlier + [(t.label, t.price, t.qty, t.bar - self.first_bar) for t in trades]

    def run_to(self, bar: int) -> Ending:
        """Let the session run until the step of candle ``bar`` is done."""
        self.last_bar = bar
        return self.live.runner.run()

    def run_until(self, ts_ms: int) -> Ending:
        """Let the session run until ``ts_ms``, as if a signal came then."""
        self.clock.at(ts_ms, self.clock.stop.set)
        return self.live.runner.run()

    def reopened(self, **changes: Any) -> FixedScene:
        """Return the session of a new process: it knows nothing but what the exchange tells.

        Its files lie elsewhere, as the one before may still write.
        """
        folder = str(Path(self.plan.settings["state_dir"]) / "next")
        settings = {**self.plan.settings, "state_dir": folder}
        plan = replace(self.plan, **{"settings": settings, **changes})
        scene = open_fixed(self.exchange, self.http, plan)
        scene.earlier = self.rows()
        return scene


@contextmanager
def on_fixed_stage(
    candles: pd.DataFrame,
    config: Mapping[str, Any],
    rules: MarketRules,
    folder: Path,
    *,
    start_bar: int = 1,
    wallet: float = 20_000.0,
    settings: Mapping[str, Any] | None = None,
    **sim: Any,
) -> Iterator[FixedScene]:
    """Yield a session that stands before the step of candle ``start_bar``."""
    params = FIXED_GRID.read(config)
    exchange = SimExchange(
        candles,
        coin="BTC",
        rules=rules,
        wallet=wallet,
        start_bar=start_bar,
        fee_maker=params.fee_maker,
        fee_taker=params.fee_taker,
        slippage=params.slippage,
        **{"funding": [], "liquidation_fee": params.liquidation_fee, **sim},
    )
    chosen = {**settings_in(folder), "poll_s": 900.0, **NO_LOSS_LIMIT, **(settings or {})}
    plan = Plan(
        symbol=exchange.symbol,
        spec=FIXED_GRID,
        params=params,
        mode="live",
        capital=params.initial_capital,
        resume=False,
        accept_code_change=False,
        settings=chosen,
    )
    with requests.Session() as http:
        http.trust_env = False
        http.mount("https://", InProcessAdapter(exchange))
        yield open_fixed(exchange, http, plan)


def open_fixed(exchange: SimExchange, http: requests.Session, plan: Plan) -> FixedScene:
    """Return a session that talks to the exchange through ``http``."""
    clock, alerts = SceneClock(exchange), KeptAlerts()
    executor = open_exchange(
        "BTC",
        api_key=exchange.api_key,
        api_secret=exchange.secret,
        clock=clock,
        session=http,
        settings=plan.settings,
        bar_ms=plan.spec.bar_ms(plan.params),
    )
    folder = Path(plan.settings["state_dir"])
    monitor = HealthMonitor(plan.symbol, folder, plan.settings, clock, alerts)
    events = Events()
    events.subscribe(Notice, lambda notice: alerts.send(notice.text))
    equipment = Equipment(clock=clock, stop=clock.stop, monitor=monitor, events=events)
    live = assemble_live(plan, executor, equipment)
    scene = FixedScene(exchange, clock, alerts, live, plan, http)
    session, save = live.session, live.session.save

    def saved(*, snapshot: bool = False) -> None:
        save(snapshot=snapshot)  # with a snapshot: the step is done
        if snapshot and session.progress.bar - scene.first_bar >= scene.last_bar >= 0:
            clock.stop.set()

    session.save = saved  # type: ignore[method-assign]  # a test's ear at the seam
    return scene


def backtest_rows(
    candles: pd.DataFrame,
    config: Mapping[str, Any],
    rules: MarketRules,
    first_bar: int,
    funding: pd.DataFrame | None = None,
) -> list[Row]:
    """Return the trades of a backtest over the same candles, without the close at its end."""
    strategy = FixedGridStrategy(FIXED_GRID.read(config), rules)
    run = strategy.run_result(candles, first_bar=first_bar, funding=funding)
    return [
        (t["label"], t["price"], t["qty"], t["bar"])
        for t in run.trade_dicts
        if t["label"] != "CLOSE_END"
    ]


def core_of(strategy: FixedGridFace) -> dict[str, Any]:
    """Return what must be equal in memory and rebuilt from the exchange alone.

    Counters and ages restart; a quantity that rests is compared to the lot.
    """
    state, params = strategy.state, strategy.frozen_params
    own, hedges = state.sides[params.side], state.sides[params.hedge_side]
    legs = {int(hedges.fills[k].cycle): hedges.fills[k] for k in range(int(hedges.n_fills))}
    positions = []
    for row in range(int(own.n_fills)):
        position = own.fills[row]
        leg = legs.get(int(position.cycle))
        ladder = state.ladders[position.slot]
        n_rungs = int(ladder.n_rungs) if position.stage == 1 else 0
        positions.append(
            {
                name: round(float(getattr(position, name)), 9)
                for name in (
                    *("cycle", "slot", "price", "qty", "entry_qty", "opened", "filled", "stage"),
                    *("stage_time", "take_profit", "stop", "recovered"),
                )
            }
            | {
                "hedge": None if leg is None else (float(leg.price), round(float(leg.qty), 9)),
                "rungs": [
                    (int(rung.number), float(rung.price), round(float(rung.qty), 9))
                    for rung in (ladder.rungs[k] for k in range(n_rungs))
                ],
            }
        )
    working = state.working
    resting = None
    if working.price > 0.0:
        resting = (float(working.price), round(float(working.qty), 9), int(working.cycle))
    return {
        "positions": positions,
        "working": resting,
        "last_entry_fill": int(state.last_entry_fill),
        "last_profit_exit": int(state.last_profit_exit),
        "last_loss_exit": int(state.last_loss_exit),
        "wallet": round(float(state.wallet), 5),
    }
