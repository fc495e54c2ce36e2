"""The frame of every command: exit codes, one-line errors, Ctrl+C, a reader that has gone."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, NoReturn

from core.errors import GridError
from core.version import VERSION

EXIT_FAILED: Final = 2
EXIT_INTERRUPTED: Final = 130


def program(name: str) -> str:
    """Return the file of a command of this project, as a person in the current folder names it."""
    path, here = Path(__file__).resolve().parents[1] / name, Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def say(message: str) -> None:
    """Print a line of the result on standard output."""
    print(message)  # noqa: T201


def warn(message: str) -> None:
    """Print a line for the person, not the result, on standard error."""
    print(message, file=sys.stderr)  # noqa: T201


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``, which prints the program's version and ends."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"gridstrategy {VERSION}",
        help="print the version of the program, and stop",
    )


def run_command(
    body: Callable[[], int], *, interrupted: str, unread: int = 0, unread_text: str = ""
) -> int:
    """Run a command and return its exit code; errors people can mend are one line.

    Args:
        body: does the work and returns the exit code.
        interrupted: what stands after Ctrl+C, in words.
        unread: exit code if whoever reads the output (such as ``head``) goes before the end.
        unread_text: printed then, if the code is not 0.
    """
    code = unread
    try:
        code = body()
        sys.stdout.flush()
    except GridError as error:
        warn(f"error: {error}")
        return EXIT_FAILED
    except KeyboardInterrupt:
        warn(interrupted)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        if code and unread_text:
            warn(unread_text)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


def end_process(code: int) -> NoReturn:
    """End the process; after Ctrl+C without waiting for what other threads download."""
    if code == EXIT_INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
