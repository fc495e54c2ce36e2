"""Whether trades must be asked for, judged by open orders that are looked at anyway.

A question for trades costs weight 5, one for open orders 1 and one for open stops 1. A trade of
ours leaves a trace among the open orders: one is gone or filled further. What leaves none (a
market order of somebody else, a position closed by the exchange with no order resting) shows in
the position, and at the latest after ``longest_ms``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import final

from live.exchange.types import ExchangeOrder


@final
class TradeWatch:
    """The open orders and positions of the last look."""

    def __init__(self, longest_ms: int) -> None:
        """Have seen nothing.

        Args:
            longest_ms: after so long trades are asked for whatever the orders say.
        """
        self._longest_ms = longest_ms
        self._orders: dict[str, tuple[float, str]] = {}
        self._positions: dict[str, float] = {}
        self._asked_ms: int | None = None

    def may_have_traded(
        self,
        orders: Sequence[ExchangeOrder],
        now_ms: int,
        positions: Mapping[str, float] | None = None,
    ) -> bool:
        """Return whether trades must be asked for now; True counts as done, see ``owe``.

        Args:
            orders: open ones, as the exchange lists them.
            now_ms: ms UTC; a clock set back makes trades due.
            positions: quantity by position side, base; None if they were not looked at.
        """
        seen = {order.client_id: (order.filled_qty, order.status) for order in orders}
        is_due = self._asked_ms is None or not 0 <= now_ms - self._asked_ms < self._longest_ms
        has_changed = seen != self._orders
        self._orders = seen
        if positions is not None:
            has_changed = has_changed or dict(positions) != self._positions
            self._positions = dict(positions)
        if is_due or has_changed:
            self._asked_ms = now_ms
            return True
        return False

    def expect(self, laid: Iterable[str] = (), cancelled: Iterable[str] = ()) -> None:
        """Note what we changed ourselves, by client id, so that it is no sign of a trade.

        Only what the exchange accepted to rest, and what was cancelled without a trade.
        """
        for client_id in laid:
            self._orders.setdefault(client_id, (0.0, "NEW"))
        for client_id in cancelled:
            self._orders.pop(client_id, None)

    def owe(self) -> None:
        """Say that the trades could not be asked for: the next look is due."""
        self._asked_ms = None
