"""Money and quantities, rebuilt from the trade list alone and compared with the engine's.

    wallet = initial + sum(pnl) - sum(fee) + funding
    equity = wallet + sum over fills of side * (mark - price) * qty

Positions, funding and equity are worked out here from trades, candles and settlements; of the
engine's state nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings

from config import PRESETS, STRATEGY_PARAMS
from core.market import MarketRules
from engine.strategy import GridStrategyV4
from tests.engine.reference.market import Market
from tests.support.markets.oracle import (
    BAR_MS,
    COINS,
    coin_rules,
    plain_market,
    real_candles,
    real_detail,
    settlements,
)
from tests.support.markets.synthetic import (
    CONFIGS,
    RULES,
    SEEDS,
    one_of,
    synthetic_candles,
    synthetic_detail,
    synthetic_settlements,
)

Floats = npt.NDArray[np.float64]
SIGN = {"LONG": 1, "SHORT": -1, "": 0}
OPENING = {"BUY_OPEN_LONG": "LONG", "SELL_OPEN_SHORT": "SHORT"}
UNPROTECTED = {
    "stop1_enabled": False,
    "stop2_enabled": False,
    "prune_enabled": (),
    "var_block_enabled": False,
    "var_deleverage_enabled": False,
    "kelly_enabled": False,
}
TAKING_PROFIT = {"SELL_CLOSE_LONG": "LONG", "BUY_CLOSE_SHORT": "SHORT"}
STOPPING = {"STOP_LONG": "LONG", "STOP_SHORT": "SHORT"}


@dataclass(frozen=True)
class Run:
    """A finished run and all that went into it."""

    candles: pd.DataFrame
    funding: pd.DataFrame
    config: dict[str, Any]
    rules: MarketRules
    result: dict[str, Any]

    @property
    def trades(self) -> list[dict[str, Any]]:
        """The trade list, without the records of halts."""
        return [t for t in self.result["trades"] if t["label"] != "CIRCUIT_BREAKER_HALT"]

    @property
    def market(self) -> Market:
        """Rounding and market prices of the reference."""
        return Market.from_dict(plain_market(self.rules, self.config["liquidation_fee"]))


def run(
    candles: pd.DataFrame,
    funding: pd.DataFrame,
    config: dict[str, Any],
    rules: MarketRules,
    detail: pd.DataFrame | None = None,
) -> Run:
    result = GridStrategyV4(config, rules).run(candles, funding=funding, detail=detail)
    return Run(candles, funding, {**STRATEGY_PARAMS, **config}, rules, result)


@dataclass
class OpenFill:
    """The rest of an entry, in lots."""

    direction: str
    price: float
    lots: int
    entry_lots: int = field(init=False)

    def __post_init__(self) -> None:
        self.entry_lots = self.lots


def replayed(run: Run) -> Iterator[tuple[dict[str, Any], OpenFill, dict[int, OpenFill]]]:
    """Yield every record with its fill and the open fills as they stand before the record."""
    step, opened = run.rules.step_size, dict[int, OpenFill]()
    for trade in run.trades:
        lots = round(trade["qty"] / step)
        if trade["label"] in OPENING:
            assert trade["fill_id"] not in opened, f"opened twice: {trade}"
            fill = OpenFill(trade["direction"], trade["price"], lots)
            yield trade, fill, opened
            opened[trade["fill_id"]] = fill
            continue
        assert trade["fill_id"] in opened, f"closes what is not open: {trade}"
        fill = opened[trade["fill_id"]]
        yield trade, fill, opened
        fill.lots -= lots
        assert fill.lots >= 0, f"closes more than is open: {trade}"
        if fill.lots == 0:
            del opened[trade["fill_id"]]
    assert not opened, "left open at the end"


def check_records(run: Run) -> None:
    """Every close reduces an open fill of its side; profit, fee and quantity are what they say."""
    rates = {"maker": run.config["fee_maker"], "taker": run.config["fee_taker"]}
    for trade, fill, _ in replayed(run):
        label, qty, price = trade["label"], trade["qty"], trade["price"]
        direction = {**OPENING, **TAKING_PROFIT, **STOPPING}.get(label, trade["direction"])
        assert trade["direction"] == fill.direction == direction
        assert qty == run.market.qty(round(qty / run.rules.step_size)) > 0.0
        pnl = SIGN[fill.direction] * (price - fill.price) * qty
        assert trade["pnl"] == pytest.approx(0.0 if label in OPENING else pnl, rel=1e-12, abs=1e-12)
        if label != "LIQUIDATION":
            assert price == run.market.price(round(price / run.rules.tick_size)), "off the tick"
            rate = rates["maker" if label in OPENING or label in TAKING_PROFIT else "taker"]
            assert trade["fee"] == pytest.approx(rate * price * qty, rel=1e-12)
        if label in OPENING:
            assert qty >= run.rules.min_qty
            assert qty * price >= run.rules.min_notional - 1e-9
        elif label in TAKING_PROFIT and not run.config["tp_below_entry"]:
            assert pnl >= rates["maker"] * qty * (price + fill.price) - 1e-9, "under break-even"


def check_inventory(run: Run) -> None:
    """Never more working fills on a side than ``max_inventory_per_side``."""
    share = 1.0 - run.config["tp_concentration"] + 1e-9
    for trade, _, opened in replayed(run):
        if trade["label"] in OPENING:
            working = [
                fill
                for fill in opened.values()
                if fill.direction == trade["direction"] and fill.lots > share * fill.entry_lots
            ]
            assert len(working) + 1 <= run.config["max_inventory_per_side"], trade


def check_prices(run: Run) -> None:
    """Every price lies on its bar's path, or is what a market order gets there."""
    opens, highs, lows, closes = run.candles[["open", "high", "low", "close"]].to_numpy().T.tolist()
    through = run.config["fill_through_bps"] * 1e-4
    beyond = run.config["fill_through_ticks"] * run.rules.tick_size
    back = int(run.config["refuse_first_touch"])  # what is refused may fill a bar later
    for trade in run.trades:
        i, price, label = trade["bar"], trade["price"], trade["label"]
        side = SIGN[trade["direction"]]
        market_prices = [
            run.market.market_exit_price(basis, side, run.config["slippage"])
            for basis in (lows[i], highs[i], opens[i], closes[i])
        ]
        if label in {**OPENING, **TAKING_PROFIT}:
            before = closes[i - 1 - back : i]
            bottom = min(lows[i - back : i + 1] + before) * (1.0 - through) - beyond
            top = max(highs[i - back : i + 1] + before) * (1.0 + through) + beyond
            assert bottom <= price <= top, trade
        elif label in STOPPING:
            # A refused entry may fill at the close before its bar, already beyond its stop.
            worst, best = market_prices[:2]
            if back:
                at_close = run.market.market_exit_price(closes[i - 1], side, run.config["slippage"])
                worst, best = min(worst, at_close), max(best, at_close)
            assert max(worst, 0.0) <= price <= best, trade
        elif label == "LIQUIDATION":
            assert lows[i] <= price <= highs[i], trade
        else:
            assert price == market_prices[3 if label == "CLOSE_END" else 2], trade


