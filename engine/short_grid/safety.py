"""Limits on losses, breakers, cooldowns, and what all symbols have in common at a step."""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.recording import SECOND_NS
from core.records import Table
from engine.short_grid.exits import start_exit
from engine.short_grid.gates import COUNTDOWN_NS
from engine.short_grid.ledger import forgive_old, roll_day
from engine.short_grid.params import STEPS_PER_SECOND, ShortGridParams
from engine.short_grid.sizes import entry_notional, held_notional
from engine.short_grid.slots import ENTRY, left_of
from engine.short_grid.stops import is_local_stop, is_unprotected_too_long
from engine.short_grid.targets import open_profit
from engine.short_grid.types import E8, ExitReason, Portfolio, SymbolState

DAY_NS: Final = 86_400 * SECOND_NS
HOUR_NS: Final = 3_600 * SECOND_NS
_MINUTE_STEPS: Final = 60 * STEPS_PER_SECOND
_SHUTDOWN: Final = int(ExitReason.SHUTDOWN)
_STOP: Final = int(ExitReason.STOP)
_DAILY: Final = int(ExitReason.DAILY)
_EMERGENCY: Final = int(ExitReason.EMERGENCY)


@kernel
def mark_ticks(state: SymbolState) -> float:
    """Return the mark in ticks, the mid where no mark is known, 0 before the first book."""
    feed = state.observed.feed
    price = feed.mark if feed.mark_t_ns > 0 else feed.mid
    return float(price / state.rules.tick_size)


@kernel
def day_result(state: SymbolState) -> float:
    """Return what the symbol made in 24 h, with what is open at the mark, quote."""
    result = state.ledger.day.total_e8 / E8
    if state.ledger.steps > 0:
        result += open_profit(state, mark_ticks(state))
    return float(result)


@kernel
def fill_tokens(portfolio: Portfolio, params: ShortGridParams, t_ns: int) -> None:
    """Give back the order budget of the time that has passed."""
    seconds = (t_ns - portfolio.tokens_ns) / SECOND_NS
    portfolio.tokens_ns = t_ns
    portfolio.tokens_10s = min(
        params.orders_per_10s, portfolio.tokens_10s + seconds * params.orders_per_10s / 10.0
    )
    portfolio.tokens_60s = min(
        params.orders_per_minute, portfolio.tokens_60s + seconds * params.orders_per_minute / 60.0
    )


@kernel
def spend_tokens(portfolio: Portfolio, count: int) -> None:
    """Take orders off the budget; stops and exits may overdraw it."""
    portfolio.tokens_10s -= count
    portfolio.tokens_60s -= count


@kernel
def sum_up(
    portfolio: Portfolio, symbols: Table[SymbolState], params: ShortGridParams, t_ns: int
) -> None:
    """Sum over all symbols what gates and limits ask: exposure, positions, the common rise."""
    exposure, held, deep, positions, countdowns = 0.0, 0, 0, 0, 0
    for i in range(len(symbols)):
        state = symbols[i]
        roll_day(state.ledger.day, t_ns)
        roll_day(state.ledger.day_pnl, t_ns)
        forgive_old(state.ledger, params, t_ns)
        resting = left_of(state.slots[ENTRY])
        if resting > 0:
            state.entry_seen_ns = t_ns
            exposure += entry_notional(state)
        if state.ledger.steps > 0:
            mid = state.observed.signals.mid / state.rules.tick_size
            exposure += held_notional(state, mid)
            positions += 1
            deep += state.ledger.n_layers >= params.squeeze_layers
        held += resting > 0 or state.ledger.steps > 0
        countdowns += state.entry_seen_ns > 0 and t_ns - state.entry_seen_ns < COUNTDOWN_NS
    portfolio.exposure, portfolio.held, portfolio.deep = exposure, held, deep
    portfolio.positions, portfolio.countdowns = positions, countdowns
    portfolio.median_rise = median_rise(symbols)
    roll_day(portfolio.day, t_ns)
    roll_day(portfolio.day_fees, t_ns)
    portfolio.now_ns = t_ns


@kernel
def median_rise(symbols: Table[SymbolState]) -> float:
    """Return the (lower) median of the 60 s returns of symbols that have one, bps; 0 if none.

    Found by counting, without a copy: universes are small.
    """
    warm = 0
    for i in range(len(symbols)):
        warm += symbols[i].observed.signals.n_steps > _MINUTE_STEPS
    rank = (warm - 1) // 2
    for i in range(len(symbols)):
        signals = symbols[i].observed.signals
        if signals.n_steps <= _MINUTE_STEPS:
            continue
        below, same = 0, 0
        for j in range(len(symbols)):
            other = symbols[j].observed.signals
            if other.n_steps > _MINUTE_STEPS:
                below += other.r_60s < signals.r_60s
                same += other.r_60s == signals.r_60s
        if below <= rank < below + same:
            return float(signals.r_60s)
    return 0.0


