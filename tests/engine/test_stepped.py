"""A backtest by steps does what the compiled loop does, record by record."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from backtest.market.demo import DEMO_START_MS, demo_market
from config import PRESETS
from core.market import MarketRules
from core.times import BAR_MS
from engine.grid_v4.face import GridV4
from engine.stepped import SteppedBacktest
from engine.strategy import GridStrategyV4, known_market, read_config
from engine.tables import BarLog

N_BARS = 2_500


class ReadableGridV4(GridV4):
    """Its tape can be read."""

    @property
    def tape(self) -> Any:
        """Where its trade records are written."""
        return self._tape


def create(params: Any, rules: MarketRules) -> Any:
    return ReadableGridV4(params, rules, "")


@pytest.mark.slow
@pytest.mark.parametrize("with_detail", [False, True])
def test_steps_in_turn_trade_as_the_compiled_loop(*, with_detail: bool) -> None:
    params, rules = read_config(PRESETS["documented"]), known_market("BTC")
    market = demo_market("BTC", end_ms=DEMO_START_MS + N_BARS * BAR_MS, detail=with_detail)
    given: dict[str, Any] = {"funding": market.funding, "detail": market.detail, "first_bar": 700}
    compiled = GridStrategyV4(params, rules).run_result(market.candles, **given)
    stepped = SteppedBacktest(create, params, rules).run_result(market.candles, **given)
    assert len(compiled.trades) > 20
    assert stepped.trades.tolist() == compiled.trades.tolist()
    assert stepped.funding_source == compiled.funding_source
    for name in BarLog.__annotations__:
        tolerance = 1e-9 if name == "funding" else 0.0  # the difference of two sums
        np.testing.assert_allclose(stepped.log[name], compiled.log[name], rtol=0, atol=tolerance)
    same = {key: compiled.metrics[key] for key in stepped.metrics}
    assert repr(stepped.metrics) == repr(same)  # NaN too
