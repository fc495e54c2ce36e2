"""``fetch_data``, the public one-liner, and what a run shows meanwhile."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from backtest.data_fetcher import fetch_data
from backtest.market import fetch
from backtest.market.fetch import fetch_market
from config import BACKTEST_CONFIG
from core.times import DAY_MS, HOUR_MS
from tests.support.exchanges.public_data import BAR, FEB, NOW, FakeBinance


@pytest.fixture
def binance() -> FakeBinance:
    return FakeBinance()


def test_fetch_data_joins_rates_to_the_bar_they_settle_at(
    binance: FakeBinance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(BACKTEST_CONFIG, "cache_dir", str(tmp_path))
    monkeypatch.setattr(fetch, "BinanceHistory", binance.history)
    monkeypatch.setattr(fetch, "present_ms", lambda: NOW)
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
    monkeypatch.setattr(fetch, "BinanceHistory", binance.history)
    monkeypatch.setattr(fetch, "present_ms", lambda: NOW)
    newest = int(fetch_data("BTCUSDT", start="2024-03-09")["timestamp"].iloc[-1])
    assert newest == NOW - NOW % BAR - BAR


def test_progress_is_shown_when_asked_for(
    binance: FakeBinance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fetch, "_BAR_DELAY_SECONDS", 0.0)
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
        binance.fetch(tmp_path)
    assert caplog.text == ""


def test_fetch_data_says_what_a_run_would_say_of_the_candles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    binance = FakeBinance(since_ms=FEB)
    binance.coins.append("POL")
    binance.absent = {FEB + DAY_MS}
    monkeypatch.setitem(BACKTEST_CONFIG, "cache_dir", str(tmp_path))
    monkeypatch.setattr(fetch, "BinanceHistory", binance.history)
    monkeypatch.setattr(fetch, "present_ms", lambda: NOW)
    with caplog.at_level(logging.WARNING):
        assert len(fetch_data("POL", "15m", "2024-01-20", "2024-02-03")) == 191
    said = [record.getMessage() for record in caplog.records]
    assert any("run --coins MATIC --end 2024-02-01T00:00" in text for text in said)
    assert "POL: 1 candle is missing from 2024-02-02 00:00 to 2024-02-02 00:15" in said
