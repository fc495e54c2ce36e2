"""``main.py --data DIR --list-data``: series in a folder, joined, left out, and why."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from backtest.market.files import CandleFolder
from backtest.market.timeframes import format_time, timeframe_ms
from core.command_line import say
from core.errors import DataError


def list_data(data_dir: Path, timeframe: str) -> int:
    """Print every series in a folder with range, gaps and files, then what is not read.

    Args:
        data_dir: the folder.
        timeframe: of the run; said of every coin, as finer candles may fill it.

    Returns:
        The exit code: 2 if files were refused, else 0.

    Raises:
        DataError: there is no such folder.
    """
    folder, code = CandleFolder(data_dir), 0
    for coin in folder.coins():
        kinds = [*folder.timeframes(coin, timeframe), "funding"]
        for kind in kinds:
            try:
                lines = _series(folder, coin, kind)
            except DataError as error:
                lines, code = [f"{coin} {kind}: refused: {error}"], 2
            for line in lines:
                say(line)
    read = {coin: folder.timeframes(coin, timeframe) for coin in folder.coins()}
    for line in folder.left_over(read) or ["every file is read"]:
        say(line)
    return code


def _series(folder: CandleFolder, coin: str, kind: str) -> list[str]:
    if kind == "funding":
        rates = folder.funding(coin)
        if rates is None:
            return []
        return [
            f"{coin} {kind}: {len(rates):,} rates, {_range(rates)}; {folder.origin(coin, kind)}"
        ]
    found = folder.candles(coin, kind)
    steps = np.diff(found.candles["timestamp"].to_numpy()) // timeframe_ms(kind)
    wide = np.flatnonzero(steps > 1)
    gaps = "no gaps"
    if wide.size:
        after = format_time(int(found.candles["timestamp"].iloc[wide[0]]))
        lacking = int((steps[wide] - 1).sum())
        gaps = f"gaps: {wide.size} ({lacking:,} candles), the first after {after}"
    head = f"{coin} {kind}: {len(found.candles):,} candles, {_range(found.candles)}, {gaps}"
    return [f"{head}; {folder.origin(coin, kind)}", *(f"  {text}" for text in found.notices)]


def _range(table: pd.DataFrame) -> str:
    times = table["timestamp"]
    return f"{format_time(int(times.iloc[0]))} to {format_time(int(times.iloc[-1]))}"
