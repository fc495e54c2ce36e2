"""The run over candles: gap, step, walk, funding, equity."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.engine.fixed_grid_reference.bars import Bar, candle_length, read_rows, walked_bars
from tests.engine.fixed_grid_reference.ledger import Account, Moment
from tests.engine.fixed_grid_reference.market import Market
from tests.engine.fixed_grid_reference.matching import walk_candle, walk_gap
from tests.engine.fixed_grid_reference.metrics import StepLog, measure
from tests.engine.fixed_grid_reference.params import Params, check_market, load_warnings
from tests.engine.fixed_grid_reference.step import take_step

MINUTE_MS = 60_000

Observer = Callable[[Account, Moment], None]


@dataclass(frozen=True)
class ReferenceRun:
    """Outcome of a run; ``equity``, ``wallet`` have one value per walked bar, in quote."""

    params: Params
    bars: list[Bar]
    records: list[dict[str, Any]]
    equity: list[float]
    wallet: list[float]
    metrics: dict[str, float]
    blocked: dict[str, int]
    counters: dict[str, int]
    events: list[dict[str, Any]]
    warnings: list[str]
    funding: float
    stopped: bool
    """Whether ``stop_price`` ended the session (exit code 3)."""


class Settlements:
    """Funding settlements (ms, rate), floored to the minute, paid once each in order of time."""

    def __init__(self, funding: Sequence[tuple[int, float]], start_ms: int) -> None:
        floored = sorted((int(ms) // MINUTE_MS * MINUTE_MS, float(r)) for ms, r in funding)
        self.rows = [row for row in floored if row[0] > start_ms]
        self.next = 0

    def due(self, end_ms: int) -> list[float]:
        """Return the rates settled since the last call, up to ``end_ms`` inclusive."""
        rates = []
        while self.next < len(self.rows) and self.rows[self.next][0] <= end_ms:
            rates.append(self.rows[self.next][1])
            self.next += 1
        return rates


def run_fixed_grid(
    candles: Sequence[Sequence[Any]],
    params: Params | Mapping[str, Any],
    market: Market | Mapping[str, Any],
    funding: Sequence[tuple[int, float]] | None = None,
    *,
    quarter_candles: Sequence[Sequence[Any]] | None = None,
    observer: Observer | None = None,
) -> ReferenceRun:
    """Trade ``candles``, columns (timestamp ms, open, high, low, close, volume).

    Args:
        candles: no longer than a step; holes are allowed.
        params: partial mapping over the shipped values.
        market: ``tick_size step_size min_qty min_notional`` and, where known, ``liquidation_fee
            brackets``.
        funding: real settlements (ms, rate).
        quarter_candles: 15-minute candles for the holes, same columns.
        observer: called after every step with the account as it stands.

    Raises:
        ValueError: candles, parameters or their combination are not allowed.
    """
    settings = params if isinstance(params, Params) else Params.from_mapping(params)
    rules = market if isinstance(market, Market) else Market.from_mapping(market)
    rows = read_rows(candles)
    length_s = candle_length(rows, settings.step_s)
    quarters = read_rows(quarter_candles) if quarter_candles is not None else []
    bars = walked_bars(rows, length_s, settings.step_s, quarters)
    check_market(settings, rules, bars[0].open)
    account = Account(settings, rules, float(settings.initial_capital))
    account.counters["holes"] = sum(bar.is_hole for bar in bars)
    log = StepLog()
    equity, wallet = trade(
        account, bars, length_s, Settlements(funding or (), bars[0].ts_ms), log, observer
    )
    metrics = measure(account, log, bars, equity, length_s)
    return ReferenceRun(
        settings,
        bars,
        account.records,
        equity,
        wallet,
        metrics,
        account.blocked,
        account.counters,
        account.events,
        load_warnings(settings),
        account.funding,
        account.stopped,
    )


def trade(
    account: Account,
    bars: Sequence[Bar],
    length_s: int,
    settlements: Settlements,
    log: StepLog,
    observer: Observer | None,
) -> tuple[list[float], list[float]]:
    """Walk every bar; return equity and wallet at each close, in quote."""
    equity: list[float] = []
    wallet: list[float] = []
    now = Moment(0, 0, 0, 0.0)
    for i, bar in enumerate(bars):
        if not account.ended:
            now = moment_of(bar, i, now, account.params.step_s)
            if bar.begins_step:
                if i:
                    walk_gap(account, now, bars[i - 1].close)
                step(account, now, log, observer)
            if not account.ended:
                walk_candle(account, now, (bar.open, bar.high, bar.low, bar.close))
            end = bars[i + 1].ts_ms if i + 1 < len(bars) else end_of(bar, length_s)
            for rate in settlements.due(end):
                account.pay_funding(bar.close, rate)
        log.had_position.append(bool(account.positions))
        if i == len(bars) - 1:
            log.note_end(account, bar.close)
            close_end(account, now, bar.close)
        value = account.equity(bar.close)
        equity.append(0.0 if account.ended else value)
        wallet.append(account.wallet)
    return equity, wallet


def moment_of(bar: Bar, index: int, before: Moment, step_s: int) -> Moment:
    """Return what a candle's events are dated with; ``p`` stays between steps."""
    seconds = bar.ts_ms // 1000
    price = bar.open if bar.begins_step else before.price
    return Moment(seconds - seconds % step_s, index, bar.ts_ms, price)


def end_of(bar: Bar, length_s: int) -> int:
    """Return when the last candle closes, in ms."""
    return bar.ts_ms + (900_000 if bar.is_hole else length_s * 1000)


def step(account: Account, now: Moment, log: StepLog, observer: Observer | None) -> None:
    """Take a step and note what the metrics need of it."""
    if account.ended:
        return
    take_step(account, now)
    log.note_step(account)
    if observer is not None:
        observer(account, now)


def close_end(account: Account, now: Moment, close: float) -> None:
    """Close what is open at market at the last close, worst first, of each the long leg first."""
    end = Moment(now.step_s, now.bar, now.ts_ms, close)
    for position in list(account.positions):
        account.market_close_both(end, position, "CLOSE_END")
    account.working = None
