"""``--check-deadman``: see on demo trading whether the exchange's countdown takes stops too.

``countdownCancelAll`` takes the limit orders of a dead process; whether it takes conditional orders
with them is not documented. So a limit order and a stop are laid on the symbol and on another one,
the control symbol, the countdown runs on the first only, and what is left is looked at. Where the
control symbol loses orders too the exchange cancels by itself, and nothing was learnt.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Final

from core.command_line import say
from core.errors import AccountError, ExchangeError, GridError, NetworkError
from core.market import MarketRules
from core.orders import OrderKind
from core.times import MINUTE_MS
from live.commands.process import Process, find_process, silence
from live.commands.target import Target
from live.exchange.binance import BinanceExecutor
from live.exchange.types import Answer, CancelResult, ExchangeOrder, OrderSpec
from live.execution.order_register import in_base_36
from live.store.instance_lock import InstanceLock

COUNTDOWN_MS: Final = 10_000
WATCH_S: Final = 30.0
"""How long it is watched after the countdown was set."""
LISTED_S: Final = 120.0
"""How long an accepted order may be missing from the list."""
LOOK_S: Final = 2.0
LIMIT_AT: Final = 0.9
"""Of the last price: the limit order does not fill."""
STOP_AT: Final = 0.7
"""Of the last price: the stop does not fire."""
NOTIONAL_MARGIN: Final = 1.1
"""Over the smallest notional, as the price may have moved."""
_STATE: Final = {True: "still there", False: "gone"}
TAKES: Final = (
    "the countdown TAKES stops: behind a dead or cut-off process positions are without them two "
    "minutes after its last renewal, until --resume lays them again first thing"
)
LEAVES: Final = (
    "the countdown LEAVES stops: behind a dead or cut-off process positions keep them, and no "
    "entry rests"
)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A symbol with the two orders laid on it.

    Attributes:
        name: such as BTCUSDT.
        exchange: where they lie.
        limit: far below the price, on the side of longs.
        stop: further below; with a quantity, as there is no position.
    """

    name: str
    exchange: BinanceExecutor
    limit: OrderSpec
    stop: OrderSpec

    def are_left(self) -> tuple[bool, bool]:
        """Return whether limit and stop rest, each looked up by its name.

        Raises:
            GridError: the exchange could not be asked.
        """
        found = [self.exchange.find_order(o.client_id, o.kind) for o in (self.limit, self.stop)]
        limit, stop = (order is not None and order.is_open for order in found)
        return limit, stop


def check_deadman(target: Target, control: Target) -> int:
    """Look what the countdown takes, say it, and return the exit code.

    Both symbols must be empty: the countdown takes every normal order of its symbol.

    Args:
        target: the symbol whose countdown runs out; on demo trading.
        control: the symbol beside it.

    Raises:
        GridError: a symbol is not empty, an order was refused, or nothing was learnt.
    """
    process = find_process(target, MINUTE_MS)  # no candles are read
    with ExitStack() as stack:
        for each in (target, control):
            stack.enter_context(InstanceLock(each.lock_path))
        stack.enter_context(silence())
        tested = process.executor()
        other = BinanceExecutor(
            tested.account,
            control.coin,
            bar_ms=MINUTE_MS,
            stop_trigger=str(control.settings["stop_trigger"]),
        )
        for name, exchange in ((target.symbol, tested), (control.symbol, other)):
            _refuse_used(name, exchange)
        tag = in_base_36(process.clock.now_ms())
        probes = [
            _probe(target.symbol, tested, f"deadman-{tag}-1"),
            _probe(control.symbol, other, f"deadman-{tag}-2"),
        ]
        with _cleaned_up(probes):
            _lay(probes, process)
            tested.countdown_cancel_all(COUNTDOWN_MS)
            say(f"{target.symbol}: the countdown runs for {COUNTDOWN_MS / 1e3:.0f} s")
            process.clock.sleep(WATCH_S)
            say(_verdict(*probes))
    return 0


def _refuse_used(name: str, exchange: BinanceExecutor) -> None:
    """Refuse a symbol on which something is open.

    Raises:
        AccountError: an order or a position is.
    """
    orders = exchange.open_orders()
    held = [side for side, position in exchange.positions().items() if position.qty > 0.0]
    if orders or held:
        what = ", ".join([f"{len(orders)} orders"] * bool(orders) + held)
        raise AccountError(
            f"{name} has open {what}, which this check must not touch: close them first, or name "
            "other coins with --coin and --control"
        )


