"""Trade GridStrategyV4 on Binance USDT-M futures: ``python3 live_trade.py --help``."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from config import LIVE_CONFIG
from core.command_line import add_version_option, end_process, run_command, say, warn
from core.errors import ConfigError
from engine.contract import StrategySpec
from engine.options import add_parameter_options, chosen_params, chosen_strategy, parameter_names

if TYPE_CHECKING:
    from live.commands.target import Target

KEY_RIGHTS: Final = ("withdrawals", "transfers", "any-address")
LOG_LEVELS: Final = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")

EXAMPLES: Final = """\
examples, in the order in which to try them (RUNBOOK.md says more):
  python3 live_trade.py --coin BTC --replay my_candles --start 2024-01-01 --end 2024-02-01
      recorded candles at full speed, on paper: no network; what main.py --data my_candles says
  python3 live_trade.py --coin BTC --dry-run
      the market of now, on paper: no keys, no orders
  python3 live_trade.py --coin BTC --testnet --capital 5000 --leverage 2
      real orders with play money: keys of demo trading
  python3 live_trade.py --coin BTC --capital 500
      real money; asks first
  python3 live_trade.py --coin BTC --capital 500 --resume --yes
      go on after a stop, as a service does: a new session only where none is saved
  python3 live_trade.py --coin BTC --dry-run --status
      positions, orders, equity, health, out of the files; also while it runs
  python3 live_trade.py --coin BTC --testnet --check-deadman
      whether the exchange's countdown, which takes the entries of a dead process, takes stops too
  python3 live_trade.py --coin BTC --flatten
      cancel and close everything of this bot at market; asks first
  python3 live_trade.py --coin BTC --dry-run --resume --once
      one step, for a scheduler; the orders stay on paper. At an exchange nothing watches between
      steps, so entries and take-profits are cancelled: to look, not to trade
  python3 live_trade.py --coin BTC --testnet --preset documented --set grid_levels=8 --no-short \
--log-level WARNING
      other parameters; main.py --list-params explains them all

Keys come from BINANCE_API_KEY and BINANCE_API_SECRET, in the environment or in a file .env in the
current folder; nothing prints, logs or stores them. A dry run uses none. GRID_ALERT_URLS may name
where alerts go (apprise).

To stop: Ctrl+C or SIGTERM once cancels entries and take-profits, leaves positions with their stops
at the exchange and saves; a second time ends at once and leaves everything as it is.

Real money is asked for on a terminal before a new session; without one --yes must say so. Going
on with a saved session (--resume) does not ask.

exit code: 0 stopped as asked, or done; 1 a defect of the program (a traceback; entries and
take-profits are cancelled if that is possible); 2 something was wrong (standard error says what to
do; a session that had begun, or was to go on, has cancelled entries and take-profits and left its
stops); 3 the loss
limit closed everything; 4 nothing is left of the capital; 130 interrupted twice: everything stays
as it was. For 2 and 3 it tries until it is certain, after a signal five more times: then 2, and a
line that says what may be open.

