"""The page of a search: one HTML file, complete in itself, made of the results document alone.

It opens without a network. Whatever was not computed is missing from the document or None there; it
shows as a dash.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
from bokeh.models import GridBox
from markupsafe import Markup

from backtest.optimize.judge.robust import variation_text
from backtest.optimize.report.chart_data import (
    Document,
    course,
    importance,
    look_up,
    picks,
    rows,
    windows,
)
from backtest.optimize.report.parameter_figures import (
    drawn_trials,
    sensitivity_charts,
    trial_charts,
)
from backtest.optimize.report.report_figures import (
    histogram_chart,
    holdout_charts,
    importance_chart,
    pairs_chart,
    progress_chart,
    stability_chart,
)
from backtest.optimize.report.verdict_tones import ANSWERS, answer, criterion, verdict
from backtest.report.parameter_table import parameter_rows, value_text
from backtest.report.template import NOTHING, Numbers, number_text, parameter_table, render

SECTIONS: Final = (
    ("evidence", "Evidence"),
    ("parameters", "Parameters"),
    ("holdout", "Holdout"),
    ("windows", "Train and test"),
    ("luck", "Luck"),
    ("sensitivity", "Sensitivity"),
    ("search", "Search"),
    ("trials", "Trials"),
    ("data", "Data"),
)
CARDS: Final = (
    ("Holdout return", "holdout.return_pct", "signed_percent"),
    ("Current parameters there", "holdout.baseline_return_pct", "signed_percent"),
    ("Holdout max drawdown", "holdout.max_drawdown_pct", "percent"),
    ("Train score", "train_score", "plain"),
    ("Current train score", "baseline_train_score", "plain"),
    ("Best single trial", "best_single_trial_score", "plain"),
    ("Walk-forward efficiency", "walk_forward.efficiency", "plain"),
    ("Share of tests with a gain", "walk_forward.profitable_share", "plain"),
    ("Probability of overfitting", "overfitting.pbo", "plain"),
    ("p, permuted bars", "mc_p_value", "plain"),
)
STATISTICS: Final = {
    "dsr": "probability that the true Sharpe ratio is above that of luck (deflated)",
    "psr": "probability that it is above 0, were this the only trial",
    "sharpe": "Sharpe ratio per day",
    "sr0": "Sharpe ratio per day that luck alone would find",
    "n_trials": "trials it was chosen from",
    "n_days": "days",
    "variance": "variance of the trials' Sharpe ratios",
    "consistent": "p (Hansen, consistent)",
    "lower": "p, lower bound",
    "upper": "p, upper bound (Reality Check)",
    "n_models": "trials compared",
    "dropped": "trials left out",
    "block_days": "mean length of a block, days",
    "reason": "why there is none",
}
"""Names of statistics; others are written as in the document."""
METRICS: Final = (
    ("return", ("total_return_pct", "return_pct"), "signed_percent"),
    ("max drawdown", ("max_drawdown_pct",), "percent"),
    ("Calmar", ("calmar_ratio", "calmar"), "ratio"),
    ("Sharpe", ("sharpe_ratio",), "ratio"),
    ("profit factor", ("profit_factor",), "ratio"),
    ("round trips", ("total_trades", "trades"), "count"),
)
"""Columns of the coins' table: heading, the names a metric may have, kind."""
BEST_LISTED: Final = 10
_COLUMNS: Final = 4
_TRIAL_KEYS: Final = ("number", "score", "seconds")


class ResultNumbers(Numbers):
    """Values of a results document by their path; what is missing is None."""

    def at(self, path: str) -> Any:
        """Return what stands at ``path`` or None."""
        return look_up(self.document, path)

    def variation(self, path: str) -> Markup:
        """Return the coefficient of variation at ``path``, never rounded onto a limit."""
        value = self.at(path)
        text = NOTHING if value is None else variation_text(value)
        return Markup('<span class="num" data-path="{}">{}</span>').format(path, text)

    def shown(self, path: str, digits: int = 6) -> Markup:
        """Return the number at ``path`` to ``digits`` figures, marked with its path, or a text."""
        value = self.at(path)
        if isinstance(value, bool | str | list):
            parts = value if isinstance(value, list) else [value]
            return Markup("{}").format(", ".join(map(value_text, parts)) or NOTHING)
        text = NOTHING if value is None else _figures(value, digits)
        return Markup('<span class="num" data-path="{}">{}</span>').format(path, text)


def optimizer_page(document: Document) -> bytes:
    """Return the page, HTML.

    Args:
        document: as in the results file of a search. The trials' parameters and windows are drawn,
            but not repeated in the page's own copy of the document.
    """
    numbers = ResultNumbers(_lighter(document))
    data = numbers.document
    scores = course(document).score
    return render(
        "optimizer.html",
        numbers,
        _charts(document),
        {
            "title": "Optimizer: " + ", ".join(data.get("coins") or ["no coins"]),
            "subtitle": _subtitle(data),
            "sections": SECTIONS,
            "cards": CARDS,
            "shown": numbers.shown,
            "verdict": verdict,
            "passes": partial(criterion, failed=data.get("oos_pass") is False),
            "variation": numbers.variation,
            "answer": answer(data),
            "tones": ANSWERS,
            "parameters": _parameters(data),
            "parameter_rows": _all_parameters(data),
            "statistics": lambda *paths: _statistics([numbers.at(path) for path in paths]),
            "metrics": _metrics(numbers.at("holdout.per_coin") or {}),
            "drawn": f"{len(drawn_trials(scores)):,} of {np.isfinite(scores).sum():,}",
            "best_rows": _best_rows(data),
            "facts": _facts(data),
        },
    )


