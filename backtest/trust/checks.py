"""``main.py --check``: whether a backtest on these data with these parameters can be believed."""

from __future__ import annotations

import json
import logging
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from backtest.market.coin_data import CoinData
from backtest.market.sources import MarketSource
from backtest.runs.strategies import is_compiled
from backtest.simulator import BacktestSimulator
from backtest.trust.fixed_grid import check_fixed_lookahead, check_fixed_parity, check_fixed_warmup
from backtest.trust.lookahead import check_lookahead
from backtest.trust.outcome import DEFAULT_BUDGET, Budget, CheckOutcome
from backtest.trust.parity import check_parity
from backtest.trust.warmup import check_warmup
from core.errors import ConfigError
from core.params import unknown_key
from engine.compiling import compile_notice
from engine.contract import StrategySpec
from engine.registry import DEFAULT, FIXED_GRID, GRID_V4

EXIT_FOUND: Final = 1
LOOKAHEAD: Final = "lookahead"
WARMUP: Final = "warmup"
PARITY: Final = "parity"
CHECKS: Final = (LOOKAHEAD, WARMUP, PARITY)
_WIDTH: Final = 80
_INDENT: Final = " " * 6


@dataclass(frozen=True, kw_only=True)
class CheckRequest:
    """Checks as asked for on the command line.

    Attributes:
        names: out of ``CHECKS``.
        coins: in any spelling; None: from the settings.
        start: UTC date or None: from the settings.
        end: UTC date or None: from the settings.
        params: strategy parameters that differ from ``STRATEGY_PARAMS``.
        source: ``exchange``, ``demo``, the path of a folder, or a MarketSource.
        detail: length of finer candles, or None.
        budget: a count or a time, as text; None: ``DEFAULT_BUDGET``.
        as_json: print one JSON document.
        strategy: what trades.
    """

    names: list[str]
    coins: list[str] | None
    start: str | None
    end: str | None
    params: Mapping[str, Any]
    source: MarketSource | str | Path
    detail: str | None
    budget: str | None
    as_json: bool = False
    strategy: StrategySpec = DEFAULT


def run_checks(request: CheckRequest) -> int:
    """Run the checks on every coin and print what each found.

    Returns:
        The exit code: 0 if all passed, 1 if one did not.

    Raises:
        GridError: a check, a coin, a date or a parameter is unusable.
    """
    logging.basicConfig(format="warning: %(message)s")
    names = list(dict.fromkeys(request.names))
    for name in names:
        if name not in CHECKS:
            unknown = unknown_key(name, dict.fromkeys(CHECKS), "check")
            raise ConfigError(f"{unknown} (there are: {', '.join(CHECKS)})")
    budget = DEFAULT_BUDGET if request.budget is None else Budget.parse(request.budget)
    simulator = BacktestSimulator(
        request.params, source=request.source, detail=request.detail, strategy=request.strategy
    )
    coins = simulator.coin_names(request.coins)
    if not is_compiled(simulator.how):
        print(  # noqa: T201
            compile_notice(), file=sys.stderr
        )
    simulator.how.load()
    outcomes: dict[str, dict[str, CheckOutcome]] = {}
    for coin in coins:
        data, found = simulator.load(coin, request.start, request.end), {}
        for notice in data.notices:
            print(f"warning: {notice}", file=sys.stderr)  # noqa: T201
        for name in names:
            found[name] = run_check(name, data, simulator, budget)
            if not request.as_json:
                _print(name, coin, found[name])
        outcomes[coin] = found
    _finish(outcomes, simulator.spec.fingerprint, as_json=request.as_json)
    passed = all(item.passed for found in outcomes.values() for item in found.values())
    return 0 if passed else EXIT_FOUND


def run_check(
    name: str, data: CoinData, simulator: BacktestSimulator, budget: Budget
) -> CheckOutcome:
    """Run one check out of ``CHECKS`` on one coin.

    Raises:
        DataError: the candles cannot be used, or are too few.
    """
    warmup_bars = int(simulator.settings["warmup_bars"])
    run = _OF_STRATEGY[simulator.spec.name][name]
    return run(data, simulator.params, warmup_bars, budget)


_Check = Callable[[CoinData, Any, int, Budget], CheckOutcome]
_OF_STRATEGY: Final[Mapping[str, Mapping[str, _Check]]] = {
    GRID_V4.name: {
        LOOKAHEAD: lambda data, params, _, budget: check_lookahead(data, params, budget),
        WARMUP: check_warmup,
        PARITY: lambda data, params, _, budget: check_parity(data, params, budget),
    },
    FIXED_GRID.name: {
        LOOKAHEAD: lambda data, params, _, budget: check_fixed_lookahead(data, params, budget),
        WARMUP: lambda data, params, _, budget: check_fixed_warmup(data, params, budget),
        PARITY: lambda data, params, _, budget: check_fixed_parity(data, params, budget),
    },
}


def _finish(
    outcomes: Mapping[str, Mapping[str, CheckOutcome]], code: str, *, as_json: bool
) -> None:
    """Print what belongs below the outcomes, or all of it as one document."""
    if not as_json:
        _say(f"Decision code {code}")
        return
    plain = {
        coin: {name: asdict(outcome) for name, outcome in found.items()}
        for coin, found in outcomes.items()
    }
    _say(json.dumps({"checks": plain, "code_fingerprint": code}, indent=2))


def _print(name: str, coin: str, outcome: CheckOutcome) -> None:
    verdict = "passed" if outcome.passed else "FAILED"
    lines = [f"{coin:<{len(_INDENT) - 1}} {name}: {verdict}: {outcome.summary}"]
    if not outcome.passed:
        lines.append(f"{_INDENT}first difference: {outcome.difference}")
    for line in lines:
        _say(textwrap.fill(line, _WIDTH, subsequent_indent=_INDENT, break_long_words=False))
    for line in outcome.table:
        _say(f"{_INDENT}{line}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
