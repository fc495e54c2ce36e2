"""A run's files to audit, and many ways to tamper with their rows; each returns the row."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from backtest.audit.audit import AuditReport, audit_coin
from backtest.audit.files import COLUMNS, read_summary
from backtest.market.market_data import MarketData
from backtest.market.sources import MarketSource
from backtest.market.timeframes import format_time
from backtest.results.files import summary_json, trades_csv
from backtest.simulator import BacktestSimulator
from tests.support.markets.synthetic import BAR_MS
from tests.support.results.typed import typed

BTC_RULES = {"tick_size": 0.1, "step_size": 0.001, "min_qty": 0.001, "min_notional": 5.0}

Row = dict[str, str]
Rows = list[Row]
Summary = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """A run's files, as they are written, and the market it read."""

    trades: str
    summary: str
    market: MarketData

    def rows(self) -> Rows:
        """Return the trade records as dicts of text."""
        return list(csv.DictReader(io.StringIO(self.trades)))

    def audit(
        self, folder: Path, rows: Rows | None = None, summary: Summary | None = None
    ) -> AuditReport:
        """Return the audit of these files, or of changed ones."""
        text = self.trades if rows is None else as_csv(rows)
        (folder / "BTC_trades.csv").write_text(text)
        (folder / "BTC_summary.json").write_text(
            self.summary if summary is None else json.dumps(summary)
        )
        read = read_summary(folder / "BTC_summary.json")
        return audit_coin(folder / "BTC_trades.csv", read, self.market)


