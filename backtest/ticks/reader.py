"""Recordings of a folder as sessions, and a session's streams as one array of events.

Events are ordered by ``(t_ns, seq)``. Recordings of this project hold ``seq``; of others a tie in
time is broken by kind (trades, books, marks), symbol and row, which nothing may rely on.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np

from backtest.market.timeframes import format_time
from backtest.ticks.candles import deviation_events
from backtest.ticks.depth import read_depth
from backtest.ticks.files import (
    BOOK_LEVELS,
    DEPTH,
    EXCHANGE_TRADES,
    Events,
    TickFile,
    candle_columns,
    fill_books,
    new_events,
    open_tick_file,
    read_columns,
    read_events,
)
from core.errors import DataError
from core.recording import (
    BOOKS,
    CANDLES,
    HOUR_NS,
    MARKS,
    MS_NS,
    SECOND_NS,
    TRADES,
    EventKind,
    Stream,
)
from engine.short_grid.feed import REJECTION_TEXTS, Rejection, check_events, new_feeds
from engine.short_grid.params import ShortGridParams

SESSION_GAP_NS: Final = 120 * SECOND_NS
"""Files farther apart than this are of different sessions."""
SILENCE_NS: Final = 10 * SECOND_NS
"""Books silent for longer are a gap."""
_BOOK_STREAMS: Final = (BOOKS, DEPTH, BOOK_LEVELS)
_TRADE_STREAMS: Final = (TRADES, EXCHANGE_TRADES)
_RANK: Final = {EventKind.TRADE: 0, EventKind.BOOK: 1, EventKind.MARK: 2, EventKind.REPLY: 3}


@dataclass(frozen=True)
class Gap:
    """A time without books of a symbol."""

    symbol: str
    start_ns: int
    end_ns: int

    def text(self) -> str:
        """Return the gap as a sentence."""
        seconds = (self.end_ns - self.start_ns) / SECOND_NS
        return f"{self.symbol}: no books for {seconds:,.1f} s from {_utc(self.start_ns)}"


@dataclass
class TickReport:
    """Findings in the files of a session, filled while it is read.

    Attributes:
        notes: what was repaired or left out, as sentences.
        gaps: times without books.
        rejected: events not used, by symbol and reason; counted over whole sessions only.
        n_events: events read, by symbol.
    """

    notes: list[str] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    rejected: dict[str, dict[str, int]] = field(default_factory=dict)
    n_events: dict[str, int] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """Return everything as sentences."""
        counted = [
            f"{symbol}: {count:,} of {self.n_events[symbol]:,} events: {reason}"
            for symbol, reasons in self.rejected.items()
            for reason, count in reasons.items()
        ]
        return [*self.notes, *(gap.text() for gap in self.gaps), *counted]


@dataclass(frozen=True)
class TickSession:
    """Files that were recorded by one clock.

    Attributes:
        files: by time.
        symbols: index -> symbol, as in the events.
        shift_ns: taken off the recorder's clock; negative if it was behind the exchange's.
    """

    files: tuple[TickFile, ...]
    symbols: tuple[str, ...]
    shift_ns: int

    @property
    def start_ns(self) -> int:
        """Time of the first row of any file, after the shift."""
        return min(file.first_ns for file in self.files) - self.shift_ns

    @property
    def end_ns(self) -> int:
        """Time of the last row of any file, after the shift."""
        return max(file.last_ns for file in self.files) - self.shift_ns

    def events(self, params: ShortGridParams, report: TickReport) -> Events:
        """Return all events; ``report`` is filled, rejections included.

        Raises:
            DataError: a file is unusable.
        """
        parts = list(self.blocks(params, report, self.end_ns - self.start_ns + 1))
        return parts[0] if parts else new_events(0)

    def blocks(
        self, params: ShortGridParams, report: TickReport, span_ns: int = HOUR_NS
    ) -> Iterator[Events]:
        """Yield the events in blocks of ``span_ns``, numbered through; empty ones are passed over.

        Of each file only what its block and the rest of the file need is held in memory.

        Raises:
            DataError: a file is unusable.
        """
        self._note_files(report)
        waiting = [*self._sources(params, report)]
        feeds, n_read = new_feeds(len(self.symbols)), 0
        last_book = dict.fromkeys(range(len(self.symbols)), self.start_ns)
        open_parts: list[Events] = []
        for start in range(self.start_ns, self.end_ns + 1, span_ns):
            end = start + span_ns
            open_parts += [source.read() for source in waiting if source.first_ns < end]
            waiting = [source for source in waiting if source.first_ns >= end]
            cuts = [int(np.searchsorted(part["t_ns"], end)) for part in open_parts]
            taken = [part[:cut] for part, cut in zip(open_parts, cuts, strict=True)]
            open_parts = [
                part[cut:] for part, cut in zip(open_parts, cuts, strict=True) if cut < len(part)
            ]
            block = merge(taken, n_read)
            if len(block) == 0:
                continue
            n_read += len(block)
            check_events(feeds, block)
            self._note_block(block, report, last_book)
            yield block
        for index, symbol in enumerate(self.symbols):
            if self.end_ns - last_book[index] > SILENCE_NS:
                report.gaps.append(Gap(symbol, last_book[index], self.end_ns))
            counts = feeds[index].rejected
            report.rejected[symbol] = {
                REJECTION_TEXTS[reason]: int(counts[reason])
                for reason in Rejection
                if counts[reason] > 0
            }

    def _note_files(self, report: TickReport) -> None:
        if self.shift_ns < 0:
            report.notes.append(
                f"session of {_utc(self.start_ns)}: the recorder's clock was behind the "
                f"exchange's; its times are moved by {-self.shift_ns / MS_NS:,.1f} ms"
            )
        for file in self.files:
            if file.stream is EXCHANGE_TRADES:
                report.notes.append(
                    f"{file.path.name}: trades have no receive time; taken as received when done"
                )
        for symbol, unused in sorted(self._unused_depth().items()):
            names = ", ".join(file.path.name for file in unused)
            report.notes.append(f"{symbol}: {names} not used, there are books of the same time")

    def _unused_depth(self) -> dict[str, list[TickFile]]:
        """Return files of depth by symbol that have better books beside them."""
        with_books = {f.symbol for f in self.files if f.stream in (BOOKS, BOOK_LEVELS)}
        unused: dict[str, list[TickFile]] = {}
        for file in self.files:
            if file.stream is DEPTH and file.symbol in with_books:
                unused.setdefault(file.symbol, []).append(file)
        return unused

    def _sources(self, params: ShortGridParams, report: TickReport) -> Iterator[_Source]:
        unused = {file.path for files in self._unused_depth().values() for file in files}
        for index, symbol in enumerate(self.symbols):
            files = [f for f in self.files if f.symbol == symbol and f.path not in unused]
            books = [f.first_ns for f in files if f.stream in _BOOK_STREAMS]
            first_book = min(books) - self.shift_ns if books else self.start_ns
            for file in files:
                if file.stream is not CANDLES:
                    yield _Source(
                        file.first_ns - self.shift_ns,
                        _reader(file, index, self.shift_ns, first_book, report),
                    )
            candles = [file for file in files if file.stream is CANDLES]
            if candles:
                yield _Source(
                    candles[0].first_ns - self.shift_ns,
                    _candle_reader(candles, index, self.shift_ns, params, report),
                )

    def _note_block(self, block: Events, report: TickReport, last_book: dict[int, int]) -> None:
        """Count events and find gaps; ``last_book`` is the time of each symbol's last book."""
        for index, symbol in enumerate(self.symbols):
            own = block[block["symbol"] == index]
            report.n_events[symbol] = report.n_events.get(symbol, 0) + len(own)
            times = own["t_ns"][own["kind"] == EventKind.BOOK]
            if len(times) == 0:
                continue
            times = np.concatenate(([last_book[index]], times))
            for row in np.flatnonzero(np.diff(times) > SILENCE_NS):
                report.gaps.append(Gap(symbol, int(times[row]), int(times[row + 1])))
            last_book[index] = int(times[-1])


