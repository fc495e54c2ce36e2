"""Measure the design's three claims on real candles and write ``docs/claims.md``.

``python3 -m benchmarks.claims``. Reads recorded candles beside the checkout (``../shared/market``).
"""

from __future__ import annotations

import sys

from benchmarks.claims_runs import DOCUMENT, REAL_MARKET, ROOT, load_markets, measure
from benchmarks.claims_text import document
from engine.compiling import load_machine_code


def main() -> int:
    """Measure and write the document; without recorded candles say so and return 2."""
    if not REAL_MARKET.is_dir():
        print(f"no recorded candles: {REAL_MARKET} is missing", file=sys.stderr)
        return 2
    load_machine_code()
    markets = load_markets()
    DOCUMENT.write_text(document(markets, measure(markets)), encoding="utf-8")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
