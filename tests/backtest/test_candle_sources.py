"""Files as other programs write them: each is read to the same candles, or refused in one line."""

from __future__ import annotations

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from backtest.market.files import CandleFolder
from backtest.market.market_data import funding_table
from backtest.market.timeframes import format_time
from core.errors import DataError
from core.times import HOUR_MS, MINUTE_MS
from main import main
from tests.backtest.test_market_data import BAR, START, make_candles

Write = Callable[[Path], None]
CANDLES = make_candles()
PRICES = ["open", "high", "low", "close"]


def rows(candles: pd.DataFrame = CANDLES) -> list[list[float]]:
    return [[int(row[0]), *row[1:]] for row in candles.itertuples(index=False)]


def text(frame: pd.DataFrame = CANDLES, **how: Any) -> str:
    return str(frame.to_csv(index=False, **how))


def indexed(name: str | None = None, zone: str | None = None) -> pd.DataFrame:
    times = pd.to_datetime(CANDLES["timestamp"], unit="ms", utc=True)
    index = pd.DatetimeIndex(times.dt.tz_convert(zone), name=name)
    return CANDLES.drop(columns="timestamp").rename(columns=str.capitalize).set_index(index)


def file(name: str, body: str | bytes) -> Write:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body.encode() if isinstance(body, str) else body)

    return write


def zipped(name: str, *bodies: str) -> Write:
    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / name, "w") as archive:
            for number, body in enumerate(bodies):
                archive.writestr(f"{number}.csv", body)

    return write


def frame(name: str, table: pd.DataFrame) -> Write:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        table.to_parquet(path) if path.suffix == ".parquet" else table.to_feather(path)

    return write


def array(name: str, values: Any) -> Write:
    def write(folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, candles=values) if path.suffix == ".npz" else np.save(
            path, values
        )

    return write


def both(*writes: Write) -> Write:
    def write(folder: Path) -> None:
        for each in writes:
            each(folder)

    return write


