"""Backtest GridStrategyV4: ``python3 main.py --help``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from backtest.commands.check import EXAMPLES as CHECK_EXAMPLES
from backtest.commands.check import add_check_options, run_asked
from backtest.commands.flags import check_flags
from backtest.report.parameter_table import text_table
from config import BACKTEST_CONFIG, PRESETS, STRATEGY_PARAMS
from core.errors import ConfigError, GridError
from core.params import read_value, unknown_key

EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130

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
    _add_run_options(parser.add_argument_group("what to run"))
    _add_data_options(parser.add_argument_group("where candles come from"))
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


def _add_data_options(group: Any) -> None:
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
    group.add_argument(
        "--detail", metavar="1m", help="walk these finer candles inside each 15-minute one"
    )


def add_parameter_options(group: Any, capital: str) -> None:
    """Add the flags that ``chosen_params`` reads; ``capital`` is the help of ``--capital``."""
    group.add_argument("--capital", metavar="USDT", help=capital)
    group.add_argument(
        "--leverage",
        metavar="X",
        help=f"multiplies order sizes and caps (default: {STRATEGY_PARAMS['leverage']:g})",
    )
    group.add_argument("--no-short", action="store_true", help="trade the long grid only")
    group.add_argument("--preset", metavar="NAME", help=f"one of: {', '.join(PRESETS)}")
    group.add_argument("--params", type=Path, metavar="FILE", help="a JSON object of parameters")
    group.add_argument("--key", metavar="KEY", help="the object inside FILE that holds them")
    group.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any strategy parameter; repeatable",
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


def parameter_names() -> str:
    """Return the names ``--set`` knows, for the end of a help text."""
    names = textwrap.fill(
        " ".join(STRATEGY_PARAMS),
        width=96,
        initial_indent="  ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return f"parameters for --set (main.py --list-params explains them):\n{names}"


def chosen_params(args: argparse.Namespace) -> dict[str, Any]:
    """Return the parameters the arguments change, the later source winning.

    Raises:
        ConfigError: a preset, file, key or value is unusable.
    """
    chosen: dict[str, Any] = {}
    if args.preset is not None:
        if args.preset not in PRESETS:
            raise ConfigError(unknown_key(args.preset, PRESETS, "preset") + _among(PRESETS))
        chosen |= PRESETS[args.preset]
    if args.params is not None:
        chosen |= read_params_file(args.params, args.key)
    elif args.key is not None:
        raise ConfigError(f"--key {args.key} needs --params FILE, the file to look in")
    for item in args.set:
        key, equals, value = item.partition("=")
        if not equals:
            raise ConfigError(f"--set {item!r} must be KEY=VALUE, such as --set grid_levels=8")
        chosen[key.strip()] = value.strip()
    flags = {"initial_capital": args.capital, "leverage": args.leverage}
    chosen |= {key: value for key, value in flags.items() if value is not None}
    if args.no_short:
        chosen["allow_short"] = False
    return {key: read_value(key, value) for key, value in chosen.items()}


def read_params_file(path: Path, key: str | None) -> dict[str, Any]:
    """Return the JSON object in ``path``, or the one under its ``key``.

    Raises:
        ConfigError: the file cannot be read, or holds no such object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--params {path}: {error.strerror or error}") from None
    except ValueError as error:
        raise ConfigError(f"--params {path}: is not JSON: {error}") from None
    if key is not None and isinstance(content, dict):
        if key not in content:
            unknown = unknown_key(key, content, "key")
            raise ConfigError(f"--params {path}: {unknown}{_among(content)}")
        content = content[key]
    if not isinstance(content, dict):
        where = f"under {key!r}" if key is not None else "at the top"
        raise ConfigError(f"--params {path}: {where} must be an object of parameters")
    nested = [name for name in content if isinstance(content[name], dict)]
    if nested:
        raise ConfigError(f"--params {path}: holds objects; choose with --key{_among(nested)}")
    return content


def _among(names: Iterable[str]) -> str:
    return f" (there are: {', '.join(names)})"


def _backtest(args: argparse.Namespace) -> int:
    # Only now: importing numba and pandas takes longer than --help may.
    from backtest.commands.backtest import BacktestRequest, run_backtest  # noqa: PLC0415

    request = BacktestRequest(
        coins=args.coins,
        start=args.start,
        end=args.end,
        params=chosen_params(args),
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
    return run_backtest(request)


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
        print(text_table())  # noqa: T201
        return 0
    if args.check or args.audit or args.budget:
        return run_asked(args, chosen_params(args))
    return _earlier_runs(args) if args.list or args.diff else _backtest(args)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = build_parser().parse_args(argv)
    try:
        code = _run(args)
        sys.stdout.flush()
    except GridError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted; the files already written are complete", file=sys.stderr)  # noqa: T201
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # whoever reads the report, such as head, has seen enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    exit_code = main()
    if exit_code == EXIT_INTERRUPTED:
        os._exit(exit_code)  # not waiting for downloads in other threads
    sys.exit(exit_code)
