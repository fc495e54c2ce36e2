"""From a request to the trials: data loaded, study opened, trials added."""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Final

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.optimize.apply.result_folders import DATA_DIR, ResultFolders
from backtest.optimize.judge.robust import TOP_LEAST
from backtest.optimize.report.lines import WIDTH, short
from backtest.optimize.request import SearchRequest
from backtest.optimize.search.progress import Searched, search_trials
from backtest.optimize.search.study import Search
from backtest.optimize.search.study_identity import StudyIdentity, scoring_fingerprint
from backtest.optimize.search.trial_ledger import WEEK_MS, DataSet, TrialLedger
from backtest.optimize.trial.prepare import Prepared, prepare
from backtest.optimize.trial.space import Space, read_space
from backtest.runs.strategies import is_compiled
from backtest.simulator import BacktestSimulator
from core.errors import ConfigError
from engine.compiling import compile_notice

_TIE: Final = "\x1f"
"""Stands for a space at which no line may be broken; ``textwrap`` knows no such."""


@dataclass(frozen=True, kw_only=True)
class Session:
    """One search with all it needs.

    Attributes:
        request: as asked for.
        space: what is searched.
        prepared: the bars.
        warmup_bars: before the first bar of a run.
        identity: of the study.
        ledger: of all trials on these bars.
        folders: where the files go.
        started: seconds of the monotonic clock.
    """

    request: SearchRequest
    space: Space
    prepared: Prepared
    warmup_bars: int
    identity: StudyIdentity
    ledger: TrialLedger
    folders: ResultFolders
    started: float


def open_session(request: SearchRequest) -> Session:
    """Load the data and check all that can be checked before the search.

    Raises:
        GridError: something is wrong with the request, the data or the folders.
    """
    started = time.monotonic()
    request.check()
    simulator = BacktestSimulator(request.params, source=request.source, strategy=request.strategy)
    if not simulator.how.searched:
        raise ConfigError(
            f"the optimizer does not search {request.strategy.name} yet; search grid_v4, or "
            "compare settings of it with main.py --set"
        )
    space = read_space(request.strategy.space, request.strategy)
    folders = ResultFolders.chosen(request.output)
    folders.check_writable(plot=request.plot)
    if not is_compiled(simulator.how):
        say(compile_notice())
    prepared = prepare(
        simulator,
        space,
        coins=request.coins,
        start=request.start,
        end=request.end,
        windows=request.windows,
        holdout=request.holdout,
        objective=request.objective,
    )
    session = Session(
        request=request,
        space=space,
        prepared=prepared,
        warmup_bars=simulator.settings["warmup_bars"],
        identity=_identity(request, space, prepared),
        ledger=TrialLedger(DATA_DIR, _data_set(prepared)),
        folders=folders,
        started=started,
    )
    session.ledger.check_usable()
    say_all("warning", prepared.notices)
    say(header(session))
    say_all("note", _notes_on_given(request, space))
    return session


def add_trials(session: Session) -> tuple[Searched, int]:
    """Add the trials asked for; return the study's, and how many were ever run on this data.

    Raises:
        ConfigError: the study or its storage cannot be used, or the trials are too few.
        DataError: the ledger cannot be used.
    """
    request, prepared = session.request, session.prepared

    def approve(before: int) -> None:
        total = before + request.trials
        if total < TOP_LEAST:
            raise ConfigError(
                f"--trials {request.trials} makes {total} trials in all, must be at least "
                f"{TOP_LEAST}: the robust choice is the middle of the {TOP_LEAST} best"
            )

    with Search(
        session.identity,
        session.space,
        request.storage,
        jobs=request.n_jobs,
        current=prepared.params.to_dict(),
        approve=approve,
    ) as search:
        say_all("note", search.notices)
        searched = search_trials(
            search,
            prepared.evaluate,
            request.trials,
            jobs=request.n_jobs,
            timeout=request.timeout,
            ledger=session.ledger,
            study=request.study,
            say=say,
        )
        in_storage = search.count_trials_ever()
    return searched, max(in_storage, session.ledger.count_trials())


def header(session: Session) -> str:
    """Return what is searched, on which bars."""
    identity, plan = session.identity, session.prepared.plan
    last = plan.time_of(plan.plan.windows[-1].train_end)
    bars = (
        f"{', '.join(identity.coins)}: {identity.start} to {identity.end} UTC, study{_TIE}"
        f"{identity.name}, objective{_TIE}{identity.objective}, seed{_TIE}{identity.seed}"
    )
    plan_text = (
        f"parameters searched: {len(identity.space)}; windows: {identity.windows}, the last train "
        f"until {format_time(last)}; holdout from {format_time(plan.holdout_ms)}"
    )
    # A label and its value, "seed 1", stay on one line.
    filled = (textwrap.fill(line, WIDTH) for line in (bars, plan_text))
    return "\n".join(filled).replace(_TIE, " ")


def say_all(kind: str, texts: Iterable[str]) -> None:
    """Print remarks on standard error, ``note: ...``."""
    for text in texts:
        say(f"{kind}: {text}")


def say(text: str) -> None:
    """Print a remark on standard error."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201


def _identity(request: SearchRequest, space: Space, prepared: Prepared) -> StudyIdentity:
    params = prepared.params.to_dict()
    return StudyIdentity(
        name=request.study,
        space=space.to_dict(),
        fixed={name: value for name, value in params.items() if name not in space.entries},
        rules={
            f"{coin}.{rule}": value
            for coin, data in prepared.data.items()
            for rule, value in asdict(data.rules).items()
        },
        coins=prepared.coins,
        start=format_time(prepared.plan.start_ms),
        end=format_time(prepared.plan.end_ms),
        data_hash=prepared.data_hash,
        windows=request.windows,
        holdout=request.holdout,
        objective=request.objective,
        seed=request.seed,
        fingerprint=request.strategy.fingerprint,
        scoring=scoring_fingerprint(),
    )


def _data_set(prepared: Prepared) -> DataSet:
    plan = prepared.plan
    return DataSet(
        data_hash=prepared.data_hash,
        source=next(iter(prepared.data.values())).market.source,
        coins=prepared.coins,
        start_ms=plan.start_ms,
        holdout_ms=plan.holdout_ms,
        end_ms=plan.end_ms,
        closes={coin: _weekly_closes(item) for coin, item in prepared.data.items()},
    )


def _weekly_closes(data: CoinData) -> dict[str, float]:
    """Return closes of a bar a week by its open time, ms UTC: by them copies are recognized."""
    candles = data.market.candles
    chosen = candles[candles["timestamp"] % WEEK_MS == 0]
    times, closes = chosen["timestamp"].tolist(), chosen["close"].tolist()
    return {str(time_ms): float(close) for time_ms, close in zip(times, closes, strict=True)}


def _notes_on_given(request: SearchRequest, space: Space) -> list[str]:
    """Return what to know about parameters given on the command line."""
    searched = [name for name in request.params if name in space.entries]
    fixed = [
        f"{name} = {short(value)}"
        for name, value in request.params.items()
        if name not in space.entries
    ]
    notes = []
    if searched:
        notes.append(
            f"{', '.join(searched)}: searched, so the value given is only where the search "
            f"begins; comment an entry of {request.strategy.space_name} in config.py out "
            "to keep it fixed"
        )
    if fixed:
        notes.append(
            f"fixed for this search: {', '.join(fixed)}; robust_params will not hold them, so set "
            "them in config.py too if you use its result: apply_optimized_params.py compares"
        )
    return notes
