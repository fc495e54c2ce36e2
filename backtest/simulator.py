"""``BacktestSimulator``: from a coin's name and two dates to a result."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from copy import copy
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import numpy as np

from backtest.market.coin_data import CoinData
from backtest.market.market_data import MarketData, normalize_coin
from backtest.market.sources import EXCHANGE, AnySource, market_source
from backtest.market.timeframes import format_time, parse_time, timeframe_ms
from backtest.runs.coin_result import CoinResult
from backtest.runs.facts import data_facts, loaded_range, rounding_notices
from backtest.runs.portfolio import combine_portfolio
from backtest.runs.portfolio_result import PortfolioResult
from backtest.runs.strategies import backtested
from backtest.runs.together import Prepared, read_limits, start_volatility
from config import BACKTEST_CONFIG, PORTFOLIO_CONFIG
from core.capital import equal_weights, given_weights, shares_of, volatility_weights
from core.errors import ConfigError, DataError, GridError
from core.frames import check_candles, check_funding
from core.market import MarketRules
from core.params import StrategyParams, unknown_key
from engine.contract import StrategySpec
from engine.registry import DEFAULT, find_strategy, read_params
from engine.result_dict import ResultDict
from engine.results import RunResult

MIN_CANDLES: Final = 100
EQUAL: Final = "equal"
BY_VOLATILITY: Final = "volatility"
LEAST_COINS: Final = 2
When = str | date | None
"""A UTC date or time as text, ``date``, ``datetime`` or ``Timestamp``; None: from the settings."""
AlsoCompute = Callable[[Any, RunResult], dict[str, Any]]
"""Takes the variants of the central run, and its result."""


class BacktestSimulator:
    """Backtests of coins between two dates, all with the same parameters.

    Args:
        config: strategy parameters; missing ones are as shipped.
        backtest_config: overrides ``BACKTEST_CONFIG``; may also hold strategy parameters, which
            then override ``config``. ``markets`` adds to the known ones.
        source: ``exchange``, ``demo``, the path of a folder of candle files, ``{coin: frame}``, or
            a MarketSource.
        detail: length of finer candles to walk inside the others, such as ``1m``.
        also: answers with more entries for every coin's result.
        strategy: what trades, or its name.

    Raises:
        ConfigError: a key is unknown, or a value of the wrong type or out of range.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | Any | None = None,
        backtest_config: Mapping[str, Any] | None = None,
        source: AnySource = EXCHANGE,
        *,
        detail: str | None = None,
        also: AlsoCompute | None = None,
        strategy: StrategySpec | str = DEFAULT,
    ) -> None:
        self.spec = find_strategy(strategy) if isinstance(strategy, str) else strategy
        self.how = backtested(self.spec)
        self.settings, overrides = _split_settings(backtest_config or {}, self.spec)
        given = config.to_dict() if isinstance(config, self.spec.params) else dict(config or {})
        self.params = read_params(self.spec, {**given, **overrides})
        if not self.how.warms_up:
            self.settings["warmup_bars"] = 0
        needed = self.how.timeframe(self.params)
        if needed is not None and "timeframe" not in (backtest_config or {}):
            self.settings["timeframe"] = needed
        self.bar_ms = timeframe_ms(self.settings["timeframe"])
        if detail is not None and timeframe_ms(detail) >= self.bar_ms:
            raise ConfigError(
                f"detail = {detail!r} must be shorter than timeframe = "
                f"{self.settings['timeframe']!r}"
            )
        self.detail, self.also = detail, also
        self.source = market_source(source, Path(self.settings["cache_dir"]))

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; the strategy goes by its name."""
        return {**vars(self), "spec": self.spec.name, "how": None}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Restore ``__getstate__``."""
        vars(self).update(state)
        self.spec = find_strategy(state["spec"])
        self.how = backtested(self.spec)

    def run_single(self, coin: str, start: When = None, end: When = None) -> ResultDict:
        """Backtest one coin.

        Args:
            coin: ``BTC``, ``BTC/USDT`` or another spelling of the USDT perpetual.
            start: UTC date or time of the first bar traded; None: from the settings.
            end: UTC date or time, exclusive; None: from the settings, where empty is now.

        Returns:
            What ``GridStrategyV4.run`` answers, cut to the bars from ``start`` on: every ``bar``
            and ``first_bar`` counts from there, so ``equity_curve[trade["bar"]]`` is the equity
            at the close of a trade's bar. And ``coin``, ``candles`` (of the same bars), ``params``,
            ``market`` (rules), ``data`` (range, hash, gaps and origin), ``fingerprint`` (of the
            decision code) and ``notices`` (what a reader must know). It is a dict that also shows
            itself: ``.trades``, ``.equity``, ``.plot()``, ``.report(path)``; see
            ``engine.result_dict.ResultDict``.

        Raises:
            ConfigError: a date cannot be read, or ``end`` is not after ``start``.
            DataError: the coin is unknown, or its candles are too few or unusable.
            NetworkError: the exchange cannot be reached.
            CapitalError: the capital is too small for any order.
        """
        name, (start_ms, end_ms) = normalize_coin(coin), self._range(start, end)
        self.how.load()
        return self._run(name, start_ms, end_ms, self.not_read([name])).to_dict()

    def run_multi(
        self,
        coins: Sequence[str] | str | None = None,
        start: When = None,
        end: When = None,
        *,
        jobs: int | None = None,
    ) -> ResultDict:
        """Backtest several coins, each with ``initial_capital`` of its own.

        Args:
            coins: in any spelling; repeated ones count once; None: from the settings.
            start: as in ``run_single``.
            end: as in ``run_single``.
            jobs: coins at a time; None: one per processor. Results do not depend on it.

        Returns:
            The result of each coin in the order given, and ``_portfolio``: ``coins``;
            ``timestamp`` and ``equity_curve`` on the bars any coin has, shape (n_bars,);
            ``initial_capital``; ``common_bars``, how many of them all coins have; ``metrics``;
            ``var`` as ``backtest.runs.portfolio.portfolio_var`` answers. ``.trades`` (all coins',
            with a column ``coin``), ``.equity``, ``.plot()`` and ``.report(path)`` show the
            portfolio.

        Raises:
            GridError: as ``run_single``, of the first coin that failed, when all are done.
        """
        names = self.coin_names(coins)
        outcomes = dict(self.iter_results(names, start, end, jobs=jobs))
        results: dict[str, CoinResult] = {}
        for coin in names:
            outcome = outcomes[coin]
            if isinstance(outcome, GridError):
                raise outcome
            results[coin] = outcome
        return self.combine(results).all_dicts()

    def iter_multi(
        self,
        coins: Sequence[str] | str | None = None,
        start: When = None,
        end: When = None,
        *,
        jobs: int | None = None,
    ) -> Iterator[tuple[str, ResultDict | GridError]]:
        """Yield each coin's result as ``run_single`` answers it; see ``iter_results``."""
        found = self.iter_results(coins, start, end, jobs=jobs)
        return (
            (coin, outcome if isinstance(outcome, GridError) else outcome.to_dict())
            for coin, outcome in found
        )

    def iter_results(
        self,
        coins: Sequence[str] | str | None = None,
        start: When = None,
        end: When = None,
        *,
        jobs: int | None = None,
    ) -> Iterator[tuple[str, CoinResult | GridError]]:
        """Yield each coin's typed result, or the error it failed with, as soon as it is there.

        Threads suffice: the compiled loop releases the interpreter's lock. Leaving the iteration
        early starts no further coin.

        Raises:
            ConfigError: ``jobs`` or the range is impossible.
            DataError: a coin's name cannot be read.
        """
        names, (start_ms, end_ms) = self.coin_names(coins), self._range(start, end)
        if jobs is not None and jobs < 1:
            raise ConfigError(f"jobs = {jobs} must be at least 1")
        return self._outcomes(names, start_ms, end_ms, min(jobs or os.cpu_count() or 1, len(names)))

    def _outcomes(
        self, coins: Sequence[str], start_ms: int, end_ms: int, jobs: int
    ) -> Iterator[tuple[str, CoinResult | GridError]]:
        self.how.load()
        pool = ThreadPoolExecutor(jobs)
        try:
            unread = self.not_read(coins)
            pending = {
                pool.submit(self._run, coin, start_ms, end_ms, unread): coin for coin in coins
            }
            for future in as_completed(pending):
                try:
                    yield pending[future], future.result()
                except GridError as error:
                    yield pending[future], error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def portfolio(self, results: Mapping[str, Mapping[str, Any]]) -> ResultDict:
        """Return ``_portfolio`` of results by coin, each as ``run_single`` answers."""
        return self.combine({coin: CoinResult.read(x) for coin, x in results.items()}).to_dict()

    def combine(self, results: Mapping[str, CoinResult]) -> PortfolioResult:
        """Return the portfolio of ``results``; see ``runs.portfolio.combine_portfolio``."""
        return combine_portfolio(results, self.bar_ms, self.how.risk(self.params, self.bar_ms))

    def run_portfolio(
        self,
        coins: Sequence[str] | str | None = None,
        start: When = None,
        end: When = None,
        *,
        weights: Mapping[str, float] | str = EQUAL,
        settings: Mapping[str, Any] | None = None,
    ) -> PortfolioResult:
        """Backtest several coins in step on one account: ``initial_capital`` is of all together.

        Their entries are bounded by the value at risk of all positions, as in a process that
        trades them live (``core.portfolio_risk``). ``all_dicts()`` of the answer is a dict as of
        ``run_multi``, which shows itself.

        Args:
            coins: as in ``run_multi``; at least two.
            start: as in ``run_single``.
            end: as in ``run_single``.
            weights: of each coin's share of the capital, together 1; or ``equal``, or
                ``volatility``: by the inverse of its mean true range of seven days at the start.
            settings: values that differ from ``PORTFOLIO_CONFIG``.

        Raises:
            GridError: as ``run_single``, of the first coin that failed; or the strategy cannot run
                so, weights or settings are no such, or a share is too small for any order.
        """
        names, (start_ms, end_ms) = self.coin_names(coins), self._range(start, end)
        limits = read_limits(PORTFOLIO_CONFIG, settings or {})
        if self.how.together is None:
            raise ConfigError(f"{self.spec.name} does not run in a portfolio yet; use grid_v4")
        if len(names) < LEAST_COINS:
            raise ConfigError(
                f"a portfolio needs at least two coins; there is only {', '.join(names)}"
            )
        self.how.load()
        unread = self.not_read(names)
        with ThreadPoolExecutor(min(os.cpu_count() or 1, len(names))) as pool:
            loaded = dict(
                zip(
                    names,
                    pool.map(lambda coin: self._load(coin, start_ms, end_ms), names),
                    strict=True,
                )
            )
        shares = self._shares(loaded, weights)
        simulators = {coin: self._with_capital(share) for coin, share in shares.items()}
        ready = {coin: simulators[coin].prepare(loaded[coin]) for coin in names}
        risk = self.how.risk(self.params, self.bar_ms)
        runs, together = self.how.together(
            ready,
            {coin: share / self.params.initial_capital for coin, share in shares.items()},
            limits,
            risk,
        )
        results = {
            coin: simulators[coin].result_of(
                coin, ready[coin], runs[coin], (start_ms, end_ms), unread
            )
            for coin in names
        }
        return combine_portfolio(results, self.bar_ms, risk, together)

    def _shares(
        self, loaded: Mapping[str, CoinData], weights: Mapping[str, float] | str
    ) -> dict[str, float]:
        """Return each coin's capital, quote."""
        if weights == EQUAL:
            chosen = equal_weights(list(loaded))
        elif weights == BY_VOLATILITY:
            chosen = volatility_weights({coin: start_volatility(x) for coin, x in loaded.items()})
        elif isinstance(weights, str):
            raise ConfigError(f"--allocate {weights} must be {EQUAL} or {BY_VOLATILITY}")
        else:
            chosen = given_weights(list(loaded), weights)
        return shares_of(self.params.initial_capital, chosen)

    def _with_capital(self, capital: float) -> BacktestSimulator:
        other = copy(self)
        other.params = replace(self.params, initial_capital=capital)
        other.also = None  # bands of a coin by itself would be of another run
        return other

    def coin_names(self, coins: Sequence[str] | str | None = None) -> list[str]:
        """Return the base coins of ``coins`` (None: of the settings), each once.

        Raises:
            DataError: a name cannot be read.
            ConfigError: there are none.
        """
        given = self.settings["coins"] if coins is None else coins
        given = given if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        names = list(dict.fromkeys(normalize_coin(coin) for coin in given))
        if not names:
            raise ConfigError("coins is empty; must name at least one, such as BTC")
        return names

    def load(self, coin: str, start: When = None, end: When = None) -> CoinData:
        """Return what ``run_single`` would read, without running; arguments and errors as there."""
        return self._load(normalize_coin(coin), *self._range(start, end))

    def _range(self, start: When, end: When) -> tuple[int, int]:
        start_ms = parse_time(start or self.settings["start"], "start")
        end = end or self.settings["end"]
        latest_ms = self.source.latest_ms()
        end_ms = min(parse_time(end, "end"), latest_ms) if end else latest_ms
        if end_ms <= start_ms:
            raise ConfigError(
                f"end = {format_time(end_ms)} must be after start = {format_time(start_ms)}"
            )
        return start_ms, end_ms

    def _load(self, coin: str, start_ms: int, end_ms: int) -> CoinData:
        span_ms = start_ms - self.settings["warmup_bars"] * self.bar_ms, end_ms
        market = self._market(coin, span_ms)
        check_candles(market.candles, f"candles of {coin}", market.bar_ms)
        check_funding(market.funding, f"funding of {coin}")
        if market.detail is not None and not market.detail.empty:
            check_candles(market.detail, f"finer candles of {coin}", None)
        times = market.candles["timestamp"].to_numpy()
        first = int(np.searchsorted(times, start_ms))
        _check_count(market, times[first:], start_ms, end_ms)
        rules, notice = choose_rules(coin, market, self.settings["markets"])
        return CoinData(market, rules, first, span_ms, notice)

    def _market(self, coin: str, span_ms: tuple[int, int]) -> MarketData:
        timeframe = self.settings["timeframe"]
        try:
            return self.source.load(coin, *span_ms, timeframe=timeframe, detail=self.detail)
        except DataError as error:
            if f"no {timeframe} candles" in str(error):
                raise DataError(f"{error}{self.how.no_candles}") from None
            raise

    def not_read(self, coins: Sequence[str]) -> list[str]:
        """Return lines about files of the source that a run of ``coins`` passes over."""
        kinds = [self.settings["timeframe"], *([self.detail] if self.detail else [])]
        return self.source.not_read(coins, kinds) if self.source.not_read else []

    def prepare(self, loaded: CoinData) -> Prepared:
        """Return a coin's data with everything that its runs share."""
        return Prepared(loaded, self.how.variants(loaded, self.params))

    def _run(self, coin: str, start_ms: int, end_ms: int, unread: Sequence[str]) -> CoinResult:
        ready = self.prepare(self._load(coin, start_ms, end_ms))
        run = ready.variants.central(self.params, ready.variants.sub_bars(ready.data.market.detail))
        return self.result_of(coin, ready, run, (start_ms, end_ms), unread)

    def result_of(
        self,
        coin: str,
        ready: Prepared,
        run: tuple[Any, RunResult],
        span_ms: tuple[int, int],
        unread: Sequence[str],
    ) -> CoinResult:
        """Return the result of a coin's run: of the bars traded, with all there is to know.

        Args:
            coin: its name.
            ready: as ``prepare`` answers.
            run: the strategy as it stands at the end, and what the engine answered.
            span_ms: first bar asked for and the end, ms UTC.
            unread: lines about files that were passed over.
        """
        loaded, variants, (strategy, result) = ready.data, ready.variants, run
        market, rules, first = loaded.market, loaded.rules, loaded.first_bar
        notices = self.how.notices(coin, strategy, loaded, result)
        facts = data_facts(
            market, first, self.settings["timeframe"], self.detail, result.funding_source
        )
        return CoinResult(
            coin=coin,
            run=result.from_bar(first),
            candles=variants.candles.iloc[first:].reset_index(drop=True),
            params=self.params,
            market=rules,
            data=facts | loaded_range(*loaded.span_ms) | self._missing(loaded, *span_ms),
            fingerprint=self.spec.fingerprint,
            notices=[*loaded.notices, *notices, *self._rounding(coin, loaded), *unread],
            strategy=self.spec.name,
            more=self.also(variants, result) if self.also is not None else {},
        )

    def _rounding(self, coin: str, loaded: CoinData) -> list[str]:
        if not isinstance(self.params, StrategyParams):
            return []
        price = float(loaded.market.candles["open"].iloc[loaded.first_bar])
        return rounding_notices(coin, self.params, loaded.rules, price)

    def _missing(self, loaded: CoinData, start_ms: int, end_ms: int) -> dict[str, int]:
        """Return how many bars there should have been and are not: to warm up, and to trade."""
        times = loaded.market.candles["timestamp"].to_numpy()
        first = -(-start_ms // self.bar_ms)
        traded, last = times[loaded.first_bar :] // self.bar_ms, end_ms // self.bar_ms
        return {
            "warmup_missing": max(0, self.settings["warmup_bars"] - loaded.first_bar),
            "range_missing": last - first - len(traded),
            "missing_before": max(0, int(traded[0]) - first) if len(traded) else 0,
            "missing_after": max(0, last - int(traded[-1]) - 1) if len(traded) else 0,
        }


def _split_settings(
    given: Mapping[str, Any], strategy: StrategySpec
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the complete settings, and the strategy parameters found among ``given``."""
    settings: dict[str, Any] = dict(BACKTEST_CONFIG)
    overrides: dict[str, Any] = {}
    for key, value in given.items():
        if key == "markets":
            settings["markets"] = {**settings["markets"], **value}
        elif key in settings:
            settings[key] = value
        elif key in strategy.defaults:
            overrides[key] = value
        else:
            known = {**settings, **strategy.defaults}
            raise ConfigError(unknown_key(key, known, "backtest setting"))
    bars = settings["warmup_bars"]
    if isinstance(bars, bool) or not isinstance(bars, int) or bars < 0:
        raise ConfigError(f"warmup_bars = {bars!r} must be a whole number of bars, at least 0")
    return settings, overrides


def choose_rules(
    coin: str, market: MarketData, known: Mapping[str, Mapping[str, Any]]
) -> tuple[MarketRules, str | None]:
    """Return a coin's rules: the configured ones, the source's, or inferred ones with a notice.

    Args:
        coin: base coin.
        market: its data; its margin brackets are used unless configured ones are there.
        known: ``BACKTEST_CONFIG['markets']``.

    Raises:
        ConfigError: the configured rules are unusable.
    """
    values, notice = known.get(coin) or market.rules, None
    if values:
        rules = MarketRules.from_dict(values)
    else:
        price = float(market.candles["close"].iloc[0])
        rules = MarketRules.inferred(price)
        notice = (
            f"{coin}: exchange rules are not known and were inferred from the price {price:g}: "
            f"tick {rules.tick_size:g}, lot {rules.step_size:g}, minimum "
            f"{rules.min_notional:g} USDT; put the real ones into BACKTEST_CONFIG['markets']"
        )
    if market.brackets and "brackets" not in (values or {}):
        rules = replace(rules, brackets=market.brackets)
    return rules, notice


def _check_count(market: MarketData, times: Any, start_ms: int, end_ms: int) -> None:
    if len(times) < MIN_CANDLES:
        raise DataError(
            f"Insufficient data for {market.coin}: {len(times)} candles between "
            f"{format_time(start_ms)} and {format_time(end_ms)}, at least {MIN_CANDLES} needed"
            f"{''.join(f'; {notice}' for notice in market.notices)}"
        )
