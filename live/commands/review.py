"""``--review``: what the event files of the fixed grid say of its past, with nothing else asked."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from itertools import zip_longest
from statistics import fmean, median
from typing import Any, Final

from core.errors import ConfigError, StateError
from core.text import money, number
from core.times import utc_text
from live.commands.target import Target
from live.health.cycle_events import events_path
from live.store.durable_file import read_file

Event = dict[str, Any]
WIDTH: Final = 22
MOST_GATES: Final = 3


def review_text(target: Target, since: str | None) -> str:
    """Return what log readers ask, in lines.

    Args:
        target: whose events.
        since: UTC date or time; None: from the first on.

    Raises:
        ConfigError: the date cannot be read.
        StateError: there are no events, or they cannot be read.
    """
    events = [event for event in _events(target) if event["ts"] >= _since_ms(since)]
    if not events:
        path = events_path(target.symbol, target.state_folder)
        raise StateError(f"{path} holds no event{f' since {since}' if since else ''}")
    closed = [event for event in events if event["event"] == "CYCLE_CLOSED"]
    first, last = events[0]["ts"], events[-1]["ts"]
    lines = [
        f"{target.symbol}, {target.mode_name}: {utc_text(first)[:16]} to {utc_text(last)[:16]} UTC",
        "",
        *_of_cycles(closed),
        *_of_stuck(events, closed),
        *_of_gates(events, last),
        *_of_margin(events),
    ]
    return "\n".join(lines)


def _since_ms(since: str | None) -> int:
    if since is None:
        return 0
    try:
        moment = datetime.fromisoformat(since)
    except ValueError:
        raise ConfigError(f"--since {since!r} must be a date, such as 2026-01-31") from None
    zoned = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return int(zoned.timestamp() * 1_000)


def _events(target: Target) -> list[Event]:
    path = events_path(target.symbol, target.state_folder)
    body = read_file(path)
    if body is None:
        raise StateError(f"{target.symbol}: there is no {path}: no session has written events")
    found = []
    lines = body.split(b"\n")
    for line_number, line in enumerate(lines, 1):
        try:
            event = json.loads(line) if line else None
        except ValueError:
            if line_number == len(lines) or not line.endswith(b"}"):
                continue  # torn by a kill
            raise StateError(f"{path} line {line_number} cannot be read: correct it") from None
        if event is not None:
            found.append(event)
    return found


def _row(name: str, text: str) -> str:
    return f"{name:<{WIDTH}}{text}"


def _percent(part: float, whole: float) -> str:
    return f"{number(100.0 * part / whole, 1)} %" if whole else "-"


def _of_cycles(closed: list[Event]) -> Iterator[str]:
    """Yield counts, win rate, profit and durations of the cycles that have ended."""
    yield _row("cycles closed", str(len(closed)))
    if not closed:
        return
    wins = sum(event["pnl"] > 0.0 for event in closed)
    shares = [
        100.0 * event["pnl"] / (event["entry"] * event["qty"])
        for event in closed
        if event["entry"] * event["qty"] > 0.0
    ]
    minutes = [event["duration_s"] / 60.0 for event in closed]
    total = money(sum(event["pnl"] for event in closed), signed=True)
    yield _row("  won", _percent(wins, len(closed)))
    yield _row("  net, after fees", f"{total} together")
    if shares:
        yield _row("  on average", f"{number(fmean(shares), 3, signed=True)} % of the entry")
    yield _row(
        "  duration",
        f"median {number(median(minutes), 0)} min, longest {number(max(minutes), 0)} min",
    )
    for reason, count in Counter(event["reason"] for event in closed).most_common():
        yield _row(f"  by {reason}", str(count))


def _of_stuck(events: list[Event], closed: list[Event]) -> Iterator[str]:
    """Yield how many got stuck, and how those have ended."""
    stuck = {event["cycle"] for event in events if event["event"] == "STUCK"}
    yield _row("stuck", str(len(stuck)))
    ends = Counter(event["reason"] for event in closed if event["cycle"] in stuck)
    for reason, count in ends.most_common():
        yield _row(f"  ended by {reason}", str(count))
    left = len(stuck) - sum(ends.values())
    if left:
        yield _row("  not ended yet", str(left))


def _of_gates(events: list[Event], end_ms: int) -> Iterator[str]:
    """Yield which gates kept entries back, by how long they did."""
    changes = [event for event in events if event["event"] == "GATE"]
    lasted: Counter[str] = Counter()
    for event, following in zip_longest(changes, changes[1:]):
        until_ms = end_ms if following is None else following["ts"]
        lasted[event["reason"]] += until_ms - event["ts"]
    del lasted["none"]
    for gate, ms in lasted.most_common(MOST_GATES):
        yield _row(f"blocked by {gate}", f"{number(ms / 3.6e6, 1)} h")


def _of_margin(events: list[Event]) -> Iterator[str]:
    """Yield the margin used by day, and by hour of the day (UTC), as a share of its cap."""
    shares = [event["margin"] for event in events]
    yield _row("margin", f"mean {_percent(fmean(shares), 1.0)}, most {_percent(max(shares), 1.0)}")
    for title, digits in (("by day", slice(0, 10)), ("by hour", slice(11, 13))):
        groups: dict[str, list[float]] = defaultdict(list)
        results: dict[str, float] = defaultdict(float)
        for event in events:
            key = utc_text(event["ts"])[digits]
            groups[key].append(event["margin"])
            results[key] += event["pnl"] if event["event"] == "CYCLE_CLOSED" else 0.0
        yield _row(title, "margin: mean, most; net of the cycles closed")
        yield from _table(groups, results)


def _table(groups: dict[str, list[float]], results: dict[str, float]) -> Iterable[str]:
    for key in sorted(groups):
        mean, most = fmean(groups[key]), max(groups[key])
        net = money(results[key], signed=True)
        yield _row(f"  {key}", f"{_percent(mean, 1.0):>9}{_percent(most, 1.0):>9}{net:>14}")