@dataclass(frozen=True)
class _Source:
    """Events not yet read, of one file or several."""

    first_ns: int
    read: Callable[[], Events]


def _reader(
    file: TickFile, index: int, shift_ns: int, first_book_ns: int, report: TickReport
) -> Callable[[], Events]:
    """Return how to read a file's events, by time."""

    def read() -> Events:
        if file.stream is DEPTH:
            columns = read_depth(file)
            events = new_events(len(columns["local_ns"]))
            fill_books(events, columns)
            events["t_ns"], events["symbol"] = columns["local_ns"] - shift_ns, index
            events["transaction_ms"] = columns["transaction_ms"]
            events["event_ms"], events["seq"] = columns["event_ms"], -1
            report.notes.append(f"{file.path.name}: best bid and ask are played back from depth")
        else:
            found = read_events(file, index, shift_ns)
            events = found.events
            report.notes.extend(
                f"{file.path.name}: {count:,} {reason} left out"
                for reason, count in found.left_out.items()
            )
        if file.stream is EXCHANGE_TRADES:
            early = events["t_ns"] < first_book_ns
            if early.any():
                report.notes.append(
                    f"{file.path.name}: {int(early.sum()):,} trades before the first book left out"
                )
                events = events[~early]
        return _by_time(events, file.path.name, report)

    return read


