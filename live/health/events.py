"""Events of a session, published once; whoever wants to know subscribes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from engine.contract import View
from live.store.trade_files import LiveTrade

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class TradeBooked:
    """The ledger has a new trade record; ``is_known``: an earlier process has reported it."""

    trade: LiveTrade
    is_known: bool = False


@dataclass(frozen=True, slots=True)
class StateSaved:
    """The state is on the disk, with trade records in it that no trade file has yet."""

    trades: tuple[LiveTrade, ...]


@dataclass(frozen=True, slots=True)
class StepDone:
    """A step that began at ``ts_ms`` (ms UTC) has ended with the account as in ``view``."""

    ts_ms: int
    view: View


@dataclass(frozen=True, slots=True)
class Unprotected:
    """The sides that should have a stop now and have none, each with a text; after every look."""

    sides: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Notice:
    """Something a person should hear of."""

    text: str


class Events:
    """Passes every event to its subscribers, at once and in the order they subscribed.

    What a subscriber raises reaches the publisher: a trade file that cannot be written ends a
    session, as it must.
    """

    def __init__(self) -> None:
        self._subscribers: dict[type, list[Callable[[Any], object]]] = {}

    def subscribe(self, kind: type[E], subscriber: Callable[[E], object]) -> None:
        """Let ``subscriber`` have every event of ``kind`` from now on."""
        self._subscribers.setdefault(kind, []).append(subscriber)

    def publish(self, event: object) -> None:
        """Pass ``event`` to who has subscribed to its kind."""
        for subscriber in self._subscribers.get(type(event), ()):
            subscriber(event)
