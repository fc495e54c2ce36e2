"""The seam between a strategy and its drivers: one Protocol and the values that cross.

A driver (a live session, a dry run, a replay) knows nothing of a strategy but this. Money changes
in two calls only: ``book``, with what an account reports, and ``simulate``, with what prices do to
a ledger that is its own exchange.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from core.fingerprint import fingerprint
from core.orders import POSITION_SIDES, OrderKind
from core.times import BAR_MS

if TYPE_CHECKING:
    from core.market import MarketRules
    from engine.results import RunResult

CLOSE_END: Final = "CLOSE_END"
"""Label of what is closed because a session ends."""
LIQUIDATION: Final = "LIQUIDATION"
"""Label of what the exchange closes, or would."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The needs of a strategy.

    Attributes:
        bars: name and length in ms of the candles whose closes are its steps; None: it takes none.
        streams: such as books and trades.
        sides: position sides it may hold.
        truth: where its state is kept, ``file`` or ``exchange``.
        indicators: a step reads indicators of its candles.
    """

    bars: tuple[str, int] | None
    streams: frozenset[str] = frozenset()
    sides: frozenset[str] = frozenset(POSITION_SIDES)
    truth: str = "file"
    indicators: bool = True

    @property
    def bar_ms(self) -> int:
        """Length of a step, ms.

        Raises:
            ValueError: it has no candles.
        """
        if self.bars is None:
            raise ValueError("the strategy takes no candles, so its steps have no length")
        return self.bars[1]


def _nothing_to_say(params: Any, rules: MarketRules, price: float) -> list[str]:  # noqa: ARG001
    """Return nothing: whatever the market, the strategy does with it what it can."""
    return []


def _no_code() -> None:
    """Load nothing: the strategy has no machine code of its own."""


def _is_ready() -> bool:
    return True


@dataclass(frozen=True)
class StrategySpec:
    """A strategy as commands know it before it runs.

    Attributes:
        name: on the command line and in state files.
        module: whose code, with all it imports, decides.
        params: class of its parameters, with ``from_dict`` and ``to_dict``.
        defaults: shipped value of every parameter.
        presets: named sets of parameters that differ from them.
        space: what the optimizer searches, see ``config.OPTIMIZER_SPACE``.
        needs: what it must be given.
        create: answers with the strategy for these parameters and rules, as drivers see it; rules
            None: for reading a saved state only.
        backtest: answers with what runs over candles.
        check: refuses with a ConfigError what the market's rules do not allow at a price (quote),
            and answers with what a person should know.
        trade_fields: of its trade records, besides those that every strategy's have.
        load_code: has the machine code of a live session ready before its first step.
        has_code: whether it is on the disk, so that loading it takes no compiling.
        live: it trades at an exchange; in a dry run and a replay all do.
        params_name: of the dict in ``config.py`` that holds the shipped values.
        space_name: likewise of what the optimizer searches.
        exclusive: pairs of parameters of which one alone is above 0: giving one sets the other to
            0.
    """

    name: str
    module: str
    params: type[Any]
    defaults: Mapping[str, Any]
    presets: Mapping[str, Mapping[str, Any]]
    space: Mapping[str, Mapping[str, Any]]
    needs: Needs
    create: Callable[[Any, MarketRules | None], Strategy]
    backtest: Callable[[Any, MarketRules], Backtest]
    check: Callable[[Any, MarketRules, float], list[str]] = _nothing_to_say
    trade_fields: tuple[str, ...] = ()
    load_code: Callable[[], None] = _no_code
    has_code: Callable[[], bool] = _is_ready
    live: bool = True
    exclusive: tuple[tuple[str, str], ...] = ()
    params_name: str = "STRATEGY_PARAMS"
    space_name: str = "OPTIMIZER_SPACE"

    @property
    def fingerprint(self) -> str:
        """Name of its decision code."""
        return fingerprint(self.module)

    def bar_ms(self, params: Any) -> int:
        """Return the length of the candles its steps follow under ``params``, ms."""
        return int(self.create(params, None).needs.bar_ms)

    def read(self, config: Mapping[str, Any] | None = None) -> Any:
        """Return validated parameters; keys missing from ``config`` are the shipped ones.

        Raises:
            ConfigError: an unknown key, a wrong type, a value out of range or a contradiction.
        """
        given = dict(config or {})
        merged = {**self.defaults, **given}
        for pair in self.exclusive:
            for name, other in (pair, pair[::-1]):
                if name in given and other not in given:
                    merged[other] = 0.0
        return self.params.from_dict(merged)


class Backtest(Protocol):
    """A strategy on one symbol that can run over candles.

    Attributes:
        params: its parameters.
        state: a record with the fields of ``engine.types.Account``, after the last run.
    """

    params: Any
    state: Any

    def run_result(
        self,
        df: Any,
        *,
        funding: Any = None,
        detail: Any = None,
        first_bar: int = 0,
        signals: Any = None,
        bar_ms: int = BAR_MS,
    ) -> RunResult:
        """Run from a fresh wallet to everything closed at the end.

        Args:
            df: columns timestamp (open time, ms) open high low close volume.
            funding: settlements, columns timestamp (ms) and rate; None: there are none.
            detail: finer candles to walk inside the others, columns as in ``df``; None: none.
            first_bar: bars before it are not traded.
            signals: indicators of these candles, where the caller has them; None: make them.
            bar_ms: length of a candle.

        Raises:
            DataError: the candles cannot be used.
        """
        ...


# --- what a strategy is given ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Moment:
    """An instant, and what is known at it.

    Attributes:
        ts_ms: ms UTC.
        signal: ``core.signals.Signal`` of the candle that closed; None: only time goes on.
        price: quote, that the step happens at.
        prev_close: quote, of the candle that closed.
        funding_rate: last settled rate, 0 if there is none.
    """

    ts_ms: int
    signal: Any = None
    price: float = 0.0
    prev_close: float = 0.0
    funding_rate: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """An execution of an order of ours.

    Attributes:
        ts_ms: ms UTC.
        position_side: LONG or SHORT.
        price: quote.
        qty: base.
        fee: quote, negative = rebate.
        order_price: quote, of a take-profit order.
        level: of an entry.
        generation: of the grid an entry belongs to.
        label: of what an exit closes.
        exits: (fill id, base) that an exit was sent for.
        booked_qty: base of the same exit that earlier executions have closed.
        owner: of the order, as the strategy has named it; '': it names none.
    """

    ts_ms: int
    kind: OrderKind
    position_side: str
    price: float
    qty: float
    fee: float
    order_price: float = 0.0
    level: int = -1
    generation: int = 0
    label: str = ""
    exits: tuple[tuple[int, float], ...] = ()
    booked_qty: float = 0.0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class StopFired:
    """The stop of a side has fired, or is carried out at market; its fills follow.

    ``ts_ms`` 0 is the strategy's own time; ``trigger`` is its price in quote, 0 where it is not
    known, ``owner`` as of its order.
    """

    position_side: str
    ts_ms: int = 0
    trigger: float = 0.0
    owner: str = ""


@dataclass(frozen=True, slots=True)
class LiquidationDecided:
    """Exits that the strategy labelled LIQUIDATION are carried out; their fills follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Liquidation:
    """The exchange has closed ``qty`` (base) of a side at ``price`` for ``fee`` (quote)."""

    ts_ms: int
    position_side: str
    price: float
    qty: float
    fee: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ForeignClose:
    """Somebody else has closed ``qty`` (base) of a side, as far as is known at ``price``.

    ``fee``: quote, 0 where the account did not pay it.
    """

    ts_ms: int
    position_side: str
    price: float
    qty: float
    fee: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FundingPaid:
    """Funding of one instant, both sides together.

    Attributes:
        amount: quote received, negative: paid.
        rate: settled; NaN: not known, then it follows from the amount.
        mark: price the exchange reckoned with, quote.
    """

    amount: float
    rate: float
    mark: float


