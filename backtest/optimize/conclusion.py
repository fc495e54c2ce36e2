"""The end of a search: judging the choice, writing the files, printing the report."""

from __future__ import annotations

import json
import re
import shlex
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from backtest.market.sources import EXCHANGE
from backtest.optimize.apply.result_folders import DATA_DIR, RESULTS
from backtest.optimize.judge.evidence import EvidenceLine, evidence_lines
from backtest.optimize.judge.final_choice import parameter_importance
from backtest.optimize.judge.findings import Known, judge_trials, judge_unseen
from backtest.optimize.judge.monte_carlo import permuted_returns
from backtest.optimize.judge.robust import NothingToChooseError
from backtest.optimize.judge.verdict import Answer, Verdict, judge, nothing_chosen
from backtest.optimize.report.results import results_document, write_results
from backtest.optimize.report.search_report import report, verdict_text
from backtest.optimize.search.progress import Interruption, Searched
from backtest.optimize.session import Session, header, say
from backtest.results.files import json_bytes, write_file
from core.command_line import program
from core.errors import DataError

_SUMMARY: Final = (
    "verdict",
    "robust_params",
    "robust_choice",
    "train_score",
    "baseline_train_score",
    "walk_forward",
    "oos_pass",
    "oos_warnings",
    "mc_p_value",
    "num_trials",
    "coins",
    "start",
    "holdout_start",
    "end",
    "seed",
    "study_name",
)
"""Of the results document, printed with --json; all of it is in the results file."""
_FINISHING: Final = "what runs is finished, then the report of what is known is printed"


def conclude(session: Session, searched: Searched, n_ever: int) -> bool:
    """Choose, look at the holdout, once and last, and write and print everything.

    After Ctrl+C before that look it prints what is finished, and the holdout stays untouched.

    Args:
        session: of the search.
        searched: its trials.
        n_ever: trials ever run on this data.

    Returns:
        Whether it came to its end.

    Raises:
        DataError: the trials are too few, or a file cannot be written.
    """
    with Interruption(_FINISHING) as interruption:
        try:
            known = _judge(
                session, searched, n_ever, interruption.asked, seeds=session.request.seeds
            )
        except NothingToChooseError as error:
            _finish_without_choice(session, searched, str(error))
            return True
        try:
            permuted = _permuted(session, known, interruption.asked)
        except KeyboardInterrupt:
            _print_so_far(session, searched, known)
            return False
        _finish(session, searched, known, permuted)  # takes a moment: Ctrl+C comes too late
    return True


def report_so_far(session: Session, searched: Searched, n_ever: int) -> None:
    """Print what the trials say; the holdout is for a search that has come to its end.

    Args:
        session: of the search.
        searched: its trials.
        n_ever: trials ever run on this data.
    """
    with Interruption(_FINISHING) as interruption:
        try:
            # Repeated searches take longer than the one that was ended.
            known = _judge(session, searched, n_ever, interruption.asked, seeds=0)
        except DataError as error:  # too few trials yet, which is nobody's mistake
            say(f"no report yet: {error}")
            known = None
        _print_so_far(session, searched, known)


def _judge(
    session: Session, searched: Searched, n_ever: int, stop: threading.Event, *, seeds: int
) -> Known:
    request = session.request
    return judge_trials(
        session.prepared,
        session.space,
        searched,
        session.request.strategy.defaults,
        n_ever=n_ever,
        seed=request.seed,
        seeds=seeds,
        jobs=request.n_jobs,
        stop=stop,
    )


def _permuted(session: Session, known: Known, stop: threading.Event) -> list[float] | None:
    """Return what the choice comes to on permuted bars; None: not asked for.

    Raises:
        KeyboardInterrupt: ``stop`` was set before all was done.
    """
    request = session.request
    found = None
    if not request.skip_permutations and not stop.is_set():
        found = permuted_returns(
            session.prepared,
            known.choice.params,
            n=request.permutations,
            seed=request.seed,
            jobs=request.n_jobs,
            warmup_bars=session.warmup_bars,
            stop=stop,
        )
    if stop.is_set():
        raise KeyboardInterrupt
    return found


