"""A dry run over recorded candles at full speed."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from tqdm import tqdm  # type: ignore[import-untyped]  # no stubs installed

from config import LIVE_CONFIG
from core.errors import DataError
from core.funding import merge_settlements
from core.market import MarketRules
from core.params import StrategyParams
from core.records import dtype_of
from core.signals import SignalArray, compute_signals
from core.text import number
from core.times import utc_text
from engine.contract import CLOSE_END, CloseAll, StrategySpec
from live.exchange.replies.account import QUOTE
from live.exchange.types import Candle, Candles, MarketFacts
from live.execution.books import LiveSession
from live.execution.order_register import OrderRegister
from live.execution.paper_broker import PaperBroker
from live.feed.candles import READY, nothing
from live.feed.funding_rates import FundingRates
from live.health.alerts import AlertSender
from live.health.events import Events
from live.health.logger import session_logger
from live.health.monitor import HealthMonitor
from live.session.runner import LiveRunner
from live.session.shutdown import StopRequest
from live.store.durable_file import write_atomically
from live.store.trade_files import RECORD_COLUMNS


class ReplayClock:
    """Time as the candles have it."""

    def __init__(self) -> None:
        self.time_ms = 0

    def now_ms(self) -> int:
        """Return the time, ms UTC."""
        return self.time_ms

    def sleep(self, seconds: float) -> None:
        """Let time go on at once."""
        self.time_ms += round(1e3 * seconds)


class RecordedMarket:
    """Recorded candles and settlements as a source of candles, signals and public data.

    Args:
        candles: without a hole, (n_bars,).
        settlements: times of funding, ms UTC, (n,).
        rates: its rates, (n,); holes are filled by the model, as in a backtest.
        params: periods and switches; None: no indicators are read.
        facts: rules of the symbol.
        bar_ms: length of a candle.

    Raises:
        DataError: there is a hole in the candles.
    """

    def __init__(
        self,
        candles: Candles,
        settlements: npt.NDArray[np.int64],
        rates: npt.NDArray[np.float64],
        params: StrategyParams | None,
        facts: MarketFacts,
        bar_ms: int,
    ) -> None:
        times = np.array(candles["ts_ms"])
        holes = np.flatnonzero(np.diff(times) != bar_ms)
        if holes.size:
            raise DataError(
                f"candles are missing after the one that opened at {int(times[holes[0]])} ms; a "
                "replay needs them without a hole: choose --start and --end around it"
            )
        self._candles, self._facts, self._bar_ms = candles, facts, bar_ms
        self._first = int(times[0]) // bar_ms
        self._signals: SignalArray | None = None
        if params is not None:
            self._signals = compute_signals(
                times,
                candles["high"],
                candles["low"],
                candles["close"],
                candles["volume"],
                params,
                bar_ms=bar_ms,
            )
        self._times, self._rates, _ = merge_settlements(
            times, np.array(candles["close"]), settlements, rates, bar_ms
        )

    @property
    def first_bar(self) -> int:
        """The oldest bar there is."""
        return self._first

    @property
    def bars(self) -> range:
        """Indices of the candles."""
        return range(self._first, self._first + len(self._candles))

    def update(
        self, bar: int, meanwhile: Callable[[], None] = nothing, *, oldest: int = -1
    ) -> None:
        """Nothing: every candle is there."""

    def signal(self, bar: int) -> Any:
        """Return the signal of ``bar``; it depends on nothing later."""
        return READY if self._signals is None else self._signals[bar - self._first]

    def candle(self, bar: int) -> Candle:
        """Return the candle of ``bar``; before the first the price stood at its open."""
        row: Candle = self._candles[max(0, bar - self._first)]
        if bar < self._first:
            row = row.copy()  # type: ignore[attr-defined]  # a record: see core.records
            row.ts_ms = bar * self._bar_ms
            row.high = row.low = row.close = row.open
        return row

    def read_market(self) -> MarketFacts:
        """Return the rules the replay was given."""
        return self._facts

    def closed_candles(self, start_ms: int, end_ms: int) -> Candles:
        """Return the candles that opened in ``[start_ms, end_ms)``."""
        first, last = np.searchsorted(self._candles["ts_ms"], [start_ms, end_ms])
        return self._candles[int(first) : int(last)]

    def opening_price(self, open_ms: int) -> float:
        """Return the open of the candle that opened at ``open_ms``."""
        return float(self.candle(open_ms // self._bar_ms).open)

    def last_price(self) -> float:
        """Return the last close there is."""
        return float(self._candles["close"][-1])

    def funding_rates(self, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
        """Return (time ms, rate) settled in ``[start_ms, end_ms]``."""
        inside = (self._times >= start_ms) & (self._times <= end_ms)
        times, rates = self._times[inside].tolist(), self._rates[inside].tolist()
        return list(zip(times, rates, strict=True))


def candle_table(columns: Any) -> Candles:
    """Return a table of ``Candle`` from columns timestamp, open, high, low, close, volume."""
    table = np.zeros(len(columns["timestamp"]), dtype_of(Candle))
    table["ts_ms"] = columns["timestamp"]
    for name in ("open", "high", "low", "close", "volume"):
        table[name] = columns[name]
    return table


def replay(
    runner: LiveRunner,
    broker: PaperBroker,
    session: LiveSession,
    clock: ReplayClock,
    bars: Iterable[int],
) -> None:
    """Run a session's steps over ``bars`` and close what is open at the last close.

    Args:
        runner: of the session, with the recorded market and this clock.
        broker: the runner's.
        session: the runner's.
        clock: moved on.
        bars: indices of successive candles.
    """
    bar = -1
    for bar in bars:
        clock.time_ms = bar * session.bar_ms
        runner.step(bar)
    if bar < 0:
        return
    clock.time_ms = (bar + 1) * session.bar_ms
    runner.settle(bar + 1)
    session.strategy.simulate(CloseAll(broker.last_close(bar), CLOSE_END))
    session.collect()
    session.save()


REPLAY_DIR: Final = Path("data/live_replay")
_MAX_ORDERS: Final = 200
_WIDTH: Final = 20


@dataclass(frozen=True, kw_only=True)
class Recording:
    """The data of a replay.

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


