"""Backtest, dry run and live runner over the same candles make the same trades.

The live runner trades on the simulated exchange, through the real executor and the real ccxt.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config import PRESETS
from core.market import MarketRules, tick_down, tick_up
from core.orders import OrderKind
from engine.registry import GRID_V4
from engine.strategy import read_config
from live.commands.replay import Recording, candle_table, run_replay
from live.execution.books import LiveSession
from live.session.shutdown import Ending
from tests.support.markets.oracle import BAR_MS, coin_rules, real_candles
from tests.support.markets.synthetic import RULES, synthetic_candles, synthetic_settlements
from tests.support.paths import MARKET
from tests.support.processes.live_session import (
    Row,
    Scene,
    backtest,
    on_stage,
    on_tick,
    rows_of,
    settings_in,
    settlements,
    warm_bars,
)

WALLET = 10_000.0
DOCUMENTED = PRESETS["documented"]
NO_LOSS_LIMIT = {"equity_warn_pct": 1e5, "equity_emergency_pct": 1e6}
UNPROTECTED = {
    **DOCUMENTED,
    "stop1_enabled": False,
    "stop2_enabled": False,
    "var_deleverage_enabled": False,
    "prune_enabled": ("OLDEST",),
}
SETTLEMENT_BARS = 32


@dataclass(frozen=True, eq=False)
class Window:
    """Candles to trade over, and how.

    Attributes:
        source: a coin, or '' for invented candles.
        start: date (UTC) of the first traded candle, or the seed of invented ones.
        n_bars: candles traded.
        config: parameters.
        sim: of the simulated exchange.
        share: of the wallet that is traded with.
        settings: other than ``LIVE_CONFIG``.
        crash_after: traded candles before four that lose 9 % each; 0: there is no crash.
    """

    source: str
    start: str | int
    n_bars: int
    config: dict[str, Any] = field(default_factory=lambda: dict(DOCUMENTED))
    sim: dict[str, Any] = field(default_factory=dict)
    share: float = 0.95
    settings: dict[str, Any] = field(default_factory=dict)
    crash_after: int = 0

    def __str__(self) -> str:
        return f"{self.source or 'seed'} {self.start}"

    @property
    def rules(self) -> MarketRules:
        """Of the symbol."""
        return coin_rules(self.source) if self.source else RULES

    @property
    def capital(self) -> float:
        """Traded with, quote."""
        return WALLET * self.share

    @property
    def warm(self) -> int:
        """Candles before the first traded one."""
        return warm_bars(self.config)

    @property
    def last(self) -> int:
        """The last candle, counted from the first warm one."""
        return self.warm + self.n_bars - 1


REAL = (
    Window("ETH", "2022-10-12 09:00", 300),
    Window("ETH", "2025-04-18 03:00", 300),
    Window("BTC", "2022-06-28 03:00", 300),
    Window("BTC", "2025-02-02 03:00", 300),
    Window("SOL", "2022-12-13 21:00", 299),
    Window("SOL", "2022-11-08", 250),  # candles of up to 40 %, funding every 2 h
    Window("SOL", "2022-11-08", 250, dict(PRESETS["shipped"])),
    Window("ETH", "2025-02-01", 250, {**DOCUMENTED, "leverage": 5.0}, share=1.0),
)
INVENTED = tuple(Window("", seed, 420) for seed in (24, 56, 60, 63, 65))
VARIED = {
    "five times leverage": Window("", 36, 120, {**DOCUMENTED, "leverage": 5.0}),
    "no short side": Window("", 29, 120, {**DOCUMENTED, "allow_short": False}),
    "the mixture regime": Window("", 63, 110, {**DOCUMENTED, "use_ml_regime": True}),
    "a liquidation that leaves something": Window(
        "",
        32,
        120,
        {**UNPROTECTED, "leverage": 50.0, "liquidation_fee": 0.0},
        share=1.0,
        settings=NO_LOSS_LIMIT,
    ),
}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """The files of these tests need not survive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@cache
def market_of(window: Window) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return candles, those before the first traded one included, and funding."""
    n_bars = window.warm + window.n_bars
    if not window.source:
        candles = synthetic_candles(n_bars, int(window.start))
        if window.crash_after:
            candles = fallen(candles, window.warm + window.crash_after)
        return candles, synthetic_settlements(candles, int(window.start))
    first = pd.Timestamp(window.start) - pd.Timedelta(milliseconds=BAR_MS * window.warm)
    candles, funding = real_candles(window.source, f"{first}", n_bars)
    return on_tick(candles, window.rules), funding


def fallen(candles: pd.DataFrame, n_calm: int) -> pd.DataFrame:
    """Return candles that lose 9 % in each of four after ``n_calm``."""
    falls = np.ones(len(candles))
    falls[n_calm : n_calm + 4] = 0.91
    after = falls.cumprod()
    before = np.concatenate([[1.0], after[:-1]])
    out = candles.copy()
    for name, factor in (("open", before), ("high", before), ("low", after), ("close", after)):
        out[name] = np.round(candles[name] * factor, 1)
    return out


@cache
def backtest_of(window: Window) -> dict[str, Any]:
    candles, funding = market_of(window)
    return backtest(candles, window.config, window.rules, window.warm, funding, window.capital)


def dry_run_of(window: Window) -> LiveSession:
    candles, funding = market_of(window)
    recording = Recording(
        coin=window.source,
        candles=candle_table(candles),
        first=window.warm,
        settlements=np.array(funding["timestamp"]),
        rates=np.array(funding["rate"], np.float64),
        rules=window.rules,
    )
    params = read_config({**window.config, "initial_capital": window.capital})
    return run_replay(recording, GRID_V4, params)


def stage_of(
    window: Window, folder: Path, *, over_socket: bool = False
) -> AbstractContextManager[Scene]:
    """Return the stage of a live session over ``window``."""
    candles, funding = market_of(window)
    settings = settings_in(folder, max_capital_pct=window.share, **window.settings)
    return on_stage(
        candles,
        window.config,
        window.rules,
        folder,
        coin=window.source or "BTC",
        start_bar=window.warm,
        funding=settlements(funding, candles),
        wallet=WALLET,
        settings=settings,
        over_socket=over_socket,
        **window.sim,
    )


def seen(rows: Iterable[Row]) -> list[Row]:
    """Return ``rows`` with the prices of liquidations, which are solved for, to 1e-6."""
    return [
        (label, round(price, 6) if label == "LIQUIDATION" else price, qty, bar)
        for label, price, qty, bar in rows
    ]


def assert_same_trades(got: Sequence[Row], window: Window) -> None:
    """Compare up to the step of the last candle, which the price has not walked yet."""
    want, rows = seen(rows_of(backtest_of(window)["trades"])), seen(got)
    assert rows == want[: len(rows)]
    assert {bar for *_, bar in want[len(rows) :]} <= {window.last}


def assert_same_money(scenes: Sequence[Scene], window: Window) -> None:
    """Compare profits, fees and funding; the account rounds each to 8 decimals.

    And the times of execution with the account's.
    """
    result, scene = backtest_of(window), scenes[-1]
    trades = [trade for each in scenes for trade in each.session.trades]
    executed = {f"{trade.trade_id}:0": trade.ts_ms for trade in scene.market.account.trades}
    ours = {t.trade_id: t.executed_ms for t in trades if t.trade_id in executed}
    assert ours == executed
    for name in ("pnl", "fee"):
        live = np.array([getattr(trade, name) for trade in trades])
        theirs = np.array([trade[name] for trade in result["trades"][: len(trades)]])
        assert np.allclose(live, theirs, rtol=1e-9, atol=1e-7), name
    funding = float(np.sum(result["log"]["funding"][: window.last]))
    assert scene.session.strategy.view().funding == pytest.approx(funding, abs=1e-6)
    assert scene.equity_gap() == pytest.approx(0.0, abs=1e-6)
    assert scene.position_gaps() == [0.0, 0.0]


def assert_parity(window: Window, folder: Path) -> Scene:
    dry = dry_run_of(window)
    assert [(t.label, t.price, t.qty, t.bar - dry_first(window)) for t in dry.trades] == [
        (t["label"], t["price"], t["qty"], t["bar"]) for t in backtest_of(window)["trades"]
    ]
    with stage_of(window, folder) as scene:
        assert scene.run_to(window.last) is Ending.ASKED
    assert_same_trades(scene.rows(), window)
    assert_same_money([scene], window)
    return scene


def dry_first(window: Window) -> int:
    """Return the index of the first candle."""
    return int(market_of(window)[0]["timestamp"].iloc[0]) // BAR_MS


# --- whole windows ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("window", REAL, ids=str)
def test_on_real_candles_all_three_make_the_same_trades(window: Window, tmp_path: Path) -> None:
    scene = assert_parity(window, tmp_path)
    assert scene.exchange.limits.max_weight < 2_400


@pytest.mark.slow
@pytest.mark.parametrize("window", INVENTED, ids=str)
def test_on_invented_candles_all_three_make_the_same_trades(window: Window, tmp_path: Path) -> None:
    assert_parity(window, tmp_path)


def stop_stages(window: Window) -> Counter[int]:
    """Return how many stop records were at the step's price (stage 1) and how many inside a bar."""
    market: Any = window.rules.to_record(0.0)
    opens, slippage = market_of(window)[0]["open"].to_numpy(), 0.0005
    stages: Counter[int] = Counter()
    for label, price, _, bar in rows_of(backtest_of(window)["trades"]):
        if label.startswith("STOP"):
            sell, buy = opens[bar] * (1.0 - slippage), opens[bar] * (1.0 + slippage)
            at_open = tick_down(market, sell) if label == "STOP_LONG" else tick_up(market, buy)
            stages[1 if price == at_open else 2] += 1
    return stages