def as_csv(rows: Rows) -> str:
    body = io.StringIO()
    writer = csv.DictWriter(body, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return body.getvalue()


def run_on(
    market: MarketData, config: dict[str, Any], *, warmup: int = 0, detail: str | None = None
) -> Run:
    """Return the files of a run over ``market`` from bar ``warmup`` on."""
    times = market.candles["timestamp"]
    end_ms = int(times.iloc[-1]) + BAR_MS
    simulator = BacktestSimulator(
        config,
        {"warmup_bars": warmup, "markets": {"BTC": BTC_RULES}},
        source=MarketSource(lambda *_, **__: market, end_ms),
        detail=detail,
    )
    result = simulator.run_single("BTC", format_time(int(times.iloc[warmup])))
    return Run(trades_csv(typed(result)).decode(), summary_json(typed(result)).decode(), market)


def index_of(rows: Rows, *labels: str, after: int = -1, **cells: str) -> int:
    """Return the first row after ``after`` with one of the labels and all of the cells."""
    return next(
        i
        for i, row in enumerate(rows)
        if i > after and row["label"] in labels and all(row[k] == v for k, v in cells.items())
    )


def middle(rows: Rows, *labels: str) -> int:
    """Return a row with one of the labels from the second half."""
    return index_of(rows, *labels, after=len(rows) // 2)


def moved(row: Row, bars: int) -> Row:
    """Return ``row`` with bar, timestamp and datetime moved together."""
    opened = int(row["timestamp"]) + bars * BAR_MS
    text = pd.Timestamp(opened, unit="ms").strftime("%Y-%m-%d %H:%M:%S")
    return row | {"bar": str(int(row["bar"]) + bars), "timestamp": str(opened), "datetime": text}


def price_outside_its_bar(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    price = round(float(rows[i]["price"]) * 1.2, 1)
    rows[i] |= {"price": repr(price), "fee": repr(price * float(rows[i]["qty"]) * 0.0002)}
    return i


def take_profit_outside_its_bar(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    entry = float(rows[index_of(rows, "BUY_OPEN_LONG", fill_id=rows[i]["fill_id"])]["price"])
    price, qty = round(float(rows[i]["price"]) * 1.1, 1), float(rows[i]["qty"])
    pnl, fee = (price - entry) * qty, price * qty * 0.0002
    rows[i] |= {"price": repr(price), "pnl": repr(pnl), "fee": repr(fee)}
    return i


def stop_outside_its_bar(rows: Rows) -> int:
    i = middle(rows, "STOP_LONG")
    rows[i]["price"] = repr(round(float(rows[i]["price"]) * 0.9, 1))
    return i


def prune_without_slippage(rows: Rows) -> int:
    i = middle(rows, "PRUNE_OFFSET", "PRUNE_GAP")
    slippage = 0.0005 if rows[i]["direction"] == "LONG" else -0.0005
    rows[i]["price"] = repr(round(float(rows[i]["price"]) / (1.0 - slippage), 1))
    return i


def price_off_the_tick(rows: Rows) -> int:
    i = middle(rows, "SELL_OPEN_SHORT")
    rows[i]["price"] = repr(float(rows[i]["price"]) + 0.03)
    return i


def price_not_positive(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["price"] = "-100.0"
    return i


def quantity_off_the_step(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["qty"] = repr(float(rows[i]["qty"]) + 0.0004)
    return i


def quantity_of_nothing(rows: Rows) -> int:
    i = middle(rows, "SELL_OPEN_SHORT")
    rows[i]["qty"] = "0.0"
    return i


def doubled_close(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    fill = rows[i]["fill_id"]
    i = max(k for k, row in enumerate(rows) if row["fill_id"] == fill)
    rows.insert(i + 1, dict(rows[i]))
    return i + 1


def doubled_entry(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows.insert(i + 1, dict(rows[i]))
    return i + 1


def closed_more_than_it_has(rows: Rows) -> int:
    i = middle(rows, "BUY_CLOSE_SHORT")
    rows[i]["qty"] = repr(round(float(rows[i]["qty"]) + 0.5, 3))
    return i


def closed_after_it_is_closed(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG", "STOP_LONG")
    closed = next(row["fill_id"] for row in rows if row["label"] == "SELL_CLOSE_LONG")
    rows[i]["fill_id"] = closed
    return i


def closed_before_it_is_opened(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    rows[i]["fill_id"] = "100000"
    return i


def closed_by_the_other_side(rows: Rows) -> int:
    """Let a stop of shorts close a long that is open."""
    opened: dict[str, float] = {}
    for i, row in enumerate(rows):
        sign = 1.0 if "OPEN" in row["label"] else -1.0
        if row["direction"] == "SHORT" and sign < 0.0 and opened and i > len(rows) // 2:
            rows[i]["fill_id"] = next(iter(opened))
            return i
        if row["direction"] == "LONG":
            left = opened.get(row["fill_id"], 0.0) + sign * float(row["qty"])
            opened[row["fill_id"]] = left
            if left < 1e-9:
                del opened[row["fill_id"]]
    raise AssertionError


def missing_entry(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    fill = rows.pop(i)["fill_id"]
    opens = index_of(rows, "BUY_OPEN_LONG", "SELL_OPEN_SHORT", after=i - 1)
    return min(opens, next(k for k, row in enumerate(rows) if row["fill_id"] == fill))


def missing_fill(rows: Rows) -> int:
    i = middle(rows, "SELL_OPEN_SHORT")
    fill = rows[i]["fill_id"]
    rows[:] = [row for row in rows if row["fill_id"] != fill]
    return index_of(rows, "BUY_OPEN_LONG", "SELL_OPEN_SHORT", after=i - 1)


def missing_close(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    fill = rows.pop(i)["fill_id"]
    return index_of(rows, "BUY_OPEN_LONG", fill_id=fill)


def wrong_fee(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["fee"] = repr(float(rows[i]["fee"]) * 1.0001)
    return i


def maker_fee_for_a_stop(rows: Rows) -> int:
    i = middle(rows, "STOP_SHORT")
    rows[i]["fee"] = repr(float(rows[i]["fee"]) * 0.4)
    return i


def wrong_pnl(rows: Rows) -> int:
    i = middle(rows, "BUY_CLOSE_SHORT")
    rows[i]["pnl"] = repr(float(rows[i]["pnl"]) + 0.01)
    return i


def pnl_of_the_wrong_sign(rows: Rows) -> int:
    i = middle(rows, "STOP_LONG")
    rows[i]["pnl"] = repr(-float(rows[i]["pnl"]))
    return i


def pnl_of_an_entry(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["pnl"] = "1.5"
    return i


def wrong_side(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["direction"] = "SHORT"
    return i


def wrong_timestamp(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    rows[i]["timestamp"] = str(int(rows[i]["timestamp"]) + 60_000)
    return i


def wrong_datetime(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    rows[i]["datetime"] = "2024-01-01 00:00:00"
    return i


def shifted_bar(rows: Rows) -> int:
    i = middle(rows, "BUY_OPEN_LONG")
    rows[i]["bar"] = str(int(rows[i]["bar"]) + 1)
    return i


def shifted_bar_and_time(rows: Rows) -> int:
    """Move the last row of a bar to the next one: the market had moved on."""
    i = next(
        i
        for i in range(len(rows) // 2, len(rows))
        if rows[i]["label"].startswith("PRUNE") and int(rows[i + 1]["bar"]) > int(rows[i]["bar"])
    )
    rows[i] = moved(rows[i], 1)
    return i


def bar_before_the_run(rows: Rows) -> int:
    rows[0] = moved(rows[0], -int(rows[0]["bar"]) - 1)
    return 0


def bar_after_the_run(rows: Rows) -> int:
    rows[-1] = moved(rows[-1], 1)
    return len(rows) - 1


def rows_out_of_order(rows: Rows) -> int:
    i = next(
        i
        for i in range(len(rows) // 2, len(rows))
        if "OPEN" in rows[i]["label"] and int(rows[i + 1]["bar"]) > int(rows[i]["bar"])
    )
    rows.insert(i + 1, moved(rows[i], -1))
    return i + 1


def two_regimes_in_a_bar(rows: Rows) -> int:
    i = next(i for i in range(1, len(rows)) if rows[i]["bar"] == rows[i - 1]["bar"])
    rows[i]["regime"] = "UPTREND" if rows[i]["regime"] != "UPTREND" else "NOISE"
    return i


def unknown_regime(rows: Rows) -> int:
    rows[0]["regime"] = "SIDEWAYS"
    return 0


def unknown_label(rows: Rows) -> int:
    i = middle(rows, "SELL_CLOSE_LONG")
    rows[i]["label"] = "SELL_CLOSE"
    return i


def halt_that_trades(rows: Rows) -> int:
    i = index_of(rows, "CIRCUIT_BREAKER_HALT")
    rows[i]["qty"] = "0.5"
    return i


def halt_that_earns(rows: Rows) -> int:
    i = index_of(rows, "CIRCUIT_BREAKER_HALT")
    rows[i]["pnl"] = "5.0"
    return i


def halt_away_from_the_open(rows: Rows) -> int:
    i = index_of(rows, "CIRCUIT_BREAKER_HALT")
    rows[i]["price"] = repr(float(rows[i]["price"]) + 0.1)
    return i


def end_before_the_end(rows: Rows) -> int:
    i = middle(rows, "STOP_LONG")
    rows[i]["label"] = "CLOSE_END"
    return i


def row_after_the_end(rows: Rows) -> int:
    halt = rows[index_of(rows, "CIRCUIT_BREAKER_HALT")]
    at_end = {name: rows[-1][name] for name in ("bar", "timestamp", "datetime", "regime")}
    rows.append(halt | at_end)
    return len(rows) - 1


def number_that_is_none(rows: Rows) -> int:
    i = middle(rows, "STOP_LONG")
    rows[i]["price"] = "nan"
    return i


def bar_that_is_no_whole_number(rows: Rows) -> int:
    i = middle(rows, "STOP_LONG")
    rows[i]["bar"] = "7.5"
    return i


Tamper = Callable[[Rows], int]
TAMPERED: dict[Tamper, str] = {
    price_outside_its_bar: "is outside its bar",
    take_profit_outside_its_bar: "is outside its bar",
    stop_outside_its_bar: "is outside its bar",
    prune_without_slippage: "price is",
    price_off_the_tick: "is off the tick",
    price_not_positive: "is off the tick",
    quantity_off_the_step: "is off the lot step",
    quantity_of_nothing: "qty is 0.0",
    doubled_close: "which is closed already",
    doubled_entry: "has been opened before",
    closed_more_than_it_has: "it closes",
    closed_after_it_is_closed: "which is closed already",
    closed_before_it_is_opened: "which was never opened",
    closed_by_the_other_side: "a LONG one, as SHORT",
    missing_entry: "",
    missing_fill: "an entry before it is missing",
    missing_close: "is never closed",
    wrong_fee: "fee is",
    maker_fee_for_a_stop: "fee is",
    wrong_pnl: "pnl is",
    pnl_of_the_wrong_sign: "pnl is",
    pnl_of_an_entry: "an entry has a pnl of 1.5",
    wrong_side: "direction is 'SHORT'",
    wrong_timestamp: "timestamp is not the open of bar",
    wrong_datetime: "datetime is '2024-01-01 00:00:00'",
    shifted_bar: "timestamp is not the open of bar",
    shifted_bar_and_time: "price is",
    bar_before_the_run: "there is no trade in bar -1",
    bar_after_the_run: "there is no trade in bar 1200",
    rows_out_of_order: "comes after bar",
    two_regimes_in_a_bar: "regime differs within bar",
    unknown_regime: "regime 'SIDEWAYS' is unknown",
    unknown_label: "label 'SELL_CLOSE' is unknown",
    halt_that_trades: "qty is 0.5",
    halt_that_earns: "pnl is 5.0",
    halt_away_from_the_open: "price is",
    end_before_the_end: "CLOSE_END in bar",
    row_after_the_end: "it comes after everything was closed",
    number_that_is_none: "price is 'nan'",
    bar_that_is_no_whole_number: "bar is '7.5'",
}
