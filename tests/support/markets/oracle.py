"""Runs the compiled engine, a loop of single steps, and the slow reference on the same input."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest

from config import BACKTEST_CONFIG
from core.funding import schedule_funding
from core.kama import REGIME_NAMES
from core.market import MarketRules
from core.params import StrategyParams
from core.records import dtype_of, freeze, zeros
from core.signals import SignalArray, compute_signals
from engine.grid_v4.decision import PROTECT_PHASES, arrange, open_step, protect
from engine.grid_v4.execution import execute_exits, trigger_passed_stops
from engine.grid_v4.loop import close_at_end, log_bar, run_bars
from engine.grid_v4.types import new_state
from engine.grid_v4.walk import walk_bar, walk_detail, walk_gap
from engine.ledger import settle_funding
from engine.strategy import GridStrategyV4, read_config
from engine.tables import BarLog, bar_table, detail_rows, funding_rows, within_bars
from engine.types import Tape
from tests.engine.reference.engine import ReferenceResult, run_reference
from tests.support.paths import MARKET

BAR_MS = 900_000
DAY_MS = 86_400_000
SETTLEMENT_MS = 8 * 3_600_000
COINS = ("BTC", "ETH", "SOL")
SIGNAL_NAMES = (
    "er",
    "kama",
    "atr",
    "adx",
    "z",
    "sigma",
    "atr_mean",
    "volume_ratio",
    "regime",
    "ready",
)


def real_candles(coin: str, start: str, n_bars: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return candles and funding of ``coin`` from the market folder; skip where there is none."""
    if not MARKET.is_dir():
        pytest.skip("no real candles beside the checkout: ../shared/market is missing")
    candles = pd.read_parquet(MARKET / f"{coin}USDT-perp-15m.parquet")
    funding = pd.read_parquet(MARKET / f"{coin}USDT-funding.parquet")
    start_ms = pd.Timestamp(start, tz="UTC").timestamp() * 1000
    first = int(np.searchsorted(candles["timestamp"], start_ms))
    candles = candles.iloc[first : first + n_bars].reset_index(drop=True)
    inside = funding["timestamp"].between(
        candles["timestamp"].iloc[0] - 86_400_000, candles["timestamp"].iloc[-1] + BAR_MS
    )
    return candles, funding[inside].reset_index(drop=True)


def real_detail(coin: str, candles: pd.DataFrame) -> pd.DataFrame:
    """Return the recorded 1m candles of ``coin`` that lie within ``candles``."""
    detail = pd.read_parquet(MARKET / f"{coin}USDT-perp-1m.parquet")
    first, last = candles["timestamp"].iloc[0], candles["timestamp"].iloc[-1]
    return detail[detail["timestamp"].between(first, last + BAR_MS - 1)].reset_index(drop=True)


def coin_rules(coin: str) -> MarketRules:
    """Return the configured rules of ``coin``."""
    markets: Any = BACKTEST_CONFIG["markets"]
    return MarketRules.from_dict(markets[coin])


def signals_of(candles: pd.DataFrame, params: StrategyParams) -> SignalArray:
    """Return the table of signals of ``candles``."""
    c = candles
    return compute_signals(c["timestamp"], c["high"], c["low"], c["close"], c["volume"], params)


@dataclass(frozen=True)
class Inputs:
    """Everything ``run_bars`` reads, as records and tables."""

    config: Mapping[str, Any]
    params: Any
    market: Any
    bars: Any
    signals: Any
    funding: Any
    detail: Any
    detail_from: Any


def inputs_of(
    candles: pd.DataFrame,
    config: Mapping[str, Any],
    rules: MarketRules,
    funding: pd.DataFrame | None = None,
    detail: pd.DataFrame | None = None,
) -> Inputs:
    """Return the tables of a run; without ``funding`` the model's rates."""
    params, bars = read_config(config), bar_table(candles)
    times, rates = np.empty(0, np.int64), np.empty(0)
    if funding is not None:
        times, rates = np.array(funding["timestamp"]), np.array(funding["rate"], dtype=np.float64)
    schedule = schedule_funding(bars["ts_ms"].copy(), bars["close"].copy(), times, rates)
    sub_bars_table = bars[:0] if detail is None else within_bars(bars, bar_table(detail), BAR_MS)
    return Inputs(
        config=params.to_dict(),
        params=freeze(params),
        market=rules.to_record(params.liquidation_fee),
        bars=bars,
        signals=signals_of(candles, params),
        funding=funding_rows(schedule),
        detail=sub_bars_table,
        detail_from=detail_rows(bars, sub_bars_table, BAR_MS),
    )


