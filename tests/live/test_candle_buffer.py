"""The candle buffer: no holes, and the signals a full history would give."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import pytest

from config import PRESETS, STRATEGY_PARAMS
from core.errors import DataError, NetworkError
from core.params import StrategyParams
from core.records import dtype_of
from core.signals import Signal, SignalArray, compute_signals
from core.times import BAR_MS, DAY_BARS
from core.warmup import AGREEMENT, bars_needed
from live.exchange.port import MarketReader
from live.exchange.types import Candle, Candles
from live.feed.candles import REFETCHES, CandleBuffer
from tests.support.clocks.virtual import VirtualClock
from tests.support.markets.synthetic import FIRST_MS, synthetic_candles

FLOATS = ("er", "kama", "atr", "adx", "z", "sigma", "atr_mean", "volume_ratio")
FIRST = FIRST_MS // BAR_MS


class FakeReader:
    """A source of candles that may leave some out.

    Args:
        table: every candle there is.
        lacks: whether the candle of a bar cannot be read now.
    """

    def __init__(self, table: Candles, lacks: Callable[[int], bool] = lambda _: False) -> None:
        self.table, self.lacks = table, lacks
        self.asked: list[tuple[int, int]] = []

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)`` and can be read."""
        self.asked.append((start_ms // BAR_MS, end_ms // BAR_MS))
        times = self.table["ts_ms"]
        rows = self.table[(times >= start_ms) & (times < end_ms)]
        return rows[[not self.lacks(int(ts_ms) // BAR_MS) for ts_ms in rows["ts_ms"]]]


def table_of(n_bars: int, seed: int = 3) -> Candles:
    frame = synthetic_candles(n_bars, seed)
    table: Candles = np.zeros(n_bars, dtype_of(Candle))
    table["ts_ms"] = frame["timestamp"]
    for name in ("open", "high", "low", "close", "volume"):
        table[name] = frame[name]
    return table


def params_of(preset: str = "documented", **changes: object) -> StrategyParams:
    return StrategyParams.from_dict({**STRATEGY_PARAMS, **PRESETS[preset], **changes})


QUICK = params_of(regime_timeframe_mult=1, kama_slow=5, kama_fast=2)
"""Little memory: the 7-day means are the longest."""
MIXTURE = params_of(regime_timeframe_mult=1, kama_slow=5, kama_fast=2, use_ml_regime=True)
NEEDED = bars_needed(QUICK, 1, BAR_MS)
TABLE = table_of(2 * NEEDED + 200)


def buffer_of(
    reader: FakeReader,
    params: StrategyParams = QUICK,
    *,
    clock: VirtualClock | None = None,
    least: int = 1,
    first_bar: int = -1,
) -> CandleBuffer:
    # A buffer reads candles and nothing else of what a MarketReader can do.
    return CandleBuffer(
        cast("MarketReader", reader),
        params,
        clock or VirtualClock(),
        least=least,
        bar_ms=BAR_MS,
        first_bar=first_bar,
    )


def full_signals(table: Candles, params: StrategyParams) -> SignalArray:
    return compute_signals(
        table["ts_ms"], table["high"], table["low"], table["close"], table["volume"], params
    )


def times_of(buffer: CandleBuffer, first: int, last: int) -> list[int]:
    return [int(buffer.candle(bar).ts_ms) // BAR_MS for bar in range(first, last + 1)]


def test_the_first_update_reads_exactly_what_is_needed() -> None:
    reader = FakeReader(TABLE)
    buffer = buffer_of(reader)
    assert buffer.first_bar == -1
    bar = FIRST + NEEDED + 50

    buffer.update(bar)

    assert buffer.first_bar == bar - NEEDED + 1
    assert reader.asked == [(bar - NEEDED + 1, bar + 1)]
    assert times_of(buffer, buffer.first_bar, bar) == list(range(buffer.first_bar, bar + 1))


def test_a_later_update_reads_only_what_is_new_and_the_same_bar_nothing() -> None:
    reader = FakeReader(TABLE)
    buffer = buffer_of(reader)
    bar = FIRST + NEEDED + 50
    buffer.update(bar)
    reader.asked.clear()

    buffer.update(bar)
    buffer.update(bar + 3)

    assert reader.asked == [(bar + 1, bar + 4)]
    assert times_of(buffer, bar - 2, bar + 3) == list(range(bar - 2, bar + 4))


def test_more_candles_are_kept_where_more_are_asked_for() -> None:
    buffer = buffer_of(FakeReader(TABLE), least=NEEDED + 100)

    buffer.update(FIRST + NEEDED + 150)

    assert buffer.first_bar == FIRST + 51


def test_a_hole_is_read_again_from_where_it_begins() -> None:
    clock = VirtualClock()
    bar = FIRST + NEEDED + 50
    hole = bar - 20
    reader = FakeReader(TABLE, lambda k: k == hole and clock.now < 1_000)
    buffer = buffer_of(reader, clock=clock)

    buffer.update(bar)

    assert [start for start, _ in reader.asked] == [bar - NEEDED + 1, hole]
    assert times_of(buffer, hole - 2, bar) == list(range(hole - 2, bar + 1))
    whole = buffer_of(FakeReader(TABLE))
    whole.update(bar)
    assert buffer.signal(bar).tobytes() == whole.signal(bar).tobytes()


def test_a_late_candle_is_waited_for_on_the_clock() -> None:
    clock = VirtualClock()
    bar = FIRST + NEEDED + 50
    buffer = buffer_of(FakeReader(TABLE, lambda k: k == bar + 1 and clock.now < 5_000), clock=clock)
    buffer.update(bar)
    assert clock.now == 0

    buffer.update(bar + 1)

    assert clock.now == 6_000  # 1 + 2 + 3 seconds
    assert times_of(buffer, bar, bar + 1) == [bar, bar + 1]


def test_an_empty_answer_of_another_table_leaves_candles_readable() -> None:
    reader, bar, reported = FakeReader(TABLE), FIRST + NEEDED, list[str]()
    buffer = buffer_of(reader)
    buffer.update(bar)
    closed_candles = reader.closed_candles

    def nothing_at_first(start_ms: int, end_ms: int) -> Candles:
        return closed_candles(start_ms, end_ms) if reported else np.zeros(0, dtype_of(Candle).descr)

    reader.closed_candles = nothing_at_first  # type: ignore[method-assign]

    buffer.update(bar + 1, lambda: reported.append("meanwhile"))

    assert buffer.candle(bar + 1).close == TABLE["close"][NEEDED + 1]
    assert buffer.candle(bar).close == TABLE["close"][NEEDED]
    assert reported == ["meanwhile"]


def test_candles_that_cannot_be_read_are_asked_for_again_and_the_last_error_is_reported() -> None:
    reader, clock, reported = FakeReader(TABLE), VirtualClock(), list[int]()

    def fail(start_ms: int, end_ms: int) -> Candles:
        raise NetworkError(f"no {start_ms} to {end_ms}")

    buffer = buffer_of(reader, clock=clock)
    buffer.update(FIRST + NEEDED)
    reader.closed_candles = fail  # type: ignore[method-assign]
    with pytest.raises(NetworkError, match="no "):
        buffer.update(FIRST + NEEDED + 1, lambda: reported.append(clock.now))
    assert reported == [1_000, 3_000, 6_000, 10_000, 15_000]


def test_a_candle_that_never_comes_is_an_error_that_names_it() -> None:
    clock = VirtualClock()
    bar = FIRST + NEEDED + 50
    reader = FakeReader(TABLE, lambda k: k == bar - 1 and clock.now < 60_000)
    buffer = buffer_of(reader, clock=clock)

    with pytest.raises(DataError, match=str((bar - 1) * BAR_MS)):
        buffer.update(bar)

    assert len(reader.asked) == REFETCHES + 1
    clock.now = 60_000
    buffer.update(bar)
    assert times_of(buffer, bar - 2, bar) == [bar - 2, bar - 1, bar]


def test_an_exchange_that_answers_nothing_is_an_error() -> None:
    with pytest.raises(DataError, match="cannot be read"):
        buffer_of(FakeReader(TABLE, lambda _: True)).update(FIRST + NEEDED + 50)


def test_a_coin_that_is_too_young_is_refused_with_its_first_day_and_the_days_it_takes() -> None:
    clock = VirtualClock()
    days = -(-NEEDED // DAY_BARS)

    with pytest.raises(DataError, match=rf"begin 2024-01-01,.*\({days} days\)"):
        buffer_of(FakeReader(TABLE), clock=clock).update(FIRST + NEEDED - 2)

    assert clock.now == 0  # waiting would not help


def test_a_coin_just_old_enough_is_taken() -> None:
    buffer = buffer_of(FakeReader(TABLE))

    buffer.update(FIRST + NEEDED - 1)

    assert buffer.first_bar == FIRST


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("seed", [3, 11])
def test_a_buffer_of_the_bars_needed_gives_the_signals_of_the_full_history(
    preset: str, seed: int
) -> None:
    params = params_of(preset)
    needed = bars_needed(params, 1, BAR_MS)
    table = table_of(needed + 4_007, seed)
    full = full_signals(table, params)
    for back in (0, 1, 500):  # each with a buffer of exactly the needed length
        bar = FIRST + len(table) - 1 - back
        buffer = buffer_of(FakeReader(table), params)

        buffer.update(bar)

        signal, expected = buffer.signal(bar), full[bar - FIRST]
        assert buffer.first_bar > FIRST
        assert signal["ready"]
        assert signal["regime"] == expected["regime"]
        for name in FLOATS:
            assert signal[name] == pytest.approx(expected[name], rel=AGREEMENT), name


def test_a_market_that_goes_nowhere_is_forgotten_in_time_too() -> None:
    params = params_of("documented")  # the slowest smoothing KAMA has, all the time
    table = table_of(bars_needed(params, 1, BAR_MS) + 1_000)
    table["close"] = np.where(np.arange(len(table)) % 2, 19_000.0, 21_000.0)
    table["high"], table["low"] = table["close"] + 10.0, table["close"] - 10.0
    bar = FIRST + len(table) - 1
    buffer = buffer_of(FakeReader(table), params)

    buffer.update(bar)

    expected = full_signals(table, params)[-1]
    assert buffer.signal(bar)["er"] == expected["er"] == 0.0
    assert buffer.signal(bar)["kama"] == pytest.approx(expected["kama"], rel=AGREEMENT)


@pytest.mark.parametrize("params", [QUICK, params_of("shipped")], ids=["quick", "shipped"])
def test_a_restart_from_the_saved_first_bar_gives_the_same_signals(params: StrategyParams) -> None:
    needed = bars_needed(params, 1, BAR_MS)
    table = table_of(needed + 200)
    reader = FakeReader(table)
    buffer = buffer_of(reader, params)
    start = FIRST + needed + 20
    for bar in range(start, start + 20):
        buffer.update(bar)
        ran = buffer.signal(bar).tobytes()
    again = buffer_of(reader, params, first_bar=buffer.first_bar)

    again.update(bar)

    assert again.first_bar == buffer.first_bar == start - needed + 1
    assert again.signal(bar).tobytes() == ran


def test_the_first_bar_stays_until_the_buffer_is_twice_as_long_as_needed() -> None:
    buffer = buffer_of(FakeReader(TABLE))
    buffer.update(FIRST + NEEDED - 1)

    for bar in (FIRST + NEEDED, FIRST + 2 * NEEDED - 2, FIRST + 2 * NEEDED - 1):
        buffer.update(bar)
        assert buffer.first_bar == FIRST
    bar = FIRST + 2 * NEEDED
    buffer.update(bar)

    assert buffer.first_bar == bar - NEEDED + 1
    assert times_of(buffer, buffer.first_bar, bar) == list(range(buffer.first_bar, bar + 1))
    expected = full_signals(TABLE[: bar - FIRST + 1], QUICK)[-1]
    for name in FLOATS:
        assert buffer.signal(bar)[name] == pytest.approx(expected[name], rel=AGREEMENT), name


def test_a_saved_first_bar_that_is_too_old_moves() -> None:
    buffer = buffer_of(FakeReader(TABLE), first_bar=FIRST)
    bar = FIRST + 2 * NEEDED + 10

    buffer.update(bar)

    assert buffer.first_bar == bar - NEEDED + 1


@pytest.mark.slow
def test_the_mixture_worked_out_bar_by_bar_is_that_of_all_candles_at_once() -> None:
    needed = bars_needed(MIXTURE, 1, BAR_MS)
    days = 2 * DAY_BARS
    table = table_of(needed + days)
    buffer = buffer_of(FakeReader(table), MIXTURE)
    expected = full_signals(table, MIXTURE)

    rows = np.zeros(days, dtype_of(Signal))
    for k in range(days):
        bar = FIRST + needed - 1 + k
        buffer.update(bar)
        rows[k] = buffer.signal(bar)

    assert buffer.first_bar == FIRST
    assert rows.tobytes() == expected[needed - 1 : needed - 1 + days].tobytes()
    assert np.unique(rows["regime"]).size > 1
    again = buffer_of(FakeReader(table), MIXTURE, first_bar=buffer.first_bar)
    again.update(bar)
    assert again.signal(bar).tobytes() == rows[-1].tobytes()
