"""The commands ``main.py --list`` and ``main.py --diff``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from backtest.results.diff import diff_runs, diff_text
from backtest.results.files import json_bytes
from backtest.results.register import REGISTER, read_register, runs_table


def show_runs(folder: Path, *, as_json: bool) -> None:
    """Print the runs on record in ``folder``, oldest first.

    Raises:
        DataError: the register cannot be read.
    """
    logging.basicConfig(format="warning: %(message)s")
    entries = read_register(folder)
    if as_json:
        sys.stdout.write(json_bytes(entries).decode())
    elif entries:
        sys.stdout.write(runs_table(entries) + "\n")
    else:
        sys.stdout.write(f"no run is on record in {folder / REGISTER}; every backtest adds one\n")


def show_diff(folder: Path, first: str, second: str, *, as_json: bool) -> None:
    """Print what differs between two runs on record in ``folder``.

    Raises:
        ConfigError: a run is unknown.
        DataError: its copy cannot be read.
    """
    logging.basicConfig(format="warning: %(message)s")
    diff = diff_runs(folder, first, second)
    text = json_bytes(diff).decode() if as_json else diff_text(diff) + "\n"
    sys.stdout.write(text)
