"""``main.py --strategy short_grid``: recordings or the demo's ticks, run with each queue model."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from backtest.market.market_data import normalize_coin
from backtest.market.timeframes import format_time
from backtest.report.ticks import interval_text, tick_table
from backtest.results.files import check_writable, json_bytes, write_file
from backtest.results.ticks import tick_document, tick_files
from backtest.runs.ticks import Latency, Recording, TickResult, run_recordings
from backtest.ticks.demo import DEMO_TICK_COINS, demo_ticks
from backtest.ticks.reader import TickReport, open_sessions
from backtest.ticks.rules import given_rules, infer_rules
from config import BACKTEST_CONFIG
from core.errors import ConfigError, DataError
from core.recording import MS_NS, EventKind
from engine.registry import SHORT_GRID
from engine.short_grid.params import ShortGridParams
from engine.short_grid.venue import QueueModel

ALL: Final = "all"
LONGEST_MS: Final = 10_000.0
DEMO_MINUTES: Final = 120


@dataclass(frozen=True)
class TickRequest:
    """A run of the short grid.

    Attributes:
        folder: of recordings; None: the demo's ticks.
        coins: only these; None: all there are.
        params: as the command line changes them.
        queue: name of a model, or ``all``.
        latency: ``UP,DOWN,FEED`` in ms; None: as shipped.
        output: folder of all files; None: as in the settings.
        plot: draw a chart.
        as_json: print one document instead of the table.
    """

    folder: Path | None
    coins: Sequence[str] | None
    params: Mapping[str, Any]
    queue: str
    latency: str | None
    output: Path | None
    plot: bool
    as_json: bool


def read_models(name: str) -> list[QueueModel]:
    """Return the queue models of ``--queue``.

    Raises:
        ConfigError: there is none of that name.
    """
    names = {model.name.lower(): model for model in QueueModel}
    if name == ALL:
        return list(QueueModel)
    if name not in names:
        raise ConfigError(f"--queue {name} must be one of {', '.join(names)} or {ALL}")
    return [names[name]]


def read_latency(text: str | None) -> Latency:
    """Return the latencies of ``--latency UP,DOWN,FEED``.

    Raises:
        ConfigError: these are not three numbers of milliseconds that can be.
    """
    if text is None:
        return Latency()
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 3 or not all(  # noqa: PLR2004 - up, down, feed
        math.isfinite(value) and 0.0 <= value <= LONGEST_MS for value in values
    ):
        raise ConfigError(
            f"--latency {text} must be three numbers of ms from 0 to {LONGEST_MS:g}: "
            "to the exchange, back, market data; such as 5,5,5"
        )
    return Latency(*values)


def run_ticks_command(request: TickRequest) -> int:
    """Run, write the files, print the result; return the exit code.

    Raises:
        GridError: nothing could be run.
    """
    params = SHORT_GRID.read(request.params)
    models, latency = read_models(request.queue), read_latency(request.latency)
    folder = request.output or Path(str(BACKTEST_CONFIG["output_dir"]))
    charts = request.output or Path(str(BACKTEST_CONFIG["chart_dir"]))
    check_writable(folder)
    recordings = _recordings(request, params)
    steps = _Steps(len(models) * len(recordings))
    result = run_recordings(recordings, params, models, latency, done=steps.next)
    result.notices.extend(_notices(request, params, result))
    bodies = tick_files(result, folder)
    if request.plot:
        check_writable(charts)
        from backtest.report.tick_chart import tick_chart  # noqa: PLC0415 - matplotlib, 0.4 s

        bodies[charts / "short_grid.png"] = tick_chart(result, interval_text(result))
    for path, body in bodies.items():
        write_file(path, body)
    if request.as_json:
        sys.stdout.write(json_bytes(tick_document(result)).decode())
    else:
        print(tick_table(result))  # noqa: T201
    for notice in result.notices:
        _say(f"warning: {notice}")
    _say(f"wrote {', '.join(path.name for path in bodies)} in {folder}")
    return 0


def _recordings(request: TickRequest, params: ShortGridParams) -> list[Recording]:
    fees = params.fee_maker_bps, params.fee_taker_bps
    if request.folder is None:
        symbols = _demo_symbols(request.coins)
        _say(f"making up {DEMO_MINUTES} minutes of ticks of {', '.join(symbols)}")
        demo = demo_ticks(DEMO_MINUTES, symbols)
        rules = given_rules(demo.rules, demo.symbols, *fees)
        return [Recording("demo", demo.symbols, demo.events, rules)]
    wanted = [f"{normalize_coin(coin)}USDT" for coin in request.coins or ()]
    found = []
    for session in open_sessions(request.folder, wanted):
        name = format_time(session.start_ns // MS_NS // 1_000 * 1_000)
        _say(f"reading the recording of {name}: {', '.join(session.symbols)}")
        report = TickReport()
        events = session.events(params, report)
        books = {int(index) for index in set(events["symbol"][events["kind"] == EventKind.BOOK])}
        if len(events) == 0 or len(books) < len(session.symbols):
            lacking = [s for k, s in enumerate(session.symbols) if k not in books]
            _say(f"warning: recording of {name} left out: no books of {', '.join(lacking)}")
            continue
        rules, notes = infer_rules(events, session.symbols, *fees)
        found.append(Recording(name, session.symbols, events, rules, (*report.lines(), *notes)))
    if not found:
        raise DataError(f"{request.folder}: no recording has books of every symbol asked for")
    return found


def _demo_symbols(coins: Sequence[str] | None) -> tuple[str, ...]:
    if coins is None:
        return tuple(DEMO_TICK_COINS)
    wanted = [f"{normalize_coin(coin)}USDT" for coin in coins]
    for symbol in wanted:
        if symbol not in DEMO_TICK_COINS:
            raise DataError(
                f"the demo has no ticks of {symbol}; it has {', '.join(DEMO_TICK_COINS)}"
            )
    return tuple(dict.fromkeys(wanted))


def _notices(request: TickRequest, params: ShortGridParams, result: TickResult) -> list[str]:
    found = []
    if request.folder is None:
        found.append("the demo's ticks are made up: they show how it works, not what it earns")
    for part in result.recordings:
        replies = part.events["kind"] == int(EventKind.REPLY)
        if not replies.any() and not params.baseline_live:
            found.append(
                f"{part.name}: no candles recorded, so there is no baseline volatility and no "
                "entry; --set baseline_live=true takes the live volatility instead"
            )
        if not (part.events["kind"] == int(EventKind.MARK)).any():
            found.append(
                f"{part.name}: no mark prices recorded: stops trigger on the mid, no funding"
            )
        found += [f"{part.name}: {note}" for note in part.notes]
    for outcome in result.outcomes[result.headline]:
        if outcome.halted:
            found.append(outcome.halted)
    return found


class _Steps:
    """A line per run that is done, on a terminal."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total

    def next(self) -> None:
        """Say that one more run is done."""
        self._done += 1
        if sys.stderr.isatty():
            _say(f"run {self._done} of {self._total}")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
