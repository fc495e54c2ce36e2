"""A range that crosses a delisting: what was traded counts, what was not is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import backtest.market.fetch
import main
from backtest.market.timeframes import parse_time
from config import BACKTEST_CONFIG
from core.times import DAY_MS, HOUR_MS
from tests.support.exchanges.public_data import BAR, JAN, FakeBinance
from tests.support.markets.synthetic import synthetic_candles

ENDED = JAN + 19 * DAY_MS + 9 * HOUR_MS
RANGE = ("--start", "2024-01-10", "--end", "2024-01-25", "--no-plot", "--preset", "documented")


@pytest.fixture
def output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of files; the exchange lists ETH, and MATIC until 2024-01-20 09:00."""
    binance = FakeBinance(now_ms=parse_time("2024-02-02", "now"), since_ms=JAN)
    rows = synthetic_candles((ENDED - JAN) // BAR, 29).to_numpy().tolist()
    rows = [[int(time), *prices] for time, *prices in rows]
    assert (rows[0][0], rows[-1][0]) == (JAN, ENDED - BAR)
    binance.publish("monthly/klines/MATICUSDT/15m/MATICUSDT-15m-2024-01", rows)
    rates = [[time, 8, 0.0001] for time in range(JAN, ENDED, 8 * HOUR_MS)]
    binance.publish("monthly/fundingRate/MATICUSDT/MATICUSDT-fundingRate-2024-01", rates)
    monkeypatch.setattr(backtest.market.fetch, "BinanceHistory", binance.history)
    monkeypatch.setattr(backtest.market.fetch, "present_ms", lambda: binance.now_ms)
    monkeypatch.setitem(BACKTEST_CONFIG, "cache_dir", str(tmp_path / "cache"))
    return tmp_path / "output"


def command(output: Path, *arguments: str) -> int:
    return main.main([*arguments, "--output", str(output)])


def summary_of(output: Path, name: str) -> dict[str, Any]:
    return dict(json.loads((output / f"{name}_summary.json").read_text()))


def test_a_coin_delisted_in_mid_range_is_closed_there_and_audited(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(output, "--coins", "MATIC", *RANGE) == 0
    out, err = capsys.readouterr()
    found = summary_of(output, "MATIC")
    assert found["data"]["end"] == "2024-01-20 09:00"
    assert found["data"]["missing_after"] == (JAN + 24 * DAY_MS - ENDED) // BAR
    said = "run --coins POL --start 2024-01-20T09:00"
    assert any(said in notice for notice in found["notices"])
    assert said in err
    assert "are missing" in out
    trades = pd.read_csv(output / "MATIC_trades.csv")
    assert len(trades) > 20
    assert int(trades["timestamp"].iloc[-1]) == ENDED - BAR
    assert trades["label"].iloc[-1] == "CLOSE_END"
    assert command(output, "--audit") == 0
    assert "MATIC_summary.json: nothing wrong" in capsys.readouterr().out


@pytest.mark.parametrize("together", [(), ("--portfolio",)], ids=["apart", "in step"])
def test_a_portfolio_goes_on_without_the_coin_that_was_delisted(
    output: Path, together: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(output, "--coins", "ETH", "MATIC", *RANGE, *together) == 0
    assert "run --coins POL --start 2024-01-20T09:00" in capsys.readouterr().err
    coins = {name: summary_of(output, name) for name in ("ETH", "MATIC")}
    whole = summary_of(output, "portfolio")
    assert whole["data"]["bars"] == coins["ETH"]["data"]["bars"] == 15 * 96
    assert whole["data"]["common_bars"] == coins["MATIC"]["data"]["bars"] < 15 * 96
    ranges = whole["data"]["ranges"]
    assert ranges["MATIC"]["end"] == "2024-01-20 09:00"
    assert ranges["ETH"]["end"] == "2024-01-25 00:00"
    total = sum(coin["metrics"]["final_capital"] for coin in coins.values())
    assert round(whole["metrics"]["final_capital"], 2) == round(total, 2)
    after = pd.read_csv(output / "ETH_trades.csv")["timestamp"] > ENDED
    assert after.any()
    assert command(output, "--audit") == 0
    assert "portfolio_summary.json: nothing wrong" in capsys.readouterr().out


def test_a_range_wholly_after_the_delisting_is_refused_with_the_new_name(
    output: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    days = ("--start", "2024-01-24", "--end", "2024-01-30", "--no-plot")
    assert command(output, "--coins", "MATIC", *days) == 2
    [line] = [text for text in capsys.readouterr().err.splitlines() if text.startswith("error: ")]
    assert line.startswith("error: Insufficient data for MATIC: 0 candles between 2024-01-24 00:00")
    assert line.endswith(
        "(1 MATIC = 1 POL): for the time since run --coins POL --start 2024-01-20T09:00"
    )
