"""The command ``main.py``, its arguments read: run, write files, print."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from backtest.market.market_data import normalize_coin
from backtest.market.sources import EXCHANGE
from backtest.report.console import print_report
from backtest.report.document import run_document
from backtest.results.files import (
    check_writable,
    json_bytes,
    portfolio_json,
    remove_file,
    summary_json,
    trades_csv,
    write_file,
)
from backtest.results.register import new_run_id, record_run
from backtest.runs.coin_result import CoinResult
from backtest.runs.portfolio_result import (
    PORTFOLIO,
    AllResults,
    PortfolioResult,
    coins_of,
    portfolio_of,
)
from backtest.runs.strategies import is_compiled
from backtest.simulator import EQUAL, BacktestSimulator
from backtest.trust.bands import DETAIL, add_bands
from backtest.trust.bands_text import print_bands
from config import PORTFOLIO_CONFIG
from core.errors import ConfigError, GridError, NetworkError
from core.files import read_json
from engine.compiling import compile_notice
from engine.contract import StrategySpec
from engine.registry import DEFAULT

_GROUP: Final = "portfolio"
_COIN_FILES: Final = ("trades.csv", "summary.json", "report.html")
_COIN_CHARTS: Final = ("equity.png", "trades.png")
_GROUP_FILES: Final = ("summary.json", "report.html")
_GROUP_CHARTS: Final = ("equity.png",)
"""Everything that a run writes, after the name of a coin or of the portfolio."""


@dataclass(frozen=True, kw_only=True)
class PortfolioRequest:
    """Coins run in step on one account.

    Attributes:
        weights: of the shares of the capital, by coin; or ``equal`` or ``volatility``.
        settings: values that differ from ``PORTFOLIO_CONFIG``.
    """

    weights: Mapping[str, float] | str
    settings: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class BacktestRequest:
    """A backtest as asked for on the command line.

    Attributes:
        coins: in any spelling; None: from the settings.
        start: UTC date or None: from the settings.
        end: UTC date or None: from the settings.
        params: strategy parameters that differ from ``STRATEGY_PARAMS``.
        source: ``exchange``, ``demo`` or a folder.
        detail: length of finer candles, or None.
        jobs: coins at a time; None: one per processor.
        plot: draw the charts and write the HTML reports.
        output: folder of all files; None: the settings' folders.
        as_json: print one JSON document instead of the table.
        bands: print the bands above it.
        strategy: what trades.
        portfolio: run the coins in step on one account; None: each by itself.
    """

    coins: list[str] | None
    start: str | None
    end: str | None
    params: Mapping[str, Any]
    source: str | Path
    detail: str | None
    jobs: int | None
    plot: bool
    output: Path | None
    as_json: bool = False
    bands: bool = False
    strategy: StrategySpec = DEFAULT
    portfolio: PortfolioRequest | None = None


class ResultWriter:
    """Writes the files of a result into the folders chosen.

    Args:
        files: of trades, summaries and reports.
        plot: draw charts and write reports.

    Raises:
        DataError: they cannot be written.
    """

    def __init__(self, files: Path, charts: Path, *, plot: bool) -> None:
        self.files, self._chart_folder = files, charts
        self.charts = charts if plot else None
        for folder in (files, self.charts):
            if folder is not None:
                check_writable(folder)

    def write_coin(self, result: CoinResult) -> list[Path]:
        """Write a coin's trades, summary, charts and report and return their paths.

        The run is then on record under its id, if it has one.

        Raises:
            DataError: the disk is full or read-only.
        """
        coin = result.coin
        bodies = {
            self.files / f"{coin}_trades.csv": trades_csv(result),
            self.files / f"{coin}_summary.json": summary_json(result),
        }
        if self.charts is not None:
            from backtest.report.png import equity_figure, png, trades_figure  # noqa: PLC0415 (0.4 s)

            equity = equity_figure(
                coin, result.times_ms, result.equity_curve, result.params.initial_capital
            )
            bodies[self.charts / f"{coin}_equity.png"] = png(equity)
            bodies[self.charts / f"{coin}_trades.png"] = png(trades_figure(result))
            from backtest.report.html import coin_report  # noqa: PLC0415 (0.5 s)

            bodies[self.files / f"{coin}_report.html"] = coin_report(result)
        paths = _write_all(bodies)
        if result.run_id is not None:
            record_run(self.files, result.run_id, result)
        return paths

    def remove_stale(self, name: str, written: Sequence[Path]) -> list[Path]:
        """Remove what an earlier run wrote under ``name`` and this one did not; return the paths.

        Otherwise a report would stand beside the summary of another run.

        Args:
            name: a coin or ``portfolio``.
            written: by this run.

        Raises:
            DataError: a file cannot be removed.
        """
        of_group = name == _GROUP
        every = (
            *(self.files / f"{name}_{end}" for end in (_GROUP_FILES if of_group else _COIN_FILES)),
            *(
                self._chart_folder / f"{name}_{end}"
                for end in (_GROUP_CHARTS if of_group else _COIN_CHARTS)
            ),
        )
        stale = [path for path in every if path not in written and path.is_file()]
        for path in stale:
            remove_file(path)
        return stale

    def remove_stale_portfolio(self, coins: Collection[str]) -> list[Path]:
        """Remove an earlier portfolio that holds one of ``coins``, which have been run anew.

        Raises:
            DataError: a file cannot be removed.
        """
        try:
            summary = read_json(self.files / f"{_GROUP}_summary.json")
        except (OSError, ValueError):
            summary = None
        if not coins:
            return []
        held = summary.get("coins") if isinstance(summary, dict) else None
        if isinstance(held, list) and not set(coins) & set(map(str, held)):
            return []
        return self.remove_stale(_GROUP, [])

    def write_portfolio(self, portfolio: PortfolioResult) -> list[Path]:
        """Write the portfolio's summary, chart and report and return their paths.

        Raises:
            DataError: the disk is full or read-only.
        """
        bodies = {self.files / "portfolio_summary.json": portfolio_json(portfolio)}
        if self.charts is not None:
            from backtest.report.png import equity_figure, png  # noqa: PLC0415 (0.4 s)

            equity = equity_figure(
                "Portfolio of " + ", ".join(portfolio.coins),
                portfolio.times_ms,
                portfolio.equity_curve,
                portfolio.initial_capital,
            )
            bodies[self.charts / "portfolio_equity.png"] = png(equity)
            from backtest.report.html import portfolio_report  # noqa: PLC0415 (0.5 s)

            bodies[self.files / "portfolio_report.html"] = portfolio_report(portfolio)
        return _write_all(bodies)


def run_backtest(request: BacktestRequest) -> int:
    """Run, write each coin's files as soon as it is done, print the report.

    Returns:
        The exit code: 0, or 2 if a coin failed (the others' files stay).

    Raises:
        GridError: nothing could be run.
    """
    logging.basicConfig(format="warning: %(message)s")
    simulator = _simulator(request)
    coins = simulator.coin_names(request.coins)
    outcomes = simulator.iter_results(coins, request.start, request.end, jobs=request.jobs)
    writer = _writer(simulator, request)
    if not is_compiled(simulator.how):
        _say(compile_notice())
    done: dict[str, CoinResult] = {}
    failed: dict[str, GridError] = {}
    for coin, outcome in outcomes:
        if isinstance(outcome, GridError):
            failed[coin] = outcome
        else:
            done[coin] = replace(outcome, run_id=new_run_id(writer.files))
            _keep_coin(writer, done[coin])
    ordered = {coin: done[coin] for coin in coins if coin in done}
    results: dict[str, CoinResult | PortfolioResult] = {**ordered}
    if len(ordered) > 1 and not failed:
        results[PORTFOLIO] = simulator.combine(ordered)
    _keep_portfolio(writer, results)
    if request.as_json:
        sys.stdout.write(json_bytes(run_document(results, failed)).decode())
    elif results:
        if request.bands:
            print_bands(results)
        print_report(results)
    _say_remarks(results, failed)
    return 2 if failed else 0


def chosen_portfolio(args: argparse.Namespace) -> PortfolioRequest | None:
    """Return what the arguments of ``main.py`` say of a portfolio; None: each coin by itself.

    Settings of the portfolio are taken out of ``--set``.

    Raises:
        ConfigError: weights are no ``COIN=SHARE``, or there is no portfolio they could be of.
    """
    named = [item for item in args.set if item.partition("=")[0].strip() in PORTFOLIO_CONFIG]
    if not args.portfolio:
        for flag, given in (
            ("--weights", args.weights),
            ("--allocate", args.allocate),
            *((f"--set {item}", item) for item in named),
        ):
            if given:
                raise ConfigError(f"{flag} is about a portfolio; add --portfolio")
        return None
    args.set = [item for item in args.set if item not in named]
    pairs = (item.partition("=") for item in named)
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    weights = args.allocate or EQUAL
    if args.weights is not None:
        weights = read_weights(args.weights)
    return PortfolioRequest(weights=weights, settings=settings)


def read_weights(items: Sequence[str]) -> dict[str, float]:
    """Return the weights of ``COIN=SHARE`` by coin.

    Raises:
        ConfigError: an item is no such, or names a coin again.
    """
    weights: dict[str, float] = {}
    for item in items:
        coin, equals, share = item.partition("=")
        try:
            name, part = normalize_coin(coin), float(share)
        except ValueError:
            equals = ""
        if not equals:
            raise ConfigError(f"--weights {item} must be COIN=SHARE, such as BTC=0.5")
        if name in weights:
            raise ConfigError(f"--weights names {name} twice")
        weights[name] = part
    return weights


def run_portfolio_command(request: BacktestRequest) -> int:
    """Run coins in step on one account, write all files, print the report; return the exit code.

    Raises:
        GridError: a coin failed, so there is no portfolio.
    """
    logging.basicConfig(format="warning: %(message)s")
    asked = request.portfolio
    if asked is None:
        raise ConfigError("no portfolio was asked for")
    simulator = _simulator(replace(request, plot=False))
    writer = _writer(simulator, request)
    _say("running the coins in step; the first time their loop is compiled (half a minute)")
    portfolio = simulator.run_portfolio(
        request.coins, request.start, request.end, weights=asked.weights, settings=asked.settings
    )
    recorded = {
        coin: replace(result, run_id=new_run_id(writer.files))
        for coin, result in portfolio.results.items()
    }
    for result in recorded.values():
        _keep_coin(writer, result)
    results: dict[str, CoinResult | PortfolioResult] = {
        **recorded,
        PORTFOLIO: replace(portfolio, results=recorded),
    }
    _keep_portfolio(writer, results)
    if request.as_json:
        sys.stdout.write(json_bytes(run_document(results, {})).decode())
    else:
        print_report(results)
    _say_remarks(results, {})
    return 0


def _keep_coin(writer: ResultWriter, result: CoinResult) -> None:
    coin, paths = result.coin, writer.write_coin(result)
    _say_written(coin, paths, result.run_id or "")
    _say_removed(coin, writer.remove_stale(coin, paths))


def _keep_portfolio(writer: ResultWriter, results: AllResults) -> None:
    """Write the portfolio if there is one; else remove an earlier one of the coins run anew."""
    portfolio = portfolio_of(results)
    if portfolio is None:
        _say_removed(_GROUP, writer.remove_stale_portfolio(results))
        return
    paths = writer.write_portfolio(portfolio)
    _say_written(_GROUP, paths)
    _say_removed(_GROUP, writer.remove_stale(_GROUP, paths))


def _say_remarks(results: AllResults, failed: Mapping[str, GridError]) -> None:
    for result in coins_of(results).values():
        for notice in result.notices:
            _say(f"warning: {notice}")
    for message in dict.fromkeys(_failure(coin, error) for coin, error in failed.items()):
        _say(f"error: {message}")
    if failed and results:
        _say(f"no portfolio: {', '.join(failed)} failed; the files of the others are complete")


def _failure(coin: str, error: GridError) -> str:
    """Return what went wrong, naming the coin unless it concerns all of them."""
    message = str(error)
    return message if coin in message or isinstance(error, NetworkError) else f"{coin}: {message}"


def _simulator(request: BacktestRequest) -> BacktestSimulator:
    wanted = request.plot or request.bands  # the HTML report always shows them
    simulator = BacktestSimulator(
        request.params,
        source=request.source,
        detail=request.detail,
        also=add_bands if wanted else None,
        strategy=request.strategy,
    )
    if wanted and request.source != EXCHANGE:  # from there it would be a long download
        load = partial(
            simulator.source.load, timeframe=simulator.settings["timeframe"], detail=DETAIL
        )
        simulator.also = partial(add_bands, load_minutes=load)
    return simulator


def _writer(simulator: BacktestSimulator, request: BacktestRequest) -> ResultWriter:
    files = request.output or Path(simulator.settings["output_dir"])
    charts = request.output or Path(simulator.settings["chart_dir"])
    return ResultWriter(files, charts, plot=request.plot)


def _write_all(bodies: Mapping[Path, bytes]) -> list[Path]:
    for path, body in bodies.items():
        write_file(path, body)
    return list(bodies)


def _say_written(name: str, paths: list[Path], run_id: str = "") -> None:
    folders = dict.fromkeys(path.parent for path in paths)
    parts = [
        f"{', '.join(path.name for path in paths if path.parent == folder)} in {folder}"
        for folder in folders
    ]
    _say(f"{name}: wrote {'; '.join(parts)}{f' (run {run_id})' if run_id else ''}")


def _say_removed(name: str, paths: Sequence[Path]) -> None:
    if paths:
        names = ", ".join(path.name for path in paths)
        _say(f"{name}: removed {names} of an earlier run")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)  # noqa: T201
