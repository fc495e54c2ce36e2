"""Puts the parts of a session together: account, strategy, files, and who carries it out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from core.errors import AccountError, CapitalError, StateError
from core.params import StrategyParams
from engine.ledger import equity_at
from engine.strategy import GridStrategyV4
from live.broker import Broker
from live.candle_buffer import BAR_MS, CandleBuffer
from live.exchange_broker import ExchangeBroker
from live.exchange_types import Clock, Exchange, MarketFacts, MarketReader
from live.funding_rates import FundingRates
from live.logger import TradeLogger
from live.monitor import HealthMonitor
from live.order_desk import company_error
from live.orders import OrderRegister
from live.paper_broker import PaperBroker
from live.runner import LiveRunner
from live.session import LiveSession
from live.state import StateManager
from live.stop_request import StopRequest
from live.target import mode_folder
from live.trade_files import LiveTrade, TradeFiles

_LOG: Final = logging.getLogger(__name__)
LATE_MARGIN_MS: Final = 1_000
"""Beyond its window a request may lie so far in the exchange's future, ms."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a person asked for.

    Attributes:
        symbol: such as BTCUSDT.
        params: of the strategy, as configured; capital and fees of the account come on top.
        mode: live, testnet or dry.
        capital: quote; None: the whole wallet, as far as ``max_capital_pct`` allows.
        resume: go on from the state file.
        accept_code_change: also where another version of the decision code wrote it.
        settings: ``LIVE_CONFIG``.
    """

    symbol: str
    params: StrategyParams
    mode: str
    capital: float | None
    resume: bool
    accept_code_change: bool
    settings: Mapping[str, Any]

    @property
    def state_folder(self) -> Path:
        """Where the state lies; each mode has a folder of its own."""
        return mode_folder(self.settings, "state_dir", self.mode)


@dataclass(frozen=True, kw_only=True)
class Equipment:
    """What a session uses of the process: time, files, people."""

    clock: Clock
    stop: StopRequest
    monitor: HealthMonitor
    log: TradeLogger | None
    alert: Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A session ready to run."""

    runner: LiveRunner
    session: LiveSession
    broker: Broker
    facts: MarketFacts


