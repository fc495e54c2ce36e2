"""Python input is read as files are, repaired with a word, or refused."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import pickle
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from backtest.market.files import CandleFolder
from backtest.market.market_data import MarketData, empty_funding
from backtest.market.oddities import price_oddities
from backtest.market.sources import MarketSource
from backtest.market.timeframes import parse_time
from backtest.report.console import data_lines, missing_lines
from backtest.simulator import BacktestSimulator
from config import PRESETS
from core.errors import ConfigError, DataError
from core.frames import read_candles
from engine import compiling
from engine.strategy import GridStrategyV4
from tests.support.markets.synthetic import (
    BAR_MS,
    FIRST_MS,
    HOUR_MS,
    RULES,
    synthetic_candles,
    synthetic_settlements,
)
from tests.support.results.typed import typed

N_BARS = 500
CANDLES = synthetic_candles(N_BARS, 11)
TIMES = pd.to_datetime(CANDLES["timestamp"], unit="ms")
PLAIN = CANDLES.drop(columns="timestamp")
CONFIG = PRESETS["documented"]


def run(frame: Any, **more: Any) -> dict[str, Any]:
    return GridStrategyV4(CONFIG, RULES).run(frame, **more)


@pytest.fixture(scope="module")
def expected() -> list[dict[str, Any]]:
    trades = run(CANDLES)["trades"]
    assert len(trades) > 50
    return list(trades)


def counted(unit_ns: int) -> pd.DataFrame:
    return PLAIN.assign(timestamp=CANDLES["timestamp"] * 1_000_000 // unit_ns)


def in_unit(unit: str) -> pd.DataFrame:
    return PLAIN.assign(date=TIMES.to_numpy().astype(f"M8[{unit}]"))


FORMS: dict[str, Callable[[], Any]] = {
    "seconds": lambda: counted(10**9),
    "microseconds": lambda: counted(1_000),
    "nanoseconds": lambda: counted(1),
    "float milliseconds": lambda: CANDLES.astype({"timestamp": float}),
    "datetimes": lambda: PLAIN.assign(timestamp=TIMES),
    **{
        f"datetimes in {unit}": functools.partial(in_unit, unit) for unit in ("s", "ms", "us", "ns")
    },
    "UTC index": lambda: PLAIN.set_index(pd.DatetimeIndex(TIMES).tz_localize("UTC")),
    "index of New York": lambda: PLAIN.set_index(
        pd.DatetimeIndex(TIMES).tz_localize("UTC").tz_convert("America/New_York")
    ),
    "index of Kathmandu": lambda: PLAIN.set_index(
        pd.DatetimeIndex(TIMES, name="whenever").tz_localize("UTC").tz_convert("Asia/Kathmandu")
    ),
    "index without a zone": lambda: PLAIN.set_index(pd.DatetimeIndex(TIMES)),
    "capital letters": lambda: PLAIN.assign(Date=TIMES).rename(columns=str.capitalize),
    "open time": lambda: CANDLES.rename(columns={"timestamp": "Open Time"}),
    "text": lambda: PLAIN.assign(time=TIMES.astype(str)),
    "text with a zone": lambda: PLAIN.assign(time=TIMES.astype(str) + "+00:00"),
    "python datetimes": lambda: PLAIN.assign(
        time=pd.Series([t.to_pydatetime() for t in TIMES], dtype=object)
    ),
    "a dict of lists": lambda: CANDLES.to_dict("list"),
    "polars": lambda: pl.DataFrame(CANDLES.to_dict("list")),
    "lazy polars": lambda: pl.LazyFrame(CANDLES.to_dict("list")),
    "polars with a zone": lambda: pl.DataFrame(
        {**PLAIN.to_dict("list"), "date": TIMES.tolist()}
    ).with_columns(pl.col("date").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Tokyo")),
    "arrow": lambda: pl.DataFrame(CANDLES.to_dict("list")).to_arrow(),
    "prices as text": lambda: CANDLES.astype({"open": str, "high": str, "low": str, "close": str}),
}


@pytest.mark.parametrize("form", FORMS)
def test_candles_run_the_same_in_every_form(form: str, expected: list[dict[str, Any]]) -> None:
    assert run(FORMS[form]())["trades"] == expected


def test_without_volume_it_runs_and_says_what_that_means(caplog: pytest.LogCaptureFixture) -> None:
    result = run(CANDLES.drop(columns="volume"))
    assert len(result["trades"]) > 50
    assert "candles: has no volume: taken as 0, so the rule about thin volume never acts" in (
        caplog.text
    )
    zero = run(CANDLES.assign(volume=0.0))
    assert result["trades"] == zero["trades"]


def spoiled(column: str, row: int, value: float) -> pd.DataFrame:
    frame = CANDLES.copy()
    frame.loc[row, column] = value
    return frame


LOW = float(CANDLES["low"][7])
BAD: dict[str, tuple[Callable[[], Any], str]] = {
    "hourly": (lambda: CANDLES.iloc[::4], "candles are 1h apart, must be 15m"),
    "minutes": (
        lambda: CANDLES.assign(timestamp=FIRST_MS + 60_000 * np.arange(N_BARS)),
        "candles are 1m apart, must be 15m",
    ),
    "off the step": (
        lambda: spoiled("timestamp", 7, FIRST_MS + 7 * BAR_MS + 60_000).astype(
            {"timestamp": np.int64}
        ),
        "row 7 (2024-01-01 01:46 UTC): opens 16m after the row before, must be a multiple of 15m",
    ),
    "NaN": (lambda: spoiled("close", 7, np.nan), "row 7 (2024-01-01 01:45 UTC): close is missing"),
    "infinite": (lambda: spoiled("high", 7, np.inf), "row 7 (2024-01-01 01:45 UTC): high is"),
    "high below low": (lambda: spoiled("high", 7, LOW / 2), "is below low"),
    "open above high": (lambda: spoiled("open", 7, 1e6), "open 1e+06 is above high"),
    "no price": (lambda: spoiled("low", 7, 0.0), "low 0 must be above 0"),
    "negative volume": (lambda: spoiled("volume", 7, -1.0), "volume -1 is negative"),
    "NaN volume": (lambda: spoiled("volume", 7, np.nan), "volume is missing or not a number"),
    "unsorted": (lambda: CANDLES.iloc[::-1], "row 1 (2024-01-06 04:30 UTC): is earlier than"),
    "doubled": (
        lambda: pd.concat([CANDLES.iloc[:8], CANDLES.iloc[7:]]),
        "row 8 (2024-01-01 01:45 UTC): repeats the time of the row before",
    ),
    "close times": (
        lambda: CANDLES.assign(timestamp=CANDLES["timestamp"] + BAR_MS - 1),
        "looks like a close time",
    ),
    "no time": (lambda: PLAIN, "has no time column; found: open, high, low, close, volume; must"),
    "no close": (lambda: CANDLES.drop(columns="close"), "missing columns: close; found: timestamp"),
    "no rows": (lambda: CANDLES.iloc[:0], "has no rows"),
    "not a time": (
        lambda: PLAIN.assign(timestamp=["noon", *TIMES.astype(str)[1:]]),
        "row 0: time 'noon' must be milliseconds or seconds since 1970",
    ),
    "no date": (
        lambda: PLAIN.assign(timestamp=TIMES.where(TIMES.index != 7)),
        "row 7: time 'NaT' must be",
    ),
    "not a frame": (lambda: [1, 2, 3], "candles: is list, must be a data frame with the columns"),
    "a name twice": (lambda: CANDLES.assign(Open=1.0), "columns are named twice"),
}


@pytest.mark.parametrize("case", BAD)
def test_unusable_candles_are_refused_in_the_words_for_files(case: str, tmp_path: Path) -> None:
    make, text = BAD[case]
    with pytest.raises(DataError) as refused:
        run(make())
    assert text in str(refused.value)
    assert "\n" not in str(refused.value)
    frame = make()
    if case in {"not a frame", "no rows", "no time", "a name twice", "no date"}:
        return
    frame.to_csv(tmp_path / "BTC-15m.csv", index=False)
    if case in {"unsorted", "doubled"}:  # files come newest first, or with rows twice
        table = CandleFolder(tmp_path).candles("BTC", "15m").candles
        assert table["timestamp"].tolist() == sorted(set(frame["timestamp"]))
        return
    with pytest.raises(DataError) as of_file:
        CandleFolder(tmp_path).candles("BTC", "15m")
    assert str(of_file.value).partition(": ")[2] == str(refused.value).partition(": ")[2]


# --- funding ------------------------------------------------------------------------------------

SETTLED = synthetic_settlements(CANDLES, 11, hours=8)


def with_rates(rates: Any) -> pd.DataFrame:
    return CANDLES.assign(fundingRate=rates)


def on_bars() -> np.ndarray[Any, Any]:
    """Return the settlements as a column: the rate at the bar that opens then, else NaN."""
    column = np.full(N_BARS, np.nan)
    rows = np.searchsorted(CANDLES["timestamp"], SETTLED["timestamp"] // 60_000 * 60_000)
    inside = rows < N_BARS
    column[rows[inside]] = SETTLED["rate"].to_numpy()[inside]
    return column


def test_a_rate_is_settled_at_its_bars_open() -> None:
    column = on_bars()
    by_column, by_frame = run(with_rates(column)), run(CANDLES, funding=SETTLED)
    assert by_column["metrics"]["funding_pnl"] != 0.0
    assert by_column["trades"] == by_frame["trades"]
    assert by_column["funding_source"].startswith("real")


@pytest.mark.parametrize("unit_ns", [10**9, 10**6, 10**3, 1])
def test_settlements_are_read_in_every_unit(unit_ns: int) -> None:
    times = SETTLED["timestamp"].to_numpy() // 1_000 * 1_000 * 1_000_000 // unit_ns
    frame = pd.DataFrame({"fundingTime": times, "fundingRate": SETTLED["rate"]})
    assert run(CANDLES, funding=frame)["trades"] == run(CANDLES, funding=SETTLED)["trades"]


HOURLY = pd.DataFrame({"timestamp": FIRST_MS + HOUR_MS * np.arange(125)})
BAD_RATES: dict[str, tuple[Callable[[], Any], str]] = {
    "filled into every bar": (
        lambda: with_rates(pd.Series(on_bars()).ffill().fillna(0.0001)),
        "funding rates stand 15m apart, which no settlements do; give the rate at its settlement",
    ),
    "zeros between": (
        lambda: with_rates(pd.Series(on_bars()).fillna(0.0)),
        "funding rates stand 15m apart",
    ),
    "doubled": (
        lambda: with_rates([1e-4 if i == 1 or i % 32 == 0 else np.nan for i in range(N_BARS)]),
        "(2024-01-01 00:15 UTC): a rate 15m after the one before: keep one",
    ),
    "percent": (
        lambda: with_rates(np.where(np.arange(N_BARS) % 32 == 0, 0.01, np.nan)),
        "funding rates look like percent (16 of 16 are 0.01 or 0.005, the usual rate in percent)",
    ),
    "high percent": (
        lambda: with_rates(np.where(np.arange(N_BARS) % 32 == 0, 0.07, np.nan)),
        "rate 0.07 must be a fraction (0.0001 is 0.01 %), at most 0.05; divide percent by 100",
    ),
    "not a number": (
        lambda: with_rates(["much" if i % 32 == 0 else None for i in range(N_BARS)]),
        "rate is missing or not a number",
    ),
}


@pytest.mark.parametrize("case", BAD_RATES)
def test_rates_that_cannot_have_been_settled_are_refused(case: str, tmp_path: Path) -> None:
    make, text = BAD_RATES[case]
    with pytest.raises(DataError) as refused:
        run(make())
    assert text in str(refused.value)
    make().to_csv(tmp_path / "BTC-15m.csv", index=False)
    with pytest.raises(DataError) as of_file:
        CandleFolder(tmp_path).candles("BTC", "15m")
    assert text in str(of_file.value)


def test_rates_filled_into_hours_are_refused_and_hourly_settlements_are_not() -> None:
    rng = np.random.default_rng(1)
    filled = np.repeat(rng.normal(0, 1e-4, 16), 8)[:125]
    with pytest.raises(DataError, match="stand 1h apart, but change at 00, 08 and 16 UTC only"):
        run(CANDLES, funding=HOURLY.assign(rate=filled))
    assert run(CANDLES, funding=HOURLY.assign(rate=rng.normal(0, 1e-4, 125)))["trades"]


# --- dates, coins, sources ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        "2024-03-01",
        date(2024, 3, 1),
        datetime(2024, 3, 1),  # noqa: DTZ001 - without a zone it is UTC
        datetime(2024, 3, 1, tzinfo=UTC),
        pd.Timestamp("2024-03-01"),
        pd.Timestamp("2024-02-29 19:00", tz="America/New_York"),
        np.datetime64("2024-03-01"),
        np.datetime64("2024-03-01", "ns"),
    ],
    ids=repr,
)
def test_dates_of_every_kind_are_read(given: Any) -> None:
    assert parse_time(given, "start") == 1_709_251_200_000


@pytest.mark.parametrize("given", ["soon", 20240301, pd.NaT, None, [], np.datetime64("NaT")])
def test_what_is_no_date_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match=r"start = .* must be a UTC date like 2024-01-01"):
        parse_time(given, "start")


def test_one_coin_may_be_named_without_a_list() -> None:
    simulator = BacktestSimulator(source="demo")
    assert simulator.coin_names("BTC") == ["BTC"]
    both = simulator.run_multi("btc/usdt", date(2024, 1, 10), pd.Timestamp("2024-01-15"))
    assert list(both) == ["BTC", "_portfolio"]


@pytest.mark.parametrize("coins", [5, [5], [None], ["BTC", float("nan")]])
def test_what_is_no_coins_name_is_refused(coins: Any) -> None:
    with pytest.raises(DataError, match="must be a coin like BTC"):
        BacktestSimulator(source="demo").coin_names(coins)


def test_frames_are_a_source_and_a_wrong_one_is_refused() -> None:
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": with_rates(on_bars())})
    result = simulator.run_single("BTC", "2024-01-01", datetime(2024, 1, 6, tzinfo=UTC))
    assert result["data"]["source"] == "a frame"
    assert result["data"]["funding"] == "real"
    with pytest.raises(DataError, match="no frame of ETH; there are: BTC"):
        simulator.run_single("ETH", "2024-01-01", "2024-01-06")
    with pytest.raises(DataError, match="candles of BTC: nothing from 2025"):
        simulator.run_single("BTC", "2025-01-01", "2025-01-06")


@pytest.mark.parametrize("case", ["hourly", "NaN", "high below low", "doubled", "unsorted"])
def test_a_source_of_ones_own_is_checked_too(case: str) -> None:
    make, text = BAD[case]
    frame = make().reset_index(drop=True)
    market = MarketData("BTC", frame, empty_funding(), None, BAR_MS, "a test")
    simulator = BacktestSimulator(source=MarketSource(lambda *_, **__: market))
    with pytest.raises(DataError) as refused:
        simulator.run_single("BTC", "2024-01-01", "2024-01-06")
    assert text in str(refused.value)


# --- shared objects -----------------------------------------------------------------------------


def trades_of(strategy: GridStrategyV4, seed: int) -> list[dict[str, Any]]:
    return list(strategy.run(synthetic_candles(400, seed))["trades"])


SEEDS = list(range(8))


@pytest.fixture(scope="module")
def alone() -> list[list[dict[str, Any]]]:
    return [trades_of(GridStrategyV4(CONFIG, RULES), seed) for seed in SEEDS]


def test_threads_may_share_a_strategy(alone: list[list[dict[str, Any]]]) -> None:
    shared = GridStrategyV4(CONFIG, RULES)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda seed: trades_of(shared, seed), SEEDS)) == alone


def test_coroutines_may_share_a_strategy(alone: list[list[dict[str, Any]]]) -> None:
    shared = GridStrategyV4(CONFIG, RULES)

    async def together() -> list[list[dict[str, Any]]]:
        runs = (asyncio.to_thread(trades_of, shared, seed) for seed in SEEDS)
        return list(await asyncio.gather(*runs))

    assert asyncio.run(together()) == alone


@pytest.mark.slow
def test_processes_may_share_a_strategy(alone: list[list[dict[str, Any]]]) -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        shared = [GridStrategyV4(CONFIG, RULES)] * len(SEEDS)
        assert list(pool.map(trades_of, shared, SEEDS)) == alone


def test_a_strategy_without_rules_infers_them_for_every_run_anew() -> None:
    cheap = synthetic_candles(400, 3, price=2.0, tick=0.0001)
    alone = GridStrategyV4(CONFIG).run(cheap)["trades"]
    shared = GridStrategyV4(CONFIG)
    shared.run(CANDLES)
    assert shared.run(cheap)["trades"] == alone


def test_a_simulator_may_be_shared_and_pickled() -> None:
    simulator = BacktestSimulator(CONFIG, source="demo")
    ends = ["2024-01-15", "2024-01-20", "2024-01-25"]
    expected = [simulator.run_single("BTC", "2024-01-10", end)["trades"] for end in ends]
    copy = pickle.loads(pickle.dumps(simulator))  # noqa: S301 - our own
    assert copy.run_single("BTC", "2024-01-10", ends[0])["trades"] == expected[0]
    with ThreadPoolExecutor(3) as pool:
        found = pool.map(lambda end: simulator.run_single("BTC", "2024-01-10", end), ends)
        assert [result["trades"] for result in found] == expected


# --- what is odd is said ------------------------------------------------------------------------


def market_of(frame: pd.DataFrame, detail: pd.DataFrame | None = None) -> MarketData:
    return MarketData("BTC", frame, empty_funding(), detail, BAR_MS, "a test")


def test_impossible_prices_are_named_with_bar_and_size() -> None:
    assert price_oddities(market_of(CANDLES)) == []
    jumped = CANDLES.copy()
    prices = ["open", "high", "low", "close"]
    jumped.loc[100:, prices] *= 1_000.0
    [text] = price_oddities(market_of(jumped))
    assert text.startswith("BTC: price jumps to 1")
    assert "at 2024-01-02 01:00: hardly a true price" in text
    high = CANDLES.copy()
    high["high"] *= np.where(np.arange(N_BARS) == 50, 100.0, 1.0)
    [text] = price_oddities(market_of(high))
    assert "BTC: high lies at " in text
    assert "at 2024-01-01 12:30: hardly a true price" in text
    low = CANDLES.copy()
    low["low"] /= np.where(np.isin(np.arange(N_BARS), [50, 60, 70, 80]), 100.0, 1.0)
    assert "and at 1 more bars" in price_oddities(market_of(low))[0]


def test_finer_candles_on_another_scale_are_named() -> None:
    detail = CANDLES.copy()
    assert price_oddities(market_of(CANDLES, detail)) == []
    detail[["open", "high", "low", "close"]] *= 1_000.0
    [text] = price_oddities(market_of(CANDLES, detail))
    assert "the finer candles are 1000 times the price of the bar at 2024-01-01 00:00" in text
    assert "differ at 500 bars" in text


def test_oddities_reach_the_notices_of_a_run() -> None:
    high = CANDLES.copy()
    high["high"] *= np.where(np.arange(N_BARS) == 50, 100.0, 1.0)
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": high})
    notices = simulator.run_single("BTC", "2024-01-01", "2024-01-06")["notices"]
    assert any("high lies at" in notice for notice in notices)


def test_too_little_warm_up_is_said_with_the_bars_missing() -> None:
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 300}, source={"BTC": CANDLES})
    late = simulator.run_single("BTC", "2024-01-03", "2024-01-06")
    assert late["data"]["warmup_missing"] == 300 - 192
    [line] = [" ".join(part.split()) for part in [" ".join(missing_lines(typed(late)))]]
    assert line.startswith("BTC 108 of 300 bars to warm up are missing: ")
    early = simulator.run_single("BTC", "2024-01-01", "2024-01-06")
    text = " ".join(" ".join(missing_lines(typed(early))).split())
    assert "300 of 300 bars to warm up are missing" in text
    assert f"trading begins {early['first_bar']} bars after the start" in text
    enough = simulator.run_single("BTC", "2024-01-04T04:00", "2024-01-06")
    assert missing_lines(typed(enough)) == []


def test_a_run_of_which_most_bars_are_missing_is_said() -> None:
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": CANDLES})
    result = simulator.run_single("BTC", "2023-12-20", "2024-01-06")
    assert result["data"]["range_missing"] == 12 * 96
    text = " ".join(" ".join(missing_lines(typed(result))).split())
    assert "1,152 of 1,632 bars of the range are missing: most of it was not run" in text


def test_notices_of_a_frame_reach_the_run() -> None:
    bare = CANDLES.drop(columns="volume")
    assert read_candles(bare, "x", BAR_MS).notices
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": bare})
    notices = simulator.run_single("BTC", "2024-01-01", "2024-01-06")["notices"]
    assert any("has no volume" in notice for notice in notices)


def test_a_tick_or_lot_that_is_coarse_for_the_price_is_said() -> None:
    rules = {"tick_size": 100.0, "step_size": 0.01, "min_qty": 0.01, "min_notional": 5.0}
    simulator = BacktestSimulator(
        {"spacing_floor": 0.02, "order_pct": 0.05},
        {"warmup_bars": 0, "markets": {"BTC": rules}},
        source={"BTC": CANDLES},
    )
    notices = simulator.run_single("BTC", "2024-01-01", "2024-01-06")["notices"]
    assert any(
        "a tick of 100 is 25 % of the narrowest spacing (400 at 20000)" in n for n in notices
    )
    assert any(
        "a lot of 0.01 is worth 200.00 USDT, 40 % of an order of 500.00" in n for n in notices
    )
    fine = {**rules, "tick_size": 0.1, "step_size": 0.001, "min_qty": 0.001}
    simulator = BacktestSimulator(None, {"markets": {"BTC": fine}}, source={"BTC": CANDLES})
    notices = simulator.run_single("BTC", "2024-01-01", "2024-01-06")["notices"]
    assert not any("a tick of" in n or "a lot of" in n for n in notices)


def test_an_installation_that_cannot_keep_machine_code_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert "this first time only" in compiling.compile_notice()
    monkeypatch.setattr(compiling, "cache_folder", lambda: None)
    text = compiling.compile_notice()
    assert "again at every start" in text
    assert "XDG_CACHE_HOME" in text


def test_candles_missing_at_the_ends_of_a_range_are_said() -> None:
    source = {"BTC": CANDLES.iloc[100:400]}
    start, end = (pd.Timestamp(int(CANDLES["timestamp"].iloc[k]), unit="ms") for k in (40, 460))
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source=source)
    result = simulator.run_single("BTC", start, end)
    data = result["data"]
    assert (data["missing_before"], data["missing_after"]) == (60, 60)
    text = " ".join(" ".join(data_lines(typed(result))).split())
    assert "60 candles missing at the start of the range" in text
    assert "60 candles missing at the end of the range; no gaps" in text
    whole = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": CANDLES})
    whole_text = " ".join(data_lines(typed(whole.run_single("BTC", start, end))))
    assert "missing" not in whole_text


def run_notices(frame: Any) -> list[str]:
    simulator = BacktestSimulator(CONFIG, {"warmup_bars": 0}, source={"BTC": frame})
    return list(simulator.run_single("BTC", "2024-01-01", "2024-01-06")["notices"])


@pytest.mark.parametrize("name", ["funding", "funding_rates", "Funding Fee", "fundingRatePct"])
def test_a_column_of_funding_that_is_not_read_is_named(name: str) -> None:
    rates = pd.Series(on_bars())
    small = name.lower().replace(" ", "_")
    said = f"candles of BTC: column {small} is not read"
    assert any(text.startswith(said) for text in run_notices(CANDLES.assign(**{name: rates})))
    assert not any("is not read" in text for text in run_notices(with_rates(rates)))


def test_a_volume_of_another_name_is_named() -> None:
    frame = CANDLES.rename(columns={"volume": "Volume USDT"})
    assert any("column volume_usdt is not read" in text for text in run_notices(frame))


def test_prices_of_few_digits_are_said() -> None:
    prices = ["open", "high", "low", "close"]
    frame = CANDLES.astype(dict.fromkeys(prices, "float32"))
    assert any("prices are float32: rounded to 7 digits" in text for text in run_notices(frame))
    assert not any("float32" in text for text in run_notices(CANDLES))


@pytest.mark.parametrize(
    ("late_ms", "text"),
    [
        (BAR_MS, "stand 15m after the exchange's"),
        (5 * HOUR_MS, "stand 5h after the exchange's"),
        (-5 * HOUR_MS, "stand 3h after the exchange's"),
    ],
)
def test_settlements_at_times_that_the_exchange_does_not_settle_at_are_refused(
    late_ms: int, text: str
) -> None:
    late = SETTLED.assign(timestamp=SETTLED["timestamp"] + late_ms)
    assert len(late) > 8
    with pytest.raises(DataError, match=text):
        run(CANDLES, funding=late)


@pytest.mark.parametrize("step_h", [1, 2, 4, 8])
def test_settlements_every_few_hours_are_read(step_h: int) -> None:
    times = FIRST_MS + step_h * HOUR_MS * np.arange(15)
    rates = np.random.default_rng(2).normal(0.0, 1e-4, 15)
    assert run(CANDLES, funding=pd.DataFrame({"timestamp": times, "rate": rates}))["trades"]


def test_candles_of_another_market_are_refused() -> None:
    for symbol in ("BTCUSDT", "btc", "BTC/USDT:USDT", "BTC-USDT-SWAP"):
        assert run_notices(CANDLES.assign(symbol=symbol)) == run_notices(CANDLES)
    with pytest.raises(DataError, match="candles of BTC: column pair says ETHUSDT"):
        run_notices(CANDLES.assign(Pair="ETHUSDT"))
    for symbol in ("BTCDOMUSDT", "BTCUSDC"):
        with pytest.raises(DataError, match=f"column symbol says {symbol}"):
            run_notices(CANDLES.assign(symbol=symbol))
    two = ["BTCUSDT"] * 300 + ["ETHUSDT"] * 200
    with pytest.raises(DataError, match="column symbol says ETHUSDT"):
        run_notices(CANDLES.assign(symbol=two))


def test_counts_as_text_are_times_and_the_row_that_is_none_is_named() -> None:
    texts = CANDLES["timestamp"].astype(str)
    assert run(CANDLES.assign(timestamp=texts))["trades"] == run(CANDLES)["trades"]
    seconds = (CANDLES["timestamp"] // 1_000).astype(str)
    assert run(CANDLES.assign(timestamp=seconds))["trades"] == run(CANDLES)["trades"]
    with pytest.raises(DataError, match="row 499: time 'total' must be"):
        run(CANDLES.assign(timestamp=[*texts[:-1], "total"]))


def test_a_price_that_stands_still_for_hours_is_named() -> None:
    rows, prices = np.arange(N_BARS), ["open", "high", "low", "close"]
    price = float(CANDLES["close"].iloc[99])
    frozen = CANDLES.copy()
    for name in prices:
        frozen[name] = np.where((rows >= 100) & (rows < 140), price, CANDLES[name])
    [text] = price_oddities(market_of(frozen))
    assert "BTC: the price stands still for 40 bars from 2024-01-02 01:00" in text
    short = CANDLES.copy()
    for name in prices:
        short[name] = np.where((rows >= 100) & (rows < 104), price, CANDLES[name])
    assert price_oddities(market_of(short)) == []
