"""Money is exact: the ledger equals a plain fold of fills, to the last unit, under any fills."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ConfigError
from core.recording import SECOND_NS
from core.records import zeros
from engine.short_grid.ledger import (
    add_day,
    book_funding,
    close_short,
    debt_of,
    hurdle_of,
    is_new_trade,
    open_short,
    roll_day,
    share,
)
from engine.short_grid.types import E8, DaySum, Ledger, Rules, make_rules
from tests.engine.short_grid_reference.ledger import Fold
from tests.engine.short_grid_ticks import START_NS, params

HOUR_NS = 3_600 * SECOND_NS
FILLS = st.lists(
    st.tuples(
        st.sampled_from(["sell", "buy", "fund"]),
        st.integers(1, 40_000),  # ticks
        st.integers(1, 50_000),  # steps
        st.integers(-1_000, 5_000_000),  # fee
        st.integers(0, 10 * 3_600),  # seconds since the one before
        st.integers(1, 6),  # decision
    ),
    max_size=60,
)


def rules(unit: int = 10) -> Any:
    record = zeros(Rules)
    record.unit_e8 = unit
    return record


@given(FILLS)
@settings(max_examples=150)
def test_the_ledger_is_the_fold_of_its_fills(fills: list[tuple[Any, ...]]) -> None:
    ledger: Any = zeros(Ledger)
    fold = Fold(unit=10, cap=75 * E8)
    t = START_NS
    for kind, ticks, steps, fee, wait, decision in fills:
        t += wait * SECOND_NS
        if kind == "sell":
            open_short(ledger, rules(), t, ticks, steps, fee, decision)
            fold.sell(ticks, steps, fee)
        elif kind == "fund":
            book_funding(ledger, t, fee)
            fold.fund(fee)
        elif fold.held:
            steps = min(steps, fold.held)  # noqa: PLW2901 - no more than is held
            net = close_short(ledger, params(), rules(), t, ticks, steps, fee)
            fold.buy(t, ticks, steps, fee)
            assert net == fold.nets[-1]
        assert (ledger.steps, ledger.cost_e8) == (fold.held, fold.cost)
        assert (ledger.pnl_e8, ledger.fees_e8) == (fold.pnl, fold.fees)
        assert (ledger.funding_e8, ledger.entry_fees_e8) == (fold.funding, fold.entry_fees)
        assert ledger.net_e8 == sum(fold.nets)
        assert (ledger.debt_in_e8, ledger.debt_paid_e8, ledger.debt_forgiven_e8) == (
            fold.d_in,
            fold.d_paid,
            fold.d_forgiven,
        )
        assert 0 <= debt_of(ledger) == fold.debt <= 75 * E8
        layers = [int(ledger.layers[i].steps) for i in range(ledger.n_layers)]
        assert sum(layers) == ledger.steps
        assert all(layer > 0 for layer in layers)
    if fold.held == 0:
        assert (fold.cost, fold.entry_fees) == (0, 0)
        assert ledger.pnl_e8 - ledger.fees_e8 + ledger.funding_e8 - ledger.net_e8 == (
            fold.funding - (sum(fold.nets) - fold.pnl + fold.fees)
        )


@given(st.integers(-(10**15), 10**15), st.integers(1, 3 * 10**9), st.integers(0, 3 * 10**9))
def test_a_share_is_the_quotient_rounded_down(amount: int, whole: int, part: int) -> None:
    part = min(part, whole)
    assert share(amount, part, whole) == (amount if part == whole else amount * part // whole)


def test_fills_of_one_decision_are_one_layer_and_closes_take_the_newest() -> None:
    ledger: Any = zeros(Ledger)
    for ticks, steps, decision in ((100, 5, 1), (100, 5, 1), (110, 7, 2), (120, 9, 3)):
        open_short(ledger, rules(), START_NS, ticks, steps, 0, decision)
    assert [int(ledger.layers[i].steps) for i in range(ledger.n_layers)] == [10, 7, 9]
    close_short(ledger, params(), rules(), START_NS, 90, 12, 0)
    assert [int(ledger.layers[i].steps) for i in range(ledger.n_layers)] == [10, 4]
    assert ledger.cost_e8 == 10 * (1_000 + 770 + 1_080) - 10 * 2_850 * 12 // 26


def lose(ledger: Any, usd: float, t: int) -> None:
    open_short(ledger, rules(E8), t, 1_000, 1, 0, 1)
    close_short(ledger, params(), rules(E8), t, 1_000, 1, int(usd * E8))


def test_debt_is_paid_and_forgiven_oldest_first() -> None:
    ledger: Any = zeros(Ledger)
    lose(ledger, 10.0, START_NS)
    lose(ledger, 5.0, START_NS + 20 * HOUR_NS)
    lose(ledger, -4.0, START_NS + 21 * HOUR_NS)
    assert debt_of(ledger) == 11 * E8
    lose(ledger, 0.0, START_NS + 25 * HOUR_NS)
    assert debt_of(ledger) == 5 * E8
    assert ledger.debt_forgiven_e8 == 6 * E8


def test_debt_beyond_its_cap_is_forgiven() -> None:
    ledger: Any = zeros(Ledger)
    for _ in range(4):
        lose(ledger, 30.0, START_NS)
    assert debt_of(ledger) == 75 * E8
    assert ledger.debt_forgiven_e8 == 45 * E8


@pytest.mark.parametrize(("usd", "bps"), [(0.45, 2.5), (0.0, 0.0), (9.0, 25.0)])
def test_the_hurdle_asks_a_quarter_of_the_debt_of_at_least_450(usd: float, bps: float) -> None:
    ledger: Any = zeros(Ledger)
    lose(ledger, usd, START_NS)
    assert hurdle_of(ledger, params()) == pytest.approx(bps)


@given(st.lists(st.tuples(st.integers(0, 40_000), st.integers(-100, 100)), max_size=40))
def test_the_sum_of_a_day_holds_24_hours_and_at_most_five_minutes_more(
    amounts: list[tuple[int, int]],
) -> None:
    day: Any = zeros(DaySum)
    t, booked = START_NS, []
    for wait_s, amount in amounts:
        t += wait_s * SECOND_NS
        add_day(day, t, amount)
        booked.append((t, amount))
        roll_day(day, t)
        bucket = 300 * SECOND_NS
        oldest = (t // bucket - 288) * bucket
        assert oldest <= t - 24 * HOUR_NS
        assert day.total_e8 == sum(x for at, x in booked if at >= oldest)


def test_a_trade_counts_once_whatever_its_order() -> None:
    ledger: Any = zeros(Ledger)
    answers = [is_new_trade(ledger, number) for number in (7, 5, 7, 6, 5, 8)]
    assert answers == [True, True, False, True, False, True]


def test_a_symbol_without_exact_money_is_refused() -> None:
    assert make_rules(0.1, 0.001, 0.001, 5.0, 2.0, 5.0).unit_e8 == 10_000
    with pytest.raises(ConfigError, match="not exact"):
        make_rules(1e-7, 0.01, 0.01, 5.0, 2.0, 5.0)