def rebuilt_account(run: Run) -> tuple[Floats, Floats, Floats, Floats]:
    """Return wallet, equity, long and short quantity at every close, each (n_bars,)."""
    n_bars, closes = len(run.candles), run.candles["close"].to_numpy()
    cash, cost = np.zeros(n_bars), np.zeros(n_bars)
    qty = {"LONG": np.zeros(n_bars), "SHORT": np.zeros(n_bars)}
    ended = {"LONG": 0.0, "SHORT": 0.0}
    for trade, fill, _ in replayed(run):
        i, opening = trade["bar"], 1 if trade["label"] in OPENING else -1
        cash[i] += trade["pnl"] - trade["fee"]
        cost[i] += opening * SIGN[fill.direction] * fill.price * trade["qty"]
        qty[fill.direction][i] += opening * trade["qty"]
        if trade["label"] == "CLOSE_END":
            ended[fill.direction] += trade["qty"]
    held = {name: np.cumsum(moved) for name, moved in qty.items()}
    net = held["LONG"] - held["SHORT"]
    before_end = net.copy()
    before_end[-1] += ended["LONG"] - ended["SHORT"]
    cash -= before_end * closes * funding_due(run)
    wallet = run.config["initial_capital"] + np.cumsum(cash)
    return wallet, wallet + net * closes - np.cumsum(cost), held["LONG"], held["SHORT"]