def download(*, unit: int, newest_first: bool) -> str:
    table = pd.DataFrame({"Unix": CANDLES["timestamp"] // unit})
    table["Date"] = pd.to_datetime(CANDLES["timestamp"], unit="ms").dt.strftime("%Y-%m-%d %H:%M:%S")
    table["Symbol"] = "BTCUSDT"
    table[["Open", "High", "Low", "Close", "Volume BTC"]] = CANDLES[[*PRICES, "volume"]]
    table["Volume USDT"], table["tradecount"] = 9.0, 3
    table = table.iloc[::-1] if newest_first else table
    return "https://www.CryptoDataDownload.com\n" + text(table)


def chart(times: Any) -> str:
    names = {"timestamp": "time", "volume": "Volume"}
    return text(CANDLES.assign(timestamp=times).rename(columns=names).assign(MA=1.0))


def minutes(step: int) -> pd.DataFrame:
    """Return candles of ``step`` minutes that fill the bars of ``CANDLES`` exactly."""
    parts = 15 // step
    fine = CANDLES.loc[CANDLES.index.repeat(parts)].reset_index(drop=True)
    place = np.arange(len(fine)) % parts
    fine["timestamp"] += place * step * MINUTE_MS
    fine["open"] = np.where(place == 0, fine["open"], fine["close"])
    fine["high"] = np.where(place == 0, fine["high"], fine["close"])
    fine["low"] = np.where(place == 0, fine["low"], fine["close"])
    fine["volume"] = np.where(place == 0, fine["volume"], 0.0)
    return fine


ARCHIVE = CANDLES.rename(columns={"timestamp": "open_time"}).assign(
    close_time=CANDLES["timestamp"] + BAR - 1, count=3
)
DATED = CANDLES.drop(columns="timestamp").assign(
    date=pd.to_datetime(CANDLES["timestamp"], unit="ms", utc=True)
)
COMMAS = text(sep=";", decimal=",")
RECORDS = np.array(
    [tuple(row) for row in rows()],
    dtype=[("ts", "i8"), *((name, "f8") for name in ("o", "h", "l", "c", "bv"))],
)
YAHOO = indexed("Datetime").to_csv(header=False)

READ: dict[str, Write] = {
    "archive month zip": zipped("BTCUSDT-15m-2024-01.zip", text(ARCHIVE)),
    "archive month csv": file("BTCUSDT-15m-2024-01.csv", text(ARCHIVE)),
    "archive day, no header": file("BTCUSDT-15m-2024-01-01.csv", text(ARCHIVE, header=False)),
    "archive days": both(
        file("BTCUSDT-15m-2024-01-01.csv", text(ARCHIVE.iloc[:9])),
        file("BTCUSDT-15m-2024-01-02.csv", text(ARCHIVE.iloc[9:])),
    ),
    "archive microseconds": zipped(
        "BTCUSDT-15m-2024-01.zip", text(ARCHIVE.assign(open_time=ARCHIVE["open_time"] * 1_000))
    ),
    "archive folders": file("monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01.csv", text(ARCHIVE)),
    "freqtrade feather": frame("futures/BTC_USDT_USDT-15m-futures.feather", DATED),
    "freqtrade parquet": frame("futures/BTC_USDT_USDT-15m-futures.parquet", DATED),
    "freqtrade spot feather": frame("BTC_USDT-15m.feather", DATED),
    "freqtrade json": file("BTC_USDT_USDT-15m-futures.json", json.dumps(rows())),
    "freqtrade jsongz": file(
        "BTC_USDT_USDT-15m-futures.json.gz", gzip.compress(json.dumps(rows()).encode())
    ),
    "ccxt json": file("BTC-15m.json", json.dumps(rows())),
    "ccxt csv, no header": file("BTC-15m.csv", text(header=False)),
    "objects json": file("BTC-15m.json", json.dumps(CANDLES.to_dict("records"))),
    "tradingview seconds": file("BINANCE_BTCUSDT.P, 15.csv", chart(CANDLES["timestamp"] // 1_000)),
    "tradingview hash": file(
        "BINANCE_BTCUSDT.P, 15_a1b2c.csv", chart(CANDLES["timestamp"] // 1_000)
    ),
    "tradingview again": file(
        "BINANCE_BTCUSDT.P, 15 (1).csv", chart(CANDLES["timestamp"] // 1_000)
    ),
    "tradingview iso": file(
        "BINANCE_BTCUSDT.P, 15.csv",
        chart(pd.to_datetime(CANDLES["timestamp"], unit="ms", utc=True).map(str)),
    ),
    "cryptodatadownload": file("Binance_BTCUSDT_15m.csv", download(unit=1, newest_first=True)),
    "cryptodatadownload seconds": file(
        "Binance_BTCUSDT_2024_15m.csv", download(unit=1_000, newest_first=False)
    ),
    "yfinance": file(
        "BTC-15m.csv",
        "Price,Open,High,Low,Close,Volume\nTicker" + ",BTC-USD" * 5 + "\nDatetime,,,,,\n" + YAHOO,
    ),
    "yfinance one header": file("BTC-15m.csv", indexed("Datetime").to_csv()),
    "backtesting.py csv": file("BTC-15m.csv", indexed().to_csv()),
    "backtesting.py parquet": frame("BTC-15m.parquet", indexed()),
    "backtesting.py zone": file("BTC-15m.csv", indexed(zone="Asia/Tokyo").to_csv()),
    "passivbot rows": array("1m/BTC_USDT:USDT/2024-01-01.npy", minutes(1).to_numpy()),
    "passivbot older": array("ohlcvs_binance/BTC/2024-01-01.npy", minutes(1).to_numpy()),
    "passivbot npz": array("binance/15m/BTC/2024-01-01.npz", RECORDS),
    "passivbot records": array("binance/15m/BTC/2024-01-01.npy", RECORDS),
    "gzip": file("BTC-15m.csv.gz", gzip.compress(text().encode())),
    "zip": zipped("BTC-15m.zip", text()),
    "semicolon": file("BTC-15m.csv", text(sep=";")),
    "semicolon, decimal comma": file("BTC-15m.csv", COMMAS),
    "tab": file("BTC-15m.csv", text(sep="\t")),
    "tab, decimal comma": file("BTC-15m.csv", text(sep="\t", decimal=",")),
    "comma, quoted decimal comma": file(
        "BTC-15m.csv",
        "\n".join(",".join(f'"{c}"' for c in line.split(";")) for line in COMMAS.splitlines()),
    ),
    "byte order mark": file("BTC-15m.csv", b"\xef\xbb\xbf" + text().encode()),
    "newest first": file("BTC-15m.csv", text(CANDLES.iloc[::-1])),
    "newest first, no header": file("BTC-15m.csv", text(CANDLES.iloc[::-1], header=False)),
    "rows twice": file("BTC-15m.csv", text(CANDLES.loc[CANDLES.index.repeat(2)])),
    "files that overlap": both(
        file("BTC-15m.csv", text(CANDLES.iloc[:10])),
        frame("old/BTCUSDT_15m.parquet", CANDLES.iloc[6:].reset_index(drop=True)),
    ),
    "no timeframe named": file("BTC.csv", text()),
    "minutes, not named": file("BTC.csv", text(minutes(1))),
    "1m": file("BTC-1m.csv", text(minutes(1))),
    "3m": file("BTC-3m.csv", text(minutes(3))),
    "5m": file("BTC-5m.csv", text(minutes(5))),
    "minute word": file("Binance_BTCUSDT_2024_minute.csv", text(minutes(1))),
}

THOUSANDS = "timestamp;open;high;low;close;volume\n" + f"{START};1,234;1,234;1,234;1,234;1\n"
REFUSED: dict[str, tuple[Write, str]] = {
    "thousands or decimals": (
        file("BTC-15m.csv", THOUSANDS),
        "BTC-15m.csv: cannot be read: '1,234' may be 1.234 or 1234; write numbers with a decimal",
    ),
    "thousands": (
        file("BTC-15m.csv", THOUSANDS.replace("1,234", "1,234.5")),
        "BTC-15m.csv: cannot be read: '1,234.5' has marks between thousands; write numbers without",
    ),
    "pickle": (file("BTC-15m.pkl", b"\x80\x04N."), "BTC-15m.pkl (a pickle: reading one can run"),
    "pickled array": (
        array("15m/BTC/2024-01-01.npy", np.array([{}], dtype=object)),
        "15m/BTC/2024-01-01.npy: cannot be read: Object arrays cannot be loaded",
    ),
    "dollars": (file("BTC-USD-15m.csv", text()), "BTC-USD-15m.csv (prices in USD, not USDT;"),
    "another exchange": (
        file("BYBIT_BTCUSDT.P, 15.csv", text()),
        "BYBIT_BTCUSDT.P, 15.csv (of another exchange (bybit);",
    ),
    "another exchange's folder": (
        array("bybit/15m/BTC/2024-01-01.npy", RECORDS),
        "bybit/15m/BTC/2024-01-01.npy (of another exchange (bybit);",
    ),
    "zip of two": (
        zipped("BTC-15m.zip", text(), text()),
        "BTC-15m.zip: cannot be read: holds 2 files, must hold one",
    ),
    "gzip bomb": (
        file("BTC-15m.csv.gz", gzip.compress(b"0" * (8 << 20))),
        "BTC-15m.csv.gz: cannot be read: it is compressed more than 200 to 1",
    ),
    "damaged gzip": (
        file("BTC-15m.csv.gz", gzip.compress(text().encode())[:40]),
        "BTC-15m.csv.gz: cannot be read: Compressed file ended",
    ),
    "json of columns": (
        file("BTC-15m.json", CANDLES.to_json()),
        "BTC-15m.json: cannot be read: it must be a list of rows [time, open,",
    ),
    "json rows of five": (
        file("BTC-15m.json", json.dumps([row[:5] for row in rows()])),
        "BTC-15m.json: cannot be read: rows have 5 values, must have 6",
    ),
    "yfinance of two": (
        file("BTC-15m.csv", "Price,Close,Close\nTicker,BTC-USD,ETH-USD\nDatetime,,\n"),
        "BTC-15m.csv: cannot be read: it holds several tickers; write a file for each",
    ),
    "times that differ": (
        both(file("BTC-15m.csv", text()), file("x/BTC-15m.csv", text(CANDLES.assign(volume=4.5)))),
        "BTC-15m.csv to x/BTC-15m.csv: two files say different things of 2024-01-01 00:00",
    ),
    "a row that contradicts": (
        file("BTC-15m.csv", text(pd.concat([CANDLES.iloc[:1], CANDLES.assign(volume=4.5)]))),
        "BTC-15m.csv: row 1",
    ),
    "any order": (file("BTC-15m.csv", text(CANDLES.iloc[[0, 3, 1, 2]])), "BTC-15m.csv: row 2"),
    "coarser": (file("BTC-1h.csv", text()), "no 15m candles of BTC; found: BTC 1h"),
    "minutes that fill no bar": (
        file("BTC-1m.csv", text(minutes(1).iloc[:14])),
        "BTC-1m.csv: candles of 15m are made of those of 1m, but no bar has all of them",
    ),
}


@pytest.mark.parametrize("source", READ)
def test_files_of_every_program_are_read_to_the_same_candles(source: str, tmp_path: Path) -> None:
    READ[source](tmp_path)
    folder = CandleFolder(tmp_path)
    pd.testing.assert_frame_equal(folder.candles("BTC", "15m").candles, CANDLES)
    assert folder.not_read(["BTC"], ["15m"]) == []


@pytest.mark.parametrize("source", REFUSED)
def test_what_cannot_be_known_is_refused_in_one_line(source: str, tmp_path: Path) -> None:
    write, message = REFUSED[source]
    write(tmp_path)
    folder = CandleFolder(tmp_path)
    with pytest.raises(DataError) as refused:
        folder.candles("BTC", "15m")
    told = "\n".join([str(refused.value), *folder.not_read(["BTC"], ["15m"])])
    assert message in told
    assert "\n" not in str(refused.value)


RATES = funding_table([[START, 0.0001], [START + 8 * HOUR_MS, -0.0002]])
SETTLED = pd.DataFrame(
    {"calc_time": RATES["timestamp"] + 3, "funding_interval_hours": 8, "rate": RATES["rate"]}
).rename(columns={"rate": "last_funding_rate"})
FUNDING: dict[str, Write] = {
    "archive": file("BTCUSDT-fundingRate-2024-01.csv", text(SETTLED)),
    "archive zip, no header": zipped(
        "BTCUSDT-fundingRate-2024-01.zip", text(SETTLED, header=False)
    ),
    "freqtrade json": file(
        "BTC_USDT_USDT-8h-funding_rate.json",
        json.dumps([[int(at), rate, 0, 0, 0, 0] for at, rate in RATES.to_numpy().tolist()]),
    ),
    "ccxt json": file(
        "BTC-funding.json",
        json.dumps(
            [
                {"symbol": "BTC/USDT:USDT", "timestamp": int(at), "fundingRate": rate, "info": {}}
                for at, rate in RATES.to_numpy().tolist()
            ]
        ),
    ),
    "newest first": file("BTC-funding.csv", text(RATES.iloc[::-1])),
}


@pytest.mark.parametrize("source", FUNDING)
def test_funding_of_every_program_is_read_to_the_same_rates(source: str, tmp_path: Path) -> None:
    FUNDING[source](tmp_path)
    found = CandleFolder(tmp_path).funding("BTC")
    assert found is not None
    pd.testing.assert_frame_equal(found, RATES)


def test_a_folder_is_listed_with_ranges_gaps_joins_and_what_is_not_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file("BTC-15m.csv", text(CANDLES.iloc[:5]))(tmp_path)
    file("more/BTC-15m.csv", text(CANDLES.iloc[7:]))(tmp_path)
    file("ETH-1m.csv", text(minutes(1)))(tmp_path)
    file("BTC-funding.csv", text(RATES))(tmp_path)
    file("notes.txt", "mine")(tmp_path)
    file("BTC.csv", text())(tmp_path)
    assert main(["--data", str(tmp_path), "--list-data"]) == 0
    told = capsys.readouterr().out
    first, last = "2024-01-01 00:00", format_time(int(CANDLES["timestamp"].iloc[-1]))
    for line in (
        f"BTC 15m: {len(CANDLES) - 2} candles, {first} to {last}, gaps: 1 (2 candles), the first",
        "after 2024-01-01 01:00; from BTC-15m.csv, more/BTC-15m.csv",
        f"BTC funding: 2 rates, {first} to 2024-01-01 08:00; from BTC-funding.csv",
        f"ETH 15m: {len(CANDLES)} candles, {first} to {last}, no gaps; from ETH-1m.csv",
        "  ETH-1m.csv: candles of 15m are made of those of 1m",
        "notes.txt (not .csv,",
        "BTC.csv (BTC candles not asked for)",
    ):
        assert line in told
    file("SOL-15m.csv", "nothing")(tmp_path)
    assert main(["--data", str(tmp_path), "--list-data"]) == 2
    assert "SOL 15m: refused: SOL-15m.csv: has no time column" in capsys.readouterr().out
    assert main(["--list-data"]) == 2
    assert "--list-data is about a folder; add --data DIR" in capsys.readouterr().err


def test_bars_that_lack_minutes_are_left_out_and_said(tmp_path: Path) -> None:
    file("BTC-1m.csv", text(minutes(1).drop(index=[20])))(tmp_path)
    found = CandleFolder(tmp_path).candles("BTC", "15m")
    pd.testing.assert_frame_equal(found.candles, CANDLES.drop(index=1).reset_index(drop=True))
    [notice] = found.notices
    assert "made of those of 1m; 1 bars that lack some are left out: 2024-01-01 00:15" in notice


def test_files_that_are_no_parts_of_one_are_named_where_they_are_joined(tmp_path: Path) -> None:
    file("BTC_USDT-15m.csv", text(CANDLES.iloc[:10]))(tmp_path)
    file("BTC_USDT_USDT-15m-futures.csv", text(CANDLES.iloc[10:]))(tmp_path)
    joined = CandleFolder(tmp_path).candles("BTC", "15m")
    assert len(joined.candles) == len(CANDLES)
    said = "BTC: these files are taken for one series and joined: "
    assert f"{said}BTC_USDT-15m.csv, BTC_USDT_USDT-15m-futures.csv" in joined.notices