AccountEvent = Fill | StopFired | LiquidationDecided | Liquidation | ForeignClose | FundingPaid


@dataclass(frozen=True, slots=True)
class Gap:
    """The price goes from one candle's close to the next price without trading between them."""

    start: float  # quote
    end: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A closed candle.

    Attributes:
        ts_ms: open time, ms UTC.
        funding_rate: sum of the rates settled in it, paid at its close; 0: none.
        prev_close: quote, of a candle before whose gap no step has met; 0: its step was done.
    """

    ts_ms: int
    open: float
    high: float
    low: float
    close: float
    funding_rate: float = 0.0
    prev_close: float = 0.0


@dataclass(frozen=True, slots=True)
class ExitsDone:
    """The market exits decided last are done at the step's price."""


@dataclass(frozen=True, slots=True)
class StopsChecked:
    """Stops that the step's price had passed when they were set are done at that price."""


@dataclass(frozen=True, slots=True)
class CloseAll:
    """Everything is closed at market while the price is ``price`` (quote)."""

    price: float
    label: str


SimulatedEvent = Gap | Bar | ExitsDone | StopsChecked | CloseAll


# --- what a strategy answers ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Exit:
    """A decision to close ``qty`` (base) of a fill at market, or to open a side because of it.

    ``owner``: the name the strategy gives its order; '': none, exits of a side go together.
    """

    position_side: str
    fill_id: int
    qty: float
    label: str
    opens: bool = False
    owner: str = ""


