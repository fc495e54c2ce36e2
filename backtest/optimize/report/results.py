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
from backtest.optimize.judge.evidence import (
    OOS_RULE,
    evidence_lines,
    mc_significant,
    out_of_sample,
    warnings_of,
)
from backtest.optimize.judge.final_choice import FinalChoice
from backtest.optimize.judge.findings import Known, Unseen
from backtest.optimize.judge.holdout_run import PortfolioRun
from backtest.optimize.judge.sensitivity import Sensitivity
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.study import FinishedTrial
from backtest.optimize.search.study_identity import StudyIdentity
from backtest.optimize.trial.prepare import Prepared
from backtest.optimize.trial.windows import SharedPlan
from backtest.results.files import json_bytes, write_file
from core.params import read_value

BEST_NOTE: Final = "reference only: the best of many trials is partly luck; use robust_params"
_MOST_POINTS: Final = 2_000
"""Of an equity curve; more than a screen shows."""


def results_document(
    identity: StudyIdentity,
    prepared: Prepared,
    searched: Searched,
    known: Known,
    unseen: Unseen,
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
        importance: each parameter's share, or None.
        seconds: the whole command took so far.
    """
    choice, lines = known.choice.params, evidence_lines(known, unseen)
    typed = {name: read_value(name, value) for name, value in choice.items()}
    document = {
        **_choice(known.choice),
        "n_windows": identity.windows,
        "coins": list(identity.coins),
        "oos_pass": out_of_sample(known, unseen),
        "oos_rule": OOS_RULE,
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
        "windows": _windows(known.choice, prepared.plan),
        "walk_forward": _walk_forward(known),
        "holdout": _holdout(unseen),
        **_luck(known),
        "evidence": [line.to_dict() for line in lines],
        "sensitivity": _sensitivity(known.sensitivity),
        "trials": [_trial(item) for item in searched.trials],
        "importance": None if importance is None else dict(importance),
        "timing": {"seconds": seconds, **searched.timing()},
    }
    plain: dict[str, Any] = json.loads(json_bytes(document))
    return plain


def best_document(document: Mapping[str, Any], best: FinishedTrial) -> dict[str, Any]:
    """Return the parameters of the trial of the highest score, and what became of the search.

    The trial itself was not run on the holdout: that was for the robust choice, and where even
    that has failed there is less reason to believe in the luckiest trial.
    """
    return {
        "best_params": best.params,
        "best_score": best.outcome.score,
        "trial": best.number,
        "note": BEST_NOTE,
        "params": {**document["params"], **best.params},
        **{key: document[key] for key in ("oos_pass", "oos_rule", "oos_warnings")},
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


def _choice(choice: FinalChoice) -> dict[str, Any]:
    stability, candidates = choice.stability, choice.candidates
    centres = candidates.top_params
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
                "verdict": item.word,
                "random_cv": item.random_cv,
                "median": item.centre,
                **_range([params[item.name] for params in centres]),
            }
            for item in stability.spreads
        },
        "robustness_score": stability.score,
        "robustness_random": stability.random_score,
        "robustness_verdict": stability.word,
        "top_trials_used": len(candidates.top_numbers),
        "trials_scored": candidates.scored,
        "best_single_trial_score": choice.best.outcome.score,
        "best_single_trial_number": choice.best.number,
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
