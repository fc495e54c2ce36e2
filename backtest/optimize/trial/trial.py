"""The record a trial leaves: the result of one parameter set."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class WindowScore:
    """One window of one coin.

    Attributes:
        score: as ``objective.score_window`` answers; finite.
        return_pct: total return, percent; this and the next three: NaN where there was no run.
        max_drawdown_pct: percent.
        calmar: total return over maximum drawdown; NaN without a drawdown.
        profit_factor: NaN without a loss.
        trades: round trips completed.
        note: why the score is penalised, in words; empty if it is not.
    """

    score: float
    return_pct: float
    max_drawdown_pct: float
    calmar: float
    profit_factor: float
    trades: int
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data: NaN is None."""
        return {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> WindowScore:
        """Return what ``to_dict`` was called on."""
        values: dict[str, Any] = {
            name: math.nan if value is None else value for name, value in data.items()
        }
        return cls(**values)


Scores: TypeAlias = dict[str, list[WindowScore]]
"""By coin, a row per window."""


@dataclass(frozen=True, eq=False, slots=True)
class TrialOutcome:
    """The result of one parameter set.

    Attributes:
        score: what the search maximises: the lowest train score of all coins and windows.
        train: scores of the train windows.
        test: scores of the test windows; the search never sees them.
        daily_returns: of the portfolio that gives every coin the same capital, run once over
            everything before the holdout; per UTC day, shape (n_days,).
        note: why there was no run, empty if there was one; then all figures are placeholders.
    """

    score: float
    train: Scores
    test: Scores
    daily_returns: Floats
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; the returns as base64 of little-endian float64, exact."""
        returns = self.daily_returns.astype("<f8").tobytes()
        return {
            "score": self.score,
            "train": _dicts(self.train),
            "test": _dicts(self.test),
            "daily_returns": base64.b64encode(returns).decode("ascii"),
            "note": self.note,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrialOutcome:
        """Return what ``to_dict`` was called on, bit for bit."""
        returns = np.frombuffer(base64.b64decode(data["daily_returns"]), "<f8")
        return cls(
            score=data["score"],
            train=_scores(data["train"]),
            test=_scores(data["test"]),
            daily_returns=returns.astype(np.float64),
            note=data["note"],
        )


Evaluate: TypeAlias = Callable[[Mapping[str, Any]], TrialOutcome]
"""From the values drawn to what they came to; may be called from several threads at once."""


def _dicts(scores: Scores) -> dict[str, list[dict[str, Any]]]:
    return {coin: [item.to_dict() for item in rows] for coin, rows in scores.items()}


def _scores(data: Mapping[str, Any]) -> Scores:
    return {coin: [WindowScore.from_dict(item) for item in rows] for coin, rows in data.items()}
