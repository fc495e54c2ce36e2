"""Past months from the exchange's archive, and REST where it has none."""

from __future__ import annotations

import hashlib
import io
import random
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

import backtest.market.archive as archive_module
from backtest.market.archive import ARCHIVE_URL, BinanceArchive, https_get
from backtest.market.fetch import fetch_market
from backtest.market.renames import RENAMES
from core.errors import DataError, NetworkError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.support.exchanges.public_data import BAR, FEB, JAN, MAR, NOW, FakeBinance, candles, kline


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance()


HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore"


@pytest.mark.parametrize("header", ["", HEADER])
@pytest.mark.slow
def test_past_months_come_from_the_archive_and_the_tail_from_rest(
    binance: FakeBinance, tmp_path: Path, header: str
) -> None:
    binance.publish_month(JAN, FEB, "2024-01", header)
    binance.publish_month(FEB, MAR, "2024-02", header)
    market = binance.fetch(tmp_path, JAN + 6 * HOUR_MS, MAR + DAY_MS)
    pd.testing.assert_frame_equal(market.candles, candles(JAN + 6 * HOUR_MS, MAR + DAY_MS))
    assert [int(query["startTime"]) for query in binance.asked("/klines")] == [MAR - BAR + 1]


def test_microseconds_in_the_archive_are_understood(binance: FakeBinance) -> None:
    rows = [kline(time) for time in range(JAN, FEB, BAR)]
    binance.publish(
        "monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01", [[r[0] * 1000, *r[1:]] for r in rows]
    )
    tables = BinanceArchive(binance.get).candles("BTCUSDT", "15m", JAN, FEB, now_ms=NOW)
    pd.testing.assert_frame_equal(next(tables), candles(JAN, FEB))


def test_a_month_the_archive_lacks_comes_from_rest(binance: FakeBinance, tmp_path: Path) -> None:
    binance.publish_month(FEB, MAR, "2024-02")
    market = binance.fetch(tmp_path, JAN, MAR)
    pd.testing.assert_frame_equal(market.candles, candles(JAN, MAR))
    starts = [int(query["startTime"]) for query in binance.asked("/klines")]
    assert starts[0] == JAN
    assert max(starts) < FEB


def test_candles_missing_inside_an_archive_file_are_asked_of_rest(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.absent = set(range(JAN + 5 * DAY_MS, JAN + 6 * DAY_MS, BAR))
    binance.publish_month(JAN, FEB, "2024-01")
    binance.absent = set()
    market = binance.fetch(tmp_path, JAN, FEB)
    pd.testing.assert_frame_equal(market.candles, candles(JAN, FEB))


def test_a_short_range_does_not_touch_the_archive(binance: FakeBinance, tmp_path: Path) -> None:
    binance.fetch(tmp_path)
    assert binance.gets == []


def test_a_file_that_misses_its_checksum_is_fetched_once_more(binance: FakeBinance) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    whole = binance.files[url]
    cut = [whole[:-10], whole]

    def get(address: str) -> tuple[int, bytes]:
        return (200, cut.pop(0)) if address == url else binance.get(address)

    tables = BinanceArchive(get).candles("BTCUSDT", "15m", JAN, FEB, now_ms=NOW)
    pd.testing.assert_frame_equal(next(tables), candles(JAN, FEB))


def test_a_file_that_misses_its_checksum_twice_is_a_data_error(
    binance: FakeBinance, tmp_path: Path
) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    binance.files[url] = binance.files[url][:-10]
    with pytest.raises(DataError, match=r"BTCUSDT-15m-2024-01\.zip: does not match its checksum"):
        binance.fetch(tmp_path, JAN, FEB)
    assert binance.gets.count(url) == 2


def zipped(content: bytes, **options: Any) -> bytes:
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", **{"compression": zipfile.ZIP_DEFLATED, **options}) as archive:
        archive.writestr("a.csv", content)
    return body.getvalue()


def flipped(body: bytes, place: int, value: int) -> bytes:
    return body[:place] + bytes([value]) + body[place + 1 :]


CSV = b"1704067200000,1,2,0.5,1.5,9,0,0,0,0,0,0\n" * 50


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"PK\x03\x04",
        zipped(CSV)[:-30],
        zipped(CSV)[:60],
        flipped(zipped(CSV), 60, 0xFF),
        flipped(flipped(zipped(CSV), 6, 1), zipped(CSV).index(b"PK\x01\x02") + 8, 1),
        flipped(flipped(zipped(CSV), 8, 97), zipped(CSV).index(b"PK\x01\x02") + 10, 97),
        flipped(zipped(CSV, compression=zipfile.ZIP_LZMA), 50, 0xFF),
        zipped(b""),
        zipped(b"9" * 5_000 + b"," + CSV),
        b"PK\x05\x06" + bytes(18),
    ],
    ids=[
        "empty",
        "head",
        "cut",
        "short",
        "flipped",
        "encrypted",
        "method",
        "lzma",
        "nothing",
        "digits",
        "no member",
    ],
)
def test_a_damaged_zip_is_a_data_error_of_one_line(body: bytes) -> None:
    with pytest.raises(DataError, match="there: cannot be read") as caught:
        archive_module._read_csv(body, "there", {0: "timestamp", 1: "open"})  # noqa: SLF001
    assert "\n" not in str(caught.value)


