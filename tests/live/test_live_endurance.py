"""Three days of a live session: nothing grows, and the exchange is asked for little."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Final

import pytest

from live.simulated.exchange import SimExchange
from live.simulated.server import SimServer
from tests.support.markets.oracle import BAR_MS
from tests.support.markets.synthetic import RULES, synthetic_candles
from tests.support.processes.forked_sessions import ForkedSessions
from tests.support.processes.live_process import Wish

N_BARS: Final = 288
FIRST: Final = 1_100
"""The first candle traded; those before it are what the indicators need."""
WEIGHT_LIMIT: Final = 2_400
MOST_GROWTH_MB: Final = 10.0
MOST_STATE_KB: Final = 100.0
"""Every save writes all of it, several times a step."""


@pytest.mark.slow
def test_three_days_leave_memory_files_and_request_weight_where_they_were(tmp_path: Path) -> None:
    candles = synthetic_candles(FIRST + N_BARS + 2, 5)
    start_ms = int(candles["timestamp"].iloc[FIRST])
    funding = [(start_ms + hours * 3_600_000, 0.0002) for hours in range(0, 80, 8)]
    exchange = SimExchange(candles, rules=RULES, start_bar=FIRST, funding=funding)
    with ForkedSessions() as sessions, SimServer(exchange) as server:
        sessions.start(
            Wish(
                port=server.port,
                folder=str(tmp_path),
                until_ms=start_ms + N_BARS * BAR_MS + 1_000,
                arguments=("--preset", "documented", "--set=kama_slow=10"),
                is_measured=True,
                settings={"poll_s": 60.0, "buffer_bars": 100},
            )
        )
        assert sessions.wait() == 0, (tmp_path / "console.txt").read_text(encoding="utf-8")[-2_000:]
    lines = (tmp_path / "vitals.jsonl").read_text(encoding="utf-8").splitlines()
    vitals = [json.loads(line) for line in lines]
    assert len(vitals) == N_BARS + 1
    assert len(exchange.account.trades) > 100
    settled = vitals[N_BARS // 4 :]
    growth_mb = max(row["rss_mb"] for row in settled) - settled[0]["rss_mb"]
    assert growth_mb < MOST_GROWTH_MB
    assert max(row["files"] for row in settled) <= median(row["files"] for row in vitals)
    assert max(row["state_kb"] for row in settled) < MOST_STATE_KB
    assert exchange.limits.max_weight < WEIGHT_LIMIT / 2