files, in data/live_state (testnet and dry run in folders of that name in it) and data/live_logs:
{SYMBOL}_state.json what --resume goes on from, snapshots/ copies of it, {SYMBOL}_trades.csv and
.jsonl every trade, {SYMBOL}_health.json for a watchdog, {SYMBOL}.log, {SYMBOL}.lock. A replay
leaves {SYMBOL}_replay_trades.csv in data/live_replay.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar; what values are possible is checked later."""
    parser = argparse.ArgumentParser(
        prog="live_trade.py",
        description="Trade one coin's USDT perpetual: for real, with play money, or on paper.",
        epilog=EXAMPLES + "\n" + parameter_names(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version_option(parser)
    _add_session_options(parser.add_argument_group("what to trade, and with what"))
    _add_other_actions(parser.add_argument_group("instead of trading on and on"))
    most = 100.0 * float(str(LIVE_CONFIG["max_capital_pct"]))
    add_parameter_options(
        parser.add_argument_group("strategy parameters"),
        "what a new session trades with (default: the whole wallet; never more than "
        f"{most:g} %% of it; on paper the value of config.py)",
    )
    output = parser.add_argument_group("files and output")
    output.add_argument(
        "--log-level",
        type=str.upper,
        choices=LOG_LEVELS,
        default="INFO",
        metavar="LEVEL",
        help=f"of the console: {', '.join(LOG_LEVELS)} (default: INFO)",
    )
    for name, what in (("state", "state, trades and health"), ("log", "logs")):
        output.add_argument(
            f"--{name}-dir",
            type=Path,
            metavar="DIR",
            help=f"folder of {what} (default: {LIVE_CONFIG[f'{name}_dir']})",
        )
    return parser


def _add_session_options(group: Any) -> None:
    group.add_argument(
        "--coin", required=True, help="such as BTC or BTC/USDT: the USDT perpetual; one a process"
    )
    group.add_argument(
        "--dry-run", action="store_true", help="on paper: real candles, no keys, no orders"
    )
    group.add_argument(
        "--testnet",
        action="store_true",
        help="demo trading instead of real money; with --dry-run: its prices",
    )
    group.add_argument(
        "--resume",
        action="store_true",
        help="go on from the saved state: take in what happened meanwhile; a new session where "
        "none is saved",
    )
    group.add_argument(
        "--accept-code-change",
        action="store_true",
        help="with --resume: also a state that other decision code wrote",
    )
    group.add_argument(
        "--adopt",
        action="store_true",
        help="of the fixed grid: what the account holds and no order of this bot explains becomes "
        "one position of it",
    )
    group.add_argument("--yes", action="store_true", help="do not ask, as for a service or script")
    group.add_argument(
        "--accept-key-rights",
        nargs="+",
        choices=KEY_RIGHTS,
        default=[],
        metavar="RIGHT",
        help="real money although the API key may do this besides trading: "
        f"{', '.join(KEY_RIGHTS)}",
    )


def _add_other_actions(group: Any) -> None:
    one_of = group.add_mutually_exclusive_group()
    one_of.add_argument(
        "--status", action="store_true", help="say from the files how the session stands"
    )
    one_of.add_argument(
        "--flatten",
        action="store_true",
        help="cancel every order and close every position of this bot at market, and save",
    )
    one_of.add_argument(
        "--review",
        action="store_true",
        help="tell from the event files of the fixed grid how its cycles went",
    )
    one_of.add_argument(
        "--close-cycle",
        metavar="ID",
        help="close one cycle of the fixed grid at market; ID as in the log and in client ids",
    )
    one_of.add_argument(
        "--pause",
        choices=("on", "off"),
        help="of the fixed grid, also while it runs: enter nothing until --pause off; close "
        "orders and stops go on",
    )
    one_of.add_argument(
        "--acknowledge",
        action="store_true",
        help="say that you know of the emergency, so that it does not go to the second channel",
    )
    one_of.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the trades as one CSV a year into DIR, for audit and tax",
    )
    one_of.add_argument(
        "--check-deadman",
        action="store_true",
        help="with --testnet: lay a limit order and a stop on this coin and on a control coin, let "
        "the exchange's countdown run out on this one, and say whether it takes stops too",
    )
    one_of.add_argument(
        "--once",
        action="store_true",
        help="do the step that is due next and end, at an exchange as at a stop: entries and "
        "take-profits are cancelled, stops stay",
    )
    one_of.add_argument(
        "--replay",
        type=Path,
        metavar="DIR",
        help="trade recorded candles (as main.py --data) on paper at full speed",
    )
    group.add_argument(
        "--control",
        metavar="COIN",
        help="of --check-deadman: the control coin (default: ETH; of ETH: BTC)",
    )
    for name, what in (("start", "first candle traded"), ("end", "where the candles end")):
        group.add_argument(
            f"--{name}", metavar="DATE", help=f"of a replay: {what}, UTC, ISO (as in main.py)"
        )
    group.add_argument(
        "--since", metavar="DATE", help="of --review: the first event read, UTC, ISO"
    )
    group.add_argument(
        "--replay-dir",
        type=Path,
        metavar="DIR",
        help="of a replay: folder of the list of its trades (default: data/live_replay)",
    )


def _run(args: argparse.Namespace) -> int:
    """Do what the arguments ask for and return the exit code."""
    _check_flags(args)
    spec = chosen_strategy(args)
    if not (spec.live or args.dry_run or args.replay is not None):
        raise ConfigError(
            f"{spec.name} does not trade at the exchange: --dry-run and --replay trade on paper"
        )
    params = chosen_params(args)
    if args.replay is not None:
        return _replay(args, spec, params)
    # Only now: importing numba, pandas and ccxt takes longer than --help may.
    from backtest.market.market_data import normalize_coin  # noqa: PLC0415
    from live.commands.target import find_target  # noqa: PLC0415

    target = find_target(
        normalize_coin(args.coin),
        dry_run=args.dry_run,
        testnet=args.testnet,
        settings=LIVE_CONFIG,
        state_dir=args.state_dir,
        log_dir=args.log_dir,
    )
    other = _other_action(args, target, spec, params)
    if other is not None:
        return other
    from live.commands.trade import TradeRequest, trade  # noqa: PLC0415 - ccxt

    capital = params.pop("initial_capital", None)
    return trade(
        TradeRequest(
            target=target,
            spec=spec,
            params=spec.read(params),
            capital=capital,
            resume=args.resume,
            accept_code_change=args.accept_code_change,
            once=args.once,
            yes=args.yes,
            accepted_rights=frozenset(args.accept_key_rights),
            adopts=args.adopt,
            log_level=args.log_level,
        )
    )


def _other_action(
    args: argparse.Namespace, target: Target, spec: StrategySpec, params: Mapping[str, Any]
) -> int | None:
    """Do what is asked for instead of trading and return the exit code; None: trade."""
    if args.status or args.review:
        say(_text(args, target))
        return 0
    if args.acknowledge or args.export is not None or args.pause is not None:
        return _write_down(args, target, spec, time.time_ns() // 1_000_000)
    if args.check_deadman:
        from backtest.market.market_data import normalize_coin  # noqa: PLC0415 - pandas
        from live.commands.check_deadman import check_deadman  # noqa: PLC0415 - ccxt

        coin = args.control or ("BTC" if target.coin == "ETH" else "ETH")
        return check_deadman(target, replace(target, coin=normalize_coin(coin)))
    if args.flatten or args.close_cycle is not None:
        return _flatten(args, target, spec, params)
    return None


def _write_down(args: argparse.Namespace, target: Target, spec: StrategySpec, now_ms: int) -> int:
    """Do what a person does to a session's files and return the exit code."""
    if args.acknowledge:
        from live.commands.acknowledge import acknowledge  # noqa: PLC0415

        return acknowledge(target, now_ms)
    if args.pause is not None:
        from live.commands.pause import pause  # noqa: PLC0415

        return pause(target, now_ms, paused=args.pause == "on")
    from live.commands.export import export_trades  # noqa: PLC0415

    return export_trades(target, spec, args.export, now_ms)


