"""Coins run in step on one account: sums, shares, limits, files, and what is refused."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import main as main_module
from backtest.runs.portfolio_result import PortfolioResult
from backtest.simulator import BacktestSimulator
from core.errors import ConfigError

SPAN = ("2024-01-01", "2024-03-01")
TIGHT = {"portfolio_drawdown_pct": 0.004}
BUSY: dict[str, Any] = {"initial_capital": 15_000.0, "leverage": 3.0, "order_pct": 0.1}


def simulator(**changes: Any) -> BacktestSimulator:
    return BacktestSimulator({**BUSY, **changes}, source="demo")


@pytest.fixture(scope="module")
def tight() -> PortfolioResult:
    return simulator().run_portfolio(["BTC", "ETH", "SOL"], *SPAN, settings=TIGHT)


def test_with_room_for_all_each_coin_trades_as_by_itself() -> None:
    found = simulator().run_portfolio(
        ["BTC", "ETH"], *SPAN, settings={"portfolio_drawdown_pct": 1.0}
    )
    assert found.together is not None
    assert np.all(found.together.share == 1.0)
    for coin, result in found.results.items():
        alone = simulator(initial_capital=7_500.0).run_single(coin, *SPAN)
        assert result.trades.tobytes() == alone["trade_table"].tobytes()
        assert np.array_equal(result.equity_curve, alone["equity_curve"])
        assert len(result.trades) > 20


def test_switched_off_nothing_is_bounded() -> None:
    off = simulator().run_portfolio(
        ["BTC", "ETH"], *SPAN, settings={**TIGHT, "portfolio_var_enabled": "off"}
    )
    assert off.together is not None
    assert np.all(off.together.share == 1.0)
    assert math.isnan(off.together.drawdown_pct)


def test_a_tight_budget_caps_and_blocks_and_is_counted(tight: PortfolioResult) -> None:
    assert tight.together is not None
    figures = tight.together.to_dict()
    share = tight.together.share
    assert figures["portfolio_capped"] == int(np.sum(share < 1.0)) > 50
    assert figures["portfolio_blocked"] == int(np.sum(share == 0.0))
    assert figures["lowest_share"] == share.min()
    free = simulator().run_portfolio(["BTC", "ETH", "SOL"], *SPAN)
    assert len(tight.trade_frame()) < len(free.trade_frame())


def test_the_portfolio_is_the_sum_of_its_coins(tight: PortfolioResult) -> None:
    assert tight.initial_capital == 15_000.0
    ends = [float(result.equity_curve[-1]) for result in tight.results.values()]
    assert tight.metrics["final_capital"] == pytest.approx(math.fsum(ends), abs=0.005)


def test_shares_follow_the_weights() -> None:
    found = simulator().run_portfolio(
        ["BTC", "ETH"], "2024-01-01", "2024-01-08", weights={"BTC": 0.75, "ETH": 0.25}
    )
    capital = {coin: float(x.params.initial_capital) for coin, x in found.results.items()}
    assert capital == {"BTC": 11_250.0, "ETH": 3_750.0}
    assert found.together is not None
    assert found.together.weights == {"BTC": 0.75, "ETH": 0.25}


def test_by_volatility_the_calmer_coin_gets_more() -> None:
    found = simulator().run_portfolio(
        ["BTC", "SOL"], "2024-01-01", "2024-01-08", weights="volatility"
    )
    capital = {coin: float(x.params.initial_capital) for coin, x in found.results.items()}
    assert capital["BTC"] > capital["SOL"] > 1_000.0
    assert sum(capital.values()) == pytest.approx(15_000.0, abs=0.005)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"portfolio_drawdown": 0.1}, "did you mean portfolio_drawdown_pct"),
        ({"portfolio_drawdown_pct": 0.0}, "portfolio_drawdown_pct = 0.0 must be a share"),
        ({"portfolio_drawdown_pct": "nan"}, "must be a share"),
        ({"portfolio_drawdown_pct": 1.5}, "must be a share"),
        ({"portfolio_var_enabled": "perhaps"}, "must be true or false"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        simulator().run_portfolio(["BTC", "ETH"], *SPAN, settings=settings)


def test_one_coin_is_refused_and_so_is_a_strategy_that_cannot() -> None:
    with pytest.raises(ConfigError, match="at least two coins"):
        simulator().run_portfolio(["BTC"], *SPAN)
    fixed = BacktestSimulator({}, source="demo", strategy="fixed_grid")
    with pytest.raises(ConfigError, match="does not run in a portfolio yet"):
        fixed.run_portfolio(["BTC", "ETH"], *SPAN)


# --- the command ----------------------------------------------------------------------------------


def command(*arguments: str) -> int:
    return main_module.main(["--portfolio", "--demo", "--start", SPAN[0], "--end", *arguments])


def test_the_command_writes_files_that_the_audit_confirms(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--coins", "BTC", "ETH", "--capital", "9000", "--no-plot", "--set"]
    output = ["--output", str(tmp_path), "--weights", "BTC=0.6", "ETH=0.4"]
    assert command(SPAN[1], *arguments, "portfolio_drawdown_pct=0.002", *output) == 0
    out = capsys.readouterr().out
    assert "9,000 USDT in all" in out
    assert "shared: BTC 60 %, ETH 40 %" in out
    document = json.loads((tmp_path / "portfolio_summary.json").read_text())
    assert document["initial_capital"] == 9_000.0
    assert document["together"]["portfolio_capped"] > 0
    common = ["--demo", "--coins", "BTC", "ETH", "--start", SPAN[0], "--end", SPAN[1]]
    assert main_module.main([*common, "--audit", "--output", str(tmp_path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--coins", "BTC", "ETH", "--weights", "BTC=0.6"], "missing: ETH"),
        (["--coins", "BTC", "ETH", "--weights", "BTC=0.6", "ETH=0.6"], "add up to 1.2"),
        (["--coins", "BTC", "ETH", "--weights", "BTC=x", "ETH=0.6"], "must be COIN=SHARE"),
        (["--coins", "BTC", "ETH", "--weights", "BTC=.5", "BTC=.5"], "names BTC twice"),
        (["--coins", "BTC", "ETH", "--allocate", "luck"], "must be equal or volatility"),
        (["--coins", "BTC"], "at least two coins"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(SPAN[1], *arguments, "--no-plot", "--output", str(tmp_path)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert said in error
    assert error.startswith("error: ")


@pytest.mark.parametrize(
    "flag", [["--weights", "BTC=1"], ["--allocate", "equal"], ["--set", "portfolio_drawdown_pct=1"]]
)
def test_what_is_about_a_portfolio_needs_one(
    flag: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main_module.main(["--demo", *flag]) == 2
    assert "is about a portfolio; add --portfolio" in capsys.readouterr().err
