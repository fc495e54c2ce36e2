"""Made-up candles and funding that are the same on every machine and with every library."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Final

BAR_MS: Final = 900_000
START_MS: Final = 1_704_067_200_000  # 2024-01-01


def write_recording(folder: Path) -> None:
    """Write 40 days of made-up candles with crashes, trends and calms, and their funding.

    Only ``random.Random.random``, whose numbers Python promises for good.
    """
    draw, close = random.Random(20_240_101), 42_000.0  # noqa: S311 - a market, not a secret
    rows, rates = ["timestamp,open,high,low,close,volume"], ["timestamp,rate"]
    for bar in range(40 * 96):
        ts_ms, width = START_MS + bar * BAR_MS, 0.002 + 0.002 * math.sin(bar / 300.0)
        move = width * (sum(draw.random() for _ in range(12)) - 6.0)
        if draw.random() < 0.002:
            move -= 0.05 * draw.random()
        opened = close * (1.0 + 0.0005 * (draw.random() - 0.5))
        close = opened * (1.0 + move + 0.01 * (42_000.0 / opened - 1.0))
        high = max(opened, close) * (1.0 + width * draw.random())
        low = min(opened, close) * (1.0 - width * draw.random())
        volume = 50.0 + 400.0 * draw.random() ** 3
        prices = (f"{price:.1f}" for price in (opened, high, low, close))
        rows.append(f"{ts_ms},{','.join(prices)},{volume:.3f}")
        if bar % 32 == 0:
            rates.append(f"{ts_ms},{0.0006 * (draw.random() - 0.4):.8f}")
    (folder / "BTCUSDT-15m.csv").write_text("\n".join(rows) + "\n", encoding="ascii")
    (folder / "BTCUSDT-funding.csv").write_text("\n".join(rates) + "\n", encoding="ascii")
