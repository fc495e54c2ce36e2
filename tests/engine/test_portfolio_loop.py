"""Several coins in step: equal to a slow driver, to separate runs, and within the budget."""

from __future__ import annotations

import itertools
import math
from typing import Any, Final

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.records import zeros
from engine.grid_v4.decision import PROTECT_PHASES, arrange, open_step, protect
from engine.grid_v4.execution import execute_exits, trigger_passed_stops
from engine.grid_v4.generation import position_cap
from engine.grid_v4.loop import close_at_end, log_bar
from engine.grid_v4.placement import entries_allowed
from engine.grid_v4.portfolio_loop import PORTFOLIO_LOOP
from engine.grid_v4.types import new_state
from engine.grid_v4.walk import walk_gap
from engine.portfolio_run import CoinRun, PortfolioRun, portfolio_risk, run_portfolio
from engine.tables import RunTables
from engine.types import LONG, SHORT, Tape
from tests.support.markets.oracle import Inputs, StepLoop, inputs_of
from tests.support.markets.synthetic import (
    CONFIGS,
    RULES,
    SEEDS,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)

HORIZON: Final = 96.0
THRESHOLD: Final = 0.8
WINDOW: Final = 672
BUSY: Final[dict[str, Any]] = {
    "grid_levels": 6,
    "spacing_floor": 0.003,
    "grid_spacing_k": 0.6,
    "leverage": 5.0,
    "order_pct": 0.1,
    "atr_sl_mult": 6.0,
    "var_horizon_bars": HORIZON,
}


def related_candles(n_coins: int, n_bars: int, seed: int, missing: float = 0.0) -> list[Any]:
    """Return candles of coins that share a part of their moves."""
    frames = [synthetic_candles(n_bars, seed + c) for c in range(n_coins)]
    common = frames[0]["close"].to_numpy() / frames[0]["close"].iloc[0]
    for c, frame in enumerate(frames[1:], 1):
        factor = common ** (0.3 * c)
        for name in ("open", "high", "low", "close"):
            before = np.concatenate(([1.0], factor[:-1]))
            frame[name] = np.round(frame[name] * (before if name == "open" else factor), 1)
        frame["high"] = frame[["open", "high", "low", "close"]].max(axis=1)
        frame["low"] = frame[["open", "high", "low", "close"]].min(axis=1)
    if missing:
        random = np.random.default_rng(seed)
        frames = [
            frame[random.random(len(frame)) >= missing].reset_index(drop=True) for frame in frames
        ]
    return frames


def inputs_for(frames: list[pd.DataFrame], config: dict[str, Any], seed: int) -> list[Inputs]:
    return [
        inputs_of(
            frame,
            config,
            RULES,
            synthetic_settlements(frame, seed + c),
            synthetic_detail(frame, seed + c) if c == 1 else None,
        )
        for c, frame in enumerate(frames)
    ]


def together(inputs: list[Inputs], budget: float, *, enabled: bool = True) -> PortfolioRun:
    runs = [
        CoinRun(
            RunTables(x.bars, x.signals, x.funding, "", x.detail, x.detail_from, 0),
            x.params,
            x.market,
            new_state(x.config["initial_capital"]),
            zeros(Tape),
            x.config["initial_capital"],
        )
        for x in inputs
    ]
    risk = portfolio_risk(
        enabled=enabled, drawdown_pct=budget, horizon_bars=HORIZON, high_corr_threshold=THRESHOLD
    )
    return run_portfolio(PORTFOLIO_LOOP, runs, risk)


# --- the slow driver: one coin's step at a time, the portfolio's formula as it is written ---------


