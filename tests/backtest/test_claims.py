"""The benchmark of the design's claims: windows by rule, figures, a document with a verdict."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from backtest.market.demo import demo_market
from backtest.market.market_data import MarketData
from benchmarks import claims, claims_runs, claims_text
from benchmarks.claims_runs import Window
from core.records import dtype_of
from engine.results import RunResult
from engine.tables import BarLog


def outcome(total: float = 0.0, fall: float = 0.0, curve: tuple[float, ...] = ()) -> RunResult:
    metrics: dict[str, Any] = {"total_return_pct": total, "max_drawdown_pct": fall}
    log: Any = np.zeros(len(curve), dtype_of(BarLog))
    log["equity"] = curve
    nothing = np.empty(0, np.int64)
    return RunResult(metrics, log, nothing, nothing, 0, "", 1.0)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.integers(1, 7), st.integers(1, 5))
def test_chosen_windows_are_the_strongest_that_do_not_overlap(
    scores: list[float], n_bars: int, count: int
) -> None:
    starts = np.arange(len(scores)) * 2
    rows = claims_runs.strongest(np.array(scores), starts, n_bars, count)
    assert scores[rows[0]] == max(scores)
    assert [scores[row] for row in rows] == sorted((scores[row] for row in rows), reverse=True)
    gaps = np.diff(np.sort(starts[rows]))
    assert np.all(gaps >= n_bars)
    for row, score in enumerate(scores):
        clear = all(abs(starts[row] - starts[other]) >= n_bars for other in rows)
        assert row in rows or not clear or len(rows) == count or score <= scores[rows[-1]]
    assert len(rows) <= count


def test_windows_start_at_midnight_with_their_warm_up_before_them() -> None:
    market = demo_market("ETH")
    times = market.candles["timestamp"].to_numpy()
    for window in (*claims_runs.trends(market, 1.0), *claims_runs.trends(market, -1.0)):
        assert times[window.first] % 86_400_000 == 0
        assert window.first >= claims_runs.WARMUP_BARS
        part = market.candles.iloc[window.first : window.first + window.n_bars]
        move = part["close"].iloc[-1] / part["open"].iloc[0] - 1.0
        assert window.move_pct == pytest.approx(100.0 * move)
        assert len(part) == 90 * 96


def test_a_crash_is_measured_to_its_lowest_low_and_traded_from_before() -> None:
    market = demo_market("ETH")
    worst = claims_runs.crashes(market)[0]
    part = market.candles.iloc[worst.first : worst.first + worst.n_bars]
    assert worst.move_pct == pytest.approx(100.0 * (part["low"].min() / part["open"].iloc[0] - 1.0))
    assert worst.first >= claims_runs.WARMUP_BARS + 27 * 96
    assert worst.move_pct < -20.0


def test_the_share_captured_is_return_over_move() -> None:
    window = Window("BTC", 0, 2, 50.0)
    assert claims_text.captured(window, outcome(total=10.0)) == pytest.approx(20.0)


def test_the_loss_in_a_fall_counts_from_the_equity_before_it() -> None:
    window = Window("BTC", 0, 2, -30.0)
    fallen = outcome(curve=(100.0, 200.0, 150.0, 180.0))
    assert claims_text.loss_in_fall(window, fallen) == pytest.approx(-25.0)
    gone = outcome(curve=(100.0, 0.0, 0.0, 0.0))
    assert claims_text.loss_in_fall(window, gone) == -100.0


def test_without_recorded_candles_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(claims, "REAL_MARKET", claims_runs.ROOT / "nowhere")
    assert claims.main() == 2
    assert "no recorded candles" in capsys.readouterr().err


def test_the_share_of_real_settlements_is_counted_per_window() -> None:
    market = replace(demo_market("BTC"), brackets=None)
    window = Window("BTC", 4_800, 960, 0.0)  # ten days from a midnight on
    assert claims_runs.real_funding_pct(market, window, 0) == 100.0
    start_ms = int(market.candles["timestamp"].iloc[window.first])
    times = market.funding["timestamp"]
    first_half = times <= start_ms + 5 * 86_400_000
    half = replace(market, funding=market.funding[first_half].reset_index(drop=True))
    # 15 of 28: modelled settlements begin 24 h after the last real one, so two of the 15 that
    # follow at 00, 08 and 16 UTC do not exist.
    assert claims_runs.real_funding_pct(half, window, 0) == pytest.approx(100.0 * 15 / 28)
    assert claims_runs.real_funding_pct(half, window, 10) == pytest.approx(100.0 * 45 / 58)
    none = replace(market, funding=market.funding[:0])
    assert claims_runs.real_funding_pct(none, window, 0) == 0.0


@pytest.fixture(scope="module")
def written() -> str:
    """Return the document on one coin of the demo."""
    markets: dict[str, MarketData] = {"BTC": replace(demo_market("BTC"), brackets=None)}
    return claims_text.document(markets, claims_runs.measure(markets))


@pytest.mark.slow
def test_the_document_has_a_verdict_for_each_claim(written: str) -> None:
    sections = written.split("\n## ")[1:]
    assert len(sections) == 3
    for section in sections:
        verdict = section.split("\n\n")[1]
        assert verdict.startswith(("**Found", "**Not found"))


@pytest.mark.slow
def test_the_document_shows_every_run_of_every_window(written: str) -> None:
    rows = [line for line in written.splitlines() if line.startswith("| BTC | ")]
    assert len(rows) == 3 + 3 + 5
    for preset in ("shipped", "documented"):
        for name in (f"| static grid, {preset}", f"| {preset} |", f"| {preset} without trailing |"):
            assert name in written
    assert "| real funding |" in written
    assert written.count("| 100 % |") == len(rows)


def test_the_published_document_is_the_generators() -> None:
    text = claims_runs.DOCUMENT.read_text(encoding="utf-8")
    assert text.count("\n## ") == 3
    assert "with real funding" not in text
    assert "| real funding |" in text
    assert "python3 -m benchmarks.claims" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("|")) <= 100
