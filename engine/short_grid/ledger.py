"""Money of a symbol: the only code that changes it. A fold of fills, exact to 1e-8 quote.

``wallet = initial + sum pnl - sum fee + sum funding`` and ``sum over layers of steps = Q`` hold
after every call. The last close takes all of the cost; other divisions round down.
"""

from __future__ import annotations

from typing import Final

from core.jit import kernel
from core.recording import SECOND_NS
from engine.short_grid.params import MAX_LAYERS, ShortGridParams
from engine.short_grid.types import DAY_BUCKETS, E8, MAX_DEBTS, SEEN_TRADES, DaySum, Ledger, Rules

BUCKET_NS: Final = 300 * SECOND_NS
HOUR_S: Final = 3_600


@kernel
def share(amount: int, part: int, whole: int) -> int:
    """Return ``amount * part / whole`` rounded down, without the product; all of it at the end.

    Exact while ``whole`` is below 3e9.
    """
    if part == whole:
        return amount
    return amount // whole * part + amount % whole * part // whole


@kernel
def roll_day(day: DaySum, t_ns: int) -> None:
    """Forget what lies more than 24 h back at ``t_ns``."""
    bucket = t_ns // BUCKET_NS
    if bucket - day.bucket >= DAY_BUCKETS:
        for i in range(DAY_BUCKETS):
            day.buckets[i] = 0
        day.total_e8, day.bucket = 0, bucket
    while day.bucket < bucket:
        day.bucket += 1
        row = day.bucket % DAY_BUCKETS
        day.total_e8 -= day.buckets[row]
        day.buckets[row] = 0


@kernel
def add_day(day: DaySum, t_ns: int, amount_e8: int) -> None:
    """Add an amount of ``t_ns``."""
    roll_day(day, t_ns)
    day.buckets[day.bucket % DAY_BUCKETS] += amount_e8
    day.total_e8 += amount_e8


@kernel
def is_new_trade(ledger: Ledger, trade_id: int) -> bool:
    """Remember a trade id; return False if it was booked before.

    The exchange numbers a symbol's trades upwards: where the memory is full, an id below all of
    it was booked long ago.
    """
    older = ledger.n_seen == SEEN_TRADES
    for i in range(ledger.n_seen):
        if ledger.seen[i] == trade_id:
            return False
        older = older and trade_id < ledger.seen[i]
    if older:
        return False
    ledger.seen[ledger.seen_at] = trade_id
    ledger.seen_at = (ledger.seen_at + 1) % SEEN_TRADES
    ledger.n_seen = min(ledger.n_seen + 1, SEEN_TRADES)
    return True


@kernel
def open_short(
    ledger: Ledger, rules: Rules, t_ns: int, ticks: int, steps: int, fee_e8: int, decision: int
) -> None:
    """Book the sale of ``steps`` at ``ticks`` that ``decision`` ordered."""
    ledger.steps += steps
    ledger.cost_e8 += ticks * steps * rules.unit_e8
    ledger.entry_fees_e8 += fee_e8
    ledger.fees_e8 += fee_e8
    add_day(ledger.day, t_ns, -fee_e8)
    newest = ledger.n_layers - 1
    same = newest >= 0 and ledger.layers[newest].decision == decision
    if not same and ledger.n_layers < MAX_LAYERS:
        newest += 1
        ledger.n_layers += 1
        layer = ledger.layers[newest]
        layer.steps, layer.t_ns, layer.decision = 0, t_ns, decision
    layer = ledger.layers[newest]
    layer.steps += steps
    layer.ticks = ticks


@kernel
def close_short(
    ledger: Ledger,
    params: ShortGridParams,
    rules: Rules,
    t_ns: int,
    ticks: int,
    steps: int,
    fee_e8: int,
) -> int:
    """Book the purchase of ``steps`` (at most Q) at ``ticks``; return its net, 1e-8 quote.

    What is closed is taken off the newest layers.
    """
    whole = ledger.steps
    cost = share(ledger.cost_e8, steps, whole)
    entry_fee = share(ledger.entry_fees_e8, steps, whole)
    funding = share(ledger.funding_open_e8, steps, whole)
    pnl = cost - ticks * steps * rules.unit_e8
    net = pnl - fee_e8 - entry_fee + funding
    ledger.cost_e8 -= cost
    ledger.entry_fees_e8 -= entry_fee
    ledger.funding_open_e8 -= funding
    ledger.steps -= steps
    ledger.pnl_e8 += pnl
    ledger.fees_e8 += fee_e8
    ledger.net_e8 += net
    ledger.trip_net_e8 += net
    ledger.trip_cost_e8 += cost
    add_day(ledger.day, t_ns, pnl - fee_e8)
    add_day(ledger.day_pnl, t_ns, pnl)
    take_off_layers(ledger, steps)
    book_debt(ledger, params, t_ns, net)
    return net


