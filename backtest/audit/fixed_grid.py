"""Rebuilds a run of the fixed grid from its trade records and the candles, without the engine.

Every record: could this have happened at this price and time, is its money right, were distance,
size and caps kept? Then the account and the figures that follow. Nothing comes from ``engine``.
"""

from __future__ import annotations

import csv
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.audit.files import Finding, Summary, read_text
from backtest.market.market_data import MarketData
from core.times import MINUTE_MS

QUARTER_MS: Final = 15 * MINUTE_MS
EPOCH_2020_S: Final = 1_577_836_800
RELATIVE: Final = 1e-9
ABSOLUTE: Final = 1e-6
COLUMNS: Final = (
    "bar",
    "timestamp",
    "datetime",
    "price",
    "qty",
    "label",
    "regime",
    "pnl",
    "fee",
    "direction",
    "fill_id",
    "cycle",
    "slot",
)
WHOLE: Final = ("bar", "timestamp", "fill_id", "cycle", "slot")
NUMBERS: Final = ("price", "qty", "pnl", "fee")
ENTRIES: Final = {"BUY_OPEN_LONG": "LONG", "SELL_OPEN_SHORT": "SHORT"}
LIMITS: Final = {*ENTRIES, "SELL_CLOSE_LONG", "BUY_CLOSE_SHORT", "RECOVERY_LADDER"}
AT_OPEN: Final = {
    "RECOVERY_CLOSE",
    "RECOVERY_HEDGE_OPEN",
    "RECOVERY_HEDGE_CLOSE",
    "RECOVERY_ESCALATION",
    "STOP_PRICE",
}
STOPS: Final = {"STOP_LONG", "STOP_SHORT"}
LABELS: Final = {*LIMITS, *AT_OPEN, *STOPS, "LIQUIDATION", "CLOSE_END"}
OPENING: Final = {*ENTRIES, "RECOVERY_HEDGE_OPEN"}
FIXED_NOT_CHECKED: Final = (
    "whether an order was due at all, cooldown, and which of several gates kept one back",
    "what became stuck and when it was recovered, health and margin of steps without a record",
    "changed_parameters, bands, notices, program_version, code_fingerprint, report and charts",
)

Reason = tuple[str, str]
"""The fault, and what is expected instead."""


@dataclass
class Leg:
    """One side of a cycle that is open."""

    sign: float
    price: float
    lots: int
    row: Mapping[str, Any]


@dataclass
class Candles:
    """The candles walked, each array (n_bars,)."""

    ts_ms: Any
    open: Any
    high: Any
    low: Any
    close: Any


