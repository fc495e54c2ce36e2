"""The calibration of verdicts: its markets, its file, its rates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import verdicts
from benchmarks.verdicts import NOISE, PLANTED, made_up_candles, markets, summary, wilson

ARGUMENTS = ["--noise", "4", "--planted", "2", "--trials", "5"]


@pytest.mark.parametrize("kind", [*NOISE, *PLANTED])
def test_made_up_candles_are_candles_and_the_same_for_the_same_seed(kind: str) -> None:
    frame = made_up_candles(kind, 1, 2_000)
    assert frame.equals(made_up_candles(kind, 1, 2_000))
    assert not frame.equals(made_up_candles(kind, 2, 2_000))
    assert (frame["high"] >= frame[["open", "close"]].max(axis=1)).all()
    assert (frame["low"] <= frame[["open", "close"]].min(axis=1)).all()
    assert (frame["low"] > 0.0).all()


def test_only_a_planted_price_comes_back() -> None:
    def drift(kind: str) -> float:
        """Return the variance of 200-bar moves over 200 times that of a bar."""
        moves = [np.diff(np.log(made_up_candles(kind, k, 20_000)["close"])) for k in range(4)]
        long = [item[: 200 * (item.size // 200)].reshape(-1, 200).sum(axis=1) for item in moves]
        return float(np.var(np.concatenate(long)) / (200 * np.var(np.concatenate(moves))))

    assert all(0.8 < drift(kind) < 1.25 for kind in NOISE)
    assert drift("strong") < drift("weak") < 0.5


def test_all_kinds_of_noise_take_turns_and_then_both_strengths() -> None:
    assert list(markets(4, 3)) == [
        ("walk", 0),
        ("clusters", 0),
        ("jumps", 0),
        ("walk", 1),
        ("weak", 0),
        ("strong", 0),
        ("weak", 1),
    ]


def test_what_is_done_is_not_done_again_and_a_torn_line_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, int]] = []

    def quick(kind: str, seed: int, settings: Any, jobs: int) -> dict[str, Any]:
        del jobs
        asked.append((kind, seed))
        answer = "held" if kind in PLANTED else "failed"
        return {
            "kind": kind,
            "seed": seed,
            "settings": settings.key(),
            "answer": answer,
            "holdout_sharpe": 1.0,
            "seconds": 2.0,
        }

    monkeypatch.setattr(verdicts, "verdict_on", quick)
    path = tmp_path / "v.jsonl"
    assert verdicts.main([*ARGUMENTS, "--out", str(path)]) == 0
    assert len(asked) == 6
    path.write_text(path.read_text()[:-20])  # killed while it wrote the last one
    assert verdicts.main([*ARGUMENTS, "--out", str(path)]) == 0
    assert asked[6:] == [("strong", 0)]
    assert sum('"answer": "held"' in text for text in path.read_text().splitlines()) == 3
    out = capsys.readouterr().out
    assert "all noise     4 markets: held 0 (0% to 49%)" in out
    assert "strong        1 markets: held 1 (21% to 100%)" in out
    other = ["--noise", "1", "--planted", "0", "--trials", "9", "--out", str(path)]
    assert verdicts.main(other) == 0  # of other settings nothing is done yet
    assert asked[7:] == [("walk", 0)]


def test_rates_have_wilsons_interval() -> None:
    assert wilson(0, 100) == pytest.approx((0.0, 0.0370), abs=1e-4)
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert summary([]) == ""


@pytest.mark.slow
def test_a_market_is_judged_as_the_optimizer_judges() -> None:
    settings = verdicts.Settings(
        days=260, trials=8, windows=1, seeds=2, holdout=0.2, permutations=3
    )
    line = json.loads(json.dumps(verdicts.verdict_on("strong", 1, settings, 1)))
    assert line["answer"] in {"held", "undecided", "failed"}
    assert line["checks"]["Permuted bars"] != "held"  # three permutations show nothing
    assert "Holdout v. config now" in line["checks"]
