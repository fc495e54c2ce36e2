"""Our orders: their identity, and what we know of each from the moment we mean to send it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields
from enum import Enum
from operator import attrgetter
from typing import Any, Final
from zlib import crc32

from core.orders import OrderKind
from live.exchange.types import QTY_SLACK, OrderSpec
from live.store.state_file import JsonText, encode

DIGITS: Final = "0123456789abcdefghijklmnopqrstuvwxyz"

BEGINS_STOP: Final = "stop"
BEGINS_LIQUIDATION: Final = "liquidation"


class OrderState(Enum):
    """The states of an order, as far as we know."""

    INTENDED = "intended"
    """Written down; whether the exchange has it is not known."""
    OPEN = "open"
    """The exchange has taken it; it rests or is being filled."""
    DONE = "done"
    """It is gone: filled, cancelled, refused."""


@dataclass(slots=True, kw_only=True)
class OrderRecord:
    """One order of ours.

    Attributes:
        client_id: our identity for it.
        position_side: LONG or SHORT.
        price: limit or trigger price, quote; 0 for a market order.
        qty: base; of a stop the position when it was laid.
        bar: index of the step that wanted it.
        level: entry level, else -1.
        generation: of the grid an entry belongs to, else 0.
        label: trade label of what an exit closes, else ''.
        exits: (fill id, base) in the order they are closed; empty: the side, worst fill first.
        state: what we know of it.
        order_id: the exchange's identity, '' until it is known.
        fired_order_id: of a stop that fired: the market order it became.
        booked_qty: base that the ledger has of it.
        reported_qty: base that the exchange says it has traded; its trades may be listed later.
        missed: times in a row that the exchange denied to know an order it had taken.
        sent_ms: when it was sent last, ms UTC; 0: it was not.
        closes_all: of a stop: whether it closes the whole side, or ``qty`` of it.
        opens: of an exit: it opens the side, as a hedge.
        owner: the name its strategy gives it, '' where it gives none.
        begins: of an exit: what its first execution means to the ledger, such as ``stop``, and the
            first order of that decision; '': nothing besides the close.
    """

    client_id: str
    kind: OrderKind
    position_side: str
    price: float
    qty: float
    bar: int
    level: int = -1
    generation: int = 0
    label: str = ""
    exits: list[tuple[int, float]] = field(default_factory=list)
    state: OrderState = OrderState.INTENDED
    order_id: str = ""
    fired_order_id: str = ""
    booked_qty: float = 0.0
    reported_qty: float = 0.0
    missed: int = 0
    sent_ms: int = 0
    closes_all: bool = True
    begins: str = ""
    opens: bool = False
    owner: str = ""

    @property
    def unlisted(self) -> float:
        """Base that has traded and is not booked, as its trades are not listed yet."""
        missing = self.reported_qty - self.booked_qty
        return missing if missing > QTY_SLACK * self.reported_qty else 0.0

    @property
    def rest(self) -> float:
        """Base not traded yet, as far as the ledger knows."""
        return max(0.0, self.qty - self.booked_qty)

    @property
    def spec(self) -> OrderSpec:
        """The order as it is sent."""
        return OrderSpec(
            client_id=self.client_id,
            kind=self.kind,
            position_side=self.position_side,
            price=self.price,
            qty=self.qty,
            closes_all=self.closes_all,
            opens=self.opens,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return JSON-ready data; asked for with every save, hence without ``asdict``."""
        data = dict(zip(_FIELDS, _values(self), strict=True))
        data["kind"], data["state"] = self.kind.value, self.state.value
        data["exits"] = [list(part) for part in self.exits]
        return data

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> OrderRecord:
        """Return the record that ``to_dict`` answered for."""
        return cls(
            **data
            | {
                "kind": OrderKind(data["kind"]),
                "state": OrderState(data["state"]),
                "exits": [(int(fill), float(qty)) for fill, qty in data["exits"]],
            }
        )


_FIELDS: Final = tuple(item.name for item in fields(OrderRecord))
_values: Final = attrgetter(*_FIELDS)


def in_base_36(number: int) -> str:
    """Return a number that is not negative in digits and small letters."""
    text = ""
    while number or not text:
        number, digit = divmod(number, 36)
        text = DIGITS[digit] + text
    return text


OUR_IDS: Final = re.compile(r"[gf]4[A-Za-z0-9]{1,8}-")
"""How the client ids of this program begin, whichever ``instance`` sent them."""


def id_prefix(instance: str, symbol: str = "", start_ms: int = 0) -> str:
    """Return how the client ids of one session begin.

    Ids of conditional orders belong to the account, whatever the symbol, and the same decision may
    fall in two sessions of one candle: so coin and session stand in the name. A coin may be written
    in any alphabet and a client id may not, hence four digits made of the symbol.

    Args:
        instance: letters of ``LIVE_CONFIG``.
        symbol: such as BTCUSDT; '': the beginning that all sessions of ``instance`` share.
        start_ms: when the session began, ms UTC.
    """
    if not symbol:
        return f"g4{instance}-"
    coin = in_base_36(crc32(symbol.encode()) % 36**4).rjust(4, "0")
    return f"g4{instance}-{coin}{in_base_36(start_ms // 1_000).rjust(6, '0')}-"


NameOrder = Callable[[str, int, int], str]
"""From the name a strategy gives an order, the step and the count to the rest of the client id."""


def owned_prefix(instance: str) -> str:
    """Return how client ids of orders begin that say themselves what they are about."""
    return f"f4{instance}-"


