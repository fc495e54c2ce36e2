"""Backtest GridStrategyV4: ``python3 main.py --help``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from backtest.commands.check import EXAMPLES as CHECK_EXAMPLES
from backtest.commands.check import add_check_options, run_asked
from backtest.commands.flags import check_flags
from backtest.report.parameter_table import text_table
from config import BACKTEST_CONFIG, STRATEGY_PARAMS
from core.command_line import add_version_option, end_process, run_command, say
from core.errors import ConfigError
from engine.options import add_parameter_options, chosen_params, chosen_strategy, parameter_names

EXAMPLES: Final = (
    """\
examples:
  python3 main.py --demo
      a made-up market: needs no network and no files
  python3 main.py --coins BTC ETH SOL --start 2024-01-01 --capital 10000
      candles and funding rates of Binance USDT-M, kept in data/cache
  python3 main.py --coins BTC --data my_candles --detail 1m
      your own files: my_candles/BTCUSDT-15m.csv, BTCUSDT-1m.csv, BTCUSDT-funding.csv
  python3 main.py --demo --preset documented --set grid_levels=8 --set kelly_enabled=false
      other parameters; --list-params explains them all
  python3 main.py --coins ETH --params best.json --key robust_params --no-plot
      parameters from a JSON file
  python3 main.py --coins BTC --params data/output/BTC_summary.json --key parameters
      the same parameters as an earlier run
  python3 main.py --strategy fixed_grid --demo --no-plot
      another strategy: one direction, fixed take-profit and step, on 1-minute candles
  python3 main.py --strategy short_grid --demo
  python3 main.py --strategy short_grid --ticks recordings --queue all --latency 5,5,5
      on order books and trades: many coins, short only; the result is an interval
  python3 main.py --portfolio --coins BTC ETH SOL --capital 15000 --weights BTC=0.5 ETH=0.3 SOL=0.2
      the coins in step on one account, their entries bounded by the risk of all
  python3 main.py --list
  python3 main.py --diff 3f9c 81d0
      earlier runs, and what differs between two of them (beginnings of ids suffice)
"""
    + CHECK_EXAMPLES
    + """
Of the same parameter the later of these wins: config.py, --preset, --params, --set, then
--capital, --leverage and --no-short.

exit code: 0 all went well; 1 a check or the audit found something; 2 something was wrong (one
line on standard error says what to do, the files of coins that went well are complete); 130
interrupted.
"""
)


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar; it says nothing about values, ``core.params`` does."""
    parser = argparse.ArgumentParser(
        prog="main.py",
        description="Backtest the grid strategy on 15-minute candles of USDT perpetuals.",
        epilog=EXAMPLES + "\n" + parameter_names(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version_option(parser)
    _add_run_options(parser.add_argument_group("what to run"))
    _add_portfolio_options(parser.add_argument_group("several coins on one account"))
    _add_data_options(parser.add_argument_group("where candles come from"))
    _add_tick_options(parser.add_argument_group("the exchange of short_grid"))
    parameters = parser.add_argument_group("strategy parameters")
    add_parameter_options(
        parameters, f"initial_capital, per coin (default: {STRATEGY_PARAMS['initial_capital']:g})"
    )
    parameters.add_argument(
        "--list-params",
        action="store_true",
        help="print every parameter with default, range and meaning, and stop",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--no-plot", action="store_true", help="draw no charts and write no HTML report"
    )
    one_of = output.add_mutually_exclusive_group()
    one_of.add_argument(
        "--compare",
        action="store_true",
        help="print what each mechanism is worth: runs without it, and a static grid; no files",
    )
    one_of.add_argument(
        "--bands",
        action="store_true",
        help="print how far the result depends on what candles cannot settle",
    )
    output.add_argument(
        "--json", action="store_true", help="print one JSON document instead of the table"
    )
    output.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help=f"folder of all files (default: {BACKTEST_CONFIG['output_dir']} and "
        f"{BACKTEST_CONFIG['chart_dir']})",
    )
    _add_record_options(parser.add_argument_group("earlier runs, in the folder of files"))
    add_check_options(parser.add_argument_group("checking a result"))
    return parser


def _add_run_options(group: Any) -> None:
    coins: Any = BACKTEST_CONFIG["coins"]
    group.add_argument(
        "--coins",
        nargs="+",
        metavar="COIN",
        help=f"such as BTC or BTC/USDT: the USDT perpetual (default: {' '.join(coins)})",
    )
    group.add_argument(
        "--start",
        metavar="DATE",
        help=f"first bar traded, UTC, ISO (default: {BACKTEST_CONFIG['start']}); "
        f"{BACKTEST_CONFIG['warmup_bars']:,} bars before it warm the indicators up",
    )
    group.add_argument(
        "--end", metavar="DATE", help="where the bars end, UTC, ISO, exclusive (default: now)"
    )
    group.add_argument(
        "--jobs", type=int, metavar="N", help="coins at a time (default: one per processor)"
    )


def _add_portfolio_options(group: Any) -> None:
    group.add_argument(
        "--portfolio",
        action="store_true",
        help="run the coins in step on one account: --capital is of all together, and their "
        "entries are bounded by the value at risk of all",
    )
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument(
        "--weights",
        nargs="+",
        metavar="COIN=SHARE",
        help="shares of the capital, together 1 (default: equal)",
    )
    one_of.add_argument(
        "--allocate",
        metavar="HOW",
        help="equal or volatility: by the inverse of each coin's range at the start",
    )


def _add_data_options(group: Any) -> None:
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="your own candle and funding files, of any usual program, instead of the exchange",
    )
    one_of.add_argument(
        "--demo", action="store_true", help="a made-up market: no network, no files"
    )
    one_of.add_argument(
        "--ticks",
        type=Path,
        metavar="DIR",
        help="recorded order books and trades (Parquet); short_grid only",
    )
    group.add_argument(
        "--list-data",
        action="store_true",
        help="print what is in the folder of --data, ranges, gaps, files not read, and stop",
    )
    group.add_argument(
        "--detail", metavar="1m", help="walk these finer candles inside each 15-minute one"
    )


