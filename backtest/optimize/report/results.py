"""Files of a search: the results, the best trial for reference, charts and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.market.timeframes import format_time
from backtest.optimize.apply.result_folders import BEST, PAGE, RESULTS, ResultFolders
from backtest.optimize.judge.agreement import Agreement, ParameterAgreement
from backtest.optimize.judge.evidence import evidence_lines, mc_significant, warnings_of
from backtest.optimize.judge.final_choice import FinalChoice
from backtest.optimize.judge.findings import Known, Unseen
from backtest.optimize.judge.holdout_run import PortfolioRun
from backtest.optimize.judge.sensitivity import Sensitivity
from backtest.optimize.judge.verdict import MEANING, TO_DO, Answer, Verdict, nothing_gained
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.study import FinishedTrial
from backtest.optimize.search.study_identity import StudyIdentity
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.windows import SharedPlan
from backtest.results.files import json_bytes, write_file
from core.params import read_value

BEST_NOTE: Final = "reference only: the best of many trials is partly luck; use robust_params"
_NOT_TESTED: Final = (
    "it is the best of many trials, which is partly luck, and the holdout was for the robust choice"
)
_MOST_POINTS: Final = 2_000
"""Of an equity curve; more than a screen shows."""


def results_document(
    identity: StudyIdentity,
    prepared: Prepared,
    searched: Searched,
    known: Known,
    unseen: Unseen,
    verdict: Verdict,
    *,
    importance: Mapping[str, float] | None,
    seconds: float,
) -> dict[str, Any]:
    """Return all that a search says, JSON-ready: NaN is None.

    Args:
        identity: what was searched.
        prepared: on which bars.
        searched: the trials.
        known: what they say.
        unseen: what the holdout says.
        verdict: of both.
        importance: each parameter's share, or None.
        seconds: the whole command took so far.
    """
    choice, lines = known.choice.params, evidence_lines(known, unseen)
    declared = type(prepared.params)
    typed = {name: read_value(name, value, declared) for name, value in choice.items()}
    document = {
        "verdict": verdict.to_dict(),
        "strategy": prepared.how.spec.name,
        **_choice(known.choice, known.agreement),
        "n_windows": identity.windows,
        "coins": list(identity.coins),
        "oos_pass": verdict.answer is Answer.HELD,
        "oos_rule": f"true if the verdict is {Answer.HELD.value!r}. {MEANING}",
        "oos_warnings": warnings_of(lines, unseen.holdout.before),
        **_monte_carlo(unseen),
        "start": identity.start,
        "end": identity.end,
        "holdout_start": format_time(prepared.plan.holdout_ms),
        "seed": identity.seed,
        "study_name": identity.name,
        "objective": identity.objective,
        "data_hash": identity.data_hash,
        "fingerprint": identity.fingerprint,
        "scoring_fingerprint": identity.scoring,
        "rules": identity.rules,
        "space": identity.space,
        "params": replace(prepared.params, **typed).to_dict(),
        "baseline_train_score": known.baseline_score,
        "num_trials": len(searched.trials),
        "nothing_gained_on_train": nothing_gained(known),
        "windows": _windows(known.choice, prepared.plan),
        "walk_forward": _walk_forward(known),
        "holdout": _holdout(unseen),
        **_luck(known),
        "evidence": [line.to_dict() for line in lines],
        "sensitivity": _sensitivity(known.sensitivity),
        "products": [pair._asdict() for pair in known.sensitivity.pairs]
        if known.sensitivity
        else [],
        "trials": [_trial(item) for item in searched.trials],
        "importance": None if importance is None else dict(importance),
        "timing": {"seconds": seconds, **searched.timing()},
    }
    plain: dict[str, Any] = json.loads(json_bytes(document))
    return plain


def best_document(document: Mapping[str, Any], best: FinishedTrial) -> dict[str, Any]:
    """Return the parameters of the trial of the highest score, which is not tested.

    It was not run on the holdout: that was for the robust choice, whose verdict is not this one's.
    """
    answer = Answer.NOT_TESTED
    return {
        "best_params": best.params,
        "best_score": best.outcome.score,
        "trial": best.number,
        "note": BEST_NOTE,
        "strategy": document["strategy"],
        "params": {**document["params"], **best.params},
        "verdict": {"answer": answer.value, "why": [_NOT_TESTED], "to_do": TO_DO[answer]},
        "oos_pass": None,
        "oos_warnings": document["oos_warnings"],
    }


def write_results(
    document: Mapping[str, Any], best: FinishedTrial, folders: ResultFolders, *, plot: bool
) -> list[Path]:
    """Write all files, each whole or not at all, and return their paths.

    Raises:
        DataError: the disk is full or read-only.
    """
    paths = [folders.data / RESULTS, folders.data / BEST]
    for path, body in zip(paths, (document, best_document(document, best)), strict=True):
        write_file(path, json_bytes(body))
    if plot:
        from backtest.optimize.report.charts import write_charts  # noqa: PLC0415 - matplotlib, 0.4 s
        from backtest.optimize.report.optimizer_report import optimizer_page  # noqa: PLC0415

        plain = dict(document)
        paths += write_charts(plain, folders.charts)
        write_file(folders.pages / PAGE, optimizer_page(plain))
        paths.append(folders.pages / PAGE)
    return paths


def _choice(choice: FinalChoice, agreement: Agreement | None) -> dict[str, Any]:
    stability, candidates = choice.stability, choice.candidates
    centres = candidates.top_params
    seeds = {} if agreement is None else {item.name: item for item in agreement.parameters}
    return {
        "robust_params": choice.params,
        "robust_choice": choice.kind,
        "train_score": choice.outcome.score,
        "median_score": choice.median_score,
        "medoid_score": choice.medoid_score,
        "medoid_number": candidates.medoid_number,
        "param_stability": {
            item.name: {
                "cv": item.cv,
                "random_cv": item.random_cv,
                "median": item.centre,
                **_range([params[item.name] for params in centres]),
                **_seeds_of(seeds.get(item.name)),
            }
            for item in stability.spreads
        },
        "robustness_score": stability.score,
        "robustness_random": stability.random_score,
        "agreement": None if agreement is None else _agreement(agreement),
        "top_trials_used": len(candidates.top_numbers),
        "trials_scored": candidates.scored,
        "best_single_trial_score": choice.best.outcome.score,
        "best_single_trial_number": choice.best.number,
    }


def _seeds_of(found: ParameterAgreement | None) -> dict[str, Any]:
    """Return how near the choices of all seeds are in one parameter."""
    if found is None:
        return {"verdict": None, "spread": None, "random_spread": None, "p_value": None}
    return {
        "verdict": found.word,
        "spread": found.spread,
        "random_spread": found.random_spread,
        "p_value": found.p_value,
        "seeds": list(found.values),
    }


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "seeds": found.n_seeds,
        "chosen": found.n_chosen,
        "trials_each": found.n_trials,
        "spread": found.spread,
        "random_spread": found.random_spread,
        "p_value": found.p_value,
        "last_test_return_pct": list(found.test_return_pct),
        "agree": found.agree,
    }


def _range(values: list[Any]) -> dict[str, Any]:
    """Return the lowest and highest of the best trials' values; of categories there is none."""
    if any(isinstance(value, str | bool) for value in values):
        return {"low": None, "high": None}
    return {"low": min(values), "high": max(values)}