def _candle_reader(
    files: Sequence[TickFile],
    index: int,
    shift_ns: int,
    params: ShortGridParams,
    report: TickReport,
) -> Callable[[], Events]:
    def read() -> Events:
        columns = (read_columns(file.path, candle_columns()) for file in files)
        events, left_out = deviation_events(columns, index, shift_ns, params)
        if left_out:
            report.notes.append(
                f"{files[0].symbol}: {left_out:,} candles not closed when answered or without a "
                "price left out"
            )
        return events

    return read


def _by_time(events: Events, name: str, report: TickReport) -> Events:
    """Return events in ascending time; a file that was not so is put in order and named."""
    back = int((np.diff(events["t_ns"]) < 0).sum())
    if back == 0:
        return events
    report.notes.append(f"{name}: {back:,} rows earlier than the row before; put in order")
    return events[np.argsort(events["t_ns"], kind="stable")]


def merge(parts: Sequence[Events], first_seq: int) -> Events:
    """Return the events of several files in their total order, numbered from ``first_seq``."""
    events = np.concatenate(parts) if parts else new_events(0)
    ranks = np.zeros(max(_RANK) + 1, dtype=np.int64)
    for kind, rank in _RANK.items():
        ranks[kind] = rank
    order = np.lexsort(
        (events["symbol"], ranks[events["kind"]], events["seq"], events["t_ns"])
    )  # stable: rows of a file stay in their order
    events = events[order]
    events["seq"] = first_seq + np.arange(len(events))
    return events


def open_sessions(folder: Path, symbols: Sequence[str] = ()) -> tuple[TickSession, ...]:
    """Return the sessions recorded in ``folder`` and its sub-folders, by time.

    Args:
        folder: holds Parquet files.
        symbols: only these; all if empty.

    Raises:
        DataError: there is no such folder, no usable file, or no file of a symbol asked for; or
            two files hold the same stream of a symbol at the same time.
    """
    if not folder.is_dir():
        raise DataError(f"ticks folder {folder} does not exist or is not a folder")
    found = [open_tick_file(path) for path in sorted(folder.rglob("*.parquet"))]
    files = [file for file in found if file is not None]
    if not files:
        raise DataError(f"{folder}: holds no Parquet file with ticks")
    there = sorted({file.symbol for file in files})
    for symbol in symbols:
        if symbol not in there:
            close = difflib.get_close_matches(symbol, there, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise DataError(f"{folder}: no ticks of {symbol}{hint} There are: {', '.join(there)}")
    wanted = [file for file in files if not symbols or file.symbol in symbols]
    names = tuple(symbols) or tuple(there)
    return tuple(_session(group, names) for group in _groups(wanted))


def _groups(files: Sequence[TickFile]) -> Iterator[list[TickFile]]:
    """Yield the files of each session: named alike, else near in time."""
    named: dict[str, list[TickFile]] = {}
    for file in files:
        if file.session:
            named.setdefault(file.session, []).append(file)
    groups = list(named.values())
    group: list[TickFile] = []
    for file in sorted((f for f in files if not f.session), key=lambda item: item.first_ns):
        if group and file.first_ns > max(f.last_ns for f in group) + SESSION_GAP_NS:
            groups.append(group)
            group = []
        group.append(file)
    if group:
        groups.append(group)
    yield from sorted(groups, key=lambda members: min(file.first_ns for file in members))


def _session(files: Sequence[TickFile], symbols: Sequence[str]) -> TickSession:
    files = sorted(files, key=lambda item: (item.first_ns, item.path.name))
    _refuse_overlaps(files, (BOOKS, BOOK_LEVELS))
    _refuse_overlaps(files, (DEPTH,))
    _refuse_overlaps(files, _TRADE_STREAMS)
    _refuse_overlaps(files, (MARKS,))
    present = tuple(s for s in symbols if any(file.symbol == s for file in files))
    leads = [file.lead_ns for file in files if file.lead_ns is not None]
    return TickSession(tuple(files), present, min(0, *leads) if leads else 0)


def _refuse_overlaps(files: Sequence[TickFile], streams: Sequence[Stream]) -> None:
    """Raise DataError where two files of a symbol hold the same at the same time."""
    last: dict[str, TickFile] = {}
    for file in files:
        if file.stream not in streams:
            continue
        before = last.get(file.symbol)
        if before is not None and file.first_ns < before.last_ns:
            raise DataError(
                f"{before.path.name} and {file.path.name} hold {streams[0].name} of {file.symbol} "
                f"at the same time ({_utc(file.first_ns)}); keep one"
            )
        last[file.symbol] = file


def _utc(t_ns: int) -> str:
    return f"{format_time(t_ns // MS_NS)} UTC"
