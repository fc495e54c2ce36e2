"""A long hole in the candles charges all of its funding at once, which is said."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from backtest.simulator import BacktestSimulator
from core.times import DAY_MS, MINUTE_MS

START_MS = 1_704_067_200_000


def frame(hole_days: float, bar_ms: int, n: int = 3_000) -> pd.DataFrame:
    """Return candles of which the second half comes ``hole_days`` late."""
    times = START_MS + bar_ms * np.arange(n)
    times[n // 2 :] += round(hole_days * DAY_MS)
    path = 100.0 + np.sin(np.arange(n) / 50.0)
    prices = {"open": path, "high": path + 0.1, "low": path - 0.1, "close": path}
    return pd.DataFrame({"timestamp": times, **prices, "volume": 1.0})


@pytest.mark.parametrize(
    ("strategy", "bar_ms"), [("grid_v4", 15 * MINUTE_MS), ("fixed_grid", MINUTE_MS)]
)
@pytest.mark.parametrize(("hole_days", "settlements"), [(30.0, 90), (0.5, 0)])
def test_the_funding_of_a_long_hole_is_reported(
    strategy: str, bar_ms: int, hole_days: float, settlements: int
) -> None:
    simulator = BacktestSimulator(
        source={"BTC": frame(hole_days, bar_ms)},
        backtest_config={"warmup_bars": 0},
        strategy=strategy,
    )
    result = simulator.run_single("BTC", "2024-01-01", "2024-03-15")
    told = [text for text in result["notices"] if "candles are missing for" in text]
    assert len(told) == (1 if settlements else 0)
    for text in told:
        assert "missing for 30.0 days" in text
        assert f"the {settlements} funding settlements" in text