def assemble_live(plan: Plan, exchange: Exchange, equipment: Equipment) -> Assembled:
    """Prepare the account and return a session that trades on it.

    Raises:
        AccountError: the account or the symbol does not allow trading.
        CapitalError: there is no capital.
        StateError: the state file does not fit.
        GridError: the exchange could not be asked.
    """
    facts = _open_market(exchange)
    exchange.prepare_account(plan.params.leverage)
    capital = allowed_capital(plan, exchange.balance().wallet)
    params = with_account(plan.params, facts, capital)
    session = _session(plan, params, facts, equipment)
    _refuse_company(exchange, session.orders)
    candles, rates = _market(plan, session, exchange, equipment)
    broker = ExchangeBroker(
        exchange, session, facts, rates,
        lambda ts_ms: float(candles.candle(ts_ms // BAR_MS - 1).close), equipment.clock,
        equipment.monitor, equipment.alert,
        int(plan.settings["recv_window_ms"]) + LATE_MARGIN_MS,
        int(1_000 * float(plan.settings["poll_s"])),
    )  # fmt: skip
    runner = _runner(plan, session, broker, candles, rates, equipment, exchange.usage)
    return Assembled(runner=runner, session=session, broker=broker, facts=facts)


def assemble_dry(plan: Plan, reader: MarketReader, equipment: Equipment) -> Assembled:
    """Return a session that reads real candles and trades on paper.

    Raises:
        StateError: the state file does not fit.
        GridError: the exchange could not be asked.
    """
    facts = _open_market(reader)
    params = with_account(plan.params, facts, plan.capital or plan.params.initial_capital)
    session = _session(plan, params, facts, equipment)
    candles, rates = _market(plan, session, reader, equipment)
    broker = PaperBroker(session, candles, reader, rates)
    runner = _runner(plan, session, broker, candles, rates, equipment, None)
    return Assembled(runner=runner, session=session, broker=broker, facts=facts)


def _open_market(reader: MarketReader) -> MarketFacts:
    """Return the symbol's rules.

    Raises:
        AccountError: it does not trade at present.
    """
    facts = reader.read_market()
    if not facts.is_trading:
        raise AccountError(f"{facts.symbol} is not open for trading at the exchange")
    return facts


def allowed_capital(plan: Plan, wallet: float) -> float:
    """Return the capital a session starts with, quote.

    Raises:
        CapitalError: the wallet is empty.
    """
    most = float(plan.settings["max_capital_pct"]) * wallet
    if most <= 0.0:
        raise CapitalError(
            f"the futures wallet holds {wallet:g} USDT: transfer some from the spot wallet first"
        )
    if plan.capital is not None and plan.capital > most:
        _LOG.warning(
            "capital %g is more than %g %% of the wallet of %g USDT; %g are used", plan.capital,
            100.0 * float(plan.settings["max_capital_pct"]), wallet, most,
        )  # fmt: skip
    return most if plan.capital is None else min(plan.capital, most)


def with_account(params: StrategyParams, facts: MarketFacts, capital: float) -> StrategyParams:
    """Return ``params`` with the account's capital and, where it told them, its fees."""
    if facts.fee_maker is not None:
        params = replace(params, fee_maker=facts.fee_maker)
    if facts.fee_taker is not None:
        params = replace(params, fee_taker=facts.fee_taker)
    return replace(params, initial_capital=capital)


def check_state(plan: Plan, clock: Clock) -> bool:
    """Refuse a saved state that does not fit, before anything is asked of the exchange.

    Returns:
        Whether there is one to go on from.

    Raises:
        StateError: it does not fit, or still has positions and is not to be gone on from.
    """
    states = _states(plan, clock)
    if plan.resume:
        return states.load(accept_code_change=plan.accept_code_change) is not None
    _refuse_to_forget(states, plan)
    return False


def _states(plan: Plan, clock: Clock) -> StateManager:
    return StateManager(
        plan.symbol, plan.state_folder, params=plan.params, mode=plan.mode, clock=clock,
        snapshots=int(plan.settings["snapshots"]),
    )  # fmt: skip


def _session(
    plan: Plan, params: StrategyParams, facts: MarketFacts, equipment: Equipment
) -> LiveSession:
    """Return a session, a new one or the saved one."""
    strategy = GridStrategyV4(params, facts.rules)
    states = _states(plan, equipment.clock)
    files = TradeFiles(plan.symbol, plan.state_folder)
    session = LiveSession(
        strategy, OrderRegister(str(plan.settings["instance"])), states, files,
        _teller(equipment), equipment.clock.now_ms(),
    )  # fmt: skip
    loaded = states.load(accept_code_change=plan.accept_code_change) if plan.resume else None
    if loaded is not None:
        session.resume(loaded)
        _restore_equity(session, equipment)
    elif plan.resume:
        _LOG.warning("there is no saved state: a new session begins")
    else:
        _refuse_to_forget(states, plan)
    return session


def _restore_equity(session: LiveSession, equipment: Equipment) -> None:
    """Let the monitor go on from what is saved: a loss limit that was reached stays reached."""
    state, progress = session.strategy.state, session.progress
    equipment.monitor.restore_equity(progress.start_equity, progress.peak_equity)
    if float(state.now.price) > 0.0:
        equipment.monitor.note_equity(float(equity_at(state, float(state.now.price))))


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
    held = sum(len(side["fills"]) for side in loaded.engine["sides"])
    alive = sum(order["state"] != "done" for order in loaded.session["orders"])
    if held or alive:
        raise StateError(
            f"{states.path} still has {held} open fills and {alive} orders: go on with --resume, "
            "or close them with --flatten"
            + (", or delete the file" if plan.mode == "dry" else "")
        )


def _refuse_company(exchange: Exchange, orders: OrderRegister) -> None:
    """Refuse to trade beside another instance.

    Raises:
        AccountError: orders that bear our name are not in our state.
    """
    for order in exchange.open_orders():
        if order.client_id.startswith(orders.prefix) and orders.get(order.client_id) is None:
            raise company_error(order.client_id)


def _teller(equipment: Equipment) -> Callable[[LiveTrade], None]:
    def tell(trade: LiveTrade) -> None:
        if equipment.log is not None:
            equipment.log.trade(trade)

    return tell


def _market(
    plan: Plan, session: LiveSession, reader: MarketReader, equipment: Equipment
) -> tuple[CandleBuffer, FundingRates]:
    candles = CandleBuffer(
        reader, plan.params, equipment.clock, least=int(plan.settings["buffer_bars"]),
        first_bar=session.progress.first_bar,
    )  # fmt: skip
    return candles, FundingRates(reader)


def _runner(
    plan: Plan, session: LiveSession, broker: Broker, candles: CandleBuffer, rates: FundingRates,
    equipment: Equipment, usage: Any,
) -> LiveRunner:  # fmt: skip
    return LiveRunner(
        session=session, broker=broker, candles=candles, rates=rates, monitor=equipment.monitor,
        log=equipment.log, clock=equipment.clock, stop=equipment.stop, settings=plan.settings,
        usage=usage,
    )  # fmt: skip
