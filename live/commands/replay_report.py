"""``--replay``: a session over recorded candles, and what came of it."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from config import LIVE_CONFIG
from core.errors import DataError
from core.market import MarketRules
from core.params import StrategyParams
from core.text import number
from core.times import BAR_MS, utc_text
from engine.strategy import create
from live.commands.replay import RecordedMarket, ReplayClock, replay
from live.exchange.replies.account import QUOTE
from live.exchange.types import Candles, MarketFacts
from live.execution.books import LiveSession
from live.execution.order_register import OrderRegister
from live.execution.paper_broker import PaperBroker
from live.feed.funding_rates import FundingRates
from live.health.alerts import AlertSender
from live.health.monitor import HealthMonitor
from live.session.runner import LiveRunner
from live.session.stop_request import StopRequest
from live.store.durable_file import write_atomically
from live.store.trade_files import TRADE_COLUMNS

REPLAY_DIR: Final = Path("data/live_replay")
_MAX_ORDERS: Final = 200
_WIDTH: Final = 20


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What is replayed.

    Attributes:
        coin: such as BTC.
        candles: warm-up included, (n_bars,).
        first: the first candle that may be traded.
        settlements: times of funding, ms UTC, (n,).
        rates: its rates, (n,).
        rules: of the symbol.
    """

    coin: str
    candles: Candles
    first: int
    settlements: npt.NDArray[np.int64]
    rates: npt.NDArray[np.float64]
    rules: MarketRules

    @property
    def symbol(self) -> str:
        """Such as BTCUSDT."""
        return f"{self.coin}{QUOTE}"

    @property
    def n_traded(self) -> int:
        """How many candles may be traded."""
        return len(self.candles) - self.first


def run_replay(recording: Recording, params: StrategyParams) -> LiveSession:
    """Return the session after it has traded ``recording``; nothing is written.

    Raises:
        DataError: there is a hole in the candles, or nothing to trade.
    """
    symbol = recording.symbol
    facts = MarketFacts(
        symbol=symbol,
        rules=recording.rules,
        fee_maker=None,
        fee_taker=None,
        is_trading=True,
        max_orders=_MAX_ORDERS,
    )
    market = RecordedMarket(
        recording.candles, recording.settlements, recording.rates, params, facts
    )
    # The very first candle has none before it to decide on.
    bars = market.bars[max(1, recording.first) :]
    if not bars:
        raise DataError(f"{symbol}: there is no candle to trade; choose another --start or --end")
    clock, rates = ReplayClock(), FundingRates(market)
    session = LiveSession(
        create(params, recording.rules),
        OrderRegister(str(LIVE_CONFIG["instance"])),
        None,
        None,
        lambda _: None,
        bars[0] * BAR_MS,
    )
    broker = PaperBroker(session, market, market, rates)
    runner = LiveRunner(
        session=session,
        broker=broker,
        candles=market,
        rates=rates,
        monitor=HealthMonitor(symbol, Path(), LIVE_CONFIG, clock, AlertSender((), symbol)),
        log=None,
        clock=clock,
        stop=StopRequest(),
        settings=LIVE_CONFIG,
    )
    with tqdm(bars, desc=symbol, unit=" candles", leave=False, disable=None) as progress:
        replay(runner, broker, session, clock, progress)
    return session


def write_trades(recording: Recording, session: LiveSession, folder: Path) -> Path:
    """Write every trade of a replay, as a live session's trade file has them; return the file.

    Raises:
        StateError: it cannot be written.
    """
    path = folder / f"{recording.symbol}_replay_trades.csv"
    body = io.StringIO()
    rows = csv.DictWriter(body, TRADE_COLUMNS, lineterminator="\n")
    rows.writeheader()
    rows.writerows(trade.row() for trade in session.trades)
    write_atomically(path, body.getvalue().encode())
    return path


def report_text(recording: Recording, session: LiveSession) -> str:
    """Return what came of a replay; amounts in quote, fees and funding as a backtest shows them."""
    strategy, times = session.strategy, recording.candles["ts_ms"]
    capital, view = strategy.params.initial_capital, strategy.view()
    wallet = view.wallet
    traded = [trade for trade in session.trades if trade.qty > 0.0]  # a halt trades nothing
    n_entries = sum("OPEN" in trade.label for trade in traded)
    rows = {
        "Return": f"{number(100.0 * (wallet / capital - 1.0), 2, signed=True)} %",
        "Final equity": number(wallet, 2),
        "Trades": f"{len(traded):,}",
        "  entries": f"{n_entries:,}",
        "Round trips": f"{int(view.counters['round_trips']):,}",
        "Fees": number(view.counters["fees"], 2),
        "Funding": number(view.funding, 2),
    }
    start, end = int(times[recording.first]), int(times[-1]) + BAR_MS
    head = (
        f"{recording.coin} replayed: {utc_text(start)[:16]} to {utc_text(end)[:16]} UTC, "
        f"{recording.n_traded:,} candles of 15m, {capital:,.0f} {QUOTE}"
    )
    lines = [f"{name:<{_WIDTH}}{text:>12}" for name, text in rows.items()]
    return "\n".join(
        [head, "", *lines, "", *_notes(session), f"Decision code {strategy.fingerprint}"]
    )


def _notes(session: LiveSession) -> list[str]:
    """Return what explains figures that surprise."""
    view = session.strategy.view()
    notes = {
        "liquidated to 0; nothing was traded from then on": view.ended,
        f"for a time every order was under the exchange's minimum: {view.capital_needed:,.0f} "
        f"{QUOTE} would have done": view.too_small,
    }
    return [f"Note: {text}" for text, is_so in notes.items() if is_so]