@dataclass(frozen=True, slots=True)
class RestingOrder:
    """An order that should rest at the exchange now."""

    position_side: str  # LONG or SHORT
    kind: OrderKind  # ENTRY, TAKE_PROFIT or STOP
    price: float
    qty: float  # base; of a stop: the whole position
    level: int  # of an entry, else -1
    generation: int = field(default=0, compare=False)  # of the grid an entry belongs to
    owner: str = ""  # the name its strategy gives it; what stands before the first dash: the cycle


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderIdentity:
    """The subject of an order, as its client id says.

    Attributes:
        kind: purpose of the order.
        owner: the name the strategy gives it.
        bar: the step that sent it.
        label: of what an exit closes.
        opens: of an exit: it opens a side, as a hedge.
    """

    kind: OrderKind
    owner: str
    bar: int
    label: str
    opens: bool


@dataclass(frozen=True, slots=True)
class CycleState:
    """How the cycles of a strategy stand: one entry order and all that follows from it is one.

    Attributes:
        open_cycles: s since 2020 of the steps that wanted their entries.
        gate: what keeps the next entry back; '': nothing.
        health: HEALTHY, WARNING or CRITICAL.
        is_wrong: ledger and account differ.
        is_paused: a person has paused the entries.
        working: cycle of the entry order that rests, -1: none does.
        working_price: quote.
        working_qty: base.
        margin: used, as a share of its cap.
        to_close: base that close orders should rest for.
        order_qty: of an entry at the step's price, base.
    """

    open_cycles: tuple[int, ...]
    gate: str
    health: str
    is_wrong: bool
    is_paused: bool
    working: int = -1
    working_price: float = 0.0
    working_qty: float = 0.0
    margin: float = 0.0
    to_close: float = 0.0
    order_qty: float = 0.0

    @staticmethod
    def name_of(cycle: int) -> str:
        """Return a cycle as client ids spell it."""
        text, left = "", cycle
        while left:
            left, digit = divmod(left, 36)
            text = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + text
        return text.rjust(6, "0")


@dataclass(frozen=True, slots=True)
class OpenFill:
    """An entry that is still open, in whole or in part."""

    fill_id: int
    position_side: str
    ts_ms: int
    price: float  # quote
    qty: float  # base, still open


@dataclass(frozen=True, slots=True)
class SideView:
    """One position side.

    Attributes:
        qty: base.
        avg_entry: quote, 0 when flat.
        unrealized: quote, at the view's price.
        n_fills: open ones.
        stop: quote, where its stop should be; 0: none.
        risk: quote, distance from an entry to the first stop.
        centre: quote, its grid's; 0: there is none yet.
        spacing_pct: of its entries, as a share of the price.
    """

    qty: float
    avg_entry: float
    unrealized: float
    n_fills: int
    stop: float
    risk: float
    centre: float
    spacing_pct: float


@dataclass(frozen=True, slots=True)
class View:
    """The account and the strategy at a price.

    Attributes:
        price: quote; 0: no step has happened yet.
        wallet: quote.
        equity: quote; the wallet where there is no price.
        funding: quote received so far.
        long: the long side.
        short: the short side.
        regime: name of the market's regime.
        halted: entries are off until the market calms down.
        ended: nothing is left of the capital.
        too_small: every order of a fresh grid was under the exchange's minimum.
        capital_needed: quote, that would do.
        counters: events and sums since the start, by name.
    """

    price: float
    wallet: float
    equity: float
    funding: float
    long: SideView
    short: SideView
    regime: str
    halted: bool
    ended: bool
    too_small: bool
    capital_needed: float
    counters: Mapping[str, float]

    def side(self, position_side: str) -> SideView:
        """Return the side called LONG or SHORT."""
        return self.long if position_side == "LONG" else self.short

    @property
    def has_position(self) -> bool:
        """Whether anything is held."""
        return self.long.n_fills > 0 or self.short.n_fills > 0


