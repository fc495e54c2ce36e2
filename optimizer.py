"""Search for parameters of GridStrategyV4: ``python3 optimizer.py --help``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from config import BACKTEST_CONFIG
from core.command_line import add_version_option, end_process, run_command
from core.errors import ConfigError
from engine.options import add_strategy_option, add_value_options, chosen_params, chosen_strategy

STUDY: Final = "_wfo"
STORAGE_VARIABLE: Final = "GRID_STORAGE"

EXAMPLES: Final = """\
examples:
  python3 optimizer.py --demo --trials 50
      a made-up market: needs no network and no files
  python3 optimizer.py --coins BTC ETH SOL --trials 200 --windows 4 --start 2024-01-01 --end \
2025-07-01
      candles and funding rates of Binance USDT-M, kept in data/cache; run it again to add trials
  python3 optimizer.py --data my_candles --coins BTC --objective sharpe --study-name btc_sharpe
      your own files; another objective is another study
  python3 optimizer.py --demo --trials 100 --skip-mc --no-plot --output results
      no permutations, no charts; the results in one folder (study and ledger stay where they are)
  python3 optimizer.py --demo --trials 1000 --timeout 600 --jobs 2 --seed 7 --study-name seed_7
      no trial is begun after ten minutes
  python3 optimizer.py --demo --preset documented --set leverage=2 --mc-perms 200 --holdout 0.2
      other values for what is not searched
  GRID_STORAGE=postgresql://user:password@host/db python3 optimizer.py --end 2025-07-01
      several machines run the same command and share the work

What happens. All bars but the last share (--holdout) are cut into --windows pieces. A trial draws
values of OPTIMIZER_SPACE in config.py and is scored on the train windows: each runs from the start
to 70 % into its piece, and the lowest score of all coins and windows counts. What is left of each
piece after a gap is its test window. The robust choice is the middle of the best tenth of the
trials (median or medoid, whichever is better in training), because the best of many is partly luck.
It is run on permutations of the bars no train window has seen and then, once, on the holdout.

Beside it run searches that choose nothing for you, of as many trials, 200 at most: one for each
window but the last, on its train alone, whose choices make the clean walk-forward; and --seeds less
one on all trains with other seeds, to see whether they come to the same. They take --seeds +
--windows / 2 - 1.5 times as long as the search itself, about.

What is maximised: the minimum over all coins and train windows of return / largest drawdown (at
least 0.01 %) x sqrt(profit factor, at most 4); a loss is divided by that root instead (the profit
factor at least 1/4), so that a losing window has -2 to 0. Then 0.01 is taken off per round trip
above 300 per 10,000 bars. A window with fewer than 20 round trips, a drawdown over 50 %, a profit
factor under 0.5 or the capital halved gets -10, and what it scored above 0 counts as x / (1 + x):
-9 at most. Parameters that contradict each other score -1000. Other --objective: in place of the
first sentence, the penalties stay.

What to believe. The verdict comes first, and is one of three. held: on the holdout better than
doing nothing and than the present config by more than chance (a bootstrap of blocks of days, level
0.05, divided by the looks at this holdout), permuted bars under the same level, a gain in the clean
walk-forward, no loss in the choice's own clean test, and every seed's choice gained there. failed:
one of these lost, or nothing in the space made money in training. undecided: all else; it may be
luck. The best single trial is never tested. apply_optimized_params.py writes what held, asks where
it is undecided, and refuses what failed. Every line of evidence ends in plain words; "not
distinguishable from luck" means p >= 0.05. That the best trials lie near each other is no sign of
an edge: a search draws near what scored well, on noise too. The more often you search the same
bars, the less any result means: the deflated Sharpe ratio takes it into account.

What is counted. data/trial_ledger.jsonl of the current folder, wherever --output is, has every
search started there, from its first trial on and whatever ended it: the trials of all that share a
coin, its prices and at least half of the bars searched now; every look at bars of this holdout; and
every search that trained or tested on bars of it. Other studies on the same data in --storage
count, if they are more. Searches from other folders or machines and backtests cannot be known.

Ctrl+C ends the search after the trials that run, keeps them and reports what can be said; Ctrl+C
while the choice is judged reports what is finished. The holdout is read last of all, so it stays
untouched. The same command later adds trials to the study. Same seed, same trials, same result,
however many --jobs (a storage that several processes share aside).

files: data/optimizer_results_robust.json, data/best_params_v4.json (the best trial, for reference),
data/charts/optimizer_*.png, data/output/optimizer_report.html, or all of them in --output; and in
the current folder data/trial_ledger.jsonl and the study, grid_v4_wfo.db.

