"""Order book depth: a snapshot and its changes, played back to best bid and ask."""

from __future__ import annotations

import heapq
from typing import Final

import numpy as np
import numpy.typing as npt

from backtest.ticks.files import DEPTH, Columns, TickFile, read_columns

_BID: Final = 1


class _Side:
    """Quantities by price of one side, and its best price."""

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._qty: dict[float, float] = {}
        self._heap: list[float] = []

    def clear(self) -> None:
        self._qty.clear()
        self._heap.clear()

    def put(self, price: float, qty: float) -> None:
        if qty > 0.0:
            if price not in self._qty:
                heapq.heappush(self._heap, -self._sign * price)
            self._qty[price] = qty
        else:
            self._qty.pop(price, None)

    def best(self) -> tuple[float, float] | None:
        """Return price and quantity nearest to the other side, None if there is none."""
        while self._heap:
            price = -self._sign * self._heap[0]
            if price in self._qty:
                return price, self._qty[price]
            heapq.heappop(self._heap)
        return None


def read_depth(file: TickFile) -> Columns:
    """Return best bids and asks after every message, as columns of ``core.recording.BOOKS``.

    Changes older than the snapshot are passed over; before the first snapshot there is no book.
    A later snapshot replaces the book.

    Raises:
        DataError: the file cannot be read or has unusable columns.
    """
    return best_of_depth(read_columns(file.path, DEPTH.columns))


def best_of_depth(rows: Columns) -> Columns:
    """Do the same with the columns of ``DEPTH``."""
    bids, asks = _Side(_BID), _Side(-_BID)
    last_u = None
    out: dict[str, list[float]] = {name: [] for name in ("bid", "bid_qty", "ask", "ask_qty")}
    kept: list[int] = []
    price, qty, side = (rows[name].tolist() for name in ("price", "qty", "side"))
    for first, end in _messages(rows):
        snapshot = bool(rows["is_snapshot"][first])
        update = int(rows["last_u"][first])
        if snapshot:
            bids.clear()
            asks.clear()
        elif last_u is None or update < last_u:
            continue
        last_u = update
        for i in range(first, end):
            (bids if side[i] == _BID else asks).put(price[i], qty[i])
        bid, ask = bids.best(), asks.best()
        if bid and ask:
            kept.append(first)
            for name, value in zip(out, (*bid, *ask), strict=True):
                out[name].append(value)
    stamps = {name: rows[name][kept] for name in ("local_ns", "transaction_ms", "event_ms")}
    columns: Columns = {name: np.array(values) for name, values in out.items()}
    return {**stamps, "update_id": rows["last_u"][kept], **columns}


def _messages(rows: Columns) -> npt.NDArray[np.int64]:
    """Return first and end row of every message, (n, 2)."""
    names = ("local_ns", "last_u", "is_snapshot")
    changed = np.zeros(len(rows["last_u"]), dtype=np.bool_)
    for name in names:
        changed[1:] |= rows[name][1:] != rows[name][:-1]
    first = np.concatenate(([0], np.flatnonzero(changed)))
    return np.column_stack((first, np.append(first[1:], len(changed))))