class Rebuilding(Protocol):
    """A strategy whose state is rebuilt from the exchange alone (``Needs.truth``).

    Executions and funding are booked as ever, in the order of time; besides:
    """

    def name_symbol(self, symbol: str) -> None:
        """Take in which symbol it trades: names of stops belong to the account."""
        ...

    def order_id(self, owner: str, bar: int, count: int) -> str:
        """Return what a client id carries behind the prefix of the instance.

        Args:
            owner: the order's name.
            bar: the step that sends it.
            count: how many orders of that name the step has sent already.
        """
        ...

    def identify(self, text: str) -> OrderIdentity | None:
        """Undo ``order_id``; None: it is no order of this strategy."""
        ...

    def lay_again(self, owners: Mapping[str, float], ts_ms: int) -> None:
        """Take in a ladder laid at ``ts_ms``: prices of its rungs (quote) by their names."""
        ...

    def note_own_stops(self, owners: Iterable[str]) -> None:
        """Note which stop orders rested when a shared one fired."""
        ...

    def take_over(self, resting: Sequence[RestingOrder], entered: Collection[str]) -> None:
        """Take over what rests at the exchange, once every execution is booked.

        Args:
            resting: orders of ours.
            entered: cycles whose entries are listed; a close order of another one tells of a
                position that is too old.
        """
        ...

    def adopt(self, position_side: str, qty: float, price: float, ts_ms: int) -> bool:
        """Make quantity of the account a position of ours; whether its side is traded."""
        ...

    def cycles(self) -> list[str]:
        """Return the names of the open cycles, oldest first."""
        ...

    def exits_of(self, cycle: str, label: str) -> list[Exit]:
        """Return the market exits of all legs of a cycle; none where it is not open."""
        ...

    def set_flags(self, *, paused: bool, stopped: bool) -> None:
        """Take over what a person, or a price, has decided before."""
        ...


class Strategy(Protocol):
    """One strategy on one symbol: a state, and decisions on it. Deterministic.

    Attributes:
        name: on the command line and in state files.
        needs: what it must be given.
        params: its parameters.
        fingerprint: names its decision code.
        phases: of ``exits`` in a step.
        stops_positions: it stops its positions one by one, else a side as a whole.
        asks_again: a phase is asked again when its exits are done, until it has none.
        capacities: lengths of the tables in its state, by name.
        ended: nothing is left of the capital; cheaper than a whole view.
        stopped: it has ended itself, by a price that a person has set: it enters nothing more.
    """

    name: str
    needs: Needs
    params: Any
    fingerprint: str
    phases: int
    asks_again: bool
    stops_positions: bool

    @property
    def capacities(self) -> Mapping[str, int]:
        """See above."""
        ...

    @property
    def ended(self) -> bool:
        """See above."""
        ...

    @property
    def stopped(self) -> bool:
        """See above."""
        ...

    def begin(self, now: Moment) -> None:
        """Begin a step; without a signal only the clock goes on, and never back."""
        ...

    def exits(self, phase: int) -> Sequence[Exit]:
        """Return the market exits of a phase; they are done before the next one is asked."""
        ...

    def arrange(self) -> None:
        """Decide what should rest from now on."""
        ...

    def desired(self, unbooked: Sequence[Fill] = ()) -> Iterable[RestingOrder]:
        """Return what should rest now, as if the entries in ``unbooked`` were booked already."""
        ...

    def cancel(self, position_side: str, *, keep_stop: bool) -> None:
        """Want no orders of a side any more, its stop perhaps excepted."""
        ...

    def use_rules(self, rules: MarketRules) -> None:
        """Decide by other rules of the symbol from now on: tick, lot, minimums, brackets.

        What has filled and rests stays as it is; what is decided next is on the new tick and lot.
        """
        ...

    def restore_stops(self) -> None:
        """Want a stop again for every side that holds something after its stop fired."""
        ...

    def exit_owner(self, fill_id: int, label: str) -> str:
        """Return the name of the order that closes a fill at market; '': a side's go as one."""
        ...

    def stopped_by(self, owner: str) -> list[int]:
        """Return the ids of the fills that the stop of that name is for."""
        ...

    def set_mismatch(self, *, is_wrong: bool) -> None:
        """Enter nothing while ledger and account differ."""
        ...

    def drop_entry(self) -> None:
        """Want the entry that rests no more: it is gone, and the next step decides anew."""
        ...

    def refuse(self, owner: str) -> None:
        """Take in that the exchange refuses for good the market order of that name."""
        ...

    def fewer_stops(self) -> None:
        """Want one stop order less: the exchange takes no more."""
        ...

    def book(self, event: AccountEvent) -> float:
        """Take an event of the account into the ledger; return what it had no fill for, base."""
        ...

    def simulate(self, event: SimulatedEvent) -> None:
        """Let prices meet what should rest, as the simulated exchange does."""
        ...

    def view(self, price: float | None = None) -> View:
        """Return the account at ``price``, quote; None: at the step's."""
        ...

    def fills(self, position_side: str) -> list[OpenFill]:
        """Return the open fills of a side, oldest first."""
        ...

    def take_trades(self) -> list[dict[str, Any]]:
        """Return the trade records written since the last call."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state as JSON-ready data."""
        ...

    def load_state_dict(self, data: Mapping[str, Any]) -> None:
        """Restore ``state_dict`` output.

        Raises:
            ValueError: the fields or capacities differ from this version's.
        """
        ...