def _add_tick_options(group: Any) -> None:
    group.add_argument(
        "--queue",
        metavar="MODEL",
        help="what is ahead of our orders: pessimistic, proportional, optimistic or all of them "
        "(default: all; the result is then an interval)",
    )
    group.add_argument(
        "--latency",
        metavar="UP,DOWN,FEED",
        help="ms to the exchange, of reports back, of market data (default: 5,5,5)",
    )


def _add_record_options(group: Any) -> None:
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument("--list", action="store_true", help="list the runs on record, and stop")
    one_of.add_argument(
        "--diff",
        nargs=2,
        metavar=("A", "B"),
        help="show what differs between two runs, by their ids in the list, and stop",
    )


def _backtest(args: argparse.Namespace) -> int:
    # Only now: importing numba and pandas takes longer than --help may.
    from backtest.commands.backtest import (  # noqa: PLC0415
        BacktestRequest,
        chosen_portfolio,
        run_backtest,
        run_portfolio_command,
    )

    asked = chosen_portfolio(args)
    request = BacktestRequest(
        coins=args.coins,
        start=args.start,
        end=args.end,
        params=chosen_params(args),
        portfolio=asked,
        strategy=chosen_strategy(args),
        source="demo" if args.demo else args.data or "exchange",
        detail=args.detail,
        jobs=args.jobs,
        plot=not args.no_plot,
        output=args.output,
        as_json=args.json,
        bands=args.bands,
    )
    if args.compare:
        from backtest.commands.compare import run_compare  # noqa: PLC0415

        return run_compare(request)
    return run_portfolio_command(request) if asked is not None else run_backtest(request)


def _ticks(args: argparse.Namespace) -> int:
    from backtest.commands.ticks import ALL, TickRequest, run_ticks_command  # noqa: PLC0415

    return run_ticks_command(
        TickRequest(
            folder=args.ticks,
            coins=args.coins,
            params=chosen_params(args),
            queue=args.queue or ALL,
            latency=args.latency,
            output=args.output,
            plot=not args.no_plot,
            as_json=args.json,
        )
    )


def _earlier_runs(args: argparse.Namespace) -> int:
    from backtest.commands.earlier_runs import show_diff, show_runs  # noqa: PLC0415 - pandas, 0.5 s

    folder = args.output or Path(str(BACKTEST_CONFIG["output_dir"]))
    if args.diff is not None:
        show_diff(folder, *args.diff, as_json=args.json)
    else:
        show_runs(folder, as_json=args.json)
    return 0


def _run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for and return the exit code."""
    check_flags(args)
    if args.list_params:
        say(text_table(chosen_strategy(args)))
        return 0
    if args.list_data:
        if args.data is None:
            raise ConfigError("--list-data is about a folder; add --data DIR")
        from backtest.commands.list_data import list_data  # noqa: PLC0415 - pandas, 0.5 s

        return list_data(args.data, str(BACKTEST_CONFIG["timeframe"]))
    if chosen_strategy(args).needs.streams and not (args.list or args.diff):
        return _ticks(args)
    if args.check or args.audit or args.budget:
        return run_asked(args, chosen_params(args))
    return _earlier_runs(args) if args.list or args.diff else _backtest(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(
        lambda: _run(args), interrupted="interrupted; the files already written are complete"
    )


if __name__ == "__main__":
    end_process(main())
