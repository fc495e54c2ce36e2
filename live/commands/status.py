"""How a session stands, read from its files alone: no network, and it may be running."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, cast

from core.errors import ConfigError, StateError
from core.files import parse_json
from core.orders import POSITION_SIDES, OrderKind
from core.text import decimals_of, money, number
from core.times import utc_text
from engine.contract import Strategy, StrategySpec, View
from engine.registry import find_strategy
from live.commands.target import MODE_NAMES, Target
from live.execution.books import Progress
from live.execution.order_register import OrderRecord, OrderState
from live.health.cycle_events import CycleStrategy
from live.store.durable_file import read_file
from live.store.folders import mode_folder
from live.store.state_file import decode, read_document


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedState:
    """The content of a state file.

    Attributes:
        saved_at: ms UTC.
        program: version of the program that wrote it.
        code_fingerprint: of its decision code.
        spec: of its strategy.
        params: of the strategy.
        strategy: as it was saved; it can be read only.
        orders: every order still remembered.
        progress: how far the session has come.
    """

    saved_at: int
    program: str
    code_fingerprint: str
    spec: StrategySpec
    params: Any
    strategy: Strategy
    orders: list[OrderRecord]
    progress: Progress


def saved_state(path: Path) -> SavedState | None:
    """Return what is saved in ``path``, None if there is no such file.

    Raises:
        StateError: it cannot be read, is damaged, or is not of this version's layout.
    """
    document = read_document(path)
    if document is None:
        return None
    if not document:
        raise StateError(
            f"{path} is damaged: it was cut off or changed after it was written; --resume names "
            "the newest usable snapshot"
        )
    session = decode(document["session"])
    known = {item.name for item in fields(Progress)}
    try:
        spec = find_strategy(str(document["strategy"]))
        params = spec.params.from_dict(decode(document["parameters"]))
        strategy = spec.create(params, None)
        strategy.load_state_dict(decode(document["engine"]))
        return SavedState(
            saved_at=int(document["saved_at"]),
            program=str(document["program"]),
            code_fingerprint=str(document["code_fingerprint"]),
            spec=spec,
            params=params,
            strategy=strategy,
            orders=[OrderRecord.from_dict(row) for row in session["orders"]],
            progress=Progress(**{k: v for k, v in session["progress"].items() if k in known}),
        )
    except (ValueError, TypeError, KeyError, OverflowError, ConfigError) as error:
        raise StateError(
            f"{path} is not of this version's layout: {error}; go on with the code that wrote it"
        ) from None


SILENT_MS: Final = 120_000
"""The health file of a process that lives is at most half a minute old."""


def status_text(target: Target, now_ms: int) -> str:
    """Return what is known of a session, in lines.

    Raises:
        StateError: there is no state, or it cannot be read.
    """
    path, saved = _newest(target)
    lines = [f"{target.symbol}, {target.mode_name}", *_health(target, now_ms)]
    lines += _step(path, saved)
    for position_side in POSITION_SIDES:
        lines += position_lines(target, saved, position_side)
    lines += order_lines(target, saved)
    return "\n".join(lines)


def _newest(target: Target) -> tuple[Path, SavedState]:
    """Return the state, or the copy of one that is kept at the exchange: which was saved later.

    Raises:
        StateError: there is none, or it cannot be read.
    """
    paths = (target.state_path, target.status_path)
    found = [(path, saved) for path in paths if (saved := saved_state(path)) is not None]
    if not found:
        raise StateError(
            f"no saved state of {target.symbol}: {target.state_path} does not exist"
            f"{_elsewhere(target)}"
        )
    return max(found, key=lambda item: item[1].saved_at)


def _row(name: str, text: str) -> str:
    return f"  {name:<11}{text}"


def _elsewhere(target: Target) -> str:
    """Return where else there is a state of this coin, with the flag that shows it."""
    flags = {
        "live": "without --dry-run and --testnet",
        "testnet": "with --testnet",
        "dry": "with --dry-run",
    }
    for mode in MODE_NAMES:
        folder = mode_folder(target.settings, "state_dir", mode)
        for name in (target.state_path.name, target.status_path.name):
            if mode != target.mode and (folder / name).exists():
                return f"; there is {folder / name}, shown {flags[mode]}"
    return ""


def _health(target: Target, now_ms: int) -> list[str]:
    """Return what the health file says."""
    body = read_file(target.health_path)
    if body is None:
        return [_row("process", f"nothing known: there is no {target.health_path}")]
    try:
        health: Mapping[str, Any] = parse_json(body)
        age_ms = now_ms - int(health["updated_at"])
        lines = [_row("process", _process(health, age_ms))]
        lines.append(
            _row(
                "health",
                f"{health['verdict']}; {health['errors_in_row']} errors in a row, "
                f"{health['errors']} since it started; request weight {health['weight_1m']}; "
                f"clock {health['clock_offset_ms']:+d} ms",
            )
        )
        return lines + [_row("", f"{k}: {text}") for k, text in health["conditions"].items()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        return [_row("process", f"nothing known: {target.health_path} is unreadable ({error!r})")]


def _process(health: Mapping[str, Any], age_ms: int) -> str:
    """Return whether the process lives, which its file shows by being renewed."""
    if health["status"] == "STOPPED":
        return f"stopped at {utc_text(int(health['updated_at']))} UTC"
    if age_ms <= SILENT_MS:
        return f"running, number {health['pid']}; its file is {max(0, age_ms) // 1000} s old"
    return (
        f"SILENT for {age_ms // 60_000} min: process {health['pid']} was killed or hangs; start "
        "again with --resume"
    )


def _step(path: Path, saved: SavedState) -> list[str]:
    progress, view = saved.progress, saved.strategy.view()
    lines = [
        _row("state", f"{path}, saved {utc_text(saved.saved_at)} UTC"),
        _row(
            "code",
            f"{saved.strategy.name} of version {saved.program}, decisions {saved.code_fingerprint}",
        ),
    ]
    if progress.bar < 0 or view.price <= 0.0:
        lines += [_row("last step", "none yet"), _row("equity", money(view.wallet))]
        return [*lines, *_cycles(saved), *_flags(saved, view)]
    state = "complete" if progress.done else "not complete"
    lines.append(
        _row(
            "last step",
            f"{utc_text(progress.bar * saved.strategy.needs.bar_ms)} UTC, {state}; price "
            f"{price_text(view.price)}, regime {view.regime}",
        )
    )
    equity = f"{money(view.equity)} at that price; wallet {money(view.wallet)}"
    if progress.start_equity > 0.0:
        equity += (
            f"; at start {money(progress.start_equity)}, at most {money(progress.peak_equity)}"
        )
    return [*lines, _row("equity", equity), *_cycles(saved), *_flags(saved, view)]


def _cycles(saved: SavedState) -> list[str]:
    """Return how the cycles stand, of a strategy that has some."""
    if "cycle" not in saved.spec.trade_fields:
        return []
    state = cast("CycleStrategy", saved.strategy).cycle_state()
    names = ", ".join(map(state.name_of, sorted(state.open_cycles))) or "none"
    held_back = f"; no entry: {state.gate}" if state.gate else ""
    return [
        _row("cycles", f"open: {names}"),
        _row("", f"{state.health}; margin {100.0 * state.margin:.1f} % of its cap{held_back}"),
    ]


def _flags(saved: SavedState, view: View) -> list[str]:
    """Return what keeps the strategy from entering."""
    flags = {
        "nothing is left of the capital": view.ended,
        "the capital is too small for an order": view.too_small,
    }
    if "cycle" in saved.spec.trade_fields:
        state = cast("CycleStrategy", saved.strategy).cycle_state()
        flags |= {
            "paused: --pause off lets entries go on": state.is_paused,
            "ledger and account differ: no entries": state.is_wrong,
            "the stop price was reached: it has ended": saved.strategy.stopped,
        }
    else:
        flags["circuit breaker: no entries"] = view.halted
    return [_row("note", text) for text, is_so in flags.items() if is_so]


def price_text(price: float) -> str:
    """Return a price with all its decimals, at least two."""
    return number(price, max(2, decimals_of(price)))


def qty_text(qty: float) -> str:
    """Return a quantity with all its decimals."""
    return number(qty, decimals_of(qty))


def stop_text(orders: Iterable[OrderRecord], position_side: str, wanted: float, mode: str) -> str:
    """Return what protects a position: the order at the exchange, not the ledger's wish for one.

    Args:
        orders: of the session.
        position_side: LONG or SHORT.
        wanted: the ledger's stop price, quote, 0 = none; in a dry run that is all there is.
        mode: live, testnet or dry.
    """
    prices = [
        order.price
        for order in orders
        if (order.kind, order.position_side) == (OrderKind.STOP, position_side)
        and order.state is OrderState.OPEN
    ]
    if mode == "dry":
        prices = [wanted] if wanted > 0.0 else []
    if prices:
        return f"with its stop at {' and '.join(map(price_text, prices))}"
    return "without a stop" if mode == "dry" else "WITHOUT a stop at the exchange"


def position_lines(target: Target, saved: SavedState, position_side: str) -> list[str]:
    """Return what one side holds."""
    side, fills = saved.strategy.view().side(position_side), saved.strategy.fills(position_side)
    if not fills:
        return [_row(position_side, "nothing")]
    protection = stop_text(saved.orders, position_side, side.stop, target.mode)
    head = (
        f"{qty_text(side.qty)} at {price_text(round(side.avg_entry, 8))} on average, "
        f"unrealised {money(side.unrealized, signed=True)}, {protection}"
    )
    return [_row(position_side, head)] + [
        _row(
            "",
            f"fill {fill.fill_id}: {qty_text(fill.qty)} at "
            f"{price_text(fill.price)}, {utc_text(fill.ts_ms)}",
        )
        for fill in fills
    ]


def order_lines(target: Target, saved: SavedState) -> list[str]:
    """Return the orders that rest as far as is known; those of a dry run are on paper."""
    if target.mode == "dry":
        rows = [
            (order.position_side, order.kind.name, order.qty, order.price, "on paper")
            for order in saved.strategy.desired()
        ]
    else:
        rows = list(_known(order for order in saved.orders if order.state is not OrderState.DONE))
    lines = [_row("orders", str(len(rows)) if rows else "none")]
    return lines + [
        _row(
            "", f"{position_side:<5} {kind:<11} {qty_text(qty):>12} at {price_text(price)}, {state}"
        )
        for position_side, kind, qty, price, state in sorted(rows, key=lambda row: -row[3])
    ]


def _known(orders: Iterable[OrderRecord]) -> Iterable[tuple[str, str, float, float, str]]:
    for order in orders:
        yield order.position_side, order.kind.name, order.rest, order.price, order.state.value