@kernel
def take_off_layers(ledger: Ledger, steps: int) -> None:
    """Take ``steps`` off the newest layers; empty ones go."""
    while steps > 0 and ledger.n_layers > 0:
        layer = ledger.layers[ledger.n_layers - 1]
        taken = min(steps, layer.steps)
        layer.steps -= taken
        steps -= taken
        if layer.steps == 0:
            ledger.n_layers -= 1


@kernel
def book_funding(ledger: Ledger, t_ns: int, amount_e8: int) -> None:
    """Book funding received (negative: paid)."""
    ledger.funding_e8 += amount_e8
    if ledger.steps > 0:
        ledger.funding_open_e8 += amount_e8
    add_day(ledger.day, t_ns, amount_e8)


@kernel
def debt_of(ledger: Ledger) -> int:
    """Return the debt D, 1e-8 quote."""
    return int(ledger.debt_in_e8 - ledger.debt_paid_e8 - ledger.debt_forgiven_e8)


@kernel
def book_debt(ledger: Ledger, params: ShortGridParams, t_ns: int, net_e8: int) -> None:
    """Take a close's net into the debt: a loss adds, a profit pays the oldest first."""
    forgive_old(ledger, params, t_ns)
    if net_e8 < 0:
        add_debt(ledger, t_ns, -net_e8)
        over = debt_of(ledger) - int(params.debt_cap_usd * E8)
        if over > 0:
            ledger.debt_forgiven_e8 += take_off_debts(ledger, over)
    else:
        ledger.debt_paid_e8 += take_off_debts(ledger, net_e8)


@kernel
def add_debt(ledger: Ledger, t_ns: int, amount_e8: int) -> None:
    """Add a debt; where the memory is full the two oldest become one of the younger's age."""
    if ledger.n_debts == MAX_DEBTS:
        ledger.debts[1].amount_e8 += ledger.debts[0].amount_e8
        drop_oldest_debt(ledger)
    debt = ledger.debts[ledger.n_debts]
    debt.t_ns, debt.amount_e8 = t_ns, amount_e8
    ledger.n_debts += 1
    ledger.debt_in_e8 += amount_e8


@kernel
def drop_oldest_debt(ledger: Ledger) -> None:
    """Take the oldest debt out of the memory."""
    for i in range(1, ledger.n_debts):
        ledger.debts[i - 1] = ledger.debts[i]
    ledger.n_debts -= 1


@kernel
def take_off_debts(ledger: Ledger, amount_e8: int) -> int:
    """Take up to ``amount_e8`` off the oldest debts; return what was taken."""
    left = amount_e8
    while left > 0 and ledger.n_debts > 0:
        taken = min(left, ledger.debts[0].amount_e8)
        ledger.debts[0].amount_e8 -= taken
        left -= taken
        if ledger.debts[0].amount_e8 == 0:
            drop_oldest_debt(ledger)
    return int(amount_e8 - left)


@kernel
def forgive_old(ledger: Ledger, params: ShortGridParams, t_ns: int) -> None:
    """Forgive debts older than the lookback."""
    oldest_ns = t_ns - int(params.debt_lookback_h * HOUR_S) * SECOND_NS
    while ledger.n_debts > 0 and ledger.debts[0].t_ns < oldest_ns:
        ledger.debt_forgiven_e8 += ledger.debts[0].amount_e8
        drop_oldest_debt(ledger)


@kernel
def raw_hurdle(ledger: Ledger, params: ShortGridParams, notional: float) -> float:
    """Return what the debt asks of the next trade, before its cap, bps of ``notional`` (quote)."""
    asked = debt_of(ledger) / E8 * params.debt_ratio
    return float(asked / max(notional, params.debt_notional_floor) * 1e4)


@kernel
def hurdle_of(ledger: Ledger, params: ShortGridParams) -> float:
    """Return what the debt asks of the position, or of an entry where there is none, bps."""
    return float(min(raw_hurdle(ledger, params, ledger.cost_e8 / E8), params.debt_hurdle_max_bps))
