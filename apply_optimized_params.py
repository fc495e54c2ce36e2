"""Write optimized parameters into config.py: ``python3 apply_optimized_params.py --help``."""

from __future__ import annotations

import argparse
import contextlib
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from core.command_line import (
    EXIT_FAILED,
    add_version_option,
    end_process,
    program,
    run_command,
    say,
    warn,
)
from core.errors import ConfigError

if TYPE_CHECKING:
    from backtest.optimize.apply.config_edit import ConfigEdit
    from backtest.optimize.apply.params_file import ParamsFile
    from engine.contract import StrategySpec

EXIT_NOT_WANTED: Final = 1

CONFIG: Final = Path(__file__).resolve().with_name("config.py")
PARAMS: Final = Path("data/optimizer_results_robust.json")

_COLUMN: Final = 26
"""Widest column; the rare longer text, a list of prunings, sticks out of it."""

EXAMPLES: Final = """\
examples:
  python3 apply_optimized_params.py
      show what the optimizer's robust choice would change in config.py, ask, and write it
  python3 apply_optimized_params.py --preview
      only show it, also what would be refused
  python3 apply_optimized_params.py --params results.json --yes
      write without asking, as in a script
  python3 apply_optimized_params.py --params data/best_params_v4.json --preview
      the best trial, for reference: the best of many trials is mostly the luckiest
  python3 apply_optimized_params.py --params results.json --config other.py
      another file with a dict STRATEGY_PARAMS
  mv config.py.bak config.py
      undo the last write

Only values in STRATEGY_PARAMS change, or in FIXED_GRID_PARAMS where FILE is of the fixed grid;
comments, order and all other parameters stay. What was there is kept as config.py.bak, in place of
an earlier one. The new file is executed and compared with the
old one before it takes its place; whatever is wrong, the old one stays untouched.

What may be written depends on the verdict in FILE. held: as it is. undecided (it may be luck): the
reasons are shown, and it is written only if you say yes; --yes alone does not, --yes --force does.
failed, not tested (the best trial always is) or no verdict: only with --force. Parameters that were
tested together with other values of what is not searched than the config has need --force as well;
the differences are listed. --preview shows all of these, and says why they would be refused. What
the verdict does not tell is printed as a warning.

exit code: 0 written, shown, or nothing to change; 1 the answer was no; 2 something was wrong (one
line on standard error says what to do); 130 interrupted. Only with 0 may anything have changed.
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the command line's grammar."""
    parser = argparse.ArgumentParser(
        prog="apply_optimized_params.py",
        description="Write parameters the optimizer found into config.py.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_version_option(parser)
    parser.add_argument(
        "--strategy",
        metavar="NAME",
        help="the strategy that was searched (default: what FILE says)",
    )
    parser.add_argument(
        "--params",
        type=Path,
        default=PARAMS,
        metavar="FILE",
        help=f"JSON file with the results (default: {PARAMS})",
    )
    parser.add_argument(
        "--key",
        metavar="KEY",
        help="the object inside FILE that holds the parameters (default: robust_params where it "
        "has them, else best_params)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="Python file to rewrite (default: this project's config.py)",
    )
    parser.add_argument("--preview", action="store_true", help="show the changes, write nothing")
    parser.add_argument("--yes", action="store_true", help="write without asking")
    parser.add_argument(
        "--force",
        action="store_true",
        help="take parameters whose verdict is failed, not tested or missing, undecided ones "
        "without asking, and those tested with other values of what is not searched than config.py "
        "has",
    )
    return parser


def _run(args: argparse.Namespace) -> int:
    # Only now: importing libcst takes as long as --help may.
    from backtest.optimize.apply.config_edit import check_writable, plan_edit  # noqa: PLC0415
    from backtest.optimize.apply.params_file import default_key, read_params  # noqa: PLC0415

    # Not before: it reads config.py, which --help must survive broken.
    spec = _searched(args)
    config = args.config or _near(CONFIG)
    args.key = args.key or default_key(args.params)
    found = read_params(args.params, args.key, spec.params)
    notes = _verdict(found, args)
    edit = plan_edit(config, found.params, (spec.params_name, spec.params))
    notes += _untested(found, edit, args, config, spec)
    if not edit.changes:
        _tell(notes)
        say(f"{config} holds {_values(edit.unchanged, these=True)} already; nothing to write")
        return 0
    count = len(edit.changes)
    if not args.preview:
        check_writable(edit)
        if not args.yes and not sys.stdin.isatty():
            raise ConfigError(
                "nobody can be asked here, standard input is not a terminal: add --yes to write "
                f"{_values(count)} to {config}, or --preview to see what would change"
            )
    _tell(notes)
    say(f"{args.params}, {args.key} -> {config}\n\n{_table(edit)}\n")
    if args.preview:
        say("preview: nothing written")
        return 0
    sys.stdout.flush()  # a reader who is gone must be noticed before the write, not after
    if not args.yes and not _confirmed(_question(found, count, config)):
        say("nothing written")
        return EXIT_NOT_WANTED
    _write(edit, config, spec)
    return 0


def _searched(args: argparse.Namespace) -> StrategySpec:
    """Return the strategy whose parameters are to be written.

    Raises:
        ConfigError: there is none of that name, or FILE is of another.
    """
    from backtest.optimize.apply.params_file import strategy_in  # noqa: PLC0415 - as above
    from engine.options import chosen_strategy  # noqa: PLC0415
    from engine.registry import DEFAULT, find_strategy  # noqa: PLC0415

    asked = chosen_strategy(args)
    name = strategy_in(args.params) or (args.strategy or DEFAULT.name)
    if args.strategy is not None and name != asked.name:
        raise ConfigError(f"{args.params} is of strategy {name}, not of {asked.name}")
    return find_strategy(name)


def _verdict(found: ParamsFile, args: argparse.Namespace) -> list[str]:
    """Return what must be said about the parameters' worth.

    Raises:
        ConfigError: the verdict does not allow to write them, and they are wanted neither
            nevertheless nor only to be seen.
    """
    from backtest.optimize.apply.params_file import HELD, UNDECIDED  # noqa: PLC0415 - as above

    if found.answer == HELD:
        return [*found.warnings]
    reasons = "; ".join(found.why)
    text = (
        f"nothing says whether {args.key} held on candles they were not chosen on (no verdict)"
        if found.answer is None
        else f"the verdict on {args.key} is: {found.answer}{f' ({reasons})' if reasons else ''}"
    )
    if found.answer == UNDECIDED and not args.yes:
        return [text, *found.warnings]  # whoever is asked has it before the eyes
    way = (
        "run it without --yes, read why, and answer, or add --force"
        if found.answer == UNDECIDED
        else "search again, or add --force to take them nevertheless"
    )
    return [_refused(f"{args.params}: {text}; {way}", text, args), *found.warnings]


def _untested(
    found: ParamsFile, edit: ConfigEdit, args: argparse.Namespace, config: Path, spec: StrategySpec
) -> list[str]:
    """Return what of the config differs from what the parameters were tested with.

    Raises:
        ConfigError: something does, and they are wanted neither nevertheless nor only to be seen.
    """
    from core.params import read_value  # noqa: PLC0415 - numpy, as above

    lines = [
        f"{name} {value}, {config} has {edit.values[name]}"
        for name, value in found.tested_with.items()
        if read_value(name, value, spec.params) != read_value(name, edit.values[name], spec.params)
    ]
    if not lines:
        return []
    text = (
        f"together with what {config} has, {args.key} were never tested; they were with: "
        + "; ".join(lines)
    )
    refusal = f"{args.params}: {text}; set these in {config} too, search again, or add --force"
    return [_refused(refusal, text, args)]


def _refused(refusal: str, reason: str, args: argparse.Namespace) -> str:
    """Return what is said where a refusal is only shown, or was overruled.

    Raises:
        ConfigError: the refusal, where something was to be written.
    """
    if args.force:
        return reason
    if args.preview:
        return f"would be refused: {refusal}"
    raise ConfigError(f"{refusal} (--preview shows what they would change)")


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        warn(f"warning: {note}")


def _table(edit: ConfigEdit) -> str:
    names, before, after = (
        max(min(len(getattr(change, column)), _COLUMN) for change in edit.changes)
        for column in ("name", "before", "after")
    )
    lines = [
        f"  {change.name:<{names}}  {change.before:>{before}} -> {change.after:<{after}}"
        f"  {_percent(change.percent)}".rstrip()
        for change in edit.changes
    ]
    same = f"; the same already: {edit.unchanged}" if edit.unchanged else ""
    return "\n".join([*lines, "", f"to change: {_values(len(edit.changes))}{same}"])


def _percent(percent: float | None) -> str:
    if percent is None:
        return ""
    return f"{percent:+,.1f} %" if abs(percent) >= 0.1 else f"{percent:+.1g} %"  # noqa: PLR2004


def _values(count: int, *, these: bool = False) -> str:
    if count == 1:
        return "this value" if these else "1 value"
    return f"these {count} values" if these else f"{count} values"


def _question(found: ParamsFile, count: int, config: Path) -> str:
    from backtest.optimize.apply.params_file import HELD  # noqa: PLC0415 - as above

    worth = "" if found.answer == HELD else f"The verdict is: {found.answer or 'not known'}. "
    return f"{worth}Write {_values(count, these=True)} to {config}?"


def _confirmed(question: str) -> bool:
    """Ask on standard error, so that the question is seen where the output is redirected."""
    print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)  # noqa: T201
    try:
        answer = input()
    except EOFError:
        warn("")
        return False
    return answer.strip().lower() in {"y", "yes"}


def _write(edit: ConfigEdit, config: Path, spec: StrategySpec) -> None:
    from backtest.optimize.apply.config_edit import write_edit  # noqa: PLC0415 - libcst, as above
    from engine.registry import DEFAULT  # noqa: PLC0415 - after the config has been read

    backup, path = str(_near(edit.backup)), str(_near(edit.path))
    named = [] if spec is DEFAULT else ["--strategy", spec.name]
    with _uninterrupted():
        write_edit(edit)
        with contextlib.suppress(BrokenPipeError):  # it is written, whoever reads about it
            say(
                f"wrote {_values(len(edit.changes))} to {config}\n"
                f"the file as it was: {backup}\n"
                f"to undo: {shlex.join(['mv', backup, path])}\n"
                f"next: {shlex.join(['python3', program('main.py'), *named])}"
            )
            sys.stdout.flush()


@contextlib.contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let Ctrl+C come too late for these milliseconds: "nothing changed" must be true."""
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, former)


def _near(path: Path) -> Path:
    """Return ``path`` as seen from the current folder, if it is inside."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = build_parser().parse_args(argv)
    return run_command(
        lambda: _run(args),
        interrupted="\ninterrupted; nothing changed",
        # Nothing is written before somebody has read about it.
        unread=0 if args.preview else EXIT_FAILED,
        unread_text="error: standard output was closed before the write; nothing changed",
    )


if __name__ == "__main__":
    end_process(main())
