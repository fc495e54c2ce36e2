"""Signals of one symbol, on the grid of decision steps.

Events only add to sums and replace the last known book; everything defined in seconds is updated
at steps, so nothing depends on how often messages arrive. Returns, spreads and volatilities are in
bps (1e-4), volatilities per sqrt(second). See docs of the fields for the definitions.
"""

from __future__ import annotations

import math
from typing import Annotated, Final

from core.jit import kernel
from core.recording import BUY, Event
from core.records import Table
from engine.short_grid.feed import Feed
from engine.short_grid.params import STEPS_PER_SECOND, ShortGridParams
from engine.short_grid.windows import (
    LatchWindow,
    Moments,
    PeakWindow,
    SpreadWindow,
    TouchWindow,
    WeightedMean,
    push_max,
    push_mean,
    push_spread,
    score,
    take_weighted,
    weighted,
)

FLOW_STEPS: Final = 2 * STEPS_PER_SECOND
"""Steps of the longest window of trades."""
_SHORT: Final = 3 * STEPS_PER_SECOND // 10
_MIDDLE: Final = STEPS_PER_SECOND // 2
_SECOND: Final = STEPS_PER_SECOND
_TWO_SECONDS: Final = 2 * STEPS_PER_SECOND
_HALF_MINUTE: Final = 30 * STEPS_PER_SECOND
_MINUTE: Final = 60 * STEPS_PER_SECOND
MIDS: Final = _MINUTE + 1


class Rates:
    """Weights of a new value, ``1 - 2^(-step / half-life)``, and the like."""

    pump: float
    exhaust: float
    sigma: float
    touch: float
    ofi_kept: float  # 2^(-step / half-life)


class Signals:
    """Everything a decision knows about books and trades of one symbol."""

    n_steps: int  # since the first book; this step's number is n_steps - 1
    step: int  # number k of the last step, time / step length
    # Flow of trades: quote volume by aggressor and step.
    bought: float  # since the last step
    sold: float
    flow_at: int
    buys: Annotated[Table[float], FLOW_STEPS]  # a ring
    sells: Annotated[Table[float], FLOW_STEPS]
    ti_300ms: float  # (B - S) / (B + S) of the last 0.3 s, 0 without trades
    ti_500ms: float
    ti_2s: float
    buy_ratio: float  # B / (B + S) of 2 s, 0.5 without trades
    # Book.
    mid: float  # quote
    spread: float  # bps
    spread_med: float  # bps, median of the last 512 steps, to the centre of a bin of 0.25
    qi: float  # (bid size - ask size) / (bid size + ask size)
    md: float  # bps, microprice over mid
    ofi_sum: float  # base, of books since the last step
    ofi_decayed: float  # base
    ofi_2s: float  # mean touch sizes; recorded, decides nothing
    touch_notional: float  # quote, mean of the last 60 s, per side
    # Returns of the mid carried forward, bps; 0 until there are mids that far back.
    r_1s: float
    r_2s: float
    r_30s: float
    r_60s: float
    sigma: float  # bps per sqrt(s)
    # Scores.
    pump: float
    pump_peak: float
    exhaust: float
    # Memory.
    last_ti: float
    last_qi: float
    of_return: Moments
    of_imbalance: Moments
    of_queue: Moments
    of_imbalance_fall: Moments
    of_queue_fall: Moments
    variance: WeightedMean  # of 1 s returns
    touch_size: WeightedMean  # base, per side
    touch: TouchWindow
    latch: LatchWindow
    peaks: PeakWindow
    spreads: SpreadWindow
    mids: Annotated[Table[float], MIDS]  # a ring


@kernel
def fill_rates(rates: Rates, params: ShortGridParams) -> None:
    """Compute the weights that follow from the half-lives of ``params``."""
    dt = 1.0 / STEPS_PER_SECOND
    rates.pump = 1.0 - math.pow(2.0, -dt / params.pump_halflife_s)
    rates.exhaust = 1.0 - math.pow(2.0, -dt / params.exhaust_halflife_s)
    rates.sigma = 1.0 - math.pow(2.0, -dt / params.sigma_halflife_s)
    rates.touch = 1.0 - math.pow(2.0, -dt / params.touch_halflife_s)
    rates.ofi_kept = math.pow(2.0, -dt / params.ofi_halflife_s)


@kernel
def add_trade(signals: Signals, event: Event) -> None:
    """Add a trade's quote volume, retail price improvement left out, to this step's flow."""
    if event.side == BUY:
        signals.bought += event.price * event.qty2
    else:
        signals.sold += event.price * event.qty2


@kernel
def add_book(
    signals: Signals, event: Event, bid: float, bid_qty: float, ask: float, ask_qty: float
) -> None:
    """Add what a book changes against the one before to this step's order flow.

    Cont, Kukanov and Stoikov (2014), eq. 4; the first book changes nothing.
    """
    if bid <= 0.0:
        return
    if event.price >= bid:
        signals.ofi_sum += event.qty
    if event.price <= bid:
        signals.ofi_sum -= bid_qty
    if event.price2 <= ask:
        signals.ofi_sum -= event.qty2
    if event.price2 >= ask:
        signals.ofi_sum += ask_qty