exit code: 0 all went well; 2 something was wrong (standard error says what to do; trials that are
complete are kept); 130 interrupted.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar; what values are possible is checked later."""
    parser = argparse.ArgumentParser(
        prog="optimizer.py",
        description="Search for parameters, and judge honestly whether what was found is luck.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version_option(parser)
    _add_data_options(parser.add_argument_group("which bars"))
    _add_search_options(parser.add_argument_group("the search"))
    _add_judging_options(parser.add_argument_group("judging the choice"))
    _add_parameter_options(parser.add_argument_group("parameters that are not searched"))
    output = parser.add_argument_group("output")
    output.add_argument(
        "--no-plot", action="store_true", help="draw no charts and write no HTML report"
    )
    output.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="folder of all files but study and ledger (default: data and folders in it)",
    )
    output.add_argument(
        "--json",
        dest="as_json",
        action="store_true",
        help="print verdict, choice and main figures as one JSON object instead of the report",
    )
    return parser


def _add_data_options(group: Any) -> None:
    coins: Any = BACKTEST_CONFIG["coins"]
    group.add_argument(
        "--coins",
        nargs="+",
        metavar="COIN",
        help=f"such as BTC or BTC/USDT: the USDT perpetual (default: {' '.join(coins)})",
    )
    group.add_argument(
        "--start", metavar="DATE", help=f"first bar, UTC, ISO (default: {BACKTEST_CONFIG['start']})"
    )
    group.add_argument(
        "--end",
        metavar="DATE",
        help="where the bars end, UTC, ISO, exclusive (default: now; give it to be able to add "
        "trials later)",
    )
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="your own candle and funding files (CSV, Parquet, Feather) instead of the exchange",
    )
    one_of.add_argument(
        "--demo", action="store_true", help="a made-up market: no network, no files"
    )


def _add_search_options(group: Any) -> None:
    group.add_argument(
        "--trials",
        type=int,
        default=100,
        metavar="N",
        help="trials to add to the study (default: 100)",
    )
    group.add_argument(
        "--timeout", type=float, metavar="SECONDS", help="begin no trial after that time"
    )
    group.add_argument(
        "--jobs",
        type=int,
        metavar="N",
        help="trials at a time (default: one per processor); the result does not depend on it",
    )
    group.add_argument(
        "--objective",
        default="calmar_pf",
        metavar="NAME",
        help="what is maximised: calmar_pf, calmar, sharpe, sortino or return (default: calmar_pf, "
        "Calmar ratio x sqrt(profit factor), see below). Calmar is here the whole return of a "
        "window over its largest drawdown, not a year's",
    )
    group.add_argument(
        "--seed", type=int, default=42, metavar="N", help="of everything random (default: 42)"
    )
    group.add_argument(
        "--study-name",
        metavar="NAME",
        help=f"trials are kept, and can be added to, under this name (default: the strategy's name "
        f"and {STUDY})",
    )
    group.add_argument(
        "--storage",
        metavar="URL",
        help="where: sqlite:///FILE.db, postgresql://USER@HOST/DATABASE, grpc://HOST:PORT or "
        "FILE.journal; an address with a password belongs into GRID_STORAGE (default: "
        "sqlite:///STUDY.db in the current folder)",
    )


def _add_judging_options(group: Any) -> None:
    group.add_argument(
        "--windows", type=int, default=4, metavar="N", help="walk-forward windows (default: 4)"
    )
    group.add_argument(
        "--holdout",
        type=float,
        default=0.15,
        metavar="SHARE",
        help="of the bars, at the end, looked at once when all is chosen: above 0, at most 0.5 "
        "(default: 0.15)",
    )
    group.add_argument(
        "--mc-perms",
        type=int,
        default=50,
        metavar="N",
        help="permutations of the Monte-Carlo test (default: 50; fewer than 20 cannot show "
        "anything)",
    )
    group.add_argument(
        "--seeds",
        type=int,
        default=4,
        metavar="K",
        help="independent searches whose choices are compared, this one among them; 1: none, and "
        "the verdict is undecided at best (default: 4)",
    )
    group.add_argument("--skip-mc", action="store_true", help="leave that test out")


def _add_parameter_options(group: Any) -> None:
    add_strategy_option(group)
    add_value_options(
        group,
        "any strategy parameter, repeatable; one of OPTIMIZER_SPACE only says where the search "
        "begins (main.py --list-params explains them)",
    )


def _storage(named: str | None) -> str | None:
    """Return where trials are kept: as named, else as the environment says.

    Raises:
        ConfigError: a password stands in the command line, which every user of the machine reads.
    """
    if not named:
        return os.environ.get(STORAGE_VARIABLE) or None
    from backtest.optimize.search.trial_store import passwords_of, shown  # noqa: PLC0415 - optuna

    if passwords_of(named):
        raise ConfigError(
            f"--storage {shown(named)} holds a password, which the list of processes shows to all "
            f"users of this machine: set {STORAGE_VARIABLE} to the address instead, or leave the "
            "password out and keep it where the driver looks (PGPASSFILE, ~/.pgpass)"
        )
    return named


def _run(args: argparse.Namespace) -> int:
    params = chosen_params(args)
    storage = _storage(args.storage)
    # Only now: importing numba, pandas and optuna takes longer than --help may.
    from backtest.optimize.command import run_search  # noqa: PLC0415
    from backtest.optimize.request import SearchRequest  # noqa: PLC0415

    return run_search(
        SearchRequest(
            coins=args.coins,
            start=args.start,
            end=args.end,
            params=params,
            source="demo" if args.demo else args.data or "exchange",
            trials=args.trials,
            windows=args.windows,
            holdout=args.holdout,
            objective=args.objective,
            study=args.study_name or f"{chosen_strategy(args).name}{STUDY}",
            storage=storage,
            seed=args.seed,
            seeds=args.seeds,
            jobs=args.jobs,
            timeout=args.timeout,
            permutations=args.mc_perms,
            skip_permutations=args.skip_mc,
            plot=not args.no_plot,
            output=args.output,
            strategy=chosen_strategy(args),
            as_json=args.as_json,
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(
        lambda: _run(args),
        interrupted="interrupted; trials that are complete are kept, the same command goes on",
    )


if __name__ == "__main__":
    end_process(main())
