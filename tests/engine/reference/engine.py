"""The eleven steps of every bar, in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.engine.reference.arrange import arrange
from tests.engine.reference.ledger import MS_PER_DAY, Account, Step
from tests.engine.reference.market import BOTH_SIDES, DIRECTION, Market
from tests.engine.reference.matching import Candle, walk_bar, walk_gap
from tests.engine.reference.protection import protect

BAR_MS = 15 * 60 * 1000

Bar = tuple[int, float, float, float, float]
"""Open time in ms, open, high, low, close."""


@dataclass(frozen=True)
class ReferenceResult:
    """Outcome of a run; ``equity`` and ``wallet`` have one value per bar, in quote."""

    trades: list[dict[str, Any]]
    equity: list[float]
    wallet: list[float]
    counters: dict[str, int]
    steps: dict[int, dict[str, Any]]

    def trace(self, bar: int) -> dict[str, Any]:
        """Return what rested after step 8 of ``bar`` (run with ``keep_trace=True``).

        Keys: ``entries`` (level, price, qty), ``take_profits`` (price, qty), ``wick_stops``,
        ``generations`` by direction, and the scalars of the step.

        Raises:
            KeyError: the step did not act, the run had ended, or no trace was kept.
        """
        return self.steps[bar]


class FundingCalendar:
    """Real settlements, sorted by time: (ms, rate)."""

    def __init__(self, settlements: Sequence[tuple[int, float]]) -> None:
        self.settlements = sorted(settlements)
        self.known = 0
        """How many settlements are at or before the last time asked for."""

    def known_rate(self, ts_ms: int) -> float:
        """Return the last settled rate at ``ts_ms``; 0 if none in the last 24 hours."""
        while self.known < len(self.settlements) and self.settlements[self.known][0] <= ts_ms:
            self.known += 1
        if self.known == 0:
            return 0.0
        settled, rate = self.settlements[self.known - 1]
        return rate if ts_ms - settled <= MS_PER_DAY else 0.0

    def due(self, end_ms: int) -> list[float]:
        """Return the rates settled after the last ``known_rate`` time, up to ``end_ms``."""
        rates = []
        upcoming = self.known
        while upcoming < len(self.settlements) and self.settlements[upcoming][0] <= end_ms:
            rates.append(self.settlements[upcoming][1])
            upcoming += 1
        return rates


def run_reference(
    bars: Sequence[Bar],
    signals: Sequence[Mapping[str, Any]],
    params: Mapping[str, Any],
    market: Mapping[str, Any],
    first_bar: int = 0,
    funding: Sequence[tuple[int, float]] = (),
    detail: Mapping[int, Sequence[Candle]] | None = None,
    *,
    keep_trace: bool = False,
) -> ReferenceResult:
    """Trade ``bars`` from ``first_bar`` on; step ``i`` reads ``signals[i - 1]`` and ``O_i``.

    Args:
        bars: candles in order of time; may have gaps.
        signals: per bar ``er kama atr adx z sigma atr_mean volume_ratio regime ready``.
        params: plain values of every strategy parameter, already validated.
        market: ``tick_size step_size min_qty min_notional liquidation_fee brackets``.
        first_bar: no step before it acts.
        funding: settlements (ms, rate).
        detail: bar -> its sub-bars (open, high, low, close); other bars are walked whole.
        keep_trace: keep every step's desired orders for ``ReferenceResult.trace``.
    """
    account = Account(params, Market.from_dict(market), float(params["initial_capital"]))
    calendar = FundingCalendar(funding)
    result = ReferenceResult(account.trades, [], [], account.counters, {})
    step: Step | None = None
    for i in range(len(bars)):
        if i >= max(1, first_bar) and signals[i - 1]["ready"] and not account.ended:
            step = read_step(params, bars, signals, calendar, i)
            decide(account, step, result.steps if keep_trace else None)
            match(account, step, bars[i], (detail or {}).get(i, ()))
            end = bars[i + 1][0] if i + 1 < len(bars) else bars[i][0] + BAR_MS
            if params["funding_enabled"]:
                for rate in calendar.due(end):
                    account.pay_funding(bars[i][4], rate)
        if i == len(bars) - 1 and step is not None:
            close_end(account, step, bars[i][4])
        log_equity(account, result, bars[i][4])
    return result


def read_step(
    params: Mapping[str, Any],
    bars: Sequence[Bar],
    signals: Sequence[Mapping[str, Any]],
    calendar: FundingCalendar,
    i: int,
) -> Step:
    """Collect what step ``i`` knows."""
    signal = signals[i - 1]
    active = signal["regime"] > 0 and signal["er"] > params["trailing_activation_er"]
    return Step(
        bar=i,
        ts_ms=bars[i][0],
        price=bars[i][1],
        last_close=bars[i - 1][4],
        signal=signal,
        funding_rate=calendar.known_rate(bars[i][0]),
        trailing_active=bool(params["trailing_enabled"] and active),
    )


def decide(account: Account, step: Step, traces: dict[int, dict[str, Any]] | None) -> None:
    """Steps 0 to 8."""
    account.begin_day(step.ts_ms)
    walk_gap(account, step, step.last_close)
    liquidated = protect(account, step)
    if account.ended:
        return
    arrange(account, step, may_place=not liquidated)
    if traces is not None:
        traces[step.bar] = snapshot(account, step)


def match(account: Account, step: Step, bar: Bar, sub_bars: Sequence[Candle]) -> None:
    """Step 9."""
    if not account.ended:
        walk_bar(account, step, list(sub_bars) or [bar[1:]])


def close_end(account: Account, step: Step, close: float) -> None:
    """Close what is open at the end like a market exit at the last close."""
    for sign in BOTH_SIDES:
        parts = [(fill, fill.lots) for fill in account.sides[sign].worst_first()]
        account.close_at_market(step, parts, close, "CLOSE_END")


def log_equity(account: Account, result: ReferenceResult, mark: float) -> None:
    """Step 11; a run that has ended stays flat and never under 0."""
    equity = account.equity(mark)
    result.equity.append(max(0.0, equity) if account.ended else equity)
    result.wallet.append(account.wallet)


def snapshot(account: Account, step: Step) -> dict[str, Any]:
    """Describe the orders and the state after step 8."""
    market = account.market
    dump: dict[str, Any] = {
        "bar": step.bar,
        "price": step.price,
        "regime": step.regime,
        "halted": account.halted,
        "funding_rate": step.funding_rate,
        "equity": account.equity(step.price),
        "wallet": account.wallet,
        "entries": {},
        "take_profits": {},
        "wick_stops": {},
        "generations": {},
        "fills": {},
    }
    for sign, name in DIRECTION.items():
        side = account.sides[sign]
        dump["entries"][name] = [(e.level, e.price, market.qty(e.lots)) for e in side.entries]
        dump["take_profits"][name] = [(o.price, market.qty(o.lots)) for o in side.take_profits]
        dump["wick_stops"][name] = side.stop
        dump["generations"][name] = side.generation
        dump["fills"][name] = [(f.fill_id, f.price, market.qty(f.lots)) for f in side.fills]
    return dump