@pytest.mark.parametrize(
    "windows",
    [
        pytest.param(
            REAL,
            id="real",
            marks=pytest.mark.skipif(
                not MARKET.is_dir(), reason="no real candles: ../shared/market is missing"
            ),
        ),
        pytest.param(INVENTED, id="invented"),
    ],
)
def test_the_windows_hold_every_kind_of_event(windows: Sequence[Window]) -> None:
    labels, stages = Counter[str](), Counter[int]()
    for window in windows:
        result = backtest_of(window)
        labels.update(trade["label"] for trade in result["trades"])
        stages += stop_stages(window)
        assert result["metrics"]["funding_pnl"] != 0.0
    assert sum(window.n_bars for window in windows) >= 2_000
    assert min(stages[1], stages[2]) >= 5
    assert labels["CIRCUIT_BREAKER_HALT"] >= 5
    for kind in ("DEVIANCE", "GAP", "FUNDING", "OFFSET"):
        assert labels[f"PRUNE_{kind}"] >= 2, kind
    for label in ("STOP_LONG", "STOP_SHORT", "SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"):
        assert labels[label] >= 5, label


@pytest.mark.slow
@pytest.mark.parametrize("name", VARIED)
def test_other_settings_make_the_same_trades_too(name: str, tmp_path: Path) -> None:
    window = VARIED[name]
    scene = assert_parity(window, tmp_path)
    labels = Counter(trade.label for trade in scene.session.trades)
    assert sum(labels.values()) > 20
    assert (labels["LIQUIDATION"] > 0) == ("liquidation" in name)
    assert (labels["SELL_OPEN_SHORT"] > 0) == (name != "no short side")