def _text(args: argparse.Namespace, target: Target) -> str:
    if args.status:
        from live.commands.status import status_text  # noqa: PLC0415

        return status_text(target, time.time_ns() // 1_000_000)
    from live.commands.review import review_text  # noqa: PLC0415

    return review_text(target, args.since)


def _flatten(
    args: argparse.Namespace, target: Target, spec: StrategySpec, params: Mapping[str, Any]
) -> int:
    from live.commands.flatten import FlattenRequest, flatten  # noqa: PLC0415 - ccxt

    return flatten(
        FlattenRequest(
            target=target,
            yes=args.yes,
            log_level=args.log_level,
            spec=spec,
            params=spec.read(params),
            cycle=args.close_cycle or "",
        )
    )


def _check_fixed_grid_flags(args: argparse.Namespace) -> None:
    """Refuse flags of the fixed grid where they are of no use."""
    if args.since is not None and not args.review:
        raise ConfigError("--since needs --review, the events it is about")
    is_at_exchange = args.strategy == "fixed_grid" and not args.dry_run and args.replay is None
    for flag, is_given in (("--adopt", args.adopt), ("--pause", args.pause is not None)):
        if is_given and not is_at_exchange:
            raise ConfigError(
                f"{flag} is for the fixed grid at the exchange: name --strategy fixed_grid, "
                "without --dry-run"
            )


def _check_flags(args: argparse.Namespace) -> None:
    """Refuse flags that would be passed over.

    Raises:
        ConfigError: a flag is of no use with the others.
    """
    _check_fixed_grid_flags(args)
    if args.accept_code_change and not args.resume:
        raise ConfigError("--accept-code-change needs --resume, the state it is about")
    if args.accept_key_rights and (args.dry_run or args.testnet or args.replay is not None):
        raise ConfigError("--accept-key-rights is about real money: leave it out")
    _check_deadman_flags(args)
    if args.replay is None:
        for name in ("start", "end", "replay_dir"):
            if getattr(args, name) is not None:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} needs --replay DIR, the candles it is about")
        return
    for name in ("resume", "testnet", "yes", "state_dir", "log_dir"):
        if getattr(args, name):
            flag = name.replace("_", "-")
            raise ConfigError(f"--replay has no session and asks nobody: leave --{flag} out")