def _charts(document: Document) -> dict[str, Any]:
    """Return all figures by the names of their places; the first is never None."""
    return {
        "progress": progress_chart(document),
        "importance": importance_chart(document),
        "stability": stability_chart(document),
        "train_test": pairs_chart("The choice, by coin and window", windows(document)),
        "picks": pairs_chart("A search per window", picks(document)),
        "permuted": histogram_chart(
            "Return on permuted bars, %",
            rows(document, "monte_carlo.permuted"),
            look_up(document, "monte_carlo.observed"),
            "the real ones",
        ),
        "logits": histogram_chart(
            "Rank of the chosen trial out of sample, logit",
            rows(document, "overfitting.logits"),
            0.0,
            "middle",
            by_sign=True,
        ),
        "holdout": holdout_charts(document),
        "sensitivity": _small_multiples(sensitivity_charts(document)),
        "trials": _small_multiples(trial_charts(document)),
    }


def _small_multiples(charts: Mapping[str, Any]) -> Any:
    """Return ``charts`` in rows, as one figure: a page of many figures is slow to make."""
    if not charts:
        return None
    places: list[Any] = [(chart, *divmod(k, _COLUMNS)) for k, chart in enumerate(charts.values())]
    return GridBox(children=places, sizing_mode="stretch_width")


def _lighter(document: Document) -> dict[str, Any]:
    """Return ``document`` with number, score and time of the trials only: they are many."""
    trials = [{key: row.get(key) for key in _TRIAL_KEYS} for row in rows(document, "trials")]
    return {**document, "trials": trials}


def _subtitle(data: Document) -> str:
    """Return range, trials, windows and objective in one line, as far as they are known."""
    start, end = ((data.get(name) or "").removesuffix(" 00:00") for name in ("start", "end"))
    parts = [
        f"{start} to {end} UTC" if start and end else "",
        f"{number_text(data.get('num_trials'), 'count')} trials",
        f"{data['n_windows']} windows" if data.get("n_windows") else "",
        f"objective {data['objective']}" if data.get("objective") else "",
    ]
    return " \u00b7 ".join(part for part in parts if part)


def _parameters(data: Document) -> list[dict[str, Any]]:
    """Return the parameters searched: ``name before changed meter cliff idle``."""
    before = {row.name: row.default for row in parameter_rows()}
    chosen, shares = data.get("robust_params") or {}, importance(data)
    curves = rows(data, "sensitivity")
    cliffs = {row["name"] for row in curves if row.get("cliff")}
    idle = {row["name"] for row in curves if row.get("no_effect")}
    return [
        {
            "name": name,
            "before": before.get(name, NOTHING),
            "changed": value is not None and value_text(value) != before.get(name),
            "meter": 100.0 * shares.get(name, 0.0) / max(shares.values(), default=1.0),
            "cliff": name in cliffs,
            "idle": name in idle,
        }
        for name, value in chosen.items()
    ]


def _all_parameters(data: Document) -> list[dict[str, Any]]:
    """Return the rows of the table of all parameters; none if one of them is missing."""
    params, known = data.get("params") or {}, parameter_rows()
    if any(params.get(row.name) is None for row in known):
        return []
    changed = {row.name: True for row in known if value_text(params[row.name]) != row.default}
    return parameter_table(params, changed)


def _statistics(parts: Sequence[Any]) -> list[tuple[str, str]]:
    """Return (key, name) of every plain value that one of ``parts`` has."""
    keys = dict.fromkeys(
        key
        for part in parts
        if isinstance(part, Mapping)
        for key, value in part.items()
        if not isinstance(value, list | dict) and value != ""
    )
    ordered = [key for key in STATISTICS if key in keys]
    ordered += [key for key in keys if key not in STATISTICS]
    return [(key, STATISTICS.get(key, key.replace("_", " "))) for key in ordered]


def _metrics(coins: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return (heading, key, kind) of the metrics that some coin has."""
    found = []
    for heading, names, kind in METRICS:
        keys = [name for name in names if any(name in (row or {}) for row in coins.values())]
        found += [(heading, key, kind) for key in keys[:1]]
    return found


def _best_rows(data: Document) -> list[int]:
    """Return where the best trials stand in the document, the best first."""
    trials = [(k, row) for k, row in enumerate(rows(data, "trials")) if row["score"] is not None]
    trials.sort(key=lambda item: (-item[1]["score"], item[1]["number"]))
    return [k for k, _ in trials[:BEST_LISTED]]


def _facts(data: Document) -> list[tuple[str, str]]:
    """Return what a reader must know to run the search again."""
    names = (
        ("Study", "study_name"),
        ("Objective", "objective"),
        ("Seed", "seed"),
        ("From", "start"),
        ("Holdout from", "holdout_start"),
        ("To, exclusive", "end"),
        ("Coins", "coins"),
        ("Windows", "n_windows"),
        ("Data hash", "data_hash"),
        ("Decision code", "fingerprint"),
        ("Scoring code", "scoring_fingerprint"),
    )
    return [(name, _text(data.get(key))) for name, key in names]


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return NOTHING if value is None else str(value)


def _figures(value: float, digits: int) -> str:
    """Return ``value`` to ``digits`` figures, whole if it is large; never with an exponent."""
    if isinstance(value, int) or abs(value) >= 10.0**digits:
        return f"{value:,.0f}"
    return np.format_float_positional(
        value, precision=digits, unique=False, fractional=False, trim="-"
    )
