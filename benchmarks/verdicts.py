"""Measures what the optimizer's verdicts are worth: ``python3 -m benchmarks.verdicts``.

Searches made-up markets in which there is nothing to find (three kinds) and markets with a planted
edge (two strengths), judges each choice as ``optimizer.py`` does, and counts the answers. The rate
of "held" on noise is the chance to be fooled, on planted edges the chance to see what is there.
Every market that is done is a line of the file given with --out: the same command goes on where it
was ended, and counts all lines. A planted market is the walk plus a price that keeps coming back;
how strong that is shows in the choice's annual Sharpe ratio on the holdout, which is printed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.signal import lfilter  # type: ignore[import-untyped]  # no stubs

from backtest.market.market_data import MarketData, slice_time
from backtest.market.sources import MarketSource
from backtest.market.timeframes import format_time, parse_time
from backtest.optimize.judge.final_choice import choose_final
from backtest.optimize.judge.findings import Known, judge_unseen, with_capital, with_repetitions
from backtest.optimize.judge.monte_carlo import permuted_returns
from backtest.optimize.judge.verdict import Answer, judge
from backtest.optimize.search.progress import Searched
from backtest.optimize.search.sampling import BATCH, Sampler
from backtest.optimize.search.study import FinishedTrial, into_space
from backtest.optimize.search.trial_ledger import SeenBefore
from backtest.optimize.trial.prepare import Prepared, prepare
from backtest.optimize.trial.space import Space, read_space
from backtest.simulator import BacktestSimulator
from benchmarks.engine import machine_line
from config import STRATEGY_PARAMS
from core.errors import DataError
from core.times import DAY_MS, HOUR_MS, MINUTE_MS

Floats = npt.NDArray[np.float64]

BAR_MS: Final = 15 * MINUTE_MS
WARMUP_BARS: Final = 3_000
SUB_STEPS: Final = 6
"""Prices inside a bar, so that its high and low are those of a path."""
SIGMA: Final = 0.0028
"""Standard deviation of a bar, about that of BTC."""
JUMP_SHARE: Final = 0.002
"""Of the bars: one in five days."""
COIN: Final = "BTC"
NOISE: Final = ("walk", "clusters", "jumps")
PLANTED: Final = ("weak", "strong")
STRENGTHS: Final[Mapping[str, float]] = {"weak": SIGMA, "strong": 0.005}
"""Standard deviation of a bar of a planted market: the farther the price swings before it comes
back, the more a grid earns of it. A search's choice had an annual Sharpe ratio of about 2 and 4."""
PLANTED_SHARE: Final = 0.99
"""Share of that standard deviation that belongs to the price that comes back."""
MEMORY: Final = 0.98
"""Of that price, per bar: half of a move is gone after 34 bars."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One way to search; markets of other settings in the same file are not counted together."""

    days: int
    trials: int
    windows: int
    seeds: int
    holdout: float
    permutations: int

    def key(self) -> list[Any]:
        """Return the values that make results comparable."""
        return [self.days, self.trials, self.windows, self.seeds, self.holdout, self.permutations]


def made_up_candles(kind: str, seed: int, n_bars: int) -> pd.DataFrame:
    """Return candles on a tick of 0.1 of the market ``kind``, the same for the same seed."""
    rng = np.random.default_rng((seed, [*NOISE, *PLANTED].index(kind)))
    scale = np.full(n_bars, STRENGTHS.get(kind, SIGMA))
    if kind != "walk":  # volatility in clusters of about a day
        kept = 0.5 ** (1.0 / 96.0)
        shocks = rng.normal(0.0, 0.6 * math.sqrt(1.0 - kept**2), n_bars)
        scale *= np.exp(lfilter([1.0], [1.0, -kept], shocks) - 0.6**2)
    fine = rng.normal(0.0, 1.0, (n_bars, SUB_STEPS)) / math.sqrt(SUB_STEPS)
    share = PLANTED_SHARE if kind in PLANTED else 0.0
    path = np.cumsum((fine * (math.sqrt(1.0 - share**2) * scale)[:, None]).ravel())
    if kind == "jumps":
        jumps = np.where(rng.random(n_bars) < JUMP_SHARE, rng.standard_t(3, n_bars) * 0.012, 0.0)
        path += np.repeat(np.cumsum(jumps), SUB_STEPS)
    if share:
        own = rng.normal(0.0, 1.0, (n_bars, SUB_STEPS)) / math.sqrt(SUB_STEPS)
        moves = (own * (share * scale)[:, None]).ravel()
        path += lfilter([1.0], [1.0, -(MEMORY ** (1.0 / SUB_STEPS))], moves)
    prices = 20_000.0 * np.exp(path - path[0]).reshape(n_bars, SUB_STEPS)
    opens = np.concatenate((prices[:1, 0], prices[:-1, -1]))
    columns = {
        "open": opens,
        "high": np.maximum(opens, prices.max(axis=1)),
        "low": np.minimum(opens, prices.min(axis=1)),
        "close": prices[:, -1],
    }
    first = parse_time("2018-01-01", "start")
    return pd.DataFrame(
        {
            "timestamp": first + BAR_MS * np.arange(n_bars),
            **{name: np.maximum(np.round(v * 10.0), 1.0) / 10.0 for name, v in columns.items()},
            "volume": rng.exponential(100.0, n_bars),
        }
    )