def _finish(
    session: Session, searched: Searched, known: Known, permuted: list[float] | None
) -> None:
    """Look at the holdout, write the files, print the report."""
    request, ledger = session.request, session.ledger
    importance = parameter_importance(searched.trials, session.space)
    before = ledger.seen_before()
    ledger.add_look(request.study)
    unseen = judge_unseen(
        session.prepared,
        known.choice.params,
        session.request.strategy.defaults,
        permuted=permuted,
        before=before,
        warmup_bars=session.warmup_bars,
    )
    verdict = judge(known, unseen)
    document = results_document(
        session.identity,
        session.prepared,
        searched,
        known,
        unseen,
        verdict,
        importance=importance,
        seconds=time.monotonic() - session.started,
    )
    try:
        paths = write_results(document, known.choice.best, session.folders, plot=request.plot)
    finally:  # a full disk must not take the only look at the holdout with it
        if request.as_json:
            _print(json.dumps(_summary(document), indent=2))
        else:
            _print_report(session, known, evidence_lines(known, unseen), verdict)
    if not request.as_json:
        warnings = "".join(f"warning: {text}\n" for text in document["oos_warnings"])
        _print(f"{warnings}{_next_step(session, verdict.answer)}")
    _say_written(paths)
    say(_go_on(session))


def _finish_without_choice(session: Session, searched: Searched, reason: str) -> None:
    """Write and print that nothing could be chosen; the holdout stays untouched."""
    flaws = Counter(
        re.sub(r"-?[\d.]+ ", "", note, count=1)
        for item in searched.trials
        for rows in item.outcome.train.values()
        for note in (rows[-1].note.partition("; ")[0],)
        if note
    )
    often = ", ".join(f"{flaw} ({count})" for flaw, count in flaws.most_common(3))
    verdict = nothing_chosen(f"{reason}; on the longest train: {often or 'no reason noted'}")
    identity = session.identity
    document = {
        "verdict": verdict.to_dict(),
        "strategy": session.request.strategy.name,
        "oos_pass": False,
        "oos_warnings": [],
        "num_trials": len(searched.trials),
        "coins": list(identity.coins),
        "start": identity.start,
        "end": identity.end,
        "study_name": identity.name,
        "seed": identity.seed,
    }
    path = session.folders.data / RESULTS
    write_file(path, json_bytes(document))  # also so that no earlier choice is taken for this one's
    if session.request.as_json:
        _print(json.dumps(document, indent=2))
    else:
        _print(f"{header(session)}\n\n{verdict_text(verdict)}")
    say(f"wrote {path.name} in {path.parent}; the holdout is untouched; {_go_on(session)}")


def _print_so_far(session: Session, searched: Searched, known: Known | None) -> None:
    if known is not None:
        _print_report(session, known, evidence_lines(known, None))
    count = len(searched.trials)
    kept = f"{count} trials are kept" if count else "no trial was complete"
    say(f"interrupted: {kept}; {_go_on(session)}, then looks at the holdout and writes the files")


def _print_report(
    session: Session, known: Known, evidence: list[EvidenceLine], verdict: Verdict | None = None
) -> None:
    encoding = sys.stdout.encoding or "ascii"
    answer = "" if verdict is None else f"{verdict_text(verdict)}\n\n"
    text = report(known, evidence, session.request.strategy.defaults, encoding=encoding)
    _print(f"{header(session)}\n\n{answer}{text}")


def _summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the results that a script asks for."""
    return {key: document[key] for key in _SUMMARY}


def _next_step(session: Session, answer: Answer) -> str:
    path = session.folders.data / RESULTS
    named = [] if session.folders.data == DATA_DIR else ["--params", str(path)]
    command = shlex.join(["python3", program("apply_optimized_params.py"), *named, "--preview"])
    notes = {
        Answer.FAILED: "\n      (keep your config: to write them it wants --force, as they failed)",
        Answer.UNDECIDED: "\n      (to look at it; without --preview it asks before it writes)",
    }
    return f"next: {command}{notes.get(answer, '')}"


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