@kernel
def check_portfolio(
    portfolio: Portfolio, symbols: Table[SymbolState], params: ShortGridParams, t_ns: int
) -> None:
    """Close everything and halt where the losses of all reach their limits."""
    open_sum = 0.0
    for i in range(len(symbols)):
        if symbols[i].ledger.steps > 0:
            open_sum += open_profit(symbols[i], mark_ticks(symbols[i]))
    if portfolio.realized_e8 / E8 + open_sum <= -params.total_loss_usd:
        portfolio.ended = True
    if portfolio.day.total_e8 / E8 + open_sum <= -params.portfolio_loss_usd:
        portfolio.halted = True
    portfolio.fees_over = portfolio.day_fees.total_e8 / E8 > params.max_fees_usd
    if not (portfolio.ended or portfolio.halted or portfolio.closing_all):
        return
    reason = _DAILY if portfolio.ended or portfolio.halted else _SHUTDOWN
    for i in range(len(symbols)):
        if symbols[i].ledger.steps > 0:
            start_exit(symbols[i], reason, t_ns, symbols[i].ledger.steps)


@kernel
def check_symbol(
    portfolio: Portfolio, state: SymbolState, params: ShortGridParams, t_ns: int, ask: int
) -> None:
    """Start the exits that losses and a missing stop ask for, and set the breaker."""
    lost = day_result(state) <= -params.symbol_loss_usd
    if lost and not state.limit_hit:
        state.breaker_until_ns = max(state.breaker_until_ns, t_ns + DAY_NS)
    state.limit_hit = lost
    if state.ledger.steps > 0:
        if lost:
            start_exit(state, _DAILY, t_ns, state.ledger.steps)
        if is_unprotected_too_long(state, params, t_ns):
            start_exit(state, _EMERGENCY, t_ns, state.ledger.steps)
        elif is_local_stop(state, params, t_ns, ask):
            start_exit(state, _STOP, t_ns, state.ledger.steps)
        if state.delisted_ns > 0 and t_ns >= state.delisted_ns - HOUR_NS:
            start_exit(state, _SHUTDOWN, t_ns, state.ledger.steps)
    mark_age_ns = t_ns - state.observed.feed.mark_t_ns
    if portfolio.marks_expected and mark_age_ns > params.mark_silent_s * SECOND_NS:
        state.safe_until_ns = max(state.safe_until_ns, t_ns + SECOND_NS)


@kernel
def count_stop(state: SymbolState, params: ShortGridParams, t_ns: int) -> None:
    """Count a stop; enough of them within 24 h bar the symbol for 24 h."""
    state.n_stops += 1
    state.stops[0] = state.stops[1]
    state.stops[1] = t_ns
    first = state.stops[len(state.stops) - params.breaker_stops]
    if first > 0 and t_ns - first < DAY_NS:
        state.breaker_until_ns = max(state.breaker_until_ns, t_ns + DAY_NS)


@kernel
def loss_cooldown(state: SymbolState, params: ShortGridParams) -> float:
    """Return the cooldown after the running streak of closes that were no profit, s."""
    if state.loss_streak <= 1:
        return float(params.loss_cooldown_1_s)
    if state.loss_streak == 2:  # noqa: PLR2004 - the second in a row
        return float(params.loss_cooldown_2_s)
    if state.loss_streak == 3:  # noqa: PLR2004 - the third
        return float(params.loss_cooldown_3_s)
    return float(params.loss_cooldown_4_s)


@kernel
def cool_down(
    state: SymbolState, params: ShortGridParams, t_ns: int, for_profit: bool, stopped: bool
) -> None:
    """Start the pause after a round trip: short after a profitable take-profit."""
    if for_profit and state.ledger.trip_net_e8 > 0:
        state.loss_streak = 0
        seconds = params.win_cooldown_s
    else:
        state.loss_streak += 1
        seconds = loss_cooldown(state, params)
        if stopped:
            seconds *= params.stop_cooldown_factor
    state.cooldown_until_ns = max(state.cooldown_until_ns, t_ns + int(seconds * SECOND_NS))
