"""Whatever reads candles says what is odd about them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import main
from backtest.optimize.trial.prepare import prepare
from backtest.optimize.trial.space import read_space
from backtest.simulator import BacktestSimulator
from config import OPTIMIZER_SPACE
from tests.support.markets.synthetic import synthetic_candles

DAYS = ("--start", "2024-01-08", "--end", "2024-01-20")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with candles of which one high is impossible, and a file of no use."""
    candles = synthetic_candles(80 * 96, 11)
    candles["high"] *= np.where(np.arange(len(candles)) == 1_000, 100.0, 1.0)
    candles.to_csv(tmp_path / "BTC-15m.csv", index=False)
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


@pytest.mark.parametrize(
    "asked", [(), ("--compare",), ("--check", "parity", "--budget", "2")], ids=" ".join
)
def test_main_says_what_is_odd_about_candles(
    folder: Path, asked: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    more = asked or ("--no-plot", "--output", str(folder / "out"))
    code = main.main(["--coins", "BTC", "--data", str(folder), *DAYS, *more])
    assert code == 0
    assert "warning: BTC: high lies at " in capsys.readouterr().err


def test_the_optimizer_says_what_is_odd_about_candles_and_what_it_did_not_read(
    folder: Path,
) -> None:
    simulator = BacktestSimulator(source=folder)
    prepared = prepare(
        simulator,
        read_space(OPTIMIZER_SPACE),
        coins=["BTC"],
        start="2024-01-03",
        end="2024-03-20",
        windows=1,
    )
    assert any("high lies at" in text for text in prepared.notices)
    assert any("notes.txt (not .csv" in text for text in prepared.notices)
