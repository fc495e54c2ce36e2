"""The verdict on a choice: held, undecided or failed, and the tests it is made of.

Each test has an answer of its own. One that failed makes the choice failed, whatever the others
say; "held" takes every one of them; all else is undecided: it may be luck, and it may not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from backtest.optimize.judge.evidence import p_text
from backtest.optimize.judge.findings import Known, Unseen

LEVEL: Final = 0.05
"""Chance of a test to hold where there is nothing; shared among all looks at the same holdout."""


class Answer(StrEnum):
    """Answers about a choice, or about one of its tests."""

    HELD = "held"
    UNDECIDED = "undecided"
    FAILED = "failed"
    NOT_TESTED = "not tested"
    """Of the best single trial: the holdout is for the robust choice."""


TO_DO: Final = {
    Answer.HELD: (
        "it may be written to config.py; watch it on paper or with little money first, for the "
        "past is no promise"
    ),
    Answer.UNDECIDED: (
        "keep your config: the bars at hand cannot tell this choice from luck; more bars, a longer "
        "holdout or a smaller search space can"
    ),
    Answer.FAILED: (
        "keep your config: the choice lost or did worse where it was not fitted; search another "
        "space or other coins"
    ),
    Answer.NOT_TESTED: "use the robust choice: the best single trial was not run on the holdout",
}
"""The step to take after an answer."""

MEANING: Final = (
    "held: on the holdout better than doing nothing and than the present config by more than "
    f"chance (bootstrap of blocks of days, level {LEVEL:g}, divided by the looks at this holdout), "
    "permuted bars under the same level, a gain in the clean walk-forward and none lost in the "
    "choice's own clean test, and independent seeds whose choices all gained there; failed: one of "
    "these lost; undecided: all else"
)
"""The rule, in words."""


@dataclass(frozen=True, slots=True)
class Check:
    """One test the verdict is made of.

    Attributes:
        name: of the test.
        answer: held, undecided or failed.
        text: why, with its figures.
    """

    name: str
    answer: Answer
    text: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on the robust choice.

    Attributes:
        answer: of all tests together.
        level: p values have to be under it.
        checks: the tests.
    """

    answer: Answer
    level: float
    checks: tuple[Check, ...]

    @property
    def why(self) -> tuple[str, ...]:
        """Return the tests that made the answer, ``name: text``; of a choice that held, all."""
        return tuple(
            f"{check.name}: {check.text}" for check in self.checks if check.answer is self.answer
        )

    @property
    def to_do(self) -> str:
        """Return the step to take."""
        return TO_DO[self.answer]

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "answer": self.answer.value,
            "why": list(self.why),
            "to_do": self.to_do,
            "level": self.level,
            "rule": MEANING,
            "checks": [
                {"name": check.name, "answer": check.answer.value, "text": check.text}
                for check in self.checks
            ],
        }


def judge(known: Known, unseen: Unseen) -> Verdict:
    """Return the verdict on the robust choice.

    Args:
        known: what the trials say.
        unseen: what the holdout says.
    """
    level = LEVEL / (1 + unseen.holdout.before.looks)
    checks = (
        _train(known),
        _versus_nothing(unseen, level),
        _versus_config(unseen, level),
        _untouched(unseen),
        _permuted(unseen, level),
        _own_test(known),
        _walk_forward(known),
        _seeds(known),
    )
    answers = {check.answer for check in checks}
    answer = next(
        item for item in (Answer.FAILED, Answer.UNDECIDED, Answer.HELD) if item in answers
    )
    return Verdict(answer=answer, level=level, checks=checks)


def nothing_chosen(reason: str) -> Verdict:
    """Return the verdict on a search of which every trial was disqualified.

    Args:
        reason: in words.
    """
    check = Check("Train", Answer.FAILED, reason)
    return Verdict(answer=Answer.FAILED, level=LEVEL, checks=(check,))


def nothing_gained(known: Known) -> bool:
    """Return whether no trial has made money on its trains."""
    return known.choice.best.outcome.score < 0.0


