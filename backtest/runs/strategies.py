"""How each strategy is backtested: the one place where the backtest house tells them apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from backtest.market.coin_data import CoinData
from backtest.market.timeframes import format_time
from backtest.runs.facts import check_capital, hole_notices, run_notices
from backtest.runs.fixed_variants import FixedVariants
from backtest.runs.portfolio_result import Together
from backtest.runs.together import run_grids_together
from backtest.runs.variants import Variants
from core.times import BAR_MS
from engine.compiling import is_compiled as is_grid_compiled
from engine.compiling import load_machine_code
from engine.contract import StrategySpec
from engine.fixed_grid.compiling import is_fixed_grid_compiled, load_fixed_grid
from engine.fixed_grid.params import FixedGridParams, RecoveryMode, load_warnings
from engine.fixed_grid.sizes import market_warnings
from engine.registry import FIXED_GRID, GRID_V4
from engine.results import RunResult

Notices = Callable[[str, Any, CoinData, RunResult], list[str]]


@dataclass(frozen=True)
class PortfolioRisk:
    """Parameters of a portfolio's value at risk, in candles of the run."""

    volatility_period: int
    var_horizon_bars: float
    high_corr_threshold: float


@dataclass(frozen=True)
class Backtested:
    """A strategy as the backtest house runs it.

    Attributes:
        spec: its name, parameters and needs.
        variants: prepares a coin's data for runs.
        timeframe: length of the candles that parameters need, as text; None: as in the settings.
        no_candles: what to do where there are no candles of that length.
        warms_up: candles before the start are loaded for indicators.
        notices: what a reader must know about a run; CapitalError where no order was possible.
        removals: what ``--compare`` runs besides the full strategy, by name; None: as of GridV4.
        static: answers with the parameters of the plain grid a search must beat;
            None: as of GridV4.
        risk: of a portfolio, from parameters and candle length in ms.
        searched: the optimizer can search it.
        is_compiled: its machine code is on disk.
        load: loads it, compiling first where there is none.
        together: runs prepared coins in step, see ``backtest.runs.together``; None: it cannot.
    """

    spec: StrategySpec
    variants: Callable[[CoinData, Any], Any]
    timeframe: Callable[[Any], str | None]
    no_candles: str
    warms_up: bool
    notices: Notices
    removals: Callable[[Any], dict[str, Any]] | None
    static: Callable[[Any], Any] | None
    risk: Callable[[Any, int], Any]
    searched: bool
    is_compiled: Callable[[], bool]
    load: Callable[[], None]
    together: Callable[..., tuple[dict[str, Any], Together]] | None = None


def _grid_notices(coin: str, strategy: Any, data: CoinData, result: RunResult) -> list[str]:
    check_capital(coin, strategy, data.rules, result)
    return run_notices(coin, strategy, result) + hole_notices(data.market, data.first_bar)


def _fixed_notices(coin: str, strategy: Any, data: CoinData, result: RunResult) -> list[str]:
    return list(_notices_of_fixed(coin, strategy, data, result))


def _notices_of_fixed(coin: str, strategy: Any, data: CoinData, result: RunResult) -> Iterator[str]:
    params, metrics = strategy.params, result.metrics
    if strategy.state.ended:
        at = format_time(int(result.trades["ts_ms"][-1]))
        yield f"{coin}: liquidated to 0 at {at}; the run ended there"
    if strategy.state.stopped:
        yield f"{coin}: the stop price {params.stop_price:g} was reached; the run ended there"
    if metrics["turnover"] == 0.0:
        yield f"{coin}: nothing was traded"
    price = float(data.market.candles["open"].iloc[data.first_bar])
    for text in (*load_warnings(params), *market_warnings(params, data.rules, price)):
        yield f"{coin}: {text}"
    yield from hole_notices(data.market, data.first_bar)
    if metrics["holes"]:
        yield (
            f"{coin}: {metrics['holes']} intervals of 15 minutes lacked candles; each was walked "
            "as one candle with one step"
        )


def _fixed_removals(params: FixedGridParams) -> dict[str, FixedGridParams]:
    """Return the fixed grid without its stops, in each recovery mode, and without cooldown."""
    found = {"stop": replace(params, stop_loss_enabled=False)}
    for mode in RecoveryMode:
        found[f"recovery {mode.name.lower()}"] = replace(params, recovery_mode=mode)
    found["cooldown"] = replace(params, wait_time=0.0)
    return {name: variant for name, variant in found.items() if variant != params}


def _static_fixed_grid(params: FixedGridParams) -> FixedGridParams:
    """Return the fixed grid with nothing but its entries and take-profits."""
    return replace(params, stop_loss_enabled=False, recovery_mode=RecoveryMode.NONE, wait_time=0.0)


def _fixed_risk(params: FixedGridParams, bar_ms: int) -> PortfolioRisk:  # noqa: ARG001
    defaults: Mapping[str, Any] = GRID_V4.defaults
    horizon = float(defaults["var_horizon_bars"]) * BAR_MS / bar_ms
    return PortfolioRisk(
        int(defaults["volatility_period"]), horizon, float(defaults["high_corr_threshold"])
    )


_FIXED_TIMEFRAMES: Final = {60: "1m", 300: "5m", 900: "15m"}
BACKTESTED: Final[Mapping[str, Backtested]] = {
    GRID_V4.name: Backtested(
        spec=GRID_V4,
        variants=Variants,
        timeframe=lambda params: None,  # noqa: ARG005 - as the settings say
        no_candles="",
        warms_up=True,
        notices=_grid_notices,
        removals=None,
        static=None,
        risk=lambda params, bar_ms: params,  # noqa: ARG005
        searched=True,
        is_compiled=is_grid_compiled,
        load=load_machine_code,
        together=run_grids_together,
    ),
    FIXED_GRID.name: Backtested(
        spec=FIXED_GRID,
        variants=FixedVariants,
        timeframe=lambda params: _FIXED_TIMEFRAMES[params.step_s],
        no_candles="; a step needs candles as fine as itself: with --set step_s=900 15-minute "
        "candles do",
        warms_up=False,
        notices=_fixed_notices,
        removals=_fixed_removals,
        static=_static_fixed_grid,
        risk=_fixed_risk,
        searched=True,
        is_compiled=is_fixed_grid_compiled,
        load=lambda: load_fixed_grid(FIXED_GRID.read()),
    ),
}


def backtested(spec: StrategySpec) -> Backtested:
    """Return how a strategy is backtested; one that is not known here as GridV4, on its candles."""
    if spec.name in BACKTESTED:
        return BACKTESTED[spec.name]
    return replace(BACKTESTED[GRID_V4.name], spec=spec, variants=partial(Variants, spec=spec))


def is_compiled(how: Backtested) -> bool:
    """Return whether a strategy's machine code is on disk, so that starting is quick."""
    return how.is_compiled()
