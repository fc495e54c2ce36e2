"""The end of a search: judging the choice, writing the files, printing the report."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from backtest.optimize.evidence import EvidenceLine, evidence_lines, out_of_sample
from backtest.optimize.final_choice import parameter_importance
from backtest.optimize.findings import Known, judge_trials, judge_unseen
from backtest.optimize.result_folders import RESULTS
from backtest.optimize.results import results_document, write_results
from backtest.optimize.search_report import out_of_sample_line, report
from backtest.optimize.search_run import Searched
from backtest.optimize.search_session import Session, header, say
from backtest.sources import EXCHANGE
from config import STRATEGY_PARAMS
from core.errors import DataError


def conclude(session: Session, searched: Searched, n_ever: int) -> None:
    """Choose, look at the holdout, once, and write and print everything.

    Args:
        session: of the search.
        searched: its trials.
        n_ever: trials ever run on this data.

    Raises:
        DataError: the trials are too few or none has a score that counts, or a file cannot be
            written.
    """
    request, ledger = session.request, session.ledger
    known = _judge(session, searched, n_ever)
    looks_before = ledger.count_looks()
    ledger.add(request.study, holdout_read=True)
    unseen = judge_unseen(
        session.prepared, known.choice.params, STRATEGY_PARAMS, looks_before=looks_before,
        permutations=0 if request.skip_permutations else request.permutations,
        seed=request.seed, jobs=request.n_jobs, warmup_bars=session.warmup_bars,
    )  # fmt: skip
    document = results_document(
        session.identity, session.prepared, searched, known, unseen,
        importance=parameter_importance(searched.trials, session.space),
        seconds=time.monotonic() - session.started,
    )  # fmt: skip
    try:
        paths = write_results(document, known.choice.best, session.folders, plot=request.plot)
    finally:  # a full disk must not take the only look at the holdout with it
        _print_report(session, known, evidence_lines(known, unseen))
    passed = out_of_sample(known, unseen)
    _print(f"{out_of_sample_line(passed=passed)}\n\n{_next_step(session, passed=passed)}")
    _say_written(paths)
    say(_go_on(session))


def report_so_far(session: Session, searched: Searched, n_ever: int) -> None:
    """Print what the trials say; the holdout is for a search that has come to its end.

    Args:
        session: of the search.
        searched: its trials.
        n_ever: trials ever run on this data.
    """
    try:
        known = _judge(session, searched, n_ever)
    except DataError as error:  # too few trials yet, which is nobody's mistake
        say(f"no report yet: {error}")
    else:
        _print_report(session, known, evidence_lines(known, None))
    say(
        f"interrupted: {len(searched.trials)} trials are kept; {_go_on(session)}, then looks at "
        "the holdout and writes the files"
    )


def _judge(session: Session, searched: Searched, n_ever: int) -> Known:
    request = session.request
    return judge_trials(
        session.prepared, session.space, searched, STRATEGY_PARAMS, n_ever=n_ever,
        seed=request.seed, jobs=request.n_jobs,
    )  # fmt: skip


def _print_report(session: Session, known: Known, evidence: list[EvidenceLine]) -> None:
    encoding = sys.stdout.encoding or "ascii"
    _print(f"{header(session)}\n\n{report(known, evidence, STRATEGY_PARAMS, encoding=encoding)}")


def _next_step(session: Session, *, passed: bool) -> str:
    path = session.folders.data / RESULTS
    command = shlex.join(
        ["python3", "apply_optimized_params.py", "--params", str(path), "--key", "robust_params",
         "--preview"]
    )  # fmt: skip
    if passed:
        return f"next: {command}"
    return f"next: {command}\n      (it wants --force, as they did not hold out of sample)"


def _go_on(session: Session) -> str:
    """Return how to add trials to the study."""
    request = session.request
    text = f"the same command adds {request.trials} more"
    if request.source == EXCHANGE and request.end is None:
        end = session.identity.end.replace(" ", "T")
        text += f" (with --end {end}, or new candles would make it another study)"
    return text


def _say_written(paths: Iterable[Path]) -> None:
    paths = list(paths)
    folders = dict.fromkeys(path.parent for path in paths)
    parts = [
        f"{', '.join(path.name for path in paths if path.parent == folder)} in {folder}"
        for folder in folders
    ]
    say(f"wrote {'; '.join(parts)}")


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201
