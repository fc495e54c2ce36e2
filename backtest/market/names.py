"""Coin, timeframe or funding, and part of the series, as the path of a person's file says them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from backtest.market.market_data import QUOTE
from backtest.market.tables import ENDINGS, ending_of
from backtest.market.timeframes import TIMEFRAMES
from core.times import DAY_MS, MINUTE_MS

FUNDING: Final = "funding"

_MARKET_WORDS: Final = frozenset({"usdt", "perp", "swap", "futures", "um", "p"})
_FUNDING_WORDS: Final = frozenset({"fundingrate", "fundingrates", "funding"})
_OTHER_PRICES: Final = frozenset({"mark", "index", "premiumindex", "indexprice", "markprice"})
_OWN_EXCHANGE: Final = frozenset({"binance", "binanceusdm"})
_OTHER_EXCHANGES: Final = frozenset(
    {"bybit", "okx", "kucoin", "bitget", "gateio", "kraken", "coinbase", "hyperliquid", "mexc"}
)
_DATE: Final = re.compile(r"(?:^|[-_])(\d{4}-\d{2}(?:-\d{2})?)$")
_YEAR: Final = re.compile(r"_((?:19|20)\d{2})(?=_)")
_CHART: Final = re.compile(r", (\d+|1D)(?:_[0-9a-f]+)?(?: \(\d+\))?$")
"""How a chart's export ends: minutes, a hash, the number of a repeated download."""
_WORDS: Final = {"minute": "1m", "hour": "1h", "d": "1d", "daily": "1d"}
_PICKLES: Final = (".pkl", ".pickle", ".pkl.gz", ".pickle.gz")
_PICKLE: Final = (
    "a pickle: reading one can run any program; save the frame with to_parquet or to_csv instead"
)


@dataclass(frozen=True)
class DataFile:
    """A file whose name could be read; ``kind`` is a timeframe, ``funding`` or empty (candles).

    ``part`` is the year, month or day it holds, empty where it holds all there is; ``name`` is its
    path within the folder.
    """

    path: Path
    coin: str
    kind: str
    part: str = ""
    name: str = ""


def read_name(path: Path, folder: Path) -> DataFile | str:
    """Return what the name of a file in ``folder`` says, or why it is not read."""
    ending = ending_of(path)
    if ending in _PICKLES:
        return _PICKLE
    if ending not in ENDINGS:
        return f"not {', '.join(ENDINGS)}"
    inside = path.relative_to(folder)
    stem, part = path.name[: -len(ending)], ""
    if dated := _DATE.search(stem):
        stem, part = stem[: dated.start()], dated.group(1)
    kind_of_folder = ""
    if not stem:  # a file for each day, in a folder of the coin, as passivbot has them
        above = list(inside.parts[:-1])
        kind_of_folder = next((name for name in reversed(above) if name in TIMEFRAMES), "")
        named = [name for name in above if name not in TIMEFRAMES]
        stem = named[-1] if named else ""
        words = re.split(r"[-_]", "_".join(named[:-1]).lower())
        if other := next((word for word in words if word in _OTHER_EXCHANGES), ""):
            return _of_another(other)
    read = _read_stem(stem)
    if isinstance(read, str):
        return read
    coin, kind, year = read
    return DataFile(path, coin, kind or kind_of_folder, part or year, inside.as_posix())


def _of_another(exchange: str) -> str:
    return f"of another exchange ({exchange}); rename it if its candles are to stand for Binance's"


def _read_stem(stem: str) -> tuple[str, str, str] | str:
    """Return coin, kind and year of a name without its ending, or why it is not read."""
    minutes, year = "", ""
    if chart := _CHART.search(stem):
        minutes, stem = chart.group(1), stem[: chart.start()]
    if found := _YEAR.search(stem):
        year, stem = found.group(1), stem[: found.start()] + stem[found.end() :]
    words = [word for word in re.split(r"[-_. :,]+", stem) if word] or [""]
    exchange = words[0].lower() if len(words) > 1 else ""
    if exchange in _OTHER_EXCHANGES:
        return _of_another(exchange)
    coin, *rest = words[1:] if exchange in _OWN_EXCHANGE else words
    coin = coin.upper().removesuffix(QUOTE)
    if not coin.isalnum() or coin.lower() in TIMEFRAMES:
        return "its name begins with no coin"
    kind, refused = _kind_of([word.lower() for word in rest], minutes)
    return refused or (coin, kind, year)


def _kind_of(words: list[str], minutes: str) -> tuple[str, str]:
    """Return the kind that the words after a coin say, or why they say none.

    Args:
        minutes: as a chart's export names its timeframe, '' where there is none.
    """
    kinds = [word for word in words if word not in _MARKET_WORDS]
    if any(word in _OTHER_PRICES for word in kinds):
        return "", "mark, index or premium prices: no trades"
    if "usd" in kinds:
        return ("", "prices in USD, not USDT; rename it if they may stand for the USDT perpetual's")
    kind = "".join(_WORDS.get(word, word) for word in kinds)
    if any(kind.removeprefix(span) in _FUNDING_WORDS for span in ("", *TIMEFRAMES)):
        kind = FUNDING
    if minutes and not kind:
        length_ms = DAY_MS if minutes == "1D" else int(minutes) * MINUTE_MS
        kind = next((name for name, ms in TIMEFRAMES.items() if ms == length_ms), f"{minutes} min")
    if kind not in {*TIMEFRAMES, FUNDING, ""}:
        return "", f"its name says neither a timeframe nor funding: {' '.join(kinds) or kind}"
    return kind, ""
