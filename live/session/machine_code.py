"""Machine code for live trading: made ready before the first order, not at the first fill."""

from __future__ import annotations

import sys
from typing import Final

from core.market import MarketRules
from core.times import BAR_MS
from engine.book import clear_side, set_stop
from engine.booking import (
    begin_liquidation,
    begin_stop,
    book_entry,
    book_exit,
    book_funding,
    book_side,
    book_take_profit,
)
from engine.compiling import is_compiled, load_machine_code
from engine.grid_v4.decision import move_clock
from engine.grid_v4.protection import has_position
from engine.ledger import close_side, equity_at, find_fill, unrealized_at
from engine.strategy import GridStrategyV4
from engine.types import CLOSE_END, LONG, POSITION_SYNC, SHORT, STOP, sign_of

_PRICE: Final = 100.0


def load_live_code() -> None:
    """Load what a session runs; compile it where that was never done, and say so."""
    if not is_compiled():
        print(  # noqa: T201
            "compiling the strategy: about half a minute, this first time only",
            file=sys.stderr,
            flush=True,
        )
    load_machine_code()
    _rehearse()


def _rehearse() -> None:
    """Book one of everything an exchange can report, on a ledger nobody looks at."""
    strategy = GridStrategyV4(market=MarketRules.inferred(_PRICE))
    state, params, market, tape = (
        strategy.state,
        strategy.frozen_params,
        strategy.rules,
        strategy.tape,
    )
    move_clock(state, 1, BAR_MS)
    book_entry(state, params, market, LONG, 0, 0, _PRICE, 1.0, 0.0, tape)
    book_take_profit(state, params, market, LONG, _PRICE, _PRICE, 0.1, 0.0, tape)
    fill_id = int(state.sides[LONG].fills[0].fill_id)
    if has_position(state) and find_fill(state.sides[LONG], fill_id) >= 0:
        book_exit(state, params, market, LONG, fill_id, _PRICE, 0.1, 0.0, STOP, tape)
    book_funding(state, 0.0, 0.0, _PRICE)
    begin_stop(state, params, LONG)
    set_stop(state, params, market, LONG)
    book_side(state, params, market, LONG, _PRICE, 0.1, 0.0, POSITION_SYNC, tape)
    begin_liquidation(state, params)
    close_side(state, params, market, LONG, _PRICE, CLOSE_END, tape)
    clear_side(state, params, SHORT)
    equity_at(state, _PRICE)
    unrealized_at(state.sides[LONG], sign_of(LONG), _PRICE)
