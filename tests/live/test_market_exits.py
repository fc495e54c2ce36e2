"""Closing at market on the simulated exchange: both sides at once, and what stands in the way."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from config import PRESETS
from core.errors import UnknownOutcome
from core.orders import POSITION_SIDES, OrderKind
from engine.contract import Exit
from live.execution.order_register import OrderRecord
from live.simulated.filters import ApiError
from live.simulated.orders import Json
from live.simulated.parameters import Params
from live.simulated.trade_endpoints import TradeEndpoints
from tests.support.markets.synthetic import RULES, synthetic_candles
from tests.support.processes.live_session import Scene, on_stage, warm_bars

CONFIG = PRESETS["documented"]
WARM = warm_bars(CONFIG)


@pytest.fixture
def held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A session that holds both sides, with take-profits and stops at the exchange."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    candles = synthetic_candles(WARM + 97, 112)
    with on_stage(candles, CONFIG, RULES, tmp_path, start_bar=WARM) as scene:
        while {order.position_side for order in take_profits(scene)} != set(POSITION_SIDES):
            scene.live.runner.run(once=True)
        yield scene


def take_profits(scene: Scene, position_side: str | None = None) -> list[OrderRecord]:
    return scene.session.orders.alive(OrderKind.TAKE_PROFIT, position_side=position_side)


def exits_of(scene: Scene) -> list[Exit]:
    """Return an exit for every open fill, whole."""
    return [
        Exit(position_side, fill.fill_id, fill.qty, "PRUNE_GAP")
        for position_side in POSITION_SIDES
        for fill in scene.session.strategy.fills(position_side)
    ]


def requests_of(scene: Scene) -> list[str]:
    """Return a list that the session's requests are written to, by the end of their path."""
    seen: list[str] = []
    scene.exchange.before_request = lambda _, __, path: seen.append(path.rpartition("/")[2])
    return seen


def held_at_exchange(scene: Scene) -> dict[str, float]:
    return {name: float(side.qty) for name, side in scene.exchange.account.positions.items()}


def test_both_sides_are_closed_with_one_look_at_their_trades(held: Scene) -> None:
    seen = requests_of(held)
    held.live.broker.close(exits_of(held))
    assert seen == ["batchOrders", "order", "order", "userTrades"]
    assert held_at_exchange(held) == {"LONG": 0.0, "SHORT": 0.0}
    assert held.position_gaps() == [0.0, 0.0]
    assert not take_profits(held)


def test_take_profits_that_cannot_be_cancelled_hold_back_their_own_side_only(
    held: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, cancel = {o.order_id for o in take_profits(held, "SHORT")}, TradeEndpoints.cancel

    def cancel_long_ones(self: TradeEndpoints, params: Params) -> Json:
        if params["orderId"] in ids:
            raise ApiError(-1000)
        return cancel(self, params)

    with monkeypatch.context() as patch:
        patch.setattr(TradeEndpoints, "cancel", cancel_long_ones)
        with pytest.raises(UnknownOutcome, match="take-profits of SHORT may still be open"):
            held.live.broker.close(exits_of(held))
    assert held_at_exchange(held)["LONG"] == 0.0
    assert held_at_exchange(held)["SHORT"] > 0.0
    assert len(take_profits(held, "SHORT")) == len(ids)

    held.live.broker.finish_exits()
    assert held_at_exchange(held) == {"LONG": 0.0, "SHORT": 0.0}
    assert held.position_gaps() == [0.0, 0.0]