class OrderRegister:
    """Every order of ours that may still matter, by client id.

    Args:
        instance: letter that tells this bot's orders from another's on the same account.
        symbol: such as BTCUSDT.
        name_order: of a strategy whose orders say what they are about; None: they are numbered.
    """

    def __init__(
        self, instance: str, symbol: str = "", name_order: NameOrder | None = None
    ) -> None:
        self._instance, self._symbol, self._name_order = instance, symbol, name_order
        self.prefix = id_prefix(instance, symbol) if name_order is None else owned_prefix(instance)
        self._records: dict[str, OrderRecord] = {}
        self._encoded: dict[str, tuple[tuple[Any, ...], str]] = {}
        """Values of an order and its JSON, as last written down."""

    def name_session(self, start_ms: int) -> None:
        """Let the orders from now on bear the name of the session that began at ``start_ms``."""
        if self._name_order is not None:
            return
        self.prefix = id_prefix(self._instance, self._symbol, start_ms)

    def __iter__(self) -> Iterator[OrderRecord]:
        return iter(list(self._records.values()))

    def __len__(self) -> int:
        return len(self._records)

    def get(self, client_id: str) -> OrderRecord | None:
        """Return the order with ``client_id``, None if it is not ours."""
        return self._records.get(client_id)

    def known(self, client_id: str) -> OrderRecord:
        """Return our order with ``client_id``."""
        return self._records[client_id]

    def with_order_id(self, order_id: str) -> OrderRecord | None:
        """Return the order the exchange calls ``order_id``, also as the order a stop became."""
        for record in self._records.values():
            if order_id and order_id in {record.order_id, record.fired_order_id}:
                return record
        return None

    def alive(self, *kinds: OrderKind, position_side: str | None = None) -> list[OrderRecord]:
        """Return orders not known to be gone, of ``kinds`` (none: all) and ``position_side``."""
        return [
            record
            for record in self._records.values()
            if record.state is not OrderState.DONE
            and (not kinds or record.kind in kinds)
            and position_side in {None, record.position_side}
        ]

    def has_begun(self, begins: str) -> bool:
        """Return whether an execution of a decision's orders is booked already."""
        return any(r.begins == begins and r.booked_qty > 0.0 for r in self._records.values())

    def new(
        self,
        kind: OrderKind,
        position_side: str,
        price: float,
        qty: float,
        bar: int,
        *,
        level: int = -1,
        generation: int = 0,
        label: str = "",
        exits: list[tuple[int, float]] | None = None,
        closes_all: bool = True,
        opens: bool = False,
        owner: str = "",
    ) -> OrderRecord:
        """Write down an order we mean to send and return it.

        Its identity follows from instance, coin, session, bar, side, kind, level and how many of
        these there were: the same decision after a restart from the same state gets the same one.
        """
        record = OrderRecord(
            client_id=self._new_id(kind, position_side, bar, level, owner),
            kind=kind,
            position_side=position_side,
            price=price,
            qty=qty,
            bar=bar,
            level=level,
            generation=generation,
            label=label,
            exits=exits or [],
            closes_all=closes_all,
            opens=opens,
            owner=owner,
        )
        self._records[record.client_id] = record
        return record

    def _new_id(self, kind: OrderKind, position_side: str, bar: int, level: int, owner: str) -> str:
        if owner and self._name_order is not None:
            same = (r for r in self._records.values() if r.owner == owner and r.bar == bar)
            return self.prefix + self._name_order(owner, bar, sum(1 for _ in same))
        stem = f"{self.prefix}{in_base_36(bar)}-{position_side[0]}{kind.value}{max(level, 0):02d}-"
        count = sum(1 for client_id in self._records if client_id.startswith(stem))
        return stem + in_base_36(count)

    def adopt(self, record: OrderRecord) -> None:
        """Take up an order that an earlier process has sent."""
        self._records[record.client_id] = record

    def adopt_stop(
        self, client_id: str, position_side: str, price: float, *, closes_all: bool = True
    ) -> OrderRecord:
        """Take up a stop of ours that was sent and could not be written down; return it."""
        record = OrderRecord(
            client_id=client_id,
            kind=OrderKind.STOP,
            position_side=position_side,
            price=price,
            qty=0.0,
            bar=0,
            state=OrderState.OPEN,
            closes_all=closes_all,
        )
        self._records[client_id] = record
        return record

    def forget_before(self, bar: int, untaken: int = 0) -> None:
        """Drop orders that are gone and were wanted before ``bar``.

        Those the exchange never took, which may be many, where they were wanted before
        ``untaken``.
        """
        self._records = {
            client_id: record
            for client_id, record in self._records.items()
            if record.state is not OrderState.DONE
            or record.bar >= (bar if record.order_id else max(bar, untaken))
        }

    def to_list(self) -> list[dict[str, Any]]:
        """Return JSON-ready data."""
        return [record.to_dict() for record in self._records.values()]

    def to_json(self) -> JsonText:
        """Return ``to_list`` as JSON.

        Asked for with every save, many times a step, while most of a thousand orders are gone: an
        order is encoded again only if it has changed.
        """
        encoded = {}
        for client_id, record in self._records.items():
            values = (*_values(record), tuple(record.exits))  # the list may change in place
            known = self._encoded.get(client_id)
            if known is None or known[0] != values:
                known = (values, encode(record.to_dict()))
            encoded[client_id] = known
        self._encoded = encoded
        return JsonText("[" + ",".join(text for _, text in encoded.values()) + "]")

    def load(self, rows: list[dict[str, Any]]) -> None:
        """Take over what ``to_list`` answered."""
        records = [OrderRecord.from_dict(row) for row in rows]
        self._records = {record.client_id: record for record in records}
