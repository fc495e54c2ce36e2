"""``main.py --audit``: rebuilds a run from its files and the candles, without the engine.

Reads ``{COIN}_trades.csv`` and ``{COIN}_summary.json``, loads the same candles and funding rates
again, and goes through the records in order: could this have happened, and does the account that
follows from it end where the summary says? Nothing here, nor in the modules it uses, comes from
``engine`` or ``core`` but the exceptions: an error there cannot hide itself here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from backtest.audit.files import Finding, Summary, coins_in, read_summary, read_trades
from backtest.audit.fixed_grid import FIXED_NOT_CHECKED, FixedAudit
from backtest.audit.market import audit_bars
from backtest.audit.portfolio import NOT_CHECKED as PORTFOLIO_NOT_CHECKED
from backtest.audit.portfolio import CoinAccount, check_portfolio, read_portfolio
from backtest.audit.summary import NOT_CHECKED, check_summary
from backtest.audit.trades import PRICES_CHECKED, TradeAudit
from backtest.market.market_data import MarketData, normalize_coin
from backtest.market.sources import DEMO, EXCHANGE, MarketSource, market_source
from backtest.market.timeframes import format_time, parse_time
from config import BACKTEST_CONFIG
from core.errors import ConfigError, DataError

EXIT_FOUND: Final = 1
PORTFOLIO: Final = "portfolio"
_FILES_PREFIX: Final = "files in "
_FLAGS: Final[Mapping[str, str]] = {
    DEMO: "--demo",
    "files": "--data DIR",
    EXCHANGE: "neither --demo nor --data",
}


@dataclass(frozen=True, kw_only=True)
class AuditRequest:
    """An audit as asked for on the command line.

    Attributes:
        coins: in any spelling; None: every coin whose summary lies in the folder.
        source: ``exchange``, ``demo``, the path of a folder, or a MarketSource.
        folder: of the run's files; None: from the settings.
        start: UTC date the run must have started at, or None.
        end: UTC date the run must have ended at, or None.
        detail: finer candles the run must have walked, or None.
        params: parameters the run must have had, as plain values.
        as_json: print one JSON document.
    """

    coins: list[str] | None
    source: MarketSource | str | Path
    folder: Path | None
    start: str | None
    end: str | None
    detail: str | None
    params: Mapping[str, Any]
    as_json: bool = False


@dataclass(frozen=True)
class AuditReport:
    """The checks of one coin, and the first fault.

    Attributes:
        lines: what was checked, with counts.
        finding: the first thing that is wrong, None if nothing is.
        not_checked: what an audit cannot tell.
        account: rebuilt from the records, None where they cannot be followed to the end.
    """

    lines: list[str]
    finding: Finding | None
    not_checked: list[str] = field(default_factory=lambda: list(NOT_CHECKED))
    account: CoinAccount | None = None

    def document(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {
            "lines": self.lines,
            "finding": asdict(self.finding) if self.finding is not None else None,
            "not_checked": self.not_checked,
        }


def run_audit(request: AuditRequest) -> int:
    """Audit the runs asked for and print what was checked.

    Returns:
        The exit code: 0, or 1 where something is wrong.

    Raises:
        ConfigError: the flags contradict the files.
        DataError: files are missing or damaged, or the candles are not those of the run.
        NetworkError: the exchange cannot be reached and the cache has not everything.
    """
    settings: Mapping[str, Any] = BACKTEST_CONFIG
    folder = request.folder or Path(settings["output_dir"])
    names = request.coins if request.coins is not None else coins_in(folder)
    coins = list(dict.fromkeys(normalize_coin(name) for name in names))
    if not coins:
        raise DataError(
            f"{folder}: holds no {{COIN}}_summary.json; run the backtest first, or name the folder "
            "of its files with --output DIR"
        )
    source = market_source(request.source, Path(settings["cache_dir"]))
    reports: dict[str, AuditReport] = {}
    for coin in coins:
        summary = read_summary(folder / f"{coin}_summary.json")
        _check_flags(coin, summary, request)
        market = load_again(summary, source)
        audit = _AUDITS.get(summary.strategy)
        if audit is None:
            raise DataError(
                f"{coin}: its summary names the strategy {summary.strategy!r}, which an audit does "
                f"not know (it knows {', '.join(_AUDITS)}); run the backtest again"
            )
        reports[coin] = audit(folder / f"{coin}_trades.csv", summary, market)
        if not request.as_json:
            _print(coin, folder, reports[coin])
    group = audit_portfolio(folder, reports, named=request.coins is not None)
    if group is not None:
        reports[PORTFOLIO] = group
        if not request.as_json:
            _print(PORTFOLIO, folder, group)
    if request.as_json:
        _say(json.dumps({name: report.document() for name, report in reports.items()}, indent=2))
    passed = all(report.finding is None for report in reports.values())
    return 0 if passed else EXIT_FOUND


def load_again(summary: Summary, source: MarketSource) -> MarketData:
    """Return the market data a run has read, hash compared.

    Raises:
        DataError: it is not the data the run has read, or cannot be had.
    """
    data = summary.data
    market = source.load(
        summary.coin,
        parse_time(data["loaded_from"], "data.loaded_from"),
        parse_time(data["loaded_to"], "data.loaded_to"),
        timeframe=data["timeframe"],
        detail=data["detail"],
    )
    if market.data_hash != data["hash"]:
        raise DataError(
            f"{summary.coin}: the candles and funding rates from {data['loaded_from']} to "
            f"{data['loaded_to']} have the hash {market.data_hash}, those of the run had "
            f"{data['hash']}; name the run's own --data folder, or run the backtest again"
        )
    return market


def audit_coin(trades: Path, summary: Summary, market: MarketData) -> AuditReport:
    """Check one coin's files against its market data.

    Args:
        trades: the trades file.
        summary: the sections of the summary file.
        market: as ``load_again`` answers it.

    Raises:
        DataError: there is no trades file.
    """
    data, first = summary.data, int(summary.data["warmup_bars"])
    counts = f"{len(market.candles):,} candles and {len(market.funding):,} funding rates"
    lines = [f"{counts}: hash {data['hash']}"]
    if not 0 <= first < len(market.candles):
        candles = f"less than the {len(market.candles)} candles"
        return AuditReport(
            lines, Finding("data.warmup_bars", str(first), "it leaves no bar to trade", candles)
        )
    bars = audit_bars(market, first)
    edges = {
        "data.start": format_time(int(bars.ts_ms[0])),
        "data.end": format_time(int(bars.ts_ms[-1]) + market.bar_ms),
        "data.bars": len(bars),
    }
    for key, expected in edges.items():
        found = data[key.removeprefix("data.")]
        if found != expected:
            wrong = "it is not what the candles say"
            return AuditReport(lines, Finding(key, repr(found), wrong, repr(expected)))
    audit, records = TradeAudit(bars, summary), read_trades(trades)
    finding = audit.run(records, f"{summary.coin} audit")
    if finding is not None:
        lines.append(f"{(finding.number or 1) - 1:,} rows before it: nothing wrong")
        return AuditReport(lines, finding)
    compared, finding = check_summary(summary, audit.ledger, bars)
    return AuditReport(
        [*lines, *_checked(audit, len(records.rows), compared)],
        finding,
        account=CoinAccount(summary, audit.ledger, bars),
    )


def audit_fixed_coin(trades: Path, summary: Summary, market: MarketData) -> AuditReport:
    """Check one coin's files of a fixed grid; arguments and errors as of ``audit_coin``."""
    counts = f"{len(market.candles):,} candles and {len(market.funding):,} funding rates"
    lines = [f"{counts}: hash {summary.data['hash']}"]
    audit = FixedAudit(summary, market)
    finding = audit.run(trades)
    lines.append(f"{audit.checked:,} rows: time, price, fee, profit, distance, size and caps")
    if finding is None:
        compared, finding = audit.check_figures()
        lines.append(f"{compared} figures follow from {len(audit.nets):,} cycles and funding")
    modelled = ["funding_pnl: rates were modelled where none are on record"]
    unknown = modelled if audit.funding_is_modelled else []
    return AuditReport(lines, finding, [*FIXED_NOT_CHECKED, *unknown])


