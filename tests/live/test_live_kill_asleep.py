"""A session killed in a busy hour goes on, also where it had slept through what filled."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from tests.support.processes.busy_hour import Hour, Outcome, Point
from tests.support.processes.forked_sessions import ForkedSessions

ASLEEP: Final[dict[str, Any]] = {"wakes_clients": False}
KILLS: Final = 10


@pytest.fixture(scope="module", params=[1, 2], ids=["one coin", "two coins"])
def options(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the hour's: how many coins are traded on the account; the first one's is killed."""
    return {**ASLEEP, "coins": request.param}


@pytest.fixture(scope="module")
def kills(options: dict[str, Any]) -> int:
    """Return how many moments are tried."""
    return KILLS if options["coins"] == 1 else KILLS // 2


@pytest.fixture(scope="module")
def undisturbed(sessions: ForkedSessions, folder: Path, options: dict[str, Any]) -> Outcome:
    return Hour(sessions, folder, **options).run()


@pytest.fixture(scope="module")
def points(
    sessions: ForkedSessions, folder: Path, options: dict[str, Any]
) -> list[tuple[Point, str, str]]:
    """Return every moment of the hour, its world and what happens."""
    return Hour(sessions, folder, **options).survey()


def renews(about: str) -> bool:
    """Return whether a request may be of a sleep, in which only the countdown is kept running."""
    return about.endswith(("/countdownCancelAll", "/time"))


@pytest.mark.slow
def test_killed_anywhere_a_session_that_slept_through_fills_ends_as_if_it_had_not_been(
    sessions: ForkedSessions,
    folder: Path,
    undisturbed: Outcome,
    points: list[Any],
    options: dict[str, Any],
    kills: int,
) -> None:
    awake = [(point, world, about) for point, world, about in points if not renews(about)]
    worlds = list({world: (point, about) for point, world, about in awake}.values())
    assert len(worlds) > 4 * KILLS
    wrong = []
    for point, about in worlds[2 :: len(worlds) // kills]:
        found = Hour(sessions, folder, **options).run_killed(Point(*point))
        if problem := found.difference(undisturbed):
            wrong.append(f"{point} {about}: {problem}")
    assert wrong == []


@pytest.mark.slow
def test_killed_in_its_sleep_the_next_session_looks_at_once_and_protects_what_filled(
    sessions: ForkedSessions,
    folder: Path,
    undisturbed: Outcome,
    points: list[Any],
    options: dict[str, Any],
    kills: int,
) -> None:
    renewals = [point for point, _, about in points if renews(about) and point.when == "after"]
    assert len(renewals) > 4 * KILLS
    exposed_ms = []
    for point in renewals[:: len(renewals) // kills]:
        hour = Hour(sessions, folder, **options)
        found, account = hour.run_killed(point), hour.exchange.account
        exposed_ms.append(found.unprotected_ms)
        assert found.unprotected_ms <= undisturbed.unprotected_ms, point
        assert max(found.intents.values()) == 1, point
        booked = {row["trade_id"] for row in found.jsonl_rows if ":" in row["trade_id"]}
        assert {f"{trade.trade_id}:0" for trade in account.trades} <= booked, point
    assert min(exposed_ms) < undisturbed.unprotected_ms


@pytest.mark.slow
def test_in_that_hour_fills_are_slept_through(undisturbed: Outcome) -> None:
    assert undisturbed.unprotected_ms > 0
    assert {row["label"] for row in undisturbed.csv_rows} >= {"BUY_OPEN_LONG", "SELL_OPEN_SHORT"}
