"""Watches at the exchange itself whether every position is protected, and what the health says.

The property: from its first fill on a side is never without a stop for longer than one poll while
the exchange takes orders, nor later than one poll after it does so again; the health file never
calls an unprotected side in order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from live.simulated.exchange import SimExchange
from live.simulated.faults import ORDER
from live.simulated.orders import ZERO
from live.simulated.symbol_market import SymbolMarket

STOP_PATH: Final = "/fapi/v1/algoOrder"


class Side(NamedTuple):
    """One position side of one symbol."""

    symbol: str
    position_side: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Spell:
    """A time without protection in which the exchange took orders.

    Attributes:
        from_ms: when the position appeared, its stop went, or the exchange took orders again.
        until_ms: when it was protected or gone, or the exchange took no orders any more.
    """

    side: Side
    from_ms: int
    until_ms: int

    @property
    def length_ms(self) -> int:
        """How long it was, ms."""
        return self.until_ms - self.from_ms


@dataclass(slots=True)
class _Unprotected:
    since_ms: int
    """When protection ended."""
    taken_ms: int
    """From when on the exchange took orders while that lasted."""
    is_down: bool = False


class ProtectionObserver:
    """Looks whenever time has gone on and around every request.

    Args:
        exchange: what is watched.
        health: path of the health file by symbol.
        known_after_ms: how long after protection ended a session must know, so that from then on
            its health file may not say that all is in order.

    Attributes:
        spells: that have ended.
        false_health: (ms UTC, side, status) of looks at which the health file called an unprotected
            side in order.
        looks: how often it has looked at a side that holds something.
    """

    def __init__(
        self, exchange: SimExchange, health: Mapping[str, Path], known_after_ms: int
    ) -> None:
        self._exchange, self._health, self._known_after_ms = exchange, health, known_after_ms
        self._open: dict[Side, _Unprotected] = {}
        self.spells: list[Spell] = []
        self.false_health: list[tuple[int, Side, str]] = []
        self.looks = 0
        exchange.after_time.append(self.look)
        self._chain("before_request")
        self._chain("after_request")

    def _chain(self, name: str) -> None:
        """Look at every call of a hook, whatever else is there."""
        inner = getattr(self._exchange, name)

        def hook(number: int, method: str, path: str) -> None:
            self.look()
            if inner is not None:
                inner(number, method, path)
                self.look()

        setattr(self._exchange, name, hook)

    def look(self) -> None:
        """Look at every side of every symbol."""
        with self._exchange.lock:
            for market in self._exchange.markets.values():
                for position_side in market.account.positions:
                    self._look_at(market, Side(market.symbol, position_side))

    def _look_at(self, market: SymbolMarket, side: Side) -> None:
        now_ms, open_spell = self._exchange.now_ms, self._open.get(side)
        self.looks += bool(market.account.positions[side.position_side].qty)
        if is_protected(market, side.position_side):
            if open_spell is not None:
                self._end(side, open_spell, now_ms)
                del self._open[side]
            return
        if open_spell is None:
            open_spell = self._open[side] = _Unprotected(now_ms, now_ms)
        down_until_ms = self.down_until_ms(market)
        if down_until_ms > now_ms:
            if not open_spell.is_down:
                self._end(side, open_spell, now_ms)
            open_spell.is_down, open_spell.taken_ms = True, down_until_ms
        elif open_spell.is_down:
            open_spell.is_down, open_spell.taken_ms = False, min(now_ms, open_spell.taken_ms)
        self._judge_health(side, open_spell, now_ms)

    def _end(self, side: Side, spell: _Unprotected, now_ms: int) -> None:
        if not spell.is_down or now_ms > spell.taken_ms:
            self.spells.append(Spell(side=side, from_ms=spell.taken_ms, until_ms=now_ms))

    def down_until_ms(self, market: SymbolMarket) -> int:
        """Return until when, as far as is known, ``market`` takes no stop; 0: it takes them."""
        now_ms = self._exchange.now_ms
        if market.closed_code or market.restriction.all_code:
            return now_ms + 1
        banned_ms = self._exchange.limits.banned_until_ms
        down_ms = self._exchange.faults.down_until_ms(ORDER, STOP_PATH, market.symbol, now_ms)
        latest_ms = max(banned_ms, down_ms)
        return latest_ms if latest_ms > now_ms else 0

    def _judge_health(self, side: Side, spell: _Unprotected, now_ms: int) -> None:
        path = self._health.get(side.symbol)
        if path is None or now_ms < spell.since_ms + self._known_after_ms or not path.exists():
            return
        health = json.loads(path.read_text(encoding="utf-8"))
        is_fresh = int(health["updated_at"]) >= spell.since_ms + self._known_after_ms
        if is_fresh and f"{side.position_side} stop" not in health["conditions"]:
            self.false_health.append((now_ms, side, health["status"]))

    @property
    def longest_ms(self) -> int:
        """The longest time a position was unprotected while the exchange took orders, ms."""
        now_ms = self._exchange.now_ms
        still = [now_ms - spell.taken_ms for spell in self._open.values()]
        return max([*(spell.length_ms for spell in self.spells), *still], default=0)

    @property
    def unprotected(self) -> set[Side]:
        """The sides that hold something and have no stop now."""
        self.look()
        return set(self._open)

    def assert_protected(self, longest_ms: float) -> None:
        """Nothing was unprotected for longer, and no health file said what is not so."""
        self.look()
        assert self.looks, "nothing was ever held: nothing was proved"
        worst = [spell for spell in self.spells if spell.length_ms > longest_ms]
        assert self.longest_ms <= longest_ms, (self.longest_ms, worst[:3], self._open)
        assert self.false_health == []


def is_protected(market: SymbolMarket, position_side: str) -> bool:
    """Return whether a side is flat, or accepted stops close all of it."""
    held = market.account.positions[position_side].qty
    stops = [
        stop for stop in market.book.open_stops.values() if stop.position_side == position_side
    ]
    closes_all = any(not stop.qty for stop in stops)
    return not held or closes_all or sum((stop.qty for stop in stops), ZERO) >= held