_AUDITS: Final[Mapping[str, Callable[[Path, Summary, MarketData], AuditReport]]] = {
    "grid_v4": audit_coin,
    "fixed_grid": audit_fixed_coin,
}


def audit_portfolio(
    folder: Path, reports: Mapping[str, AuditReport], *, named: bool
) -> AuditReport | None:
    """Check the portfolio in ``folder`` against its coins' accounts.

    Args:
        folder: of the run's files.
        reports: of the coins, by coin.
        named: the coins were named by the person, so others are left alone.

    Returns:
        None where there is no portfolio, or it holds coins that were not to be audited.

    Raises:
        DataError: its summary is damaged.
    """
    portfolio = read_portfolio(folder)
    if portfolio is None:
        return None
    coins = [str(coin) for coin in portfolio["coins"]]
    absent = [coin for coin in coins if coin not in reports]
    if absent:
        wrong = f"there is no summary of {', '.join(absent)}"
        found = Finding("coins", ", ".join(coins), wrong, "coins whose files are here")
        return None if named else AuditReport([], found, not_checked=[])
    accounts = [account for coin in coins if (account := reports[coin].account) is not None]
    broken = [coin for coin in coins if reports[coin].finding is not None]
    if len(accounts) < len(coins) and not broken:
        text = f"{PORTFOLIO} of {', '.join(coins)}: its sums over accounts of this strategy"
        return AuditReport([], None, not_checked=[text])
    if broken:
        text = f"{PORTFOLIO} of {', '.join(coins)}: {', '.join(broken)} must be right first"
        return AuditReport([], None, not_checked=[text])
    compared, finding = check_portfolio(portfolio, accounts)
    capitals = " + ".join(f"{account.ledger.wallet:,.2f}" for account in accounts)
    total = sum(account.ledger.wallet for account in accounts)
    line = f"{compared} figures: {', '.join(coins)} add up: {capitals} = {total:,.2f} USDT"
    lines = [line] if finding is None else []
    return AuditReport(lines, finding, not_checked=list(PORTFOLIO_NOT_CHECKED))