def walked(market: MarketData) -> Candles:
    """Return the candles; an interval of 15 minutes with missing ones is one candle."""
    frame, length = market.candles, market.bar_ms
    quarter = (frame["timestamp"] // QUARTER_MS).to_numpy()
    count = np.unique(quarter, return_inverse=True, return_counts=True)
    whole = (count[2] * length == QUARTER_MS)[count[1]]
    key = np.where(whole, frame["timestamp"].to_numpy(), quarter * QUARTER_MS)
    groups = frame.groupby(key).agg(
        open=("open", "first"), high=("high", "max"), low=("low", "min"), close=("close", "last")
    )
    columns = {name: groups[name].to_numpy() for name in ("open", "high", "low", "close")}
    return Candles(groups.index.to_numpy(), **columns)


@dataclass
class FixedAudit:
    """One run's records against its candles."""

    summary: Summary
    market: MarketData
    candles: Candles = field(init=False)
    legs: dict[int, Leg] = field(default_factory=dict)
    wallet: float = 0.0
    funding: float = 0.0
    fees: float = 0.0
    traded: float = 0.0
    nets: dict[int, float] = field(default_factory=dict)
    settled: int = 0
    checked: int = 0

    def __post_init__(self) -> None:
        """Read rules and parameters."""
        self.candles = walked(self.market)
        self.wallet = float(self.summary.parameters["initial_capital"])
        self.sign = 1.0 if self.summary.parameters["direction"] == "buy" else -1.0
        rates = self.market.funding
        times = (rates["timestamp"] // MINUTE_MS * MINUTE_MS).tolist()
        first = int(self.candles.ts_ms[0])
        self._due = [
            row for row in zip(times, rates["rate"].tolist(), strict=True) if row[0] > first
        ]
        self._charged = bool(self.summary.parameters["funding_enabled"])

    def run(self, path: Path) -> Finding | None:
        """Return the first thing that is wrong, None if nothing is."""
        lines = read_text(path).splitlines()
        if not lines or lines[0] != ",".join(COLUMNS):
            found = lines[0] if lines else ""
            return Finding("header (line 1)", found, "the columns are others", ",".join(COLUMNS))
        before = 0
        for number, cells in enumerate(csv.reader(lines[1:]), start=1):
            place, text = f"row {number} (line {number + 1})", ",".join(cells)
            row = _read(cells)
            if row is None:
                return Finding(place, text, "a cell is no number", "numbers", number)
            reason = self._reason(row, before)
            if reason is not None:
                return Finding(place, text, *reason, number)
            before, self.checked = row["bar"], number
        self._settle(len(self.candles.ts_ms))
        if self.legs:
            left = next(iter(self.legs.values()))
            return Finding(
                f"cycle {left.row['cycle']}", str(left.row), "it is never closed", "CLOSE_END"
            )
        return None

    def _reason(self, row: Mapping[str, Any], before: int) -> Reason | None:
        reason = self._time(row, before) or self._price(row)
        if reason is not None:
            return reason
        self._settle(row["bar"] + (row["label"] == "CLOSE_END"))
        reason = self._open(row) if row["label"] in OPENING else self._close(row)
        reason = reason or self._fee(row)
        if reason is None:
            self._book(row)
        return reason

    def _time(self, row: Mapping[str, Any], before: int) -> Reason | None:
        bar, n = row["bar"], len(self.candles.ts_ms)
        if not before <= bar < n:
            return f"bar is {bar}", f"a bar from {before} to {n - 1}"
        if row["timestamp"] != self.candles.ts_ms[bar]:
            return f"timestamp is {row['timestamp']}", f"{self.candles.ts_ms[bar]}, the bar's open"
        if row["label"] not in LABELS:
            return f"label is {row['label']!r}", "a label of the fixed grid"
        if row["label"] == "CLOSE_END" and bar != n - 1:
            return "closed for the end before it", f"bar {n - 1}"
        return None

    def _price(self, row: Mapping[str, Any]) -> Reason | None:
        bar, label, price = row["bar"], row["label"], row["price"]
        came = float(self.candles.close[max(bar - 1, 0)])
        low = min(float(self.candles.low[bar]), came)
        high = max(float(self.candles.high[bar]), came)
        tick = float(self.summary.market["tick_size"])
        if label != "LIQUIDATION" and abs(price / tick - round(price / tick)) > ABSOLUTE:
            return f"price {price!r} is off the tick", f"a multiple of {tick:g}"
        room = self._room(price, tick) if label in LIMITS else 0.0
        if label in LIMITS or label == "LIQUIDATION":
            if not low - room <= price <= high + room:
                return f"price {price!r} is off the bar's path", f"{low:g} to {high:g}"
            return None
        sells = (row["direction"] == "LONG") != (label == "RECOVERY_HEDGE_OPEN")
        if label in STOPS:
            least, most = self._slipped(low, tick, sells), self._slipped(high, tick, sells)
        else:
            basis = self.candles.close[bar] if label == "CLOSE_END" else self.candles.open[bar]
            least = most = self._slipped(float(basis), tick, sells)
        if not least - ABSOLUTE * tick <= price <= most + ABSOLUTE * tick:
            return f"price is {price!r}", f"{least:g} to {most:g}, with slippage"
        return None

    def _room(self, price: float, tick: float) -> float:
        """Return how far beyond its limit the path must have been: there it fills at the limit."""
        parameters = self.summary.parameters
        share = float(parameters["fill_through_bps"]) / 1e4
        return share * price + float(parameters["fill_through_ticks"]) * tick + RELATIVE * price

    def _slipped(self, price: float, tick: float, sells: bool) -> float:
        share = float(self.summary.parameters["slippage"])
        if sells:
            return math.floor(price * (1.0 - share) / tick + RELATIVE) * tick
        return math.ceil(price * (1.0 + share) / tick - RELATIVE) * tick

    def _lots(self, qty: float) -> int:
        return round(qty / float(self.summary.market["step_size"]))

    def _open(self, row: Mapping[str, Any]) -> Reason | None:
        own = row["label"] in ENTRIES
        wanted = self.sign if own else -self.sign
        direction = "LONG" if wanted > 0 else "SHORT"
        if row["direction"] != direction or row["pnl"] != 0.0:
            return f"{row['direction']} with pnl {row['pnl']!r}", f"{direction} with pnl 0"
        if row["fill_id"] in self.legs:
            return f"fill {row['fill_id']} is open already", "a new fill_id"
        reason = self._entry(row) if own else self._hedge(row)
        leg = Leg(wanted, row["price"], self._lots(row["qty"]), row)
        self.legs[row["fill_id"]] = leg
        return reason or self._caps()

    def _entry(self, row: Mapping[str, Any]) -> Reason | None:
        parameters, price = self.summary.parameters, row["price"]
        step = 1.0 + float(parameters["grid_step"])
        for leg in self._own():
            nearest = leg.price / step if self.sign > 0 else leg.price * step
            if self.sign * (price - nearest) > RELATIVE * price:
                return f"entry {price:g} is nearer than grid_step to {leg.price:g}", f"{nearest:g}"
            if leg.row["slot"] == row["slot"]:
                return f"slot {row['slot']} is taken", "a free slot"
        lot = float(self.summary.market["step_size"])
        wanted = float(parameters["quantity"]) or float(parameters["quantity_usd"]) / price
        lots = math.floor(wanted / lot + RELATIVE)
        if self._lots(row["qty"]) != lots:
            return f"qty is {row['qty']!r}", f"{lots} lots of {lot:g}"
        step_s = int(parameters["step_s"])
        latest = row["timestamp"] // 1000 // step_s * step_s - EPOCH_2020_S
        if row["cycle"] > latest or row["cycle"] in self.nets:
            return f"cycle is {row['cycle']}", f"a new one, at most {latest}"
        return None

    def _hedge(self, row: Mapping[str, Any]) -> Reason | None:
        for leg in self._own():
            if leg.row["cycle"] == row["cycle"] and leg.lots == self._lots(row["qty"]):
                return None
        return f"the hedge of cycle {row['cycle']} fits no position", "one of its quantity"

    def _own(self) -> list[Leg]:
        return [leg for leg in self.legs.values() if leg.sign == self.sign]

    def _caps(self) -> Reason | None:
        parameters, lot = self.summary.parameters, float(self.summary.market["step_size"])
        used = sum(leg.price * leg.lots * lot for leg in self.legs.values())
        used /= float(parameters["leverage"])
        if used > float(parameters["max_margin_usd"]) * (1.0 + RELATIVE):
            return f"margin is {used:.6g}", f"at most {parameters['max_margin_usd']:g}"
        own = self._own()
        if len(own) > int(parameters["max_orders"]):
            return f"{len(own)} positions", f"at most {parameters['max_orders']}"
        size, limit = sum(leg.lots for leg in own) * lot, float(parameters["max_position_size"])
        if 0.0 < limit < size * (1.0 - RELATIVE):
            return f"position is {size:g}", f"at most {limit:g}"
        return None

    def _close(self, row: Mapping[str, Any]) -> Reason | None:
        leg = self.legs.get(row["fill_id"])
        if leg is None:
            return f"fill {row['fill_id']} is not open", "an open fill"
        reason = self._belongs(row, leg) or self._profit(row, leg)
        leg.lots -= self._lots(row["qty"])
        if leg.lots == 0:
            del self.legs[row["fill_id"]]
        return reason

    def _belongs(self, row: Mapping[str, Any], leg: Leg) -> Reason | None:
        if (row["cycle"], row["slot"]) != (leg.row["cycle"], leg.row["slot"]):
            return "cycle or slot differ from the entry's", f"{leg.row['cycle']} {leg.row['slot']}"
        if row["direction"] != leg.row["direction"]:
            return f"direction is {row['direction']}", str(leg.row["direction"])
        lots = self._lots(row["qty"])
        if not 1 <= lots <= leg.lots:
            return f"{lots} lots are closed", f"1 to {leg.lots}"
        return None

    def _profit(self, row: Mapping[str, Any], leg: Leg) -> Reason | None:
        pnl = leg.sign * (row["price"] - leg.price) * row["qty"]
        if abs(pnl - row["pnl"]) > RELATIVE * row["price"] * row["qty"] + RELATIVE:
            return f"pnl is {row['pnl']!r}", repr(pnl)
        least = leg.price * (1.0 + self.sign * float(self.summary.parameters["take_profit"]))
        takes = row["label"] in {"SELL_CLOSE_LONG", "BUY_CLOSE_SHORT"}
        if takes and self.sign * (least - row["price"]) > RELATIVE * least:
            return f"the close at {row['price']:g} misses the take-profit", f"{least:g} or better"
        return None

    def _fee(self, row: Mapping[str, Any]) -> Reason | None:
        if row["label"] == "LIQUIDATION":
            return None  # a share of what was left
        name = "fee_maker" if row["label"] in LIMITS else "fee_taker"
        fee = float(self.summary.parameters[name]) * row["price"] * row["qty"]
        if abs(fee - row["fee"]) > RELATIVE * row["price"] * row["qty"]:
            return f"fee is {row['fee']!r}", f"{fee!r}, {name}"
        return None

    def _book(self, row: Mapping[str, Any]) -> None:
        net = row["pnl"] - row["fee"]
        self.wallet += net
        self.fees += row["fee"]
        self.traded += row["price"] * row["qty"]
        self.nets[row["cycle"]] = self.nets.get(row["cycle"], 0.0) + net

    def _settle(self, stop: int) -> None:
        """Book the funding due at the closes of the bars before ``stop``."""
        while self._charged and self.settled < len(self._due):
            when, rate = self._due[self.settled]
            bar = bisect_left(self.candles.ts_ms, when) - 1
            end = int(self.candles.ts_ms[-1]) + self.market.bar_ms
            if bar >= stop or when > end:
                return
            lot = float(self.summary.market["step_size"])
            net = sum(leg.sign * leg.lots for leg in self.legs.values()) * lot
            paid = -net * float(self.candles.close[bar]) * rate
            self.wallet += paid
            self.funding += paid
            self.settled += 1

    @property
    def funding_is_modelled(self) -> bool:
        """Whether rates were modelled where none are on record, at settlements unknown here."""
        return self._charged and "modelled" in str(self.summary.data["funding"])

    def figures(self) -> Iterator[tuple[str, float]]:
        """Yield the figures that follow from the records."""
        nets = list(self.nets.values())
        won = [net for net in nets if net > 0.0]
        lost = [-net for net in nets if net <= 0.0]
        capital = float(self.summary.parameters["initial_capital"])
        yield "total_trades", len(nets)
        yield "fees_paid", self.fees
        yield "turnover", self.traded / capital
        yield "gross_profit", math.fsum(won)
        yield "gross_loss", math.fsum(lost)
        if nets:
            yield "win_rate_pct", 100.0 * len(won) / len(nets)
        if not self.funding_is_modelled:
            yield "funding_pnl", self.funding
            yield "final_capital", self.wallet
        else:
            given = float(self.summary.metrics["funding_pnl"])
            yield "final_capital", self.wallet - self.funding + given

    def check_figures(self) -> tuple[int, Finding | None]:
        """Return how many figures were compared, and the first that is wrong."""
        compared = 0
        for name, expected in self.figures():
            found = self.summary.metrics.get(name)
            compared += 1
            near = found is not None and math.isclose(
                float(found), expected, rel_tol=RELATIVE, abs_tol=ABSOLUTE
            )
            if not near:
                wrong = "it does not follow from trades, candles and funding"
                return compared, Finding(f"metrics.{name}", repr(found), wrong, repr(expected))
        return compared, None


def _read(cells: list[str]) -> dict[str, Any] | None:
    if len(cells) != len(COLUMNS):
        return None
    row: dict[str, Any] = dict(zip(COLUMNS, cells, strict=True))
    try:
        row.update({name: int(row[name]) for name in WHOLE})
        row.update({name: float(row[name]) for name in NUMBERS})
    except ValueError:
        return None
    return row if all(math.isfinite(row[name]) for name in NUMBERS) else None