def prepared_market(kind: str, seed: int, settings: Settings, space: Space) -> Prepared:
    """Return a made-up market, cut for a search; its funding rate is 0."""
    candles = made_up_candles(kind, seed, WARMUP_BARS + settings.days * DAY_MS // BAR_MS)
    times = candles["timestamp"].to_numpy()
    rates = np.arange(int(times[0]), int(times[-1]), 8 * HOUR_MS)
    funding = pd.DataFrame({"timestamp": rates, "rate": np.zeros(rates.size)})
    market = MarketData(
        coin=COIN, candles=candles, funding=funding, detail=None, bar_ms=BAR_MS, source="made up"
    )

    def load(
        coin: str, start_ms: int, end_ms: int, /, *, timeframe: str, detail: str | None
    ) -> MarketData:
        del coin, timeframe, detail
        return replace(
            market,
            candles=slice_time(candles, start_ms, end_ms),
            funding=slice_time(funding, start_ms, end_ms + 1),
        )

    return prepare(
        BacktestSimulator({}, {"warmup_bars": WARMUP_BARS}, MarketSource(load)),
        space,
        coins=[COIN],
        start=format_time(int(times[WARMUP_BARS])),
        end=format_time(int(times[-1]) + BAR_MS),
        windows=settings.windows,
        holdout=settings.holdout,
    )


def trials_of(prepared: Prepared, space: Space, seed: int, n_trials: int) -> list[FinishedTrial]:
    """Return the trials that the search of one process would keep."""
    sampler, found = Sampler(space.distributions(), seed), list[FinishedTrial]()
    first = into_space(space, STRATEGY_PARAMS)[0]
    for start in range(0, n_trials, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, n_trials)):
            params = sampler.propose(number) if number else first
            ordered = {name: params[name] for name in space.entries}
            batch.append(FinishedTrial(number, ordered, prepared.evaluate(ordered), 0.0))
        for trial in batch:
            sampler.learn(trial.params, trial.outcome.score)
        found += batch
    return found


def verdict_on(kind: str, seed: int, settings: Settings, jobs: int) -> dict[str, Any]:
    """Search one market and return its line of the file."""
    started, space = time.perf_counter(), read_space()
    prepared = prepared_market(kind, seed, settings, space)
    line: dict[str, Any] = {"kind": kind, "seed": seed, "settings": settings.key()}
    trials = trials_of(prepared, space, seed, settings.trials)
    try:
        choice = choose_final(trials, space, prepared.evaluate)
    except DataError:  # every trial was disqualified: nothing is chosen
        seconds = time.perf_counter() - started
        return line | {"answer": Answer.FAILED.value, "checks": {}, "seconds": seconds}
    searched = Searched(
        trials=trials, added=len(trials), interrupted=False, progress=None, jobs=jobs
    )
    known = Known(
        choice=choice,
        baseline_score=prepared.evaluate(with_capital(prepared, STRATEGY_PARAMS)).score,
        walk=None,
        agreement=None,
        sensitivity=None,
        luck=None,
    )
    known = with_repetitions(
        known,
        prepared,
        space,
        searched,
        STRATEGY_PARAMS,
        seed=seed,
        seeds=settings.seeds,
        jobs=jobs,
        stop=None,
    )
    permuted = permuted_returns(
        prepared,
        choice.params,
        n=settings.permutations,
        seed=seed,
        jobs=jobs,
        warmup_bars=WARMUP_BARS,
    )
    unseen = judge_unseen(
        prepared,
        choice.params,
        STRATEGY_PARAMS,
        permuted=permuted,
        before=SeenBefore(),
        warmup_bars=WARMUP_BARS,
    )
    verdict = judge(known, unseen)
    return line | {
        "answer": verdict.answer.value,
        "checks": {check.name: check.answer.value for check in verdict.checks},
        "why": list(verdict.why),
        "holdout_return_pct": unseen.holdout.choice.return_pct,
        "holdout_sharpe": annual_sharpe(unseen.holdout.choice.daily_returns),
        "seconds": time.perf_counter() - started,
    }


