"""The short grid over recorded sessions: a run for each model of the queue, and its figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from backtest.ticks.files import Events
from backtest.ticks.rules import sound_books
from core.recording import MS_NS, SECOND_NS
from engine.short_grid.gates import AddGate, Gate
from engine.short_grid.params import ShortGridParams
from engine.short_grid.session import TickRun, exchange_order
from engine.short_grid.slots import ENTRY, EXIT, STOP, STOP_NEXT, TAKE_PROFIT
from engine.short_grid.types import E8, ExitReason, Rules
from engine.short_grid.venue import QueueModel

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figures = dict[str, Any]

MARKOUT_S: Final = (1, 5, 30, 300)
"""Seconds after an entry's fill at which the mid is compared with its price."""
BEST_SHARE: Final = 0.01
"""Round trips whose share of the profit is said."""


@dataclass(frozen=True)
class Latency:
    """How long messages are under way, ms: to the exchange, reports back, market data."""

    up: float = 5.0
    down: float = 5.0
    feed: float = 5.0


@dataclass(frozen=True, eq=False)
class Recording:
    """The events of one session and what they are about.

    Attributes:
        name: of the session, as people read it.
        symbols: index -> symbol.
        events: in their total order.
        rules: by the same index.
        notes: findings in its files, and how the rules are known.
    """

    name: str
    symbols: tuple[str, ...]
    events: Events
    rules: Sequence[Rules]
    notes: Sequence[str] = ()

    @cached_property
    def mids(self) -> list[tuple[Ints, Floats]]:
        """When the mid of each symbol changed, ns, and what it was; of books that can be used."""
        found = []
        for index in range(len(self.rules)):
            books = sound_books(self.events, index)
            found.append((books["t_ns"], (books["price"] + books["price2"]) / 2.0))
        return found


@dataclass(frozen=True, eq=False)
class TickOutcome:
    """One recording run with one model of the queue.

    Attributes:
        fills: table of ``engine.short_grid.session.TickFill``, times ns.
        account: table of ``TickRow``, one a second.
        funnel: steps at which a gate was the first to fail, by name; entries and adds.
        counts: orders, refusals, reports; see ``_counts``.
        net_usd: realised, what is open at the end bought back at the ask with the taker fee.
        closing_fee_usd: taker fee of buying back what is open at the end, quote.
        funding_usd: received.
        debt_usd: recovery debt at the end.
        halted: what had ended entries by the end, '' if nothing.
    """

    fills: Any
    account: Any
    funnel: Mapping[str, Mapping[str, int]]
    counts: Mapping[str, int]
    net_usd: float
    closing_fee_usd: float
    funding_usd: float
    debt_usd: float
    halted: str


@dataclass(frozen=True, eq=False)
class TickResult:
    """All recordings, run with every model asked for.

    Attributes:
        recordings: what was read.
        outcomes: by model, in the order of the recordings.
        figures: by model, see ``figures_of``.
        params: of the strategy.
        latency: of messages.
    """

    recordings: Sequence[Recording]
    outcomes: Mapping[QueueModel, Sequence[TickOutcome]]
    figures: Mapping[QueueModel, Figures]
    params: ShortGridParams
    latency: Latency
    notices: list[str] = field(default_factory=list)

    @property
    def headline(self) -> QueueModel:
        """The model whose figures stand first: the most pessimistic that was run."""
        return min(self.outcomes)

    @property
    def verdict(self) -> str:
        """``gain``, ``loss``, ``nothing`` or, where the models disagree in sign, ``undecided``."""
        nets = [figures["net_usd"] for figures in self.figures.values()]
        if all(net == 0.0 for net in nets):
            return "nothing"
        if min(nets) > 0.0:
            return "gain"
        return "loss" if max(nets) < 0.0 else "undecided"


