"""Evidence about luck: one line per test, each with its figures and a plain verdict.

``passes`` says whether a line's own criterion is met: of the tests with a p value that it is under
0.05, of the others what the verdict names. None: it could not be computed or was not asked for; the
verdict says why.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final

from backtest.optimize.judge.agreement import SIGNIFICANT, Agreement
from backtest.optimize.judge.deflated_sharpe import DeflatedSharpe
from backtest.optimize.judge.findings import Known, Unseen
from backtest.optimize.judge.holdout_run import HoldoutResult
from backtest.optimize.judge.luck_of_choosing import LuckOfChoosing
from backtest.optimize.judge.monte_carlo import PermutationTest
from backtest.optimize.judge.overfitting import Overfitting
from backtest.optimize.judge.superior import SuperiorAbility
from backtest.optimize.judge.walk_forward import WalkForward
from backtest.optimize.search.trial_ledger import SeenBefore

LUCK: Final = "not distinguishable from luck"
MIN_EFFICIENCY: Final = 0.5
"""Pardo's rule of thumb: a robust choice keeps at least half (2008, chapter 11)."""
_DAYS_PER_YEAR: Final = 365
_OF_WALK: Final = ("Walk-forward efficiency", "Test windows", "The choice's tests")
_OF_LUCK: Final = (
    "Deflated Sharpe ratio",
    "Overfitting (PBO)",
    "Best trial v. nothing",
    "Best trial v. static grid",
)
_NO_VALUE: Final = "-"
_NOT_REACHED: Final = "not reached: interrupted before"