def _checked(audit: TradeAudit, n_rows: int, n_figures: int) -> list[str]:
    """Return what was checked, one line each, with counts."""
    ledger = audit.ledger
    pnl = ledger.wallet - ledger.capital + ledger.fees - ledger.funding
    prices = [f"{audit.counts[name]:,} {name}" for name in PRICES_CHECKED.values()]
    account = (
        f"wallet {ledger.capital:,.2f} {pnl:+,.2f} pnl {-ledger.fees:+,.2f} fees "
        f"{ledger.funding:+,.2f} funding = {ledger.wallet:,.2f} USDT"
    )
    return [
        f"{n_rows:,} rows: columns, bar and time, label, side, regime, lot step, fee",
        *(line for line in prices if not line.startswith("0 ")),
        f"{ledger.next_id:,} entries' sizes: share of equity, fills of a side, caps of one and two",
        f"{ledger.round_trips:,} fills opened once and closed whole, pnl recomputed; none left",
        f"{audit.settlements:,} bars with settlements, {len(ledger.payments):,} with a position",
        f"{n_figures:,} figures of the summary; {account}",
    ]


def _check_flags(coin: str, summary: Summary, request: AuditRequest) -> None:
    """Refuse flags that speak of another run than the files."""
    data = summary.data
    origin = str(data["source"])
    made_by = "files" if origin.startswith(_FILES_PREFIX) else DEMO if origin == DEMO else EXCHANGE
    asked = request.source if request.source in {DEMO, EXCHANGE} else "files"
    if made_by != asked and not isinstance(request.source, MarketSource):
        raise ConfigError(f"{coin}: the run has read {origin}; audit it with {_FLAGS[made_by]}")
    for name, asked_for in (("start", request.start), ("end", request.end)):
        if asked_for and parse_time(asked_for, name) != parse_time(data[name], name):
            raise ConfigError(_other_run(coin, name, data[name], asked_for))
    if request.detail not in {None, data["detail"]}:
        raise ConfigError(_other_run(coin, "detail", data["detail"], request.detail))
    for name, value in request.params.items():
        if summary.parameters.get(name) != value:
            raise ConfigError(_other_run(coin, name, summary.parameters.get(name), value))


def _other_run(coin: str, name: str, ran: Any, asked: Any) -> str:
    return (
        f"{coin}: the run had {name} = {ran}, not {asked}; leave it out (an audit takes range and "
        "parameters from the summary), or run the backtest with it first"
    )


def _print(coin: str, folder: Path, report: AuditReport) -> None:
    finding = report.finding
    verdict = "WRONG" if finding else "nothing wrong" if report.lines else "not checked"
    files = [f"{coin}_summary.json"] if coin == PORTFOLIO else [f"{coin}_trades.csv"]
    files += [f"{coin}_summary.json"] if coin != PORTFOLIO else []
    _say(f"{coin}: {folder / files[0]}{''.join(f', {name}' for name in files[1:])}: {verdict}")
    for line in report.lines:
        _say(f"  ok  {line}")
    if finding is not None:
        file = files[-1] if finding.place.count(".") else files[0]
        _say(f"  !!  {file}, {finding.place}: {finding.content}")
        _say(f"      {finding.wrong}")
        _say(f"      expected: {finding.expected}")
    for text in report.not_checked:
        _say(f"  --  not checked: {text}")


def _say(text: str) -> None:
    print(text, flush=True)  # noqa: T201