def _monte_carlo(unseen: Unseen) -> dict[str, Any]:
    test = unseen.monte_carlo
    if test is None:
        return {"mc_significant": None, "mc_p_value": None, "monte_carlo": None}
    return {
        "mc_significant": mc_significant(test),
        "mc_p_value": test.p_value,
        "monte_carlo": {
            "n": len(test.permuted),
            "p_value": test.p_value,
            "observed": test.observed,
            "permuted": list(test.permuted),
            "start": format_time(test.start_ms),
            "end": format_time(test.end_ms),
        },
    }


def _windows(choice: FinalChoice, plan: SharedPlan) -> list[dict[str, Any]]:
    windows = plan.plan.windows
    return [
        {
            "coin": coin,
            "window": k + 1,
            "train": choice.outcome.train[coin][k].to_dict(),
            "test": choice.outcome.test[coin][k].to_dict(),
            "train_start": format_time(plan.start_ms),
            "train_end": format_time(plan.time_of(window.train_end)),
            "test_start": format_time(plan.time_of(window.test_start)),
            "test_end": format_time(plan.time_of(window.test_end)),
            "test_inside_later_train": k + 1 < len(windows),
        }
        for coin in choice.outcome.train
        for k, window in enumerate(windows)
    ]


def _walk_forward(known: Known) -> dict[str, Any]:
    walk = known.walk
    if walk is None:
        return {}
    return {
        "efficiency": walk.efficiency,
        "profitable_share": walk.profitable_share,
        "train_daily_pct": walk.train_daily_pct,
        "test_daily_pct": walk.test_daily_pct,
        "picks": [asdict(pick) for pick in walk.picks],
        "own_test_return_pct": list(walk.own_test_return_pct),
    }