def annual_sharpe(daily: Floats) -> float:
    """Return mean over standard deviation of daily returns, annualised; 0 where all are alike."""
    spread = float(daily.std(ddof=1))
    return float(daily.mean()) / spread * math.sqrt(365.0) if spread > 0.0 else 0.0


def wilson(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % interval of a rate (Wilson, Journal of the ASA 22, 1927)."""
    z, rate = 1.96, count / total
    middle = (rate + z * z / (2 * total)) / (1 + z * z / total)
    spread = math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    half = z * spread / (1 + z * z / total)
    return max(middle - half, 0.0), min(middle + half, 1.0)


def summary(lines: Sequence[Mapping[str, Any]]) -> str:
    """Return the rates of all answers, by kind of market and for all noise together."""
    rows = []
    groups = {"all noise": NOISE, **{kind: (kind,) for kind in (*NOISE, *PLANTED)}}
    for name, kinds in groups.items():
        found = [line for line in lines if line["kind"] in kinds]
        if not found:
            continue
        parts = []
        for answer in (Answer.HELD, Answer.UNDECIDED, Answer.FAILED):
            count = sum(line["answer"] == answer.value for line in found)
            low, high = wilson(count, len(found))
            parts.append(f"{answer.value} {count} ({low:.0%} to {high:.0%})")
        sharpes = [line["holdout_sharpe"] for line in found if "holdout_sharpe" in line]
        middle = f", median Sharpe on the holdout {median(sharpes):.2f}" if sharpes else ""
        rows.append(f"{name:10} {len(found):4} markets: {', '.join(parts)}{middle}")
    seconds = [line["seconds"] for line in lines]
    if seconds:
        rows.append(f"{sum(seconds) / len(seconds):.1f} s per market")
    return "\n".join(rows)


def markets(noise: int, planted: int) -> Iterable[tuple[str, int]]:
    """Return kind and seed of every market: noise of all kinds in turn, then both strengths."""
    for kinds, count in ((NOISE, noise), (PLANTED, planted)):
        for k in range(count):
            yield kinds[k % len(kinds)], k // len(kinds)


def read_lines(path: Path, settings: Settings) -> list[dict[str, Any]]:
    """Return the lines of these settings; a torn last one, of a killed run, does not count."""
    lines = []
    for text in path.read_text().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if line["settings"] == settings.key():
            lines.append(line)
    return lines


def append(path: Path, line: Mapping[str, Any]) -> None:
    """Write a line behind all others, also behind a torn one."""
    torn = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with path.open("a") as file:
        file.write(f"{chr(10) if torn else ''}{json.dumps(line)}\n")
        file.flush()
        os.fsync(file.fileno())


def main(argv: list[str] | None = None) -> int:
    """Judge the markets that are missing, and print the rates."""
    parser = argparse.ArgumentParser(description=__doc__.partition(":")[0])
    parser.add_argument("--noise", type=int, default=100, help="noise markets (default: 100)")
    parser.add_argument("--planted", type=int, default=20, help="with an edge (default: 20)")
    parser.add_argument("--days", type=int, default=2_190, help="of a market (default: six years)")
    parser.add_argument("--trials", type=int, default=60, help="of a search (default: 60)")
    parser.add_argument("--windows", type=int, default=3, help="walk-forward windows (default: 3)")
    parser.add_argument("--seeds", type=int, default=3, help="searches compared (default: 3)")
    parser.add_argument("--holdout", type=float, default=0.15, help="share (default: 0.15)")
    parser.add_argument("--mc-perms", type=int, default=50, help="permutations (default: 50)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument(
        "--out", type=Path, default=Path("verdicts.jsonl"), metavar="FILE", help="a line a market"
    )
    args = parser.parse_args(argv)
    settings = Settings(
        days=args.days,
        trials=args.trials,
        windows=args.windows,
        seeds=args.seeds,
        holdout=args.holdout,
        permutations=args.mc_perms,
    )
    print(machine_line())
    lines = read_lines(args.out, settings)
    done = {(line["kind"], line["seed"]) for line in lines}
    for kind, seed in markets(args.noise, args.planted):
        if (kind, seed) not in done:
            line = verdict_on(kind, seed, settings, args.jobs)
            append(args.out, line)
            lines.append(line)
            sharpe = line.get("holdout_sharpe", math.nan)
            print(
                f"{kind} {seed}: {line['answer']}, Sharpe on the holdout {sharpe:.2f}, "
                f"{line['seconds']:.0f} s",
                flush=True,
            )
    print(summary(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
