"""The command line's flags for checking a result, and what they start."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from core.errors import ConfigError
from engine.options import chosen_strategy

EXAMPLES: Final = """\
  python3 main.py --demo --check lookahead warmup parity --budget 60s
      can this backtest be believed: does it know the future, do its indicators have bars enough,
      does it decide as single steps with restarts do
  python3 main.py --demo --audit
      rebuild account and fills of the run in data/output from its files and the candles alone
"""


def add_check_options(group: Any) -> None:
    """Add the flags to an argument group."""
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument(
        "--check",
        nargs="+",
        metavar="NAME",
        help="lookahead: cut the data at every decision that traded, recompute and compare; "
        "warmup: indicators at the last bar from the last 500 to 5,000 bars against all of them; "
        "parity: the compiled loop against single steps restarted from JSON. On the same data and "
        "parameters as a backtest; writes no files, and exits with 1 at the first difference",
    )
    one_of.add_argument(
        "--audit",
        action="store_true",
        help="check the files of an earlier run (--output DIR) row by row against the candles, in "
        "code that shares nothing with the strategy; needs the run's --demo or --data DIR, takes "
        "the rest from its summary, and exits with 1 at the first row that cannot be right",
    )
    group.add_argument(
        "--budget",
        metavar="N",
        help="cuts, bars looked at, or restarts per check and coin; or a time such as 30s "
        "(default: 200, and at most 60s)",
    )


def run_asked(args: argparse.Namespace, params: Mapping[str, Any]) -> int:
    """Run the checks or the audit asked for and return the exit code.

    Args:
        args: of the whole command line.
        params: the parameters that differ from the shipped ones.

    Raises:
        GridError: a flag or file is unusable.
    """
    if args.budget is not None and not args.check:
        raise ConfigError(f"--budget {args.budget} needs --check NAME, the check it is for")
    source: str | Path = "demo" if args.demo else args.data or "exchange"
    if args.audit:
        from backtest.audit.audit import AuditRequest, run_audit  # noqa: PLC0415 - pandas, 0.4 s

        plain = chosen_strategy(args).read(params).to_dict()
        return run_audit(
            AuditRequest(
                coins=args.coins,
                start=args.start,
                end=args.end,
                source=source,
                detail=args.detail,
                folder=args.output,
                as_json=args.json,
                params={name: plain[name] for name in params},
            )
        )
    from backtest.trust.checks import CheckRequest, run_checks  # noqa: PLC0415 - numba, 0.7 s

    return run_checks(
        CheckRequest(
            names=args.check,
            coins=args.coins,
            start=args.start,
            end=args.end,
            params=params,
            source=source,
            detail=args.detail,
            budget=args.budget,
            strategy=chosen_strategy(args),
            as_json=args.json,
        )
    )
