"""``--check-deadman``: the command sees what the simulated exchange's countdown takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from live.commands.check_deadman import COUNTDOWN_MS, LEAVES, TAKES
from live.simulated.faults import FaultKind
from tests.support.markets.synthetic import RULES
from tests.support.processes.live_command import START_BAR, Stage, open_stage, stage_candles

CHECK = ("--check-deadman", "--testnet")
CONTROL = "ETHUSDT"


@pytest.fixture
def stage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    """Return a command line on an account with both coins."""
    with open_stage(tmp_path, monkeypatch, capsys) as opened:
        candles = stage_candles().copy()
        opened.exchange.add_symbol(candles, coin="ETH", rules=RULES, start_bar=START_BAR)
        yield opened


def assert_nothing_is_left(stage: Stage) -> None:
    """No order, no position, no countdown, and no file but the locks."""
    for market in stage.exchange.markets.values():
        assert not market.book.open_orders
        assert not market.book.open_stops
        assert not market.walk.countdown_ms
        assert market.account.is_flat
    assert {Path(name).suffix for name in stage.paths()} == {".lock"}


@pytest.mark.parametrize(("takes_stops", "verdict"), [(False, LEAVES), (True, TAKES)])
def test_it_says_whether_the_countdown_takes_stops(
    stage: Stage, takes_stops: bool, verdict: str
) -> None:
    stage.exchange.market.walk.countdown_takes_stops = takes_stops
    code, out, err = stage.run(*CHECK)
    assert (code, err) == (0, "")
    state = "gone" if takes_stops else "still there"
    assert f"BTCUSDT: the limit order is gone, the stop is {state}\n" in out
    assert "ETHUSDT: the limit order is still there, the stop is still there\n" in out
    assert out.splitlines()[-1] == verdict
    (limit,) = stage.exchange.market.book.orders.values()
    assert limit.updated_ms - limit.ts_ms >= COUNTDOWN_MS
    assert_nothing_is_left(stage)


def test_the_coins_can_be_exchanged(stage: Stage) -> None:
    stage.exchange.markets[CONTROL].walk.countdown_takes_stops = True
    code, out, _ = stage.run("--check-deadman", "--testnet", "--control", "ETH/USDT")
    assert code == 0
    assert out.splitlines()[-1] == LEAVES
    assert_nothing_is_left(stage)


@pytest.mark.parametrize("of_tested_too", [False, True])
def test_where_the_exchange_cancels_stops_by_itself_nothing_is_learnt(
    stage: Stage, of_tested_too: bool
) -> None:
    names = ["BTCUSDT", CONTROL] if of_tested_too else [CONTROL]

    def cancel() -> None:
        for name in names:
            stage.exchange.markets[name].book.cancel_all_stops(stage.exchange.stamp_ms)

    stage.clock.actions.append((stage.clock.now_ms() + 20_000, cancel))
    code, out, err = stage.run(*CHECK)
    assert code == 2
    assert "ETHUSDT: the limit order is still there, the stop is gone\n" in out
    assert "nothing was learnt: orders of ETHUSDT are gone without a countdown" in err
    assert_nothing_is_left(stage)


def test_a_countdown_that_takes_nothing_is_an_error(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        stage.exchange.market.book,
        "cancel_all",
        lambda now_ms: None,  # noqa: ARG005 - a double
    )
    code, _, err = stage.run(*CHECK)
    assert code == 2
    assert "the countdown did NOT take the limit order of BTCUSDT" in err


def test_an_account_in_use_is_not_touched(stage: Stage) -> None:
    stage.exchange.hand_trade("LONG", "BUY", 0.05)
    code, _, err = stage.run(*CHECK)
    assert code == 2
    assert "BTCUSDT has open LONG, which this check must not touch" in err
    assert stage.held() == {"LONG": 0.05, "SHORT": 0.0}
    assert len(stage.exchange.market.book.orders) == 1


def test_an_order_that_is_refused_leaves_nothing_behind(stage: Stage) -> None:
    stage.exchange.markets[CONTROL].entry.restriction.max_open_stops = 0
    code, _, err = stage.run(*CHECK)
    assert code == 2
    assert "ETHUSDT: the stop is not taken" in err
    assert_nothing_is_left(stage)


def test_what_may_be_left_is_said(stage: Stage) -> None:
    stage.clock.actions.append(
        (stage.clock.now_ms() + 15_000, lambda: stage.exchange.faults.rate(FaultKind.DROP, 1.0))
    )
    code, _, err = stage.run(*CHECK)
    assert code == 2
    assert "look at the exchange's page: the countdown of BTCUSDT, the limit order of" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--check-deadman"], "it needs --testnet"),
        (["--check-deadman", "--testnet", "--dry-run"], "it needs --testnet"),
        (["--control", "ETH"], "--control needs --check-deadman"),
        ([*CHECK, "--control", "btc"], "--control btc must be another coin than --coin"),
    ],
)
def test_it_is_refused_but_with_play_money(
    stage: Stage, arguments: list[str], message: str
) -> None:
    code, out, err = stage.run(*arguments)
    assert (code, out) == (2, "")
    assert message in err
    assert not stage.exchange.faults.requests
    assert not stage.paths()
