"""Orders and positions as a client reads them, now and some time ago."""

from __future__ import annotations

from collections import deque

from live.simulated.account_views import position_risk
from live.simulated.matching import Book
from live.simulated.orders import Json
from live.simulated.walk import Walk

OPEN_ORDERS = "/fapi/v1/openOrders"
OPEN_STOPS = "/fapi/v1/openAlgoOrders"
POSITIONS_2 = "/fapi/v2/positionRisk"
POSITIONS_3 = "/fapi/v3/positionRisk"
PATHS = (OPEN_ORDERS, OPEN_STOPS, POSITIONS_2, POSITIONS_3)
Answers = dict[str, list[dict[str, Json]]]


class LiveState:
    """Answers about open orders and positions, with a memory for stale ones."""

    def __init__(self, symbol: str, book: Book, walk: Walk) -> None:
        self._symbol, self._book, self._walk = symbol, book, walk
        self._past: deque[tuple[int, int, Answers]] = deque(maxlen=1_000)

    def answer(self, path: str) -> list[dict[str, Json]]:
        """Return the answer of now to one path."""
        symbol = self._symbol
        if path == OPEN_ORDERS:
            return [order.view(symbol) for order in self._book.open_orders.values()]
        if path == OPEN_STOPS:
            return [stop.view(symbol) for stop in self._book.open_stops.values()]
        return self._positions(2 if path == POSITIONS_2 else 3)

    def remember(self) -> None:
        """Keep the answers of now if anything has changed since the last ones."""
        if not self._past or self._past[-1][1] != self._book.changes:
            answers = {path: self.answer(path) for path in PATHS}
            self._past.append((self._walk.now_ms, self._book.changes, answers))

    def as_of(self, path: str, ts_ms: int) -> list[dict[str, Json]] | None:
        """Return what ``path`` answered at ``ts_ms``, or first of what is known; None: not kept."""
        kept = [answers for time, _, answers in self._past if time <= ts_ms]
        if not kept:
            kept = [answers for _, _, answers in list(self._past)[:1]]
        return kept[-1].get(path) if kept else None

    def _positions(self, version: int) -> list[dict[str, Json]]:
        account, mark = self._book.account, self._walk.price
        opening = self._book.opening_notional()
        return position_risk(account, self._symbol, mark, version, opening)
