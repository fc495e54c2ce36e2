"""Adds up what campaigns of faults and kills went through.

``CAMPAIGN_TALLY=FILE pytest tests/live``, then ``python3 -m tests.support.processes.tally FILE``:
campaigns, faults, kills, and how long a position was without a stop at most, by ``poll_s``.
"""

from __future__ import annotations

import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

FILE: Final = "CAMPAIGN_TALLY"


def note(**facts: Any) -> None:
    """Write one campaign's facts down, where somebody wants them."""
    if path := os.environ.get(FILE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(json.dumps(facts) + "\n")


def lines_of(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the sums as text: one line of counts, one for each ``poll_s`` with its longest."""
    rows = list(rows)
    counts = {name: sum(row.get(name, 0) for row in rows) for name in ("faults", "kills")}
    two = sum(row["coins"] > 1 for row in rows)
    longest: dict[float, float] = defaultdict(float)
    for row in rows:
        if "longest_ms" in row:
            poll_s = float(row["poll_s"])
            longest[poll_s] = max(longest[poll_s], row["longest_ms"])
    faults, kills = counts["faults"], counts["kills"]
    return [
        f"{len(rows)} campaigns, {two} with two coins on one account",
        f"{faults:,} faults, {kills:,} kills",
        *(
            f"longest without a stop at poll_s {poll_s:g}: {ms / 1e3:.1f} s"
            for poll_s, ms in sorted(longest.items())
        ),
    ]


def main(path: str) -> None:
    """Print what is in the file."""
    text = Path(path).read_text(encoding="utf-8")
    sys.stdout.write("\n".join(lines_of(map(json.loads, text.splitlines()))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