def _check_deadman_flags(args: argparse.Namespace) -> None:
    """Refuse the check of the countdown but with play money.

    Raises:
        ConfigError: it is not asked for on demo trading, or --control is not about it.
    """
    if not args.check_deadman:
        if args.control is not None:
            raise ConfigError("--control needs --check-deadman, the check it is about")
        return
    if not args.testnet or args.dry_run:
        raise ConfigError(
            "--check-deadman lays orders to look what becomes of them: it needs --testnet, and "
            "its keys"
        )
    from backtest.market.market_data import normalize_coin  # noqa: PLC0415 - pandas

    if args.control is not None and normalize_coin(args.control) == normalize_coin(args.coin):
        raise ConfigError(f"--control {args.control} must be another coin than --coin")


def _replay(args: argparse.Namespace, spec: StrategySpec, params: dict[str, Any]) -> int:
    from backtest.simulator import BacktestSimulator  # noqa: PLC0415 - pandas and numba, 0.7 s
    from live.commands.replay import (  # noqa: PLC0415
        REPLAY_DIR,
        Recording,
        candle_table,
        report_text,
        run_replay,
        write_trades,
    )

    folder = (args.replay_dir or REPLAY_DIR).resolve()
    kept = Path(str(LIVE_CONFIG["state_dir"])).resolve()
    if folder.is_relative_to(kept):
        raise ConfigError(f"--replay-dir {folder} lies where live sessions are kept: name another")

    simulator = BacktestSimulator(params, source=args.replay, strategy=spec)
    loaded = simulator.load(args.coin, args.start, args.end)
    spec.load_code()
    recording = Recording(
        coin=loaded.market.coin,
        candles=candle_table(loaded.market.candles),
        first=loaded.first_bar,
        rules=loaded.rules,
        settlements=loaded.market.funding["timestamp"].to_numpy(copy=True),
        rates=loaded.market.funding["rate"].to_numpy(copy=True),
    )
    session = run_replay(recording, spec, simulator.params)
    path = write_trades(recording, session, args.replay_dir or REPLAY_DIR)
    say(f"{report_text(recording, session)}\nTrades in {path}")
    if loaded.notice:
        warn(f"warning: {loaded.notice}")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(
        lambda: _run(args),
        interrupted="interrupted while starting or ending; --status says what is open",
    )


if __name__ == "__main__":
    end_process(main())