def run_recording(
    recording: Recording,
    params: ShortGridParams,
    model: QueueModel,
    latency: Latency,
    timeline: tuple[Ints, Ints],
) -> TickOutcome:
    """Run one recording with one model of the queue.

    Args:
        recording: what happened.
        params: of the strategy.
        model: of the queue.
        latency: of messages.
        timeline: when events happen at the exchange, the same for every model.

    Raises:
        DataError: more messages were under way than there is room for.
    """
    run = TickRun(
        recording.events,
        recording.rules,
        params,
        model,
        up_ns=round(latency.up * MS_NS),
        down_ns=round(latency.down * MS_NS),
        timeline=timeline,
    )
    run.advance()
    realized, debt, closing_fees = int(run.portfolio.realized_e8), 0, 0
    for state in run.symbols:
        ledger = state.ledger
        debt += int(ledger.debt_in_e8 - ledger.debt_paid_e8 - ledger.debt_forgiven_e8)
        gain, fee = _closing_e8(state)
        realized, closing_fees = realized + gain - fee, closing_fees + fee
    return TickOutcome(
        fills=run.fills,
        account=run.account.copy(),
        funnel={
            "entry": _gates(run.funnels, "entry", Gate),
            "add": _gates(run.funnels, "add", AddGate),
        },
        counts=_counts(run),
        net_usd=realized / E8,
        closing_fee_usd=closing_fees / E8,
        funding_usd=sum(int(state.ledger.funding_e8) for state in run.symbols) / E8,
        debt_usd=debt / E8,
        halted=_halted(run.portfolio),
    )


def run_recordings(
    recordings: Sequence[Recording],
    params: ShortGridParams,
    models: Sequence[QueueModel],
    latency: Latency,
    *,
    jobs: int = 2,
    done: Callable[[], None] = lambda: None,
) -> TickResult:
    """Run every recording with every model; each recording begins without a position.

    Args:
        recordings: at least one.
        params: of the strategy.
        models: at least one.
        latency: of messages.
        jobs: runs at a time; results do not depend on it.
        done: called after each run.
    """
    feed_ns = round(latency.feed * MS_NS)
    timelines = [exchange_order(recording.events, feed_ns) for recording in recordings]
    tasks = [(model, k) for model in models for k in range(len(recordings))]

    def work(task: tuple[QueueModel, int]) -> TickOutcome:
        model, k = task
        outcome = run_recording(recordings[k], params, model, latency, timelines[k])
        done()
        return outcome

    pool = ThreadPoolExecutor(max(jobs, 1))
    try:
        found = list(pool.map(work, tasks))
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    size = len(recordings)
    outcomes = {model: found[k * size : (k + 1) * size] for k, model in enumerate(models)}
    return TickResult(
        recordings,
        outcomes,
        {model: figures_of(recordings, runs) for model, runs in outcomes.items()},
        params,
        latency,
    )


def _closing_e8(state: Any) -> tuple[int, int]:
    """Return gain and taker fee of buying back everything held at the ask, 1e-8 quote."""
    ledger, rules = state.ledger, state.rules
    if ledger.steps == 0:
        return 0, 0
    ask = round(float(state.observed.feed.ask) / float(rules.tick_size))
    value = int(ledger.steps) * ask * int(rules.unit_e8)
    return int(ledger.cost_e8) - value, math.ceil(value * float(rules.fee_taker) * 1e-4)


def _gates(funnels: Any, name: str, gates: type[IntEnum]) -> dict[str, int]:
    sums = np.sum(np.asarray(funnels)[name], axis=0)
    counted = {gate.name.lower(): int(sums[gate]) for gate in gates}
    return {**counted, "passed": int(sums[len(gates)])}


def _counts(run: TickRun) -> dict[str, int]:
    """Return orders sent, refused and filled, and reports that did not fit what was known."""
    fills = run.fills
    entries = fills[fills["slot"] == ENTRY]
    return {
        "steps": int(run.progress.step - run.first_step),
        "events": len(run.events),
        "commands": int(run.venue.n_commands),
        "orders": int(sum(int(state.next_order) for state in run.symbols)),
        "entries": sum(int(place.entries) for place in run.places),
        "entries_refused": sum(int(place.entries_refused) for place in run.places),
        "entries_filled": len(np.unique(entries[["symbol", "order"]])),
        "stops": sum(int(state.n_stops) for state in run.symbols),
        "unexpected_reports": sum(int(state.illegal_reports) for state in run.symbols),
    }


