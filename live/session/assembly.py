"""Puts the parts of a session together: account, strategy, files, and who carries it out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, cast

from core.errors import AccountError, DataError, GridError, StateError
from core.jit import interpreted
from core.market import MarketRules
from core.orders import POSITION_SIDES
from engine.contract import Rebuilding, StrategySpec
from live.exchange.port import Clock, Exchange, MarketReader
from live.exchange.types import MarketFacts
from live.execution.books import LiveSession
from live.execution.broker import Broker
from live.execution.exchange_broker import ExchangeBroker
from live.execution.order_register import OrderRegister, owned_prefix
from live.execution.paper_broker import PaperBroker
from live.execution.risk_gate import NoLimit, RiskGate
from live.feed.candles import CandleBuffer
from live.feed.funding_rates import FundingRates
from live.health.cycle_events import CycleEvents, CycleStrategy, events_path
from live.health.events import Events, Notice, StateSaved, Unprotected
from live.health.logger import session_logger
from live.health.monitor import HealthMonitor
from live.session.admission import (
    allowed_capital,
    refuse_closed_market,
    refuse_other_programs,
    refuse_shared_symbol,
    refuse_wrong_clock,
)
from live.session.rebuild import adopt, rebuild
from live.session.runner import LiveRunner
from live.session.shutdown import StopRequest, withdraw_once
from live.store.flags_file import FlagsFile
from live.store.folders import mode_folder
from live.store.state_file import LoadedState, StateManager
from live.store.trade_files import TradeFiles

LATE_MARGIN_MS: Final = 1_000
"""Beyond its window a request may lie so far in the exchange's future, ms."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The request of a person.

    Attributes:
        symbol: such as BTCUSDT.
        spec: the strategy.
        params: of it, as configured; capital and fees of the account come on top.
        mode: live, testnet or dry.
        capital: quote; None: the whole wallet, as far as ``max_capital_pct`` allows.
        resume: go on from the state file.
        accept_code_change: also where another version of the decision code wrote it.
        settings: ``LIVE_CONFIG``.
        only_closes: nothing is entered: neither wallet nor account need allow that.
        adopts: quantity of the account that no order explains becomes a position.
    """

    symbol: str
    spec: StrategySpec
    params: Any
    mode: str
    capital: float | None
    resume: bool
    accept_code_change: bool
    settings: Mapping[str, Any]
    only_closes: bool = False
    adopts: bool = False

    @property
    def truth(self) -> str:
        """Where the state of a session is kept: on paper always in a file."""
        return "file" if self.mode == "dry" else self.spec.needs.truth

    @property
    def state_folder(self) -> Path:
        """Where the state lies; each mode has a folder of its own."""
        return mode_folder(self.settings, "state_dir", self.mode)


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """The part of the process a session uses: time, files, people."""

    clock: Clock
    stop: StopRequest
    monitor: HealthMonitor
    events: Events
    gate: RiskGate = field(default_factory=NoLimit)


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A session ready to run."""

    runner: LiveRunner
    session: LiveSession
    broker: Broker
    facts: MarketFacts


def assemble_live(plan: Plan, exchange: Exchange, equipment: Equipment) -> Assembled:
    """Prepare the account and return a session that trades on it.

    Where it ``only_closes`` the account stays as it is and is not judged. Where a saved session
    cannot go on, its stops were laid before, and its entries are cancelled as far as one try can.

    Raises:
        AccountError: the account or the symbol does not allow trading, or somebody else trades
            the symbol on it.
        CapitalError: there is no capital.
        StateError: the state file does not fit.
        GridError: the exchange could not be asked.
    """
    if plan.truth == "exchange":
        return _assemble_exchange(plan, exchange, equipment)
    states = _states(plan, equipment.clock)
    loaded = _loaded(states, plan)
    saved = None if loaded is None else _protect_saved(plan, exchange, equipment, states, loaded)
    if saved is None:
        return _assemble_live(plan, exchange, equipment, states, loaded)
    try:
        return _assemble_live(plan, exchange, equipment, states, _loaded(states, plan))
    except GridError:
        exchange.leave()  # nobody waits for it longer than for a try
        withdraw_once(saved, session_logger(plan.symbol))
        raise


