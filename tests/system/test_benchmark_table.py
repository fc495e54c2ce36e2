"""The table of benchmarks: what a figure says, the history file, and the loop it compares to."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.reference import N_LEVELS, Reference, run_reference
from benchmarks.table import COLUMNS, Figure, append_history, measure, table_text


def test_a_figure_counts_bars_per_second_and_leaves_the_first_sample_out() -> None:
    samples = iter([9.0, 0.5, 0.25, 1.0])
    figure = measure("loop", "M bars/s", 1_000_000, lambda: next(samples), lambda: 0, 3)
    assert (figure.best, figure.median) == (4.0, 2.0)


def test_a_figure_in_seconds_is_its_best_and_its_median() -> None:
    samples = iter([9.0, 3.0, 2.0, 7.0])
    figure = measure("command", "s", 0, lambda: next(samples), lambda: 0, 3)
    assert (figure.best, figure.median) == (2.0, 3.0)


def test_a_figure_is_compared_with_the_reference_that_ran_beside_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    beside = iter([0.5, 0.25, 1.0, 2.0])
    monkeypatch.setattr("benchmarks.table.cpu_seconds", lambda _: next(beside))
    samples = iter([9.0, 1.0, 5.0])
    figure = measure("run", "s", 0, lambda: next(samples), lambda: 0, 2)
    assert figure.times_reference == pytest.approx((1.0 / 0.25 + 5.0 / 1.0) / 2)


def test_the_history_gains_a_row_a_figure_under_one_head(tmp_path: Path) -> None:
    figures = [Figure("loop", 8.0, 7.5, "M bars/s", 3.0), Figure("trial", 0.1, 0.2, "s", 20.0)]
    path = tmp_path / "new" / "history.csv"
    for _ in range(2):
        append_history(path, figures, "a machine, with a comma")
    with path.open(encoding="utf-8", newline="") as file:
        head, *rows = csv.reader(file)
    assert tuple(head) == COLUMNS
    assert [row[1] for row in rows] == ["loop", "trial", "loop", "trial"]
    assert rows[0][2:] == ["8", "7.5", "M bars/s", "3", "a machine, with a comma"]
    assert "trial" in table_text(figures)


def candles(*closes: float) -> pd.DataFrame:
    close = np.array(closes)
    opens = np.concatenate([close[:1], close[:-1]])
    high, low = np.maximum(opens, close), np.minimum(opens, close)
    return pd.DataFrame({"open": opens, "high": high, "low": low, "close": close})


def test_the_reference_buys_a_level_down_and_sells_a_level_up() -> None:
    reference = Reference(candles(100.0, 98.9, 100.5, 100.5))
    assert reference() == 3  # the third, on the way back, opens a short
    assert reference.log[1, 2] == pytest.approx(500.0 / (100.0 / 1.01))
    assert reference.log[-1, 2] == 0.0
    assert reference.log[-1, 3] > 0.0
    assert reference.log[-1, 1] == pytest.approx(10_005.0 - 0.0002 * (500.0 + 505.0 + 500.0))


def test_the_reference_compiled_is_the_reference_interpreted() -> None:
    random = np.random.default_rng(3)
    frame = candles(*(100.0 * np.exp(np.cumsum(random.normal(0.0, 0.01, 300)))))
    compiled, plain = Reference(frame), Reference(frame)
    function = getattr(run_reference, "py_func", run_reference)
    opens, highs, lows, closes = (frame[name].to_numpy() for name in frame)
    trades = function(opens, highs, lows, closes, np.zeros((2, N_LEVELS + 1)), plain.log)
    assert compiled() == trades > 20
    assert compiled.log.tobytes() == plain.log.tobytes()
