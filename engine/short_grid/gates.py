"""Gates of entries and adds, in their order; the first that fails is counted."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

from core.jit import kernel
from core.recording import MS_NS, SECOND_NS
from core.records import Table
from engine.short_grid.edge import edge_lcb
from engine.short_grid.ledger import debt_of, hurdle_of, raw_hurdle
from engine.short_grid.params import STEPS_PER_SECOND, ShortGridParams
from engine.short_grid.sizes import (
    MIN_GAP_BPS,
    add_distance,
    fits_portfolio,
    fits_symbol,
    is_order_size,
    spread_relief,
)
from engine.short_grid.targets import base_target
from engine.short_grid.types import E8, Portfolio, SymbolState, average_ticks, quote_of
from engine.short_grid.windows import deepest_fall


class Gate(IntEnum):
    """Gates of the first layer, in the order they are asked."""

    HALTED = 0
    SAFE_MODE = 1
    DEADMAN = 2
    QUANT_RULES = 3
    STALE = 4
    WARM = 5
    BASELINE = 6
    BREAKER = 7
    BLACKLIST = 8
    COOLDOWN = 9
    FUNDING = 10
    SPREAD = 11
    TRIGGER = 12
    TREND2 = 13
    TREND30 = 14
    BUY_RATIO = 15
    WATERFALL = 16
    SQUEEZE = 17
    EDGE = 18
    MIN_NOTIONAL = 19
    LIQUIDITY = 20
    SYMBOL_CAP = 21
    PORTFOLIO_CAP = 22
    ORDER_BUDGET = 23


N_GATES: Final = 24
PASSED: Final = N_GATES
"""Every gate passed; counted too."""


class AddGate(IntEnum):
    """Gates of a further layer, in the order they are asked."""

    HALTED = 0
    SAFE_MODE = 1
    STALE = 2
    BREAKER = 3
    DEADMAN = 4
    QUANT_RULES = 5
    BASELINE = 6
    UNPROTECTED = 7
    INVERSE = 8
    LAYERS = 9
    COOLDOWN = 10
    TAIL = 11
    PER_HOUR = 12
    LOSS = 13
    DISTANCE = 14
    LAST_FILL = 15
    SPREAD = 16
    EXHAUST = 17
    FUNDING = 18
    SQUEEZE = 19
    DEBT = 20
    EDGE = 21
    MIN_NOTIONAL = 22
    LIQUIDITY = 23
    SYMBOL_CAP = 24
    PORTFOLIO_CAP = 25
    ORDER_BUDGET = 26


N_ADD_GATES: Final = 27
ADD_PASSED: Final = N_ADD_GATES
MIN_VOL_30S: Final = 1.0  # bps
HOUR_NS: Final = 3_600 * SECOND_NS
COUNTDOWN_NS: Final = 300 * SECOND_NS
"""A symbol keeps its countdown for so long after its last resting entry."""


class Funnel:
    """Steps at which each gate was the first to fail, the last: at which all passed."""

    entry: Annotated[Table[int], N_GATES + 1]
    add: Annotated[Table[int], N_ADD_GATES + 1]


@kernel
def is_halted(portfolio: Portfolio, state: SymbolState) -> bool:
    """Return whether a person or a limit has ended entries."""
    ended = portfolio.halted or portfolio.ended or portfolio.closing_all
    return bool(ended or portfolio.fees_over or state.delisted_ns > 0)


@kernel
def is_safe_mode(portfolio: Portfolio, state: SymbolState, t_ns: int) -> bool:
    """Return whether something is in doubt, so that no new risk is taken."""
    return bool(portfolio.safe or t_ns < state.safe_until_ns)


@kernel
def has_countdown_room(
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, t_ns: int
) -> bool:
    """Return whether an entry of this symbol can be guarded by a countdown."""
    active = state.entry_seen_ns > 0 and t_ns - state.entry_seen_ns < COUNTDOWN_NS
    return bool(active or portfolio.countdowns < params.deadman_symbols)


@kernel
def passes_funding(state: SymbolState, params: ShortGridParams, t_ns: int) -> bool:
    """Return whether no settlement is near that charges shorts too much."""
    feed = state.observed.feed
    if feed.mark_t_ns == 0:
        return True
    ahead_ns = feed.next_funding_ms * MS_NS - t_ns
    near = 0 <= ahead_ns <= params.funding_window_s * SECOND_NS
    return bool(not near or -feed.funding_rate * 1e4 <= params.funding_max_bps)


@kernel
def passes_squeeze(portfolio: Portfolio, params: ShortGridParams) -> bool:
    """Return whether neither all coins rise nor too many positions are deep."""
    deep = portfolio.deep
    many = deep >= params.squeeze_symbols and deep > params.squeeze_share * portfolio.positions
    return bool(portfolio.median_rise <= params.squeeze_bps and not many)


@kernel
def passes_waterfall(state: SymbolState, params: ShortGridParams) -> bool:
    """Return whether no recent fall is large against the volatility of 30 s."""
    signals, regime = state.observed.signals, state.observed.regime
    halflife = params.waterfall_halflife_s * STEPS_PER_SECOND
    fall = deepest_fall(signals.peaks, signals.mid, signals.n_steps - 1, halflife)
    return bool(fall / max(regime.vol_30s, MIN_VOL_30S) <= params.waterfall_max)


@kernel
def has_budget(portfolio: Portfolio, params: ShortGridParams) -> bool:
    """Return whether enough of the order budget is left for entries."""
    share = params.entry_budget_share
    return bool(
        portfolio.tokens_10s >= share * params.orders_per_10s
        and portfolio.tokens_60s >= share * params.orders_per_minute
    )


@kernel
def edge_needed(state: SymbolState, params: ShortGridParams) -> float:
    """Return the edge an entry must have, bps."""
    return float(
        max(params.min_edge_bps, min(hurdle_of(state.ledger, params), params.debt_edge_max_bps))
    )


@kernel
def flag_gate(portfolio: Portfolio, state: SymbolState, params: ShortGridParams, t_ns: int) -> int:  # noqa: C901, PLR0911, PLR0912 - one gate after the other
    """Return the first gate that fails of those that are no signal, ``PASSED`` if none does."""
    observed = state.observed
    warm_steps = params.warmup_s * STEPS_PER_SECOND
    if is_halted(portfolio, state):
        return Gate.HALTED.value
    if is_safe_mode(portfolio, state, t_ns):
        return Gate.SAFE_MODE.value
    if not has_countdown_room(portfolio, state, params, t_ns):
        return Gate.DEADMAN.value
    if portfolio.quant_rules:
        return Gate.QUANT_RULES.value
    if observed.stale:
        return Gate.STALE.value
    if observed.signals.n_steps < warm_steps or t_ns < state.rewarm_until_ns:
        return Gate.WARM.value
    if observed.regime.baseline <= 0.0:
        return Gate.BASELINE.value
    if t_ns < state.breaker_until_ns or state.limit_hit:
        return Gate.BREAKER.value
    if state.blacklisted or state.foreign:
        return Gate.BLACKLIST.value
    if t_ns < state.cooldown_until_ns or t_ns < state.pause_until_ns:
        return Gate.COOLDOWN.value
    if not passes_funding(state, params, t_ns):
        return Gate.FUNDING.value
    return PASSED


@kernel
def signal_gate(  # noqa: C901, PLR0911 - one gate after the other
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, with_trigger: bool
) -> int:
    """Return the first gate that fails of those that are signals, ``PASSED`` if none does."""
    s = state.observed.signals
    if not params.spread_min_bps <= s.spread <= params.spread_max_bps:
        return Gate.SPREAD.value
    if s.spread_med < params.spread_min_bps:
        return Gate.SPREAD.value
    trigger = s.pump_peak >= params.pump_threshold and s.exhaust >= params.exhaust_threshold
    if with_trigger and not trigger:
        return Gate.TRIGGER.value
    if s.r_2s > params.trend_2s_bps:
        return Gate.TREND2.value
    if abs(s.r_30s) > params.trend_30s_bps:
        return Gate.TREND30.value
    if s.buy_ratio > params.buy_ratio_max:
        return Gate.BUY_RATIO.value
    if not passes_waterfall(state, params):
        return Gate.WATERFALL.value
    if not passes_squeeze(portfolio, params):
        return Gate.SQUEEZE.value
    return PASSED


@kernel
def size_gate(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    steps: int,
    ticks: int,
    others: float,
) -> int:
    """Return the first gate that fails of those about an order, ``PASSED`` if none does.

    ``others`` is the notional of the symbol's own resting entry that the order replaces, quote.
    """
    order = quote_of(state.rules, steps, ticks)
    if not is_order_size(state, steps, ticks):
        return Gate.MIN_NOTIONAL.value
    if order > params.liquidity_share * state.observed.signals.touch_notional:
        return Gate.LIQUIDITY.value
    if not fits_symbol(state, params, order):
        return Gate.SYMBOL_CAP.value
    if not fits_portfolio(portfolio, state, params, order - others):
        return Gate.PORTFOLIO_CAP.value
    if not has_budget(portfolio, params):
        return Gate.ORDER_BUDGET.value
    return PASSED


@kernel
def entry_gate(
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    t_ns: int,
    steps: int,
    ticks: int,
    with_trigger: bool,
    others: float,
) -> int:
    """Return the first gate that fails for a first layer of ``steps`` at ``ticks``."""
    failed = flag_gate(portfolio, state, params, t_ns)
    if failed == PASSED:
        failed = signal_gate(portfolio, state, params, with_trigger)
    if failed == PASSED:
        edge = edge_lcb(state, params, base_target(state, params, t_ns))
        if edge < edge_needed(state, params):
            return Gate.EDGE.value
        failed = size_gate(portfolio, state, params, steps, ticks, others)
    return failed


@kernel
def adds_in_hour(state: SymbolState, t_ns: int) -> int:
    """Return how many adds were sent within the last hour."""
    count = 0
    for i in range(len(state.adds)):
        if state.adds[i] > 0 and t_ns - state.adds[i] < HOUR_NS:
            count += 1
    return count


@kernel
def add_flag_gate(  # noqa: C901, PLR0911, PLR0912 - one gate after the other
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, t_ns: int
) -> int:
    """Return the first gate that fails of an add's that are no price, ``ADD_PASSED`` if none."""
    observed, inverse = state.observed, state.inverse
    if is_halted(portfolio, state) or state.blacklisted or state.foreign:
        return AddGate.HALTED.value
    if is_safe_mode(portfolio, state, t_ns) or t_ns < state.rewarm_until_ns:
        return AddGate.SAFE_MODE.value
    if observed.stale:
        return AddGate.STALE.value
    if t_ns < state.breaker_until_ns or state.limit_hit:
        return AddGate.BREAKER.value
    if not has_countdown_room(portfolio, state, params, t_ns):
        return AddGate.DEADMAN.value
    if portfolio.quant_rules:
        return AddGate.QUANT_RULES.value
    if observed.regime.baseline <= 0.0:
        return AddGate.BASELINE.value
    if state.unprotected_ns > 0:
        return AddGate.UNPROTECTED.value
    if inverse.entered_ns > 0 and inverse.filled:
        return AddGate.INVERSE.value
    if state.ledger.n_layers >= params.max_layers:
        return AddGate.LAYERS.value
    if cools_down(state, params, t_ns):
        return AddGate.COOLDOWN.value
    if t_ns < observed.regime.tail_until_ns:
        return AddGate.TAIL.value
    if adds_in_hour(state, t_ns) >= params.adds_per_hour:
        return AddGate.PER_HOUR.value
    return ADD_PASSED


