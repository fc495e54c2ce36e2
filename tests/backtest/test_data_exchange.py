"""Downloading from the exchange, with the network faked below ccxt and the archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import requests

from backtest.market.rest import CANDLE_ROWS, DOWNLOAD_SETTINGS, MARKETS_FILE, public_connection
from core.errors import ConfigError, DataError, NetworkError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS
from tests.support.exchanges.public_data import BAR, FEB, JAN, NOW, FakeBinance, candles, kline


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance()


def no_network() -> tuple[int, str]:
    raise requests.ConnectionError("Name or service not known")


def answering(status: int, body: str) -> Callable[[], tuple[int, str]]:
    return lambda: (status, body)


def test_candles_come_as_the_exchange_has_them(binance: FakeBinance, tmp_path: Path) -> None:
    market = binance.fetch(tmp_path)
    pd.testing.assert_frame_equal(market.candles, candles(FEB, FEB + DAY_MS))
    assert (market.coin, market.bar_ms, market.source) == ("BTC", BAR, "Binance archive + REST")
    assert market.gaps == []


def test_a_range_longer_than_a_page_is_paged_without_loss_or_repetition(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = binance.fetch(tmp_path, FEB, FEB + 20 * DAY_MS)
    pd.testing.assert_frame_equal(market.candles, candles(FEB, FEB + 20 * DAY_MS))
    pages = binance.asked("/klines")
    assert {page["limit"] for page in pages} == {str(CANDLE_ROWS)}
    assert len(pages) == 2


def test_funding_is_paged_and_its_times_are_cut_to_the_minute() -> None:
    binance = FakeBinance(since_ms=JAN - 400 * DAY_MS)
    tables = list(binance.rest().funding("BTCUSDT", JAN - 400 * DAY_MS, JAN + 1))
    times = pd.concat(tables)["timestamp"].tolist()
    assert times == list(range(JAN - 400 * DAY_MS, JAN, 8 * HOUR_MS))
    assert len(binance.asked("/fundingRate")) == 3  # 1,000 rows, 200 rows, nothing more


def test_funding_reaches_to_the_close_of_the_last_candle(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = binance.fetch(tmp_path)
    assert market.funding["timestamp"].tolist() == list(range(FEB, FEB + DAY_MS + 1, 8 * HOUR_MS))


def test_the_candle_still_forming_is_neither_returned_nor_stored(
    binance: FakeBinance, tmp_path: Path
) -> None:
    market = binance.fetch(tmp_path, NOW - DAY_MS, NOW + DAY_MS)
    newest = int(market.candles["timestamp"].iloc[-1])
    assert newest + BAR <= NOW < newest + 2 * BAR
    assert pd.read_parquet(tmp_path / "BTC-15m.parquet")["timestamp"].max() == newest


def test_a_hole_of_the_exchange_stays_a_hole_and_is_reported(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.absent = {FEB + 10 * BAR, FEB + 11 * BAR}
    market = binance.fetch(tmp_path)
    assert market.gaps == [(FEB + 10 * BAR, FEB + 12 * BAR, 2)]
    assert len(market.candles) == 94


def test_market_rules_are_looked_up_once_and_kept(binance: FakeBinance, tmp_path: Path) -> None:
    rules = binance.fetch(tmp_path).rules
    assert rules == {
        "tick_size": 0.1,
        "step_size": 0.001,
        "min_qty": 0.002,
        "min_notional": 100.0,
        "liquidation_fee": 0.0125,
    }
    assert set(json.loads((tmp_path / MARKETS_FILE).read_text())) == set(binance.coins)
    binance.fetch(tmp_path, coin="ETH")
    assert len(binance.asked("/exchangeInfo")) == 1


def test_an_unknown_coin_is_named_with_the_nearest_ones(
    binance: FakeBinance, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"unknown coin PEPE; nearest: 1000PEPE"):
        binance.fetch(tmp_path, coin="PEPE")
    assert binance.asked("/klines") == []


def test_a_symbol_the_exchange_refuses_is_a_data_error(binance: FakeBinance) -> None:
    binance.next_answers = [answering(400, '{"code":-1121,"msg":"Invalid symbol."}')]
    with pytest.raises(DataError, match="no market BTCUSDT"):
        list(binance.rest().candles("BTCUSDT", "15m", FEB, FEB + DAY_MS))


def test_lost_requests_are_repeated_with_growing_waits(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.next_answers = [no_network, no_network, answering(503, "Service Unavailable")]
    market = binance.fetch(tmp_path)
    assert len(market.candles) == 96
    assert binance.waits == [0.5, 1.0, 2.0]


def test_without_a_network_the_error_names_the_ways_out(
    binance: FakeBinance, tmp_path: Path
) -> None:
    binance.next_answers = [no_network] * 5
    with pytest.raises(NetworkError, match="--demo or --data DIR"):
        binance.fetch(tmp_path)
    assert binance.waits == [0.5, 1.0, 2.0, 4.0]
    assert len(binance.queries) == 5


def test_the_real_client_keeps_to_the_rate_limit_and_has_no_keys() -> None:
    connection = public_connection()
    assert not connection.has_keys
    assert connection.usage().weight_1m == 0
    assert DOWNLOAD_SETTINGS["max_weight_share"] <= 0.5


def test_a_refusal_is_not_repeated(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(401, '{"code":-2015,"msg":"Invalid API-key"}')] * 5
    with pytest.raises(NetworkError, match="AuthenticationError"):
        binance.fetch(tmp_path)
    assert binance.waits == []


def test_too_many_requests_wait_as_long_as_asked(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(429, '{"code":-1003,"msg":"Too many requests"}')]
    assert len(binance.fetch(tmp_path).candles) == 96
    assert binance.waits == [7.0]


def test_a_ban_is_not_waited_for(binance: FakeBinance, tmp_path: Path) -> None:
    binance.next_answers = [answering(418, '{"code":-1003,"msg":"banned"}')]
    with pytest.raises(NetworkError, match="7200 s"):
        binance.fetch(tmp_path)
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
    pd.testing.assert_frame_equal(pd.concat(tables), candles(FEB, FEB + DAY_MS))
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
        binance.fetch(tmp_path)
    assert not (tmp_path / "BTC-15m.parquet").exists()


def test_a_range_before_the_listing_is_a_data_error(binance: FakeBinance, tmp_path: Path) -> None:
    early = binance.since_ms - 5 * DAY_MS
    with pytest.raises(DataError, match="no 15m candles of BTC from 2023-11-17 00:00"):
        binance.fetch(tmp_path, early, early + DAY_MS)


@pytest.mark.parametrize(("start", "end"), [(FEB, FEB), (FEB, FEB - BAR), (NOW, NOW + DAY_MS)])
def test_a_range_without_a_finished_candle_is_refused(
    binance: FakeBinance, tmp_path: Path, start: int, end: int
) -> None:
    with pytest.raises(ConfigError, match="no finished candle"):
        binance.fetch(tmp_path, start, end)


def test_1m_detail_is_fetched_beside_the_candles(binance: FakeBinance, tmp_path: Path) -> None:
    market = binance.fetch(tmp_path, detail="1m")
    assert market.detail is not None
    pd.testing.assert_frame_equal(market.detail, candles(FEB, FEB + DAY_MS, MINUTE_MS))
    assert binance.fetch(tmp_path).detail is None


@pytest.mark.parametrize("ahead_ms", [-3 * DAY_MS, -7 * MINUTE_MS, 7 * MINUTE_MS, 3 * DAY_MS])
def test_the_exchanges_clock_decides_which_candles_have_closed(
    binance: FakeBinance, ahead_ms: int
) -> None:
    binance.ahead_ms = ahead_ms
    assert binance.rest().server_ms() == NOW
    tables = list(binance.history().candles("BTC", "15m", NOW - DAY_MS, NOW + DAY_MS, now_ms=NOW))
    newest = int(tables[-1]["timestamp"].iloc[-1])
    assert newest + BAR <= NOW < newest + 2 * BAR


def test_a_clock_days_ahead_finishes_no_month_of_the_archive(binance: FakeBinance) -> None:
    history, ahead_ms = binance.history(), NOW + 40 * DAY_MS
    for table in history.candles("BTC", "15m", JAN, ahead_ms, now_ms=ahead_ms):
        assert int(table["timestamp"].iloc[-1]) + BAR <= NOW
    assert not any("2024-03" in url for url in binance.gets)
