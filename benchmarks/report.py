"""Measure how fast a browser opens the report of two years: ``python3 -m benchmarks.report``.

Builds the report of the demo's busiest coin with the values of the strategy's description, opens it
several times in a headless chromium (Debian: ``chromium chromium-driver``; ``pip install
selenium``) and prints seconds until the charts stand and until every trade is drawn, file size,
trades, and what else the machine was doing. ``--page FILE`` opens another report between, turn by
turn, such as one of an earlier version.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from backtest.simulator import BacktestSimulator
from benchmarks.browser import missing, start_browser
from config import PRESETS

COIN: Final = "SOL"
STANDS: Final = (
    "return window.Bokeh && Bokeh.documents.length > 0 && Bokeh.documents.every(d => d.is_idle)"
)
DRAWN: Final = (
    f"{STANDS} && (!document.querySelector('button[data-later]')"
    " || document.documentElement.dataset.drawn === 'all')"
)
TIMEOUT_SECONDS: Final = 60.0
POLL_SECONDS: Final = 0.01


def write_report(folder: Path) -> tuple[Path, int]:
    """Write the report of two years to ``folder``; return its path and the number of trades."""
    result = BacktestSimulator(PRESETS["documented"], source="demo").run_single(COIN)
    path = result.report(folder / f"{COIN}_report.html")
    return path, len(result["trades"])


def opening_seconds(browser: Any, page: Path) -> tuple[float, float]:
    """Return seconds until the page's charts stand, and until everything in them is drawn."""
    browser.get("about:blank")
    start = time.perf_counter()
    browser.get(page.resolve().as_uri())
    seconds = []
    for script in (STANDS, DRAWN):
        while not browser.execute_script(script):
            if time.perf_counter() - start > TIMEOUT_SECONDS:
                raise TimeoutError(f"{page}: not drawn after {TIMEOUT_SECONDS:g} s")
            time.sleep(POLL_SECONDS)
        seconds.append(time.perf_counter() - start)
    return seconds[0], seconds[1]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; 2 where something is not installed."""
    parser = argparse.ArgumentParser(description="measure how fast a browser opens a report")
    parser.add_argument("--runs", type=int, default=5, metavar="N", help="openings (default: 5)")
    parser.add_argument("--page", type=Path, metavar="FILE", help="another report, turn by turn")
    args = parser.parse_args(argv)
    if lacking := missing():
        print(f"not installed: {', '.join(lacking)}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        page, trades = write_report(Path(name))
        print(f"{COIN} of the demo, two years: {trades:,} trade records")
        pages = [page, *([args.page] if args.page else [])]
        found: dict[Path, list[tuple[float, float]]] = {page: [] for page in pages}
        browser = start_browser(Path(name) / "profile")
        try:
            for _ in range(args.runs):
                for path in pages:
                    found[path].append(opening_seconds(browser, path))
        finally:
            browser.quit()
        for path, times in found.items():
            stands, drawn = (statistics.median(column) for column in zip(*times, strict=True))
            print(
                f"{path.name}, {path.stat().st_size / 1e6:.1f} MB: charts stand after "
                f"{stands:.2f} s, all drawn after {drawn:.2f} s (median of {args.runs}; "
                f"{min(t for _, t in times):.2f} to {max(t for _, t in times):.2f})"
            )
    load, cores = os.getloadavg()[0], os.cpu_count()
    print(f"load {load:.1f} on {cores} processors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
