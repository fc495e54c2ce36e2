"""Made-up results of a search, in the form of its JSON file: a full one and a sparse one."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import Any, Final

import numpy as np

from backtest.optimize.judge.robust import ScoredTrial, Spread, measure_stability, robust_candidates
from backtest.optimize.trial.space import Entry, read_space
from config import OPTIMIZER_SPACE, STRATEGY_PARAMS

START_MS: Final = 1_704_067_200_000
HOUR_MS: Final = 3_600_000
COINS: Final = ("BTC", "ETH", "SOL")
N_WINDOWS: Final = 4
SPACE: Final[dict[str, Any]] = {
    **OPTIMIZER_SPACE,
    "funding_harvest_threshold": {"type": "float", "low": 5e-5, "high": 5e-4, "log": True},
    "trailing_enabled": {"type": "cat", "choices": [True, False]},
}
SCALARS: Final = (
    "robust_choice",
    "robustness_score",
    "num_trials",
    "top_trials_used",
    "best_single_trial_score",
    "best_single_trial_number",
    "n_windows",
    "oos_pass",
    "mc_significant",
    "mc_p_value",
    "start",
    "end",
    "holdout_start",
    "seed",
    "study_name",
    "objective",
    "data_hash",
    "fingerprint",
    "train_score",
    "median_score",
    "medoid_score",
    "medoid_number",
    "robustness_random",
    "trials_scored",
    "baseline_train_score",
    "oos_rule",
    "scoring_fingerprint",
)
PARTS: Final = (
    "robust_params",
    "param_stability",
    "coins",
    "space",
    "params",
    "windows",
    "walk_forward",
    "holdout",
    "monte_carlo",
    "deflated_sharpe",
    "overfitting",
    "superior",
    "evidence",
    "sensitivity",
    "trials",
    "importance",
    "timing",
    "oos_warnings",
    "rules",
)


def full_document(n_trials: int = 200, names: Collection[str] = tuple(SPACE)) -> dict[str, Any]:
    """Return the results of a search of ``n_trials`` trials, more than 100, over ``names``."""
    random = np.random.default_rng(7)
    space = read_space({name: SPACE[name] for name in names})
    trials = [_trial(random, number, space.entries) for number in range(n_trials)]
    scored = [ScoredTrial(t["number"], t["params"], t["score"]) for t in trials if t["score"]]
    choice = robust_candidates(scored, space.entries)
    stability = measure_stability(choice.top_params, space.entries)
    best = max(scored, key=lambda trial: trial.score)
    tops = {name: [params[name] for params in choice.top_params] for name in space.entries}
    return {
        "robust_params": choice.median_params,
        "robust_choice": "median",
        "median_score": 0.4123,
        "medoid_score": 0.3871,
        "medoid_number": choice.medoid_number,
        "param_stability": {row.name: _stability(row, tops[row.name]) for row in stability.spreads},
        "robustness_score": stability.score,
        "robustness_random": stability.random_score,
        "verdict": {
            "answer": "failed",
            "why": ["Holdout v. nothing: -0.31 % in 83 days"],
            "to_do": "keep your config: the choice lost",
            "level": 0.05,
            "rule": "held: on the holdout better than doing nothing",
            "checks": [
                {"name": "Train", "answer": "held", "text": "the choice gained, score 0.41"},
                {"name": "Holdout v. nothing", "answer": "failed", "text": "-0.31 % in 83 days"},
                {"name": "Permuted bars", "answer": "undecided", "text": "p = 0.31"},
            ],
        },
        "nothing_gained_on_train": False,
        "agreement": {
            "seeds": 4,
            "chosen": 4,
            "trials_each": 120,
            "spread": 0.31,
            "random_spread": 0.32,
            "p_value": 0.41,
            "last_test_return_pct": [0.4, -0.2, 0.1, 0.3],
            "agree": False,
        },
        "products": [{"one": "gamma", "other": "kappa", "kind": "product"}],
        "trials_scored": choice.scored,
        "baseline_train_score": -0.1893,
        "oos_rule": "true if the holdout gained and at least half of the tests did",
        "num_trials": n_trials,
        "top_trials_used": len(choice.top_numbers),
        "best_single_trial_score": best.score,
        "best_single_trial_number": best.number,
        "n_windows": N_WINDOWS,
        "coins": list(COINS),
        "oos_pass": False,
        "mc_significant": False,
        "mc_p_value": 0.3137254901960784,
        "start": "2024-01-01 00:00",
        "end": "2025-06-30 00:00",
        "holdout_start": "2025-04-08 12:00",
        "seed": 42,
        "study_name": "btc_eth_sol_calmar_pf",
        "objective": "calmar_pf",
        "data_hash": "9f2c1ab04e",
        "fingerprint": "77aa10c3d2",
        "scoring_fingerprint": "5c0de5c0de",
        "rules": {f"{coin}.tick_size": 0.1 for coin in COINS},
        "oos_warnings": ["not distinguishable from luck by: Permuted bars"],
        "space": space.to_dict(),
        "params": {**STRATEGY_PARAMS, **choice.median_params},
        "train_score": 0.4123,
        "windows": [_window(random, coin, k) for coin in COINS for k in range(1, N_WINDOWS + 1)],
        "walk_forward": _walk_forward(random, best.number),
        "holdout": _holdout(random),
        "importance": _importance(random, names),
        "sensitivity": [
            _curve(random, name, entry, choice.median_params[name])
            for name, entry in space.entries.items()
        ],
        "trials": trials,
        "timing": {
            "seconds": 412.5,
            "search_seconds": 390.1,
            "trials_per_second": 0.4848,
            "sampling_share": 0.03,
            "evaluating_share": 0.96,
            "writing_share": 0.01,
        },
        **_luck(random),
    }


def sparse_document() -> dict[str, Any]:
    """Return results of which nothing could be computed: everything optional is None."""
    return {**dict.fromkeys(SCALARS + PARTS), "coins": ["BTC"], "num_trials": 0}


def hollow_document() -> dict[str, Any]:
    """Return results in which every part is there and every number in it is None."""
    return {name: hollow(part) for name, part in full_document().items()} | {
        "trials": [{"number": 3, "score": None, "params": {}, "train": [], "seconds": None}]
    }


def hollow(part: Any) -> Any:
    """Return ``part`` with None for every number and truth value; what names a row stays."""
    if isinstance(part, dict):
        return {name: value if name == "window" else hollow(value) for name, value in part.items()}
    if isinstance(part, list):
        return [hollow(value) for value in part if isinstance(value, dict)]
    return part if isinstance(part, str) else None


def _trial(
    random: np.random.Generator, number: int, entries: Mapping[str, Entry]
) -> dict[str, Any]:
    """Return a trial; later ones lie closer to the middle and fare better, some are flawed."""
    width = 0.5 / (1.0 + number / 60.0)
    params: dict[str, Any] = {}
    for name, entry in entries.items():
        share = float(np.clip(0.5 + random.uniform(-width, width), 0.0, 1.0))
        if entry.low is None or entry.high is None:
            params[name] = entry.choices[int(random.integers(len(entry.choices)))]
        else:
            value = entry.low + share * (entry.high - entry.low)
            params[name] = round(value) if entry.kind == "int" else value
    score = float(0.9 - 2.0 * width + random.normal(0.0, 0.25))
    if number % 23 == 5:
        score = (score / (1.0 + score) if score > 0.0 else score) - 10.0
    windows = [[score + float(random.exponential(0.4)) for _ in range(N_WINDOWS)] for _ in COINS]
    return {
        "number": number,
        "score": None if number == 17 else score,
        "params": params,
        "train": windows,
        "seconds": float(random.uniform(1.0, 3.0)),
    }


def _stability(row: Spread, values: list[Any]) -> dict[str, Any]:
    known = [value for value in values if not isinstance(value, bool)]
    return {
        "cv": row.cv,
        "verdict": "agrees" if row.name == "spacing_floor" else "as random",
        "random_cv": row.random_cv,
        "spread": 0.07 if row.name == "spacing_floor" else 0.33,
        "random_spread": 0.32,
        "p_value": 0.012 if row.name == "spacing_floor" else 0.55,
        "median": row.centre,
        "low": min(known, default=None),
        "high": max(known, default=None),
    }


def _score(random: np.random.Generator, mean: float) -> dict[str, Any]:
    score = float(random.normal(mean, 0.4))
    return {
        "score": score,
        "return_pct": score * 3.0,
        "max_drawdown_pct": 3.0,
        "calmar": score,
        "profit_factor": 1.0 + score / 4.0,
        "trades": int(random.integers(25, 300)),
        "note": "",
    }


def _window(random: np.random.Generator, coin: str, window: int) -> dict[str, Any]:
    test = _score(random, 0.0)
    if (coin, window) == ("ETH", 2):
        test |= {
            "score": -9.4,
            "trades": 6,
            "profit_factor": None,
            "note": "6 trades, fewer than 20",
        }
    return {
        "coin": coin,
        "window": window,
        "train": _score(random, 0.7),
        "test": test,
        "train_start": "2024-01-01 00:00",
        "train_end": f"2024-{3 * window:02d}-20 00:00",
        "test_start": f"2024-{3 * window:02d}-23 06:00",
        "test_end": f"2024-{3 * window:02d}-28 00:00",
        "test_inside_later_train": window < N_WINDOWS,
    }


def _walk_forward(random: np.random.Generator, best: int) -> dict[str, Any]:
    picks = [
        {
            "window": k,
            "kind": "medoid" if (best + k) % 2 else "median",
            "train_score": 1.0 + 0.1 * k,
            "test_score": float(random.normal(0.1, 0.3)),
            "train_return_pct": 2.5,
            "test_return_pct": float(random.normal(0.3, 1.0)),
        }
        for k in range(1, N_WINDOWS + 1)
    ]
    return {
        "efficiency": 0.2134,
        "profitable_share": 0.75,
        "picks": picks,
        "train_daily_pct": 0.03,
        "test_daily_pct": 0.0064,
        "own_test_return_pct": [0.1, -0.2, 0.3, 0.1],
    }


def _holdout(random: np.random.Generator) -> dict[str, Any]:
    times = [START_MS + HOUR_MS * k for k in range(2_000)]
    equity = 30_000.0 * np.cumprod(1.0 + random.normal(0.00001, 0.0008, 2_000))
    before = 30_000.0 * np.cumprod(1.0 + random.normal(0.0, 0.0006, 2_000))
    metrics = {
        "total_return_pct": 1.25,
        "max_drawdown_pct": 2.5,
        "calmar_ratio": 0.5,
        "profit_factor": 1.1,
        "total_trades": 57,
    }
    return {
        "per_coin": {coin: dict(metrics) for coin in COINS},
        "return_pct": float(equity[-1] / 300.0 - 100.0),
        "max_drawdown_pct": 3.21,
        "p_value": 0.21,
        "looks_before": 2,
        "baseline_max_drawdown_pct": 2.75,
        "equity": {"timestamp": times, "value": equity.tolist()},
        "baseline_return_pct": float(before[-1] / 300.0 - 100.0),
        "baseline_equity": {"timestamp": times, "value": before.tolist()},
    }


def _importance(random: np.random.Generator, names: Collection[str]) -> dict[str, float]:
    shares = random.dirichlet(np.full(len(names), 0.5))
    return {name: float(share) for name, share in zip(names, shares, strict=True)}


def _curve(random: np.random.Generator, name: str, entry: Entry, centre: Any) -> dict[str, Any]:
    if entry.kind == "cat":
        return {"name": name, "values": [True, False], "scores": [0.41, -0.2], "cliff": False}
    steps = (-0.2, -0.1, 0.0, 0.1, 0.2)
    values = [
        centre + (round(10 * step) if entry.kind == "int" else centre * step) for step in steps
    ]
    scores: list[float | None] = [0.41 - abs(float(d)) for d in random.normal(0.0, 0.1, 5)]
    scores[2] = 0.4123
    if name == "gamma":
        scores[3:] = [-9.6, None]
    cliffs = values[3:] if name == "gamma" else []
    return {
        "name": name,
        "values": values,
        "scores": scores,
        "steps": list(steps),
        "cliff": bool(cliffs),
        "cliffs": cliffs,
    }


def _luck(random: np.random.Generator) -> dict[str, Any]:
    deflated = {
        "n_days": 460,
        "n_trials": 200,
        "sharpe": 0.06,
        "sr0": 0.11,
        "psr": 0.9,
        "dsr": 0.14,
        "variance": 0.002,
        "skewness": -0.4,
        "kurtosis": 6.1,
        "reason": "",
    }
    superior = {
        "n_days": 460,
        "n_models": 199,
        "dropped": 1,
        "block_days": 5,
        "lower": 0.31,
        "consistent": 0.36,
        "upper": 0.44,
        "reason": "",
    }
    logits = [float(value) for value in random.normal(0.2, 1.3, 252)]
    return {
        "monte_carlo": {
            "n": 50,
            "p_value": 0.3137254901960784,
            "observed": 0.62,
            "permuted": [float(value) for value in random.normal(0.2, 0.9, 50)],
            "start": "2025-02-01 00:00",
            "end": "2025-06-30 00:00",
        },
        "deflated_sharpe": {
            "raw": deflated,
            "effective": {**deflated, "n_trials": 12, "dsr": 0.38},
            "n_trials_ever": 650,
            "n_effective": 12,
        },
        "overfitting": {
            "n_days": 460,
            "n_trials": 199,
            "dropped": 1,
            "loss_probability": 0.4,
            "reason": "",
            "pbo": math.fsum(v < 0 for v in logits) / 252,
            "logits": logits,
            "in_sample": logits,
            "out_of_sample": logits,
        },
        "superior": {"do_nothing": superior, "static_grid": {**superior, "consistent": 0.04}},
        "evidence": [
            {
                "name": "Deflated Sharpe ratio",
                "value": "0.38 of 12 effective trials",
                "verdict": "not told apart from the luck of choosing among 12 trials",
                "passes": False,
            },
            {
                "name": "Better than doing nothing",
                "value": "p = 0.36",
                "verdict": "no trial is better than doing nothing beyond chance",
                "passes": False,
            },
            {
                "name": "Better than a static grid",
                "value": 0.04,
                "verdict": "the best trial is better than the <static> grid",
                "passes": True,
            },
            {"name": "Permuted bars", "value": "-", "verdict": "not asked for", "passes": None},
        ],
    }