class SlowCoin:
    """One coin: its step loop, and what it last published."""

    def __init__(self, inputs: Inputs) -> None:
        self.loop, self.row = StepLoop(inputs), 0
        self.times = inputs.bars["ts_ms"].tolist()
        self.net, self.sigma, self.rooms = 0.0, 0.0, (0.0, 0.0)
        self.equity = float(inputs.config["initial_capital"])
        self.acted = False

    def has(self, time: int) -> bool:
        """Return whether a bar of the coin opens at ``time``."""
        return self.row < len(self.times) and self.times[self.row] == time

    def qty(self) -> tuple[float, float]:
        """Return the open quantities, long and short."""
        sides = self.loop.state.sides
        return float(sides[LONG].qty), float(sides[SHORT].qty)

    def open(self) -> None:
        """Do the step up to its exits, and publish."""
        loop, x, i = self.loop, self.loop.inputs, self.row
        state = loop.state
        self.acted = loop.acts(i)
        if state.ended:
            self.net, self.rooms, self.equity = 0.0, (0.0, 0.0), 0.0
        if not self.acted:
            return
        before, price = float(x.bars["close"][i - 1]), float(x.bars["open"][i])
        known = float(x.funding["known"][i])
        open_step(state, i, int(x.bars["ts_ms"][i]), price, before, x.signals[i - 1], known)
        walk_gap(state, x.params, x.market, before, price, loop.tape)
        for phase in range(PROTECT_PHASES):
            if protect(state, x.params, x.market, phase, loop.tape) > 0:
                execute_exits(state, x.params, x.market, loop.tape)
            if state.ended:
                break
        self.publish(price)

    def publish(self, price: float) -> None:
        """Publish net, volatility, equity and the rooms that the caps leave."""
        state, x = self.loop.state, self.loop.inputs
        long, short = self.qty()
        self.equity = float(state.wallet)
        for side, sign in ((LONG, 1.0), (SHORT, -1.0)):
            held = state.sides[side]
            self.equity += sign * (price * float(held.qty) - float(held.cost))
        self.net, self.sigma = (long - short) * price, float(state.now.sigma)
        if state.ended:
            self.equity, self.rooms = 0.0, (0.0, 0.0)
            return
        whole = x.params.max_capital_pct * self.equity * x.params.leverage - (long + short) * price
        rooms = [0.0, 0.0]
        for k, (side, qty) in enumerate(((LONG, long), (SHORT, short))):
            if entries_allowed(state, x.params, side):
                cap = position_cap(state, x.params, side, self.equity) - qty * price
                rooms[k] = max(0.0, min(cap, whole))
        self.rooms = rooms[0], rooms[1]

    def resting(self, side: int) -> float:
        """Return the notional of the side's entries that rest."""
        position, levels = self.loop.state.sides[side], self.loop.inputs.config["grid_levels"]
        return sum(float(position.levels[k].qty * position.entries[k]) for k in range(levels))

    def absent(self) -> None:
        """Count with all resting entries filled, the worse way."""
        price, (long, short) = float(self.loop.state.now.price), self.qty()
        net = (long - short) * price
        bought, sold = net + self.resting(LONG), net - self.resting(SHORT)
        self.net, self.rooms = bought if abs(bought) >= abs(sold) else sold, (0.0, 0.0)

    def finish(self, share: float) -> None:
        """Lay the orders and do the rest of the bar; the last one closes everything."""
        loop, x, i = self.loop, self.loop.inputs, self.row
        state, paid = loop.state, 0.0
        state.entry_share = share
        if self.acted and not state.ended:
            arrange(state, x.params, x.market)
            trigger_passed_stops(state, x.params, x.market, loop.tape)
            paid = loop.match(i)
        close = float(x.bars["close"][i])
        log_bar(state, paid, close, loop.log[i])
        self.row += 1
        if self.row == len(self.times):
            close_at_end(state, x.params, x.market, close, loop.tape, loop.log[i])
            self.net, self.rooms = 0.0, (0.0, 0.0)
            self.equity = 0.0 if state.ended else float(state.wallet)


def whole_return(closes: dict[int, float], times: list[int], u: int) -> int | None:
    if u == 0 or times[u] not in closes or times[u - 1] not in closes:
        return None
    change = closes[times[u]] / closes[times[u - 1]] - 1.0
    return round(min(2.0, max(-2.0, change)) / 1e-7)


def correlation_of(a: list[int], b: list[int]) -> float:
    n = len(a)
    if n < 2:
        return 1.0
    mean_a, mean_b = sum(a), sum(b)
    over = float(n) * float(sum(x * y for x, y in zip(a, b, strict=True)))
    over -= float(mean_a) * float(mean_b)
    size_a = float(n) * float(sum(x * x for x in a)) - float(mean_a) * float(mean_a)
    size_b = float(n) * float(sum(x * x for x in b)) - float(mean_b) * float(mean_b)
    spread = math.sqrt(max(0.0, size_a)) * math.sqrt(max(0.0, size_b))
    found = over / spread if spread > 0.0 else 0.0
    return 1.0 if found > THRESHOLD else found


def share_of(coins: list[SlowCoin], matrix: list[list[float]], budget: float) -> float:
    def at_most(x: float) -> float:
        a = [c.sigma * max(abs(c.net + x * c.rooms[0]), abs(c.net - x * c.rooms[1])) for c in coins]
        pairs = itertools.product(range(len(coins)), repeat=2)
        total = math.fsum(a[i] * abs(matrix[i][j]) * a[j] for i, j in pairs)
        return 1.65 * math.sqrt(HORIZON) * math.sqrt(total)

    if at_most(0.0) > budget:
        return 0.0
    if at_most(1.0) <= budget:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if at_most(middle) <= budget else (low, middle)
    return low