def _halted(portfolio: Any) -> str:
    if portfolio.ended:
        return "the total loss limit was reached: everything was closed for good"
    if portfolio.halted:
        return "the day's loss limit was reached: everything was closed, entries stayed off"
    return "the day's limit of fees was reached: entries were off" if portfolio.fees_over else ""


# --- figures --------------------------------------------------------------------------------------


def figures_of(recordings: Sequence[Recording], outcomes: Sequence[TickOutcome]) -> Figures:
    """Return the figures of all recordings under one model.

    Money in quote. Means come as ``{"mean": ..., "error": ..., "n": ...}``, ``error`` being the
    standard error (NaN of fewer than two).
    """
    trips = [trip for outcome in outcomes for trip in round_trips(outcome.fills)]
    closes = np.concatenate([outcome.fills[outcome.fills["slot"] != ENTRY] for outcome in outcomes])
    fills = np.concatenate([outcome.fills for outcome in outcomes])
    turnover = sum(
        _notional(recording, outcome.fills)
        for recording, outcome in zip(recordings, outcomes, strict=True)
    )
    fees = float(fills["fee_e8"].sum()) / E8
    fees += sum(outcome.closing_fee_usd for outcome in outcomes)
    funding = sum(outcome.funding_usd for outcome in outcomes)
    net = sum(outcome.net_usd for outcome in outcomes)
    counts = _sum([outcome.counts for outcome in outcomes])
    hours = sum(float(outcome.account["exposure_e8"].sum()) / E8 / 3_600.0 for outcome in outcomes)
    return {
        "net_usd": net,
        "gross_usd": net + fees - funding,
        "fees_usd": fees,
        "funding_usd": funding,
        "net_per_1000_usd": 1e3 * net / turnover if turnover else math.nan,
        "turnover_usd": turnover,
        "worst_open_loss_usd": min(
            (
                float(outcome.account["open_e8"].min()) / E8
                for outcome in outcomes
                if len(outcome.account)
            ),
            default=0.0,
        ),
        "usd_hours": hours,
        "round_trips": len(trips),
        "won": sum(trip["net"] > 0.0 for trip in trips),
        "longest_losing_streak": _losing_streak(trips),
        "best_trips_share": _best_share(trips),
        "holding_s": mean_of([trip["seconds"] for trip in trips]),
        "layers": _histogram([trip["layers"] for trip in trips]),
        "exits": _by_reason(closes),
        "markouts_bps": markouts(recordings, outcomes),
        "exit_slippage_bps": mean_of(_slippages(recordings, outcomes)),
        "fill_ratio": counts["entries_filled"] / counts["entries"]
        if counts["entries"]
        else math.nan,
        "time_to_fill_s": mean_of(
            [
                (int(fill["t_ns"]) - int(fill["placed_ns"])) / SECOND_NS
                for fill in fills[(fills["slot"] == ENTRY) & (fills["placed_ns"] > 0)]
            ]
        ),
        "funnel": {
            kind: _sum([outcome.funnel[kind] for outcome in outcomes]) for kind in ("entry", "add")
        },
        "debt_usd": sum(outcome.debt_usd for outcome in outcomes),
        "counts": counts,
    }


def mean_of(values: Sequence[float]) -> dict[str, float]:
    """Return mean, standard error and number of ``values``; NaN where there are too few."""
    found = np.asarray(values, dtype=np.float64)
    spread = float(found.std(ddof=1)) / math.sqrt(found.size) if found.size > 1 else math.nan
    return {
        "mean": float(found.mean()) if found.size else math.nan,
        "error": spread,
        "n": int(found.size),
    }


def round_trips(fills: Any) -> list[dict[str, Any]]:
    """Return each symbol's ways from flat to flat.

    ``net`` in quote with the fees of both ways, without funding; ``seconds`` from the first fill
    to the last; the most ``layers`` it had. One that is open at the end is not among them.
    """
    trips: list[dict[str, Any]] = []
    for symbol in np.unique(fills["symbol"]):
        begun, net, layers = -1, 0, 0
        for fill in fills[fills["symbol"] == symbol]:
            if begun < 0:
                begun = int(fill["t_ns"])
            net += int(fill["net_e8"])  # of a close: its share of the entries' fees included
            layers = max(layers, int(fill["layers"]))
            if fill["held"] == 0:
                seconds = (int(fill["t_ns"]) - begun) / SECOND_NS
                trips.append(
                    {"symbol": int(symbol), "net": net / E8, "seconds": seconds, "layers": layers}
                )
                begun, net, layers = -1, 0, 0
    return trips


