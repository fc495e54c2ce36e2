"""The identity of a study: its trials are comparable, and it may be continued, if it is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import optuna

from backtest.optimize.search.trial_store import IDENTITY, StoredStudy
from core.errors import ConfigError
from core.fingerprint import fingerprint_of_files

_OPTUNA: Final = "optuna_version"
_ALLOWED: Final = {
    "fingerprint": "the code that evaluates has changed since the study was made ({was}, now "
    "{now}): scores of earlier trials are not comparable with those to come; a study of another "
    "name would be",
    "scoring": "the code that draws and scores trials has changed since the study was made ({was}, "
    "now {now}): scores of earlier trials may not be comparable with those to come; a study of "
    "another name would be",
    _OPTUNA: "the study was made with optuna {was}, this is {now}: it may try other parameters "
    "than a search that was never interrupted",
}
"""Fields that may differ from one run to the next, and the notice given then."""
SCORING: Final = (
    "backtest.market.coin_data",
    "backtest.optimize.search.sampling",
    "backtest.optimize.trial.coin_loops",
    "backtest.optimize.trial.coin_runs",
    "backtest.optimize.trial.objective",
    "backtest.optimize.trial.prepare",
    "backtest.optimize.trial.shared_signals",
    "backtest.optimize.trial.space",
    "backtest.optimize.trial.trial",
    "backtest.optimize.trial.windows",
    "backtest.runs.variants",
)
"""Modules that decide which parameters are tried and which score they get."""


def scoring_fingerprint() -> str:
    """Return 16 hex digits that change with the code that draws and scores trials.

    The strategy itself has a fingerprint of its own, ``StrategySpec.fingerprint``.
    """
    return fingerprint_of_files(*SCORING)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyIdentity:
    """Everything that must be equal for the trials of a study to be comparable.

    Attributes:
        name: of the study.
        space: ``Space.to_dict`` of what is searched.
        fixed: all other parameters, JSON-ready.
        rules: of the exchange, ``COIN.rule``: tick, lot, smallest order, fee and brackets of
            liquidation.
        coins: what is traded.
        start: first bar, as text.
        end: last bar, as text.
        data_hash: of the candles and funding rates of all coins.
        windows: number of walk-forward windows.
        holdout: share of the bars nobody looks at until the end.
        objective: name of what is maximised.
        seed: of the sampler, 0 or more.
        fingerprint: of the code that trades.
        scoring: of the code that draws parameters and scores what comes of them.
    """

    name: str
    space: Mapping[str, Any]
    fixed: Mapping[str, Any]
    rules: Mapping[str, Any]
    coins: tuple[str, ...]
    start: str
    end: str
    data_hash: str
    windows: int
    holdout: float
    objective: str
    seed: int
    fingerprint: str
    scoring: str

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, and Optuna's version, as they come back from JSON."""
        document = asdict(self) | {_OPTUNA: optuna.__version__}
        plain: dict[str, Any] = json.loads(json.dumps(document))
        return plain


def check_identity(study: StoredStudy, identity: StudyIdentity, *, shared: bool) -> list[str]:
    """Write the identity of a new study; return sentences on differences that are allowed.

    A study without any trial is as good as new, unless another process may be about to add some.

    Args:
        study: open.
        identity: of the search that opens it.
        shared: whether other processes may write to the study.

    Raises:
        ConfigError: there are others, or another program has made the study.
    """
    now = identity.to_dict()
    was = study.attributes().get(IDENTITY)
    empty = not study.trials()
    if was is None and not empty:
        raise ConfigError(
            f"study {identity.name!r} was not made by this program; choose another --study-name"
        )
    if was is None or (empty and not shared):
        study.set_attribute(IDENTITY, now)
        return []
    different = [
        key for key in (*was, *now) if key not in _ALLOWED and was.get(key) != now.get(key)
    ]
    if different:
        lines = [line for key in dict.fromkeys(different) for line in _lines(key, was, now)]
        raise ConfigError(
            f"study {identity.name!r} was made with something else, so its trials would not be "
            "comparable with new ones:\n" + "\n".join(lines) + "\n"
            "restore what it was made with, or choose another --study-name"
        )
    return [
        text.format(was=was.get(key), now=now[key])
        for key, text in _ALLOWED.items()
        if was.get(key) != now[key]
    ]


def _lines(key: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return a line for every part of the field ``key`` that differs."""
    before, after = was.get(key), now.get(key)
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [f"  {key}: was {json.dumps(before)}, is now {json.dumps(after)}"]
    return [
        f"  {key}.{name}: was {_text(before, name)}, is now {_text(after, name)}"
        for name in dict.fromkeys((*before, *after))
        if before.get(name) != after.get(name)
    ]


def _text(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name]) if name in values else "absent"