def run_slowly(inputs: list[Inputs], drawdown_pct: float) -> tuple[list[SlowCoin], list[float]]:
    coins = [SlowCoin(x) for x in inputs]
    times = sorted({time for coin in coins for time in coin.times})
    prices = [dict(zip(c.times, c.loop.inputs.bars["close"].tolist(), strict=True)) for c in coins]
    moves = [[whole_return(closes, times, u) for u in range(len(times))] for closes in prices]
    shares = []
    for u, time in enumerate(times):
        for coin in coins:
            if coin.has(time):
                coin.open()
            else:
                coin.absent()
        matrix = [[1.0] * len(coins) for _ in coins]
        for i, j in itertools.combinations(range(len(coins)), 2):
            both = [
                (a, b)
                for a, b in zip(moves[i][:u], moves[j][:u], strict=True)
                if a is not None and b is not None
            ][-WINDOW:]
            matrix[i][j] = matrix[j][i] = correlation_of([a for a, _ in both], [b for _, b in both])
        budget = drawdown_pct * sum(coin.equity for coin in coins)
        shares.append(share_of(coins, matrix, budget))
        for coin in coins:
            if coin.has(time):
                coin.finish(shares[-1])
    return coins, shares


# --- proofs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("seed", "missing"), [(1, 0.0), (2, 0.05)])
@pytest.mark.parametrize("budget", [0.05, 0.15])
def test_coins_in_step_equal_the_slow_driver(seed: int, missing: float, budget: float) -> None:
    inputs = inputs_for(related_candles(3, 500, seed, missing), BUSY, seed)
    found = together(inputs, budget)
    coins, shares = run_slowly(inputs, budget)
    np.testing.assert_allclose(found.steps["share"], shares, rtol=0.0, atol=1e-9)
    assert 0.0 < np.mean(found.steps["share"] < 1.0) < 1.0
    for coin, trades, log in zip(coins, found.trades, found.logs, strict=True):
        ours, theirs = trades, coin.loop.trades
        assert len(ours) == len(theirs) > 20
        assert ours["label"].tolist() == theirs["label"].tolist()
        assert ours["bar"].tolist() == theirs["bar"].tolist()
        np.testing.assert_allclose(ours["qty"], theirs["qty"], rtol=1e-9)
        np.testing.assert_allclose(log["equity"], coin.loop.log["equity"], rtol=1e-9)


@given(SEEDS, CONFIGS)
@settings(max_examples=15)
def test_with_room_for_all_coins_in_step_equal_separate_runs(
    seed: int, config: dict[str, Any]
) -> None:
    inputs = inputs_for(related_candles(3, 300, seed % 1_000, 0.02), config, seed % 1_000)
    found = together(inputs, 1e9)
    off = together(inputs, 0.0, enabled=False)
    for k, x in enumerate(inputs):
        alone = StepLoop(x)
        alone.run_compiled(0, len(x.bars))
        alone.close()
        for run in (found, off):
            assert run.trades[k].tobytes() == alone.trades.tobytes()
            assert run.logs[k].tobytes() == alone.log.tobytes()


def test_one_coin_is_no_portfolio() -> None:
    inputs = inputs_for(related_candles(1, 300, 5), BUSY, 5)
    assert np.all(together(inputs, 1e-9).steps["share"] == 1.0)


def test_a_portfolio_without_budget_opens_nothing() -> None:
    inputs = inputs_for(related_candles(2, 300, 5), BUSY, 5)
    assert any(trades["qty"].any() for trades in together(inputs, 0.1).trades)
    assert not any(trades["qty"].any() for trades in together(inputs, 0.0).trades)


@given(SEEDS, st.sampled_from([0.02, 0.05, 0.1]))
@settings(max_examples=10)
def test_what_rests_is_within_the_share_of_each_room(seed: int, budget: float) -> None:
    inputs = inputs_for(related_candles(2, 250, seed % 1_000, 0.03), BUSY, seed % 1_000)
    coins = [SlowCoin(x) for x in inputs]
    found = together(inputs, budget)
    for u, time in enumerate(found.times.tolist()):
        for coin in coins:
            if coin.has(time):
                coin.open()
        share = float(found.steps["share"][u])
        before = [(coin.net, coin.rooms) for coin in coins]
        for coin, (_, rooms) in zip(coins, before, strict=True):
            if coin.has(time):
                state = coin.loop.state
                state.entry_share = share
                if coin.acted and not state.ended:
                    x = coin.loop.inputs
                    arrange(state, x.params, x.market)
                    for side, room in zip((LONG, SHORT), rooms, strict=True):
                        assert coin.resting(side) <= share * room * (1.0 + 1e-12)
                finish_arranged(coin)


def finish_arranged(coin: SlowCoin) -> None:
    """Do the rest of the bar after the orders have been laid."""
    loop, x, i = coin.loop, coin.loop.inputs, coin.row
    state, paid = loop.state, 0.0
    if coin.acted and not state.ended:
        trigger_passed_stops(state, x.params, x.market, loop.tape)
        paid = loop.match(i)
    close = float(x.bars["close"][i])
    log_bar(state, paid, close, loop.log[i])
    coin.row += 1
    if coin.row == len(coin.times):
        close_at_end(state, x.params, x.market, close, loop.tape, loop.log[i])
