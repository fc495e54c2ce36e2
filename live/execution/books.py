"""A trading session: the strategy, its orders and what it has taken in, saved as one."""

from __future__ import annotations

import logging
from collections.abc import Container
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Final

from core.errors import StateError
from core.orders import POSITION_SIDES
from engine.contract import Moment, Strategy
from live.execution.order_register import OrderRegister, in_base_36
from live.health.events import Events, StateSaved, TradeBooked
from live.store.flags_file import FlagsFile
from live.store.state_file import LoadedState, StateManager
from live.store.trade_files import Close, LiveTrade, close_figures

KEEP_ORDERS_BARS: Final = 16
"""Orders that are gone are remembered for four hours: a late trade of theirs is still theirs.
They are written down with every save, so not for longer."""


@dataclass(slots=True, kw_only=True)
class Entry:
    """The memory of an open fill for the figures of its close."""

    price: float  # quote
    qty: float  # base
    fee: float  # quote
    ts_ms: int
    stop_distance: float  # quote, to stage 1


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far a session has come.

    Attributes:
        start_ms: when it began, ms UTC; nothing of the account before that is ours.
        first_bar: of the candle buffer; -1: not chosen yet.
        bar: index of the newest step begun; -1: none.
        phase: next phase of ``protect`` in that step.
        arranged: whether the step's orders are decided.
        done: whether the step has ended.
        last_trade_id: of the newest trade of the account taken in.
        trade_ms: when that traded, ms UTC; 0: none was taken in yet.
        first_trade_id: trades with a lower number were taken in, or are not ours.
        rules: tick, lot and minimums of the symbol, as last read.
        recent_trades: (number, ms UTC) of the trades taken in from then on.
        funding_ms: newest funding payment taken in.
        funding_ids: of payments at that instant.
        peak_equity: quote, highest seen.
        start_equity: quote, at the first step; 0 until then.
        n_records: trade records written, for identities of those that are no exchange trade.
        foreign_orders: orders of others that were reported.
    """

    start_ms: int
    first_bar: int = -1
    bar: int = -1
    phase: int = 0
    arranged: bool = False
    done: bool = True
    last_trade_id: int = 0
    trade_ms: int = 0
    first_trade_id: int = 0
    recent_trades: list[list[int]] = field(default_factory=list)
    rules: dict[str, float] = field(default_factory=dict)
    funding_ms: int = 0
    funding_ids: list[str] = field(default_factory=list)
    peak_equity: float = 0.0
    start_equity: float = 0.0
    n_records: int = 0
    foreign_orders: list[str] = field(default_factory=list)

    def has_booked(self, trade_id: int) -> bool:
        """Return whether a trade was taken in, or is older than what is asked for."""
        return trade_id < self.first_trade_id or any(
            trade_id == known for known, _ in self.recent_trades
        )

    def note_trade(self, trade_id: int, ts_ms: int, overlap_ms: int) -> None:
        """Note that a trade was taken in; those older than ``overlap_ms`` are forgotten."""
        if not self.trade_ms:  # none was, or an older version knew the newest only
            self.first_trade_id = self.last_trade_id + 1 if self.last_trade_id else 0
        self.recent_trades.append([trade_id, ts_ms])
        self.last_trade_id = max(self.last_trade_id, trade_id)
        self.trade_ms = max(self.trade_ms, ts_ms)
        # Twice as long: a clock that was set, or a trade at the very edge, is not asked for again.
        least_ms = self.trade_ms - 2 * overlap_ms
        self.recent_trades = [row for row in self.recent_trades if row[1] >= least_ms]


def shallow(instance: Any) -> dict[str, Any]:
    """Return the fields of a dataclass whose values are JSON-ready as they are.

    Asked for with every save, several times a step: ``asdict`` copies every value it meets.
    """
    return {name: getattr(instance, name) for name in instance.__slots__}


class LiveSession:
    """One coin's session.

    Every change of money goes: ledger and outbox, then ``save`` (one file, atomically), then the
    trade files. Killed in between, the outbox of the saved state fills the files up.

    Args:
        strategy: with market rules; its state is the ledger.
        register: our orders.
        states: the state file; None: nothing is kept (a replay at full speed).
        events: every record is published there, and those saved for the trade files.
        start_ms: ms UTC.
        log: of this session alone.
        flags: decisions of a person and of a price, where the state is kept at the exchange; then
            ``states`` is a copy for people, which no session reads.
    """

    def __init__(
        self,
        strategy: Strategy,
        register: OrderRegister,
        states: StateManager | None,
        events: Events,
        start_ms: int,
        log: logging.Logger,
        flags: FlagsFile | None = None,
    ) -> None:
        self._flags = flags
        self.strategy, self.orders, self.log = strategy, register, log
        self.progress = Progress(start_ms=start_ms)
        register.name_session(start_ms)
        self.entries: dict[int, Entry] = {}
        self.outbox: list[LiveTrade] = []
        self.trades: list[LiveTrade] = []
        """Every record of this process, oldest first."""
        self.reported: Container[str] = ()
        """Identities of the records in the trade files."""
        self._states, self._events = states, events
        self._is_copy_owed = True

    @property
    def bar_ms(self) -> int:
        """Length of a step, ms."""
        return self.strategy.needs.bar_ms

    # --- what is kept -----------------------------------------------------------------------------

    def save(self, *, snapshot: bool = False) -> None:
        """Write everything down, then the trade records that are not in the files yet.

        Raises:
            StateError: a file cannot be written; nothing may be sent then.
        """
        if self._flags is not None:
            self._flags.keep(self.strategy)
            self._publish_outbox()
            if snapshot:
                self.show()
            return
        if self._states is None:
            self.outbox.clear()
            return
        self._states.save(self.strategy.state_dict(), self._document())
        if snapshot:
            self._states.snapshot()
        self._publish_outbox()

    def _document(self) -> dict[str, Any]:
        return {
            "progress": shallow(self.progress),
            "orders": self.orders.to_json(),
            "entries": {str(fill_id): shallow(entry) for fill_id, entry in self.entries.items()},
            "outbox": [asdict(trade) for trade in self.outbox],
        }

    def show(self) -> None:
        """Write the copy for people, where the state is kept at the exchange.

        Trading does not wait for it: where the disk refuses that is logged once.
        """
        if self._flags is None or self._states is None:
            return
        try:
            self._states.save(self.strategy.state_dict(), self._document())
            self._is_copy_owed = True
        except StateError as error:
            if self._is_copy_owed:
                self.log.warning("--status is not up to date: %s", error)
            self._is_copy_owed = False

    def look_at_flags(self) -> None:
        """Take in whether a person has paused the session, or lets it go on."""
        if self._flags is not None:
            self._flags.look(self.strategy, self.log)

    def _publish_outbox(self) -> None:
        if self.outbox:
            self._events.publish(StateSaved(tuple(self.outbox)))
            self.outbox.clear()

    def resume(self, loaded: LoadedState) -> None:
        """Go on where ``loaded`` was saved.

        Raises:
            StateError: the trade files cannot be written.
        """
        document = loaded.session
        self.strategy.load_state_dict(loaded.engine)
        known = {item.name for item in fields(Progress)}
        self.progress = Progress(**{k: v for k, v in document["progress"].items() if k in known})
        self.orders.name_session(self.progress.start_ms)
        self.orders.load(document["orders"])
        self.entries = {int(key): Entry(**row) for key, row in document["entries"].items()}
        self.outbox = [_trade(row) for row in document["outbox"]]
        self._publish_outbox()

    # --- time -------------------------------------------------------------------------------------

    def go_to(self, ts_ms: int) -> None:
        """Let the strategy's clock go on to ``ts_ms`` where it is behind it."""
        self.strategy.begin(Moment(ts_ms))

    def begin_step(self, bar: int) -> None:
        """Note that step ``bar`` has begun."""
        self.progress.bar, self.progress.phase = bar, 0
        self.progress.arranged, self.progress.done = False, False
        self.orders.forget_before(bar - KEEP_ORDERS_BARS, untaken=bar - 1)

    # --- trade records ----------------------------------------------------------------------------

    def collect(
        self,
        trade_id: str = "",
        client_id: str = "",
        executed_ms: int | None = None,
        *,
        is_past: bool = False,
    ) -> None:
        """Turn the ledger's new records into rows: for the outbox, the log and whoever asks.

        Args:
            trade_id: of the exchange's trade they come from; '': they have none.
            client_id: of its order.
            executed_ms: when the exchange executed it, ms UTC.
            is_past: an earlier process has reported those that are in the files.
        """
        records = self.strategy.take_trades()
        for sequence, record in enumerate(records):
            self.progress.n_records += 1
            identity = f"{trade_id}:{sequence}" if trade_id else self._own_identity()
            trade = self._with_figures(record, identity, client_id, executed_ms)
            self.outbox.append(trade)
            is_known = is_past and identity in self.reported
            if not is_known:
                self.trades.append(trade)
            self._events.publish(TradeBooked(trade, is_known))
        if records:
            self._forget_closed()

    def _own_identity(self) -> str:
        """Return an identity for a record that is no exchange trade, unique over sessions."""
        return f"{in_base_36(self.progress.start_ms)}-{self.progress.n_records}"

    def _with_figures(
        self, record: dict[str, Any], identity: str, client_id: str, executed_ms: int | None
    ) -> LiveTrade:
        close, fill_id = None, int(record["fill_id"])
        if record["label"] in {"BUY_OPEN_LONG", "SELL_OPEN_SHORT"}:
            self._remember(record)
        elif fill_id in self.entries:
            entry = self.entries[fill_id]
            close = close_figures(
                pnl=record["pnl"],
                fee=record["fee"],
                qty=record["qty"],
                ts_ms=record["timestamp"],
                entry_price=entry.price,
                entry_qty=entry.qty,
                entry_fee=entry.fee,
                entry_ts_ms=entry.ts_ms,
                stop_distance=entry.stop_distance,
            )
        return LiveTrade(
            **record, trade_id=identity, client_id=client_id, close=close, executed_ms=executed_ms
        )

    def _remember(self, record: dict[str, Any]) -> None:
        """Keep an entry, or add a further part of its order to it."""
        fresh = Entry(
            price=record["price"],
            qty=record["qty"],
            fee=record["fee"],
            ts_ms=record["timestamp"],
            stop_distance=self.strategy.view().side(record["direction"]).risk,
        )
        before = self.entries.get(int(record["fill_id"]))
        if before is not None:
            fresh.qty += before.qty
            fresh.price = (before.price * before.qty + record["price"] * record["qty"]) / fresh.qty
            fresh.fee += before.fee
            fresh.ts_ms, fresh.stop_distance = before.ts_ms, before.stop_distance
        self.entries[int(record["fill_id"])] = fresh

    def _forget_closed(self) -> None:
        alive = {
            fill.fill_id
            for position_side in POSITION_SIDES
            for fill in self.strategy.fills(position_side)
        }
        for fill_id in self.entries.keys() - alive:
            del self.entries[fill_id]


def _trade(row: dict[str, Any]) -> LiveTrade:
    """Return the record that ``asdict`` took apart."""
    close = row["close"]
    return LiveTrade(**row | {"close": Close(**close) if close else None})