def reason_of(fill: Any) -> str:
    """Return why a fill closed: by a resting take-profit, the stop, or the exit path's reason."""
    slot = int(fill["slot"])
    if slot >= TAKE_PROFIT:
        return "take_profit" if slot == TAKE_PROFIT else "ladder"
    if slot in (STOP, STOP_NEXT):
        return "stop_order"
    return ExitReason(int(fill["reason"])).name.lower() if slot == EXIT else "entry"


def _by_reason(closes: Any) -> dict[str, dict[str, float]]:
    found: dict[str, list[float]] = {}
    for fill in closes:
        found.setdefault(reason_of(fill), []).append(int(fill["net_e8"]) / E8)
    return {
        reason: {**mean_of(nets), "net_usd": math.fsum(nets)}
        for reason, nets in sorted(found.items())
    }


def markouts(
    recordings: Sequence[Recording], outcomes: Sequence[TickOutcome]
) -> dict[str, dict[str, float]]:
    """Return how far the mid had fallen (positive: for us) after an entry's fill, bps.

    A fill whose time after it is not recorded does not count.
    """
    found: dict[int, list[float]] = {seconds: [] for seconds in MARKOUT_S}
    for recording, outcome in zip(recordings, outcomes, strict=True):
        entries = outcome.fills[outcome.fills["slot"] == ENTRY]
        for index, rules in enumerate(recording.rules):
            own = entries[entries["symbol"] == index]
            if not len(own):
                continue
            times, mids = recording.mids[index]
            prices = own["ticks"] * float(rules.tick_size)
            for seconds in MARKOUT_S:
                later = own["t_ns"] + seconds * SECOND_NS
                row = np.searchsorted(times, later, side="right") - 1
                known = (row >= 0) & (later <= times[-1])
                found[seconds] += list((1.0 - mids[row[known]] / prices[known]) * 1e4)
    return {str(seconds): mean_of(values) for seconds, values in found.items()}


def _slippages(recordings: Sequence[Recording], outcomes: Sequence[TickOutcome]) -> list[float]:
    """Return how far above the mid exits were bought that took liquidity, bps."""
    found: list[float] = []
    for recording, outcome in zip(recordings, outcomes, strict=True):
        ticks = np.array([float(rules.tick_size) for rules in recording.rules])
        taken = outcome.fills[(outcome.fills["slot"] == EXIT) | (outcome.fills["slot"] == STOP)]
        known = taken[taken["mid"] > 0.0]
        found += list((known["ticks"] * ticks[known["symbol"]] / known["mid"] - 1.0) * 1e4)
    return found


def _notional(recording: Recording, fills: Any) -> float:
    units = np.array([int(rules.unit_e8) for rules in recording.rules], dtype=np.int64)
    return float((fills["ticks"] * fills["steps"] * units[fills["symbol"]]).sum()) / E8


def _sum(parts: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for name, count in part.items():
            total[name] = total.get(name, 0) + count
    return total


def _histogram(values: Sequence[int]) -> dict[str, int]:
    return {str(value): values.count(value) for value in sorted(set(values))}


def _losing_streak(trips: Sequence[Mapping[str, Any]]) -> int:
    longest = running = 0
    for trip in trips:
        running = running + 1 if trip["net"] < 0.0 else 0
        longest = max(longest, running)
    return longest


def _best_share(trips: Sequence[Mapping[str, Any]]) -> float:
    """Return what share of all gains the best hundredth of round trips made; NaN without gains."""
    gains = sorted((trip["net"] for trip in trips if trip["net"] > 0.0), reverse=True)
    if not gains:
        return math.nan
    best = gains[: max(math.ceil(BEST_SHARE * len(trips)), 1)]
    return math.fsum(best) / math.fsum(gains)