@kernel
def imbalance(bought: float, sold: float) -> float:
    """Return ``(B - S) / (B + S)``, 0 without volume."""
    return (bought - sold) / (bought + sold) if bought + sold > 0.0 else 0.0


@kernel
def roll_flow(signals: Signals) -> None:
    """Close this step's flow and sum the windows that end here."""
    signals.buys[signals.flow_at], signals.sells[signals.flow_at] = signals.bought, signals.sold
    signals.bought = signals.sold = 0.0
    bought = sold = 0.0
    row = signals.flow_at
    for back in range(1, FLOW_STEPS + 1):
        bought += signals.buys[row]
        sold += signals.sells[row]
        row = row - 1 if row > 0 else FLOW_STEPS - 1
        if back == _SHORT:
            signals.ti_300ms = imbalance(bought, sold)
        elif back == _MIDDLE:
            signals.ti_500ms = imbalance(bought, sold)
    signals.ti_2s = imbalance(bought, sold)
    signals.buy_ratio = bought / (bought + sold) if bought + sold > 0.0 else 0.5
    signals.flow_at = (signals.flow_at + 1) % FLOW_STEPS


@kernel
def return_over(signals: Signals, steps: int) -> float:
    """Return the log return of the mid over ``steps`` steps, bps; 0 until there are so many."""
    now = signals.n_steps - 1
    if now < steps:
        return 0.0
    return math.log(signals.mid / signals.mids[(now - steps) % MIDS]) * 1e4


@kernel
def read_book(signals: Signals, feed: Feed, rates: Rates) -> None:
    """Take the last known book onto the grid."""
    signals.mid = feed.mid
    signals.spread = (feed.ask - feed.bid) / feed.mid * 1e4
    size = feed.bid_qty + feed.ask_qty
    signals.qi = (feed.bid_qty - feed.ask_qty) / size if size > 0.0 else 0.0
    signals.md = signals.qi * signals.spread / 2.0
    signals.spread_med = push_spread(signals.spreads, signals.spread)
    signals.touch_notional = push_mean(signals.touch, size / 2.0 * feed.mid)
    take_weighted(signals.touch_size, size / 2.0, rates.touch)
    signals.ofi_decayed = signals.ofi_decayed * rates.ofi_kept + signals.ofi_sum
    signals.ofi_sum = 0.0
    mean_size = weighted(signals.touch_size)
    signals.ofi_2s = signals.ofi_decayed / mean_size if mean_size > 0.0 else 0.0
    signals.mids[(signals.n_steps - 1) % MIDS] = feed.mid
    push_max(signals.peaks, feed.mid, signals.n_steps - 1, len(signals.peaks.values) - 1)


@kernel
def read_returns(signals: Signals, rates: Rates) -> None:
    """Compute the returns that end here and the live volatility."""
    signals.r_1s = return_over(signals, _SECOND)
    signals.r_2s = return_over(signals, _TWO_SECONDS)
    signals.r_30s = return_over(signals, _HALF_MINUTE)
    signals.r_60s = return_over(signals, _MINUTE)
    if signals.n_steps > _SECOND:
        take_weighted(signals.variance, signals.r_1s * signals.r_1s, rates.sigma)
        signals.sigma = math.sqrt(weighted(signals.variance))


@kernel
def score_pump(signals: Signals, params: ShortGridParams, rates: Rates) -> None:
    """Compute pump and exhaustion of this step; a series' first value has no score."""
    signals.pump = params.pump_weight_imbalance * score(
        signals.of_imbalance, signals.ti_2s, rates.pump
    ) + params.pump_weight_queue * score(signals.of_queue, signals.qi, rates.pump)
    if signals.n_steps > _TWO_SECONDS:
        signals.pump += params.pump_weight_return * score(
            signals.of_return, signals.r_2s, rates.pump
        )
    signals.exhaust = 1.0 if signals.qi < 0.0 else 0.0
    if signals.n_steps > 1:
        signals.exhaust += score(
            signals.of_imbalance_fall, signals.last_ti - signals.ti_300ms, rates.exhaust
        ) + score(signals.of_queue_fall, signals.last_qi - signals.qi, rates.exhaust)
    signals.last_ti, signals.last_qi = signals.ti_300ms, signals.qi
    latched = int(params.pump_latch_s * STEPS_PER_SECOND)
    signals.pump_peak = push_max(signals.latch, signals.pump, signals.n_steps - 1, latched)


@kernel
def step_signals(
    signals: Signals, feed: Feed, params: ShortGridParams, rates: Rates, step: int
) -> None:
    """Do step ``step``: bring every signal to its value at the step's time.

    ``feed`` holds what arrived before it. Before the first book only the flow is kept.
    """
    signals.step = step
    roll_flow(signals)
    if feed.bid <= 0.0:
        return
    signals.n_steps += 1
    read_book(signals, feed, rates)
    read_returns(signals, rates)
    score_pump(signals, params, rates)