@kernel
def cools_down(state: SymbolState, params: ShortGridParams, t_ns: int) -> bool:
    """Return whether the last entry fill, add or refused order is too recent for an add."""
    return bool(
        t_ns < state.pause_until_ns
        or t_ns - state.last_fill_ns < params.fill_cooldown_s * SECOND_NS
        or t_ns - state.last_add_ns < params.add_cooldown_s * SECOND_NS
    )


@kernel
def add_price_gate(state: SymbolState, params: ShortGridParams, bid: int, ask: int) -> int:
    """Return the first gate that fails of an add's about where prices are."""
    signals, rules = state.observed.signals, state.rules
    average, layer = average_ticks(state), state.ledger.n_layers
    loss = (bid - average) / average * 1e4
    if loss < params.add_loss_bps:
        return AddGate.LOSS.value
    if ask / average - 1.0 < add_distance(state, params, layer):
        return AddGate.DISTANCE.value
    fee = (rules.fee_maker + rules.fee_taker) / 2.0
    gap = max(MIN_GAP_BPS, signals.spread_med, fee)
    if (ask / state.last_fill_ticks - 1.0) * 1e4 < gap:
        return AddGate.LAST_FILL.value
    if signals.spread < params.spread_min_bps * spread_relief(params, loss):
        return AddGate.SPREAD.value
    if signals.exhaust <= 0.0:
        return AddGate.EXHAUST.value
    return ADD_PASSED