def _probe(name: str, exchange: BinanceExecutor, tag: str) -> Probe:
    """Return a symbol's probe; nothing is sent but the account's modes."""
    rules = exchange.read_market().rules
    exchange.prepare_account(1.0)
    price = exchange.last_price()
    limit_at, stop_at = (_on_tick(price * part, rules) for part in (LIMIT_AT, STOP_AT))
    qty = _smallest(limit_at, rules)
    return Probe(
        name=name,
        exchange=exchange,
        limit=OrderSpec(
            client_id=f"{tag}-limit",
            kind=OrderKind.ENTRY,
            position_side="LONG",
            price=limit_at,
            qty=qty,
        ),
        stop=OrderSpec(
            client_id=f"{tag}-stop",
            kind=OrderKind.STOP,
            position_side="LONG",
            price=stop_at,
            qty=qty,
            closes_all=False,
        ),
    )


def _on_tick(price: float, rules: MarketRules) -> float:
    return math.floor(price / rules.tick_size) * rules.tick_size


def _smallest(price: float, rules: MarketRules) -> float:
    """Return the smallest quantity the exchange takes at ``price``, base."""
    least = max(rules.min_qty, NOTIONAL_MARGIN * rules.min_notional / price)
    return math.ceil(least / rules.step_size) * rules.step_size


def _lay(probes: list[Probe], process: Process) -> None:
    """Lay every order, and wait until all are listed.

    Raises:
        ExchangeError: one is refused.
        NetworkError: one does not show.
    """
    for probe in probes:
        for spec in (probe.limit, probe.stop):
            (reply,) = probe.exchange.create_orders([spec])
            if reply.answer is not Answer.ACCEPTED:
                raise ExchangeError(
                    f"{probe.name}: the {_word(spec)} is not taken ({reply.text}): nothing was "
                    "learnt"
                )
        say(
            f"{probe.name}: a limit order at {probe.limit.price:g} and a stop at "
            f"{probe.stop.price:g}, quantity {probe.limit.qty:g}"
        )
    until_ms = process.clock.now_ms() + 1e3 * LISTED_S
    while not all(all(probe.are_left()) for probe in probes):
        if process.clock.now_ms() >= until_ms:
            raise NetworkError("the exchange does not list the orders it took: try again later")
        process.clock.sleep(LOOK_S)


def _verdict(tested: Probe, control: Probe) -> str:
    """Return what the countdown took.

    Raises:
        ExchangeError: nothing was learnt.
    """
    left = [probe.are_left() for probe in (tested, control)]
    for probe, (limit, stop) in zip((tested, control), left, strict=True):
        say(f"{probe.name}: the limit order is {_STATE[limit]}, the stop is {_STATE[stop]}")
    (limit, stop), of_control = left
    if not all(of_control):
        raise ExchangeError(
            f"nothing was learnt: orders of {control.name} are gone without a countdown, so the "
            "exchange cancels by itself; try again later"
        )
    if limit:
        raise ExchangeError(
            f"the countdown did NOT take the limit order of {tested.name}: do not count on it, and "
            "do not leave entries behind"
        )
    return LEAVES if stop else TAKES


def _word(spec: OrderSpec) -> str:
    return "stop" if spec.kind is OrderKind.STOP else "limit order"


@contextmanager
def _cleaned_up(probes: list[Probe]) -> Iterator[None]:
    """Take away whatever the check has laid, also where it failed.

    Raises:
        NetworkError: something may be left.
    """
    try:
        yield
    finally:
        left = [name for probe in probes for name in _clean(probe)]
        if left:
            raise NetworkError(f"look at the exchange's page: {', '.join(left)} may be open")


def _clean(probe: Probe) -> list[str]:
    """Switch the countdown off, cancel, close; return what may be left."""
    left: list[str] = []

    def done(what: str, action: Callable[[], bool]) -> None:
        try:
            is_done = action()
        except GridError:
            is_done = False
        if not is_done:
            left.append(f"{what} of {probe.name}")

    done("the countdown", lambda: _switch_off(probe))
    for spec in (probe.limit, probe.stop):
        done(f"the {_word(spec)}", lambda spec=spec: _cancel(probe, spec))  # type: ignore[misc]
    done("a position", lambda: _close(probe))
    return left


def _switch_off(probe: Probe) -> bool:
    probe.exchange.countdown_cancel_all(0)
    return True


def _cancel(probe: Probe, spec: OrderSpec) -> bool:
    order = ExchangeOrder(
        client_id=spec.client_id,
        order_id="",
        kind=spec.kind,
        position_side=spec.position_side,
        price=spec.price,
        qty=spec.qty,
        filled_qty=0.0,
        is_open=True,
        status="NEW",
    )
    (result,) = probe.exchange.cancel_orders([order])
    return result is not CancelResult.STUCK


def _close(probe: Probe) -> bool:
    """Close what the limit order may have bought in a fall of a tenth; return whether it is."""
    qty = probe.exchange.positions()["LONG"].qty
    if qty <= 0.0:
        return True
    tag = probe.limit.client_id.removesuffix("-limit")
    exit_order = OrderSpec(
        client_id=f"{tag}-exit", kind=OrderKind.EXIT, position_side="LONG", price=0.0, qty=qty
    )
    (reply,) = probe.exchange.create_orders([exit_order])
    return reply.answer is Answer.ACCEPTED