@pytest.mark.slow
def test_a_ruin_ends_the_session_with_the_backtests_trades(tmp_path: Path) -> None:
    config = {**UNPROTECTED, "leverage": 25.0}
    window = Window("", 28, 120, config, share=1.0, settings=NO_LOSS_LIMIT)
    with stage_of(window, tmp_path) as scene:
        assert scene.run() is Ending.RUINED
    assert seen(scene.rows()) == seen(rows_of(backtest_of(window)["trades"]))
    assert scene.rows()[-1][0] == "LIQUIDATION"
    assert scene.exchange.account.is_flat
    assert not scene.exchange.book.open_orders


@pytest.mark.slow
def test_over_a_real_socket_it_is_the_same(tmp_path: Path) -> None:
    window = Window("", 24, 40)
    with stage_of(window, tmp_path, over_socket=True) as scene:
        scene.run_to(window.last)
    assert_same_trades(scene.rows(), window)
    assert len(scene.rows()) > 10


# --- interrupted --------------------------------------------------------------------------------


def quiet_bars(window: Window) -> list[int]:
    """Return bars in which nothing trades, nor in the one after."""
    busy = {bar for *_, bar in rows_of(backtest_of(window)["trades"])}
    return [b for b in range(window.warm + 1, window.last - 1) if not {b, b + 1} & busy]