@kernel
def debt_falls_enough(state: SymbolState, params: ShortGridParams, order: float) -> bool:
    """Return whether an add of ``order`` (quote) lowers what the debt asks, where there is one."""
    ledger = state.ledger
    if debt_of(ledger) <= params.debt_min_usd * E8:
        return True
    held = ledger.cost_e8 / E8
    fall = raw_hurdle(ledger, params, held) - raw_hurdle(ledger, params, held + order)
    return bool(fall >= params.add_improve_bps)


@kernel
def add_gate(  # noqa: PLR0911 - one gate after the other
    portfolio: Portfolio,
    state: SymbolState,
    params: ShortGridParams,
    t_ns: int,
    steps: int,
    bid: int,
    ask: int,
    others: float,
) -> int:
    """Return the first gate that fails for a further layer of ``steps`` at ``ask`` ticks."""
    failed = add_flag_gate(portfolio, state, params, t_ns)
    if failed != ADD_PASSED:
        return failed
    failed = add_price_gate(state, params, bid, ask)
    if failed != ADD_PASSED:
        return failed
    if not passes_funding(state, params, t_ns):
        return AddGate.FUNDING.value
    if not passes_squeeze(portfolio, params):
        return AddGate.SQUEEZE.value
    if not debt_falls_enough(state, params, quote_of(state.rules, steps, ask)):
        return AddGate.DEBT.value
    if edge_lcb(state, params, base_target(state, params, t_ns)) < edge_needed(state, params):
        return AddGate.EDGE.value
    failed = size_gate(portfolio, state, params, steps, ask, others)
    if failed == PASSED:
        return ADD_PASSED
    return failed - Gate.MIN_NOTIONAL.value + AddGate.MIN_NOTIONAL.value
