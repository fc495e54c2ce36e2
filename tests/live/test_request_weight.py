"""The requests of a coin in a minute, where it looks every 5 s."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from live.session.shutdown import Ending
from tests.support.markets.oracle import BAR_MS
from tests.support.processes.watched_day import (
    WARM,
    busy_day,
    no_waiting_for_the_disk,  # noqa: F401 - a fixture
)

MOST = 45.0
MINUTE_MS = 60_000


@pytest.mark.slow
def test_a_coin_takes_at_most_45_of_request_weight_a_minute(tmp_path: Path) -> None:
    used: dict[int, int] = {}
    with busy_day(tmp_path, settings={"poll_s": 5.0}) as scene:
        exchange = scene.exchange
        start_ms = scene.opens_ms(WARM + 1)  # the start reads what no later minute does

        def note(*_: object) -> None:
            minute = exchange.now_ms // MINUTE_MS
            used[minute] = max(used.get(minute, 0), exchange.limits.weight)

        exchange.after_request = note
        assert scene.run_to(WARM + 4) is Ending.ASKED
    ordinary = [weight for minute, weight in used.items() if minute * MINUTE_MS >= start_ms]
    assert len(ordinary) >= 3 * BAR_MS // MINUTE_MS
    assert scene.session.trades
    assert mean(ordinary) <= MOST
