"""Trade files are byte for byte those of before: one digest a file.

Whoever changes results on purpose renews the digests in a commit that names each change.
"""

from __future__ import annotations

import hashlib
import platform
import sys
from pathlib import Path
from typing import Final

import pytest

import live_trade
from tests.conftest import Run
from tests.support.markets.recording import write_recording
from tests.support.paths import MARKET

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="exp, log and sqrt of another C library or processor may differ in the last bit, "
    "and with it the text of a profit",
)
COINS: Final = ("BTC", "ETH", "SOL")
DEMO: Final = {
    "BTC": "8cde76c6d31deec3678b012ea87fb9bbd30ce611eee379de8bbd9f752f038470",
    "ETH": "d948a1e9b75350a51e116b1efc631491b09839a3c5b0084a59102bcc735c0bbd",
    "SOL": "3037a8d3205a78c77f366312a54bcb7f4ae2a07f856f5200af86793be632006e",
}
PRESETS: Final = {
    "shipped": {
        "BTC": "3af5937f39906a24f8a81120db6f7759d3cafe22ce7a6a30e411d77257eccaa8",
        "ETH": "4cd70a209b57c040528cbf578b8b929c47e54077da0b7668a22c8c426053c7f8",
        "SOL": "8d239226c1929adea182f3cda4626e15d3254f3063c88299b7a56de1ab785619",
    },
    "documented": {
        "BTC": "5868c341ab0e81e4b64a39a1cdd2a01deaf637a16a556f42a80679bea2d6d0a6",
        "ETH": "0c83634af15f7cebe47f89e5b4587fe7288f5b7771acffcc911e4b96f4f378cc",
        "SOL": "9ad0b11f50f75955d35293e9e2812c8a4eceb53d898a7c23248fdec5728f5a24",
    },
}
REPLAY: Final = {
    "shipped": "543f2336087873eef973af2fd431ce57c017ed4ee61cd2069b624547c9e406ed",
    "documented": "020c16faa2236c160530d78aa4248268e72626c3dce1628a481e93792ee4936b",
}


def digests(folder: Path, names: tuple[str, ...]) -> dict[str, str]:
    return {
        name: hashlib.sha256((folder / f"{name}_trades.csv").read_bytes()).hexdigest()
        for name in names
    }


@pytest.mark.slow
def test_the_demo_trades_as_it_always_did(run: Run, tmp_path: Path) -> None:
    code, _, err = run("--demo", "--no-plot", "--output", "out")
    assert code == 0, err
    assert digests(tmp_path / "out", COINS) == DEMO


@pytest.mark.slow
@pytest.mark.skipif(not MARKET.is_dir(), reason="no real candles: ../shared/market is missing")
@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_trades_on_real_candles_as_it_always_did(
    run: Run, tmp_path: Path, preset: str
) -> None:
    span = ("--start", "2024-01-01", "--end", "2025-07-01")
    market = ("--coins", *COINS, "--data", str(MARKET), *span)
    code, _, err = run(*market, "--preset", preset, "--no-plot", "--output", "out")
    assert code == 0, err
    assert digests(tmp_path / "out", COINS) == PRESETS[preset]


@pytest.mark.slow
@pytest.mark.parametrize("preset", REPLAY)
def test_a_replay_trades_as_it_always_did(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_recording(tmp_path)
    span = ["--start", "2024-01-05", "--end", "2024-02-09"]
    code = live_trade.main(
        ["--coin", "BTC", "--replay", ".", *span, "--preset", preset, "--replay-dir", "out"]
    )
    trades = (tmp_path / "out/BTCUSDT_replay_trades.csv").read_bytes()
    assert code == 0
    assert trades.count(b"\n") > 40
    assert hashlib.sha256(trades).hexdigest() == REPLAY[preset]