def run_replay(recording: Recording, spec: StrategySpec, params: Any) -> LiveSession:
    """Return the session of a strategy after it has traded ``recording``; nothing is written.

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
    strategy = spec.create(params, recording.rules)
    bar_ms = strategy.needs.bar_ms
    market = RecordedMarket(
        recording.candles,
        recording.settlements,
        recording.rates,
        params if strategy.needs.indicators else None,
        facts,
        bar_ms,
    )
    # The very first candle has none before it to decide on.
    bars = market.bars[max(1 if strategy.needs.indicators else 0, recording.first) :]
    if not bars:
        raise DataError(f"{symbol}: there is no candle to trade; choose another --start or --end")
    clock, rates, events = ReplayClock(), FundingRates(market), Events()
    session = LiveSession(
        strategy,
        OrderRegister(str(LIVE_CONFIG["instance"])),
        None,
        events,
        bars[0] * bar_ms,
        session_logger(symbol),
    )
    broker = PaperBroker(session, market, market, rates)
    runner = LiveRunner(
        session=session,
        broker=broker,
        candles=market,
        rates=rates,
        monitor=HealthMonitor(symbol, Path(), LIVE_CONFIG, clock, AlertSender((), symbol)),
        events=events,
        clock=clock,
        stop=StopRequest(),
        settings=LIVE_CONFIG,
    )
    with tqdm(bars, desc=symbol, unit=" candles", leave=False, disable=None) as progress:
        replay(runner, broker, session, clock, progress)
    return session


def write_trades(recording: Recording, session: LiveSession, folder: Path) -> Path:
    """Write every trade of a replay, as a live session's trade file has them; return the file.

    Nothing is executed at an exchange: there is no column for when that was.

    Raises:
        StateError: it cannot be written.
    """
    path = folder / f"{recording.symbol}_replay_trades.csv"
    body = io.StringIO()
    columns = RECORD_COLUMNS if not session.trades else session.trades[0].record_columns
    rows = csv.DictWriter(body, columns, lineterminator="\n", extrasaction="ignore")
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
    start, end = int(times[recording.first]), int(times[-1]) + session.bar_ms
    bar_name, _ = strategy.needs.bars or ("", 0)
    head = (
        f"{recording.coin} replayed: {utc_text(start)[:16]} to {utc_text(end)[:16]} UTC, "
        f"{recording.n_traded:,} candles of {bar_name}, {capital:,.0f} {QUOTE}"
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
