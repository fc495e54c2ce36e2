"""Measures the short grid's ticks on this machine: ``python3 -m benchmarks.ticks``.

Events per CPU second through the compiled signals and decisions; messages per CPU second parsed,
routed and brought to signals; the cost of a step of many symbols. Real ticks are used where they
lie beside the checkout (``../shared/ticks``), else the demo. CPU time, best of several rounds:
ratios of one run mean more than figures of two.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.ticks.demo import DEMO_TICK_COINS, demo_ticks
from backtest.ticks.files import Events, new_events
from backtest.ticks.reader import TickReport, open_sessions
from benchmarks.engine import machine_line
from core.recording import BUY, MS_NS, SELL, EventKind
from core.records import freeze, zeros, zeros_table
from engine.registry import SHORT_GRID
from engine.short_grid.gates import Funnel
from engine.short_grid.loop import run_step
from engine.short_grid.observation import Outlook, new_observation, observe_events
from engine.short_grid.params import STEP_NS
from engine.short_grid.types import Commands, make_rules, new_states

REAL_TICKS: Final = Path(__file__).resolve().parent.parent.parent / "shared" / "ticks"
PARAMS: Final = SHORT_GRID.read()
FROZEN: Final = freeze(PARAMS)
MANY: Final = 50
"""Symbols of a large universe."""
BATCH: Final = 256
"""Messages between two walks of the kernel."""


def best(work: Callable[[], Any], rounds: int) -> float:
    """Return the least CPU time of ``work``, s."""
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return min(spent)


def recorded() -> tuple[str, Events, int]:
    """Return what is measured: its name, events and number of symbols."""
    if REAL_TICKS.is_dir():
        sessions = open_sessions(REAL_TICKS)
        session = max(sessions, key=lambda item: sum(file.n_rows for file in item.files))
        return "recorded ticks", session.events(PARAMS, TickReport()), len(session.symbols)
    demo = demo_ticks(30)
    return "demo ticks", demo.events, len(demo.symbols)


def universe(events: Events, n_symbols: int, copies: int) -> Events:
    """Return ``copies`` of all symbols side by side, in time order."""
    parts = []
    for copy in range(copies):
        part = events.copy()
        part["symbol"] += copy * n_symbols
        parts.append(part)
    joined = np.concatenate(parts)
    return joined[np.argsort(joined["t_ns"], kind="stable")]


def signals_only(events: Events, n_symbols: int) -> None:
    """Walk all events and steps."""
    table = new_observation(n_symbols, FROZEN)
    observe_events(*table, FROZEN, events, 0, zeros_table(Outlook, 0))


def report_reader(rounds: int) -> None:
    """Print rows a second from files to events."""
    if not REAL_TICKS.is_dir():
        return
    sessions = open_sessions(REAL_TICKS)
    total = sum(len(s.events(PARAMS, TickReport())) for s in sessions)
    seconds = best(lambda: [s.events(PARAMS, TickReport()) for s in sessions], rounds)
    print(f"reader, files to checked events  {total / seconds / 1e6:8.2f} M events per CPU s")


def report_kernels(events: Events, n_symbols: int, rounds: int) -> None:
    """Print events a second through signals and through signals and decisions."""
    for copies in (1, -(-MANY // n_symbols)):
        many = universe(events, n_symbols, copies)
        count = n_symbols * copies
        seconds = best(lambda many=many, count=count: signals_only(many, count), rounds)  # type: ignore[misc]
        print(
            f"signals, {count:3} symbols             {len(many) / seconds / 1e6:8.2f} "
            "M events per CPU s"
        )


def report_steps(rounds: int) -> None:
    """Print what a step costs with signals and decisions, few and many symbols."""
    demo = demo_ticks(3)
    coins = [DEMO_TICK_COINS[symbol] for symbol in demo.symbols]
    for copies in (1, -(-MANY // len(coins))):
        events = universe(demo.events, len(coins), copies)
        rules = [
            make_rules(**coin.rules(), fee_maker_bps=2.0, fee_taker_bps=5.0) for coin in coins
        ] * copies
        seconds = best(lambda e=events, r=rules: all_steps(e, r), rounds)  # type: ignore[misc]
        steps = 3 * 600
        print(
            f"step, {len(rules):3} symbols, decisions   {seconds / steps * 1e6:8.1f} us per step; "
            f"{len(events) / seconds / 1e6:.2f} M events per CPU s"
        )


def all_steps(events: Events, rules: Any) -> None:
    """Do every step of ``events``, one call each as live; nobody answers the commands."""
    first = int(events["t_ns"][0]) // STEP_NS
    last = int(events["t_ns"][-1]) // STEP_NS
    portfolio, symbols = new_states(rules, FROZEN, first * STEP_NS)
    funnels, out, row = zeros_table(Funnel, len(rules)), zeros(Commands), 0
    for step in range(first + 1, last + 1):
        out.n_commands = 0
        row = run_step(portfolio, symbols, funnels, FROZEN, events, row, step, False, out)


def messages_of(events: Events, n_symbols: int) -> list[tuple[int, bytes]]:
    """Return books and trades as the exchange's stream says them: receive time and text."""
    names = [f"COIN{i}USDT" for i in range(n_symbols)]
    lines: list[tuple[int, bytes]] = []
    columns = (
        "t_ns",
        "kind",
        "symbol",
        "transaction_ms",
        "event_ms",
        "number",
        "side",
        "price",
        "qty",
        "price2",
        "qty2",
    )
    for t, kind, symbol, done, sent, number, side, price, qty, price2, qty2 in zip(
        *(events[name].tolist() for name in columns), strict=True
    ):
        name = names[symbol]
        if kind == EventKind.BOOK:
            text = (
                f'{{"stream":"{name.lower()}@bookTicker","data":{{"e":"bookTicker","u":{number},'
                f'"s":"{name}","b":"{price}","B":"{qty}","a":"{price2}","A":"{qty2}","T":{done},'
                f'"E":{sent}}}}}'
            )
        elif kind == EventKind.TRADE:
            maker = "true" if side == SELL else "false"
            text = (
                f'{{"stream":"{name.lower()}@aggTrade","data":{{"e":"aggTrade","E":{sent},'
                f'"s":"{name}","a":{number},"p":"{price}","q":"{qty}","f":{number},"l":{number},'
                f'"T":{done},"m":{maker},"nq":"{qty2}"}}}}'
            )
        else:
            continue
        lines.append((t, text.encode()))
    return lines


