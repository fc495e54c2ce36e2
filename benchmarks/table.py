"""Figures of a benchmark beside a reference: measured turn by turn, printed, kept."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from core.times import utc_text

COLUMNS: Final = ("time", "figure", "best", "median", "unit", "times_reference", "machine")


@dataclass(frozen=True)
class Figure:
    """One line of the table.

    Attributes:
        name: what was measured.
        best: in ``unit``; the best of all rounds.
        median: likewise.
        unit: ``M bars/s`` or ``s``.
        times_reference: median over the rounds of its seconds by the reference's beside it.
    """

    name: str
    best: float
    median: float
    unit: str
    times_reference: float


def cpu_seconds(work: Callable[[], Any]) -> float:
    """Return the processor time that ``work`` takes in this process, s."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(
    name: str,
    unit: str,
    n_bars: int,
    sample: Callable[[], float],
    reference: Callable[[], Any],
    rounds: int,
) -> Figure:
    """Return a figure out of ``rounds`` samples, each beside the reference.

    Args:
        name: of the figure.
        unit: ``M bars/s``, or ``s``.
        n_bars: of a sample, where the unit asks for them.
        sample: answers with its seconds.
        reference: the loop whose seconds are taken for one.
        rounds: samples; one before them is not counted.
    """
    if rounds > 1:
        sample()
    seconds, ratios = list[float](), list[float]()
    for _ in range(rounds):
        before = cpu_seconds(reference)
        seconds.append(sample())
        beside = min(before, cpu_seconds(reference))
        ratios.append(seconds[-1] / beside)
    best, median = min(seconds), statistics.median(seconds)
    if unit != "s":
        best, median = n_bars / best / 1e6, n_bars / median / 1e6
    return Figure(name, best, median, unit, statistics.median(ratios))


def table_text(figures: Sequence[Figure]) -> str:
    """Return the table as people read it."""
    lines = [f"{'':24} {'best':>10} {'median':>10} {'':8} {'x reference':>12}"]
    lines += [
        f"{figure.name:24} {figure.best:10.4g} {figure.median:10.4g} {figure.unit:8} "
        f"{figure.times_reference:12,.2f}"
        for figure in figures
    ]
    return "\n".join(lines)


def append_history(path: Path, figures: Sequence[Figure], machine: str) -> None:
    """Add the figures to a CSV file, one row each; the file is made if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    now = utc_text(time.time_ns() // 1_000_000)
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        if is_new:
            writer.writerow(COLUMNS)
        for figure in figures:
            values = (f"{value:.6g}" for value in (figure.best, figure.median))
            ratio = f"{figure.times_reference:.6g}"
            writer.writerow([now, figure.name, *values, figure.unit, ratio, machine])