def _train(known: Known) -> Check:
    name, score = "Train", known.choice.best.outcome.score
    if nothing_gained(known):
        text = f"nothing in this space made money on train: the best score is {score:.3g}"
        return Check(name, Answer.FAILED, text)
    own = known.choice.outcome.score
    if own < 0.0:
        return Check(name, Answer.FAILED, f"the choice lost in training: its score is {own:.3g}")
    return Check(name, Answer.HELD, f"the choice gained in training, score {own:.3g}")


def _versus_nothing(unseen: Unseen, level: float) -> Check:
    name, found = "Holdout v. nothing", unseen.holdout
    gained, days = found.choice.return_pct, len(found.choice.daily_returns)
    if not gained > 0.0:
        return Check(name, Answer.FAILED, f"{gained:+.2f} % in {days} days")
    return _by_chance(name, found.choice.p_value, level, f"{gained:+.2f} % in {days} days")


def _versus_config(unseen: Unseen, level: float) -> Check:
    name, found = "Holdout v. config now", unseen.holdout
    own, now = found.choice.return_pct, found.baseline.return_pct
    text = f"{own:+.2f} %, the config {now:+.2f} %"
    if own < now:
        return Check(name, Answer.FAILED, text)
    if own == now:
        return Check(name, Answer.UNDECIDED, f"{text}: no difference")
    return _by_chance(name, found.better_p_value, level, text)


def _by_chance(name: str, p_value: float, level: float, text: str) -> Check:
    if math.isnan(p_value):
        return Check(name, Answer.UNDECIDED, f"{text}: too few days to tell it from chance")
    words = f"{text}, {p_text(p_value)} ({{}} {level:.3g})"
    if p_value < level:
        return Check(name, Answer.HELD, words.format("under"))
    return Check(name, Answer.UNDECIDED, words.format("must be under"))


def _untouched(unseen: Unseen) -> Check:
    name, before = "Holdout untouched", unseen.holdout.before
    if before.trained:
        times = "an earlier search" if before.trained == 1 else f"{before.trained} earlier searches"
        return Check(name, Answer.UNDECIDED, f"{times} trained or tested on a part of it")
    if before.looks:
        text = (
            f"looked at {before.looks} times before, so the level is divided by {before.looks + 1}"
        )
        return Check(name, Answer.HELD, text)
    return Check(name, Answer.HELD, "nobody has looked at it before, as far as the ledger knows")


def _permuted(unseen: Unseen, level: float) -> Check:
    name, test = "Permuted bars", unseen.monte_carlo
    if test is None:
        return Check(name, Answer.UNDECIDED, "not asked for (--skip-mc)")
    return _by_chance(name, test.p_value, level, f"{len(test.permuted)} permutations")


def _own_test(known: Known) -> Check:
    name = "The choice's clean test"
    if known.walk is None:
        return Check(name, Answer.UNDECIDED, "not reached")
    gained = known.walk.own_test_return_pct[-1]
    text = f"{gained:+.2f} % in the last test, which no train has seen"
    return Check(name, Answer.FAILED if gained < 0.0 else Answer.HELD, text)


def _walk_forward(known: Known) -> Check:
    name, walk = "Clean walk-forward", known.walk
    if walk is None:
        return Check(name, Answer.UNDECIDED, "not reached")
    gained = walk.test_return_pct
    text = f"{gained:+.2f} % in {len(walk.picks)} tests, {walk.profitable} of them gained"
    if gained < 0.0:
        return Check(name, Answer.FAILED, text)
    return Check(name, Answer.HELD if gained > 0.0 else Answer.UNDECIDED, text)


def _seeds(known: Known) -> Check:
    name, found = "Agreement of seeds", known.agreement
    if found is None:
        return Check(name, Answer.UNDECIDED, "not measured (--seeds 1, or interrupted)")
    if found.n_chosen < found.n_seeds:
        lost = found.n_seeds - found.n_chosen
        text = f"{lost} of {found.n_seeds} searches had nothing to choose"
        return Check(name, Answer.UNDECIDED, text)
    text = (
        f"the choices of {found.gained} of {found.n_seeds} searches gained in the last test; they "
        f"lie {found.spread:.2f} of the range apart, at random {found.random_spread:.2f} "
        f"({p_text(found.p_value)})"
    )
    return Check(name, Answer.HELD if found.agree else Answer.UNDECIDED, text)