class StepLoop:
    """The backtest loop, over the step functions live trading uses or as the compiled whole."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs
        self.state = new_state(float(inputs.config["initial_capital"]))
        self.tape = zeros(Tape)
        self.log = np.zeros(len(inputs.bars), dtype_of(BarLog))
        self.taken: list[Any] = []

    @property
    def trades(self) -> Any:
        """All trade records so far, as one table."""
        table: Any = self.tape.trades
        self.taken.append(table[: int(self.tape.n_trades)].copy())
        self.tape.n_trades = 0
        self.taken = [np.concatenate(self.taken)]
        return self.taken[0]

    def run_compiled(self, start: int, stop: int) -> None:
        """Run the steps ``start`` to ``stop - 1`` in the compiled loop."""
        assert stop <= len(self.inputs.bars)
        x, done = self.inputs, start
        while done < stop:
            done = run_bars(
                self.state,
                x.params,
                x.market,
                x.bars[:stop],
                x.signals,
                x.funding,
                x.detail,
                x.detail_from,
                0,
                done,
                self.tape,
                self.log[:stop],
            )
            assert self.trades is not None

    def acts(self, i: int) -> bool:
        """Return whether step ``i`` does anything but log equity."""
        return i > 0 and bool(self.inputs.signals["ready"][i - 1]) and not bool(self.state.ended)

    def decide(self, i: int) -> None:
        """Do the steps 0 to 8 of bar ``i``, each by its own function."""
        self.lay_out(i)
        if not self.state.ended:
            trigger_passed_stops(self.state, self.inputs.params, self.inputs.market, self.tape)

    def lay_out(self, i: int) -> None:
        """Do the steps 0 to 8 of bar ``i`` but for stops that are passed when they are set."""
        x, bar, tape, state = self.inputs, self.inputs.bars[i], self.tape, self.state
        close = float(x.bars["close"][i - 1])
        open_step(
            state,
            i,
            int(bar.ts_ms),
            float(bar.open),
            close,
            x.signals[i - 1],
            float(x.funding["known"][i]),
        )
        walk_gap(state, x.params, x.market, close, float(bar.open), tape)
        for phase in range(PROTECT_PHASES):
            if protect(state, x.params, x.market, phase, tape) > 0:
                execute_exits(state, x.params, x.market, tape)
            if state.ended:
                return
        arrange(state, x.params, x.market)

    def match(self, i: int) -> float:
        """Do the steps 9 and 10 of bar ``i``; return the funding received."""
        x, due = self.inputs, float(self.inputs.funding["due"][i])
        first, stop = int(x.detail_from[i]), int(x.detail_from[i + 1])
        if stop > first:
            walk_detail(self.state, x.params, x.market, x.detail, first, stop, self.tape)
        else:
            walk_bar(self.state, x.params, x.market, x.bars[i], self.tape)
        if not x.config["funding_enabled"] or due == 0.0:
            return 0.0
        return float(settle_funding(self.state, due, float(x.bars["close"][i])))

    def step(self, i: int) -> None:
        """Do the whole step ``i``."""
        paid = 0.0
        if self.acts(i):
            self.decide(i)
            paid = self.match(i)
        log_bar(self.state, paid, float(self.inputs.bars["close"][i]), self.log[i])

    def close(self) -> None:
        """Close what is open at the last close."""
        x = self.inputs
        close_at_end(
            self.state, x.params, x.market, float(x.bars["close"][-1]), self.tape, self.log[-1]
        )


def plain_market(rules: MarketRules, liquidation_fee: float) -> dict[str, Any]:
    """Return market rules as the reference reads them."""
    return {
        "tick_size": rules.tick_size,
        "step_size": rules.step_size,
        "min_qty": max(rules.min_qty, rules.step_size),
        "min_notional": rules.min_notional,
        "liquidation_fee": (
            liquidation_fee if rules.liquidation_fee is None else rules.liquidation_fee
        ),
        "brackets": [list(row) for row in rules.brackets],
    }


def run_both(
    candles: pd.DataFrame,
    funding: pd.DataFrame,
    config: dict[str, Any],
    rules: MarketRules,
    *,
    first_bar: int = 0,
    detail: pd.DataFrame | None = None,
    keep_trace: bool = False,
) -> tuple[dict[str, Any], ReferenceResult]:
    """Return the engine's and the reference's result on the same candles and signals."""
    strategy = GridStrategyV4(config, rules)
    signals = signals_of(candles, strategy.params)
    ours = strategy.run(
        candles, funding=funding, detail=detail, first_bar=first_bar, signals=signals
    )
    params = strategy.params.to_dict()
    bars = [tuple(row) for row in bar_table(candles).tolist()]
    columns = {name: signals[name].tolist() for name in SIGNAL_NAMES}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    theirs = run_reference(
        bars,
        rows,
        params,
        plain_market(rules, params["liquidation_fee"]),
        first_bar,
        settlements(candles, funding),
        sub_bars(candles, detail),
        keep_trace=keep_trace,
    )
    return ours, theirs


def settlements(candles: pd.DataFrame, funding: pd.DataFrame) -> list[tuple[int, float]]:
    """Return the settlements a run reads: those on record, and modelled ones in their holes."""
    start, end = int(candles["timestamp"].iloc[0]), int(candles["timestamp"].iloc[-1]) + BAR_MS
    real = [
        (int(t) // 60_000 * 60_000, float(r))
        for t, r in zip(funding["timestamp"].tolist(), funding["rate"].tolist(), strict=True)
    ]
    recorded = [t for t, _ in real if start - DAY_MS <= t <= end]
    closes = list(zip(candles["timestamp"].tolist(), candles["close"].tolist(), strict=True))
    for t in range((start // SETTLEMENT_MS + 1) * SETTLEMENT_MS, end + 1, SETTLEMENT_MS):
        before = [known for known in recorded if known <= t]
        if not before or t - max(before) >= DAY_MS:
            known = [c for ts, c in closes if ts + BAR_MS <= t]
            mean = sum(known[-96:]) / len(known[-96:])
            rate = 0.0001 + 0.02 * (known[-1] / mean - 1.0)
            real.append((t, min(0.0003, max(-0.0003, rate))))
    return sorted(real)


def sub_bars(
    candles: pd.DataFrame, detail: pd.DataFrame | None
) -> dict[int, list[tuple[float, float, float, float]]] | None:
    """Return the sub-bars of each bar that has them all, as (open, high, low, close)."""
    if detail is None:
        return None
    bar_of = {t: i for i, t in enumerate(candles["timestamp"].tolist())}
    rows: dict[int, list[tuple[float, float, float, float]]] = {}
    names = ("timestamp", "open", "high", "low", "close")
    for ts_ms, *prices in zip(*(detail[name].tolist() for name in names), strict=True):
        bar = bar_of.get(ts_ms // BAR_MS * BAR_MS)
        if bar is not None:
            first, high, low, last = prices
            rows.setdefault(bar, []).append((first, high, low, last))
    opened = detail["timestamp"].tolist()
    length = min((b - a for a, b in itertools.pairwise(opened)), default=1)
    return {bar: parts for bar, parts in rows.items() if len(parts) * length >= BAR_MS}


def first_difference(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> str:
    """Return '' where both trade lists agree, else where they part, in words."""
    for k, (a, b) in enumerate(zip(ours, theirs, strict=False)):
        same = (
            a["bar"] == b["bar"]
            and a["label"] == b["label"]
            and a["fill_id"] == b["fill_id"]
            and a["direction"] == b["direction"]
            and a["timestamp"] == b["ts_ms"]
            and a["regime"] == REGIME_NAMES[b["regime"]]
            and all(
                abs(a[key] - b[key]) <= 1e-9 * max(1.0, abs(b[key]))
                for key in ("price", "qty", "pnl", "fee")
            )
        )
        if not same:
            return f"trade {k}:\n  ours   {a}\n  theirs {b}"
    if len(ours) != len(theirs):
        return f"{len(ours)} trades against {len(theirs)}"
    return ""