def walk_messages(
    lines: list[tuple[int, bytes]], n_symbols: int, loads: Callable[[bytes], Any]
) -> int:
    """Parse, route and walk all messages in batches; return the events used."""
    index = {f"COIN{i}USDT": i for i in range(n_symbols)}
    table = new_observation(n_symbols, FROZEN)
    buffer, log = new_events(BATCH), zeros_table(Outlook, 0)
    rows: list[tuple[Any, ...]] = []
    book, trade = int(EventKind.BOOK), int(EventKind.TRADE)
    for seq, (t_ns, line) in enumerate(lines):
        d = loads(line)["data"]
        symbol = index.get(d["s"], -1)
        if d["e"] == "bookTicker":
            rows.append(
                (
                    t_ns,
                    seq,
                    book,
                    symbol,
                    d["T"],
                    d["E"],
                    d["u"],
                    0,
                    float(d["b"]),
                    float(d["B"]),
                    float(d["a"]),
                    float(d["A"]),
                    0.0,
                )
            )
        else:
            rows.append(
                (
                    t_ns,
                    seq,
                    trade,
                    symbol,
                    d["T"],
                    d["E"],
                    d["a"],
                    SELL if d["m"] else BUY,
                    float(d["p"]),
                    float(d["q"]),
                    0.0,
                    float(d.get("nq", d["q"])),
                    0.0,
                )
            )
        if len(rows) == BATCH:
            buffer[:] = rows
            observe_events(*table, FROZEN, buffer, 0, log)
            rows.clear()
    part = buffer[: len(rows)]
    part[:] = rows
    observe_events(*table, FROZEN, part, 0, log)
    return sum(int(table[1][i].feed.n_used) for i in range(n_symbols))


def parsers() -> dict[str, Callable[[bytes], Any]]:
    """Return the JSON parsers that are installed, by name."""
    import json  # noqa: PLC0415 - one of several

    found: dict[str, Callable[[bytes], Any]] = {"json": json.loads}
    try:
        import orjson  # noqa: PLC0415 - optional

        found["orjson"] = orjson.loads
    except ImportError:
        pass
    try:
        import msgspec  # type: ignore[import-not-found] # noqa: PLC0415 - optional

        found["msgspec"] = msgspec.json.Decoder().decode
    except ImportError:
        pass
    return found


def report_messages(events: Events, n_symbols: int, rounds: int) -> None:
    """Print messages a second parsed, routed and brought to signals."""
    lines = messages_of(events[:100_000], n_symbols)
    for name, loads in parsers().items():
        walk_messages(lines[:BATCH], n_symbols, loads)
        seconds = best(lambda loads=loads: walk_messages(lines, n_symbols, loads), rounds)  # type: ignore[misc]
        print(f"{name + ', route, signals':32} {len(lines) / seconds:10,.0f} messages per CPU s")


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs per figure (default: 5)")
    arguments = parser.parse_args(argv)
    print(machine_line())
    source, events, n_symbols = recorded()
    seconds = (int(events["t_ns"][-1]) - int(events["t_ns"][0])) / (1_000 * MS_NS)
    print(f"{source}: {len(events):,} events of {n_symbols} symbols in {seconds:,.0f} s")
    signals_only(events[:1_000], n_symbols)
    report_reader(arguments.rounds)
    report_kernels(events, n_symbols, arguments.rounds)
    report_steps(max(2, arguments.rounds // 2))
    report_messages(events, n_symbols, arguments.rounds)
    return 0


if __name__ == "__main__":
    sys.exit(main())