def test_a_zip_that_swells_is_not_decompressed_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "_MOST_BYTES", 1_000_000)
    body = zipped(b"0" * 50_000_000)
    assert len(body) < 100_000
    tracemalloc.start()
    with pytest.raises(DataError, match="it holds more than"):
        archive_module._read_csv(body, "there", {0: "timestamp"})  # noqa: SLF001
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_a_file_without_a_checksum_is_not_believed(binance: FakeBinance, tmp_path: Path) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    del binance.files[f"{url}.CHECKSUM"]
    binance.fetch(tmp_path, JAN, FEB)
    assert len(binance.asked("/klines")) == 2


@pytest.mark.parametrize(
    "rows", [[["nonsense"]], [kline(JAN), kline(JAN)], [[JAN, "1", "0.5", "1", "1", "1"]], []]
)
def test_an_unusable_archive_file_is_replaced_by_rest(
    binance: FakeBinance, tmp_path: Path, rows: list[list[object]], caplog: pytest.LogCaptureFixture
) -> None:
    binance.publish("monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01", rows)
    market = binance.fetch(tmp_path, JAN, FEB)
    pd.testing.assert_frame_equal(market.candles, candles(JAN, FEB))
    assert "BTCUSDT-15m-2024-01" in caplog.text


def test_an_unreachable_archive_is_replaced_by_rest(
    binance: FakeBinance, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def get(url: str) -> tuple[int, bytes]:
        binance.gets.append(url)
        raise NetworkError("no route")

    history = binance.history()
    history._archive = BinanceArchive(get)  # noqa: SLF001 - only this source is down
    for coin in ("BTC", "ETH"):
        market = fetch_market(
            coin, JAN, FEB, timeframe="15m", cache_dir=tmp_path, now_ms=NOW, history=history
        )
        assert len(market.candles) == 31 * 96
    assert len(binance.gets) == 1, "the second coin must not wait for it again"
    assert "archive not used: no route" in caplog.text


def test_the_archive_suffices_where_the_exchange_is_blocked(binance: FakeBinance) -> None:
    binance.publish_month(JAN, FEB, "2024-01")
    history = binance.history()
    binance.is_blocked = True
    tables = list(history.candles("BTC", "15m", JAN, FEB, now_ms=NOW))
    pd.testing.assert_frame_equal(pd.concat(tables), candles(JAN, FEB))


def test_the_running_month_uses_daily_files_for_1m_candles_only(binance: FakeBinance) -> None:
    archive = BinanceArchive(binance.get)
    assert list(archive.candles("BTCUSDT", "1m", MAR + HOUR_MS, NOW, now_ms=NOW)) == []
    days = [url.rpartition("-1m-")[2] for url in binance.gets]
    assert days == [f"2024-03-{day:02d}.zip" for day in range(1, 10)]
    binance.gets.clear()
    assert list(archive.candles("BTCUSDT", "15m", MAR, NOW, now_ms=NOW)) == []
    assert binance.gets == []


def test_a_daily_file_is_read(binance: FakeBinance) -> None:
    rows = [kline(time) for time in range(MAR, MAR + DAY_MS, MINUTE_MS)]
    binance.publish("daily/klines/BTCUSDT/1m/BTCUSDT-1m-2024-03-01", rows, HEADER)
    tables = BinanceArchive(binance.get).candles("BTCUSDT", "1m", MAR, NOW, now_ms=NOW)
    pd.testing.assert_frame_equal(next(tables), candles(MAR, MAR + DAY_MS, MINUTE_MS))


def test_archived_funding_is_used_for_long_ranges() -> None:
    binance = FakeBinance(since_ms=JAN - 800 * DAY_MS)
    rows = [[time + 3, 8, "0.00025"] for time in range(JAN, FEB, 8 * HOUR_MS)]
    header = "calc_time,funding_interval_hours,last_funding_rate"
    binance.publish("monthly/fundingRate/BTCUSDT/BTCUSDT-fundingRate-2024-01", rows, header)
    tables = list(binance.history().funding("BTC", JAN - 700 * DAY_MS, FEB + 1, now_ms=NOW))
    rates = pd.concat(tables).sort_values("timestamp", ignore_index=True)
    assert rates["timestamp"].tolist() == list(range(JAN - 700 * DAY_MS, FEB, 8 * HOUR_MS))
    archived = rates["timestamp"] >= JAN
    assert set(rates["rate"][archived]) == {0.00025}
    assert set(rates["rate"][~archived]) == {0.0001}


def test_an_archive_out_of_reach_is_a_network_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def request(_: requests.Session, __: str, url: str, **___: object) -> requests.Response:
        raise requests.ConnectTimeout(url)

    monkeypatch.setattr(requests.Session, "request", request)
    with pytest.raises(NetworkError, match="cannot be reached"):
        https_get("https://archive.example/file.zip")


def damaged(body: bytes, place: int) -> bytes:
    return body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]


