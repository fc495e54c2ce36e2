"""Binance USDT-margined futures, as the runner sees an exchange.

The calls are in the base classes, by subject; each builds on the one before:

    executor_market    rules, candles, prices, funding rates; without keys
    executor_account   modes, positions, wallet, trades, funding paid
    executor_orders    orders sent and looked up
    executor_cancels   orders cancelled

Under them ``executor_client`` sends every request (time, limits, retries) and
``executor_transport`` is ccxt. Nothing else knows ccxt, but ``exchange_errors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import requests

from config import LIVE_CONFIG
from core.errors import ConfigError
from live.exchange.cancels import CancelCalls
from live.exchange.connection import Connection
from live.exchange.port import Clock
from live.exchange.replies.account import QUOTE
from live.exchange.types import Usage

STOP_TRIGGERS: Final = ("CONTRACT_PRICE", "MARK_PRICE")


class BinanceExecutor(CancelCalls):
    """One symbol on one account, in hedge mode. Implements ``live.exchange.port.Exchange``."""

    def __init__(
        self,
        coin: str,
        *,
        api_key: str = "",
        api_secret: str = "",
        testnet: bool = False,
        clock: Clock,
        session: requests.Session | None = None,
        settings: Mapping[str, Any] = LIVE_CONFIG,
    ) -> None:
        """Ask nothing yet.

        Args:
            coin: such as BTC.
            api_key: '' for public data only.
            api_secret: likewise.
            testnet: demo trading instead of real money.
            clock: all times come from it and all waiting goes through it.
            session: HTTP session; None takes a new one.
            settings: ``LIVE_CONFIG``.

        Raises:
            ConfigError: ``stop_trigger`` is no price the exchange watches.
        """
        self.working_type = settings["stop_trigger"]
        if self.working_type not in STOP_TRIGGERS:
            raise ConfigError(
                f"stop_trigger = {self.working_type!r} must be one of {', '.join(STOP_TRIGGERS)}"
            )
        symbol = f"{coin}{QUOTE}"
        connection = Connection(
            api_key=api_key,
            api_secret=api_secret,
            testnet=testnet,
            clock=clock,
            session=session,
            settings=settings,
            seed=f"{settings['instance']}{symbol}",
        )
        super().__init__(connection, symbol)

    def usage(self) -> Usage:
        """Return what the last replies told about limits and clock; asks nothing."""
        return self._connection.usage()
