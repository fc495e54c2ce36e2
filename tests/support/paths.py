"""Where the project and the real market data lie."""

from __future__ import annotations

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
"""The checkout."""
MARKET: Final = ROOT.parent / "shared" / "market"
"""Real candles and funding, beside the checkout on machines that have them."""