SOUND = zipped(b"1704067200000,1,2,1,1,1\n" * 500)
BROKEN_ZIPS = {
    "a bomb": zipped(bytes(32 << 20)),
    "too large": zipped(random.Random(1).randbytes(1 << 16) * 1_100),  # noqa: S311
    "no file": b"PK\x05\x06" + bytes(18),
    "no zip": b"<html>",
    "cut off": SOUND[:-40],
    "encrypted": damaged(SOUND, 6),
    **{f"damaged at {place}": damaged(SOUND, place) for place in (8, 30, 40, 50, 60, 70)},
}


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(body, id=name, marks=[pytest.mark.slow] if name == "too large" else [])
        for name, body in BROKEN_ZIPS.items()
    ],
)
def test_a_broken_zip_is_refused_in_one_line_and_replaced_by_rest(
    binance: FakeBinance, tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{ARCHIVE_URL}/monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01.zip"
    binance.files[url] = body
    binance.files[f"{url}.CHECKSUM"] = hashlib.sha256(body).hexdigest().encode()
    market = binance.fetch(tmp_path, JAN, FEB)
    pd.testing.assert_frame_equal(market.candles, candles(JAN, FEB))
    (warning,) = [item.getMessage() for item in caplog.records if "2024-01" in item.getMessage()]
    assert "\n" not in warning
    assert len(warning) < 400


def test_a_delisted_coin_is_taken_from_the_archive_and_its_new_name_is_said(tmp_path: Path) -> None:
    binance = FakeBinance()
    assert "MATIC" not in binance.coins
    rows = [kline(time) for time in range(JAN, FEB - 5 * DAY_MS, BAR)]
    binance.publish("monthly/klines/MATICUSDT/15m/MATICUSDT-15m-2024-01", rows)
    rates = [[time, 8, 0.0001] for time in range(JAN, FEB - 5 * DAY_MS, 8 * HOUR_MS)]
    binance.publish("monthly/fundingRate/MATICUSDT/MATICUSDT-fundingRate-2024-01", rates)
    market = binance.fetch(tmp_path, JAN, FEB, coin="MATIC")
    pd.testing.assert_frame_equal(market.candles, candles(JAN, FEB - 5 * DAY_MS))
    assert len(market.funding) == len(rates)
    assert binance.asked("/klines") == []
    [notice] = market.notices
    assert notice.startswith(
        "MATIC: the exchange lists it no more; its candles are from the archive"
    )
    assert notice.endswith(
        "and end at 2024-01-27 00:00, its market rules are not known; it is POL now "
        "(1 MATIC = 1 POL): for the time since run --coins POL --start 2024-01-27T00:00"
    )
    again = binance.fetch(tmp_path, JAN, FEB, coin="MATIC")
    assert again.data_hash == market.data_hash


def test_a_renamed_coin_that_the_archive_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown coin RNDR; .*; it is RENDER now \(1 RNDR = 1 R"):
        FakeBinance().fetch(tmp_path, JAN, FEB, coin="RNDR")
    with pytest.raises(DataError, match=r"unknown coin XYZ; nearest: none$"):
        FakeBinance().fetch(tmp_path, JAN, FEB, coin="XYZ")


def test_the_time_before_a_rename_is_named_with_the_name_to_ask_for(tmp_path: Path) -> None:
    listed = JAN + 10 * DAY_MS
    binance = FakeBinance(since_ms=listed)
    binance.coins.append("POL")
    market = binance.fetch(tmp_path, JAN, FEB, coin="POL")
    assert int(market.candles["timestamp"].iloc[0]) == listed
    [notice] = market.notices
    assert notice.startswith("POL was MATIC before its candles begin (1 MATIC = 1 POL), ")
    assert notice.endswith("run --coins MATIC --end 2024-01-11T00:00")
    assert binance.fetch(tmp_path, listed, FEB, coin="POL").notices == ()
    assert binance.fetch(tmp_path, JAN, FEB, coin="ETH").notices == ()


def test_a_range_wholly_before_a_rename_names_the_old_coin(tmp_path: Path) -> None:
    binance = FakeBinance(since_ms=FEB)
    binance.coins += ["S", "SKY"]
    with pytest.raises(
        DataError, match=r"candles of S .*; S was FTM .* run --coins FTM --end 2024"
    ):
        binance.fetch(tmp_path, JAN, JAN + 5 * DAY_MS, coin="S")
    with pytest.raises(DataError, match=r"\(1 MKR = 24,000 SKY\)"):
        binance.fetch(tmp_path, JAN, JAN + 5 * DAY_MS, coin="SKY")


@pytest.mark.parametrize(
    ("coin", "said"),
    [
        ("MATIC", "it is POL now (1 MATIC = 1 POL)"),
        ("MKR", "it is SKY now (1 MKR = 24,000 SKY)"),
        ("AGIX", "it went into FET now (1 AGIX = 0.43335 FET)"),
        ("LUNA", "its own coin trades as 1000LUNC since (1,000 LUNC), and LUNA2 is another coin"),
        ("PEPE", "the contract is on 1,000 PEPE at once: 1000PEPE"),
        ("BABYDOGE", "the contract is on 1,000,000 BABYDOGE at once: 1MBABYDOGE"),
    ],
)
def test_a_name_that_is_not_listed_is_answered_with_the_contract_there_is(
    tmp_path: Path, coin: str, said: str
) -> None:
    binance = FakeBinance()
    binance.coins.append("1MBABYDOGE")
    with pytest.raises(DataError) as refused:
        binance.fetch(tmp_path, JAN, FEB, coin=coin)
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_coin_is_renamed_twice_or_to_itself() -> None:
    old = [rename.old for rename in RENAMES]
    assert len(old) >= 9
    assert len(set(old)) == len(old)
    assert not {*old} & {rename.new for rename in RENAMES}
    assert all(rename.units > 0 and rename.units != 1 for rename in RENAMES if rename.merged)


def of_matic(binance: FakeBinance, kind: str, start_ms: int, end_ms: int, name: str) -> None:
    rows = [kline(time) for time in range(start_ms, end_ms, BAR)]
    binance.publish(f"{kind}/klines/MATICUSDT/15m/MATICUSDT-15m-{name}", rows)


def test_a_range_inside_one_month_of_a_delisted_coin_is_there(tmp_path: Path) -> None:
    binance = FakeBinance()
    of_matic(binance, "monthly", JAN, FEB, "2024-01")
    market = binance.fetch(tmp_path, JAN + DAY_MS, JAN + 9 * DAY_MS, coin="MATIC")
    pd.testing.assert_frame_equal(market.candles, candles(JAN + DAY_MS, JAN + 9 * DAY_MS))


def test_a_coin_delisted_this_month_is_read_by_days_and_asked_for_again(tmp_path: Path) -> None:
    binance = FakeBinance()
    of_matic(binance, "monthly", FEB, MAR, "2024-02")
    for day in range(5):
        first = MAR + day * DAY_MS
        of_matic(binance, "daily", first, first + DAY_MS, f"2024-03-0{day + 1}")
    found = binance.fetch(tmp_path, FEB, MAR + 9 * DAY_MS, coin="MATIC")
    pd.testing.assert_frame_equal(found.candles, candles(FEB, MAR + 5 * DAY_MS))
    end = MAR + 7 * DAY_MS  # a day that was published late
    binance.now_ms = MAR + 60 * DAY_MS
    of_matic(binance, "monthly", MAR, end, "2024-03")
    binance.publish(
        "monthly/fundingRate/MATICUSDT/MATICUSDT-fundingRate-2024-03",
        [[time, 8, 0.0001] for time in range(MAR, end, 8 * HOUR_MS)],
    )
    later = binance.fetch(tmp_path, FEB, MAR + 9 * DAY_MS, coin="MATIC")
    pd.testing.assert_frame_equal(later.candles, candles(FEB, end))
    assert len(later.funding) == 7 * 3
    binance.gets.clear()
    binance.fetch(tmp_path, FEB, MAR + 9 * DAY_MS, coin="MATIC")
    assert binance.gets == []  # now its end is known


@pytest.mark.parametrize("header", ["", HEADER])
def test_a_byte_order_mark_takes_no_candle_of_a_delisted_coin(tmp_path: Path, header: str) -> None:
    binance = FakeBinance()
    rows = [kline(time) for time in range(JAN, FEB, BAR)]
    lines = [*([header] if header else []), *(",".join(map(str, row)) for row in rows)]
    name = "monthly/klines/MATICUSDT/15m/MATICUSDT-15m-2024-01"
    body = zipped("\n".join(lines).encode("utf-8-sig"))
    url = f"{ARCHIVE_URL}/{name}.zip"
    binance.files[url] = body
    binance.files[f"{url}.CHECKSUM"] = hashlib.sha256(body).hexdigest().encode()
    market = binance.fetch(tmp_path, JAN, FEB, coin="MATIC")
    pd.testing.assert_frame_equal(market.candles, candles(JAN, FEB))