def _assemble_live(
    plan: Plan,
    exchange: Exchange,
    equipment: Equipment,
    states: StateManager,
    loaded: LoadedState | None,
) -> Assembled:
    plan.spec.load_code()
    facts, params = exchange.read_market(), plan.params
    capital = params.initial_capital
    if not plan.only_closes:
        if loaded is None:
            refuse_closed_market(facts)
            refuse_wrong_clock(plan.settings, exchange.usage())
            capital = allowed_capital(
                plan.settings, plan.capital, exchange.balance().wallet, session_logger(plan.symbol)
            )
        refuse_shared_symbol(exchange, loaded, str(plan.settings["instance"]), plan.symbol)
        _prepare_account(plan, exchange, equipment, goes_on=loaded is not None)
    started_ms = equipment.clock.now_ms() - exchange.usage().clock_offset_ms
    params = with_account(params, facts, capital)
    session = _session(plan, params, facts, equipment, states, loaded, started_ms)
    candles, rates = _market(plan, session, exchange, equipment)
    broker = _broker(
        plan,
        exchange,
        session,
        facts,
        rates,
        lambda ts_ms: float(candles.candle(ts_ms // session.bar_ms - 1).close),
        equipment,
    )
    runner = _runner(plan, session, broker, candles, rates, equipment, exchange)
    return Assembled(runner=runner, session=session, broker=broker, facts=facts)


def _assemble_exchange(plan: Plan, exchange: Exchange, equipment: Equipment) -> Assembled:
    """Return a rebuilt session. Where its code must be compiled first its stops come before that.

    After an upgrade compiling takes most of a minute; until then kernels are interpreted, which
    answers the same.

    Raises:
        AccountError, GridError: as of ``_assemble_rebuilt``.
    """
    if plan.spec.has_code():
        plan.spec.load_code()
        return _assemble_rebuilt(plan, exchange, equipment)
    plan.spec.create(plan.params, None)  # imports what is interpreted
    with interpreted():
        assembled = _assemble_rebuilt(plan, exchange, equipment)
        try:
            cast("ExchangeBroker", assembled.broker).protect()
        except GridError as error:
            assembled.session.log.warning("the stops of the rebuilt session: %s", error)
    plan.spec.load_code()
    return assembled


def _assemble_rebuilt(plan: Plan, exchange: Exchange, equipment: Equipment) -> Assembled:
    """Return a session whose state is what the exchange tells; see ``live.session.rebuild``.

    Raises:
        AccountError: the account or the symbol does not allow trading, or the coin is traded by
            another program of ours.
        GridError: the exchange could not be asked.
    """
    facts, params = _admitted(plan, exchange, equipment)
    # What a killed process has sent may still arrive.
    equipment.clock.sleep((int(plan.settings["recv_window_ms"]) + LATE_MARGIN_MS) / 1e3)
    session = _rebuilding_session(plan, params, facts, exchange, equipment)
    candles, rates = _market(plan, session, exchange, equipment)
    broker = _broker(
        plan,
        exchange,
        session,
        facts,
        rates,
        lambda ts_ms: float(candles.candle(ts_ms // session.bar_ms - 1).close),
        equipment,
    )
    _take_over(plan, session, broker, exchange, equipment)
    runner = _runner(plan, session, broker, candles, rates, equipment, exchange)
    return Assembled(runner=runner, session=session, broker=broker, facts=facts)


def _admitted(plan: Plan, exchange: Exchange, equipment: Equipment) -> tuple[MarketFacts, Any]:
    """Return the market and the parameters with the account's capital and fees.

    Raises:
        AccountError: the account or the symbol does not allow trading.
        ConfigError: the symbol does not allow the parameters.
    """
    facts = exchange.read_market()
    capital = plan.capital or plan.params.initial_capital
    if not plan.only_closes:
        log, instance = session_logger(plan.symbol), str(plan.settings["instance"])
        refuse_closed_market(facts)
        refuse_wrong_clock(plan.settings, exchange.usage())
        capital = allowed_capital(plan.settings, plan.capital, exchange.balance().wallet, log)
        refuse_other_programs(exchange, owned_prefix(instance))
        _prepare_account(plan, exchange, equipment, goes_on=bool(exchange.open_orders()))
    params = with_account(plan.params, facts, capital)
    _check_market(plan, params, facts, exchange)
    return facts, params


def _rebuilding_session(
    plan: Plan, params: Any, facts: MarketFacts, exchange: Exchange, equipment: Equipment
) -> LiveSession:
    """Return a session that knows nothing yet but what a person has decided before."""
    strategy = plan.spec.create(params, facts.rules)
    flags = FlagsFile(plan.symbol, plan.state_folder)
    files, events = trade_files(plan), equipment.events
    events.subscribe(StateSaved, lambda saved: files.append(saved.trades))
    events.subscribe(Unprotected, lambda now: equipment.monitor.note_unprotected(now.sides))
    rebuilding, kept = cast("Rebuilding", strategy), flags.read()
    if kept.stopped and not plan.only_closes:
        raise StateError(
            f"the stop price has ended this session: choose another one, then move {flags.path} "
            "away and start anew"
        )
    rebuilding.name_symbol(plan.symbol)
    rebuilding.set_flags(paused=kept.paused, stopped=kept.stopped)
    session = LiveSession(
        strategy,
        OrderRegister(str(plan.settings["instance"]), plan.symbol, rebuilding.order_id),
        _states(replace(plan, params=params), equipment.clock),
        events,
        equipment.clock.now_ms() - exchange.usage().clock_offset_ms,
        session_logger(plan.symbol),
        flags=flags,
    )
    session.reported = files
    _note_cycles(plan, session, equipment)
    return session


def _take_over(
    plan: Plan,
    session: LiveSession,
    broker: ExchangeBroker,
    exchange: Exchange,
    equipment: Equipment,
) -> None:
    """Rebuild; what no order explains is adopted where a person says so, else left alone."""
    clock, events = equipment.clock, equipment.events
    instance, lot = str(plan.settings["instance"]), broker.lot
    found = rebuild(session, broker.fills, exchange, clock, instance, lot, session.log)
    if found.unexplained and plan.adopts:
        for text in adopt(session, exchange, found.unexplained, clock.now_ms()):
            events.publish(Notice(text))
    elif found.unexplained:
        held = ", ".join(f"{qty:g} {name}" for name, qty in found.unexplained.items())
        events.publish(
            Notice(
                f"{held} of the account no order of ours explains: left alone, and nothing is "
                "entered; --adopt makes it a position of this session"
            )
        )
        session.strategy.set_mismatch(is_wrong=True)
    session.save(snapshot=True)


def _broker(
    plan: Plan,
    exchange: Exchange,
    session: LiveSession,
    facts: MarketFacts,
    rates: FundingRates,
    mark: Callable[[int], float],
    equipment: Equipment,
) -> ExchangeBroker:
    return ExchangeBroker(
        exchange,
        session,
        facts,
        rates,
        mark,
        equipment.clock,
        equipment.monitor,
        equipment.events,
        equipment.gate,
        int(plan.settings["recv_window_ms"]) + LATE_MARGIN_MS,
        int(1_000 * float(plan.settings["poll_s"])),
    )


def _protect_saved(
    plan: Plan, exchange: Exchange, equipment: Equipment, states: StateManager, loaded: LoadedState
) -> ExchangeBroker | None:
    """Lay the stops of what a saved session holds, by the rules it knew.

    Nothing else is asked before, and no kernel compiled or loaded: after an upgrade that takes half
    a minute. What is refused is logged: the start goes on, and says more.

    Returns:
        Who carries out what the saved session wanted; None: it holds nothing and nothing rests.
    """
    known = loaded.session["progress"].get("rules")
    if not known:
        return None
    rules = MarketRules(**known)
    exchange.assume_rules(rules)
    log = session_logger(plan.symbol)
    register = OrderRegister(str(plan.settings["instance"]), plan.symbol)
    files, events = trade_files(plan), Events()
    events.subscribe(StateSaved, lambda saved: files.append(saved.trades))  # its outbox, too
    session = LiveSession(plan.spec.create(plan.params, rules), register, states, events, 0, log)
    facts = MarketFacts(
        symbol=plan.symbol,
        rules=rules,
        fee_maker=None,
        fee_taker=None,
        is_trading=True,
        max_orders=0,
    )
    with interpreted():
        session.resume(loaded)
        is_held = session.strategy.view().has_position
        if not is_held and not register.alive():
            return None
        rates = FundingRates(exchange)
        broker = _broker(plan, exchange, session, facts, rates, _no_mark, equipment)
        try:
            if is_held:
                broker.protect()
        except GridError as error:
            log.warning("the stops of the saved session: %s", error)
    return broker


def _no_mark(ts_ms: int) -> float:
    """Refuse to value funding: nothing is settled before the stops stand."""
    raise DataError(f"no candle is known at {ts_ms} yet")


def _prepare_account(
    plan: Plan, exchange: Exchange, equipment: Equipment, *, goes_on: bool
) -> None:
    """Set modes and leverage; a session that goes on goes on also where that is refused.

    Raises:
        AccountError: they cannot be set, and the session is a new one.
    """
    try:
        exchange.prepare_account(plan.params.leverage)
    except AccountError as refused:
        if not goes_on:
            raise
        text = f"the session goes on with the account as it is: {refused}"
        session_logger(plan.symbol).warning("%s", text)
        equipment.events.publish(Notice(text))


def assemble_dry(plan: Plan, reader: MarketReader, equipment: Equipment) -> Assembled:
    """Return a session that reads real candles and trades on paper.

    Raises:
        StateError: the state file does not fit.
        GridError: the exchange could not be asked.
    """
    facts = reader.read_market()
    if not plan.only_closes:
        refuse_closed_market(facts)
    params = with_account(plan.params, facts, plan.capital or plan.params.initial_capital)
    _check_market(plan, params, facts, reader)
    states, started_ms = _states(plan, equipment.clock), equipment.clock.now_ms()
    session = _session(plan, params, facts, equipment, states, _loaded(states, plan), started_ms)
    candles, rates = _market(plan, session, reader, equipment)
    broker = PaperBroker(session, candles, reader, rates)
    runner = _runner(plan, session, broker, candles, rates, equipment, None)
    return Assembled(runner=runner, session=session, broker=broker, facts=facts)


def with_account(params: Any, facts: MarketFacts, capital: float) -> Any:
    """Return ``params`` with the account's capital and, where it reports them, its fees."""
    if facts.fee_maker is not None:
        params = replace(params, fee_maker=facts.fee_maker)
    if facts.fee_taker is not None:
        params = replace(params, fee_taker=facts.fee_taker)
    return replace(params, initial_capital=capital)


def _check_market(plan: Plan, params: Any, facts: MarketFacts, reader: MarketReader) -> None:
    """Refuse what the symbol does not allow of the parameters; log what should be known.

    Raises:
        ConfigError: it does not, or the account's fees contradict them.
        GridError: the price could not be read.
    """
    if plan.only_closes:
        return
    params.check_relations()
    for text in plan.spec.check(params, facts.rules, reader.last_price()):
        session_logger(plan.symbol).warning("%s", text)


def check_state(plan: Plan, clock: Clock) -> bool:
    """Refuse a saved state that does not fit, before anything is asked of the exchange.

    Returns:
        Whether there is one to go on from.

    Raises:
        StateError: it does not fit, or still has positions and is not to be gone on from.
    """
    if plan.truth == "exchange":
        return False
    states = _states(plan, clock)
    if plan.resume:
        return states.load(accept_code_change=plan.accept_code_change) is not None
    _refuse_to_forget(states, plan)
    return False


def _note_cycles(plan: Plan, session: LiveSession, equipment: Equipment) -> None:
    """Let what happens to cycles be written down, of a strategy that has some."""
    if "cycle" in plan.spec.trade_fields:
        CycleEvents(
            cast("CycleStrategy", session.strategy),
            events_path(plan.symbol, plan.state_folder),
            equipment.events,
            session.log,
        )


def trade_files(plan: Plan) -> TradeFiles:
    """Return the trade files of a session.

    Raises:
        StateError: one cannot be read or written, or is damaged.
    """
    return TradeFiles.of_strategy(plan.spec, plan.symbol, plan.state_folder)


def _states(plan: Plan, clock: Clock) -> StateManager:
    return StateManager(
        plan.symbol,
        plan.state_folder,
        spec=plan.spec,
        params=plan.params,
        mode=plan.mode,
        clock=clock,
        snapshots=int(plan.settings["snapshots"]),
        is_copy=plan.truth == "exchange",
    )


def _loaded(states: StateManager, plan: Plan) -> LoadedState | None:
    """Return what the session goes on from, None where it is a new one.

    Raises:
        StateError: it does not fit, or still has positions and is not to be gone on from.
    """
    if not plan.resume:
        _refuse_to_forget(states, plan)
        return None
    loaded = states.load(accept_code_change=plan.accept_code_change)
    if loaded is None:
        session_logger(plan.symbol).warning("there is no saved state: a new session begins")
    return loaded


def _session(
    plan: Plan,
    params: Any,
    facts: MarketFacts,
    equipment: Equipment,
    states: StateManager,
    loaded: LoadedState | None,
    started_ms: int,
) -> LiveSession:
    """Return a session, a new one or the saved one.

    ``started_ms`` is by the clock that dates its trades: nothing traded before is its own.
    """
    files, events = trade_files(plan), equipment.events
    events.subscribe(StateSaved, lambda saved: files.append(saved.trades))
    events.subscribe(Unprotected, lambda now: equipment.monitor.note_unprotected(now.sides))
    session = LiveSession(
        plan.spec.create(params, facts.rules),
        OrderRegister(str(plan.settings["instance"]), plan.symbol),
        states,
        equipment.events,
        started_ms,
        session_logger(plan.symbol),
    )
    _note_cycles(plan, session, equipment)
    if loaded is not None:
        session.resume(loaded)
        _restore_equity(session, equipment)
    return session


def _restore_equity(session: LiveSession, equipment: Equipment) -> None:
    """Let the monitor go on from what is saved: a loss limit that was reached stays reached."""
    view, progress = session.strategy.view(), session.progress
    equipment.monitor.restore_equity(progress.start_equity, progress.peak_equity)
    if view.price > 0.0:
        equipment.monitor.note_equity(view.equity)


def _refuse_to_forget(states: StateManager, plan: Plan) -> None:
    """Refuse to start anew where a saved state still has positions or orders.

    Raises:
        StateError: there is such a state.
    """
    if not states.path.exists():
        return
    loaded = states.load(accept_code_change=True)
    if loaded is None:
        return
    strategy = plan.spec.create(plan.params, None)
    strategy.load_state_dict(loaded.engine)
    held = sum(len(strategy.fills(position_side)) for position_side in POSITION_SIDES)
    alive = sum(order["state"] != "done" for order in loaded.session["orders"])
    if held or alive:
        raise StateError(
            f"{states.path} still has {held} open fills and {alive} orders: go on with --resume, "
            "or close them with --flatten" + (", or delete the file" if plan.mode == "dry" else "")
        )


def _market(
    plan: Plan, session: LiveSession, reader: MarketReader, equipment: Equipment
) -> tuple[CandleBuffer, FundingRates]:
    candles = CandleBuffer(
        reader,
        plan.params if session.strategy.needs.indicators else None,
        equipment.clock,
        least=int(plan.settings["buffer_bars"]),
        bar_ms=session.bar_ms,
        first_bar=session.progress.first_bar,
    )
    return candles, FundingRates(reader)


def _runner(
    plan: Plan,
    session: LiveSession,
    broker: Broker,
    candles: CandleBuffer,
    rates: FundingRates,
    equipment: Equipment,
    exchange: Exchange | None,
) -> LiveRunner:
    return LiveRunner(
        session=session,
        broker=broker,
        candles=candles,
        rates=rates,
        monitor=equipment.monitor,
        events=equipment.events,
        clock=equipment.clock,
        stop=equipment.stop,
        settings=plan.settings,
        usage=None if exchange is None else exchange.usage,
        measure_clock=None if exchange is None else exchange.measure_clock,
    )