@dataclass(frozen=True, slots=True)
class EvidenceLine:
    """One piece of evidence.

    Attributes:
        name: of the test.
        value: its figures, as text.
        verdict: what they mean, in words.
        passes: whether its criterion is met; None: not known.
    """

    name: str
    value: str
    verdict: str
    passes: bool | None

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data."""
        return {
            "name": self.name,
            "value": self.value,
            "verdict": self.verdict,
            "passes": self.passes,
        }


def evidence_lines(known: Known, unseen: Unseen | None) -> list[EvidenceLine]:
    """Return all lines; ``unseen`` is None after a search that was interrupted."""
    lines = [
        *_walk_lines(known.walk),
        _agreement(known.agreement),
        _holdout(unseen),
        _permutations(unseen),
    ]
    luck = known.luck
    if luck is None:
        return [*lines, *(EvidenceLine(name, _NO_VALUE, _NOT_REACHED, None) for name in _OF_LUCK)]
    return [
        *lines,
        _deflated_sharpe(luck),
        _overfitting(luck.overfitting),
        _superior(_OF_LUCK[2], luck.versus_nothing, "doing nothing"),
        _superior(_OF_LUCK[3], luck.versus_static, "the static grid"),
    ]


def _walk_lines(walk: WalkForward | None) -> list[EvidenceLine]:
    if walk is None:
        return [EvidenceLine(name, _NO_VALUE, _NOT_REACHED, None) for name in _OF_WALK]
    return [_efficiency(walk), _test_windows(walk), _own_tests(walk)]


def _agreement(found: Agreement | None) -> EvidenceLine:
    name = "Agreement of seeds"
    if found is None:
        text = "not measured: one seed only, or interrupted before"
        return EvidenceLine(name, _NO_VALUE, text, passes=None)
    value = f"{found.gained} of {found.n_seeds} choices gained in the last test"
    if math.isnan(found.p_value):
        text = f"{found.n_seeds - found.n_chosen} searches had nothing to choose"
        return EvidenceLine(name, value, text, passes=False)
    words = "nearer than chance" if found.p_value < SIGNIFICANT else "no nearer than chance"
    apart = (
        f"they lie {found.spread:.2f} of the range apart, at random {found.random_spread:.2f}: "
        f"{words} ({p_text(found.p_value)})"
    )
    return EvidenceLine(name, value, apart, found.agree)


def warnings_of(lines: Sequence[EvidenceLine], before: SeenBefore) -> list[str]:
    """Return sentences on what the verdict does not tell, whatever it says.

    Args:
        lines: all of them.
        before: what earlier searches have seen of the holdout.
    """
    found = []
    if names := [line.name for line in lines if LUCK in line.verdict]:
        found.append(f"{LUCK} by: {', '.join(names)}")
    if text := seen_text(before):
        found.append(f"the holdout was {text}")
    return found


def seen_text(before: SeenBefore) -> str:
    """Return how untouched a holdout no longer is, empty if it is."""
    parts = []
    if before.looks:
        times = "once" if before.looks == 1 else f"{before.looks} times"
        parts.append(f"looked at {times} before")
    if before.trained:
        parts.append(
            f"trained or tested on in part by {before.trained} earlier "
            f"search{'es' if before.trained > 1 else ''}"
        )
    return f"{' and '.join(parts)}, so no longer untouched" if parts else ""


def _efficiency(walk: WalkForward) -> EvidenceLine:
    name, value = _OF_WALK[0], walk.efficiency
    test, train = (rate * _DAYS_PER_YEAR for rate in (walk.test_daily_pct, walk.train_daily_pct))
    rates = f"{test:+.2f} % a year in the tests, {train:+.2f} % in training"
    if math.isnan(value):
        verdict = f"none: what was best in training lost there already ({rates})"
        return EvidenceLine(name, _NO_VALUE, verdict, passes=None)
    if value <= 0.0:
        words = "nothing of what was gained in training is left"
    elif value < MIN_EFFICIENCY:
        words = "less than half of what was gained in training is left"
    else:
        words = "at least half of what was gained in training is left"
    return EvidenceLine(name, f"{value:.2f}", f"{words} ({rates})", value >= MIN_EFFICIENCY)


def _test_windows(walk: WalkForward) -> EvidenceLine:
    gained, windows = walk.profitable, len(walk.picks)
    chance = _at_least(gained, windows)
    most = 2 * gained >= windows
    half = "at least half" if most else "fewer than half"
    if chance < SIGNIFICANT:
        words = f"{half}, and more than luck would ({p_text(chance)})"
    elif _at_least(windows, windows) >= SIGNIFICANT:
        words = f"{half}; {LUCK}, as any number of {windows} would be"
    else:
        words = f"{half}; {LUCK} ({p_text(chance)})"
    value = f"{gained} of {windows} gained"
    text = f"{words}; each chosen by a search that saw the train before it and nothing else"
    return EvidenceLine(_OF_WALK[1], value, text, most)


def _at_least(gained: int, windows: int) -> float:
    """Return the chance that tossed coins gain at least as often."""
    ways = sum(math.comb(windows, k) for k in range(gained, windows + 1))
    return float(ways / 2**windows)


def _own_tests(walk: WalkForward) -> EvidenceLine:
    returns = walk.own_test_return_pct
    last, count = returns[-1], len(returns)
    value = " ".join(f"{item:+.2f}" for item in returns) + " %"
    if count == 1:
        inside = "it lies in no train"
    elif count == 2:  # noqa: PLR2004 - one test before the last
        inside = "test 1 lies inside a later train, so only test 2 counts"
    else:
        inside = f"tests 1 to {count - 1} lie inside later trains, so only test {count} counts"
    words = "gained" if last > 0.0 else "lost" if last < 0.0 else "neither gained nor lost"
    return EvidenceLine(_OF_WALK[2], value, f"{inside}: it {words}", last > 0.0)


def _holdout(unseen: Unseen | None) -> EvidenceLine:
    if unseen is None:
        return EvidenceLine("Holdout", _NO_VALUE, f"{_NOT_REACHED}, and untouched", passes=None)
    result = unseen.holdout
    own, now = result.choice, result.baseline
    value = (
        f"{own.return_pct:+.2f} %, drawdown {own.max_drawdown_pct:.2f} %; "
        f"config now {now.return_pct:+.2f} %; doing nothing 0 %"
    )
    return EvidenceLine("Holdout", value, _holdout_words(result), own.return_pct > 0.0)


def _holdout_words(result: HoldoutResult) -> str:
    own, now = result.choice, result.baseline
    words = ["gained" if own.return_pct > 0.0 else "did not gain"]
    if own.return_pct > 0.0:
        if math.isnan(own.p_value):
            words.append("too few days to tell it from luck")
        elif own.p_value < SIGNIFICANT:
            words.append(f"more than luck would ({p_text(own.p_value)})")
        else:
            words.append(f"by itself {LUCK} ({p_text(own.p_value)})")
    if own.return_pct != now.return_pct:
        words.append(f"{'better' if own.return_pct > now.return_pct else 'worse'} than config now")
    if text := seen_text(result.before):
        words.append(text)
    return "; ".join(words)


def _permutations(unseen: Unseen | None) -> EvidenceLine:
    name = "Permuted bars"
    if unseen is None:
        return EvidenceLine(name, _NO_VALUE, _NOT_REACHED, passes=None)
    test = unseen.monte_carlo
    if test is None:
        return EvidenceLine(name, _NO_VALUE, "not asked for (--skip-mc)", passes=None)
    value = (
        f"{p_text(test.p_value)}: {test.observed:+.2f} % on the real bars, "
        f"{median(test.permuted):+.2f} % on the median of {len(test.permuted)} permutations"
    )
    return EvidenceLine(name, value, _permutation_words(test), mc_significant(test))


def mc_significant(test: PermutationTest) -> bool:
    """Return whether the p value of a permutation test is under 0.05."""
    return test.p_value < SIGNIFICANT


def _permutation_words(test: PermutationTest) -> str:
    if not mc_significant(test):
        least = 1.0 / (len(test.permuted) + 1)
        few = "" if least < SIGNIFICANT else "; so few permutations cannot show more"
        return f"{LUCK}{few}"
    if test.observed <= 0.0:
        return "the order of the real bars suits the choice better than chance, yet it did not gain"
    return "what it lives on is in the order of the real bars, beyond luck"


def _deflated_sharpe(luck: LuckOfChoosing) -> EvidenceLine:
    name, raw, effective = _OF_LUCK[0], luck.raw, luck.effective
    if raw.reason:
        return EvidenceLine(name, _NO_VALUE, f"none: {raw.reason}", passes=None)
    value = (
        f"Sharpe {raw.sharpe * math.sqrt(_DAYS_PER_YEAR):.2f} a year; "
        f"{p_text(_p_of(raw))} as the best of {luck.n_ever} trials, "
        f"{p_text(_p_of(effective))} of {luck.n_effective} independent ones"
    )
    passes = _p_of(effective) < SIGNIFICANT
    if _p_of(raw) < SIGNIFICANT:
        words = "more than the luck of so many trials"
    elif passes:
        words = "more than the luck of so many trials, as far as they differ"
    else:
        words = LUCK
    return EvidenceLine(name, value, words, passes)


def _p_of(found: DeflatedSharpe) -> float:
    return 1.0 - found.dsr


def _overfitting(found: Overfitting) -> EvidenceLine:
    name = _OF_LUCK[1]
    if found.reason:
        return EvidenceLine(name, _NO_VALUE, f"none: {found.reason}", passes=None)
    passes = found.pbo < SIGNIFICANT
    if passes:
        words = "the best half the time is the best the other half too"
    elif round(found.pbo, 2) < 0.5:  # noqa: PLR2004 - a toss, as printed
        words = f"choosing among these trials helps more often than not; {LUCK}"
    else:
        words = f"choosing among these trials is no better than drawing lots: {LUCK}"
    known = math.isfinite(found.low)
    value = f"{found.pbo:.2f}" + (f" ({found.low:.2f} to {found.high:.2f})" if known else "")
    return EvidenceLine(name, value, words, passes)


def _superior(name: str, found: SuperiorAbility, benchmark: str) -> EvidenceLine:
    if found.reason:
        return EvidenceLine(name, _NO_VALUE, f"none: {found.reason}", passes=None)
    passes = found.consistent < SIGNIFICANT
    words = f"on the bars searched better than {benchmark}, beyond luck" if passes else LUCK
    value = f"{p_text(found.consistent)} of {found.n_models} trials (SPA)"
    if found.reps:
        value += (
            f", {found.lower:.2f} to {found.upper:.2f} by which trials count, "
            f"+-{1.96 * found.standard_error:.3f} by the draws"
        )
    return EvidenceLine(name, value, words, passes)


def p_text(value: float) -> str:
    """Return a p value as text, ``p = 0.31``, never 0."""
    if value < 0.001:  # noqa: PLR2004 - three digits
        return "p < 0.001"
    return f"p = {value:.2f}" if value >= 0.1 else f"p = {value:.3f}"  # noqa: PLR2004
