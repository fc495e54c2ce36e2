"""One run of a strategy's compiled loop, whole or in pieces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.records import dtype_of
from engine.tables import Records, RunTables
from engine.types import take_rows


@dataclass(frozen=True)
class Loop:
    """The kernels of a strategy that carry a whole run.

    Attributes:
        run_bars: does steps until the end or until the tape may overflow; returns the first step
            not done. Arguments as of ``engine.grid_v4.loop.run_bars``.
        close_at_end: closes what is open and logs the account after it.
        log_row: annotated class of a row of the log.
        tables: names of the tables on its tape; ``trades`` is one of them.
    """

    run_bars: Callable[..., int]
    close_at_end: Callable[..., None]
    log_row: type[Any]
    tables: tuple[str, ...] = ("trades",)


class CompiledRun:
    """A state that the compiled loop carries over tables; the trade records are taken off the tape.

    Args:
        loop: of the strategy.
        tables: what the run reads.
        params: frozen parameters.
        market: rules of the symbol as kernels read them.
        state: before the first step to be done; changed in place.
        tape: its records are taken off; changed in place.
        log: of at least as many rows as there are bars; None: a new one.
    """

    def __init__(
        self,
        loop: Loop,
        tables: RunTables,
        params: Any,
        market: Any,
        state: Any,
        tape: Any,
        log: Any = None,
    ) -> None:
        self.tables, self.state = tables, state
        self.log: Any = np.zeros(len(tables.bars), dtype_of(loop.log_row)) if log is None else log
        self._loop, self._params, self._market, self._tape = loop, params, market, tape
        self._taken: dict[str, list[Records]] = {name: [] for name in loop.tables}

    @property
    def trades(self) -> Records:
        """All trade records so far, as one table of ``Trade``."""
        return self.taken("trades")

    def taken(self, name: str) -> Records:
        """Return all rows so far of a table on the tape."""
        self._taken[name] = [np.concatenate([*self._taken[name], take_rows(self._tape, name)])]
        return self._taken[name][0]

    def advance(self, start: int, stop: int, *, keep_trades: bool = True) -> None:
        """Do the steps ``start`` to ``stop - 1``.

        Args:
            start: first step; the state stands before it.
            stop: exclusive.
            keep_trades: False: records are thrown away, also those on the tape before; counters
                and log remain.
        """
        x, done = self.tables, start
        bars, log = x.bars[:stop], self.log[:stop]
        while done < stop:
            if not keep_trades:
                self._empty_tape()
            done = self._loop.run_bars(
                self.state,
                self._params,
                self._market,
                bars,
                x.signals,
                x.funding,
                x.detail,
                x.detail_from,
                x.first_bar,
                done,
                self._tape,
                log,
            )
            if keep_trades:
                for name, parts in self._taken.items():
                    parts.append(take_rows(self._tape, name))

    def _empty_tape(self) -> None:
        for name in self._loop.tables:
            setattr(self._tape, f"n_{name}", 0)

    def close(self, stop: int | None = None) -> None:
        """Close what is open at the close of bar ``stop - 1``, by default of the last bar."""
        last = len(self.tables.bars) - 1 if stop is None else stop - 1
        close = self.tables.bars[last].close
        self._loop.close_at_end(
            self.state, self._params, self._market, close, self._tape, self.log[last]
        )