def _holdout(unseen: Unseen) -> dict[str, Any]:
    own, baseline = unseen.holdout.choice, unseen.holdout.baseline
    return {
        "per_coin": own.per_coin,
        "return_pct": own.return_pct,
        "max_drawdown_pct": own.max_drawdown_pct,
        "p_value": own.p_value,
        "equity": _thinned(own),
        "baseline_return_pct": baseline.return_pct,
        "baseline_max_drawdown_pct": baseline.max_drawdown_pct,
        "baseline_equity": _thinned(baseline),
        "looks_before": unseen.holdout.before.looks,
        "trained_before": unseen.holdout.before.trained,
    }


def _thinned(run: PortfolioRun) -> dict[str, Any]:
    """Return the equity of all coins together at points spread evenly, the last among them."""
    count = len(run.times_ms)
    kept = np.unique(np.linspace(0, count - 1, min(count, _MOST_POINTS)).round().astype(np.int64))
    return {"timestamp": run.times_ms[kept].tolist(), "value": run.equity[kept].tolist()}


def _luck(known: Known) -> dict[str, Any]:
    luck = known.luck
    if luck is None:
        return {}
    pbo = asdict(luck.overfitting)
    arrays = ("logits", "in_sample", "out_of_sample")
    return {
        "deflated_sharpe": {
            "raw": asdict(luck.raw),
            "effective": asdict(luck.effective),
            "n_trials_ever": luck.n_ever,
            "n_effective": luck.n_effective,
        },
        "overfitting": pbo | {name: pbo[name].tolist() for name in arrays},
        "superior": {
            "do_nothing": asdict(luck.versus_nothing),
            "static_grid": asdict(luck.versus_static),
        },
    }


def _sensitivity(found: Sensitivity | None) -> list[dict[str, Any]]:
    idle = [] if found is None else found.without_effect()
    return (
        []
        if found is None
        else [
            {
                "name": curve.name,
                "values": [point.value for point in curve.points],
                "scores": [point.score for point in curve.points],
                "steps": [point.step for point in curve.points],
                "cliff": bool(curve.cliffs),
                "cliffs": list(curve.cliffs),
                "no_effect": curve.name in idle,
            }
            for curve in found.curves
        ]
    )


def _trial(item: FinishedTrial) -> dict[str, Any]:
    """Return a trial; ``train`` holds a list per coin, with a score per window."""
    outcome = item.outcome
    return {
        "number": item.number,
        "score": outcome.score,
        "params": item.params,
        "train": [[row.score for row in rows] for rows in outcome.train.values()],
        "seconds": item.seconds if math.isfinite(item.seconds) else None,
    }
