"""The candle and funding files a person brings."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backtest.market.fetch import load_market
from backtest.market.files import BRACKETS_FILE, CandleFolder
from backtest.market.market_data import MarketData, funding_table
from backtest.market.tables import ENDINGS
from backtest.market.timeframes import parse_time
from core.errors import DataError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.backtest.test_market_data import BAR, START, make_candles
from tests.support.paths import MARKET as REAL_DATA


def load(folder: Path, coin: str = "BTC", detail: str | None = None) -> MarketData:
    return load_market(coin, START, START + DAY_MS, data_dir=folder, timeframe="15m", detail=detail)


def write(frame: pd.DataFrame, path: Path) -> None:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_feather(path)


@pytest.mark.parametrize(
    "name",
    [
        "BTCUSDT-perp-15m.parquet",
        "BTC_15m.csv",
        "BTC-USDT-15m.feather",
        "BTCUSDT.csv",
        "btc.csv",
        "BTC_USDT_USDT-15m-futures.feather",
        "btcusdt_15M.CSV".lower(),
        "BTC.15m.parquet",
    ],
)
def test_candle_files_are_found_under_all_usual_names(name: str, tmp_path: Path) -> None:
    write(make_candles(), tmp_path / name)
    market = load(tmp_path)
    pd.testing.assert_frame_equal(market.candles, make_candles())
    assert market.source == f"files in {tmp_path}"
    assert market.funding.empty
    assert market.detail is None
    assert market.brackets is None


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
@pytest.mark.parametrize(
    "name", ["BTCUSDT-funding", "BTC_funding", "BTC-USDT-fundingRate", "btc_funding_rate"]
)
def test_funding_files_are_found_under_all_usual_names(
    name: str, suffix: str, tmp_path: Path
) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    rates = funding_table([[START + 8 * HOUR_MS * i, 0.0001 * i] for i in range(4)])
    write(rates, tmp_path / f"{name}.{suffix}")
    pd.testing.assert_frame_equal(load(tmp_path).funding, rates)


@pytest.mark.parametrize("column", ["rate", "fundingRate", "funding_rate", "last_funding_rate"])
def test_funding_columns_have_several_names(column: str, tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    rates = pd.DataFrame({"calc_time": [START + 7], column: [0.0002]})
    write(rates, tmp_path / "BTC-funding.csv")
    pd.testing.assert_frame_equal(load(tmp_path).funding, funding_table([[START, 0.0002]]))


def iso(candles: pd.DataFrame) -> pd.Series[Any]:
    return pd.to_datetime(candles["timestamp"], unit="ms")


TIME_COLUMNS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "ms": lambda f: f["timestamp"],
    "seconds": lambda f: f["timestamp"] // 1_000,
    "float seconds": lambda f: f["timestamp"] / 1_000,
    "microseconds": lambda f: f["timestamp"] * 1_000,
    "nanoseconds": lambda f: f["timestamp"] * 1_000_000,
    "dates": iso,
    "dates in s": lambda f: iso(f).astype("datetime64[s]"),
    "dates in ns": lambda f: iso(f).astype("datetime64[ns]"),
    "dates with zone": lambda f: iso(f).dt.tz_localize("UTC").dt.tz_convert("America/New_York"),
    "text": lambda f: iso(f).dt.strftime("%Y-%m-%d %H:%M:%S"),
    "text with T": lambda f: iso(f).dt.strftime("%Y-%m-%dT%H:%M"),
    "text with zone": lambda f: iso(f).dt.strftime("%Y-%m-%d %H:%M:%S+00:00"),
    "text with Z": lambda f: iso(f).dt.strftime("%Y-%m-%dT%H:%M:%SZ"),
}


@pytest.mark.parametrize("suffix", ["csv", "parquet", "feather"])
@pytest.mark.parametrize("kind", TIME_COLUMNS)
@pytest.mark.parametrize("column", ["timestamp", "time"])
@pytest.mark.slow
def test_times_are_understood_in_every_form(
    kind: str, suffix: str, column: str, tmp_path: Path
) -> None:
    candles = make_candles()
    frame = candles.assign(timestamp=TIME_COLUMNS[kind](candles))
    write(frame.rename(columns={"timestamp": column}), tmp_path / f"BTC.{suffix}")
    pd.testing.assert_frame_equal(load(tmp_path).candles, candles)


@pytest.mark.parametrize("name", ["Date", "datetime", "Open_Time", " time "])
def test_the_time_column_and_capital_letters_may_vary(name: str, tmp_path: Path) -> None:
    frame = make_candles().rename(columns=str.capitalize).rename(columns={"Timestamp": name})
    write(frame.assign(Trades=5), tmp_path / "BTC.csv")
    pd.testing.assert_frame_equal(load(tmp_path).candles, make_candles())


@pytest.mark.parametrize("name", [None, "date", "anything"])
def test_the_time_may_be_the_index_of_a_parquet_file(name: str | None, tmp_path: Path) -> None:
    candles = make_candles()
    indexed = candles.set_index(pd.DatetimeIndex(iso(candles), name=name))
    indexed.drop(columns="timestamp").to_parquet(tmp_path / "BTC.parquet")
    pd.testing.assert_frame_equal(load(tmp_path).candles, candles)


def test_rates_may_stand_among_the_candles(tmp_path: Path) -> None:
    rates = np.full(20, np.nan)
    rates[[0, 8]] = [0.0001, -0.0002]
    write(make_candles().assign(fundingRate=rates), tmp_path / "BTC.csv")
    expected = funding_table([[START, 0.0001], [START + 8 * BAR, -0.0002]])
    pd.testing.assert_frame_equal(load(tmp_path).funding, expected)
    write(funding_table([[START, 0.005]]), tmp_path / "BTC-funding.csv")
    assert load(tmp_path).funding["rate"].tolist() == [0.005], "a file of its own goes first"


def test_rates_filled_into_every_bar_are_refused(tmp_path: Path) -> None:
    write(make_candles().assign(fundingRate=0.0001), tmp_path / "BTC.csv")
    with pytest.raises(DataError, match="at its settlement only"):
        load(tmp_path)


def test_detail_candles_are_loaded_when_asked_for(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC-15m.csv")
    write(make_candles(300, MINUTE_MS), tmp_path / "BTCUSDT-perp-1m.parquet")
    market = load(tmp_path, detail="1m")
    assert market.detail is not None
    pd.testing.assert_frame_equal(market.detail, make_candles(300, MINUTE_MS))
    with pytest.raises(DataError, match="no 1m candles of ETH; found: BTC 15m, BTC 1m"):
        CandleFolder(tmp_path).candles("ETH", "1m")


def test_a_file_that_names_its_timeframe_goes_first(tmp_path: Path) -> None:
    write(make_candles(50), tmp_path / "BTC.csv")
    write(make_candles(30), tmp_path / "BTC-15m.csv")
    assert len(load(tmp_path).candles) == 30


def test_only_the_range_asked_for_is_returned(tmp_path: Path) -> None:
    write(make_candles(500), tmp_path / "BTC.csv")
    rates = funding_table([[START + 8 * HOUR_MS * i, 0.0001] for i in range(9)])
    write(rates, tmp_path / "BTC-funding.csv")
    first, last = START + 10 * BAR, START + DAY_MS
    market = load_market("btc/usdt", first - 1, last + 1, data_dir=tmp_path, timeframe="15m")
    assert market.candles["timestamp"].tolist() == list(range(first, last, BAR))
    settled = [START + 8 * HOUR_MS, START + 16 * HOUR_MS, START + DAY_MS]
    assert market.funding["timestamp"].tolist() == settled, "the last one meets the last bar"


def test_a_range_without_candles_tells_what_there_is(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    text = r"BTC\.csv: nothing from 2025-01-01 00:00 to .*; it holds 2024-01-01 00:00 to"
    start = parse_time("2025-01-01", "start")
    with pytest.raises(DataError, match=text):
        load_market("BTC", start, start + DAY_MS, data_dir=tmp_path, timeframe="15m")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data folder .*nowhere does not exist"):
        load(tmp_path / "nowhere")


def test_a_missing_coin_is_answered_with_those_found(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "ETHUSDT-15m.csv")
    write(make_candles(), tmp_path / "SOL.csv")
    (tmp_path / "notes.txt").write_text("nothing")
    (tmp_path / "BTC-15m-old.csv").write_text("not a candle file's name")
    with pytest.raises(
        DataError, match=r"no 15m candles of BTC; found: ETH 15m, SOL candles; not read: .*; name"
    ):
        load(tmp_path)


def test_an_empty_folder_is_answered_with_the_names_to_use(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"found no candle files at all; name files like BTCUSDT-15m"
    ):
        load(tmp_path)


def test_two_files_that_contradict_each_other_are_refused(tmp_path: Path) -> None:
    candles = make_candles()
    write(candles, tmp_path / "BTC-15m.csv")
    write(candles.assign(volume=7.5), tmp_path / "BTCUSDT_15m.parquet")
    text = (
        r"BTC-15m\.csv to BTCUSDT_15m\.parquet: two files say different things of 2024-01-01 00:00"
    )
    with pytest.raises(DataError, match=text):
        load(tmp_path)


BAD_FILES = {
    "empty": ("", "cannot be read"),
    "no time": ("open,high,low,close,volume\n1,2,1,1,1\n", "has no time column; found: open, high"),
    "twice": ("time,TIME,open\n1,2,3\n", "columns are named twice"),
    "odd time": ("time,open,high,low,close,volume\nsoon,1,2,1,1,1\n", "row 0: time 'soon' must be"),
    "no value": ("time,open\n1704067200000,1\n,2\n", "row 1: time 'nan' must be"),
    "columns": ("time,open\n1704067200000,1\n", "missing columns: high, low, close, volume"),
    "text": (
        "time,open,high,low,close,volume\n1704067200,1,2,1,1,x\n",
        r"row 0 \(2024-01-01 00:00 UTC\): volume is missing or not a number",
    ),
    "header only": ("time,open,high,low,close,volume\n", "has no rows"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_named_with_their_fault(name: str, tmp_path: Path) -> None:
    text, message = BAD_FILES[name]
    (tmp_path / "BTC.csv").write_text(text)
    with pytest.raises(DataError, match=rf"^BTC\.csv: {message}"):
        load(tmp_path)


@pytest.mark.parametrize("suffix", ["parquet", "feather"])
def test_a_damaged_binary_file_is_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"BTC.{suffix}").write_bytes(b"no such format")
    with pytest.raises(DataError, match=rf"^BTC\.{suffix}: cannot be read"):
        load(tmp_path)


def test_a_funding_file_without_rates_is_refused(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    (tmp_path / "BTC-funding.csv").write_text("time,value\n1704067200,1\n")
    with pytest.raises(DataError, match=r"BTC-funding\.csv: has no column named rate or"):
        load(tmp_path)
    (tmp_path / "BTC-funding.csv").write_text("time,rate\n1704067200,\n")
    with pytest.raises(DataError, match=r"BTC-funding\.csv: row 0 .*rate is missing"):
        load(tmp_path)


def bracket(floor: float, rate: float, amount: float) -> dict[str, float]:
    return {"notionalFloor": floor, "maintMarginRatio": rate, "cum": amount}


def test_brackets_beside_the_candles_are_read(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    write(make_candles(), tmp_path / "ETH.csv")
    rows = [bracket(300_000, 0.005, 300), bracket(0, 0.004, 0)]
    text = json.dumps({"current": {"BTCUSDT": {"brackets": rows}}})
    (tmp_path / BRACKETS_FILE).write_text(text)
    assert load(tmp_path).brackets == ((0.0, 0.004, 0.0), (300_000.0, 0.005, 300.0))
    assert load(tmp_path, "ETH").brackets is None


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"current": {"BTCUSDT": {}}}',
        '{"current": {"BTCUSDT": {"brackets": [{"notionalFloor": 0}]}}}',
    ],
)
def test_unreadable_brackets_are_not_passed_over(text: str, tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    (tmp_path / BRACKETS_FILE).write_text(text)
    with pytest.raises(DataError, match=rf"^{BRACKETS_FILE}: cannot be read"):
        load(tmp_path)


@pytest.mark.skipif(
    not REAL_DATA.is_dir(), reason="recorded market data is not beside the checkout"
)
@pytest.mark.parametrize("coin", ["BTC", "ETH", "SOL"])
def test_recorded_market_data_is_accepted_with_its_oddities(coin: str) -> None:
    start, end = parse_time("2022-01-01", "start"), parse_time("2025-07-01", "end")
    market = load_market(coin, start, end, data_dir=REAL_DATA, timeframe="15m")
    assert len(market.candles) == 122_592
    assert market.gaps == []
    assert market.zero_volume_bars == 7
    assert market.brackets is not None
    assert market.brackets[0][0] == 0.0


# --- what else lies there -----------------------------------------------------------------------


def test_every_file_that_is_not_read_is_named_with_the_reason(tmp_path: Path) -> None:
    candles = make_candles()
    for name in ("BTC-15m.csv", "BTC-5m.csv", "ETH-15m.csv", "BTC-markprice-15m.csv", "BTC-x.csv"):
        write(candles, tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "BTC-15m.csv.bak").write_text("mine")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "BTC.xlsx").write_text("mine")
    write(candles, tmp_path / "_-15m.csv")
    [line] = CandleFolder(tmp_path).not_read(["BTC"], ["15m"])
    for text in (
        "notes.txt",
        "BTC-15m.csv.bak",
        "not .csv, .zip, .parquet, .feather",
        "old/BTC.xlsx",
        "BTC-markprice-15m.csv (mark, index or premium prices: no trades)",
        "BTC-x.csv (its name says neither a timeframe nor funding: x)",
        "BTC-5m.csv (BTC 5m not asked for)",
        "ETH-15m.csv (ETH 15m not asked for)",
        "_-15m.csv (its name begins with no coin)",
    ):
        assert text in line
    assert "BTC-15m.csv (" not in line
    [both] = CandleFolder(tmp_path).not_read(["BTC", "ETH"], ["15m", "5m"])
    assert "not asked for" not in both


def test_where_no_candles_are_found_the_files_passed_over_are_named(tmp_path: Path) -> None:
    (tmp_path / "BTC_USDT_USDT-15m-futures.txt").write_text("[]")
    write(make_candles(), tmp_path / "BTCUSDT-spot-15m.csv")
    (tmp_path / "BTC-15m.csv").symlink_to(tmp_path / "gone.csv")
    with pytest.raises(DataError) as refused:
        CandleFolder(tmp_path).candles("BTC", "15m")
    for text in (
        "not read: BTC-15m.csv (a link to nothing)",
        "BTCUSDT-spot-15m.csv (its name says neither a timeframe nor funding: spot 15m)",
        "BTC_USDT_USDT-15m-futures.txt (not .csv, .zip, .parquet, .feather, .csv.gz",
    ):
        assert text in str(refused.value)


def test_rows_of_another_market_are_refused(tmp_path: Path) -> None:
    write(make_candles().assign(symbol="ETHUSDT"), tmp_path / "BTC-15m.csv")
    rates = pd.DataFrame({"fundingTime": [START], "fundingRate": [0.0001], "symbol": ["ETHUSDT"]})
    write(rates, tmp_path / "BTC-funding.csv")
    folder = CandleFolder(tmp_path)
    with pytest.raises(DataError, match=r"BTC-15m\.csv: column symbol says ETHUSDT, but"):
        folder.candles("BTC", "15m")
    with pytest.raises(DataError, match=r"BTC-funding\.csv: column symbol says ETHUSDT, but"):
        folder.funding("BTC")


def test_a_folder_that_is_read_whole_says_nothing(tmp_path: Path) -> None:
    write(make_candles(), tmp_path / "BTC.csv")
    write(funding_table([[START, 0.0001]]), tmp_path / "BTC-funding.csv")
    assert CandleFolder(tmp_path).not_read(["BTC"], ["15m"]) == []


def test_months_of_the_exchanges_archive_are_joined(tmp_path: Path) -> None:
    candles = make_candles()
    names = ["open_time", "open", "high", "low", "close", "volume", "close_time", "count"]
    rows = candles.assign(close_time=candles["timestamp"] + BAR - 1, count=3)
    rows.columns = pd.Index(names)
    rows.iloc[:8].to_csv(tmp_path / "BTCUSDT-15m-2023-12.csv", index=False)
    micro = rows.iloc[8:].assign(open_time=rows["open_time"] * 1_000)  # as since 2025
    with zipfile.ZipFile(tmp_path / "BTCUSDT-15m-2024-01.zip", "w") as archive:
        archive.writestr("BTCUSDT-15m-2024-01.csv", micro.to_csv(index=False, header=False))
    rates = pd.DataFrame(
        {
            "calc_time": [START + 3, START + 8 * BAR + 7],
            "funding_interval_hours": [8, 8],
            "last_funding_rate": [0.0001, -0.0002],
        }
    )
    rates.iloc[:1].to_csv(tmp_path / "BTCUSDT-fundingRate-2023-12.csv", index=False)
    rates.iloc[1:].to_csv(tmp_path / "BTCUSDT-fundingRate-2024-01.csv", index=False)
    market = load(tmp_path)
    pd.testing.assert_frame_equal(market.candles, candles)
    expected = funding_table([[START, 0.0001], [START + 8 * BAR, -0.0002]])
    pd.testing.assert_frame_equal(market.funding, expected)
    rows.iloc[6:9].to_csv(tmp_path / "BTCUSDT-15m-2024-01-01.csv", index=False)
    market = load(tmp_path)
    pd.testing.assert_frame_equal(market.candles, candles)
    assert any("3 rows stand in two files and are the same" in text for text in market.notices)


def test_funding_under_the_names_of_freqtrade_is_read(tmp_path: Path) -> None:
    candles = make_candles()
    times = pd.to_datetime(candles["timestamp"], unit="ms", utc=True)
    frame = candles.drop(columns="timestamp").assign(date=times)
    frame.to_feather(tmp_path / "BTC_USDT_USDT-15m-futures.feather")
    frame.to_feather(tmp_path / "BTC_USDT_USDT-8h-mark.feather")
    zero = {"high": 0.0, "low": 0.0, "close": 0.0, "volume": 0.0}
    rates = pd.DataFrame({"date": times[[0, 8]], "open": [0.0001, -0.0002], **zero})
    rates.reset_index(drop=True).to_feather(tmp_path / "BTC_USDT_USDT-8h-funding_rate.feather")
    market = load(tmp_path)
    pd.testing.assert_frame_equal(market.candles, candles)
    expected = funding_table([[START, 0.0001], [START + 8 * BAR, -0.0002]])
    pd.testing.assert_frame_equal(market.funding, expected)
    [line] = CandleFolder(tmp_path).not_read(["BTC"], ["15m"])
    assert "BTC_USDT_USDT-8h-mark.feather (mark, index" in line


def test_semicolons_and_decimal_commas_are_read(tmp_path: Path) -> None:
    candles = make_candles()
    candles.to_csv(tmp_path / "BTC.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    pd.testing.assert_frame_equal(load(tmp_path).candles, candles)
    candles.to_csv(tmp_path / "BTC.csv", index=False, sep="\t", lineterminator="\r\n")
    pd.testing.assert_frame_equal(load(tmp_path).candles, candles)


HEADER = "timestamp,open,high,low,close,volume\n"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (HEADER + f"{START},1,1,1,1,1,9\n", "a row has 7 columns, the first line 6"),
        (HEADER + f"{START},1,1,1,1,1,\n" * 3, "a row has 7 columns, the first line 6"),
        (HEADER + f"{START},1,1\n", "row 0 (2024-01-01 00:00 UTC): low is missing or not a"),
        (HEADER.replace(",", ";") + f"{START};1,5;1,5;1.234,5;1,5;1\n", "marks between thousands"),
        ("", "cannot be read"),
        ("\n\n\n", "cannot be read"),
        (HEADER, "has no rows"),
        ("<html><body>429</body></html>", "has no time column"),
        (HEADER + '"unclosed', "cannot be read"),
        ("\x00\x01\x02", "BTC.csv: "),
    ],
    ids=range(10),
)
def test_no_text_in_a_file_ends_in_a_traceback(body: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "BTC.csv").write_text(body)
    with pytest.raises(DataError) as refused:
        load(tmp_path)
    assert text in str(refused.value)
    assert str(refused.value).startswith("BTC.csv: ")
    assert "\n" not in str(refused.value)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(suffix=st.sampled_from(ENDINGS), body=st.binary(max_size=200))
def test_no_bytes_in_a_file_end_in_a_traceback(suffix: str, body: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"BTC{suffix}"
    path.write_bytes(body)
    try:
        load(tmp_path)
    except DataError as error:
        assert str(error).startswith(path.name)  # noqa: PT017 - most are refused, none must be
    finally:
        path.unlink()


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(rows=st.lists(st.text(alphabet='0123456789.,;-+eE"\t nan', max_size=40), max_size=6))
def test_no_rows_of_a_file_end_in_a_traceback(rows: list[str], tmp_path: Path) -> None:
    (tmp_path / "BTC.csv").write_text(HEADER + "\n".join(rows), encoding="utf-8")
    try:
        load(tmp_path)
    except DataError as error:
        assert str(error).startswith("BTC.csv: ")  # noqa: PT017 - most are refused, none must be


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("header", [True, False])
def test_a_byte_order_mark_changes_nothing(tmp_path: Path, header: bool, zipped: bool) -> None:
    expected = make_candles()
    body = expected.to_csv(index=False, header=header).encode("utf-8-sig")
    if zipped:
        with zipfile.ZipFile(tmp_path / "BTCUSDT-15m.zip", "w") as archive:
            archive.writestr("BTCUSDT-15m.csv", body)
    else:
        (tmp_path / "BTCUSDT-15m.csv").write_bytes(body)
    found = CandleFolder(tmp_path).candles("BTC", "15m").candles
    pd.testing.assert_frame_equal(found, expected)
