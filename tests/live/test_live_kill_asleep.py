"""A session killed in a busy hour goes on, also where it had slept through what filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.known_faults import known_fault
from tests.support.processes.busy_hour import Hour, Outcome, Point
from tests.support.processes.forked_sessions import ForkedSessions

ASLEEP: Final[dict[str, Any]] = {"wakes_clients": False}
KILLS: Final = 10


@pytest.fixture(scope="module")
def undisturbed(sessions: ForkedSessions, folder: Path) -> Outcome:
    return Hour(sessions, folder, **ASLEEP).run()


@known_fault("killed right after the countdown's renewal, orders of one bar differ")
@pytest.mark.slow
def test_killed_anywhere_a_session_that_slept_through_fills_ends_as_if_it_had_not_been(
    sessions: ForkedSessions, folder: Path, undisturbed: Outcome
) -> None:
    points = Hour(sessions, folder, **ASLEEP).survey()
    worlds = list({world: (point, about) for point, world, about in points}.values())
    assert len(worlds) > 4 * KILLS
    wrong = []
    for point, about in worlds[2 :: len(worlds) // KILLS]:
        found = Hour(sessions, folder, **ASLEEP).run_killed(Point(*point))
        if problem := found.difference(undisturbed):
            wrong.append(f"{point} {about}: {problem}")
    assert wrong == []


@pytest.mark.slow
def test_in_that_hour_fills_are_slept_through(undisturbed: Outcome) -> None:
    assert undisturbed.unprotected_ms > 0
    assert {row["label"] for row in undisturbed.csv_rows} >= {"BUY_OPEN_LONG", "SELL_OPEN_SHORT"}
