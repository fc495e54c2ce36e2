"""The command ``optimizer.py``, its arguments read: search, judge, write files, print."""

from __future__ import annotations

import logging

from backtest.optimize.request import SearchRequest
from backtest.optimize.search.progress import EXIT_INTERRUPTED
from backtest.optimize.session import add_trials, open_session


def run_search(request: SearchRequest) -> int:
    """Search, judge the choice, write the files, print the report.

    Returns:
        The exit code: 0, or 130 if the search or the judging of it was interrupted; then the
        report is what can be said so far, the holdout stays untouched and no file of results is
        written.

    Raises:
        GridError: something was wrong; trials that are complete are kept.
    """
    logging.basicConfig(format="warning: %(message)s")
    session = open_session(request)
    searched, n_ever = add_trials(session)
    # Only now: the statistics libraries take seconds, and a wrong request is refused before.
    from backtest.optimize.conclusion import conclude, report_so_far  # noqa: PLC0415

    if searched.interrupted:
        report_so_far(session, searched, n_ever)
        return EXIT_INTERRUPTED
    return 0 if conclude(session, searched, n_ever) else EXIT_INTERRUPTED