def funding_due(run: Run) -> Floats:
    """Return the sum of the rates settled after each bar's open, up to the next open."""
    opens = run.candles["timestamp"].to_numpy()
    due = np.zeros(len(opens))
    if run.config["funding_enabled"]:
        for settled, rate in settlements(run.candles, run.funding):
            if opens[0] < settled <= opens[-1] + BAR_MS:
                due[np.flatnonzero(opens < settled)[-1]] += rate
    return due


def check_account(run: Run) -> None:
    """The rebuilt account equals the engine's at every bar, to 1e-6 of a dollar."""
    (wallet, equity, long_qty, short_qty), log = rebuilt_account(run), run.result["log"]
    # Slippage or funding can cost more than there is: such a run ends at zero, at the next step
    # at the latest.
    broke = (long_qty + short_qty < 1e-9) & (wallet < 0.0)
    has_ended = run.result["equity_curve"] == 0.0
    has_ended[1:] |= broke[:-1]
    equity[broke & has_ended] = 0.0
    np.testing.assert_allclose(log["wallet"], wallet, rtol=0.0, atol=1e-6)
    np.testing.assert_allclose(log["long_qty"], long_qty, rtol=0.0, atol=1e-9)
    np.testing.assert_allclose(log["short_qty"], short_qty, rtol=0.0, atol=1e-9)
    assert (log["long_qty"] >= 0.0).all()
    assert (log["short_qty"] >= 0.0).all()
    np.testing.assert_allclose(run.result["equity_curve"], equity, rtol=0.0, atol=1e-6)


def check(run: Run) -> None:
    check_records(run)
    check_inventory(run)
    check_prices(run)
    check_account(run)


# --- real candles -------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
@pytest.mark.slow
def test_a_month_of_real_candles_adds_up(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, "2024-07-20", 3_000)
    check(run(candles, funding, dict(PRESETS[preset]), coin_rules(coin)))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["documented", "shipped"])
@pytest.mark.parametrize("coin", COINS)
def test_all_recorded_candles_add_up(coin: str, preset: str) -> None:
    candles, funding = real_candles(coin, "2024-01-01", 52_000)
    outcome = run(candles, funding, dict(PRESETS[preset]), coin_rules(coin))
    assert len(outcome.trades) > 500
    check(outcome)


@pytest.mark.slow
@pytest.mark.parametrize("coin", COINS)
def test_highly_levered_real_candles_with_minutes_add_up(coin: str) -> None:
    candles, funding = real_candles(coin, "2025-01-28", 2_500)
    config = {**PRESETS["documented"], **UNPROTECTED, "leverage": 125.0}
    outcome = run(candles, funding, config, coin_rules(coin), real_detail(coin, candles))
    assert outcome.result["metrics"]["liquidations"] > 0
    check(outcome)


# --- invented candles ---------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, config=CONFIGS, hours=one_of(8, 3, 40), least_lots=one_of(1, 4))
def test_any_parameters_add_up(
    seed: int, config: dict[str, Any], hours: int, least_lots: int
) -> None:
    candles = synthetic_candles(400, seed, missing=0.02)
    funding = synthetic_settlements(candles, seed, hours=hours)
    rules = replace(RULES, min_qty=least_lots * RULES.step_size)
    check(run(candles, funding, config, rules))


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, config=CONFIGS, price=one_of(20_000.0, 300.0, 1.5, 0.02))
def test_any_parameters_add_up_at_any_price_and_with_sub_bars(
    seed: int, config: dict[str, Any], price: float
) -> None:
    rules = MarketRules.inferred(price)
    candles = synthetic_candles(600, seed, price=price, tick=rules.tick_size)
    funding = synthetic_settlements(candles, seed)
    check(run(candles, funding, config, rules))
    candles = synthetic_candles(400, seed)
    check(run(candles, funding, config, RULES, synthetic_detail(candles, seed)))


@pytest.mark.parametrize(
    ("name", "change"),
    [("pnl", 0.01), ("fee", -0.01), ("qty", 0.001), ("price", 900.0), ("fill_id", 1), ("bar", 9)],
)
def test_a_single_wrong_record_is_noticed(name: str, change: float) -> None:
    candles = synthetic_candles(400, 8)
    outcome = run(candles, synthetic_settlements(candles, 8), PRESETS["documented"], RULES)
    check(outcome)
    outcome.trades[len(outcome.trades) // 2][name] += change
    with pytest.raises(AssertionError):
        check(outcome)
