"""Downloading from the exchange, with the network faked below ccxt and the archive."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import requests

from backtest import data_fetcher
from backtest.data_fetcher import fetch_data, fetch_market
from backtest.exchange_archive import BinanceArchive, https_get
from backtest.exchange_rest import MARKETS_FILE, PAGE_ROWS
from backtest.market_data import MarketData, candle_table
from backtest.timeframes import DAY_MS, HOUR_MS, MINUTE_MS
from config import BACKTEST_CONFIG
from core.errors import ConfigError, DataError, NetworkError
from tests.fake_binance import BAR, FEB, JAN, MAR, FakeBinance, kline

NOW = MAR + 9 * DAY_MS + 12 * HOUR_MS + 7 * MINUTE_MS


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance(NOW)


def fetch(
    binance: FakeBinance,
    cache_dir: Path,
    start_ms: int = FEB,
    end_ms: int = FEB + DAY_MS,
    *,
    coin: str = "BTC",
    detail: str | None = None,
) -> MarketData:
    return fetch_market(
        coin,
        start_ms,
        end_ms,
        timeframe="15m",
        detail=detail,
        cache_dir=cache_dir,
        now_ms=binance.now_ms,
        history=binance.history(),
    )


def expected(first_ms: int, end_ms: int, step_ms: int = BAR) -> pd.DataFrame:
    rows = [kline(time)[:6] for time in range(first_ms, end_ms, step_ms)]
    return candle_table([[row[0], *map(float, row[1:])] for row in rows])


def no_network() -> tuple[int, str]:
    raise requests.ConnectionError("Name or service not known")


def answering(status: int, body: str) -> Callable[[], tuple[int, str]]:
    return lambda: (status, body)


# --- REST --------------------------------------------------------------------------------------


def test_candles_come_as_the_exchange_has_them(binance: FakeBinance, tmp_path: Path) -> None:
    market = fetch(binance, tmp_path)
    pd.testing.assert_frame_equal(market.candles, expected(FEB, FEB + DAY_MS))
    assert (market.coin, market.bar_ms, market.source) == ("BTC", BAR, "Binance archive + REST")
    assert market.gaps == []


def test_a_range_longer_than_a_page_is_paged_without_loss_or_repetition(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = fetch(binance, tmp_path, FEB, FEB + 20 * DAY_MS)
    pd.testing.assert_frame_equal(market.candles, expected(FEB, FEB + 20 * DAY_MS))
    pages = binance.asked("/klines")
    assert {page["limit"] for page in pages} == {str(PAGE_ROWS)}
    assert len(pages) == 2


def test_funding_is_paged_and_its_times_are_cut_to_the_minute() -> None:
    binance = FakeBinance(NOW, since_ms=JAN - 400 * DAY_MS)
    tables = list(binance.rest().funding("BTCUSDT", JAN - 400 * DAY_MS, JAN + 1))
    times = pd.concat(tables)["timestamp"].tolist()
    assert times == list(range(JAN - 400 * DAY_MS, JAN, 8 * HOUR_MS))
    assert len(binance.asked("/fundingRate")) == 3  # 1,000 rows, 200 rows, nothing more


def test_funding_reaches_to_the_close_of_the_last_candle(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = fetch(binance, tmp_path)
    assert market.funding["timestamp"].tolist() == list(range(FEB, FEB + DAY_MS + 1, 8 * HOUR_MS))


def test_the_candle_still_forming_is_neither_returned_nor_stored(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = fetch(binance, tmp_path, NOW - DAY_MS, NOW + DAY_MS)
    newest = int(market.candles["timestamp"].iloc[-1])
    assert newest + BAR <= NOW < newest + 2 * BAR
    assert pd.read_parquet(tmp_path / "BTC-15m.parquet")["timestamp"].max() == newest


def test_a_hole_of_the_exchange_stays_a_hole_and_is_reported(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.absent = {FEB + 10 * BAR, FEB + 11 * BAR}
    market = fetch(binance, tmp_path)
    assert market.gaps == [(FEB + 10 * BAR, FEB + 12 * BAR, 2)]
    assert len(market.candles) == 94


def test_market_rules_are_looked_up_once_and_kept(binance: FakeBinance, tmp_path: Path) -> None:
    rules = fetch(binance, tmp_path).rules
    assert rules == {
        "tick_size": 0.1,
        "step_size": 0.001,
        "min_qty": 0.002,
        "min_notional": 100.0,
        "liquidation_fee": 0.0125,
    }
    assert set(json.loads((tmp_path / MARKETS_FILE).read_text())) == set(binance.coins)
    fetch(binance, tmp_path, coin="ETH")
    assert len(binance.asked("/exchangeInfo")) == 1


def test_a_damaged_rules_file_is_looked_up_again(binance: FakeBinance, tmp_path: Path) -> None:
    (tmp_path / MARKETS_FILE).write_text('{"BTC": [')
    assert fetch(binance, tmp_path).rules is not None
    assert "BTC" in json.loads((tmp_path / MARKETS_FILE).read_text())


def test_an_unknown_coin_is_named_with_the_nearest_ones(
    binance: FakeBinance, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"unknown coin PEPE; nearest: 1000PEPE"):
        fetch(binance, tmp_path, coin="PEPE")
    assert binance.asked("/klines") == []


def test_a_symbol_the_exchange_refuses_is_a_data_error(binance: FakeBinance) -> None:
    binance.next_answers = [answering(400, '{"code":-1121,"msg":"Invalid symbol."}')]
    with pytest.raises(DataError, match="no market BTCUSDT"):
        list(binance.rest().candles("BTCUSDT", "15m", FEB, FEB + DAY_MS))


def test_lost_requests_are_repeated_with_growing_waits(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.next_answers = [no_network, no_network, answering(503, "Service Unavailable")]
    market = fetch(binance, tmp_path)
    assert len(market.candles) == 96
    assert binance.waits == [0.5, 1.0, 2.0]


def test_without_a_network_the_error_names_the_ways_out(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.next_answers = [no_network] * 5
    with pytest.raises(NetworkError, match="--demo or --data DIR"):
        fetch(binance, tmp_path)
    assert binance.waits == [0.5, 1.0, 2.0, 4.0]
    assert len(binance.queries) == 5


def test_a_refusal_is_not_repeated(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(401, '{"code":-2015,"msg":"Invalid API-key"}')] * 5
    with pytest.raises(NetworkError, match="AuthenticationError"):
        fetch(binance, tmp_path)
    assert binance.waits == []


def test_too_many_requests_wait_as_long_as_told(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(429, '{"code":-1003,"msg":"Too many requests"}')]
    assert len(fetch(binance, tmp_path).candles) == 96
    assert binance.waits == [7.0]


def test_a_ban_is_not_waited_for(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(418, '{"code":-1003,"msg":"banned"}')]
    with pytest.raises(NetworkError, match="7200 s"):
        fetch(binance, tmp_path)
    assert binance.waits == []


RUBBISH = [
    "<html>maintenance</html>",
    "",
    "null",
    "{}",
    '[[1706745600000,"1","2"',
    '{"data": []}',
    "[null]",
    '[[null,"1","2","1","1","1"]]',
    f'[[{FEB},null,"2","1","1","1"]]',
    f'[[{FEB},"1","2"]]',
    f"[{json.dumps(kline(FEB - DAY_MS))}]",
    f"[{json.dumps(kline(FEB + DAY_MS))}]",
    f"[{json.dumps(kline(FEB + BAR))}, {json.dumps(kline(FEB))}]",
]


@pytest.mark.parametrize("body", RUBBISH)
def test_rubbish_with_status_200_is_asked_for_again(binance: FakeBinance, body: str) -> None:
    binance.next_answers = [answering(200, body)]
    tables = list(binance.rest().candles("BTCUSDT", "15m", FEB, FEB + DAY_MS))
    pd.testing.assert_frame_equal(pd.concat(tables), expected(FEB, FEB + DAY_MS))
    assert binance.waits == [0.5]


@pytest.mark.parametrize("body", RUBBISH[:7])
def test_rubbish_for_good_is_not_taken_for_an_empty_market(binance: FakeBinance, body: str) -> None:
    binance.next_answers = [answering(200, body)] * 5
    with pytest.raises(NetworkError, match="no answer from the exchange"):
        list(binance.rest().candles("BTCUSDT", "15m", FEB, FEB + DAY_MS))


@pytest.mark.parametrize("body", [*RUBBISH[:7], '[{"fundingTime": 1}]', '{"symbols": []}'])
def test_rubbish_is_not_taken_for_funding_or_rules(binance: FakeBinance, body: str) -> None:
    binance.next_answers = [answering(200, body)] * 5
    with pytest.raises(NetworkError):
        list(binance.rest().funding("BTCUSDT", FEB, FEB + DAY_MS))
    binance.next_answers = [answering(200, body)] * 5
    with pytest.raises(NetworkError):
        binance.rest().rules()


def test_markets_without_complete_filters_are_left_out(binance: FakeBinance) -> None:
    odd = {"contractType": "PERPETUAL", "quoteAsset": "USDT", "baseAsset": "ODD", "filters": []}
    dated = {**binance._market("LATE"), "contractType": "CURRENT_QUARTER"}  # noqa: SLF001
    markets = [odd, dated, binance._market("BTC")]  # noqa: SLF001
    binance.next_answers = [answering(200, json.dumps({"symbols": markets}))]
    assert set(binance.rest().rules()) == {"BTC"}


def test_impossible_candles_of_the_exchange_are_refused_and_not_kept(
    binance: FakeBinance, tmp_path: Path
) -> None:
    rows = [kline(FEB), kline(FEB + BAR)]
    rows[1][2] = "1.0"  # high below low
    binance.next_answers = [
        lambda: binance._usual("/exchangeInfo", {}),  # noqa: SLF001
        answering(200, json.dumps(rows)),
    ]
    with pytest.raises(DataError, match=r"BTC-15m from the exchange: row 1 .*is below low"):
        fetch(binance, tmp_path)
    assert not (tmp_path / "BTC-15m.parquet").exists()


def test_a_range_before_the_listing_is_a_data_error(binance: FakeBinance, tmp_path: Path) -> None:
    early = binance.since_ms - 5 * DAY_MS
    with pytest.raises(DataError, match="no 15m candles of BTC from 2023-11-17 00:00"):
        fetch(binance, tmp_path, early, early + DAY_MS)


@pytest.mark.parametrize(("start", "end"), [(FEB, FEB), (FEB, FEB - BAR), (NOW, NOW + DAY_MS)])
def test_a_range_without_a_finished_candle_is_refused(
    binance: FakeBinance, tmp_path: Path, start: int, end: int
) -> None:
    with pytest.raises(ConfigError, match="no finished candle"):
        fetch(binance, tmp_path, start, end)


def test_1m_detail_is_fetched_beside_the_candles(binance: FakeBinance, tmp_path: Path) -> None:
    market = fetch(binance, tmp_path, detail="1m")
    assert market.detail is not None
    pd.testing.assert_frame_equal(market.detail, expected(FEB, FEB + DAY_MS, MINUTE_MS))
    assert fetch(binance, tmp_path).detail is None


# --- archive -----------------------------------------------------------------------------------

HEADER = "open_time,open,high,low,close,volume,close_time,quote_volume,count,a,b,ignore"


@pytest.mark.parametrize("header", ["", HEADER])
def test_past_months_come_from_the_archive_and_the_tail_from_rest(
    binance: FakeBinance, tmp_path: Path, header: str
) -> None:
    binance.publish_month(JAN, FEB, "2024-01", header)
    binance.publish_month(FEB, MAR, "2024-02", header)
    market = fetch(binance, tmp_path, JAN + 6 * HOUR_MS, MAR + DAY_MS)
    pd.testing.assert_frame_equal(market.candles, expected(JAN + 6 * HOUR_MS, MAR + DAY_MS))
    assert [int(query["startTime"]) for query in binance.asked("/klines")] == [MAR - BAR + 1]


def test_microseconds_in_the_archive_are_understood(binance: FakeBinance) -> None:
    rows = [kline(time) for time in range(JAN, FEB, BAR)]
    binance.publish(
        "monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01", [[r[0] * 1000, *r[1:]] for r in rows]
    )
    tables = BinanceArchive(binance.get).candles("BTCUSDT", "15m", JAN, FEB, now_ms=NOW)
    pd.testing.assert_frame_equal(next(tables), expected(JAN, FEB))


def test_a_month_the_archive_lacks_comes_from_rest(binance: FakeBinance, tmp_path: Path) -> None:
    binance.publish_month(FEB, MAR, "2024-02")
    market = fetch(binance, tmp_path, JAN, MAR)
    pd.testing.assert_frame_equal(market.candles, expected(JAN, MAR))
    starts = [int(query["startTime"]) for query in binance.asked("/klines")]
    assert starts[0] == JAN
    assert max(starts) < FEB


def test_candles_missing_inside_an_archive_file_are_asked_of_rest(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.absent = set(range(JAN + 5 * DAY_MS, JAN + 6 * DAY_MS, BAR))
    binance.publish_month(JAN, FEB, "2024-01")
    binance.absent = set()
    market = fetch(binance, tmp_path, JAN, FEB)
    pd.testing.assert_frame_equal(market.candles, expected(JAN, FEB))


def test_a_short_range_does_not_touch_the_archive(binance: FakeBinance, tmp_path: Path) -> None:
    fetch(binance, tmp_path)
    assert binance.gets == []


def test_a_file_that_misses_its_checksum_is_fetched_once_more(binance: FakeBinance) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    whole = binance.files[url]
    cut = [whole[:-10], whole]

    def get(address: str) -> tuple[int, bytes]:
        return (200, cut.pop(0)) if address == url else binance.get(address)

    tables = BinanceArchive(get).candles("BTCUSDT", "15m", JAN, FEB, now_ms=NOW)
    pd.testing.assert_frame_equal(next(tables), expected(JAN, FEB))


def test_a_file_that_misses_its_checksum_twice_is_a_data_error(
    binance: FakeBinance, tmp_path: Path
) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    binance.files[url] = binance.files[url][:-10]
    with pytest.raises(DataError, match=r"BTCUSDT-15m-2024-01\.zip: does not match its checksum"):
        fetch(binance, tmp_path, JAN, FEB)
    assert binance.gets.count(url) == 2


def test_a_file_without_a_checksum_is_not_believed(binance: FakeBinance, tmp_path: Path) -> None:
    url = binance.publish_month(JAN, FEB, "2024-01")
    del binance.files[f"{url}.CHECKSUM"]
    fetch(binance, tmp_path, JAN, FEB)
    assert len(binance.asked("/klines")) == 3


@pytest.mark.parametrize(
    "rows",
    [
        [["nonsense"]],
        [kline(JAN), kline(JAN)],
        [[JAN, "1", "0.5", "1", "1", "1"]],
        [],
    ],
)
def test_an_unusable_archive_file_is_replaced_by_rest(
    binance: FakeBinance, tmp_path: Path, rows: list[list[object]], caplog: pytest.LogCaptureFixture
) -> None:
    binance.publish("monthly/klines/BTCUSDT/15m/BTCUSDT-15m-2024-01", rows)
    market = fetch(binance, tmp_path, JAN, FEB)
    pd.testing.assert_frame_equal(market.candles, expected(JAN, FEB))
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
    pd.testing.assert_frame_equal(next(tables), expected(MAR, MAR + DAY_MS, MINUTE_MS))


def test_archived_funding_is_used_for_long_ranges() -> None:
    binance = FakeBinance(NOW, since_ms=JAN - 800 * DAY_MS)
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
    def get(_: requests.Session, url: str, **__: object) -> requests.Response:
        raise requests.ConnectTimeout(url)

    monkeypatch.setattr(requests.Session, "get", get)
    with pytest.raises(NetworkError, match="cannot be reached"):
        https_get("https://archive.example/file.zip")


# --- the public one-liner ----------------------------------------------------------------------


def test_fetch_data_joins_rates_to_the_bar_they_settle_at(
    binance: FakeBinance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKTEST_CONFIG, "cache_dir", str(tmp_path))
    monkeypatch.setattr(data_fetcher, "BinanceHistory", binance.history)
    monkeypatch.setattr(data_fetcher, "_now_ms", lambda: NOW)
    table = fetch_data("BTC/USDT", "15m", "2024-02-01", "2024-02-03")
    names = ["timestamp", "open", "high", "low", "close", "volume", "fundingRate"]
    assert list(table.columns) == names
    assert len(table) == 192
    settled = table.loc[table["fundingRate"].notna(), "timestamp"]
    assert settled.tolist() == list(range(FEB, FEB + 2 * DAY_MS, 8 * HOUR_MS))
    assert np.all(table["fundingRate"].dropna() == 0.0001)


def test_fetch_data_ends_now_if_nothing_else_is_said(
    binance: FakeBinance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKTEST_CONFIG, "cache_dir", str(tmp_path))
    monkeypatch.setattr(data_fetcher, "BinanceHistory", binance.history)
    monkeypatch.setattr(data_fetcher, "_now_ms", lambda: NOW)
    newest = int(fetch_data("BTCUSDT", start="2024-03-09")["timestamp"].iloc[-1])
    assert newest == NOW - NOW % BAR - BAR


def test_progress_is_shown_when_asked_for(
    binance: FakeBinance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(data_fetcher, "_BAR_DELAY_SECONDS", 0.0)
    for progress, shown in ((True, True), (None, False), (False, False)):
        fetch_market(
            "BTC",
            FEB,
            FEB + DAY_MS,
            timeframe="15m",
            cache_dir=tmp_path / str(progress),
            now_ms=NOW,
            progress=progress,
            history=binance.history(),
        )
        captured = capsys.readouterr()
        assert captured.out == ""
        assert ("BTC" in captured.err) == shown


def test_nothing_is_logged_when_all_goes_well(
    binance: FakeBinance, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        fetch(binance, tmp_path)
    assert caplog.text == ""