def pauses_of(window: Window) -> list[tuple[int, int]]:
    """Return ten spans (from, to) in ms in which nobody watches, within a candle or over a close.

    After a close the price stands still for 5 s: a step is as good then as at once. Three closes
    have a settlement of funding.
    """
    quiet = quiet_bars(window)
    chosen = [bar for bar in quiet if (bar + 1) % SETTLEMENT_BARS == 0][:3]
    for bar in quiet[::7]:
        if len(chosen) < 10 and all(abs(bar - other) > 1 for other in chosen):
            chosen.append(bar)
    first, spans = dry_first(window), []
    for k, bar in enumerate(chosen):
        start_ms = (first + bar) * BAR_MS
        is_over_close = k < 3 or k % 2 == 0
        over, within = (BAR_MS - 61_000, BAR_MS + 3_000), (300_000, 640_000)
        begin, end = over if is_over_close else within
        spans.append((start_ms + begin, start_ms + end))
    return sorted(spans)


@pytest.mark.slow
def test_a_session_that_is_stopped_and_resumed_makes_the_same_trades(tmp_path: Path) -> None:
    window = Window("", 63, 200)
    pauses = pauses_of(window)
    assert len(pauses) == 10
    with stage_of(window, tmp_path) as first:
        scenes = [first]
        for start_ms, end_ms in pauses:
            assert scenes[-1].run_until(start_ms) is Ending.ASKED
            exchange = first.exchange
            assert not exchange.book.open_orders  # only stops rest while nobody watches
            held = {d for d, p in exchange.account.positions.items() if p.qty}
            assert {stop.position_side for stop in exchange.book.open_stops.values()} == held
            n_trades = len(exchange.account.trades)
            exchange.advance(end_ms - exchange.now_ms)
            assert len(exchange.account.trades) == n_trades
            scenes.append(scenes[-1].reopened())
        assert scenes[-1].run_to(window.last) is Ending.ASKED
    assert_same_trades([row for scene in scenes for row in scene.rows()], window)
    assert_same_money(scenes, window)


# --- levels far from the price ------------------------------------------------------------------


def test_levels_far_from_the_price_rest_from_the_beginning(tmp_path: Path) -> None:
    window = Window("", 5, 10, {**DOCUMENTED, "spacing_floor": 0.03})
    with stage_of(window, tmp_path) as scene:
        scene.run_to(window.warm)
        desired = scene.session.strategy.desired()
        wanted = {order.price for order in desired if order.kind is OrderKind.ENTRY}
        price = float(scene.exchange.price)
        sent = {float(order.price) for order in scene.exchange.book.orders.values()}
    assert max(abs(level / price - 1.0) for level in wanted) >= 0.10
    assert sent == wanted
    assert scene.alerts.texts == []


# --- a crash ------------------------------------------------------------------------------------

CRASH = Window(
    "",
    5,
    40,
    {
        **DOCUMENTED,
        "spacing_floor": 0.03,
        "atr_sl_mult": 12.0,
        "regime_enabled": False,
        "circuit_breaker_enabled": False,
        "prune_enabled": (),
        "var_deleverage_enabled": False,
        "var_block_enabled": False,
        "kelly_enabled": False,
    },
    settings=NO_LOSS_LIMIT,
    crash_after=20,
)


@pytest.mark.slow
def test_through_a_crash_with_levels_a_tenth_from_the_mark_live_trades_as_the_backtest(
    tmp_path: Path,
) -> None:
    with stage_of(CRASH, tmp_path) as scene:
        book, known, far = scene.exchange.market.book, set[str](), set[str]()

        def look(*_: object) -> None:
            for order in book.orders.values():
                if order.client_id not in known and not order.closes:
                    known.add(order.client_id)
                    if abs(float(order.price / scene.exchange.price) - 1.0) >= 0.10:
                        far.add(order.client_id)

        scene.exchange.after_request = look
        assert scene.run_to(CRASH.last) is Ending.ASKED
    assert_same_trades(scene.rows(), CRASH)
    assert_same_money([scene], CRASH)
    opened = {t.client_id for t in scene.session.trades if t.label == "BUY_OPEN_LONG"}
    assert opened & far  # laid a tenth away and more, and the crash met it
    assert not scene.alerts.count("refused")  # the exchange takes each of them
